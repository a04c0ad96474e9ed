"""Prototypes: cosines, unit length, and steps in which they stand still."""

import math

import pytest
import torch

from lingula.nn.prototypes import Prototypes


def test_scores_are_cosines():
    prototypes = Prototypes(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = [
        [
            sum(a * b for a, b in zip(row, p, strict=True))
            / math.sqrt(sum(a * a for a in row))
            / math.sqrt(sum(b * b for b in p))
            for p in prototypes.weight.tolist()
        ]
        for row in x.tolist()
    ]
    torch.testing.assert_close(prototypes(x), torch.tensor(expected, dtype=torch.float64))


def test_unit_length_after_every_step_of_training():
    prototypes = Prototypes(6, 4)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(4))
    direction = prototypes.weight.detach().clone()
    with torch.no_grad():
        prototypes.weight.mul_(3)
    prototypes.eval().after_step()
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.full((4,), 3.0))
    assert prototypes.steps.item() == 0
    prototypes.train().after_step()
    torch.testing.assert_close(prototypes.weight, direction)
    assert prototypes.steps.item() == 1


def test_they_stand_still_for_so_many_steps_and_others_learn_through_them():
    prototypes = Prototypes(4, 3, frozen_steps=2)
    x = torch.randn(5, 4, requires_grad=True)
    learned = []
    for _ in range(4):
        prototypes.zero_grad()
        prototypes(x)[:, 0].sum().backward()
        learned.append(prototypes.weight.grad.abs().max().item() > 0)  # a gradient there always is: DDP waits for it
        prototypes.after_step()
    assert learned == [False, False, True, True]
    assert x.grad.abs().max() > 0


def test_the_count_of_steps_is_saved():
    one, other = Prototypes(4, 3, frozen_steps=1), Prototypes(4, 3, frozen_steps=1)
    one.after_step()
    other.load_state_dict(one.state_dict())
    assert other.steps.item() == 1


def test_full_precision_under_autocast():
    prototypes, x = Prototypes(32, 4), torch.randn(3, 32)
    expected = prototypes(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(prototypes(x), expected)
        assert prototypes(x.bfloat16()).dtype == torch.float32


def test_errors():
    with pytest.raises(ValueError, match="at least 1 prototype and 0 frozen steps, got 0 and 0"):
        Prototypes(4, 0)
