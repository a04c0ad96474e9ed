"""CM-CGNS as a whole against its equations written out, from the model's own embeddings."""

from __future__ import annotations

import math

import pytest
import torch

from lingula.keyed import keyed_uniform
from lingula.losses.info_nce import info_nce
from lingula.methods.cm_cgns import CMCGNS, SCRATCH
from lingula.nn.kmeans import spherical_kmeans

TINY = {"dim": 8, "clusters": 3, "decoder_widths": (8, 8, 4, 4, 4)}
WEIGHTS = {"global": 2.0, "report": 3.0, "margin": 5.0, "image": 7.0, "reconstruction": 11.0}


def build(tiny, **options):
    model = tiny.method("cm-cgns", TINY | options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every sentence
    model.weights = dict(WEIGHTS)
    return model


# Lists of Python floats from here on.


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def times(matrix, x):
    return [dot(row, x) for row in matrix]


def literal_attention(w, queries, keys, modality, other):
    """Eqs. 5-6 for one pair: for each query, the sum over the keys of sigmoid(q.k / sqrt(D)) v."""
    made = []
    for query in queries:
        total = [0.0] * len(query)
        for key in keys:
            logit = dot(times(w[f"{modality}_query.weight"], query), times(w[f"{other}_key.weight"], key))
            weight = 1.0 / (1.0 + math.exp(-logit / math.sqrt(len(query))))
            for d, value in enumerate(times(w[f"{other}_value.weight"], key)):
                total[d] += weight * value
        made.append(total)
    return made


def literal_infonce(query, key, tau):
    total = 0.0
    for i in range(len(query)):
        denominator = sum(math.exp(cos(query[i], key[j]) / tau) for j in range(len(key)))
        total += -math.log(math.exp(cos(query[i], key[i]) / tau) / denominator)
    return total / len(query)


def literal_report(model, batch, f, v, tau_3, mu, alpha, beta):
    """Eqs. 7-9 of sentences f and what they drew, v: lists of lists. The centres are k-means' of v."""
    sentence_count = len(f)
    if model.hard_negatives == "none":
        return literal_infonce(f, v, tau_3), 0.0
    points = torch.tensor(v, dtype=torch.float64)
    clusters = min(model.clusters, sentence_count // 2)
    centres = spherical_kmeans(points, clusters, batch.seed, batch.reports.sentence_key).centres.tolist()
    order = [sorted(range(clusters), key=lambda k, s=s: -cos(s, centres[k])) for s in f]
    cluster_of = [max(range(clusters), key=lambda k, x=x: cos(x, centres[k])) for x in v]
    cluster_of_false = [own[0] for own in order] if model.false_negatives == "text" else cluster_of
    everyone = range(sentence_count)
    false = [[k for k in everyone if k != j and cluster_of[k] == order[j][0]] for j in everyone]
    report_sum = 0.0
    for j in everyone:  # Eq. 7
        denominator = 0.0
        for k in everyone:
            if not (model.mask_false_negatives and k in false[j]):
                denominator += math.exp(cos(f[j], v[k]) / tau_3)
        if model.hard_negatives == "others":
            denominator += mu * math.exp(cos(f[j], centres[order[j][1]]) / tau_3)
            for r in range(2, clusters):
                denominator += math.exp(cos(f[j], centres[order[j][r]]) / tau_3)
        elif model.hard_negatives == "own":
            denominator += mu * math.exp(cos(f[j], centres[order[j][1]]) / tau_3)
        elif model.hard_negatives == "batch":
            for k in everyone:
                if order[k][1] != order[j][0]:
                    weight = mu if k == j else 1.0
                    denominator += weight * math.exp(cos(f[j], centres[order[k][1]]) / tau_3)
        else:
            denominator += math.exp(mu * cos(f[j], centres[order[j][1]]) / tau_3) + sentence_count - 1
        report_sum += -math.log(math.exp(cos(f[j], v[j]) / tau_3) / denominator)
    margin_sum, pairs = 0.0, 0
    for j in everyone:  # Eqs. 8-9
        for k in everyone:
            if k != j and cluster_of_false[k] == order[j][0]:
                delta = cos(f[j], v[k]) - cos(f[j], v[j])
                margin_sum += max(0.0, delta + alpha) + max(0.0, -delta - beta)
                pairs += 1
    assert pairs, "the batch has no false negatives: it tests nothing"
    return report_sum / sentence_count, margin_sum / (sentence_count**2 if model.false_negatives == "text" else pairs)


def literal_terms(model, batch, tau_1=0.01, tau_3=0.01, mu=3.0, alpha=0.2, beta=0.5):
    """Eqs. 1-13, unweighted, from the projected embeddings; the centres are k-means' of the representations."""
    reports = batch.reports
    seen, told = model.encode_image(batch.image), model.encode_text(reports)
    image, patches, report, sentences = (
        x.tolist() for x in (seen.embedding, seen.patches, told.embedding, told.sentences)
    )
    owner = reports.report_of_sentence.tolist()
    w = {name: p.tolist() for name, p in model.cross_attention.named_parameters()}

    terms = {"global": literal_infonce(image, report, tau_1) + literal_infonce(report, image, tau_1)}  # Eqs. 1-4

    own_sentences = [[s for s, o in zip(sentences, owner, strict=True) if o == b] for b in range(len(image))]
    image_to_report = [
        literal_attention(w, [s], patches[o], "text", "image")[0] for s, o in zip(sentences, owner, strict=True)
    ]
    report_to_image = [literal_attention(w, patches[b], own_sentences[b], "image", "text") for b in range(len(image))]

    terms["report"], terms["margin"] = literal_report(model, batch, sentences, image_to_report, tau_3, mu, alpha, beta)

    first, second = model.predictor[0], model.predictor[2]

    def predict(x):
        hidden = [max(0.0, h + b) for h, b in zip(times(first.weight.tolist(), x), first.bias.tolist(), strict=True)]
        return [o + b for o, b in zip(times(second.weight.tolist(), hidden), second.bias.tolist(), strict=True)]

    image_sum, count = 0.0, 0
    for b in range(len(image)):  # Eq. 10
        for p in range(len(patches[b])):
            x, y = patches[b][p], report_to_image[b][p]
            image_sum += 0.5 * cos(predict(x), y) + 0.5 * cos(predict(y), x)
            count += 1
    terms["image"] = -image_sum / count

    h, width = model.image_encoder.grid[1], len(patches[0][0])  # Eq. 12
    draws = keyed_uniform(batch.seed, batch.rows, width if model.mask == "channels" else len(patches[0])).tolist()
    fused = torch.zeros(len(image), 2 * width, *model.image_encoder.grid, dtype=torch.float64)
    for b in range(len(image)):
        for p in range(len(patches[b])):
            for d in range(width):
                hidden = draws[b][d if model.mask == "channels" else p] < 0.5
                fused[b, d, p // h, p % h] = report_to_image[b][p][d]
                fused[b, width + d, p // h, p % h] = 0.0 if hidden else patches[b][p][d]
    painted, film = model.decoder(fused).flatten().tolist(), batch.image.flatten().tolist()
    terms["reconstruction"] = sum(abs(x - y) for x, y in zip(painted, film, strict=True)) / len(film)
    return terms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_false_negatives": True},
        {"hard_negatives": "own"},
        {"hard_negatives": "batch"},
        {"hard_negatives": "batch", "mask_false_negatives": True},
        {"hard_negatives": "official", "false_negatives": "text", "temperature_local": 1.0},
        {"hard_negatives": "none"},
        {"mask": "channels"},
        {"projection_layers": 1, "project_tokens": True},
        {"temperature_global": 0.1, "temperature_local": 0.3, "mu": 0.5, "alpha": 0.0, "beta": 0.1},
        {"temperature_global": 0.1, "learnable_temperature": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("sentence_counts", [(2, 4), (3, 1, 2, 4, 2)], ids=str)
def test_the_equations(tiny, sentence_counts, options):
    model = build(tiny, **options).eval()
    batch = tiny.double(tiny.batch(sentence_counts))
    constants = {"temperature_global": "tau_1", "temperature_local": "tau_3", "mu": "mu", "alpha": "alpha"}
    constants["beta"] = "beta"
    expected = literal_terms(model, batch, **{constants[k]: x for k, x in options.items() if k in constants})
    terms = model(batch)
    assert list(terms) == ["global", "report", "margin", "image", "reconstruction"]
    for name, weight in WEIGHTS.items():
        # log tau_1 is kept in float32 and the painted film is compared in float32
        assert terms[name].item() == pytest.approx(weight * expected[name], rel=2e-6, abs=1e-9), name


@pytest.mark.parametrize(
    "options",
    [
        {"hard_negatives": "others"},
        {"hard_negatives": "own", "mask_false_negatives": True},
        {"hard_negatives": "batch"},
        {"hard_negatives": "official", "false_negatives": "text"},
        {"hard_negatives": "others", "mu": 0.5, "alpha": 0.0, "beta": 0.1},
    ],
    ids=str,
)
def test_the_report_terms_of_sentences_that_differ(tiny, options):
    """What fresh encoders make of sentences is nearly the same; here every sentence has clusters of its own choice."""
    model = build(tiny, clusters=5, temperature_local=0.3, **options)
    batch = tiny.double(tiny.batch((3, 5, 4, 2)))
    generator = torch.Generator().manual_seed(0)
    f, v = torch.randn(2, 14, 8, generator=generator, dtype=torch.float64) + torch.tensor([[[0.0]], [[0.3]]])
    centres, assignment, _ = model.find_clusters(v, batch.reports.sentence_key, batch.seed)
    first_two = (f @ centres.T).topk(2, dim=1).indices
    delta = torch.nn.functional.cosine_similarity(f[:, None], v[None], dim=-1)
    delta = (delta - delta.diagonal()[:, None])[assignment == first_two[:, :1]]
    assert len(first_two[:, 0].unique()) > 2
    assert len(first_two[:, 1].unique()) > 2
    assert (delta < -model.beta).any()  # both sides of Eq. 9 are at work
    assert (delta > -model.alpha).any()
    numbers = model.temperature_local, model.mu, model.alpha, model.beta
    report, margin = model.report_losses(f, v, batch)
    expected = literal_report(model, batch, f.tolist(), v.tolist(), *numbers)
    assert (report.item(), margin.item()) == pytest.approx(expected, rel=1e-8)  # log mu is added in float32


def test_a_term_without_weight_is_not_computed(tiny, monkeypatch):
    model = build(tiny)
    batch = tiny.double(tiny.batch((2, 3)))
    monkeypatch.setattr(model, "reconstruction_loss", None)
    model.weights = {"global": 1.0, "report": 1.0, "reconstruction": 0.0}
    assert list(model(batch)) == ["global", "report"]
    monkeypatch.setattr(model, "cross_attention", None)
    model.weights = {"global": 1.0}
    assert list(model(batch)) == ["global"]


def test_weights_are_factors(tiny):
    model, batch = build(tiny).eval(), tiny.double(tiny.batch((2, 3)))
    weighted = model(batch)
    model.weights = dict.fromkeys(WEIGHTS, 1.0)
    for name, term in model(batch).items():
        torch.testing.assert_close(weighted[name], WEIGHTS[name] * term)


# Closed forms and edges.


def test_one_pair_has_no_negatives(tiny):
    """B = 1 and N = 1: InfoNCE is 0, there are no clusters, and nobody is a false negative."""
    for options in ({}, {"hard_negatives": "batch"}, {"hard_negatives": "official"}, {"hard_negatives": "none"}):
        model = build(tiny, **options).eval()
        terms = model(tiny.double(tiny.batch((1,))))
        assert terms["global"].item() == terms["report"].item() == terms["margin"].item() == 0.0
        sum(terms.values()).backward()


def test_two_sentences_still_have_a_hard_negative(tiny):
    model, batch = build(tiny).eval(), tiny.double(tiny.batch((1, 1)))
    v = model.attend(batch.image, batch.reports).image_to_report
    centres, *_ = model.find_clusters(v, batch.reports.sentence_key, 0)
    assert len(centres) == 2


@pytest.mark.parametrize(("sentences", "clusters"), [(6, 3), (7, 3), (12, 5), (4, 2)])
def test_the_clusters_are_clamped_to_half_the_sentences(tiny, sentences, clusters):
    model = build(tiny, clusters=5)
    points = torch.randn(sentences, 8, dtype=torch.float64)
    assert len(model.find_clusters(points, torch.arange(sentences), 0)[0]) == clusters


def test_each_direction_of_the_global_loss_has_its_own_product(tiny):
    """The same bits as Eqs. 2 and 3 one after the other: published runs depend on how their gradient is rounded."""
    model = build(tiny)
    image, report = (x.requires_grad_() for x in torch.randn(2, 16, 32))
    tau = model.temperature_global()
    loss = info_nce(image, report, tau).mean() + info_nce(report, image, tau).mean()
    found = torch.autograd.grad(model.global_loss(image, report), (image, report))
    assert all(map(torch.equal, found, torch.autograd.grad(loss, (image, report))))


def test_simsiam_stops_the_gradient_on_either_side(tiny):
    model = build(tiny)
    x, y = (torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    model.predictor = torch.nn.Identity()
    # With h the identity both halves are the same function, but each sends its gradient to its own prediction only,
    # so the sum sends half to each side; without the stops it would send all.
    model.image_loss(x, y).backward()
    free_x, free_y = x.detach().requires_grad_(), y.detach().requires_grad_()
    (-torch.nn.functional.cosine_similarity(free_x, free_y, dim=-1)).mean().backward()
    torch.testing.assert_close(x.grad, free_x.grad / 2)
    torch.testing.assert_close(y.grad, free_y.grad / 2)


def test_clusters_carry_no_gradient(tiny):
    model, batch = build(tiny), tiny.double(tiny.batch((3, 3)))
    f, v = (torch.randn(6, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    report, margin = model.report_losses(f, v, batch)
    assert torch.autograd.gradcheck(lambda f: sum(model.report_losses(f, v.detach(), batch)), f)
    centres, *_ = model.find_clusters(v, batch.reports.sentence_key, batch.seed)
    assert not centres.requires_grad
    (report + margin).backward()
    assert v.grad.abs().sum() > 0


@pytest.mark.parametrize("mask", ["patches", "channels"])
def test_half_is_masked_and_it_is_the_patches_of_the_film(tiny, mask):
    model = build(tiny, mask=mask)
    seen = {}
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.update(fused=inputs[0]))
    ones = torch.ones(64, 4, 8, dtype=torch.float64)
    model.reconstruct(ones, 2 * ones, torch.arange(64), seed=3)
    assert (seen["fused"][:, :8] == 2).all()  # what the report says is never masked
    kept = seen["fused"][:, 8:]
    assert kept.unique().tolist() == [0.0, 1.0]
    assert kept.mean().item() == pytest.approx(0.5, abs=0.1)
    along, across = (1, (2, 3)) if mask == "patches" else ((2, 3), 1)
    assert (kept.amin(along) == kept.amax(along)).all()  # one decision for all channels, or all places
    assert (kept.amin(across) != kept.amax(across)).any()
    first = kept
    model.reconstruct(ones, ones, torch.arange(64), seed=4)
    assert not torch.equal(seen["fused"][:, 8:], first)
    model.reconstruct(ones, ones, torch.arange(64), seed=3)
    assert torch.equal(seen["fused"][:, 8:], first)


def test_tokens_are_projected_and_normalised_before_the_mean(tiny):
    model, reports = build(tiny, project_tokens=True, projection_layers=1).eval(), tiny.batch((2, 1)).reports
    told = model.encode_text(reports)
    features, sentences = told.features, told.sentences
    for n in range(reports.sentence_count):
        total, count = [0.0] * 8, 0
        for token in features.tokens[reports.sentence_of_token == n]:
            projected = model.sentence_projection(token).tolist()
            length = math.sqrt(dot(projected, projected))
            total = [t + x / length for t, x in zip(total, projected, strict=True)]
            count += 1
        torch.testing.assert_close(sentences[n], torch.tensor([t / count for t in total], dtype=torch.float64))


def test_the_learnt_temperature_is_held(tiny):
    model = build(tiny, learnable_temperature=True, temperature_global=0.1)
    image, report = torch.randn(3, 8).double(), torch.randn(3, 8).double()
    for wanted, held in ((1e-5, 0.01), (0.3, 0.3), (50.0, 1.0)):
        with torch.no_grad():
            model.temperature_global.logarithm.fill_(math.log(wanted))
        expected = literal_infonce(image.tolist(), report.tolist(), held)
        expected += literal_infonce(report.tolist(), image.tolist(), held)
        assert model.global_loss(image, report).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"clustering": "online", "clusters": 3}, {"hard_negatives": "batch"}])
def test_finite_in_bfloat16_autocast(tiny, options):
    model = tiny.method("cm-cgns", TINY | options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model(tiny.batch((2, 1, 3)))
    assert all(term.isfinite() for term in terms.values())
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"clustering": "offline"}, "clustering must be one of batch, online, got 'offline'"),
        ({"hard_negatives": "all"}, "hard_negatives must be one of others, batch, own, official, none, got 'all'"),
        ({"false_negatives": "image"}, "false_negatives must be one of cross_modal, text, got 'image'"),
        ({"mask": "pixels"}, "mask must be one of patches, channels, got 'pixels'"),
        ({"alpha": 0.6}, r"0 <= alpha <= beta, got alpha=0.6 and beta=0.5"),
        ({"cluster_every": 0}, "cluster_every >= 1, got 0.5, 128, 3.0 and 0"),
        ({"cluster_every": 2, "clustering": "online"}, "cluster_every goes with clustering 'batch'"),
    ],
)
def test_errors(tiny, option, words):
    with pytest.raises(ValueError, match=words):
        tiny.method("cm-cgns", option)


# The released code's bank of centres, inside the method.


def test_the_bank_moves_once_a_step_and_comes_back_from_a_checkpoint(tiny):
    model = build(tiny, clustering="online")
    model.online.start_below = 1.0
    batch = tiny.double(tiny.batch((2, 4)))
    model(batch)
    assert not model.online.started
    model.after_step()
    assert model.online.started
    centres = model.online.centres.clone()
    model.eval()(batch)
    model.after_step()
    assert torch.equal(model.online.centres, centres)
    other = build(tiny, clustering="online")
    other.load_state_dict(model.state_dict())
    for one in (model, other):
        one.train()(tiny.double(tiny.batch((3, 3), seed=5)))
        one.after_step()
    assert not torch.equal(model.online.centres, centres)
    assert torch.equal(model.online.centres, other.online.centres)


def test_before_the_bank_starts_the_loss_is_plain_info_nce_without_a_margin(tiny):
    batch = tiny.double(tiny.batch((2, 4)))
    plain, online = build(tiny, hard_negatives="none"), build(tiny, clustering="online")
    online.load_state_dict(plain.state_dict(), strict=False)
    expected, terms = plain(batch), online(batch)
    torch.testing.assert_close(terms["report"], expected["report"])
    assert terms["margin"] == 0


def test_the_film_term_contrasts_films_under_a_fixed_query_and_is_off_by_default(tiny):
    model, batch = build(tiny), tiny.double(tiny.batch((2, 1, 3)))
    assert "film" not in model(batch)
    model.weights = {"film": 2.0}
    (name, value), *others = model(batch).items()
    assert (name, others) == ("film", [])
    patches, sentences = model.encode_image(batch.image).patches, model.encode_text(batch.reports).sentences
    total = 0.0
    for n, own in enumerate(batch.reports.report_of_sentence.tolist()):
        cosines = []
        for film in range(3):  # this sentence's own representation of each film, one at a time
            swapped = patches[[film, film, film]]
            v = model.cross_attention(swapped, sentences, batch.reports).image_to_report[n].tolist()
            f = sentences[n].tolist()
            dot = sum(a * b for a, b in zip(f, v, strict=True))
            cosines.append(dot / math.sqrt(sum(a * a for a in f)) / math.sqrt(sum(b * b for b in v)))
        total -= math.log(
            math.exp(cosines[own] / model.temperature_local)
            / sum(math.exp(c / model.temperature_local) for c in cosines)
        )
    assert value.item() == pytest.approx(2.0 * total / 6, rel=1e-9)


# What it costs.


def test_the_watch_sees(tiny):
    with tiny.watch() as watch:
        x = torch.arange(4.0)
        x[torch.tensor(1)], x[x > 2], x.sum().item()
    assert watch.waits >= {"aten::_local_scalar_dense", "aten::nonzero"}


@pytest.mark.parametrize("reading", ["others", "batch", "own", "official", "none"])
@pytest.mark.parametrize("false_negatives", ["cross_modal", "text"])
def test_nothing_of_size_n_by_n_by_d_is_made(tiny, reading, false_negatives):
    """N = 96, D = 64: N x N is 9216, N x K x D is 294912, N x N x D is 589824."""
    size, width, clusters = 96, 64, 48
    model = build(tiny, dim=width, clusters=clusters, hard_negatives=reading, false_negatives=false_negatives)
    batch = tiny.batch((3,) * 32)
    f, v = (torch.randn(size, width, requires_grad=True) for _ in range(2))
    with tiny.watch() as watch:
        report, margin = model.report_losses(f, v, batch)
        (report + margin).backward()
    assert size * size <= watch.largest <= size * (size + clusters + 1), watch.maker


@pytest.mark.parametrize("reading", ["others", "batch", "official", "none"])
def test_of_many_sentences_nothing_of_size_n_by_n_is_made(tiny, monkeypatch, reading):
    """N = 1200, more than are clustered on their Gram matrix; anchors come 64 at a time."""
    monkeypatch.setattr(CMCGNS, "tile", 64)
    size, width, clusters = 1200, 16, 8
    model = build(tiny, dim=width, clusters=clusters, hard_negatives=reading)
    batch = tiny.batch((3,) * 400)
    f, v = (torch.randn(size, width, requires_grad=True) for _ in range(2))
    with tiny.watch() as watch:
        report, margin = model.report_losses(f, v, batch)
        (report + margin).backward()
    assert watch.largest <= 64 * (size + clusters + 1), watch.maker


@pytest.mark.parametrize(
    "options",
    [
        {"mask_false_negatives": True},
        {"hard_negatives": "batch"},
        {"hard_negatives": "official", "false_negatives": "text"},
        {"hard_negatives": "none"},
    ],
    ids=str,
)
def test_tiles_change_neither_value_nor_gradient(tiny, monkeypatch, options):
    model, batch = build(tiny, **options), tiny.double(tiny.batch((3, 1, 2, 4, 2)))
    found = []
    for tile in (512, 5):
        monkeypatch.setattr(CMCGNS, "tile", tile)
        torch.manual_seed(3)
        f, v = (torch.randn(12, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
        losses = model.report_losses(f, v, batch)
        found.append((*losses, *torch.autograd.grad(sum(losses), (f, v))))
    for whole, tiled in zip(*found, strict=True):
        torch.testing.assert_close(tiled.detach(), whole.detach(), rtol=1e-12, atol=1e-12)


def test_no_sentence_meets_every_film_in_full(tiny):
    """film_similarity is about N x B x P numbers, not N x B x D or N x B x P x D."""
    model = build(tiny, dim=64).float()
    patches, sentences = torch.randn(8, 4, 64), torch.randn(40, 64)
    with tiny.watch() as watch:
        model.cross_attention.film_similarity(patches, sentences)
    assert watch.largest <= max(40 * 8 * 4, 40 * 64, 8 * 4 * 64, 64 * 64)


@pytest.mark.parametrize("reading", ["others", "batch", "own", "official", "none"])
def test_the_host_never_waits(tiny, reading):
    """From the encoders' features to the terms; what happens inside a borrowed encoder is its own affair."""
    model = build(tiny, hard_negatives=reading, learnable_temperature=True, mask_false_negatives=True).float()
    batch = tiny.batch((2, 1, 3))
    image_features, text_features = model.image_encoder(batch.image), model.text_encoder(batch.reports)
    model.image_encoder.forward = lambda images: image_features
    model.text_encoder.forward = lambda reports: text_features
    with tiny.watch() as watch:
        sum(model(batch).values()).backward()
    assert watch.waits == set()


@pytest.mark.parametrize("points", [40, 1100])  # on their Gram matrix, and not
def test_k_means_never_waits(tiny, points):
    with tiny.watch() as watch:
        spherical_kmeans(torch.randn(points, 8), 10)
    assert watch.waits == set()


def test_the_recipes_are_the_papers():
    recipes = CMCGNS.recipes
    for name in ("paper", "official"):
        recipe = recipes[name]
        assert [stage.epochs for stage in recipe.stages] == [10, 20]
        assert (recipe.optimizer, recipe.learning_rate, recipe.start_learning_rate) == ("adam", 1e-5, 1e-7)
        assert (recipe.weight_decay, recipe.batch_size, recipe.warmup_epochs) == (1e-6, 64, 1.0)
        assert (recipe.image_encoder, recipe.image_size, recipe.pretrained) == ("resnet50.tv_in1k", 224, True)
    one, two = (stage.weights for stage in recipes["paper"].stages)
    assert one == {"global": 1.0, "report": 1.0, "margin": 1.0, "image": 1.0, "film": 0.0}  # film is ours, and off
    assert two == one | {"reconstruction": 10.0}
    assert recipes["official"].stages[0].weights["margin"] == 1e-4
    assert "reconstruction" in SCRATCH.stages[-1].weights
