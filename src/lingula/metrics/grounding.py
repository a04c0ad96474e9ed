"""How well a map of weights lies on a region. Floor 0."""

from __future__ import annotations

import numpy as np

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def contrast_to_noise(weights: np.ndarray, inside: np.ndarray) -> float:
    r"""Contrast-to-noise ratio of a map between a region and its surroundings.

    .. math:: \mathrm{CNR} = (\mu_{in} - \mu_{out}) / \sqrt{\sigma^2_{in} + \sigma^2_{out}}

    Source: BioViL, arXiv:2204.09817, section 4.2, which takes its absolute value; here it has its sign.

    Args:
        weights: ``(H, W)``.
        inside: ``(H, W)`` bool.
    Returns:
        0 for a map that is the same everywhere; NaN where the region is empty or everything.
    """
    region, rest = weights[inside], weights[~inside]
    if not region.size or not rest.size:
        return float("nan")
    noise = float(np.sqrt(region.var() + rest.var()))
    contrast = float(region.mean() - rest.mean())
    return contrast / noise if noise > 0 else float(np.sign(contrast) * np.inf) if contrast else 0.0


def mean_iou(weights: np.ndarray, inside: np.ndarray) -> float:
    """Mean intersection over union of a region with where a map, stretched to [0, 1], exceeds .1, .2, .3, .4, .5.

    Source: BioViL, arXiv:2204.09817, section 4.2, whose similarities need no stretching.

    Args:
        weights: ``(H, W)``; a map that is the same everywhere exceeds nothing.
        inside: ``(H, W)`` bool, not empty.
    """
    low, high = float(weights.min()), float(weights.max())
    stretched = (weights - low) / (high - low) if high > low else np.zeros_like(weights)
    ious = [((stretched > t) & inside).sum() / ((stretched > t) | inside).sum() for t in THRESHOLDS]
    return float(np.mean(ious))
