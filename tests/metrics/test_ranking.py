"""Retrieval metrics against a simulation of random tie-breaking and closed forms."""

import numpy as np

from lingula.metrics.ranking import median_rank, recall_at, recall_ceiling


def test_recall_is_the_average_over_random_tie_breaking():
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 4, (12, 12)).astype(float)  # many ties
    expected = np.zeros(12)
    for _ in range(4000):
        ranks = np.argsort(np.argsort(-(similarity + rng.uniform(0, 1e-3, similarity.shape)), axis=1), axis=1)
        expected += np.diagonal(ranks) < 3
    np.testing.assert_allclose(recall_at(similarity, 3), expected / 4000, atol=0.03)


def test_closed_forms():
    assert (recall_at(np.eye(7), 1) == 1).all()
    np.testing.assert_allclose(recall_at(np.zeros((8, 8)), 2), 0.25)
    assert median_rank(np.eye(7)) == 1
    assert median_rank(np.zeros((9, 9))) == 5
    assert median_rank(-np.eye(7)) == 7


def test_ceiling_is_what_an_oracle_reaches():
    content = np.array(["normal"] * 6 + ["a", "b"])
    oracle = (content[:, None] == content).astype(float)
    np.testing.assert_allclose(recall_ceiling(content, 3), recall_at(oracle, 3))
    np.testing.assert_allclose(recall_ceiling(content, 3), [0.5] * 6 + [1.0] * 2)
