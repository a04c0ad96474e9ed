"""Eqs. 7-9 of CM-CGNS against literal sums over sentences, representations and centres."""

import math

import pytest
import torch

from lingula.losses.cluster_guided import (
    HARD_NEGATIVES,
    bidirectional_margin,
    cluster_guided_nce,
    count,
    false_negative_mask,
    rank_centres,
)
from lingula.losses.cosine import cosine

# Lists of Python floats in, one sum per sum of the equation; nothing shared with the code.


def literal_cosine(a, b):
    product = length_a = length_b = 0.0
    for x, y in zip(a, b, strict=True):
        product += x * y
        length_a += x * x
        length_b += y * y
    return product / math.sqrt(length_a) / math.sqrt(length_b)


def literal_order(sentence, centres):
    """c^1, c^2, ..., c^K of a sentence: "we sort the cluster centers in descending order"."""
    return sorted(range(len(centres)), key=lambda k: -literal_cosine(sentence, centres[k]))


def literal_nce(f, v, centres, tau, mu, reading, excluded=None):
    sentences, clusters = len(f), len(centres)
    order = [literal_order(f[j], centres) for j in range(sentences)]
    losses = []
    for j in range(sentences):
        denominator = 0.0
        for k in range(sentences):
            if excluded is None or not excluded[j][k]:
                denominator += math.exp(literal_cosine(f[j], v[k]) / tau)
        if clusters >= 2 and reading == "others":
            for r in range(1, clusters):
                weight = mu if r == 1 else 1.0
                denominator += weight * math.exp(literal_cosine(f[j], centres[order[j][r]]) / tau)
        elif clusters >= 2 and reading == "own":
            denominator += mu * math.exp(literal_cosine(f[j], centres[order[j][1]]) / tau)
        elif clusters >= 2 and reading == "batch":
            for k in range(sentences):
                if order[k][1] != order[j][0]:
                    weight = mu if k == j else 1.0
                    denominator += weight * math.exp(literal_cosine(f[j], centres[order[k][1]]) / tau)
        elif clusters >= 2 and reading == "official":
            denominator += math.exp(mu * literal_cosine(f[j], centres[order[j][1]]) / tau)
            for k in range(sentences):
                if k != j:
                    denominator += math.exp(0.0)
        losses.append(-math.log(math.exp(literal_cosine(f[j], v[j]) / tau) / denominator))
    return torch.tensor(losses, dtype=torch.float64)


def literal_false_negatives(f, v, centres):
    """Eq. 8: k != j whose v_k lies nearest to the centre that is nearest to f_j."""
    cluster = [literal_order(v[k], centres)[0] for k in range(len(v))]
    return [[k != j and cluster[k] == literal_order(f[j], centres)[0] for k in range(len(v))] for j in range(len(f))]


def literal_margin(f, v, pairs, alpha, beta):
    losses = []
    for j in range(len(f)):
        total = 0.0
        for k in range(len(v)):
            if pairs[j][k]:
                delta = literal_cosine(f[j], v[k]) - literal_cosine(f[j], v[j])
                total += max(0.0, delta + alpha) + max(0.0, -delta - beta)
        losses.append(total)
    return torch.tensor(losses, dtype=torch.float64)


def draw(sentences, clusters, dim=6, seed=0):
    """Sentences, what they draw from their films, centres of unit length."""
    generator = torch.Generator().manual_seed(seed)
    f, v, c = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (sentences, sentences, clusters))
    v = v + f
    return f, v, c / c.norm(dim=1, keepdim=True)


def nce(f, v, c, tau=0.1, mu=3.0, reading="others", **more):
    return cluster_guided_nce(cosine(f, v), cosine(f, c), torch.arange(len(f)), tau, mu, reading, **more)


SIZES = [(1, 2), (2, 2), (5, 2), (5, 3), (5, 5), (9, 4), (17, 8)]


@pytest.mark.parametrize("reading", HARD_NEGATIVES)
@pytest.mark.parametrize(("sentences", "clusters"), SIZES)
def test_equation_7(sentences, clusters, reading):
    for seed, tau, mu in ((0, 0.1, 3.0), (1, 1.0, 0.5), (2, 0.05, 1.0)):
        f, v, c = draw(sentences, clusters, seed=seed)
        expected = literal_nce(f.tolist(), v.tolist(), c.tolist(), tau, mu, reading)
        torch.testing.assert_close(nce(f, v, c, tau, mu, reading), expected)


@pytest.mark.parametrize("reading", HARD_NEGATIVES)
def test_false_negatives_left_out_of_the_sum(reading):
    f, v, c = draw(9, 3)
    excluded = literal_false_negatives(f.tolist(), v.tolist(), c.tolist())
    assert any(map(any, excluded))
    expected = literal_nce(f.tolist(), v.tolist(), c.tolist(), 0.1, 3.0, reading, excluded)
    torch.testing.assert_close(nce(f, v, c, reading=reading, excluded=torch.tensor(excluded)), expected)


@pytest.mark.parametrize("reading", HARD_NEGATIVES)
def test_some_anchors_of_a_larger_batch(reading):
    """What one of several processes computes: its own anchors, everybody's candidates and hard negatives."""
    f, v, c = draw(9, 4)
    expected = literal_nce(f.tolist(), v.tolist(), c.tolist(), 0.1, 3.0, reading)[5:]
    counts = count(rank_centres(cosine(f, c))[1], len(c))
    some = cluster_guided_nce(
        cosine(f[5:], v), cosine(f[5:], c), torch.arange(5, 9), 0.1, 3.0, reading, hard_counts=counts
    )
    torch.testing.assert_close(some, expected)


@pytest.mark.parametrize("reading", HARD_NEGATIVES)
def test_gradient(reading):
    f, v, c = draw(4, 3)
    f.requires_grad_(), v.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, v: nce(f, v, c, 0.3, reading=reading), (f, v))


@pytest.mark.parametrize("reading", HARD_NEGATIVES)
@pytest.mark.parametrize("sentences", [1, 2, 5])
def test_without_a_second_centre_it_is_plain_info_nce(reading, sentences):
    f, v, c = draw(sentences, 1)
    expected = literal_nce(f.tolist(), v.tolist(), [], 0.1, 3.0, "none")
    torch.testing.assert_close(nce(f, v, c, reading=reading), expected)
    if sentences == 1:
        assert nce(f, v, c, reading=reading).item() == 0.0


def test_closed_forms():
    """N identical sentences, K identical centres: every cosine is 1, so only the counts are left."""
    ones = torch.ones(5, 4, dtype=torch.float64)
    centres = torch.ones(3, 4, dtype=torch.float64)
    for reading, extra in (
        ("others", 3.0 + 1),
        ("own", 3.0),
        ("batch", 3.0 + 4),
        ("official", math.e**20 + 4 / math.e**10),
    ):
        loss = nce(ones, ones, centres, 0.1, 3.0, reading)
        torch.testing.assert_close(loss, torch.full((5,), math.log(5 + extra), dtype=torch.float64))


def test_a_heavier_hard_negative_costs_more():
    f, v, c = draw(6, 4)
    for reading in ("others", "batch", "own"):  # in "official" mu multiplies the logit, which may be negative
        assert (nce(f, v, c, mu=5.0, reading=reading) > nce(f, v, c, mu=3.0, reading=reading)).all()


@pytest.mark.parametrize("reading", HARD_NEGATIVES)
def test_order_length_and_rotation(reading):
    f, v, c = draw(7, 4)
    expected = nce(f, v, c, reading=reading)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nce(f[order], v[order], c[[2, 0, 3, 1]], reading=reading), expected[order])
    torch.testing.assert_close(nce(2 * f, v / 3, 5 * c, reading=reading), expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(nce(f @ rotation, v @ rotation, c @ rotation, reading=reading), expected)


@pytest.mark.parametrize("reading", HARD_NEGATIVES)
def test_finite_and_exact_in_bfloat16_autocast(reading):
    f, v, c = (x.float() for x in draw(9, 4))
    f.requires_grad_()
    expected = nce(f, v, c, 0.01, 3.0, reading)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nce(f, v, c, 0.01, 3.0, reading)
        half = nce(f.bfloat16(), v.bfloat16(), c.bfloat16(), 0.01, 3.0, reading)
    torch.testing.assert_close(loss, expected)
    assert half.isfinite().all()
    loss.sum().backward()
    assert f.grad.isfinite().all()


def test_errors():
    f, v, c = draw(3, 3)
    with pytest.raises(ValueError, match=r"hard_negatives must be one of others, batch, own, official, got 'all'"):
        nce(f, v, c, reading="all")
    with pytest.raises(ValueError, match=r"mu and temperature must be positive, got 0.0 and 0.1"):
        nce(f, v, c, mu=0.0)
    with pytest.raises(ValueError, match=r"mu and temperature must be positive, got 3.0 and -1.0"):
        nce(f, v, c, tau=-1.0)


def test_rank_and_count():
    f, _, c = draw(8, 5)
    nearest, hardest = rank_centres(cosine(f, c))
    order = [literal_order(x, c.tolist()) for x in f.tolist()]
    assert nearest.tolist() == [o[0] for o in order]
    assert hardest.tolist() == [o[1] for o in order]
    assert count(torch.tensor([0, 3, 3, 1]), 5).tolist() == [1, 1, 0, 2, 0]


@pytest.mark.parametrize(("sentences", "clusters"), SIZES)
def test_equation_8(sentences, clusters):
    f, v, c = draw(sentences, clusters)
    nearest, assignment = cosine(f, c).argmax(1), cosine(v, c).argmax(1)
    pairs = false_negative_mask(nearest, assignment, torch.arange(sentences))
    assert pairs.tolist() == literal_false_negatives(f.tolist(), v.tolist(), c.tolist())
    some = false_negative_mask(nearest[1:], assignment, torch.arange(1, sentences))
    assert some.tolist() == pairs[1:].tolist()


@pytest.mark.parametrize(("sentences", "clusters"), SIZES)
@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.5), (0.0, 0.0), (0.1, 0.9)])
def test_equation_9(sentences, clusters, alpha, beta):
    f, v, c = draw(sentences, clusters, seed=sentences)
    pairs = literal_false_negatives(f.tolist(), v.tolist(), c.tolist())
    similarity = cosine(f, v)
    loss = bidirectional_margin(similarity, similarity.diagonal(), torch.tensor(pairs), alpha, beta)
    torch.testing.assert_close(loss, literal_margin(f.tolist(), v.tolist(), pairs, alpha, beta))


def test_the_margin_is_zero_exactly_between_minus_beta_and_minus_alpha():
    delta = torch.tensor([[-0.75, -0.5, -0.4, -0.25, 0.0, 0.5]], dtype=torch.float64)  # exact in binary, but -0.4
    one = torch.ones(1, dtype=torch.float64)
    pairs = torch.ones(1, 1, dtype=torch.bool)
    losses = [bidirectional_margin(one + d, one, pairs, 0.25, 0.5).item() for d in delta[0]]
    assert losses == [0.25, 0.0, 0.0, 0.0, 0.25, 0.75]


def test_the_margin_without_false_negatives():
    f, v, _ = draw(3, 1)
    f.requires_grad_()
    similarity = cosine(f, v)
    loss = bidirectional_margin(similarity, similarity.diagonal(), torch.zeros(3, 3, dtype=torch.bool))
    assert loss.tolist() == [0.0, 0.0, 0.0]
    loss.sum().backward()
    assert f.grad.abs().sum() == 0


def test_the_margins_gradient():
    f, v, _ = draw(4, 1)
    f.requires_grad_(), v.requires_grad_()
    pairs = ~torch.eye(4, dtype=torch.bool)

    def loss(f, v):
        similarity = cosine(f, v)
        return bidirectional_margin(similarity, similarity.diagonal(), pairs, 0.2, 0.5)

    assert torch.autograd.gradcheck(loss, (f, v))


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.2), (-0.1, 0.2)])
def test_margins_out_of_order(alpha, beta):
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match=rf"0 <= alpha <= beta, got alpha={alpha} and beta={beta}"):
        bidirectional_margin(one, one[0], one.bool(), alpha, beta)
