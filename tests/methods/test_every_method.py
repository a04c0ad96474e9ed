"""What must hold of every method and every recipe of it, on a synthetic batch. A new method brings these."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from lingula.methods import METHODS
from lingula.registry import check_options

# Sizes that make a method small enough to test. A method without a line here is tested as its recipes have it.
SMALLER = {"cm-cgns": {"dim": 32, "clusters": 4, "decoder_widths": (8, 8, 4, 4, 4)}}
RECIPES = [(name, recipe) for name in METHODS for recipe in METHODS[name].recipes]


@pytest.fixture(params=RECIPES, ids=lambda pair: "-".join(pair))
def build(request, tiny):
    """A function from a seed to the method, on tiny encoders, with all terms of its last stage."""
    name, recipe_name = request.param
    method = METHODS[name]
    recipe = method.recipes[recipe_name]

    def make(seed=0):
        image_encoder, text_encoder = tiny.encoders(seed)
        options = recipe.options | SMALLER.get(name, {})
        model = method(image_encoder, text_encoder, image_size=tiny.image_size, **options)
        model.weights = dict(recipe.stages[-1].weights)
        return model

    return make


@pytest.fixture
def batch(tiny):
    def make(counts=(2, 1, 3, 2), seed=0):
        method_views = max(METHODS[name].views for name in METHODS)
        return tiny.batch(counts, seed, views=method_views)

    return make


def total(terms):
    return sum(terms.values())


def train(model, data, steps, learning_rate=1e-3):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], learning_rate)
    sums = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = total(model(data))
        loss.backward()
        optimizer.step()
        model.after_step()
        sums.append(loss.item())
    return sums


def in_double(model):
    """Rounding out of the way; statistics of the batch too, which are another matter."""
    return model.double().eval()


def test_every_term_is_a_finite_scalar(build, batch):
    model = build()
    terms = model(batch())
    assert set(terms) == {name for name, weight in model.weights.items() if weight}
    for name, term in terms.items():
        assert term.shape == (), name
        assert term.isfinite(), name
        assert term.requires_grad, name


def test_gradient_reaches_every_parameter(build, batch):
    model = build()
    total(model(batch())).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    for tower in (model.image_encoder, model.text_encoder):
        norms = [p.grad.abs().max().item() for p in tower.parameters() if p.requires_grad]
        # Exceptions have their reasons: softmax cannot see a key's bias, and the words that did not occur.
        assert sum(norm > 0 for norm in norms) >= 0.9 * len(norms)


def test_twenty_steps_lower_the_sum(build, batch):
    sums = train(build(), batch(), 20)
    assert sums[-1] < sums[0]
    assert min(sums[10:]) < min(sums[:5])


def test_the_same_seed_gives_the_same_bits(build, batch):
    models = [build(), build()]
    assert train(models[0], batch(), 3) == train(models[1], batch(), 3)
    for (name, one), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_the_order_of_the_batch_does_not_matter(build, batch, tiny):
    model = in_double(build())
    data = tiny.double(batch())
    one, other = model(data), model(tiny.take(data, [2, 0, 3, 1]))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-8, msg=name)


def test_more_padding_changes_nothing(build, batch, tiny):
    model = in_double(build())
    data = tiny.double(batch())
    one, other = model(data), model(tiny.pad(data))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-8, msg=name)


def test_save_and_load_give_equal_outputs(build, batch):
    model = build()
    train(model, batch(), 3)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(seed=1)
    other.load_state_dict(torch.load(file))
    for mode in (False, True):
        one, again = copy.deepcopy(model).train(mode)(batch(seed=1)), copy.deepcopy(other).train(mode)(batch(seed=1))
        assert {k: v.item() for k, v in one.items()} == {k: v.item() for k, v in again.items()}


@pytest.mark.parametrize("counts", [(1,), (3,), (1, 1), (1, 1, 1)], ids=str)
def test_one_pair_and_reports_of_one_sentence(build, batch, counts):
    model = build()
    terms = model(batch(counts))
    total(terms).backward()
    model.after_step()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_evaluation_changes_no_state(build, batch):
    model = build()
    train(model, batch(), 1)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        first = model(batch())
        second = model(batch())
    model.after_step()
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("name", "recipe_name"), RECIPES)
def test_a_recipe_builds_as_it_stands(name, recipe_name, tiny):
    method = METHODS[name]
    recipe = method.recipes[recipe_name]
    check_options(name, method, recipe.options)
    method(*tiny.encoders(), image_size=tiny.image_size, **recipe.options)
    assert all(stage.epochs > 0 and any(stage.weights.values()) for stage in recipe.stages)
