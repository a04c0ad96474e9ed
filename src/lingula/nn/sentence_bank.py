"""A bank of sentence prototypes, by which sentences are replaced."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SentenceBank(nn.Module):
    r"""Learned prototypes; a sentence becomes their mixture, drawn by a soft Gumbel-softmax.

    .. math:: \hat s = \mathrm{softmax}\!\left(\frac{s E^\top + g}{\tau}\right) E

    Source: the sentence prototype bank of PRIOR, arXiv:2307.12577, as its released code has it. There the noise g is
    drawn at evaluation too; here it is the caller's to give, or not.

    Args:
        dim: D.
        prototypes: K, how many; E begins with standard normal numbers.
        temperature: tau.
    Raises:
        ValueError: for fewer than one prototype, or a temperature of 0 or less.
    """

    def __init__(self, dim: int, prototypes: int = 512, temperature: float = 0.9) -> None:
        super().__init__()
        if prototypes < 1 or temperature <= 0:
            raise ValueError(f"a bank needs prototypes and a positive temperature, got {prototypes} and {temperature}")
        self.temperature = temperature
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim))  # E

    def logits(self, sentences: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., K)``: raw products with the prototypes, in float32 or better."""
        with torch.autocast(sentences.device.type, enabled=False):
            wide = sentences if sentences.dtype == torch.float64 else sentences.float()
            return wide @ self.prototypes.T

    def forward(self, sentences: Tensor, noise: Tensor | None = None) -> Tensor:
        """``(..., D)`` to ``(..., D)``.

        Args:
            sentences: what is to be replaced.
            noise: ``(..., K)`` standard Gumbel numbers; ``None`` for a plain softmax.
        """
        logits = self.logits(sentences)
        if noise is not None:
            logits = logits + noise.to(logits.dtype)
        with torch.autocast(sentences.device.type, enabled=False):
            mixture: Tensor = (logits / self.temperature).softmax(-1) @ self.prototypes
            return mixture
