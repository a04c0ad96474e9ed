"""GLoRIA as a whole against its equations written out, from the model's own words and regions."""

import math

import pytest
import torch
import torch.nn.functional as F

from lingula.methods.gloria import GLoRIA
from lingula.nn.text_encoders import TextEncoder


def build(tiny, **options):
    model = tiny.method("gloria", options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every word
    return model.eval()


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def words_of(model, reports):
    """Lists of each report's words: the sums of their word pieces' states."""
    tokens = model.text_encoder(reports, layers=model.text_layers).tokens.tolist()
    found = []
    for states, places in zip(tokens, reports.word_of_token.tolist(), strict=True):
        words = [[0.0] * len(states[0]) for _ in range(max(places) + 1)]
        for state, word in zip(states, places, strict=True):
            if word >= 0:
                words[word] = [a + b for a, b in zip(words[word], state, strict=True)]
        found.append(words)
    return found


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def attention(words, regions, tau):
    over_words = []
    for v in regions:
        exponentials = [math.exp(dot(v, t)) for t in words]
        over_words.append([e / sum(exponentials) for e in exponentials])
    alpha = []
    for w in range(len(words)):
        exponentials = [math.exp(a[w] / tau) for a in over_words]
        alpha.append([e / sum(exponentials) for e in exponentials])
    return alpha


def both_ways(logits):
    """CE of the rows plus CE of the columns, the pairs on the diagonal."""
    n = len(logits)
    total = 0.0
    for i in range(n):
        total -= math.log(math.exp(logits[i][i]) / sum(math.exp(logits[i][j]) for j in range(n)))
        total -= math.log(math.exp(logits[i][i]) / sum(math.exp(logits[j][i]) for j in range(n)))
    return total / n


def literal(model, batch, tau_a=0.25, tau_w=0.2, tau=0.1):
    seen = model.encode_image(batch.image)
    image, regions = seen.embedding, seen.patches
    image, regions = image.tolist(), regions.tolist()
    words = words_of(model, batch.reports)
    s = [[cos(v, mean(report)) / tau for report in words] for v in image]
    z = []
    for film in regions:
        row = []
        for report in words:
            total = 0.0
            for t, weights in zip(report, attention(report, film, tau_a), strict=True):
                c = [sum(a * v[d] for a, v in zip(weights, film, strict=True)) for d in range(len(t))]
                total += math.exp(cos(c, t) / tau_w)
            row.append(math.log(total) / tau)
        z.append(row)
    return {"global": both_ways(s), "local": both_ways(z)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk": 1},
        {"local_map": "last"},
        {"upsample_to": 48},
        {"temperature_attention": 1.0, "temperature_words": 0.5, "temperature": 0.3},
    ],
    ids=str,
)
def test_the_terms(tiny, options):
    model = build(tiny, **options)
    model.weights = {"global": 2.0, "local": 3.0}
    batch = tiny.double(tiny.batch((2, 1, 3, 1)))
    taus = [options[f"temperature{name}"] for name in ("_attention", "_words", "")] if len(options) == 3 else []
    expected = literal(model, batch, *taus)
    terms = model(batch)
    for name, weight in model.weights.items():
        torch.testing.assert_close(terms[name].item(), weight * expected[name], rtol=1e-9, atol=1e-9)


def test_a_term_without_weight_is_not_computed(tiny):
    model = build(tiny)
    model.weights = {"global": 0.0, "local": 1.0}
    assert set(model(tiny.double(tiny.batch()))) == {"local"}


def test_words_are_sums_of_the_last_layers(tiny):
    """Of the states after so many layers, and of all of them where there are not so many."""
    from transformers import BertConfig

    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16)
    image_encoder, reports = tiny.encoders()["image_encoder"], tiny.batch((2, 1)).reports
    for asked, used in ((1, 1), (2, 2), (4, 3)):
        torch.manual_seed(0)
        model = GLoRIA(image_encoder, TextEncoder(config), tiny.image_size, text_layers=asked).eval()
        states = sum(model.text_encoder.states(reports)[-used:])
        told = model.encode_text(reports)
        features, report = told.features, told.embedding
        torch.testing.assert_close(features.tokens, states)
        words = words_of(model, reports)
        torch.testing.assert_close(report[1], torch.tensor(mean(words[1])), rtol=1e-4, atol=1e-5)


def test_sentences_are_means_of_their_words(tiny):
    model, reports = build(tiny), tiny.batch((2, 1)).reports
    told = model.encode_text(reports)
    report, sentences = told.embedding, told.sentences
    words = words_of(model, reports)
    torch.testing.assert_close(report[0], torch.tensor(mean(words[0]), dtype=torch.float64))
    count = int(reports.word_of_token[reports.sentence_of_token == 0].max()) + 1  # the first sentence's words
    torch.testing.assert_close(sentences[0], torch.tensor(mean(words[0][:count]), dtype=torch.float64))
    torch.testing.assert_close(sentences[1], torch.tensor(mean(words[0][count:]), dtype=torch.float64))
    torch.testing.assert_close(sentences[2], report[1])


@pytest.mark.parametrize("options", [{}, {"upsample_to": 64}])
def test_the_maps_are_the_words_attention(tiny, options):
    model, batch = build(tiny, **options), tiny.double(tiny.batch((2, 1)))
    regions = model.encode_image(batch.image).patches.tolist()
    alpha = attention(words_of(model, batch.reports)[1], regions[1], 0.25)  # of the report of one sentence
    maps = model.attention_maps(batch.image, batch.reports)
    side = 2 * max(1, options.get("upsample_to", 0) // tiny.image_size)
    assert maps.shape == (3, side, side)
    torch.testing.assert_close(maps[2].flatten(), torch.tensor(mean(alpha), dtype=torch.float64))
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3, dtype=torch.float64))


def test_regions_come_from_the_map_before_the_last(tiny):
    """And from the patches of a vision transformer, which has no other."""
    for encoder, width, places in (("resnet18", 256, 4), ("small_vit", 96, 4)):
        model = tiny.method("gloria", {"upsample_to": 0}, image_encoder=encoder).eval()
        assert model.region_projection.weight.shape == (16, width)
        assert model.region_projection.bias is None
        seen = model.encode_image(tiny.batch().image)
        features, regions = seen.features, seen.patches
        source = features.maps[-2].flatten(2).transpose(1, 2) if encoder == "resnet18" else features.patches
        assert source.shape[1] == places
        torch.testing.assert_close(regions, F.linear(source, model.region_projection.weight))


def test_errors(tiny):
    with pytest.raises(ValueError, match="local_map must be one of penultimate, last, got 'middle'"):
        tiny.method("gloria", {"local_map": "middle"})
    with pytest.raises(ValueError, match="temperatures must be positive"):
        tiny.method("gloria", {"temperature_words": 0.0})
    with pytest.raises(ValueError, match=r"text_layers >= 1, chunk >= 1 and upsample_to >= 0, got 0, 8 and 0"):
        tiny.method("gloria", {"text_layers": 0})
