"""Sentences on a film (Fig. 4 of CM-CGNS): a heat map a sentence, blank where the encoder never saw the film."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COLOURS = "viridis"  # perceptually uniform, and the same order for the colour-blind
BLANK = 0  # the palette's transparent entry


class Corners(NamedTuple):
    """A box: edges in pixels of the film."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Panel:
    """One sentence on the film.

    Attributes:
        text: the sentence.
        heat: its map as a picture (data URI), transparent where the encoder never saw the film.
        cell: the grid's cell of highest weight, in the film's pixels.
        weight: of that cell.
        box: where the corpus says that it is, in the film's pixels; ``None`` where it does not.
        hit: whether the cell touches the box; ``None`` without a box.
    """

    text: str
    heat: str
    cell: Corners
    weight: float
    box: Corners | None
    hit: bool | None


@dataclass(frozen=True)
class FilmFigure:
    """A film and its panels: ``film`` a data URI, ``height`` and ``width`` its pixels, one scale for all its maps."""

    title: str
    film: str
    height: int
    width: int
    low: float
    high: float
    panels: list[Panel]


def film_figure(
    title: str,
    film: np.ndarray,
    maps: np.ndarray,
    texts: Sequence[str],
    cells: np.ndarray,
    weights: np.ndarray,
    boxes: Sequence[np.ndarray | None],
    hits: Sequence[bool | None],
) -> FilmFigure:
    """A film with its S sentences, all maps on the scale from the film's lowest to its highest weight.

    Args:
        title: of the film.
        film: ``(H, W)`` uint8.
        maps: ``(S, H, W)`` attention weights on the film's pixels, NaN where the encoder never saw the film.
        texts: S sentences.
        cells: ``(S, 4)`` the cell of highest weight of each, x0, y0, x1, y1 in the film's pixels.
        weights: ``(S,)`` of these cells.
        boxes: S boxes in the film's pixels, ``None`` where the truth is not known.
        hits: S times whether the cell touches the box, ``None`` without a box.
    """
    low, high = float(np.nanmin(maps)), float(np.nanmax(maps))
    panels = [
        Panel(
            text,
            heat_picture(heat, low, high),
            _corners(cell),
            float(weight),
            None if box is None else _corners(box),
            hit,
        )
        for text, heat, cell, weight, box, hit in zip(texts, maps, cells, weights, boxes, hits, strict=True)
    ]
    return FilmFigure(title, film_picture(film), film.shape[0], film.shape[1], low, high, panels)


def _corners(box: np.ndarray) -> Corners:
    return Corners(*(round(float(value), 2) for value in box))


def colour_places(heat: np.ndarray, low: float, high: float) -> np.ndarray:
    """Places in the palette, ``(H, W)`` uint8: 1 at ``low``, 255 at ``high``, :data:`BLANK` where the map is NaN."""
    scaled = (heat - low) / (high - low) if high > low else np.where(np.isnan(heat), np.nan, 0.5)
    return np.where(np.isnan(heat), BLANK, 1 + np.nan_to_num(scaled).clip(0, 1) * 254).round().astype(np.uint8)


def palette() -> np.ndarray:
    """``(256, 3)`` uint8: :data:`BLANK`, then the colour map."""
    from matplotlib import colormaps

    colours = colormaps[COLOURS](np.linspace(0, 1, 255))[:, :3]
    return np.concatenate([np.zeros((1, 3)), colours * 255]).round().astype(np.uint8)


def heat_picture(heat: np.ndarray, low: float, high: float) -> str:
    """A map ``(H, W)`` with NaN for blank, as a palette PNG in a data URI; equal values, equal colours."""
    from PIL import Image

    picture = Image.fromarray(colour_places(heat, low, high))
    picture.putpalette(palette().tobytes())  # makes it a palette picture
    return _data_uri(picture, transparency=BLANK)


def film_picture(film: np.ndarray) -> str:
    """A film ``(H, W)`` uint8 as a grey PNG in a data URI."""
    from PIL import Image

    return _data_uri(Image.fromarray(film))


def colour_bar() -> str:
    """The scale from low (left) to high (right), 255 x 1 pixels, a data URI."""
    return heat_picture(np.linspace(0.0, 1.0, 255)[None], 0.0, 1.0)


def _data_uri(picture: object, **options: int) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True, **options)  # type: ignore[attr-defined]
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
