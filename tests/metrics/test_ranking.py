"""Retrieval metrics against a simulation of random tie-breaking and closed forms."""

import numpy as np

from lingula.metrics.ranking import precision_at, ranks, recall_at, recall_ceiling, weighted_median


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
    assert ranks(np.eye(7)).tolist() == [1] * 7
    assert ranks(np.zeros((9, 9))).tolist() == [5] * 9
    assert ranks(-np.eye(7)).tolist() == [7] * 7


def test_a_weighted_median_is_numpys_of_the_repeated_values():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, 12).astype(float)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=50).astype(float)
    weights[0] = 1
    weights[1, :5] = 0  # an odd count, perhaps
    expected = [np.median(np.repeat(values, row.astype(int))) for row in weights]
    np.testing.assert_array_equal(weighted_median(values, weights), expected)


def test_ceiling_is_what_an_oracle_reaches():
    content = np.array(["normal"] * 6 + ["a", "b"])
    oracle = (content[:, None] == content).astype(float)
    np.testing.assert_allclose(recall_ceiling(content, 3), recall_at(oracle, 3))
    np.testing.assert_allclose(recall_ceiling(content, 3), [0.5] * 6 + [1.0] * 2)


def test_precision_is_the_average_over_random_tie_breaking():
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 4, (6, 20)).astype(float)
    relevant = rng.random((6, 20)) < 0.4
    for k in (1, 5, 20):
        expected = np.zeros(6)
        for _ in range(4000):
            order = np.argsort(-(similarity + rng.uniform(0, 1e-3, similarity.shape)), axis=1)[:, :k]
            expected += np.take_along_axis(relevant, order, axis=1).mean(1)
        np.testing.assert_allclose(precision_at(similarity, relevant, k), expected / 4000, atol=0.03)
    np.testing.assert_allclose(precision_at(np.zeros((6, 20)), relevant, 3), relevant.mean(1))
    assert (precision_at(relevant.astype(float), relevant, 1) == 1).all()


def test_an_encoder_that_gives_no_numbers_is_not_perfect():
    similarity = np.eye(4)
    similarity[1, 2] = np.nan
    unknown = [False, True, False, False]
    relevant = np.eye(4, dtype=bool)
    for values in (recall_at(similarity, 1), ranks(similarity), precision_at(similarity, relevant, 1)):
        assert np.isnan(values).tolist() == unknown
        assert (values[[0, 2, 3]] == 1).all()
    assert np.isnan(weighted_median(ranks(similarity), np.ones((3, 4)))).all()
