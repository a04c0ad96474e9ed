"""Bootstrap intervals over patients."""

from __future__ import annotations

import numpy as np


def bootstrap_weights(groups: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each sample counts in each draw, whole groups (patients) being drawn with replacement.

    Args:
        groups: ``(n,)`` the patient of each sample.
        draws: how many.
        seed: of the draws.
    Returns:
        ``(draws, n)`` float64.
    """
    _, member = np.unique(groups, return_inverse=True)
    count = member.max() + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return drawn[:, member].astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap values (percentile method), NaN left out; NaN where nothing else is there."""
    if not np.isfinite(values).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
