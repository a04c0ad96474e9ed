"""ConVIRT as a whole against its equations written out, from the encoders' own states."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lingula.methods.convirt import ConVIRT

WEIGHTS = {"image_to_text": 0.75, "text_to_image": 0.25}


def build(tiny, **options):
    model = tiny.method("convirt", {"dim": 8} | options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every report
    return model


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def project(head, x):
    """Linear, ReLU, Linear on lists."""
    first, second = head[0], head[2]
    hidden = [max(0.0, dot(row, x) + b) for row, b in zip(first.weight.tolist(), first.bias.tolist(), strict=True)]
    return [dot(row, hidden) + b for row, b in zip(second.weight.tolist(), second.bias.tolist(), strict=True)]


def literal_embeddings(model, batch):
    patches = model.image_encoder(batch.image).patches.tolist()
    tokens = model.text_encoder(batch.reports).tokens.tolist()
    real = batch.reports.token_mask.tolist()
    images, texts = [], []
    for film in patches:
        images.append(project(model.image_projection, [sum(c) / len(film) for c in zip(*film, strict=True)]))
    for report, mask in zip(tokens, real, strict=True):
        states = [state for state, is_real in zip(report, mask, strict=True) if is_real]
        texts.append(project(model.text_projection, [max(c) for c in zip(*states, strict=True)]))
    return images, texts


def literal_infonce(query, key, tau):
    total = 0.0
    for i in range(len(query)):
        denominator = sum(math.exp(cos(query[i], key[j]) / tau) for j in range(len(key)))
        total += -math.log(math.exp(cos(query[i], key[i]) / tau) / denominator)
    return total / len(query)


@pytest.mark.parametrize("tau", [0.1, 0.5])
@pytest.mark.parametrize("sentence_counts", [(1,), (1, 1), (1, 1, 1, 1, 1), (3, 1, 2)], ids=str)
def test_the_equations(tiny, sentence_counts, tau):
    model = build(tiny, temperature=tau).eval()
    batch = tiny.double(tiny.batch(sentence_counts))
    images, texts = literal_embeddings(model, batch)
    terms = model(batch)
    assert list(terms) == list(WEIGHTS)
    assert terms["image_to_text"].item() == pytest.approx(0.75 * literal_infonce(images, texts, tau), abs=1e-12)
    assert terms["text_to_image"].item() == pytest.approx(0.25 * literal_infonce(texts, images, tau), abs=1e-12)
    image, text = model.encode_image(batch.image), model.encode_text(batch.reports)
    for found, expected in ((image.embedding, images), (text.embedding, texts)):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_maps_are_cosines_of_projected_patches(tiny):
    model = build(tiny).eval()
    batch = tiny.double(tiny.batch((2, 1)))
    patches = model.image_encoder(batch.image).patches.tolist()
    sentences = model.encode_text(batch.reports).sentences.tolist()
    maps = model.attention_maps(batch.image, batch.reports).flatten(1).tolist()
    for n, film in enumerate(batch.reports.report_of_sentence.tolist()):
        for p, patch in enumerate(patches[film]):
            assert maps[n][p] == pytest.approx(cos(sentences[n], project(model.image_projection, patch)))


def test_its_recipes_read_one_sentence():
    assert {recipe.sentences for recipe in ConVIRT.recipes.values()} == {"one"}
    assert ConVIRT.recipes["paper"].frozen_text_layers == 6


def test_one_report_has_nobody_to_be_told_from(tiny):
    model = build(tiny).eval()
    terms = model(tiny.double(tiny.batch((2,))))
    assert [term.item() for term in terms.values()] == [0.0, 0.0]


def test_another_direction_alone(tiny):
    model = build(tiny)
    model.weights = replace(ConVIRT.recipes["paper"].stages[0], weights={"text_to_image": 1.0}).weights
    assert list(model(tiny.double(tiny.batch((1, 2))))) == ["text_to_image"]


def test_a_temperature_that_is_not_positive_is_refused(tiny):
    with pytest.raises(ValueError, match=r"temperatures must be positive, got 0.0"):
        build(tiny, temperature=0.0)
