"""SIIM-ACR Pneumothorax Segmentation (2019): frontal films with masks of pneumothoraces as run-length codes.

https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation (a Kaggle account; accept the competition's rules, which are
the licence). Kaggle itself has only the second stage's table and test films now; copies of the first stage's films are
what its users share. The films come from NIH ChestX-ray14.

::

    ROOT/
      stage_2_train.csv or train-rle.csv       a row a pneumothorax, or one row without one; the first is read if both
      dicom-images-train/<study>/<series>/<ImageId>.dcm
      dicom-images-test/, dicom-images-stage2/, stage_2_images/      read too, where they are there; nested or flat

The rows of the second stage are those of the first stage's training and test films.

Split rule: 70/15/15 by film, random (of 12,047 films: 8,432 train, 1,808 val, 1,807 test). The field splits *rows*, so
that a film with two pneumothoraces may be in train and test at once; here all rows of a film are one study.

Two records of ``train-rle.csv``, whose header has a space before its second name, as ``stage_2_train.csv`` has not::

    ImageId, EncodedPixels
    1.2.276.0.7230010.3.1.4.8323329.1034.1517875166.8504, -1
    1.2.276.0.7230010.3.1.4.8323329.14508.1517875252.443873,387620 23 996 33 986 43 977 51 968 58 962 65 956 70
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lingula.data.reader import Stated, find_file, find_folder, fingerprint_of, split_of
from lingula.data.shapes import draw_runs, read_runs
from lingula.data.study import LeftOut, Study
from lingula.data.tables import read_table
from lingula.registry import UserError

TABLES = ("stage_2_train.csv", "train-rle.csv")
FOLDERS = ("dicom-images-train", "dicom-images-test", "dicom-images-stage2", "stage_2_images")
WHENCE = "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation"

FINDING = "pneumothorax"
EMPTY = "-1"
HELD_OUT = 0.3  # share that is not train; half of it test, half val
SIDE = 1024  # pixels, of every film

Row = tuple[str, str]  # where it stands, and its run-length code


@dataclass
class SiimPneumothorax:
    """SIIM-ACR Pneumothorax Segmentation, stage 1 or 2: films with masks of pneumothorax.

    Label and mask ``pneumothorax``, on every film; the mask is empty where there is none, and the union of a film's
    run-length codes where there are several. The codes are for films of 1024 by 1024 pixels: a film of another size is
    a bad row, and so are codes that run past its end, an empty code beside others, and a row without its film. Films
    without a row (the second stage's test films) are not wanted.

    The split is drawn over every film of the table, so that films that are missing or left out do not change it. The
    table names no patients, and each film's DICOM header has a patient of its own: that films of one patient of NIH are
    in two splits cannot be seen.

    Args:
        root: folder of the download.
    """

    root: Path

    name: ClassVar[str] = "siim-pneumothorax"
    licence: ClassVar[str] = "the rules of Kaggle's SIIM-ACR Pneumothorax Segmentation competition"
    stated: ClassVar[tuple[Stated, ...]] = (
        Stated(12_047, "studies", "CM-CGNS, section IV-A", "stage 1's own table has fewer films than stage 2's"),
        Stated(2_669, FINDING, "PRIOR, films with pneumothorax"),
    )

    def __post_init__(self) -> None:
        self.root = Path(self.root)

    @property
    def remarks(self) -> list[str]:
        """What :func:`lingula.data.preparation.prepare` says of this download beforehand."""
        return [f"read from {self._table_file().name}; each film counts as its own patient"]

    def fingerprint(self) -> str:
        """A hash of the arguments and of the table's content."""
        return fingerprint_of(self, [self._table_file()])

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every film of the table, in its order, then every film that it does not name.

        Raises:
            UserError: for a missing table, folder or column.
        """
        images = self._images()
        films = self._films()
        splits = split_of(images, HELD_OUT)
        for image, rows in images.items():
            places = films.pop(image, [])
            yield _study(image, rows, places, splits[image])
        for places in films.values():
            for place in places:
                yield LeftOut(f"film {place}", "film without a row in the table: no run-length code", bad=False)

    def _table_file(self) -> Path:
        return find_file(self.root, TABLES, WHENCE)

    def _images(self) -> dict[str, list[Row]]:
        """The rows of every image, both in the order of the table."""
        table = read_table(self._table_file())
        table.require("ImageId", "EncodedPixels")
        images: dict[str, list[Row]] = defaultdict(list)
        for where, row in table:
            if not row["ImageId"]:
                raise UserError(f"{where}: no ImageId")
            images[row["ImageId"]].append((where, row["EncodedPixels"]))
        return images

    def _films(self) -> dict[str, list[Path]]:
        """Where the films of every image lie, sorted."""
        find_folder(self.root, FOLDERS, WHENCE)
        films: dict[str, list[Path]] = defaultdict(list)
        for name in FOLDERS:
            for folder, _, files in os.walk(self.root / name):
                for file in files:
                    if file.endswith(".dcm"):
                        films[file.removesuffix(".dcm")].append(Path(folder, file))
        return {image: sorted(films[image]) for image in sorted(films)}


def draw(codes: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The mask of a film; see :func:`lingula.data.shapes.draw_runs`.

    Raises:
        ValueError: for a film of another size than the codes are for, and a run past its end.
    """
    if (height, width) != (SIDE, SIDE):
        raise ValueError(f"its run-length codes are for {SIDE} by {SIDE} pixels, the film has {width} by {height}")
    return draw_runs(codes, height, width)


def _study(image: str, rows: list[Row], places: list[Path], split: str) -> Study | LeftOut:
    where = f"{rows[0][0]}, image {image}"
    if not places:
        return LeftOut(where, f"missing image file: {image}.dcm is in none of {', '.join(FOLDERS)}")
    if len(places) > 1:
        return LeftOut(where, f"film twice: {' and '.join(map(str, places))}")
    written = [code for _, code in rows]
    if EMPTY in written and len(set(written)) > 1:
        return LeftOut(where, f"empty and not: {EMPTY} beside other run-length codes")
    try:
        codes = () if written[0] == EMPTY else tuple(map(read_runs, written))
    except ValueError as err:
        return LeftOut(where, f"unreadable run-length code: {err}")
    return Study(
        study_id=image,
        patient_id=image,
        image=places[0],
        split=split,
        labels={FINDING: float(bool(codes))},
        masks={FINDING: partial(draw, codes)},
        row=where,
    )
