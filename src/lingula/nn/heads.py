"""Projection heads, predictors and decoders."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


def mlp(*widths: int, norm: bool = True, last_norm: bool = False, last_affine: bool = True) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them: the heads of the papers.

    From ``(n, widths[0])`` to ``(n, widths[-1])``; without any norm from ``(..., widths[0])``.

    Args:
        widths: of the input, the hidden layers and the output.
        norm: BatchNorm after every layer but the last; those layers then need no bias.
        last_norm: BatchNorm after the last layer too.
        last_affine: whether that one has a scale and shift.
    """
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        last = number == len(widths) - 1
        normed = last_norm if last else norm
        layers.append(nn.Linear(before, after, bias=not normed))
        if normed:
            layers.append(nn.BatchNorm1d(after, affine=last_affine or not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class ConvDecoder(nn.Module):
    """A film from a feature map: 3x3 convolutions with bilinear doubling between them, then a head.

    "The fused image features are then passed through a decoder module consisting of five convolutional layers and
    bilinear interpolation" (CM-CGNS, arXiv:2506.11674, section III-D). The head is linear and has a bias and signed
    weights, so every grey can be painted: with a ReLU right before a tanh, as in the released code, nothing darker than
    mid-grey could be.

    Args:
        channels: of the map.
        widths: one a convolution; each but the last is followed by a doubling.
        size: H = W of the film; the last interpolation goes there.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.size = size
        self.convolutions = nn.ModuleList()
        for width in widths:
            self.convolutions.append(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        self.activation = nn.GELU()
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, h, w)`` to ``(B, 1, H, W)``."""
        for i, convolution in enumerate(self.convolutions):
            if i:
                x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.activation(convolution(x))
        # The head is 1x1 and interpolation is linear, so they commute: the cheap order is head first.
        film = self.head(x)
        return nn.functional.interpolate(film, size=(self.size, self.size), mode="bilinear", align_corners=False)


class UpsamplingDecoder(nn.Module):
    """A film from a feature map: blocks that each enlarge it (nearest neighbour) and convolve it twice (3x3, BatchNorm,
    ReLU), then a 3x3 convolution to one channel.

    The decoder with which PRIOR (arXiv:2307.12577) paints the film; there five blocks go from 7 x 7 to 14, 28, 56, 112
    and 224 pixels.

    Args:
        channels: of the map.
        widths: channels of the blocks; the last has the film's size, each one before it half that of the next.
        size: H = W of the film.
    Raises:
        ValueError: without any block.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], size: int) -> None:
        super().__init__()
        if not widths:
            raise ValueError("the decoder that paints the film needs one block or more")
        self.sizes = [max(1, round(size / 2 ** (len(widths) - 1 - block))) for block in range(len(widths))]
        self.blocks = nn.ModuleList()
        for width in widths:
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(width, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                )
            )
            channels = width
        self.head = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, h, w)`` to ``(B, 1, H, W)``."""
        for block, size in zip(self.blocks, self.sizes, strict=True):
            x = block(nn.functional.interpolate(x, size=(size, size), mode="nearest"))
        film: Tensor = self.head(x)
        return film
