"""CheXpert Plus: the films of CheXpert with their reports, and the 5x200 set for retrieval.

URL: https://stanfordaimi.azurewebsites.net/datasets/5158c524-d3ab-4e02-96e9-6ee9efc110a1

Licence: Stanford University Dataset Research Use Agreement; access after registration there.

Layout::

    root/
      df_chexpert_plus_240401.csv
      PNG/train/patient42142/study5/view1_frontal.png     the png_chexpert_plus_chunk_*.zip, unpacked into one folder
      PNG/valid/patient64541/study1/view1_frontal.png
      [DICOM/train/patient42142/study5/view1_frontal.dcm]
      [chexbert_labels/impression_fixed.json  findings_fixed.json  report_fixed.json]

The table names its films ``.jpg``, whatever they are. CheXpert's own JPEGs are the same films: ``--films jpg --images
CheXpert-v1.0`` takes those.

Split rule: ``valid/`` is test, as those are the test films of CheXpert's usual protocol (their expert labels are in
``chexpert``, the labels here are read from reports); the patients of ``train/`` are drawn into train and val by
``prepare``. The patients of the 5x200 set stand in neither.

5x200 rule (part "5x200", all of it test): as in ``chexpert``, among the frontal films of ``train/`` that have a report.
With ``--label_table CheXpert-v1.0/train.csv`` the labels are CheXpert's own, those of the field's 5x200 sets; without
it, CheXbert's.

Reports: the sections findings and impression; where both are empty, the reading within the whole report. Each film of
a study has the same report.

One record (27 columns; the parts of the report again in ``section_findings``, ``section_impression`` and nine more),
and its labels::

    path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,...,split
    train/patient42142/study5/view1_frontal.jpg,...dcm,Frontal,AP,patient42142,5,"... IMPRESSION: ...",...,train

    {"path_to_image": "train/patient42142/study5/view1_frontal.jpg", "Edema": null, "Support Devices": 1.0, ...}
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from lingula.data.chexpert import OTHERS, check_views, draw_5x200, in_5x200
from lingula.data.class_sample import only_class
from lingula.data.label_cells import label_value
from lingula.data.reader import Stated, find_file, find_folder, fingerprint_of
from lingula.data.reports import ReportReader
from lingula.data.sentences import MIN_TOKENS
from lingula.data.study import LeftOut, Sentence, Study
from lingula.data.tables import Table, read_table
from lingula.findings import CHEXPERT, CHEXPERT_COMPETITION
from lingula.records import id_hash
from lingula.registry import UserError

PLACES = {
    "png": ("PNG", "PNG/PNG", "."),
    "dcm": ("DICOM", "DICOM/Uncompressed", "."),
    "jpg": (".", "CheXpert-v1.0", "CheXpert-v1.0-small"),
}
TABLES = ("df_chexpert_plus_240401.csv", "df_chexpert_plus_240401.parquet")
SECTION_OF = {"impression": "section_impression", "findings": "section_findings", "report": "report"}
COLUMNS = (
    "path_to_image",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "section_findings",
    "section_impression",
    "report",
)
WHENCE = "Stanford AIMI, https://stanfordaimi.azurewebsites.net/datasets/5158c524-d3ab-4e02-96e9-6ee9efc110a1"
_PATH = re.compile(r"(?:.*/)?(train|valid)/(patient\d+)/(study\d+)/(view\d+_(frontal|lateral))\.\w+")
# What follows the reading in a whole report: a code, the attending's sentence and a number.
_TAIL = re.compile(r"^\s*(?:END OF IMPRESSION|SUMMARY|ACCESSION NUMBER)\b", re.MULTILINE)


@dataclass
class CheXpertPlus:
    """CheXpert Plus: chest films with reports and labels; pre-training, and the 5x200 set for retrieval.

    Args:
        root: folder of the download, that holds df_chexpert_plus_240401.csv.
        part: pairs: all films with a report, split; 5x200: 1,000 films of one class each, all of them test.
        films: format of the films: png, dcm or jpg.
        images: folder that holds the films' train and valid; PNG, DICOM or root itself if not given.
        views: keep only these views: frontal, lateral, or one of AP, PA, LL, RL; 5x200 is always frontal.
        labels_of: what CheXbert read the labels from: impression, findings or report; a label of an empty section is
            unknown.
        label_table: a train.csv of CheXpert, whose labels are taken instead of CheXbert's.
        headings: YAML file of headings that are not built in, of the form of ``lingula/data/headings.yaml``.
        hold_out_5x200: leave the patients of the 5x200 set out of train and val; this needs the labels.
        sample_seed: seed of the draw of the 5x200 set.
    """

    root: Path
    part: Literal["pairs", "5x200"] = "pairs"
    films: Literal["png", "dcm", "jpg"] = "png"
    images: Path | None = None
    views: list[str] = field(default_factory=lambda: ["frontal"])
    labels_of: Literal["impression", "findings", "report"] = "impression"
    label_table: Path | None = None
    headings: Path | None = None
    hold_out_5x200: bool = True
    sample_seed: int = 0

    name: ClassVar[str] = "chexpert-plus"
    licence: ClassVar[str] = "Stanford University Dataset Research Use Agreement"

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.images = Path(self.images) if self.images else None
        self.label_table = Path(self.label_table) if self.label_table else None
        self.headings = Path(self.headings) if self.headings else None
        self.reading = ReportReader(self.headings)
        check_views(self.views)

    @property
    def label_groups(self) -> dict[str, list[str]]:
        """The five classes of the 5x200 set, which exclude each other; none in part "pairs"."""
        return {"5x200": list(CHEXPERT_COMPETITION)} if self.part == "5x200" else {}

    @property
    def stated(self) -> tuple[Stated, ...]:
        """Sizes of the whole corpus, where it is prepared whole."""
        if self.part == "5x200":
            return ()
        where = "CheXpert Plus, arXiv:2405.19538"
        return (
            Stated(223228, "studies", where, "it counts films, frontal and lateral"),
            Stated(64725, "patients", where),
        )

    @property
    def remarks(self) -> list[str]:
        """The draw, with its seed, and where the labels come from."""
        if not self._label_file:
            return [
                f"no chexbert_labels/{self.labels_of}_fixed.json: films have no labels, and no 5x200 set is held out"
            ]
        lines = [f"labels of {self._label_file.name}"]
        if self.part == "5x200" or self.hold_out_5x200:
            drawn = self._five_by_200
            words = f"5x200 set, {len(drawn)} films of train, seed {self.sample_seed}, ids sha256 {id_hash(drawn)}"
            held_out = f"{len(self._held_out)} patients are held out of train and val: "
            lines.append(words if self.part == "5x200" else held_out + words)
        return lines

    def fingerprint(self) -> str:
        """A hash of the arguments, of the tables' content and of the headings."""
        own = fingerprint_of(self, files=filter(None, (self._table_file, self._label_file, self.headings)))
        return hashlib.sha256(f"{own} {self.reading.fingerprint()}".encode()).hexdigest()

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every row of the table, in its order.

        Raises:
            UserError: for a missing table, folder or column, an unknown label value, and a class of the 5x200 set with
                too few films.
        """
        table, folder = self._table, self._film_folder()
        views = ["frontal"] if self.part == "5x200" else self.views
        for where, row in table:
            film = self._film(where, row, folder, views)
            if isinstance(film, Study):
                film = self._placed(film)
            if isinstance(film, Study):
                film = self._with_report(film, row)
            yield film

    def _film(self, where: str, row: dict[str, str], folder: Path, views: list[str]) -> Study | LeftOut:
        """The film with its labels, its report not yet read; or why it is not wanted."""
        parts = _PATH.fullmatch(row["path_to_image"])
        if not parts:
            path = row["path_to_image"]
            return LeftOut(where, f"unreadable path: '{path}', expected train/patient00001/study1/view1_frontal.jpg")
        part, patient, study, stem, side = parts.groups()
        if row["deid_patient_id"] != patient:
            return LeftOut(where, f"two patients: '{row['deid_patient_id']}' with a film of {patient}")
        side = row["frontal_lateral"].lower() or side
        view = row["ap_pa"] or side
        if not {side, view.lower()} & {name.lower() for name in views}:
            return LeftOut(where, f"view not wanted: {side}", bad=False)
        study_id = f"{patient}/{study}/{stem}"
        return Study(
            study_id=study_id,
            patient_id=patient,
            image=folder / part / f"{study_id}.{self.films}",
            split="test" if part == "valid" else None,
            view=view,
            labels=self._labels_of(study_id, row),
            row=where,
        )

    def _placed(self, film: Study) -> Study | LeftOut:
        """The film as it stands in this part, or why it has no place there."""
        if self.part == "5x200":
            return in_5x200(film, self._five_by_200)
        if film.split is None and film.patient_id in self._held_out:
            return LeftOut(film.row, f"held out for the 5x200 set: {film.patient_id}", bad=False)
        return film

    @cached_property
    def _five_by_200(self) -> dict[str, str]:
        """The class of every film of the 5x200 set, by id."""
        classes = {}
        for where, row in self._table:
            film = self._film(where, row, self.root, ["frontal"])
            if not isinstance(film, Study) or film.split == "test":
                continue
            own = only_class(film.labels, CHEXPERT_COMPETITION, OTHERS)
            if own and isinstance(self._with_report(film, row, count=False), Study):
                classes[film.study_id] = own
        try:
            return draw_5x200(classes, self.sample_seed)
        except UserError as err:
            raise UserError(f"{self._table_file}: no 5x200 set: {err}{self._way_out}") from err

    @cached_property
    def _held_out(self) -> set[str]:
        return {study_id.partition("/")[0] for study_id in self._five_by_200} if self.hold_out_5x200 else set()

    @property
    def _way_out(self) -> str:
        return "" if self.part == "5x200" else "; to hold out no 5x200 set: --hold_out_5x200 false"

    def _with_report(self, film: Study, row: dict[str, str], count: bool = True) -> Study | LeftOut:
        """The film with the sentences of findings and impression; without these, of what else reads the film.

        ``count``: whether the report counts among those that were read.
        """
        texts = [_text(row, "section_findings"), _text(row, "section_impression")]
        if any(texts):
            read = self.reading.read_sections(texts, count)
        else:
            whole = _text(row, "report")
            reading = _TAIL.split(whole)[0]
            # Where nothing else is left, this is the title: "Chest 1 View, 8-8-2005". A reading has full stops.
            read = self.reading.read(reading, finished_only=True, tail=whole[len(reading) :], count=count)
        if not read.enough:
            shown = read.body.strip()[:60]
            return LeftOut(film.row, f"report of fewer than {MIN_TOKENS} tokens: {shown}", bad=False)
        return replace(film, sentences=tuple(map(Sentence, read.sentences)))

    # Files ------------------------------------------------------------------------------------------------------------

    @cached_property
    def _table_file(self) -> Path:
        return find_file(self.root, TABLES, WHENCE)

    @cached_property
    def _table(self) -> Table:
        table = read_table(self._table_file, COLUMNS)
        table.require()
        return table

    def _film_folder(self) -> Path:
        """The folder whose train and valid hold the films."""
        base = self.images or self.root
        places = (".",) if self.images else PLACES[self.films]
        names = [str(Path(place, part)) for place in places for part in ("train", "valid")]
        return find_folder(base, names, WHENCE).parent

    @cached_property
    def _label_file(self) -> Path | None:
        """Where labels come from; None if there are none, and none are needed."""
        if self.label_table:
            if not self.label_table.is_file():
                raise UserError(f"no table of labels at {self.label_table}")
            return self.label_table
        file = f"{self.labels_of}_fixed.json"
        try:
            return find_file(self.root, [f"chexbert_labels/{file}", file], WHENCE)
        except UserError as err:
            if self.part == "5x200" or self.hold_out_5x200:
                raise UserError(f"{err}{self._way_out}") from err
            return None

    @cached_property
    def _labels(self) -> dict[str, tuple[float, ...]]:
        """The values of ``CHEXPERT`` of every film that is labelled, by its id."""
        if not self._label_file:
            return {}
        if not self.label_table:
            return dict(_chexbert_labels(self._label_file))
        table = read_table(self.label_table)
        table.require("Path", *CHEXPERT)
        return {
            _film_id(row["Path"]): tuple(label_value(row[name], where, name) for name in CHEXPERT)
            for where, row in table
        }

    def _labels_of(self, study_id: str, row: dict[str, str]) -> dict[str, float]:
        if not self._label_file:
            return {}
        values = self._labels.get(study_id)
        # CheXbert calls an empty text "No Finding": of a film whose section is empty it knows nothing.
        if values is None or not (self.label_table or _text(row, SECTION_OF[self.labels_of])):
            return dict.fromkeys(CHEXPERT, math.nan)
        return dict(zip(CHEXPERT, values, strict=True))


def _film_id(path: str) -> str:
    """``patient00001/study1/view1_frontal`` of a path in any version; the path itself where it is none."""
    parts = _PATH.fullmatch(path)
    return "/".join(parts.groups()[1:4]) if parts else path


def _chexbert_labels(path: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
    """The films of a ``*_fixed.json``, one JSON object a line."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"line {number} of {path.name}"
            try:
                record = json.loads(line)
                written = {name: record[name] for name in ("path_to_image", *CHEXPERT)}
            except (ValueError, KeyError, TypeError) as err:
                raise UserError(f"{where}: expected an object with path_to_image and 14 labels: {err!r}") from err
            cells = {name: "" if value is None else str(value) for name, value in written.items()}
            yield _film_id(cells["path_to_image"]), tuple(label_value(cells[name], where, name) for name in CHEXPERT)


def _text(row: dict[str, str], column: str) -> str:
    """A cell of text; some of its line breaks may be written as a backslash and an n."""
    return row[column].replace("\\n", "\n").strip()
