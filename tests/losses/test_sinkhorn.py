"""Sinkhorn's codes against the literal loop, their marginals, and the swapped prediction."""

import math

import pytest
import torch

from lingula.losses.sinkhorn import sinkhorn, swapped_prediction


def literal(scores, epsilon, iterations):
    """Q (K, B) rescaled as the papers' pseudo-code does, in plain exponentials."""
    samples, count = len(scores), len(scores[0])
    q = [[math.exp(scores[b][k] / epsilon) for b in range(samples)] for k in range(count)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        for k in range(count):
            mass = sum(q[k])
            q[k] = [value / mass / count for value in q[k]]
        for b in range(samples):
            mass = sum(q[k][b] for k in range(count))
            for k in range(count):
                q[k][b] = q[k][b] / mass / samples
    for b in range(samples):
        mass = sum(q[k][b] for k in range(count))
        for k in range(count):
            q[k][b] /= mass
    return torch.tensor([[q[k][b] for k in range(count)] for b in range(samples)], dtype=torch.float64)


def make(samples, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, count, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1), (1.0, 7)])
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_literal_loop(samples, epsilon, iterations):
    scores = make(samples)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), literal(scores.tolist(), epsilon, iterations))


def test_marginals():
    """Rows always sum to 1; the prototypes' masses come near B / K with the iterations."""
    scores = make(12)
    distances = []
    for iterations in (1, 3, 10, 100):
        codes = sinkhorn(scores, 0.5, iterations)
        torch.testing.assert_close(codes.sum(1), torch.ones(12, dtype=torch.float64))
        distances.append((codes.sum(0) - 12 / 4).abs().max().item())
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-10


def test_closed_forms():
    """Two by two: the fixed point keeps the odds ratio of exp(z / epsilon), and its marginals are even."""
    scores = torch.tensor([[0.9, 0.1], [0.4, 0.3]], dtype=torch.float64)
    ratio = math.exp((0.9 - 0.1 - 0.4 + 0.3) / 0.2)
    inside = math.sqrt(ratio) / (1 + math.sqrt(ratio))
    expected = torch.tensor([[inside, 1 - inside], [1 - inside, inside]], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, 0.2, 200), expected)
    assert torch.equal(sinkhorn(torch.zeros(3, 4)), torch.full((3, 4), 0.25))
    torch.testing.assert_close(sinkhorn(make(1)), torch.full((1, 4), 0.25, dtype=torch.float64))


def test_a_scores_offset_by_sample_or_prototype_changes_nothing():
    scores = make(5)
    expected = sinkhorn(scores, 0.1, 100)
    torch.testing.assert_close(sinkhorn(scores + torch.arange(5)[:, None], 0.1, 100), expected)
    torch.testing.assert_close(sinkhorn(scores + torch.arange(4), 0.1, 100), expected)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(sinkhorn(scores[order], 0.1, 100), expected[order])


def test_no_gradient_and_no_overflow():
    scores = make(5).float().requires_grad_()
    assert not sinkhorn(scores).requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(sinkhorn(scores), sinkhorn(scores.detach()))
    assert sinkhorn(scores.bfloat16(), 0.01).dtype == torch.float32
    assert sinkhorn(scores.bfloat16() * 1000, 0.01).isfinite().all()


def literal_prediction(scores, codes, tau):
    losses = []
    for z, q in zip(scores, codes, strict=True):
        total = sum(math.exp(a / tau) for a in z)
        losses.append(-sum(b * math.log(math.exp(a / tau) / total) for a, b in zip(z, q, strict=True)))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_prediction(samples):
    scores, codes = make(samples), sinkhorn(make(samples, seed=1), 0.5)
    expected = literal_prediction(scores.tolist(), codes.tolist(), 0.2)
    torch.testing.assert_close(swapped_prediction(scores, codes, 0.2), expected)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: swapped_prediction(z, codes, 0.2), scores)


def test_the_predictions_closed_forms():
    even, hard = torch.full((2, 4), 0.25), torch.eye(4)[:2]
    torch.testing.assert_close(swapped_prediction(torch.zeros(2, 4), even, 0.2), torch.full((2,), math.log(4)))
    expected = torch.full((2,), math.log(1 + 3 * math.exp(-1 / 0.5)))
    torch.testing.assert_close(swapped_prediction(hard, hard, 0.5), expected)


def test_the_prediction_is_in_full_precision():
    scores, codes = make(5).float(), sinkhorn(make(5)).float()
    expected = swapped_prediction(scores, codes, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(swapped_prediction(scores, codes, 0.01), expected)
        half = swapped_prediction(scores.bfloat16(), codes, 0.01)
    assert half.dtype == torch.float32
    assert half.isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match=r"iterations >= 1 and a temperature > 0, got 0 and 0.05"):
        sinkhorn(torch.zeros(2, 3), iterations=0)
    with pytest.raises(ValueError, match=r"scores and codes must match, got \(2, 3\) and \(3, 3\)"):
        swapped_prediction(torch.zeros(2, 3), torch.zeros(3, 3), 0.1)
