"""A queue of keys, the negatives that earlier batches leave to later ones, and what MoCo needs beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lingula.gather import evenly, gather
from lingula.keyed import keyed_uniform
from lingula.losses.cosine import unit


class KeyQueue(nn.Module):
    """The last K keys of all processes, first in, first out.

    It starts with random directions, the same in every run, and is written in ``after_step`` with the keys of every
    batch of the step; evaluation leaves it alone. Batches may have any size, the same on all processes. It is in
    buffers, so it comes back from a checkpoint, and nobody has to ask the device where it is being written.

    Args:
        size: K.
        dim: D.
    Raises:
        ValueError: for a queue of nothing.
    Attributes:
        keys: ``(K, D)`` of unit length.
        pointer: int64 scalar, the place of the oldest key, which the next one takes.
    """

    keys: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue holds one key or more, got {size}")
        start = torch.randn(size, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("keys", unit(start))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._seen: list[Tensor] = []  # this step's keys, until after_step

    @torch.no_grad()
    def put(self, keys: Tensor) -> None:
        """Remember ``(n, D)`` keys of this process until :meth:`after_step`; in training only."""
        if self.training:
            self._seen.append(unit(keys).to(self.keys.dtype))

    @torch.no_grad()
    def after_step(self) -> None:
        """Write the step's keys over the oldest: of each batch those of all processes, in the order of the ranks."""
        seen, self._seen = self._seen, []
        for batch in seen:
            new, size = gather(batch, evenly(batch)), len(self.keys)
            places = (self.pointer + torch.arange(len(new), device=new.device)) % size
            # Of more than K keys the last K stay; the same place written twice would be left to chance.
            self.keys.index_copy_(0, places[-size:], new[-size:])
            self.pointer.add_(len(new)).remainder_(size)


def in_shuffled_groups(
    encode: Callable[[Tensor], Tensor], images: Tensor, rows: Tensor, seed: int, groups: int
) -> Tensor:
    """Encode films in groups drawn at random, so that a BatchNorm sees only one group at a time.

    A query and its key come from the same batch. Where both are normalised by the statistics of that batch, the key
    can be told from those in the queue by the statistics that it carries. MoCo, arXiv:1911.05722, section 3.3, has a
    batch on several GPUs, each with its own statistics, and shuffles the batch over them for the keys alone.

    Here a process splits its own keys into groups, and keeps the queries together. So a key still shares its group's
    films with the batch of its query: the statistics are less alike than without groups, not independent as in the
    paper. Several processes do not exchange films. Encoders without BatchNorm need none of this.

    Args:
        encode: from ``(n, ...)`` to ``(n, D)``.
        images: ``(n, ...)``.
        rows: ``(n,)`` int64, each film's identity: the groups belong to (seed, rows), not to the order of the batch.
        seed: of the draw.
        groups: how many; fewer where a group would have less than two films, and 1 for the batch as it is.
    Returns:
        ``(n, D)`` in the order of ``images``.
    """
    groups = min(groups, len(images) // 2)
    if groups < 2:
        return encode(images)
    order = keyed_uniform(seed, rows, 1)[:, 0].argsort()
    encoded = torch.cat([encode(images[group]) for group in order.tensor_split(groups)])
    return encoded[order.argsort()]
