"""Pairs in both directions, and a temperature that is learned within bounds."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lingula.losses.info_nce import info_nce
from lingula.nn.contrast import Temperature, contrast_pairs, own_columns


def test_both_directions_from_one_product():
    one, other = (x.requires_grad_() for x in torch.randn(2, 4, 3, dtype=torch.float64))
    with FlopCounterMode(display=False) as counted:
        pairs = contrast_pairs(one, other, 0.2)
    assert counted.get_total_flops() == 2 * 4 * 4 * 3
    by_themselves = info_nce(one, other, 0.2), info_nce(other, one, 0.2)
    torch.testing.assert_close(pairs, by_themselves, rtol=1e-12, atol=1e-12)
    weights = torch.rand(2, 4, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((weights * torch.stack(losses)).sum(), (one, other)) for losses in (pairs, by_themselves)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert own_columns(3, one.device).tolist() == [0, 1, 2]


def test_a_learned_temperature_is_held_and_its_gradient_is_that_of_the_logarithm():
    temperature = Temperature(0.07)
    assert temperature().item() == pytest.approx(0.07)
    temperature().backward()
    assert temperature.logarithm.grad.item() == pytest.approx(0.07)
    for wanted, held in ((1e-4, 0.01), (5.0, 1.0), (0.3, 0.3)):
        with torch.no_grad():
            temperature.logarithm.fill_(math.log(wanted))
        assert temperature().item() == pytest.approx(held)
    assert [name for name, _ in temperature.named_parameters()] == ["logarithm"]


def test_a_fixed_temperature_is_no_parameter_and_is_not_held():
    fixed = Temperature(1e-3, learnable=False)
    assert fixed().item() == pytest.approx(1e-3)
    assert list(fixed.parameters()) == []
    assert "logarithm" in fixed.state_dict()
    with pytest.raises(ValueError, match="temperatures must be positive, got 0"):
        Temperature(0)


@pytest.mark.parametrize(("beyond", "inwards"), [(1e-4, -1.0), (5.0, 1.0)])
def test_a_temperature_beyond_its_bounds_comes_back(beyond, inwards):
    temperature = Temperature(0.07)
    with torch.no_grad():
        temperature.logarithm.fill_(math.log(beyond))
    bound = temperature().item()
    (inwards * temperature()).backward()
    assert temperature.logarithm.grad.item() == pytest.approx(inwards * bound)  # a clamp alone would give 0
    with torch.no_grad():
        temperature.logarithm -= 0.5 * temperature.logarithm.grad.sign()
    assert 0.01 < temperature().item() < 1.0
