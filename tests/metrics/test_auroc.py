"""AUROC and its bootstrap against scikit-learn and closed forms."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lingula.metrics.auroc import BLOCK, auroc, macro_auroc


@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn_with_weights_and_ties(ties):
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 300), rng.normal(size=300)
    if ties:
        scores = np.round(scores)
    weights = rng.integers(0, 4, (5, 300)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auroc(labels, scores, weights), expected, atol=1e-12)
    np.testing.assert_allclose(auroc(labels, scores), [roc_auc_score(labels, scores)], atol=1e-12)


def test_closed_forms():
    assert auroc(np.array([0, 0, 1, 1]), np.array([1, 2, 3, 4]))[0] == 1.0
    assert auroc(np.array([1, 1, 0, 0]), np.array([1, 2, 3, 4]))[0] == 0.0
    assert auroc(np.array([1, 0, 1, 0]), np.zeros(4))[0] == 0.5
    assert np.isnan(auroc(np.ones(4), np.arange(4.0))[0])


def test_macro_leaves_out_classes_that_cannot_be_scored_and_unknown_labels():
    labels = np.array([[1, 0, np.nan], [0, 0, 1], [1, 0, 0], [0, 0, 1]], dtype=float)
    scores = np.array([[4, 0, 9], [1, 0, 3], [3, 0, 1], [2, 0, 2]], dtype=float)
    assert np.isnan(auroc(np.empty(0), np.empty(0), np.ones((3, 0)))).all()  # a class of which nothing is known
    unknown = np.concatenate([labels, np.full((len(labels), 1), np.nan)], axis=1)
    assert macro_auroc(unknown, np.concatenate([scores, scores[:, :1]], axis=1))[0] == 1.0
    assert macro_auroc(labels, scores)[0] == 1.0  # classes 1 and 3 are perfect; class 2 has no positive: not a 0
    first = roc_auc_score(labels[:, 0], -scores[:, 0])
    assert macro_auroc(labels, scores * [-1, 1, 1])[0] == pytest.approx((first + 1.0) / 2)


def test_many_draws_are_the_same_as_one_at_a_time():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), np.round(rng.normal(size=60), 1)
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=2 * BLOCK + 7).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auroc(labels, scores, weights), expected, atol=1e-12)
    assert auroc(labels, scores, weights[:0]).shape == (0,)


def test_scores_that_are_no_numbers_have_no_auroc():
    labels = np.array([[0.0, 1], [1, 0], [1, 1]])
    scores = np.array([[0.1, 0.3], [np.nan, 0.2], [np.nan, 0.1]])
    assert np.isnan(auroc(labels[:, 0], scores[:, 0], np.ones((4, 3)))).all()
    assert np.isnan(macro_auroc(labels, scores, np.ones((4, 3)))).all()
