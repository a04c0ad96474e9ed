"""PRIOR as a whole against its loss written out, from the model's own embeddings."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lingula.keyed import keyed_gumbel, keyed_uniform
from lingula.methods.prior import OF_THE_REPORT, PRIOR, STAGE_1, STAGE_2, STAGE_3

TINY = {
    "dim": 8,
    "prototypes": 5,
    "queries": 4,
    "decoder_layers": 2,
    "decoder_heads": 2,
    "decoder_widths": (4, 4),
    "temperature": 0.1,
}
NAMES = ["global", "local_image", "local_text", "prototypes", "image_reconstruction", "report_reconstruction"]
NAMES += ["prototype_choice", "global_prediction"]
SPREAD = dict(zip(NAMES, (2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0), strict=True))


def build(tiny, **options):
    model = tiny.method("prior", TINY | options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(3)  # a fresh BERT says nearly the same of every sentence
    model.weights = dict(SPREAD)
    return model


def still(model):
    """In training, but for the BatchNorms: what is drawn is drawn, and a literal reference can follow."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


# Lists of Python floats from here on.


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def times(matrix, x):
    return [dot(row, x) for row in matrix]


def apart(a, b):
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)


def softmax(logits):
    total = sum(math.exp(logit - max(logits)) for logit in logits)
    return [math.exp(logit - max(logits)) / total for logit in logits]


def literal_infonce(query, key, tau):
    total = 0.0
    for i in range(len(query)):
        denominator = sum(math.exp(cos(query[i], key[j]) / tau) for j in range(len(key)))
        total += -math.log(math.exp(cos(query[i], key[i]) / tau) / denominator)
    return total / len(query)


def both_ways(one, other, tau):
    return (literal_infonce(one, other, tau) + literal_infonce(other, one, tau)) / 2


def literal_attention(w, queries, keys, modality, other):
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


def literal_mixture(sentence, prototypes, noise, tau=0.9):
    logits = [(dot(sentence, e) + g) / tau for e, g in zip(prototypes, noise, strict=True)]
    shares = softmax(logits)
    return [sum(share * e[d] for share, e in zip(shares, prototypes, strict=True)) for d in range(len(sentence))]


def pooled(model, sets):
    """Each set alone, without padding."""
    return [model.report_pool(torch.tensor([own], dtype=torch.float64))[0].tolist() for own in sets]


def literal_terms(model, batch, tau, bank=True):
    reports, size, prototypes = batch.reports, len(batch), model.bank.prototypes.tolist()
    seen = model.encode_image(batch.image)
    features, image, patches = seen.features, seen.embedding, seen.patches
    image, grid = image.tolist(), features.grid
    # Linear before the mean over a sentence's tokens, as the released code has it.
    tokens = model.text_encoder(reports).tokens
    weight, bias = model.sentence_projection.weight.tolist(), model.sentence_projection.bias.tolist()
    sentences = []
    for n in range(reports.sentence_count):
        own = [
            [a + b for a, b in zip(times(weight, token), bias, strict=True)]
            for token in tokens[reports.sentence_of_token == n].tolist()
        ]
        sentences.append([sum(token[d] for token in own) / len(own) for d in range(len(bias))])
    count, silence = len(sentences), [[0.0] * len(prototypes)] * len(sentences)
    first = second = silence
    if model.training:
        first, second = (keyed_gumbel(batch.seed + k, reports.sentence_key, len(prototypes)).tolist() for k in (1, 2))
    said = sentences
    if bank:
        said = [literal_mixture(s, prototypes, g) for s, g in zip(sentences, first, strict=True)]

    owner = reports.report_of_sentence.tolist()
    places = [[n for n in range(count) if owner[n] == b] for b in range(size)]
    own = [[said[n] for n in places[b]] for b in range(size)]
    report = pooled(model, own)
    terms = {"global": both_ways(image, report, tau)}

    w = {name: p.tolist() for name, p in model.cross_attention.named_parameters()}
    rows = patches.tolist()
    to_image = [literal_attention(w, rows[b], own[b], "image", "text") for b in range(size)]
    to_report = [literal_attention(w, own[b], rows[b], "text", "image") for b in range(size)]

    one, two = model.predictor[0], model.predictor[2]

    def predict(x):
        hidden = [max(0.0, h + b) for h, b in zip(times(one.weight.tolist(), x), one.bias.tolist(), strict=True)]
        return [o + b for o, b in zip(times(two.weight.tolist(), hidden), two.bias.tolist(), strict=True)]

    agree = [
        (cos(predict(x), y) + cos(predict(y), x)) / 2
        for b in range(size)
        for x, y in zip(rows[b], to_image[b], strict=True)
    ]
    terms["local_image"] = -sum(agree) / len(agree)
    terms["local_text"] = sum(both_ways(own[b], to_report[b], tau) for b in range(size)) / size
    terms["prototypes"] = sum(apart(a, b) for a, b in zip(said, sentences, strict=True)) / count

    width = len(said[0])
    fused = torch.zeros(size, 2 * width, *grid, dtype=torch.float64)
    draws = keyed_uniform(batch.seed, batch.rows, width).tolist()
    for b in range(size):
        for p in range(len(rows[b])):
            for d in range(width):
                factor = 1.0
                if model.training:
                    factor = 0.0 if draws[b][d] < 0.5 else 2.0
                fused[b, d, p // grid[1], p % grid[1]] = factor * rows[b][p][d]
                fused[b, width + d, p // grid[1], p % grid[1]] = to_image[b][p][d]
    painted = model.image_decoder(fused)
    terms["image_reconstruction"] = apart(painted.flatten().tolist(), batch.image.flatten().tolist())

    made = model.predict(patches).tolist()
    reconstruction, divergence, predicted = 0.0, [], []
    for b in range(size):
        targets = places[b][: len(made[b])]
        choices = itertools.permutations(range(len(made[b])), len(targets))
        cost, chosen = min(
            (sum(apart(made[b][q], said[n]) for q, n in zip(choice, targets, strict=True)), choice)
            for choice in choices
        )
        reconstruction += cost / len(targets)
        for q, n in zip(chosen, targets, strict=True):
            here = softmax([dot(made[b][q], e) for e in prototypes])
            there = softmax([dot(sentences[n], e) for e in prototypes])
            divergence.append(sum(t * math.log(t / h) for t, h in zip(there, here, strict=True)))
        pairs = zip(chosen, targets, strict=True)
        if bank:
            predicted.append([literal_mixture(made[b][q], prototypes, second[n]) for q, n in pairs])
        else:
            predicted.append([made[b][q] for q, _ in pairs])
    terms["report_reconstruction"] = reconstruction / size
    terms["prototype_choice"] = sum(divergence) / len(divergence)
    terms["global_prediction"] = both_ways(pooled(model, predicted), report, tau)
    return terms


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("sentence_counts", [(2, 4), (3, 1, 2, 6, 2)], ids=str)  # 6 is more than there are queries
def test_the_loss(tiny, sentence_counts, training):
    model = still(build(tiny)) if training else build(tiny).eval()
    batch = tiny.double(tiny.batch(sentence_counts))
    expected = literal_terms(model, batch, 0.1)
    terms = model(batch)
    assert set(terms) == set(NAMES)
    for name, weight in SPREAD.items():
        # log tau is kept in float32
        assert terms[name].item() == pytest.approx(weight * expected[name], rel=2e-6, abs=1e-9), name


def test_without_the_term_of_the_bank_sentences_stay_as_they_are(tiny):
    model, batch = build(tiny).eval(), tiny.double(tiny.batch((2, 1, 3)))
    model.weights = dict(SPREAD) | {"prototypes": 0.0}
    expected = literal_terms(model, batch, 0.1, bank=False)
    terms = model(batch)
    assert set(terms) == set(NAMES) - {"prototypes"}
    for name, term in terms.items():
        assert term.item() == pytest.approx(SPREAD[name] * expected[name], rel=2e-6, abs=1e-9), name


@pytest.mark.parametrize("stage", [STAGE_1, STAGE_2, STAGE_3], ids=["1", "2", "3"])
def test_the_stages(tiny, stage, monkeypatch):
    model, batch = build(tiny), tiny.double(tiny.batch((2, 1, 3)))
    model.weights = dict(stage)
    if "prototypes" not in stage:
        monkeypatch.setattr(model, "bank", None)
    if "image_reconstruction" not in stage:
        monkeypatch.setattr(model, "image_decoder", None)
        monkeypatch.setattr(model, "report_decoder", None)
    terms = model(batch)
    assert set(terms) == set(stage)
    assert set(STAGE_3) >= OF_THE_REPORT


def test_the_bank_is_in_use_from_the_second_stage_on_and_a_checkpoint_knows(tiny):
    model, reports = build(tiny), tiny.batch((2, 1)).reports
    model.weights = dict(STAGE_1)
    model.after_step()
    plain = model.sentence_projection(model.text_encoder(reports).sentences)
    torch.testing.assert_close(model.encode_text(reports).sentences, plain)
    model.weights = dict(STAGE_2)
    model.eval().after_step()
    assert not model.bank_in_use  # evaluation changes nothing
    model.train().after_step()
    assert model.bank_in_use
    other = build(tiny)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.encode_text(reports).sentences, model.bank(plain))
    pooled_alone = model.report_pool(model.bank(plain)[None, :2])[0]
    torch.testing.assert_close(other.encode_text(reports).embedding[0], pooled_alone)


def test_noise_belongs_to_sentences_and_seeds(tiny):
    model, batch = build(tiny).train(), tiny.double(tiny.batch((2, 1, 3)))
    order = [2, 0, 1]
    taken = tiny.take(batch, order)
    places = [n for r in order for n in (batch.reports.report_of_sentence == r).nonzero()[:, 0].tolist()]
    assert torch.equal(model.noise(taken, 1), model.noise(batch, 1)[places])
    assert not torch.equal(model.noise(batch, 1), model.noise(batch, 2))
    assert model.eval().noise(batch, 1) is None


def test_half_of_the_films_channels_are_dropped_everywhere_and_only_in_training(tiny):
    model = build(tiny)
    seen = {}
    model.image_decoder.register_forward_pre_hook(lambda _, inputs: seen.update(fused=inputs[0]))
    ones = torch.ones(64, 4, 8, dtype=torch.float64)
    batch = tiny.double(tiny.batch((1,) * 64))
    model.train().paint(ones, 3 * ones, (2, 2), batch)
    film, said = seen["fused"][:, :8], seen["fused"][:, 8:]
    assert (said == 3).all()  # what the report says is never dropped
    assert film.unique().tolist() == [0.0, 2.0]
    assert film.mean().item() == pytest.approx(1.0, abs=0.2)
    assert (film.amin((2, 3)) == film.amax((2, 3))).all()  # one decision for all places
    assert (film.amin(1) != film.amax(1)).any()
    model.eval().paint(ones, ones, (2, 2), batch)
    assert (seen["fused"] == 1).all()


def test_patches_are_painted_where_they_were(tiny):
    """The released code's reshape would give each place many channels of all places."""
    model = build(tiny).eval()
    seen = {}
    model.image_decoder.register_forward_pre_hook(lambda _, inputs: seen.update(fused=inputs[0]))
    patches = torch.arange(8.0).double().repeat(6, 1)[None] + 100 * torch.arange(6.0).double()[None, :, None]
    model.paint(patches, patches, (2, 3), tiny.batch((1,)))
    for y in range(2):
        for x in range(3):
            assert seen["fused"][0, :8, y, x].tolist() == [100.0 * (3 * y + x) + d for d in range(8)]


def test_the_decoder_is_berts(tiny):
    """Self-attention in both directions, cross-attention and feed-forward, each added and then normalised."""
    model, patches = build(tiny).eval(), torch.randn(2, 4, 8, dtype=torch.float64)
    x = model.queries[None].repeat(2, 1, 1)
    for layer in model.report_decoder:
        x = layer.norm1(x + layer.self_attn(x, x, x)[0])
        x = layer.norm2(x + layer.multihead_attn(x, patches, patches)[0])
        x = layer.norm3(x + layer.linear2(torch.nn.functional.gelu(layer.linear1(x))))
    torch.testing.assert_close(model.predict(patches), x)
    first, second = (layer.linear1.weight for layer in model.report_decoder)
    assert not torch.equal(first, second)  # not one layer copied
    model.queries.data[-1] += 1  # the first query sees the last
    assert (model.predict(patches)[:, 0] - x[:, 0]).abs().max() > 1e-6
    assert not any(m.p for m in model.report_decoder.modules() if isinstance(m, torch.nn.Dropout))


def test_a_report_of_one_sentence_has_no_local_contrast(tiny):
    model = build(tiny).eval()
    terms = model(tiny.double(tiny.batch((1, 1))))
    assert terms["local_text"].item() == pytest.approx(0, abs=1e-12)
    terms = model(tiny.double(tiny.batch((1,))))
    assert terms["global"].item() == terms["global_prediction"].item() == 0.0
    sum(terms.values()).backward()


def test_the_swap_test_can_use_it(tiny):
    model, batch = build(tiny).eval(), tiny.double(tiny.batch((2, 1, 3)))
    patches, sentences = model.encode_image(batch.image).patches, model.encode_text(batch.reports).sentences
    cross = model.cross_attention(patches, sentences, batch.reports)
    maps = model.attention_maps(batch.image, batch.reports)
    torch.testing.assert_close(maps.flatten(1), cross.sentence_weights)
    assert cross.image_to_report.shape == sentences.shape


def test_finite_in_bfloat16_autocast(tiny):
    model = tiny.method("prior", TINY | {"temperature": 0.01})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model(tiny.batch((2, 1, 3)))
    assert set(terms) == set(STAGE_3)
    assert all(term.isfinite() for term in terms.values())
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_errors(tiny):
    with pytest.raises(ValueError, match="width 8 is not divisible by 3 heads of the decoder"):
        build(tiny, decoder_heads=3)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\) and queries be 1 or more, got 1 and 4"):
        build(tiny, dropout=1)
    for temperature in (0.0, 5.0):  # held at the edge there is no gradient, and it would stay there
        with pytest.raises(ValueError, match=rf"temperature must lie in \[0.001, 1.0\].*, got {temperature}"):
            build(tiny, temperature=temperature)


def test_the_recipe_is_the_released_codes():
    recipe = PRIOR.recipes["paper"]
    assert [stage.epochs for stage in recipe.stages] == [20, 30, 100]
    rates = [stage.learning_rate or recipe.learning_rate for stage in recipe.stages]
    assert rates == [1e-5, 1e-5, 5e-6]
    warm_ups = [recipe.warmup_epochs if s.warmup_epochs is None else s.warmup_epochs for s in recipe.stages]
    assert warm_ups == [1, 1, 5]
    assert (recipe.optimizer, recipe.weight_decay, recipe.batch_size) == ("adamw", 1e-6, 98)
    assert (recipe.sentences, recipe.image_size, recipe.resize_to) == ("shuffled", 224, 224)
    assert (STAGE_1["global"], STAGE_3["global"], STAGE_3["prototypes"]) == (1.0, 10.0, 10.0)
    assert [stage.epochs for stage in PRIOR.recipes["scratch"].stages] == [4, 3, 3]
