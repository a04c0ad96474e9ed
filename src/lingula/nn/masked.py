"""A projection of words: BatchNorm that does not count padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm1d):
    """BatchNorm whose statistics are those of the real rows alone; evaluation and state are BatchNorm's.

    It counts on the device how many rows are real, and takes none out, so nobody has to wait for the count.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(n, C)`` and, where some are padding, ``(n,)`` bool to ``(n, C)``; padding's rows mean nothing."""
        if mask is None or not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            real = mask[:, None].to(wide.dtype)
            count = real.sum().clamp_min(1)
            mean = (wide * real).sum(0) / count
            centred = wide - mean
            variance = (centred.square() * real).sum(0) / count
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean), momentum)
                unbiased = variance * count / (count - 1).clamp_min(1)
                self.running_var.lerp_(unbiased.to(self.running_var), momentum)
            normed = centred * torch.rsqrt(variance + self.eps)
            return normed if not self.affine else normed * self.weight + self.bias


class WordProjection(nn.Module):
    """Linear, BatchNorm, ReLU, Linear, BatchNorm without scale and shift (``heads.mlp``), over real words alone.

    Args:
        features, hidden, dim: the widths.
    """

    def __init__(self, features: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden, bias=False)
        self.hidden_norm = MaskedBatchNorm(hidden)
        self.output = nn.Linear(hidden, dim, bias=False)
        self.output_norm = MaskedBatchNorm(dim, affine=False)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """``(B, W, C)`` and ``(B, W)`` bool to ``(B, W, D)``, 0 on padding."""
        flat, real = words.flatten(0, 1), mask.flatten()
        hidden = torch.relu(self.hidden_norm(self.hidden(flat), real))
        projected = self.output_norm(self.output(hidden), real)
        return projected.unflatten(0, words.shape[:2]) * mask[..., None]
