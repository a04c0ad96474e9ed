"""Eqs. 5-6 against loops over reports, sentences and patches; pooling against torch's own attention."""

import math

import pytest
import torch

from lingula.nn.attention import (
    AttentionPool,
    MeanQueryPool,
    SigmoidCrossAttention,
    SoftmaxCrossAttention,
    pad_sentences,
)

D = 4


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(matrix, x):
    return [dot(row, x) for row in matrix]


def literal(attention, patches, sentences, report_of_sentence):
    """Eqs. 5 and 6, and the weights in them, as lists."""
    w = {name: p.tolist() for name, p in attention.named_parameters()}
    image_to_report, sentence_weights = [], []
    for sentence, report in zip(sentences, report_of_sentence, strict=True):
        total, weights = [0.0] * D, []
        for patch in patches[report]:
            q, k = times(w["text_query.weight"], sentence), times(w["image_key.weight"], patch)
            weights.append(sigmoid(dot(q, k) / math.sqrt(D)))
            for d, value in enumerate(times(w["image_value.weight"], patch)):
                total[d] += weights[-1] * value
        image_to_report.append(total)
        sentence_weights.append(weights)
    report_to_image = []
    for report in range(len(patches)):
        rows = []
        for patch in patches[report]:
            total = [0.0] * D
            for sentence, owner in zip(sentences, report_of_sentence, strict=True):
                if owner == report:
                    q, k = times(w["image_query.weight"], patch), times(w["text_key.weight"], sentence)
                    for d, value in enumerate(times(w["text_value.weight"], sentence)):
                        total[d] += sigmoid(dot(q, k) / math.sqrt(D)) * value
            rows.append(total)
        report_to_image.append(rows)
    return image_to_report, report_to_image, sentence_weights


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def draw(tiny, sentence_counts, patches=3):
    torch.manual_seed(len(sentence_counts))
    reports = tiny.batch(sentence_counts).reports
    attention = SigmoidCrossAttention(D).double()
    size, sentences = len(sentence_counts), reports.sentence_count
    features = torch.randn(size, patches, D).double() * 2, torch.randn(sentences, D).double() * 2
    return attention, *features, reports


@pytest.mark.parametrize("sentence_counts", [(1,), (2, 1), (3, 1, 2, 5, 1)])
def test_equations_5_and_6(tiny, sentence_counts):
    attention, patches, sentences, reports = draw(tiny, sentence_counts)
    cross = attention(patches, sentences, reports)
    owner = reports.report_of_sentence.tolist()
    i2r, r2i, weights = literal(attention, patches.tolist(), sentences.tolist(), owner)
    torch.testing.assert_close(cross.image_to_report, double(i2r))
    torch.testing.assert_close(cross.report_to_image, double(r2i))
    torch.testing.assert_close(cross.sentence_weights, double(weights))


def test_weights_spread_and_vanish_on_padding(tiny):
    attention, patches, sentences, reports = draw(tiny, (3, 1, 2))
    cross = attention(patches, sentences, reports)
    assert cross.sentence_weights.min() > 0
    assert cross.sentence_weights.max() < 1
    for report, count in enumerate((3, 1, 2)):
        assert (cross.patch_weights[report, :, :count] > 0).all()
        assert (cross.patch_weights[report, :, count:] == 0).all()


def test_a_report_without_padding_is_a_report_with_it(tiny):
    attention, patches, sentences, reports = draw(tiny, (3, 1, 2))
    cross = attention(patches, sentences, reports)
    for report, span in enumerate((slice(0, 3), slice(3, 4), slice(4, 6))):
        alone = tiny.take(tiny.batch((3, 1, 2)), [report]).reports
        one = attention(patches[[report]], sentences[span], alone)
        torch.testing.assert_close(one.image_to_report, cross.image_to_report[span])
        torch.testing.assert_close(one.report_to_image[0], cross.report_to_image[report])


@pytest.mark.parametrize("normalise", [False, True])
def test_attentions_gradient(tiny, normalise):
    reports = tiny.batch((2, 1)).reports
    attention = SigmoidCrossAttention(D, normalise).double()
    patches, sentences = (torch.randn(*s).double().requires_grad_() for s in ((2, 2, D), (3, D)))
    assert torch.autograd.gradcheck(lambda p, s: attention(p, s, reports)[:2], (patches, sentences))


def test_normalised_inputs_forget_their_length(tiny):
    reports = tiny.batch((2, 1)).reports
    attention = SigmoidCrossAttention(D, normalise_inputs=True).double()
    patches, sentences = torch.randn(2, 2, D).double(), torch.randn(3, D).double()
    one, other = attention(patches, sentences, reports), attention(100 * patches, 30 * sentences, reports)
    torch.testing.assert_close(one.image_to_report, other.image_to_report, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_film_similarity_builds_the_same_cosines(tiny, size, normalise):
    """Every sentence over every film, each representation made, and its cosine with the sentence taken."""
    torch.manual_seed(size)
    attention = SigmoidCrossAttention(D, normalise).double()
    patches, sentences = torch.randn(size, 3, D).double(), torch.randn(7, D).double()
    seen_patches, seen_sentences = attention.image_norm(patches), attention.text_norm(sentences)
    similarity = attention.film_similarity(patches, sentences)
    assert similarity.shape == (7, size)
    for n in range(7):
        for b in range(size):
            f = sentences[n].tolist()
            v = literal(
                attention_without_norms(attention), [seen_patches[b].tolist()], [seen_sentences[n].tolist()], [0]
            )
            v = v[0][0]
            expected = dot(f, v) / math.sqrt(dot(f, f) * dot(v, v))
            assert similarity[n, b].item() == pytest.approx(expected, abs=1e-9)


def attention_without_norms(attention):
    plain = SigmoidCrossAttention(D).double()
    plain.load_state_dict({name: x for name, x in attention.state_dict().items() if "norm" not in name})
    return plain


def test_film_similarity_is_full_precision_under_autocast():
    attention = SigmoidCrossAttention(D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        similarity = attention.film_similarity(torch.randn(2, 3, D), torch.randn(4, D))
    assert similarity.dtype == torch.float32
    assert similarity.abs().max() <= 1 + 1e-5


def test_pad_sentences(tiny):
    reports = tiny.batch((2, 1, 3)).reports
    padded, mask = pad_sentences(torch.arange(1.0, 7.0)[:, None], reports, 3)
    assert padded[..., 0].tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def with_the_weights_of(pool):
    """torch.nn.MultiheadAttention with the same projections."""
    dim = pool.query.in_features
    theirs = torch.nn.MultiheadAttention(dim, pool.heads, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([pool.query.weight, pool.key.weight, pool.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([pool.query.bias, pool.key.bias, pool.value.bias]))
        theirs.out_proj.load_state_dict(pool.output.state_dict())
    return theirs


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("grid", [None, (2, 3)])
def test_pooling_is_torchs_attention_with_the_mean_as_query(size, grid):
    torch.manual_seed(size)
    pool = AttentionPool(16, 4, grid).double()
    x = torch.randn(size, 6, 16).double()
    tokens = torch.cat([torch.stack([sum(row) / 6 for row in x])[:, None], x], dim=1)
    if grid is not None:
        tokens = tokens + pool.positions
    expected = with_the_weights_of(pool)(tokens[:, :1], tokens, tokens, need_weights=False)[0][:, 0]
    torch.testing.assert_close(pool(x), expected)


def test_pooling_a_ragged_set():
    torch.manual_seed(0)
    pool = AttentionPool(16, 4).double()
    x = torch.randn(3, 5, 16).double()
    mask = torch.arange(5) < torch.tensor([[5], [1], [3]])
    x[~mask] = torch.nan  # whatever stands in the padding
    theirs = with_the_weights_of(pool)
    for row, count in enumerate((5, 1, 3)):
        alone = x[row : row + 1, :count]
        tokens = torch.cat([alone.mean(1, keepdim=True), alone], dim=1)
        expected = theirs(tokens[:, :1], tokens, tokens, need_weights=False)[0][0, 0]
        pooled = pool(x.nan_to_num(1e3), mask)[row]
        torch.testing.assert_close(pooled, expected)
        torch.testing.assert_close(pool(alone)[0], expected)


def test_pooling_a_set_forgets_its_order_and_patches_do_not():
    x = torch.randn(2, 6, 16).double()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    pool = AttentionPool(16, 4).double()
    torch.testing.assert_close(pool(x[:, order]), pool(x))
    placed = AttentionPool(16, 4, (2, 3)).double()
    assert (placed(x[:, order]) - placed(x)).abs().max() > 1e-3


def test_poolings_gradient():
    pool = AttentionPool(8, 2, (1, 3)).double()
    x = torch.randn(2, 3, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(pool, x)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    ragged = AttentionPool(8, 2).double()
    assert torch.autograd.gradcheck(lambda x: ragged(x, mask), x)
    ragged(x, mask).sum().backward()
    assert (x.grad[~mask] == 0).all()
    assert (x.grad[mask] != 0).any()


def test_positions_of_a_film_of_another_size():
    pool = AttentionPool(8, 2, (2, 2))
    assert pool(torch.randn(1, 12, 8), grid=(3, 4)).shape == (1, 8)
    with torch.no_grad():
        pool.positions[1:] = 0.5  # the same everywhere stays the same everywhere
    torch.testing.assert_close(pool._positions((3, 4))[1:], torch.full((12, 8), 0.5))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 is not divisible by 4 heads"):
        AttentionPool(10, 4)


# LoVT's pooling and attention.


@pytest.mark.parametrize("counts", [(5, 1, 3), (4,)])
def test_pooling_by_the_mean_alone(counts):
    """Head by head: softmax over the real elements, the mean of the set only asks."""
    torch.manual_seed(len(counts))
    pool, most, width, heads = MeanQueryPool(8, 2).double(), max(counts), 8, 2
    x = torch.randn(len(counts), most, width).double()
    mask = torch.arange(most) < torch.tensor(counts)[:, None]
    x[~mask] = 1e3
    pooled, weights = pool(x, mask)
    q_w, k_w, v_w = (w.tolist() for w in pool.attention.in_proj_weight.chunk(3))
    bias = torch.randn(3 * width).double()
    with torch.no_grad():
        pool.attention.in_proj_bias.copy_(bias)
        pool.attention.out_proj.bias.copy_(bias[:width])
    pooled, weights = pool(x, mask)
    q_b, k_b, v_b = (b.tolist() for b in bias.chunk(3))
    for row, count in enumerate(counts):
        own = x[row, :count].tolist()
        mean = [sum(e[d] for e in own) / count for d in range(width)]
        query = [a + b for a, b in zip(times(q_w, mean), q_b, strict=True)]
        keys = [[a + b for a, b in zip(times(k_w, e), k_b, strict=True)] for e in own]
        values = [[a + b for a, b in zip(times(v_w, e), v_b, strict=True)] for e in own]
        joined, over_heads = [], [0.0] * count
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            scores = [math.exp(dot(query[part], key[part]) / math.sqrt(width // heads)) for key in keys]
            shares = [score / sum(scores) for score in scores]
            over_heads = [w + s / heads for w, s in zip(over_heads, shares, strict=True)]
            joined += [dot(shares, [value[d] for value in values]) for d in range(width)[part]]
        expected = [a + b for a, b in zip(times(pool.attention.out_proj.weight.tolist(), joined), bias, strict=False)]
        torch.testing.assert_close(pooled[row], torch.stack([torch.as_tensor(e) for e in expected]))
        torch.testing.assert_close(weights[row, :count], double(over_heads))
    assert (weights[~mask] == 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(counts), dtype=torch.float64))


def test_pooling_an_empty_set_is_pooling_zeros():
    pool, x = MeanQueryPool(8, 2).double(), torch.randn(2, 3, 8).double().requires_grad_()
    pooled, weights = pool(x, torch.tensor([[True, True, False], [False, False, False]]))
    torch.testing.assert_close(pooled[1:], pool(torch.zeros(1, 3, 8).double())[0])
    torch.testing.assert_close(pooled[:1], pool(x[:1, :2])[0])
    assert weights[1].tolist() == [0, 0, 0]
    pooled.sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[1] == 0).all()


def test_pooling_by_the_mean_without_a_mask():
    pool, x = MeanQueryPool(8, 2).double(), torch.randn(2, 5, 8).double()
    everything = torch.ones(2, 5, dtype=torch.bool)
    for one, other in zip(pool(x), pool(x, everything), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(lambda x: pool(x, everything), x.requires_grad_())
    with pytest.raises(ValueError, match="width 10 is not divisible by 8 heads"):
        MeanQueryPool(10)


def literal_softmax_attention(attention, queries, keys):
    """For each query the output projection of the softmax-weighted values, and the weights; before BatchNorm."""
    w = {name: p.tolist() for name, p in attention.named_parameters()}

    def linear(name, x):
        return [a + b for a, b in zip(times(w[f"{name}.weight"], x), w[f"{name}.bias"], strict=True)]

    made, shares = [], []
    for query in queries:
        q = linear("key", query)
        scores = [math.exp(dot(q, linear("key", key)) / math.sqrt(len(q))) for key in keys]
        shares.append([score / sum(scores) for score in scores])
        values = [linear("value", key) for key in keys]
        made.append(linear("output", [dot(shares[-1], [value[d] for value in values]) for d in range(len(q))]))
    return made, shares


def batch_norm(rows, eps):
    """Each channel to mean 0 and variance 1 over all rows; a fresh BatchNorm's scale is 1 and its shift 0."""
    count = len(rows)
    means = [sum(row[d] for row in rows) / count for d in range(len(rows[0]))]
    variances = [sum((row[d] - means[d]) ** 2 for row in rows) / count for d in range(len(rows[0]))]
    return [[(row[d] - means[d]) / math.sqrt(variances[d] + eps) for d in range(len(row))] for row in rows]


@pytest.mark.parametrize("sentence_counts", [(2, 1), (3, 1, 2, 5, 1)])
def test_softmax_attention_both_ways(tiny, sentence_counts):
    torch.manual_seed(len(sentence_counts))
    reports = tiny.batch(sentence_counts).reports
    attention = SoftmaxCrossAttention(D).double()
    patches = torch.randn(len(sentence_counts), 3, D).double() * 2
    sentences = torch.randn(reports.sentence_count, D).double() * 2
    cross = attention(patches, sentences, reports)
    owner = reports.report_of_sentence.tolist()
    to_report, to_image, sentence_weights = [], [], []
    for b in range(len(sentence_counts)):
        own = [s for s, o in zip(sentences.tolist(), owner, strict=True) if o == b]
        made, shares = literal_softmax_attention(attention, own, patches[b].tolist())
        to_report, sentence_weights = to_report + made, sentence_weights + shares
        made, shares = literal_softmax_attention(attention, patches[b].tolist(), own)
        to_image += made
        torch.testing.assert_close(cross.patch_weights[b, :, : len(own)], double(shares))
        assert (cross.patch_weights[b, :, len(own) :] == 0).all()
    eps = attention.norm.eps
    torch.testing.assert_close(cross.image_to_report, double(batch_norm(to_report, eps)))
    torch.testing.assert_close(cross.report_to_image.flatten(0, 1), double(batch_norm(to_image, eps)))
    torch.testing.assert_close(cross.sentence_weights, double(sentence_weights))


def test_softmax_attentions_gradient_and_precision(tiny):
    reports = tiny.batch((2, 1)).reports
    attention = SoftmaxCrossAttention(D).double()
    patches, sentences = (torch.randn(*s).double().requires_grad_() for s in ((2, 2, D), (3, D)))
    assert torch.autograd.gradcheck(lambda p, s: attention(p, s, reports)[:2], (patches, sentences))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cross = attention.float()(patches.float(), sentences.float(), reports)
    assert cross.sentence_weights.dtype == torch.float32
    assert all(x.isfinite().all() for x in cross)
