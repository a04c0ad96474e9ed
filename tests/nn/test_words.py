"""Words against a loop over tokens."""

import pytest
import torch

from lingula.nn.words import sentence_of_word, word_sums


def literal_words(tokens, word_of_token, most):
    """Each report's words, one sum per word, and which there are."""
    width, sums, there = len(tokens[0][0]), [], []
    for row, places in zip(tokens, word_of_token, strict=True):
        words, found = [[0.0] * width for _ in range(most)], [False] * most
        for state, word in zip(row, places, strict=True):
            if word >= 0:
                words[word] = [a + b for a, b in zip(words[word], state, strict=True)]
                found[word] = True
        sums.append(words)
        there.append(found)
    return torch.tensor(sums, dtype=torch.float64), torch.tensor(there)


@pytest.mark.parametrize("sentence_counts", [(1,), (2, 1), (3, 1, 2, 5, 1)])
def test_sums_and_sentences_by_a_loop_over_tokens(tiny, sentence_counts):
    reports = tiny.batch(sentence_counts).reports
    tokens = torch.randn(*reports.token_ids.shape, 3, dtype=torch.float64)
    places = reports.word_of_token.tolist()
    sums, mask = literal_words(tokens.tolist(), places, reports.max_words)
    found, there = word_sums(tokens, reports)
    torch.testing.assert_close(found, sums)
    assert torch.equal(there, mask)
    assert not mask.all() or len(sentence_counts) == 1  # there is padding to tell from words

    owners = [[-1] * reports.max_words for _ in places]
    for b, row in enumerate(places):
        for t, word in enumerate(row):
            if word >= 0:
                owners[b][word] = int(reports.sentence_of_token[b, t])
    assert sentence_of_word(reports).tolist() == owners


def test_every_token_of_a_sentence_is_in_one_of_its_words(tiny):
    """So the sum over a sentence's words is the sum over its tokens."""
    reports = tiny.batch((2, 1, 3)).reports
    tokens = torch.randn(*reports.token_ids.shape, 2, dtype=torch.float64)
    words, owner = word_sums(tokens, reports)[0], sentence_of_word(reports)
    for n in range(reports.sentence_count):
        torch.testing.assert_close(words[owner == n].sum(0), tokens[reports.sentence_of_token == n].sum(0))


def test_more_padding_adds_words_that_are_not_there(tiny):
    batch = tiny.batch((2, 1))
    grown = tiny.pad(batch).reports
    tokens = torch.randn(*grown.token_ids.shape, 3)
    words, mask = word_sums(tokens, grown)
    most = batch.reports.max_words
    before, there = word_sums(tokens[:, : batch.reports.token_ids.shape[1]], batch.reports)
    assert torch.equal(words[:, :most], before)
    assert torch.equal(mask[:, :most], there)
    assert not mask[:, most:].any()
    assert (words[:, most:] == 0).all()
    assert (sentence_of_word(grown)[:, most:] == -1).all()


def test_gradient_and_half_precision(tiny):
    reports = tiny.batch((2, 1)).reports
    tokens = torch.randn(*reports.token_ids.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: word_sums(t, reports)[0], tokens)
    word_sums(tokens, reports)[0].sum().backward()
    assert torch.equal(tokens.grad != 0, (reports.word_of_token >= 0)[..., None].expand_as(tokens))
    assert word_sums(tokens.detach().bfloat16(), reports)[0].dtype == torch.float32


def test_reports_without_words(tiny):
    reports = tiny.batch((1, 1)).reports
    reports.word_of_token = torch.full_like(reports.word_of_token, -1)
    reports.max_words = 0
    words, mask = word_sums(torch.ones(*reports.token_ids.shape, 3), reports)
    assert words.shape == (2, 1, 3)
    assert (words == 0).all()
    assert not mask.any()
    assert sentence_of_word(reports).tolist() == [[-1], [-1]]
