"""What becomes of memory that a process has freed."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's ``malloc.h``."""
LARGE = 2**25
"""Bytes of a piece that glibc takes from the system for itself, and gives back when it is freed: the most it allows."""


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
