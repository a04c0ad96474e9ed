"""What exports, spreadsheets and templates do to the text of a report, undone. Floor 2.

Escaped line breaks, HTML, lists and objects of Python and JSON, Excel's ``_x000D_``, RTF, Markdown's emphasis, unusual
spaces and decomposed accents. Words are never touched: what goes is marks, and what comes is line breaks.
"""

from __future__ import annotations

import ast
import html
import json
import re
import unicodedata
from typing import Any

_ESCAPED = re.compile(r"\\+r\\+n|\\+[nr]")
_PLAIN_ESCAPE = re.compile(r"\\+r\\+n|(?<![^\W\d_])\\+[nr]|\\+[nr](?![a-zß-öø-ÿ])")  # not "mass\nodule"
_HL7 = re.compile(r"\\(\.br|\.sp\d*|X0D\\\\X0A|X0[AD]|[TFSHN])\\")
_HL7_MEANS = {"T": "&", "F": "|", "S": "^", "H": "", "N": ""}  # all others are line breaks
_BAR = re.compile(r"[ \t]*\|+[ \t]*(?=[^\W\d_][^|:\n]{3,40}[:：])")  # for a line break, before a heading
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_BLOCK = re.compile(
    r"<(?:br|/?(?:p|div|li|ul|ol|tr|table|tbody|h[1-6]|section|pre|body|html|head|cr|lf|nl))\b[^<>]{0,200}>", re.I
)
_INLINE = re.compile(r"</?(?:b|i|u|em|strong|span|font|sup|sub|td|th|a|small|tt|code|o:p)\b[^<>]{0,200}>", re.I)
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z _]{2,30})>")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,10}\d{0,2});")
_EXCEL = re.compile(r"_x000[Dd]_(?=\n)|_x([0-9A-Fa-f]{4})_")
_SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_BREAKS = re.compile(r"\r\n?|[\u000b\u000c\u0085\u2028\u2029]")
_NOTHING = re.compile(r"[\u200b\u2060\ufeff\u00ad\u0000-\u0008\u000e-\u001f]")
_BOLD = re.compile(r"(?<![\[*])\*\*(?=[^\s\]*])([^*\n]{1,300}?)(?<=[^\s\[])\*\*(?![\]*])")
_ADJACENT = re.compile(r"""(['"])\s+(?=['"])""")  # between the texts of a NumPy array
_QUOTED_LIST = re.compile(r"""[\[(]\s*['"](?!\s*[,\])])(.+)['"]\s*,?\s*[\])]""", re.DOTALL)
_BETWEEN = re.compile(r"""['"]\s*,\s*['"]""")
_RTF = re.compile(
    r"\\([a-z]{1,32})(-?\d{1,10})?[ ]?|\\'([0-9a-fA-F]{2})|\\([^a-z])|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.IGNORECASE
)
_RTF_SILENT = {"fonttbl", "colortbl", "stylesheet", "info", "pict", "header", "footer", "listtable", "generator"}


def clean_text(cell: str) -> str:
    r"""The text of a cell as its author wrote it, with real line breaks.

    Example:
        >>> clean_text(r"FINDINGS: Small effusion.\nHeart is normal.&nbsp;<br>")
        'FINDINGS: Small effusion.\nHeart is normal. \n'
        >>> clean_text("['A left effusion.', 'The heart is enlarged.']")
        'A left effusion.\n\nThe heart is enlarged.'
    """
    plain = cell.isascii() and not any(mark in cell for mark in '\\<&*[{|\r"\x0b\x0c\x00')
    if plain and "_x0" not in cell and not cell.startswith("("):
        return cell
    text = _without_quotes(cell)
    if text.lstrip().startswith("{\\rtf"):
        text = _of_rtf(text)
    text = _of_list(text)
    if "\\" in text:
        text = _HL7.sub(lambda code: _HL7_MEANS.get(code[1], "\n"), text)
        if _PLAIN_ESCAPE.search(text):
            text = re.sub(r"\\+t", "\t", _ESCAPED.sub("\n", text))
        text = _UNICODE_ESCAPE.sub(_character, text)
        text = re.sub(r"\\([\"'/])", r"\1", text)
    if "<" in text:
        text = _INLINE.sub("", _BLOCK.sub("\n", text))
        text = _of_xml(text)
    for _ in range(2):  # "&amp;nbsp;"
        if "&" in text:
            text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    text = _EXCEL.sub(lambda code: _visible(int(code[1], 16)) if code[1] else "", text)
    text = _NOTHING.sub("", _SPACES.sub(" ", _BREAKS.sub("\n", text)))
    text = unicodedata.normalize("NFC", text)
    if "|" in text and "\n" not in text:
        text = _BAR.sub("\n", text)
    return _BOLD.sub(_without_emphasis, text) if "**" in text else text


def oddities(cell: str, most: int = 60) -> str:
    """The beginning of a cell and what is odd in it, for a message; empty for an empty cell.

    Example:
        >>> oddities("NaN")
        "the cell holds 'NaN', a missing value written as text"
        >>> oddities("INDICATION: cough for three weeks, fever.")
        "the cell holds 'INDICATION: cough for three weeks, fever.'"
    """
    shown = " ".join(cell.split())
    if not shown:
        return ""
    shown = repr(shown[:most] + ("..." if len(shown) > most else ""))
    odd = []
    if cell.strip().lower() in ("nan", "none", "null", "na", "n/a", "<na>", "#n/a", "nil"):
        odd.append("a missing value written as text")
    if "\\n" in cell or "\\r" in cell:
        odd.append("line breaks written as a backslash and a letter")
    if "{\\rtf" in cell:
        odd.append("RTF")
    if re.search(r"<[a-z/][^<>]*>", cell, re.IGNORECASE):
        odd.append("HTML or XML tags")
    if re.search(r"[ÃÂ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|\ufffd", cell):
        odd.append("letters of a wrong encoding")
    if cell.strip()[:1] in "[{":
        odd.append("a list or an object instead of a text")
    if re.fullmatch(r"\S+\.(?:txt|xml|html?|rtf|docx?|pdf)", cell.strip(), re.IGNORECASE):
        odd.append("the name of a file instead of its text")
    return f"the cell holds {shown}" + (f", {' and '.join(odd)}" if odd else "")


def _without_quotes(cell: str) -> str:
    """Without the quotes around the whole, which a table that was written twice leaves."""
    text = cell.strip()
    inside = text[1:-1].replace('""', "")
    if len(text) > 2 and text[0] == text[-1] == '"' and '"' not in re.sub(r'\\"', "", inside):
        return text[1:-1].replace('""', '"')
    return cell


def _of_xml(text: str) -> str:
    """``<findings>...</findings>`` as text under a heading; "<XXXX>", which nothing closes, stays."""
    closed = {tag[2] for tag in _TAG.finditer(text) if tag[1]}

    def heading(tag: re.Match[str]) -> str:
        return tag[0] if tag[2] not in closed else "\n" if tag[1] else f"\n{tag[2]}:\n"

    return _TAG.sub(heading, text)


def _character(escape: re.Match[str]) -> str:
    code = int(escape[1] or escape[2], 16)
    return escape[0] if 0xD800 <= code <= 0xDFFF else _visible(code)


def _visible(code: int) -> str:
    """A character; a line break for one that moves the paper, nothing for other controls."""
    if code in (9, 10, 11, 12, 13):
        return "\t" if code == 9 else "\n"
    return "" if code < 32 or 0xD800 <= code <= 0xDFFF else chr(code)


def _without_emphasis(bold: re.Match[str]) -> str:
    """Bold text as text; what may be a heading, at the beginning of a line, stays bold."""
    before = bold.string[bold.string.rfind("\n", 0, bold.start()) + 1 : bold.start()]
    heads = bold[1].rstrip().endswith((":", "：")) or re.match(r"[ \t]*(?:[:：\n]|$)", bold.string[bold.end() :])
    return bold[0] if heads and not before.strip(" \t>-•#0123456789.)") else bold[1]


# Lists and objects ----------------------------------------------------------------------------------------------------


def _of_list(cell: str) -> str:
    """The texts of a list, a paragraph each, and those of an object under its keys; other text as it is."""
    text = cell.strip()
    if not (text[:1] + text[-1:] in ("[]", "()", "{}") and ("'" in text or '"' in text)):
        return cell
    try:
        return "\n\n".join(_paragraphs(_parsed(text)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        texts = _unescaped(text)
        return "\n\n".join(texts) if texts else cell


def _unescaped(text: str) -> list[str]:
    """The texts of a list whose quotes nobody escaped: ``['It's clear.', 'ok']``; empty for other text."""
    whole = _QUOTED_LIST.fullmatch(text)
    return [part.strip() for part in _BETWEEN.split(whole[1]) if part.strip()] if whole else []


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    text = re.sub(r"\b(?:nan|null)\b(?=\s*[,}\])])", "None", text)
    parsed = ast.literal_eval(text)
    if isinstance(parsed, list | tuple) and len(parsed) == 1 and _ADJACENT.search(text):
        parsed = ast.literal_eval(_ADJACENT.sub(r"\1, ", text))  # Python would have joined them without a space
    return parsed


def _paragraphs(parsed: Any) -> list[str]:
    if isinstance(parsed, str):
        return [parsed] if parsed.strip() else []
    if isinstance(parsed, dict):
        found = [(str(key), _paragraphs(value)) for key, value in parsed.items()]
        return ["\n\n".join([f"{key.upper()}:", *inside]) for key, inside in found if inside]
    if isinstance(parsed, list | tuple):
        return [text for part in parsed for text in _paragraphs(part)]
    if parsed is None:
        return []
    raise TypeError(f"no text: {parsed!r}")


# RTF ------------------------------------------------------------------------------------------------------------------


def _of_rtf(text: str) -> str:
    """The text of an RTF document, its pictures, fonts and styles left out."""
    written: list[str] = []
    silent, replaced = False, False  # after a Unicode letter stands what readers without it show: not read
    outer: list[bool] = []
    for token in _RTF.finditer(text):
        word, number, code, sign, brace, plain = token.groups()
        if brace == "{":
            outer.append(silent)
        elif brace == "}":
            silent = outer.pop() if outer else False
        elif sign == "*" or word in _RTF_SILENT:
            silent = True
        elif silent:
            continue
        elif word in ("par", "line", "sect", "page", "row"):
            written.append("\n")
        elif word in ("tab", "cell"):
            written.append("\t")
        elif word == "u" and number:
            written.append(_visible(int(number) % 65536))
            replaced = True
        elif code:
            written.append(bytes.fromhex(code).decode("cp1252", errors="replace"))
        elif sign:
            written.append(" " if sign == "~" else sign if sign in "\\{}" else "")
        elif plain:
            written.append(plain[replaced:])
            replaced = False
    return "".join(written)
