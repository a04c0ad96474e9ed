"""Reports as tokens: a tokenizer, and every report of a corpus tokenised once. Floor 2.

The tokens of a corpus are written beside it, some reports at a time, and mapped by every process of the machine::

    CORPUS/derived/tokens-KEY/     KEY: the tokenizer, its limit and the corpus
      ids.bin, sentence.bin, word.bin, offsets.bin, sentences.bin, first_sentence.bin    the arrays of :class:`Tokens`
      about.json                   pad, max_tokens, cut
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lingula.data.derived import derived
from lingula.registry import UserError

if TYPE_CHECKING:
    from lingula.data.prepared import PreparedCorpus

REPORTS = 4096  # tokenised at a time
REMEMBERED = 50_000  # different sentences whose tokens are kept meanwhile
ARRAYS = {  # of Tokens, as they lie on disk
    "ids": np.int32,
    "sentence": np.int16,
    "word": np.int16,
    "offsets": np.int64,
    "sentences": np.int64,
    "first_sentence": np.int64,
}
MAX_TOKENS = 256  # the longest report, specials included
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(sentences: Iterable[str], folder: Path, vocabulary: int = 2000) -> Any:
    """Learn a lower-case WordPiece vocabulary and save it as a folder that ``AutoTokenizer`` loads.

    Args:
        sentences: text to learn from, in any case; give it the training split only. They are gone through twice: what
            can be iterated once only is held in memory.
        folder: where the tokenizer is saved.
        vocabulary: the largest number of tokens.
    Returns:
        the loaded tokenizer.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    wordpiece = BertWordPieceTokenizer(lowercase=True)
    if isinstance(sentences, Iterator):
        sentences = list(sentences)
    # Ties between equally frequent pairs go by id, and the trainer numbers the "##x" in the order of a hash table:
    # another vocabulary every time. So the letters are numbered here.
    normalize = wordpiece.normalizer.normalize_str  # its own normalize() is broken in tokenizers 0.22
    normal = (normalize(sentence.lower()) for sentence in sentences)
    letters = sorted({letter for letter in set().union(*normal) if letter.strip()})
    numbered = SPECIAL + letters + [f"##{letter}" for letter in letters]
    wordpiece.train_from_iterator(
        (sentence.lower() for sentence in sentences),
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=numbered,
        show_progress=False,
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
    """Tokenise a few reports sentence by sentence, in memory; equal sentences are tokenised once.

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
    reader = _Reader(tokenizer, max_tokens)
    tokens = reader.read(reports)
    reader.check(most_unknown)
    return tokens


def tokenise_corpus(corpus: PreparedCorpus, tokenizer: Any, max_tokens: int = MAX_TOKENS) -> Tokens:
    """All reports of a corpus as :func:`tokenise` reads them, mapped from disk; written there by who asks first.

    Args:
        corpus: prepared.
        tokenizer: of :func:`load_tokenizer`.
        max_tokens: the longest report, specials included.
    Raises:
        UserError: if the tokenizer does not know the corpus's words, or nowhere can be written to.
    """
    key = hashlib.sha256(f"{corpus.content_hash} {_identity(tokenizer)} {max_tokens}".encode()).hexdigest()[:16]
    return map_tokens(
        derived(corpus.folder, f"tokens-{key}", lambda out: write_tokens(out, corpus.reports, tokenizer, max_tokens))
    )


def write_tokens(folder: Path, reports: Iterable[Sequence[str]], tokenizer: Any, max_tokens: int) -> None:
    """Write the tokens of reports to an empty folder, in memory that does not grow with them.

    Raises:
        UserError: if the tokenizer does not know the words.
    """
    reader = _Reader(tokenizer, max_tokens)
    ends = {"offsets": 0, "first_sentence": 0}
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in ARRAYS}
        rest = iter(reports)
        while some := list(islice(rest, REPORTS)):
            tokens = reader.read(some)
            arrays = {name: getattr(tokens, name) for name in ARRAYS}
            for name in ends:
                arrays[name] = arrays[name] + ends[name]
                ends[name] = int(arrays[name][-1])
                if files[name].tell():
                    arrays[name] = arrays[name][1:]  # the first of a batch is the last of the one before
            for name, kind in ARRAYS.items():
                files[name].write(arrays[name].astype(kind).tobytes())
    reader.check(1 / 3)
    about = {"pad": int(tokenizer.pad_token_id), "max_tokens": max_tokens, "cut": reader.cut}
    (folder / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


def map_tokens(folder: Path) -> Tokens:
    """What :func:`write_tokens` wrote, memory-mapped."""
    arrays = {name: np.memmap(folder / f"{name}.bin", dtype=kind, mode="r") for name, kind in ARRAYS.items()}
    about: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    about |= {name: np.asarray(array) for name, array in arrays.items()}
    return Tokens(**about)


class _Reader:
    """Reads reports with a tokenizer, and remembers the sentences that it has seen lately.

    Attributes:
        cut: reports so far that did not fit.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens, self.cut = tokenizer, max_tokens, 0
        self._known: dict[str, tuple[list[int], list[int]]] = {}
        self._tokens = self._unknown = 0

    def read(self, reports: Sequence[Sequence[str]]) -> Tokens:
        """The tokens of some reports."""
        lowered = [[sentence.lower() for sentence in report] for report in reports]
        self._learn(dict.fromkeys(sentence for report in lowered for sentence in report))
        room = self.max_tokens - 2
        ids: list[int] = []
        places: list[int] = []
        words: list[int] = []
        offsets, kept = [0], []
        cut = 0
        for report in lowered:
            start = len(ids)
            ids.append(self.tokenizer.cls_token_id)
            places.append(-1)
            words.append(-1)
            count = word = 0
            short = False
            for sentence in report:
                tokens, own = self._known[sentence]
                used = len(ids) - start - 1
                if used + len(tokens) > room:
                    short = True
                    if count:
                        break
                    tokens = tokens[:room]
                ids.extend(tokens)
                places.extend([count] * len(tokens))
                own = own[: len(tokens)]
                words.extend(word + place for place in own)
                count += 1
                word += own[-1] + 1 if own else 0
            ids.append(self.tokenizer.sep_token_id)
            places.append(-1)
            words.append(-1)
            offsets.append(len(ids))
            kept.append(count)
            cut += short
        flat, sentence_of = np.asarray(ids, dtype=np.int32), np.asarray(places, dtype=np.int16)
        real = flat[sentence_of >= 0]
        self._tokens += len(real)
        self._unknown += int((real == self.tokenizer.unk_token_id).sum())
        self.cut += cut
        lengths = [len(report) for report in reports]
        return Tokens(
            flat,
            sentence_of,
            np.asarray(words, dtype=np.int16),
            np.asarray(offsets),
            np.asarray(kept, dtype=np.int64),
            np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            int(self.tokenizer.pad_token_id),
            self.max_tokens,
            cut,
        )

    def check(self, most_unknown: float) -> None:
        """
        Raises:
            UserError: if a larger share of the tokens than this is unknown to the tokenizer.
        """
        share = self._unknown / self._tokens if self._tokens else 0.0
        if share > most_unknown:
            raise UserError(f"the tokenizer does not know {share:.0%} of the tokens; it was made for another language")

    def _learn(self, sentences: dict[str, None]) -> None:
        """Tokenise the sentences that are not remembered."""
        if len(self._known) > REMEMBERED:
            self._known = {sentence: self._known[sentence] for sentence in sentences if sentence in self._known}
        new = [sentence for sentence in sentences if sentence not in self._known]
        if not new:
            return
        encoded = self.tokenizer(new, add_special_tokens=False)
        for place, (sentence, ids) in enumerate(zip(new, encoded["input_ids"], strict=True)):
            self._known[sentence] = ids, _words(encoded, place)


def _identity(tokenizer: Any) -> str:
    """Equal for tokenizers that read alike: what they are made of, and the libraries that run them."""
    import tokenizers
    import transformers

    if getattr(tokenizer, "is_fast", False):
        made = json.loads(tokenizer.backend_tokenizer.to_str())
        made = {part: value for part, value in made.items() if part not in ("truncation", "padding")}
    else:
        made = {"class": type(tokenizer).__qualname__, "vocabulary": tokenizer.get_vocab()}
    special = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
    own = [made, special, transformers.__version__, tokenizers.__version__]
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def _words(encoded: Any, place: int) -> list[int]:
    """Which word of its sentence each token belongs to, from 0; of a tokenizer that does not say, each is a word."""
    if not encoded.is_fast:
        return list(range(len(encoded["input_ids"][place])))
    of_token: list[int] = encoded.word_ids(place)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(of_token))}
    return [numbers[word] for word in of_token]
