"""The detection head of YOLOv3, on the maps of any image encoder. Floor 1.

Source: Redmon and Farhadi 2018, arXiv:1804.02767: "we predict boxes at 3 different scales".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = ((128, 256), (256, 512), (512, 1024))  # of the 1x1 and the 3x3 convolutions, fine to coarse
ANCHORS = (  # width, height in pixels, of COCO's boxes in images of 416 pixels; fine to coarse
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
LARGEST_LOG = 10.0  # of a size over its anchor's: an untrained head may not overflow


def anchors_for(image_size: int) -> Tensor:
    """``(3, 3, 2)`` width, height in pixels of three anchors for each scale, fine to coarse."""
    return torch.tensor(ANCHORS) * image_size / 416


def three_scales(maps: Sequence[Tensor]) -> list[Tensor]:
    """Three maps for the head, fine to coarse, of whatever an encoder gives.

    They are its last three resolutions, of each the last map: strides 8, 16 and 32 of a ResNet-50. An encoder with one
    resolution, such as a ViT, gets a simple pyramid: its last map doubled, as it is, and halved (Li et al. 2022,
    arXiv:2203.16527, there with learned steps); one with two gets the coarser halved.
    """
    last_of = {tuple(one.shape[-2:]): one for one in maps}
    scales = list(last_of.values())[-3:]
    if len(scales) == 1:
        scales = [F.interpolate(scales[0], scale_factor=2, mode="nearest"), *scales]
    while len(scales) < 3:
        scales.append(F.avg_pool2d(scales[-1], 2, ceil_mode=True))
    return scales


class YoloV3(nn.Module):
    """Six convolutions and a prediction at each of three scales; what the fifth sees goes on to the next finer scale.

    The widths are those of the field's detectors on a ResNet-50. On an encoder whose coarsest map has fewer than 512
    channels all of them shrink in proportion to that, to multiples of 8: for 96 channels, 96 and 192 at the coarsest
    scale instead of 512 and 1,024.

    Args:
        channels: of the three maps, fine to coarse.
        classes: C.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        share = min(1.0, channels[-1] / WIDTHS[-1][0])
        widths = [tuple(max(8, round(share * width / 8) * 8) for width in pair) for pair in WIDTHS]
        self.classes = classes
        self.before = nn.ModuleList()  # of the branch to the finer scale
        self.after = nn.ModuleList()
        self.branch = nn.ModuleList()
        for scale, (narrow, wide) in enumerate(widths):
            coarser = widths[scale + 1][0] // 2 if scale < 2 else 0
            self.before.append(
                nn.Sequential(
                    _convolution(channels[scale] + coarser, narrow, 1),
                    _convolution(narrow, wide, 3),
                    _convolution(wide, narrow, 1),
                    _convolution(narrow, wide, 3),
                    _convolution(wide, narrow, 1),
                )
            )
            self.after.append(
                nn.Sequential(_convolution(narrow, wide, 3), nn.Conv2d(wide, len(ANCHORS[scale]) * (5 + classes), 1))
            )
            if scale > 0:
                self.branch.append(_convolution(narrow, narrow // 2, 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Three maps ``(B, channels, h, w)``, fine to coarse, to the logits ``(B, 3, h, w, 5 + C)`` of each."""
        predictions: list[Tensor] = []
        coarser: Tensor | None = None
        for scale in (2, 1, 0):
            x = maps[scale]
            if coarser is not None:
                coarser = F.interpolate(self.branch[scale](coarser), size=x.shape[-2:], mode="nearest")
                x = torch.cat([coarser, x], 1)
            coarser = self.before[scale](x)
            logits = self.after[scale](coarser)
            predictions.insert(0, logits.unflatten(1, (-1, 5 + self.classes)).permute(0, 1, 3, 4, 2))
        return predictions


def _convolution(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.1)
    )


def decode(predictions: Sequence[Tensor], anchors: Tensor, image_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the head says, in pixels: "bounding boxes with dimension priors and location prediction" (Fig. 2).

    Args:
        predictions: of each scale ``(B, A, h, w, 5 + C)`` logits.
        anchors: ``(scales, A, 2)`` width, height in pixels.
        image_size: H = W in pixels.
    Returns:
        Of the n predictions of all scales: corners ``(B, n, 4)`` x0, y0, x1, y1 in pixels, not clipped to the film;
        objectness ``(B, n)`` and class probabilities ``(B, n, C)`` in [0, 1].
    """
    corners, objectness, classes = [], [], []
    for prediction, own in zip(predictions, anchors, strict=True):
        wide = prediction if prediction.dtype == torch.float64 else prediction.float()
        h, w = wide.shape[2:4]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        cell = torch.stack([x, y], -1).to(wide)  # (h, w, 2)
        centre = (cell + wide[..., :2].sigmoid()) * image_size / wide.new_tensor([w, h])
        half = wide[..., 2:4].clamp(max=LARGEST_LOG).exp() * own[:, None, None] / 2
        corners.append(torch.cat([centre - half, centre + half], -1).flatten(1, 3))
        objectness.append(wide[..., 4].sigmoid().flatten(1))
        classes.append(wide[..., 5:].sigmoid().flatten(1, 3))
    return torch.cat(corners, 1), torch.cat(objectness, 1), torch.cat(classes, 1)
