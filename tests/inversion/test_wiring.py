"""The whole loop against a plain one, setting by setting: each value reaches what it is for, in every step."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from draws import library_seed_torch, library_torch_rng
from torch import Tensor

from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier, freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, InversionTraining

SMALL = GeneratorConfig(latent_dim=4, hidden_dim=8, width=4, max_width=8, dropout=0.4)
SHAPE = (1, 9, 8)
BASE: dict[str, Any] = {
    "steps": 6,
    "batch_size": 6,
    "lr": 0.01,
    "sharpness": (1.0, 5.0),
    "alpha": 0.7,
    "beta": 1.3,
    "gamma": 0.4,
    "delta": 0.6,
    "total_variation": 0.3,
    "pixel_statistics": 0.9,
    "layer_statistics": 0.2,
    "latent_field": 0.8,
    "perturbation": "pgd",
    "epsilon": 0.04,
    "epsilon_ramp": 0.5,
    "survival": 0.0,
    "norm": "linf",
    "shift": 1,
    "distortion": 0.3,
    "attack_steps": 2,
    "attack_step_size": 0.6,
    "images_at_once": None,
    "precision": "float32",
    "log_every": 1,
}
CHANGES: dict[str, dict[str, Any]] = {
    "steps": {"steps": 4},
    "batch_size": {"batch_size": 5},
    "lr": {"lr": 0.002},
    "sharpness": {"sharpness": (3.0, 3.0)},
    "alpha": {"alpha": 0.0},
    "beta": {"beta": 0.0},
    "gamma": {"gamma": 0.0},
    "delta": {"delta": 0.0},
    "total_variation": {"total_variation": 0.0},
    "pixel_statistics": {"pixel_statistics": 0.0},
    "layer_statistics": {"layer_statistics": 0.0},
    "latent_field": {"latent_field": 0.0},
    "perturbation": {"perturbation": "noise"},
    "epsilon": {"epsilon": 0.1},
    "epsilon_ramp": {"epsilon_ramp": 1.0},
    "survival": {"survival": 0.02},
    "norm": {"norm": "l2", "epsilon": 0.5},
    "shift": {"shift": 0},
    "distortion": {"distortion": 0.0},
    "attack_steps": {"attack_steps": 1},
    "attack_step_size": {"attack_step_size": 1.0},
    "log_every": {"log_every": 4},
}
ELSEWHERE = {"precision", "images_at_once"}
"""Fields that other tests see to: ``test_inversion`` compares the precisions, ``test_parts`` the parts of a batch."""


def networks() -> tuple[ConditionedGenerator, Classifier]:
    library_seed_torch(0)
    classifier = build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=6), 3, SHAPE, (0.4,), (0.2,))
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
    freeze(classifier)
    return ConditionedGenerator(SMALL, 3, SHAPE).double(), classifier.double()


def learning_rate(step: int, config: InversionConfig) -> tuple[float, float]:
    """Of Smith's one cycle with cosines, and the first beta of Adam: up in the first 30 %, then down."""
    peak = 0.3 * config.steps - 1
    rise = peak if step <= peak else None

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

    low, high, last = config.lr / 25, config.lr, config.lr / 25 / 1e4
    if rise:
        return between(low, high, step / peak), between(0.95, 0.85, step / peak)
    share = (step - peak) / (config.steps - 1 - peak)
    return between(high, last, share), between(0.85, 0.95, share)


def length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def moved(images: Tensor, config: InversionConfig, down: Tensor, across: Tensor, maps: Tensor) -> Tensor:
    """Each image by itself: shifted with its edge repeated, then distorted."""
    result = []
    for n, image in enumerate(images):
        if config.shift:
            padded = F.pad(image[None], (config.shift,) * 4, mode="replicate")[0]
            image = padded[:, down[n] : down[n] + SHAPE[1], across[n] : across[n] + SHAPE[2]]
        if config.distortion:
            change = config.distortion * maps[n] * torch.tensor([1, 1, 0.5])
            grid = F.affine_grid((torch.eye(2, 3) + change)[None], [1, *SHAPE], align_corners=False)
            image = F.grid_sample(image[None], grid, align_corners=False)[0]
        result.append(image)
    return torch.stack(result)


def attacked(seen: Tensor, y: Tensor, classifier: Classifier, config: InversionConfig, bound: Any, u: Any) -> Tensor:
    """A perturbation of moved images: noise, or gradient ascent from a random start."""
    x = seen.detach()
    bound = torch.as_tensor(bound).view(-1, 1, 1, 1)
    if config.perturbation == "noise":
        return (x + bound * u).clamp(0, 1) - x
    delta = (x + bound * u).clamp(0, 1) - x
    for _ in range(config.attack_steps):
        at = (x + delta).requires_grad_()
        F.cross_entropy(classifier(at), y, reduction="sum").backward()
        assert at.grad is not None
        way = at.grad.sign() if config.norm == "linf" else at.grad / length(at.grad)
        delta = delta + config.attack_step_size * bound * way
        clipped = delta.minimum(bound).maximum(-bound), delta * (bound / length(delta)).clamp(max=1)
        delta = clipped[config.norm == "l2"]
        delta = (x + delta).clamp(0, 1) - x
    return delta


def moments(classifier: Classifier, x: Tensor) -> Tensor:
    """Squared distance of what the one batch norm sees from what it remembers."""
    body = classifier.body
    seen = body[0]((x - classifier.mean) / classifier.std)
    norm = body[1]
    z = (seen - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var + norm.eps).sqrt().view(1, -1, 1, 1)
    mean, std = z.mean(dim=(0, 2, 3)), z.square().mean(dim=(0, 2, 3))
    return (mean.square() + ((std - mean.square()).clamp(min=0).sqrt() - 1).square()).mean()


def off_the_field(images: Tensor, z: Tensor, config: InversionConfig) -> Tensor:
    """How far what differs by more than the bound is from following the latents, here 2 x 2 of them."""
    threshold = config.epsilon if config.norm == "linf" else config.epsilon / math.sqrt(images[0].numel())
    difference = images - images.mean(dim=0)
    difference = difference.sign() * (difference.abs() - threshold).clamp(min=0)
    rows, columns = ((0, 5), (4, 9)), ((0, 4), (4, 8))  # of an image of 9 x 8
    cells = torch.stack([difference[:, :, a:b, c:d].mean(dim=(1, 2, 3)) for a, b in rows for c, d in columns], dim=1)
    cells = cells - cells.mean(dim=0)
    cosines = (cells * z).sum(dim=1) / (cells.norm(dim=1).clamp(min=1e-8) * z.norm(dim=1))
    return (0.5 - cosines).clamp(min=0).mean()


def plain(config: InversionConfig, seed: int) -> tuple[list[float], list[float], Tensor]:
    """The losses of all steps, how the worst class fares, and the final weights, written down as one would at first."""
    generator, classifier = networks()
    rng = library_torch_rng(seed)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1.0)
    losses, worst = [], []
    own, alive = [0.0] * 3, [0.0] * 3  # by class: its bound, and the share that survives
    generator.train()
    for step in range(1, config.steps + 1):
        num, (low, high) = config.batch_size, config.sharpness
        e = torch.randn(num, 3, generator=rng)
        s = low * (high / low) ** torch.rand(num, 1, generator=rng) if high > low else torch.full((num, 1), low)
        z = torch.randn(num, 4, generator=rng)
        dropped = torch.rand(num, generator.noise_dim, generator=rng)
        down = across = maps = torch.zeros(num)
        if config.shift:
            down, across = (torch.randint(0, 2 * config.shift + 1, (num,), generator=rng) for _ in range(2))
        if config.distortion:
            maps = 2 * torch.rand(num, 2, 3, generator=rng) - 1
        if config.perturbation == "noise":
            u = 2 * torch.randint(0, 2, (num, *SHAPE), generator=rng) - 1.0
        elif config.norm == "linf":
            u = 2 * torch.rand(num, *SHAPE, generator=rng) - 1
        else:
            u = torch.randn(num, *SHAPE, generator=rng)
            u = u / length(u) * torch.rand(num, 1, 1, 1, generator=rng)
        p = torch.softmax(s * e, dim=1)
        y = p.argmax(dim=1)
        images = generator(z, p, dropped, 0.4 * min(1.0, 2 * (config.steps - step) / config.steps))
        ramp = max(1.0, config.epsilon_ramp * config.steps)
        bound: Any = config.epsilon * min(1.0, step / ramp)
        if config.survival:
            bound = [own[label] for label in y]
        seen = moved(images, config, down, across, maps)
        seen = seen + attacked(seen, y, classifier, config, bound, u)
        logits, f = classifier(seen, return_features=True)
        for k in range(3):
            hits = (logits.argmax(dim=1) == y)[y == k].double()
            if len(hits):
                alive[k] += (1 - (63 / 64) ** len(hits)) * (hits.mean().item() - alive[k])
            way = 1 if alive[k] >= config.survival else -1
            own[k] = min(max(own[k] + way * config.epsilon / ramp * len(hits) * 3 / num, 0.0), config.epsilon)
        unit = f / f.norm(dim=1, keepdim=True)
        gram = (unit @ unit.T)[~torch.eye(num, dtype=torch.bool)]
        channel = images.flatten()
        pixels = ((channel.mean() - 0.4) / 0.2) ** 2 + (channel.std() / 0.2 - 1) ** 2
        variation = images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()
        loss = config.alpha * (p * (p.log() - logits.log_softmax(dim=1))).sum(dim=1).mean()
        loss = loss - config.beta * logits.log_softmax(dim=1)[torch.arange(num), y].mean()
        loss = loss + config.gamma * gram.mean() + config.delta * gram.square().mean()
        loss = loss + config.total_variation * variation + config.pixel_statistics * pixels
        loss = loss + config.layer_statistics * moments(classifier, seen)
        loss = loss + config.latent_field * off_the_field(images, z, config)
        optimizer.param_groups[0]["lr"], beta = learning_rate(step - 1, config)
        optimizer.param_groups[0]["betas"] = (beta, 0.99)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        worst.append(min(alive))
    return losses, worst, torch.cat([weight.detach().flatten() for weight in generator.parameters()])


@pytest.fixture(autouse=True)
def doubles() -> Any:
    """In float64, where rounding neither turns the sign of an attack nor grows through Adam's division."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained(config: InversionConfig, seed: int) -> tuple[list[dict[str, float]], Tensor]:
    generator, classifier = networks()
    records = list(InversionTraining(generator, classifier, config, seed))
    return records, torch.cat([weight.detach().flatten() for weight in generator.parameters()])


@pytest.mark.parametrize("name", [None, *CHANGES])
def test_every_setting_does_what_it_says_in_every_step(name: str | None) -> None:
    config = InversionConfig.model_validate(BASE | (CHANGES[name] if name else {}))
    losses, worst, weights = plain(config, seed=3)
    records, got = trained(config, seed=3)
    torch.testing.assert_close(got, weights, rtol=1e-6, atol=1e-9)
    due = [step for step in range(1, config.steps + 1) if step % config.log_every == 0 or step == config.steps]
    assert [record["step"] for record in records] == due
    assert [record["samples"] for record in records] == [step * config.batch_size for step in due]
    assert [record["loss"] for record in records] == [pytest.approx(losses[step - 1], rel=1e-8) for step in due]
    assert [record["worst_class"] for record in records] == [pytest.approx(worst[step - 1]) for step in due]
    if name not in {None, "log_every"}:  # else a setting that does nothing would pass
        *_, unchanged = plain(InversionConfig.model_validate(BASE), seed=3)
        assert (weights - unchanged).norm() > 1e-4 * unchanged.norm()


def test_every_setting_is_tried() -> None:
    assert CHANGES.keys() | ELSEWHERE == InversionConfig.model_fields.keys() == BASE.keys()


def test_the_seed_reaches_the_draws() -> None:
    config = InversionConfig.model_validate(BASE)
    assert not torch.equal(trained(config, seed=3)[1], trained(config, seed=4)[1])


def test_a_class_that_does_not_survive_gets_less_than_one_that_does() -> None:
    generator, classifier = networks()
    training = InversionTraining(generator, classifier, InversionConfig.model_validate(BASE | {"survival": 0.02}), 3)
    list(training)
    assert 0 <= training.bounds.epsilon.min() < training.bounds.epsilon.max() <= 0.3
    assert (training.bounds.epsilon > 0).eq(training.bounds.surviving > 0).all()
