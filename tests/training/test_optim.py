"""The optimisers and the schedule of the recipes."""

import math

import pytest
import torch
from torch import nn

from lingula.training.optim import build_optimizer, learning_rate_at
from lingula.training.recipe import Recipe, Stage, from_scratch


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


def test_other_schedules():
    assert [learning_rate_at(s, 10, 2, 1.0, schedule="constant") for s in range(10)] == [0.0, 0.5, *[1.0] * 8]
    rates = [learning_rate_at(s, 200, 0, 0.03, schedule="step") for s in range(200)]
    expected = [0.03] * 120 + [0.003] * 40 + [0.0003] * 40  # MoCo's 120 and 160 of 200 epochs
    assert rates == pytest.approx(expected)


def test_sgd_and_lars():
    """The first step of SGD is lr times gradient + decay * parameter; LARS scales each matrix's by trust ratios."""
    network = model()
    for p in network.parameters():
        p.grad = torch.full_like(p, 0.5) if p.requires_grad else None
    before = [p.detach().clone() for p in network.parameters()]
    sgd = build_optimizer(network, recipe(optimizer="sgd", learning_rate=0.1, weight_decay=0.2, momentum=0.8))
    assert type(sgd) is torch.optim.SGD
    assert all(group["momentum"] == 0.8 for group in sgd.param_groups)
    sgd.step()
    for old, new in zip(before, network.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - 0.1 * (0.5 + 0.2 * old) if new.requires_grad else old)

    network = model()
    weight, bias = network[0].weight, network[0].bias
    weight.grad, bias.grad = torch.full_like(weight, 0.5), torch.full_like(bias, 0.25)
    old, old_bias = weight.detach().clone(), bias.detach().clone()
    lars = build_optimizer(network, recipe(optimizer="lars", learning_rate=0.1, weight_decay=0.2, momentum=0.9))
    lars.step()
    norm, slope = old.norm(), weight.grad.norm()
    trust = 0.001 * norm / (slope + 0.2 * norm)  # You et al. 2017, Eq. 6
    torch.testing.assert_close(weight.detach(), old - 0.1 * trust * (0.5 + 0.2 * old))
    torch.testing.assert_close(bias.detach(), old_bias - 0.1 * 0.25)  # biases and norms are not adapted


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.text_encoder = nn.Linear(2, 2)
        self.image_encoder = nn.Linear(2, 2)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lars"])
def test_the_text_encoder_has_its_own_rate(name):
    network = Towers()
    optimizer = build_optimizer(network, recipe(optimizer=name, learning_rate=1e-3, text_learning_rate=1e-4))
    scales = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    assert len(scales) == 4
    for key, parameter in network.named_parameters():
        assert scales[id(parameter)] == pytest.approx(0.1 if key.startswith("text") else 1.0)
    plain = build_optimizer(network, recipe(optimizer=name, learning_rate=1e-3))
    assert {group["scale"] for group in plain.param_groups} == {1.0}


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_biases_have_their_own_rate(name):
    network = Towers()
    settings = {"learning_rate": 1e-3, "bias_learning_rate": 5e-4, "text_learning_rate": 1e-4}
    optimizer = build_optimizer(network, recipe(optimizer=name, **settings))
    scales = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    for key, parameter in network.named_parameters():
        expected = (0.1 if key.startswith("text") else 1.0) * (0.5 if key.endswith("bias") else 1.0)
        assert scales[id(parameter)] == pytest.approx(expected)


def test_a_stages_own_warm_up_is_a_share_of_it():
    stage = Stage(50, {"loss": 1.0}, learning_rate=2e-5, warmup_epochs=20)
    assert stage.of_length(5) == Stage(5, {"loss": 1.0}, learning_rate=2e-5, warmup_epochs=2)
    assert Stage(50, {"loss": 1.0}).of_length(5) == Stage(5, {"loss": 1.0})


def test_the_recipe_from_scratch():
    own = from_scratch(Stage(10, {"loss": 1.0}), options={"dim": 4}, sentences="one")
    assert (own.options, own.sentences, own.pretrained, own.batch_size) == ({"dim": 4}, "one", False, 32)
    assert own.stages == (Stage(10, {"loss": 1.0}),)
