"""The reader of CheXpert Plus, on small archives in the official layout."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.chexpert_plus import CheXpertPlus
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

COLUMNS = (
    "path_to_image path_to_dcm frontal_lateral ap_pa deid_patient_id patient_report_date_order report "
    "section_narrative section_clinical_history section_history section_comparison section_technique "
    "section_procedure_comments section_findings section_impression section_end_of_impression section_summary "
    "section_accession_number age sex race ethnicity interpreter_needed insurance_type recent_bmi deceased split"
)
HEADER = COLUMNS.split(" ")
LABELS = [
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
]
FIVE = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
TABLE = "df_chexpert_plus_240401.csv"
FRAME = """NARRATIVE:
Chest 1 View, 8-8-2005

HISTORY: 61 years Female, ICU patient

{}

SUMMARY: 2-ABNORMAL, PREVIOUSLY REPORTED
I have personally reviewed the images for this examination and agreed
with the report transcribed above.

ACCESSION NUMBER:
9959089
This report has been anonymized. All dates are offset from the actual dates."""


def film(path: str, findings: str = "", impression: str = "", report: str = "", **cells: str) -> dict[str, str]:
    split, patient, study = path.split("/")[:3]
    side = "Lateral" if "lateral" in path else "Frontal"
    row = {
        "path_to_image": path,
        "path_to_dcm": path.replace(".jpg", ".dcm"),
        "frontal_lateral": side,
        "ap_pa": "AP" if side == "Frontal" else "",
        "deid_patient_id": patient,
        "patient_report_date_order": study[-1],
        "report": report or FRAME.format(f"FINDINGS:\n{findings}\n\nIMPRESSION:\n{impression}"),
        "section_findings": findings,
        "section_impression": impression,
        "section_summary": "2-ABNORMAL, PREVIOUSLY REPORTED",
        "age": "62.0",
        "sex": "Female",
        "split": split,
    }
    return row | cells


ROWS = [
    film(
        "train/patient42142/study5/view1_frontal.jpg",
        impression="\n\n1.TRACHEOSTOMY TUBE REMAINS IN PLACE.  RIGHT PICC IS IN STABLE AND\nSTANDARD POSITION.\n\n"
        "2.NO EVIDENCE OF PNEUMOTHORAX.",
    ),
    film("train/patient42142/study5/view2_lateral.jpg", impression="Normal chest. No effusion."),
    film("train/patient00001/study1/view1_frontal.jpg", "The lungs are clear.", "No acute disease."),
    film("train/patient00002/study1/view1_frontal.jpg", report=FRAME.format("Mild edema is\nseen in both lungs.")),
    film("train/patient00003/study1/view1_frontal.jpg", report=FRAME.format("")),
    film("train/patient00004/study1/view1_frontal.jpg", "\\n", "1. Small effusion.\\n\\n2. No edema.", ap_pa="PA"),
    film(
        "valid/patient64541/study1/view1_frontal.jpg",
        impression="Large right effusion.",
        report="FINDINGS: This is not read, as there is a section.",
    ),
]
READ = [
    [
        "tracheostomy tube remains in place.",
        "right picc is in stable and standard position.",
        "no evidence of pneumothorax.",
    ],
    ["the lungs are clear.", "no acute disease."],
    ["mild edema is seen in both lungs."],
    ["small effusion.", "no edema."],
    ["large right effusion."],
]


def archive(root: Path, rows: list[dict[str, str]] = ROWS, image: Path | None = None) -> Path:
    root.mkdir(exist_ok=True)
    with (root / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER, restval="")
        writer.writeheader()
        writer.writerows(rows)
    (root / "PNG" / "train").mkdir(parents=True, exist_ok=True)
    if image:
        for row in rows:
            path = root / "PNG" / row["path_to_image"].replace(".jpg", ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(image)
    return root


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "film.png"
    Image.fromarray(np.full((12, 10), 1000, np.uint16)).save(path)
    return path


def label(root: Path, labels: dict[str, dict[str, float]], name: str = "chexbert_labels/impression_fixed.json") -> None:
    """One JSON object a line, all 14 labels in each."""
    (root / name).parent.mkdir(exist_ok=True)
    lines = [json.dumps({"path_to_image": path} | dict.fromkeys(LABELS) | own) for path, own in labels.items()]
    (root / name).write_text("\n".join(lines) + "\n")


def png(folder: Path) -> dict[str, Any]:
    image = folder.with_name("film.png")
    Image.fromarray(np.full((12, 10), 1000, np.uint16)).save(image)
    label(archive(folder, ROWS, image), {row["path_to_image"]: {"Edema": 1.0} for row in ROWS})
    return {"root": folder, "hold_out_5x200": False}


DOWNLOADS = {"png": png}
OPTIONAL = ["impression_fixed.json"]  # without labels no 5x200 set is held out


def read(root: Path, **options: Any) -> list[Study | LeftOut]:
    return list(CheXpertPlus(root, **{"hold_out_5x200": False} | options).studies())


def studies(root: Path, **options: Any) -> dict[str, Study]:
    return {row.study_id: row for row in read(root, **options) if isinstance(row, Study)}


# Rows -----------------------------------------------------------------------------------------------------------------


def test_every_row(tmp_path: Path) -> None:
    rows = read(archive(tmp_path))
    assert [row.row.partition(" of ")[2] for row in rows] == [TABLE] * 7
    assert rows[1] == LeftOut(rows[1].row, "view not wanted: lateral", bad=False)
    assert rows[4] == LeftOut(rows[4].row, "report of fewer than 3 tokens: Chest 1 View, 8-8-2005", bad=False)
    found = [row for row in rows if isinstance(row, Study)]
    assert [[sentence.text for sentence in row.sentences] for row in found] == READ
    assert [row.study_id for row in found] == [
        "patient42142/study5/view1_frontal",
        "patient00001/study1/view1_frontal",
        "patient00002/study1/view1_frontal",
        "patient00004/study1/view1_frontal",
        "patient64541/study1/view1_frontal",
    ]
    assert [row.patient_id for row in found] == [row.study_id.partition("/")[0] for row in found]
    assert [row.split for row in found] == [None] * 4 + ["test"]
    assert [row.view for row in found] == ["AP", "AP", "AP", "PA", "AP"]
    assert [row.labels for row in found] == [{}] * 5
    assert found[0].image == tmp_path / "PNG/train/patient42142/study5/view1_frontal.png"
    assert found[4].image == tmp_path / "PNG/valid/patient64541/study1/view1_frontal.png"


def test_parquet_and_compressed_tables(tmp_path: Path) -> None:
    expected = [(row.study_id, row.sentences, row.view) for row in studies(archive(tmp_path)).values()]
    text = (tmp_path / TABLE).read_bytes()
    (tmp_path / f"{TABLE}.gz").write_bytes(gzip.compress(text))
    pd.read_csv(tmp_path / TABLE).to_parquet(tmp_path / TABLE.replace(".csv", ".parquet"))
    for name in (TABLE, f"{TABLE}.gz"):
        (tmp_path / name).unlink()
        assert [(row.study_id, row.sentences, row.view) for row in studies(tmp_path).values()] == expected


def test_views(tmp_path: Path) -> None:
    archive(tmp_path)
    lateral = studies(tmp_path, views=["Lateral"])
    assert [(name, row.view) for name, row in lateral.items()] == [("patient42142/study5/view2_lateral", "lateral")]
    assert list(studies(tmp_path, views=["pa"])) == ["patient00004/study1/view1_frontal"]
    with pytest.raises(UserError, match=r"unknown view 'PAA'; did you mean 'PA'\?"):
        CheXpertPlus(tmp_path, views=["PAA"])


@pytest.mark.parametrize(
    ("folder", "films", "images"),
    [
        ("PNG", "png", None),
        ("PNG/PNG", "png", None),
        (".", "png", None),
        ("DICOM", "dcm", None),
        ("DICOM/Uncompressed", "dcm", None),
        (".", "jpg", None),
        ("CheXpert-v1.0-small", "jpg", None),
        ("elsewhere", "jpg", "elsewhere"),
    ],
)
def test_where_the_films_lie(tmp_path: Path, folder: str, films: Any, images: str | None) -> None:
    archive(tmp_path)
    (tmp_path / "PNG" / "train").rmdir()
    with pytest.raises(UserError, match=r"no folder .*(train or .*valid)* in .*; it comes from Stanford AIMI"):
        read(tmp_path, films=films)
    (tmp_path / folder / "valid").mkdir(parents=True)  # train is not needed to know the place
    found = studies(tmp_path, films=films, images=images and tmp_path / images)
    first = found["patient00001/study1/view1_frontal"]
    assert first.image == tmp_path / folder / f"train/patient00001/study1/view1_frontal.{films}"


def test_the_folder_of_the_films_is_taken_as_it_is_given(tmp_path: Path) -> None:
    archive(tmp_path)
    for name in ("elsewhere/train", "elsewhere/PNG/train"):
        (tmp_path / name).mkdir(parents=True)
    images = tmp_path / "elsewhere"
    first = studies(tmp_path, images=images)["patient00001/study1/view1_frontal"]
    assert first.image == images / "train/patient00001/study1/view1_frontal.png"


def test_bad_rows_and_missing_columns(tmp_path: Path) -> None:
    archive(
        tmp_path,
        [
            film("train/patient00001/study1/film.jpg", impression="No acute disease."),
            film("train/patient00001/study1/view1_frontal.jpg", impression="No disease.", deid_patient_id="patient2"),
        ],
    )
    rows = read(tmp_path)
    assert all(isinstance(row, LeftOut) and row.bad for row in rows)
    assert [row.reason.partition(":")[0] for row in rows if isinstance(row, LeftOut)] == [
        "unreadable path",
        "two patients",
    ]
    (tmp_path / TABLE).write_text("path_to_image,ap_pa\nx,y\n")
    with pytest.raises(UserError, match=r"has no column 'frontal_lateral'"):
        read(tmp_path)


# Labels ---------------------------------------------------------------------------------------------------------------


def test_labels_of_a_section(tmp_path: Path) -> None:
    archive(tmp_path)
    told = {row["path_to_image"]: {"No Finding": 1.0} for row in ROWS}
    told[ROWS[0]["path_to_image"]] = {"Support Devices": 1.0, "Pneumothorax": 0.0, "Edema": -1.0}
    del told[ROWS[6]["path_to_image"]]
    for section in ("impression", "findings", "report"):
        label(tmp_path, told, f"chexbert_labels/{section}_fixed.json")
    found = studies(tmp_path)
    assert all(sorted(row.labels) == sorted(LABELS) for row in found.values())

    def known(**options: Any) -> list[dict[str, float]]:
        return [
            {name: value for name, value in row.labels.items() if not math.isnan(value)}
            for row in studies(tmp_path, **options).values()
        ]

    marked = {"Support Devices": 1, "Pneumothorax": 0, "Edema": -1}
    assert known() == [marked, {"No Finding": 1}, {}, {"No Finding": 1}, {}]  # the third has no impression
    assert known(labels_of="findings") == [{}, {"No Finding": 1}, {}, {}, {}]
    assert known(labels_of="report") == [marked, *[{"No Finding": 1}] * 3, {}]
    reader = CheXpertPlus(tmp_path, hold_out_5x200=False)
    assert reader.remarks == ["labels of impression_fixed.json"]


def test_labels_beside_the_table_and_compressed(tmp_path: Path) -> None:
    archive(tmp_path)
    label(tmp_path, {ROWS[0]["path_to_image"]: {"Edema": 1.0}}, "impression_fixed.json")
    path = tmp_path / "impression_fixed.json"
    assert studies(tmp_path)["patient42142/study5/view1_frontal"].labels["Edema"] == 1
    (tmp_path / "impression_fixed.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert studies(tmp_path)["patient42142/study5/view1_frontal"].labels["Edema"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 of impression_fixed.json: expected an object with path_to_image and 14 labels: JSONDecodeError"),
        ("[1]", r"line 2 of impression_fixed.json: expected an object .*TypeError"),
        ('{"path_to_image": "x"}', r"line 2 of impression_fixed.json: expected an object .*KeyError\('No Finding'\)"),
        (
            json.dumps({"path_to_image": "x"} | dict.fromkeys(LABELS) | {"Edema": 3}),
            r"line 2 of impression_fixed.json: '3' in label column 'Edema'; expected 1, 0, -1",
        ),
    ],
)
def test_unreadable_labels(tmp_path: Path, line: str, message: str) -> None:
    archive(tmp_path)
    label(tmp_path, {ROWS[0]["path_to_image"]: {}})
    with (tmp_path / "chexbert_labels/impression_fixed.json").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_the_labels_of_chexpert_itself(tmp_path: Path) -> None:
    archive(tmp_path)
    label(tmp_path, {row["path_to_image"]: {"Edema": 1.0} for row in ROWS})
    table = tmp_path / "train.csv"
    names = ",".join(LABELS)
    values = ",".join("-1.0" if name == "Edema" else "" for name in LABELS)
    table.write_text(f"Path,{names}\nCheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,{values}\n")
    found = studies(tmp_path, label_table=table)
    assert found["patient00002/study1/view1_frontal"].labels["Edema"] == -1
    assert math.isnan(found["patient00001/study1/view1_frontal"].labels["Edema"])
    assert CheXpertPlus(tmp_path, label_table=table, hold_out_5x200=False).remarks == ["labels of train.csv"]
    with pytest.raises(UserError, match=rf"no table of labels at {tmp_path}/nowhere.csv"):
        CheXpertPlus(tmp_path, label_table=tmp_path / "nowhere.csv").fingerprint()


def test_without_labels(tmp_path: Path) -> None:
    archive(tmp_path)
    message = r"no chexbert_labels/findings_fixed.json or findings_fixed.json in .*; it comes from Stanford AIMI, [^ ]*"
    with pytest.raises(UserError, match=message + "; to hold out no 5x200 set: --hold_out_5x200 false$"):
        CheXpertPlus(tmp_path, labels_of="findings").fingerprint()
    with pytest.raises(UserError, match=message + "$"):
        CheXpertPlus(tmp_path, part="5x200", labels_of="findings", hold_out_5x200=False).fingerprint()
    assert CheXpertPlus(tmp_path, hold_out_5x200=False).remarks == [
        "no chexbert_labels/impression_fixed.json: films have no labels, and no 5x200 set is held out"
    ]


# 5x200 ----------------------------------------------------------------------------------------------------------------

SAID = "Small left effusion."


def candidates() -> tuple[list[dict[str, str]], dict[str, dict[str, float]], dict[str, str]]:
    """Rows, their labels, and the class of each film that may be drawn: 202 of each, seven films a patient."""
    rows, labels, classes = [], {}, {}
    for number in range(5 * 202):
        own = FIVE[number % 5]
        study = f"patient{number // 7:05}/study{number % 7 + 1}"
        path = f"train/{study}/view1_frontal.jpg"
        rows.append(film(path, impression=SAID))
        labels[path] = {own: 1.0, "No Finding": [None, 0.0, 1.0][number % 3]}
        classes[f"{study}/view1_frontal"] = own
    decoys: list[tuple[dict[str, float], str, str]] = [
        ({"Edema": 1.0, "Atelectasis": 1.0}, "train/{}/view1_frontal.jpg", SAID),
        ({"Edema": 1.0, "Support Devices": -1.0}, "train/{}/view1_frontal.jpg", SAID),
        ({"Edema": 1.0}, "train/{}/view1_lateral.jpg", SAID),
        ({"Edema": 1.0}, "train/{}/view1_frontal.jpg", "Edema."),  # no report
        ({"Edema": 1.0}, "valid/{}/view1_frontal.jpg", SAID),
    ]
    for number in range(300):
        own_labels, path, said = decoys[number % 5]
        path = path.format(f"patient{60000 + number}/study1")
        rows.append(film(path, impression=said))
        labels[path] = own_labels
    return rows, labels, classes


def expected_draw(classes: dict[str, str], seed: int = 0) -> dict[str, str]:
    drawn: dict[str, str] = {}
    for own in FIVE:
        ordered = sorted(
            (name for name, of in classes.items() if of == own),
            key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(),
        )
        drawn |= dict.fromkeys(ordered[:200], own)
    return drawn


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Path:
    rows, labels, _ = candidates()
    random.Random(2).shuffle(rows)
    root = archive(tmp_path_factory.mktemp("large") / "plus", rows, image)
    label(root, labels)
    return root


def test_5x200(large: Path, tmp_path: Path) -> None:
    reader = CheXpertPlus(large, part="5x200", views=["lateral"])
    expected = expected_draw(candidates()[2])
    digest = hashlib.sha256("\n".join(sorted(expected)).encode()).hexdigest()[:16]
    lines: list[str] = []
    corpus = prepare(reader, tmp_path / "out", size=8, workers=0, log=lines.append)
    assert lines[:2] == [
        "chexpert-plus: labels of impression_fixed.json",
        f"chexpert-plus: 5x200 set, 1000 films of train, seed 0, ids sha256 {digest}",
    ]
    assert corpus.meta["studies"] == {"train": 0, "val": 0, "test": 1000}
    assert corpus.meta["left_out"] == {"view not wanted": 60, "not of the 5x200 set": 250}
    assert corpus.label_groups == {"5x200": FIVE}
    assert sorted(corpus.label_names) == sorted(FIVE)
    values = corpus.labels(FIVE)
    assert (values.sum(1) == 1).all()
    chosen = [FIVE[place] for place in values.argmax(1)]
    assert dict(zip(corpus.to_pandas()["study_id"], chosen, strict=True)) == expected
    assert list(corpus.reports) == [["small left effusion."]] * 1000
    other = CheXpertPlus(large, part="5x200", sample_seed=4)
    assert {row.study_id for row in other.studies() if isinstance(row, Study)} == set(expected_draw(candidates()[2], 4))


def test_the_patients_of_the_5x200_set_are_held_out(large: Path) -> None:
    drawn = {name.partition("/")[0] for name in expected_draw(candidates()[2])}
    reader = CheXpertPlus(large)
    rows = list(reader.studies())
    kept = {row.patient_id: row.split for row in rows if isinstance(row, Study)}
    assert not drawn & set(kept)
    assert sum(split == "test" for split in kept.values()) == 60
    held_out = [
        row for row in rows if isinstance(row, LeftOut) and row.reason.startswith("held out for the 5x200 set: ")
    ]
    assert len(held_out) == sum(name.partition("/")[0] in drawn for name in candidates()[2]) >= 1000
    assert not any(row.bad for row in held_out)
    assert reader.remarks[1].startswith(f"{len(drawn)} patients are held out of train and val: 5x200 set, 1000 films")
    assert reader.label_groups == {}
    assert drawn <= {row.patient_id for row in read(large) if isinstance(row, Study)}


def test_too_few_films_for_a_5x200_set(tmp_path: Path) -> None:
    label(archive(tmp_path), {row["path_to_image"]: {"Edema": 1.0} for row in ROWS})
    message = rf"{TABLE}: no 5x200 set: 200 of each class are wanted, and there are too few of: .* Edema 3, "
    with pytest.raises(UserError, match=message):  # of five train frontals, two have no impression
        list(CheXpertPlus(tmp_path, part="5x200").studies())
    with pytest.raises(UserError, match=message + r".*; to hold out no 5x200 set: --hold_out_5x200 false$"):
        list(CheXpertPlus(tmp_path).studies())


# Prepared -------------------------------------------------------------------------------------------------------------


def test_prepared_by_the_command_line(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = archive(tmp_path / "plus", ROWS, image)
    label(root, {row["path_to_image"]: {"Edema": 1.0} for row in ROWS})
    options = ["--size", "16", "--workers", "0", "--hold_out_5x200", "false"]
    main(["prepare", "chexpert-plus", "--root", str(root), "--out", str(tmp_path / "out"), *options])
    said = capsys.readouterr().out
    assert "5 studies; CheXpert Plus, arXiv:2405.19538 states 223,228: 223,223 fewer; left out: 1 view" in said
    meta = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert meta["studies"]["test"] == 1
    assert meta["studies"]["train"] + meta["studies"]["val"] == 4
    assert meta["left_out"] == {"view not wanted": 1, "report of fewer than 3 tokens": 1}
    assert (meta["uncertain_as"], meta["unknown_as"], meta["label_groups"]) == ({}, {}, {})
    index = PreparedCorpus.open(tmp_path / "out").to_pandas()
    assert [list(sentences) for sentences in index["sentences"]] == READ
