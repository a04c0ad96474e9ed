"""MGCA as a whole against its equations written out, from the model's own embeddings."""

import math

import pytest
import torch

from lingula.methods.mgca import MGCA
from lingula.nn.text_encoders import first_token_attention
from lingula.nn.words import word_sums

TINY = {"dim": 8, "hidden": 16, "prototypes": 5}


def build(tiny, **options):
    model = tiny.method("mgca", TINY | options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every word
        weight = model.prototypes.weight
        weight.copy_(torch.nn.functional.normalize(weight, dim=-1))  # to the precision of doubles
    return model.train()


def fresh_norms(model):
    """Every BatchNorm with statistics of its own, and standing still: a fresh one's would be 0 and 1."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 10)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model.eval()


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def normal(x):
    return [a / math.sqrt(dot(x, x)) for a in x]


def softmax(x):
    exponentials = [math.exp(a) for a in x]
    return [e / sum(exponentials) for e in exponentials]


def info_nce_both_ways(one, other, tau):
    one, other = [normal(x) for x in one], [normal(x) for x in other]
    total = 0.0
    for a, b in ((one, other), (other, one)):
        for i, x in enumerate(a):
            total -= math.log(softmax([dot(x, y) / tau for y in b])[i])
    return total / len(one)


def draw(x, y, tau):
    """What x draws from the ys."""
    weights = softmax([dot(x, other) / tau for other in y])
    return normal([sum(w * other[d] for w, other in zip(weights, y, strict=True)) for d in range(len(x))])


def alignment(tokens, others, tau, weights):
    x, y = [normal(t) for t in tokens], [normal(o) for o in others]
    c = [draw(t, y, tau) for t in x]
    total = 0.0
    for i, weight in enumerate(weights):
        rows = softmax([dot(x[i], other) / tau for other in c])
        columns = softmax([dot(other, c[i]) / tau for other in x])
        total -= weight * 0.5 * (math.log(rows[i]) + math.log(columns[i]))
    return total


def codes(scores, epsilon, iterations):
    q = [[math.exp(z / epsilon) for z in row] for row in scores]
    for _ in range(iterations):
        masses = [sum(column) for column in zip(*q, strict=True)]
        q = [[value / mass for value, mass in zip(row, masses, strict=True)] for row in q]
        q = [[value / sum(row) for value in row] for row in q]
    return q


def clipped(values):
    ordered = sorted(values)

    def quantile(q):
        place = q * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        return low + (place - math.floor(place)) * (high - low)

    kept = [min(max(v, quantile(0.1)), quantile(0.9)) for v in values]
    return [k / sum(kept) for k in kept]


def literal(model, batch, weights, tau=0.07, tau_l=0.1, tau_p=0.2, epsilon=0.05, iterations=3):
    """The three terms; ``weights`` of each report's words."""
    seen = model.encode_image(batch.image)
    image, patches = seen.embedding, seen.patches
    read = model.read_words(batch.reports)
    report, padded, mask = read.embedding, read.words, read.mask
    words = [row[real].tolist() for row, real in zip(padded, mask, strict=True)]
    image, patches, report = image.tolist(), patches.tolist(), report.tolist()

    token = 0.0
    for own, places, shares in zip(words, patches, weights, strict=True):
        token += alignment(own, places, tau_l, shares) / len(words)
        token += alignment(places, own, tau_l, [1 / len(places)] * len(places)) / len(words)

    prototypes = [normal(p) for p in model.prototypes.weight.tolist()]
    scores = [[[dot(normal(x), p) for p in prototypes] for x in side] for side in (image, report)]
    q = [codes(side, epsilon, iterations) for side in scores]
    p = [[softmax([z / tau_p for z in row]) for row in side] for side in scores]
    proto = 0.0
    for b in range(len(image)):
        for k in range(len(prototypes)):
            proto -= 0.5 * (q[0][b][k] * math.log(p[1][b][k]) + q[1][b][k] * math.log(p[0][b][k])) / len(image)
    return {"instance": info_nce_both_ways(image, report, tau), "token": token, "prototype": proto}


def counts_of(reports):
    return (reports.word_of_token.amax(1) + 1).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"local_map": "last"},
        {"upsample_to": 48},
        {"temperature": 0.2, "temperature_local": 0.5, "temperature_prototypes": 0.7, "epsilon": 0.3},
        {"sinkhorn_iterations": 1},
    ],
    ids=str,
)
def test_the_terms_where_words_weigh_the_same(tiny, options):
    model = fresh_norms(build(tiny, word_weights="uniform", **options))
    model.weights = {"instance": 2.0, "token": 3.0, "prototype": 5.0}
    batch = tiny.double(tiny.batch((2, 1, 3, 1)))
    weights = [[1 / count] * count for count in counts_of(batch.reports)]
    taus = dict(zip(("tau", "tau_l", "tau_p", "epsilon"), options.values(), strict=True)) if len(options) == 4 else {}
    expected = literal(model, batch, weights, **taus, iterations=options.get("sinkhorn_iterations", 3))
    terms = model(batch)
    for name, weight in model.weights.items():
        torch.testing.assert_close(terms[name].item(), weight * expected[name], rtol=1e-9, atol=1e-9)


def test_the_terms_where_words_weigh_what_cls_looks_at(tiny):
    model = fresh_norms(build(tiny))
    batch = tiny.double(tiny.batch((2, 1, 3, 1)))
    reports = batch.reports
    attention = first_token_attention(model.text_encoder, model.text_encoder.states(reports)[-2], reports.token_mask)
    weights = []
    for looks, places in zip(attention.tolist(), reports.word_of_token.tolist(), strict=True):
        own = [0.0] * (max(places) + 1)
        for look, word in zip(looks, places, strict=True):
            if word >= 0:
                own[word] += look
        weights.append(clipped(own))
    expected, terms = literal(model, batch, weights), model(batch)
    for name, term in terms.items():
        torch.testing.assert_close(term.item(), expected[name], rtol=1e-9, atol=1e-9)
    model.word_weights = "uniform"
    assert abs(model(batch)["token"].item() - expected["token"]) > 1e-6  # the weights are not all the same


def test_a_term_without_weight_is_not_computed(tiny):
    model = build(tiny)
    model.weights = {"instance": 1.0, "token": 0.0}
    assert set(model(tiny.double(tiny.batch()))) == {"instance"}


def test_padding_is_in_no_statistic(tiny):
    """In training, where BatchNorms look at the batch."""
    batch = tiny.double(tiny.batch((2, 1, 3)))
    one, other = build(tiny), build(tiny)
    expected, found = one(batch), other(tiny.pad(batch))
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term)
    for (name, value), same in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(same, value, msg=name)


def test_the_maps_are_the_words_attention(tiny):
    model, batch = fresh_norms(build(tiny)), tiny.double(tiny.batch((2, 1)))
    patches = [normal(p) for p in model.encode_image(batch.image).patches[1].tolist()]
    read = model.read_words(batch.reports)
    words = read.words[1][read.mask[1]].tolist()
    rows = [softmax([dot(normal(w), p) / 0.1 for p in patches]) for w in words]
    maps = model.attention_maps(batch.image, batch.reports)
    expected = torch.tensor([sum(column) / len(rows) for column in zip(*rows, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(maps[2].flatten(), expected)  # the second report has one sentence


def test_the_report_is_the_first_token(tiny):
    model, reports = fresh_norms(build(tiny)), tiny.batch((2, 1)).reports
    told = model.encode_text(reports)
    features, report, sentences = told.features, told.embedding, told.sentences
    torch.testing.assert_close(report, model.report_projection(features.tokens[:, 0]))
    padded, mask = word_sums(features.tokens, reports)
    words = model.word_projection(padded, mask)
    torch.testing.assert_close(sentences[2], words[1][mask[1]].mean(0))


def test_prototypes_move_and_come_back_to_unit_length(tiny):
    model, batch = build(tiny, freeze_prototypes_steps=1), tiny.double(tiny.batch((1, 2, 1)))
    prototypes = model.prototypes.weight
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    moved = []
    for _ in range(2):
        before = prototypes.detach().clone()
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
        model.after_step()
        moved.append((prototypes - before).abs().max().item() > 1e-6)
        torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert moved == [False, True]


def test_codes_get_no_gradient(tiny):
    """Each score's gradient is that of its own cross-entropy: (p - q of the other) / tau / 2B."""
    model = build(tiny)
    kept = []
    prototypes = model.prototypes.forward

    def keep(x):
        scores = prototypes(x)
        scores.retain_grad()
        kept.append(scores)
        return scores

    model.prototypes.forward = keep
    model.weights = {"prototype": 1.0}
    model(tiny.double(tiny.batch((1, 2, 1))))["prototype"].backward()
    for own, other in (kept, kept[::-1]):
        q = torch.tensor(codes(other.tolist(), 0.05, 3), dtype=torch.float64)
        expected = ((own / 0.2).softmax(1) - q) / 0.2 / (2 * len(own))
        torch.testing.assert_close(own.grad, expected.detach())


def test_errors(tiny):
    with pytest.raises(ValueError, match="word_weights must be one of attention, uniform, got 'cls'"):
        tiny.method("mgca", {"word_weights": "cls"})
    with pytest.raises(ValueError, match="temperatures and epsilon must be positive"):
        tiny.method("mgca", {"epsilon": 0.0})
    with pytest.raises(ValueError, match="sinkhorn_iterations >= 1 and upsample_to >= 0, got 0 and 0"):
        tiny.method("mgca", {"sinkhorn_iterations": 0})


def test_a_text_encoder_that_is_no_bert_weighs_its_words_alike(tiny):
    towers = tiny.encoders()
    towers["text_encoder"].backbone.encoder = torch.nn.Identity()
    with pytest.raises(ValueError, match="needs a text encoder built like BERT; take 'uniform'"):
        MGCA(**towers, image_size=32)
    MGCA(**towers, image_size=32, word_weights="uniform")
