"""What a generator takes, drawn with numpy: the same seed gives the same images in torch and in ONNX."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from netinv.core import InputError, SharpnessRange, whole

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

BATCH_SIZE = 64
"""Images drawn at a time: fast, and small in memory."""
_RANGE = TypeAdapter(SharpnessRange)


def draw(
    num: int,
    *,
    latent_dim: int,
    num_classes: int,
    seed: int,
    sharpness: float | tuple[float, float],
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
        sharpness: Of all conditions, or its range (low, high), above 0 to 1,000. Each sample has its own s, uniform in
            its logarithm. A model draws well at the one that it was trained with, which ``Metadata.draws`` tells of an
            exported file.
        labels: Wanted label of each sample, N in all, or ``None`` to leave them to chance.

    Returns:
        latent (N, Z) and condition (N, K), both float32; the rows of the condition sum to 1, and each has one largest
        entry, its label's, however small the sharpness is.

    Raises:
        ValueError: An argument is out of its range, or has a fraction where whole numbers are needed.

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
        batch_size=max(whole(num, "The number of images"), 1),
    )
    return next(batches)


def draw_batches(
    num: int,
    *,
    latent_dim: int,
    num_classes: int,
    seed: int,
    sharpness: float | tuple[float, float],
    labels: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[Floats, Floats]]:
    """The samples of :func:`draw`, a batch at a time, so that memory does not grow with ``num``."""
    low, high = sharpness_range(sharpness)
    if num < 0 or batch_size < 1:
        raise ValueError(f"Expected num >= 0 and batch_size >= 1, got {num} and {batch_size}")
    labels = None if labels is None else [whole(label, "A label") for label in labels]
    if labels is not None and (len(labels) != num or not all(0 <= label < num_classes for label in labels)):
        raise ValueError(f"Expected {num} labels from 0 to {num_classes - 1}, got {len(labels)}: {labels}")
    # Two streams, each read row by row: what a sample gets depends on its place alone.
    normal_rng, uniform_rng = np.random.default_rng(whole(seed, "The seed")).spawn(2)
    for start in range(0, max(num, 1), batch_size):  # nothing is one empty batch
        size = min(batch_size, num - start)
        normal = normal_rng.standard_normal((size, latent_dim + num_classes), dtype=np.float32)  # (N, Z + K)
        scale = low * (high / low) ** uniform_rng.random((size, 1))  # (N, 1), float64
        latent, condition = normal[:, :latent_dim].copy(), softmax(scale * normal[:, latent_dim:])
        top = normal[:, latent_dim:].argmax(axis=1)
        _swap_top(condition, top, top if labels is None else np.array(labels[start : start + size], np.int64))
        yield latent, condition


def sharpness_range(sharpness: float | Sequence[float]) -> tuple[float, float]:
    """One sharpness, or two, as a range.

    Raises:
        InputError: It is none.
    """
    try:
        low, high = _RANGE.validate_python(tuple(np.broadcast_to(sharpness, 2).tolist()), strict=True)
        if high / low < math.inf:
            return low, high
    except ValueError:
        pass
    raise InputError(
        f"The sharpness is {sharpness}: give a number above 0 to 1,000, or a range of two, the lower first."
    )


def _swap_top(condition: Floats, top: Integers, labels: Integers) -> None:
    """Make ``labels`` the arg-max, in place, by swapping each row's largest entry, at ``top``, with the label's.

    The entries are exchangeable, so the result is distributed exactly as the draws that have this label. Where the
    largest is the same as another in float32, it becomes the next number above that.
    """
    rows = np.arange(len(condition))
    condition[rows, top], condition[rows, labels] = condition[rows, labels], condition[rows, top]
    others = condition.copy()
    others[rows, labels] = 0
    least = np.nextafter(others.max(axis=1), np.float32(1))
    condition[rows, labels] = np.maximum(condition[rows, labels], least)


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Soft-max over the last axis, float32."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares
