"""A momentum encoder: a copy that follows its original slowly, and gets no gradient."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class MomentumEncoder(nn.Module):
    """The exponential moving average of another module's parameters.

    .. math:: \\theta_k \\leftarrow m\\,\\theta_k + (1 - m)\\,\\theta_q

    Source: MoCo, arXiv:1911.05722, Eq. 2. Buffers, such as the statistics of a BatchNorm, are its own. It is in
    training mode whenever the method is, as MoCo's key encoder.

    Args:
        original: the module that is followed; copied here as it is.
        momentum: m in [0, 1).
    Raises:
        ValueError: for a momentum outside [0, 1).
    """

    def __init__(self, original: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        self.momentum = momentum
        self.copy = copy.deepcopy(original).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the copy makes of the inputs, without gradient."""
        return self.copy(*inputs)

    @torch.no_grad()
    def follow(self, original: nn.Module) -> None:
        """Move the copy one step towards the original; call it in ``after_step``, in training only."""
        for own, other in zip(self.copy.parameters(), original.parameters(), strict=True):
            own.lerp_(other.detach(), 1 - self.momentum)
