"""How large a batch may be, and what becomes of memory that a process has freed."""

import ctypes
from collections.abc import Sequence

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's ``malloc.h``."""
LARGE = 2**25
"""Bytes of a piece that glibc takes from the system for itself, and gives back when it is freed: the most it allows."""
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


def keep_freed_memory() -> None:
    """Have this process use the memory again that it has freed, up to 2 GiB of it, in place of giving it back.

    A training frees its tensors and asks for the same ones at every step. By default glibc gives them back to the
    system in between, which then has to clear each page anew: up to a fifth of a step's processor time. Changes no
    result, and does nothing where the C library is another one. For programs of our own: a library leaves its host's
    process alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return
    mallopt(_MMAP_THRESHOLD, LARGE)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
