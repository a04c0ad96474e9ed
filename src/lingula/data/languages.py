"""Which language a text is in, and what its abbreviations are. Floor 2.

A guess by script, and among languages in Latin letters by frequent words: nothing is downloaded, and a text too short
to tell is ``unknown``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

NAMES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "pt": "Portuguese",
    "it": "Italian",
    "nl": "Dutch",
    "zh": "Chinese",
}
UNKNOWN = "unknown"

# Scripts that tell a language, or at least that it is none of the built-in ones; the first that is there decides.
_SCRIPTS = {
    "Japanese": "\u3040-\u30ff",
    "Korean": "\uac00-\ud7af\u1100-\u11ff",
    "Chinese": "\u3400-\u4dbf\u4e00-\u9fff",
    "Thai": "\u0e00-\u0e7f",
    "Hindi": "\u0900-\u097f",
    "Cyrillic script": "\u0400-\u04ff",
    "Arabic script": "\u0600-\u06ff",
    "Greek": "\u0370-\u03ff",
    "Hebrew": "\u0590-\u05ff",
}
_SCRIPT = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_LEAST = 2  # words of a language that a text must have
_LEAD = 1.2  # times as many as of any other language


def guess_language(text: str) -> str:
    """The name of a text's language; ``unknown`` where it is too short or none of those that we know.

    Example:
        >>> [guess_language(text) for text in ("Kein Nachweis eines Ergusses.", "双肺纹理清晰。", "Xyz.")]
        ['German', 'Chinese', 'unknown']
    """
    letters = 0 if text.isascii() else len(re.findall(r"[^\W\d_]", text))
    for name, script in _SCRIPT.items() if letters else ():
        if 3 * len(script.findall(text)) > letters:
            return name
    weights = _weights()
    scores: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for word in _WORD.findall(unicodedata.normalize("NFC", text).lower()):
        for language, weight in weights.get(word, {}).items():
            scores[language] += weight  # type: ignore[assignment]
            found[language] += 1
    ranked = scores.most_common(2)
    if not ranked or found[ranked[0][0]] < _LEAST:
        return UNKNOWN
    if len(ranked) > 1 and ranked[0][1] < _LEAD * ranked[1][1]:
        return UNKNOWN
    return NAMES[ranked[0][0]]


@cache
def _weights() -> dict[str, dict[str, float]]:
    """By word, its languages; a word of several counts less for each."""
    by_word: dict[str, dict[str, float]] = {}
    for language, entries in _data().items():
        for word in set(entries["words"]):
            by_word.setdefault(word, {})[language] = 1.0
    for languages in by_word.values():
        for language in languages:
            languages[language] = 1 / len(languages)
    return by_word


@cache
def abbreviations(kind: str) -> frozenset[str]:
    """The abbreviations of all languages but English, whose own stand with the rules of its sentences.

    Args:
        kind: ``leading``, ``own``, ``trailing``, ``before_opener``, ``openers``, ``before_ordinal`` or
            ``after_ordinal``, as ``languages.yaml`` explains.
    """
    return frozenset(word for entries in _data().values() for word in entries.get(kind, ()))


def is_own_abbreviation(word: str, text: str) -> bool:
    """Whether a word, in lower case, is an abbreviation of the kind ``own`` in the language that a text is in.

    Example:
        >>> [is_own_abbreviation("nl", text) for text in ("Heart size is nl. No change.", "Het hart is nl. groot.")]
        [False, True]
    """
    if word not in abbreviations("own"):
        return False
    language = guess_language(text)
    return any(NAMES.get(code) == language and word in entries.get("own", ()) for code, entries in _data().items())


def load_words(text: str) -> Any:
    """YAML in which every value is text: "no" is a word here, and 3 too.

    Raises:
        yaml.YAMLError: for what is no YAML.
    """
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # the first is ten times as fast


@cache
def _data() -> dict[str, dict[str, list[str]]]:
    text = Path(__file__).with_name("languages.yaml").read_text(encoding="utf-8")
    written: dict[str, dict[str, list[str]]] = load_words(text)
    return written
