"""Random numbers that belong to things, not to the order in which things come. Floor 0.

A film's crop, a patch's mask and a sentence's luck in the seeding of k-means are functions of (seed, key). So they are
the same in any order of the batch, on any number of processes, and after a resume, and no generator's state has to
be saved or synchronised.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK34, _MASK37, _MASK33 = (1 << 34) - 1, (1 << 37) - 1, (1 << 33) - 1


def _signed(value: int) -> int:
    """The int64 that has the bits of the uint64 ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _mix(x: Tensor) -> Tensor:
    # The finaliser of SplitMix64 (Steele, Lea, Flood 2014). Tensors have no logical shift: shift, then mask the sign.
    x = (x ^ ((x >> 30) & _MASK34)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ ((x >> 27) & _MASK37)) * _signed(0x94D049BB133111EB)
    return x ^ ((x >> 31) & _MASK33)


def keyed_uniform(seed: int, keys: Tensor, draws: int) -> Tensor:
    """Uniform numbers in the open interval (0, 1), ``draws`` for each key.

    Args:
        seed: any int; another seed gives unrelated numbers.
        keys: ``(n,)`` int64; equal keys get equal numbers.
        draws: how many numbers a key gets.
    Returns:
        ``(n, draws)`` float64 on the device of ``keys``.
    """
    golden = _signed(0x9E3779B97F4A7C15)
    start = _mix(_mix(keys * golden) + _signed(seed * 0xD1342543DE82EF95 + 1))  # (n,)
    steps = torch.arange(1, draws + 1, device=keys.device) * golden  # (draws,)
    bits = _mix(start[:, None] + steps)
    return ((bits >> 12 & ((1 << 52) - 1)).double() + 0.5) / float(1 << 52)


def keyed_gumbel(seed: int, keys: Tensor, draws: int) -> Tensor:
    """Standard Gumbel numbers, ``(n, draws)`` float64: ``argmax(log w + gumbel)`` draws a key in proportion to w."""
    return -torch.log(-torch.log(keyed_uniform(seed, keys, draws)))
