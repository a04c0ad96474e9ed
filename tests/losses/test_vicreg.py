"""VICReg's three terms against literal sums."""

import math

import pytest
import torch

from lingula.losses.vicreg import covariance, invariance, variance


def views(size, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, dim, generator=generator, dtype=torch.float64) for _ in range(2))


def literal_matrix(view):
    """Eq. 3 on lists."""
    size, dim = len(view), len(view[0])
    mean = [sum(row[i] for row in view) / size for i in range(dim)]
    matrix = [[0.0] * dim for _ in range(dim)]
    for row in view:
        for i in range(dim):
            for j in range(dim):
                matrix[i][j] += (row[i] - mean[i]) * (row[j] - mean[j]) / (size - 1)
    return matrix


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_invariance(size):
    one, other = views(size)
    expected = [
        sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 4
        for a, b in zip(one.tolist(), other.tolist(), strict=True)
    ]
    torch.testing.assert_close(invariance(one, other), double(expected))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_variance(size):
    one = next(views(size))
    matrix = literal_matrix(one.tolist())
    expected = [max(0.0, 1.0 - math.sqrt(matrix[j][j] + 1e-4)) for j in range(4)]  # Eqs. 1-2
    torch.testing.assert_close(variance(one), double(expected))
    expected = [max(0.0, 3.0 - math.sqrt(matrix[j][j] + 0.5)) for j in range(4)]
    torch.testing.assert_close(variance(one, target=3.0, eps=0.5), double(expected))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_covariance(size):
    one = next(views(size))
    matrix = literal_matrix(one.tolist())
    expected = [sum(matrix[i][j] ** 2 for j in range(4) if j != i) for i in range(4)]  # Eq. 4, d times
    torch.testing.assert_close(covariance(one), double(expected))


def test_gradient():
    one, other = (x.requires_grad_() for x in views(4, 3))
    assert torch.autograd.gradcheck(invariance, (one, other))
    assert torch.autograd.gradcheck(lambda x: variance(x, target=3.0), one)
    assert torch.autograd.gradcheck(covariance, one)


def test_closed_forms():
    one = next(views(3))
    assert invariance(one, one).tolist() == [0.0] * 3
    torch.testing.assert_close(invariance(one, one + 2), torch.full((3,), 4.0, dtype=torch.float64))
    collapsed = torch.ones(3, 2, dtype=torch.float64)
    torch.testing.assert_close(variance(collapsed), torch.full((2,), 0.99, dtype=torch.float64))  # 1 - sqrt(1e-4)
    assert covariance(collapsed).tolist() == [0.0, 0.0]
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert variance(corners).tolist() == [0.0, 0.0]
    assert covariance(corners).tolist() == [0.0, 0.0]


def test_collapsed_embeddings_have_a_gradient_that_is_finite():
    x = torch.ones(3, 2, requires_grad=True)
    (variance(x).sum() + covariance(x).sum()).backward()
    assert x.grad.isfinite().all()


def test_order_and_shift():
    one, other = views(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(invariance(one[order], other[order]), invariance(one, other)[order])
    torch.testing.assert_close(invariance(one + 5, other + 5), invariance(one, other))
    for term in (variance, covariance):
        torch.testing.assert_close(term(one[order] + 5), term(one))
    dimensions = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(covariance(one[:, dimensions]), covariance(one)[dimensions])


def test_full_precision_under_autocast():
    one, other = (x.float() for x in views(5))
    expected = invariance(one, other), variance(one), covariance(one)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = invariance(one, other), variance(one), covariance(one)
        half = one.bfloat16()
        halves = invariance(half, other.bfloat16()), variance(half), covariance(half)
    for term, full, low in zip(terms, expected, halves, strict=True):
        assert term.dtype == low.dtype == torch.float32
        assert low.isfinite().all()
        torch.testing.assert_close(term, full)


def test_errors():
    with pytest.raises(ValueError, match=r"the two views must match, got \(2, 3\) and \(4, 3\)"):
        invariance(torch.ones(2, 3), torch.ones(4, 3))
    for term in (variance, covariance):
        with pytest.raises(ValueError, match="a variance needs 2 films or more, got 1"):
            term(torch.ones(1, 3))
