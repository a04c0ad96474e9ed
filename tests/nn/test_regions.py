"""Regions: which map they come from, how wide they are, and in which order."""

import pytest
import torch

from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.regions import has_pyramid, read_regions, region_width


def test_the_penultimate_map_of_a_residual_network():
    encoder = ImageEncoder("resnet18", 64).eval()
    images = torch.rand(2, 1, 64, 64)
    features, regions, grid = read_regions(encoder, images, "penultimate", 0)
    assert (regions.shape, grid) == ((2, 16, 256), (4, 4))
    assert region_width(encoder, "penultimate") == 256
    for place, (y, x) in enumerate([(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]):
        assert torch.equal(regions[:, place], features.maps[-2][:, :, y, x])


def test_the_last_map():
    encoder = ImageEncoder("resnet18", 64).eval()
    features, regions, grid = read_regions(encoder, torch.rand(2, 1, 64, 64), "last", 0)
    assert (regions.shape, grid) == ((2, 4, 512), (2, 2))
    assert torch.equal(regions, features.patches)
    assert region_width(encoder, "last") == 512


def test_films_are_enlarged_for_convolutions():
    encoder = ImageEncoder("resnet18", 64).eval()
    assert has_pyramid(encoder)
    images = torch.rand(2, 1, 64, 64)
    features, regions, grid = read_regions(encoder, images, "penultimate", 96)
    assert (features.grid, grid, regions.shape[1]) == ((3, 3), (6, 6), 36)
    larger = torch.nn.functional.interpolate(images, size=(96, 96), mode="bilinear")
    torch.testing.assert_close(features.patches, encoder(larger).patches)


def test_a_vision_transformer_gives_its_patches_of_the_film_as_it_is():
    encoder = ImageEncoder("small_vit", 32).eval()
    assert not has_pyramid(encoder)
    images = torch.rand(2, 1, 32, 32)
    features, regions, grid = read_regions(encoder, images, "penultimate", 96)
    assert grid == encoder.grid
    assert torch.equal(regions, features.patches)
    torch.testing.assert_close(regions, encoder(images).patches)
    assert region_width(encoder, "penultimate") == encoder.width


def test_another_map_is_refused():
    with pytest.raises(ValueError, match="local_map must be one of penultimate, last, got 'first'"):
        region_width(ImageEncoder("small_resnet", 32), "first")
