import math

import numpy as np
import pytest

from lingula.data.tokens import train_tokenizer
from lingula.metrics.captions import (
    bleu,
    bleu_counts,
    cider_d,
    common_subsequence,
    meteor_exact_stem,
    rouge_l,
    sentences,
    words,
)

VOCABULARY = ["no", "effusion", "left", "right", "small", "heart", "normal", "."]


def random_corpus(seed, studies=20, longest=15):
    """Generated reports, some empty and some copied in part, and references of at least one word."""
    rng = np.random.default_rng(seed)
    references = [list(rng.choice(VOCABULARY, rng.integers(1, longest))) for _ in range(studies)]
    generated = [list(rng.choice(VOCABULARY, rng.integers(0, longest))) for _ in range(studies)]
    for place in range(0, studies, 3):
        generated[place] = references[place][: rng.integers(1, longest)] + generated[place][:2]
    return generated, references


def coco(scorer, generated, references):
    """What the COCO code gives: the number and its parts."""
    gts = {place: [" ".join(report)] for place, report in enumerate(references)}
    res = {place: [" ".join(report)] for place, report in enumerate(generated)}
    return scorer.compute_score(gts, res)


# Words ----------------------------------------------------------------------------------------------------------------


def test_words_are_lower_case_without_accents_and_marks():
    assert words("A 1.5-cm “nodule”_is\tseen; Höhe?") == ["a", "1", ".", "5", "cm", "nodule", "is", "seen", "hohe"]
    assert words(" ,;") == []
    assert sentences(words("No effusion.. Clear")) == [("no", "effusion"), ("clear",)]


def test_a_tokenizer_in_between_changes_no_word(tmp_path):
    texts = ["Plate-like atelectasis (left), 1.5 cm.", "Ménétrier's patient's tube: 3/4 unchanged; 10% worse.", "T4–T5"]
    tokenizer = train_tokenizer(texts * 2, tmp_path, 200)
    for text in texts:
        ids = tokenizer(text.lower())["input_ids"]
        assert words(tokenizer.decode(ids, skip_special_tokens=True)) == words(text)


# BLEU -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_bleu_is_that_of_three_libraries(seed):
    generated, references = random_corpus(seed)
    ours = bleu(bleu_counts(generated, references))[0]
    assert ours.min() > 0

    theirs, _ = coco(pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu(4), generated, references)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)

    sacrebleu = pytest.importorskip("sacrebleu.metrics")
    lines = [" ".join(report) for report in generated], [[" ".join(report) for report in references]]
    for order in range(1, 5):
        scorer = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)
        assert scorer.corpus_score(*lines).score / 100 == pytest.approx(ours[order - 1], abs=1e-9)

    # nltk counts at least one n-gram of each order, even for a report that is too short for one.
    translate = pytest.importorskip("nltk.translate.bleu_score")
    long = [place for place, report in enumerate(generated) if len(report) >= 4]
    generated, references = [generated[i] for i in long], [references[i] for i in long]
    ours = bleu(bleu_counts(generated, references))[0]
    for order in range(1, 5):
        theirs = translate.corpus_bleu([[r] for r in references], generated, weights=[1 / order] * order)
        assert theirs == pytest.approx(ours[order - 1], abs=1e-9)


def test_bleu_of_a_draw_is_bleu_of_the_studies_drawn():
    generated, references = random_corpus(5, studies=9)
    weights = np.random.default_rng(0).integers(0, 4, (5, 9))
    found = bleu(bleu_counts(generated, references), weights)
    for draw, times in enumerate(weights):
        drawn = np.repeat(np.arange(9), times)
        again = bleu(bleu_counts([generated[i] for i in drawn], [references[i] for i in drawn]))[0]
        np.testing.assert_allclose(found[draw], again, rtol=1e-12)


def test_bleu_by_hand():
    # 3 of 4 words, 1 of 3 pairs, no triple; 4 words for 6: exp(1 - 6 / 4)
    found = bleu(bleu_counts([list("abxa")], [list("aabccc")]))[0]
    np.testing.assert_allclose(found, [0.75 * math.exp(-0.5), 0.5 * math.exp(-0.5), 0, 0], rtol=1e-12)
    # a word counts as often as the reference has it; longer is no bonus
    assert bleu(bleu_counts([["a"] * 7], [["a", "b"]]))[0, 0] == pytest.approx(1 / 7)


# ROUGE-L --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_rouge_is_that_of_two_libraries(seed):
    generated, references = random_corpus(seed)
    _, theirs = coco(pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge(), generated, references)
    np.testing.assert_allclose(rouge_l(generated, references), theirs, atol=1e-12)

    class Split:
        def tokenize(self, text):
            return text.split()

    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], tokenizer=Split())
    theirs = [
        scorer.score(" ".join(reference), " ".join(own))["rougeL"].fmeasure
        for own, reference in zip(generated, references, strict=True)
    ]
    np.testing.assert_allclose(rouge_l(generated, references, beta=1.0), theirs, atol=1e-12)


def test_common_subsequence_is_that_of_the_table():
    def table(first, second):
        rows = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else max(rows[i][j + 1], rows[i + 1][j])
        return rows[-1][-1]

    rng = np.random.default_rng(0)
    for _ in range(200):
        first, second = (list(rng.choice(list("abcd"), rng.integers(0, 12))) for _ in range(2))
        assert common_subsequence(first, second) == table(first, second)
    assert common_subsequence(["a"] * 100, ["a"] * 70) == 70  # longer than a machine word


# CIDEr-D --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "studies"), [(0, 20), (1, 2), (2, 1)])
def test_cider_is_that_of_the_coco_code(seed, studies):
    generated, references = random_corpus(seed, studies)
    _, theirs = coco(pytest.importorskip("pycocoevalcap.cider.cider").Cider(), generated, references)
    np.testing.assert_allclose(cider_d(generated, references), theirs, atol=1e-10)


def test_cider_is_that_of_dense_vectors():
    generated, references = random_corpus(3, 6)
    total = np.zeros(6)
    for order in range(1, 5):
        grams = [[tuple(r[i : i + order]) for i in range(len(r) - order + 1)] for r in generated + references]
        every = sorted({gram for report in grams for gram in report})
        counts = np.array([[report.count(gram) for gram in every] for report in grams], dtype=float).reshape(12, -1)
        weight = np.log(6 / np.maximum(1, (counts[6:] > 0).sum(0)))
        own, reference = counts[:6] * weight, counts[6:] * weight
        norm = np.linalg.norm(own, axis=1) * np.linalg.norm(reference, axis=1)
        total += np.divide((np.minimum(own, reference) * reference).sum(1), norm, out=np.zeros(6), where=norm > 0)
    lengths = [(len(own), len(told)) for own, told in zip(generated, references, strict=True)]
    penalty = np.array([math.exp(-((a - b) ** 2) / 72) for a, b in lengths])
    np.testing.assert_allclose(cider_d(generated, references), 10 * penalty * total / 4, atol=1e-12)


# METEOR ---------------------------------------------------------------------------------------------------------------


def test_meteor_matches_words_and_stems_and_no_synonyms():
    def formula(matches, own, reference, chunks):
        precision, recall = matches / own, matches / reference
        mean = precision * recall / (0.9 * precision + 0.1 * recall)
        return mean * (1 - 0.5 * (chunks / matches) ** 3)

    cases = {
        ("small left effusion", "small left effusion"): formula(3, 3, 3, 1),
        ("effusions seen", "effusion is seen"): formula(2, 2, 3, 2),  # a stem, and a gap
        ("seen effusion", "effusion seen"): formula(2, 2, 2, 2),  # another order
        ("heart large", "heart big"): formula(1, 2, 2, 1),  # synonyms count as different words
        ("nodule", "effusion"): 0.0,
    }
    found = meteor_exact_stem([own.split() for own, _ in cases], [reference.split() for _, reference in cases])
    np.testing.assert_allclose(found, list(cases.values()), atol=1e-12)


# All of them ----------------------------------------------------------------------------------------------------------


def test_a_perfect_report_and_an_empty_one():
    references = [f"the heart of patient{place} is normal .".split() for place in range(4)]
    np.testing.assert_allclose(bleu(bleu_counts(references, references)), np.ones((1, 4)))
    np.testing.assert_allclose(rouge_l(references, references), np.ones(4))
    np.testing.assert_allclose(cider_d(references, references), np.full(4, 10.0))
    np.testing.assert_allclose(meteor_exact_stem(references, references), np.full(4, 1 - 0.5 / 7**3))
    nothing: list[list[str]] = [[]] * 4
    np.testing.assert_array_equal(bleu(bleu_counts(nothing, references)), np.zeros((1, 4)))
    for metric in (rouge_l, cider_d, meteor_exact_stem):
        np.testing.assert_array_equal(metric(nothing, references), np.zeros(4))


def test_cider_weighs_nothing_that_everybody_says():
    references = [["the", "heart", "is", "normal", "."]] * 3
    np.testing.assert_array_equal(cider_d(references, references), np.zeros(3))
