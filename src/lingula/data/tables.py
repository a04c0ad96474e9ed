"""Tables of text cells: CSV, TSV (also gzipped) and Parquet, their rows named for messages. Floor 2."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lingula.registry import UserError, nearest

LABEL_VALUES = (0.0, 1.0, -1.0)
# Cells of label and class columns that say nothing, in any case: what pandas reads as missing, and what people write.
MISSING = frozenset(
    ["", "nan", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nat", "null", "none", "-", "--", "?", "unknown"]
)
_LABEL_WORDS = {  # in any case; true and false also as Excel writes them in other languages
    1.0: "yes y true t present positive pos ja j vorhanden positiv wahr oui vrai positif sí si verdadero positivo sim "
    "verdadeiro vero waar",
    0.0: "no n false f absent negative neg nein negativ falsch non faux négatif não nao falso nee onwaar negativo",
    -1.0: "uncertain equivocal indeterminate",
}
_LABEL_OF = {word: value for value, words in _LABEL_WORDS.items() for word in words.split()}


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
    """1 present, 0 absent, -1 uncertain; NaN unknown.

    Read in any case: 1, 0 and -1 (also 1.0 and 1,0); yes and no, true and false, present and absent, positive and
    negative, and their short forms and translations in :data:`_LABEL_WORDS`; uncertain, equivocal and indeterminate
    as -1; empty cells and :data:`MISSING` as NaN. What may mean several things ("u", "+", "x", "possible") is refused.

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


def classes_of(table: Table, column: str) -> tuple[dict[str, str], list[str]]:
    """The class of every text in a column, and lines on the cells that are not read as they are written.

    One class are spellings that differ in case and spaces only, by their most frequent one, and whole numbers with and
    without decimals (``1`` and ``1.0``). :data:`MISSING` is no class: the empty string.

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
