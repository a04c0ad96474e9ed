"""Barlow Twins' correlation and its two sums against literal ones."""

import math

import pytest
import torch

from lingula.losses.barlow_twins import barlow_twins, cross_correlation


def views(size, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, dim, generator=generator, dtype=torch.float64) for _ in range(2))


def literal_correlation(one, other, eps=1e-5):
    """Eq. 2 on lists, z centred, eps beside each variance."""
    size, dim = len(one), len(one[0])
    means = [[sum(row[i] for row in view) / size for i in range(dim)] for view in (one, other)]
    matrix = []
    for i in range(dim):
        row = []
        for j in range(dim):
            product = square_one = square_other = 0.0
            for b in range(size):
                x, y = one[b][i] - means[0][i], other[b][j] - means[1][j]
                product += x * y
                square_one += x * x
                square_other += y * y
            row.append(product / math.sqrt(square_one + size * eps) / math.sqrt(square_other + size * eps))
        matrix.append(row)
    return matrix


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_correlation(size):
    one, other = views(size)
    expected = torch.tensor(literal_correlation(one.tolist(), other.tolist()), dtype=torch.float64)
    torch.testing.assert_close(cross_correlation(one, other), expected)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_two_sums(dim):
    matrix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    c = matrix.tolist()
    invariance, redundancy = barlow_twins(matrix)
    expected = [(1 - c[i][i]) ** 2 for i in range(dim)]
    torch.testing.assert_close(invariance, torch.tensor(expected, dtype=torch.float64))
    expected = [sum(c[i][j] ** 2 for j in range(dim) if j != i) for i in range(dim)]
    torch.testing.assert_close(redundancy, torch.tensor(expected, dtype=torch.float64))


def test_gradient():
    one, other = (x.requires_grad_() for x in views(5, 3))
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins(cross_correlation(a, b)), (one, other))


def test_closed_forms():
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    for invariance, redundancy in (
        barlow_twins(cross_correlation(corners, corners, eps=0.0)),
        barlow_twins(torch.eye(3, dtype=torch.float64)),
    ):
        torch.testing.assert_close(invariance, torch.zeros_like(invariance))
        torch.testing.assert_close(redundancy, torch.zeros_like(redundancy))
    same = corners[:, :1].expand(-1, 3)  # three dimensions that say the same
    torch.testing.assert_close(
        barlow_twins(cross_correlation(same, same, eps=0.0))[1], torch.full((3,), 2.0, dtype=torch.float64)
    )
    against = barlow_twins(cross_correlation(corners, -corners, eps=0.0))[0]
    torch.testing.assert_close(against, torch.full((2,), 4.0, dtype=torch.float64))


def test_order_shift_and_length_of_the_dimensions():
    one, other = views(6)
    expected = cross_correlation(one, other, eps=0.0)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    torch.testing.assert_close(cross_correlation(one[order], other[order], eps=0.0), expected)
    scale = torch.tensor([0.1, 2.0, 3.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(cross_correlation(scale * one + 7, other / scale - 3, eps=0.0), expected)
    torch.testing.assert_close(cross_correlation(other, one, eps=0.0), expected.T)


def test_a_dimension_that_stands_still_is_finite():
    one, other = views(4)
    one[:, 0] = 3.0
    one.requires_grad_()
    matrix = cross_correlation(one, other)
    torch.testing.assert_close(matrix[0], torch.zeros(4, dtype=torch.float64))
    sum(x.sum() for x in barlow_twins(matrix)).backward()
    assert one.grad.isfinite().all()


def test_full_precision_under_autocast():
    one, other = (x.float() for x in views(5))
    expected = cross_correlation(one, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matrix = cross_correlation(one, other)
        half = cross_correlation(one.bfloat16(), other.bfloat16())
    assert matrix.dtype == half.dtype == torch.float32
    torch.testing.assert_close(matrix, expected)
    assert all(x.isfinite().all() for x in barlow_twins(half))


def test_errors():
    with pytest.raises(ValueError, match=r"the two views must match, got \(2, 3\) and \(4, 3\)"):
        cross_correlation(torch.ones(2, 3), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"must be a square matrix, got \(2, 3\)"):
        barlow_twins(torch.ones(2, 3))
