"""The Object-CXR reader, on a small archive in the official layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.object_cxr import ObjectCxr, read_shapes, validation_rows
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.shapes import Shape
from lingula.data.study import Box, LeftOut, Study
from lingula.registry import UserError

TRAIN = """\
image_name,annotation
00003.jpg,0 8 10 20 34
00001.jpg,
00002.jpg,1 4 6 24 26;2 30 10 44 10 44 50 30 50;0 1 1 3 3
00005.jpg,
00004.jpg,2 10 10 40 10 10 40
"""
DEV = """\
image_name,annotation
00001.jpg,2 10 40 30 20 10 20
08002.jpg,
"""
NAMES = {"train": ["00003", "00001", "00002", "00005", "00004"], "dev": ["00001", "08002"]}


def film_of(part: str, name: str) -> np.ndarray:
    y, x = np.mgrid[0:64, 0:48]
    return (120 + 80 * np.sin(x / 9 + int(name[-1]) + len(part)) * np.cos(y / 11)).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return download(tmp_path / "object-cxr")


def download(folder: Path) -> Path:
    for part, text in (("train", TRAIN), ("dev", DEV)):
        (folder / part).mkdir(parents=True)
        (folder / f"{part}.csv").write_text(text)
        for name in NAMES[part]:
            Image.fromarray(film_of(part, name)).save(folder / part / f"{name}.jpg", quality=95)
    return folder


DOWNLOADS = {"challenge": download}


def rows_of(root: Path) -> list[Study | LeftOut]:
    return list(ObjectCxr(root).studies())


def read(root: Path) -> dict[str, Study]:
    rows = rows_of(root)
    assert all(isinstance(row, Study) for row in rows)
    return {row.study_id: row for row in rows if isinstance(row, Study)}


def drawn(study: Study) -> np.ndarray:
    mask = study.masks["foreign_object"]
    assert callable(mask)
    return mask(64, 48)


def test_every_field_of_a_study(root: Path) -> None:
    studies = read(root)
    assert list(studies) == [f"{part}/{name}.jpg" for part in ("train", "dev") for name in NAMES[part]]
    several = studies["train/00002.jpg"]
    assert several.patient_id == several.study_id
    assert several.image == root / "train" / "00002.jpg"
    assert several.row == "row 4 of train.csv"
    assert several.boxes == (
        Box("foreign_object", 4, 6, 24, 26),
        Box("foreign_object", 30, 10, 44, 50),
        Box("foreign_object", 1, 1, 3, 3),
    )
    assert all(study.annotated == ("foreign_object",) for study in studies.values())
    present = [study.labels for study in studies.values()]
    assert present == [{"foreign_object": value} for value in (1, 0, 1, 0, 1, 1, 0)]
    assert studies["dev/00001.jpg"].image == root / "dev" / "00001.jpg"
    assert studies["dev/08002.jpg"].boxes == ()


def test_masks_are_the_shapes_themselves(root: Path) -> None:
    studies = read(root)
    several, rectangle, triangle = (np.zeros((64, 48), dtype=bool) for _ in range(3))
    for y in range(64):
        for x in range(48):
            in_ellipse = ((x + 0.5 - 14) / 10) ** 2 + ((y + 0.5 - 16) / 10) ** 2 <= 1
            several[y, x] = in_ellipse or (30 <= x < 44 and 10 <= y < 50) or (1 <= x < 3 and 1 <= y < 3)
            rectangle[y, x] = 8 <= x < 20 and 10 <= y < 34
            triangle[y, x] = x >= 10 and y >= 10 and (x + 0.5) + (y + 0.5) < 50
    np.testing.assert_array_equal(drawn(studies["train/00002.jpg"]), several)
    np.testing.assert_array_equal(drawn(studies["train/00003.jpg"]), rectangle)
    np.testing.assert_array_equal(drawn(studies["train/00004.jpg"]), triangle)
    assert not drawn(studies["train/00001.jpg"]).any()
    assert 0 < triangle.sum() < 900  # not its box


def test_the_split_of_the_field_at_full_size() -> None:
    """1,600 of 8,000, by the permutation that scikit-learn's ``random_state=0`` stands for."""
    chosen = validation_rows(8_000)
    assert chosen == set(np.random.RandomState(0).permutation(8_000)[:1_600].tolist())


def test_splits(root: Path) -> None:
    studies = list(read(root).values())
    chosen = int(np.random.RandomState(0).permutation(5)[0])
    expected = ["train"] * 5 + ["test"] * 2
    expected[chosen] = "val"
    assert [study.split for study in studies] == expected
    (root / "train.csv").write_text("image_name,annotation\n00001.jpg,\n")
    with pytest.raises(UserError, match="1 films, which cannot be split into train and val"):
        rows_of(root)


def test_the_challenge_s_test_is_counted_but_left_out(root: Path) -> None:
    (root / "test.csv").write_text("image_name,annotation\n09001.jpg,0 1 1 5 5\n")
    *studies, row = rows_of(root)
    assert len(studies) == 7
    assert row == LeftOut("row 2 of test.csv", "film of the challenge's test: 09001.jpg", bad=False)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ("3 1 2 3 4", "kind '3' in '3 1 2 3 4'; expected 0 rectangle, 1 ellipse, 2 polygon"),
        ("0 1 2 3", "rectangle: expected x, y of 2 corners, got 3 numbers"),
        ("1 1 2 3 4 5 6", "ellipse: expected x, y of 2 corners, got 6 numbers"),
        ("2 1 2 3 4", "polygon: expected x, y of 3 corners or more, got 4 numbers"),
        ("0 1 2 3 x", "could not convert string to float: 'x'"),
        ("0 1 2 3 nan", "rectangle: a coordinate that is no finite number"),
        ("0 1 2 3 4;", "kind '' in ''; expected 0 rectangle"),
        ("0 1 2 3 4;;1 1 2 3 4", "kind '' in ''"),
    ],
)
def test_unreadable_annotations_are_bad_rows(root: Path, annotation: str, reason: str) -> None:
    (root / "dev.csv").write_text(DEV.replace("2 10 40 30 20 10 20", annotation))
    (row,) = [row for row in rows_of(root) if isinstance(row, LeftOut)]
    assert row.bad
    assert row.row == "row 2 of dev.csv"
    assert row.reason.startswith(f"unreadable annotation: {reason}")


def test_annotations_with_fractions_and_more_spaces() -> None:
    assert read_shapes("0 1.5 2  3 4; 2 1 1 5 1 5 9") == (
        Shape("rectangle", (1.5, 2, 3, 4)),
        Shape("polygon", (1, 1, 5, 1, 5, 9)),
    )
    assert read_shapes("") == ()


def test_rows_without_an_image_and_what_is_missing(root: Path) -> None:
    (root / "dev.csv").write_text(DEV.replace("08002.jpg", ""))  # now a row of empty cells, which counts as no row
    assert len(rows_of(root)) == 6
    (root / "dev.csv").write_text(DEV.replace("00001.jpg", ""))
    assert rows_of(root)[5] == LeftOut("row 2 of dev.csv", "no image: column 'image_name' is empty")
    (root / "dev.csv").write_text("image_path,annotation\na,\n")
    with pytest.raises(UserError, match=r"dev\.csv has no column 'image_name'"):
        rows_of(root)
    (root / "dev").rename(root / "valid")
    (root / "dev.csv").write_text(DEV)
    with pytest.raises(UserError, match=r"no folder dev in .*github\.com/hlk-1135/object-CXR"):
        rows_of(root)


def test_prepared_from_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["prepare", "object-cxr", "--root", str(root), "--out", str(out), "--size", "64", "--workers", "0"])
    said = capsys.readouterr().out
    assert "object-cxr: no patients are given: each film counts as its own patient" in said
    assert "7 studies; CM-CGNS, section IV-A states 9,000: 8,993 fewer" in said
    assert "4 foreign_object; the publisher states 4,500" in said
    corpus = PreparedCorpus.open(out)
    studies = list(read(root).values())
    assert corpus.to_pandas()["study_id"].tolist() == [study.study_id for study in studies]
    assert corpus.to_pandas()["split"].tolist() == [study.split for study in studies]
    for row, study in enumerate(studies):
        part, name = study.study_id.removesuffix(".jpg").split("/")
        assert np.abs(corpus.pixels[row, :, 8:56].astype(int) - film_of(part, name)).max() <= 6
        np.testing.assert_array_equal(corpus.masks([row], "foreign_object")[0, :, 8:56], drawn(study))
    assert corpus.boxes()[["row", "x0", "y0", "x1", "y1"]].to_numpy().tolist() == [
        [0, 16, 10, 28, 34],
        [2, 12, 6, 32, 26],
        [2, 38, 10, 52, 50],
        [2, 9, 1, 11, 3],
        [4, 18, 10, 48, 40],
        [5, 18, 20, 38, 40],
    ]
    assert corpus.rows_with_boxes(["foreign_object"]).tolist() == list(range(7))


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [("0 1 1 60 5", "box outside its image: foreign_object"), ("2 1 5 9 5 20 5", "empty box: foreign_object at 1, 5")],
)
def test_shapes_outside_their_film_or_without_extent(root: Path, tmp_path: Path, annotation: str, reason: str) -> None:
    (root / "dev.csv").write_text(DEV.replace("2 10 40 30 20 10 20", annotation))
    with pytest.raises(UserError, match=rf"row 2 of dev\.csv: {reason}"):
        prepare(ObjectCxr(root), tmp_path / "out", size=16, workers=0, log=lambda _: None)
