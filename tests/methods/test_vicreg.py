"""VICReg as a whole against its equations written out, from the model's own embeddings."""

from __future__ import annotations

import math

import pytest
import torch

from lingula.methods import vicreg
from lingula.methods.vicreg import VICReg

WEIGHTS = {"invariance": 2.0, "variance": 3.0, "covariance": 5.0}


def build(tiny):
    model = tiny.method("vicreg", {"expander": (16, 4)}).double()
    with torch.no_grad():
        model.expander[-1].weight.mul_(3)  # some dimensions above a standard deviation of 1, some below
    model.weights = dict(WEIGHTS)
    return model


def literal_terms(one, other):
    """Eqs. 1-5 on lists, the distance of Eq. 5 as a mean over d."""
    size, dim = len(one), len(one[0])
    terms = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0}
    for a, b in zip(one, other, strict=True):
        terms["invariance"] += sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / dim / size
    for view in (one, other):
        mean = [sum(row[i] for row in view) / size for i in range(dim)]
        for i in range(dim):
            for j in range(dim):
                c = sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in view) / (size - 1)
                if i == j:
                    terms["variance"] += max(0.0, 1.0 - math.sqrt(c + 1e-4)) / dim
                else:
                    terms["covariance"] += c**2 / dim
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
        assert expected[name] > 0
        assert terms[name].item() == pytest.approx(weight * expected[name], rel=1e-9), name


def test_each_view_is_normalised_by_itself(tiny):
    model = build(tiny).train()
    model(tiny.double(tiny.batch((1, 1, 1), views=2)))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}


def test_the_code_halves_what_the_paper_adds(tiny):
    paper, official = (VICReg.recipes[name].stages[0].weights for name in ("paper", "official"))
    assert paper == {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
    assert official == paper | {"variance": 12.5}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_term_without_weight_is_not_computed(tiny, monkeypatch, name):
    model = build(tiny)
    for other in set(WEIGHTS) - {name}:
        monkeypatch.setattr(vicreg, other, None)
    model.weights = dict.fromkeys(WEIGHTS, 0.0) | {name: 1.0}
    assert list(model(tiny.double(tiny.batch((1, 1, 1), views=2)))) == [name]


def test_a_shift_that_no_term_could_see_is_not_learned(tiny):
    assert build(tiny).expander[-1].bias is None
