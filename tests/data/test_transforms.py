"""Crops and grey values against plain slicing."""

import torch

from lingula.data.transforms import centre_corners, crop, crop_corners, resize, to_unit_range


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
