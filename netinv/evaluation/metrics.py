"""Measures of diversity and resemblance, as pure functions of feature vectors or images.

Each is checked against an independent implementation in ``tests/evaluation/``. None holds an N x N matrix:
work goes through D x D matrices or a block of rows at a time, with fewer rows where they are long.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from netinv.core import batch_size_for

BLOCK = 500
"""Rows of a distance matrix held at a time, and images whose structure is compared; fewer of large ones."""
VALUES = 2**23
"""Numbers of the rows whose exact distances are taken at a time."""
SPARE = 4
"""Candidates beyond the nearest k, in case rounding puts them in another order."""


def vendi_score(features: Tensor) -> Tensor:
    """Vendi score: the effective number of distinct samples, exp of the entropy of the eigenvalues of K / n.

    K is the cosine kernel, K_ij = u_i . u_j with unit vectors u. From 1 (all alike) to min(n, D) (all orthogonal).
    The n x n matrix U U^T / n and the D x D matrix U^T U / n have the same eigenvalues; the smaller one is used.

    Args:
        features: (..., n, D), no all-zero rows.

    Returns:
        One score for each leading index, (...), float64.

    Raises:
        ValueError: A feature vector is all zero, so that its cosine is undefined.

    Source: Friedman and Dieng, The Vendi Score (2023), equation 2.

    Example:
        >>> round(vendi_score(torch.eye(3)).item(), 6), round(vendi_score(torch.ones(3, 2)).item(), 6)
        (3.0, 1.0)
    """
    unit = _unit(features)
    num, dim = unit.shape[-2:]
    gram = (unit.mT @ unit if dim < num else unit @ unit.mT) / num
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    return torch.exp(-torch.xlogy(eigenvalues, eigenvalues).sum(dim=-1))


def _unit(features: Tensor) -> Tensor:
    """Rows of length 1, float64."""
    features = features.double()
    if bool((features == 0).all(dim=-1).any()):
        raise ValueError("Expected feature vectors with a direction, got one that is all zero")
    return F.normalize(features, dim=-1)


def class_cosines(features: Tensor, label: Tensor, num_classes: int) -> tuple[float, float]:
    """Mean cosine similarity over pairs of distinct samples of one class, and over pairs of two classes.

    Args:
        features: (N, D).
        label: (N,), int64.
        num_classes: K.

    Returns:
        (within, between), each in [-1, 1], NaN where there is no such pair.

    Raises:
        ValueError: A feature vector is all zero, so that its cosine is undefined.
    """
    unit = _unit(features)  # (N, D)
    member = F.one_hot(label, num_classes).to(unit.dtype)  # (N, K)
    sums, counts = member.T @ unit, torch.bincount(label, minlength=num_classes)  # (K, D), (K,)
    same = float(sums.square().sum() - unit.square().sum())
    different = float(unit.sum(dim=0).square().sum() - sums.square().sum())
    # Pairs are counted in whole numbers: without any, what is left of the sums is rounding.
    same_pairs = int((counts * (counts - 1)).sum())
    different_pairs = len(unit) ** 2 - int(counts.square().sum())
    return _mean_cosine(same, same_pairs), _mean_cosine(different, different_pairs)


def _mean_cosine(total: float, pairs: int) -> float:
    """Of so many pairs, in [-1, 1] for all rounding; NaN without any."""
    return min(1.0, max(-1.0, total / pairs)) if pairs else math.nan


def ball_radii(real: Tensor, k: int = 5) -> Tensor:
    """Distance from each real sample to its k-th nearest other: (N, D), N > k -> (N,)."""
    if len(real) <= k:
        raise ValueError(f"Expected more than k = {k} real samples, got {len(real)}")
    real = real.double()
    nearest = [_distances(block, real).topk(k + 1, dim=1, largest=False).values for block in torch.split(real, BLOCK)]
    return torch.cat(nearest)[:, -1]  # the nearest of all is the sample itself


def density_coverage(
    real: Tensor,
    radii: Tensor,
    generated: Tensor,
    k: int = 5,
    draws: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]] = (),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density and coverage: how far generated samples lie where real ones do, and how much of the real set they reach.

    The terms of either set share the samples of the other, so that resampling one alone shows too little spread.

    Args:
        real: (N, D).
        radii: The reach of each real sample, exclusive, (N,): ``ball_radii(real, k)``, and not those of a resample,
            where repeated samples would shrink them.
        generated: (M, D).
        k: Neighbours.
        draws: Of each of R resamples the indices of real and of generated samples, (N,) and (M,).

    Returns:
        Of the sets as they are, and then of the resamples, (1 + R,) each.

    Source: Naeem and others, Reliable Fidelity and Diversity Metrics for Generative Models (2020), equations 4 and 6.
    """
    real, generated = real.double(), generated.double()
    pairs = [(np.arange(len(real)), np.arange(len(generated))), *draws]
    of_real = torch.from_numpy(np.stack([np.bincount(i, minlength=len(real)) for i, _ in pairs])).double()  # (R, N)
    of_generated = torch.from_numpy(np.stack([np.bincount(j, minlength=len(generated)) for _, j in pairs])).double()
    balls, held = torch.zeros(len(pairs)).double(), torch.zeros_like(of_real)
    for block, often in zip(torch.split(generated, BLOCK), torch.split(of_generated, BLOCK, dim=1), strict=True):
        inside = (_distances(block, real) < radii).double()  # (B, N)
        balls += ((of_real @ inside.T) * often).sum(dim=1)
        held += often @ inside
    coverage = ((held > 0) * of_real).sum(dim=1) / len(real)
    return (balls / (k * len(generated))).numpy(), coverage.numpy()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances between rows, (A, B). Not by way of a . b, which loses the small ones."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance between Gaussians fitted to two feature sets: |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)).

    The trace of (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2), which needs symmetric square roots
    only and stays real when a covariance is singular.

    Args:
        a: (N, D), N >= 2.
        b: (M, D), M >= 2.

    Raises:
        ValueError: A set has fewer than 2 samples.

    Source: Heusel and others, GANs Trained by a Two Time-Scale Update Rule (2017), equation 6; here without Inception.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"Expected sets of at least 2 samples, got {min(len(a), len(b))}")
    a, b = a.double(), b.double()
    covariance_a, covariance_b = _covariance(a), _covariance(b)  # (D, D)
    cross = torch.linalg.svdvals(_square_root(covariance_a) @ _square_root(covariance_b)).sum()
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return max(0.0, float(means + covariance_a.trace() + covariance_b.trace() - 2 * cross))


def _covariance(features: Tensor) -> Tensor:
    """Sample covariance, (D, D)."""
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def _square_root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite matrix."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * eigenvalues.clamp(min=0).sqrt()) @ vectors.T
    return root


def nearest_neighbours(queries: Tensor, pool: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k nearest members of a pool, by Euclidean distance, nearest first.

    Candidates are found in float32 by way of the fast product a . b; their distances are then computed exactly.

    Args:
        queries: (N, D).
        pool: (M, D), M >= k.
        k: Neighbours.

    Returns:
        distance, float64, and index into the pool, int64, both (N, k).
    """
    if len(pool) < k:
        raise ValueError(f"Expected a pool of at least k = {k} samples, got {len(pool)}")
    rows = pool if pool.dtype == torch.float64 else pool.float()  # float32 is not copied
    centre = rows.mean(dim=0)
    centred = (rows - centre).float()
    squares = centred.square().sum(dim=1)  # (M,)
    distances, indices = [], []
    for block in torch.split(queries, max(1, min(BLOCK, VALUES // max(queries.shape[1], 1)))):
        # |a - b|^2 without |a|^2, which is the same for all candidates of a query.
        score = torch.addmm(squares, (block - centre).float(), centred.T, alpha=-2)  # (B, M)
        candidates = score.topk(min(k + SPARE, len(pool)), dim=1, largest=False).indices  # (B, k + SPARE)
        given = block.double()
        exact = torch.stack([(given - pool[near].double()).norm(dim=1) for near in candidates.T], dim=1)
        distance, order = exact.sort(dim=1, stable=True)
        distances.append(distance[:, :k])
        indices.append(candidates.gather(1, order)[:, :k])
    return torch.cat(distances), torch.cat(indices)


def ssim(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """Structural similarity of image pairs, mean over pixels and channels, in [-1, 1].

    Uniform windows that lie wholly inside the image, sample covariance, data range 1: scikit-image's defaults.

    Args:
        a: (N, C, H, W) in [0, 1], sides of at least ``window``.
        b: Likewise.
        window: Side of the window.

    Returns:
        (N,).

    Source: Wang and others, Image Quality Assessment: From Error Visibility to Structural Similarity (2004).
    """
    if min(a.shape[-2:]) < window:
        raise ValueError(f"Expected images of at least {window} x {window} pixels, got {tuple(a.shape[-2:])}")
    at_once = batch_size_for(BLOCK, a.shape)
    pairs = zip(torch.split(a, at_once), torch.split(b, at_once), strict=True)
    return torch.cat([_similarity(x.double(), y.double(), window) for x, y in pairs])


def _similarity(a: Tensor, b: Tensor, window: int) -> Tensor:
    """The same of a block of pairs, float64."""
    mean_a, mean_b = _window_means(a, window), _window_means(b, window)
    unbiased = window**2 / (window**2 - 1)
    variance_a = unbiased * (_window_means(a * a, window) - mean_a**2)
    variance_b = unbiased * (_window_means(b * b, window) - mean_b**2)
    covariance = unbiased * (_window_means(a * b, window) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    return similarity.mean(dim=(1, 2, 3))


def _window_means(images: Tensor, window: int) -> Tensor:
    """Means over all square windows, (N, C, H - window + 1, W - window + 1); twice as fast as average pooling."""
    return images.unfold(2, window, 1).mean(dim=-1).unfold(3, window, 1).mean(dim=-1)
