"""Regions of a film that words are compared with: places of a feature map that is finer than the last, where there is
one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lingula.batch import ImageFeatures
from lingula.nn.image_encoders import ImageEncoder

LOCAL_MAPS = ("penultimate", "last")


def has_pyramid(encoder: ImageEncoder) -> bool:
    """Whether the maps get coarser on the way, as those of convolutions do; a vision transformer has one grid."""
    return len(set(encoder.map_grids)) > 1


def region_width(encoder: ImageEncoder, local_map: str) -> int:
    """C of the regions (:func:`read_regions`).

    Raises:
        ValueError: if ``local_map`` is neither of :data:`LOCAL_MAPS`.
    """
    if local_map not in LOCAL_MAPS:
        raise ValueError(f"local_map must be one of {', '.join(LOCAL_MAPS)}, got '{local_map}'")
    return encoder.map_widths[-2] if local_map == "penultimate" and has_pyramid(encoder) else encoder.width


def read_regions(
    encoder: ImageEncoder, images: Tensor, local_map: str, upsample_to: int
) -> tuple[ImageFeatures, Tensor, tuple[int, int]]:
    """Films to features and regions, as GLoRIA and MGCA read them.

    Args:
        encoder: the image encoder.
        images: ``(B, 1, H, W)`` in [-1, 1].
        local_map: ``penultimate`` for the places of the map before the last, ``layer3`` of a ResNet; ``last`` for the
            patches. Of a vision transformer, whose maps have all one grid, it is always the patches.
        upsample_to: H = W in pixels to which films are enlarged first, 0 to leave them. A vision transformer is bound
            to its size and always sees them as they are.
    Returns:
        the features of the enlarged films, ``(B, R, C)`` regions in reading order, and their grid ``(h, w)``, which
        may be another than the encoder's ``grid``.
    """
    if upsample_to and has_pyramid(encoder):
        # Corners are not aligned, so that a place of a map stays where it is on the film; the released codes align them
        images = F.interpolate(images, size=(upsample_to, upsample_to), mode="bilinear", align_corners=False)
    features = encoder(images)
    if local_map == "last" or not has_pyramid(encoder):
        return features, features.patches, features.grid
    map_ = features.maps[-2]
    return features, map_.flatten(2).transpose(1, 2), (map_.shape[2], map_.shape[3])
