"""Cosine similarities in full precision, whatever autocast says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Rows of unit length, in float32 or better."""
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def dot(query: Tensor, key: Tensor) -> Tensor:
    """Products of each query ``(n, D)`` with each key ``(N, D)``, ``(n, N)`` in the precision of the two."""
    with torch.autocast(query.device.type, enabled=False):
        return query @ key.T


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """Cosine of each query with each key.

    Args:
        query: ``(n, D)``.
        key: ``(N, D)``.
    Returns:
        ``(n, N)`` in [-1, 1], float32 (float64 for float64 input): a bfloat16 cosine over a temperature of 0.01 would
        be wrong by whole nats.
    Raises:
        ValueError: if the widths differ.
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"query and key must be equally wide, got {tuple(query.shape)} and {tuple(key.shape)}")
    return dot(unit(query), unit(key))
