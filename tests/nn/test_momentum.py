"""The momentum encoder against its equation."""

import pytest
import torch
from torch import nn

from lingula.nn.momentum import MomentumEncoder


def make_original():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def test_it_starts_as_its_original_and_shares_nothing_with_it():
    original = make_original()
    momentum = MomentumEncoder(original, 0.9)
    x = torch.randn(5, 3).double()
    torch.testing.assert_close(momentum.eval()(x), original.eval()(x))
    with torch.no_grad():
        for p in original.parameters():
            p.add_(1)
    assert (momentum(x) - original(x)).abs().max() > 0.1


@pytest.mark.parametrize("m", [0.0, 0.5, 0.99])
def test_the_equation(m):
    """theta_k <- m theta_k + (1 - m) theta_q, three times, one Python number at a time."""
    original = make_original()
    momentum = MomentumEncoder(original, m)
    expected = [p.flatten().tolist() for p in original.parameters()]
    for step in range(3):
        with torch.no_grad():
            for p in original.parameters():
                p.add_(0.1 * (step + 1))
        momentum.follow(original)
        for values, q in zip(expected, original.parameters(), strict=True):
            for place, new in enumerate(q.flatten().tolist()):
                values[place] = m * values[place] + (1 - m) * new
    for values, p in zip(expected, momentum.copy.parameters(), strict=True):
        torch.testing.assert_close(p.flatten(), torch.tensor(values, dtype=torch.float64))


def test_no_gradient_to_it_or_through_it():
    original = make_original()
    momentum = MomentumEncoder(original, 0.9)
    assert not any(p.requires_grad for p in momentum.parameters())
    assert all(p.requires_grad for p in original.parameters())
    x = torch.randn(5, 3).double().requires_grad_()
    assert not momentum(x).requires_grad
    original(x).sum().backward()
    momentum.follow(original)
    assert all(p.grad is None for p in momentum.parameters())


def test_statistics_are_its_own():
    original = make_original()
    momentum = MomentumEncoder(original, 0.5)
    momentum(torch.randn(5, 3).double() + 7)
    moved = momentum.copy[1].running_mean.clone()
    assert (moved != original[1].running_mean).any()
    momentum.follow(original)
    assert torch.equal(momentum.copy[1].running_mean, moved)
    assert torch.equal(original[1].running_mean, torch.zeros(4).double())


def test_it_comes_back_from_a_checkpoint():
    original = make_original()
    momentum = MomentumEncoder(original, 0.5)
    with torch.no_grad():
        original[0].weight.add_(1)
    momentum.follow(original)
    other = MomentumEncoder(make_original(), 0.5)
    other.load_state_dict(momentum.state_dict())
    assert torch.equal(other.copy[0].weight, momentum.copy[0].weight)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1.5])
def test_error(momentum):
    with pytest.raises(ValueError, match=rf"momentum must lie in \[0, 1\), got {momentum}"):
        MomentumEncoder(make_original(), momentum)
