"""The reader of COVIDx, on small archives in the official layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.covidx import Covidx
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

TRAIN = """\
3 SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg pneumonia cohen
450 4c8dee3d9fe81567b98ed1b0b2b4c6_jumbo.JPG COVID-19 cohen
COVID 9 COVID(9).png COVID-19 sirm
COVID 10 COVID(10).png COVID-19 sirm
9 nine.png normal rsna

419639-001464 MIDRC-RICORD-1C-419639-001464-39871-0.png COVID-19 ricord
9 nine.png normal rsna
"""
TEST = """\
419639-001464 MIDRC-RICORD-1C-419639-001464-33260-0.png COVID-19 ricord
47c78742 47c78742.png normal rsna
3 three.png pneumonia rsna
"""


def archive(root: Path, lists: Mapping[str, str]) -> Path:
    """Write lists by file name, and a film for each of their rows, grey by its place in its list."""
    for name, text in lists.items():
        split = name.split("_")[0].removesuffix(".txt")
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
        for place, words in enumerate(line.split() for line in text.splitlines()):
            if len(words) > 3 and not (root / split / words[-3]).exists():
                Image.fromarray(np.full((12, 12), 20 * place % 256, np.uint8)).save(root / split / words[-3])
    return root


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return three_classes(tmp_path / "covidx")


def three_classes(folder: Path) -> Path:
    """Three classes; the test list begins with a byte order mark, as some editors save it."""
    return archive(folder, {"train_COVIDx9A.txt": TRAIN, "test_COVIDx9A.txt": "\ufeff" + TEST})


DOWNLOADS = {"three classes": three_classes}


def read(root: Path, version: str = "") -> tuple[list[Study], list[LeftOut]]:
    rows = list(Covidx(root, version).studies())
    return [row for row in rows if isinstance(row, Study)], [row for row in rows if isinstance(row, LeftOut)]


def test_every_row_of_three_classes(three: Path) -> None:
    studies, left_out = read(three)
    assert [(study.study_id, study.patient_id, study.split) for study in studies] == [
        ("train/SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg", "cohen:3", None),
        ("train/4c8dee3d9fe81567b98ed1b0b2b4c6_jumbo.JPG", "cohen:450", None),
        ("train/COVID(9).png", "sirm:COVID 9", None),
        ("train/COVID(10).png", "sirm:COVID 10", None),
        ("train/nine.png", "rsna:9", None),
        ("test/MIDRC-RICORD-1C-419639-001464-33260-0.png", "ricord:419639-001464", "test"),
        ("test/47c78742.png", "rsna:47c78742", "test"),
        ("test/three.png", "rsna:3", "test"),
    ]
    assert all(study.image == three / study.study_id for study in studies)
    written = ["pneumonia", "COVID-19", "COVID-19", "COVID-19", "normal", "COVID-19", "normal", "pneumonia"]
    for study, label in zip(studies, written, strict=True):
        assert study.labels == {name: float(name == label) for name in ("normal", "pneumonia", "COVID-19")}
    assert studies[4].row == "row 5 of train_COVIDx9A.txt"
    assert Covidx(three).label_groups == {"class": ["normal", "pneumonia", "COVID-19"]}
    assert left_out == [
        LeftOut("row 7 of train_COVIDx9A.txt", "patient also in the test list: ricord:419639-001464", bad=False),
        LeftOut("row 8 of train_COVIDx9A.txt", "film listed twice: nine.png", bad=False),
    ]


def test_a_version_with_its_own_validation(tmp_path: Path) -> None:
    lists = {
        "train.txt": "a a.png negative x\nb b.png negative x\nc c.png positive x\n",
        "val.txt": "b b2.png negative x\nd d.png positive x\nc c.png positive y\n",
        "test.txt": "c c2.png positive x\nd d2.png negative x\n",
    }
    studies, left_out = read(archive(tmp_path, lists))
    assert [(study.study_id, study.split) for study in studies] == [
        ("train/a.png", "train"),
        ("val/b2.png", "val"),
        ("val/c.png", "val"),
        ("test/c2.png", "test"),
        ("test/d2.png", "test"),
    ]
    assert [(row.row, row.reason.partition(": ")[0]) for row in left_out] == [
        ("row 2 of train.txt", "patient also in the val list"),
        ("row 3 of train.txt", "patient also in the test list"),
        ("row 2 of val.txt", "patient also in the test list"),
    ]
    assert studies[1].labels == {"negative": 1, "positive": 0}
    assert Covidx(tmp_path).stated == ()
    assert Covidx(tmp_path).remarks == ["classes negative, positive in train.txt, val.txt, test.txt"]
    corpus = prepare(Covidx(tmp_path), tmp_path / "out", size=8, workers=0, log=lambda line: None)
    assert [len(corpus.rows(split)) for split in ("train", "val", "test")] == [1, 2, 2]


def test_a_patient_of_all_three_lists_stays_in_the_test(tmp_path: Path) -> None:
    lists = {f"{split}.txt": f"a {split}.png negative x\n" for split in ("train", "val", "test")}
    studies, left_out = read(archive(tmp_path, lists))
    assert [study.study_id for study in studies] == ["test/test.png"]
    assert {row.reason for row in left_out} == {"patient also in the test list: x:a"}


@pytest.mark.parametrize(
    ("stem", "version"), [("", "kaggle"), ("_COVIDx6", "6"), ("_COVIDx9A", "9A"), ("_COVIDx_CXR-3A", "CXR-3A")]
)
def test_versions_are_told_by_the_names_of_their_lists(tmp_path: Path, stem: str, version: str) -> None:
    """One root with the named lists and those of 8B: the choice must be named, and is then the only one read."""
    named = {f"train{stem}.txt": "a a.png normal x\n", f"test{stem}.txt": "b b.png normal x\n"}
    archive(tmp_path, named)
    assert [study.study_id for study in read(tmp_path)[0]] == ["train/a.png", "test/b.png"]
    alone = Covidx(tmp_path).fingerprint()
    archive(tmp_path, {"train_COVIDx8B.txt": "c c.png positive x\n", "test_COVIDx8B.txt": "d d.png negative x\n"})
    with pytest.raises(UserError, match=f"lists of several versions .*: .*{version}.*; choose one with version"):
        read(tmp_path)
    assert [study.study_id for study in read(tmp_path, version)[0]] == ["train/a.png", "test/b.png"]
    assert [study.study_id for study in read(tmp_path, "8B")[0]] == ["train/c.png", "test/d.png"]
    assert len({alone, Covidx(tmp_path, "8B").fingerprint(), Covidx(tmp_path, version).fingerprint()}) == 3
    with pytest.raises(UserError, match=r"no lists of version '7A' in .*; there are: .*8B"):
        read(tmp_path, "7A")


def test_ten_percent_of_the_train_patients_become_validation(tmp_path: Path) -> None:
    """300 patients of two films each; the test list is as it was, and no patient is in two splits."""
    label = ("negative", "positive")
    train = [f"{patient} {patient}-{film}.png {label[patient % 2]} rsna" for patient in range(300) for film in (0, 1)]
    test = [f"t{patient} t{patient}.png {label[patient % 2]} rsna" for patient in range(20)]
    archive(tmp_path, {"train.txt": "\n".join(train), "test.txt": "\n".join(test)})
    lines: list[str] = []
    corpus = prepare(Covidx(tmp_path), tmp_path / "out", size=4, workers=0, log=lines.append)
    index = PreparedCorpus.open(tmp_path / "out").to_pandas()
    assert len(corpus.rows("test")) == 20
    assert index.loc[index.split == "test", "study_id"].tolist() == [f"test/t{patient}.png" for patient in range(20)]
    assert 15 <= index.loc[index.split == "val", "patient_id"].nunique() <= 45
    assert index.groupby("patient_id").split.nunique().max() == 1
    assert "covidx: 300 patients without a split were drawn into train, val" in lines
    assert lines[0] == (
        "covidx: classes negative, positive in train.txt, test.txt; no validation list: its patients are drawn from "
        "the train list"
    )
    assert lines[-1].startswith("covidx: 310 positive; CM-CGNS, section IV-A states 16,490: 16,180 fewer")


def test_from_the_command_line(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["prepare", "covidx", "--root", str(three), "--out", str(out), "--size", "8", "--workers", "0"])
    index = PreparedCorpus.open(out).to_pandas().set_index("study_id")
    assert len(index) == 8
    assert index.loc["train/COVID(9).png", "label:COVID-19"] == 1
    assert index.loc["train/COVID(9).png", "label:normal"] == 0
    assert list(index.columns[index.columns.str.startswith("label:")]) == [
        "label:normal",
        "label:pneumonia",
        "label:COVID-19",
    ]
    position = list(index.index).index("train/COVID(10).png")
    assert (np.load(out / "pixels.npy")[position] == 60).all()  # the fourth film of its list
    left = pd.read_csv(out / "left_out.csv")
    assert left.row.tolist() == ["row 7 of train_COVIDx9A.txt", "row 8 of train_COVIDx9A.txt"]


def test_bad_rows(tmp_path: Path) -> None:
    train = "a a.png negative x\nb.png negative x\nc a.png negative x\na a.png positive x\nd gone.png positive x\n"
    archive(tmp_path, {"train.txt": train, "test.txt": "t t.png positive x\n"})
    (tmp_path / "train" / "gone.png").unlink()
    studies, left_out = read(tmp_path)
    assert [study.study_id for study in studies] == ["train/a.png", "train/gone.png", "test/t.png"]
    assert left_out == [
        LeftOut("row 2 of train.txt", "not a row of patient, image, class and source: b.png negative x"),
        LeftOut("row 3 of train.txt", "film listed twice, in disagreement: a.png, first in row 1 of train.txt"),
        LeftOut("row 4 of train.txt", "film listed twice, in disagreement: a.png, first in row 1 of train.txt"),
    ]
    with pytest.raises(UserError, match=r"4 bad rows: .*1 not a row of .*row 2 of train\.txt: b\.png"):
        prepare(Covidx(tmp_path), tmp_path / "out", size=4, workers=0, log=lambda line: None)
    corpus = prepare(Covidx(tmp_path), tmp_path / "out", 4, 0, skip_bad_rows=True, log=lambda line: None)
    assert len(corpus) == 2


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("a a.png normal x\nb b.png positive x\n", r"row 2 of train\.txt: unknown class 'positive'; expected normal, "),
        ("a a.png level1 x\n", r"row 1 of train\.txt: unknown class 'level1'; expected negative, positive or normal, "),
        (
            "a a.png covid x\n",
            r"row 1 of train\.txt: unknown class 'covid'; expected negative, positive or normal, pneumonia, COVID-19",
        ),
    ],
)
def test_unknown_classes(tmp_path: Path, train: str, message: str) -> None:
    archive(tmp_path, {"train.txt": train, "test.txt": "t t.png covid x\n"})
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_lists_that_hold_nothing_and_a_folder_that_is_missing(tmp_path: Path) -> None:
    archive(tmp_path, {"train.txt": "a a.png normal x\n"})
    (tmp_path / "test.txt").write_text("b b.png normal x\n")
    with pytest.raises(UserError, match=r"no folder test in .*kaggle\.com"):
        read(tmp_path)
    (tmp_path / "test.txt").write_bytes(b"b b.png normal \xff\n")
    with pytest.raises(UserError, match=r"cannot read list .*test\.txt"):
        read(tmp_path)
    (tmp_path / "test.txt").write_text("\n")  # else a test would be drawn from the train list
    with pytest.raises(UserError, match=r"test\.txt has no rows of .*kaggle\.com"):
        read(tmp_path)
