"""Accuracy of labels, some of them unknown. Floor 0."""

from __future__ import annotations

import numpy as np


def accuracy(targets: np.ndarray, scores: np.ndarray, exclusive: bool, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of films whose class is right, or of known labels whose side of 0 is right, for many weightings at once.

    Args:
        targets: ``(n, C)`` 1, 0, NaN unknown.
        scores: ``(n, C)``; the largest is the class, or above 0 is present.
        exclusive: whether the labels are classes of one group.
        weights: ``(draws, n)`` how often each film counts; once by default.
    Returns:
        ``(draws,)``; NaN where a draw has no known label, or a score is NaN.
    """
    weights = np.ones((1, len(targets))) if weights is None else weights
    if np.isnan(scores).any():
        return np.full(len(weights), np.nan)
    known = ~np.isnan(targets)
    right = (scores > 0) == (targets == 1)
    if exclusive:
        known = known.any(1, keepdims=True)
        right = (scores.argmax(1) == np.nan_to_num(targets).argmax(1))[:, None]
    with np.errstate(invalid="ignore"):
        share: np.ndarray = (weights @ (right & known).sum(1)) / (weights @ known.sum(1).astype(float))
    return share
