"""A segmentation network on any image encoder of ours: the U-Net decoder, or progressive upsampling for a ViT.

The decoder is segmentation_models_pytorch's; the encoder is ours, so that its weights and what films become before it
are those that were pre-trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.batch import ImageFeatures


class UNet(nn.Module):
    """Films to one logit a pixel.

    What comes after the encoder depends on the strides of its maps, found by showing it an empty film:

    - **Several strides** (resnet50: 2, 4, 8, 16, 32): ``UnetDecoder`` of segmentation_models_pytorch: nearest
      upsampling by 2, the encoder's map of that stride beside it, two 3x3 convolutions with BatchNorm; 256, 128, 64,
      32, 16 channels at strides 16 to 1. Of maps at the same stride the last is taken; at strides for which there is
      none (``small_resnet`` and Swin: 2) upsampling has no map beside it, as it has none at stride 1 anyway; an encoder
      that ends at stride 16 starts with the 128 channels of stride 8.
    - **One stride** (a ViT): no map is finer than the last, so there is nothing for a U-Net to join. Progressive
      upsampling as in SETR-PUP (Zheng et al. 2021, arXiv:2012.15840), with the widths 512, 256, 128, 64 that MGCA's
      code has for ViT: 3x3 convolution, BatchNorm, ReLU, bilinear upsampling by 2, until the film's size. It reads
      the tokens that leave the encoder, after its last norm. MGCA puts a linear layer in front; ours has none, for
      the convolution can do what the two can.

    Args:
        encoder: ``(B, 1, H, W)`` to :class:`ImageFeatures`; part of this module. A frozen one stays frozen.
        image_size: H = W in pixels.
    """

    def __init__(self, encoder: nn.Module, image_size: int) -> None:
        super().__init__()
        self.encoder = encoder
        features = _probe(encoder, image_size)
        strides = {_doublings(image_size, features_map.shape[-1]) for features_map in features.maps}
        self.head: nn.Module
        if len(strides) > 1:
            self.head = _Pyramid(features.maps, image_size)
        else:
            self.head = _Progressive(features.patches.shape[-1], strides.pop())
        self.head.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 1, H, W)`` in [-1, 1] to logits ``(B, 1, H, W)``."""
        logits: Tensor = self.head(images, self.encoder(images))
        return logits


class _Pyramid(nn.Module):
    """The decoder of a U-Net on the maps of an encoder that has several strides."""

    def __init__(self, maps: Sequence[Tensor], image_size: int) -> None:
        super().__init__()
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        place_of = {_doublings(image_size, features_map.shape[-1]): place for place, features_map in enumerate(maps)}
        self.places = [place_of.get(level) for level in range(1, max(place_of) + 1)]  # None: no map of that stride
        channels = [0 if place is None else maps[place].shape[1] for place in self.places]
        widths = (256, 128, 64, 32, 16)[-len(channels) :]
        self.decoder = UnetDecoder([1, *channels], widths, n_blocks=len(widths))
        self.output = SegmentationHead(widths[-1], 1)
        initialize_decoder(self.decoder)
        initialize_head(self.output)

    def forward(self, images: Tensor, features: ImageFeatures) -> Tensor:
        maps = [images]
        for place in self.places:
            if place is None:  # nothing to join, but the decoder learns its sizes from these
                height, width = (-(-side // 2) for side in maps[-1].shape[-2:])
                maps.append(images.new_zeros(len(images), 0, height, width))
            else:
                maps.append(features.maps[place])
        logits: Tensor = self.output(self.decoder(maps))
        return logits


class _Progressive(nn.Module):
    """Upsampling by 2, ``doublings`` times, of the tokens that leave a transformer."""

    def __init__(self, channels: int, doublings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in [512, 256, 128, *[64] * doublings][:doublings]:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Upsample(scale_factor=2, mode="bilinear"),
            ]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, images: Tensor, features: ImageFeatures) -> Tensor:
        tokens = features.patches.transpose(1, 2).unflatten(2, features.grid)  # (B, C, h, w)
        logits: Tensor = self.layers(tokens)
        if logits.shape[-2:] != images.shape[-2:]:  # patches of 14 pixels: 16 x 16 of them make 256, not 224
            logits = F.interpolate(logits, images.shape[-2:], mode="bilinear")
        return logits


def _doublings(image_size: int, side: int) -> int:
    """How often a map must double to have the film's size: 5 at stride 32; the nearest where strides round up."""
    return round(math.log2(image_size / side))


@torch.no_grad()
def _probe(encoder: nn.Module, image_size: int) -> Any:
    """What the encoder gives for an empty film; in evaluation mode, so that no BatchNorm remembers it."""
    was_training = encoder.training
    device = next(encoder.parameters()).device
    features = encoder.eval()(torch.zeros(1, 1, image_size, image_size, device=device))
    encoder.train(was_training)
    return features
