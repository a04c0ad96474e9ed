"""Bootstrap intervals against simulation and closed forms."""

import numpy as np

from lingula.metrics.auroc import auroc
from lingula.metrics.bootstrap import bootstrap_weights, interval


def test_bootstrap_draws_whole_patients():
    weights = bootstrap_weights(np.array(["a", "a", "b", "c", "c"]), draws=2000, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    np.testing.assert_allclose(weights.mean(0), 1.0, atol=0.1)


def test_interval_covers_the_truth_as_often_as_it_says():
    # Scores of positives are N(1, 1), of negatives N(0, 1): the true AUROC is Phi(1 / sqrt 2) = 0.7602.
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        labels = np.r_[np.ones(60), np.zeros(60)]
        scores = np.r_[rng.normal(1, 1, 60), rng.normal(0, 1, 60)]
        low, high = interval(auroc(labels, scores, bootstrap_weights(np.arange(120), 200, trial)))
        covered += low <= 0.7602 <= high
    assert 0.89 <= covered / 200 <= 0.985


def test_nothing_has_no_interval():
    assert np.isnan(interval(np.full(5, np.nan))).all()
