"""MGCA's token-wise alignment against literal sums, and its weights."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lingula.losses.token_alignment import clipped_weights, cross_weights, token_alignment


def normal(x):
    length = math.sqrt(sum(a * a for a in x))
    return [a / length for a in x]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def literal(tokens, others, tau):
    """The equation for one sample without padding."""
    x, y = [normal(t) for t in tokens], [normal(o) for o in others]
    drawn = []
    for t in x:
        total = sum(math.exp(dot(t, o) / tau) for o in y)
        c = [sum(math.exp(dot(t, o) / tau) / total * o[d] for o in y) for d in range(len(t))]
        drawn.append(normal(c))
    losses = []
    for i, t in enumerate(x):
        positive = math.exp(dot(t, drawn[i]) / tau)
        row = sum(math.exp(dot(t, c) / tau) for c in drawn)
        column = sum(math.exp(dot(u, drawn[i]) / tau) for u in x)
        losses.append(-0.5 * (math.log(positive / row) + math.log(positive / column)))
    return losses


def make(size, seed=0, words=4, places=5, dim=6):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(size, words, dim, generator=generator, dtype=torch.float64)
    others = torch.randn(size, places, dim, generator=generator, dtype=torch.float64)
    mask = torch.arange(words) < torch.tensor([words - b % words for b in range(size)])[:, None]
    return tokens, others, mask


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equation_both_ways_where_the_tokens_are_padded(size, tau):
    words, patches, mask = make(size)
    of_words, of_patches = token_alignment(words, patches, tau, mask=mask)
    for b in range(size):
        real, places = words[b][mask[b]].tolist(), patches[b].tolist()
        for found, expected in (
            (of_words[b][mask[b]], literal(real, places, tau)),
            (of_patches[b], literal(places, real, tau)),
        ):
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert (of_words[~mask] == 0).all()


def test_both_may_be_padded_and_neither_comes_first():
    words, patches, mask = make(3)
    places = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    of_words, of_patches = token_alignment(words, patches, 0.1, mask, places)
    torch.testing.assert_close(token_alignment(patches, words, 0.1, places, mask), (of_patches, of_words))
    assert (of_patches[~places] == 0).all()
    for b in range(3):
        expected = literal(words[b][mask[b]].tolist(), patches[b][places[b]].tolist(), 0.1)
        torch.testing.assert_close(of_words[b][mask[b]], torch.tensor(expected, dtype=torch.float64))


def test_the_cosines_are_computed_once():
    """B (n m + 2 n m + n^2 + m^2) D multiplications: the cosines, and for each side what it draws and its logits."""
    words, patches, mask = make(2)
    with FlopCounterMode(display=False) as counted:
        token_alignment(words, patches, 0.1, mask=mask)
    assert counted.get_total_flops() == 2 * 2 * (3 * 4 * 5 + 4 * 4 + 5 * 5) * 6


def test_weights_of_the_attention():
    tokens, others, mask = make(2)
    weights = cross_weights(others, tokens, 0.1, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5, dtype=torch.float64))
    assert (weights.transpose(1, 2)[~mask] == 0).all()
    x, y = normal(others[1, 0].tolist()), [normal(t) for t in tokens[1, :3].tolist()]
    total = sum(math.exp(dot(x, t) / 0.1) for t in y)
    expected = torch.tensor([math.exp(dot(x, t) / 0.1) / total for t in y], dtype=torch.float64)
    torch.testing.assert_close(weights[1, 0, :3], expected)


def test_gradient():
    tokens, others, mask = make(2, words=3, places=3, dim=3)
    tokens.requires_grad_(), others.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: token_alignment(x, y, 0.3, mask=mask), (tokens, others))


def test_closed_forms():
    """One token has nothing to be told from; tokens that draw the same are told apart by nothing."""
    tokens, others, mask = make(3)
    assert (token_alignment(tokens[:, :1], others, 0.1)[0] == 0).all()
    same, _ = token_alignment(tokens[:, :1].expand(-1, 4, -1), others, 0.1, mask=mask)
    expected = mask.sum(1, keepdim=True).log().expand(-1, 4)[mask]
    torch.testing.assert_close(same[mask], expected.double())


def test_padding_order_length_and_rotation():
    tokens, others, mask = make(4)
    expected = of_tokens, of_others = token_alignment(tokens, others, 0.1, mask=mask)
    noise = torch.where(mask[..., None], tokens, 50.0)
    torch.testing.assert_close(token_alignment(noise, others, 0.1, mask=mask), expected)
    order = torch.tensor([3, 0, 2, 1])
    shuffled = token_alignment(tokens[:, order], others, 0.1, mask=mask[:, order])
    torch.testing.assert_close(shuffled, (of_tokens[:, order], of_others))
    torch.testing.assert_close(token_alignment(tokens * 3, others / 7, 0.1, mask=mask), expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(token_alignment(tokens @ rotation, others @ rotation, 0.1, mask=mask), expected)


def test_a_sample_without_tokens():
    tokens, others, mask = make(2)
    mask[0] = False
    tokens.requires_grad_(), others.requires_grad_()
    one, other = token_alignment(tokens, others, 0.1, mask=mask)
    (one.sum() + other.sum()).backward()
    assert (one[0] == 0).all()
    assert other.isfinite().all()
    assert tokens.grad.isfinite().all()
    assert others.grad.isfinite().all()


def test_full_precision_under_autocast():
    tokens, others, mask = make(4)
    tokens, others = tokens.float().requires_grad_(), others.float()
    expected = token_alignment(tokens, others, 0.01, mask=mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(token_alignment(tokens, others, 0.01, mask=mask), expected)
        half = token_alignment(tokens.bfloat16(), others.bfloat16(), 0.01, mask=mask)
    for found in half:
        assert found.dtype == torch.float32
        assert found.isfinite().all()
    sum(found.sum() for found in half).backward()
    assert tokens.grad.isfinite().all()


def quantile(values, q):
    """Linear between the two nearest."""
    values = sorted(values)
    place = q * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def test_weights_are_clipped_to_the_quantiles_of_the_real_tokens():
    attention = torch.rand(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.arange(12) < torch.tensor([12, 5, 1])[:, None]
    found = clipped_weights(attention, mask)
    for b, count in enumerate((12, 5, 1)):
        own = attention[b, :count].tolist()
        low, high = quantile(own, 0.1), quantile(own, 0.9)
        clipped = [min(max(a, low), high) for a in own]
        expected = torch.tensor([c / sum(clipped) for c in clipped], dtype=torch.float64)
        torch.testing.assert_close(found[b, :count], expected)
    assert (found[~mask] == 0).all()
    equal = clipped_weights(mask.double(), mask)
    torch.testing.assert_close(equal, mask / mask.sum(1, keepdim=True).double())
    nobody = clipped_weights(attention, torch.zeros_like(mask))
    assert (nobody == 0).all()


def test_errors():
    tokens, others, mask = make(2)
    with pytest.raises(ValueError, match=r"of the same samples and width, got \(2, 4, 6\) and \(1, 5, 6\)"):
        token_alignment(tokens, others[:1], 0.1)
    with pytest.raises(ValueError, match=r"expected other_mask of shape \(2, 5\), got \(2, 4\)"):
        token_alignment(tokens, others, 0.1, other_mask=mask)
