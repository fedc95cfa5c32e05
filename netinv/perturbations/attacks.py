"""What an image must survive within a bound: random noise and projected gradient ascent (PGD)."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Norm = Literal["linf", "l2"]


def _length(delta: Tensor) -> Tensor:
    """L2 norm of each sample, (N, 1, 1, 1); never 0, so that it can divide."""
    length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return length.clamp(min=1e-12)


def _project(delta: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Nearest perturbation within the bound."""
    if norm == "linf":
        return torch.clamp(delta, -epsilon, epsilon)
    return delta * (epsilon / _length(delta)).clamp(max=1)


def _random_start(images: Tensor, epsilon: float, norm: Norm, rng: torch.Generator | None) -> Tensor:
    """Uniform in the L-infinity ball, or a uniform direction of uniform length for L2."""
    shape, device = images.shape, images.device
    if norm == "linf":
        start: Tensor = epsilon * (2 * torch.rand(shape, generator=rng, device=device) - 1)
        return start
    delta = torch.randn(shape, generator=rng, device=device)
    radius: Tensor = epsilon * torch.rand(shape[0], 1, 1, 1, generator=rng, device=device)
    return delta / _length(delta) * radius


def noise(images: Tensor, epsilon: float, norm: Norm = "linf", rng: torch.Generator | None = None) -> Tensor:
    """Random perturbation on the surface of the bound: random signs for L-infinity, a random direction for L2.

    Returns:
        A perturbation that keeps ``images + delta`` in [0, 1], same shape as the images.
    """
    if norm == "linf":
        signs = torch.randint(0, 2, images.shape, generator=rng, device=images.device, dtype=images.dtype)
        delta = epsilon * (2 * signs - 1)
    else:
        direction = torch.randn(images.shape, generator=rng, device=images.device, dtype=images.dtype)
        delta = direction * (epsilon / _length(direction))
    return (images + delta).clamp(0, 1) - images


def pgd(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float,
    steps: int,
    step_size: float,
    norm: Norm = "linf",
    rng: torch.Generator | None = None,
    random_start: bool = True,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy (Madry and others, 2018).

    Args:
        classifier: Images to logits. Its parameters should not require gradients.
        images: (N, C, H, W) in [0, 1], detached from any graph.
        label: (N,), the labels to be moved away from, or their probabilities, (N, K).
        epsilon: Bound of the perturbation, in pixel units.
        steps: Gradient steps; one step with a random start is fast FGSM.
        step_size: Length of a step as a fraction of epsilon.
        norm: Norm of the bound.
        rng: Random state of the start.
        random_start: Start inside the ball at random, else at the images.

    Returns:
        A perturbation that keeps ``images + delta`` in [0, 1], same shape as the images.
    """
    images = images.detach()
    delta = _random_start(images, epsilon, norm, rng) if random_start else torch.zeros_like(images)
    delta = (images + delta).clamp(0, 1) - images
    for _ in range(steps):
        with torch.enable_grad():
            moved = (images + delta).requires_grad_()
            loss = F.cross_entropy(classifier(moved).to(images.dtype), label, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
        direction = gradient.sign() if norm == "linf" else gradient / _length(gradient)
        delta = _project(delta + step_size * epsilon * direction, epsilon, norm)
        delta = (images + delta).clamp(0, 1) - images
    return delta.detach()


def survives(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float,
    steps: int = 20,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int = 500,
) -> Tensor:
    """Which images keep their label under PGD with step size 2.5 epsilon / steps and one random start, (N,), bool.

    Epsilon 0 asks for the label of the images as they are.
    """
    rng = torch.Generator(images.device).manual_seed(seed)
    kept = []
    for x, y in zip(torch.split(images, batch_size), torch.split(label, batch_size), strict=True):
        if epsilon > 0:
            x = x + pgd(classifier, x, y, epsilon, steps, min(1.0, 2.5 / steps), norm, rng)
        with torch.no_grad():
            kept.append(classifier(x).argmax(dim=1) == y)
    return torch.cat(kept)


def robust_accuracy(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float,
    steps: int = 20,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int = 500,
) -> float:
    """Share of the images that keep their label; see :func:`survives`."""
    return float(survives(classifier, images, label, epsilon, steps, norm, seed, batch_size).float().mean())
