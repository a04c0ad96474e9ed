"""The reader of MIMIC-CXR on a small archive in the official layout, written here: its truth is what was written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import shutil
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.mimic_cxr import LABELS, MimicCxr
from lingula.data.image import letterbox
from lingula.data.preparation import prepare
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
# dicom_id, subject_id, study_id, ViewPosition, split
FILMS = [
    ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", "10000032", "50414267", "AP", "train"),
    ("174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962", "10000032", "50414267", "LATERAL", "train"),
    ("2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab", "10000032", "50414267", "PA", "train"),
    ("e084de3b-be89b11e-20fe3f9f-9c8d8dfe-4cfd202c", "10000032", "53189527", "PA", "train"),
    ("68b5c4b1-227d0485-9cc38c3f-7b84ab51-4b472714", "10000032", "53911762", "AP", "train"),
    ("fffabebf-74fd3a1f-673b6b41-96ec0ac9-2ab69818", "10000032", "53911762", "AP", "train"),
    ("ea030e7a-2e3b1346-bc518786-7a8fd698-f673b44c", "11000011", "56699142", "PA", "validate"),
    ("d2155cd6-ae44c3b1-cd1bd80e-5a5f4f9a-9d3a5bd1", "11000011", "56699143", "", "validate"),
    ("b75f2d01-7a0a2d3f-6e2cb7b8-9a0be0ad-b5e4f7a2", "19000022", "58800001", "PA", "test"),
    ("c3e1a9f0-1b2c3d4e-5f607182-93a4b5c6-d7e8f901", "19000022", "58800002", "AP", "test"),
    ("a1b2c3d4-e5f60718-293a4b5c-6d7e8f90-01122334", "19000022", "58800003", "AP", "test"),
    ("0f1e2d3c-4b5a6978-8796a5b4-c3d2e1f0-0a1b2c3d", "19000022", "58800004", "PA", "test"),
]
BANNER = "                                 FINAL REPORT\n"
RULE = " ______________________________________________________________________________\n"
REPORTS = {
    "50414267": BANNER
    + """ EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation or pneumothorax.  Bilateral nodular opacities
 that most likely represent nipple shadows.

 IMPRESSION:

 No acute cardiopulmonary process.
""",
    "53189527": " WET READ: ___ ___ ___ 8:09 AM\n  no edema at all\n"
    + RULE
    + BANNER
    + " CONCLUSION:  Normal chest film.\n",
    "53911762": BANNER + " PORTABLE AP CHEST:  Heart is large.\n\n IMPRESSION:  No pneumothorax is seen.\n",
    "56699142": "                                 ADDENDUM  Side corrected to left.\n"
    + RULE
    + BANNER
    + " FINDINGS:\n\n FINDINGS:  Left effusion, told to Dr. ___ at 5 p.m.\n",
    "56699143": BANNER + " FINDINGS AND IMPRESSION:  Clear lungs are seen.\n",
    "58800001": BANNER + " IMPRESSION:  No change.\n",  # two tokens
    "58800002": BANNER + " CHEST FILM OF ___.\n\n HISTORY:  Cough.\n\n Lungs are clear. Heart is large.\n",
    "58800003": "_",
    # 58800004 has no report
}
SENTENCES = {
    "50414267": [
        "there is no focal consolidation or pneumothorax.",
        "bilateral nodular opacities that most likely represent nipple shadows.",
        "no acute cardiopulmonary process.",
    ],
    "53189527": ["normal chest film."],
    "53911762": ["heart is large.", "no pneumothorax is seen."],
    "56699142": ["left effusion, told to dr. ___ at 5 p.m."],
}
CHEXPERT = {
    "50414267": {"No Finding": "1.0"},
    "53189527": {"Edema": "0.0", "Pneumonia": "-1.0", "Support Devices": "1.0"},
    "53911762": {"Cardiomegaly": "1.0", "Pneumothorax": "0.0"},
    "58800001": {"Lung Opacity": "1.0", "Edema": "0.0"},
}  # 56699142 and others could not be labelled: no row
NEGBIO = {"50414267": {"Fracture": "-1.0"}}
# its columns have another order and a name of their own
RADIOLOGIST_COLUMNS = ["study_id", "Airspace Opacity", *(name for name in reversed(LABELS) if name != "Lung Opacity")]
RADIOLOGIST = {"58800001": {"Airspace Opacity": "0.0", "Edema": "-1.0"}}


def write_csv(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    """Gzipped where the name says so."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_labels(path: Path, labels: dict[str, dict[str, str]]) -> None:
    patients = {study: patient for _, patient, study, _, _ in FILMS}
    rows = [[patients[study], study, *(values.get(name, "") for name in LABELS)] for study, values in labels.items()]
    write_csv(path, ["subject_id", "study_id", *LABELS], rows)


def write_tables(root: Path, films: list[tuple[str, ...]], suffix: str = ".csv.gz") -> None:
    root.mkdir(parents=True, exist_ok=True)
    rest = ["24", "20", "21800506", "213014.531", "CHEST (PA AND LAT)", "postero-anterior", "Erect"]
    metadata = [[dicom, patient, study, "CHEST, PA AND LAT", view, *rest] for dicom, patient, study, view, _ in films]
    splits = [[dicom, study, patient, split] for dicom, patient, study, _, split in films]
    write_csv(root / f"mimic-cxr-2.0.0-metadata{suffix}", METADATA.split(","), metadata)
    # the official table of splits has another order of rows
    write_csv(root / f"mimic-cxr-2.0.0-split{suffix}", ["dicom_id", "study_id", "subject_id", "split"], splits[::-1])
    write_labels(root / f"mimic-cxr-2.0.0-chexpert{suffix}", CHEXPERT)
    write_labels(root / f"mimic-cxr-2.0.0-negbio{suffix}", NEGBIO)


def study_folder(root: Path, patient: str, study: str) -> Path:
    return root / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}"


def pixels(position: int) -> np.ndarray:
    return np.full((24, 20), 20 * position, np.uint8)


def write_jpgs(root: Path) -> None:
    for position, (dicom, patient, study, _, _) in enumerate(FILMS):
        folder = study_folder(root, patient, study)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(position)).save(folder / f"{dicom}.jpg", quality=95)


def write_reports(root: Path) -> None:
    for patient, study in {(patient, study) for _, patient, study, _, _ in FILMS}:
        if study in REPORTS:
            path = study_folder(root, patient, study).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(REPORTS[study], encoding="utf-8")


def zip_reports(path: Path, unpacked: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(unpacked.rglob("*.txt")):
            archive.write(file, file.relative_to(unpacked))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return jpg(tmp_path / "mimic-cxr-jpg")


def jpg(root: Path) -> Path:
    """MIMIC-CXR-JPG with the reports' zip in it."""
    write_tables(root, FILMS)
    write_jpgs(root)
    write_reports(root.with_name("unpacked"))
    zip_reports(root / "mimic-cxr-reports.zip", root.with_name("unpacked"))
    return root


def with_labels(labels: str, other: str, folder: Path) -> dict[str, Any]:
    (jpg(folder) / f"mimic-cxr-2.0.0-{other}.csv.gz").unlink()
    return {"root": folder, "labels": labels}


DOWNLOADS = {
    "chexpert": partial(with_labels, "chexpert", "negbio"),
    "negbio": partial(with_labels, "negbio", "chexpert"),
}


def read(root: Path, **options: Any) -> list[Study | LeftOut]:
    return list(MimicCxr(root, **options).studies())


def studies(root: Path, **options: Any) -> list[Study]:
    return [row for row in read(root, **options) if isinstance(row, Study)]


def left_out(root: Path, **options: Any) -> Counter[str]:
    rows = [row for row in read(root, **options) if isinstance(row, LeftOut)]
    assert not any(row.bad for row in rows)
    return Counter(row.reason.partition(": ")[0] for row in rows)


def texts(study: Study) -> list[str]:
    return [sentence.text for sentence in study.sentences]


WANTED = [0, 2, 3, 4, 5, 6]  # of FILMS: frontal, with findings or impression of three tokens
OTHERS = {
    "other view": 1,
    "view not stated": 1,
    "report of fewer than 3 tokens": 1,
    "report without findings or impression": 2,
    "no report file": 1,
}


def test_every_field_of_a_study(root: Path) -> None:
    found = studies(root)
    assert [study.study_id for study in found] == [FILMS[position][0] for position in WANTED]
    for study, position in zip(found, WANTED, strict=True):
        dicom, patient, official, view, split = FILMS[position]
        assert (study.patient_id, study.view) == (patient, view)
        assert study.split == {"train": "train", "validate": "val", "test": "test"}[split]
        assert study.image == study_folder(root, patient, official) / f"{dicom}.jpg"
        assert texts(study) == SENTENCES[official]
        assert study.row == f"row {position + 2} of mimic-cxr-2.0.0-metadata.csv"
        assert list(study.labels) == list(LABELS)
        for name, value in study.labels.items():
            written = CHEXPERT.get(official, {}).get(name, "")
            assert value == float(written) if written else math.isnan(value)
    assert left_out(root) == OTHERS


def test_films_of_one_study_share_text_and_labels(root: Path) -> None:
    first, second = (study for study in studies(root) if study.study_id in (FILMS[0][0], FILMS[2][0]))
    assert first.sentences is second.sentences
    assert first.labels is second.labels


@pytest.mark.parametrize("place", ["beside the films", "own folder", "folder of the zip", "the zip", "unpacked zip"])
def test_reports_are_found_wherever_they_lie(root: Path, tmp_path: Path, place: str) -> None:
    archive = root / "mimic-cxr-reports.zip"
    options: dict[str, Path] = {}
    if place in ("the zip", "folder of the zip"):
        (tmp_path / "mimic-cxr").mkdir()
        archive = archive.rename(tmp_path / "mimic-cxr" / archive.name)
        options["reports"] = archive if place == "the zip" else archive.parent
    else:
        archive.unlink()
    if place == "beside the films":
        write_reports(root)
    elif place == "unpacked zip":
        write_reports(root / "mimic-cxr-reports")
    elif place == "own folder":
        options["reports"] = tmp_path / "unpacked"
    found = studies(root, **options)
    assert [texts(study) for study in found] == [SENTENCES[FILMS[position][2]] for position in WANTED]
    assert left_out(root, **options) == OTHERS


def test_reports_that_are_not_there(root: Path, tmp_path: Path) -> None:
    (root / "mimic-cxr-reports.zip").unlink()
    with pytest.raises(UserError) as error:
        read(root)
    assert f"no reports in {root}: expected mimic-cxr-reports.zip" in str(error.value)
    assert "PhysioNet, https://physionet.org/content/mimic-cxr/; name their place with --reports" in str(error.value)
    with pytest.raises(UserError, match=r"no reports at .*typo; expected mimic-cxr-reports.zip, from PhysioNet"):
        read(root, reports=tmp_path / "typo", require_report=False)
    assert MimicCxr(root).remarks == []
    without = MimicCxr(root, require_report=False)
    assert without.remarks == [f"no reports in {root}: films are prepared without text"]
    assert [study.sentences for study in studies(root, require_report=False)] == [()] * 10
    (root / "mimic-cxr-reports.zip").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"cannot read .*mimic-cxr-reports.zip: .*download it again from PhysioNet"):
        read(root)


def test_require_report_false_keeps_the_films(root: Path) -> None:
    found = {study.study_id: study for study in studies(root, require_report=False)}
    assert list(found) == [FILMS[position][0] for position in [*WANTED, 8, 9, 10, 11]]
    assert [texts(found[FILMS[position][0]]) for position in (8, 9, 10, 11)] == [[], [], [], []]
    assert texts(found[FILMS[3][0]]) == SENTENCES["53189527"]
    assert left_out(root, require_report=False) == {"other view": 1, "view not stated": 1}
    assert MimicCxr(root, require_report=False).remarks == []


def test_require_sections_false_takes_the_last_paragraph(root: Path) -> None:
    found = {study.study_id: texts(study) for study in studies(root, require_sections=False)}
    assert found.pop(FILMS[9][0]) == ["lungs are clear.", "heart is large."]
    assert list(found) == [FILMS[position][0] for position in WANTED]
    # the report of one underscore is now too short, not untitled
    assert left_out(root, require_sections=False)["report of fewer than 3 tokens"] == 2


def test_a_report_that_cannot_be_read_is_a_bad_row(root: Path, tmp_path: Path) -> None:
    report = study_folder(tmp_path / "unpacked", "10000032", "53189527").with_suffix(".txt")
    report.write_bytes(b" IMPRESSION: caf\xe9 au lait spots\n")
    bad = [row for row in read(root, reports=tmp_path / "unpacked", require_report=False) if isinstance(row, LeftOut)]
    (row,) = (row for row in bad if row.bad)
    assert row.row == "row 5 of mimic-cxr-2.0.0-metadata.csv"
    assert row.reason.startswith("unreadable report: files/p10/p10000032/s53189527.txt: 'utf-8' codec")
    archive = root / "mimic-cxr-reports.zip"
    data = archive.read_bytes()
    archive.write_bytes(data[:50] + bytes(byte ^ 255 for byte in data[50:60]) + data[60:])
    (row, *_) = (row for row in read(root) if isinstance(row, LeftOut) and row.bad)
    assert row.reason.startswith("unreadable report: files/p10/p10000032/s50414267.txt")


def test_views(root: Path) -> None:
    lateral = studies(root, views=["LATERAL"])
    assert [(study.study_id, study.view) for study in lateral] == [(FILMS[1][0], "LATERAL")]
    assert len(studies(root, views=["PA"])) == 3
    write_tables(root, [film if film[3] != "LATERAL" else (*film[:3], "AP AXIAL", film[4]) for film in FILMS])
    assert left_out(root) == OTHERS
    assert left_out(root, one_film=True)["other view"] == 1
    write_tables(root, FILMS)
    with pytest.raises(UserError, match="no film has the view 'pa'; the metadata's views: AP, LATERAL, PA"):
        read(root, views=["pa"])


def test_one_film_a_study(root: Path) -> None:
    """PA before AP, and the first of the table; with the order of views turned, AP before PA."""
    taken = [study.study_id for study in studies(root, one_film=True)]
    assert taken == [FILMS[position][0] for position in (2, 3, 4, 6)]
    assert left_out(root, one_film=True) == {**OTHERS, "another film of the study is taken": 2}
    assert studies(root, one_film=True, views=["AP", "PA"])[0].study_id == FILMS[0][0]
    # a film that is not there is not the one of a partial archive
    (study_folder(root, "10000032", "50414267") / f"{FILMS[2][0]}.jpg").unlink()
    assert [study.study_id for study in studies(root, one_film=True)] == taken
    partial = [study.study_id for study in studies(root, one_film=True, partial=True)]
    assert partial == [FILMS[position][0] for position in (0, 3, 4, 6)]


def test_labels(root: Path) -> None:
    negbio = studies(root, labels="negbio")[0].labels
    assert negbio["Fracture"] == -1
    assert math.isnan(negbio["No Finding"])
    assert all(study.labels == {} for study in studies(root, labels="none"))
    (root / "mimic-cxr-2.0.0-negbio.csv.gz").unlink()
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    assert len(studies(root, labels="none")) == len(WANTED)
    with pytest.raises(UserError) as error:
        read(root, labels="negbio")
    assert str(error.value) == (
        f"no mimic-cxr-2.0.0-negbio.csv or mimic-cxr-2.1.0-negbio.csv in {root}; it comes from PhysioNet, "
        "https://physionet.org/content/mimic-cxr-jpg/"
    )


def test_a_radiologists_labels_of_the_test_split(root: Path) -> None:
    with pytest.raises(UserError, match=r"no mimic-cxr-2\.1\.0-test-set-labeled\.csv in .*PhysioNet"):
        read(root, radiologist=True)
    rows = [[study, *(row.get(name, "") for name in RADIOLOGIST_COLUMNS[1:])] for study, row in RADIOLOGIST.items()]
    write_csv(root / "mimic-cxr-2.1.0-test-set-labeled.csv", RADIOLOGIST_COLUMNS, rows)
    machine = {study.study_id: study.labels for study in studies(root, require_report=False)}
    found = {study.study_id: study.labels for study in studies(root, require_report=False, radiologist=True)}
    labelled, unlabelled = found[FILMS[8][0]], found[FILMS[9][0]]
    assert list(labelled) == list(LABELS)
    assert {name: value for name, value in labelled.items() if value == value} == {"Lung Opacity": 0, "Edema": -1}
    assert machine[FILMS[8][0]]["Lung Opacity"] == 1
    assert all(math.isnan(value) for value in unlabelled.values())
    for position in (0, 3):  # of the train split
        assert found[FILMS[position][0]] == pytest.approx(machine[FILMS[position][0]], nan_ok=True)
    with pytest.raises(UserError, match="choose labels chexpert or negbio, not none"):
        MimicCxr(root, labels="none", radiologist=True)


@pytest.mark.parametrize("version", ["2.0.0", "2.1.0"])
def test_unpacked_tables_of_both_versions_in_a_folder_of_their_own(root: Path, tmp_path: Path, version: str) -> None:
    write_tables(tmp_path / "tables", FILMS, ".csv")
    for path in (tmp_path / "tables").iterdir():
        path.rename(path.with_name(path.name.replace("2.0.0", version)))
    for path in root.glob("*.csv.gz"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"no mimic-cxr-2\.0\.0-metadata\.csv or .* in .*; it comes from PhysioNet, http"
    ):
        read(root)
    found = read(root, tables=tmp_path / "tables")
    assert sum(isinstance(row, Study) for row in found) == len(WANTED)
    assert found[1].row == f"row 3 of mimic-cxr-{version}-metadata.csv"


def test_missing_folders(root: Path) -> None:
    shutil.rmtree(root / "files")
    with pytest.raises(UserError, match=r"no folder files in .*mimic-cxr-jpg; it comes from PhysioNet"):
        read(root)


def test_rows_that_contradict_or_lack_something(root: Path) -> None:
    write_csv(root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "split"], [[FILMS[0][0], "train"]])
    rows = read(root)
    assert isinstance(rows[0], Study)
    assert rows[2] == LeftOut(
        "row 4 of mimic-cxr-2.0.0-metadata.csv", f"no split: {FILMS[2][0]} is not in the table of splits"
    )
    for splits, message in (
        (["holdout"], "row 2 of mimic-cxr-2.0.0-split.csv: unknown split 'holdout'; expected train, validate, test"),
        (["train", "test"], f"row 3 of mimic-cxr-2.0.0-split.csv: '{FILMS[0][0]}' has a split twice"),
    ):
        write_csv(
            root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "split"], [[FILMS[0][0], split] for split in splits]
        )
        with pytest.raises(UserError, match=message):
            read(root)
    write_tables(root, FILMS)
    write_labels(root / "mimic-cxr-2.0.0-chexpert.csv.gz", {"50414267": {"Edema": "2.0"}})
    with pytest.raises(UserError, match=r"row 2 of mimic-cxr-2\.0\.0-chexpert\.csv: '2\.0' in label column 'Edema'"):
        read(root)
    path = root / "mimic-cxr-2.0.0-chexpert.csv.gz"
    write_csv(path, ["subject_id", "study_id", *LABELS], [["1", "50414267", *[""] * 14]] * 2)
    with pytest.raises(UserError, match=r"row 3 of mimic-cxr-2\.0\.0-chexpert\.csv: study '50414267' has labels twice"):
        read(root)
    write_tables(root, [("", "10000032", "50414267", "AP", "train")])
    with pytest.raises(UserError, match=r"row 2 of mimic-cxr-2\.0\.0-metadata\.csv: dicom_id, subject_id or study_id"):
        read(root)


# Prepared -------------------------------------------------------------------------------------------------------------


def test_prepared_by_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["prepare", "mimic-cxr", "--root", str(root), "--out", str(out), "--size", "24", "--workers", "0"])
    printed = capsys.readouterr().out
    assert "mimic-cxr: prepared 6 studies (5 train, 1 val, 0 test)" in printed
    assert "mimic-cxr: left out 2 rows: report without findings or impression" in printed
    assert "6 studies; CM-CGNS, section IV-A states 232,286: 232,280 fewer; left out: " in printed
    meta = json.loads((out / "corpus.json").read_text())
    assert meta["left_out"] == OTHERS
    assert meta["patients"] == {"train": 1, "val": 1, "test": 0}
    assert meta["label_names"] == list(LABELS)
    with (out / "left_out.csv").open(newline="") as file:
        rows = {row["row"]: row["reason"] for row in csv.DictReader(file)}
    assert rows["row 3 of mimic-cxr-2.0.0-metadata.csv"] == "other view: LATERAL"
    assert rows["row 10 of mimic-cxr-2.0.0-metadata.csv"] == (
        "report of fewer than 3 tokens: files/p19/p19000022/s58800001.txt: No change."
    )
    assert rows["row 13 of mimic-cxr-2.0.0-metadata.csv"] == "no report file: files/p19/p19000022/s58800004.txt"


def test_prepared(root: Path, tmp_path: Path) -> None:
    corpus = prepare(MimicCxr(root), tmp_path / "out", size=24, workers=0, log=lambda _: None)
    assert list(corpus.reports) == [SENTENCES[FILMS[position][2]] for position in WANTED]
    assert corpus.to_pandas()["split"].tolist() == ["train"] * 5 + ["val"]
    for row, position in enumerate(WANTED):
        expected = letterbox(pixels(position), 24)[0]
        assert np.abs(corpus.pixels[row].astype(int) - expected).max() <= 2  # JPEG


def test_a_patient_in_two_splits_is_refused(root: Path, tmp_path: Path) -> None:
    films = [(*film[:4], "test") if film[2] == "53189527" else film for film in FILMS]
    write_tables(root, films)
    with pytest.raises(UserError) as error:
        prepare(MimicCxr(root), tmp_path / "out", log=lambda _: None)
    assert (
        "mimic-cxr: patient '10000032' is in two splits: train (row 2 of mimic-cxr-2.0.0-metadata.csv) and test"
        in str(error.value)
    )


def test_a_missing_film_is_bad_only_where_it_is_wanted(root: Path, tmp_path: Path) -> None:
    log: list[str] = []
    lateral = study_folder(root, "10000032", "50414267") / f"{FILMS[1][0]}.jpg"
    lateral.unlink()
    (study_folder(root, "19000022", "58800001") / f"{FILMS[8][0]}.jpg").unlink()  # its report is too short
    assert len(prepare(MimicCxr(root), tmp_path / "first", size=8, workers=0, log=log.append)) == len(WANTED)
    shutil.rmtree(root / "files/p11")
    with pytest.raises(UserError, match=r"mimic-cxr: row 8 of .*: missing image file: .*p11.*\.jpg; mend them"):
        prepare(MimicCxr(root), tmp_path / "second", size=8, workers=0, log=log.append)
    assert left_out(root, partial=True) == {
        "other view": 1,
        "view not stated": 1,
        "not in this part of the archive": 2,
        "report without findings or impression": 2,
        "no report file": 1,
    }
    part = prepare(MimicCxr(root, partial=True), tmp_path / "third", size=8, workers=0, log=log.append)
    assert part.meta["studies"] == {"train": 5, "val": 0, "test": 0}
    assert not any("states" in line for line in log[log.index(next(x for x in log if "archive" in x)) :])


def test_the_fingerprint_follows_the_films_of_a_part(root: Path) -> None:
    first = MimicCxr(root).fingerprint()
    partial = MimicCxr(root, partial=True).fingerprint()
    assert partial != first
    (study_folder(root, "11000011", "56699142") / f"{FILMS[6][0]}.jpg").unlink()
    assert MimicCxr(root).fingerprint() == first
    assert MimicCxr(root, partial=True).fingerprint() != partial


def test_sizes_are_stated_only_for_the_papers_choice(root: Path) -> None:
    (stated,) = MimicCxr(root, views=["AP", "PA"]).stated
    assert (stated.count, stated.what, stated.where) == (232_286, "studies", "CM-CGNS, section IV-A")
    for options in (
        {"views": ["PA"]},
        {"one_film": True},
        {"partial": True},
        {"require_report": False},
        {"require_sections": False},
    ):
        assert MimicCxr(root, **options).stated == ()


# DICOM ----------------------------------------------------------------------------------------------------------------


def write_dicom(path: Path, film: np.ndarray) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientID = path.parent.parent.name[1:]
    data.Rows, data.Columns = film.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = film.astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def test_the_dicom_archive(tmp_path: Path) -> None:
    """MIMIC-CXR itself: films as DICOM, reports beside their folders, and lists of both instead of tables."""
    root, tables = tmp_path / "mimic-cxr", tmp_path / "mimic-cxr-jpg"
    write_reports(root)
    records, films = [], {}
    for position, (dicom, patient, study, _, _) in enumerate(FILMS):
        folder = study_folder(root, patient, study)
        folder.mkdir(parents=True, exist_ok=True)
        films[dicom] = np.linspace(0, 4095, 24 * 20).reshape(24, 20) * (position + 1) / len(FILMS)
        write_dicom(folder / f"{dicom}.dcm", films[dicom])
        records.append([patient, study, dicom, str((folder / f"{dicom}.dcm").relative_to(root))])
    write_csv(root / "cxr-record-list.csv.gz", ["subject_id", "study_id", "dicom_id", "path"], records)
    reports = [[patient, study, f"files/p{patient[:2]}/p{patient}/s{study}.txt"] for patient, study, *_ in records]
    write_csv(root / "cxr-study-list.csv.gz", ["subject_id", "study_id", "path"], reports)
    with pytest.raises(UserError, match=r"no mimic-cxr-2\.0\.0-metadata\.csv .* PhysioNet, .*/mimic-cxr-jpg/"):
        read(root)
    write_tables(tables, FILMS)
    corpus = prepare(MimicCxr(root, tables=tables), tmp_path / "out", size=24, workers=0, log=lambda _: None)
    assert corpus.to_pandas()["study_id"].tolist() == [FILMS[position][0] for position in WANTED]
    assert list(corpus.reports) == [SENTENCES[FILMS[position][2]] for position in WANTED]
    for row, dicom in enumerate(corpus.to_pandas()["study_id"]):
        film = np.round(films[dicom] * 255 / 4095).astype(np.uint8)
        assert np.abs(corpus.pixels[row].astype(int) - letterbox(film, 24)[0]).max() <= 1
    partial = studies(root, tables=tables, partial=True)
    assert len(partial) == len(WANTED)
    assert all(isinstance(study.image, Path) and study.image.suffix == ".dcm" for study in partial)
