"""An encoder that does not learn."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """An image encoder without gradient and always in evaluation mode: its BatchNorm statistics are frozen too.

    The released code of the field calls an encoder frozen whose last stage learns and whose BatchNorm moves.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Any:
        with torch.no_grad():
            return self.encoder(images)


def encoder_to_use(encoder: nn.Module, finetuned: bool) -> nn.Module:
    """A copy of an encoder to be trained further, or the encoder itself, frozen."""
    if not finetuned:
        return Frozen(encoder)
    encoder = copy.deepcopy(encoder)
    encoder.requires_grad_(True)
    return encoder
