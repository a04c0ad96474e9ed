"""InfoNCE against a literal sum, and what must hold of it."""

import math

import pytest
import torch

from lingula.losses.cosine import cosine, unit
from lingula.losses.info_nce import info_nce


def literal_cosine(a, b):
    product = length_a = length_b = 0.0
    for x, y in zip(a, b, strict=True):
        product += x * y
        length_a += x * x
        length_b += y * y
    return product / math.sqrt(length_a) / math.sqrt(length_b)


def literal(query, key, tau):
    """Eqs. 2-3 before the mean: one Python sum per sum of the equation."""
    losses = []
    for i in range(len(query)):
        denominator = 0.0
        for j in range(len(key)):
            denominator += math.exp(literal_cosine(query[i], key[j]) / tau)
        losses.append(-math.log(math.exp(literal_cosine(query[i], key[i]) / tau) / denominator))
    return torch.tensor(losses, dtype=torch.float64)


def pairs(size, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, dim, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equation(size, tau):
    query, key = pairs(size)
    torch.testing.assert_close(info_nce(query, key, tau), literal(query.tolist(), key.tolist(), tau))


def test_a_temperature_that_is_a_tensor_and_learns():
    query, key = pairs(3)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(info_nce(query, key, tau), literal(query.tolist(), key.tolist(), 0.3))
    assert torch.autograd.gradcheck(lambda t: info_nce(query, key, t), tau)


def test_positives_elsewhere_among_more_keys():
    query, key = pairs(5)
    some = info_nce(query[3:], key, 0.2, positive=torch.tensor([3, 4]))
    torch.testing.assert_close(some, literal(query.tolist(), key.tolist(), 0.2)[3:])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_gradient(size):
    query, key = pairs(size)
    query.requires_grad_(), key.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: info_nce(q, k, 0.2), (query, key))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_identical_embeddings_give_log_of_the_batch(size):
    same = torch.ones(size, 4, dtype=torch.float64)
    torch.testing.assert_close(info_nce(same, same, 0.07), torch.full((size,), math.log(size), dtype=torch.float64))


def test_one_pair_gives_zero():
    assert info_nce(torch.randn(1, 4), torch.randn(1, 4), 0.01).item() == 0.0


def test_orthogonal_pairs_have_a_closed_form():
    eye = torch.eye(4, dtype=torch.float64)
    expected = math.log(math.exp(1 / 0.5) + 3) - 1 / 0.5
    torch.testing.assert_close(info_nce(eye, eye, 0.5), torch.full((4,), expected, dtype=torch.float64))


def test_order_length_and_rotation():
    query, key = pairs(5)
    expected = info_nce(query, key, 0.1)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(info_nce(query[order], key[order], 0.1), expected[order])
    lengths = torch.rand(5, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(info_nce(query * lengths, key / lengths, 0.1), expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(info_nce(query @ rotation, key @ rotation, 0.1), expected)


def test_full_precision_under_autocast():
    query, key = (x.float() for x in pairs(5))
    query.requires_grad_()
    expected = info_nce(query, key, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(query, key, 0.01)
        half = info_nce(query.bfloat16(), key.bfloat16(), 0.01)
    assert loss.dtype == half.dtype == torch.float32
    assert half.isfinite().all()
    torch.testing.assert_close(loss, expected)  # not merely finite: autocast must not touch it
    loss.sum().backward()
    assert query.grad.isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match=r"query and key must pair up, got \(2, 3\) and \(4, 3\)"):
        info_nce(torch.ones(2, 3), torch.ones(4, 3), 1.0)
    with pytest.raises(ValueError, match=r"must be equally wide, got \(2, 3\) and \(4, 5\)"):
        info_nce(torch.ones(2, 3), torch.ones(4, 5), 1.0, positive=torch.tensor([0, 1]))


def test_cosine():
    query, key = pairs(4)
    expected = [[literal_cosine(q, k) for k in key.tolist()] for q in query.tolist()]
    torch.testing.assert_close(cosine(query, key), torch.tensor(expected, dtype=torch.float64))
    assert unit(torch.ones(2, 3).bfloat16()).dtype == torch.float32
    assert unit(torch.ones(2, 3).double()).dtype == torch.float64
    assert unit(torch.zeros(2, 3)).isfinite().all()
