"""The optimisers and the schedule of the recipes."""

import math

import pytest
import torch
from torch import nn

from lingula.optim import Recipe, Stage, build_optimizer, learning_rate_at


def recipe(**changes):
    return Recipe(stages=(Stage(1, {"loss": 1.0}),), **changes)


def model():
    torch.manual_seed(0)
    frozen = nn.Linear(3, 3).requires_grad_(False)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), frozen)


def test_adam_decays_every_parameter_through_its_gradient():
    """The first step of Adam is lr times the sign of gradient + decay * parameter."""
    network = model()
    optimizer = build_optimizer(network, recipe(optimizer="adam", learning_rate=1e-3, weight_decay=0.1))
    assert type(optimizer) is torch.optim.Adam
    before = [p.detach().clone() for p in network.parameters()]
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for old, new in zip(before, network.parameters(), strict=True):
        expected = old - 1e-3 * torch.sign(old) if new.requires_grad else old
        torch.testing.assert_close(new.detach(), expected, rtol=0, atol=1e-6)


def test_adamw_decays_matrices_only():
    network = model()
    optimizer = build_optimizer(network, recipe(learning_rate=1e-2, weight_decay=0.5, betas=(0.5, 0.6)))
    assert type(optimizer) is torch.optim.AdamW
    assert all(group["betas"] == (0.5, 0.6) for group in optimizer.param_groups)
    before = [p.detach().clone() for p in network.parameters()]
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for old, new in zip(before, network.parameters(), strict=True):
        shrinks = new.requires_grad and new.ndim > 1
        torch.testing.assert_close(new.detach(), old * (1 - 1e-2 * 0.5) if shrinks else old)


def test_every_parameter_that_wants_a_gradient_is_there_once():
    network = model()
    for name in ("adam", "adamw"):
        held = [p for group in build_optimizer(network, recipe(optimizer=name)).param_groups for p in group["params"]]
        assert len(held) == len({id(p) for p in held}) == 4


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_loss_scale_wants_an_optimizer_that_is_not_fused(name):
    """A fused one takes the scale off in its own step, so nothing before it could clip the true gradients."""
    for fused in (True, False):
        optimizer = build_optimizer(model(), recipe(optimizer=name), fused=fused)
        assert getattr(optimizer, "_step_supports_amp_scaling", False) is fused


def test_another_optimizer():
    with pytest.raises(ValueError, match="optimizer must be one of adam, adamw, sgd, lars, got 'adagrad'"):
        build_optimizer(model(), recipe(optimizer="adagrad"))


def test_the_schedule():
    rates = [learning_rate_at(s, 100, 10, 1e-3, 1e-5) for s in range(100)]
    assert rates[0] == 1e-5
    assert rates[5] == pytest.approx((1e-5 + 1e-3) / 2)
    assert rates[10] == 1e-3 == max(rates)
    for s in range(10, 100):
        assert rates[s] == pytest.approx(0.5e-3 * (1 + math.cos(math.pi * (s - 10) / 90)))
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[:11] == sorted(rates[:11])
    assert 0 < rates[99] < 1e-6
    assert learning_rate_at(100, 100, 10, 1e-3) == 0.0


def test_no_warm_up_and_nothing_but_warm_up():
    assert learning_rate_at(0, 10, 0, 1.0) == 1.0
    assert learning_rate_at(4, 5, 5, 1.0) == pytest.approx(0.8)
