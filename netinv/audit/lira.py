"""Membership by a likelihood ratio, LiRA, in its offline variant.

Source: Carlini and others, Membership Inference Attacks From First Principles (2022), section VI. Their code is
``research/mi_lira_2021`` of the repository tensorflow/privacy.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

MANY = 64
"""Shadow models from which on an image has a deviation of its own; with fewer, one serves all, as the paper advises."""


def confidence(logits: Tensor, label: Tensor) -> Floats:
    """log(p / (1 - p)) of the probability p of the true class, which is close to normal over trainings: (N, K) -> (N,).

    Example:
        >>> confidence(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])).round(4).tolist()
        [1.3069]
    """
    logits = logits.double()
    rows = torch.arange(len(logits))
    true = logits[rows, label]
    rest = logits.clone()
    rest[rows, label] = -torch.inf
    found: Floats = (true - rest.logsumexp(dim=1)).numpy()
    return found


def scores(target: Floats, shadows: Floats, is_out: NDArray[np.bool_], own_deviation: bool | None = None) -> Floats:
    """How far the audited classifier is surer of each image than models that never saw it, in standard deviations.

    It orders images as the paper's offline test does, 1 - P(Z > target) with Z normal of the median and the deviation
    of the shadow models' confidences: one-sided, so that an image that the classifier is unsure of is no evidence. (The
    published code takes the normal's density, which is small on that side as well.)

    Args:
        target: Confidence of the audited classifier in each image, (N,).
        shadows: That of each shadow model, (S, N).
        is_out: Whether the shadow model was trained without the image, (S, N); each column has as many.
        own_deviation: Each image has a deviation of its own; ``None`` says so from ``MANY`` shadow models on.

    Returns:
        (N,), larger is more likely a member.

    Raises:
        ValueError: An image has another number of models that never saw it, or none.
    """
    counts = is_out.sum(axis=0)
    if counts.min() < 1 or counts.min() != counts.max():
        raise ValueError(f"Expected as many shadow models without each image, got {counts.min()} to {counts.max()}")
    out = shadows.T[is_out.T].reshape(len(target), -1)  # (N, models that never saw it)
    if own_deviation is None:
        own_deviation = len(shadows) >= MANY
    deviation = np.std(out, axis=1) if own_deviation else np.std(out)
    found: Floats = (target - np.median(out, axis=1)) / (deviation + 1e-30)
    return found
