"""Crops and grey values against plain slicing; random views against other libraries."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms.functional import resized_crop

from lingula.data import transforms
from lingula.data.transforms import (
    TWO_VIEWS,
    Augmentation,
    augment,
    centre_corners,
    crop,
    crop_corners,
    resize,
    to_unit_range,
)


def test_crop_is_slicing():
    films = torch.randint(0, 256, (5, 20, 20), dtype=torch.uint8)
    corners = torch.tensor([[0, 0], [3, 1], [4, 4], [2, 0], [0, 4]])
    for film, (y, x), cut in zip(films, corners.tolist(), crop(films, corners, 16), strict=True):
        assert torch.equal(cut, film[y : y + 16, x : x + 16])


def test_corners_are_uniform_and_belong_to_the_film():
    keys = torch.arange(4000)
    corners = crop_corners(7, keys, room=4)
    counts = torch.bincount(corners[:, 0], minlength=5)
    assert len(counts) == 5
    assert (counts - 800).abs().max() < 120  # 4.7 standard deviations
    shuffled = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(crop_corners(7, keys[shuffled], 4), corners[shuffled])
    assert not torch.equal(crop_corners(8, keys, 4), corners)
    assert centre_corners(2, 32, torch.device("cpu")).tolist() == [[16, 16], [16, 16]]


def test_unit_range_and_resize():
    assert to_unit_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
    films = torch.full((2, 30, 30), 77, dtype=torch.uint8)
    assert torch.allclose(resize(films, 10), torch.tensor(77.0))
    assert resize(films, 30) is films


# Random views.


def fix(monkeypatch, **draws):
    """Let the draws be these, by number, and one half elsewhere: the middle of every range."""
    numbers = torch.full((14,), 0.5, dtype=torch.float64)
    for name, value in draws.items():
        numbers[int(name[1:])] = value
    monkeypatch.setattr(transforms, "keyed_uniform", lambda seed, keys, count: numbers.repeat(len(keys), 1)[:, :count])


@pytest.fixture
def films():
    return torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255


def view(films, size=24, seed=0, **settings):
    return augment(films, Augmentation(**settings), size, seed, torch.arange(len(films)))


def test_the_default_view_is_the_window_that_it_was_before_there_were_views(films):
    keys = torch.tensor([5, 6, 7])
    expected = crop(films, crop_corners(3, keys, 4), 20)
    assert torch.equal(augment(films, Augmentation(), 20, 3, keys), expected)


def test_a_mirrored_film_is_flipped(films):
    torch.testing.assert_close(view(films, flip=1.0), films.flip(-1), atol=1e-3, rtol=0)


def test_a_quarter_turn(films, monkeypatch):
    fix(monkeypatch, d6=1.0)
    torch.testing.assert_close(view(films, rotate=90.0), torch.rot90(films, 1, (1, 2)), atol=1e-3, rtol=0)


def test_a_translation_is_a_share_of_the_side_and_black_comes_in(films, monkeypatch):
    fix(monkeypatch, d4=1.0)
    moved = view(films, translate=0.25)
    torch.testing.assert_close(moved[:, :, :18], films[:, :, 6:], atol=1e-3, rtol=0)
    assert moved[:, :, 19:].abs().max() < 1e-3


def test_a_zoom_enlarges_about_the_centre(films, monkeypatch):
    fix(monkeypatch, d7=1.0)
    expected = torch.nn.functional.interpolate(films[:, None, 6:18, 6:18], (24, 24), mode="bilinear")[:, 0]
    torch.testing.assert_close(view(films, zoom=(1.0, 2.0))[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-3, rtol=0)


def test_a_resized_crop_is_that_of_torchvision(films, monkeypatch):
    """A quarter of the area in the film's lower right corner; at the crop's rim ours sees the film beyond it."""
    fix(monkeypatch, d0=0.0, d2=1.0, d3=1.0)
    expected = resized_crop(films, 12, 12, 12, 12, [24, 24], antialias=False)
    torch.testing.assert_close(
        view(films, crop_scale=(0.25, 1.0))[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-3, rtol=0
    )


def test_crops_have_their_share_of_the_area():
    """Of a film that is its own column and row number, the crop's width and height can be read."""
    ramp = torch.arange(200.0)
    columns, rows = (x.expand(400, 200, 200) for x in (ramp, ramp[:, None]))
    seen = [view(x, size=100, crop_scale=(0.4, 0.9)) for x in (columns, rows)]
    width = (seen[0][:, 50, 99] - seen[0][:, 50, 0]) * 100 / 99
    height = (seen[1][:, 99, 50] - seen[1][:, 0, 50]) * 100 / 99
    area, aspect = width * height / 200**2, width / height
    assert 0.39 < area.min() < 0.44
    assert 0.85 < area.max() < 0.91
    assert 0.73 < aspect.min() < 0.80
    assert 1.25 < aspect.max() < 1.36


@pytest.mark.parametrize("sigma", [0.6, 2.0])
def test_the_blur_is_scipys(sigma, monkeypatch):
    films = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    fix(monkeypatch, d12=1.0, d13=0.0)
    at_224 = sigma * 224 / 64  # the option is in pixels of a film of 224
    for film, blurred in zip(films, view(films, size=64, blur=(0.0, at_224)), strict=True):
        radius = max(1, math.ceil(3 * sigma))
        expected = gaussian_filter(film.double().numpy(), sigma, mode="mirror", radius=radius)
        np.testing.assert_allclose(blurred.numpy(), expected, atol=0.01)


def test_brightness_and_contrast(films, monkeypatch):
    fix(monkeypatch, d9=0.0, d10=1.0, d11=0.0)
    brighter = (films * 1.4).clamp(0, 255)
    torch.testing.assert_close(view(films, brightness=0.4), brighter, atol=1e-2, rtol=0)
    mean = films.mean((1, 2), keepdim=True)
    torch.testing.assert_close(view(films, contrast=0.5), mean + 0.5 * (films - mean), atol=1e-2, rtol=0)
    fix(monkeypatch, d9=0.9, d10=1.0, d11=0.0)
    kept = view(films, brightness=0.4, contrast=0.5, jitter_probability=0.8)
    torch.testing.assert_close(kept, films, atol=1e-3, rtol=0)


def test_a_view_belongs_to_seed_and_film_and_probabilities_are_shares():
    films = torch.arange(24.0).expand(4000, 24, 24)
    keys = torch.arange(4000)
    views = augment(films, TWO_VIEWS, 16, 7, keys)
    assert views.shape == (4000, 16, 16)
    assert views.min() >= 0
    assert views.max() <= 255
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment(films[order], TWO_VIEWS, 16, 7, keys[order]), views[order])
    assert not torch.equal(augment(films, TWO_VIEWS, 16, 8, keys), views)
    mirrored = (views[:, 8, 0] > views[:, 8, -1]).double().mean()
    assert abs(mirrored - 0.5) < 0.03  # 3.8 standard deviations


def test_bytes_come_to_the_unit_range_as_numbers_do():
    every = torch.arange(256, dtype=torch.uint8).view(2, 1, 8, 16).transpose(2, 3)  # not contiguous
    assert torch.equal(to_unit_range(every), to_unit_range(every.float()))
    assert to_unit_range(every)[0, 0, 0, 0] == -1.0
    assert to_unit_range(every)[1, 0, -1, -1] == 1.0
