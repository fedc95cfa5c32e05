"""Exact data parallelism: several workers, each with an equal part of a batch, compute what one would with all of it.

Some of inversion couples the samples of a batch: batch norm, the cosine and orthogonality terms, the pixel statistics.
So batch statistics are summed over the workers, and the losses see the features of all; gradients flow through both.
Random numbers do not depend on the number of workers: each draws those of the whole batch, and keeps its own rows.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from netinv.generators import BatchNorm, ConditionedGenerator


class GlobalBatch:
    """The batch of all workers, of which this one has its rows.

    It stands on the default process group, on the CPU (gloo) or on GPUs (nccl). Generators are seeded alike on all
    workers and stay alike, so that any worker's state is everybody's.

    Args:
        batch_size: N of all workers together.

    Raises:
        ValueError: The workers cannot share the batch equally.
    """

    def __init__(self, batch_size: int) -> None:
        self.rank, self.num_workers = dist.get_rank(), dist.get_world_size()
        if batch_size % self.num_workers:
            raise ValueError(f"Expected a batch that {self.num_workers} workers share equally, got {batch_size}")

    def join_batch_norm(self, generator: ConditionedGenerator) -> None:
        """From now on the generator's batch norms normalise by the statistics of all workers."""
        for module in generator.modules():
            if isinstance(module, BatchNorm):
                module.total, module.num_processes = _sum, self.num_workers

    def own_rows(self, whole: Tensor) -> Tensor:
        """The rows of this worker: (N, ...) -> (N / num_workers, ...)."""
        return whole.chunk(self.num_workers)[self.rank]

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
