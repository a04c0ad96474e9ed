"""The NIH reader, on small archives in the official layouts of both editions."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.nih_chestxray14 import FINDINGS, NihChestXray14
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import Box, LeftOut, Study
from lingula.registry import UserError

COLUMNS = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
ENTRY = f"""\
{COLUMNS},OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],
00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.14300000000000002,0.14300000000000002,
00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.14300000000000002,0.14300000000000002,
00000002_000.png,No Finding,0,2,81,M,AP,2500,2048,0.171,0.171,
00000003_000.png,Pleural_Thickening|Infiltration|Mass,0,3,81,F,PA,2582,2991,0.14300000000000002,0.14300000000000002,
00013118_008.png,Atelectasis|Infiltration,8,13118,69,M,PA,2048,2500,0.168,0.168,
"""
BOXES = """\
Image Index,Finding Label,Bbox [x,y,w,h],,,
00013118_008.png,Atelectasis,12.5,20.25,8.5,16.5
00003333_000.png,Nodule,1,2,3,4
00013118_008.png,Infiltrate,24,32,16,8
00000003_000.png,Mass,0,0,64,64
"""
IMAGES = [line.split(",")[0] for line in ENTRY.splitlines()[1:]]


def film_of(image: str) -> np.ndarray:
    y, x = np.mgrid[0:64, 0:64]
    return (120 + 80 * np.sin(x / 9 + int(image[7]) + int(image[11])) * np.cos(y / 11)).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return kaggle(tmp_path / "nih")


def kaggle(folder: Path) -> Path:
    """As it unpacks from Kaggle: several folders of images."""
    for number, image in enumerate(IMAGES):
        images = folder / f"images_{1 if number < 3 else 12:03d}" / "images"
        images.mkdir(parents=True, exist_ok=True)
        Image.fromarray(film_of(image)).save(images / image)
    (folder / "Data_Entry_2017.csv").write_text(ENTRY)
    (folder / "BBox_List_2017.csv").write_text(BOXES.replace("00003333_000.png,Nodule,1,2,3,4\n", ""))
    (folder / "train_val_list.txt").write_text("\n".join(IMAGES[:3]))
    (folder / "test_list.txt").write_text("\r\n".join(IMAGES[3:]) + "\r\n")
    return folder


DOWNLOADS = {"kaggle": kaggle}
OPTIONAL = ["BBox_List_2017.csv"]


def rows_of(root: Path) -> list[Study | LeftOut]:
    return list(NihChestXray14(root).studies())


def read(root: Path) -> dict[str, Study]:
    rows = rows_of(root)
    assert all(isinstance(row, Study) for row in rows)
    return {row.study_id: row for row in rows if isinstance(row, Study)}


def change(root: Path, table: str, old: str, new: str) -> None:
    text = (root / table).read_text()
    assert old in text
    (root / table).write_text(text.replace(old, new))


def test_every_field_of_a_study(root: Path) -> None:
    studies = read(root)
    assert list(studies) == IMAGES
    assert [study.patient_id for study in studies.values()] == ["1", "1", "2", "3", "13118"]
    assert [study.view for study in studies.values()] == ["PA", "PA", "AP", "PA", "PA"]
    assert [study.split for study in studies.values()] == [None, None, None, "test", "test"]
    assert [study.row for study in studies.values()] == [f"row {n} of Data_Entry_2017.csv" for n in range(2, 7)]
    assert studies[IMAGES[2]].image == root / "images_001" / "images" / IMAGES[2]
    assert studies[IMAGES[3]].image == root / "images_012" / "images" / IMAGES[3]
    present = [{name for name, value in study.labels.items() if value == 1} for study in studies.values()]
    assert present == [
        {"Cardiomegaly"},
        {"Cardiomegaly", "Emphysema"},
        set(),
        {"Pleural_Thickening", "Infiltration", "Mass"},
        {"Atelectasis", "Infiltration"},
    ]
    for study in studies.values():
        assert list(study.labels) == list(FINDINGS)
        assert len(set(FINDINGS)) == 14
        assert set(study.labels.values()) <= {0.0, 1.0}
        assert study.sentences == ()
        assert not study.masks


def test_boxes(root: Path) -> None:
    studies = read(root)
    assert studies["00013118_008.png"].boxes == (
        Box("Atelectasis", 12.5, 20.25, 21, 36.75),
        Box("Infiltration", 24, 32, 40, 40),  # the list of boxes has Infiltrate
    )
    assert studies["00000003_000.png"].boxes == (Box("Mass", 0, 0, 64, 64),)
    assert all(studies[image].boxes == () for image in IMAGES[:3])
    assert all(study.annotated == () for study in studies.values())  # nobody looked elsewhere
    (root / "BBox_List_2017.csv").write_text(BOXES)
    *rest, row = rows_of(root)
    assert all(isinstance(row, Study) for row in rest)
    assert row == LeftOut("row 3 of BBox_List_2017.csv", "box of an unknown film: 00003333_000.png", bad=True)


def test_the_edition_of_2020_is_read_first_and_so_is_one_folder(root: Path) -> None:
    text = ENTRY.replace("Patient Gender", "Patient Sex").replace(",\n", "\n").replace("58,M,PA", "58,M,AP")
    (root / "Data_Entry_2017_v2020.csv").write_text(text)
    (root / "images").mkdir()
    for image in IMAGES:
        next(root.glob(f"images_*/images/{image}")).rename(root / "images" / image)
    studies = read(root)
    assert studies[IMAGES[1]].view == "AP"
    assert studies[IMAGES[1]].row == "row 3 of Data_Entry_2017_v2020.csv"
    assert all(study.image == root / "images" / image for image, study in studies.items())


# Tables with commas in their headers ----------------------------------------------------------------------------------


# What is wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "old", "new", "reason"),
    [
        ("Data_Entry_2017.csv", "No Finding", "No Finding|Mass", "no finding and a finding: No Finding|Mass"),
        ("train_val_list.txt", "00000002_000", "00000009_000", "film in neither list: 00000002_000.png"),
        ("test_list.txt", "00000003_000.png", "00000003_000.png 00000002_000.png", "film in both lists: 00000002_000"),
        ("Data_Entry_2017.csv", "0,2,81", "0,,81", "no id: column 'Patient ID' is empty"),
        ("Data_Entry_2017.csv", "00000002_000.png", "", "no id: column 'Image Index' is empty"),
        ("Data_Entry_2017.csv", "00000002_000", "00000002_001", "missing image file: 00000002_001.png is in none of"),
    ],
)
def test_bad_rows(root: Path, table: str, old: str, new: str, reason: str) -> None:
    change(root, table, old, new)
    (row,) = [row for row in rows_of(root) if isinstance(row, LeftOut)]
    assert row.bad
    assert row.row == "row 4 of Data_Entry_2017.csv"
    assert row.reason.startswith(reason)


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        (
            "Data_Entry_2017.csv",
            "No Finding",
            "Covid",
            r"row 4 of Data_Entry_2017\.csv: unknown finding 'Covid'; known: A",
        ),
        ("Data_Entry_2017.csv", "No Finding", "", r"row 4 of .*: unknown finding ''"),
        ("Data_Entry_2017.csv", "Mass", "Infiltrate", "row 5 of .*: unknown finding 'Infiltrate'"),
        ("Data_Entry_2017.csv", "Patient ID", "Patient", r"no column 'Patient ID'; did you mean"),
        ("BBox_List_2017.csv", "Mass", "No Finding", r"row 4 of BBox_List_2017\.csv: unknown finding 'No Finding'"),
        ("BBox_List_2017.csv", "0,0,64,64", "0,0,wide,64", r"row 4 of BBox.*: 'wide' in column 'w'"),
        ("BBox_List_2017.csv", "[x,y", "[y,x", r"BBox_List_2017\.csv has no column 'Bbox \[x'"),
    ],
)
def test_unknown_values_name_their_row(root: Path, table: str, old: str, new: str, message: str) -> None:
    change(root, table, old, new)
    with pytest.raises(UserError, match=message):
        rows_of(root)


def test_without_boxes(root: Path) -> None:
    before = NihChestXray14(root)
    first = before.fingerprint()
    assert before.remarks == []
    content = (root / "BBox_List_2017.csv").read_bytes()
    (root / "BBox_List_2017.csv").unlink()
    assert NihChestXray14(root).remarks == ["no BBox_List_2017.csv: films without boxes"]
    assert all(study.boxes == () for study in read(root).values())
    assert NihChestXray14(root).fingerprint() != first
    (root / "BBox_List_2017.csv.gz").write_bytes(gzip.compress(content))
    assert len(read(root)["00013118_008.png"].boxes) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n", r"test_list\.txt is empty; it comes from "), (b"\xff", r"cannot read list .*_list\.txt")],
)
def test_a_list_that_is_none(root: Path, content: bytes, message: str) -> None:
    (root / "test_list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        rows_of(root)


def test_no_films_at_all(root: Path) -> None:
    for folder in root.glob("images_*"):
        folder.rename(root / f"other_{folder.name}")
    with pytest.raises(UserError, match=r"no films in images or images_001/images, \.\.\. of .*nihcc\.app\.box\.com"):
        rows_of(root)


# Prepared -------------------------------------------------------------------------------------------------------------


def test_prepared_from_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["prepare", "nih-chestxray14", "--root", str(root), "--out", str(out), "--size", "32", "--workers", "0"])
    said = capsys.readouterr().out
    assert "5 studies; NIH states 112,120" in said
    assert "4 patients; NIH states 30,805" in said
    corpus = PreparedCorpus.open(out)
    splits = dict(zip(corpus.to_pandas()["study_id"], corpus.to_pandas()["split"], strict=True))
    assert [splits[image] for image in IMAGES[3:]] == ["test", "test"]
    assert splits[IMAGES[0]] == splits[IMAGES[1]]  # one patient
    assert {splits[IMAGES[0]], splits[IMAGES[2]]} == {"train", "val"}  # the official test never grows
    for row, image in enumerate(corpus.to_pandas()["study_id"]):
        shrunk = film_of(image).astype(float).reshape(32, 2, 32, 2).mean((1, 3))
        assert np.abs(corpus.pixels[row] - shrunk).max() <= 0.5
    assert corpus.boxes()[["row", "name", "x0", "y0", "x1", "y1"]].to_numpy().tolist() == [
        [3, "Mass", 0, 0, 32, 32],
        [4, "Atelectasis", 6.25, 10.125, 10.5, 18.375],
        [4, "Infiltration", 12, 16, 20, 20],
    ]
    assert corpus.rows_with_boxes(["Mass"]).tolist() == [3]
    assert corpus.rows_with_boxes(["Atelectasis", "Infiltration"]).tolist() == [4]
    assert corpus.label_names == list(FINDINGS)
    assert corpus.labels(["Cardiomegaly", "Hernia"]).tolist() == [[1, 0], [1, 0], [0, 0], [0, 0], [0, 0]]
