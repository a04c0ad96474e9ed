"""Any table of films and reports: CSV, TSV or Parquet, one row a film.

URL and licence: those of your data; name them with ``name`` and ``licence``, they are written into the prepared corpus.

Split rule: the table's own ``split_column`` where it has one, else by patient (:func:`lingula.data.prepared.prepare`).

One record, of a table with ``image_column="image"``, ``report_column="report"`` and ``labels=["effusion"]``::

    image,patient,report,effusion
    p1/s1.jpg,p1,"FINDINGS: Small left effusion. IMPRESSION: Effusion.",1
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lingula.data.study import LeftOut, Sentence, Study
from lingula.registry import UserError, nearest

SPLIT_NAMES = {
    "train": "train training",
    "val": "val valid validate validation dev development",
    "test": "test testing",
}
SPLIT_OF = {written: split for split, names in SPLIT_NAMES.items() for written in names.split()}
LABEL_VALUES = (0.0, 1.0, -1.0)


@dataclass
class CsvTable:
    """A table with a column of image files, and columns of reports, labels, patients and splits where it has them.

    Rows without an image file or with an empty report are bad rows; films of other views, and reports of fewer than
    three tokens, are left out as not wanted. Messages name a row of a CSV or TSV by the line on which it starts (the
    header is line 1), and a row of a Parquet file by its position from 1.

    Args:
        images: folder that the image column's paths start from.
        table: the table; .csv, .tsv or .parquet.
        image_column: column of image files, JPEG, PNG or DICOM.
        image_suffix: added to every value of the image column, where that holds ids only, such as ".jpg".
        report_column: column of whole reports with headings; findings and impression are read.
        section_columns: columns of report sections already separate, such as findings and impression, in their order.
        study_column: column that identifies a row; the image column if not given.
        patient_column: column of patients, who never stand in two splits; if not given, each row is its own patient.
        split_column: column of train, val (valid, validate, validation, dev) and test; empty cells are drawn.
        view_column: column of view positions.
        views: keep only these views, in any case; all if empty.
        labels: columns of 1 present, 0 absent, -1 uncertain, empty unknown.
        class_column: column of classes that exclude each other; each becomes a label.
        require_report: False keeps films whose report is empty or too short, without it.
        name: what to call the corpus.
        licence: of the data.
    """

    images: Path
    table: Path
    image_column: str = "image"
    image_suffix: str = ""
    report_column: str | None = None
    section_columns: list[str] = field(default_factory=list)
    study_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    view_column: str | None = None
    views: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    class_column: str | None = None
    require_report: bool = True
    name: str = "csv_table"
    licence: str = "not stated"

    def __post_init__(self) -> None:
        self.images = Path(self.images)
        self.table = Path(self.table)
        self._read: _Table | None = None
        if self.report_column and self.section_columns:
            raise UserError("give either report_column or section_columns, not both")
        if self.views and not self.view_column:
            raise UserError(f"views {', '.join(self.views)} need the column that names them: view_column")

    @property
    def label_groups(self) -> dict[str, list[str]]:
        """The classes of ``class_column``, which exclude each other, sorted, under its name; empty without one."""
        return {self.class_column: self._open().classes} if self.class_column else {}

    @property
    def remarks(self) -> list[str]:
        """What :func:`lingula.data.prepared.prepare` says of this table beforehand."""
        return [] if self.patient_column else ["no patient_column given: each row counts as its own patient"]

    def fingerprint(self) -> str:
        """A hash of the arguments and of the table's content."""
        from lingula.data.prepared import fingerprint_of

        self._open()  # a missing table or column has a better message than a file that cannot be hashed
        return fingerprint_of(self, files=[self.table])

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every row of the table, in its order.

        Raises:
            UserError: for a missing table, folder or column, and an unknown split or label value.
        """
        table = self._open()
        if not self.images.is_dir():
            raise UserError(f"no folder of images at {self.images}")
        for number, cells in zip(table.numbers, table.rows, strict=True):
            row = dict(zip(table.columns, cells, strict=True))
            yield self._study(row, f"row {number} of {self.table.name}")

    def _study(self, row: dict[Any, str], where: str) -> Study | LeftOut:
        image = row[self.image_column]
        if not image:
            return LeftOut(where, f"no image: column '{self.image_column}' is empty")
        study_id = row[self.study_column or self.image_column]
        patient_id = row[self.patient_column] if self.patient_column else study_id
        if not study_id or not patient_id:
            column = self.patient_column if study_id else self.study_column
            return LeftOut(where, f"no id: column '{column}' is empty")
        view = row[self.view_column] if self.view_column else ""
        if self.views and view.lower() not in {name.lower() for name in self.views}:
            return LeftOut(where, f"view '{view}' not among {', '.join(self.views)}", bad=False)
        sentences = self._sentences(row)
        if isinstance(sentences, LeftOut):
            return LeftOut(where, sentences.reason, sentences.bad)
        return Study(
            study_id=study_id,
            patient_id=patient_id,
            image=self.images / (image + self.image_suffix),
            split=self._split(row, where),
            sentences=tuple(Sentence(text) for text in sentences),
            view=view,
            labels=self._labels(row, where),
            row=where,
        )

    def _sentences(self, row: dict[Any, str]) -> list[str] | LeftOut:
        from lingula.data.text import MIN_TOKENS, count_tokens, report_body, report_sentences

        columns = [self.report_column] if self.report_column else self.section_columns
        if not columns:
            return []
        texts = [row[column] for column in columns]
        if self.report_column:
            texts = [report_body(text) for text in texts]
        sentences = [sentence for text in texts for sentence in report_sentences(text)]
        if sum(map(count_tokens, sentences)) >= MIN_TOKENS:
            return sentences
        if not self.require_report:
            return []
        named = " and ".join(f"'{column}'" for column in columns)
        if not any(text.strip() for text in texts):
            return LeftOut("", f"empty report: nothing to read in column {named}")
        return LeftOut("", f"report of fewer than {MIN_TOKENS} tokens: {' '.join(texts)[:60]}", bad=False)

    def _split(self, row: dict[Any, str], where: str) -> str | None:
        written = row[self.split_column] if self.split_column else ""
        if not written:
            return None
        split = SPLIT_OF.get(written.lower())
        if split is None:
            raise UserError(
                f"{where}: unknown split '{written}' in column '{self.split_column}'; known: {_known_splits()}"
            )
        return split

    def _labels(self, row: dict[Any, str], where: str) -> dict[str, float]:
        values: dict[str, float] = {}
        for column in self.labels:
            try:
                value = float(row[column] or "nan")
            except ValueError:
                value = math.inf
            if value not in LABEL_VALUES and not math.isnan(value):
                raise UserError(f"{where}: '{row[column]}' in label column '{column}'; expected 1, 0, -1 or empty")
            values[column] = value
        if self.class_column:
            written = row[self.class_column]
            unknown = math.nan
            values |= {name: float(name == written) if written else unknown for name in self._open().classes}
        return values

    def _open(self) -> _Table:
        """The table, read once, its columns checked."""
        if self._read is not None:
            return self._read
        table = _read_parquet(self.table) if self.table.suffix.lower() == ".parquet" else _read_csv(self.table)
        wanted = [self.image_column, self.report_column, *self.section_columns, self.study_column]
        wanted += [self.patient_column, self.split_column, self.view_column, *self.labels, self.class_column]
        for column in wanted:
            if column is not None and column not in table.columns:
                hint = nearest(column, table.columns)
                there = ", ".join(table.columns)
                raise UserError(f"{self.table.name} has no column '{column}'{hint}; its columns: {there}")
        twice = [column for column, count in Counter(table.columns).items() if count > 1]
        if twice:
            raise UserError(f"{self.table.name} has the column '{twice[0]}' twice")
        if not table.rows:
            raise UserError(f"{self.table.name} has no rows")
        if self.class_column:
            position = table.columns.index(self.class_column)
            table.classes = sorted({row[position] for row in table.rows} - {""})
            both = [name for name in table.classes if name in self.labels]
            if both:
                raise UserError(f"'{both[0]}' is both a label column and a class of '{self.class_column}'")
        self._read = table
        return table


@dataclass
class _Table:
    """Cells as stripped text, empty where missing; ``numbers`` say where the rows stand in their file."""

    columns: list[str]
    rows: list[list[str]]
    numbers: list[int]
    classes: list[str] = field(default_factory=list)


def _known_splits() -> str:
    return "; ".join(f"{split} ({names})" for split, names in SPLIT_NAMES.items())


def _read_csv(path: Path) -> _Table:
    """Read a .csv or .tsv file; the standard library's reader knows the line of every row, and takes "None" for a word.

    Raises:
        UserError: if the file is missing, of another kind, not UTF-8, or has a row of more or fewer cells than columns.
    """
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if separator is None:
        raise UserError(f"cannot read table {path}: expected .csv, .tsv or .parquet")
    csv.field_size_limit(1 << 24)  # characters of one cell; the default refuses long reports
    table = _Table([], [], [])
    start = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if not table.columns:
                    table.columns = cells
                elif any(cells):
                    if len(cells) != len(table.columns):
                        expected = f"expected {len(table.columns)} cells as in the header, got {len(cells)}"
                        raise UserError(f"row {start} of {path.name}: {expected}")
                    table.rows.append(cells)
                    table.numbers.append(start)
                start = reader.line_num + 1
    except FileNotFoundError as err:
        raise UserError(f"no table at {path}") from err
    except UnicodeDecodeError as err:
        raise UserError(f"cannot read table {path}: {err}; save it as UTF-8") from err
    except (OSError, csv.Error) as err:
        raise UserError(f"cannot read table {path}: row {start}: {err}") from err
    return table


def _read_parquet(path: Path) -> _Table:
    import pandas as pd

    if not path.is_file():
        raise UserError(f"no table at {path}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as err:
        raise UserError(f"cannot read table {path}: {err}") from err
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return _Table([str(column) for column in table.columns], rows, list(range(1, len(rows) + 1)))


def _cell(value: Any) -> str:
    """One cell as text: 3.0 as "3", what is missing as the empty string."""
    if value is None or value != value or str(value) == "<NA>":
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
