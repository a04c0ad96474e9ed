"""Radiology reports from text: sections under their headings, and sentences. Floor 2.

A token here is a run of word characters, ``\\w+``, and a report of fewer than three tokens says nothing: the rules of
the field's preparations of MIMIC-CXR. Nothing is ever added to a text, and no word is lost but enumeration marks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MIN_TOKENS = 3  # fewer is no report

# Sections -------------------------------------------------------------------------------------------------------------

NAMES = {
    "findings": "findings|finding|observations|findings and impression|impression and findings",
    "impression": "impression|impressions|conclusion|conclusions|opinion|interpretation|summary|final impression",
    "indication": "indication|indications|clinical indication|clinical information|clinical data|reason for exam|"
    "reason for examination|reason for this examination|reason for study|reason",
    "history": "history|clinical history|patient history|medical history",
    "comparison": "comparison|comparisons|comparison study|comparison studies|comparison exam",
    "technique": "technique|techniques|procedure|views|view",
    "examination": "examination|exam|study|type of examination|type of exam|procedure comments",
    "recommendation": "recommendation|recommendations",
    "notification": "notification|notifications",
    "addendum": "addendum|addenda|final addendum",
    "wet read": "wet read|preliminary report|provisional report|provisional findings impression|pfi",
    "": "final report|report",  # a banner: what follows it has no heading of its own
}
SYNONYMS = {synonym: name for name, synonyms in NAMES.items() for synonym in synonyms.split("|")}
_KNOWN = "|".join(re.escape(name).replace(r"\ ", r"[ \t]+") for name in sorted(SYNONYMS, key=len, reverse=True))
_TITLED = "Findings|Impression|Conclusion|Comparison|Indication|Technique|Recommendations?"  # also inside a line
_HEADING = re.compile(
    rf"""
      ^[ \t]*[*_#]* (?P<line>(?i:{_KNOWN})) (?:[ \t]*\([^()\n]{{0,40}}\))? [*_]* [ \t]* (?: :\*?\*? | [ \t]*$ )
    | ^[ \t]* (?P<capitals>[A-Z][A-Z ,/&()_-]{{2,60}}?) [ \t]* :
    | (?<=[.!?;_\])]) [ \t]+ (?P<after>(?=[A-Z])(?i:{_KNOWN})) [ \t]* :
    | (?<!\w) (?P<inside>(?=[A-Z]{{4}})(?i:{_KNOWN}) | {_TITLED}) [ \t]* :
    """,
    re.MULTILINE | re.VERBOSE,
)

_NOUNS = "chest|views?|cxr|radiographs?|films?|x-?rays?"
_FILM = re.compile(  # a heading of such words names the film, and what stands under it is the reading
    rf"(?=.*\b(?:{_NOUNS})\b)(?:[ ,/&()_-]|\b(?:{_NOUNS}|radiography|ap|pa|anteroposterior|posteroanterior|frontal|lat|"
    r"lateral|decubitus|portable|bedside|upright|erect|supine|semi|semiupright|semierect|recumbent|single|one|two|three|"
    r"left|right|limited|and|of|the|a)\b)+"
)
_ASIDE = ("wet read", "addendum")  # headings in these that we do not know are theirs
_RULE = re.compile(r"^[ \t]*_{8,}[ \t]*$", re.MULTILINE)  # a drawn line; what de-identification leaves is shorter


@dataclass(frozen=True)
class _Part:
    """A heading and what stands under it, up to the next one."""

    name: str
    whole: str  # with its heading
    text: str  # without


def _parts(report: str) -> list[_Part]:
    report = _without_rules(report)
    headings = [("", 0, 0)]
    for match in _HEADING.finditer(report):
        written = next(group for group in match.groups() if group is not None)
        name = re.sub(r"\s+", " ", written.strip().lower())
        known = SYNONYMS.get(re.sub(r" ?[/&] ?", " and ", name), name)
        headings.append((known, match.start(), match.end()))
    ends = [start for _, start, _ in headings[1:]] + [len(report)]
    return [
        _Part(name, report[start:end].strip(), report[after:end].strip())
        for (name, start, after), end in zip(headings, ends, strict=True)
    ]


def sections(report: str) -> dict[str, str]:
    """The parts of a report by their headings, in the order of their first appearance.

    A heading is a known name and a colon, in any case at the start of a line or after a stop, in capitals anywhere;
    a known name alone on its line; or any phrase in capitals with a colon at the start of a line. Known synonyms share
    a name (``CONCLUSION`` is ``impression``), other names are lower-cased; text before or without a heading stands
    under ``""``. Parts of one name are joined by a blank line; lines drawn with underscores are dropped.

    Example:
        >>> sections("INDICATION: Cough. FINDINGS: Clear lungs.\\nImpression:\\n  No disease.")
        {'indication': 'Cough.', 'findings': 'Clear lungs.', 'impression': 'No disease.'}
    """
    texts: dict[str, list[str]] = {}
    for part in _parts(report):
        texts.setdefault(part.name, []).append(part.text)
    joined = {name: "\n\n".join(filter(None, those)) for name, those in texts.items()}
    return {name: text for name, text in joined.items() if text or name}


def report_body(report: str, titled_only: bool = False) -> str:
    """What a report says of its film: findings, then impression.

    Headings that we do not know (``LUNGS:``, ``HEART:``) and that follow the findings belong to them, and stay in the
    text, because they are the subject of what they head. Where no section is called findings, what stands under a
    heading that names the film (``PORTABLE AP CHEST:``) is. Wet reads and addenda are not the reading, but findings
    and impressions in them are.

    Without any of these: the last paragraph, if it has no heading in it (where reports with only an ``EXAMINATION:``
    keep their reading); else the text under no heading; else what stands under headings that we do not know; empty
    where there is none of these.

    Args:
        report: the text.
        titled_only: empty unless there are findings, an impression, or a heading that names the film.
    """
    texts: dict[str, list[str]] = {}
    current = ""
    for part in _parts(report):
        below = part.name not in NAMES and current == "findings"
        if below or part.name in NAMES:
            current = name = "findings" if below else part.name
        elif current in _ASIDE:
            continue
        else:
            name = "film" if _FILM.fullmatch(part.name) else "other"
        if part.text:
            texts.setdefault(name, []).append(part.whole if below else part.text)
    joined = {name: "\n\n".join(those) for name, those in texts.items()}
    titled = [joined.get("findings") or joined.get("film"), joined.get("impression")]
    if any(titled) or titled_only:
        return "\n\n".join(filter(None, titled))
    bare, last = joined.get("", ""), _last_paragraph(report)
    return last if last and not bare.endswith(last) else bare or joined.get("other", "")


def _last_paragraph(report: str) -> str:
    """The last paragraph of several, if it has no heading in it."""
    paragraphs = [part.strip() for part in re.split(r"\n[ \t]*\n", _without_rules(report)) if part.strip()]
    return paragraphs[-1] if len(paragraphs) > 1 and not _HEADING.search(paragraphs[-1]) else ""


def _without_rules(report: str) -> str:
    return _RULE.sub("", report.replace("\r\n", "\n"))


# Sentences ------------------------------------------------------------------------------------------------------------

# Never the end of a sentence: something always follows.
_LEADING = re.compile(r"drs?|mr|mrs|ms|prof|st|vs|e\.?g|i\.?e|cf|viz|approx|figs?")
# Followed by a small letter or a figure, not the end of a sentence; followed by a capital, its end.
_TRAILING = re.compile(
    r"[cm]?m|in|ft|ml|cc|[mk]g|h|hrs?|mins?|secs?|yrs?|wks?|mos?|[ap]m|(?:[a-z]\.)+[a-z]|etc|ca|incl|esp|resp|ext|int|max|"
    r"temp|[hdrt]x|pts?|lat|ant|post|bilat|rt|lt|sup|inf|neg|pos|med|wt|ht|dept|ref|vol|assoc|[js]r|"
    r"jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
# What a number or a single letter after it belongs to: "rib 2.", "hepatitis B."
_COUNTED = re.compile(
    r"ribs?|grade|stage|type|levels?|numbers?|nos?|segment|lead|images?|series|views?|vertebra|zone|class|group|hepatitis|"
    r"vitamin|influenza|to|and|or|of|by|than|at|x|approximately|about|measur(?:es|ing)"
)
_STOPS = (".", "?", "!")
_OPENING = "\"'([{“‘«"
_CLOSING = "\"')]}”’»"
_BULLETS = "-*•–—·"
_TOKEN = re.compile(r"\[\*\*.*?\*\*\]\S*|\S+", re.DOTALL)
_MARK = re.compile(r"\(?(\d{1,2})[.)],?")
_GLUED_MARK = re.compile(r"(?<!\S)(\(?\d{1,2}[.)])(?=[A-Za-z]{2})")
_GLUED_STOP = re.compile(r"(?<=[a-z]{2}\.)(?=[A-Z][a-z])")
_INITIAL = re.compile(r"[(\"']?[A-Z]\.,?")
_HIDDEN = re.compile(r"[Xx]{3,}|_+|\[\*\*")  # what de-identification leaves


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line, without bullets and enumeration marks.

    Line breaks inside a sentence become spaces; an empty line, a bullet, or the next number of an enumeration ends one.

    Example:
        >>> split_sentences("1. Nodule of approx. 1.5 cm, seen by Dr. XXXX. 2. No\\neffusion")
        ['Nodule of approx. 1.5 cm, seen by Dr. XXXX.', 'No effusion']
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _GLUED_STOP.sub(" ", _GLUED_MARK.sub(r"\1 ", text))
    tokens = list(_TOKEN.finditer(text))
    words = [" ".join(token.group().split()) for token in tokens] + [""]
    sentences: list[str] = []
    current: list[str] = []
    listed = "2" in text and any(word.strip("().,") == "2" and _MARK.fullmatch(word) for word in words)
    expected = 1  # the next number of an enumeration
    end = 0

    def close() -> None:
        sentence = " ".join(current)
        if re.search(r"\w", sentence):
            sentences.append(sentence)
        current.clear()

    for position, token in enumerate(tokens):
        word, following = words[position], words[position + 1]
        gap = text[end : token.start()]
        end = token.end()
        if gap != " " and gap.count("\n") > 1:
            close()
        if word[0] in _BULLETS and word.strip(_BULLETS) == "" and ("\n" in gap or not current):
            close()
            continue
        mark = (word[0] == "(" or word[0].isdigit()) and _MARK.fullmatch(word)
        if mark and (not current or _goes_on(int(mark[1]), expected, "\n" in gap, listed, current, following)):
            close()
            expected = int(mark[1]) + 1
            continue
        current.append(word)
        if word.rstrip(_CLOSING)[-1:] in _STOPS and _ends(current, following):
            close()
    close()
    return sentences


def _goes_on(number: int, expected: int, new_line: bool, listed: bool, current: list[str], following: str) -> bool:
    """Whether a number inside an unfinished sentence is the next mark of an enumeration, or the first of another.

    ``listed``: the text has a mark of the number 2, so that a 1 on the same line may begin an enumeration.
    """
    if number not in (1, expected) or not following:
        return False
    if _COUNTED.fullmatch(current[-1].strip(_OPENING + _CLOSING + ".,:;").lower()):
        return False
    return new_line or current[-1].endswith(":") or (following[0].isupper() and (number > 1 or listed))


def _ends(current: list[str], following: str) -> bool:
    """Whether the last word of ``current``, which has a stop, ends a sentence; ``following`` is empty at the end."""
    word = current[-1].rstrip(_CLOSING)
    if not following or not word:
        return False
    first = following.lstrip(_OPENING + _BULLETS)[:1]
    if word[-1] in "?!" or word.endswith("..."):
        return len(word) > 1 and not first.islower()
    stem = word.rstrip(".").lstrip(_OPENING)
    last = re.split(r"[-/,]", stem)[-1].lower()
    if _LEADING.fullmatch(last):
        return False
    if last in ("no", "nos") and first.isdigit():
        answers = len(current) == 1 or current[-2][-1] in "?:;,"
        return answers and _MARK.fullmatch(following) is not None
    if len(stem) == 1 and stem.isalpha():
        return _ends_at_letter(current, following)
    if _TRAILING.fullmatch(last):
        return (first.isupper() and not _HIDDEN.match(following)) or _MARK.fullmatch(following) is not None
    return True


def _ends_at_letter(current: list[str], following: str) -> bool:
    """The same after a single letter and a full stop: an initial, or the end of "hepatitis B."."""
    if following[:1].islower() or len(current) == 1 or _INITIAL.fullmatch(following):
        return False
    before = current[-2]
    if _LEADING.fullmatch(before.rstrip(".").lower()) or _INITIAL.fullmatch(before):
        return False
    named = len(current) > 2 and before.istitle() and following.strip(".,;:").istitle()
    return not named or _COUNTED.fullmatch(before.lower()) is not None


def count_tokens(text: str) -> int:
    """Runs of word characters in a text.

    Example:
        >>> count_tokens("No acute disease.")
        3
    """
    return len(re.findall(r"\w+", text))


def report_sentences(text: str) -> list[str]:
    """The sentences of a text in lower case, without those of a single word.

    Example:
        >>> report_sentences("Normal. Heart size is normal.")
        ['heart size is normal.']
    """
    return [sentence.lower() for sentence in split_sentences(text) if count_tokens(sentence) > 1]
