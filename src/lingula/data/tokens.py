"""Reports as tokens: a tokenizer, and every report of a corpus tokenised once. Floor 2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lingula.registry import UserError

MAX_TOKENS = 256  # the longest report, specials included
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(sentences: Iterable[str], folder: Path, vocabulary: int = 2000) -> Any:
    """Learn a lower-case WordPiece vocabulary and save it as a folder that ``AutoTokenizer`` loads.

    Args:
        sentences: text to learn from; give it the training split only.
        folder: where the tokenizer is saved.
        vocabulary: the largest number of tokens.
    Returns:
        the loaded tokenizer.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    wordpiece = BertWordPieceTokenizer(lowercase=True)
    sentences = list(sentences)
    # Ties between equally frequent pairs go by id, and the trainer numbers the "##x" in the order of a hash table:
    # another vocabulary every time. So the letters are numbered here.
    normal = map(wordpiece.normalizer.normalize_str, sentences)  # its own normalize() is broken in tokenizers 0.22
    letters = sorted({letter for sentence in normal for letter in sentence if letter.strip()})
    numbered = SPECIAL + letters + [f"##{letter}" for letter in letters]
    wordpiece.train_from_iterator(
        sentences, vocab_size=vocabulary, min_frequency=2, special_tokens=numbered, show_progress=False
    )
    # transformers 5 takes vocab=; vocab_file= silently gives a vocabulary of five tokens, and 5.0 to 5.2 lower-case
    # nothing unless they are told to
    BertTokenizer(vocab=wordpiece.get_vocab(), do_lower_case=True).save_pretrained(str(folder))
    return load_tokenizer(folder)


def load_tokenizer(name: str | Path) -> Any:
    """A tokenizer by Hugging Face name or local folder.

    Raises:
        UserError: where it cannot be had, wants code of its own to run, or is so small that loading has evidently gone
            wrong.
    """
    from transformers import AutoTokenizer

    from lingula.nn.hub import fetch, no_model

    try:
        tokenizer = fetch(AutoTokenizer, name)
    except UserError:
        raise
    except Exception as err:
        raise UserError(no_model("tokenizer", name, err)) from err
    if len(tokenizer) < 20:
        raise UserError(f"the tokenizer '{name}' knows only {len(tokenizer)} tokens; its vocabulary did not load")
    return tokenizer


@dataclass
class Tokens:
    """Every report of a corpus, flat: report i is ``ids[offsets[i]:offsets[i + 1]]``.

    Attributes:
        ids: ``(all tokens,)`` int32, ``[CLS]`` and ``[SEP]`` included.
        sentence: ``(all tokens,)`` int16, the place of the token's sentence among those that were kept of its report;
            -1 for the specials.
        word: ``(all tokens,)`` int16, the place of the token's word in its report; -1 for the specials.
        offsets: ``(n + 1,)`` int64.
        sentences: ``(n,)`` int64, how many sentences of each report were kept.
        first_sentence: ``(n + 1,)`` int64, cumulative count of all sentences, kept or not: the key of sentence s of
            report i is ``first_sentence[i] + s``.
        pad: the id of padding.
        max_tokens: the longest report, specials included.
        cut: how many reports were cut at that.
    """

    ids: np.ndarray
    sentence: np.ndarray
    word: np.ndarray
    offsets: np.ndarray
    sentences: np.ndarray
    first_sentence: np.ndarray
    pad: int
    max_tokens: int = MAX_TOKENS
    cut: int = 0

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def cut_line(self) -> str:
        """How many reports were cut, in words; empty where none was."""
        if not self.cut:
            return ""
        left_out = int(self.first_sentence[-1] - self.sentences.sum())
        return (
            f"{self.cut:,} of {int((self.sentences > 0).sum()):,} reports were cut at {self.max_tokens} tokens; "
            f"{left_out:,} sentences left out"
        )


def tokenise(
    reports: Sequence[Sequence[str]], tokenizer: Any, max_tokens: int = MAX_TOKENS, most_unknown: float = 1 / 3
) -> Tokens:
    """Tokenise reports sentence by sentence; equal sentences are tokenised once.

    Text is lower-cased. A sentence that no longer fits is dropped whole, with all after it; a first sentence that does
    not fit is cut.

    Args:
        reports: the sentences of each report; an empty list for a film without text.
        tokenizer: of :func:`load_tokenizer`.
        max_tokens: the longest report, specials included.
        most_unknown: share of tokens that may be unknown to the tokenizer.
    Raises:
        UserError: if more are.
    """
    lowered = [[sentence.lower() for sentence in report] for report in reports]
    unique = list(dict.fromkeys(sentence for report in lowered for sentence in report))
    encoded = tokenizer(unique, add_special_tokens=False) if unique else {"input_ids": []}
    ids_of = dict(zip(unique, encoded["input_ids"], strict=True))
    words_of = {sentence: _words(encoded, place) for place, sentence in enumerate(unique)}
    room = max_tokens - 2
    ids: list[int] = []
    places: list[int] = []
    words: list[int] = []
    offsets, kept = [0], []
    cut = 0
    for report in lowered:
        start = len(ids)
        ids.append(tokenizer.cls_token_id)
        places.append(-1)
        words.append(-1)
        count = word = 0
        short = False
        for sentence in report:
            tokens = ids_of[sentence]
            used = len(ids) - start - 1
            if used + len(tokens) > room:
                short = True
                if count:
                    break
                tokens = tokens[:room]
            ids.extend(tokens)
            places.extend([count] * len(tokens))
            own = words_of[sentence][: len(tokens)]
            words.extend(word + place for place in own)
            count += 1
            word += own[-1] + 1 if own else 0
        ids.append(tokenizer.sep_token_id)
        places.append(-1)
        words.append(-1)
        offsets.append(len(ids))
        kept.append(count)
        cut += short
    flat = np.asarray(ids, dtype=np.int32)
    real = flat[np.asarray(places) >= 0]
    share = (real == tokenizer.unk_token_id).mean() if len(real) else 0.0
    if share > most_unknown:
        raise UserError(f"the tokenizer does not know {share:.0%} of the tokens; it was made for another language")
    lengths = [len(report) for report in reports]
    return Tokens(
        flat,
        np.asarray(places, dtype=np.int16),
        np.asarray(words, dtype=np.int16),
        np.asarray(offsets),
        np.asarray(kept, dtype=np.int64),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        int(tokenizer.pad_token_id),
        max_tokens,
        cut,
    )


def _words(encoded: Any, place: int) -> list[int]:
    """Which word of its sentence each token belongs to, from 0; of a tokenizer that does not say, each is a word."""
    if not encoded.is_fast:
        return list(range(len(encoded["input_ids"][place])))
    of_token: list[int] = encoded.word_ids(place)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(of_token))}
    return [numbers[word] for word in of_token]
