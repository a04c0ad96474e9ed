"""FLOP, parameters and buffers of the encoders, from their layers. FLOP: two a multiply-add, of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Conv(NamedTuple):
    """A square convolution without bias: channels before and after, kernel, side of its output; BatchNorm follows."""

    before: int
    after: int
    kernel: int
    side: int

    @property
    def flop(self) -> int:
        return 2 * self.before * self.after * self.kernel**2 * self.side**2


@dataclass(frozen=True)
class Image:
    """An image encoder of convolutions; the first is the stem, whose input needs no gradient."""

    convolutions: tuple[Conv, ...]
    width: int
    places: int  # P

    @property
    def flop(self) -> int:
        """Of one film's forward pass."""
        return sum(conv.flop for conv in self.convolutions)

    @property
    def parameters(self) -> int:
        return sum(conv.before * conv.after * conv.kernel**2 + 2 * conv.after for conv in self.convolutions)

    @property
    def buffer_bytes(self) -> int:
        """Running means and variances of the BatchNorms, and their counts of batches."""
        return sum(8 * conv.after + 8 for conv in self.convolutions)


def small_resnet(side: int) -> Image:
    """lingula's, of films of ``side`` pixels: a 5x5 stem of stride 4, four basic blocks."""
    at = -(-side // 4)
    found, before = [Conv(1, 24, 5, at)], 24
    for width, stride in ((24, 1), (48, 2), (96, 2), (96, 1)):
        at = -(-at // stride)
        found += [Conv(before, width, 3, at), Conv(width, width, 3, at)]
        found += [Conv(before, width, 1, at)] if stride > 1 or before != width else []
        before = width
    return Image(tuple(found), before, at * at)


def resnet50(side: int) -> Image:
    """timm's ``resnet50``, of one channel."""
    found, at, before = [Conv(1, 64, 7, -(-side // 2))], -(-side // 4), 64
    for number, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            found.append(Conv(before, width, 1, at))
            at = -(-at // 2) if number and not block else at
            found += [Conv(width, width, 3, at), Conv(width, 4 * width, 1, at)]
            found += [] if block else [Conv(before, 4 * width, 1, at)]
            before = 4 * width
    return Image(tuple(found), before, at * at)


@dataclass(frozen=True)
class Text:
    """A BERT without pooler.

    Attributes:
        fused: whether its attention is one kernel, which computes the weights again in the backward pass (2.5 forward
            passes) and keeps none; else they are matrix products (2).
    """

    layers: int = 12
    width: int = 768
    inner: int = 3072
    vocabulary: int = 28_996
    positions: int = 512
    fused: bool = False

    def flop(self, slots: int, row: int) -> tuple[int, int]:
        """Forward, of so many slots in rows of ``row``: linear layers, and attention. Empty slots are computed too."""
        linear = 8 * self.width**2 + 4 * self.width * self.inner
        return self.layers * linear * slots, self.layers * 4 * row * self.width * slots

    @property
    def parameters(self) -> int:
        layer = 4 * (self.width**2 + self.width) + 2 * self.width * self.inner + self.inner + 5 * self.width
        return (self.vocabulary + self.positions + 4) * self.width + self.layers * layer
