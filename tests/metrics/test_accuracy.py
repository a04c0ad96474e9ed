"""Accuracy against counts by hand."""

import numpy as np
import pytest

from lingula.metrics.accuracy import accuracy


def test_accuracy_counts_known_labels_or_classes():
    targets = np.array([[1, 0], [0, np.nan], [1, 1]], dtype=float)
    scores = np.array([[2.0, 1.0], [-1.0, 5.0], [-1.0, 3.0]])
    assert accuracy(targets, scores, False)[0] == pytest.approx(3 / 5)
    weighted = accuracy(targets, scores, False, np.array([[2, 0, 1], [0, 3, 0]]))
    np.testing.assert_allclose(weighted, [(2 * 1 + 1 * 1) / 6, 1.0])
    assert accuracy(np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 1, 1]], True)[0] == pytest.approx(2 / 3)


def test_scores_that_are_no_numbers_have_no_accuracy():
    assert np.isnan(accuracy(np.eye(2), np.array([[np.nan, 0], [0, 1]]), True, np.ones((3, 2)))).all()
