"""A report's headings and what stands under each, in their order. Floor 2.

What spells a heading: :mod:`lingula.data.headings`. What is read of the parts: :mod:`lingula.data.sections`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from lingula.data.headings import Headings

_LONGEST = 80  # characters of a heading
_WINDOW = 200  # characters before a colon, or of a line, in which a heading is looked for
_COLON = re.compile(r"(?<!\d)[:：﹕]|(?<=\d)[:：﹕](?!\d)")  # not that of a time
_BEFORE = re.compile(  # what may stand before a heading on its line: bullets, numbers, Markdown
    r"[ \t]*(?:[>•*·–—-]+[ \t]+)?(?:(?:\d{1,2}|[IVX]{1,4}|[A-H])[.)][ \t]*)?(?P<hash>\#{1,6}[ \t]*)?"
    r"(?P<bold>\*{1,3}|_{1,2}(?=[^\W_]))?\[?[ \t]*"
)
_AFTER = re.compile(r"[ \t]*\]?(?:\*{1,3}|(?<=[^\W_])__)?[ \t]*\]?[ \t]*\#*[ \t]*$")  # and between it and its colon
_END = re.compile(r"\*{1,3}|__(?!_)|-(?!\d)|")  # and after its colon
_BRACKETS = re.compile(
    r"[【〔［]\s*([^【】〔〕［］\n]{1,30}?)\s*[】〕］][ \t]*[:：]?|\[([^\W\d_][^\[\]*\n]{3,40})\][ \t]*:?"
)
STOP = re.compile(r"[.!?;_\])。！？；）】।][ \t]+|[。！？；】।\t]|[ ]{3,}")
_BARE = re.compile(  # a name in capitals with a dash, a full stop or nothing instead of a colon
    r"(?:^[ \t]*|(?<=[.!?;])[ \t]+)([A-ZÀ-ÖØ-Þ]{7,})(?:[ \t]+[-–—]+[ \t]+(?=\S)|\.?[ \t]+(?=[A-ZÀ-ÖØ-Þ][a-zß-ÿ ]))"
)
_RULE = re.compile(r"^[ \t]*(?:_{8,}|[=*~#]{3,}|-{3,}|`{3}\w*)[ \t]*$", re.MULTILINE)  # de-identification leaves ___
_IN_CAPITALS = (3, 62)  # characters of a heading that is known by nothing but its capitals
_SHORT = 6  # letters; inside a line, shorter names want a capital
_MAIN = ("findings", "impression", "comparison", "indication", "technique", "recommendation")
_NEVER_ALONE = ("anatomy", "administration")  # as a line without a colon: "heart" may be the end of a sentence
BEFORE_FINDINGS = (  # sections below which the reading may stand without a heading of its own
    *("indication", "history", "comparison", "technique", "examination", "administration", "recommendation"),
)
_BOUNDED = (*BEFORE_FINDINGS, "notification")  # may be lines of the findings; an addendum is not
_NOT_AFTER = {"the", "no", "acute", "these", "this", "following", "incidental", "other", "new", "my", "our", "abnormal"}
_NOT_AFTER |= {"significant", "additional", "similar", "above", "of", "for", "in", "with", "and", "or", "a", "an"}


class Found(NamedTuple):
    """A heading: its section (``None``: not known), as written, and where it begins and ends with its marks."""

    section: str | None
    written: str
    start: int
    end: int


@dataclass(frozen=True)
class Part:
    """A heading and what stands under it, up to the next one.

    Attributes:
        section: its name, ``""`` for none; ``None`` where the heading is not known.
        written: the heading, without its colon and marks.
        heading: the same with them.
        text: what stands under it, stripped.
        gap: whether an empty line parts the two.
    """

    section: str | None
    written: str
    heading: str
    text: str
    gap: bool = False

    @property
    def name(self) -> str:
        """The section, or the heading in lower case where it is not known."""
        return " ".join(self.written.lower().split()) if self.section is None else self.section

    @property
    def whole(self) -> str:
        """The text with its heading."""
        return f"{self.heading} {self.text}".strip()


def parts(report: str, headings: Headings) -> tuple[list[Part], list[str]]:
    """The parts of a report in their order, the first without a heading, and its drawn lines."""
    report = report.replace("\r\n", "\n").replace("\r", "\n")
    rules = _RULE.findall(report)
    report = _RULE.sub("", report)
    found = [Found("", "", 0, 0), *_headings(report, headings)]
    ends = [heading.start for heading in found[1:]] + [len(report)]
    pieces, apart, alone = [], [], []
    for heading, end in zip(found, ends, strict=True):
        under = report[heading.end : end]
        text = under.strip()
        if "**" in text and "[**" not in text:
            text = text.replace("**", "")
        gap = "\n\n" in re.sub(r"[ \t]", "", under[: len(under) - len(under.lstrip())])
        pieces.append(Part(heading.section, heading.written, report[heading.start : heading.end].strip(), text, gap))
        apart.append("\n\n" in re.sub(r"[ \t]", "", report[: heading.start])[-2:])
        alone.append(under.lstrip(" \t").startswith("\n"))
    return list(_bounded(pieces, apart, alone, headings)), rules


def _bounded(pieces: list[Part], apart: list[bool], alone: list[bool], headings: Headings) -> Iterator[Part]:
    """The parts, with findings and an impression that go on below a heading which is only a line or an item of theirs.

    Such a heading is an item of a numbered list, or not in capitals and no section of its own: that stands apart, and
    the report writes its findings likewise.

    Args:
        pieces: the parts, each up to the next heading.
        apart: whether an empty line is before each.
        alone: whether each heading has its line for itself.
        headings: those that are known.
    """
    outer: Part | None = None
    text = ""  # under it so far
    before = ""
    for place, part in enumerate(pieces):
        if part.section in ("findings", "impression"):
            outer, text = part, ""
        elif part.section == "image" and part.written.isupper() and outer and outer.section == "impression":
            outer = None
        elif part.section not in (None, "anatomy", "image"):
            number = re.match(r"\(?(\d{1,2})[.)]", part.heading) or re.search(r"(?<!\S)(\d{1,2})[.)]$", before)
            small = any(letter.islower() for letter in part.written)
            proper = apart[place] and text and outer and not outer.written.isupper() and not number
            administrative = part.section == "administration" and not number
            if outer is None or part.section not in _BOUNDED or proper or not (small or number):
                outer = None
            elif administrative and small and re.match(r"[a-zß-öø-ÿ]\w*(?: [\w-]+){2}", part.text):
                part = Part(outer.section, "", "", part.whole)  # "Age: indeterminate fracture."
            elif administrative and outer.section == "impression":
                outer = None  # who signed, and when
            else:
                end = _end_of_item(part.text, int(number[1]), small) if number else None
                if not number:
                    end = _end_of_line(part.text, alone[place], headings)
                yield replace(part, text=part.text[:end].strip())
                rest = part.text[end:].strip() if end is not None else ""
                part = Part(outer.section, "", "", rest)
                if not rest:
                    continue
        yield part
        before, text = part.text, text + part.text


def _end_of_item(text: str, number: int, small: bool) -> int | None:
    """Where an item of a numbered list ends: before the next number, or else at an empty line; in capitals, nowhere."""
    end = re.search(rf"(?<!\S)\(?{number + 1}[.)](?=\s)|(?<=\n)[ \t]*\(?\d{{1,2}}[.)]", text)
    end = end or (re.search(r"\n[ \t]*\n", text) if small else None)
    return end.start() if end else None


def _end_of_line(text: str, alone: bool, headings: Headings) -> int:
    """Where what a heading has on its line ends, or the paragraph below a heading that has its line for itself.

    A sentence goes on where its line has no stop and the next one begins with a small letter.
    """
    line = re.search(r"\n[ \t]*\n" if alone else r"(?<=[.!?:;])[ \t]*\n|\n(?![ \t]*[a-zß-öø-ÿ])", text)
    end = line.start() if line else len(text)
    for name in re.finditer(r"[.;!?][ \t]+(?=([^\W\d_][\w ]{2,30}):)", text[:end]):  # "Plan: none. Heart: normal."
        if headings.exact(name[1]) == "anatomy":
            return name.end()
    return end


def _headings(report: str, headings: Headings) -> Iterator[Found]:
    """The headings of a report in their order."""
    scan = _Scan(report, headings, not any(letter.isupper() for letter in report))
    start = 0
    before = ""  # the line before
    for line in report.splitlines(keepends=True):
        if line.strip():
            stopped = not before.strip() or before.rstrip()[-1] in ".!?:;。！？：；"
            yield from scan.line(start, start + len(line.rstrip("\n")), stopped)
        start, before = start + len(line), line


@dataclass(frozen=True)
class _Scan:
    """A report in which headings are looked for. ``lower``: it has no capitals, so that they mean nothing."""

    report: str
    headings: Headings
    lower: bool

    def line(self, start: int, end: int, stopped: bool) -> Iterator[Found]:
        """The headings of a line. ``stopped``: no sentence goes on from the line before."""
        closing = self._closing(start, end, stopped)
        if closing:
            yield from self.line(start, closing.start, stopped) if closing.start > start else ()
            yield closing
            return
        alone = self._alone(start, end, stopped)
        if alone:
            yield alone
            return
        report, place = self.report, start
        marks = [*_BRACKETS.finditer(report, start, end), *_COLON.finditer(report, start, end)]
        marks += _BARE.finditer(report[start:end])  # positions in the line
        for mark in sorted(marks, key=lambda mark: mark.start() + (start if mark.re is _BARE else 0)):
            if mark.re is _BARE:
                section = self.headings.exact(mark[1])
                bare = section in (*_MAIN, "history", "examination")
                found = Found(section, mark[1], start + mark.start(1), start + mark.end()) if bare else None
            elif mark.re is _BRACKETS:
                written = mark[1] or mark[2]
                found = Found(self.headings.section(written), written, mark.start(), mark.end())
                if mark[2] and self.headings.exact(written) not in _MAIN:  # "[NAME]", "[2]"
                    found = None
            else:
                found = self._before_colon(place, mark, at_start=place == start, stopped=stopped)
            if found and found.start >= place:
                yield found
                place = found.end

    def _closing(self, start: int, end: int, stopped: bool) -> Found | None:
        """Where on a line someone signs: at its start, or after a stop."""
        line = self.report[start:end]
        for place in [0] * stopped + [stop.end() for stop in STOP.finditer(line)]:
            found = self.headings.closing(line[place:].lstrip())
            if found:
                place = end - len(line[place:].lstrip())
                return Found("administration", found[0].rstrip(), place, place + len(found[0]))
        return None

    def _alone(self, start: int, end: int, stopped: bool) -> Found | None:
        """A heading that is all of its line, without a colon."""
        if end - start > _WINDOW:
            return None
        line = self.report[start:end]
        before = _BEFORE.match(line)
        assert before is not None  # it matches nothing, too
        written = _AFTER.sub("", line[before.end() :]).rstrip(" \t-–—")
        if not written or len(written) > _LONGEST or _COLON.search(written):
            return None
        section = self.headings.exact(written)
        plain = section is not None and section not in _NEVER_ALONE and (stopped or not written[0].islower())
        if not plain and not before["hash"]:
            if section is not None or not _is_capitals(written):
                return None
            section = self.headings.section(written, whole=False)
            if section not in _MAIN:
                return None
        return Found(section if section is not None else self.headings.section(written), written, start, end)

    def _before_colon(self, place: int, colon: re.Match[str], at_start: bool, stopped: bool) -> Found | None:
        """The heading that a colon ends, if it ends one; ``place``: where the heading before it ended."""
        lead = self.report[place : colon.start()]
        marks = _END.match(self.report, colon.end())
        end = marks.end() if marks else colon.end()
        if at_start and len(lead) < _WINDOW:
            before = _BEFORE.match(lead)
            assert before is not None
            written = _AFTER.sub("", lead[before.end() :])
            if stopped and self._somebodys(written):
                return Found(None, written, place, end)
            capitals = _is_capitals(written)
            section = self.headings.section(written, not capitals) if 0 < len(written) <= _LONGEST else None
            if section is not None and self._may_begin(written, section, stopped):
                return Found(section, written, place, end)
            if section is None and (before["hash"] or before["bold"] or _is_capitals(lead.strip())):
                named = self._inside(lead.rstrip(), place, end)  # "NONE AVAILABLE FOR THIS PATIENT FINDINGS:"
                return named or (Found(None, written, place, end) if 0 < len(written) <= _LONGEST else None)
        place, lead = place + len(lead[:-_WINDOW]), lead[-_WINDOW:]
        stops = [*STOP.finditer(lead)]
        if stops:
            written = lead[stops[-1].end() :].rstrip()
            section = self._after_stop(written)
            if section is not None:
                return Found(section, written, place + stops[-1].end(), end)
            if self._somebodys(written):
                return Found(None, written, place + stops[-1].end(), end)
        return self._inside(lead.rstrip(), place, end)

    def _somebodys(self, written: str) -> bool:
        """Whether words that we do not know stand before findings or an impression: anybody's, perhaps not ours."""
        if not 0 < len(written) <= _LONGEST or _is_mixed(written) or re.search(r"(?<![\w'’])[^\W\d_A-ZÀ-Þ]", written):
            return False
        return self.headings.likely(written) is not None

    def _may_begin(self, written: str, section: str, stopped: bool) -> bool:
        """Whether a name and a colon at the start of a line head it; in small letters it may be part of a sentence."""
        return not written[0].islower() or stopped or (section in _MAIN and " " not in written)

    def _after_stop(self, written: str) -> str | None:
        """The section of a name between a stop and a colon."""
        if not written or len(written) > _LONGEST or _is_mixed(written):
            return None
        section = self.headings.exact(written)
        if section is None and written[0].isupper() and written.split()[0].lower() not in _NOT_AFTER:
            section = self.headings.section(written)
            section = None if section == "image" and not _is_capitals(written) else section
        small = written[0].islower() and (len(written) < _SHORT or section == "administration")
        return None if section == "anatomy" or small else section

    def _inside(self, lead: str, place: int, end: int) -> Found | None:
        """A name that a line has before a colon, without a stop before it: in capitals, or one of the main names."""
        starts = [match.start() for match in re.finditer(r"(?<!\w)(?=[^\W\d_])", lead)][-6:]
        for start in starts:
            written = lead[start:]
            section = self.headings.exact(written)
            if section is None or section in _NEVER_ALONE:
                continue
            main = section in _MAIN and len(written) >= _SHORT and " " not in written
            letters = [letter for letter in written if letter.isalpha()]
            if (
                (written.isupper() and len(letters) > 3)
                or not any(letter.isupper() or letter.islower() for letter in letters)  # a script without capitals
                or (main and written.istitle() and not self.headings.is_noun(written))
                or (main and self.lower and lead[:start].split()[-1:] and lead[:start].split()[-1] not in _NOT_AFTER)
            ):
                return Found(section, written, place + start, end)
        return None


def _is_mixed(written: str) -> bool:
    """Whether only the end of a phrase is in capitals: "Clinical FINDINGS" is a word and a heading after it."""
    last = written.rpartition(" ")[2]
    return len(last) > 3 and last.isupper() and not written.isupper()


def _is_capitals(written: str) -> bool:
    """Whether a phrase is written in capitals, and in nothing but letters and what joins words."""
    if not _IN_CAPITALS[0] <= len(written) <= _IN_CAPITALS[1] or not written[0].isalpha():
        return False
    return written.isupper() and all(letter.isalpha() or letter in " ,/&()_-'’" for letter in written)
