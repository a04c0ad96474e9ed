"""Average precision of boxes as COCO measures it, and its bootstrap over images.

The number is the library's (torchmetrics over faster-coco-eval). A bootstrap needs it a thousand times under weights of
the images, which the library does not know, so that part is ours, and a test holds the two against each other.

Letters: ``n`` boxes, ``T`` IoU thresholds, ``C`` classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.arange(8, 20) / 20  # IoU of .40, .45, ..., .95
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # boxes of a class that count in one image, the surest
BLOCK = 1 << 22  # numbers held at once


@dataclass(frozen=True)
class Boxes:
    """The boxes of many images, one after another in any order.

    Attributes:
        image: ``(n,)`` int64 number of the image, from 0.
        label: ``(n,)`` int64 class, from 0.
        corners: ``(n, 4)`` float32 x0, y0, x1, y1 in pixels.
        score: ``(n,)`` float32, higher is surer; of no use for true boxes.
    """

    image: np.ndarray
    label: np.ndarray
    corners: np.ndarray
    score: np.ndarray

    def __getitem__(self, places: np.ndarray | slice) -> Boxes:
        return Boxes(self.image[places], self.label[places], self.corners[places], self.score[places])


def average_precision(found: Boxes, truth: Boxes, images: int, classes: int) -> np.ndarray:
    """Average precision of every class at every IoU threshold, over all images: a box in one without any is wrong.

    Args:
        found: what was predicted, with scores.
        truth: what is there.
        images, classes: how many there are.
    Returns:
        ``(T, C)`` in [0, 1] at :data:`THRESHOLDS`; NaN for a class without a true box, 0 for one with true boxes and
        none found.
    """
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    precision = np.full((len(THRESHOLDS), classes), np.nan)
    if len(truth.image) == 0:
        return precision
    metric = MeanAveragePrecision(
        iou_thresholds=THRESHOLDS.tolist(),
        rec_thresholds=RECALLS.tolist(),
        max_detection_thresholds=[1, 10, MOST],
        extended_summary=True,
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    batches = [
        [
            {
                "boxes": torch.from_numpy(own.corners),
                "labels": torch.from_numpy(own.label),
                "scores": torch.from_numpy(own.score),
            }
            for own in (boxes[places] for places in _places_by(boxes.image, images))
        ]
        for boxes in (found, truth)
    ]
    metric.update(*batches)
    result = metric.compute()
    of_library = result["precision"][:, :, :, 0, -1].numpy()  # (T, recalls, seen classes), -1 where undefined
    precision[:, result["classes"].reshape(-1).numpy()] = np.where(of_library < 0, np.nan, of_library).mean(1)
    return precision


def mean_average_precision(precision: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean over the thresholds from ``low`` to ``high`` and over the classes that have true boxes.

    Args:
        precision: ``(..., T, C)``, of :func:`average_precision` or :func:`weighted_average_precision`.
        low, high: IoU, both included.
    Returns:
        ``(...)`` in [0, 1]; NaN where no class has a true box.
    """
    inside = np.abs(THRESHOLDS - (low + high) / 2) < (high - low) / 2 + 0.01
    chosen = precision[..., inside, :]
    known = ~np.isnan(chosen)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(known, chosen, 0).sum((-2, -1)) / known.sum((-2, -1))
    return mean


def weighted_average_precision(found: Boxes, truth: Boxes, weights: np.ndarray, classes: int) -> np.ndarray:
    """:func:`average_precision` for many weightings of the same images at once: a bootstrap is one call.

    An image of weight 2 counts as two copies of it would. Boxes are matched once.

    Args:
        found, truth: as there.
        weights: ``(draws, images)`` how often each image counts.
        classes: C.
    Returns:
        ``(draws, T, C)``; NaN where a draw has no true box of the class.
    """
    weights = np.asarray(weights, dtype=np.float64)
    draws, images = weights.shape
    precision = np.full((draws, len(THRESHOLDS), classes), np.nan)
    for label in range(classes):
        true = truth[truth.label == label]
        own, hits = _match(found[found.label == label], true, images)
        of_class = weights @ np.bincount(true.image, minlength=images)  # (draws,)
        step = max(1, BLOCK // max(1, len(own.image)))
        for start in range(0, draws, step):
            block = slice(start, start + step)
            counts = weights[block][:, own.image]  # (draws, n), from the surest box down
            seen = np.cumsum(counts, axis=1)
            for place in range(len(THRESHOLDS)):
                hit = np.flatnonzero(hits[:, place])
                precision[block, place, label] = _area(counts[:, hit], seen[:, hit], of_class[block])
    return precision


def _area(hits: np.ndarray, seen: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Area under the precision that is reached at a recall or above, in 101 points.

    Args:
        hits: ``(draws, h)`` weight of each box that hit, from the surest down.
        seen: ``(draws, h)`` weight of all boxes down to it; between hits precision only falls.
        true: ``(draws,)`` weight of the true boxes.
    Returns:
        ``(draws,)``; NaN where there are none.
    """
    right = np.cumsum(hits, axis=1)
    with np.errstate(invalid="ignore"):
        recall = right / true[:, None]
    precision = right / (seen + np.spacing(1))
    reachable = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, recall, side="right")
    points = np.diff(reached, prepend=0, axis=1)  # that each hit is the first to reach
    return np.where(true > 0, (reachable * points).sum(1) / len(RECALLS), np.nan)


def _match(found: Boxes, truth: Boxes, images: int) -> tuple[Boxes, np.ndarray]:
    """Of one class: the boxes found, from the surest down, and ``(n, T)`` whether each hits a box of its own.

    From the surest down each takes the box it overlaps most of those not taken, if by the threshold or more; as COCO
    has it, equally sure boxes go by image and then in their order, and of equal overlaps the last true box is taken.
    """
    order = np.lexsort((found.image, -found.score))  # stable
    rank = _rank_within(found.image[order], images)
    found = found[order[rank < MOST]]
    hits = np.zeros((len(found.image), len(THRESHOLDS)), dtype=bool)
    for ours, theirs in zip(_places_by(found.image, images), _places_by(truth.image, images), strict=True):
        if len(ours) and len(theirs):
            hits[ours] = _greedy(_overlap(found.corners[ours], truth.corners[theirs]))
    return found, hits


def _greedy(overlap: np.ndarray) -> np.ndarray:
    """``(n, m)`` IoU of found with true boxes to ``(n, T)`` hits, all thresholds side by side."""
    at = np.arange(len(THRESHOLDS))
    free = np.ones((len(THRESHOLDS), overlap.shape[1]), dtype=bool)
    hits = np.zeros((len(overlap), len(THRESHOLDS)), dtype=bool)
    for place, own in enumerate(overlap):
        open_to = np.where(free & (own >= THRESHOLDS[:, None]), own, -1.0)
        best = open_to.shape[1] - 1 - open_to[:, ::-1].argmax(1)
        hits[place] = open_to[at, best] >= 0
        free[at, best] &= ~hits[place]
    return hits


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(n, m)`` IoU. As the library: sides in float32, the rest in float64, so that both see the same boxes touch."""
    size_a, size_b = ((one[:, 2:] - one[:, :2]).astype(np.float64) for one in (a, b))
    start_a, start_b = a[:, :2].astype(np.float64), b[:, :2].astype(np.float64)
    ends = np.minimum((start_a + size_a)[:, None], start_b + size_b)
    both = (ends - np.maximum(start_a[:, None], start_b)).clip(0).prod(-1)
    union = size_a.prod(-1)[:, None] + size_b.prod(-1) - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _places_by(image: np.ndarray, images: int) -> list[np.ndarray]:
    """Places of each image's boxes, in their order."""
    order = np.argsort(image, kind="stable")
    return np.split(order, np.searchsorted(image[order], np.arange(1, images)))


def _rank_within(image: np.ndarray, images: int) -> np.ndarray:
    """``(n,)`` how many boxes of the same image come before each."""
    rank = np.empty(len(image), dtype=np.int64)
    for places in _places_by(image, images):
        rank[places] = np.arange(len(places))
    return rank
