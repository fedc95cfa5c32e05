"""Exact data parallelism: several workers, each with an equal part of a batch, compute what one would with all of it.

Some of inversion couples the samples of a batch: batch norm, the cosine and orthogonality terms, the pixel statistics.
So batch statistics are summed over the workers, and the losses see the features of all; gradients flow through both.
Random numbers do not depend on the number of workers: each draws those of the whole batch, and keeps its own rows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class GlobalBatch(TorchFunctionMode):
    """A context in which random draws and batch norm are those of the batch of all workers.

    It stands on the default process group, on the CPU (gloo) or on GPUs (nccl). Dimension 0 of whatever is drawn within
    is the batch. Generators are seeded alike on all workers and stay alike, so that any worker's state is everybody's.

    Args:
        batch_size: N of all workers together.

    Raises:
        ValueError: The workers cannot share the batch equally.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.rank, self.num_workers = dist.get_rank(), dist.get_world_size()
        if batch_size % self.num_workers:
            raise ValueError(f"Expected a batch that {self.num_workers} workers share equally, got {batch_size}")
        self.local_size = batch_size // self.num_workers
        """Samples of this worker."""

    def gather(self, local: Tensor) -> Tensor:
        """The rows of all workers, in order of rank: (N / num_workers, ...) -> (N, ...).

        Every worker is expected to compute the same loss from them, so each takes its own rows of the gradient.
        """
        gathered: Tensor = _Gather.apply(local, self.rank, self.num_workers)
        return gathered

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each worker's gradients, of its own rows, by their sum, which is the gradient of the whole batch."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        totals = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view(gradient.shape))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Stand in for the functions that concern more than one sample."""
        kwargs = kwargs or {}
        if func in (torch.rand, torch.randn, torch.randint):
            return self._draw(func, args, kwargs)
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if kwargs.get("generator") is not None:
            raise NotImplementedError(f"{func.__name__} would depend on the number of workers")
        return func(*args, **kwargs)

    def _draw(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """Random numbers of the whole batch, of which this worker keeps its rows."""
        *bounds, size = args if isinstance(args[-1], Sequence) else [args]
        whole = func(*bounds, (size[0] * self.num_workers, *size[1:]), **kwargs)
        return whole.chunk(self.num_workers)[self.rank]

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Normalise by the statistics of all workers; torch's SyncBatchNorm does so on GPUs only."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        assert weight is not None
        assert bias is not None
        dtype, input = input.dtype, input.to(weight.dtype)  # sums of many need it
        channel = (1, -1, *(1 for _ in input.shape[2:]))
        others = [dim for dim in range(input.ndim) if dim != 1]
        count = input.numel() // input.shape[1] * self.num_workers
        mean = _sum(input.sum(others)) / count  # (C,)
        centred = input - mean.view(channel)
        variance = _sum(centred.square().sum(others)) / count  # (C,)
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * count / (count - 1), momentum)
        scale = weight * torch.rsqrt(variance + eps)
        return (centred * scale.view(channel) + bias.view(channel)).to(dtype)


def _sum(local: Tensor) -> Tensor:
    """Sum over the workers."""
    total: Tensor = _Sum.apply(local)
    return total


class _Sum(torch.autograd.Function):
    """Sum over the workers; all of them depend on it, so the gradient is a sum over them as well."""

    @staticmethod
    def forward(context: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """See :meth:`GlobalBatch.gather`."""

    @staticmethod
    def forward(context: Any, local: Tensor, rank: int, num_workers: int) -> Tensor:
        context.rank, context.num_workers = rank, num_workers
        parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(num_workers)]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].chunk(context.num_workers)[context.rank], None, None
