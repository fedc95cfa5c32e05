"""What an image must survive within a bound: random noise, and projected gradient ascent (PGD).

Random numbers are drawn for a bound of 1 and scaled when they are used, so that a caller can draw them first.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.core import InputError, backward_pass, batch_size_for

Norm = Literal["linf", "l2"]

LEAD = 10.0
"""By how much a label leads where an attack looks for a way: far beyond, float32 has no gradient left, and far below,
the gradient heeds all other classes alike and not the next one."""


def _check_norm(norm: str) -> None:
    """Refuse any norm but the two, which would pass for L2.

    Raises:
        InputError: It is another.
    """
    if norm not in get_args(Norm):
        raise InputError(f"norm is {norm!r}: give one of {', '.join(get_args(Norm))}.")


def _length(delta: Tensor) -> Tensor:
    """L2 norm of each sample, (N, 1, 1, 1); never 0, so that it can divide."""
    length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return length.clamp(min=1e-12)


def _project(delta: Tensor, epsilon: float | Tensor, norm: Norm) -> Tensor:
    """Nearest perturbation within the bound."""
    _check_norm(norm)
    if norm == "linf":
        return delta.clamp(min=-epsilon).clamp(max=epsilon)
    return delta * (epsilon / _length(delta)).clamp(max=1)


def unit_ball(
    shape: Sequence[int], norm: Norm, rng: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Starts of an attack of bound 1: uniform for L-infinity, a uniform direction of uniform length for L2.

    Args:
        shape: (N, C, H, W).
        norm: Norm of the bound.
        rng: Random state; its device is that of the result. ``None`` is torch's global one, on ``device``.
        device: Where the result is wanted, without ``rng``.

    Raises:
        InputError: There is no such norm.
    """
    _check_norm(norm)
    device = rng.device if rng is not None else device
    if norm == "linf":
        return 2 * torch.rand(*shape, generator=rng, device=device) - 1
    direction = torch.randn(*shape, generator=rng, device=device)
    return direction / _length(direction) * torch.rand(shape[0], 1, 1, 1, generator=rng, device=device)


def unit_sphere(shape: Sequence[int], norm: Norm, rng: torch.Generator | None = None) -> Tensor:
    """Noise of bound 1: random signs for L-infinity, a random direction for L2. Arguments as of :func:`unit_ball`."""
    _check_norm(norm)
    device = rng.device if rng is not None else None
    if norm == "linf":
        signs = torch.randint(0, 2, tuple(shape), generator=rng, device=device, dtype=torch.get_default_dtype())
        return 2 * signs - 1
    direction = torch.randn(*shape, generator=rng, device=device)
    return direction / _length(direction)


def noise(images: Tensor, epsilon: float | Tensor, direction: Tensor) -> Tensor:
    """Random perturbation on the surface of the bound.

    Args:
        images: (N, C, H, W) in [0, 1].
        epsilon: The bound.
        direction: Of :func:`unit_sphere`, (N, C, H, W).

    Returns:
        A perturbation that keeps ``images + delta`` in [0, 1], same shape as the images.
    """
    return (images + epsilon * direction).clamp(0, 1) - images


def pgd(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float | Tensor,
    steps: int,
    step_size: float,
    norm: Norm = "linf",
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy (Madry and others, 2018).

    Args:
        classifier: Images to logits. Its parameters should not require gradients.
        images: (N, C, H, W) in [0, 1], detached from any graph.
        label: (N,), the labels to be moved away from, or their probabilities, (N, K).
        epsilon: Bound of the perturbation, in pixel units; of all samples, or of each, (N, 1, 1, 1).
        steps: Gradient steps; one step with a random start is fast FGSM.
        step_size: Length of a step as a fraction of epsilon.
        norm: Norm of the bound.
        start: Where it begins, of :func:`unit_ball`, (N, C, H, W); ``None`` begins at the images.

    Returns:
        A perturbation that keeps ``images + delta`` in [0, 1], same shape as the images.

    Raises:
        InputError: There is no such norm.
    """
    images = images.detach()
    delta = torch.zeros_like(images) if start is None else (images + epsilon * start).clamp(0, 1) - images
    for _ in range(steps):
        with torch.enable_grad():
            moved = (images + delta).requires_grad_()
            loss = F.cross_entropy(classifier(moved).to(images.dtype), label, reduction="sum")
            with backward_pass():
                (gradient,) = torch.autograd.grad(loss, moved)
            # NaN and infinite gradients (of sqrt at 0) count as 0.
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        direction = gradient.sign() if norm == "linf" else gradient / _length(gradient)
        delta = _project(delta + step_size * epsilon * direction, epsilon, norm)
        delta = (images + delta).clamp(0, 1) - images
    return delta.detach()


def tempered(logits: Tensor, label: Tensor) -> Tensor:
    """Logits of which each label leads by ``LEAD``, or is behind by that: each sample's are divided by what that takes.

    What is read is the same, and so is the way of an attack whatever the logits' scale. The gradient of the
    cross-entropy is about e to the minus lead, so that an attack on a very certain classifier would stand still, and
    find it robust. Of small logits it points to the mean of all other classes, and not to the next one.

    Args:
        logits: (N, K), K >= 2.
        label: (N,), the labels to be moved away from.
    """
    own = logits.gather(1, label[:, None])  # (N, 1)
    others = logits.scatter(1, label[:, None], -torch.inf).amax(dim=1, keepdim=True)
    lead: Tensor = (own - others).detach().abs()
    # The least keeps the squares of the gradient finite, whose sum is its length.
    return logits / (lead / LEAD).clamp(min=1e-12, max=1e30)


def reads_as(logits: Tensor, label: Tensor) -> Tensor:
    """Which samples are read as a label, (...), bool: its score is the highest, and finite.

    Of scores that are not numbers the arg-max is one of them, such as class 0 where none is.

    Args:
        logits: (..., K).
        label: (...).
    """
    best = logits.max(dim=-1)
    return (best.indices == label) & best.values.isfinite()


def robust_mask(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float,
    steps: int = 20,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int = 128,
) -> Tensor:
    """Which images keep their label under PGD with step size 2.5 epsilon / steps and one random start, (N,), bool.

    The attack sees ``tempered`` logits: how certain a classifier is changes nothing.

    Epsilon 0 asks for the label of the images as they are. ``batch_size`` images go at once, fewer large ones.
    """
    rng = torch.Generator(images.device).manual_seed(seed)
    kept = []
    at_once = batch_size_for(batch_size, images.shape)
    for x, y in zip(torch.split(images, at_once), torch.split(label, at_once), strict=True):
        if epsilon > 0:
            start = unit_ball(x.shape, norm, rng)
            seen = partial(_tempered, classifier, y)
            x = x + pgd(seen, x, y, epsilon, steps, min(1.0, 2.5 / steps), norm, start)
        with torch.no_grad():
            kept.append(reads_as(classifier(x), y))
    return torch.cat(kept)


def _tempered(classifier: Callable[[Tensor], Tensor], label: Tensor, images: Tensor) -> Tensor:
    return tempered(classifier(images).to(images.dtype), label)


def robust_accuracy(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float,
    steps: int = 20,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int = 128,
) -> float:
    """Share of the images that keep their label; see :func:`robust_mask`."""
    return float(robust_mask(classifier, images, label, epsilon, steps, norm, seed, batch_size).float().mean())
