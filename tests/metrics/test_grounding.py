"""Contrast-to-noise and mIoU against plain sums and closed forms."""

import numpy as np
import pytest

from lingula.metrics.grounding import contrast_to_noise, mean_iou


def test_contrast_to_noise_is_the_equation():
    rng = np.random.default_rng(0)
    weights, inside = rng.random((6, 7)), rng.random((6, 7)) < 0.4
    a = [weights[i, j] for i in range(6) for j in range(7) if inside[i, j]]
    b = [weights[i, j] for i in range(6) for j in range(7) if not inside[i, j]]
    mean = lambda x: sum(x) / len(x)  # noqa: E731
    var = lambda x: sum((y - mean(x)) ** 2 for y in x) / len(x)  # noqa: E731
    expected = (mean(a) - mean(b)) / (var(a) + var(b)) ** 0.5
    assert contrast_to_noise(weights, inside) == pytest.approx(expected)
    assert contrast_to_noise(-weights, inside) == pytest.approx(-expected)
    assert contrast_to_noise(3 * weights + 7, inside) == pytest.approx(expected)
    assert contrast_to_noise(np.ones((6, 7)), inside) == 0
    assert np.isnan(contrast_to_noise(weights, np.zeros((6, 7), bool)))


def test_mean_iou_is_the_mean_over_thresholds():
    weights = np.array([[0.0, 0.05, 0.15, 0.25], [0.35, 0.45, 0.6, 1.0]])
    inside = np.array([[0, 0, 0, 1], [0, 0, 1, 1]], dtype=bool)
    # above .1: 6 cells, above .2: 5, .3: 4, .4: 3, .5: 2; of the region's 3 the first falls out above .25
    expected = (3 / 6 + 3 / 5 + 2 / 5 + 2 / 4 + 2 / 3) / 5
    assert mean_iou(weights, inside) == pytest.approx(expected)
    assert mean_iou(10 * weights - 4, inside) == pytest.approx(expected)
    assert mean_iou(inside.astype(float), inside) == 1
    assert mean_iou(np.full((2, 4), 0.3), inside) == 0
