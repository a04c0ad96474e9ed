"""Indiana University chest X-rays (Open-i, IU X-ray): films and reports, in three layouts. Floor 3.

Access, free: the reports and films of the National Library of Medicine, https://openi.nlm.nih.gov/faq#collection
(``NLMCXR_reports.tgz``, ``NLMCXR_png.tgz``); the same with views, https://www.kaggle.com/datasets/raddar/
chest-xrays-indiana-university; R2Gen's selection and split, https://github.com/zhjohnchan/R2Gen (``iu_xray.zip``).

Licence: CC BY-NC-ND 4.0 (Demner-Fushman et al. 2016).

Layouts, told apart by their files; one a folder::

    ROOT/ecgen-radiology/1.xml ...                      Open-i; the films of NLMCXR_png.tgz in
         NLMCXR_png/CXR1_1_IM-0001-3001.png ...         NLMCXR_png/, png/ or images/

    ROOT/indiana_reports.csv                            Kaggle
         indiana_projections.csv
         images/images_normalized/1_IM-0001-4001.dcm.png ...

    ROOT/annotation.json                                R2Gen
         images/CXR2384_IM-0942/0.png ...

Split rule: R2Gen's own train, val and test; the other layouts have none, and
:func:`lingula.data.preparation.prepare` draws by patient. A report is a patient, named alike in all layouts
(``CXR2384``), so that one draw holds for both Open-i and Kaggle.

One record, Kaggle (invented text)::

    uid,MeSH,Problems,image,indication,comparison,findings,impression
    7,Cardiomegaly/mild,Cardiomegaly,"Chest, 2 views",Cough,None.,The heart is mildly enlarged.,No acute XXXX.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from lingula.data.reader import find_file, find_folder, fingerprint_of
from lingula.data.reports import ReportReader
from lingula.data.sentences import MIN_TOKENS
from lingula.data.study import SPLITS, LeftOut, Sentence, Study
from lingula.data.tables import read_table
from lingula.registry import UserError

OPEN_I, KAGGLE, R2GEN = "ecgen-radiology", "indiana_reports.csv", "annotation.json"
OPEN_I_URL = "Open-i, https://openi.nlm.nih.gov/faq#collection"
KAGGLE_URL = "Kaggle, https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university"
R2GEN_URL = "R2Gen, https://github.com/zhjohnchan/R2Gen"
PROJECTIONS = ("Frontal", "Lateral")
UNTOLD = {"", "no indexing", "technical quality of image unsatisfactory"}  # headings that say nothing of a finding


class Film(NamedTuple):
    """A film of a report; ``view`` is empty where unknown."""

    study_id: str
    image: Path
    view: str


@dataclass(frozen=True)
class Report:
    """A report in any layout: its stripped texts in their order, its films, its MeSH headings (``None``: not given)."""

    where: str
    patient: str
    texts: list[str]
    films: list[Film]
    headings: list[str] | None = None
    split: str | None = None


@dataclass
class Indiana:
    """Indiana University chest X-rays (Open-i, IU X-ray), from the XML reports, from Kaggle's tables or from R2Gen.

    A film comes with the findings and the impression of its report (R2Gen: its one text), the "XXXX" of
    de-identification as it stands. Reports without a film, without findings and impression, or of fewer than three
    tokens are left out.

    One label, from the MeSH headings that people assigned: ``normal`` is 1 where "normal" is all they say, 0 where they
    name anything else, unknown where the report was not indexed, or only for its image quality. R2Gen has no labels.

    Only Kaggle's table tells the view of a film. Without it the first film of a report counts as the frontal one, which
    it usually is, but not always (report 1 begins with its lateral film).

    Args:
        root: folder of one of the three layouts.
        views: "frontal" leaves out lateral films, "all" keeps them, each with the whole report.
        projections: Kaggle's ``indiana_projections.csv``, to tell the views of the Open-i layout.
    """

    root: Path
    views: Literal["frontal", "all"] = "frontal"
    projections: Path | None = None

    name: ClassVar[str] = "indiana"
    licence: ClassVar[str] = "CC BY-NC-ND 4.0"

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.projections = Path(self.projections) if self.projections else None
        self.reading = ReportReader(option="")
        if self.views not in ("frontal", "all"):
            raise UserError(f"views '{self.views}'; expected frontal or all")

    @cached_property
    def layout(self) -> str:
        """The file or folder of ``root`` that tells the layout."""
        if not self.root.is_dir():
            raise UserError(f"no folder at {self.root}")
        found = [name for name in (OPEN_I, KAGGLE, R2GEN) if (self.root / name).exists()]
        if not found:
            whence = "; ".join((OPEN_I_URL, KAGGLE_URL, R2GEN_URL))
            raise UserError(f"no {OPEN_I}/, {KAGGLE} or {R2GEN} in {self.root}; they come from {whence}")
        if len(found) > 1:
            raise UserError(f"{self.root} holds {' and '.join(found)}; give each layout a folder of its own")
        if self.projections and found != [OPEN_I]:
            raise UserError(f"projections tell the views of the layout {OPEN_I}/, not of {found[0]}")
        return found[0]

    @property
    def remarks(self) -> list[str]:
        """Says so where nobody knows which film is frontal."""
        if self.layout == KAGGLE or self.projections or self.views == "all":
            return []
        way_out = "; name Kaggle's table with projections" if self.layout == OPEN_I else ""
        return [f"views unknown: the first film of each report is taken, usually the frontal one{way_out}"]

    def fingerprint(self) -> str:
        """A hash of the arguments, of the reports and of the rules by which they are read."""
        files = [self.root / self.layout]
        if self.layout == OPEN_I:
            files = _xml_files(self.root)
        elif self.layout == KAGGLE:
            files.append(find_file(self.root, ["indiana_projections.csv"], KAGGLE_URL))
        if self.projections:
            read_table(self.projections)  # a missing table has a better message than a file that cannot be hashed
            files.append(self.projections)
        own = fingerprint_of(self, files)
        return hashlib.sha256(f"{own} {self.reading.fingerprint()}".encode()).hexdigest()

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every film of every report.

        Raises:
            UserError: for a missing file, folder or column, an unknown projection, and broken JSON.
        """
        if self.layout == OPEN_I:
            reports = _open_i_reports(self.root, self.projections)
        else:
            reports = _kaggle_reports(self.root) if self.layout == KAGGLE else _r2gen_reports(self.root)
        for report in reports:
            if isinstance(report, LeftOut):
                yield report
            else:
                yield from self._studies(report)

    def _studies(self, report: Report) -> Iterator[Study | LeftOut]:
        read = self.reading.read_sections(report.texts)
        if not re.fullmatch(r"CXR\d+", report.patient):
            yield LeftOut(report.where, f"no report id: '{report.patient}', expected CXR and a number")
            return
        reason = ""
        if not report.films:
            reason = "report without a film"
        elif not any(report.texts):
            reason = "report without findings and impression"
        elif not read.enough:
            reason = f"report of fewer than {MIN_TOKENS} tokens: {' '.join(report.texts)[:60]}"
        if reason:
            yield LeftOut(report.where, reason, bad=False)
            return
        told = self.layout == KAGGLE or self.projections is not None
        for position, film in enumerate(report.films):
            unwanted = ""
            if self.views == "frontal" and told and film.view != "Frontal":
                unwanted = f"view '{film.view}' not wanted: {film.study_id}"
            elif self.views == "frontal" and not told and position:
                unwanted = f"not the first film of its report: {film.study_id}"
            if unwanted:
                yield LeftOut(report.where, unwanted, bad=False)
                continue
            yield Study(
                study_id=film.study_id,
                patient_id=report.patient,
                image=film.image,
                split=report.split,
                sentences=tuple(Sentence(sentence) for sentence in read.sentences),
                view=film.view,
                labels={} if report.headings is None else {"normal": _is_normal(report.headings)},
                row=report.where,
            )


def _is_normal(headings: Iterable[str]) -> float:
    """1 where "normal" is all that headings say, 0 where they name anything else, NaN where they say nothing."""
    said = {heading.strip().lower() for heading in headings} - UNTOLD
    return float(said == {"normal"}) if said else math.nan


# Open-i ---------------------------------------------------------------------------------------------------------------


def _xml_files(root: Path) -> list[Path]:
    """The reports in the order of their numbers."""
    files = [path for path in (root / OPEN_I).iterdir() if path.suffix == ".xml"]
    if not files:
        raise UserError(f"no .xml files in {root / OPEN_I}; they come from {OPEN_I_URL}")
    return sorted(files, key=lambda path: (len(path.stem), path.stem))


def _open_i_reports(root: Path, projections: Path | None) -> Iterator[Report | LeftOut]:
    images = find_folder(root, ["NLMCXR_png", "png", "images"], f"{OPEN_I_URL} (NLMCXR_png.tgz, unpacked there)")
    views = _views(projections) if projections else {}
    for path in _xml_files(root):
        try:
            tree = ElementTree.parse(path).getroot()  # expat fetches nothing from outside the file
        except (ElementTree.ParseError, ValueError, LookupError) as err:
            yield LeftOut(path.name, f"broken XML: {err}")
            continue
        patient = getattr(tree.find(".//uId"), "attrib", {}).get("id", "")
        names = [node.get("id", "") for node in tree.iter("parentImage")]
        yield Report(
            path.name,
            patient,
            [_section(tree, label) for label in ("FINDINGS", "IMPRESSION")],
            [Film(name, images / f"{name}.png", views.get(_film_key(patient, name), "")) for name in names],
            [node.text or "" for node in tree.iter("major")],
        )


def _section(tree: ElementTree.Element, label: str) -> str:
    nodes = [node for node in tree.iter("AbstractText") if node.get("Label", "").upper() == label]
    return "\n\n".join("".join(node.itertext()).strip() for node in nodes)


def _film_key(patient: str, name: str) -> tuple[str, str]:
    """What ``CXR1_1_IM-0001-3001`` of Open-i and ``1_IM-0001-3001.dcm.png`` of Kaggle share."""
    return patient, name[name.find("IM-") :].partition(".")[0]


# Kaggle ---------------------------------------------------------------------------------------------------------------


def _projection_rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """``(where, patient, file name, projection)``."""
    table = read_table(path)
    table.require("uid", "filename", "projection")
    for where, row in table:
        if row["projection"] not in PROJECTIONS:
            raise UserError(f"{where}: unknown projection '{row['projection']}'; expected {' or '.join(PROJECTIONS)}")
        yield where, f"CXR{row['uid']}", row["filename"], row["projection"]


def _views(projections: Path) -> dict[tuple[str, str], str]:
    return {_film_key(patient, name): view for _, patient, name, view in _projection_rows(projections)}


def _kaggle_reports(root: Path) -> Iterator[Report | LeftOut]:
    images = find_folder(root, ["images/images_normalized", "images_normalized", "images"], KAGGLE_URL)
    table = read_table(root / KAGGLE)
    table.require("uid", "MeSH", "findings", "impression")
    films: dict[str, list[tuple[str, Film]]] = {}
    for where, patient, name, view in _projection_rows(find_file(root, ["indiana_projections.csv"], KAGGLE_URL)):
        film = Film(name.removesuffix(".png").removesuffix(".dcm"), images / name, view)
        films.setdefault(patient, []).append((where, film))
    for where, row in table:
        patient = f"CXR{row['uid']}"
        own = [film for _, film in films.pop(patient, [])]
        yield Report(where, patient, [row["findings"], row["impression"]], own, row["MeSH"].split(";"))
    for patient, rows in films.items():
        for where, film in rows:
            yield LeftOut(where, f"film without a report: {film.study_id} of {patient}", bad=False)


# R2Gen ----------------------------------------------------------------------------------------------------------------


def _r2gen_reports(root: Path) -> Iterator[Report | LeftOut]:
    images = find_folder(root, ["images"], R2GEN_URL)
    try:
        annotation: Any = json.loads((root / R2GEN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UserError(f"cannot read {root / R2GEN}: {err}") from err
    for split in SPLITS:
        entries = annotation.get(split) if isinstance(annotation, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{root / R2GEN} is not R2Gen's: expected an object of lists {', '.join(SPLITS)}")
        for number, entry in enumerate(entries, 1):
            where = f"{split} report {number} of {R2GEN}"
            try:
                name, text, paths = (
                    str(entry["id"]),
                    str(entry["report"]).strip(),
                    [str(path) for path in entry["image_path"]],
                )
            except (TypeError, KeyError) as err:
                yield LeftOut(where, f"not a report of id, report and image_path: {err}")
                continue
            films = [Film(path.removesuffix(".png"), images / path, "") for path in paths]
            yield Report(where, name.partition("_")[0], [text], films, split=split)
