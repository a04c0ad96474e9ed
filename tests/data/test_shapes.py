"""Masks against literal loops over pixels."""

from __future__ import annotations

import math
import pickle
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingula.data.shapes import Shape, draw_runs, draw_shapes, read_runs
from lingula.data.study import Study

# Shapes ---------------------------------------------------------------------------------------------------------------


def inside(shape: Shape, x: float, y: float) -> bool:
    """Whether a point lies in a shape, by its definition; a polygon by the angle that its outline turns around it."""
    x0, y0, x1, y1 = shape.bounds
    if shape.kind == "rectangle":
        return x0 <= x < x1 and y0 <= y < y1
    if shape.kind == "ellipse":
        a, b = (x1 - x0) / 2, (y1 - y0) / 2
        return a > 0 and b > 0 and ((x - x0 - a) / a) ** 2 + ((y - y0 - b) / b) ** 2 <= 1
    corners = [complex(*shape.points[i : i + 2]) - complex(x, y) for i in range(0, len(shape.points), 2)]
    turned = sum(
        math.atan2((after * before.conjugate()).imag, (after * before.conjugate()).real)
        for before, after in zip(corners, corners[1:] + corners[:1], strict=True)
    )
    return round(turned / (2 * math.pi)) % 2 == 1


def drawn_slowly(shapes: list[Shape], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    for row in range(height):
        for column in range(width):
            mask[row, column] = any(inside(shape, column + 0.5, row + 0.5) for shape in shapes)
    return mask


def off_the_grid(whole: list[int]) -> tuple[float, ...]:
    """Coordinates of which no two are whole pixels apart: no outline goes through the centre of a pixel, where rounding
    would decide."""
    return tuple(number + 0.618034 * (i + 1) % 1 for i, number in enumerate(whole))


def points(count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(st.integers(-5, 20), min_size=2 * count, max_size=2 * count).map(off_the_grid)


@given(st.lists(st.builds(Shape, st.sampled_from(["rectangle", "ellipse"]), points(2)), max_size=3))
def test_rectangles_and_ellipses_are_those_of_a_literal_loop(shapes: list[Shape]) -> None:
    np.testing.assert_array_equal(draw_shapes(shapes, 11, 15), drawn_slowly(shapes, 11, 15))


@given(st.builds(Shape, st.just("polygon"), st.integers(3, 8).flatmap(points)))
def test_polygons_are_those_of_a_literal_loop(shape: Shape) -> None:
    """Any polygon: partly outside the film, and crossing itself."""
    np.testing.assert_array_equal(draw_shapes([shape], 11, 15), drawn_slowly([shape], 11, 15))


def test_a_rectangle_of_whole_pixels_is_a_slice() -> None:
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 2:7] = True
    for points in [(2, 1, 7, 4), (7, 4, 2, 1), (2, 4, 7, 1)]:  # any two opposite corners
        np.testing.assert_array_equal(draw_shapes([Shape("rectangle", points)], 6, 8), expected)
    as_polygon = Shape("polygon", (2, 1, 7, 1, 7, 4, 2, 4))
    np.testing.assert_array_equal(draw_shapes([as_polygon], 6, 8), expected)


def test_the_outline_through_the_centre_of_a_pixel_takes_it_once() -> None:
    """Two triangles that share an edge cover their square once, and neither pixel twice."""
    lower = draw_shapes([Shape("polygon", (0, 0, 4, 4, 0, 4))], 4, 4)
    upper = draw_shapes([Shape("polygon", (0, 0, 4, 0, 4, 4))], 4, 4)
    assert not (lower & upper).any()
    assert (lower | upper).all()


def test_corners_in_the_centre_of_a_pixel_count_once() -> None:
    """A diamond whose left and right corners lie on a row of centres, and a rectangle from centre to centre."""
    diamond = draw_shapes([Shape("polygon", (0, 2.5, 3, 0, 6, 2.5, 3, 5))], 5, 6)
    np.testing.assert_array_equal(diamond.sum(1), [2, 4, 6, 4, 2])
    points = (1.5, 1.5, 4.5, 1.5, 4.5, 3.5, 1.5, 3.5)
    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(draw_shapes([Shape("polygon", points)], 5, 6), expected)
    np.testing.assert_array_equal(draw_shapes([Shape("rectangle", (1.5, 1.5, 4.5, 3.5))], 5, 6), expected)


def test_a_polygon_that_crosses_itself_is_hollow_where_it_overlaps() -> None:
    star = [complex(10, 10) + 9.7 * complex(math.sin(a), -math.cos(a)) for a in (4 * math.pi / 5 * i for i in range(5))]
    mask = draw_shapes([Shape("polygon", tuple(part for point in star for part in (point.real, point.imag)))], 20, 20)
    assert mask[3, 10]
    assert not mask[10, 10]


def test_areas_in_closed_form() -> None:
    circle = draw_shapes([Shape("ellipse", (10, 20, 110, 100))], 120, 120)
    assert circle.sum() == pytest.approx(math.pi * 50 * 40, rel=0.01)
    assert (np.flatnonzero(circle.any(0))[[0, -1]] == [10, 109]).all()
    assert (np.flatnonzero(circle.any(1))[[0, -1]] == [20, 99]).all()
    triangle = draw_shapes([Shape("polygon", (0, 0, 120, 0, 0, 90))], 120, 120)
    assert triangle.sum() == pytest.approx(120 * 90 / 2, rel=0.01)


def test_a_union_and_none_and_what_is_thinner_than_a_pixel() -> None:
    assert not draw_shapes([], 3, 4).any()
    assert draw_shapes([], 3, 4).shape == (3, 4)
    left, right = Shape("rectangle", (0, 0, 2, 3)), Shape("ellipse", (1, 0, 4, 3))
    corner = Shape("polygon", (0, 0, 4, 0, 0, 3))
    shapes = (left, right, corner)
    union = np.logical_or.reduce([draw_shapes([shape], 3, 4) for shape in shapes])
    assert [draw_shapes([shape], 3, 4).sum() for shape in (*shapes, left)] != [union.sum()] * 4
    for order in permutations(shapes):
        np.testing.assert_array_equal(draw_shapes(order, 3, 4), union)
    for kind in ("rectangle", "ellipse"):
        assert not draw_shapes([Shape(kind, (1, 1, 1, 3))], 3, 4).any()
        assert not draw_shapes([Shape(kind, (0, 2, 4, 2))], 3, 4).any()


def test_bounds() -> None:
    assert Shape("polygon", (5, 2, 1, 9, 3, 4)).bounds == (1, 2, 5, 9)
    assert Shape("ellipse", (5, 2, 1, 9)).bounds == (1, 2, 5, 9)


@pytest.mark.parametrize(
    ("kind", "points", "message"),
    [
        ("circle", (1, 2, 3, 4), "unknown shape 'circle'; known: rectangle, ellipse, polygon"),
        ("rectangle", (1, 2, 3), "rectangle: expected x, y of 2 corners, got 3 numbers"),
        ("ellipse", (1, 2, 3, 4, 5, 6), "ellipse: expected x, y of 2 corners, got 6 numbers"),
        ("polygon", (1, 2, 3, 4), "polygon: expected x, y of 3 corners or more, got 4 numbers"),
        ("polygon", (1, 2, 3, 4, 5, 6, 7), "got 7 numbers"),
        ("rectangle", (1, 2, 3, math.nan), "no finite number"),
        ("rectangle", (1, 2, math.inf, 4), "no finite number"),
    ],
)
def test_what_is_no_shape_is_refused(kind: Any, points: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape(kind, points)


# Run-length codes -----------------------------------------------------------------------------------------------------


def encoded(mask: np.ndarray) -> str:
    """The relative code of a mask, by a walk down its columns."""
    words, skipped, length = [], 0, 0
    for value in [mask[row, column] for column in range(mask.shape[1]) for row in range(mask.shape[0])] + [False]:
        if value:
            length += 1
            continue
        if length:
            words += [skipped, length]
            skipped, length = 0, 0
        skipped += 1
    return " ".join(map(str, words))


def decoded_slowly(code: str, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    numbers = [int(word) for word in code.split()]
    position = 0
    for skip, length in zip(numbers[0::2], numbers[1::2], strict=True):
        position += skip
        for _ in range(length):
            mask[position % height, position // height] = True
            position += 1
    return mask


masks = st.integers(0, 2**35 - 1).map(
    lambda bits: np.array([bits >> i & 1 for i in range(35)], dtype=bool).reshape(5, 7)
)


@given(masks)
def test_a_run_length_code_gives_back_its_mask(mask: np.ndarray) -> None:
    if mask.any():
        drawn = draw_runs([read_runs(encoded(mask))], 5, 7)
        np.testing.assert_array_equal(drawn, mask)
        np.testing.assert_array_equal(drawn, decoded_slowly(encoded(mask), 5, 7))


@given(st.lists(masks.filter(np.any), max_size=3))
def test_several_codes_are_united_each_from_the_first_pixel(several: list[np.ndarray]) -> None:
    expected = np.logical_or.reduce([np.zeros((5, 7), dtype=bool), *several])
    np.testing.assert_array_equal(draw_runs([read_runs(encoded(mask)) for mask in several], 5, 7), expected)


def test_the_official_example_lies_where_it_should() -> None:
    """``387620 23 996 33``: 387620 = 378 x 1024 + 548, so column 378 from row 548 on; the next run one column on."""
    mask = draw_runs([read_runs("387620 23 996 33")], 1024, 1024)
    expected = np.zeros((1024, 1024), dtype=bool)
    expected[548:571, 378] = True
    expected[543:576, 379] = True
    np.testing.assert_array_equal(mask, expected)
    assert mask.flags.c_contiguous


def test_a_run_to_the_last_pixel_and_one_past_it() -> None:
    assert draw_runs([read_runs("0 12")], 3, 4).all()
    assert draw_runs([read_runs("11 1")], 3, 4).sum() == 1
    for code in ("0 13", "11 2", "12 1", "0 1 11 1"):
        with pytest.raises(ValueError, match=r"a run ends at pixel 13 of a film of 12"):
            draw_runs([read_runs("0 1"), read_runs(code)], 3, 4)


@pytest.mark.parametrize("code", ["", "1", "1 2 3", "-1", "-1 5", "1 -5", "1.5 2", "a b", "² 2", "1 2,3 4"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match=f"expected pairs of whole numbers, got '{code[:40]}"):
        read_runs(code)


def test_a_run_of_no_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="a run of no pixels in '5 0 1 1'"):
        read_runs("5 0 1 1")
    with pytest.raises(ValueError, match=r"'(1 ){20}\.\.\.'"):
        read_runs("1 " * 501)


def test_they_can_be_sent_to_a_process() -> None:
    shapes = partial(draw_shapes, (Shape("ellipse", (0, 0, 5, 4)),))
    runs = partial(draw_runs, (read_runs("3 4"),))
    for mask in (shapes, runs):
        assert Study("a", "a", lambda: np.zeros((4, 5), np.uint8), masks={"m": mask}).masks["m"] is mask
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(mask))(4, 5), mask(4, 5))
