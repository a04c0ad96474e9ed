"""RSNA Pneumonia Detection Challenge (2018), stage 2: frontal films with boxes around lung opacities.

https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data (a Kaggle account; accept the challenge's rules), also
https://www.rsna.org/education/ai-resources-and-training/ai-image-challenge/rsna-pneumonia-detection-challenge-2018.
RSNA allows academic, commercial and other use with attribution. The films come from NIH ChestX-ray14.

::

    ROOT/
      stage_2_train_labels.csv           a row a box, or one row without a box
      stage_2_detailed_class_info.csv    the class of each film, repeated for each of its boxes; may be missing
      stage_2_train_images/<patientId>.dcm

The test films of the challenge have no public labels and are not read.

Split rule: that of the field (MGCA, followed by CM-CGNS), random over all ids of the labels; for classification
70/15/15 (of 26,684 films: 18,678 train, 4,003 val, 4,003 test), for detection and segmentation 60/20/20 (16,010 train,
5,337 val, 5,337 test).

Two records of ``stage_2_train_labels.csv``, and one of ``stage_2_detailed_class_info.csv``::

    patientId,x,y,width,height,Target
    0004cfab-14fd-4e49-80ba-63a80b6bddd6,,,,,0
    00436515-870c-4b36-a041-de91049b9ab4,264.0,152.0,213.0,379.0,1

    patientId,class
    0004cfab-14fd-4e49-80ba-63a80b6bddd6,No Lung Opacity / Not Normal
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, get_args

from lingula.data.reader import Stated, find_file, find_folder, fingerprint_of, optional_file, split_of
from lingula.data.shapes import Shape, draw_shapes
from lingula.data.study import Box, LeftOut, Study
from lingula.data.tables import number, read_table
from lingula.registry import UserError

LABELS = "stage_2_train_labels.csv"
CLASS_INFO = "stage_2_detailed_class_info.csv"
IMAGES = "stage_2_train_images"
WHENCE = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"

OPACITY = "Lung Opacity"
CLASSES = (OPACITY, "No Lung Opacity / Not Normal", "Normal")
FINDING = "pneumonia"
BOX = ("x", "y", "width", "height")

Protocol = Literal["classification", "detection"]
HELD_OUT = {"classification": 0.3, "detection": 0.4}  # share that is neither train; half of it test, half val

Row = tuple[str, dict[str, str]]  # where it stands, and its cells


@dataclass
class RsnaPneumonia:
    """RSNA Pneumonia Detection Challenge, stage 2: 26,684 films, pneumonia or not, with boxes.

    Labels: ``pneumonia``, and where the class file is there the three classes of RSNA, which exclude each other. Boxes
    and a mask (their union) of ``pneumonia``, looked for on every film. A film whose rows contradict each other is bad:
    two targets or two classes, a target of 1 without a box or of 0 with one, lung opacity without pneumonia or the
    reverse.

    The split is drawn over every id of the labels, so that films that are missing or left out do not change it. RSNA
    gives each film an id of its own as its patient; that films of one patient of NIH are in two splits cannot be seen.

    Args:
        root: folder of the download.
        protocol: classification splits 70/15/15, detection (and segmentation) 60/20/20.
    """

    root: Path
    protocol: Protocol = "classification"

    name: ClassVar[str] = "rsna-pneumonia"
    licence: ClassVar[str] = "RSNA's terms of use: academic, commercial and other use with attribution"
    stated: ClassVar[tuple[Stated, ...]] = (
        Stated(
            26_684,
            "studies",
            "MGCA's split",
            "CM-CGNS says about 29,700, perhaps with the 3,000 test films without labels",
        ),
        Stated(6_012, FINDING, "PRIOR, films with pneumonia"),
    )

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        if self.protocol not in get_args(Protocol):
            raise UserError(f"unknown protocol '{self.protocol}'; known: {', '.join(get_args(Protocol))}")

    @property
    def label_groups(self) -> dict[str, list[str]]:
        """The three classes under ``class``; empty without their file."""
        return {"class": list(CLASSES)} if self._class_file() else {}

    @property
    def remarks(self) -> list[str]:
        """What :func:`lingula.data.preparation.prepare` says of this download beforehand."""
        return [] if self._class_file() else [f"no {CLASS_INFO}: the label {FINDING} only, without the three classes"]

    def fingerprint(self) -> str:
        """A hash of the arguments and of the tables' content."""
        class_file = self._class_file()
        return fingerprint_of(self, [self._label_file(), *([class_file] if class_file else [])])

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every film of the labels, in their order, then every film that has none.

        Raises:
            UserError: for a missing table, folder or column, an unknown target or class, and a coordinate that is no
                number.
        """
        films = _grouped(self._label_file(), *BOX, "Target")
        class_file = self._class_file()
        classes = _grouped(class_file, "class") if class_file else None
        folder = find_folder(self.root, [IMAGES], WHENCE)
        splits = split_of(films, HELD_OUT[self.protocol])
        for patient, rows in films.items():
            class_rows = None if classes is None else classes.get(patient, [])
            yield _study(folder, patient, rows, class_rows, splits[patient])
        for film in sorted(folder.glob("*.dcm")):
            if film.stem not in films:
                yield LeftOut(f"film {film.name}", f"film without a label: no row in {LABELS}", bad=False)

    def _label_file(self) -> Path:
        return find_file(self.root, [LABELS], WHENCE)

    def _class_file(self) -> Path | None:
        return optional_file(self.root, [CLASS_INFO])


def _grouped(path: Path, *columns: str) -> dict[str, list[Row]]:
    """The rows of every patient, both in the order of the table."""
    table = read_table(path)
    table.require("patientId", *columns)
    groups: dict[str, list[Row]] = defaultdict(list)
    for where, row in table:
        if not row["patientId"]:
            raise UserError(f"{where}: no patientId")
        groups[row["patientId"]].append((where, row))
    return groups


def _study(folder: Path, patient: str, rows: list[Row], class_rows: list[Row] | None, split: str) -> Study | LeftOut:
    where = rows[0][0]
    targets = sorted({_one_of(("0", "1"), row, "Target", place) for place, row in rows})
    if len(targets) > 1:
        return LeftOut(where, f"two targets: {patient}")
    target = float(targets[0])
    with_box = [any(row[column] for column in BOX) for _, row in rows]
    if target and not all(with_box):
        return LeftOut(where, f"target 1 without a box: {patient}")
    if not target and any(with_box):
        return LeftOut(where, f"target 0 with a box: {patient}")
    labels = {FINDING: target}
    if class_rows is not None:
        names = sorted({_one_of(CLASSES, row, "class", place) for place, row in class_rows})
        if len(names) > 1:
            return LeftOut(where, f"two classes: {patient} is {' and '.join(names)}")
        if names and (names[0] == OPACITY) != bool(target):
            return LeftOut(where, f"class against target: {patient} is {names[0]}, its target {target:g}")
        labels |= {name: float(name in names) if names else math.nan for name in CLASSES}
    boxes = tuple(_box(place, row) for place, row in rows) if target else ()
    shapes = tuple(Shape("rectangle", (box.x0, box.y0, box.x1, box.y1)) for box in boxes)
    return Study(
        study_id=patient,
        patient_id=patient,
        image=folder / f"{patient}.dcm",
        split=split,
        labels=labels,
        boxes=boxes,
        annotated=(FINDING,),
        masks={FINDING: partial(draw_shapes, shapes)},
        row=where,
    )


def _one_of(known: tuple[str, ...], row: dict[str, str], column: str, where: str) -> str:
    if row[column] not in known:
        raise UserError(f"{where}: '{row[column]}' in column '{column}'; expected {', '.join(known)}")
    return row[column]


def _box(where: str, row: dict[str, str]) -> Box:
    x, y, width, height = (number(row[column], where, column) for column in BOX)
    return Box(FINDING, x, y, x + width, y + height)
