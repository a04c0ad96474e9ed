"""One contract for every image encoder."""

import pytest
import torch

from lingula.nn.image_encoders import ImageEncoder, recalibrate_batch_norm
from lingula.registry import UserError


@pytest.mark.parametrize(
    ("name", "size", "grid", "width"),
    [
        ("small_resnet", 48, (3, 3), 96),
        ("resnet18", 64, (2, 2), 512),
        ("vit_tiny_patch16_224", 32, (2, 2), 192),
        ("deit_tiny_patch16_224", 64, (4, 4), 192),
        ("swin_tiny_patch4_window7_224", 64, (2, 2), 768),
    ],
)
def test_the_contract(name, size, grid, width):
    torch.manual_seed(0)
    encoder = ImageEncoder(name, size).eval()
    assert (encoder.grid, encoder.width) == (grid, width)
    with torch.no_grad():
        features = encoder(torch.randn(2, 1, size, size))
    places = grid[0] * grid[1]
    assert features.patches.shape == (2, places, width)
    assert features.pooled.shape == (2, width)
    assert features.grid == grid
    means = [[sum(channel) / places for channel in zip(*film, strict=True)] for film in features.patches.tolist()]
    torch.testing.assert_close(features.pooled, torch.tensor(means), rtol=1e-4, atol=1e-5)
    assert all(m.ndim == 4 for m in features.maps)
    sizes = [m.shape[-1] for m in features.maps]
    assert sizes == sorted(sizes, reverse=True)


def test_patches_are_places_in_reading_order():
    encoder = ImageEncoder("small_resnet", 64).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 1, 64, 64))
    h, w = features.grid
    for y in range(h):
        for x in range(w):
            torch.testing.assert_close(features.patches[0, y * w + x], features.maps[-1][0, :, y, x])


def test_a_film_brightens_its_own_patch():
    torch.manual_seed(0)
    encoder = ImageEncoder("small_resnet", 128).eval()
    dark, lit = torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)
    lit[..., 112:, :16] = 1.0  # the bottom left
    with torch.no_grad():
        change = (encoder(lit).patches - encoder(dark).patches).norm(dim=-1)[0].view(encoder.grid)
    assert change.argmax() == (encoder.grid[0] - 1) * encoder.grid[1]


def test_a_typing_error_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown image encoder 'resnet05'; did you mean 'resnet50'"):
        ImageEncoder("resnet05", 32)
    with pytest.raises(UserError, match="did you mean 'small_resnet'"):
        ImageEncoder("smal_resnet", 32)


def test_building_one_touches_no_statistics():
    encoder = ImageEncoder("small_resnet", 32)
    assert encoder.training
    assert all((m.running_mean == 0).all() for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_recalibration_takes_the_statistics_of_the_films():
    encoder = ImageEncoder("small_resnet", 32).eval()
    films = [torch.rand(4, 1, 32, 32) for _ in range(3)]
    norm = encoder.backbone.stem[1]
    momentum = norm.momentum
    recalibrate_batch_norm(encoder, films)
    assert norm.momentum == momentum
    assert not encoder.training
    with torch.no_grad():
        expected = sum(encoder.backbone.stem[0](x).mean((0, 2, 3)) for x in films) / 3
    torch.testing.assert_close(norm.running_mean, expected)
