"""Masks from what annotators wrote down: run-length codes, rectangles, ellipses and polygons. Floor 2.

``functools.partial(draw_shapes, shapes)`` and ``partial(draw_runs, codes)`` are masks as
:class:`lingula.data.study.Study` takes them, and can be sent to the processes that decode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

Kind = Literal["rectangle", "ellipse", "polygon"]


@dataclass(frozen=True)
class Shape:
    """A closed outline on a film, in pixels of the original film.

    Coordinates are pixel edges: the first pixel spans 0 to 1. A pixel belongs to a shape if its centre lies inside.

    Attributes:
        kind: ``rectangle``, ``ellipse`` or ``polygon``.
        points: x, y, x, y, ...; two opposite corners of a rectangle, or of the one around an ellipse; the corners of a
            polygon, which closes itself.
    Raises:
        ValueError: for another kind, another number of points, and coordinates that are not finite.
    """

    kind: Kind
    points: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown shape '{self.kind}'; known: {', '.join(get_args(Kind))}")
        count = len(self.points)
        if count % 2 or (count < 6 if self.kind == "polygon" else count != 4):
            expected = "x, y of 3 corners or more" if self.kind == "polygon" else "x, y of 2 corners"
            raise ValueError(f"{self.kind}: expected {expected}, got {count} numbers")
        if not all(map(math.isfinite, self.points)):
            raise ValueError(f"{self.kind}: a coordinate that is no finite number")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The smallest rectangle around it: x0, y0, x1, y1."""
        x, y = self.points[0::2], self.points[1::2]
        return min(x), min(y), max(x), max(y)


def draw_shapes(shapes: Sequence[Shape], height: int, width: int) -> np.ndarray:
    """The union of shapes; what lies beyond the film is cut off.

    Args:
        shapes: none draws an empty mask.
        height, width: of the film, pixels.
    Returns:
        ``(height, width)`` bool.
    """
    mask = np.zeros((height, width), dtype=bool)
    for shape in shapes:
        x0, y0, x1, y1 = shape.bounds
        rows, columns = _centres_between(y0, y1, height), _centres_between(x0, x1, width)
        y = np.arange(rows.start, rows.stop) + 0.5
        x = np.arange(columns.start, columns.stop) + 0.5
        if shape.kind == "rectangle":
            mask[rows, columns] = True
        elif shape.kind == "ellipse":
            across = (2 * x - x0 - x1) / (x1 - x0)
            down = (2 * y - y0 - y1) / (y1 - y0)
            mask[rows, columns] |= across**2 + down[:, None] ** 2 <= 1
        else:
            mask[rows, columns] |= _inside_polygon(shape.points, x, y)
    return mask


def _centres_between(low: float, high: float, size: int) -> slice:
    """The pixels of a side of ``size`` whose centres c lie in ``low <= c < high``."""
    start, stop = (min(max(math.ceil(edge - 0.5), 0), size) for edge in (low, high))
    return slice(start, stop)


def _inside_polygon(points: Sequence[float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``(len(y), len(x))`` bool: True where the outline is crossed an odd number of times on the way from the left."""
    corners = list(zip(points[0::2], points[1::2], strict=True))
    crossed = np.zeros((len(y), len(x) + 1), dtype=bool)  # the last column: to the right of all pixels
    for (x0, y0), (x1, y1) in pairwise([*corners, corners[0]]):
        rows = np.flatnonzero((min(y0, y1) <= y) & (y < max(y0, y1)))
        if len(rows):
            at = x0 + (y[rows] - y0) / (y1 - y0) * (x1 - x0)
            crossed[rows, np.searchsorted(x, at)] ^= True
    inside: np.ndarray = np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
    return inside


def read_runs(code: str) -> np.ndarray:
    """A relative run-length code: how many pixels to skip since the end of the last run, and how many to take.

    Args:
        code: whole numbers between spaces, such as ``387620 23 996 33``.
    Returns:
        ``(n, 2)`` int64, skip and length of each run.
    Raises:
        ValueError: for anything but pairs of whole numbers, a negative skip, and a run of no pixels.
    Example:
        >>> read_runs("3 2 1 1").tolist()
        [[3, 2], [1, 1]]
    """
    words = code.split()
    if not words or len(words) % 2 or not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(f"expected pairs of whole numbers, got '{_shortened(code)}'")
    runs = np.array(words, dtype=np.int64).reshape(-1, 2)
    if (runs[:, 1] < 1).any():
        raise ValueError(f"a run of no pixels in '{_shortened(code)}'")
    return runs


def draw_runs(codes: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of run-length codes, which count down the columns, the leftmost first, from the top.

    Args:
        codes: of :func:`read_runs`, each from the first pixel on; none draws an empty mask.
        height, width: of the film, pixels.
    Returns:
        ``(height, width)`` bool.
    Raises:
        ValueError: if a run ends past the last pixel.
    Example:
        >>> draw_runs([read_runs("3 2")], height=2, width=3).astype(int)
        array([[0, 0, 1],
               [0, 1, 0]])
    """
    mask = np.zeros((width, height), dtype=bool)
    pixels = mask.reshape(-1)
    for runs in codes:
        edges = np.cumsum(runs)  # start, end, start, end, ...
        if edges[-1] > len(pixels):
            raise ValueError(f"a run ends at pixel {edges[-1]:,} of a film of {len(pixels):,}")
        for start, end in edges.reshape(-1, 2).tolist():
            pixels[start:end] = True
    return np.ascontiguousarray(mask.T)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
