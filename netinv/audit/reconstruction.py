"""Which training images can be recognised in generated ones, at a stated rate of false alarms.

Training and test images are searched for in the same samples. If nothing was memorised, the names "train" and "test"
are exchangeable, so that the distances of the test images tell how close a training image comes by chance.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netinv.evaluation import nearest_neighbours, ssim

CANDIDATES = 4
"""Nearest samples by pixels, among which the most similar in structure is looked for."""
WINDOW = 7
"""Side from which on images have a structural similarity."""


class Nearest(NamedTuple):
    """Of N images, the sample that shows each best."""

    distance: NDArray[np.float64]
    """1 - SSIM, or Euclidean where images are too small for it, (N,)."""
    sample: NDArray[np.int64]
    """Its index, (N,)."""


def nearest_samples(images: Tensor, samples: Tensor) -> Nearest:
    """The sample that shows each image best.

    Args:
        images: (N, C, H, W) in [0, 1].
        samples: (M, C, H, W), likewise.
    """
    distance, index = nearest_neighbours(images.flatten(1), samples.flatten(1), min(CANDIDATES, len(samples)))
    if min(images.shape[-2:]) >= WINDOW:
        distance = torch.stack([1 - ssim(images, samples[near]) for near in index.T], dim=1)
    best = distance.argmin(dim=1)
    rows = torch.arange(len(images))
    return Nearest(distance[rows, best].double().numpy(), index[rows, best].numpy())


def p_values(train: NDArray[np.float64], test: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each training image, how seldom a test image is shown as well: (N,) and (M,) distances -> (N,).

    Source: Bates and others, Testing for Outliers with Conformal p-values (2023), equation 3.

    Example:
        >>> p_values(np.array([0.1, 0.5]), np.array([0.2, 0.3, 0.6])).tolist()
        [0.25, 0.75]
    """
    as_close = np.searchsorted(np.sort(test), train, side="right")
    found: NDArray[np.float64] = (1 + as_close) / (1 + len(test))
    return found


def recognised(p: NDArray[np.float64], false_alarms: float) -> NDArray[np.int64]:
    """Those of N training images of which at most a stated share is expected to be there by chance.

    Source: Benjamini and Hochberg, Controlling the False Discovery Rate (1995). With conformal p-values it keeps its
    rate (Bates and others, 2023, theorem 2).

    Args:
        p: (N,).
        false_alarms: That share.

    Returns:
        Indices, the most evident first.

    Example:
        >>> recognised(np.array([0.9, 0.01, 0.02]), 0.1).tolist()
        [1, 2]
    """
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= false_alarms * (1 + np.arange(len(p))) / len(p))
    return order[: below[-1] + 1] if len(below) else order[:0]
