"""COVIDx: films of many sources gathered for COVID-19 detection, as lists of rows beside folders of images. Floor 3.

Access: CXR-2 and its successors from https://www.kaggle.com/datasets/andyczhao/covidx-cxr2 (a Kaggle account; the
current version is CXR-4, older ones under its data versions); the numbered lists (6, 7A, 9A, ...) from the folder
``labels`` of https://github.com/lindawangg/COVID-Net, for the images of the same Kaggle archive.

Licence: that of each source, named on the Kaggle page; research only.

Layout::

    ROOT/
        train.txt  test.txt                           two classes: CXR-2 and CXR-3; CXR-4 has val.txt too
        train_COVIDx9A.txt  test_COVIDx9A.txt         or: three classes (A), two (B, and 6)
        train_COVIDx_CXR-3A.txt  test_COVIDx_CXR-3A.txt
        train/  test/  [val/]                         the images, JPEG and PNG

Split rule: the lists'. Train rows of a version without ``val.txt`` have no split, so that
:func:`lingula.data.preparation.prepare` draws ``val_fraction`` of their *patients* (the field's 10 % by default) for
validation; the test list is never touched.

One record, of four words: patient, image, class, source. A patient may itself hold a space (``COVID 9 COVID(9).png
COVID-19 sirm`` in 7A), so that rows are read from their end::

    419639-003251 MIDRC-RICORD-1C-419639-003251-46647-0.png positive ricord
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from lingula.data.reader import Stated, find_file, find_folder, fingerprint_of
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

CLASSES = (("negative", "positive"), ("normal", "pneumonia", "COVID-19"))
WHENCE = (
    "Kaggle, https://www.kaggle.com/datasets/andyczhao/covidx-cxr2 (numbered lists: github.com/lindawangg/COVID-Net)"
)
KAGGLE = "kaggle"  # the version of lists whose names tell none
_TRAIN_LIST = re.compile(r"train(?:_COVIDx_?(?P<version>.+))?\.txt")


class Row(NamedTuple):
    """One row of a list; ``patient`` is ``source:id``."""

    where: str
    patient: str
    film: str
    label: str


@dataclass
class Covidx:
    """COVIDx, films of COVID-19 and others, in two or three classes.

    Whether a version has two classes (negative, positive) or three (normal, pneumonia, COVID-19) shows in its rows; the
    classes exclude each other. Patient ids are unique within a source only, so a patient is ``source:id``. Patients of
    the test list keep their films there, and those in the train or validation list are left out; in the same way
    validation goes before train. A film that a list repeats is read once.

    The current archive on Kaggle lacks some films of older lists; these are bad rows, to be left out by skipping them.

    Args:
        root: folder of the lists and of ``train/``, ``test/`` and, for CXR-4, ``val/``.
        version: which lists, where there are several: "9A" for ``train_COVIDx9A.txt``, "CXR-3A" for
            ``train_COVIDx_CXR-3A.txt``, "kaggle" for ``train.txt``; those that are there, if not given.
    """

    root: Path
    version: str = ""

    name: ClassVar[str] = "covidx"
    licence: ClassVar[str] = "that of each source, named on the Kaggle page; research only"

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self._lists: dict[str, Path] = {}
        self._rows: dict[str, list[Row | LeftOut]] = {}
        self._classes: tuple[str, ...] = ()

    @property
    def label_groups(self) -> dict[str, list[str]]:
        """The two or three classes, which exclude each other."""
        self._open()
        return {"class": list(self._classes)}

    @property
    def stated(self) -> tuple[Stated, ...]:
        """The films of COVID-19 that CM-CGNS states; none for CXR-4, which is younger."""
        if "val" in self._open():
            return ()
        note = "the train lists of CXR-2 and 9A hold as many, their test lists 200 more; other versions differ"
        return (Stated(16_490, self._classes[-1], "CM-CGNS, section IV-A", note),)

    @property
    def remarks(self) -> list[str]:
        """Which lists were found, and where validation comes from."""
        val = "val" in self._open()
        lists = ", ".join(path.name for path in self._lists.values())
        drawn = "" if val else "; no validation list: its patients are drawn from the train list"
        return [f"classes {', '.join(self._classes)} in {lists}{drawn}"]

    def fingerprint(self) -> str:
        """A hash of the arguments and of the lists."""
        self._open()
        return fingerprint_of(self, files=self._lists.values())

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every row of the lists, train first.

        Raises:
            UserError: for a missing list or folder, several versions, and a class of neither kind.
        """
        lists = self._open()
        folders = {split: find_folder(self.root, [split], WHENCE) for split in lists}
        patients = {split: {row.patient for row in rows if isinstance(row, Row)} for split, rows in lists.items()}
        for split, rows in lists.items():
            later = list(lists)[list(lists).index(split) + 1 :]
            seen: dict[str, Row] = {}
            for row in rows:
                if isinstance(row, LeftOut):
                    yield row
                    continue
                first = seen.setdefault(row.film, row)
                both = [other for other in later if row.patient in patients[other]]
                if both:
                    yield LeftOut(row.where, f"patient also in the {both[-1]} list: {row.patient}", bad=False)
                elif first is not row:
                    yield _repeated(row, first)
                else:
                    yield Study(
                        study_id=f"{split}/{row.film}",
                        patient_id=row.patient,
                        image=folders[split] / row.film,
                        split=None if split == "train" and "val" not in lists else split,
                        labels={name: float(name == row.label) for name in self._classes},
                        row=row.where,
                    )

    def _open(self) -> dict[str, list[Row | LeftOut]]:
        """The rows of every list, by split, read once."""
        if not self._rows:
            self._lists = self._find_lists()
            self._rows = {split: _read_list(path) for split, path in self._lists.items()}
            self._classes = _classes_of([row for rows in self._rows.values() for row in rows if isinstance(row, Row)])
        return self._rows

    def _find_lists(self) -> dict[str, Path]:
        """The lists of the wanted version, in the order train, val, test."""
        if not self.root.is_dir():
            raise UserError(f"no folder at {self.root}")
        matches = [_TRAIN_LIST.fullmatch(path.name) for path in self.root.iterdir()]
        found = {match["version"] or KAGGLE: match.string for match in matches if match}
        if not found:
            raise UserError(f"no train.txt or train_COVIDx9A.txt in {self.root}; it comes from {WHENCE}")
        there = ", ".join(sorted(found))
        if len(found) > 1 and not self.version:
            raise UserError(f"lists of several versions in {self.root}: {there}; choose one with version")
        if self.version and self.version not in found:
            raise UserError(f"no lists of version '{self.version}' in {self.root}; there are: {there}")
        train = found[self.version] if self.version else next(iter(found.values()))
        lists = {"train": self.root / train}
        val = self.root / train.replace("train", "val", 1)
        if val.is_file():
            lists["val"] = val
        return lists | {"test": find_file(self.root, [train.replace("train", "test", 1)], WHENCE)}


def _read_list(path: Path) -> list[Row | LeftOut]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise UserError(f"cannot read list {path}: {err}") from err
    rows = [_row(line, f"row {number} of {path.name}") for number, line in enumerate(lines, 1) if line.strip()]
    if not any(isinstance(row, Row) for row in rows):
        raise UserError(f"{path.name} has no rows of patient, image, class and source; it comes from {WHENCE}")
    return rows


def _row(line: str, where: str) -> Row | LeftOut:
    words = line.split()
    if len(words) < 4:
        return LeftOut(where, f"not a row of patient, image, class and source: {line.strip()}")
    *patient, film, label, source = words
    return Row(where, f"{source}:{' '.join(patient)}", film, label)


def _classes_of(rows: list[Row]) -> tuple[str, ...]:
    """The classes to which all rows belong, told by the first."""
    candidates = [classes for classes in CLASSES if rows[0].label in classes] or list(CLASSES)
    for row in rows:
        if not any(row.label in classes for classes in candidates):
            expected = " or ".join(", ".join(classes) for classes in candidates)
            raise UserError(f"{row.where}: unknown class '{row.label}'; expected {expected}")
    return candidates[0]


def _repeated(row: Row, first: Row) -> LeftOut:
    """Why a film that its list names a second time is left out."""
    if (row.patient, row.label) == (first.patient, first.label):
        return LeftOut(row.where, f"film listed twice: {row.film}", bad=False)
    return LeftOut(row.where, f"film listed twice, in disagreement: {row.film}, first in {first.where}")
