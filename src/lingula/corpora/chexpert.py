"""CheXpert: 14 labels, and the 5x200 set that is drawn from it.

URL: https://stanfordaimi.azurewebsites.net/datasets/8cbd9ed4-2eb9-4565-affc-111cf4f7ebe2 (v1.0), and the expert test
set, released in 2022, at https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c.

Licence: Stanford University Dataset Research Use Agreement; access after registration there.

Layout (``CheXpert-v1.0-small`` is the same, smaller)::

    CheXpert-v1.0/                  root, or root's only folder
      train.csv  valid.csv          [test.csv | test_labels.csv | groundtruth.csv, with test="test"]
      train/patient00001/study1/view1_frontal.jpg
      valid/patient64541/study1/view1_frontal.jpg
      [test/patient64741/study1/view1_frontal.jpg]

or as the full size is unpacked: the tables and ``valid`` in ``CheXpert-v1.0 batch 1 (validate & csv)``, the patients of
``train`` in ``CheXpert-v1.0 batch 2 (train 1)`` and two more.

Split rule (part "classification", the field's protocol with its leaks mended): test is the expert-read ``valid.csv``,
202 frontal films; validation is drawn from ``train.csv`` *by patient* until it has 5,000 films; the patients of the
5x200 set stand in neither train nor val. The field draws the validation by film and leaves out no more than the 1,000
films themselves. With ``test="test"`` the official parts are kept: ``train.csv``, ``valid.csv``, the test set.

5x200 rule (part "5x200", all of it test): frontal films of ``train.csv`` on which one of the five competition labels
is 1 and no other label but "No Finding" is 1 or uncertain, blanks counting as 0; 200 of each, drawn by a hash. The
field draws them with pandas (``random_state=0``), which gives other films of the same kind.

One record of ``train.csv`` (a blank label is one that the report does not speak of)::

    Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,...
    CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,...
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from lingula.data.chexpert import OTHERS, check_views, draw_5x200, in_5x200
from lingula.data.class_sample import hash_order, only_class
from lingula.data.label_cells import label_value
from lingula.data.reader import Stated, find_file, fingerprint_of
from lingula.data.study import LeftOut, Study
from lingula.data.tables import Table, read_table
from lingula.findings import CHEXPERT, CHEXPERT_COMPETITION
from lingula.records import id_hash
from lingula.registry import UserError

EXPERT_FILMS = 202  # frontal films of valid.csv
FOLDERS = ("", "CheXpert-v1.0", "CheXpert-v1.0-small", "CheXpert-v1.0 batch 1 (validate & csv)")
TEST_TABLES = ("test.csv", "test_labels.csv", "groundtruth.csv")
WHENCE = "Stanford AIMI, https://stanfordaimi.azurewebsites.net/datasets/8cbd9ed4-2eb9-4565-affc-111cf4f7ebe2"
TEST_WHENCE = (
    "Stanford AIMI, https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c "
    "(put the table beside its folder test)"
)
# What stands before the part differs between the versions, and is not a folder of either.
_PATH = re.compile(r"(?:.*/)?(train|valid|test)/(patient\d+)/(study\d+)/(view\d+_(frontal|lateral))\.\w+")
_STUDY = re.compile(r"(?:.*/)?(train|valid|test)/(patient\d+)/(study\d+)/?")


@dataclass
class CheXpert:
    """CheXpert: chest films with 14 labels; linear classification on five of them, and the 5x200 set.

    Ids are ``patient00001/study1/view1_frontal`` in every version, so that equal seeds draw equal films from v1.0 and
    from -small.

    Args:
        root: folder of the download, that holds train.csv or the folder CheXpert-v1.0 or CheXpert-v1.0-small.
        part: classification: all films, split; 5x200: 1,000 films of one class each, all of them test.
        test: valid: valid.csv is the test, as in the field's protocol; test: the expert test set of 2022 is, and
            valid.csv the validation.
        views: keep only these views: frontal, lateral, or one of AP, PA, LL, RL; 5x200 is always frontal.
        val_films: films at which the draw of validation patients from train.csv stops; not with test="test".
        val_seed: seed of the draw of the validation patients.
        hold_out_5x200: leave the patients of the 5x200 set out of train and val.
        sample_seed: seed of the draw of the 5x200 set.
    """

    root: Path
    part: Literal["classification", "5x200"] = "classification"
    test: Literal["valid", "test"] = "valid"
    views: list[str] = field(default_factory=lambda: ["frontal"])
    val_films: int = 5000
    val_seed: int = 0
    hold_out_5x200: bool = True
    sample_seed: int = 0

    name: ClassVar[str] = "chexpert"
    licence: ClassVar[str] = "Stanford University Dataset Research Use Agreement"

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        check_views(self.views)

    @property
    def label_groups(self) -> dict[str, list[str]]:
        """The five classes of the 5x200 set, which exclude each other; none in part "classification"."""
        return {"5x200": list(CHEXPERT_COMPETITION)} if self.part == "5x200" else {}

    @property
    def uncertain_as(self) -> dict[str, float]:
        """What the field's protocol takes -1 for."""
        if self.part == "5x200":
            return {}
        return {"Atelectasis": 1.0, "Cardiomegaly": 0.0, "Consolidation": 0.0, "Edema": 1.0, "Pleural Effusion": 1.0}

    @property
    def unknown_as(self) -> dict[str, float]:
        """What the field's protocol takes a blank for."""
        return {} if self.part == "5x200" else dict.fromkeys(CHEXPERT_COMPETITION, 0.0)

    @property
    def stated(self) -> tuple[Stated, ...]:
        """Sizes of the whole corpus, where it is prepared whole."""
        if self.part == "5x200" or [view.lower() for view in self.views] != ["frontal"]:
            return ()
        where = "CM-CGNS, section IV-A"
        return (
            Stated(191229, "studies", where, "it counts the frontal films before any are held out"),
            Stated(65240, "patients", where, "it counts those with lateral films only, and the test set of 2022"),
        )

    @property
    def remarks(self) -> list[str]:
        """The draws, with their seeds, and the size of the test set."""
        if self.part == "5x200":
            return [self._drawn_words()]
        lines = []
        if self.hold_out_5x200:
            lines.append(f"{len(self._held_out)} patients are held out of train and val: {self._drawn_words()}")
        if self.test == "valid":
            lines.append(f"{len(self._val_patients)} patients of train.csv were drawn for val, seed {self.val_seed}")
            found = sum(isinstance(film, Study) for film in self._films("test", ["frontal"]))
            as_stated = "as" if found == EXPERT_FILMS else f"where {EXPERT_FILMS} are expected by"
            lines.append(f"test is valid.csv: {found} frontal films, {as_stated} the field's protocol")
        return lines

    def _drawn_words(self) -> str:
        drawn = self._five_by_200
        return f"5x200 set, {len(drawn)} films of train.csv, seed {self.sample_seed}, ids sha256 {id_hash(drawn)}"

    def fingerprint(self) -> str:
        """A hash of the arguments and of the tables' content."""
        return fingerprint_of(self, files=self._tables.values())

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every film of the tables, in their order.

        Raises:
            UserError: for a missing table or column, an unknown label value, and draws that find too few films.
        """
        views = ["frontal"] if self.part == "5x200" else self.views
        for split in self._tables:
            for film in self._films(split, views):
                yield self._placed(film) if isinstance(film, Study) else film

    def _placed(self, film: Study) -> Study | LeftOut:
        """The film in its split, or why it has no place in this part."""
        if self.part == "5x200":
            return in_5x200(film, self._five_by_200)
        if film.split != "train":
            return film
        if film.patient_id in self._held_out:
            return LeftOut(film.row, f"held out for the 5x200 set: {film.patient_id}", bad=False)
        return replace(film, split="val") if film.patient_id in self._val_patients else film

    # Draws ------------------------------------------------------------------------------------------------------------

    @cached_property
    def _five_by_200(self) -> dict[str, str]:
        """The class of every film of the 5x200 set, by id."""
        classes = {}
        for film in self._films("train", ["frontal"]):
            if isinstance(film, Study) and (own := only_class(film.labels, CHEXPERT_COMPETITION, OTHERS)):
                classes[film.study_id] = own
        try:
            return draw_5x200(classes, self.sample_seed)
        except UserError as err:
            way_out = "" if self.part == "5x200" else "; to hold out none: --hold_out_5x200 false"
            raise UserError(f"{self._tables['train']}: no 5x200 set: {err}{way_out}") from err

    @cached_property
    def _held_out(self) -> set[str]:
        return {study_id.partition("/")[0] for study_id in self._five_by_200} if self.hold_out_5x200 else set()

    @cached_property
    def _val_patients(self) -> set[str]:
        """Patients of train.csv who are validation: whole ones, by their hash, until they have ``val_films`` films."""
        if self.test == "test":
            return set()
        films = Counter(
            film.patient_id
            for film in self._films("train", self.views)
            if isinstance(film, Study) and film.patient_id not in self._held_out
        )
        if films.total() <= self.val_films:
            raise UserError(
                f"{self._tables['train']}: val_films is {self.val_films}, but there are {films.total()} films to draw "
                f"them from; lower it with --val_films"
            )
        drawn: set[str] = set()
        missing = self.val_films
        for patient in hash_order(films, self.val_seed):
            if missing <= 0:
                break
            drawn.add(patient)
            missing -= films[patient]
        return drawn

    # Tables -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _tables(self) -> dict[str, Path]:
        """The table of every split that one is read for."""
        train = find_file(_holding([self.root / name for name in FOLDERS], ["train.csv"]), ["train.csv"], WHENCE)
        if self.part == "5x200":
            return {"train": train}
        valid = find_file(train.parent, ["valid.csv"], WHENCE)
        if self.test == "valid":
            return {"train": train, "test": valid}
        places = [train.parent, self.root, self.root / "CheXpert"]
        return {
            "train": train,
            "val": valid,
            "test": find_file(_holding(places, TEST_TABLES), TEST_TABLES, TEST_WHENCE),
        }

    @cached_property
    def _read(self) -> dict[str, Table]:
        tables = {split: read_table(path) for split, path in self._tables.items()}
        for split, table in tables.items():
            if split != "test" or self.test == "valid":
                table.require("Path", "Frontal/Lateral", "AP/PA", *CHEXPERT)
            else:  # the test set's tables have no views, and groundtruth.csv has one row a study
                table.require("Study" if "Study" in table.columns else "Path", *CHEXPERT_COMPETITION)
        return tables

    @cached_property
    def _batches(self) -> dict[str, Path]:
        """The folder of every patient of the full size, where its batches were left as they were unpacked."""
        folders = sorted(path for path in self.root.glob("CheXpert-v1.0 batch * (train *)") if path.is_dir())
        return {entry.name: folder for folder in folders for entry in os.scandir(folder)}

    def _films(self, split: str, views: list[str]) -> Iterator[Study | LeftOut]:
        """The films of one table, all of them in its split."""
        wanted = {view.lower() for view in views}
        for where, row in self._read[split]:
            paths = [row["Path"]] if "Path" in row else self._paths_of_study(row["Study"])
            if not paths:
                yield LeftOut(where, f"no films of this study: '{row['Study']}'")
            for path in paths:
                film = self._film(where, row, path, split)
                if isinstance(film, Study):
                    side = row.get("Frontal/Lateral", "").lower() or film.study_id.rpartition("_")[2]
                    if not {side, film.view.lower()} & wanted:
                        film = LeftOut(where, f"view not wanted: {side}", bad=False)
                yield film

    def _film(self, where: str, row: dict[str, str], path: str, split: str) -> Study | LeftOut:
        parts = _PATH.fullmatch(path)
        if not parts:
            return LeftOut(
                where, f"unreadable path: '{path}', expected .../train/patient00001/study1/view1_frontal.jpg"
            )
        folder, patient, study, stem, side = parts.groups()
        home = self._batches.get(patient, self._tables[split].parent / folder)
        return Study(
            study_id=f"{patient}/{study}/{stem}",
            patient_id=patient,
            image=home / patient / study / path.rpartition("/")[2],
            split=split,
            view=row.get("AP/PA") or side,
            labels={name: label_value(row[name], where, name) if name in row else math.nan for name in CHEXPERT},
            row=where,
        )

    def _paths_of_study(self, study: str) -> list[str]:
        """The films in a study's folder, as their paths would be written."""
        parts = _STUDY.fullmatch(study)
        folder = self._tables["test"].parent.joinpath(*parts.groups()) if parts else None
        if folder is None or not folder.is_dir():
            return []
        names = sorted(entry.name for entry in os.scandir(folder))
        return [path for path in (f"{study.rstrip('/')}/{name}" for name in names) if _PATH.fullmatch(path)]


def _holding(folders: list[Path], names: tuple[str, ...] | list[str]) -> Path:
    """The first of the folders that holds one of the files, else the first."""
    files = [name + suffix for name in names for suffix in ("", ".gz")]
    return next((folder for folder in folders if any((folder / file).is_file() for file in files)), folders[0])
