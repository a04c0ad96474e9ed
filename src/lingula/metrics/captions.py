"""How alike two texts are: BLEU, METEOR, ROUGE-L and CIDEr-D of generated reports. Floor 0.

All read lists of words (:func:`words`), compare each report with its one reference, and give what a bootstrap needs:
values or counts for each study. Overlap of words is not truth: "no effusion" and "effusion" share a word and say the
opposite.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4  # n-grams of one to four words
_WORD = re.compile(r"[^\W_]+|\.")


def words(text: str) -> list[str]:
    """Lower case without accents; runs of letters and digits, and every full stop; no other mark.

    R2Gen keeps the full stops and drops most other marks too. A WordPiece tokenizer's spaces around hyphens and points
    change nothing.

    Example:
        >>> words("Plate-like atelectasis, 1.5 cm.")
        ['plate', 'like', 'atelectasis', '1', '.', '5', 'cm', '.']
    """
    letters = unicodedata.normalize("NFD", text.lower())
    return _WORD.findall("".join(letter for letter in letters if unicodedata.category(letter) != "Mn"))


def sentences(report: Sequence[str]) -> list[tuple[str, ...]]:
    """The sentences of a report in words, without their stops.

    Example:
        >>> sentences(words("No effusion. Clear lungs"))
        [('no', 'effusion'), ('clear', 'lungs')]
    """
    parts: list[list[str]] = [[]]
    for word in report:
        if word == ".":
            parts.append([])
        else:
            parts[-1].append(word)
    return [tuple(part) for part in parts if part]


def _ngrams(report: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(report[start : start + order]) for start in range(len(report) - order + 1))


# BLEU -----------------------------------------------------------------------------------------------------------------


def bleu_counts(generated: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """What BLEU needs of each study.

    Returns:
        ``(n, 10)``: n-grams of one to four words that the reference has too, each at most as often as there; all
        n-grams of one to four words; the words of the generated report; those of the reference.
    """
    rows = []
    for own, reference in zip(generated, references, strict=True):
        right = [(_ngrams(own, order) & _ngrams(reference, order)).total() for order in range(1, ORDERS + 1)]
        guessed = [max(0, len(own) - order + 1) for order in range(1, ORDERS + 1)]
        rows.append([*right, *guessed, len(own), len(reference)])
    return np.array(rows, dtype=np.float64).reshape(-1, 2 * ORDERS + 2)


def bleu(counts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    r"""BLEU-1 to BLEU-4 of the whole corpus, without smoothing.

    .. math:: \text{BLEU}_N = \min(1, e^{1 - r/c}) \left( \prod_{n=1}^{N} p_n \right)^{1/N}

    with the pooled precision p_n of n-grams, c generated words and r words of the references. One n-gram of an order
    that nobody got right makes that BLEU and all after it 0; the COCO code gives a number near 0.

    Source: Papineni et al., ACL 2002, section 2.3.

    Args:
        counts: ``(n, 10)`` of :func:`bleu_counts`.
        weights: ``(draws, n)`` how often each study counts; once by default.
    Returns:
        ``(draws, 4)`` in [0, 1].
    """
    weights = np.ones((1, len(counts))) if weights is None else weights
    pooled = weights @ counts  # (draws, 10)
    right, guessed = pooled[:, :ORDERS], pooled[:, ORDERS : 2 * ORDERS]
    length, reference_length = pooled[:, -2], pooled[:, -1]
    with np.errstate(divide="ignore"):  # the logarithm of 0 is minus infinity, and its exponential 0 again
        precision = np.log(right / np.maximum(guessed, 1))
        brevity = np.minimum(0.0, 1 - reference_length / np.maximum(length, 1e-12))
    scores: np.ndarray = np.exp(brevity[:, None] + np.cumsum(precision, axis=1) / np.arange(1, ORDERS + 1))
    return scores


# ROUGE-L --------------------------------------------------------------------------------------------------------------


def rouge_l(generated: Sequence[Sequence[str]], references: Sequence[Sequence[str]], beta: float = 1.2) -> np.ndarray:
    r"""ROUGE-L of each study, with the COCO code's beta.

    .. math:: F = \frac{(1 + \beta^2) P R}{R + \beta^2 P}

    where P and R are the longest common subsequence's share of the generated words and of the reference's. Other
    libraries take beta = 1.

    Source: Lin, ACL workshop 2004, Eq. 4.

    Returns:
        ``(n,)`` in [0, 1]; 0 where nothing was generated.
    """
    values = []
    for own, reference in zip(generated, references, strict=True):
        common = common_subsequence(own, reference)
        precision, recall = common / max(1, len(own)), common / max(1, len(reference))
        values.append((1 + beta**2) * precision * recall / (recall + beta**2 * precision) if common else 0.0)
    return np.array(values)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence: a row of the table at a time, its steps as the bits of one number.

    Source: Crochemore et al., Information Processing Letters 80(6), 2001.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every  # a zero is a step
    for word in second:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & every
    return len(first) - row.bit_count()


# CIDEr-D --------------------------------------------------------------------------------------------------------------


def cider_d(generated: Sequence[Sequence[str]], references: Sequence[Sequence[str]], sigma: float = 6.0) -> np.ndarray:
    r"""CIDEr-D of each study.

    .. math:: \frac{10}{4} \sum_{n=1}^{4} e^{-(l_c - l_r)^2 / 2 \sigma^2}
              \frac{\min(g^n(c), g^n(r)) \cdot g^n(r)}{\lVert g^n(c) \rVert \lVert g^n(r) \rVert}

    with g the counts of n-grams times log(studies / references that have it). An n-gram that every reference has weighs
    nothing, so a study's value depends on the other studies; in a bootstrap these weights stay. A perfect report scores
    10 if in each order it has an n-gram that not every reference has.

    Source: Vedantam et al., CVPR 2015, arXiv:1411.5726, Eq. 4. As in the COCO code, the references that weigh are
    those measured on.

    Returns:
        ``(n,)`` in [0, 10].
    """
    spoken = [[_ngrams(reference, order) for order in range(1, ORDERS + 1)] for reference in references]
    holders = Counter(ngram for report in spoken for order in report for ngram in order)
    rarity = {ngram: math.log(len(references) / count) for ngram, count in holders.items()}
    unheard = math.log(len(references)) if references else 0.0

    def weighed(counts: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
        return {ngram: count * rarity.get(ngram, unheard) for ngram, count in counts.items()}

    def length(vector: dict[tuple[str, ...], float]) -> float:
        return math.sqrt(sum(value * value for value in vector.values()))

    values = []
    for own, reference, told in zip(generated, references, spoken, strict=True):
        guessed = [_ngrams(own, order) for order in range(1, ORDERS + 1)]
        penalty = math.exp(-((len(own) - len(reference)) ** 2) / (2 * sigma**2))
        similarity = 0.0
        for own_counts, told_counts in zip(guessed, told, strict=True):
            candidate, target = weighed(own_counts), weighed(told_counts)
            product = sum(
                min(value, target.get(ngram, 0.0)) * target.get(ngram, 0.0) for ngram, value in candidate.items()
            )
            if product:
                similarity += product / (length(candidate) * length(target))
        values.append(10 * penalty * similarity / ORDERS)
    return np.array(values)


# METEOR ---------------------------------------------------------------------------------------------------------------


class _NoSynonyms:
    """WordNet's place: it has to be downloaded, so no two words are synonyms here."""

    def synsets(self, word: str) -> list[object]:
        return []


def meteor_exact_stem(generated: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """METEOR of 2005 of each study, of equal words and equal stems, by nltk.

    Without synonyms and paraphrases, and with the parameters of the first paper: it is not comparable to the METEOR 1.5
    of the COCO code, which papers print. A perfect report of m words scores ``1 - 0.5 / m**3``.

    Source: Banerjee and Lavie, ACL workshop 2005; alpha 0.9, beta 3, gamma 0.5.

    Returns:
        ``(n,)`` in [0, 1).
    """
    from nltk.translate.meteor_score import single_meteor_score

    pairs = zip(generated, references, strict=True)
    return np.array([single_meteor_score(reference, own, wordnet=_NoSynonyms()) for own, reference in pairs])
