"""Any table of images, one row an image, with reports, labels, masks and boxes where there are some.

URL and licence: those of your data; name them with ``name`` and ``licence``, they are written into the prepared corpus.

Split rule: the table's own ``split_column`` where it has one, else by patient
(:func:`lingula.data.preparation.prepare`).

One record, of a table with ``image_column="image"``, ``report_column="report"``, ``labels=["effusion"]`` and
``mask_columns=["lung"]``::

    image,patient,report,effusion,lung
    p1/s1.jpg,p1,"FINDINGS: Small left effusion. IMPRESSION: Effusion.",1,masks/s1.png
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lingula.data.annotations import boxes_by_film, masks_by_film, unused_line
from lingula.data.cells import oddities
from lingula.data.coco import CocoBoxes
from lingula.data.label_cells import classes_of, label_value, label_words
from lingula.data.paths import Folder, Match, listed
from lingula.data.reports import ReportReader
from lingula.data.sentences import MIN_TOKENS
from lingula.data.study import LeftOut, Mask, Sentence, Study
from lingula.data.tables import Table, read_any_table
from lingula.registry import UserError

SPLIT_NAMES = {
    "train": "train training",
    "val": "val valid validate validation dev development",
    "test": "test testing",
}
SPLIT_OF = {written: split for split, names in SPLIT_NAMES.items() for written in names.split()}


@dataclass
class CsvTable:
    """A table with a column of image files, and reports, labels, masks, boxes, patients and splits where it has them.

    Rows without an image file, with an empty report or with more or fewer cells than the header are bad rows; films of
    other views, and reports of fewer than three tokens, are left out as not wanted. Messages name a row of a text file
    by the line on which it starts (the header is line 1), a row of a spreadsheet by its number there, and a row of a
    Parquet file by its position from 1.

    Files are found although the table spells them otherwise: with backslashes, in another letter case or Unicode form,
    without their ending or without their folders. A remark says how many, and a name that fits several files is a bad
    row.

    Args:
        images: folder that the image column's paths start from.
        table: the table; .csv, .tsv or .txt (each also with .gz), .xlsx, .xls, .ods or .parquet.
        image_column: column of image files, JPEG, PNG or DICOM.
        image_suffix: added to every value of the image column, where that holds ids only, such as ".jpg". Where it is
            not given, ids are looked up with any ending.
        report_column: column of whole reports with headings; findings and impression are read.
        headings: YAML file of headings that are not built in, in the form of ``lingula/data/headings.yaml``.
        section_columns: columns of report sections already separate, such as findings and impression, in their order.
        study_column: column that identifies a row; the image column if not given.
        patient_column: column of patients, who never stand in two splits; if not given, each row is its own patient.
        split_column: column of train, val (valid, validate, validation, dev) and test; empty cells are drawn.
        view_column: column of view positions.
        views: keep only these views, in any case; all if empty.
        labels: columns of 1 present, 0 absent, -1 uncertain, empty unknown; also of words such as yes and no.
        class_column: column of classes that exclude each other; each becomes a label. Empty cells and such as NA,
            None and - are unknown; spellings that differ in case only, and 1 and 1.0, are one class.
        mask_columns: columns of mask files, whose paths start from ``images`` too; the column's name is the mask's.
            A mask is a lossless file of its image's size, black where there is nothing. An empty cell means not
            annotated; a black mask means that there is nothing.
        mask_folders: folders of mask files by the mask's name. Each holds files with the image's path below ``images``
            or its bare name; the ending may differ. An image without a mask file counts as not annotated.
        boxes: COCO JSON of boxes in pixels of the films; its ``file_name`` is the film's path below ``images``. For an
            image that it lists, annotators looked for all of its categories; for the others, for none.
        require_report: false keeps images whose report is empty or too short, without the report.
        delimiter: character between the columns of a text file, or `tab`; found from its first rows if not given.
        encoding: encoding of a text file, such as `cp1252`; found from the whole file if not given.
        sheet: sheet of a spreadsheet; the first that is not empty if not given.
        name: what to call the corpus.
        licence: licence of the data.
    """

    images: Path
    table: Path
    image_column: str = "image"
    image_suffix: str = ""
    report_column: str | None = None
    headings: Path | None = None
    section_columns: list[str] = field(default_factory=list)
    study_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    view_column: str | None = None
    views: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    class_column: str | None = None
    mask_columns: list[str] = field(default_factory=list)
    mask_folders: dict[str, Path] = field(default_factory=dict)
    boxes: Path | None = None
    require_report: bool = True
    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    name: str = "csv_table"
    licence: str = "not stated"

    def __post_init__(self) -> None:
        self.images = Path(self.images)
        self.table = Path(self.table)
        self.mask_folders = {name: Path(folder).resolve() for name, folder in self.mask_folders.items()}
        self.boxes = Path(self.boxes) if self.boxes else None
        self.headings = Path(self.headings) if self.headings else None
        self.reading = ReportReader(self.headings, "--headings FILE" if self.report_column else "")
        self._read: Table | None = None
        self._files: dict[str, Match] | None = None  # by name, of those that are not paths as they stand
        self._names: dict[str, str] = {}  # the first name of each image, by its path
        self._asked = 0  # names of images and masks that were looked up
        self._classes: list[str] = []
        self._class_of: dict[str, str] = {}  # by the text of the cell; empty where that says nothing
        self._read_as: list[str] = []  # what is not read as it is written
        self._masks: dict[str, dict[str, Path]] = {}  # by name and film, of the folders
        self._coco = CocoBoxes((), {}, {}, {})
        self._unused: list[str] = []
        if self.report_column and self.section_columns:
            raise UserError("give either report_column or section_columns, not both")
        if self.views and not self.view_column:
            raise UserError(f"views {', '.join(self.views)} need the column that names them: view_column")
        both = [name for name in self.mask_folders if name in self.mask_columns]
        if both:
            raise UserError(f"'{both[0]}' is both a column and a folder of masks")

    @property
    def label_groups(self) -> dict[str, list[str]]:
        """The classes of ``class_column``, which exclude each other, sorted, under its name; empty without one."""
        self._open()
        return {self.class_column: self._classes} if self.class_column else {}

    @property
    def remarks(self) -> list[str]:
        """What :func:`lingula.data.preparation.prepare` says of this table beforehand."""
        table = self._open()
        alone = [] if self.patient_column else ["no patient_column given: each row counts as its own patient"]
        said = table.remarks + alone + _matched(self._found_files(table), self._asked)
        return said + self._read_as + self._unused

    def fingerprint(self) -> str:
        """A hash of the arguments, the table, boxes and headings, how reports are read, and the names of the masks."""
        from lingula.data.reader import canonical_json, fingerprint_of

        self._open()  # a missing table or column has a better message than a file that cannot be hashed
        own = fingerprint_of(self, files=[self.table, *filter(None, [self.boxes, self.headings])])
        texts = bool(self.report_column or self.section_columns)
        parts = [own, self._masks, self.reading.fingerprint() if texts else ""]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def studies(self) -> Iterator[Study | LeftOut]:
        """The rows of a wrong number of cells, and every other row in its order.

        Raises:
            UserError: for a missing table, folder, file of boxes or column, and an unknown split or label value.
        """
        table = self._open()
        self._found_files(table)
        yield from table.bad
        for where, row in table:
            yield self._study(row, where)

    def _study(self, row: dict[Any, str], where: str) -> Study | LeftOut:
        if not row[self.image_column]:
            return LeftOut(where, f"no image: column '{self.image_column}' is empty")
        film = self._film(row)
        study_id = row[self.study_column] if self.study_column else self._names[film]
        patient_id = row[self.patient_column] if self.patient_column else study_id
        if not study_id or not patient_id:
            column = self.patient_column if study_id else self.study_column
            return LeftOut(where, f"no id: column '{column}' is empty")
        view = row[self.view_column] if self.view_column else ""
        if self.views and view.lower() not in {name.lower() for name in self.views}:
            return LeftOut(where, f"view '{view}' not among {', '.join(self.views)}", bad=False)
        unclear = self._unclear(row)
        if unclear:
            return LeftOut(where, unclear)
        sentences = self._sentences(row)
        if isinstance(sentences, LeftOut):
            return LeftOut(where, sentences.reason, sentences.bad)
        return Study(
            study_id=study_id,
            patient_id=patient_id,
            image=self.images / film,
            split=self._split(row, where),
            sentences=tuple(Sentence(text) for text in sentences),
            view=view,
            labels=self._labels(row, where),
            boxes=self._coco.boxes.get(film, ()),
            annotated=self._coco.annotated.get(film, ()),
            masks=self._masks_of(row),
            row=where,
        )

    def _film(self, row: dict[Any, str]) -> str:
        """The path of a row's film below ``images``; empty where the row names none."""
        image = row[self.image_column]
        return self._path(image + self.image_suffix) if image else ""

    def _path(self, name: str) -> str:
        """The path below ``images`` of the file that a name stands for; the name itself where there is none."""
        match = (self._files or {}).get(name)
        return (match and match.path) or name

    def _unclear(self, row: dict[Any, str]) -> str:
        """Why the files that a row names cannot be told; empty where they can, or are plainly missing."""
        columns = {self.image_column: "image", **dict.fromkeys(self.mask_columns, "mask")}
        for column, what in columns.items():
            name = row[column] + (self.image_suffix if column == self.image_column else "")
            match = (self._files or {}).get(name) if row[column] else None
            if match and match.fits:
                return f"ambiguous {what} file: '{name}' could be {listed(match.fits)}"
            if match and match.near:
                return f"missing {what} file: {self.images / name}, but {listed(match.near)} is there"
        return ""

    def _found_files(self, table: Table) -> dict[str, Match]:
        """Every name of an image or a mask that is not the path of its file, and what it stands for.

        Raises:
            UserError: for a missing folder of images.
        """
        if self._files is None:
            if not self.images.is_dir():
                raise UserError(f"no folder of images at {self.images}")
            folder = Folder(self.images, without=self.mask_folders.values())
            names = {row[self.image_column] + self.image_suffix for _, row in table if row[self.image_column]}
            masks = {row[column] for _, row in table for column in self.mask_columns} - {""}
            matches = {name: folder.find(name) for name in sorted(names | masks)}
            self._asked = len(matches)
            taken = {matches[name].path for name in masks} - {None}
            for name in names - masks:
                if matches[name].path in taken:
                    matches[name] = Match(None)  # the mask of an image that is missing
            self._files = {name: match for name, match in matches.items() if match.path != name}
            for _, row in table:
                self._names.setdefault(self._film(row), row[self.image_column])
        return self._files

    def _sentences(self, row: dict[Any, str]) -> list[str] | LeftOut:
        columns = [self.report_column] if self.report_column else self.section_columns
        if not columns:
            return []
        cells = [row[column] for column in columns]
        read = self.reading.read(cells[0]) if self.report_column else self.reading.read_sections(cells)
        if read.enough:
            return read.sentences
        if not self.require_report:
            return []
        if not read.body.strip():
            named = " and ".join(f"'{column}'" for column in columns)
            seen = f": {oddities(' '.join(cells))}" if any(cells) else ""
            seen += f", all of it under {read.dropped_names}" if read.dropped else ""
            return LeftOut("", f"empty report: nothing to read in column {named}{seen}")
        return LeftOut("", f"report of fewer than {MIN_TOKENS} tokens: {read.body[:60]}", bad=False)

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
            own = self._class_of[row[self.class_column]]
            values |= {name: float(name == own) if own else math.nan for name in self._classes}
        return values

    def _masks_of(self, row: dict[Any, str]) -> dict[str, Mask]:
        masks: dict[str, Mask] = {name: self.images / self._path(row[name]) for name in self.mask_columns if row[name]}
        film = self._film(row)
        return masks | {name: files[film] for name, files in self._masks.items() if film in files}

    def _open(self) -> Table:
        """The table, read once, its columns checked, and the masks and boxes of its films."""
        if self._read is None:
            columns = [self.image_column, self.report_column, *self.section_columns, self.study_column]
            columns += [self.patient_column, self.split_column, self.view_column, *self.labels, self.class_column]
            wanted = [column for column in [*columns, *self.mask_columns] if column is not None]
            table = read_any_table(self.table, wanted, self.delimiter, self.encoding, self.sheet)
            table.require(*wanted)
            if self.class_column:
                self._class_of, self._read_as = classes_of(table, self.class_column)
                self._classes = sorted(set(self._class_of.values()) - {""})
                both = [name for name in self._classes if name in self.labels]
                if both:
                    raise UserError(f"'{both[0]}' is both a label column and a class of '{self.class_column}'")
            self._read_as += label_words(table, self.labels)
            if self.mask_folders or self.boxes:
                self._found_files(table)
            films = sorted({self._film(row) for _, row in table} - {""})
            for name, folder in self.mask_folders.items():
                self._masks[name], unused = masks_by_film(name, folder, films)
                self._unused += unused_line(f"mask files '{name}'", unused, len(self._masks[name]), films)
            if self.boxes:
                self._coco, unused = boxes_by_film(self.boxes, films)
                used = len(self._coco.boxes)
                self._unused += unused_line(f"images of {self.boxes.name}", unused, used, films)
            self._read = table
        return self._read


def _matched(matches: dict[str, Match], names: int) -> list[str]:
    """A line on the files whose names are not their paths, by what it took to find them."""
    found = [(match.how, name, match.path) for name, match in matches.items() if match.path]
    if not found:
        return []
    counts = Counter(how for how, _, _ in found)
    examples = {how: f"'{name}' is {path}" for how, name, path in reversed(found)}
    ways = "; ".join(f"{count:,} by {how} ({examples[how]})" for how, count in counts.most_common())
    return [f"{len(found):,} of {names:,} names of files are not written as the files are, and were matched: {ways}"]


def _known_splits() -> str:
    return "; ".join(f"{split} ({names})" for split, names in SPLIT_NAMES.items())
