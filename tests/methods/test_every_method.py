"""What must hold of every method and every recipe of it, on a synthetic batch. A new method brings these."""

from __future__ import annotations

import copy
import dataclasses
import io

import pytest
import torch

from lingula.commands.pretrain import pretrain
from lingula.data.collate import SENTENCES
from lingula.methods import METHODS
from lingula.nn.method import check_method
from lingula.registry import UserError, check_options
from lingula.training.recipe import OPTIMIZERS, SCHEDULES, Stage, from_scratch

RECIPES = [(name, recipe) for name in METHODS for recipe in METHODS[name].recipes]
READERS = [(name, recipe) for name, recipe in RECIPES if METHODS[name].uses_text]
ONE_SENTENCE = [  # of small batches: sentences of each report
    (recipe, counts)
    for recipe in RECIPES
    for counts in ((1,), (3,), (1, 1), (1, 1, 1))
    if len(counts) >= METHODS[recipe[0]].smallest_batch
]
BACKBONES = ("resnet18", "small_vit", "vit_tiny_patch16_224")


@pytest.fixture(params=RECIPES, ids=lambda pair: "-".join(pair))
def build(request, tiny):
    """A function from a seed to the method, on tiny encoders, with all terms of its last stage."""
    name, recipe_name = request.param
    recipe = METHODS[name].recipes[recipe_name]

    def make(seed=0):
        model = tiny.method(name, recipe.options | tiny.smaller.get(name, {}), seed)
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


def test_weights_are_factors(build, batch):
    """Twice the weight is twice the term; a term of weight 0 is left out; the other terms stay as they are."""
    plain = build()(batch())
    for name in plain:
        model = build()
        weights = model.weights
        model.weights = weights | {name: 2 * weights[name]}
        doubled = model(batch())
        assert doubled[name].item() == 2 * plain[name].item(), name
        if len(plain) == 1:
            continue
        model = build()
        model.weights = weights | {name: 0.0}
        assert set(model(batch())) == set(plain) - {name}


def test_a_weight_of_a_term_that_is_not_computed_is_refused_by_name(build, batch):
    model = build()
    known = next(name for name, weight in model.weights.items() if weight)
    model.weights = {known: 1.0, "no_such_term": 1.0}
    with pytest.raises(UserError, match="no loss term 'no_such_term'"):
        model(batch())


@pytest.mark.parametrize("name", METHODS)
def test_it_is_a_method(name, tiny):
    check_method(METHODS[name])
    check_method(tiny.method(name, METHODS[name].recipes["scratch"].options | tiny.smaller.get(name, {})))


def test_gradient_reaches_every_parameter(build, batch):
    model = build()
    total(model(batch())).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    for tower in [model.image_encoder, *([model.text_encoder] if model.uses_text else [])]:
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


@pytest.mark.parametrize(("build", "counts"), ONE_SENTENCE, indirect=["build"], ids=str)
def test_one_pair_and_reports_of_one_sentence(build, batch, counts):
    """Smaller batches than these: test_a_batch_that_is_too_small_is_refused_in_words."""
    model = build()
    terms = model(batch(counts))
    total(terms).backward()
    model.after_step()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].smallest_batch > 1])
def test_a_batch_that_is_too_small_is_refused_in_words(name, tiny_corpus, tmp_path):
    assert METHODS[name].smallest_batch == 2  # what BatchNorm needs; nobody should ask for more
    with pytest.raises(UserError, match="needs a batch_size of 2 or more, got 1"):
        pretrain(tiny_corpus, tmp_path / "run", method=name, recipe="scratch", batch_size=1)


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
    recipe = METHODS[name].recipes[recipe_name]
    check_options(name, METHODS[name], recipe.options)
    tiny.method(name, recipe.options)
    assert all(stage.epochs > 0 and any(stage.weights.values()) for stage in recipe.stages)
    assert recipe.optimizer in OPTIMIZERS
    assert recipe.schedule in SCHEDULES
    assert recipe.sentences in SENTENCES


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_papers_recipe_and_one_from_scratch(name, tiny):
    """And all from scratch are alike but for their options, so that they can be compared."""
    recipes = METHODS[name].recipes
    assert {"paper", "scratch"} <= set(recipes)
    scratch, common = recipes["scratch"], from_scratch(Stage(10, {}))
    assert sum(stage.epochs for stage in scratch.stages) == 10
    free = ("stages", "options", "sentences", "augmentation", *(["image_encoder"] if name in tiny.only_on else []))
    for field in dataclasses.fields(scratch):
        if field.name not in free:
            assert getattr(scratch, field.name) == getattr(common, field.name), field.name


@pytest.mark.parametrize("encoder", BACKBONES)
@pytest.mark.parametrize("name", METHODS)
def test_residual_networks_and_vision_transformers(name, encoder, tiny, batch):
    """Any timm model that gives maps or tokens, or a refusal that says which it takes."""
    options = METHODS[name].recipes["scratch"].options | tiny.smaller.get(name, {})
    if name in tiny.only_on and "vit" not in encoder:
        with pytest.raises(ValueError, match="vision transformer"):
            tiny.method(name, options, image_encoder=encoder)
        return
    model = tiny.method(name, options, image_encoder=encoder)
    model.weights = dict(METHODS[name].recipes["scratch"].stages[-1].weights)
    loss = total(model(batch()))
    loss.backward()
    assert loss.isfinite()
    assert model.image_encoder.name == encoder
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.image_encoder.parameters())


# What the tasks ask of a method.


def test_films_can_be_encoded_alone(build, batch):
    model = build().eval()
    images = batch().image
    seen = model.encode_image(images)
    features, embedding, patches = seen.features, seen.embedding, seen.patches
    count = len(images)
    assert features.pooled.shape == (count, model.image_encoder.width)
    assert embedding.shape[0] == count
    assert embedding.ndim == 2
    assert patches.shape[0] == count
    one = model.encode_image(images[:1]).embedding
    torch.testing.assert_close(one, embedding[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].uses_text])
def test_a_method_of_films_alone_has_no_way_in_for_reports(name, tiny):
    model = tiny.method(name, METHODS[name].recipes["scratch"].options | tiny.smaller.get(name, {}))
    assert not any(hasattr(model, part) for part in ("text_encoder", "encode_text", "attention_maps"))


@pytest.mark.parametrize("build", READERS, indirect=True, ids="-".join)
def test_reports_can_be_encoded_alone_and_looked_for_on_their_films(build, batch):
    model = build().eval()
    data = batch()
    told = model.encode_text(data.reports)
    features, embedding, sentences = told.features, told.embedding, told.sentences
    assert embedding.shape == (len(data), model.encode_image(data.image).embedding.shape[1])
    assert len(sentences) == len(features.sentences) == data.reports.sentence_count
    maps = model.attention_maps(data.image, data.reports)
    assert maps.shape[0] == data.reports.sentence_count
    assert maps[0].numel() == model.encode_image(data.image).patches.shape[1]
    assert maps.isfinite().all()
    assert maps.std() > 0


@pytest.mark.parametrize("build", READERS, indirect=True, ids="-".join)
def test_attention_maps_follow_film_and_report(build, batch, tiny):
    """Another order of the pairs gives the same maps in that order; each sentence's map is of its own film."""
    model = in_double(build())
    data = tiny.double(batch())
    maps = model.attention_maps(data.image, data.reports)
    order = [2, 0, 3, 1]
    taken = tiny.take(data, order)
    places = [n for r in order for n in (data.reports.report_of_sentence == r).nonzero()[:, 0].tolist()]
    torch.testing.assert_close(model.attention_maps(taken.image, taken.reports), maps[places], rtol=1e-6, atol=1e-8)
    other = data.images.clone()
    other[0] = -other[0]
    changed = (model.attention_maps(other[:, 0], data.reports) - maps).abs().amax((1, 2)) > 1e-9
    assert changed.tolist() == (data.reports.report_of_sentence == 0).tolist()
