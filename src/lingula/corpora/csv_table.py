"""Any table of films and reports: CSV, TSV or Parquet, one row a film.

URL and licence: those of your data; name them with ``name`` and ``licence``, they are written into the prepared corpus.

Split rule: the table's own ``split_column`` where it has one, else by patient
(:func:`lingula.data.preparation.prepare`).

One record, of a table with ``image_column="image"``, ``report_column="report"`` and ``labels=["effusion"]``::

    image,patient,report,effusion
    p1/s1.jpg,p1,"FINDINGS: Small left effusion. IMPRESSION: Effusion.",1
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lingula.data.study import LeftOut, Sentence, Study
from lingula.data.tables import Table, label_value, read_table, sorted_classes
from lingula.registry import UserError

SPLIT_NAMES = {
    "train": "train training",
    "val": "val valid validate validation dev development",
    "test": "test testing",
}
SPLIT_OF = {written: split for split, names in SPLIT_NAMES.items() for written in names.split()}


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
        self._read: Table | None = None
        self._classes: list[str] = []
        if self.report_column and self.section_columns:
            raise UserError("give either report_column or section_columns, not both")
        if self.views and not self.view_column:
            raise UserError(f"views {', '.join(self.views)} need the column that names them: view_column")

    @property
    def label_groups(self) -> dict[str, list[str]]:
        """The classes of ``class_column``, which exclude each other, sorted, under its name; empty without one."""
        self._open()
        return {self.class_column: self._classes} if self.class_column else {}

    @property
    def remarks(self) -> list[str]:
        """What :func:`lingula.data.preparation.prepare` says of this table beforehand."""
        return [] if self.patient_column else ["no patient_column given: each row counts as its own patient"]

    def fingerprint(self) -> str:
        """A hash of the arguments and of the table's content."""
        from lingula.data.reader import fingerprint_of

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
        for where, row in table:
            yield self._study(row, where)

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
        values = {column: label_value(row[column], where, column) for column in self.labels}
        if self.class_column:
            written = row[self.class_column]
            unknown = math.nan
            values |= {name: float(name == written) if written else unknown for name in self._classes}
        return values

    def _open(self) -> Table:
        """The table, read once, its columns checked."""
        if self._read is None:
            table = read_table(self.table)
            wanted = [self.image_column, self.report_column, *self.section_columns, self.study_column]
            wanted += [self.patient_column, self.split_column, self.view_column, *self.labels, self.class_column]
            table.require(*(column for column in wanted if column is not None))
            if self.class_column:
                self._classes = sorted_classes(table, self.class_column)
                both = [name for name in self._classes if name in self.labels]
                if both:
                    raise UserError(f"'{both[0]}' is both a label column and a class of '{self.class_column}'")
            self._read = table
        return self._read


def _known_splits() -> str:
    return "; ".join(f"{split} ({names})" for split, names in SPLIT_NAMES.items())
