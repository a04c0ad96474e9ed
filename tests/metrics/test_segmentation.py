"""Dice and IoU against scikit-learn's F1 and Jaccard of the pixels, and by definition on empty masks."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from lingula.metrics.segmentation import dice, iou

EMPTY, FULL = np.zeros((1, 4, 5), dtype=bool), np.ones((1, 4, 5), dtype=bool)
LEFT = FULL & (np.arange(5) < 2)
RIGHT = ~LEFT


@pytest.mark.parametrize(("ours", "theirs"), [(dice, f1_score), (iou, jaccard_score)])
def test_scikit_learn_says_the_same(ours, theirs):
    rng = np.random.default_rng(0)
    truth = rng.random((12, 6, 7)) < 0.3
    predicted = truth ^ (rng.random(truth.shape) < 0.2)
    truth[:4] = predicted[2:6] = False  # empty truth, both empty, empty prediction
    expected = [
        theirs(one.ravel(), other.ravel(), zero_division=1.0) for one, other in zip(truth, predicted, strict=True)
    ]
    np.testing.assert_allclose(ours(predicted, truth), expected)
    assert ours(predicted, truth).shape == (12,)


@pytest.mark.parametrize("metric", [dice, iou])
def test_ends_and_empties(metric):
    assert metric(LEFT, LEFT) == 1
    assert metric(LEFT, RIGHT) == 0
    assert metric(EMPTY, EMPTY) == 1
    assert metric(FULL, EMPTY) == 0
    assert metric(EMPTY, FULL) == 0
    assert len(metric(EMPTY[:0], EMPTY[:0])) == 0


def test_closed_forms():
    assert dice(LEFT, FULL) == 2 * 8 / (8 + 20)
    assert iou(LEFT, FULL) == 8 / 20


@pytest.mark.parametrize("metric", [dice, iou])
def test_errors(metric):
    with pytest.raises(ValueError, match=r"of one shape, got \(1, 4, 5\) in bool and \(1, 4, 4\) in bool"):
        metric(LEFT, LEFT[:, :, :4])
    with pytest.raises(ValueError, match="in float64 and"):
        metric(LEFT.astype(float), LEFT)
