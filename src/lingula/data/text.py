"""Radiology reports from text: sections under their headings, and sentences. Floor 2.

A token here is a run of word characters, ``\\w+``, and a report of fewer than three tokens says nothing: the rules of
the field's preparations of MIMIC-CXR. Nothing is ever added to a text, and no word is lost but enumeration marks.
"""

from __future__ import annotations

import re

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
    "wet read": "wet read|preliminary report|provisional report",
    "": "final report|report",  # a banner: what follows it has no heading of its own
}
SYNONYMS = {synonym: name for name, synonyms in NAMES.items() for synonym in synonyms.split("|")}
_KNOWN = "|".join(re.escape(name).replace(r"\ ", r"[ \t]+") for name in sorted(SYNONYMS, key=len, reverse=True))
_TITLED = "Findings|Impression|Conclusion|Comparison|Indication|Technique|Recommendations?"  # also inside a line
_HEADING = re.compile(
    rf"""
      ^[ \t]*[*_#]* (?P<line>(?i:{_KNOWN})) (?:[ \t]*\([^()\n]{{0,40}}\))? [*_]* [ \t]* (?: :\*?\*? | [ \t]*$ )
    | ^[ \t]* (?P<capitals>[A-Z][A-Z ,/&()-]{{2,60}}?) [ \t]* :
    | (?<=[.!?;_\])]) [ \t]+ (?P<after>(?=[A-Z])(?i:{_KNOWN})) [ \t]* :
    | (?<!\w) (?P<inside>(?=[A-Z]{{4}})(?i:{_KNOWN}) | {_TITLED}) [ \t]* :
    """,
    re.MULTILINE | re.VERBOSE,
)


def sections(report: str) -> dict[str, str]:
    """The parts of a report by their headings, in the order of their first appearance.

    A heading is a known name and a colon, in any case at the start of a line or after a stop, in capitals anywhere;
    a known name alone on its line; or any phrase in capitals with a colon at the start of a line. Known synonyms share
    a name (``CONCLUSION`` is ``impression``), other names are lower-cased; text before or without a heading stands
    under ``""``. Parts of one name are joined by a blank line.

    Example:
        >>> sections("INDICATION: Cough. FINDINGS: Clear lungs.\\nImpression:\\n  No disease.")
        {'indication': 'Cough.', 'findings': 'Clear lungs.', 'impression': 'No disease.'}
    """
    parts: dict[str, list[str]] = {}
    name, start = "", 0
    for heading in _HEADING.finditer(report):
        parts.setdefault(name, []).append(report[start : heading.start()])
        written = next(group for group in heading.groups() if group is not None)
        key = re.sub(r"\s+", " ", written.strip().lower())
        name, start = SYNONYMS.get(key, key), heading.end()
    parts.setdefault(name, []).append(report[start:])
    joined = {name: "\n\n".join(filter(None, (part.strip() for part in texts))) for name, texts in parts.items()}
    return {name: text for name, text in joined.items() if text or name}


def report_body(report: str) -> str:
    """What a report says of its film: findings, then impression.

    Without either: the text that stands under no heading; else the last paragraph, if it has no heading in it (where
    reports with only an ``EXAMINATION:`` keep their reading); else what stands under headings that we do not know
    (``CHEST, PA AND LATERAL:``); empty where there is none of these.
    """
    found = sections(report)
    body = [found[name] for name in ("findings", "impression") if found.get(name)]
    if not body and found.get(""):
        body = [found[""]]
    if not body:
        paragraphs = [part for part in re.split(r"\n[ \t]*\n", report) if part.strip()]
        body = [part.strip() for part in paragraphs[1:][-1:] if not _HEADING.search(part)]
    return "\n\n".join(body or [text for name, text in found.items() if name not in NAMES and text])


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
    words = [re.sub(r"\s+", " ", token.group()) for token in tokens] + [""]
    sentences: list[str] = []
    current: list[str] = []
    listed = any(word.strip("().,") == "2" and _MARK.fullmatch(word) for word in words)
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
        if gap.count("\n") > 1:
            close()
        if word.strip(_BULLETS) == "" and ("\n" in gap or not current):
            close()
            continue
        mark = _MARK.fullmatch(word)
        if mark and (not current or _goes_on(int(mark[1]), expected, "\n" in gap, listed, current, following)):
            close()
            expected = int(mark[1]) + 1
            continue
        current.append(word)
        if _ends(current, following):
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
    """Whether the last word of ``current`` ends a sentence, seeing the word that follows; empty at the end."""
    word = current[-1].rstrip(_CLOSING)
    if not following or not word or word[-1] not in ".?!":
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
