"""Retrieval metrics that know about ties."""

from __future__ import annotations

import numpy as np


def recall_at(similarity: np.ndarray, k: int, tolerance: float = 1e-6) -> np.ndarray:
    """The chance that each query finds its own candidate among its first k, ties broken at random.

    Reports repeat, and equal reports have equal embeddings: counting ties for or against the method would be wrong
    either way.

    Args:
        similarity: ``(n, n)``, the i-th candidate belonging to the i-th query.
        k: how many candidates are looked at.
        tolerance: similarities no further apart than this are tied.
    Returns:
        ``(n,)`` in [0, 1]; NaN for a query with a similarity that is NaN.
    """
    above, tied = _beside_own(similarity, tolerance)
    return np.clip((k - above) / tied, 0.0, 1.0)


def ranks(similarity: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """The rank of each query's own candidate, from 1, in the middle of its ties; ``(n,)``, NaN as in recall."""
    above, tied = _beside_own(similarity, tolerance)
    middle: np.ndarray = above + (tied + 1) / 2
    return middle


def _beside_own(similarity: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` candidates above each query's own, and those tied with it, itself included; NaN where one is unknown."""
    own = np.diagonal(similarity)[:, None]
    above = (similarity > own + tolerance).sum(1)
    tied = (np.abs(similarity - own) <= tolerance).sum(1)
    unknown = np.isnan(similarity).any(1)
    return np.where(unknown, np.nan, above), np.where(unknown, np.nan, tied)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of ``(n,)`` values that count ``(draws, n)`` whole times; ``(draws,)``, the mean of the middle two; NaN
    where a value is."""
    if np.isnan(values).any():
        return np.full(len(weights), np.nan)
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[:, order], axis=1)
    total = upto[:, -1:]
    low = (upto >= np.floor((total + 1) / 2)).argmax(1)
    high = (upto >= np.floor(total / 2) + 1).argmax(1)
    median: np.ndarray = (values[order[low]] + values[order[high]]) / 2
    return median


def recall_ceiling(content: np.ndarray, k: int) -> np.ndarray:
    """Recall at k of someone who knows what every film shows, when several reports say just that.

    Args:
        content: ``(n,)`` what the i-th film shows; equal where reports cannot tell films apart.
        k: how many candidates are looked at.
    Returns:
        ``(n,)`` in (0, 1].
    """
    _, inverse, counts = np.unique(content, return_inverse=True, return_counts=True)
    return np.clip(k / counts[inverse], 0.0, 1.0)


def precision_at(similarity: np.ndarray, relevant: np.ndarray, k: int, tolerance: float = 1e-6) -> np.ndarray:
    """The share of relevant candidates expected among the first k of each query, ties broken at random.

    Args:
        similarity: ``(n, m)``.
        relevant: ``(n, m)`` bool.
        k: in [1, m].
        tolerance: similarities no further apart than this from the k-th are tied with it.
    Returns:
        ``(n,)`` in [0, 1]; NaN for a query with a similarity that is NaN.
    """
    unknown = np.isnan(similarity).any(1)
    similarity = np.where(unknown[:, None], 0.0, similarity)
    kth = -np.partition(-similarity, k - 1, axis=1)[:, k - 1, None]
    above, tied = similarity > kth + tolerance, np.abs(similarity - kth) <= tolerance
    room = k - above.sum(1)  # left for the tied ones, at least one
    expected = (above & relevant).sum(1) + room * (tied & relevant).sum(1) / tied.sum(1)
    precision: np.ndarray = np.where(unknown, np.nan, expected / k)
    return precision
