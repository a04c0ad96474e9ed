"""The RSNA reader, on a small archive in the official layout."""

from __future__ import annotations

import gzip
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from lingula.cli import main
from lingula.corpora.rsna_pneumonia import RsnaPneumonia
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.reader import split_of
from lingula.data.study import Box, LeftOut, Study
from lingula.registry import UserError

SICK, TWICE, OTHER, NORMAL, INVERTED = (f"00{digit}36515-870c-4b36-a041-de91049b9ab4" for digit in "47901")

LABELS = f"""\
patientId,x,y,width,height,Target
{OTHER},,,,,0
{SICK},8.0,12.0,20.0,30.0,1
{TWICE},4.0,4.0,8.0,8.0,1
{TWICE},32.0,16.0,16.0,48.0,1
{NORMAL},,,,,0
{INVERTED},,,,,0
"""

CLASSES = f"""\
patientId,class
{OTHER},No Lung Opacity / Not Normal
{SICK},Lung Opacity
{TWICE},Lung Opacity
{TWICE},Lung Opacity
{NORMAL},Normal
{INVERTED},Normal
"""


def film_of(patient: str) -> np.ndarray:
    """A film with soft shapes, so that JPEG hardly changes it; ``(64, 48)`` uint8."""
    y, x = np.mgrid[0:64, 0:48]
    return (120 + 80 * np.sin(x / 9 + int(patient[2])) * np.cos(y / 11)).astype(np.uint8)


def write_film(path: Path, film: np.ndarray, inverted: bool = False) -> None:
    """As RSNA's: 8 bits, JPEG within DICOM; or inverted, and not compressed."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[path.name])
    file.Rows, file.Columns = film.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    if inverted:
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.PixelData = (255 - film).tobytes()
    else:
        buffer = io.BytesIO()
        Image.fromarray(film).save(buffer, "JPEG", quality=95)
        file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        file.PixelData = encapsulate([buffer.getvalue()])
        file["PixelData"].VR = "OB"
    file.save_as(path, enforce_file_format=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return stage_2(tmp_path / "rsna")


def stage_2(folder: Path) -> Path:
    (folder / "stage_2_train_images").mkdir(parents=True)
    (folder / "stage_2_train_labels.csv").write_text(LABELS)
    (folder / "stage_2_detailed_class_info.csv").write_text(CLASSES)
    for patient in (SICK, TWICE, OTHER, NORMAL, INVERTED):
        path = folder / "stage_2_train_images" / f"{patient}.dcm"
        write_film(path, film_of(patient), inverted=patient == INVERTED)
    return folder


DOWNLOADS = {"stage 2": stage_2}
OPTIONAL = ["stage_2_detailed_class_info.csv"]


def read(root: Path, **options: Any) -> dict[str, Study]:
    rows = list(RsnaPneumonia(root, **options).studies())
    assert all(isinstance(row, Study) for row in rows)
    return {row.study_id: row for row in rows if isinstance(row, Study)}


def change(root: Path, old: str, new: str, table: str = "stage_2_train_labels.csv") -> None:
    text = (root / table).read_text()
    assert old in text
    (root / table).write_text(text.replace(old, new))


def left_out(root: Path, **options: Any) -> list[LeftOut]:
    return [row for row in RsnaPneumonia(root, **options).studies() if isinstance(row, LeftOut)]


def test_every_field_of_a_study(root: Path) -> None:
    studies = read(root)
    assert list(studies) == [OTHER, SICK, TWICE, NORMAL, INVERTED]  # one a film, in the order of the table
    twice = studies[TWICE]
    assert twice.patient_id == TWICE
    assert twice.image == root / "stage_2_train_images" / f"{TWICE}.dcm"
    assert twice.boxes == (Box("pneumonia", 4, 4, 12, 12), Box("pneumonia", 32, 16, 48, 64))
    assert twice.row == "row 4 of stage_2_train_labels.csv"
    assert twice.sentences == ()
    assert all(study.annotated == ("pneumonia",) for study in studies.values())
    sick = {"Lung Opacity": 1, "No Lung Opacity / Not Normal": 0, "Normal": 0}
    assert studies[SICK].labels == twice.labels == {"pneumonia": 1} | sick
    assert studies[OTHER].labels == {"pneumonia": 0, **dict.fromkeys(sick, 0), "No Lung Opacity / Not Normal": 1}
    assert studies[NORMAL].labels == {"pneumonia": 0, **dict.fromkeys(sick, 0), "Normal": 1}
    assert studies[NORMAL].boxes == ()
    assert RsnaPneumonia(root).label_groups == {"class": list(sick)}
    assert RsnaPneumonia(root).remarks == []


def test_a_mask_is_the_union_of_the_boxes(root: Path) -> None:
    studies = read(root)
    expected = np.zeros((64, 48), dtype=bool)
    for x in range(48):
        for y in range(64):
            expected[y, x] = (4 <= x < 12 and 4 <= y < 12) or (32 <= x < 48 and 16 <= y < 64)
    mask = studies[TWICE].masks["pneumonia"]
    assert callable(mask)
    np.testing.assert_array_equal(mask(64, 48), expected)
    empty = studies[NORMAL].masks["pneumonia"]
    assert callable(empty)
    assert not empty(64, 48).any()


# Splits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "share", "sizes"),
    [("classification", 0.3, (18_678, 4_003, 4_003)), ("detection", 0.4, (16_010, 5_337, 5_337))],
)
def test_the_split_of_the_field_at_full_size(protocol: Any, share: float, sizes: tuple[int, int, int]) -> None:
    """The sizes that MGCA's code and CM-CGNS give, and the very films, by the permutations of NumPy's legacy generator
    that scikit-learn documents ``random_state=0`` to be."""
    from lingula.corpora.rsna_pneumonia import HELD_OUT

    assert HELD_OUT[protocol] == share
    ids = [f"{number * 7919 % 100_003:08x}-0000" for number in range(26_684)]  # not in their order
    splits = split_of(ids, share)
    assert len(set(ids)) == len(splits) == 26_684
    assert tuple(list(splits.values()).count(split) for split in ("train", "val", "test")) == sizes

    in_order = np.array(sorted(ids))
    held_out = sizes[1] + sizes[2]
    first = np.random.RandomState(0).permutation(26_684)
    assert set(in_order[first[held_out:]]) == {name for name in ids if splits[name] == "train"}
    rest = in_order[first[:held_out]]
    second = np.random.RandomState(0).permutation(held_out)
    assert set(rest[second[: sizes[1]]]) == {name for name in ids if splits[name] == "val"}
    assert set(rest[second[sizes[1] :]]) == {name for name in ids if splits[name] == "test"}


def test_the_split_neither_follows_the_order_nor_the_films_that_are_there(root: Path) -> None:
    before = {name: study.split for name, study in read(root).items()}
    assert before == split_of(before, 0.3)
    assert {name: study.split for name, study in read(root, protocol="detection").items()} == split_of(before, 0.4)
    lines = LABELS.splitlines()
    (root / "stage_2_train_labels.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert {name: study.split for name, study in read(root).items()} == before
    change(root, f"{NORMAL},,,,,0", f"{NORMAL},,,,,1")  # left out, but counted in the draw
    studies = [row for row in RsnaPneumonia(root).studies() if isinstance(row, Study)]
    assert {row.study_id: row.split for row in studies} == {key: before[key] for key in before if key != NORMAL}


def test_too_few_films_and_an_unknown_protocol(root: Path) -> None:
    with pytest.raises(UserError, match="3 films cannot be split into train, val and test; at least 4 are needed"):
        split_of("abc", 0.3)
    assert set(split_of("abcd", 0.3).values()) == {"train", "val", "test"}
    with pytest.raises(UserError, match="unknown protocol 'segmentation'; known: classification, detection"):
        RsnaPneumonia(root, protocol="segmentation")  # type: ignore[arg-type]


# Rows that contradict each other --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "table", "reason"),
    [
        (f"{NORMAL},,,,,0", f"{NORMAL},,,,,1", "labels", f"target 1 without a box: {NORMAL}"),
        (f"{NORMAL},,,,,0", f"{NORMAL},1,1,2,2,0", "labels", f"target 0 with a box: {NORMAL}"),
        (f"{TWICE},32.0,16.0,16.0,48.0,1", f"{TWICE},,,,,0", "labels", f"two targets: {TWICE}"),
        (f"{TWICE},32.0,16.0,16.0,48.0,1", f"{TWICE},,,,,1", "labels", f"target 1 without a box: {TWICE}"),
        (f"{SICK},Lung Opacity", f"{SICK},Normal", "class", f"class against target: {SICK} is Normal, its target 1"),
        (f"{NORMAL},Normal", f"{NORMAL},Lung Opacity", "class", f"class against target: {NORMAL} is Lung Opacity, "),
        (
            f"{NORMAL},Normal",
            f"{NORMAL},Normal\n{NORMAL},No Lung Opacity / Not Normal",
            "class",
            f"two classes: {NORMAL} is No Lung Opacity / Not Normal and Normal",
        ),
    ],
)
def test_contradictions_are_bad_rows(root: Path, old: str, new: str, table: str, reason: str) -> None:
    name = {"labels": "stage_2_train_labels.csv", "class": "stage_2_detailed_class_info.csv"}[table]
    change(root, old, new, name)
    (row,) = left_out(root)
    assert row.bad
    assert row.reason.startswith(reason)
    patient = reason.split(": ")[1][:36]
    line = next(n for n, text in enumerate(LABELS.splitlines(), start=1) if text.startswith(patient))
    assert row.row == f"row {line} of stage_2_train_labels.csv"


@pytest.mark.parametrize(
    ("old", "new", "table", "message"),
    [
        (",,,,,0", ",,,,,2", "stage_2_train_labels.csv", r"row 2 of stage_2_train_labels.csv: '2' in column 'Target'"),
        ("30.0,1", "30.0,", "stage_2_train_labels.csv", r"row 3 of .*: '' in column 'Target'; expected 0, 1"),
        ("12.0,20.0", "12.0,wide", "stage_2_train_labels.csv", r"row 3 of .*: 'wide' in column 'width'"),
        ("12.0,20.0", "12.0,", "stage_2_train_labels.csv", r"row 3 of .*: '' in column 'width'; expected a number"),
        (SICK, "", "stage_2_train_labels.csv", r"row 3 of stage_2_train_labels.csv: no patientId"),
        ("Target", "target", "stage_2_train_labels.csv", r"no column 'Target'; did you mean 'target'"),
        (
            "Normal\n",
            "normal\n",
            "stage_2_detailed_class_info.csv",
            r"'No Lung Opacity / Not normal' in column 'class'",
        ),
    ],
)
def test_unknown_values_name_their_row(root: Path, old: str, new: str, table: str, message: str) -> None:
    change(root, old, new, table)
    with pytest.raises(UserError, match=message):
        list(RsnaPneumonia(root).studies())


def test_without_the_class_file_and_without_a_film_s_class(root: Path) -> None:
    with_classes = RsnaPneumonia(root).fingerprint()
    change(root, f"{NORMAL},Normal\n", "", "stage_2_detailed_class_info.csv")
    unknown = read(root)[NORMAL].labels
    assert unknown["pneumonia"] == 0
    assert all(math.isnan(unknown[name]) for name in list(unknown)[1:])
    assert len(unknown) == 4
    classes = root / "stage_2_detailed_class_info.csv"
    (root / "stage_2_detailed_class_info.csv.gz").write_bytes(gzip.compress(CLASSES.encode()))
    classes.unlink()
    assert read(root)[NORMAL].labels["Normal"] == 1
    (root / "stage_2_detailed_class_info.csv.gz").unlink()
    reader = RsnaPneumonia(root)
    assert reader.label_groups == {}
    assert reader.remarks == ["no stage_2_detailed_class_info.csv: the label pneumonia only, without the three classes"]
    assert all(list(study.labels) == ["pneumonia"] for study in read(root).values())
    assert reader.fingerprint() != with_classes


def test_the_folder_of_films_is_missing(root: Path) -> None:
    (root / "stage_2_train_images").rename(root / "images")
    with pytest.raises(UserError, match=r"no folder stage_2_train_images in .*kaggle\.com/c/rsna-pneumonia"):
        list(RsnaPneumonia(root).studies())


# Prepared -------------------------------------------------------------------------------------------------------------


def test_prepared(root: Path, tmp_path: Path) -> None:
    write_film(root / "stage_2_train_images" / "ffff.dcm", film_of(SICK))
    lines: list[str] = []
    corpus = prepare(RsnaPneumonia(root), tmp_path / "out", size=64, workers=0, log=lines.append)
    assert lines[0].startswith("rsna-pneumonia: left out 1 rows: film without a label (first: film ffff.dcm")
    assert any("5 studies; MGCA's split states 26,684: 26,679 fewer" in line for line in lines)
    assert any("2 pneumonia; PRIOR" in line for line in lines)
    assert corpus.meta["left_out"] == {"film without a label": 1}
    assert corpus.to_pandas()["study_id"].tolist() == [OTHER, SICK, TWICE, NORMAL, INVERTED]
    assert corpus.to_pandas()["split"].tolist() == [
        split_of([*corpus.to_pandas()["study_id"]], 0.3)[name] for name in corpus.to_pandas()["study_id"]
    ]
    for row, patient in enumerate(corpus.to_pandas()["study_id"]):
        film = corpus.pixels[row, :, 8:56].astype(int)
        assert np.abs(film - film_of(patient)).max() <= (0 if patient == INVERTED else 6)  # JPEG loses a little
        assert not corpus.pixels[row, :, :8].any()
    assert corpus.boxes()[["row", "name", "x0", "y0", "x1", "y1"]].to_numpy().tolist() == [
        [1, "pneumonia", 16, 12, 36, 42],
        [2, "pneumonia", 12, 4, 20, 12],
        [2, "pneumonia", 40, 16, 56, 64],
    ]
    assert corpus.rows_with_boxes(["pneumonia"]).tolist() == [0, 1, 2, 3, 4]
    assert corpus.rows_with_mask("pneumonia").tolist() == [0, 1, 2, 3, 4]
    masks = corpus.masks(range(5), "pneumonia")
    assert masks.sum((1, 2)).tolist() == [0, 600, 64 + 768, 0, 0]
    assert masks[1, 12:42, 16:36].all()
    assert corpus.labels(["pneumonia", "Normal"]).tolist() == [[0, 0], [1, 0], [1, 0], [0, 1], [0, 1]]


def test_a_box_outside_its_film_stops_a_preparation(root: Path, tmp_path: Path) -> None:
    change(root, "8.0,12.0,20.0", "8.0,12.0,42.0")
    with pytest.raises(
        UserError, match=r"row 3 of stage_2_train_labels\.csv: box outside its image: pneumonia at 8, 12"
    ):
        prepare(RsnaPneumonia(root), tmp_path / "out", size=16, workers=0, log=lambda _: None)


def test_from_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["--protocol", "detection", "--size", "16", "--workers", "0"]
    main(["prepare", "rsna-pneumonia", "--root", str(root), "--out", str(out), *options])
    assert "rsna-pneumonia: prepared 5 studies" in capsys.readouterr().out
    corpus = PreparedCorpus.open(out)
    assert corpus.label_groups == {"class": ["Lung Opacity", "No Lung Opacity / Not Normal", "Normal"]}
    expected = split_of(corpus.to_pandas()["study_id"], 0.4)
    assert dict(zip(corpus.to_pandas()["study_id"], corpus.to_pandas()["split"], strict=True)) == expected
