"""SimSiam's negative cosine against a literal sum."""

import math

import pytest
import torch

from lingula.losses.simsiam import simsiam


def literal(prediction, target):
    """The inside of Eq. 10: -sim(h(x), S(y))."""
    losses = []
    for p, t in zip(prediction, target, strict=True):
        product = sum(x * y for x, y in zip(p, t, strict=True))
        losses.append(-product / math.sqrt(sum(x * x for x in p)) / math.sqrt(sum(y * y for y in t)))
    return torch.tensor(losses, dtype=torch.float64)


def pairs(size, dim=5):
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(size, dim, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equation(size):
    prediction, target = pairs(size)
    torch.testing.assert_close(simsiam(prediction, target), literal(prediction.tolist(), target.tolist()))
    patches = simsiam(prediction[None], target[None])
    assert patches.shape == (1, size)


def test_gradient_and_its_stop():
    prediction, target = pairs(3)
    prediction.requires_grad_(), target.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: simsiam(p, target.detach()), prediction)
    simsiam(prediction, target).sum().backward()
    assert prediction.grad.abs().sum() > 0
    assert target.grad is None


def test_closed_forms():
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(simsiam(x, 2 * x), -torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(simsiam(x, -x), torch.ones(4, dtype=torch.float64))


def test_length_and_rotation():
    prediction, target = pairs(4)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    expected = simsiam(prediction, target)
    torch.testing.assert_close(simsiam(3 * prediction @ rotation, target @ rotation / 7), expected)


def test_full_precision_under_autocast():
    prediction, target = (x.float() for x in pairs(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = simsiam(prediction, target)
        assert simsiam(prediction.bfloat16(), target.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(loss, simsiam(prediction, target))


def test_error():
    with pytest.raises(ValueError, match=r"prediction and target must match, got \(2, 3\) and \(1, 3\)"):
        simsiam(torch.ones(2, 3), torch.ones(1, 3))
