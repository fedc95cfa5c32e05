"""What a generator takes, drawn with numpy: the same seed gives the same images in torch and in ONNX."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

BATCH_SIZE = 64
"""Images drawn at a time: fast, and small in memory."""


def draw(
    num: int,
    *,
    latent_dim: int,
    num_classes: int,
    seed: int,
    sharpness: tuple[float, float],
    labels: Sequence[int] | None = None,
) -> tuple[Floats, Floats]:
    """Draw what a generator takes: z ~ N(0, I_Z) and p = softmax(s * e) with e ~ N(0, I_K).

    The first n samples are the same whatever ``num`` is, and each keeps its latent and its e under every
    ``sharpness`` and every label.

    Args:
        num: N.
        latent_dim: Z.
        num_classes: K.
        seed: Non-negative; fixes every draw.
        sharpness: Range (low, high) of s. Each sample has its own s, uniform in its logarithm. A model draws well at
            the one that it was trained with, which ``Metadata.draws`` tells of an exported file.
        labels: Wanted label of each sample, N in all, or ``None`` to leave them to chance.

    Returns:
        latent (N, Z) and condition (N, K), both float32; the rows of the condition sum to 1.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> latent, condition = draw(2, latent_dim=4, num_classes=3, seed=0, sharpness=(40.0, 40.0), labels=[2, 0])
        >>> latent.shape, condition.argmax(axis=1).tolist()
        ((2, 4), [2, 0])
    """
    batches = draw_batches(
        num,
        latent_dim=latent_dim,
        num_classes=num_classes,
        seed=seed,
        sharpness=sharpness,
        labels=labels,
        batch_size=max(num, 1),
    )
    return next(batches)


def draw_batches(
    num: int,
    *,
    latent_dim: int,
    num_classes: int,
    seed: int,
    sharpness: tuple[float, float],
    labels: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[Floats, Floats]]:
    """The samples of :func:`draw`, a batch at a time, so that memory does not grow with ``num``."""
    low, high = sharpness
    if num < 0 or batch_size < 1:
        raise ValueError(f"Expected num >= 0 and batch_size >= 1, got {num} and {batch_size}")
    if not 0 < low <= high:
        raise ValueError(f"Expected sharpness as a range 0 < low <= high, got {sharpness}")
    if labels is not None and (len(labels) != num or not all(0 <= label < num_classes for label in labels)):
        raise ValueError(f"Expected {num} labels from 0 to {num_classes - 1}, got {len(labels)}: {labels}")
    # Two streams, each read row by row: what a sample gets depends on its place alone.
    normal_rng, uniform_rng = np.random.default_rng(seed).spawn(2)
    for start in range(0, max(num, 1), batch_size):  # nothing is one empty batch
        size = min(batch_size, num - start)
        normal = normal_rng.standard_normal((size, latent_dim + num_classes), dtype=np.float32)  # (N, Z + K)
        scale = low * (high / low) ** uniform_rng.random((size, 1))  # (N, 1), float64
        latent, condition = normal[:, :latent_dim].copy(), softmax(scale * normal[:, latent_dim:])
        if labels is not None:
            _swap_top(condition, np.asarray(labels[start : start + size], np.int64))
        yield latent, condition


def _swap_top(condition: Floats, labels: Integers) -> None:
    """Make ``labels`` the arg-max, in place, by swapping each row's largest entry with the label's.

    The entries are exchangeable, so the result is distributed exactly as the draws that have this label.
    """
    rows, top = np.arange(len(condition)), condition.argmax(axis=1)
    condition[rows, top], condition[rows, labels] = condition[rows, labels], condition[rows, top]


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Soft-max over the last axis, float32."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares
