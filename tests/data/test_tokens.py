"""Tokenising once and flat equals tokenising each report by itself."""

import numpy as np
import pytest
from transformers import BatchEncoding

from lingula.data.collate import collate_reports
from lingula.data.tokens import load_tokenizer, tokenise, train_tokenizer
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
