"""Tables of text cells: CSV, TSV (also gzipped), Parquet and spreadsheets, their rows named for messages. Floor 2."""

from __future__ import annotations

import contextlib
import csv
import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lingula.data.delimiters import LONGEST, NAMES, find_delimiter, known_delimiter, shown, stated_delimiter
from lingula.data.encodings import UTF8, find_encoding, known_encoding, text_lines
from lingula.data.missing import EXCEL_ERRORS
from lingula.data.quotes import Escapes, Swallowed
from lingula.data.sheets import ENDINGS, cell_text, read_sheet
from lingula.data.study import LeftOut
from lingula.registry import UserError, nearest

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ","}  # what an ending stands for
HEAD = 2000  # lines that are looked at to find the delimiter, and
HEAD_SIZE = 1 << 22  # characters after which no further line is


@dataclass
class Table:
    """Cells as stripped text, empty where missing; ``numbers`` say where the rows stand in their file.

    A row of a text file is named by the line on which it starts (the header is line 1), a row of a spreadsheet by its
    number there, a row of a Parquet file by its position from 1. ``remarks`` are lines for the log on how the file was
    read, ``bad`` the rows of more or fewer cells than columns.
    """

    name: str
    columns: list[str]
    rows: list[list[str]]
    numbers: list[int]
    remarks: list[str] = field(default_factory=list)
    bad: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, dict[str, str]]]:
        """``("row 17 of reports.csv", {column: cell})`` for every row."""
        for number, cells in zip(self.numbers, self.rows, strict=True):
            yield f"row {number} of {self.name}", dict(zip(self.columns, cells, strict=True))

    def require(self, *columns: str) -> None:
        """Refuse a table without these columns, or with one of its own twice, or without rows.

        Raises:
            UserError: naming the nearest column that is there.
        """
        self.places(columns)
        if not self.rows:
            raise UserError(f"{self.name} has no rows")

    def places(self, columns: Sequence[str]) -> list[int]:
        """Where these columns stand among the table's own.

        Raises:
            UserError: naming the nearest column that is there, or one that is there twice.
        """
        if not self.columns:
            raise UserError(f"{self.name} is empty")
        for column in columns:
            if column not in self.columns:
                there = ", ".join(name or "(unnamed)" for name in self.columns)
                raise UserError(
                    f"{self.name} has no column '{column}'{self._hint(column)}; its columns: {_cut(there, 400)}"
                )
        twice = [column for column, count in Counter(self.columns).items() if count > 1 and column]
        if twice:
            raise UserError(f"{self.name} has the column '{twice[0]}' twice")
        return [self.columns.index(column) for column in columns]

    def _hint(self, column: str) -> str:
        """What may be meant by a column that is missing."""
        same = [name for name in self.columns if _plain(name) == _plain(column)]
        if same:
            return f"; did you mean '{same[0]}'?"
        pieces = {
            delimiter: [_plain(piece) for name in self.columns if delimiter in name for piece in name.split(delimiter)]
            for delimiter in NAMES
        }
        separates = [delimiter for delimiter in NAMES if _plain(column) in pieces[delimiter]]
        if len(self.columns) == 1:
            separates += [delimiter for delimiter in NAMES if sum(map(bool, pieces[delimiter])) > 1]
        if separates:
            return f"; is it separated by {shown(separates[0])}?"
        return nearest(column, self.columns) or ("; is its first row a title?" if len(self.columns) == 1 else "")


def read_table(path: Path, columns: Sequence[str] = ()) -> Table:
    """Read a table as its publisher wrote it: UTF-8, commas in a .csv, tabs in a .tsv.

    A byte order mark, spaces around cells, empty lines and empty cells at the end are dropped.

    Args:
        path: file of the table, .csv, .tsv, either with .gz, or .parquet.
        columns: keep no others, which saves the memory of those; all if empty.
    Raises:
        UserError: if the file is missing, of another kind, not UTF-8, lacks one of the columns, or has a row of more or
            fewer cells than columns.
    """
    name, suffix = _name(path)
    if suffix == ".parquet":
        return _only(_read_parquet(path), columns)
    if suffix not in (".csv", ".tsv"):
        raise UserError(f"cannot read table {path}: expected .csv, .tsv or .parquet")
    with _readable(path):
        try:
            return _of_rows(name, _csv_rows(text_lines(path, UTF8), DELIMITERS[suffix]), columns)
        except _Malformed as err:
            raise err.said(path) from err


def read_any_table(
    path: Path,
    wanted: Sequence[str] = (),
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Table:
    """Read a table as any program wrote it; what had to be found out stands in the table's ``remarks``.

    Text (.csv, .tsv, .txt, each also with .gz): the encoding is found from the whole file
    (:func:`lingula.data.encodings.find_encoding`), the delimiter from its first rows
    (:func:`lingula.data.delimiters.find_delimiter`), Excel's line ``sep=;`` is understood, and quotes inside a cell may
    be doubled or escaped by a backslash. Of a spreadsheet (.xlsx, .xlsm, .xlsb, .xls, .ods), one sheet is read. The
    first row that is not empty is the header. A row of more or fewer cells is none of the table's rows, and stands in
    ``bad``; Excel's errors, such as ``#N/A`` and ``#NAME?``, count as empty.

    Args:
        path: file of the table.
        wanted: columns that the table should have; they help to find the delimiter, and are not demanded.
        delimiter: of a text file; found if None.
        encoding: of a text file; found if None.
        sheet: name of the sheet of a spreadsheet; the first that is not empty if None.
    Raises:
        UserError: if the file is missing, of another kind or broken, if its delimiter or encoding remains unclear, or
            if no row has as many cells as the header.
    """
    name, suffix = _name(path)
    kind = "text" if suffix in DELIMITERS else "spreadsheet" if suffix in ENDINGS else suffix
    for option, value, of in (("delimiter", delimiter, "text"), ("encoding", encoding, "text")):
        if value is not None and kind != of:
            raise UserError(f"--{option} is for .csv, .tsv and .txt, not for {path.name}")
    if sheet is not None and kind != "spreadsheet":
        raise UserError(f"--sheet is for {', '.join(ENDINGS)}, not for {path.name}")
    if kind == "spreadsheet":
        return _read_sheet(path, sheet)
    if kind == ".parquet":
        return _read_parquet(path)
    if kind != "text":
        raise UserError(f"cannot read table {path}: expected {', '.join([*DELIMITERS, *ENDINGS])} or .parquet")
    with _readable(path):
        return _read_text(path, name, suffix, wanted, delimiter, encoding)


def number(written: str, where: str, column: str) -> float:
    """A finite number.

    Raises:
        UserError: for anything else, naming the row.
    """
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: '{written}' in column '{column}'; expected a number")
    return value


def _name(path: Path) -> tuple[str, str]:
    """A table's name for messages, and its ending."""
    name = path.name.removesuffix(".gz")
    return name, Path(name).suffix.lower()


def _read_text(
    path: Path, name: str, suffix: str, wanted: Sequence[str], delimiter: str | None, encoding: str | None
) -> Table:
    remarks = []
    if encoding is None:
        found = find_encoding(path)
        encoding = found.name
        if encoding != UTF8:
            words = f" ({', '.join(found.words)})" if found.words else ""
            remarks.append(f"{name} is not UTF-8 and is read as {encoding}{words}; --encoding chooses another")
    else:
        encoding = known_encoding(encoding)
    lines = text_lines(path, encoding)
    head: list[str] = []
    size = 0
    for line in islice(lines, HEAD):
        head.append(line)
        size += len(line)
        if size > HEAD_SIZE:
            break
    stated = stated_delimiter(head[0]) if head else None
    if delimiter is not None:
        separator = known_delimiter(delimiter)
    elif stated:
        separator = stated
    else:
        cut = next(lines, None) is not None
        separator = find_delimiter(head, wanted, DELIMITERS[suffix], name, cut)
        if separator != DELIMITERS[suffix]:
            remarks.append(f"the columns of {name} are separated by {shown(separator)}")

    def read(mend: Callable[[Iterable[str]], Iterator[str]] = iter) -> Table:
        rows = _csv_rows(mend(text_lines(path, encoding)), separator)
        swallowed = Swallowed(separator)
        table = _of_any_rows(name, swallowed(islice(rows, 1, None) if stated else rows))
        table.remarks += swallowed.remarks(name)
        return table

    try:
        table = read()
    except _Malformed as err:
        escapes = Escapes()
        try:
            table = read(escapes)
        except (UserError, _Malformed):
            raise err.said(path) from err
        if not escapes.count or table.bad:
            raise err.said(path) from err
        remarks.append(
            f"{name} escapes quotes by a backslash; {escapes.count:,} were read as quotes, the first in line "
            f"{escapes.first}"
        )
    table.remarks = remarks + table.remarks
    return table


class _Malformed(Exception):
    """What the standard library's reader refused, and in which row."""

    def __init__(self, start: int, error: csv.Error) -> None:
        super().__init__(f"row {start}: {error}")

    def said(self, path: Path) -> UserError:
        return UserError(f"cannot read table {path}: {self}; a quote inside a quoted cell must be doubled")


def _csv_rows(lines: Iterator[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row starts, and its cells. The standard library's reader takes "None" for a word."""
    csv.field_size_limit(LONGEST)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            yield start, [cell.strip() for cell in cells]
            start = reader.line_num + 1
    except csv.Error as err:
        raise _Malformed(start, err) from err


def _of_any_rows(name: str, rows: Iterable[tuple[int, list[str]]]) -> Table:
    """A table of rows that any program wrote: some may be bad, and cells may hold errors of Excel."""
    errors: list[tuple[str, int]] = []

    def without_errors() -> Iterator[tuple[int, list[str]]]:
        for number, cells in rows:
            found = [cell for cell in cells if cell[:1] == "#" and cell.lower() in EXCEL_ERRORS]
            errors.extend((cell, number) for cell in found)
            yield number, ["" if cell in found else cell for cell in cells] if found else cells

    table = _of_rows(name, without_errors(), strict=False)
    if errors:
        count = f"{len(errors):,} cell{'s' * (len(errors) > 1)}"
        table.remarks.append(
            f"{count} of {name} with an error of Excel (first: '{errors[0][0]}' in row {errors[0][1]}) read as empty"
        )
    return table


def _of_rows(
    name: str, rows: Iterable[tuple[int, list[str]]], columns: Sequence[str] = (), strict: bool = True
) -> Table:
    """A table of numbered rows, of which the first that is not empty is the header.

    Args:
        name: name of the table.
        rows: their numbers and cells.
        columns: columns that are kept; all if empty.
        strict: whether a row of more or fewer cells than the header is refused. Where it is not, the first is refused
            if no row is sound, as the header is at fault then.
    """
    table = Table(name, [], [], [])
    places: list[int] = []  # of the columns that are kept
    for number, cells in rows:
        while len(cells) > len(table.columns) and not cells[-1]:
            cells.pop()  # empty cells at the end, as spreadsheets write them
        if not table.columns:
            table.columns = [unicodedata.normalize("NFC", cell) for cell in cells]
            places = table.places(columns) if columns else list(range(len(cells)))
        elif any(cells):
            if len(cells) != len(table.columns):
                where, expected = f"row {number} of {name}", f"expected {len(table.columns)} cells as in the header"
                table.bad.append(LeftOut(where, f"wrong number of cells: {expected}, got {len(cells)}"))
                if strict:
                    break
                continue
            table.rows.append([cells[place] for place in places])
            table.numbers.append(number)
    if table.bad and (strict or not table.rows):
        first = table.bad[0]
        hint = (
            "; is the first row a title? the header must come first"
            if len(table.columns) == 1 or len(table.bad) > 1
            else ""
        )
        raise UserError(f"{first.row}: {first.reason}{hint}")
    table.columns = [table.columns[place] for place in places]
    return table


def _only(table: Table, columns: Sequence[str]) -> Table:
    """A table without its other columns; itself where none are named."""
    if not columns:
        return table
    places = table.places(columns)
    rows = [[cells[place] for place in places] for cells in table.rows]
    return Table(table.name, list(columns), rows, table.numbers)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A file that is missing or broken, as an error that the user can mend."""
    try:
        yield
    except FileNotFoundError as err:
        raise UserError(f"no table at {path}") from err
    except (OSError, EOFError, zlib.error) as err:
        raise UserError(f"cannot read table {path}: {err}") from err


def _read_sheet(path: Path, sheet: str | None) -> Table:
    found = read_sheet(path, sheet)
    name = f"sheet '{found.name}' of {path.name}" if sheet or found.others else path.name
    table = _of_any_rows(name, found.cells())
    table.remarks = found.remarks + table.remarks
    return table


def _read_parquet(path: Path) -> Table:
    import pandas as pd

    if not path.is_file():
        raise UserError(f"no table at {path}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as err:
        raise UserError(f"cannot read table {path}: {err}") from err
    rows = [[cell_text(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return Table(path.name, [str(column) for column in table.columns], rows, list(range(1, len(rows) + 1)))


def _plain(column: str) -> str:
    return unicodedata.normalize("NFC", column).strip().casefold()


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."
