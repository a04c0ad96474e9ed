"""MIMIC-CXR: chest films and reports of one hospital in Boston, as JPEG (MIMIC-CXR-JPG) or DICOM. Floor 3.

Access: credentialed, after a course and a signed data use agreement, at PhysioNet:
https://physionet.org/content/mimic-cxr-jpg/ (2.0.0 or 2.1.0: films, views, splits, labels) and
https://physionet.org/content/mimic-cxr/ (reports, and the films as DICOM).

Licence: PhysioNet Credentialed Health Data License 1.5.0.

Layout; both versions call their tables 2.0.0, and gzipped or not, they are read::

    ROOT/                                             MIMIC-CXR-JPG
        mimic-cxr-2.0.0-metadata.csv.gz               one row a film: its view
        mimic-cxr-2.0.0-split.csv.gz                  one row a film
        mimic-cxr-2.0.0-chexpert.csv.gz               one row a study: 14 labels
        mimic-cxr-2.0.0-negbio.csv.gz                 the same by another labeller
        mimic-cxr-2.1.0-test-set-labeled.csv          one row a study of the test split: a radiologist's labels
        files/p10/p10000032/s50414267/DICOM_ID.jpg
    REPORTS/                                          MIMIC-CXR; may be the same folder
        mimic-cxr-reports.zip                         read as it is, or unpacked:
        files/p10/p10000032/s50414267.txt

A folder of MIMIC-CXR itself has ``DICOM_ID.dcm`` instead, with the reports beside them. It has no views, splits and
labels (``cxr-record-list.csv.gz`` and ``cxr-study-list.csv.gz`` say only where files lie, which their names do too):
copy the tables of MIMIC-CXR-JPG there, or name their folder with ``tables``.

Split rule: the official one, by patient; ``validate`` is val.

One record: a row of the metadata, its row of labels, and its report::

    dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,...
    02aa804e-bde0afdd-112c0b34-7bc16630-4e384014,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,...

    subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,...
    10000032,50414267,,,,,...

    FINAL REPORT
    EXAMINATION:  CHEST (PA AND LAT)
    FINDINGS:
    There is no focal consolidation, pleural effusion or pneumothorax. ...
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from lingula.data.label_cells import label_value
from lingula.data.reader import Stated, find_file, find_folder, fingerprint_of
from lingula.data.reports import ReportReader
from lingula.data.sentences import MIN_TOKENS
from lingula.data.study import LeftOut, Sentence, Study
from lingula.data.tables import Table, read_table
from lingula.findings import CHEXPERT
from lingula.registry import UserError

LABELS = tuple(sorted(CHEXPERT))  # as the columns of the tables stand
RADIOLOGIST_CALLS = {"Lung Opacity": "Airspace Opacity"}  # in the table of 2.1.0
FRONTAL = ("PA", "AP")
SPLITS = {"train": "train", "validate": "val", "test": "test"}
VERSIONS = ("2.0.0", "2.1.0")
JPG = "PhysioNet, https://physionet.org/content/mimic-cxr-jpg/"
CXR = "PhysioNet, https://physionet.org/content/mimic-cxr/"

Report = tuple[Sentence, ...] | LeftOut


class Film(NamedTuple):
    """What is needed of a row of the metadata."""

    where: str
    dicom: str
    patient: str
    study: str
    view: str

    @property
    def report(self) -> str:
        """Its report's path, the same in the zip and in the folder."""
        return f"files/p{self.patient[:2]}/p{self.patient}/s{self.study}.txt"

    def image(self, suffix: str) -> str:
        return f"files/p{self.patient[:2]}/p{self.patient}/s{self.study}/{self.dicom}{suffix}"


@dataclass
class MimicCxr:
    """MIMIC-CXR, frontal films with their reports and 14 labels; credentialed access at PhysioNet.

    One study of ours is one film, named by its ``dicom_id``; films of one official study share its report and labels.
    Of a report, findings and impression are read (:func:`lingula.data.sections.split_report`); no other script is
    needed.

    Left out as not wanted, and counted: films of other views, films without a report file, and reports without
    findings and impression or of fewer than three tokens. A film that is wanted but whose file is missing is a bad row.

    Args:
        root: folder of MIMIC-CXR-JPG, or of MIMIC-CXR with DICOM files.
        reports: mimic-cxr-reports.zip, or a folder that holds it, or files/ with its content; ``root`` if not given.
        tables: folder of the tables of MIMIC-CXR-JPG; ``root`` if not given.
        views: values of ViewPosition to keep.
        one_film: keep one film a study only: of the view that ``views`` names first, the first in the table.
        labels: which labeller's: 1 present, 0 absent, -1 uncertain, NaN not mentioned; or none.
        radiologist: the test split's labels are those that a radiologist gave its reports (version 2.1.0), NaN where
            there are none.
        require_report: False keeps films whose report is missing or left out for another reason, without it.
        headings: YAML file of headings that are not built in, of the form of ``lingula/data/headings.yaml``.
        require_sections: False also takes reports without findings and impression, by their last paragraph or what
            else stands under no heading that we know.
        partial: leave out films whose files are missing as not wanted, for those who have some folders of the archive.
    """

    root: Path
    reports: Path | None = None
    tables: Path | None = None
    views: list[str] = field(default_factory=lambda: list(FRONTAL))
    one_film: bool = False
    labels: Literal["chexpert", "negbio", "none"] = "chexpert"
    radiologist: bool = False
    require_report: bool = True
    headings: Path | None = None
    require_sections: bool = True
    partial: bool = False

    name: ClassVar[str] = "mimic-cxr"
    licence: ClassVar[str] = "PhysioNet Credentialed Health Data License 1.5.0"

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.reports = None if self.reports is None else Path(self.reports)
        self.tables = None if self.tables is None else Path(self.tables)
        self.headings = None if self.headings is None else Path(self.headings)
        self.reading = ReportReader(self.headings)
        if self.radiologist and self.labels == "none":
            raise UserError("radiologist replaces labels of the test split: choose labels chexpert or negbio, not none")

    @property
    def stated(self) -> tuple[Stated, ...]:
        """The paper's number of pairs; nothing where the options ask for other pairs than the paper's."""
        other = self.one_film or self.partial or not self.require_report or not self.require_sections
        if other or set(self.views) != set(FRONTAL):
            return ()
        note = (
            "it counts a pair for every PA or AP film whose report has findings or impression of three tokens, found "
            "by another script than ours, which gives up some reports that ours reads"
        )
        return (Stated(232_286, "studies", "CM-CGNS, section IV-A", note),)

    @property
    def remarks(self) -> list[str]:
        """What :func:`lingula.data.preparation.prepare` says beforehand."""
        if self.require_report or self._zip() or self._unpacked(self._films()):
            return []
        return [f"no reports in {self.reports or self.root}: films are prepared without text"]

    def fingerprint(self) -> str:
        """A hash of the arguments, of what the tables and the zip of reports hold, and of the headings.

        With ``partial``, also of which films are there. What unpacked reports hold does not count.
        """
        paths = [self._table("metadata"), self._table("split"), *self._label_tables().values()]
        whole = fingerprint_of(self, files=[*paths, *filter(None, [self._zip(), self.headings])])
        whole = hashlib.sha256(f"{whole} {self.reading.fingerprint()}".encode()).hexdigest()
        if not self.partial:
            return whole
        wanted = self._wanted(self._films())
        there = sorted(film.dicom for film in self._there(wanted, self._suffix(wanted)))
        return hashlib.sha256("\n".join([whole, *there]).encode()).hexdigest()

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every row of the metadata, in its order.

        Raises:
            UserError: for a missing table or folder, no reports at all, and an unknown view, split or label value.
        """
        find_folder(self.root, ["files"], JPG)
        films = self._films()
        self._check_views(films)
        wanted = self._wanted(films)
        suffix = self._suffix(wanted)
        there = {film.dicom for film in self._there(wanted, suffix)} if self.partial else None
        chosen = self._chosen(film for film in wanted if there is None or film.dicom in there)
        splits, labels = self._splits(), self._labels()
        report_of = self._report_reader(wanted)
        reports: dict[str, Report] = {}
        for film in films:
            if film.view not in self.views:
                reason = f"other view: {film.view}" if film.view else "view not stated"
                yield LeftOut(film.where, reason, bad=False)
            elif there is not None and film.dicom not in there:
                yield LeftOut(film.where, f"not in this part of the archive: {film.image(suffix)}", bad=False)
            elif chosen and chosen[film.study] != film.dicom:
                yield LeftOut(film.where, f"another film of the study is taken: {chosen[film.study]}", bad=False)
            elif film.dicom not in splits:
                yield LeftOut(film.where, f"no split: {film.dicom} is not in the table of splits")
            else:
                if film.study not in reports:
                    reports[film.study] = report_of(film)
                report = reports[film.study]
                if isinstance(report, LeftOut) and (report.bad or self.require_report):
                    yield LeftOut(film.where, report.reason, report.bad)
                    continue
                split = splits[film.dicom]
                yield Study(
                    study_id=film.dicom,
                    patient_id=film.patient,
                    image=self.root / film.image(suffix),
                    split=split,
                    sentences=() if isinstance(report, LeftOut) else report,
                    view=film.view,
                    labels=labels(film.study, split),
                    row=film.where,
                )

    # Films ------------------------------------------------------------------------------------------------------------

    def _films(self) -> list[Film]:
        """The metadata's rows, in their order; read anew each time, since they are many."""
        table = read_table(self._table("metadata"))
        table.require("dicom_id", "subject_id", "study_id", "ViewPosition")
        at = [table.columns.index(name) for name in ("dicom_id", "subject_id", "study_id", "ViewPosition")]
        ids: dict[str, str] = {}  # equal texts are one object
        films = []
        for number, cells in zip(table.numbers, table.rows, strict=True):
            dicom, patient, study, view = (cells[position] for position in at)
            where = f"row {number} of {table.name}"
            if not (dicom and patient and study):
                raise UserError(f"{where}: dicom_id, subject_id or study_id is empty")
            patient, study, view = (ids.setdefault(text, text) for text in (patient, study, view))
            films.append(Film(where, dicom, patient, study, view))
        return films

    def _wanted(self, films: Iterable[Film]) -> list[Film]:
        return [film for film in films if film.view in self.views]

    def _check_views(self, films: Iterable[Film]) -> None:
        there = {film.view for film in films}
        for view in self.views:
            if view not in there and view not in FRONTAL:
                known = ", ".join(sorted(there - {""}))
                raise UserError(f"no film has the view '{view}'; the metadata's views: {known}")

    def _suffix(self, films: Iterable[Film]) -> str:
        """That of the first film whose file is there; JPEG where none is."""
        kinds = (".jpg", ".dcm")
        return next((kind for film in films for kind in kinds if (self.root / film.image(kind)).is_file()), kinds[0])

    def _there(self, films: list[Film], suffix: str) -> list[Film]:
        """Those whose files are there; a folder of the archive that is not (p10 to p19) is asked for once."""
        folders = {film.patient[:2] for film in films}
        folders = {folder for folder in folders if (self.root / f"files/p{folder}").is_dir()}
        return [film for film in films if film.patient[:2] in folders and (self.root / film.image(suffix)).is_file()]

    def _chosen(self, films: Iterable[Film]) -> dict[str, str]:
        """With ``one_film``, the film of every study."""
        best: dict[str, Film] = {}
        for film in films if self.one_film else ():
            rival = best.setdefault(film.study, film)
            if self.views.index(film.view) < self.views.index(rival.view):
                best[film.study] = film
        return {study: film.dicom for study, film in best.items()}

    # Splits and labels ------------------------------------------------------------------------------------------------

    def _table(self, name: str) -> Path:
        return find_file(self.tables or self.root, [f"mimic-cxr-{version}-{name}.csv" for version in VERSIONS], JPG)

    def _label_tables(self) -> dict[str, Path]:
        """The tables of labels by who gave them."""
        tables: dict[str, Path] = {} if self.labels == "none" else {self.labels: self._table(self.labels)}
        if self.radiologist:
            names = ["mimic-cxr-2.1.0-test-set-labeled.csv"]
            tables["radiologist"] = find_file(self.tables or self.root, names, JPG)
        return tables

    def _splits(self) -> dict[str, str]:
        """The split of every ``dicom_id``."""
        table = read_table(self._table("split"))
        table.require("dicom_id", "split")
        dicom, split = table.columns.index("dicom_id"), table.columns.index("split")
        splits: dict[str, str] = {}
        for number, cells in zip(table.numbers, table.rows, strict=True):
            if cells[split] not in SPLITS:
                known = ", ".join(SPLITS)
                raise UserError(f"row {number} of {table.name}: unknown split '{cells[split]}'; expected {known}")
            if cells[dicom] in splits:
                raise UserError(f"row {number} of {table.name}: '{cells[dicom]}' has a split twice")
            splits[cells[dicom]] = SPLITS[cells[split]]
        return splits

    def _labels(self) -> Callable[[str, str], dict[str, float]]:
        """The labels of an official study in a split; equal ones are one object."""
        unknown = dict.fromkeys(LABELS, float("nan")) if self.labels != "none" else {}
        tables = {who: _labels_of_studies(read_table(path)) for who, path in self._label_tables().items()}
        machine, radiologist = tables.get(self.labels, {}), tables.get("radiologist")

        def labels(study: str, split: str) -> dict[str, float]:
            source = machine if radiologist is None or split != "test" else radiologist
            return source.get(study, unknown)

        return labels

    # Reports ----------------------------------------------------------------------------------------------------------

    def _zip(self) -> Path | None:
        place = self.reports or self.root
        if self.reports is not None and not place.exists():
            raise UserError(f"no reports at {place}; expected mimic-cxr-reports.zip, from {CXR}, or a folder")
        archive = place / "mimic-cxr-reports.zip" if place.is_dir() else place
        return archive if archive.is_file() else None

    def _unpacked(self, films: Iterable[Film]) -> Path | None:
        """The folder that has a report of any of the films."""
        place = self.reports or self.root
        folders = [folder for folder in (place, place / "mimic-cxr-reports") if (folder / "files").is_dir()]
        return next((folder for film in films for folder in folders if (folder / film.report).is_file()), None)

    def _report_reader(self, films: Iterable[Film]) -> Callable[[Film], Report]:
        """A function from a film to the sentences of its report."""
        archive = self._zip()
        folder = None if archive else self._unpacked(films)
        if self.require_report and not archive and not folder:
            raise UserError(
                f"no reports in {self.reports or self.root}: expected mimic-cxr-reports.zip, or its content as in "
                f"files/p10/p10000032/s50414267.txt, from {CXR}; name their place with --reports, or take the films "
                "without text with --require_report false"
            )
        read = _zip_reader(archive) if archive else _folder_reader(folder)
        known: dict[str, Sentence] = {}  # many sentences stand in thousands of reports

        def report_of(film: Film) -> Report:
            try:
                written = read(film.report)
                text = None if written is None else written.decode("utf-8")
            except (OSError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error) as err:
                return LeftOut("", f"unreadable report: {film.report}: {err}")
            if text is None:
                return LeftOut("", f"no report file: {film.report}", bad=False)
            return self._sentences(text, film.report, known)

        return report_of

    def _sentences(self, text: str, path: str, known: dict[str, Sentence]) -> Report:
        read = self.reading.read(text, titled_only=self.require_sections)
        if not read.body:
            return LeftOut("", f"report without findings or impression: {path}", bad=False)
        if not read.enough:
            return LeftOut("", f"report of fewer than {MIN_TOKENS} tokens: {path}: {read.body[:60]}", bad=False)
        return tuple(known.setdefault(sentence, Sentence(sentence)) for sentence in read.sentences)


def _labels_of_studies(table: Table) -> dict[str, dict[str, float]]:
    """The 14 labels of every ``study_id``; equal ones are one object."""
    called = {name: RADIOLOGIST_CALLS[name] for name in RADIOLOGIST_CALLS if RADIOLOGIST_CALLS[name] in table.columns}
    columns = [called.get(name, name) for name in LABELS]
    table.require("study_id", *columns)
    study, *at = (table.columns.index(column) for column in ("study_id", *columns))
    known: dict[tuple[str, ...], dict[str, float]] = {}
    labels: dict[str, dict[str, float]] = {}
    for number, cells in zip(table.numbers, table.rows, strict=True):
        where = f"row {number} of {table.name}"
        written = tuple(cells[position] for position in at)
        if cells[study] in labels:
            raise UserError(f"{where}: study '{cells[study]}' has labels twice")
        if written not in known:
            values = zip(LABELS, written, columns, strict=True)
            known[written] = {name: label_value(value, where, column) for name, value, column in values}
        labels[cells[study]] = known[written]
    return labels


def _zip_reader(path: Path) -> Callable[[str], bytes | None]:
    """A function from the path of a report to what it holds; the zip stays open as long as the function lives."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as err:
        raise UserError(f"cannot read {path}: {err}; download it again from {CXR}") from err

    def read(name: str) -> bytes | None:
        try:
            return archive.read(name)
        except KeyError:
            return None

    return read


def _folder_reader(folder: Path | None) -> Callable[[str], bytes | None]:
    """The same for a folder, or for no reports at all."""

    def read(name: str) -> bytes | None:
        try:
            return None if folder is None else (folder / name).read_bytes()
        except FileNotFoundError:
            return None

    return read
