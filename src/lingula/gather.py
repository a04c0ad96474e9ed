"""The batch of all processes, with gradient. Floor 0. On one process every function here is the identity.

The backward of a gather is the *sum* over the processes of the gradients of everybody's copy. DDP then averages the
parameters' gradients over the processes. So a loss that averages its own rows and sees everybody's keys has exactly
the gradient of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Kept = TypeVar("Kept")


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) where torch.distributed is not running."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        longest = max(sizes)
        every = x.new_empty((len(sizes), longest, *x.shape[1:]))
        dist.all_gather_into_tensor(every.flatten(0, 1), _padded(x, longest))
        return torch.cat([part[:size] for part, size in zip(every, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        longest = max(ctx.sizes)
        parts = torch.cat([_padded(part, longest) for part in grad.split(ctx.sizes)])
        own = torch.empty_like(parts[:longest])
        dist.reduce_scatter_tensor(own, parts)
        return own[: ctx.sizes[dist.get_rank()]], None


def _padded(x: Tensor, rows: int) -> Tensor:
    """With zeros up to so many rows."""
    if len(x) == rows:
        return x.contiguous()
    return torch.cat([x, x.new_zeros((rows - len(x), *x.shape[1:]))])


def row_counts(count: int, device: torch.device) -> list[int]:
    """How many rows each process holds, in the order of the ranks; ``[count]`` on one process."""
    rank, processes = world()
    if processes == 1:
        return [count]
    counts = torch.zeros(processes, dtype=torch.int64, device=device)
    counts[rank] = count
    dist.all_reduce(counts)
    return [int(c) for c in counts.tolist()]


def evenly(x: Tensor) -> list[int]:
    """The sizes where all processes have as many rows as this one, as films in training: nobody has to be asked."""
    return [len(x)] * world()[1]


def gather(x: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Rows of all processes in the order of the ranks, with gradient.

    Args:
        x: ``(n, ...)`` this process's rows; n may differ between processes.
        sizes: :func:`row_counts` of x, where the caller has it already, or :func:`evenly`; else they are asked for,
            and the host waits for the device.
    Returns:
        ``(sum of n, ...)``.
    """
    if world()[1] == 1:
        return x
    if sizes is None:
        sizes = row_counts(len(x), x.device)
    result: Tensor = _AllGather.apply(x, sizes)
    return result


def sum_over_all(x: Tensor) -> Tensor:
    """The sum over all processes of a tensor of one shape, without gradient."""
    if world()[1] == 1:
        return x
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def as_the_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if world()[1] > 1:
        for x in tensors:
            dist.broadcast(x, 0)


def mean_over_all(total: Tensor, count: Tensor | int) -> Tensor:
    """A ragged mean over all processes, scaled so that DDP's average of gradients is the gradient of that mean.

    Args:
        total: the sum over this process's samples.
        count: how many they are; processes may differ.
    Returns:
        ``total * processes / count of all processes``; 0 where nobody has a sample.
    """
    processes = world()[1]
    count = torch.as_tensor(count, device=total.device, dtype=torch.float32)
    if processes > 1:
        count = count.clone()
        dist.all_reduce(count)
    return total * processes / count.clamp_min(1)


def gather_objects(own: Kept) -> list[Kept]:
    """What each process has, in the order of the ranks, such as encodings of unequal sizes; slow, so not for training.

    Args:
        own: on the CPU, something that can be pickled.
    """
    processes = world()[1]
    if processes == 1:
        return [own]
    found: list[Kept] = [own] * processes
    dist.all_gather_object(found, own)
    return found
