"""Where a place stands on its film, as numbers that no one has to learn."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def grid_positions(
    grid: tuple[int, int], dim: int, trained: tuple[int, int] | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Fixed sines and cosines of a place's row and column, as the transformer's, half of the width for each.

    Args:
        grid: ``(h, w)``.
        dim: D, divisible by 4.
        trained: the grid in whose rows and columns places are measured, where a film of another size is looked at.
        device: where to.
    Returns:
        ``(P, D)`` float32 in [-1, 1], in reading order: of the row the sines at falling frequencies, then the cosines;
        then of the column (Vaswani et al. 2017, in two dimensions).
    Raises:
        ValueError: if D is not divisible by 4.
    Example:
        >>> grid_positions((1, 2), 4)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.0000, 1.0000, 0.8415, 0.5403]])
    """
    if dim % 4:
        raise ValueError(f"width {dim} is not divisible by 4")
    speed = torch.exp(torch.arange(dim // 4, device=device) * (-math.log(10_000.0) / (dim // 4)))
    axes = []
    for length, unit_length in zip(grid, trained or grid, strict=True):
        place = (torch.arange(length, device=device) + 0.5) * (unit_length / length) - 0.5
        angle = place[:, None] * speed
        axes.append(torch.cat([angle.sin(), angle.cos()], dim=1))  # (length, D / 2)
    rows, columns = axes
    height, width = grid
    return torch.cat([rows.repeat_interleave(width, 0), columns.repeat(height, 1)], dim=1)
