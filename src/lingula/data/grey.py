"""Grey values of any range to uint8, and colours to grey. Floor 2."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_uint8(share: np.ndarray) -> np.ndarray:
    """Shares of the display range, clipped to 0..1, to 0..255.

    Example:
        >>> to_uint8(np.array([-1.0, 0.5, 2.0]))
        array([  0, 128, 255], dtype=uint8)
    """
    return np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8)


def spread(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """``low`` to 0 and ``high`` to 255, the smallest and the largest value unless given. A flat image is black.

    Example:
        >>> spread(np.array([1000, 1100, 1200]))
        array([  0, 128, 255], dtype=uint8)
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if not high > low:
        return np.zeros(values.shape, dtype=np.uint8)
    return to_uint8((values.astype(np.float64) - low) / (high - low))


def luminance(colours: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` red, green and blue of any integer type to ``(H, W)`` uint8 (ITU-R BT.601)."""
    return np.asarray(Image.fromarray(colours if colours.dtype == np.uint8 else spread(colours)).convert("L"))
