import base64
import io

import numpy as np
import pytest
from PIL import Image

from lingula.plots.attention import BLANK, colour_bar, colour_places, film_figure, heat_picture


def picture(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGBA"))


def test_never_seen_is_blank_and_nothing_else_is():
    heat = np.array([[np.nan, 0.0, 0.5], [1.0, 2.0, -1.0]])
    places = colour_places(heat, 0.0, 1.0)
    assert places.tolist() == [[BLANK, 1, 128], [255, 255, 1]]  # beyond the scale: its ends
    alpha = picture(heat_picture(heat, 0.0, 1.0))[:, :, 3]
    assert alpha.tolist() == [[0, 255, 255], [255, 255, 255]]


def test_equal_values_have_equal_colours_in_every_panel_of_a_film():
    maps = np.array([[[0.2, 0.4]], [[0.4, 0.9]]])
    figure = film_figure(
        "a film",
        np.zeros((1, 2), np.uint8),
        maps,
        ["first", "second"],
        np.array([[1, 0, 2, 1], [1, 0, 2, 1]]),
        np.array([0.4, 0.9]),
        [None, np.array([0.0, 0.0, 1.0, 1.0])],
        [None, False],
    )
    first, second = (picture(panel.heat) for panel in figure.panels)
    assert (figure.low, figure.high, figure.height, figure.width) == (0.2, 0.9, 1, 2)
    assert first[0, 1].tolist() == second[0, 0].tolist() != second[0, 1].tolist()
    assert [panel.text for panel in figure.panels] == ["first", "second"]
    assert figure.panels[1].box == (0, 0, 1, 1)
    assert (figure.panels[0].box, figure.panels[0].hit) == (None, None)


def test_a_flat_map_has_one_colour():
    assert np.unique(colour_places(np.full((2, 2), 0.5), 0.5, 0.5)).size == 1
    assert colour_places(np.array([[np.nan, 0.5]]), 0.5, 0.5)[0, 0] == BLANK


def test_colour_bar_gets_lighter_from_low_to_high():
    """A scale whose lightness rises can be read without seeing colours, and on grey paper."""
    bar = picture(colour_bar())[0, :, :3].astype(float)
    lightness = bar @ [0.2126, 0.7152, 0.0722]
    assert len(bar) == 255
    assert (np.diff(lightness[::10]) > 0).all()


def test_pieces_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        film_figure(
            "", np.zeros((1, 1), np.uint8), np.zeros((2, 1, 1)), ["one"], np.zeros((1, 4)), np.zeros(1), [None], [None]
        )
