"""Contrast inside a set against literal sums, and the soft positives of a grid."""

import math

import pytest
import torch

from lingula.losses.info_nce import info_nce
from lingula.losses.local_contrast import local_contrast, neighbour_positives


def literal_cosine(a, b):
    product = length_a = length_b = 0.0
    for x, y in zip(a, b, strict=True):
        product += x * y
        length_a += x * x
        length_b += y * y
    return product / math.sqrt(length_a) / math.sqrt(length_b)


def literal(query, key, tau, mask, positives):
    losses = []
    for b in range(len(query)):
        row, real = [], [j for j in range(len(query[b])) if mask[b][j]]
        for i in range(len(query[b])):
            if not mask[b][i]:
                row.append(0.0)
                continue
            denominator = positive = 0.0
            for j in real:
                similarity = literal_cosine(query[b][i], key[b][j]) / tau
                denominator += math.exp(similarity)
                positive += positives[i][j] * similarity
            row.append(math.log(denominator) - positive)
        losses.append(row)
    return torch.tensor(losses, dtype=torch.float64)


def sets(size, elements, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, elements, dim, generator=generator, dtype=torch.float64) for _ in range(2))


def identity(elements):
    return [[float(i == j) for j in range(elements)] for i in range(elements)]


def ragged(size, elements):
    return torch.arange(elements) < 1 + torch.arange(size)[:, None] % elements


@pytest.mark.parametrize("tau", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equation(size, tau):
    query, key = sets(size, 4)
    mask = ragged(size, 4)
    expected = literal(query.tolist(), key.tolist(), tau, mask.tolist(), identity(4))
    torch.testing.assert_close(local_contrast(query, key, tau, mask), expected)
    full = literal(query.tolist(), key.tolist(), tau, [[True] * 4] * size, identity(4))
    torch.testing.assert_close(local_contrast(query, key, tau), full)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (3, 3)])
def test_soft_positives(grid):
    places = grid[0] * grid[1]
    query, key = sets(2, places)
    positives = neighbour_positives(grid)
    expected = literal(query.tolist(), key.tolist(), 0.3, [[True] * places] * 2, positives.tolist())
    torch.testing.assert_close(local_contrast(query, key, 0.3, positives=positives), expected)


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 3), (6, 6), (7, 7)])
@pytest.mark.parametrize(("reach", "decay"), [(0.5, 1.0), (0.0, 1.0), (0.25, 3.0), (1.0, 0.0)])
def test_the_positives_of_a_grid(grid, reach, decay):
    cells = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    rows = []
    for here in cells:
        row = []
        for there in cells:
            distance = math.dist(here, there) / math.sqrt(grid[0] ** 2 + grid[1] ** 2)
            row.append(math.exp(-decay * distance) if distance <= reach + 1e-12 else 0.0)
        rows.append([weight / sum(row) for weight in row])
    expected = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(neighbour_positives(grid, reach, decay), expected)
    assert (neighbour_positives(grid, reach, decay) == 0).equal(expected == 0)


def test_one_set_is_info_nce():
    query, key = sets(1, 5)
    torch.testing.assert_close(local_contrast(query, key, 0.2)[0], info_nce(query[0], key[0], 0.2))


def test_closed_forms():
    query, key = sets(3, 1)
    assert (local_contrast(query, key, 0.01) == 0).all()  # a report of one sentence
    same = torch.ones(2, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    expected = torch.tensor([[math.log(4)] * 4, [math.log(2)] * 2 + [0.0] * 2], dtype=torch.float64)
    torch.testing.assert_close(local_contrast(same, same, 0.07, mask), expected)
    even = torch.full((4, 4), 0.25, dtype=torch.float64)
    torch.testing.assert_close(local_contrast(same, same, 0.07, positives=even)[0], expected[0])


def test_gradient():
    query, key = (x.requires_grad_() for x in sets(2, 4))
    mask, positives = ragged(2, 4), neighbour_positives((2, 2))
    assert torch.autograd.gradcheck(lambda q, k: local_contrast(q, k, 0.3, mask), (query, key))
    assert torch.autograd.gradcheck(lambda q, k: local_contrast(q, k, 0.3, positives=positives), (query, key))
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: local_contrast(query, key, t, mask), tau)


def test_padding_may_hold_anything_and_gets_no_gradient():
    query, key = sets(3, 4)
    mask = ragged(3, 4)
    expected = local_contrast(query, key, 0.1, mask)
    query[~mask], key[~mask] = 0.0, 7.0
    query.requires_grad_(), key.requires_grad_()
    loss = local_contrast(query, key, 0.1, mask)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert (query.grad[~mask] == 0).all()
    assert (key.grad[~mask] == 0).all()


def test_a_set_of_nothing_is_zero_with_a_finite_gradient():
    query, key = (x.requires_grad_() for x in sets(2, 3))
    mask = torch.tensor([[False] * 3, [True] * 3])
    loss = local_contrast(query, key, 0.1, mask)
    assert (loss[0] == 0).all()
    loss.sum().backward()
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()


def test_order_length_and_rotation():
    query, key = sets(2, 5)
    expected = local_contrast(query, key, 0.1)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(local_contrast(query[:, order], key[:, order], 0.1), expected[:, order])
    torch.testing.assert_close(local_contrast(query.flip(0), key.flip(0), 0.1), expected.flip(0))
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    torch.testing.assert_close(local_contrast(3 * query @ rotation, key @ rotation / 7, 0.1), expected)


def test_full_precision_under_autocast():
    query, key = (x.float() for x in sets(2, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = local_contrast(query, key, 0.01, ragged(2, 4))
        half = local_contrast(query.bfloat16(), key.bfloat16(), 0.01, ragged(2, 4))
    assert loss.dtype == half.dtype == torch.float32
    assert half.isfinite().all()
    torch.testing.assert_close(loss, local_contrast(query, key, 0.01, ragged(2, 4)))


def test_errors():
    x = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match=r"query and key must pair up, got \(2, 3, 4\) and \(2, 2, 4\)"):
        local_contrast(x, x[:, :2], 1.0)
    with pytest.raises(ValueError, match=r"expected a mask of shape \(2, 3\), got \(2, 2\)"):
        local_contrast(x, x, 1.0, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected positives of shape \(3, 3\), got \(2, 2\)"):
        local_contrast(x, x, 1.0, positives=torch.eye(2))
    with pytest.raises(ValueError, match="a mask or positives, not both"):
        local_contrast(x, x, 1.0, torch.ones(2, 3, dtype=torch.bool), torch.eye(3))
    with pytest.raises(ValueError, match=r"reach must be 0 or more, got -0\.1"):
        neighbour_positives((2, 2), reach=-0.1)
