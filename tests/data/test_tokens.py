"""Tokenising once and flat equals tokenising each report by itself."""

import shutil

import numpy as np
import pytest
from transformers import BatchEncoding

from lingula.data import tokens as tokens_module
from lingula.data.collate import collate_reports
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import (
    ARRAYS,
    load_tokenizer,
    map_tokens,
    tokenise,
    tokenise_corpus,
    train_tokenizer,
    write_tokens,
)
from lingula.registry import UserError

REPORTS = [
    ["No pleural effusion.", "The heart is normal in size."],
    ["Small left effusion."],
    [],
    ["No pleural effusion.", "No pneumothorax.", "The heart is enlarged."],
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [sentence.lower() for report in REPORTS for sentence in report] * 3
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), vocabulary=120)


def test_ids_are_those_of_the_whole_report_tokenised_at_once(tokenizer):
    tokens = tokenise(REPORTS, tokenizer)
    for i, report in enumerate(REPORTS):
        whole = tokenizer(" ".join(report).lower())["input_ids"]
        assert tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() == whole
    assert tokens.sentences.tolist() == [2, 1, 0, 3]
    assert tokenizer.unk_token_id not in tokens.ids


def test_every_token_knows_its_sentence(tokenizer):
    tokens = tokenise(REPORTS, tokenizer)
    rows = np.array([3, 0])
    reports = collate_reports(tokens, rows)
    flat = [sentence for row in rows for sentence in REPORTS[row]]
    for place, sentence in enumerate(flat):
        ids = reports.token_ids[reports.sentence_of_token == place].tolist()
        assert ids == tokenizer(sentence.lower(), add_special_tokens=False)["input_ids"]
    assert reports.report_of_sentence.tolist() == [0, 0, 0, 1, 1]
    assert reports.position_of_sentence.tolist() == [0, 1, 2, 0, 1]
    assert reports.max_sentences == 3
    assert (reports.sentence_of_token[~reports.token_mask] == -1).all()
    assert reports.token_mask.sum(1).tolist() == [
        len(tokenizer(" ".join(REPORTS[r]).lower())["input_ids"]) for r in rows
    ]


def test_keys_belong_to_sentences_not_to_batches(tokenizer):
    tokens = tokenise(REPORTS, tokenizer)
    both = collate_reports(tokens, np.array([3, 0])).sentence_key.tolist()
    assert both == [*collate_reports(tokens, np.array([3])).sentence_key.tolist(), 0, 1]
    assert len(set(both)) == 5


def test_sentences_that_do_not_fit_are_dropped_whole(tokenizer):
    length = len(tokenizer("No pleural effusion.".lower(), add_special_tokens=False)["input_ids"])
    tokens = tokenise(REPORTS, tokenizer, max_tokens=length + 3)
    assert tokens.sentences.tolist() == [1, 1, 0, 1]
    assert tokenise(REPORTS, tokenizer, max_tokens=4).sentences.tolist() == [1, 1, 0, 1]  # a first sentence is cut
    assert np.diff(tokenise(REPORTS, tokenizer, max_tokens=4).offsets).max() == 4
    assert collate_reports(tokens, np.array([3])).sentence_key.tolist() == [3]  # keys do not move when sentences drop
    assert tokens.cut_line == f"2 of 3 reports were cut at {length + 3} tokens; 3 sentences left out"
    assert tokenise(REPORTS, tokenizer, max_tokens=4).cut == 3
    assert tokenise(REPORTS, tokenizer).cut_line == ""


def test_a_tokenizer_of_another_language_is_refused(tokenizer):
    with pytest.raises(UserError, match="does not know"):
        tokenise([["плевральный выпот слева"]], tokenizer)


def test_a_tokenizer_that_cannot_be_had(tmp_path):
    with pytest.raises(UserError, match="cannot load the tokenizer"):
        load_tokenizer(tmp_path / "nothing")


def test_the_same_text_gives_the_same_vocabulary(tmp_path):
    # many ties: the trainer by itself gives another vocabulary every time
    words = ["".join(chr(97 + (i * j) % 26) for j in range(1, 7)) for i in range(1, 60)]
    vocabularies = [
        train_tokenizer([" ".join(words)] * 2, tmp_path / str(i), vocabulary=90).get_vocab() for i in range(3)
    ]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]
    assert len(vocabularies[0]) == 90


# Words.


def test_every_token_knows_its_word(tiny, tokenizer):
    tokens = tokenise(REPORTS, tokenizer)
    reports = collate_reports(tokens, np.array([3, 1]))
    first = "no pleural effusion . no pneumothorax . the heart is enlarged ."
    assert " ".join(tiny.words_of(reports, 0, tokenizer)) == first
    assert " ".join(tiny.words_of(reports, 1, tokenizer)) == "small left effusion ."
    assert reports.max_words == 12
    assert (reports.word_of_token >= 0).equal(reports.sentence_of_token >= 0)
    assert (np.diff(tokens.offsets) - 2 > [len(r) * 3 for r in REPORTS]).any()  # some words are several pieces


def test_words_of_a_tokenizer_that_does_not_know_them_are_its_tokens(tokenizer):
    class Slow:
        """As a tokenizer in Python answers."""

        cls_token_id, sep_token_id, unk_token_id, pad_token_id = 2, 3, 1, 0

        def __call__(self, texts, add_special_tokens):
            return BatchEncoding(tokenizer(texts, add_special_tokens=add_special_tokens).data)

    tokens = tokenise(REPORTS[1:2], Slow())
    assert tokens.word.tolist() == [-1, *range(len(tokens.ids) - 2), -1]


# A whole corpus, on disk.


@pytest.mark.parametrize("batch", [1, 5, 4096])
@pytest.mark.parametrize("limit", [256, 24])
def test_the_tokens_of_a_corpus_are_those_of_its_reports(tiny_corpus, tmp_path, monkeypatch, batch, limit):
    """Written some reports at a time, with a memory for few sentences."""
    monkeypatch.setattr(tokens_module, "REPORTS", batch)
    monkeypatch.setattr(tokens_module, "REMEMBERED", 10)
    reports = [*PreparedCorpus.open(tiny_corpus).reports]
    reports[3] = reports[47] = []
    learnt = train_tokenizer((sentence for report in reports for sentence in report), tmp_path / "tokenizer", 300)
    write_tokens(tmp_path, reports, learnt, limit)
    found, expected = map_tokens(tmp_path), tokenise(reports, learnt, limit)
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.array_equal(one, other), name
        assert isinstance(one.base, np.memmap)
    assert (found.pad, found.max_tokens, found.cut) == (expected.pad, expected.max_tokens, expected.cut)
    assert found.cut == (46 if limit == 24 else 0)


def test_a_corpus_is_tokenised_once_for_each_tokenizer_and_limit(tiny_corpus, tmp_path, monkeypatch):
    corpus = PreparedCorpus.open(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    shutil.rmtree(corpus.folder / "derived", ignore_errors=True)
    learnt = train_tokenizer(corpus.training_texts(), tmp_path / "tokenizer", 300)
    first = tokenise_corpus(corpus, learnt)
    folders = set((corpus.folder / "derived").glob("tokens-*"))
    assert len(folders) == 1
    written = []
    monkeypatch.setattr(tokens_module, "write_tokens", lambda *args: written.append(args) or write_tokens(*args))
    learnt(["a report", "another"], padding=True, truncation=True, max_length=4)  # changes what its backend holds
    again = tokenise_corpus(PreparedCorpus.open(corpus.folder), load_tokenizer(tmp_path / "tokenizer"))
    assert not written
    assert np.array_equal(first.ids, again.ids)
    tokenise_corpus(corpus, learnt, 30)
    other = train_tokenizer(corpus.training_texts(), tmp_path / "other", 250)
    tokenise_corpus(corpus, other)
    assert len(written) == 2
    corpus.write_part(corpus.rows("val"), tmp_path / "part")
    part = PreparedCorpus.open(tmp_path / "part")
    assert part.content_hash != corpus.content_hash
    assert len(tokenise_corpus(part, learnt)) == 8


def test_a_corpus_of_another_language_leaves_no_tokens(tiny_corpus, tmp_path):
    corpus = PreparedCorpus.open(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    shutil.rmtree(corpus.folder / "derived", ignore_errors=True)
    foreign = train_tokenizer(["плевральный выпот слева"] * 9, tmp_path / "tokenizer", 100)
    with pytest.raises(UserError, match="does not know"):
        tokenise_corpus(corpus, foreign)
    assert not list((corpus.folder / "derived").glob("tokens-*"))


def test_a_vocabulary_is_the_same_from_a_list_and_from_what_is_read_again(tiny_corpus, tmp_path):
    corpus = PreparedCorpus.open(tiny_corpus)
    texts = [sentence for row in corpus.rows("train") for sentence in corpus.reports[row]]
    assert list(corpus.training_texts()) == texts
    vocabularies = [
        train_tokenizer(given, tmp_path / str(number), 300).get_vocab()
        for number, given in enumerate((corpus.training_texts(), texts, iter(texts), [text.upper() for text in texts]))
    ]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
