"""SigLIP's loss against a literal sum, and what must hold of it."""

import math

import pytest
import torch

from lingula.losses.sigmoid import sigmoid_loss


def literal_cosine(a, b):
    product = length_a = length_b = 0.0
    for x, y in zip(a, b, strict=True):
        product += x * y
        length_a += x * x
        length_b += y * y
    return product / math.sqrt(length_a) / math.sqrt(length_b)


def literal(query, key, t, b):
    """The equation before the mean: one Python sum per sum."""
    losses = []
    for i in range(len(query)):
        loss = 0.0
        for j in range(len(key)):
            z = 1.0 if i == j else -1.0
            loss -= math.log(1.0 / (1.0 + math.exp(-z * (t * literal_cosine(query[i], key[j]) + b))))
        losses.append(loss)
    return torch.tensor(losses, dtype=torch.float64)


def pairs(size, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, dim, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize(("t", "b"), [(10.0, -10.0), (1.0, 0.0), (100.0, 3.0)])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equation(size, t, b):
    query, key = pairs(size)
    torch.testing.assert_close(sigmoid_loss(query, key, t, b), literal(query.tolist(), key.tolist(), t, b))


def test_positives_elsewhere_among_more_keys():
    query, key = pairs(5)
    some = sigmoid_loss(query[3:], key, 10.0, -10.0, positive=torch.tensor([3, 4]))
    torch.testing.assert_close(some, literal(query.tolist(), key.tolist(), 10.0, -10.0)[3:])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_gradient(size):
    query, key = (x.requires_grad_() for x in pairs(size))
    t, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (5.0, -2.0))
    assert torch.autograd.gradcheck(sigmoid_loss, (query, key, t, b))


def test_closed_forms():
    query, key = pairs(4)
    even = torch.full((4,), 4 * math.log(2), dtype=torch.float64)
    torch.testing.assert_close(sigmoid_loss(query, key, 0.0, 0.0), even)  # nothing is known of any pair
    eye = torch.eye(4, dtype=torch.float64)
    expected = math.log1p(math.exp(-(20.0 - 10.0))) + 3 * math.log1p(math.exp(-10.0))
    torch.testing.assert_close(sigmoid_loss(eye, eye, 20.0, -10.0), torch.full((4,), expected, dtype=torch.float64))


def test_order_length_and_rotation():
    query, key = pairs(5)
    expected = sigmoid_loss(query, key, 10.0, -3.0)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(sigmoid_loss(query[order], key[order], 10.0, -3.0), expected[order])
    lengths = torch.rand(5, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(sigmoid_loss(query * lengths, key / lengths, 10.0, -3.0), expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(sigmoid_loss(query @ rotation, key @ rotation, 10.0, -3.0), expected)
    there, back = sigmoid_loss(query, key, 10.0, -3.0), sigmoid_loss(key, query, 10.0, -3.0)
    torch.testing.assert_close(there.mean(), back.mean())  # no direction


def test_full_precision_under_autocast():
    query, key = (x.float() for x in pairs(5))
    query.requires_grad_()
    expected = sigmoid_loss(query, key, 100.0, -10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sigmoid_loss(query, key, 100.0, -10.0)
        half = sigmoid_loss(query.bfloat16(), key.bfloat16(), 100.0, -10.0)
    assert loss.dtype == half.dtype == torch.float32
    assert half.isfinite().all()
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert query.grad.isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match=r"query and key must pair up, got \(2, 3\) and \(4, 3\)"):
        sigmoid_loss(torch.ones(2, 3), torch.ones(4, 3), 1.0, 0.0)
    with pytest.raises(ValueError, match=r"must be equally wide, got \(2, 3\) and \(4, 5\)"):
        sigmoid_loss(torch.ones(2, 3), torch.ones(4, 5), 1.0, 0.0, positive=torch.tensor([0, 1]))
