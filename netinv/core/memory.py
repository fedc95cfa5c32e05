"""How large a batch may be, and what becomes of memory that a process has freed."""

import ctypes
import gc
from collections.abc import Sequence

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's ``malloc.h``."""
LARGE = 2**25
"""Bytes of a piece that glibc takes from the system for itself, and gives back when it is freed: the most it allows."""
COLLECTED_AFTER = 20_000
"""New objects after which Python looks for cycles that nobody holds; 700 by default."""
USUAL_PIXELS = 64 * 64
"""Up to this size an image leaves the batch as it is."""
SMALLEST_BATCH = 16
"""Batch norm and the cosine of pairs need some company."""


def batch_size_for(batch_size: int, image_shape: Sequence[int]) -> int:
    """A batch that takes about as much memory for large images as it would for 64 x 64 pixels, but not below 16.

    Example:
        >>> batch_size_for(64, (1, 28, 28)), batch_size_for(64, (3, 96, 96)), batch_size_for(64, (3, 224, 224))
        (64, 28, 16)
    """
    pixels = image_shape[-2] * image_shape[-1]
    return min(batch_size, max(SMALLEST_BATCH, batch_size * USUAL_PIXELS // pixels))


def trade_memory_for_speed() -> None:
    """Have this process keep the memory that it has freed, up to 2 GiB of it, and look for garbage less often.

    A training frees its tensors and asks for the same ones at every step. By default glibc gives them back to the
    system in between, which then has to clear each page anew: up to a fifth of a step's processor time. Python looks
    for cycles after each 700 new objects, an eighth of the time that it takes to import torch, Ray and MLflow, whose
    objects all stay. Changes no result. For programs of our own: a library leaves its host's process alone.
    """
    gc.set_threshold(COLLECTED_AFTER)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return
    mallopt(_MMAP_THRESHOLD, LARGE)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
