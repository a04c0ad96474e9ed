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
        ``(n,)`` in [0, 1].
    """
    own = np.diagonal(similarity)[:, None]
    above = (similarity > own + tolerance).sum(1)
    tied = (np.abs(similarity - own) <= tolerance).sum(1)  # its own candidate included
    return np.clip((k - above) / tied, 0.0, 1.0)


def median_rank(similarity: np.ndarray, tolerance: float = 1e-6) -> float:
    """Median over the queries of the own candidate's rank, from 1, in the middle of its ties."""
    own = np.diagonal(similarity)[:, None]
    above = (similarity > own + tolerance).sum(1)
    tied = (np.abs(similarity - own) <= tolerance).sum(1)
    return float(np.median(above + (tied + 1) / 2))


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
