"""SimSiam against its equation written out, from the model's own embeddings."""

from __future__ import annotations

import math

import pytest
import torch

from lingula.methods.simsiam import PAPER, SCRATCH

TINY = {"dim": 8, "hidden": 6, "bottleneck": 3}


def build(tiny, **options):
    return tiny.method("simsiam", TINY | options).double()


# Lists of Python floats from here on.


def literal_linear(layer, x):
    bias = layer.bias.tolist() if layer.bias is not None else [0.0] * layer.out_features
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(layer.weight.tolist(), bias, strict=True)
    ]


def literal_norm(norm, rows):
    """BatchNorm in training: each column by its own mean and variance."""
    columns = []
    for d, column in enumerate(zip(*rows, strict=True)):
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / len(column)
        scale, shift = (norm.weight[d].item(), norm.bias[d].item()) if norm.affine else (1.0, 0.0)
        columns.append([scale * (x - mean) / math.sqrt(variance + norm.eps) + shift for x in column])
    return [list(row) for row in zip(*columns, strict=True)]


def relu(rows):
    return [[max(0.0, x) for x in row] for row in rows]


def literal_projector(head, rows):
    """Three layers, a BatchNorm after each, a ReLU after each but the last."""
    for number, (linear, norm) in enumerate(((head[0], head[1]), (head[3], head[4]), (head[6], head[7]))):
        rows = literal_norm(norm, [literal_linear(linear, row) for row in rows])
        rows = relu(rows) if number < 2 else rows
    return rows


def literal_predictor(head, rows):
    """Two layers, BatchNorm and ReLU between them."""
    hidden = relu(literal_norm(head[1], [literal_linear(head[0], row) for row in rows]))
    return [literal_linear(head[3], row) for row in hidden]


def distance(p, z):
    """Eq. 1."""
    product = sum(x * y for x, y in zip(p, z, strict=True))
    return -product / math.sqrt(sum(x * x for x in p)) / math.sqrt(sum(x * x for x in z))


@pytest.mark.parametrize("films", [3, 5])
def test_the_term_in_training(tiny, films):
    """Eq. 4, each view by its own statistics."""
    model = build(tiny)
    model.weights = {"similarity": 3.0}
    with torch.no_grad():
        for p in (*model.projection.parameters(), *model.predictor.parameters()):
            if p.ndim == 1:
                p.add_(0.3 * torch.arange(len(p)))  # scales and shifts that can be seen
    batch = tiny.double(tiny.batch((1,) * films, views=2))
    pooled = [model.image_encoder(batch.images[:, view]).pooled.tolist() for view in range(2)]
    one, other = (literal_projector(model.projection, rows) for rows in pooled)
    to_other, to_one = literal_predictor(model.predictor, one), literal_predictor(model.predictor, other)
    total = 0.0
    for i in range(films):
        total += 0.5 * distance(to_other[i], other[i]) + 0.5 * distance(to_one[i], one[i])
    assert model(batch)["similarity"].item() == pytest.approx(3.0 * total / films, rel=1e-9)


def test_the_gradient_stops_at_the_target(tiny):
    """With the identity for a predictor each half is the same function, and sends its gradient to its own side only:
    half of what both sides would get without the stops."""
    model, batch = build(tiny), tiny.double(tiny.batch((1, 1, 1), views=2))
    model.predictor = torch.nn.Identity()
    model(batch)["similarity"].backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    one, other = (model.projection(model.image_encoder(batch.images[:, view]).pooled) for view in range(2))
    (-torch.nn.functional.cosine_similarity(one, other, dim=-1)).mean().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad / 2, msg=name)


def test_the_views_may_be_exchanged(tiny):
    model, batch = build(tiny), tiny.double(tiny.batch((1, 1, 1), views=2))
    first = model(batch)["similarity"]
    batch.images = batch.images.flip(1)
    torch.testing.assert_close(model(batch)["similarity"], first)


def test_what_retrieval_compares_is_the_projectors_not_the_predictors(tiny):
    model, batch = build(tiny).eval(), tiny.double(tiny.batch((1, 1), views=2))
    seen = model.encode_image(batch.image)
    features, embedding, patches = seen.features, seen.embedding, seen.patches
    torch.testing.assert_close(embedding, model.projection(features.pooled))
    torch.testing.assert_close(patches[1, 2], model.projection(features.patches[1, 2:3])[0])


def test_a_term_without_weight_is_not_computed(tiny, monkeypatch):
    model = build(tiny)
    monkeypatch.setattr(model, "image_encoder", None)
    for weights in ({}, {"similarity": 0.0}):
        model.weights = weights
        assert model(tiny.double(tiny.batch((1, 1), views=2))) == {}


def test_finite_in_bfloat16_autocast(tiny):
    model = tiny.method("simsiam", TINY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = model(tiny.batch((1, 1, 1), views=2))["similarity"]
    assert term.isfinite()
    assert term.dtype == torch.float32
    term.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_recipe_is_the_papers(tiny):
    model = tiny.method("simsiam", {})
    layers = ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [type(layer).__name__ for layer in model.projection] == layers
    assert [layer.out_features for layer in model.projection if hasattr(layer, "out_features")] == [2048] * 3
    assert [layer.affine for layer in model.projection if hasattr(layer, "affine")] == [True, True, False]
    assert [type(layer).__name__ for layer in model.predictor] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert (model.predictor[0].out_features, model.predictor[3].out_features) == (512, 2048)
    assert model.predictor[3].bias is not None
    assert (PAPER.optimizer, PAPER.momentum, PAPER.weight_decay, PAPER.schedule) == ("sgd", 0.9, 1e-4, "cosine")
    assert PAPER.learning_rate == 0.05 * PAPER.batch_size / 256
    assert (PAPER.batch_size, PAPER.stages[0].epochs, PAPER.warmup_epochs, PAPER.options) == (512, 100, 0, {})
    assert PAPER.augmentation.crop_scale[0] >= 0.6
    assert SCRATCH.options["dim"] == 4 * SCRATCH.options["bottleneck"]
