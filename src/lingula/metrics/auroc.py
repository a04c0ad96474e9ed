"""Area under the ROC curve."""

from __future__ import annotations

import numpy as np

BLOCK = 50  # draws at a time


def auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """AUROC for many weightings of the same samples at once: a bootstrap is one call.

    It is the probability that a positive scores above a negative, ties counted half (Mann and Whitney).

    Args:
        labels: ``(n,)`` 1 positive, 0 negative.
        scores: ``(n,)`` any scale.
        weights: ``(draws, n)`` how often each sample counts; once by default.
    Returns:
        ``(draws,)`` in [0, 1]; NaN where a draw has no positive or no negative, or a score is NaN.
    """
    weights = np.ones((1, len(labels))) if weights is None else np.asarray(weights, dtype=np.float64)
    if np.isnan(scores).any() or not len(scores):
        return np.full(len(weights), np.nan)
    _, rank = np.unique(scores, return_inverse=True)
    positive = np.asarray(labels) == 1
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(rank[order]) > 0])  # of each group of equal scores
    areas = [np.empty(0)]
    for first in range(0, len(weights), BLOCK):  # all draws of thirty thousand films at once would take gigabytes
        block = weights[first : first + BLOCK]
        of_positives = np.add.reduceat(np.where(positive, block, 0.0)[:, order], starts, axis=1)
        of_negatives = np.add.reduceat(np.where(positive, 0.0, block)[:, order], starts, axis=1)
        below = np.cumsum(of_negatives, axis=1) - 0.5 * of_negatives
        pairs = of_positives.sum(1) * of_negatives.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            areas.append(np.where(pairs > 0, (of_positives * below).sum(1) / pairs, np.nan))
    return np.concatenate(areas)


def macro_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean AUROC over the classes that can be scored; unknown labels (NaN) do not count.

    Args:
        labels: ``(n, C)`` 1, 0 or NaN.
        scores: ``(n, C)``.
        weights: ``(draws, n)``, as in :func:`auroc`.
    Returns:
        ``(draws,)``. A class with no positives or no negatives is left out of the mean, never counted as 0; a draw in
        which none can be scored is NaN, and so is all where a score is.
    """
    if np.isnan(scores).any():
        return np.full(1 if weights is None else len(weights), np.nan)
    per_class = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        known_weights = weights if weights is None or known.all() else weights[:, known]
        per_class.append(auroc(labels[known, column], scores[known, column], known_weights))
    stacked = np.stack(per_class)
    counted = ~np.isnan(stacked)
    return np.where(counted.any(0), np.where(counted, stacked, 0).sum(0) / counted.sum(0).clip(1), np.nan)
