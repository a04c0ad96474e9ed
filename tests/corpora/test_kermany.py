"""Kermany's paediatric films, in the official layouts as written here, and the compact copy where it is at hand."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.kermany import CLASSES, Kermany
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import SPLITS, LeftOut, Study
from lingula.registry import UserError

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")

FILMS = """\
train/NORMAL/IM-0115-0001.jpeg
train/NORMAL/IM-0187-0001-0002.jpeg
train/NORMAL/NORMAL2-IM-0115-0001.jpeg
train/PNEUMONIA/person1_bacteria_1.jpeg
train/PNEUMONIA/person1_bacteria_2.jpeg
train/PNEUMONIA/person1000_bacteria_2931.jpeg
train/PNEUMONIA/person1000_virus_1681.jpeg
train/PNEUMONIA/person447_virus_921_1.jpeg
test/NORMAL/IM-0001-0001.jpeg
test/NORMAL/NORMAL2-IM-0187-0001.jpeg
test/PNEUMONIA/person1_virus_6.jpeg
test/PNEUMONIA/person100_bacteria_475.jpeg
val/NORMAL/NORMAL2-IM-1427-0001.jpeg
val/PNEUMONIA/person1946_bacteria_4874.jpeg
"""
JUNK = ["train/NORMAL/.DS_Store", "val/.DS_Store", "train/PNEUMONIA/._person1_bacteria_1.jpeg"]


def write(folder, names=FILMS.split()):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.full((12, 16, 3) if number % 3 == 0 else (12, 16), 10 * number, np.uint8)
        Image.fromarray(colour).save(path)  # some of the official films are stored in colour
    for name in JUNK:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"Bud1")
    return folder


@pytest.fixture
def root(tmp_path):
    return official(tmp_path / "download")


def official(folder):
    write(folder / "chest_xray")
    return folder


def read(root, **options):
    rows = list(Kermany(root, **options).studies())
    return {row.study_id: row for row in rows if isinstance(row, Study)}, [
        row for row in rows if isinstance(row, LeftOut)
    ]


def test_the_official_release(root):
    studies, left_out = read(root)
    assert {study_id: (row.patient_id, row.split) for study_id, row in studies.items()} == {
        "train/NORMAL/IM-0115-0001": ("IM-0115", None),
        "train/NORMAL/IM-0187-0001-0002": ("IM-0187", None),
        "train/NORMAL/NORMAL2-IM-0115-0001": ("NORMAL2-IM-0115", None),
        "train/PNEUMONIA/person1000_bacteria_2931": ("person1000", None),
        "train/PNEUMONIA/person1000_virus_1681": ("person1000", None),
        "train/PNEUMONIA/person447_virus_921_1": ("person447", None),
        "val/NORMAL/NORMAL2-IM-1427-0001": ("NORMAL2-IM-1427", None),
        "val/PNEUMONIA/person1946_bacteria_4874": ("person1946", None),
        "test/NORMAL/IM-0001-0001": ("IM-0001", "test"),
        "test/NORMAL/NORMAL2-IM-0187-0001": ("NORMAL2-IM-0187", "test"),
        "test/PNEUMONIA/person1_virus_6": ("person1", "test"),
        "test/PNEUMONIA/person100_bacteria_475": ("person100", "test"),
    }
    assert left_out == [
        LeftOut(
            f"train/PNEUMONIA/person1_bacteria_{n}.jpeg", "number of a patient of the test folder: person1", bad=False
        )
        for n in (1, 2)
    ]
    film = studies["train/PNEUMONIA/person1000_virus_1681"]
    assert film.image == root / "chest_xray" / "train" / "PNEUMONIA" / "person1000_virus_1681.jpeg"
    assert (film.view, film.row) == ("AP", "train/PNEUMONIA/person1000_virus_1681.jpeg")
    assert film.sentences == ()
    assert film.masks == {}


def test_classes_exclude_each_other(root):
    studies, _ = read(root)
    labels = {study_id: [row.labels[name] for name in (*CLASSES, "pneumonia")] for study_id, row in studies.items()}
    assert labels["train/NORMAL/IM-0115-0001"] == [1, 0, 0, 0]
    assert labels["train/PNEUMONIA/person1000_bacteria_2931"] == [0, 1, 0, 1]
    assert labels["test/PNEUMONIA/person1_virus_6"] == [0, 0, 1, 1]
    assert Kermany.label_groups == {"class": ["normal", "bacterial_pneumonia", "viral_pneumonia"]}


def test_shared_numbers_may_stay_and_a_leak_within_a_class_is_still_seen(root, tmp_path):
    studies, left_out = read(root, keep_shared_numbers=True)
    assert len(studies) == len(FILMS.split())
    assert left_out == []
    assert studies["train/PNEUMONIA/person1_bacteria_1"].patient_id == "bacterial_pneumonia/person1"
    assert studies["test/PNEUMONIA/person1_virus_6"].patient_id == "viral_pneumonia/person1"
    write(root / "chest_xray", ["test/PNEUMONIA/person1_bacteria_9.jpeg"])
    studies, _ = read(root, keep_shared_numbers=True)
    patient = "bacterial_pneumonia/person1"
    assert {row.split for row in studies.values() if row.patient_id == patient} == {None, "test"}
    # prepare would send the train films to the test set; the reader must not let it grow
    assert Counter(row.split for row in read(root)[0].values())["test"] == 5


@pytest.mark.parametrize("place", ["", "chest_xray", "ChestXRay2017/chest_xray", "CellData/chest_xray"])
def test_folders_of_mendeley_and_kaggle(tmp_path, place):
    write(tmp_path / place)
    (tmp_path / "__MACOSX" / "chest_xray" / "train").mkdir(parents=True)
    assert len(read(tmp_path)[0]) == 12


def test_the_later_names_of_mendeley(tmp_path):
    names = ["train/NORMAL/NORMAL-1003233-0001.jpeg", "train/PNEUMONIA/BACTERIA-1008087-0001.jpeg"]
    names += ["test/NORMAL/NORMAL-28501-0001.jpeg", "test/PNEUMONIA/VIRUS-1980593-0002.jpeg"]
    studies, left_out = read(write(tmp_path, names))
    assert [row.patient_id for row in studies.values()] == ["1003233", "1008087", "28501", "1980593"]
    assert [row.labels["viral_pneumonia"] for row in studies.values()] == [0, 0, 0, 1]
    assert [row.labels["pneumonia"] for row in studies.values()] == [0, 1, 0, 1]
    assert left_out == []


def test_files_that_are_not_understood_are_bad_rows(root):
    folder = root / "chest_xray" / "train"
    shutil.copy(folder / "NORMAL" / "IM-0115-0001.jpeg", folder / "NORMAL" / "person7_virus_1.jpeg")
    shutil.copy(folder / "NORMAL" / "IM-0115-0001.jpeg", folder / "PNEUMONIA" / "IM-0007-0001.jpeg")
    shutil.copy(folder / "NORMAL" / "IM-0115-0001.jpeg", folder / "PNEUMONIA" / "copy of person7_virus_1.jpeg")
    left_out = [row for row in read(root)[1] if row.bad]
    assert {row.row: row.reason.partition(": ")[0] for row in left_out} == {
        "train/NORMAL/person7_virus_1.jpeg": "file name of another class",
        "train/PNEUMONIA/IM-0007-0001.jpeg": "file name of another class",
        "train/PNEUMONIA/copy of person7_virus_1.jpeg": "unknown file name",
    }


def test_prepared_from_the_command_line(root, tmp_path, capsys):
    out = tmp_path / "out"
    main(["prepare", "kermany", "--root", str(root), "--out", str(out), "--size", "16", "--workers", "0"])
    said = capsys.readouterr().out
    assert "left out 2 rows: number of a patient of the test folder" in said
    assert "12 studies; Mendeley Data, rscbjbr9sj version 2 states 5,856: 5,844 fewer" in said
    corpus = PreparedCorpus.open(out)
    splits = dict(zip(corpus.to_pandas()["study_id"], corpus.to_pandas()["split"], strict=True))
    assert {name for name, split in splits.items() if split == "test"} == {
        name.removesuffix(".jpeg") for name in FILMS.split() if name.startswith("test")
    }
    assert "val" in splits.values()
    assert splits["train/PNEUMONIA/person1000_virus_1681"] == splits["train/PNEUMONIA/person1000_bacteria_2931"]
    assert corpus.label_groups == Kermany.label_groups
    assert corpus.meta["licence"] == "CC BY 4.0"


def test_what_is_missing_is_named(root):
    shutil.rmtree(root / "chest_xray" / "test" / "PNEUMONIA")
    with pytest.raises(UserError, match=r"no folder test/PNEUMONIA in .*; it comes from https://data\.mendeley\.com"):
        list(Kermany(root).studies())
    shutil.rmtree(root / "chest_xray")
    with pytest.raises(UserError, match=r"no folder chest_xray/train/NORMAL or \./train/NORMAL or .* in .*Kaggle"):
        Kermany(root).fingerprint()


def test_the_fingerprint_follows_the_films(root):
    first = Kermany(root).fingerprint()
    (root / "chest_xray" / "val" / "PNEUMONIA" / "person1946_bacteria_4874.jpeg").unlink()
    assert Kermany(root).fingerprint() != first


# The compact copy -----------------------------------------------------------------------------------------------------


@pytest.fixture
def compact(tmp_path):
    return compact_copy(tmp_path / "kermany_cxr")


def compact_copy(root):
    for folder in ("images", "masks/lung_v7"):
        (root / folder).mkdir(parents=True)
    (root / "labels.csv").write_text(
        "image_id,patient_id,split,image_path,label,pneumonia,source_split,source_file,licence\n"
        "k0,p0,train,images/k0.jpg,bacterial_pneumonia,1,train,person511_bacteria_2153.jpeg,CC BY 4.0\n"
        "k1,p1,val,images/k1.jpg,normal,0,train,IM-0632-0001.jpeg,CC BY 4.0\n"
        "k2,p2,test,images/k2.jpg,viral_pneumonia,1,test,person1_virus_6.jpeg,CC BY 4.0\n"
    )
    (root / "segmentation.csv").write_text("image_id,target,mask_path\nk1,lung_v7,masks/lung_v7/k1.png\n")
    for name in ("k0", "k1", "k2"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "images" / f"{name}.jpg")
    Image.fromarray(np.eye(8) > 0).save(root / "masks" / "lung_v7" / "k1.png")
    return root


DOWNLOADS = {"official": official, "compact": compact_copy}
OPTIONAL = ["segmentation.csv"]


def test_the_compact_copy(compact, tmp_path):
    studies, left_out = read(compact)
    assert [(row.study_id, row.patient_id, row.split) for row in studies.values()] == [
        ("k0", "p0", "train"),
        ("k1", "p1", "val"),
        ("k2", "p2", "test"),
    ]
    assert [list(row.labels.values()) for row in studies.values()] == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1]]
    assert left_out == []
    assert Kermany(compact).stated == ()
    corpus = prepare(Kermany(compact), tmp_path / "out", size=8, workers=0, log=lambda line: None)
    np.testing.assert_array_equal(corpus.masks([1], "lung_v7")[0], np.eye(8, dtype=bool))
    assert corpus.rows_with_mask("lung_v7").tolist() == [1]


def test_errors_of_the_compact_copy(compact):
    before = Kermany(compact).fingerprint()
    (compact / "labels.csv").write_text((compact / "labels.csv").read_text().replace(",normal,", ",healthy,"))
    assert Kermany(compact).fingerprint() != before
    with pytest.raises(
        UserError, match=r"row 3 of labels\.csv: unknown class 'healthy'; expected normal, bacterial_pn"
    ):
        list(Kermany(compact).studies())


@pytest.fixture(scope="module")
def real():
    folder = DATA / "kermany_cxr"
    if not folder.is_dir():
        pytest.skip(f"kermany_cxr is not on this machine: no {folder} (set LINGULA_DATA)")
    return [row for row in Kermany(folder).studies() if isinstance(row, Study)]


def test_counts_that_the_compact_copy_states(real):
    assert len(real) == 4643
    assert len({row.patient_id for row in real}) == 2464
    counts = {"train": (879, 1553, 818, 323), "val": (125, 212, 126, 47), "test": (252, 431, 247, 110)}
    for split in SPLITS:
        rows = [row for row in real if row.split == split]
        found = tuple(sum(row.labels[name] == 1 for row in rows) for name in CLASSES)
        assert (*found, sum("lung_v7" in row.masks for row in rows)) == counts[split]
    assert all(row.image.is_file() and all(mask.is_file() for mask in row.masks.values()) for row in real[::20])


def test_the_numbers_in_real_file_names_share_what_the_docstring_says(real, tmp_path):
    """Empty files of the official names: how many films of train the default leaves out."""
    import csv

    with (DATA / "kermany_cxr" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for folder in ("train", "test"):
        for group in ("NORMAL", "PNEUMONIA"):
            (tmp_path / folder / group).mkdir(parents=True)
    for row in rows:
        group = "NORMAL" if row["label"] == "normal" else "PNEUMONIA"
        (tmp_path / row["source_split"] / group / row["source_file"]).touch()
    studies, left_out = read(tmp_path)
    assert not any(row.bad for row in left_out)
    assert len(left_out) == 350
    assert len({row.reason for row in left_out}) == 132
    assert len(studies) + len(left_out) == 4643
    kept, none = read(tmp_path, keep_shared_numbers=True)
    assert none == []
    of = {"test": set(), None: set()}
    for row in kept.values():
        of[row.split].add(row.patient_id)
    assert not of["test"] & of[None]
    classes = {name: sum(row.labels[name] for row in kept.values()) for name in CLASSES}
    assert classes == Counter(row["label"] for row in rows)
