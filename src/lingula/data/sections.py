"""A report's parts under their headings, and its body: what it says of its image. Floor 2.

Every letter of a report ends in one of four places: in the body, among what is dropped, in a heading, or in a line
that is only drawn (:class:`Split`). Where headings are found: :mod:`lingula.data.parts`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from lingula.data.headings import Headings
from lingula.data.parts import BEFORE_FINDINGS, STOP, Part, parts
from lingula.data.sentences import count_tokens, split_sentences

NO_HEADING = "no heading"
BELOW = "text below an indication"
_MAYBE = re.compile(r"^[ \t]*([^\W\d_][\w'’-]{2,24}(?: [\w'’-]{2,24}){0,2}) ?[:：](?=\s)", re.MULTILINE)
_LEAST = 2  # tokens of a sentence
_READING: tuple[str, ...] = ("findings", "image", "report", "anatomy")  # the first that has text is the reading
_OF_PATIENT = ("indication", "history")  # what patients have may stand there in sentences
_ASKS = re.compile(
    r"[?？]|^\W*(?:please|eval\w*|assess|rule out|r/o|query|check|confirm|known|status post|s/p)\b", re.I
)
_SIGNED = re.compile(
    r"\b(?:seen|read|signed|dictated|reported|reviewed|approved|verified|discussed) (?:by|with)\b", re.I
)
_ASIDE = ("wet read", "addendum")  # headings in these that we do not know are theirs


@dataclass
class Split:
    """A report taken apart.

    Attributes:
        body: what it says of its image; findings, then impression.
        dropped: ``(name, text)`` of what was left out; the name is a section, ``"no heading"``, ``"text below an
            indication"`` (or its like, where that is not of it), or, of a heading that is not known, that heading in
            lower case.
        headings: headings that are in neither of the two.
        rules: lines that are only drawn.
        unknown: headings that are not known, in lower case, whether their text was kept or not.
    """

    body: str = ""
    dropped: list[tuple[str, str]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def sections(report: str, headings: Headings | None = None) -> dict[str, str]:
    """The parts of a report by their headings, in the order of their first appearance.

    A heading is a known name and a colon, in any case at the start of a line or after a stop, in capitals anywhere;
    a known name alone on its line; a heading of Markdown; a name in 【】; or any phrase in capitals with a colon at the
    start of a line. Known spellings share a name (``CONCLUSION`` is ``impression``), other names are
    lower-cased; text before or without a heading stands under ``""``. Parts of one name are joined by a blank line;
    drawn lines are dropped.

    Example:
        >>> sections("INDICATION: Cough. FINDINGS: Clear lungs.\\nImpression:\\n  No disease.")
        {'indication': 'Cough.', 'findings': 'Clear lungs.', 'impression': 'No disease.'}
    """
    texts: dict[str, list[str]] = {}
    for part in parts(report, headings or Headings.read())[0]:
        name = part.written.lower() if part.section in (None, "image", "anatomy") else part.name
        texts.setdefault(" ".join(name.split()), []).append(part.text)
    joined = {name: "\n\n".join(filter(None, those)) for name, those in texts.items()}
    return {name: text for name, text in joined.items() if text or name}


def split_report(report: str, titled_only: bool = False, headings: Headings | None = None) -> Split:
    """Take a report apart: what it says of its image, and everything else.

    The body is findings, then impression. Parts of the chest (``LUNGS:``), and headings that we do not know and that
    follow the findings, belong to them and stay in the text, because they are the subject of what they head. Where no
    section is called findings, what stands under a heading that names the image (``PORTABLE AP CHEST:``) is, and else
    what stands under parts of the chest, with the text before any heading if there is no impression. A ``REPORT:`` is
    read where nothing else is, and so are, before an impression, sentences without a heading, or in paragraphs or lines
    of their own below an indication and its like. Findings or an impression under words that we do not know (``WARD
    IMPRESSION``) are read where the report has no other; a diagnosis before all that is read is an indication. A
    heading of another section in a line or numbered item of the findings or the impression owns no more than that. Wet
    reads and addenda are not the reading, but findings and impressions in them are.

    Without any of these: the paragraphs after the first under the last heading (where reports with only an
    ``EXAMINATION:`` keep their reading), or the only one if an empty line parts it from that; else the text under no
    heading; else what stands under headings that we do not know; empty where there is none of these.

    Args:
        report: the text, as :func:`lingula.data.cells.clean_text` gives it.
        titled_only: the body is empty unless there are findings, an impression, parts of the chest, or a heading that
            names the image.
        headings: the built-in ones if not given.
    """
    known = headings or Headings.read()
    found, rules = parts(report, known)
    unknown = [part.name for part in found if part.section is None]
    found = _settled(found, known)
    places = _places(found)
    there = {place for part, place in zip(found, places, strict=True) if part.text}
    wanted = [place for place in _READING if place in there][:1]
    if "impression" in there:
        wanted.append("impression")
    if wanted and all(_is_soft(part) for part, place in zip(found, places, strict=True) if place in wanted):
        wanted.insert(0, "")
    giver, last, below = found[-1], "", ""  # under a heading, text that is not of it, and is read or is not
    if not wanted and not titled_only:
        last = _last_paragraphs(giver) or (giver.text if giver.gap and giver.section != "" else "")
        if not last:
            last, below = _below(giver, found, known)
        wanted = [] if last else [""] if "" in there else ["other"]
    elif wanted == ["impression"]:
        giver = found[places.index("impression") - 1]
        last, below = _below(giver, found, known)
        bare = "\n\n".join(part.text for part, place in zip(found, places, strict=True) if place == "")
        if not last and len(_narrative(bare, known)) > 1:
            wanted.insert(0, "")
    split = Split(rules=rules, unknown=unknown)
    kept: dict[str, list[str]] = {place: [] for place in wanted}
    for part, place in zip(found, places, strict=True):
        split.unknown += [" ".join(name.lower().split()) for name in _MAYBE.findall(part.text)]
        dropped = "" if place in kept else part.text
        if place in kept and part.text:
            subject = part.section in (None, "anatomy") and place != "other"
            subject |= part.section == "image" and (place != "image" or not part.written.isupper())
            kept[place].append(part.whole if subject else part.text)
            if subject:
                continue
        if part is giver and (last or (below and dropped)):
            dropped = part.text[: len(part.text) - len(last or below)].strip()
        if part.heading:
            split.headings.append(part.heading)
        if dropped:
            split.dropped.append((part.name or NO_HEADING, dropped))
        if part is giver and below and place not in kept:
            split.dropped.append((BELOW, below))
    split.body = "\n\n".join([last] * bool(last) + [text for place in wanted for text in kept[place]])
    return split


def _settled(found: list[Part], headings: Headings) -> list[Part]:
    """Parts whose section depends on what else the report has, with it.

    A diagnosis or an assessment before all that is read of the image is why it was taken. Findings or an impression
    under a name that we do not know ("WARD IMPRESSION") are taken for ours where the report has no other.
    """
    reading = {"findings", "image", "anatomy", "impression"}
    there = [part.section in reading and bool(part.text) for part in found]
    first = True
    for place, part in enumerate(found):
        suspected = part.section == "impression" and headings.before_findings(part.written)
        if first and suspected and any(there[place + 1 :]):
            found[place] = replace(part, section="indication")
        else:
            first = first and not there[place]
    places = {place for part, place in zip(found, _places(found), strict=True) if part.text}
    for title, others in (("findings", {*_READING}), ("impression", {*_READING, "impression"})):
        mine = [part.section is None and bool(part.text) and headings.likely(part.written) == title for part in found]
        if any(mine) and not places & others:
            return [replace(part, section=title) if own else part for part, own in zip(found, mine, strict=True)]
    return found


def _is_soft(part: Part) -> bool:
    """Whether a heading may as well be the first word of a sentence: "Aorta: normal.", "Chest x-ray: normal."."""
    return part.section in (None, "anatomy") or (part.section == "image" and not part.written.isupper())


def _places(found: list[Part]) -> list[str]:
    """Where each part belongs: a section, ``other`` for headings that we do not know, ``aside`` for those in asides."""
    current = ""
    places = []
    for part in found:
        if part.section is None or part.section in ("anatomy", "image"):
            place = _place_below(part, current)
            current = place if place in ("findings", "anatomy", "image") else current
        else:
            current = part.section
            place = "report" if part.section == "" and part.heading.endswith((":", "：")) else part.section
        places.append(place)
    return places


def _place_below(part: Part, current: str) -> str:
    """The same for a heading that is no section of its own, below a section or without one."""
    if current in _ASIDE:
        return "aside"
    if current == "findings" or (part.section is None and current == "anatomy"):
        return current
    if part.section == "anatomy":
        own = "anatomy" if current in ("history", "indication", "anatomy") else "findings"
        return current if current in ("impression", "image") else own
    if part.section == "image" and current == "impression" and not part.written.isupper():
        return current  # "Chest: normal. Knee: ..."
    return part.section or "other"


def _narrative(text: str, headings: Headings) -> list[str]:
    """The sentences of a text that is no title, no signature, no question, and has nothing that may be a heading."""
    sentences = [sentence for sentence in split_sentences(text) if count_tokens(sentence) >= _LEAST]
    if not sentences or _MAYBE.search(text) or sentences[0][-1] not in ".。！।":
        return []
    other = _SIGNED.search(sentences[0]) or _ASKS.search(sentences[0]) or headings.section(sentences[0]) is not None
    return [] if other else sentences


def _below(part: Part, found: list[Part], headings: Headings) -> tuple[str, str]:
    """Text below an indication or its like that is not of it: what is read, and what is not; one of them is empty.

    A paragraph of its own is read if it has a finished sentence; a line of its own, if it has two and they state
    something of the chest. On the same line every sentence must, and none is read where it may be the patient's story.
    """
    if part.section not in BEFORE_FINDINGS:
        return "", ""
    text = _last_paragraphs(part)
    if text:
        return (text, "") if _narrative(text, headings) else ("", text)
    text = _last_lines(part, found)
    sentences = _narrative(text, headings)
    if text:
        stated = len(sentences) > 1 and headings.states(sentences[0]) and not any(map(_ASKS.search, sentences))
        return (text, "") if stated else ("", "" if _ASKS.search(text) else text)
    stop = STOP.search(part.text)
    text = part.text[stop.end() :] if stop else ""
    sentences = _narrative(text, headings)
    if len(sentences) > 1 and all(map(headings.states, sentences)):
        return ("", text) if part.section in _OF_PATIENT else (text, "")
    return "", ""


def _last_lines(part: Part, found: list[Part]) -> str:
    """Under a heading, the lines after a line break that no margin made; they begin as a sentence does."""
    lines = f"{part.heading} {part.text}".split("\n")
    margin = max(len(line) for each in found for line in f"{each.heading} {each.text}".split("\n"))
    for place in range(1, len(lines)):
        line = lines[place].strip()
        word = line.split(" ")[0] if line[:1] < "\u2e80" else line[:1]  # Chinese lines break anywhere
        fits = len(lines[place - 1].rstrip()) + 1 + len(word) <= margin
        if line and fits and line[0].isalpha() and not line[0].islower() and part.heading not in line:
            return "\n".join(lines[place:]).strip()
    return ""


def _last_paragraphs(part: Part) -> str:
    """Under a heading, the paragraphs after the first."""
    if not part.heading or part.section == "":
        return ""
    pieces = [piece.strip() for piece in re.split(r"\n[ \t]*\n", part.text) if piece.strip()]
    if len(pieces) > 1:
        return part.text[part.text.index("\n", len(pieces[0])) :].strip()
    return ""
