"""Headings of reports: which spelling names which section, in eight languages and those that a user adds. Floor 2.

The spellings are data, in ``headings.yaml``; what a heading may have around its spelling is a rule, and stands here.
Where headings are found in a report: :mod:`lingula.data.parts`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lingula.data.languages import load_words
from lingula.registry import UserError, nearest

BUILT_IN = Path(__file__).with_name("headings.yaml")
KEPT = ("findings", "impression", "anatomy", "image")  # sections that say something of the image
BY_DESIGN = (  # sections that do not, and are left out on purpose
    *("indication", "history", "comparison", "technique", "examination", "recommendation", "notification"),
    *("addendum", "wet read", "administration"),
)
WORDS = (  # no sections, but words of headings, and of what stands under them
    *("image", "qualifier", "modality", "clinical", "prior", "before findings"),
    *("closing", "person", "sign", "statement"),
)

_FORGIVING = 8  # letters of a spelling from which on one slip is forgiven: "funding" is no finding
_REMEMBERED = 1 << 14  # headings whose section is not looked for twice
_SHORTEST = 3  # letters; shorter names of parts of the chest ("os") do not tell a sentence
_SIGNATURE = 6  # words of a line that is a person's name and office
_MOST_BEFORE = 3  # unknown words before the name of a section: "RESIDENT WET READ"
_JOINING = {"&", "and", "und", "et", "y", "e", "en", "ed"}
_NO_TITLE = {
    "no",
    "not",
    "without",
    "negative",
    "normal",
    "the",
    "these",
    "this",
    "any",
    "kein",
    "keine",
    "sin",
    "sans",
}
_TITLES = ("findings", "impression")
_OF_OTHERS = {"prior": "comparison", "clinical": "indication"}  # what a word makes of findings or an impression
_PARENTHESIS = re.compile(r"\s*\([^()]{0,40}\)")


def fold(written: str) -> str:
    """A heading without case, accents and punctuation, ``&`` and ``/`` as words.

    Example:
        >>> fold("IMPRESIÓN/Résultats:")
        'impresion & resultats'
    """
    apart = unicodedata.normalize("NFKD", _PARENTHESIS.sub("", written)).casefold()
    plain = "".join(letter for letter in apart if not "\u0300" <= letter <= "\u036f")
    return " ".join(re.findall(r"&|[^\W_]+", re.sub(r"[/&+]", " & ", plain)))


class Headings:
    """The spellings of headings, by section.

    Args:
        spellings: the sections' spellings by language, of one file or several; later ones win.
    """

    def __init__(self, spellings: Sequence[Mapping[str, Mapping[str, Iterable[str]]]]) -> None:
        self._section: dict[str, str] = {}
        self._words: dict[str, str] = {}  # "image" or "qualifier"
        self._other_words: dict[str, set[str]] = {kind: set() for kind in WORDS[2:]}
        for file in spellings:
            for section, languages in file.items():
                for written in (fold(name) for names in languages.values() for name in names):
                    if section in self._other_words:
                        self._other_words[section].add(written)
                    elif section in WORDS:
                        self._words.setdefault(written, section)
                    else:
                        self._section[written] = "" if section == "banner" else section
        parts = {name for name, section in self._section.items() if section == "anatomy" and len(name) > _SHORTEST}
        self._signs = parts | self._other_words["sign"]
        self._nouns = {
            fold(name) for file in spellings for languages in file.values() for name in languages.get("de", ())
        }  # German has a capital on every noun
        self._nouns -= {
            fold(name)
            for file in spellings
            for languages in file.values()
            for language, names in languages.items()
            for name in names
            if language != "de"
        }
        self._longest = max(len(name.split()) for name in self._section)
        self._near_section = _near(self._section, _FORGIVING)
        self._near_word = _near(self._words, _FORGIVING - 1)
        self._exact = lru_cache(_REMEMBERED)(lambda written: self._section.get(fold(written)))
        self._found = lru_cache(_REMEMBERED)(self._find)

    @classmethod
    def read(cls, path: Path | None = None) -> Headings:
        """The built-in headings and those of a file of the same form.

        Raises:
            UserError: for a file that is missing, malformed, or has a section that there is not.
        """
        return _built_in() if path is None else cls([_read(BUILT_IN), _read(Path(path))])

    def fingerprint(self) -> str:
        """SHA-256 of all spellings: of equal ones, reports are read alike."""
        others = [sorted(words) for words in self._other_words.values()]
        own = json.dumps([sorted(self._section.items()), sorted(self._words.items()), others])
        return hashlib.sha256(own.encode()).hexdigest()

    def spellings(self) -> dict[str, str]:
        """Every spelling, folded, and its section; a banner's is ``""``."""
        return dict(self._section)

    def exact(self, written: str) -> str | None:
        """The section of a heading that is written as one of the spellings; ``None`` where there is none."""
        return self._exact(written)

    def is_noun(self, written: str) -> bool:
        """Whether a spelling is a German one alone: there, every noun has a capital, so that this one means nothing."""
        return fold(written) in self._nouns

    def section(self, written: str, whole: bool = True) -> str | None:
        """The section that a heading names, whatever its spelling; ``None`` where it is not known.

        Of two joined names the findings win, then the impression, then the first. ``image``: it names the image.

        Args:
            written: the heading, without its colon.
            whole: every word must be known; if not, up to three others may stand before the name of a section that is
                left out. Before findings or an impression they may mean anybody's: :meth:`likely`.

        Example:
            >>> known = Headings.read()
            >>> [known.section(name) for name in ("FINDNGS", "Chest X-ray findings", "PORTABLE AP CHEST", "Reader's")]
            ['findings', 'findings', 'image', None]
            >>> known.section("RESIDENT WET READ"), known.section("RESIDENT WET READ", whole=False)
            (None, 'wet read')
            >>> [known.section(name) for name in ("CLINICAL DIAGNOSIS", "PRIOR FINDINGS", "CT FINDINGS")]
            ['indication', 'comparison', 'findings']
        """
        return self._found(written, whole)

    def likely(self, written: str) -> str | None:
        """``findings`` or ``impression`` where up to three words that we do not know stand before their name.

        Example:
            >>> Headings.read().likely("WARD IMPRESSION"), Headings.read().likely("NO NEW FINDINGS")
            ('impression', None)
        """
        words = fold(written).split()
        if self.section(written) is not None or not words or words[0] in _NO_TITLE:
            return None
        return next((title for title in map(_title, self._endings(words)) if title), None)

    def before_findings(self, written: str) -> bool:
        """Whether an impression's name is that of a suspicion where it stands before the findings: ``DIAGNOSIS``."""
        return fold(written) in self._other_words["before findings"]

    def states(self, sentence: str) -> bool:
        """Whether a sentence states something of the chest: "the heart is normal", and not "heart failure".

        Example:
            >>> [Headings.read().states(text) for text in ("Kein Erguss.", "心影不大。", "Heart failure for years.")]
            [True, True, False]
        """
        words = set(fold(sentence).split())
        return all(
            words & known or any(word in sentence for word in known if not word.isascii())
            for known in (self._signs, self._other_words["statement"])
        )

    def closing(self, line: str) -> re.Match[str] | None:
        """How a line begins on which someone signs, without a colon: "gez.", "Dictated by", or the title of a name.

        Example:
            >>> known = Headings.read()
            >>> known.closing("gez. Dr. Roth")[0], known.closing("Dr. Roth")[0], known.closing("Dr. Roth was told.")
            ('gez. ', 'Dr. ', None)
        """
        words = [*re.finditer(r"[^\W_]+[^\w\n]*", line)]
        folded = [fold(word[0]) for word in words]
        end = next((n for n in range(1, 1 + len(words)) if " ".join(folded[:n]) in self._other_words["closing"]), 0)
        if not end and 1 < len(words) <= _SIGNATURE and folded[0] in self._other_words["person"]:
            states = self._other_words["statement"].intersection(folded)
            end = not states and not any(self._kind(word) for word in folded)  # "DR CHEST" is a technique
        return re.match(rf".{{{words[end - 1].end()}}}", line, re.DOTALL) if end else None

    def _endings(self, words: list[str]) -> Iterator[list[str]]:
        """The sections that the words name without the first one, two or three."""
        for before in range(1, min(_MOST_BEFORE, len(words) - 1) + 1):
            yield self._joined(words[before:])

    def _find(self, written: str, whole: bool) -> str | None:
        folded = fold(written)
        found = self._section.get(folded)
        if found is not None or not folded:
            return found
        words = folded.split()
        if self._names_image(words):
            return "image"
        found = self._of_others(words) or _slip(folded, self._near_section)
        if found is not None:
            return found
        named = self._joined(words)
        if named:
            return _title(named) or named[0]
        if whole or words[0] in _NO_TITLE:
            return None
        for named in self._endings(words):
            if named and set(named) != {"anatomy"}:
                return None if _title(named) else named[0]
        return None

    def _of_others(self, words: list[str]) -> str | None:
        """The section of findings or an impression that are not of this image: a clinician's, a laboratory's, older."""
        for kind, section in _OF_OTHERS.items():
            known = self._other_words[kind]
            if words[0] in known or words[-1] in known:
                rest = [word for word in words if word not in known]
                if kind == "clinical" and any(self._words.get(word) == "image" for word in rest):
                    return _title(self._joined(rest))  # "ICU CHEST FINDINGS"
                if rest and any(map(_title, [self._joined(rest), *self._endings(rest)])):
                    return section
        return None

    def _names_image(self, words: list[str]) -> bool:
        kinds = [self._kind(word) for word in words]
        return "image" in kinds and all(
            kind or word in _JOINING or word.isdigit() for kind, word in zip(kinds, words, strict=True)
        )

    def _kind(self, word: str) -> str | None:
        """Whether a word names the image or qualifies it, one slip forgiven."""
        return self._words.get(word) or _slip(word, self._near_word)

    def _joined(self, words: list[str]) -> list[str]:
        """The sections that words name one after the other, of which there is nothing else; empty if there is."""
        named: list[str] = []
        place = 0
        while place < len(words):
            for end in range(min(len(words), place + self._longest), place, -1):
                phrase = " ".join(words[place:end])
                if phrase in self._words:  # "views", "study": not by themselves a section here
                    continue
                found = self._section.get(phrase)
                if found is None:
                    found = _slip(phrase, self._near_section)
                if found is not None:
                    named.append(found)
                    place = end
                    break
            else:
                word = words[place]
                filler = word in _JOINING or word.isdigit() or word in self._other_words["modality"]
                if not (filler or self._kind(word)):
                    return []
                place += 1
        return named


def _title(named: list[str]) -> str | None:
    """Findings or the impression among the sections that a heading names."""
    return next((title for title in _TITLES if title in named), None)


def _near(names: Mapping[str, str], least: int) -> dict[str, list[tuple[str, str]]]:
    """Names of ``least`` letters and what stands under them, by what is left of them without any one letter.

    Two words that are one slip apart share such a rest, so that few need to be compared.
    """
    near: dict[str, list[tuple[str, str]]] = {}
    for name, value in names.items():
        if len(name) >= least and name.isascii():
            for rest in _rests(name):
                near.setdefault(rest, []).append((name, value))
    return near


def _rests(word: str) -> set[str]:
    return {word, *(word[:place] + word[place + 1 :] for place in range(len(word)))}


def _slip(written: str, near: Mapping[str, list[tuple[str, str]]]) -> str | None:
    """What stands under the name that is one slip away; of several the first by the alphabet."""
    if len(written) < _FORGIVING - 2 or not written.isascii():
        return None
    found = {entry for rest in _rests(written) for entry in near.get(rest, ()) if one_slip(written, entry[0])}
    return min(found)[1] if found else None


def one_slip(written: str, meant: str) -> bool:
    """Whether two words are one slip of the pen apart: a letter too many or too few, another, or two swapped.

    Example:
        >>> [one_slip(word, "findings") for word in ("finidngs", "findngs", "findindgs", "finsings", "funding")]
        [True, True, True, True, False]
    """
    if abs(len(written) - len(meant)) > 1 or written == meant:
        return False
    start = 0
    while start < min(len(written), len(meant)) and written[start] == meant[start]:
        start += 1
    one, other = written[start:], meant[start:]
    if len(one) == len(other):
        return one[1:] == other[1:] or (one[:2] == other[1::-1] and one[2:] == other[2:])
    return one[1:] == other if len(one) > len(other) else one == other[1:]


@cache
def _built_in() -> Headings:
    return Headings([_read(BUILT_IN)])


@cache
def _sections() -> tuple[str, ...]:
    return tuple(_load(BUILT_IN))


def _load(path: Path) -> Any:
    import yaml

    try:
        return load_words(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise UserError(f"cannot read the headings {path}: {getattr(err, 'strerror', None) or err}") from err


def _read(path: Path) -> dict[str, dict[str, list[str]]]:
    """A file of headings, its form checked."""
    written = _load(path)
    form = "expected 'section:', below it 'language: [spelling, ...]'"
    if not isinstance(written, dict) or not written:
        raise UserError(f"{path} has no headings; {form}")
    for section, languages in written.items():
        if path != BUILT_IN and section not in _sections():
            known = nearest(section, _sections()) or f"; known: {', '.join(_sections())}"
            raise UserError(f"{path}: unknown section '{section}'{known}")
        if not isinstance(languages, dict) or not languages:
            raise UserError(f"{path}: section '{section}' has no languages; {form}")
        for language, names in languages.items():
            if not isinstance(names, list) or not names:
                raise UserError(f"{path}: '{language}' of section '{section}' is no list of spellings; {form}")
            for name in names:
                if not isinstance(name, str) or not fold(name):
                    raise UserError(f"{path}: '{language}' of section '{section}' has {name!r}, which is no heading")
    return written
