"""Overlap of a predicted and a true mask, per image. Floor 0.

Both are 1 where nothing is there and nothing was predicted, and 0 where one of the two is empty and the other is not.
So on a corpus in which most images are empty (three quarters of SIIM) the mean is high for a model that predicts
nothing: give the mean over images with a lesion beside it.
"""

from __future__ import annotations

import numpy as np


def dice(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice coefficient: twice the overlap over the sum of both areas; the F1 of the image's pixels.

    Args:
        predicted: ``(n, H, W)`` bool.
        truth: ``(n, H, W)`` bool.
    Returns:
        ``(n,)`` float64 in [0, 1]; 1 where both are empty.
    Raises:
        ValueError: if the shapes differ, or either is not bool.
    """
    both, either = _areas(predicted, truth)
    return _ratio(2 * both, both + either)


def iou(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union, the Jaccard index: ``dice / (2 - dice)``. Arguments and result as of :func:`dice`."""
    both, either = _areas(predicted, truth)
    return _ratio(both, either)


def _areas(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the intersection and of the union of each image, ``(n,)`` int64 each."""
    if predicted.shape != truth.shape or predicted.dtype != bool or truth.dtype != bool:
        raise ValueError(
            f"expected two bool arrays of one shape, got {predicted.shape} in {predicted.dtype} "
            f"and {truth.shape} in {truth.dtype}"
        )
    return (predicted & truth).sum((1, 2)), (predicted | truth).sum((1, 2))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))
