"""SigLIP as a whole against its equation written out, from the model's own embeddings."""

from __future__ import annotations

import math

import pytest
import torch


def build(tiny, **options):
    model = tiny.method("siglip", {"dim": 8} | options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every report
    return model


def cos(a, b):
    def dot(x, y):
        return sum(p * q for p, q in zip(x, y, strict=True))

    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def literal_loss(image, report, t, b):
    total = 0.0
    for i in range(len(image)):
        for j in range(len(report)):
            z = 1.0 if i == j else -1.0
            total += math.log(1.0 + math.exp(-z * (t * cos(image[i], report[j]) + b)))
    return total / len(image)


@pytest.mark.parametrize("options", [{}, {"scale": 3.0, "bias": -1.0}], ids=str)
@pytest.mark.parametrize("sentence_counts", [(2,), (2, 4), (3, 1, 2, 4, 2)], ids=str)
def test_the_equation(tiny, sentence_counts, options):
    model = build(tiny, **options).eval()
    model.weights = {"sigmoid": 3.0}
    batch = tiny.double(tiny.batch(sentence_counts))
    image, report = model.encode_image(batch.image).embedding, model.encode_text(batch.reports).embedding
    expected = literal_loss(image.tolist(), report.tolist(), options.get("scale", 10.0), options.get("bias", -10.0))
    terms = model(batch)
    assert list(terms) == ["sigmoid"]
    assert terms["sigmoid"].item() == pytest.approx(3 * expected, rel=1e-6)  # t' starts as a float32


def test_it_starts_as_the_paper_says_and_learns_both_numbers(tiny):
    model = build(tiny).float()
    assert model.log_scale.item() == pytest.approx(math.log(10))
    assert model.bias.item() == -10
    model(tiny.batch((2, 1, 3)))["sigmoid"].backward()
    assert model.log_scale.grad.item() != 0
    assert model.bias.grad.item() < 0  # at -10 it is too low for three pairs: the step goes up


def test_maps_are_cosines_with_what_one_patch_alone_would_be(tiny):
    model = build(tiny).eval()
    batch = tiny.double(tiny.batch((2, 1)))
    seen = model.encode_image(batch.image)
    features, patches = seen.features, seen.patches
    sentences = model.encode_text(batch.reports).sentences.tolist()
    maps = model.attention_maps(batch.image, batch.reports).flatten(1).tolist()
    weight, bias = model.image_projection.weight, model.image_projection.bias
    for n, film in enumerate(batch.reports.report_of_sentence.tolist()):
        for p in range(patches.shape[1]):
            value = model.image_pool.output(model.image_pool.value(features.patches[film, p]))
            assert maps[n][p] == pytest.approx(cos(sentences[n], (weight @ value + bias).tolist()))


def test_a_scale_that_is_not_positive_is_refused(tiny):
    with pytest.raises(ValueError, match=r"scale must be positive, got 0.0"):
        build(tiny, scale=0.0)
