"""Means and maxima of sentences and reports against loops over tokens."""

import pytest
import torch

from lingula.nn.sentences import sentence_maxima, sentence_means, token_maxima, token_means


def literal(tokens, sentence_of_token, sentences):
    width = len(tokens[0][0])
    means = []
    for n in range(sentences):
        total, count = [0.0] * width, 0
        for row, places in zip(tokens, sentence_of_token, strict=True):
            for state, place in zip(row, places, strict=True):
                if place == n:
                    total = [t + s for t, s in zip(total, state, strict=True)]
                    count += 1
        means.append([t / max(count, 1) for t in total])
    return torch.tensor(means, dtype=torch.float64)


@pytest.mark.parametrize("sentence_counts", [(1,), (2, 1), (3, 1, 2, 5, 1)])
def test_a_loop_over_tokens(tiny, sentence_counts):
    reports = tiny.batch(sentence_counts).reports
    tokens = torch.randn(*reports.token_ids.shape, 3, dtype=torch.float64)
    expected = literal(tokens.tolist(), reports.sentence_of_token.tolist(), reports.sentence_count)
    torch.testing.assert_close(sentence_means(tokens, reports.sentence_of_token, reports.sentence_count), expected)


def test_a_sentence_without_tokens_is_zero():
    means = sentence_means(torch.ones(1, 2, 3), torch.tensor([[0, -1]]), 2)
    assert means.tolist() == [[1.0] * 3, [0.0] * 3]


def test_gradient():
    places = torch.tensor([[-1, 0, 0, 1], [2, 2, -1, -1]])
    tokens = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: sentence_means(t, places, 3), tokens)
    sentence_means(tokens, places, 3).sum().backward()
    assert (tokens.grad[places < 0] == 0).all()


def test_half_precision_states_are_summed_in_float32():
    tokens = torch.full((1, 1000, 1), 1.0, dtype=torch.bfloat16)
    tokens[0, 0] = 3.0
    means = sentence_means(tokens, torch.zeros(1, 1000, dtype=torch.int64), 1)
    assert means.dtype == torch.float32
    assert means.item() == pytest.approx(1.002)


def test_padding_is_never_the_largest():
    tokens = torch.tensor([[[-3.0, -1.0], [-2.0, -4.0], [9.0, 9.0]], [[0.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert token_maxima(tokens, mask).tolist() == [[-2.0, -1.0], [0.0, 1.0]]
    assert token_maxima(tokens.bfloat16(), mask).isfinite().all()


def test_a_sentence_is_the_maximum_of_its_tokens(tiny):
    reports = tiny.batch((2, 1, 3)).reports
    tokens = -1.0 - torch.rand(*reports.token_ids.shape, 4).double()  # below 0: zeros of a bin would win
    tokens[reports.sentence_of_token < 0] = 5.0  # [CLS], [SEP] and padding would win too
    tokens.requires_grad_()
    maxima = sentence_maxima(tokens, reports.sentence_of_token, reports.sentence_count)
    for n in range(reports.sentence_count):
        own = tokens[reports.sentence_of_token == n].tolist()
        assert maxima[n].tolist() == [max(token[d] for token in own) for d in range(4)]
    maxima.sum().backward()
    assert (tokens.grad[reports.sentence_of_token < 0] == 0).all()
    assert sentence_maxima(torch.ones(1, 2, 3), torch.tensor([[0, -1]]), 2).tolist() == [[1.0] * 3, [0.0] * 3]
    assert torch.autograd.gradcheck(lambda t: sentence_maxima(t, reports.sentence_of_token, 6), tokens)


def test_the_mean_of_a_report_is_that_of_its_real_tokens():
    tokens = torch.tensor([[[3.0], [1.0], [9.0]], [[4.0], [9.0], [9.0]], [[9.0], [9.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert token_means(tokens, mask).tolist() == [[2.0], [4.0], [0.0]]
    assert token_means(tokens.bfloat16(), mask).dtype == torch.float32
