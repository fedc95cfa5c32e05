"""How well a dictionary stands for a classifier's activations, and how alike two dictionaries are."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from netinv.interpretation.autoencoder import SparseAutoencoder
from netinv.interpretation.sites import Site
from netinv.results import MIN_SAMPLES, Bootstrap, Measure, NotMeasured, spread_estimate

Floats = NDArray[np.float64]
LITTLE = 1e-6
"""A mean loss that rounding may make: below it there is nothing to recover."""


class Seen(NamedTuple):
    """Images with their labels, and what the classifier and the evaluator make of them. All on the CPU."""

    images: Tensor
    """(N, C, H, W) in [0, 1], float32."""
    label: Tensor
    """(N,), int64: what was asked for, or the true class."""
    features: Tensor | None
    """Of the evaluator, (N, E); ``None`` without one."""


class Ablated(NamedTuple):
    """What is lost without a site's activations. Each (N,), float64."""

    loss: Floats
    """Cross-entropy with the activations as they are."""
    correct: Floats
    zero_loss: Floats
    """Cross-entropy with 0 in their place."""
    zero_correct: Floats
    mean_loss: Floats
    """With their mean over all images and positions in their place."""
    mean_correct: Floats
    deviation: Floats
    """Squared distance of an image's activations from that mean."""
    mean: Tensor
    """(D,)."""


class Fidelity(NamedTuple):
    """What is lost with activations rebuilt by a dictionary. Each (N,), float64, but for the last two."""

    loss: Floats
    correct: Floats
    error: Floats
    """Squared distance of an image's activations from the rebuilt ones."""
    active: Floats
    """Units above 0, mean over positions."""
    strength: Tensor
    """How strongly each unit fires at the position where it does so most, (N, U)."""


def _judged(logits: Tensor, label: Tensor) -> tuple[Floats, Floats]:
    loss = F.cross_entropy(logits.cpu().double(), label, reduction="none")
    return loss.numpy(), (logits.cpu().argmax(dim=1) == label).double().numpy()


@torch.no_grad()
def _replaced(
    site: Site, seen: Seen, function: Callable[[Tensor], Tensor], close: Callable[[int], None] = lambda num: None
) -> tuple[Floats, Floats]:
    """Loss and correctness (N,) with a function of the activations in their place; each batch ends with a ``close``.

    The function may be called several times for a batch; ``close`` is told how many images the batch had.
    """
    parts = []
    for images, label in zip(*(torch.split(part, site.batch) for part in (seen.images, seen.label)), strict=True):
        parts.append(_judged(site.logits_with(images.to(site.classifier.device), function), label))
        close(len(images))
    losses, correct = zip(*parts, strict=True)
    return np.concatenate(losses), np.concatenate(correct)


def ablate(site: Site, seen: Seen) -> Ablated:
    """What the classifier makes of images with a site's activations, and without them."""
    # Two passes, since the activations of all images together may be more than there is memory for.
    logits, sums = zip(
        *((logits, rows.sum(dim=(0, 1), dtype=torch.float64)) for logits, rows in site.batches(seen.images)),
        strict=True,
    )
    mean = (torch.stack(sums).sum(dim=0) / (len(seen.images) * site.positions)).float()
    deviation = [(rows - mean).square().sum(dim=(1, 2)).cpu() for _, rows in site.batches(seen.images)]
    return Ablated(
        *_judged(torch.cat(logits), seen.label),
        *_replaced(site, seen, torch.zeros_like),
        *_replaced(site, seen, lambda rows: mean.expand_as(rows)),
        deviation=torch.cat(deviation).double().numpy(),
        mean=mean.cpu(),
    )


def rebuild(site: Site, seen: Seen, model: SparseAutoencoder) -> Fidelity:
    """What the classifier makes of images with a site's activations rebuilt by a dictionary."""
    model = model.to(site.classifier.device)
    calls = list[tuple[Tensor, Tensor, Tensor]]()

    def function(rows: Tensor) -> Tensor:
        codes = model.encode(rows.flatten(0, 1))
        rebuilt = model.decode(codes).view_as(rows)
        per_image = codes.view(*rows.shape[:2], -1)
        error = (rows - rebuilt).square().sum(dim=(1, 2))
        active = (per_image > 0).float().sum(dim=2).mean(dim=1)
        calls.append((error.cpu(), active.cpu(), per_image.amax(dim=1).cpu()))
        return rebuilt

    batches = list[list[Tensor]]()

    def close(num: int) -> None:
        # A network of a fixed batch fills up the last call of every batch: what lies behind it belongs to no image.
        batches.append([torch.cat(column)[:num] for column in zip(*calls, strict=True)])
        calls.clear()

    loss, correct = _replaced(site, seen, function, close)
    error, active, strength = (torch.cat(column) for column in zip(*batches, strict=True))
    return Fidelity(loss, correct, error.double().numpy(), active.double().numpy(), strength)


def fidelity_measures(found: Fidelity, without: Ablated, bootstrap: Bootstrap) -> dict[str, Measure]:
    """The numbers of one dictionary on one kind of images."""
    dead = ~(found.strength > 0).any(dim=0)
    return {
        "explained_variance": kept_share(found.error, without.deviation, bootstrap, least=0.0),
        "active_units": bootstrap.mean(found.active),
        "dead_units": bootstrap.mean(dead.numpy()),
        "accuracy": bootstrap.mean(found.correct > 0),
        **{
            f"{name}_recovered_{kind}": kept_share(lost, missing, bootstrap)
            for name, kind, lost, missing in (
                ("loss", "mean", found.loss - without.loss, without.mean_loss - without.loss),
                ("loss", "zero", found.loss - without.loss, without.zero_loss - without.loss),
                ("accuracy", "mean", without.correct - found.correct, without.correct - without.mean_correct),
                ("accuracy", "zero", without.correct - found.correct, without.correct - without.zero_correct),
            )
        },
    }


def kept_share(lost: Floats, whole: Floats, bootstrap: Bootstrap, least: float = LITTLE) -> Measure:
    """1 - sum(lost) / sum(whole) over images, with its interval: 1 is nothing lost, below 0 is worse than without.

    A mean of ``whole`` up to ``least`` is that of rounding.
    """
    why = "there is hardly anything to lose: without the activations it is about as good, or better"
    return _ratio(whole - lost, whole, bootstrap, least, why)


def relative_recovery(theirs: Fidelity, own: Fidelity, without: Ablated, bootstrap: Bootstrap) -> Measure:
    """Loss that one dictionary recovers over what another does, both against the mean in place of activations.

    Below 0 the first is worse than the mean. Where the other is no better than the mean, nothing is measured.
    """
    other, base = (without.mean_loss - found.loss for found in (theirs, own))
    return _ratio(
        other, base, bootstrap, LITTLE, "the dictionary that it is compared with hardly recovers any loss itself"
    )


def _ratio(part: Floats, whole: Floats, bootstrap: Bootstrap, least: float, why: str) -> Measure:
    """Sum over images of one number over the sum of another, with its interval.

    A ratio to what may be 0 has no interval, and one to what is negative turns its meaning round.

    Args:
        part: (N,).
        whole: (N,), what is divided by. Its mean must be clearly above ``least``: its interval, and every resample.
        bootstrap: Gives both intervals.
        least: What the mean of ``whole`` may be by rounding.
        why: Said where it is no more than that.
    """
    num = len(whole)
    if num < MIN_SAMPLES:
        return NotMeasured(not_measured=f"{num} samples, at least {MIN_SAMPLES} are needed")
    parts, wholes = np.array([(part[index].mean(), whole[index].mean()) for index in bootstrap.draws(num)]).T
    base = spread_estimate(float(whole.mean()), wholes, num)
    if isinstance(base, NotMeasured):
        return base
    if min(base.low, wholes.min()) <= least:
        return NotMeasured(not_measured=why)
    return spread_estimate(float(part.mean() / whole.mean()), parts / wholes, num)


def monosemanticity(strength: Tensor, features: Tensor) -> Tensor:
    """How alike the images are that fire a unit, as seen by another network: (U,), NaN for units that hardly fire.

    Mean cosine of the evaluator's features over pairs of images, each weighted by the product of the unit's strengths
    (Pach and others, Sparse autoencoders learn monosemantic features in vision-language models, 2025). Features are
    centred first, so that 0 is what images by chance have.

    Args:
        strength: (N, U), not negative.
        features: (N, E).
    """
    centred = features - features.mean(dim=0)
    unit = F.normalize(centred.double(), dim=1)
    weight = strength.double() / strength.double().amax(dim=0).clamp(min=1e-12)
    squares = weight.square().sum(dim=0)  # a pair is of two images
    pairs = weight.sum(dim=0).square() - squares
    own = (weight.square() * unit.square().sum(dim=1, keepdim=True)).sum(dim=0)
    alike = (weight.T @ unit).square().sum(dim=1) - own
    return torch.where(pairs > 1e-3 * squares.clamp(min=1e-12), alike / pairs.clamp(min=1e-12), torch.nan)


def matched_cosines(first: Tensor, second: Tensor) -> Floats:
    """How well each direction of one dictionary is found in another: the cosine with its partner, (min(U, V),).

    Partners are chosen one to one so that their sum is largest (the Hungarian method).

    Args:
        first: Directions (U, D).
        second: Directions (V, D).
    """
    cosines = (F.normalize(first.double(), dim=1) @ F.normalize(second.double(), dim=1).T).cpu().numpy()
    from scipy.optimize import linear_sum_assignment  # a second of import that one measure needs

    return np.asarray(cosines[linear_sum_assignment(cosines, maximize=True)], np.float64)
