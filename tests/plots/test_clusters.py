import math

import numpy as np

from lingula.plots.clusters import largest_clusters, purity

TEXTS = ["no effusion", "clear", "no effusion", "clear lungs", "large heart", "heart enlarged"]
MEANINGS = ["no effusion", "normal", "no effusion", None, "big heart", "big heart"]
ASSIGNMENT = np.array([7, 7, 7, 7, 2, 2])
SIMILARITY = np.array([0.5, 0.9, 0.8, 0.1, 0.3, 0.6])


def test_nearest_texts_first_and_counted_once():
    first, second = largest_clusters(SIMILARITY, ASSIGNMENT, TEXTS, MEANINGS, np.array([0, 0, 1, 1, 2, 2]), 5)
    assert first.nearest == [("clear", 1), ("no effusion", 2), ("clear lungs", 1)]
    assert (first.size, first.reports, first.meaning, first.other_texts) == (4, 2, "no effusion", 0)
    assert math.isclose(first.purity, 2 / 3)  # the unknown meaning does not count
    assert (second.size, second.reports, second.meaning, second.purity) == (2, 1, "big heart", 1.0)


def test_no_more_than_asked_for():
    (only,) = largest_clusters(SIMILARITY, ASSIGNMENT, TEXTS, MEANINGS, np.arange(6), 1, sentences=1)
    assert (only.nearest, only.other_texts) == ([("clear", 1)], 2)


def test_without_meanings():
    first, _ = largest_clusters(SIMILARITY, ASSIGNMENT, TEXTS, [None] * 6, np.arange(6), 2)
    assert first.meaning is None
    assert math.isnan(first.purity)
    assert all(math.isnan(value) for value in purity(ASSIGNMENT, [None] * 6))


def test_purity_over_all_clusters_and_of_one():
    assert purity(ASSIGNMENT, MEANINGS) == (4 / 5, 2 / 5)
    assert purity(np.arange(6), MEANINGS)[0] == 1.0
    assert purity(np.zeros(6, dtype=int), MEANINGS) == (2 / 5, 2 / 5)
