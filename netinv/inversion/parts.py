"""The classifier's work on a batch, part by part, for networks whose memory does not hold all of a batch.

A frozen classifier looks at each image by itself, and the loss looks at all of them. So its outputs are put together
before the loss, which stays that of the whole batch, and so does its gradient, to rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop


def in_parts(function: Callable[..., Tensor], at_once: int | None, *inputs: Tensor | float) -> Tensor:
    """``function`` of so many rows at a time, put together again; a number, or ``at_once`` of ``None``, is for all.

    Args:
        function: Of rows, each by itself: (n, ...) to (n, ...).
        at_once: Rows in a part.
        inputs: Tensors of N rows, and numbers.
    """
    num = next(len(value) for value in inputs if isinstance(value, Tensor))
    if at_once is None or at_once >= num:
        return function(*inputs)
    parts = [
        [value[i : i + at_once] if isinstance(value, Tensor) else value for value in inputs]
        for i in range(0, num, at_once)
    ]
    return torch.cat([function(*part) for part in parts])


def recomputed(function: Callable[[Tensor], tuple[Tensor, ...]], at_once: int, images: Tensor) -> tuple[Tensor, ...]:
    """``function`` of images, so many at a time, which keeps no more than its results until their gradients are due.

    Then each part is computed again, and its gradients follow at once: exact, for the time of another forward pass.
    """
    # A network in an adapter must come to its end: what stops it halfway looks like a failure of its own.
    with set_checkpoint_early_stop(False):
        parts = [
            checkpoint(function, part, use_reentrant=False, preserve_rng_state=False)
            for part in torch.split(images, at_once)
        ]
    return tuple(map(torch.cat, zip(*parts, strict=True)))
