"""Many rows, a tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Part = TypeVar("Part", Tensor, tuple[Tensor, ...])


def in_tiles(part: Callable[..., Part], rows: Sequence[Tensor], tile: int) -> list[Part]:
    """What ``part`` makes of the rows, a tile of them after the other.

    Where there are more rows than a tile holds, no tile's intermediate results are kept: they are computed again in the
    backward pass. So a loss that compares n rows with N others needs memory for tile x N numbers, not n x N.

    Args:
        part: of a tile of each of ``rows``; without randomness.
        rows: tensors of n rows each.
        tile: rows at a time, 1 or more.
    """
    if len(rows[0]) <= tile:
        return [part(*rows)]
    tiles = zip(*(each.split(tile) for each in rows), strict=True)
    return [checkpoint(part, *each, use_reentrant=False, preserve_rng_state=False) for each in tiles]


def sum_over_tiles(part: Callable[..., tuple[Tensor, ...]], rows: Sequence[Tensor], tile: int) -> tuple[Tensor, ...]:
    """Add up what ``part`` makes of the rows, :func:`in_tiles`: sums, exact but for the order of the additions."""
    return tuple(torch.stack(sums).sum(0) for sums in zip(*in_tiles(part, rows, tile), strict=True))
