"""The inversion loss (paper, section 2) and its later companions. Every term is a plain function of tensors."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.generators import field_side
from netinv.inversion.config import InversionConfig
from netinv.perturbations import reads_as

FIELD_COSINE = 0.5
"""The cosine that :func:`latent_field_loss` asks for; all of it would leave the image no room for its class."""


class Batch(NamedTuple):
    """Images of a step, what was asked for, and what the classifier says of them after their perturbation."""

    images: Tensor
    """As generated, (N, C, H, W)."""
    logits: Tensor
    """(N, K)."""
    features: Tensor
    """Penultimate features, (N, D)."""
    moments: Tensor
    """Of what the classifier's batch norms see, (N, 2, S)."""
    vector: Tensor
    """p, the wanted probabilities, (N, K)."""
    label: Tensor
    """y, the arg-max of p, (N,)."""
    latent: Tensor
    """z that the images were drawn from, (N, Z)."""

    @property
    def accuracy(self) -> Tensor:
        """Share of the samples that the classifier reads as asked, a scalar."""
        return reads_as(self.logits, self.label).float().mean()

    @property
    def broken(self) -> Tensor:
        """Whether the images are sound and the classifier's scores of them are not, a scalar, bool."""
        return self.images.isfinite().all() & ~self.logits.isfinite().all()


def inversion_loss(
    batch: Batch, mean: Tensor, std: Tensor, config: InversionConfig, every_term: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """L = alpha KL(p || q) + beta CE(y, q) + gamma mean cosine + ..., with q = softmax(logits).

    Args:
        batch: N samples, at least 2.
        mean: Per-channel mean that the classifier normalises images by, C values in any shape.
        std: Per-channel standard deviation, likewise.
        config: Gives the weights, alpha and beta and gamma as in the paper.
        every_term: Compute the terms without a weight as well, for a record.

    Returns:
        The loss, and every term that was computed, unweighted, by name. What the classifier's batch norms see counts
        only where they were watched.
    """
    terms: dict[str, Tensor] = {}

    def term(name: str, weight: float, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor | float:
        if not weight and not every_term:
            return 0.0
        with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
            terms[name] = function(*arguments)
        return terms[name] if weight else 0.0

    images, logits, features, moments, p, y, z = batch
    alpha, beta, gamma, delta = config.alpha, config.beta, config.gamma, config.delta
    layers = moments.shape[-1] and term("layer_statistics", config.layer_statistics, layer_statistics_loss, moments)
    kl = term("kl", alpha, kl_loss, logits, p)
    cross_entropy = term("cross_entropy", beta, F.cross_entropy, logits, y)
    cosine = term("cosine", gamma, cosine_loss, features)
    orthogonality = term("orthogonality", delta, orthogonality_loss, features)
    variation = term("total_variation", config.total_variation, total_variation_loss, images)
    pixels = term("pixel_statistics", config.pixel_statistics, pixel_statistics_loss, images, mean, std)
    threshold = config.epsilon / (1 if config.norm == "linf" else math.sqrt(images[0].numel()))  # of each pixel
    field = term("latent_field", config.latent_field, partial(latent_field_loss, threshold=threshold), images, z)

    loss = (
        alpha * kl
        + beta * cross_entropy
        + gamma * cosine
        + delta * orthogonality
        + config.total_variation * variation
        + config.pixel_statistics * pixels
        + config.layer_statistics * layers
        + config.latent_field * field
    )
    assert isinstance(loss, Tensor)  # alpha or beta is above 0
    return loss, terms


def kl_loss(logits: Tensor, vector: Tensor) -> Tensor:
    """KL divergence from the classifier's output q to the condition p: sum_k p_k log(p_k / q_k), mean over the batch.

    Args:
        logits: Unnormalised outputs of the classifier, (N, K). Not probabilities.
        vector: p, (N, K).
    """
    return (torch.xlogy(vector, vector) - vector * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def cosine_loss(features: Tensor) -> Tensor:
    """Mean cosine similarity over the N(N-1) ordered pairs of distinct samples, in [-1, 1].

    Computed as (|sum_i u_i|^2 - N) / (N(N-1)) with unit vectors u_i: O(ND), without the N x N matrix.

    Args:
        features: Penultimate features, (N, D), N >= 2.

    Example:
        >>> round(cosine_loss(torch.eye(3)).item(), 6)
        0.0
    """
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(f"Expected features of shape (N, D) with N >= 2, got {tuple(features.shape)}")
    unit = F.normalize(features, dim=1)  # (N, D)
    num = features.shape[0]
    # |u_i| is 1 except for all-zero features, whose pairs count as cosine 0; hence the measured norm, not N.
    return (unit.sum(dim=0).square().sum() - unit.square().sum()) / (num * (num - 1))


def orthogonality_loss(features: Tensor) -> Tensor:
    """Mean squared entry of U U^T - I off its diagonal, in [0, 1]: the Gram matrix of unit features against identity.

    Source: the feature-orthogonality term of the paper's authors' later work. Computed through the D x D matrix
    U^T U when D < N, since both have the same Frobenius norm.

    Args:
        features: Penultimate features, (N, D), N >= 2.
    """
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(f"Expected features of shape (N, D) with N >= 2, got {tuple(features.shape)}")
    unit = F.normalize(features, dim=1)  # (N, D)
    num, dim = features.shape
    gram = unit.T @ unit if dim < num else unit @ unit.T
    return (gram.square().sum() - unit.square().sum(dim=1).square().sum()) / (num * (num - 1))


def total_variation_loss(images: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring pixels, in [0, 2]: down plus across.

    Args:
        images: (N, C, H, W).
    """
    down = (images[:, :, 1:] - images[:, :, :-1]).abs()
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs()
    # An image one pixel high or wide has no neighbours there, and their mean is 0, not nan.
    vertical, horizontal = (part.mean() if part.numel() else part.sum() for part in (down, across))
    return vertical + horizontal


def pixel_statistics_loss(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Squared distance of the batch's pixel statistics from those that the classifier normalises its inputs by.

    After that normalisation each channel should have mean 0 and deviation 1, as it had over the training images:
    mean over channels of m^2 + (s - 1)^2.

    Args:
        images: (N, C, H, W) in [0, 1].
        mean: Per-channel mean of the training images, C values in any shape.
        std: Per-channel standard deviation, likewise.
    """
    mean, std = mean.flatten(), std.flatten()  # (C,)
    centre = (images.mean(dim=(0, 2, 3)) - mean) / std
    spread = images.std(dim=(0, 2, 3)) / std
    return (centre.square() + (spread - 1).square()).mean()


def latent_field_loss(images: Tensor, latent: Tensor, threshold: float) -> Tensor:
    """How far the images' differences are from following a part of their latents: mean relu(0.5 - cosine), in [0, 1.5].

    The last latents, read as a small image f of at most 4 x 4, are where an image is to be brighter or darker than the
    others of its batch. Its own differences d from their mean count as far as they exceed the threshold, averaged over
    channels and over the cells of f, less their mean over the batch; the cosine is that of d and f. Below the bound
    of the perturbation nothing counts, so the latent cannot hide in noise: it has to move strokes.

    Args:
        images: (N, C, H, W).
        latent: (N, Z). A square number of its last entries is f.
        threshold: Difference from which on pixels count, the bound of the perturbation.
    """
    side = field_side(latent.shape[1], *images.shape[2:])
    field = latent[:, -(side**2) :]  # (N, S)
    difference = F.softshrink(images - images.mean(dim=0), threshold).mean(dim=1, keepdim=True)  # (N, 1, H, W)
    cells = F.adaptive_avg_pool2d(difference, side).flatten(1)  # (N, S)
    cosine = F.cosine_similarity(cells - cells.mean(dim=0), field, dim=1)  # (N,)
    return F.relu(FIELD_COSINE - cosine).mean()


def layer_statistics_loss(moments: Tensor) -> Tensor:
    """Squared distance of what the classifier's batch norms see from what they saw in its training.

    As for pixels, but of every channel that a batch norm normalises: mean over all those of m^2 + (s - 1)^2.

    Source: the feature distribution term of DeepInversion (Yin and others, Dreaming to distill, 2020), here in units of
    the running deviation, so that no layer outweighs the others.

    Args:
        moments: Of the channels, normalised by the running statistics: mean over the pixels of their values and of
            their squares, (N, 2, S).
    """
    mean, square = moments.mean(dim=0)  # (S,) each
    spread = (square - mean.square()).clamp(min=1e-6).sqrt()
    loss: Tensor = (mean.square() + (spread - 1).square()).mean()
    return loss
