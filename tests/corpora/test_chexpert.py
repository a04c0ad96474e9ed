"""The reader of CheXpert, on small archives in the official layouts."""

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
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.chexpert import CheXpert
from lingula.data.preparation import prepare
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

WRITTEN = """\
Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,\
Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"""
HEADER = WRITTEN.split(",")
FIVE = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
SMALL = "CheXpert-v1.0-small"


def film(path: str, view: str = "AP", **labels: str) -> dict[str, str]:
    """One row; labels by name with underscores for spaces, all others blank."""
    side = "Lateral" if "lateral" in path else "Frontal"
    row = {"Path": path, "Sex": "Female", "Age": "68", "Frontal/Lateral": side, "AP/PA": view * (side == "Frontal")}
    return row | {name.replace("_", " "): value for name, value in labels.items()}


def write(path: Path, rows: list[dict[str, str]], header: list[str] = HEADER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(rows)


def draw(path: Path, grey: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 10), grey, np.uint8)).save(path)


TRAIN = [
    film("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", No_Finding="1.0", Support_Devices="1.0"),
    film("CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg", Cardiomegaly="-1.0", Edema="-1.0"),
    film("CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg", "PA", Atelectasis="0.0"),
    film("CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg", Atelectasis="0.0"),
    film("CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg", "LL", Edema="1.0"),
]
VALID = [
    film("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg", **dict.fromkeys(FIVE[:2], "1.0")),
    film("CheXpert-v1.0-small/valid/patient64542/study1/view1_frontal.jpg", "PA", **dict.fromkeys(FIVE[:3], "0.0")),
    film("CheXpert-v1.0-small/valid/patient64542/study1/view2_lateral.jpg"),
]


def archive(root: Path, train: list[dict[str, str]] = TRAIN, valid: list[dict[str, str]] = VALID) -> Path:
    write(root / SMALL / "train.csv", train)
    write(root / SMALL / "valid.csv", valid)
    return root


def draw_all(root: Path, *tables: list[dict[str, str]]) -> None:
    for number, row in enumerate(row for table in tables for row in table):
        draw(root / row["Path"], 10 * number)


def small(folder: Path) -> dict[str, Any]:
    draw_all(archive(folder), TRAIN, VALID)
    return {"root": folder, "hold_out_5x200": False, "val_films": 1}


DOWNLOADS = {"small": small}


def read(root: Path, **options: Any) -> list[Study | LeftOut]:
    return list(CheXpert(root, **{"hold_out_5x200": False, "val_films": 1} | options).studies())


def studies(root: Path, **options: Any) -> dict[str, Study]:
    return {row.study_id: row for row in read(root, **options) if isinstance(row, Study)}


def kinds(rows: list[Study | LeftOut]) -> list[str]:
    return [row.reason for row in rows if isinstance(row, LeftOut)]


def first_by_hash(keys: Any, seed: int) -> list[str]:
    return sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest())


# Rows -----------------------------------------------------------------------------------------------------------------


def test_every_row(tmp_path: Path) -> None:
    rows = read(archive(tmp_path))
    assert [row.row for row in rows] == [f"row {n} of train.csv" for n in range(2, 7)] + [
        f"row {n} of valid.csv" for n in range(2, 5)
    ]
    assert rows[3] == LeftOut("row 5 of train.csv", "view not wanted: lateral", bad=False)
    assert rows[7] == LeftOut("row 4 of valid.csv", "view not wanted: lateral", bad=False)
    second = rows[1]
    assert isinstance(second, Study)
    assert (second.study_id, second.patient_id) == ("patient00002/study2/view1_frontal", "patient00002")
    assert second.image == tmp_path / SMALL / "train/patient00002/study2/view1_frontal.jpg"
    assert sorted(second.labels) == sorted(HEADER[5:])
    assert {name: value for name, value in second.labels.items() if not math.isnan(value)} == {
        "Cardiomegaly": -1,
        "Edema": -1,
    }
    assert [row.view for row in rows if isinstance(row, Study)] == ["AP", "AP", "PA", "LL", "AP", "PA"]
    first = rows[5]
    assert isinstance(first, Study)
    assert first.image == tmp_path / SMALL / "valid/patient64541/study1/view1_frontal.jpg"
    assert (first.split, first.labels["Atelectasis"], first.labels["Cardiomegaly"]) == ("test", 1, 1)
    assert rows[2].labels["Atelectasis"] == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("written", ["CheXpert-v1.0/", "CheXpert-v1.0-small/", "", "somewhere/else/"])
def test_the_folder_in_the_paths_is_not_that_of_the_films(tmp_path: Path, written: str) -> None:
    tables = [[row | {"Path": row["Path"].replace(f"{SMALL}/", written)} for row in table] for table in (TRAIN, VALID)]
    archive(tmp_path, *tables)
    found = studies(tmp_path)
    assert repr(found) == repr(studies(tmp_path / SMALL))  # the folder that holds train.csv, or its parent
    assert [row.image for row in found.values()] == [
        tmp_path / row["Path"] for row in TRAIN[:3] + TRAIN[4:] + VALID[:2]
    ]


def test_views(tmp_path: Path) -> None:
    archive(tmp_path)
    assert len(studies(tmp_path, views=["frontal", "Lateral"])) == 8
    assert set(studies(tmp_path, views=["lateral"], val_films=0)) == {
        "patient00002/study1/view2_lateral",
        "patient64542/study1/view2_lateral",
    }
    assert studies(tmp_path, views=["lateral"], val_films=0)["patient00002/study1/view2_lateral"].view == "lateral"
    found = studies(tmp_path, views=["pa"], val_films=0)
    assert set(found) == {"patient00002/study1/view1_frontal", "patient64542/study1/view1_frontal"}
    with pytest.raises(UserError, match=r"unknown view 'frontl'; did you mean 'frontal'\?"):
        CheXpert(tmp_path, views=["frontl"])


def test_bad_rows(tmp_path: Path) -> None:
    archive(tmp_path, [*TRAIN, film("CheXpert-v1.0-small/train/patient00009/view1_frontal.jpg")])
    bad = [row for row in read(tmp_path) if isinstance(row, LeftOut) and row.bad]
    assert [row.row for row in bad] == ["row 7 of train.csv"]
    assert bad[0].reason.startswith("unreadable path: 'CheXpert-v1.0-small/train/patient00009/view1_frontal.jpg'")
    archive(tmp_path, [*TRAIN, film("CheXpert-v1.0-small/train/patient9/study1/view1_frontal.jpg", Edema="2.0")])
    with pytest.raises(UserError, match=r"row 7 of train.csv: '2.0' in label column 'Edema'; expected 1, 0, -1"):
        read(tmp_path)


def test_missing_columns(tmp_path: Path) -> None:
    write(tmp_path / SMALL / "train.csv", TRAIN)
    write(tmp_path / SMALL / "valid.csv", [], ["Path"])
    with pytest.raises(UserError, match=r"valid.csv has no column 'Frontal/Lateral'"):
        read(tmp_path)


def test_compressed_tables(tmp_path: Path) -> None:
    expected = studies(archive(tmp_path))
    for name in ("train.csv", "valid.csv"):
        table = tmp_path / SMALL / name
        (tmp_path / SMALL / f"{name}.gz").write_bytes(gzip.compress(table.read_bytes()))
        table.unlink()
    assert repr(studies(tmp_path)) == repr(expected)  # NaN is not equal to itself


def test_the_full_size_as_it_is_unpacked(tmp_path: Path) -> None:
    tables = tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)"
    write(tables / "train.csv", TRAIN)
    write(tables / "valid.csv", VALID)
    homes = {}
    for patient, batch in (
        ("patient00001", "CheXpert-v1.0 batch 2 (train 1)"),
        ("patient00002", "CheXpert-v1.0 batch 3 (train 2)"),
        ("patient00003", "CheXpert-v1.0 batch 4 (train 3)"),
    ):
        homes[patient] = tmp_path / batch
        (tmp_path / batch / patient).mkdir(parents=True)
    for study_id, study in studies(tmp_path).items():
        assert study.image == homes.get(study.patient_id, tables / "valid") / f"{study_id}.jpg"


# Splits ---------------------------------------------------------------------------------------------------------------


def crowd(patients: int = 60) -> list[dict[str, str]]:
    """Patients of one to four frontal films, and a lateral each."""
    return [
        film(f"CheXpert-v1.0/train/patient{n:05}/study1/view{view}_{'lateral' if view == 5 else 'frontal'}.jpg")
        for n in range(patients)
        for view in [*range(1, 2 + n % 4), 5]
    ]


@pytest.mark.parametrize("seed", [0, 3])
def test_validation_is_drawn_by_patient_until_it_has_enough_films(tmp_path: Path, seed: int) -> None:
    rows = crowd()
    found = studies(archive(tmp_path, rows), val_films=40, val_seed=seed)
    expected, films = set(), 0
    for patient in first_by_hash((f"patient{n:05}" for n in range(60)), seed):
        if films < 40:
            expected.add(patient)
            films += 1 + int(patient[-5:]) % 4
    by_split = {split: {s.patient_id for s in found.values() if s.split == split} for split in ("train", "val", "test")}
    assert by_split["val"] == expected
    assert len(by_split["train"]) == 60 - len(expected)
    assert by_split["test"] == {"patient64541", "patient64542"}
    assert sum(study.split == "val" for study in found.values()) == films
    assert 40 <= films < 44

    random.Random(0).shuffle(rows)
    again = studies(archive(tmp_path, rows), val_films=40, val_seed=seed)
    assert {name: study.split for name, study in again.items()} == {name: study.split for name, study in found.items()}


def test_too_many_films_for_validation(tmp_path: Path) -> None:
    archive(tmp_path)
    with pytest.raises(
        UserError, match=r"train.csv: val_films is 4, but there are 4 films to draw them from; lower it"
    ):
        read(tmp_path, val_films=4)
    assert {study.split for study in studies(tmp_path, val_films=0).values()} == {"train", "test"}


def test_a_patient_of_both_tables_is_refused(tmp_path: Path) -> None:
    same = film("CheXpert-v1.0-small/valid/patient00003/study7/view1_frontal.jpg")
    archive(tmp_path, TRAIN, [*VALID, same])
    draw_all(tmp_path, TRAIN, VALID, [same])
    with pytest.raises(UserError, match=r"patient 'patient00003' is in two splits"):
        prepare(CheXpert(tmp_path, hold_out_5x200=False, val_films=0), tmp_path / "out", log=lambda line: None)


TEST = [
    "test/patient64741/study1/view1_frontal.jpg",
    "test/patient64742/study1/view1_frontal.jpg",
    "test/patient64742/study1/view2_lateral.jpg",
]


@pytest.mark.parametrize(
    ("name", "column", "extra"),
    [
        (f"{SMALL}/test.csv", "Path", ["Frontal/Lateral", "AP/PA"]),
        (f"{SMALL}/test_labels.csv", "Path", []),
        ("CheXpert/test_labels.csv", "Path", []),
        (f"{SMALL}/groundtruth.csv", "Study", []),
    ],
)
def test_the_expert_test_set(tmp_path: Path, name: str, column: str, extra: list[str]) -> None:
    archive(tmp_path)
    home = (tmp_path / name).parent
    written = (
        TEST
        if column == "Path"
        else ["CheXpert-v1.0/test/patient64741/study1", "CheXpert-v1.0/test/patient64742/study1"]
    )
    rows = [{column: path, "Edema": "1.0", "Fracture": "0.0"} | dict.fromkeys(extra, "") for path in written]
    write(tmp_path / name, rows, [column, *extra, *FIVE, "Fracture"])
    for path in TEST:
        draw(home / path)
    (home / "test/patient64741/study1/._view1_frontal.jpg").touch()
    assert not any(row.bad for row in read(tmp_path, test="test") if isinstance(row, LeftOut))
    found = studies(tmp_path, test="test", val_films=10**9)
    assert {split: sum(s.split == split for s in found.values()) for split in ("train", "val", "test")} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    second = found["patient64742/study1/view1_frontal"]
    assert (second.image, second.view, second.split) == (home / TEST[1], "frontal", "test")
    assert (second.labels["Edema"], second.labels["Fracture"]) == (1, 0)
    assert math.isnan(second.labels["Atelectasis"])
    assert math.isnan(second.labels["Pneumonia"])  # not in this table
    assert found["patient64541/study1/view1_frontal"].split == "val"
    assert "patient64742/study1/view2_lateral" in studies(tmp_path, test="test", views=["frontal", "lateral"])


def test_the_expert_test_set_is_not_there(tmp_path: Path) -> None:
    archive(tmp_path)
    with pytest.raises(
        UserError, match=rf"no test.csv or test_labels.csv or groundtruth.csv in {tmp_path}/{SMALL}; it "
    ):
        read(tmp_path, test="test")
    write(tmp_path / SMALL / "groundtruth.csv", [{"Study": "CheXpert-v1.0/test/patient64741/study1"}], ["Study", *FIVE])
    bad = [row for row in read(tmp_path, test="test") if isinstance(row, LeftOut) and row.bad]
    assert [row.reason for row in bad] == ["no films of this study: 'CheXpert-v1.0/test/patient64741/study1'"]


# 5x200 ----------------------------------------------------------------------------------------------------------------

DECOYS = [
    ("two", {"Atelectasis": "1.0", "Edema": "1.0"}),
    ("uncertain", {"Atelectasis": "1.0", "Edema": "-1.0"}),
    ("only_uncertain", {"Edema": "-1.0"}),
    ("device", {"Edema": "1.0", "Support Devices": "1.0"}),
    ("lesion", {"Edema": "1.0", "Lung Lesion": "-1.0"}),
    ("none", {}),
]


def candidates() -> tuple[list[dict[str, str]], dict[str, str]]:
    """Rows of train.csv, and the class of each film that may be drawn: 203 of each class, in 145 patients."""
    rows, classes = [], {}
    for number in range(5 * 203):
        patient, study = f"patient{number // 7:05}", f"study{number % 7 + 1}"
        own = FIVE[number % 5]
        quirk = [{}, {"No Finding": "1.0"}, dict.fromkeys(set(HEADER[5:]) - {own}, "0.0")][number % 3]
        row = film(f"CheXpert-v1.0/train/{patient}/{study}/view1_frontal.jpg") | quirk | {own: "1.0"}
        rows += [
            row,
            row | {"Path": row["Path"].replace("view1_frontal", "view2_lateral"), "Frontal/Lateral": "Lateral"},
        ]
        classes[f"{patient}/{study}/view1_frontal"] = own
    for number, (_, labels) in enumerate(DECOYS * 40):
        rows.append(film(f"CheXpert-v1.0/train/patient{5000 + number}/study1/view1_frontal.jpg") | labels)
    return rows, classes


def expected_draw(classes: dict[str, str], seed: int = 0) -> dict[str, str]:
    drawn: dict[str, str] = {}
    for own in FIVE:
        ordered = first_by_hash((name for name, of in classes.items() if of == own), seed)
        drawn |= dict.fromkeys(ordered[:200], own)
    return drawn


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = archive(tmp_path_factory.mktemp("large"), candidates()[0])
    for row in [*candidates()[0], *VALID]:
        path = root / SMALL / row["Path"].partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(root / "film.jpg")
    draw(root / "film.jpg")
    return root


@pytest.mark.parametrize("seed", [0, 7])
def test_5x200(large: Path, seed: int) -> None:
    reader = CheXpert(large, part="5x200", sample_seed=seed, views=["lateral"])
    rows = list(reader.studies())
    drawn = {row.study_id: row for row in rows if isinstance(row, Study)}
    expected = expected_draw(candidates()[1], seed)
    assert len(drawn) == 1000
    for name, study in drawn.items():
        assert study.split == "test"
        assert study.labels == {label: float(label == expected[name]) for label in FIVE}
    assert set(drawn) == set(expected)
    assert {kind: kinds(rows).count(kind) for kind in kinds(rows)} == {
        "not of the 5x200 set": 15 + 240,
        "view not wanted: lateral": 1015,
    }
    assert reader.label_groups == {"5x200": FIVE}
    assert (reader.uncertain_as, reader.unknown_as, reader.stated) == ({}, {}, ())
    digest = hashlib.sha256("\n".join(sorted(expected)).encode()).hexdigest()[:16]
    assert reader.remarks == [f"5x200 set, 1000 films of train.csv, seed {seed}, ids sha256 {digest}"]


def test_5x200_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    rows, classes = candidates()
    random.Random(5).shuffle(rows)
    write(tmp_path / "train.csv", rows)  # valid.csv is not needed
    assert {row.study_id for row in CheXpert(tmp_path, part="5x200").studies() if isinstance(row, Study)} == set(
        expected_draw(classes)
    )


def test_the_patients_of_the_5x200_set_are_held_out(large: Path) -> None:
    drawn = {name.partition("/")[0] for name in expected_draw(candidates()[1])}
    reader = CheXpert(large, val_films=100)
    rows = list(reader.studies())
    kept = {row.patient_id: row.split for row in rows if isinstance(row, Study)}
    assert not drawn & set(kept)
    assert sum(split == "val" for split in kept.values()) == 100
    held_out = [
        row for row in rows if isinstance(row, LeftOut) and row.reason.startswith("held out for the 5x200 set: ")
    ]
    of_drawn = [name for name in candidates()[1] if name.partition("/")[0] in drawn]
    assert len(held_out) == len(of_drawn) >= 1000
    assert not any(row.bad for row in held_out)
    digest = hashlib.sha256("\n".join(sorted(expected_draw(candidates()[1]))).encode()).hexdigest()[:16]
    assert reader.remarks == [
        f"{len(drawn)} patients are held out of train and val: 5x200 set, 1000 films of train.csv, seed 0, ids sha256 "
        f"{digest}",
        "100 patients of train.csv were drawn for val, seed 0",
        "test is valid.csv: 2 frontal films, where 202 are expected by the field's protocol",
    ]
    lateral = CheXpert(large, val_films=10, views=["lateral"], val_seed=1)
    of_lateral = {row.patient_id for row in lateral.studies() if isinstance(row, Study)}
    assert not drawn & of_lateral  # whatever views are kept
    everyone = studies(large, val_films=100)
    assert drawn <= {study.patient_id for study in everyone.values()}


def test_too_few_films_for_a_5x200_set(tmp_path: Path) -> None:
    archive(tmp_path)
    counts = "Atelectasis 0, Cardiomegaly 0, Consolidation 0, Edema 1, Pleural Effusion 0"
    message = rf"train.csv: no 5x200 set: 200 of each class are wanted, and there are too few of: {counts}"
    with pytest.raises(UserError, match=message + "$"):
        list(CheXpert(tmp_path, part="5x200").studies())
    with pytest.raises(UserError, match=message + "; to hold out none: --hold_out_5x200 false$"):
        list(CheXpert(tmp_path).studies())


# Prepared -------------------------------------------------------------------------------------------------------------


def test_prepared_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_all(archive(tmp_path), TRAIN, VALID)
    options = ["--size", "16", "--workers", "0", "--val_films", "1", "--hold_out_5x200", "false"]
    main(["prepare", "chexpert", "--root", str(tmp_path), "--out", str(tmp_path / "out"), *options])
    said = capsys.readouterr().out
    assert "test is valid.csv: 2 frontal films, where 202 are expected by the field's protocol" in said
    assert "6 studies; CM-CGNS, section IV-A states 191,229: 191,223 fewer; left out: 2 view not wanted" in said
    meta = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert meta["name"] == "chexpert"
    assert meta["studies"]["test"] == 2
    assert meta["studies"]["train"] + meta["studies"]["val"] == 4
    assert meta["left_out"] == {"view not wanted": 2}
    assert meta["label_groups"] == {}
    assert meta["unknown_as"] == dict.fromkeys(FIVE, 0)
    assert meta["uncertain_as"] == dict(zip(FIVE, (1, 0, 0, 1, 1), strict=True))
    assert sorted(meta["label_names"]) == sorted(HEADER[5:])
    with pytest.raises(SystemExit):
        main(["prepare", "chexpert", "--root", str(tmp_path), "--out", str(tmp_path / "x"), "--part", "5x20"])
    assert "--part: expected classification or 5x200, got '5x20'; did you mean '5x200'?" in capsys.readouterr().err


def test_the_5x200_set_prepared(large: Path, tmp_path: Path) -> None:
    corpus = prepare(CheXpert(large, part="5x200"), tmp_path, size=8, workers=0, log=lambda line: None)
    assert corpus.meta["studies"] == {"train": 0, "val": 0, "test": 1000}
    values = corpus.labels(FIVE)
    assert (values.sum(1) == 1).all()
    assert values.sum(0).tolist() == [200] * 5
    assert corpus.label_groups == {"5x200": FIVE}
    drawn = expected_draw(candidates()[1])
    chosen = [FIVE[place] for place in values.argmax(1)]
    assert dict(zip(corpus.to_pandas()["study_id"], chosen, strict=True)) == drawn
