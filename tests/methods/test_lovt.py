"""LoVT as a whole against its loss written out, from the model's own embeddings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lingula.methods.lovt import WEIGHTS, LoVT

TINY = {"dim": 8, "hidden": 16}
SPREAD = dict(zip(WEIGHTS, (2.0, 3.0, 5.0, 7.0, 11.0, 13.0), strict=True))


def build(tiny, **options):
    model = tiny.method("lovt", TINY | options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every sentence
    model.weights = dict(SPREAD)
    return model


# Lists of Python floats from here on.


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def literal_infonce(query, key, tau):
    total = 0.0
    for i in range(len(query)):
        denominator = sum(math.exp(cos(query[i], key[j]) / tau) for j in range(len(key)))
        total += -math.log(math.exp(cos(query[i], key[i]) / tau) / denominator)
    return total / len(query)


def literal_local(queries, keys, weights, positives, tau):
    """The mean over pairs of the weighted sum over places; of lists of lists, one a pair, each as long as it is."""
    total = 0.0
    for query, key, weight in zip(queries, keys, weights, strict=True):
        for i in range(len(query)):
            denominator = sum(math.exp(cos(query[i], key[j]) / tau) for j in range(len(key)))
            positive = sum(positives(i, j) * cos(query[i], key[j]) / tau for j in range(len(key)))
            total += weight[i] * (math.log(denominator) - positive)
    return total / len(queries)


def literal_terms(model, batch, tau, tau_local, reach, decay):
    reports = batch.reports
    seen = model.encode_image(batch.image)
    features, image, patches = seen.features, seen.embedding, seen.patches
    told = model.encode_text(reports)
    text, report, sentences = told.features, told.embedding, told.sentences
    cross = model.cross_attention(patches, sentences, reports)
    image, patches, report, drawn_patches = (x.tolist() for x in (image, patches, report, cross.report_to_image))
    owner, everyone = reports.report_of_sentence.tolist(), range(len(batch))
    own = [[s for s, o in zip(sentences.tolist(), owner, strict=True) if o == b] for b in everyone]
    drawn = [[s for s, o in zip(cross.image_to_report.tolist(), owner, strict=True) if o == b] for b in everyone]

    # The weights of the pooling, from torch's own attention over each set alone.
    patch_weights = [of_the_pool(model.image_pool, features.patches[b]) for b in everyone]
    maxima = []
    for n in range(reports.sentence_count):
        states = text.tokens[reports.sentence_of_token == n].tolist()
        maxima.append([max(state[d] for state in states) for d in range(len(states[0]))])
    pooled_from = [[m for m, o in zip(maxima, owner, strict=True) if o == b] for b in everyone]
    sentence_weights = [of_the_pool(model.report_pool, torch.tensor(own, dtype=torch.float64)) for own in pooled_from]

    h, w = features.grid
    cells = [(y, x) for y in range(h) for x in range(w)]

    def near(i, j):
        def weight(k):
            distance = math.dist(cells[i], cells[k]) / math.sqrt(h**2 + w**2)
            return math.exp(-decay * distance) if distance <= reach + 1e-12 else 0.0

        return weight(j) / sum(weight(k) for k in range(len(cells)))

    def same(i, j):
        return float(i == j)

    return {
        "image_to_text": literal_infonce(image, report, tau),
        "text_to_image": literal_infonce(report, image, tau),
        "patch_to_drawn": literal_local(patches, drawn_patches, patch_weights, near, tau_local),
        "drawn_to_patch": literal_local(drawn_patches, patches, patch_weights, near, tau_local),
        "sentence_to_drawn": literal_local(own, drawn, sentence_weights, same, tau_local),
        "drawn_to_sentence": literal_local(drawn, own, sentence_weights, same, tau_local),
    }


def of_the_pool(pool, elements):
    """Weights, mean over the heads, of the elements when their mean asks: torch's attention, one set at a time."""
    mean = torch.stack([sum(element) / len(elements) for element in elements.T])
    return pool.attention(mean[None], elements, elements)[1][0].tolist()


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5, "temperature_local": 0.05}, {"reach": 0.0}, {"reach": 1.0, "decay": 5.0}],
    ids=str,
)
@pytest.mark.parametrize("sentence_counts", [(2, 4), (3, 1, 2, 4, 2)], ids=str)
def test_the_loss(tiny, sentence_counts, options):
    model = build(tiny, **options).eval()
    batch = tiny.double(tiny.batch(sentence_counts))
    settings = {"temperature": 0.1, "temperature_local": 0.3, "reach": 0.5, "decay": 1.0} | options
    expected = literal_terms(model, batch, *settings.values())
    terms = model(batch)
    assert list(terms) == list(WEIGHTS)
    for name, weight in SPREAD.items():
        assert terms[name].item() == pytest.approx(weight * expected[name], rel=1e-9), name


def test_the_weights_of_places_and_sentences_carry_no_gradient(tiny):
    """Patches count more or less, but the pooling does not learn to look where the loss is small."""
    model, batch = build(tiny), tiny.double(tiny.batch((2, 1, 3)))
    model.weights = {name: 1.0 for name in WEIGHTS if "drawn" in name}
    terms = model(batch)
    assert set(terms) == set(model.weights)
    sum(terms.values()).backward()
    pools = [*model.image_pool.parameters(), *model.report_pool.parameters()]
    assert all(p.grad is None for p in pools)
    weights = [model.look(batch.image)[1], model.read(batch.reports)[1]]
    assert not any(w.requires_grad for w in weights)
    for w in weights:
        torch.testing.assert_close(w.sum(1), torch.ones(3, dtype=torch.float64))
    assert (weights[1] > 0).sum(1).tolist() == [2, 1, 3]


def test_a_term_without_weight_is_not_computed(tiny, monkeypatch):
    model, batch = build(tiny), tiny.double(tiny.batch((2, 3)))
    monkeypatch.setattr(model, "cross_attention", None)
    model.weights = {"image_to_text": 1.0, "patch_to_drawn": 0.0}
    assert list(model(batch)) == ["image_to_text"]


def test_reports_of_one_sentence_have_nothing_to_contrast(tiny):
    model = build(tiny).eval()
    terms = model(tiny.double(tiny.batch((1, 1, 1))))
    assert terms["sentence_to_drawn"].item() == pytest.approx(0, abs=1e-12)
    assert terms["drawn_to_sentence"].item() == pytest.approx(0, abs=1e-12)
    assert terms["patch_to_drawn"] != 0


def test_a_report_without_sentences_does_no_harm(tiny):
    model = build(tiny)
    terms = model(tiny.double(tiny.batch((2, 0, 3))))
    assert all(term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(b.isfinite().all() for b in model.buffers())  # the BatchNorms' statistics outlive the step


def test_batch_norm_sees_no_padding(tiny):
    """In training too, more padding changes nothing."""
    model, batch = build(tiny).train(), tiny.double(tiny.batch((2, 1, 3)))
    statistics = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(statistics) == 5
    one, other = model(batch), model(tiny.pad(batch))
    for name in one:
        torch.testing.assert_close(one[name], other[name], msg=name)


def test_maps_are_shares_of_the_film(tiny):
    model, batch = build(tiny).eval(), tiny.double(tiny.batch((2, 1, 3)))
    maps = model.attention_maps(batch.image, batch.reports)
    assert maps.shape == (6, 2, 2)
    assert (maps > 0).all()
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(6, dtype=torch.float64))


def test_finite_in_bfloat16_autocast(tiny):
    model = tiny.method("lovt", TINY | {"temperature": 0.01, "temperature_local": 0.01})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model(tiny.batch((2, 1, 3)))
    assert all(term.isfinite() for term in terms.values())
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_errors(tiny):
    with pytest.raises(ValueError, match="temperatures must be positive, got 0 and"):
        build(tiny, temperature=0)
    with pytest.raises(ValueError, match="reach must be 0 or more, got -1"):
        build(tiny, reach=-1)


def test_the_recipe_is_the_released_codes():
    recipe = LoVT.recipes["paper"]
    assert [stage.epochs for stage in recipe.stages] == [100]
    assert recipe.stages[0].weights == WEIGHTS
    assert sum(WEIGHTS.values()) == 2.5
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adamw", 1e-4, 1e-6)
    assert (recipe.batch_size, recipe.frozen_text_layers, recipe.sentences) == (32, 6, "swapped")
    model = (LoVT.recipes["scratch"].options["dim"], LoVT.recipes["scratch"].frozen_text_layers)
    assert model == (128, 0)  # of two layers none can be spared
