"""The loss of YOLOv3, and what its predictions should have been.

Shapes: ``B`` films, ``M`` boxes of a film (padded), ``A`` anchors of a scale, ``C`` classes, ``h, w`` cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 0.5  # an anchor that fits a box better than this is not called background, whichever anchor the box went to


@dataclass
class Assignment:
    """Which prediction of one scale answers for which box.

    Attributes:
        positive: ``(B, A, h, w)`` bool, the predictions that answer for a box.
        background: ``(B, A, h, w)`` bool, those that should find nothing; some are neither.
        centre: ``(B, A, h, w, 2)`` place x, y of the box's centre in its cell, in [0, 1]; 0 where not positive.
        log_size: ``(B, A, h, w, 2)`` log of the box's width, height over the anchor's; 0 where not positive.
        label: ``(B, A, h, w)`` int64 class of the box; -1 where not positive.
    """

    positive: Tensor
    background: Tensor
    centre: Tensor
    log_size: Tensor
    label: Tensor


def assign(boxes: Tensor, labels: Tensor, anchors: Tensor, grid: tuple[int, int], image_size: int) -> Assignment:
    """Give each box to the cell that holds its centre, and there to the anchor of the most similar shape.

    All boxes at once, in dense operations: nothing depends on their number, and nothing is changed in place. Of boxes
    that fall to the same prediction the last has it.

    Args:
        boxes: ``(B, M, 4)`` centre x, y, width, height in pixels; any finite number where there is none.
        labels: ``(B, M)`` int64 class, -1 where there is no box.
        anchors: ``(A, 2)`` width, height in pixels.
        grid: ``(h, w)`` cells.
        image_size: H = W in pixels.
    """
    (films, most), (h, w), device = labels.shape, grid, boxes.device
    real = labels >= 0
    cells = boxes[..., :2] * boxes.new_tensor([w, h]) / image_size
    corner = cells.floor().clamp(boxes.new_zeros(2), boxes.new_tensor([w - 1, h - 1]))
    size = boxes[..., None, 2:].clamp(min=1e-3)  # (B, M, 1, 2)
    # The released code adds 1 to every side, as if in pixels, though its sides are in cells; that is no IoU. We do not.
    both = torch.minimum(size, anchors).prod(-1)
    overlap = both / (size.prod(-1) + anchors.prod(-1) - both)  # (B, M, A)
    best = overlap.argmax(-1)

    film = torch.arange(films, device=device)[:, None, None]
    anchor = torch.arange(len(anchors), device=device)
    column, row = corner.long()[..., None].unbind(-2)
    place = ((film * len(anchors) + anchor) * h + row) * w + column  # (B, M, A) in all predictions of the scale
    total = films * len(anchors) * h * w
    number = torch.where(real, torch.arange(films * most, device=device).view(films, most), -1)
    owner = torch.full((total,), -1, device=device)
    owner = owner.scatter_reduce(0, place.gather(-1, best[..., None]).flatten(), number.flatten(), "amax")
    fits = (real[..., None] & (overlap > IGNORE)).long()
    fitting = torch.zeros(total, dtype=torch.int64, device=device)
    fitting = fitting.scatter_reduce(0, place.flatten(), fits.flatten(), "amax")

    # The released code calls a prediction background too whose anchor fits its box by IGNORE or less, and so asks of it
    # to be 1 and, half as much, 0. The paper does not, nor do we.
    positive = owner >= 0
    centre = (cells - corner).view(-1, 2)[owner]
    log_size = (size[:, :, 0] / anchors[best]).log().view(-1, 2)[owner]
    shape = (films, len(anchors), h, w)
    return Assignment(
        positive=positive.view(shape),
        background=((fitting == 0) & ~positive).view(shape),
        centre=torch.where(positive[:, None], centre, 0).view(*shape, 2),
        log_size=torch.where(positive[:, None], log_size, 0).view(*shape, 2),
        label=torch.where(positive, labels.view(-1)[owner], -1).view(shape),
    )


def yolo(
    predictions: Sequence[Tensor], anchors: Tensor, boxes: Tensor, labels: Tensor, image_size: int
) -> dict[str, Tensor]:
    """YOLOv3's loss by its terms, unweighted, per film; a film without boxes has ``background`` alone.

    Source: Redmon and Farhadi 2018, arXiv:1804.02767, section 2, as the field's released detectors have it: every scale
    answers for every box, and each term is a mean over all A h w predictions of a scale (and over the classes),
    whether or not the term applies to them; the scales are summed.

    Args:
        predictions: of each scale ``(B, A, h, w, 5 + C)``: x, y, log width, log height, objectness, classes.
        anchors: ``(scales, A, 2)`` width, height in pixels.
        boxes: ``(B, M, 4)`` centre x, y, width, height in pixels.
        labels: ``(B, M)`` int64 class, -1 where there is no box.
        image_size: H = W in pixels.
    Returns:
        ``(B,)`` each: ``centre`` (binary cross-entropy of x plus that of y), ``size`` (squared error of log width plus
        that of log height), ``object`` and ``background`` (binary cross-entropy of objectness) and ``class``.
    Raises:
        ValueError: if boxes and labels, or predictions and anchors, do not go together.
    """
    if boxes.shape != (*labels.shape, 4):
        raise ValueError(f"expected boxes of shape {(*labels.shape, 4)} for these labels, got {tuple(boxes.shape)}")
    if len(predictions) != len(anchors):
        raise ValueError(f"expected anchors for each of {len(predictions)} scales, got {len(anchors)}")
    terms: dict[str, Tensor] = {}
    for prediction, own in zip(predictions, anchors, strict=True):
        wide = prediction if prediction.dtype == torch.float64 else prediction.float()
        target = assign(boxes, labels, own, (wide.shape[2], wide.shape[3]), image_size)
        classes = torch.arange(wide.shape[-1] - 5, device=wide.device) == target.label[..., None]
        values = {
            "centre": _bce(wide[..., :2], target.centre).sum(-1) * target.positive,
            "size": (wide[..., 2:4] - target.log_size).square().sum(-1) * target.positive,
            "object": F.softplus(-wide[..., 4]) * target.positive,
            "background": F.softplus(wide[..., 4]) * target.background,
            "class": _bce(wide[..., 5:], classes).mean(-1) * target.positive,
        }
        for name, value in values.items():
            mean = value.flatten(1).mean(1)
            terms[name] = terms[name] + mean if name in terms else mean
    return terms


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
