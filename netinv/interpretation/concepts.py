"""What single units of a dictionary stand for: who fires them, what they do, where they look, what is made for them."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from netinv.generators import ConditionedGenerator
from netinv.interpretation.autoencoder import SparseAutoencoder
from netinv.interpretation.measures import Seen
from netinv.interpretation.sites import Site

STARTS = 4
"""Generated images, those that fire a unit most, from which the ascent to the image made for it begins."""
ASCENT_LR = 0.1
"""Of Adam, on latents and on the logarithms of conditions."""
TINY = 1e-4
"""Added to strengths before their logarithm."""
WINDOWS = 7
"""Places of the grey window along each side of an image."""


class Pool(NamedTuple):
    """Generated images, and what each was drawn from. All on the CPU."""

    seen: Seen
    latent: Tensor
    """(N, Z)."""
    vector: Tensor
    """Conditions, (N, K)."""
    source: Tensor
    """Which of the generators drew it, (N,), int64."""


class Made(NamedTuple):
    """Images made for units."""

    images: Tensor
    """(U, C, H, W) in [0, 1]."""
    strength: Tensor
    """How strongly each fires its unit, (U,)."""
    purity: Tensor
    """Share of all units' strengths that is its unit's own, (U,)."""


class Effect(NamedTuple):
    """What happens when a unit is switched off."""

    logits: Tensor
    """Mean of the logits with it less those without it over the images that fire it, (K,)."""
    lost: Tensor
    """Images of each class that are then no longer read as asked, counts (K,)."""


def carriers(strength: Tensor, label: Tensor, num_classes: int, num: int) -> list[int]:
    """Units that carry the classes, in the order of the classes, each once.

    Each class in turn takes the unit that fires most for it compared with all images, until there are ``num`` units.

    Args:
        strength: (N, U).
        label: (N,).
        num_classes: K.
        num: How many at most; units that never fire are not among them.
    """
    by_class = torch.stack(
        [strength[label == k].mean(dim=0) if (label == k).any() else 0 * strength[0] for k in range(num_classes)]
    )
    surplus = by_class - strength.mean(dim=0)  # (K, U)
    chosen: list[list[int]] = [[] for _ in range(num_classes)]
    left = num
    while left:
        before = left
        for k in range(num_classes):
            unit = int(surplus[k].argmax())
            if left and surplus[k, unit] > 0:
                chosen[k].append(unit)
                surplus[:, unit] = 0
                left -= 1
        if left == before:
            break
    return [unit for units in chosen for unit in units]


def shares(strength: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """How what a unit fires on is divided among classes, (K,), by its strengths (N,); all 0 if it never fires."""
    mass = torch.zeros(num_classes).index_add(0, label, strength.float())
    return mass / mass.sum().clamp(min=1e-12)


@torch.no_grad()
def switch_off(site: Site, model: SparseAutoencoder, unit: int, seen: Seen, strength: Tensor) -> Effect:
    """What a unit does, found by taking its part away from the activations, and nothing else.

    Args:
        site: Where the activations are.
        model: The dictionary.
        unit: Which one.
        seen: Images with their labels.
        strength: The unit's on each of them, (N,): only where it fires can anything change.
    """
    device = site.classifier.device
    direction = model.directions[unit].to(device)

    def without(rows: Tensor) -> Tensor:
        code = model.encode(rows.flatten(0, 1))[:, unit]
        return rows - (code[:, None] * direction).view_as(rows)

    firing = (strength > 0).nonzero().flatten()
    num_classes = site.classifier.num_classes
    total, lost = torch.zeros(num_classes), torch.zeros(num_classes)
    for index in torch.split(firing, site.batch) if len(firing) else ():
        batch, wanted = seen.images[index].to(device), seen.label[index]
        before = site.classifier(batch).cpu()
        after = site.logits_with(batch, without).cpu()
        total += (before - after).sum(dim=0)
        newly_wrong = (before.argmax(dim=1) == wanted) & (after.argmax(dim=1) != wanted)
        lost += torch.zeros(num_classes).index_add(0, wanted, newly_wrong.float())
    return Effect(total / max(len(firing), 1), lost)


@torch.no_grad()
def heat_maps(site: Site, model: SparseAutoencoder, images: Tensor, units: list[int], grey: Tensor) -> Tensor:
    """Where each unit looks: how much of its strength goes when a window of an image is covered.

    Occlusion (Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014): it asks the network
    itself, where gradients tell of infinitely small changes only.

    Args:
        site: Where the activations are.
        model: The dictionary.
        images: One for each unit, (U, C, H, W).
        units: Which ones.
        grey: What the window shows, (C, 1, 1): the images' mean.

    Returns:
        (U, H, W): share of the strength that is lost, mean over the windows that cover a pixel, in [0, 1].
    """
    height, width = images.shape[2:]
    tall, wide = (max(1, -(-2 * side // WINDOWS)) for side in (height, width))
    corners = [(round(i), round(j)) for i in _places(height, tall) for j in _places(width, wide)]
    maps = []
    for image, unit in zip(images, units, strict=True):
        covered = image.repeat(len(corners) + 1, 1, 1, 1)
        for n, (i, j) in enumerate(corners):
            covered[n, :, i : i + tall, j : j + wide] = grey
        strength = torch.cat([answers(site, model, part)[:, unit].cpu() for part in torch.split(covered, site.batch)])
        drop = (1 - strength[:-1] / strength[-1].clamp(min=1e-12)).clamp(0, 1)
        total, count = torch.zeros(height, width), torch.zeros(height, width)
        for value, (i, j) in zip(drop, corners, strict=True):
            total[i : i + tall, j : j + wide] += value
            count[i : i + tall, j : j + wide] += 1
        maps.append(total / count.clamp(min=1))
    return torch.stack(maps)


def _places(side: int, window: int) -> list[float]:
    """First pixels of windows that cover a side evenly."""
    num = min(WINDOWS, side - window + 1)
    return [k * (side - window) / max(num - 1, 1) for k in range(num)]


def answers(site: Site, model: SparseAutoencoder, images: Tensor) -> Tensor:
    """How strongly images answer to every unit at the position where they do so most, (N, U), before the choice."""
    _, rows = site.activations(images.to(site.classifier.device))
    strength: Tensor = model.pre(rows.flatten(0, 1)).view(*rows.shape[:2], -1).amax(dim=1)
    return strength


def make_images(
    site: Site,
    model: SparseAutoencoder,
    generators: list[ConditionedGenerator],
    pool: Pool,
    strength: Tensor,
    units: list[int],
    steps: int,
) -> Made:
    """An image for each unit that fires it, and as little else as can be.

    Latent and condition climb the gradient of log(s_u) + log(s_u / sum_v s_v), with s the strengths of all units,
    through classifier and generator: what comes is an image that the generator can draw. Latents keep their lengths, as
    most of a normal distribution lies near one. Each unit starts from the generated images that fire it most; the best
    of what these come to is kept, and the start itself where nothing is better.

    Args:
        site: Where the activations are.
        model: The dictionary.
        generators: Those that drew the pool.
        pool: Where to start.
        strength: Of its images, (N, U).
        units: Which ones.
        steps: Of the ascent.
    """
    starts = strength[:, units].topk(min(STARTS, len(strength)), dim=0).indices.T.flatten()  # (U * STARTS,)
    owners = torch.arange(len(units)).repeat_interleave(len(starts) // len(units))
    best = torch.full((len(units),), -torch.inf)
    images = torch.zeros(len(units), *site.classifier.image_shape)
    strengths, purities = torch.zeros(len(units)), torch.zeros(len(units))
    for g, generator in enumerate(generators):
        own = (pool.source[starts] == g).nonzero().flatten()
        for part in torch.split(own, site.batch) if len(own) else ():
            index, owner = starts[part], owners[part]
            wanted = torch.tensor(units)[owner]
            for drawn, found in _ascend(site, model, generator, pool.latent[index], pool.vector[index], wanted, steps):
                single = found.gather(1, wanted[:, None])[:, 0]
                purity = single / found.sum(dim=1).clamp(min=TINY)
                score = _score(found, wanted)
                for n in score.argsort(descending=True).tolist():
                    u = int(owner[n])
                    if score[n] > best[u]:
                        best[u], images[u], strengths[u], purities[u] = score[n], drawn[n], single[n], purity[n]
    return Made(images, strengths, purities)


def _score(strength: Tensor, wanted: Tensor) -> Tensor:
    """What is climbed, (N,)."""
    single = strength.gather(1, wanted[:, None].to(strength.device))[:, 0]
    return 2 * torch.log(single + TINY) - torch.log(strength.sum(dim=1) + TINY)


def _ascend(
    site: Site,
    model: SparseAutoencoder,
    generator: ConditionedGenerator,
    latent: Tensor,
    vector: Tensor,
    wanted: Tensor,
    steps: int,
) -> list[tuple[Tensor, Tensor]]:
    """Images (N, C, H, W) and strengths (N, U) at the start and at the end of the ascent, on the CPU."""
    device = site.classifier.device
    generator = copy.deepcopy(generator).to(device).eval()  # the caller's stays where it is, in its own mode
    z = latent[:, : generator.config.latent_dim].to(device).clone().requires_grad_()
    logits = vector.to(device).clamp(min=1e-6).log().requires_grad_()
    length = z.detach().norm(dim=1, keepdim=True)
    optimiser = torch.optim.Adam([z, logits], lr=ASCENT_LR)
    found = []
    for step in range(steps + 1):
        images = generator(z, torch.softmax(logits, dim=1))
        strength = answers(site, model, images)
        if step in (0, steps):
            found.append((images.detach().cpu(), strength.detach().cpu()))
        if step < steps:
            z.grad, logits.grad = torch.autograd.grad(-_score(strength, wanted).sum(), [z, logits])
            optimiser.step()
            with torch.no_grad():
                z.mul_(length / z.norm(dim=1, keepdim=True).clamp(min=1e-12))
    return found
