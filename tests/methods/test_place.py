"""PLACE as a whole against sums written out, from the model's own embeddings, and what is special in it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lingula.keyed import keyed_uniform
from lingula.losses.set_similarity import pair_sets, set_similarity
from lingula.methods import place
from lingula.methods.place import PLACE

TINY = {"dim": 8, "hidden": 12, "queries": 3, "heads": 2}
WEIGHTS = {"global": 2.0, "pathology": 3.0, "correlation": 5.0, "diversity": 7.0}


def build(tiny, **options):
    model = tiny.method("place", TINY | options).double().eval()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every sentence
        model.extractor.queries.mul_(50)
    model.weights = dict(WEIGHTS)
    return model


def draw(tiny, counts=(2, 4, 1), seed=0):
    return tiny.double(tiny.batch(counts, seed))


def twins(tiny, counts=(2, 1, 2)):
    """A batch whose first and last reports are the same tokens."""
    batch = draw(tiny, counts)
    r = batch.reports
    ids, mask, words, places = (x.clone() for x in (r.token_ids, r.token_mask, r.word_of_token, r.sentence_of_token))
    ids[-1], mask[-1], words[-1] = ids[0], mask[0], words[0]
    places[-1] = torch.where(places[0] < 0, -1, places[0] + r.sentence_count - counts[0])
    return replace(
        batch, reports=replace(r, token_ids=ids, token_mask=mask, word_of_token=words, sentence_of_token=places)
    )


# Lists of Python floats from here on.


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def mix(weights, vectors):
    return [dot(weights, column) for column in zip(*vectors, strict=True)]


def mean(values):
    return sum(values) / len(values)


def nce(similarity, excluded, tau):
    """Mean of InfoNCE over the rows of a square matrix, positives on the diagonal."""
    size = range(len(similarity))
    return mean(
        [
            math.log(sum(math.exp(similarity[i][j] / tau) for j in size if j == i or (i, j) not in excluded))
            - similarity[i][i] / tau
            for i in size
        ]
    )


def transposed(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def draws(observations, sentences, pairing):
    """What each sentence and each observation draws, of one film and one report alone; ``None`` for the unpaired."""
    o, t = ([[x / math.sqrt(dot(a, a)) for x in a] for a in some] for some in (observations, sentences))
    cosines = torch.tensor([[dot(x, y) for y in t] for x in o], dtype=torch.float64)
    to_sentences, to_observations = pair_sets(cosines[None], torch.ones(1, len(t), dtype=torch.bool), pairing)
    columns, rows = to_sentences[0].T.tolist(), to_observations[0].tolist()
    return (
        [mix(column, o) if sum(column) > 0.5 else None for column in columns],
        [mix(row, t) if sum(row) > 0.5 else None for row in rows],
    )


def literal_similarity(observations, sentences, pairing):
    along, across = draws(observations, sentences, pairing)
    return 0.5 * mean([cos(a, t) for a, t in zip(along, sentences, strict=True) if a]) + 0.5 * mean(
        [cos(a, o) for a, o in zip(across, observations, strict=True) if a]
    )


def literal_siblings(observations, sentences, pairing, tau):
    pairs = [(a, t) for a, t in zip(draws(observations, sentences, pairing)[0], sentences, strict=True) if a]
    similarity = [[cos(a, t) for _, t in pairs] for a, _ in pairs]
    return 0.5 * nce(similarity, (), tau) + 0.5 * nce(transposed(similarity), (), tau)


def literal_correlation(model, batch):
    """The error over pairs, for each film alone."""
    patches, tokens = model.encode_image(batch.image).patches, model.encode_text(batch.reports).features.tokens
    h, w = model.image_encoder.grid
    count = h * w
    draws = keyed_uniform(batch.seed, batch.rows, count).tolist()
    losses = []
    for film, luck in enumerate(draws):
        hidden = sorted(range(count), key=lambda p, luck=luck: luck[p])[: round(model.mask_share * count)]
        masked = torch.tensor([[p in hidden for p in range(count)]])
        real = batch.reports.token_mask[film].nonzero()[:, 0]
        z = model.masked_patches(
            patches[film : film + 1], masked, tokens[film : film + 1, real], torch.ones(1, len(real), dtype=torch.bool)
        )[0].tolist()
        middle = [mean(column) for column in zip(*z, strict=True)]
        z = [[x - m for x, m in zip(a, middle, strict=True)] for a in z]
        if model.momentum_encoder is None:
            side, shown = batch.image.shape[-1] // h, batch.image[film, 0]
            x = []
            for p in range(count):
                row, column, step = p // w * side, p % w * side, side // 8
                greys = [
                    shown[row + a * step : row + (a + 1) * step, column + b * step : column + (b + 1) * step].mean()
                    for a in range(8)
                    for b in range(8)
                ]
                greys = [grey.item() for grey in greys]
                x.append([grey - mean(greys) for grey in greys])
        else:
            x = model.momentum_encoder.copy(batch.image).patches[film].tolist()
            middle = [mean(column) for column in zip(*x, strict=True)]
            x = [[a - m for a, m in zip(patch, middle, strict=True)] for patch in x]
        flat = [p for p in range(count) if math.sqrt(mean([a * a for a in x[p]])) < 1e-3]
        errors = []
        for p in range(count):
            for other in range(count):
                if p != other and (p in hidden or other in hidden) and p not in flat and other not in flat:
                    d = abs(cos(z[p], z[other]) - cos(x[p], x[other]))
                    errors.append(0.5 * d * d if d < 1 else d - 0.5)
        losses.append(mean(errors) if errors else 0.0)
    return mean(losses)


def literal_terms(model, batch, tau=0.07, tau_sets=0.1, lambda_in=0.5):
    reports = batch.reports
    seen = model.encode_image(batch.image)
    image, patches = seen.embedding, seen.patches
    told = model.encode_text(reports)
    report, sentences = told.embedding, told.sentences
    observations = model.extractor(patches)[0].tolist()
    owner, size = reports.report_of_sentence.tolist(), range(len(batch))
    sets = [[s for s, o in zip(sentences.tolist(), owner, strict=True) if o == b] for b in size]
    said = [reports.token_ids[b][reports.token_mask[b]].tolist() for b in size]
    same = [(i, j) for i in size for j in size if said[i] == said[j]]
    wholes = [[cos(v, t) for t in report.tolist()] for v in image.tolist()]
    terms = {"global": 0.5 * nce(wholes, (), tau) + 0.5 * nce(transposed(wholes), (), tau)}
    similarity = [[literal_similarity(o, s, model.pairing) for s in sets] for o in observations]
    between = 0.5 * nce(similarity, same, tau_sets) + 0.5 * nce(transposed(similarity), same, tau_sets)
    inside = [literal_siblings(o, s, model.pairing, tau_sets) for o, s in zip(observations, sets, strict=True)]
    terms["pathology"] = between + lambda_in * mean(inside)
    terms["correlation"] = literal_correlation(model, batch)
    terms["diversity"] = mean(
        [cos(a, b) ** 2 for film in observations for q, a in enumerate(film) for r, b in enumerate(film) if q != r]
    )
    return terms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairing": "hungarian"},
        {"pairing": "sinkhorn"},
        {"target": "ema"},
        {"temperature": 0.3, "set_temperature": 0.5, "pairing_temperature": 0.7, "lambda_in": 2.0, "mask_share": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [draw, twins], ids=["", "twins"])
def test_the_sums(tiny, make, options):
    model, batch = build(tiny, **options), make(tiny)
    constants = {"temperature": "tau", "set_temperature": "tau_sets", "lambda_in": "lambda_in"}
    expected = literal_terms(model, batch, **{constants[k]: x for k, x in options.items() if k in constants})
    terms = model(batch)
    assert set(terms) == set(WEIGHTS)
    for name, weight in WEIGHTS.items():
        assert terms[name].item() == pytest.approx(weight * expected[name], rel=1e-8, abs=1e-10), name


def test_reports_of_the_same_tokens_are_no_negatives(tiny):
    model, batch = build(tiny, lambda_in=0.0), twins(tiny)
    assert model.same_text(batch.reports).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert model.same_text(tiny.pad(batch).reports).tolist() == model.same_text(batch.reports).tolist()
    meaning = torch.zeros(batch.reports.sentence_count, dtype=torch.int64)  # known for phantoms: not to be looked at
    told = replace(batch, reports=replace(batch.reports, meaning=meaning))
    assert model(told)["pathology"] == model(batch)["pathology"]


def test_a_term_without_weight_is_not_computed(tiny, monkeypatch):
    model, batch = build(tiny), draw(tiny)
    monkeypatch.setattr(model, "masked_patches", None)
    model.weights = {"global": 1.0, "pathology": 1.0, "correlation": 0.0}
    assert list(model(batch)) == ["global", "pathology"]
    monkeypatch.setattr(model, "pathology_loss", None)
    model.weights = {"diversity": 1.0}
    assert list(model(batch)) == ["diversity"]
    monkeypatch.setattr(model, "extractor", None)
    model.weights = {"global": 1.0}
    assert list(model(batch)) == ["global"]


def test_the_order_of_the_queries_does_not_matter(tiny):
    model, batch = build(tiny), draw(tiny)
    expected = model(batch)
    maps = model.attention_maps(batch.image, batch.reports)
    with torch.no_grad():
        model.extractor.queries.copy_(model.extractor.queries[[2, 0, 1]])
    for name, term in model(batch).items():
        torch.testing.assert_close(term, expected[name], msg=name)
    torch.testing.assert_close(model.attention_maps(batch.image, batch.reports), maps)


@pytest.mark.parametrize("pairing", ["soft", "hungarian", "sinkhorn"])
def test_reports_of_one_sentence_have_no_siblings(tiny, pairing):
    batch = draw(tiny, (1, 1, 1))
    model, without = build(tiny, pairing=pairing), build(tiny, pairing=pairing, lambda_in=0.0)
    assert model(batch)["pathology"] == without(batch)["pathology"]


def test_only_the_first_sentences_of_a_long_report_are_aligned_but_all_are_looked_for(tiny):
    batch = draw(tiny, (20, 2))
    assert build(tiny)(batch)["pathology"] == build(tiny, max_sentences=16)(batch)["pathology"]
    assert build(tiny, max_sentences=20)(batch)["pathology"] != build(tiny)(batch)["pathology"]
    model = build(tiny, max_sentences=3)
    sentences = model.encode_text(batch.reports).sentences
    sets, mask = model.sentence_sets(sentences, batch.reports)
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert torch.equal(sets[0], sentences[:3])
    assert len(model.attention_maps(batch.image, batch.reports)) == 22


@pytest.mark.parametrize("pairing", ["soft", "hungarian", "sinkhorn"])
def test_a_report_without_sentences_is_as_if_it_were_not_there(tiny, pairing):
    model, batch = build(tiny, pairing=pairing, lambda_in=0.0), draw(tiny, (2, 0, 3))
    terms = model(batch)
    torch.testing.assert_close(terms["pathology"], model(tiny.take(batch, [0, 2]))["pathology"])
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_other_processes_pad_to_changes_nothing(tiny, monkeypatch):
    model, batch = build(tiny), twins(tiny)
    expected = model(batch)
    monkeypatch.setattr(place, "row_counts", lambda count, device: [count, count + 3])
    assert model.sentence_sets(model.encode_text(batch.reports).sentences, batch.reports)[1].shape == (3, 5)
    for name, term in model(batch).items():
        torch.testing.assert_close(term, expected[name], msg=name)


def test_what_is_hidden_belongs_to_the_step_and_the_film(tiny):
    model = build(tiny, mask_share=0.3)
    batch = draw(tiny, (1, 1, 1, 1))
    hidden = model.hide(batch, 10)
    assert hidden.sum(1).tolist() == [3] * 4
    assert len({tuple(row) for row in hidden.tolist()}) > 1
    assert torch.equal(model.hide(tiny.take(batch, [2, 0, 3, 1]), 10), hidden[[2, 0, 3, 1]])
    assert not torch.equal(model.hide(replace(batch, seed=8), 10), hidden)
    assert model.hide(batch, 1).all()


def test_black_margins_have_no_correlations(tiny):
    model, batch = build(tiny), draw(tiny)
    batch.images[0, :, :, :16] = -1.0  # two patches of four
    batch.images[1] = -1.0  # all
    correlations, varies = model.correlations(batch)
    assert varies.tolist() == [[False, False, True, True], [False] * 4, [True] * 4]
    assert correlations[2].diagonal().tolist() == pytest.approx([1.0] * 4)
    assert model(batch)["correlation"].item() == pytest.approx(
        WEIGHTS["correlation"] * literal_correlation(model, batch)
    )


def test_a_perfect_prediction_costs_nothing(tiny, monkeypatch):
    model, batch = build(tiny), draw(tiny)
    target, varies = model.correlations(batch)
    assert varies.all()
    monkeypatch.setattr(place, "correlation", lambda *args, **kwargs: (target, varies))
    assert model(batch)["correlation"] == 0


def test_the_momentum_encoder_is_built_when_asked_and_follows(tiny):
    assert build(tiny).momentum_encoder is None
    model, batch = build(tiny, target="ema", momentum=0.75), draw(tiny)
    before = [p.clone() for p in model.momentum_encoder.parameters()]
    with torch.no_grad():
        for p in model.image_encoder.parameters():
            p.add_(1.0)
    model.after_step()  # not in training
    assert all(torch.equal(p, b) for p, b in zip(model.momentum_encoder.parameters(), before, strict=True))
    model.train().after_step()
    for p, b, q in zip(model.momentum_encoder.parameters(), before, model.image_encoder.parameters(), strict=True):
        torch.testing.assert_close(p, 0.75 * b + 0.25 * q)
    model.weights = {"correlation": 1.0}
    model(batch)["correlation"].backward()
    assert all(p.grad is None for p in model.momentum_encoder.parameters())


def test_the_gap_is_between_the_own_report_and_the_next(tiny):
    model, batch = build(tiny), draw(tiny)
    own, swapped = model.correlation_gap(batch)
    model.weights = {"correlation": 1.0}
    assert own == model(batch)["correlation"]
    reports = tiny.take(batch, [1, 2, 0]).reports
    assert swapped.item() == pytest.approx(model(replace(batch, reports=reports))["correlation"].item())
    assert own != swapped


def test_each_sentence_draws_the_observations_it_is_paired_with_and_looks_where_they_were_seen(tiny):
    model, batch = build(tiny, pairing="hungarian"), draw(tiny)  # the pairing of the maps is soft all the same
    patches, sentences = model.encode_image(batch.image).patches, model.encode_text(batch.reports).sentences
    observations, seen = model.extractor(patches)
    observed = model.cross_attention(patches, sentences, batch.reports)
    maps = model.attention_maps(batch.image, batch.reports)
    for n, own in enumerate(batch.reports.report_of_sentence.tolist()):
        cosines = [cos(o, sentences[n].tolist()) for o in observations[own].tolist()]
        shares = [math.exp(c / 0.1) for c in cosines]
        shares = torch.tensor([share / sum(shares) for share in shares], dtype=torch.float64)
        torch.testing.assert_close(maps[n].flatten(), shares @ seen[own])
        unit = observations[own] / observations[own].norm(dim=1, keepdim=True)
        torch.testing.assert_close(observed.image_to_report[n], shares @ unit)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(7, dtype=torch.float64))


def test_films_of_another_size_have_maps_too(tiny):
    model, batch = build(tiny), draw(tiny)
    larger = torch.nn.functional.interpolate(batch.image, scale_factor=2.0)
    assert model.attention_maps(larger, batch.reports).shape == (7, 4, 4)


def train(model, batch, steps, learning_rate=3e-3):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
        model.after_step()


@pytest.mark.parametrize("pairing", ["soft", "hungarian", "sinkhorn"])
def test_eight_pairs_are_learnt_until_each_film_has_its_report(tiny, pairing):
    model, batch = build(tiny, pairing=pairing, dim=16), draw(tiny, (2, 1, 3, 2, 1, 4, 2, 3))
    model.train().weights = {"pathology": 1.0}
    train(model, batch, 40)
    observations, _ = model.extractor(model.encode_image(batch.image).patches)
    sets, mask = model.sentence_sets(model.encode_text(batch.reports).sentences, batch.reports)
    similarity = set_similarity(observations, sets, mask, model.pairing)
    assert similarity.argmax(0).tolist() == similarity.argmax(1).tolist() == list(range(8))


def test_reports_can_be_of_use_for_the_correlations(tiny):
    model, batch = build(tiny, dim=16), draw(tiny, (2, 1, 3, 2))
    model.train().weights = {"correlation": 1.0}
    train(model, batch, 60)
    own, swapped = model.correlation_gap(batch)
    assert swapped > 1.5 * own


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"pairing": "hungarian"}, {"pairing": "sinkhorn", "target": "ema"}], ids=str)
def test_finite_in_half_precision(tiny, options, kind):
    model = tiny.method("place", TINY | options)
    with torch.autocast("cpu", dtype=kind):
        terms = model(tiny.batch((2, 1, 3)))
    assert all(term.isfinite() for term in terms.values())
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("options", [{}, {"pairing": "sinkhorn"}, {"target": "ema"}], ids=str)
def test_the_host_never_waits(tiny, options):
    """From the encoders' features to the terms; what happens inside a borrowed encoder is its own affair."""
    model = build(tiny, **options)
    batch = draw(tiny)
    image_features, text_features = model.image_encoder(batch.image), model.text_encoder(batch.reports)
    model.image_encoder.forward = lambda images: image_features
    model.text_encoder.forward = lambda reports: text_features
    with tiny.watch() as watch:
        sum(model(batch).values()).backward()
    assert watch.waits == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "teacher"}, "target must be one of pixel, ema, got 'teacher'"),
        ({"pairing": "best"}, "pairing must be one of soft, hungarian, sinkhorn, got 'best'"),
        ({"mask_share": 1.0}, r"mask_share in \(0, 1\), max_sentences >= 1 and lambda_in >= 0, got 1.0, 16 and 0.5"),
        ({"temperature": 0.0}, r"temperatures must be positive, got 0.0 and 0.1"),
        ({"heads": 3}, "divisible by the heads, got 3 queries, 2 layers, width 8 and 3 heads"),
    ],
    ids=str,
)
def test_errors(tiny, options, words):
    with pytest.raises(ValueError, match=words):
        tiny.method("place", TINY | options)


def test_it_says_what_it_is():
    for text in (place.__doc__, PLACE.__doc__):
        assert "re-implementation from the abstract; details ours" in " ".join(text.split())
