"""Vector-matrix conditioning (paper, section 2): what a generated image is asked to be.

A class is not revealed as a bare label. It is encoded in a probability vector, whose arg-max is the label, and in a
hot matrix that lights up the label's row and column.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Condition(NamedTuple):
    """What a batch of N images is conditioned on."""

    vector: Tensor
    """Wanted class probabilities, (N, K), each row sums to 1."""
    label: Tensor
    """Arg-max of each vector, (N,), int64."""


def draw_condition(
    num: int, num_classes: int, sharpness: tuple[float, float], rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The random numbers of N conditions, of which :func:`condition_of` makes them.

    Args:
        num: N.
        num_classes: K.
        sharpness: Range (low, high) of s, 0 < low <= high.
        rng: Random state; its device is that of the result.

    Returns:
        e ~ N(0, I_K), (N, K), and the place of each s in its range, in [0, 1), (N, 1), or (N, 0) where that is one
        number.
    """
    low, high = sharpness
    normal = torch.randn(num, num_classes, generator=rng, device=rng.device)
    return normal, torch.rand(num, int(high > low), generator=rng, device=rng.device)


def condition_of(normal: Tensor, uniform: Tensor, sharpness: tuple[float, float]) -> Condition:
    """Conditions p = softmax(s e), of the random numbers of :func:`draw_condition`.

    Args:
        normal: e, (N, K).
        uniform: Places of the sharpness in its range, (N, 1) or (N, 0).
        sharpness: Range (low, high) of s. Each sample has its own s, uniform in its logarithm, so that one generator
            covers soft and hard conditions; low == high == 1 is the paper.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> condition = condition_of(*draw_condition(4, 10, (1.0, 1.0), rng), (1.0, 1.0))
        >>> condition.vector.shape, condition.label.shape
        (torch.Size([4, 10]), torch.Size([4]))
    """
    low, high = sharpness
    scale = low * (high / low) ** uniform if uniform.shape[1] else low
    vector = torch.softmax(scale * normal, dim=1)  # (N, K)
    return Condition(vector, vector.argmax(dim=1))


def matrix_size(num_classes: int, height: int, width: int) -> int:
    """Side M of the hot matrix for an H x W image.

    The paper's K x K of up to 64 classes, when it fits into the image. Otherwise the smallest square grid with a cell
    for each class, ceil(sqrt(K)), cut to the shorter image side; see :func:`hot_matrix` for what the grid then means.

    Example:
        >>> matrix_size(10, 28, 28), matrix_size(100, 224, 224), matrix_size(1000, 224, 224), matrix_size(1000, 16, 16)
        (10, 10, 32, 16)
    """
    side = min(height, width)
    if num_classes <= side and num_classes <= 64:
        return num_classes
    return min(math.isqrt(num_classes - 1) + 1, side)


def hot_matrix(label: Tensor, num_classes: int, size: int) -> Tensor:
    """The M x M hot matrix of each label: 1 along one row and one column, 0 elsewhere.

    With M = K (the paper) the row and the column are both the label's, so their crossing walks along the diagonal.
    With M < K they are ``label // M`` and ``label % M`` (modulo M), so that up to M * M classes keep crosses of their
    own; beyond that several classes share one and the condition vector alone tells them apart.

    Args:
        label: (N,), int64 in [0, K).
        num_classes: K.
        size: M.

    Returns:
        (N, 1, M, M), float32.

    Example:
        >>> hot_matrix(torch.tensor([1]), num_classes=3, size=3)[0, 0].int().tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    if size >= num_classes:
        row = column = label
    else:
        row, column = label // size % size, label % size
    cells = torch.arange(size, device=label.device)
    in_row = row[:, None] == cells  # (N, M)
    in_column = column[:, None] == cells  # (N, M)
    return (in_row[:, None, :, None] | in_column[:, None, None, :]).float()  # (N, 1, M, M)
