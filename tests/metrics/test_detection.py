"""Average precision: ours against the library's and pycocotools', alone and on images drawn again."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lingula.metrics.detection import (
    THRESHOLDS,
    Boxes,
    average_precision,
    mean_average_precision,
    weighted_average_precision,
)


def random_boxes(rng, images, most, classes, whole):
    """Up to ``most`` boxes in each image, in no order; many overlap, some are equal."""
    image = np.repeat(np.arange(images), rng.integers(0, most + 1, images))
    start, size = rng.integers(0, 12, (len(image), 2)), rng.integers(2, 12, (len(image), 2))
    corners = np.concatenate([start, start + size], 1).astype(np.float32)
    if not whole:
        corners += rng.uniform(-0.4, 0.4, corners.shape).astype(np.float32)
    order = rng.permutation(len(image))
    label = rng.integers(0, classes, len(image))
    return Boxes(image, label, corners, rng.permutation(len(image)).astype(np.float32) / 64)[order]


def as_sure(boxes, score):
    return Boxes(boxes.image, boxes.label, boxes.corners, score.astype(np.float32))


def by_pycocotools(found, truth, images, classes):
    """``(T, C)`` from COCO's own evaluation."""

    def annotations(boxes):
        sides = boxes.corners[:, 2:] - boxes.corners[:, :2]
        return [
            {
                "id": place + 1,
                "image_id": int(boxes.image[place]),
                "category_id": int(boxes.label[place]),
                "bbox": [float(x) for x in (*boxes.corners[place, :2], *sides[place])],
                "area": float(sides[place].prod()),
                "iscrowd": 0,
                "score": float(boxes.score[place]),
            }
            for place in range(len(boxes.image))
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for boxes in (truth, found):
            coco = COCO()
            coco.dataset = {
                "info": {},
                "images": [{"id": image} for image in range(images)],
                "categories": [{"id": label} for label in range(classes)],
                "annotations": annotations(boxes),
            }
            coco.createIndex()
            sides.append(coco)
        evaluation = COCOeval(*sides, iouType="bbox")
        evaluation.params.iouThrs = THRESHOLDS
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1].mean(1)
    return np.where(precision < 0, np.nan, precision)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("whole", [False, True])  # whole pixels: IoU of exactly a threshold, equal overlaps
def test_equals_the_library_and_pycocotools(ties, whole):
    rng = np.random.default_rng([ties, whole])
    for _ in range(12):
        images, classes = int(rng.integers(1, 20)), int(rng.integers(1, 4))
        found = random_boxes(rng, images, 7, classes, whole)
        if ties:
            found = as_sure(found, np.floor(found.score * 3))
        truth = random_boxes(rng, images, 3, classes, whole)
        ours = weighted_average_precision(found, truth, np.ones((1, images)), classes)[0]
        np.testing.assert_allclose(ours, by_pycocotools(found, truth, images, classes), atol=1e-12)
        np.testing.assert_allclose(ours, average_precision(found, truth, images, classes), atol=1e-12)


def test_more_than_a_hundred_boxes_of_an_image_do_not_count():
    rng = np.random.default_rng(0)
    found, truth = random_boxes(rng, 2, 400, 1, False), random_boxes(rng, 2, 20, 1, False)
    assert np.bincount(found.image).max() > 150
    ours = weighted_average_precision(found, truth, np.ones((1, 2)), 1)[0]
    np.testing.assert_allclose(ours, by_pycocotools(found, truth, 2, 1), atol=1e-12)
    np.testing.assert_allclose(ours, average_precision(found, truth, 2, 1), atol=1e-12)


def test_a_weighting_is_images_drawn_again(monkeypatch):
    monkeypatch.setattr("lingula.metrics.detection.BLOCK", 100)  # so that the draws come in several blocks
    rng = np.random.default_rng(0)
    images, classes, draws = 12, 2, 8
    found, truth = random_boxes(rng, images, 6, classes, False), random_boxes(rng, images, 3, classes, False)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=draws)
    weights[0, truth.image[truth.label == 1]] = 0  # a draw without a box of class 1
    ours = weighted_average_precision(found, truth, weights, classes)
    assert np.isnan(ours[0, :, 1]).all()
    assert not np.isnan(ours[:, :, 0]).any()
    for draw in range(draws):
        drawn = np.repeat(np.arange(images), weights[draw])

        def again(boxes, drawn=drawn):
            places = [np.flatnonzero(boxes.image == image) for image in drawn]
            image = np.repeat(np.arange(len(drawn)), [len(own) for own in places])
            own = boxes[np.concatenate(places)]
            return Boxes(image, own.label, own.corners, own.score)

        expected = average_precision(again(found), again(truth), len(drawn), classes)
        np.testing.assert_allclose(ours[draw], expected, atol=1e-12)


def one(image, corners, score=1.0, label=0):
    count = len(corners)
    return Boxes(
        np.full(count, image), np.full(count, label), np.array(corners, np.float32), np.full(count, score, np.float32)
    )


def both(a, b):
    return Boxes(*(np.concatenate(pair) for pair in zip(vars(a).values(), vars(b).values(), strict=True)))


NONE = Boxes(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
BOX = one(0, [[10, 10, 30, 30]])
WRONG = one(1, [[10, 10, 30, 30]], score=2.0)  # on an image without boxes


@pytest.mark.parametrize(
    ("found", "truth", "value"),
    [
        (BOX, BOX, 1.0),
        (NONE, BOX, 0.0),
        (WRONG, BOX, 0.0),
        (both(BOX, WRONG), BOX, 0.5),  # the image without boxes counts
        (NONE, NONE, np.nan),  # nothing to find anywhere: no number, not 0
        (BOX, NONE, np.nan),
        (BOX, both(BOX, one(1, [[0, 0, 9, 9]])), 51 / 101),  # half of the boxes: the recalls 0, .01, ..., .50
    ],
)
def test_closed_forms(found, truth, value):
    library = average_precision(found, truth, 2, 1)
    ours = weighted_average_precision(found, truth, np.ones((1, 2)), 1)[0]
    for precision in (library, ours):
        assert precision.shape == (len(THRESHOLDS), 1)
        np.testing.assert_allclose(precision, value)
        np.testing.assert_allclose(mean_average_precision(precision, 0.40, 0.75), value)


def test_of_two_boxes_overlapped_alike_the_last_is_taken():
    truth = one(0, [[0, 0, 10, 10], [4, 0, 14, 10]])
    found = both(one(0, [[2, 0, 12, 10]], score=2.0), one(0, [[0, 0, 10, 10]]))  # IoU .667 with both; 1 and .43
    ours = weighted_average_precision(found, truth, np.ones((1, 1)), 1)[0]
    np.testing.assert_allclose(ours[THRESHOLDS < 0.66], 1.0)
    np.testing.assert_allclose(ours, by_pycocotools(found, truth, 1, 1))
    np.testing.assert_allclose(ours, average_precision(found, truth, 1, 1))


def test_means_are_over_the_thresholds_of_the_field_and_of_coco():
    # Two boxes of 10 by 10 moved by 2 overlap by 80 / 120 = .667: right up to .65
    found, truth = one(0, [[2, 0, 12, 10]]), one(0, [[0, 0, 10, 10]])
    precision = average_precision(found, truth, 1, 2)
    assert np.isnan(precision[:, 1]).all()  # a class without boxes is left out, not counted as 0
    assert mean_average_precision(precision, 0.40, 0.75) == pytest.approx(6 / 8)  # .40 to .65 of .40 to .75
    assert mean_average_precision(precision, 0.50, 0.95) == pytest.approx(4 / 10)
    assert mean_average_precision(precision[None], 0.40, 0.75).shape == (1,)


def test_the_default_of_torchmetrics_agrees_but_for_its_rounding_of_recalls():
    from torchmetrics.detection import MeanAveragePrecision

    rng = np.random.default_rng(1)
    found, truth = random_boxes(rng, 40, 5, 1, False), random_boxes(rng, 40, 3, 1, False)
    metric = MeanAveragePrecision(iou_thresholds=[0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75])
    for image in range(40):
        own, real = found[found.image == image], truth[truth.image == image]
        predicted = {"boxes": own.corners, "scores": own.score, "labels": own.label}
        expected = {"boxes": real.corners, "labels": real.label}
        metric.update(*([{k: torch.tensor(v) for k, v in one.items()}] for one in (predicted, expected)))
    ours = mean_average_precision(average_precision(found, truth, 40, 1), 0.40, 0.75)
    assert ours == pytest.approx(float(metric.compute()["map"]), abs=1e-3)
