"""MoCo against its equations written out, over several steps, from the model's own embeddings."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from lingula.keyed import keyed_uniform
from lingula.methods.moco import PAPER, SCRATCH
from lingula.training.optim import learning_rate_at

TINY = {"dim": 5, "queue_size": 7, "shuffle_groups": 2}


def build(tiny, **options):
    return tiny.method("moco", TINY | options).double()


def stand_still(model):
    """Training, but every BatchNorm as it is."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def step(model, batch, learning_rate=0.1):
    model.zero_grad()
    terms = model(batch)
    sum(terms.values()).backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(learning_rate * p.grad)
    model.after_step()
    return terms["contrast"].item()


# Lists of Python floats from here on.


def literal_unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def literal_linear(layer, x):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def literal_term(query, key, queue, tau):
    """Eq. 1, the mean over the batch."""
    total = 0.0
    for q, k in zip(query, key, strict=True):
        own = math.exp(sum(x * y for x, y in zip(q, k, strict=True)) / tau)
        negatives = 0.0
        for u in queue:
            u = literal_unit(u)  # the first ones are so in float32 only
            negatives += math.exp(sum(x * y for x, y in zip(q, u, strict=True)) / tau)
        total += -math.log(own / (own + negatives))
    return total / len(query)


def test_four_steps(tiny):
    """Loss, queue and key encoder: seven places, batches of three, so the queue is written over its end."""
    model = stand_still(build(tiny, momentum=0.9, temperature=0.2))
    model.weights = {"contrast": 3.0}
    queue = model.queue.keys.tolist()  # the oldest first
    thetas = [p.flatten().tolist() for p in (*model.image_encoder.parameters(), *model.projection.parameters())]
    for number in range(4):
        batch = tiny.double(tiny.batch((1, 1, 1), seed=number, views=2))
        with torch.no_grad():
            pooled = model.image_encoder(batch.images[:, 0]).pooled.tolist()
            key_pooled = model.key_encoder.copy(batch.images[:, 1]).pooled.tolist()
        query = [literal_unit(literal_linear(model.projection[0], x)) for x in pooled]
        key = [literal_unit(literal_linear(model.key_projection.copy[0], x)) for x in key_pooled]
        assert step(model, batch) == pytest.approx(3.0 * literal_term(query, key, queue, 0.2), rel=1e-9)

        queue = [*queue, *key][-7:]
        oldest_first = model.queue.keys.roll(-int(model.queue.pointer), 0)
        torch.testing.assert_close(oldest_first, torch.tensor(queue, dtype=torch.float64))

        of_queries = (*model.image_encoder.parameters(), *model.projection.parameters())
        of_keys = (*model.key_encoder.parameters(), *model.key_projection.parameters())
        for i, (q, k) in enumerate(zip(of_queries, of_keys, strict=True)):  # Eq. 2
            thetas[i] = [0.9 * old + (1 - 0.9) * new for old, new in zip(thetas[i], q.flatten().tolist(), strict=True)]
            torch.testing.assert_close(k.flatten(), torch.tensor(thetas[i], dtype=torch.float64))


def test_the_first_view_is_the_query_and_gets_all_the_gradient(tiny):
    model, batch = build(tiny), tiny.double(tiny.batch((1, 1, 1), views=2))
    batch.images.requires_grad_()
    model(batch)["contrast"].backward()
    assert batch.images.grad[:, 0].abs().sum() > 0
    assert batch.images.grad[:, 1].abs().sum() == 0
    assert all(p.grad is None for p in (*model.key_encoder.parameters(), *model.key_projection.parameters()))


def test_keys_are_normalised_in_random_groups(tiny):
    """In training each group by its own statistics, against each group encoded alone; queries all together."""
    model, batch = build(tiny, shuffle_groups=3), tiny.double(tiny.batch((1,) * 7, views=2))
    images = batch.images[:, 1]
    order = sorted(range(7), key=lambda i: keyed_uniform(batch.seed, batch.rows, 1)[i, 0].item())
    expected = [None] * 7
    for group in (order[:3], order[3:5], order[5:]):
        alone = copy.deepcopy(model)
        for film, key in zip(group, alone.key_projection(alone.key_encoder(images[group]).pooled), strict=True):
            expected[film] = key
    together = copy.deepcopy(model)
    whole = together.key_projection(together.key_encoder(images).pooled)
    keys = model.encode_keys(images, batch.rows, batch.seed)
    torch.testing.assert_close(keys, torch.stack(expected))
    assert (keys - whole).abs().max() > 1e-3


def test_groups_change_nothing_in_evaluation_or_where_the_norms_stand_still(tiny):
    batch = tiny.double(tiny.batch((1,) * 6, views=2))
    for prepare in (torch.nn.Module.eval, stand_still):
        terms = [prepare(build(tiny, shuffle_groups=groups))(batch)["contrast"] for groups in (1, 2, 3, 8)]
        for term in terms[1:]:
            torch.testing.assert_close(term, terms[0])


def test_one_group_is_the_whole_batch(tiny):
    batch = tiny.double(tiny.batch((1,) * 4, views=2))
    one, plain = build(tiny, shuffle_groups=1), build(tiny, shuffle_groups=1)
    keys = one.encode_keys(batch.images[:, 1], batch.rows, batch.seed)
    assert torch.equal(keys, plain.key_projection(plain.key_encoder(batch.images[:, 1]).pooled))


def test_evaluation_leaves_queue_and_key_encoder_alone(tiny):
    model, batch = build(tiny), tiny.double(tiny.batch((1, 1, 1), views=2))
    step(model, batch)
    with torch.no_grad():
        model.projection[0].weight.add_(1)  # something that could be followed
    before = copy.deepcopy(model.state_dict())
    model.eval()(batch)
    model.after_step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_term_without_weight_is_not_computed(tiny, monkeypatch):
    model = build(tiny)
    monkeypatch.setattr(model, "encode_keys", None)
    for weights in ({}, {"contrast": 0.0}):
        model.weights = weights
        assert model(tiny.double(tiny.batch((1, 1), views=2))) == {}


def test_finite_in_bfloat16_autocast(tiny):
    model = tiny.method("moco", TINY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = model(tiny.batch((1, 1, 1), views=2))["contrast"]
    assert term.isfinite()
    assert term.dtype == torch.float32
    term.backward()
    model.after_step()
    assert model.queue.keys.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"temperature": 0.0}, "temperature > 0 and shuffle_groups >= 1, got 0.0 and 2"),
        ({"shuffle_groups": 0}, "temperature > 0 and shuffle_groups >= 1, got 0.07 and 0"),
        ({"queue_size": 0}, "a queue holds one key or more, got 0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
    ],
)
def test_errors(tiny, option, words):
    with pytest.raises(ValueError, match=words):
        build(tiny, **option)


def test_the_recipe_is_the_papers(tiny):
    model = tiny.method("moco", {})
    assert (model.queue.keys.shape, model.temperature, model.shuffle_groups) == ((65536, 128), 0.07, 8)
    assert model.key_encoder.momentum == model.key_projection.momentum == 0.999
    assert isinstance(model.projection[0], torch.nn.Linear)
    assert len(model.projection) == 1
    assert (PAPER.optimizer, PAPER.learning_rate, PAPER.momentum, PAPER.weight_decay) == ("sgd", 0.03, 0.9, 1e-4)
    assert (PAPER.batch_size, PAPER.options) == (256, {})
    rates = {
        epoch: learning_rate_at(epoch, 200, 0, PAPER.learning_rate, schedule=PAPER.schedule)
        for epoch in (0, 119, 120, 159, 160, 199)
    }
    assert PAPER.stages[0].epochs == 200
    assert PAPER.warmup_epochs == 0
    assert rates == pytest.approx({0: 0.03, 119: 0.03, 120: 0.003, 159: 0.003, 160: 0.0003, 199: 0.0003})
    assert PAPER.augmentation.blur is None
    assert PAPER.augmentation.crop_scale[0] >= 0.6
    assert SCRATCH.options["queue_size"] <= 4096
