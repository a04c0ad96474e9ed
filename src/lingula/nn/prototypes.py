"""Prototypes: learned points of the unit sphere that stand for what many films and reports have in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.losses.cosine import unit


class Prototypes(nn.Module):
    """K vectors of unit length, and the cosines of embeddings with them.

    They learn by gradient like any weight, and are set to unit length again after each step. "Freezing the
    prototypes" for a while lets the encoders settle first: their gradient is then 0.

    Args:
        dim: D.
        count: K, 1 or more.
        frozen_steps: training steps at the beginning in which they do not learn.
    Raises:
        ValueError: for a count below 1, or fewer than 0 frozen steps.
    """

    steps: Tensor

    def __init__(self, dim: int, count: int, frozen_steps: int = 0) -> None:
        super().__init__()
        if count < 1 or frozen_steps < 0:
            raise ValueError(f"at least 1 prototype and 0 frozen steps, got {count} and {frozen_steps}")
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=-1))
        self.frozen_steps = frozen_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, K)`` cosines, float32 or better."""
        # A gradient of 0, not none: DDP waits for it. And the device is not asked how many steps there were.
        learning = (self.steps >= self.frozen_steps).to(self.weight.dtype)
        weight = learning * self.weight + (1 - learning) * self.weight.detach()
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = unit(embeddings)
            return embeddings @ weight.to(embeddings.dtype).T

    @torch.no_grad()
    def after_step(self) -> None:
        """Back to unit length, and one step more; in training only."""
        if self.training:
            self.weight.copy_(F.normalize(self.weight, dim=-1))
            self.steps += 1
