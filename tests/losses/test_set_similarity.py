"""Similarity of sets against loops over films, reports, observations and sentences, and against every permutation."""

import itertools
import math

import pytest
import torch

from lingula.losses.set_similarity import (
    Pairing,
    _log_plan,
    overlap,
    pair_sets,
    set_similarity,
    sibling_nce,
    similarity_nce,
)

PAIRINGS = [Pairing("soft"), Pairing("hungarian"), Pairing("sinkhorn", epsilon=0.2, steps=4)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def normal(a):
    return [x / math.sqrt(dot(a, a)) for x in a]


def mix(weights, vectors):
    return [dot(weights, column) for column in zip(*vectors, strict=True)]


def shares(values):
    total = sum(values)
    return [value / total for value in values]


def literal_similarity(observations, sentences, pairing):
    """S of one film and one report; lists of Python floats."""
    o, t = [normal(x) for x in observations], [normal(x) for x in sentences]
    if pairing.how == "hungarian":
        if len(o) >= len(t):
            ways = [list(zip(way, range(len(t)), strict=True)) for way in itertools.permutations(range(len(o)), len(t))]
        else:
            ways = [list(zip(range(len(o)), way, strict=True)) for way in itertools.permutations(range(len(t)), len(o))]
        best = max(ways, key=lambda way: sum(cos(o[q], t[m]) for q, m in way))
        return sum(cos(o[q], t[m]) for q, m in best) / len(best)
    if pairing.how == "soft":
        plan = [[math.exp(cos(x, y) / pairing.temperature) for y in t] for x in o]
    else:
        kernel = [[math.exp(cos(x, y) / pairing.epsilon) for y in t] for x in o]
        u, v = [1.0] * len(o), [1.0] * len(t)
        for _ in range(pairing.steps):
            u = [1 / len(o) / dot(row, v) for row in kernel]
            v = [1 / len(t) / sum(kernel[q][m] * u[q] for q in range(len(o))) for m in range(len(t))]
        plan = [[u[q] * kernel[q][m] * v[m] for m in range(len(t))] for q in range(len(o))]
    along = [cos(mix(shares([row[m] for row in plan]), o), t[m]) for m in range(len(t))]
    across = [cos(o[q], mix(shares(plan[q]), t)) for q in range(len(o))]
    return 0.5 * (sum(along) / len(along) + sum(across) / len(across))


def draw(films=3, queries=4, counts=(2, 5, 1), dim=6, seed=0, room=0):
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(films, queries, dim, generator=generator, dtype=torch.float64)
    sentences = torch.randn(len(counts), max(counts) + room, dim, generator=generator, dtype=torch.float64)
    mask = torch.arange(max(counts) + room) < torch.tensor(counts)[:, None]
    return observations, sentences, mask


@pytest.mark.parametrize("pairing", PAIRINGS, ids=lambda pairing: pairing.how)
@pytest.mark.parametrize("counts", [(2, 5, 1), (1,), (4, 3)], ids=str)
@pytest.mark.parametrize("queries", [1, 4])
def test_the_similarity_of_every_film_with_every_report(pairing, counts, queries):
    observations, sentences, mask = draw(3, queries, counts)
    expected = [
        [
            literal_similarity(o.tolist(), s[:count].tolist(), pairing)
            for s, count in zip(sentences, counts, strict=True)
        ]
        for o in observations
    ]
    found = set_similarity(observations, sentences, mask, pairing)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pairing", PAIRINGS, ids=lambda pairing: pairing.how)
def test_gradient(pairing):
    observations, sentences, mask = draw(2, 3, (2, 1), dim=3)
    observations.requires_grad_(), sentences.requires_grad_()
    assert torch.autograd.gradcheck(lambda o, s: set_similarity(o, s, mask, pairing), (observations, sentences))


@pytest.mark.parametrize("pairing", PAIRINGS, ids=lambda pairing: pairing.how)
def test_order_length_rotation_and_padding(pairing):
    observations, sentences, mask = draw(room=2)
    expected = set_similarity(observations, sentences, mask, pairing)
    torch.testing.assert_close(set_similarity(observations[:, [2, 0, 3, 1]], sentences, mask, pairing), expected)
    order = [4, 6, 0, 3, 5, 1, 2]
    torch.testing.assert_close(set_similarity(observations, sentences[:, order], mask[:, order], pairing), expected)
    torch.testing.assert_close(set_similarity(observations, sentences[:, :5], mask[:, :5], pairing), expected)
    filled = torch.where(mask[..., None], sentences, 100.0)
    torch.testing.assert_close(set_similarity(observations, filled, mask, pairing), expected)
    torch.testing.assert_close(set_similarity(observations * 3, sentences / 7, mask, pairing), expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(set_similarity(observations @ rotation, sentences @ rotation, mask, pairing), expected)


@pytest.mark.parametrize("pairing", PAIRINGS, ids=lambda pairing: pairing.how)
def test_equal_sets_of_distant_vectors_are_wholly_alike(pairing):
    same = torch.eye(4, dtype=torch.float64)[None]
    sharp = Pairing(pairing.how, temperature=0.01, epsilon=0.01, steps=10)
    found = set_similarity(same, same[:, [2, 0, 3, 1]], torch.ones(1, 4, dtype=torch.bool), sharp)
    assert found.item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("pairing", PAIRINGS, ids=lambda pairing: pairing.how)
def test_chunks_change_neither_value_nor_gradient(pairing):
    found = []
    for chunk in (64, 2, 1):
        observations, sentences, mask = draw(counts=(2, 5, 1, 3, 4))
        observations.requires_grad_(), sentences.requires_grad_()
        similarity = set_similarity(observations, sentences, mask, pairing, chunk)
        (similarity * torch.arange(15).view(3, 5)).sum().backward()
        found.append((similarity.detach(), observations.grad, sentences.grad))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(two, one)


@pytest.mark.parametrize("pairing", PAIRINGS, ids=lambda pairing: pairing.how)
def test_a_report_without_sentences(pairing):
    observations, sentences, mask = draw()
    mask[1] = False
    observations.requires_grad_(), sentences.requires_grad_()
    similarity = set_similarity(observations, sentences, mask, pairing)
    assert (similarity[:, 1] == 0).all()
    assert (similarity[:, [0, 2]] != 0).all()
    similarity.sum().backward()
    assert observations.grad.isfinite().all()
    assert (sentences.grad[1] == 0).all()


def test_the_transport_plan_has_equal_mass_on_either_side():
    observations, sentences, mask = draw(1, 4, (3,), room=2)
    cosines = torch.nn.functional.normalize(observations, dim=-1) @ sentences.transpose(1, 2)
    plan = _log_plan(cosines, mask, epsilon=0.5, steps=200).exp()
    torch.testing.assert_close(plan.sum(2), torch.full((1, 4), 1 / 4, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1)[:, :3], torch.full((1, 3), 1 / 3, dtype=torch.float64))
    assert (plan[:, :, 3:] == 0).all()


def test_one_to_one_leaves_over_what_does_not_fit():
    for queries, sentences in ((4, 2), (2, 4)):
        cosines = torch.rand(3, queries, sentences)
        chosen, again = pair_sets(cosines, torch.ones(3, sentences, dtype=torch.bool), Pairing("hungarian"))
        assert torch.equal(chosen, again)
        assert chosen.sum((1, 2)).tolist() == [2.0] * 3
        assert chosen.sum(1).max() == chosen.sum(2).max() == 1
        assert not chosen.requires_grad


def test_weights_add_up_to_one_where_there_is_a_sentence():
    observations, sentences, mask = draw(room=1)
    cosines = torch.einsum("iqd,jsd->ijqs", observations, sentences)
    for pairing in PAIRINGS[::2]:
        to_sentences, to_observations = pair_sets(cosines, mask, pairing)
        torch.testing.assert_close(to_sentences.sum(2), mask.double().expand(3, 3, 6))
        torch.testing.assert_close(to_observations.sum(3), torch.ones(3, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("pairing", PAIRINGS, ids=lambda pairing: pairing.how)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_full_precision_under_autocast(pairing, kind):
    observations, sentences, mask = draw()
    observations, sentences = observations.float().requires_grad_(), sentences.float()
    sharp = Pairing(pairing.how, temperature=0.01, epsilon=0.01)
    expected = set_similarity(observations, sentences, mask, sharp)
    with torch.autocast("cpu", dtype=kind):
        found = set_similarity(observations, sentences, mask, sharp)
        half = set_similarity(observations.to(kind), sentences.to(kind), mask, sharp)
        inside = sibling_nce(sentences.to(kind), sentences.to(kind), mask, 0.01)
        alike = overlap(observations.to(kind))
    assert found.dtype == half.dtype == inside.dtype == alike.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert all(x.isfinite().all() for x in (half, inside, alike))
    half.sum().backward()
    assert observations.grad.isfinite().all()


def literal_nce(similarity, positive, excluded, tau):
    losses = []
    for i, row in enumerate(similarity):
        total = 0.0
        for j, value in enumerate(row):
            if j == positive[i] or not excluded[i][j]:
                total += math.exp(value / tau)
        losses.append(math.log(total) - row[positive[i]] / tau)
    return torch.tensor(losses, dtype=torch.float64)


def test_info_nce_of_similarities_leaves_out_what_it_is_told_to():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    excluded = torch.rand(3, 5, generator=generator) < 0.5
    positive = torch.tensor([2, 0, 4])
    excluded[0, 2] = True  # a positive stays
    expected = literal_nce(similarity.tolist(), positive.tolist(), excluded.tolist(), 0.3)
    torch.testing.assert_close(similarity_nce(similarity, positive, excluded, 0.3), expected)
    everything = torch.ones(3, 5, dtype=torch.bool)
    assert similarity_nce(similarity, positive, everything, 0.3).tolist() == [0.0] * 3
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: similarity_nce(s, positive, excluded, 0.3), similarity)


def literal_siblings(drawn, sentences, tau):
    total = 0.0
    for m in range(len(drawn)):
        one = sum(math.exp(cos(drawn[m], sentences[k]) / tau) for k in range(len(drawn)))
        other = sum(math.exp(cos(drawn[k], sentences[m]) / tau) for k in range(len(drawn)))
        total += 0.5 * (math.log(one) + math.log(other)) - cos(drawn[m], sentences[m]) / tau
    return total / len(drawn)


def test_siblings():
    counts = (2, 5, 1)
    _, sentences, mask = draw(counts=counts, room=1)
    _, drawn, _ = draw(counts=counts, room=1, seed=1)
    expected = [
        literal_siblings(d[:n].tolist(), s[:n].tolist(), 0.2) for d, s, n in zip(drawn, sentences, counts, strict=True)
    ]
    found = sibling_nce(drawn, sentences, mask, 0.2)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found[2] == 0  # one sentence has no siblings
    assert sibling_nce(drawn, sentences, torch.zeros_like(mask), 0.2).tolist() == [0.0] * 3
    same = torch.ones(1, 4, 6, dtype=torch.float64)
    assert sibling_nce(same, same, torch.ones(1, 4, dtype=torch.bool), 0.1).item() == pytest.approx(math.log(4))
    drawn.requires_grad_(), sentences.requires_grad_()
    assert torch.autograd.gradcheck(lambda d, s: sibling_nce(d, s, mask, 0.2), (drawn, sentences))


def test_overlap():
    observations, *_ = draw(2, 4)
    expected = [
        sum(cos(a, b) ** 2 for q, a in enumerate(film) for r, b in enumerate(film) if q != r) / 12
        for film in observations.tolist()
    ]
    torch.testing.assert_close(overlap(observations), torch.tensor(expected, dtype=torch.float64))
    assert overlap(torch.eye(3)[None]).item() == 0
    assert overlap(torch.ones(1, 3, 2)).item() == pytest.approx(1)
    assert overlap(torch.ones(1, 1, 2)).item() == 0
    assert torch.autograd.gradcheck(overlap, observations.requires_grad_())


def test_errors():
    with pytest.raises(ValueError, match="pairing must be one of soft, hungarian, sinkhorn, got 'greedy'"):
        Pairing("greedy")
    with pytest.raises(ValueError, match=r"steps >= 1, got 0\.0, 0\.05 and 5"):
        Pairing(temperature=0.0)
    observations, sentences, mask = draw()
    with pytest.raises(ValueError, match=r"must fit, got \(3, 4, 6\), \(3, 5, 6\) and \(3, 4\)"):
        set_similarity(observations, sentences, mask[:, 1:], Pairing())
    with pytest.raises(ValueError, match=r"similarity and excluded must match, got \(2, 3\) and \(2, 2\)"):
        similarity_nce(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(2, 2, dtype=torch.bool), 1.0)
    with pytest.raises(ValueError, match=r"must match, got \(3, 4, 6\), \(3, 5, 6\) and \(3, 5\)"):
        sibling_nce(observations, sentences, mask, 1.0)
