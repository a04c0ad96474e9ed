"""Barlow Twins as a whole against its equations written out, from the model's own embeddings."""

from __future__ import annotations

import math

import pytest
import torch

from lingula.methods.barlow_twins import PAPER
from lingula.training.optim import build_optimizer

WEIGHTS = {"invariance": 2.0, "redundancy": 3.0}


def build(tiny):
    model = tiny.method("barlow-twins", {"projector": (16, 4)}).double()
    model.weights = dict(WEIGHTS)
    return model


def literal_terms(one, other):
    """Eqs. 1-2 on lists: each sum over i, over i and j, and over b is one."""
    size, dim = len(one), len(one[0])

    def centred(view, i):
        mean = sum(row[i] for row in view) / size
        return [row[i] - mean for row in view]

    terms = {"invariance": 0.0, "redundancy": 0.0}
    for i in range(dim):
        for j in range(dim):
            a, b = centred(one, i), centred(other, j)
            lengths = [math.sqrt(sum(x * x for x in z) + size * 1e-5) for z in (a, b)]
            c = sum(x * y for x, y in zip(a, b, strict=True)) / lengths[0] / lengths[1]
            if i == j:
                terms["invariance"] += (1 - c) ** 2
            else:
                terms["redundancy"] += c**2
    return terms


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_equations(tiny, size):
    model = build(tiny).eval()
    batch = tiny.double(tiny.batch((1,) * size, views=2))
    one, other = (model.encode_image(batch.images[:, view]).embedding.tolist() for view in range(2))
    expected = literal_terms(one, other)
    terms = model(batch)
    assert list(terms) == list(WEIGHTS)
    for name, weight in WEIGHTS.items():
        assert terms[name].item() == pytest.approx(weight * expected[name], rel=1e-9), name


def test_each_view_has_statistics_of_its_own(tiny):
    """In training, a brighter second view is the same to BatchNorm as a second view that is not."""
    model = tiny.method("barlow-twins", {"projector": (16, 4)}).train()
    batch = tiny.batch((1,) * 6, views=2)
    expected = model(batch)["invariance"]
    batch.images[:, 1] = 2 * batch.images[:, 1]
    torch.testing.assert_close(model(batch)["invariance"], expected, rtol=1e-3, atol=1e-4)


def test_a_shift_that_no_term_could_see_is_not_learned(tiny):
    model = build(tiny)
    assert model.projector[-1].bias is None


def test_a_term_without_weight_is_left_out(tiny):
    model = build(tiny)
    model.weights = {"invariance": 0.0, "redundancy": 1.0}
    assert list(model(tiny.double(tiny.batch((1, 1, 1), views=2)))) == ["redundancy"]


def test_the_papers_two_rates():
    """0.2 for matrices and 0.0048 for biases, times films / 256; only matrices decay."""
    network = torch.nn.Linear(5, 4)
    groups = build_optimizer(network, PAPER).param_groups
    rates = {group["params"][0].ndim: (PAPER.learning_rate * group["scale"], group["weight_decay"]) for group in groups}
    assert rates == {2: (pytest.approx(1.6), 1.5e-6), 1: (pytest.approx(0.0384), 0.0)}
