"""Which character separates the columns of a table of text. Floor 2."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from lingula.registry import UserError

NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
GIVEN = {name: delimiter for delimiter, name in NAMES.items()} | {"\\t": "\t"}  # as words, or as a shell passes a tab
LONGEST = 1 << 27  # characters of one cell; the standard library's default refuses long reports and masks
ROWS = 50  # first rows that are looked at


@dataclass(frozen=True)
class _Reading:
    """The head of a table, read with one delimiter.

    Attributes:
        header: its cells.
        found: how many of the wanted columns are among them.
        even: whether all of the first rows have as many cells.
    """

    header: list[str]
    found: int
    even: bool


def shown(delimiter: str) -> str:
    """A delimiter as a message names it, and ``--delimiter`` takes it."""
    return "tab" if delimiter == "\t" else f"'{delimiter}'"


def known_delimiter(given: str) -> str:
    """The delimiter that the user gave, as a character or by its name.

    Raises:
        UserError: for more than one character, a quote, a letter or a digit.
    """
    delimiter = GIVEN.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"\r\n':
        raise UserError(f"cannot use '{given}' as delimiter; expected one such as ';' or one of {', '.join(GIVEN)}")
    return delimiter


def stated_delimiter(line: str) -> str | None:
    """That of Excel's first line ``sep=;``, which is no header; None where the line is something else."""
    line = line.strip("\r\n\"'")
    return line[4] if len(line) == 5 and line[:4].lower() == "sep=" else None


def find_delimiter(lines: Sequence[str], wanted: Sequence[str], default: str, name: str, cut: bool = False) -> str:
    """The delimiter of a table, by its header first and by its rows second.

    Counting characters, as :class:`csv.Sniffer` does, fails on reports, which hold more commas than the table has
    columns. Here the head is *parsed* with every candidate, quotes and line breaks in cells included, and the candidate
    is taken in whose header the most wanted columns stand. Among equals, first rows of as many cells as the header
    count; then more than one column. One column remains the default's.

    Args:
        lines: the first lines of the table, with their ends.
        wanted: columns that the table should have.
        default: the delimiter that the file's ending stands for.
        name: what to call the table in the message.
        cut: whether the table has more lines, so that the last row may not be whole.
    Raises:
        UserError: if two candidates are as good, naming both readings.
    """
    csv.field_size_limit(LONGEST)
    readings = {delimiter: _read(lines, delimiter, wanted, cut) for delimiter in (default, *NAMES)}
    most = max(reading.found for reading in readings.values())
    good = {delimiter: reading for delimiter, reading in readings.items() if reading.found == most}
    several = {delimiter: reading for delimiter, reading in good.items() if len(reading.header) > 1}
    even = {delimiter: reading for delimiter, reading in (several or good).items() if reading.even}
    choice = even or several or {default: readings[default]}
    if len(choice) > 1 and several:
        ways = " or ".join(
            f"by {shown(delimiter)} ({len(reading.header)} columns: {_start(reading.header)})"
            for delimiter, reading in choice.items()
        )
        raise UserError(f"the columns of {name} could be separated {ways}; give --delimiter")
    return next(iter(choice))


def _read(lines: Sequence[str], delimiter: str, wanted: Sequence[str], cut: bool) -> _Reading:
    header: list[str] = []
    widths = []
    for cells in csv.reader(lines, delimiter=delimiter):
        cells = [cell.strip() for cell in cells]
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if not header:
            header = cells
        elif any(cells):
            widths.append(len(cells))
        if len(widths) > ROWS:
            break
    if cut or len(widths) > ROWS:
        widths = widths[:-1]
    known = {cell.casefold() for cell in header}
    found = sum(column.strip().casefold() in known for column in wanted)
    return _Reading(header, found, all(width == len(header) for width in widths))


def _start(header: list[str]) -> str:
    """The first cells of a header, cut to a few words."""
    return ", ".join(cell[:20] for cell in header[:3]) + ", ..." * (len(header) > 3)
