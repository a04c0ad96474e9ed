"""Reports as corpora read them: cleaned, taken apart, split into sentences, and everything counted. Floor 2.

A reader reads its reports through one :class:`ReportReader`, and :func:`lingula.data.preparation.prepare` prints what
that counted: what was kept, and what was dropped under which heading.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from lingula.data.cells import clean_text
from lingula.data.headings import BY_DESIGN, KEPT, Headings
from lingula.data.languages import guess_language
from lingula.data.sections import BELOW, NO_HEADING, Split, split_report
from lingula.data.sentences import MIN_TOKENS, count_tokens, least_tokens, split_sentences
from lingula.data.tokens import MAX_TOKENS

RULES = 1  # number of the rules by which reports are read; counts up where a report may come out otherwise
ONE_WORD = "sentences of one word"
UNFINISHED = "sentences without a full stop"
TAIL = "text after the reading"
LOUD = 0.2  # share of the characters that may be dropped without a warning
MOST_NAMES = 10  # headings that the table shows
_REMEMBERED = 20_000  # headings that are counted apart
_WIDTH = 80


@dataclass(frozen=True)
class Reading:
    """What was read of a report.

    Attributes:
        sentences: in lower case, without those of a single word.
        body: the text that they are of.
        dropped: ``(name, text)`` of what was left out: sections, headings that are not known, and single words.
        unknown: headings that are not known.
    """

    sentences: list[str]
    body: str
    dropped: list[tuple[str, str]]
    unknown: list[str]

    @property
    def enough(self) -> bool:
        """Whether the sentences have as many tokens as a report needs."""
        return sum(map(count_tokens, self.sentences)) >= MIN_TOKENS

    @property
    def dropped_names(self) -> str:
        """The names of what was left out, in quotes, for a message; empty where nothing was."""
        return ", ".join(f"'{name}'" for name in dict.fromkeys(name for name, _ in self.dropped))


@dataclass
class Tally:
    """Counts of all reports that were read; no texts are kept.

    Attributes:
        reports: how many, with what was read of each: text kept or dropped.
        kept: of what was kept, ``sentences`` and ``characters`` (without white space).
        dropped: the same by name of what was dropped.
        unknown: reports by heading that is not known, whether its text was kept or not.
        languages: reports by language, guessed.
        cut: ``reports`` of more than 256 tokens, and their ``sentences`` beyond; at the least, for a tokenizer may
            make several tokens of a word.
    """

    reports: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)

    def add(self, reading: Reading) -> None:
        """Count a report; one without any text is none."""
        if not reading.body.strip() and not reading.dropped:
            return
        self.reports += 1
        self.kept.update(sentences=len(reading.sentences), characters=sum(map(_characters, reading.sentences)))
        for name, text in reading.dropped:
            if name not in self.dropped and len(self.dropped) > _REMEMBERED:
                name = "other headings"
            split = 1 if name == ONE_WORD else len(split_sentences(text))
            self.dropped.setdefault(name, Counter()).update(sentences=split, characters=_characters(text))
        for name in dict.fromkeys(reading.unknown):
            if name in self.unknown or len(self.unknown) < _REMEMBERED:
                self.unknown[name] += 1
        self.languages[guess_language(reading.body or " ".join(text for _, text in reading.dropped))] += 1
        self._count_cut(reading.sentences)

    def _count_cut(self, sentences: list[str]) -> None:
        """As :func:`lingula.data.tokens.tokenise` will cut them: what no longer fits goes whole, with all after it."""
        used = 2  # [CLS] and [SEP]
        for place, sentence in enumerate(sentences):
            used += least_tokens(sentence)
            if used > MAX_TOKENS:
                self.cut.update(reports=1, sentences=len(sentences) - max(place, 1))
                return

    @property
    def characters(self) -> int:
        """All that were read, kept or dropped."""
        return self.kept["characters"] + sum(counts["characters"] for counts in self.dropped.values())

    def summary(self) -> dict[str, Any]:
        """The counts for ``corpus.json``; of many headings, the 50 with most text."""
        largest = sorted(self.dropped.items(), key=lambda item: (-item[1]["characters"], item[0]))
        return {
            "reports": self.reports,
            "kept": _plain(self.kept),
            "dropped": {name: _plain(counts) for name, counts in largest[:50]},
            "dropped_in_all": _plain(sum(self.dropped.values(), Counter())),
            "unknown_headings": dict(_ranked(self.unknown)[:50]),
            "languages": dict(_ranked(self.languages)),
            f"longer_than_{MAX_TOKENS}_tokens_at_least": {key: self.cut[key] for key in ("reports", "sentences")},
        }

    def lines(self, width: int = _WIDTH) -> Iterator[str]:
        """The counts as a table, a line each, at most ``width`` columns wide; nothing where nothing was read."""
        if not self.reports:
            return
        yield f"report text: {self.reports:,} read"
        yield f"{'sentences':>11} {'characters':>14}"
        yield self._row(self.kept, "kept")
        largest = sorted(self.dropped.items(), key=lambda item: (-item[1]["characters"], item[0]))
        for name, counts in largest[:MOST_NAMES]:
            yield self._row(counts, f"dropped: {_called(name)}")
        if largest[MOST_NAMES:]:
            rest = sum((counts for _, counts in largest[MOST_NAMES:]), Counter())
            yield self._row(rest, f"dropped: {len(largest) - MOST_NAMES} other headings")
        yield "  characters without spaces, headings and list marks"
        yield from _wrapped("language, guessed", _ranked(self.languages), self.reports, width)
        yield from _wrapped("headings not known, in how many reports", _ranked(self.unknown), None, width)
        if self.cut["reports"]:
            some = f"{self.cut['reports']:,} reports or more are longer than {MAX_TOKENS} tokens: "
            some += f"{self.cut['sentences']:,} of their sentences or more will not be read"
            yield from textwrap.wrap(some, width, initial_indent="  ", subsequent_indent="    ")

    def warning(self, option: str = "") -> str:
        """A sentence where much was dropped, else nothing.

        Args:
            option: what names headings on the command line; empty where headings play no part.
        """
        lost = sum(counts["characters"] for counts in self.dropped.values())
        if not self.characters or lost <= LOUD * self.characters:
            return ""
        share = f"{lost / self.characters:.0%} of the report text was dropped"
        others = {name: counts["characters"] for name, counts in self.dropped.items() if name not in BY_DESIGN}
        meant = lost - sum(others.values())
        if meant:
            share += f", {meant / self.characters:.0%} by design (indication, comparison, technique and the like)"
        if not any(others.values()):
            return share
        name = max(others, key=lambda name: (others[name], name))
        share += f"; most of {'the rest' if meant else 'it'} is {_called(name)}, {others[name] / self.characters:.0%}"
        if name == ONE_WORD:
            return f"{share}, which are never read"
        if option and name in self.unknown:
            return f"{share}; if that says something of the image, name its heading in a file: {option}"
        return share

    def _row(self, counts: Counter[str], what: str) -> str:
        share = counts["characters"] / max(1, self.characters)
        return f"{counts['sentences']:>11,} {counts['characters']:>14,} {share:>6.1%}  {what}"


class ReportReader:
    """Reads the reports of a corpus, and counts them.

    Args:
        headings: a file of further headings, as ``headings.yaml`` has them; the built-in ones alone if not given.
    Attributes:
        tally: the counts.
        option: the option that names ``headings``, for messages; empty for a corpus whose reports have none.
    """

    def __init__(self, headings: Path | None = None, option: str = "--headings FILE") -> None:
        self.headings = Headings.read(headings)
        self.option = option
        self.tally = Tally()

    def fingerprint(self) -> str:
        """Equal where reports are read alike: the same headings, and the same :data:`RULES`."""
        return f"{self.headings.fingerprint()}-v{RULES}"

    def read(
        self, cell: str, titled_only: bool = False, finished_only: bool = False, tail: str = "", count: bool = True
    ) -> Reading:
        """A whole report with its headings.

        Args:
            cell: its text as it stands in the source.
            titled_only: as in :func:`lingula.data.sections.split_report`.
            finished_only: drop sentences without a stop at their end.
            tail: text after it that is dropped unread.
            count: False for a report that is looked at more than once.
        """
        split = split_report(clean_text(cell), titled_only, self.headings)
        if tail.strip():
            split.dropped.append((TAIL, tail.strip()))
        return self._reading([split], finished_only, count)

    def read_sections(self, cells: Iterable[str], count: bool = True) -> Reading:
        """A report whose findings and impression are separate already; no headings are looked for."""
        return self._reading([Split(clean_text(cell).strip()) for cell in cells], False, count)

    def _reading(self, splits: list[Split], finished_only: bool, count: bool) -> Reading:
        dropped = [part for split in splits for part in split.dropped]
        sentences = []
        for sentence in (sentence for split in splits for sentence in split_sentences(split.body)):
            if finished_only and not sentence.endswith((".", "!", "?")):
                dropped.append((UNFINISHED, sentence))
            elif count_tokens(sentence) > 1:
                sentences.append(sentence.lower())
            else:
                dropped.append((ONE_WORD, sentence))
        body = "\n\n".join(split.body for split in splits if split.body)
        reading = Reading(sentences, body, dropped, [name for split in splits for name in split.unknown])
        if count:
            self.tally.add(reading)
        return reading


def start_reading(corpus: Any) -> ReportReader | None:
    """The reader of a corpus's reports, its counts at nothing; ``None`` for a corpus without one."""
    reader: ReportReader | None = getattr(corpus, "reading", None)
    if reader is not None:
        reader.tally = Tally()
    return reader


def what_was_read(reader: ReportReader | None) -> dict[str, Any]:
    """The entry ``reports`` of ``corpus.json``; empty where no reports were read."""
    return {"reports": reader.tally.summary()} if reader is not None and reader.tally.reports else {}


def say_what_was_read(name: str, reader: ReportReader | None, log: Callable[[str], None]) -> None:
    """Log the table of what was read, and a warning where much of it was dropped; nothing where nothing was read."""
    if reader is None or not reader.tally.reports:
        return
    for place, line in enumerate(reader.tally.lines()):
        log(line if place else f"{name}: {line}")
    warning = reader.tally.warning(reader.option)
    for line in textwrap.wrap(f"{name}: warning: {warning}", _WIDTH, subsequent_indent="  ") if warning else ():
        log(line)


def _characters(text: str) -> int:
    return len("".join(text.split()))


def _plain(counts: Counter[str]) -> dict[str, int]:
    return {key: counts[key] for key in ("sentences", "characters")}


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, equals by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _called(name: str) -> str:
    """What a dropped part is, in words."""
    if name in BY_DESIGN:
        return f"{name} (by design)"
    if name in (NO_HEADING, "other headings"):
        return f"text under {name}"
    if name in (ONE_WORD, UNFINISHED, TAIL, BELOW):
        return name
    if name in KEPT:  # beside findings, or in a history
        return "title of an image" if name == "image" else f"{name} in a history"
    return f"'{_short(name)}' (not known)"


def _short(name: str, width: int = 22) -> str:
    """A name cut to as many columns; Chinese characters take two."""
    widths = [1 + (east_asian_width(letter) in "WF") for letter in name]
    if sum(widths) <= width:
        return name
    fitting = [place for place in range(len(name)) if sum(widths[: place + 1]) <= width - 3]
    return name[: len(fitting)] + "..."


def _wrapped(what: str, ranked: list[tuple[str, int]], whole: int | None, width: int) -> list[str]:
    """``what: a 90 %, b 10 %`` in lines; with shares of a whole, or counts."""
    if not ranked:
        return []
    shown = [(name if whole else f"'{_short(name)}'", count) for name, count in ranked[:MOST_NAMES]]
    words = [f"{name} {n / whole:.1%}" if whole else f"{name} {n:,}" for name, n in shown]
    more = f", and {len(ranked) - MOST_NAMES:,} more" if len(ranked) > MOST_NAMES else ""
    return textwrap.wrap(f"{what}: {', '.join(words)}{more}", width, initial_indent="  ", subsequent_indent="    ")
