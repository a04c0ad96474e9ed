"""Sums over many rows, a tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sum_over_tiles(
    part: Callable[..., tuple[Tensor, ...]], rows: Sequence[Tensor], tile: int = 512
) -> tuple[Tensor, ...]:
    """Add up what ``part`` makes of the rows.

    Where there are more rows than a tile holds, no tile's intermediate results are kept: they are computed again in the
    backward pass. So a loss that compares n rows with N others needs memory for tile x N numbers, not n x N.

    Args:
        part: from a tile of each of ``rows`` to sums over its rows; without randomness.
        rows: tensors of n rows each.
        tile: rows at a time.
    Returns:
        the sums, exact but for the order of the additions.
    """
    if len(rows[0]) <= tile:
        return part(*rows)
    tiles = zip(*(each.split(tile) for each in rows), strict=True)
    parts = [checkpoint(part, *each, use_reentrant=False, preserve_rng_state=False) for each in tiles]
    return tuple(sum(sums[1:], sums[0]) for sums in zip(*parts, strict=True))
