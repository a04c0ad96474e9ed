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
    """The middle 95 % of bootstrap values (percentile method), NaN left out."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: np.ndarray, groups: np.ndarray, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean over samples of which those of one patient hang together.

    Args:
        values: ``(n,)``.
        groups: ``(n,)`` the patient of each sample.
        draws, seed: of the bootstrap.
    """
    weights = bootstrap_weights(groups, draws, seed)
    return interval(weights @ values / weights.sum(1))
