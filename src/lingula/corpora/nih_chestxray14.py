"""NIH ChestX-ray14 (2017): frontal films with 14 findings read from their reports, and a few boxes.

https://nihcc.app.box.com/v/ChestXray-NIHCC, without registration. NIH asks to name it as the source and to cite Wang et
al., ChestX-ray8 (arXiv:1705.02315); it sets no other limit. The reports themselves are not published.

::

    ROOT/
      Data_Entry_2017_v2020.csv or Data_Entry_2017.csv    a row a film; the first is read if both are there
      BBox_List_2017.csv                                  a row a box; may be missing
      train_val_list.txt, test_list.txt                   names of films
      images/*.png, or images_001/images/*.png to images_012/images/*.png

Split rule: the official lists. Those of train_val_list are drawn into train and val by patient
(:func:`lingula.data.preparation.prepare`).

Two records of ``Data_Entry_2017.csv`` (its header broken here) and one of ``BBox_List_2017.csv``. The commas inside the
brackets are not quoted, so that they separate columns, and headers and rows may end in empty cells::

    Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,
        OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],
    00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,
    00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.171,0.171,

    Image Index,Finding Label,Bbox [x,y,w,h],,,
    00013118_008.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lingula.data.reader import Stated, find_file, fingerprint_of, optional_file
from lingula.data.study import Box, LeftOut, Study
from lingula.data.tables import number, read_table
from lingula.registry import UserError

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOXES = "BBox_List_2017.csv"
LISTS = ("train_val_list.txt", "test_list.txt")
FOLDERS = ("images", *(f"images_{number:03d}/images" for number in range(1, 13)))
WHENCE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"
SPELT = {"Infiltrate": "Infiltration"}  # as the list of boxes has it
BOX = ("Bbox [x", "y", "w", "h]")


@dataclass
class NihChestXray14:
    """NIH ChestX-ray14: 112,120 films with 14 findings, some with boxes.

    Labels: the 14 findings, 1 or 0, as a program read them from the reports. Boxes are named by their finding; on the
    films that have some, annotators looked for these findings, on all others for none. Pixels are those of the PNG
    files, 1,024 on a side.

    A film in neither list or in both is a bad row, and so are one with ``No Finding`` beside a finding and a box of a
    film that is not in the table.

    Args:
        root: folder of the download.
    """

    root: Path

    name: ClassVar[str] = "nih-chestxray14"
    licence: ClassVar[str] = "no limit; name the NIH Clinical Center as the source and cite Wang et al. (2017)"
    stated: ClassVar[tuple[Stated, ...]] = (
        Stated(112_120, "studies", "NIH"),
        Stated(30_805, "patients", "NIH"),
    )

    def __post_init__(self) -> None:
        self.root = Path(self.root)

    @property
    def remarks(self) -> list[str]:
        """What :func:`lingula.data.preparation.prepare` says of this download beforehand."""
        return [] if self._box_file() else [f"no {BOXES}: films without boxes"]

    def fingerprint(self) -> str:
        """A hash of the arguments and of the content of tables and lists."""
        box_file = self._box_file()
        return fingerprint_of(self, [self._table_file(), *self._list_files(), *([box_file] if box_file else [])])

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every film of the table, in its order, then every box of a film that is not there.

        Raises:
            UserError: for a missing table, list or column, an empty list, an unknown finding, and a coordinate that is
                no number.
        """
        table = read_table(self._table_file())
        table.require("Image Index", "Finding Labels", "Patient ID", "View Position")
        train_val, test = map(_names, self._list_files())
        films = self._films()
        boxes = self._boxes()
        for where, row in table:
            image = row["Image Index"]
            own = [box for _, box in boxes.pop(image, [])]
            yield self._study(row, where, films.get(image), image in train_val, image in test, own)
        for image, rows in boxes.items():
            for where, _ in rows:
                yield LeftOut(where, f"box of an unknown film: {image}")

    def _study(
        self, row: dict[str, str], where: str, film: Path | None, in_train_val: bool, in_test: bool, boxes: list[Box]
    ) -> Study | LeftOut:
        image, patient = row["Image Index"], row["Patient ID"]
        if not image or not patient:
            return LeftOut(where, f"no id: column '{'Patient ID' if image else 'Image Index'}' is empty")
        if film is None:
            return LeftOut(where, f"missing image file: {image} is in none of images, images_001/images, ...")
        if in_train_val == in_test:
            return LeftOut(where, f"film in {'both lists' if in_test else 'neither list'}: {image}")
        names = row["Finding Labels"].split("|")
        for name in names:
            _known(name, (*FINDINGS, NO_FINDING), where)
        if NO_FINDING in names and len(names) > 1:
            return LeftOut(where, f"no finding and a finding: {row['Finding Labels']}")
        return Study(
            study_id=image,
            patient_id=patient,
            image=film,
            split="test" if in_test else None,
            view=row["View Position"],
            labels={name: float(name in names) for name in FINDINGS},
            boxes=tuple(boxes),
            row=where,
        )

    def _boxes(self) -> dict[str, list[tuple[str, Box]]]:
        """The boxes of every film, and where they stand."""
        boxes: dict[str, list[tuple[str, Box]]] = defaultdict(list)
        path = self._box_file()
        if path is None:
            return boxes
        table = read_table(path)
        table.require("Image Index", "Finding Label", *BOX)
        for where, row in table:
            written = row["Finding Label"]
            name = _known(SPELT.get(written, written), FINDINGS, where)
            x, y, width, height = (number(row[column], where, column) for column in BOX)
            boxes[row["Image Index"]].append((where, Box(name, x, y, x + width, y + height)))
        return boxes

    def _films(self) -> dict[str, Path]:
        """Where every film lies."""
        films: dict[str, Path] = {}
        for folder in (self.root / name for name in FOLDERS):
            if folder.is_dir():
                films |= {file.name: folder / file.name for file in os.scandir(folder)}
        if not films:
            raise UserError(f"no films in images or images_001/images, ... of {self.root}; they come from {WHENCE}")
        return films

    def _table_file(self) -> Path:
        return find_file(self.root, TABLES, WHENCE)

    def _list_files(self) -> list[Path]:
        return [find_file(self.root, [name], WHENCE) for name in LISTS]

    def _box_file(self) -> Path | None:
        return optional_file(self.root, [BOXES])


def _names(path: Path) -> set[str]:
    """The films of a list."""
    try:
        names = set(path.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as err:
        raise UserError(f"cannot read list {path}: {err}") from err
    if not names:
        raise UserError(f"{path.name} is empty; it comes from {WHENCE}")
    return names


def _known(name: str, names: tuple[str, ...], where: str) -> str:
    if name not in names:
        raise UserError(f"{where}: unknown finding '{name}'; known: {', '.join(names)}")
    return name
