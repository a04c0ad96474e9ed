"""What happens to films on the device, a whole batch at a time. Floor 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.keyed import keyed_uniform


def resize(films: Tensor, size: int) -> Tensor:
    """``(B, S, S)`` uint8 or float to ``(B, size, size)``: antialiased; the same films where the size is right."""
    if films.shape[-1] == size:
        return films
    return F.interpolate(films[:, None].float(), size=(size, size), mode="bilinear", antialias=True)[:, 0]


def crop_corners(seed: int, keys: Tensor, room: int) -> Tensor:
    """Top-left corners of random crops, ``(B, 2)`` int64 in [0, room], a function of (seed, key) alone."""
    return (keyed_uniform(seed, keys, 2) * (room + 1)).long()


def centre_corners(count: int, room: int, device: torch.device) -> Tensor:
    """Top-left corners of centre crops, ``(B, 2)`` int64."""
    return torch.full((count, 2), room // 2, dtype=torch.int64, device=device)


def crop(films: Tensor, corners: Tensor, size: int) -> Tensor:
    """``(B, S, S)`` and ``(B, 2)`` corners (y, x) to ``(B, size, size)``, in one gather."""
    span = torch.arange(size, device=films.device)
    rows = corners[:, 0, None] + span
    columns = corners[:, 1, None] + span
    film = torch.arange(len(films), device=films.device)
    return films[film[:, None, None], rows[:, :, None], columns[:, None, :]]


def to_unit_range(films: Tensor) -> Tensor:
    """Grey values in [0, 255] to float32 in [-1, 1], as the field's ``Normalize(0.5, 0.5)`` does."""
    return films.float() / 127.5 - 1.0
