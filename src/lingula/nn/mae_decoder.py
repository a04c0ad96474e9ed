"""The light transformer that completes what a masked autoencoder has hidden."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lingula.nn.positions import grid_positions


class MaskedDecoder(nn.Module):
    """From the features of a film's visible patches to the pixels of its hidden ones (MAE, arXiv:2111.06377).

    Args:
        features: C, width of the encoder.
        grid: ``(h, w)`` of the patches.
        pixels: how many each patch has.
        width: of the decoder, divisible by 4 and by its heads.
        depth: how many blocks.
        heads: attention heads.
    Raises:
        ValueError: if the width does not divide so.
    """

    positions: Tensor

    def __init__(
        self, features: int, grid: tuple[int, int], pixels: int, width: int = 512, depth: int = 8, heads: int = 16
    ) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.embed = nn.Linear(features, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.register_buffer("positions", grid_positions(grid, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, pixels)

    def forward(self, encoded: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """What the hidden patches look like.

        Args:
            encoded: ``(B, p + v, C)``: p tokens of no place, such as a class token, then the visible patches.
            visible: ``(B, v)`` int64, their places.
            hidden: ``(B, m)`` int64, all other places.
        Returns:
            ``(B, m, pixels)``.
        """
        x = self.embed(encoded)
        prefix = x.shape[1] - visible.shape[1]
        places = self.mask_token.to(x.dtype).expand(len(x), len(self.positions), -1)
        places = places.scatter(1, visible[..., None].expand(-1, -1, x.shape[-1]), x[:, prefix:])
        places = places + self.positions
        x = self.norm(self.blocks(torch.cat([x[:, :prefix], places.to(x.dtype)], dim=1)))[:, prefix:]
        predicted: Tensor = self.head(x.gather(1, hidden[..., None].expand(-1, -1, x.shape[-1])))
        return predicted
