"""CLIP's two terms from the model's own embeddings, written out."""

import math

import pytest
import torch

from lingula.methods.clip import CLIP


def build(tiny, **options):
    model = tiny.method("clip", {"dim": 8} | options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every report
    return model


def cos(a, b):
    dot, aa, bb = (sum(x * y for x, y in zip(p, q, strict=True)) for p, q in ((a, b), (a, a), (b, b)))
    return dot / math.sqrt(aa * bb)


def literal(query, key, tau):
    total = 0.0
    for i in range(len(query)):
        denominator = sum(math.exp(cos(query[i], key[j]) / tau) for j in range(len(key)))
        total -= math.log(math.exp(cos(query[i], key[i]) / tau) / denominator)
    return total / len(query)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.3}, {"projection_layers": 2, "temperature": 0.1, "learnable_temperature": False}]
)
def test_the_two_directions(tiny, options):
    model = build(tiny, **options).eval()  # BatchNorm, where there is one, by its running statistics
    model.weights = {"image_to_text": 0.75, "text_to_image": 0.25}
    batch = tiny.double(tiny.batch((2, 1, 3)))
    image = model.encode_image(batch.image).embedding.tolist()
    report = model.encode_text(batch.reports).embedding.tolist()
    tau = options.get("temperature", 0.07)
    terms = model(batch)
    assert terms["image_to_text"].item() == pytest.approx(0.75 * literal(image, report, tau), rel=1e-6)
    assert terms["text_to_image"].item() == pytest.approx(0.25 * literal(report, image, tau), rel=1e-6)
    model.weights = {"image_to_text": 1.0, "text_to_image": 0.0}
    assert list(model(batch)) == ["image_to_text"]


def test_a_report_is_the_mean_of_its_tokens_and_pads_are_none(tiny):
    model = build(tiny)
    reports = tiny.batch((2, 1, 3)).reports
    told = model.encode_text(reports)
    features, embedding = told.features, told.embedding
    for row in range(3):
        real = features.tokens[row][reports.token_mask[row]]
        torch.testing.assert_close(embedding[row], model.text_projection(sum(real)[None] / len(real))[0])


def test_maps_are_cosines_of_sentences_with_places(tiny):
    """A place's embedding is what the film's would be if the pool looked nowhere else."""
    model = build(tiny).eval()
    batch = tiny.double(tiny.batch((2, 1)))
    seen = model.encode_image(batch.image)
    features, patches = seen.features, seen.patches
    sentences = model.encode_text(batch.reports).sentences
    maps = model.attention_maps(batch.image, batch.reports)
    h, w = features.grid
    assert maps.shape == (3, h, w)
    for n, own in enumerate(batch.reports.report_of_sentence.tolist()):
        for place in range(h * w):
            expected = cos(sentences[n].tolist(), patches[own, place].tolist())
            assert maps[n, place // w, place % w].item() == pytest.approx(expected, rel=1e-9)


def test_a_place_is_what_the_pool_gives_where_it_is_the_only_one(tiny):
    pool = build(tiny).image_pool
    with torch.no_grad():
        pool.positions.zero_()
    place = torch.randn(2, 1, pool.query.in_features, dtype=torch.float64)
    torch.testing.assert_close(pool(place.expand(-1, 4, -1)), pool.places(place)[:, 0])


def test_the_recipes():
    paper, lovt = CLIP.recipes["paper"], CLIP.recipes["lovt"]
    assert (paper.sentences, lovt.sentences) == ("whole", "one")
    assert lovt.stages[0].weights == {"image_to_text": 0.75, "text_to_image": 0.25}
    assert lovt.options["temperature"] == 0.1
