"""Films against files written by Pillow and pydicom, and against closed forms."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lingula.data.image import Geometry, letterbox, read_image, read_square
from lingula.registry import UserError

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


def smooth(height: int, width: int) -> np.ndarray:
    """A film with soft shapes and a hard edge; ``(height, width)`` uint8."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    film = 120 + 60 * np.sin(9 * x) * np.cos(7 * y) + 40 * (x > 0.3)
    return np.clip(film, 0, 255).astype(np.uint8)


# Geometry -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size", "scale", "pad_x", "pad_y"),
    [
        (100, 100, 50, 0.5, 0, 0),
        (200, 100, 50, 0.25, 12, 0),  # 25 wide: 12 columns left, 13 right
        (100, 200, 50, 0.25, 0, 12),
        (50, 25, 100, 2.0, 25, 0),
        (1000, 1, 10, 0.01, 4, 0),  # never thinner than one pixel
    ],
)
def test_geometry_in_closed_form(height: int, width: int, size: int, scale: float, pad_x: int, pad_y: int) -> None:
    assert Geometry.of(height, width, size) == Geometry(scale, pad_x, pad_y, height, width)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(8, 600), st.data())
def test_boxes_go_there_and_back(height: int, width: int, size: int, data: st.DataObject) -> None:
    geometry = Geometry.of(height, width, size)
    x = data.draw(st.floats(0, width))
    y = data.draw(st.floats(0, height))
    box = np.array([[0, 0, x, y], [x, y, width, height]])
    there = geometry.to_prepared(box)
    assert (there >= -1e-9).all()
    assert (there <= size + 1e-9).all()
    np.testing.assert_allclose(geometry.to_original(there), box, atol=1e-6)
    rows, columns = geometry.shape
    assert max(rows, columns) == size
    assert abs(rows - height * geometry.scale) <= 0.5 or rows == 1
    assert abs(columns - width * geometry.scale) <= 0.5 or columns == 1


def test_a_marked_rectangle_lies_where_the_geometry_says() -> None:
    film = np.zeros((300, 200), dtype=np.uint8)
    film[60:120, 40:100] = 255
    square, geometry = letterbox(film, 150)
    x0, y0, x1, y1 = geometry.to_prepared([40, 60, 100, 120]).astype(int)
    expected = np.zeros((150, 150), dtype=np.uint8)
    expected[y0:y1, x0:x1] = 255
    np.testing.assert_array_equal(square, expected)
    assert (x0, y0, x1, y1) == (45, 30, 75, 60)


def test_points_and_boxes_and_odd_lengths() -> None:
    geometry = Geometry(0.5, 3, 0, 100, 90)
    np.testing.assert_allclose(geometry.to_prepared([10.0, 20.0]), [8, 10])
    with pytest.raises(ValueError, match="x, y pairs"):
        geometry.to_prepared([1.0, 2.0, 3.0])


def test_letterbox_averages_areas_when_it_shrinks() -> None:
    film = np.random.default_rng(0).integers(0, 256, (64, 32), dtype=np.uint8)
    square, geometry = letterbox(film, 16)
    blocks = film.reshape(16, 4, 8, 4).mean(axis=(1, 3))
    assert np.abs(square[:, 4:12] - blocks).max() <= 0.5
    assert not square[:, :4].any()
    assert not square[:, 12:].any()
    assert (geometry.pad_x, geometry.pad_y) == (4, 0)


def test_letterbox_of_the_same_size_is_the_film_and_enlarging_keeps_flat_films_flat() -> None:
    film = smooth(40, 40)
    np.testing.assert_array_equal(letterbox(film, 40)[0], film)
    np.testing.assert_array_equal(letterbox(np.full((5, 5), 77, np.uint8), 32)[0], np.full((32, 32), 77))


@pytest.mark.parametrize("film", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), np.zeros((0, 4), np.uint8)])
def test_letterbox_refuses_what_is_no_film(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected a film of shape \(H, W\) in uint8"):
        letterbox(film, 8)


# Raster files ---------------------------------------------------------------------------------------------------------


def test_png_of_8_bits_is_read_as_it_is(tmp_path: Path) -> None:
    film = smooth(30, 50)
    Image.fromarray(film).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), film)


def test_png_of_16_bits_is_scaled_by_its_range(tmp_path: Path) -> None:
    film = (1000 + RAMP).astype(np.uint16)
    Image.fromarray(film).save(tmp_path / "a.png")
    expected = np.rint(RAMP / RAMP.max() * 255)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    Image.fromarray(np.full((4, 4), 900, np.uint16)).save(tmp_path / "flat.png")
    assert not read_image(tmp_path / "flat.png").any()


def test_png_of_16_bits_in_colour_keeps_its_low_bytes(tmp_path: Path) -> None:
    grey = (RAMP // 2)[..., None].repeat(3, axis=2)  # 0..1535, of which Pillow would keep 6 levels
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    film = read_image(tmp_path / "a.png")
    assert np.abs(film - (RAMP // 2) / (RAMP // 2).max() * 255.0).max() <= 0.5 + 1e-6
    transparent = np.dstack([grey, np.full(RAMP.shape, 65535, np.uint16)])
    transparent[:10, :, 3] = 0
    cv2.imwrite(str(tmp_path / "b.png"), transparent)
    assert not read_image(tmp_path / "b.png")[:10].any()
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[10:], film[10:])


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    colours = np.zeros((1, 4, 3), np.uint8)
    colours[0] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]
    Image.fromarray(colours).save(tmp_path / "a.png")
    expected = [0.299 * 255, 0.587 * 255, 0.114 * 255, 90]  # ITU-R BT.601
    assert np.abs(read_image(tmp_path / "a.png")[0] - np.array(expected)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_black(tmp_path: Path, mode: str) -> None:
    grey, alpha = np.full((4, 3), 200, np.uint8), np.zeros((4, 3), np.uint8)
    alpha[:2] = 255
    alpha[2] = 128
    channels = [grey] * (len(mode) - 1) + [alpha]
    Image.merge(mode, [Image.fromarray(channel) for channel in channels]).save(tmp_path / "a.png")
    film = read_image(tmp_path / "a.png")
    assert (film[:2] == 200).all()
    assert np.abs(film[2] - 200 * 128 / 255).max() <= 1
    assert not film[3].any()


def test_palette_and_bilevel(tmp_path: Path) -> None:
    film = np.zeros((8, 8), np.uint8)
    film[2:5] = 255
    Image.fromarray(film).convert("1").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), film)
    palette = Image.fromarray((film > 0).astype(np.uint8), "P")
    palette.putpalette([10, 10, 10, 240, 240, 240])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), np.where(film > 0, 240, 10))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    film = smooth(80, 48)
    film[:20, :12] = 255  # a mark in the upright film's upper left corner
    undo = {  # what a camera would have stored, to be shown upright by this orientation (EXIF 2.3, tag 0x0112)
        1: film,
        2: film[:, ::-1],
        3: film[::-1, ::-1],
        4: film[::-1],
        5: film.T,
        6: np.rot90(film, 1),
        7: film[::-1, ::-1].T,
        8: np.rot90(film, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(np.ascontiguousarray(undo)).save(path, quality=95, exif=exif)
    read = read_image(path)
    assert read.shape == (80, 48)
    assert np.abs(read.astype(int) - film).mean() < 2
    square, geometry = read_square(path, 16)
    assert (geometry.height, geometry.width) == (80, 48)
    assert np.abs(square.astype(int) - letterbox(film, 16)[0]).mean() < 3


@pytest.mark.parametrize(("height", "width", "size"), [(1600, 1200, 100), (1601, 1203, 128), (1000, 1900, 237)])
def test_reduced_decoding_equals_full_decoding(tmp_path: Path, height: int, width: int, size: int) -> None:
    """Within a mean absolute error of 1 grey level of 255, and of 12 anywhere (the hard edge)."""
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(height, width)).save(path, quality=92)
    square, geometry = read_square(path, size)
    full, expected = letterbox(read_image(path), size)
    assert geometry == expected
    error = np.abs(square.astype(int) - full)
    assert error.mean() < 1
    assert error.max() <= 12


def test_reduced_decoding_never_goes_below_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(1000, 700)).save(path)
    seen = []
    resize = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda film, *args, **kw: seen.append(film.shape) or resize(film, *args, **kw))
    for size in (124, 126, 249, 251, 499, 501, 1000, 1200):
        read_square(path, size)
    assert seen == [(125, 88), (250, 175), (250, 175), (500, 350), (500, 350), (1000, 700), (1000, 700), (1000, 700)]


def test_colour_jpeg_is_reduced_to_the_same_luminance(tmp_path: Path) -> None:
    grey = smooth(800, 640)
    Image.fromarray(np.dstack([grey, 255 - grey, grey // 2])).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    square, _ = read_square(tmp_path / "a.jpg", 100)
    assert np.abs(square.astype(int) - letterbox(read_image(tmp_path / "a.jpg"), 100)[0]).mean() < 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1, 0.01])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (300, 200), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    for read in (read_image, lambda path: read_square(path, 32)):
        with pytest.raises(UserError, match=r"cannot read image .*cut\.\w+: \w+"):
            read(cut)


def test_missing_empty_and_unsupported_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read image .*none\.png: no such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UserError, match="the file is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError, match="not a JPEG, PNG or DICOM file"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(UserError, match="cannot read image"):
        read_image(tmp_path)
