"""Any table of films: CSV, TSV or Parquet, one row a film, with reports, labels, masks and boxes where there are some.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lingula.data.coco import CocoBoxes, read_coco
from lingula.data.study import LeftOut, Mask, Sentence, Study
from lingula.data.tables import Table, classes_of, label_value, label_words, read_table
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
        labels: columns of 1 present, 0 absent, -1 uncertain, empty unknown; also of words such as yes and no.
        class_column: column of classes that exclude each other; each becomes a label. Empty cells and such as NA,
            None and - are unknown; spellings that differ in case only, and 1 and 1.0, are one class.
        mask_columns: columns of mask files, whose paths start from ``images`` too; the column's name is the mask's.
            A mask is a lossless image of its film's size, black where there is nothing. An empty cell says that nobody
            looked, a black mask that there is none.
        mask_folders: folders of mask files by the mask's name, in each a file of the film's path below ``images``, or
            of its bare name; the ending may differ. A film without one says that nobody looked.
        boxes: COCO JSON of boxes in pixels of the films; its ``file_name`` is the film's path below ``images``. For an
            image that it lists, annotators looked for all of its categories; for the others, for none.
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
    mask_columns: list[str] = field(default_factory=list)
    mask_folders: dict[str, Path] = field(default_factory=dict)
    boxes: Path | None = None
    require_report: bool = True
    name: str = "csv_table"
    licence: str = "not stated"

    def __post_init__(self) -> None:
        self.images = Path(self.images)
        self.table = Path(self.table)
        self.mask_folders = {name: Path(folder).resolve() for name, folder in self.mask_folders.items()}
        self.boxes = Path(self.boxes) if self.boxes else None
        self._read: Table | None = None
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
        if self.mask_folders or self.boxes or self.labels or self.class_column:
            self._open()
        alone = [] if self.patient_column else ["no patient_column given: each row counts as its own patient"]
        return alone + self._read_as + self._unused

    def fingerprint(self) -> str:
        """A hash of the arguments, of the content of the table and the boxes, and of the names of the masks."""
        from lingula.data.reader import canonical_json, fingerprint_of

        self._open()  # a missing table or column has a better message than a file that cannot be hashed
        own = fingerprint_of(self, files=[self.table] + ([self.boxes] if self.boxes else []))
        return hashlib.sha256(canonical_json([own, self._masks]).encode()).hexdigest()

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every row of the table, in its order.

        Raises:
            UserError: for a missing table, folder, file of boxes or column, and an unknown split or label value.
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
        film = self._film(row)
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
        return image + self.image_suffix if image else ""

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
            own = self._class_of[row[self.class_column]]
            values |= {name: float(name == own) if own else math.nan for name in self._classes}
        return values

    def _masks_of(self, row: dict[Any, str]) -> dict[str, Mask]:
        masks: dict[str, Mask] = {name: self.images / row[name] for name in self.mask_columns if row[name]}
        film = self._film(row)
        return masks | {name: files[film] for name, files in self._masks.items() if film in files}

    def _open(self) -> Table:
        """The table, read once, its columns checked, and the masks and boxes of its films."""
        if self._read is None:
            table = read_table(self.table)
            wanted = [self.image_column, self.report_column, *self.section_columns, self.study_column]
            wanted += [self.patient_column, self.split_column, self.view_column, *self.labels, self.class_column]
            wanted += self.mask_columns
            table.require(*(column for column in wanted if column is not None))
            if self.class_column:
                self._class_of, self._read_as = classes_of(table, self.class_column)
                self._classes = sorted(set(self._class_of.values()) - {""})
                both = [name for name in self._classes if name in self.labels]
                if both:
                    raise UserError(f"'{both[0]}' is both a label column and a class of '{self.class_column}'")
            self._read_as += label_words(table, self.labels)
            films = sorted({self._film(row) for _, row in table} - {""})
            for name, folder in self.mask_folders.items():
                self._masks[name], unused = _masks_by_film(name, folder, films)
                self._unused += _unused(f"mask files '{name}'", unused, len(self._masks[name]), films)
            if self.boxes:
                self._coco = read_coco(self.boxes)
                unused = sorted(self._coco.boxes.keys() - set(films))
                used = len(self._coco.boxes) - len(unused)
                self._unused += _unused(f"images of {self.boxes.name}", unused, used, films)
            self._read = table
        return self._read


def _masks_by_film(name: str, folder: Path, films: list[str]) -> tuple[dict[str, Path], list[str]]:
    """The mask file of each film that has one, and the files that are of no film.

    Raises:
        UserError: for a missing folder, and where it is not plain which file is of which film.
    """
    if not folder.is_dir():
        raise UserError(f"no folder of masks '{name}' at {folder}")
    files: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("[!.]*.*") if path.is_file()):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in files:
            raise UserError(f"two masks '{name}' for one film: {files[key].name} and {path.name} in {path.parent}")
        files[key] = path
    found: dict[str, Path] = {}
    first: dict[Path, str] = {}
    for film in films:
        path = Path(film)
        file = files.get(path.with_suffix("").as_posix()) or files.get(path.stem)
        if file is None:
            continue
        if file in first:
            raise UserError(
                f"mask '{name}' {file.name} could be of {first[file]} or of {film}; lay masks out like films"
            )
        found[film] = file
        first[file] = film
    return found, [str(file.relative_to(folder)) for file in files.values() if file not in first]


def _unused(what: str, unused: list[str], used: int, films: list[str]) -> list[str]:
    """A line on what belongs to no film of the table.

    Raises:
        UserError: if all of it does.
    """
    if not used:
        example = f": '{unused[0]}' against '{films[0]}'" if unused and films else ""
        raise UserError(f"none of the {len(unused)} {what} belongs to a film of the table{example}")
    return [f"{len(unused)} {what} belong to no film of the table, such as '{unused[0]}'"] if unused else []


def _known_splits() -> str:
    return "; ".join(f"{split} ({names})" for split, names in SPLIT_NAMES.items())
