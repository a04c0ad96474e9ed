"""Tables of text cells: CSV, TSV (also gzipped) and Parquet, their rows named for messages. Floor 2."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lingula.registry import UserError, nearest

LABEL_VALUES = (0.0, 1.0, -1.0)


@dataclass
class Table:
    """Cells as stripped text, empty where missing; ``numbers`` say where the rows stand in their file.

    A row of a CSV or TSV is named by the line on which it starts (the header is line 1), a row of a Parquet file by its
    position from 1.
    """

    name: str
    columns: list[str]
    rows: list[list[str]]
    numbers: list[int]

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
                hint = nearest(column, self.columns)
                there = ", ".join(self.columns)
                raise UserError(f"{self.name} has no column '{column}'{hint}; its columns: {there}")
        twice = [column for column, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise UserError(f"{self.name} has the column '{twice[0]}' twice")
        return [self.columns.index(column) for column in columns]


def read_table(path: Path, columns: Sequence[str] = ()) -> Table:
    """Read a table; a byte order mark, spaces around cells, empty lines and empty cells at the end are dropped.

    Args:
        path: of the table.
        columns: keep no others, which saves the memory of those; all if empty.
    Raises:
        UserError: if the file is missing, of another kind, not UTF-8, lacks one of the columns, or has a row of more or
            fewer cells than columns.
    """
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        return _only(_read_parquet(path), columns)
    if suffix not in (".csv", ".tsv"):
        raise UserError(f"cannot read table {path}: expected .csv, .tsv or .parquet")
    return _read_csv(path, name, "," if suffix == ".csv" else "\t", columns)


def label_value(written: str, where: str, column: str) -> float:
    """1 present, 0 absent, -1 uncertain; NaN where the cell is empty.

    Raises:
        UserError: for anything else, naming the row.
    """
    try:
        value = float(written or "nan")
    except ValueError:
        value = math.inf
    if value not in LABEL_VALUES and not math.isnan(value):
        raise UserError(f"{where}: '{written}' in label column '{column}'; expected 1, 0, -1 or empty")
    return value


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


def _read_csv(path: Path, name: str, separator: str, columns: Sequence[str]) -> Table:
    """The standard library's reader knows the line of every row, and takes "None" for a word."""
    csv.field_size_limit(1 << 27)  # characters of one cell; the default refuses long reports and masks
    table = Table(name, [], [], [])
    start = 1
    places: list[int] = []  # of the columns that are kept
    try:
        with _open(path) as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                while len(cells) > len(table.columns) and not cells[-1]:
                    cells.pop()  # empty cells at the end, as spreadsheets write them
                if not table.columns:
                    table.columns = cells
                    places = table.places(columns) if columns else list(range(len(cells)))
                elif any(cells):
                    if len(cells) != len(table.columns):
                        expected = f"expected {len(table.columns)} cells as in the header, got {len(cells)}"
                        raise UserError(f"row {start} of {name}: {expected}")
                    table.rows.append([cells[place] for place in places])
                    table.numbers.append(start)
                start = reader.line_num + 1
    except FileNotFoundError as err:
        raise UserError(f"no table at {path}") from err
    except UnicodeDecodeError as err:
        raise UserError(f"cannot read table {path}: {err}; save it as UTF-8") from err
    except (OSError, EOFError, zlib.error, csv.Error) as err:
        raise UserError(f"cannot read table {path}: row {start}: {err}") from err
    table.columns = [table.columns[place] for place in places]
    return table


def _only(table: Table, columns: Sequence[str]) -> Table:
    """A table without its other columns; itself where none are named."""
    if not columns:
        return table
    places = table.places(columns)
    rows = [[cells[place] for place in places] for cells in table.rows]
    return Table(table.name, list(columns), rows, table.numbers)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_parquet(path: Path) -> Table:
    import pandas as pd

    if not path.is_file():
        raise UserError(f"no table at {path}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as err:
        raise UserError(f"cannot read table {path}: {err}") from err
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return Table(path.name, [str(column) for column in table.columns], rows, list(range(1, len(rows) + 1)))


def _cell(value: Any) -> str:
    """One cell as text: 3.0 as "3", what is missing as the empty string."""
    if isinstance(value, str):
        return value.strip()
    if value is None or str(value) in ("nan", "NaT", "<NA>"):
        return ""
    whole = not isinstance(value, bool) and hasattr(value, "is_integer") and value.is_integer()
    return str(int(value) if whole else value).strip()


def sorted_classes(table: Table, column: str) -> list[str]:
    """The distinct values of a column, sorted, without the empty one."""
    position = table.columns.index(column)
    return sorted({row[position] for row in table.rows} - {""})
