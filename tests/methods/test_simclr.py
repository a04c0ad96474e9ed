"""SimCLR against its equation written out, from the model's own embeddings."""

from __future__ import annotations

import math

import pytest
import torch

import lingula.methods.simclr
from lingula.methods.simclr import ORIGINAL, PAPER, SCRATCH
from lingula.training.optim import build_optimizer

TINY = {"dim": 5, "hidden": 6}


def build(tiny, **options):
    return tiny.method("simclr", TINY | options).double()


# Lists of Python floats from here on.


def cos(a, b):
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))


def literal_linear(layer, x):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def literal_head(head, x):
    """Linear, ReLU, Linear."""
    hidden = [max(0.0, h) for h in literal_linear(head[0], x)]
    return literal_linear(head[2], hidden)


def literal_term(films, tau):
    """Eq. 1, the mean over all views; ``films`` holds the two embeddings of each."""
    views = [(number, view, z) for number, pair in enumerate(films) for view, z in enumerate(pair)]
    total = 0.0
    for number, view, z in views:
        denominator = 0.0
        for other_number, other_view, other in views:
            if (other_number, other_view) != (number, view):
                denominator += math.exp(cos(z, other) / tau)
        total += -math.log(math.exp(cos(z, films[number][1 - view]) / tau) / denominator)
    return total / len(views)


@pytest.mark.parametrize("films", [1, 2, 5])
def test_the_term(tiny, films):
    model = build(tiny, temperature=0.2).eval()
    model.weights = {"contrast": 3.0}
    batch = tiny.double(tiny.batch((1,) * films, views=2))
    pooled = [model.image_encoder(batch.images[:, view]).pooled.tolist() for view in range(2)]
    embeddings = [
        (literal_head(model.projection, one), literal_head(model.projection, other))
        for one, other in zip(*pooled, strict=True)
    ]
    expected = 3.0 * literal_term(embeddings, 0.2)
    assert model(batch)["contrast"].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_view_is_an_anchor_and_gets_gradient(tiny):
    model, batch = build(tiny), tiny.double(tiny.batch((1, 1, 1), views=2))
    batch.images.requires_grad_()
    model(batch)["contrast"].backward()
    assert (batch.images.grad.abs().sum((2, 3, 4)) > 0).all()


def test_both_views_are_normalised_together(tiny):
    model = build(tiny).train()
    model(tiny.double(tiny.batch((1, 1, 1), views=2)))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}


def test_the_views_may_be_exchanged(tiny):
    model, batch = build(tiny), tiny.double(tiny.batch((1, 1, 1), views=2))
    first = model(batch)["contrast"]
    batch.images = batch.images.flip(1)
    torch.testing.assert_close(model(batch)["contrast"], first)


def test_the_films_of_all_processes_are_negatives(tiny, monkeypatch):
    """As each of two processes sees it; tests/methods/test_two_processes.py has two real ones."""
    model = build(tiny).eval()
    whole = tiny.double(tiny.batch((1,) * 5, views=2))
    whole = tiny.take(whole, [0, 1, 2, 3])
    embeddings = [model.encode_image(whole.images[:, view]).embedding for view in range(2)]
    terms = []
    for rank, rows in enumerate(([0, 1], [2, 3])):
        gathered = iter(embeddings)
        monkeypatch.setattr(lingula.methods.simclr, "gather", lambda x, sizes, gathered=gathered: next(gathered))
        monkeypatch.setattr(
            lingula.methods.simclr, "own_columns", lambda count, device, rank=rank: 2 * rank + torch.arange(count)
        )
        terms.append(model(tiny.take(whole, rows))["contrast"])
    monkeypatch.undo()
    torch.testing.assert_close((terms[0] + terms[1]) / 2, model(whole)["contrast"])


def test_a_term_without_weight_is_not_computed(tiny, monkeypatch):
    model = build(tiny)
    monkeypatch.setattr(model, "image_encoder", None)
    for weights in ({}, {"contrast": 0.0}):
        model.weights = weights
        assert model(tiny.double(tiny.batch((1, 1), views=2))) == {}


def test_finite_in_bfloat16_autocast(tiny):
    model = tiny.method("simclr", TINY | {"temperature": 0.01})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = model(tiny.batch((1, 1, 1), views=2))["contrast"]
    assert term.isfinite()
    assert term.dtype == torch.float32
    term.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_error(tiny):
    with pytest.raises(ValueError, match=r"temperatures must be positive, got 0.0"):
        build(tiny, temperature=0.0)


def test_the_recipes_are_lovts_and_the_papers(tiny):
    model = tiny.method("simclr", {})
    assert [type(layer).__name__ for layer in model.projection] == ["Linear", "ReLU", "Linear"]
    assert (model.projection[0].out_features, model.projection[2].out_features) == (2048, 128)
    assert model.temperature == 0.1
    assert PAPER.options == ORIGINAL.options == {}
    assert PAPER.stages[0].epochs == ORIGINAL.stages[0].epochs == 100
    assert (PAPER.optimizer, PAPER.learning_rate, PAPER.weight_decay) == ("adam", 3e-4, 1e-4)
    assert (PAPER.batch_size, PAPER.warmup_epochs, PAPER.schedule) == (128, 1, "cosine")
    assert (ORIGINAL.optimizer, ORIGINAL.weight_decay, ORIGINAL.warmup_epochs) == ("lars", 1e-6, 10)
    assert ORIGINAL.learning_rate == 0.3 * ORIGINAL.batch_size / 256
    assert (PAPER.pretrained, ORIGINAL.pretrained) == (True, False)
    assert PAPER.augmentation.crop_scale[0] >= 0.6
    assert SCRATCH.augmentation.crop_scale[0] >= 0.6
    assert type(build_optimizer(model, ORIGINAL)).__name__ == "Lars"
