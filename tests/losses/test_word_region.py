"""GLoRIA's word-region similarity against a literal loop over reports, films, words and regions."""

import math

import pytest
import torch

from lingula.losses.word_region import word_region_attention, word_region_similarity


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def literal_attention(words, regions, tau):
    """alpha[w][r] of the words of one report and the regions of one film."""
    over_words = []  # for each region, a softmax over the words
    for v in regions:
        total = sum(math.exp(dot(v, t)) for t in words)
        over_words.append([math.exp(dot(v, t)) / total for t in words])
    alpha = []
    for w in range(len(words)):
        total = sum(math.exp(a[w] / tau) for a in over_words)
        alpha.append([math.exp(a[w] / tau) / total for a in over_words])
    return alpha


def literal_similarity(words, counts, regions, tau_a, tau_w):
    """Z[j][i] of report j and film i."""
    table = []
    for report, count in zip(words, counts, strict=True):
        row = []
        for film in regions:
            own = report[:count]
            total = 0.0
            for t, weights in zip(own, literal_attention(own, film, tau_a), strict=True):
                c = [sum(a * v[d] for a, v in zip(weights, film, strict=True)) for d in range(len(t))]
                total += math.exp(dot(c, t) / math.sqrt(dot(c, c)) / math.sqrt(dot(t, t)) / tau_w)
            row.append(math.log(total))
        table.append(row)
    return torch.tensor(table, dtype=torch.float64)


def make(reports, films=3, most=4, places=5, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(reports, most, dim, generator=generator, dtype=torch.float64)
    regions = torch.randn(films, places, dim, generator=generator, dtype=torch.float64)
    counts = [1 + (most - 1 - j) % most for j in range(reports)]
    mask = torch.arange(most) < torch.tensor(counts)[:, None]
    return words, mask, regions, counts


@pytest.mark.parametrize("taus", [(0.25, 0.2), (1.0, 0.05)])
@pytest.mark.parametrize("reports", [1, 2, 5])
def test_the_equation(reports, taus):
    words, mask, regions, counts = make(reports)
    expected = literal_similarity(words.tolist(), counts, regions.tolist(), *taus)
    torch.testing.assert_close(word_region_similarity(words, mask, regions, *taus), expected)


def test_the_attention():
    words, mask, regions, counts = make(3)
    alpha = word_region_attention(words, mask, regions, 0.25)
    for j, count in enumerate(counts):
        expected = literal_attention(words[j, :count].tolist(), regions[j].tolist(), 0.25)
        torch.testing.assert_close(alpha[j, :count], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(alpha.sum(-1)[mask], torch.ones(int(mask.sum()), dtype=torch.float64))


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_change_neither_the_result_nor_the_gradient(chunk):
    words, mask, regions, _ = make(5)
    whole, parts = ([x.clone().requires_grad_() for x in (words, regions)] for _ in range(2))
    one = word_region_similarity(whole[0], mask, whole[1], chunk=5)
    other = word_region_similarity(parts[0], mask, parts[1], chunk=chunk)
    torch.testing.assert_close(other, one)
    one.square().sum().backward(), other.square().sum().backward()
    for x, y in zip(whole, parts, strict=True):
        torch.testing.assert_close(y.grad, x.grad)


def test_chunks_keep_the_memory_of_a_few_reports():
    """What a backward pass has to keep does not grow with n x m x W x R, in chunks."""
    words, mask, regions, _ = make(8, films=8, most=8, places=64, dim=4)
    words.requires_grad_()

    def kept(chunk):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            word_region_similarity(words, mask, regions, chunk=chunk)
        return max(sizes)

    assert kept(8) == 8 * 8 * 8 * 64
    assert kept(2) <= 8 * 64 * 64  # the films' Gram matrices


@pytest.mark.parametrize("chunk", [1, 8])
def test_gradient(chunk):
    words, mask, regions, _ = make(2, films=2, most=3, places=3, dim=3)
    words.requires_grad_(), regions.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, v: word_region_similarity(w, mask, v, chunk=chunk), (words, regions))


def test_closed_forms():
    """One region is what every word gathers; equal regions too."""
    word, region = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[2.0, 0.0]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    assert word_region_similarity(word, one, region, temperature_words=0.5).item() == pytest.approx(0.6 / 0.5)
    assert word_region_similarity(word, one, region.expand(1, 7, 2)).item() == pytest.approx(0.6 / 0.2)
    three = word_region_similarity(word.expand(1, 3, 2), one.expand(1, 3), region)
    assert three.item() == pytest.approx(0.6 / 0.2 + math.log(3))


def test_padding_and_order():
    words, mask, regions, _ = make(4)
    expected = word_region_similarity(words, mask, regions)
    noise = torch.where(mask[..., None], words, 50.0)
    torch.testing.assert_close(word_region_similarity(noise, mask, regions), expected)
    order = torch.tensor([2, 0, 3, 1])  # of words
    torch.testing.assert_close(word_region_similarity(words[:, order], mask[:, order], regions), expected)
    places = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(word_region_similarity(words, mask, regions[:, places]), expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(word_region_similarity(words @ rotation, mask, regions @ rotation), expected)


def test_a_report_without_words_is_constant():
    words, mask, regions, _ = make(2)
    mask[0] = False
    words.requires_grad_()
    found = word_region_similarity(words, mask, regions)
    assert (found[0] == 0).all()
    found.sum().backward()
    assert (words.grad[0] == 0).all()
    assert words.grad.isfinite().all()


def test_full_precision_under_autocast():
    words, mask, regions, _ = make(4)
    words, regions = words.float().requires_grad_(), regions.float()
    expected = word_region_similarity(words, mask, regions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(word_region_similarity(words, mask, regions), expected)
        torch.testing.assert_close(word_region_similarity(words, mask, regions, chunk=1), expected)
        half = word_region_similarity(words.bfloat16() * 20, mask, regions.bfloat16() * 20, 0.01, 0.01)
    assert half.dtype == torch.float32
    half.sum().backward()
    assert half.isfinite().all()
    assert words.grad.isfinite().all()


def test_errors():
    words, mask, regions, _ = make(2)
    with pytest.raises(
        ValueError, match=r"one width and a mask of \(2, 4\), got \(2, 4, 6\), \(3, 5, 2\) and \(2, 4\)"
    ):
        word_region_similarity(words, mask, regions[..., :2])
    with pytest.raises(ValueError, match="chunk must be 1 or more, got 0"):
        word_region_similarity(words, mask, regions, chunk=0)
