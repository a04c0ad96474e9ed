"""Cells of label and class columns: numbers and words for present and absent, classes of several spellings. Floor 2."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from lingula.data.missing import MISSING
from lingula.data.tables import Table
from lingula.registry import UserError

LABEL_VALUES = (0.0, 1.0, -1.0)
_LABEL_WORDS = {  # in any case; true and false also as Excel writes them in other languages
    1.0: "yes y true t present positive pos ja j vorhanden positiv wahr oui vrai positif sí si verdadero positivo sim "
    "verdadeiro vero waar",
    0.0: "no n false f absent negative neg nein negativ falsch non faux négatif não nao falso nee onwaar negativo",
    -1.0: "uncertain equivocal indeterminate",
}
_LABEL_OF = {word: value for value, words in _LABEL_WORDS.items() for word in words.split()}


def label_value(written: str, where: str, column: str) -> float:
    """1 present, 0 absent, -1 uncertain; NaN unknown.

    Read in any case: 1, 0 and -1 (also 1.0 and 1,0); yes and no, true and false, present and absent, positive and
    negative, and their short forms and translations in :data:`_LABEL_WORDS`; uncertain, equivocal and indeterminate as
    -1; empty cells and those of :data:`lingula.data.missing.MISSING` as NaN. What may mean several things ("u", "+",
    "x", "possible") is refused.

    Args:
        written: the cell.
        where: names the row, for the message.
        column: name of the column, for the message.
    Raises:
        UserError: for anything else, naming the row.
    """
    value = _label(written)
    if value is None:
        expected = "expected 1, 0, -1 (uncertain) or empty (unknown), or words such as yes, no, true, false, uncertain"
        raise UserError(f"{where}: '{written}' in label column '{column}'; {expected}")
    return value


def label_words(table: Table, columns: Sequence[str]) -> list[str]:
    """A line on the words in label columns, and on what :func:`label_value` reads them as; none where there are none.

    Example:
        >>> label_words(Table("t.csv", ["x", "y"], [["yes", "1"], ["no", "N/A"]], [2, 3]), ["x", "y"])
        ["label columns: 'N/A' (1 cell) read as unknown, 'no' (1 cell) as 0, 'yes' (1 cell) as 1"]
    """
    places = table.places(columns)
    counts = Counter(row[place] for row in table.rows for place in places)
    read = {written: _label(written) for written in counts if written and not re.fullmatch(r"[-+\d.,]*\d", written)}
    known = {written: value for written, value in read.items() if value is not None}
    as_text = {written: "unknown" if math.isnan(value) else f"{value:.0f}" for written, value in known.items()}
    return _read_as("label columns", counts, as_text)


def _label(written: str) -> float | None:
    """The value of a label cell; None where it has none."""
    word = written.lower()
    if word in MISSING:
        return math.nan
    if word in _LABEL_OF:
        return _LABEL_OF[word]
    try:
        value = float(word.replace(",", "."))
    except ValueError:
        return None
    return value if value in LABEL_VALUES else None


def classes_of(table: Table, column: str) -> tuple[dict[str, str], list[str]]:
    """The class of every text in a column, and lines on the cells that are not read as they are written.

    One class are spellings that differ in case and spaces only, by their most frequent one, and whole numbers with and
    without decimals (``1`` and ``1.0``). Words of :data:`lingula.data.missing.MISSING` are no class: the empty string.

    Args:
        table: with the column.
        column: of classes that exclude each other.
    """
    (place,) = table.places([column])
    counts = Counter(row[place] for row in table.rows)
    spellings: dict[str, list[str]] = {}
    for written in sorted(counts, key=lambda written: (-counts[written], written)):
        spellings.setdefault(_same(written), []).append(written)
    called = {}
    for same, of_class in spellings.items():
        whole = same if same.lstrip("+-").isdecimal() else " ".join(of_class[0].split())
        called.update(dict.fromkeys(of_class, "" if same in MISSING else whole))
    as_text = {written: f"'{name}'" if name else "unknown" for written, name in called.items() if name != written}
    return called, _read_as(f"column '{column}'", counts, as_text)


def _same(written: str) -> str:
    """Equal for the spellings of one class."""
    text = " ".join(unicodedata.normalize("NFC", written).casefold().split())
    return re.sub(r"([+-]?\d+)[.,]0+", r"\1", text) if re.fullmatch(r"[+-]?\d+[.,]0+", text) else text


def _read_as(what: str, counts: Mapping[str, int], as_text: Mapping[str, str], most: int = 6) -> list[str]:
    """One line: ``what: 'yes' (12 cells) read as 1, 'no' (3 cells) as 0``; none where there is nothing to say."""
    order = sorted(as_text, key=lambda written: (-counts[written], written))
    parts = [f"'{w}' ({counts[w]:,} cell{'s' * (counts[w] > 1)}) as {as_text[w]}" for w in order[:most]]
    more = f", and {len(order) - most} more" if len(order) > most else ""
    return [f"{what}: {', '.join(parts).replace(') as ', ') read as ', 1)}{more}"] if parts else []
