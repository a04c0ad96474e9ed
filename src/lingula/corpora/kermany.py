"""Chest X-Ray Images (Pneumonia): films of children of one to five years, normal, bacterial or viral pneumonia.

Kermany et al., Cell 2018; https://data.mendeley.com/datasets/rscbjbr9sj (open, no access to ask for), also on Kaggle as
``paultimothymooney/chest-xray-pneumonia``. Licence: CC BY 4.0.

Layout; ``root`` is the folder that holds ``chest_xray``, or itself that folder (Mendeley's archives have it in
``ChestXRay2017`` or ``CellData``)::

    chest_xray/train/NORMAL/IM-0115-0001.jpeg                NORMAL2-IM-0383-0001.jpeg
    chest_xray/train/PNEUMONIA/person1_bacteria_1.jpeg       person1000_virus_1681.jpeg
    chest_xray/test/...                                      the same
    chest_xray/val/...                                       Kaggle only: 16 films taken out of train
    (a later Mendeley version names films NORMAL-1003233-0001.jpeg, BACTERIA-1008087-0001.jpeg, VIRUS-...jpeg)

A compact copy is told from it by its ``labels.csv``, and read with its own classes and splits::

    labels.csv            image_id, patient_id, split, image_path, label, pneumonia, ...
    segmentation.csv      image_id, target, mask_path; human lung masks of V7 Labs in masks/lung_v7/

Split rule: the official test folder is the test set; Kaggle's val folder goes back to train, and validation is drawn
from both by patient. Patients are the numbers in the file names. Within a class no number stands in train and in test,
but 132 of the numbers (of the 4,643 films of the compact copy) stand as bacterial in the one and as viral in the
other. Nothing says whether these are the same children; the test folder has runs of consecutive numbers of either
class, so probably each class was counted by itself. To be safe they count as the same, and such films of train are
left out (350 of those 4,643); with ``keep_shared_numbers`` they stay, as in most publications. ``IM-0115`` and
``NORMAL2-IM-0115`` are two patients: of the 199 such pairs in the compact copy, none was joined as near-duplicates.

One record: ``chest_xray/train/PNEUMONIA/person1000_virus_1681.jpeg`` is a film of person 1000, viral.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lingula.data.label_cells import label_value
from lingula.data.reader import Stated, canonical_json, find_file, find_folder, fingerprint_of, masks_of_table
from lingula.data.study import LeftOut, Study
from lingula.data.tables import read_table
from lingula.registry import UserError

WHENCE = "https://data.mendeley.com/datasets/rscbjbr9sj or Kaggle, paultimothymooney/chest-xray-pneumonia"
CLASSES = ("normal", "bacterial_pneumonia", "viral_pneumonia")
FOLDERS = ("chest_xray", ".", "ChestXRay2017/chest_xray", "CellData/chest_xray", "chest-xray-pneumonia/chest_xray")
VIEW = "AP"  # "Chest X-ray images (anterior-posterior)", the publisher's description
FILE_NAME = re.compile(
    r"(?P<person>person\d+)_(?P<cause>bacteria|virus)_\d+(_\d+)?"
    r"|(?P<normal>(NORMAL2-)?IM-\d+)-\d+(-\d+)?"
    r"|(?P<kind>NORMAL|BACTERIA|VIRUS)-(?P<number>\d+)-\d+"
)
CLASS_OF = {"NORMAL": CLASSES[0], "BACTERIA": CLASSES[1], "VIRUS": CLASSES[2]}


@dataclass(frozen=True)
class Film:
    """What the place of an official film says."""

    folder: str
    group: str
    file: str
    patient: str
    label: str


@dataclass
class Kermany:
    """Kermany's paediatric films: normal, bacterial or viral pneumonia; no reports.

    The three classes exclude each other; ``pneumonia`` is bacterial or viral. The class goes with how a film was taken
    (normal ones look cleaner), so high figures say little.

    Args:
        root: folder of the download: Mendeley's, Kaggle's, or the compact copy.
        keep_shared_numbers: keep films of train whose number stands in the official test folder too, in another class,
            and take them for other children, as most publications do. The compact copy has its own split.
    """

    root: Path
    keep_shared_numbers: bool = False

    name: ClassVar[str] = "kermany"
    licence: ClassVar[str] = "CC BY 4.0"
    label_groups: ClassVar[dict[str, list[str]]] = {"class": list(CLASSES)}

    def __post_init__(self) -> None:
        self.root = Path(self.root)

    @property
    def compact(self) -> bool:
        """Whether ``root`` holds the compact copy."""
        return (self.root / "labels.csv").is_file()

    @property
    def stated(self) -> tuple[Stated, ...]:
        """The size of the official release."""
        return () if self.compact else (Stated(5856, "studies", "Mendeley Data, rscbjbr9sj version 2"),)

    def fingerprint(self) -> str:
        """A hash of the arguments, and of the tables or the names of the films."""
        if self.compact:
            files = [self.root / name for name in ("labels.csv", "segmentation.csv")]
            return fingerprint_of(self, [file for file in files if file.is_file()])
        names = ["/".join(place) for place in self._files()]
        return hashlib.sha256(canonical_json([fingerprint_of(self), names]).encode()).hexdigest()

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every film: of the compact copy in the order of its table, else by folder and name.

        Raises:
            UserError: for a missing table, column or folder, and an unknown class.
        """
        yield from self._compact_rows() if self.compact else self._official_rows()

    # The official release ---------------------------------------------------------------------------------------------

    def _official_rows(self) -> Iterator[Study | LeftOut]:
        folder = self._folder()
        films = [_film(*place) for place in self._files()]
        tested = {film.patient for film in films if isinstance(film, Film) and film.folder == "test"}
        for film in films:
            if isinstance(film, LeftOut):
                yield film
                continue
            place = f"{film.folder}/{film.group}/{film.file}"
            split = "test" if film.folder == "test" else None
            if split is None and film.patient in tested and not self.keep_shared_numbers:
                yield LeftOut(place, f"number of a patient of the test folder: {film.patient}", bad=False)
                continue
            yield Study(
                study_id=place.rpartition(".")[0],
                patient_id=f"{film.label}/{film.patient}" if self.keep_shared_numbers else film.patient,
                image=folder / place,
                split=split,
                view=VIEW,
                labels=_labels(film.label) | {"pneumonia": float(film.label != CLASSES[0])},
                row=place,
            )

    def _folder(self) -> Path:
        trains = [f"{folder}/train/NORMAL" for folder in FOLDERS]
        folder = find_folder(self.root, trains, WHENCE).parent.parent
        for group in ("train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"):
            find_folder(folder, [group], WHENCE)
        return folder

    def _files(self) -> list[tuple[str, str, str]]:
        """``(train, NORMAL, IM-0115-0001.jpeg)`` of every file but the hidden ones that macOS leaves, sorted."""
        folder = self._folder()
        return [
            (split, group, name)
            for split in ("train", "val", "test")
            for group in ("NORMAL", "PNEUMONIA")
            if (folder / split / group).is_dir()
            for name in sorted(file.name for file in (folder / split / group).iterdir())
            if not name.startswith(".")
        ]

    # The compact copy -------------------------------------------------------------------------------------------------

    def _compact_rows(self) -> Iterator[Study | LeftOut]:
        masks = masks_of_table(self.root / "segmentation.csv")
        table = read_table(find_file(self.root, ["labels.csv"], WHENCE))
        table.require("image_id", "patient_id", "split", "image_path", "label", "pneumonia")
        for where, row in table:
            if row["label"] not in CLASSES:
                raise UserError(f"{where}: unknown class '{row['label']}'; expected {', '.join(CLASSES)}")
            yield Study(
                study_id=row["image_id"],
                patient_id=row["patient_id"],
                image=self.root / row["image_path"],
                split=row["split"],
                view=VIEW,
                labels=_labels(row["label"]) | {"pneumonia": label_value(row["pneumonia"], where, "pneumonia")},
                masks=masks.get(row["image_id"], {}),
                row=where,
            )


def _film(folder: str, group: str, file: str) -> Film | LeftOut:
    """What a place says, or why it says nothing."""
    place = f"{folder}/{group}/{file}"
    match = FILE_NAME.fullmatch(Path(file).stem)
    if match is None:
        return LeftOut(place, "unknown file name: expected one like person1_bacteria_1.jpeg or IM-0115-0001.jpeg")
    kind = match["kind"] or {"bacteria": "BACTERIA", "virus": "VIRUS"}.get(match["cause"], "NORMAL")
    if (kind == "NORMAL") != (group == "NORMAL"):
        return LeftOut(place, f"file name of another class: {kind} in the folder {group}")
    return Film(folder, group, file, match["person"] or match["normal"] or match["number"], CLASS_OF[kind])


def _labels(label: str) -> dict[str, float]:
    return {name: float(name == label) for name in CLASSES}
