"""Correlations of patches against loops and against numpy's own, and the error over some of them."""

import math

import numpy as np
import pytest
import torch

from lingula.losses.patch_correlation import correlation, correlation_loss, patch_pixels


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_of_components_it_is_pearsons():
    vectors = draw(2, 5, 7)
    found, varies = correlation(vectors, centre=-1)
    for one, film in zip(found, vectors, strict=True):
        np.testing.assert_allclose(one.numpy(), np.corrcoef(film.numpy()), atol=1e-12)
    assert varies.all()


def test_of_patches_it_is_the_cosine_round_their_mean():
    vectors = draw(2, 4, 3)
    expected = []
    for film in vectors.tolist():
        mean = [sum(column) / 4 for column in zip(*film, strict=True)]
        centred = [[x - m for x, m in zip(patch, mean, strict=True)] for patch in film]
        lengths = [math.sqrt(sum(x * x for x in patch)) for patch in centred]
        expected.append(
            [
                [sum(x * y for x, y in zip(a, b, strict=True)) / k / n for b, n in zip(centred, lengths, strict=True)]
                for a, k in zip(centred, lengths, strict=True)
            ]
        )
    found, varies = correlation(vectors, centre=-2)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert varies.all()


@pytest.mark.parametrize("centre", [-1, -2])
def test_symmetric_with_ones_on_the_diagonal_whatever_the_scale(centre):
    vectors = draw(3, 6, 8)
    found, _ = correlation(vectors, centre)
    torch.testing.assert_close(found, found.transpose(1, 2))
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2), torch.ones(3, 6, dtype=torch.float64))
    assert found.abs().max() <= 1 + 1e-12
    torch.testing.assert_close(correlation(5 * vectors + 3, centre)[0], found)
    order = [3, 0, 5, 1, 4, 2]
    torch.testing.assert_close(correlation(vectors[:, order], centre)[0], found[:, order][:, :, order])
    assert torch.autograd.gradcheck(lambda v: correlation(v, centre)[0], vectors.requires_grad_())


def test_a_patch_in_which_nothing_varies_has_no_correlations():
    vectors = draw(1, 4, 8)
    vectors[0, 2] = -1.0
    vectors[0, 3] = -1.0 + 1e-4 * draw(8)  # below what counts
    vectors.requires_grad_()
    found, varies = correlation(vectors, centre=-1, smallest=1e-3)
    assert varies.tolist() == [[True, True, False, False]]
    assert (found[0, 2:] == 0).all()
    assert (found[0, :, 2:] == 0).all()
    found.sum().backward()
    assert vectors.grad.isfinite().all()
    one = torch.ones(2, 1, 3, requires_grad=True)  # the only patch of a film is the mean of its patches
    alone, varies = correlation(one, centre=-2)
    assert not varies.any()
    alone.sum().backward()
    assert one.grad.isfinite().all()


def test_pixels_of_patches_in_reading_order():
    film = torch.arange(2 * 16 * 3 * 16, dtype=torch.float64).view(1, 1, 32, 48)
    found = patch_pixels(film, (2, 3), side=8)
    assert found.shape == (1, 6, 64)
    for patch in range(6):
        row, column = divmod(patch, 3)
        for pixel in (0, 9, 63):
            y, x = row * 16 + pixel // 8 * 2, column * 16 + pixel % 8 * 2
            assert found[0, patch, pixel].item() == pytest.approx(film[0, 0, y : y + 2, x : x + 2].mean().item())
    assert patch_pixels(torch.rand(2, 1, 30, 30), (4, 4)).shape == (2, 16, 64)  # the grid need not divide the film
    assert patch_pixels(film.bfloat16(), (2, 3)).dtype == torch.float32


def test_the_error_over_some_pairs():
    prediction, target = draw(2, 4, 4), 2 * draw(2, 4, 4, seed=1)
    pairs = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    expected = []
    for film in range(2):
        total = count = 0
        for p in range(4):
            for other in range(4):
                if pairs[film, p, other]:
                    d = abs(prediction[film, p, other].item() - target[film, p, other].item())
                    total += 0.5 * d * d if d < 1 else d - 0.5
                    count += 1
        expected.append(total / count)
    found = correlation_loss(prediction, target, pairs)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert correlation_loss(target, target, pairs).tolist() == [0.0, 0.0]
    nothing = torch.zeros_like(pairs)
    assert correlation_loss(prediction, target, nothing).tolist() == [0.0, 0.0]
    prediction.requires_grad_(), target.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: correlation_loss(p, target.detach(), pairs), prediction)
    correlation_loss(prediction, target, pairs).sum().backward()
    assert target.grad is None


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_full_precision_under_autocast(kind):
    vectors = draw(2, 5, 7).float()
    expected, _ = correlation(vectors, -1)
    with torch.autocast("cpu", dtype=kind):
        found, _ = correlation(vectors, -1)
        half, _ = correlation(vectors.to(kind), -1)
        loss = correlation_loss(half.to(kind), expected, torch.ones_like(half, dtype=torch.bool))
    torch.testing.assert_close(found, expected)
    assert half.dtype == loss.dtype == torch.float32
    assert half.isfinite().all()
    assert loss.isfinite().all()


def test_errors():
    x = torch.ones(1, 2, 2)
    with pytest.raises(ValueError, match=r"must match, got \(1, 2, 2\), \(1, 2, 2\) and \(1, 2\)"):
        correlation_loss(x, x, torch.ones(1, 2, dtype=torch.bool))
