"""What contrastive methods share: pairs against the batch of all processes, and a temperature that is learned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.gather import evenly, gather, world
from lingula.losses.cosine import cosine
from lingula.losses.info_nce import info_nce


def own_columns(count: int, device: torch.device) -> Tensor:
    """``(n,)`` int64: where this process's rows stand among those of all processes, equally many on each."""
    return world()[0] * count + torch.arange(count, device=device)


def contrast_pairs(one: Tensor, other: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE of pairs in both directions; the candidates are those of all processes, equally many on each.

    Args:
        one, other: ``(n, D)``, this process's; the i-th belongs to the i-th.
        temperature: tau > 0.
    Returns:
        ``(n,)`` from ``one`` to ``other`` and ``(n,)`` back, in nats (:func:`lingula.losses.info_nce.info_nce`).
    """
    positive = own_columns(len(one), one.device)
    if world()[1] == 1:  # everybody's rows are one's own, so one product has both directions: its rows and its columns
        logits = cosine(one, other) / temperature
        there, back = (F.cross_entropy(x, positive, reduction="none") for x in (logits, logits.T))
        return there, back
    all_one, all_other = gather(one, evenly(one)), gather(other, evenly(other))
    return info_nce(one, all_other, temperature, positive), info_nce(other, all_one, temperature, positive)


class Temperature(nn.Module):
    """A softmax temperature, learned as its logarithm or held fixed.

    "The temperature parameter ... was ... directly optimized during training as a log-parameterized multiplicative
    scalar ... clipped to prevent scaling the logits by more than 100" (CLIP, arXiv:2103.00020, sections 2.3 and 2.5).

    Args:
        start: its first value, above 0.
        learnable: whether it is learned.
        lowest, highest: the range that it is held in while it is learned.
    Raises:
        ValueError: for a start of 0 or less.
    """

    def __init__(self, start: float, learnable: bool = True, lowest: float = 0.01, highest: float = 1.0) -> None:
        super().__init__()
        if start <= 0:
            raise ValueError(f"temperatures must be positive, got {start}")
        self.learnable, self.lowest, self.highest = learnable, lowest, highest
        logarithm = torch.tensor(math.log(start))
        if learnable:
            self.logarithm = nn.Parameter(logarithm)
        else:
            self.register_buffer("logarithm", logarithm)

    def forward(self) -> Tensor:
        """tau, a scalar."""
        if not self.learnable:
            return self.logarithm.exp()
        lowest, highest = math.log(self.lowest), math.log(self.highest)
        if not torch.is_grad_enabled():
            return self.logarithm.clamp(lowest, highest).exp()
        self.logarithm.data.clamp_(lowest, highest)  # itself: a clamp has no gradient at its bounds and beyond them
        return self.logarithm.exp()
