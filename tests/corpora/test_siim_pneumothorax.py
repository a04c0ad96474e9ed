"""The SIIM reader, on small archives in the layouts of both stages. Films have 1024 by 1024 pixels, as codes want."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from lingula.cli import main
from lingula.corpora.siim_pneumothorax import SiimPneumothorax
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.reader import split_of
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

PREFIX = "1.2.276.0.7230010.3.1.4.8323329."
ONE, NONE, TWO, CLEAR, INVERTED = (PREFIX + end for end in ("6904.15178", "1034.15178", "3352.1517", "745.15", "99.1"))

# 64 columns of 128 rows from row 256 and column 512 on, and 32 columns of 64 rows below and across it.
FIRST = f"{512 * 1024 + 256} 128" + " 896 128" * 63
SECOND = f"{560 * 1024 + 352} 64" + " 960 64" * 31

STAGE_1 = f"""\
ImageId, EncodedPixels
{ONE}, {FIRST}
{NONE}, -1
{TWO}, {FIRST}
{CLEAR},-1
{TWO},{SECOND}
{INVERTED}, -1
"""


def first() -> np.ndarray:
    mask = np.zeros((1024, 1024), dtype=bool)
    mask[256:384, 512:576] = True
    return mask


def second() -> np.ndarray:
    mask = np.zeros((1024, 1024), dtype=bool)
    mask[352:416, 560:592] = True
    return mask


def film_of(image: str, side: int = 1024) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    return (120 + 80 * np.sin(9 * x + len(image)) * np.cos(7 * y)).astype(np.uint8)


def write_film(path: Path, film: np.ndarray, inverted: bool = False) -> None:
    """As SIIM's: 8 bits, JPEG within DICOM; or inverted, and not compressed."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = path.stem
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
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def nested(root: Path, image: str, folder: str = "dicom-images-train") -> Path:
    return root / folder / f"{image}.study" / f"{image}.series" / f"{image}.dcm"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of the first stage, whose films nobody opens."""
    folder = tmp_path / "siim"
    for image in (ONE, NONE, TWO, CLEAR, INVERTED):
        nested(folder, image).parent.mkdir(parents=True)
        nested(folder, image).touch()
    (folder / "train-rle.csv").write_text(STAGE_1)
    return folder


def rows_of(root: Path) -> list[Study | LeftOut]:
    return list(SiimPneumothorax(root).studies())


def read(root: Path) -> dict[str, Study]:
    rows = rows_of(root)
    assert all(isinstance(row, Study) for row in rows)
    return {row.study_id: row for row in rows if isinstance(row, Study)}


def change(root: Path, old: str, new: str) -> None:
    text = (root / "train-rle.csv").read_text()
    assert old in text
    (root / "train-rle.csv").write_text(text.replace(old, new))


def drawn(study: Study) -> np.ndarray:
    mask = study.masks["pneumothorax"]
    assert callable(mask)
    return mask(1024, 1024)


def test_every_field_of_a_study(root: Path) -> None:
    studies = read(root)
    assert list(studies) == [ONE, NONE, TWO, CLEAR, INVERTED]  # one a film, in the order of the table
    two = studies[TWO]
    assert (two.patient_id, two.image) == (TWO, nested(root, TWO))
    assert two.row == f"row 4 of train-rle.csv, image {TWO}"
    assert [study.labels for study in studies.values()] == [{"pneumothorax": value} for value in (1, 0, 1, 0, 0)]
    assert all(not study.boxes and not study.annotated and not study.sentences for study in studies.values())
    np.testing.assert_array_equal(drawn(studies[ONE]), first())
    np.testing.assert_array_equal(drawn(two), first() | second())
    assert (first() & second()).any()  # rows are united, not added or joined
    for image in (NONE, CLEAR, INVERTED):
        assert not drawn(studies[image]).any()


def test_the_second_stage_in_all_its_folders(root: Path) -> None:
    (root / "train-rle.csv").unlink()
    (root / "stage_2_train.csv").write_text(STAGE_1.replace(" ", "", 1).replace(", ", ","))
    nested(root, NONE, "dicom-images-test").parent.mkdir(parents=True)
    nested(root, NONE).rename(nested(root, NONE, "dicom-images-test"))
    for folder, image in (("dicom-images-stage2", CLEAR), ("stage_2_images", TWO)):
        (root / folder).mkdir()
        nested(root, image).rename(root / folder / f"{image}.dcm")  # flat
    studies = read(root)
    assert studies[NONE].image == nested(root, NONE, "dicom-images-test")
    assert studies[CLEAR].image == root / "dicom-images-stage2" / f"{CLEAR}.dcm"
    assert studies[TWO].image == root / "stage_2_images" / f"{TWO}.dcm"
    assert studies[TWO].row == f"row 4 of stage_2_train.csv, image {TWO}"
    np.testing.assert_array_equal(drawn(studies[TWO]), first() | second())


def test_which_table_is_read_is_said(root: Path) -> None:
    assert SiimPneumothorax(root).remarks == ["read from train-rle.csv; each film counts as its own patient"]
    before = SiimPneumothorax(root).fingerprint()
    (root / "stage_2_train.csv.gz").write_bytes(gzip.compress(STAGE_1.replace(f"{INVERTED}, -1\n", "").encode()))
    assert SiimPneumothorax(root).remarks[0].startswith("read from stage_2_train.csv.gz")
    assert SiimPneumothorax(root).fingerprint() != before
    assert [row.study_id for row in rows_of(root) if isinstance(row, Study)] == [ONE, NONE, TWO, CLEAR]


def test_films_without_a_row_are_not_wanted(root: Path) -> None:
    extra = root / "stage_2_images" / "ID_01fe90211.dcm"
    extra.parent.mkdir()
    extra.touch()
    (root / "dicom-images-train" / "readme.txt").touch()  # no film
    *studies, row = rows_of(root)
    assert len(studies) == 5
    assert row == LeftOut(f"film {extra}", "film without a row in the table: no run-length code", bad=False)


@pytest.mark.parametrize(
    ("old", "new", "image", "reason"),
    [
        (f"{TWO},{SECOND}", f"{TWO}, -1", TWO, "empty and not: -1 beside other run-length codes"),
        (f"{ONE}, {FIRST}", f"{ONE},", ONE, "unreadable run-length code: expected pairs of whole numbers"),
        (f"{ONE}, {FIRST}", f"{ONE}, 1 2 3", ONE, "unreadable run-length code: .* got '1 2 3'"),
        (f"{TWO},{SECOND}", f"{TWO},-5 3", TWO, "unreadable run-length code: .* got '-5 3'"),
        (f"{TWO},{SECOND}", f"{TWO},", TWO, "unreadable run-length code"),
        (
            f"{CLEAR},-1",
            f"{CLEAR}9,-1",
            CLEAR + "9",
            r"missing image file: 1\.2\.276.*745\.159\.dcm is in none of dicom",
        ),
    ],
)
def test_bad_rows_name_their_image(root: Path, old: str, new: str, image: str, reason: str) -> None:
    change(root, old, new)
    (row,) = [row for row in rows_of(root) if isinstance(row, LeftOut) and row.bad]
    assert row.row.endswith(f" of train-rle.csv, image {image}")
    assert re.match(reason, row.reason)


def test_twice_empty_is_empty(root: Path) -> None:
    change(root, f"{CLEAR},-1", f"{CLEAR},-1\n{CLEAR}, -1")
    assert read(root)[CLEAR].labels == {"pneumothorax": 0}


def test_a_film_that_lies_there_twice_is_a_bad_row(root: Path) -> None:
    other = root / "stage_2_images" / f"{ONE}.dcm"
    other.parent.mkdir()
    other.touch()
    (row,) = [row for row in rows_of(root) if isinstance(row, LeftOut)]
    assert row.bad
    assert row.reason == f"film twice: {nested(root, ONE)} and {other}"


def test_ids_columns_and_folders_that_are_missing_are_named(root: Path) -> None:
    change(root, f"{NONE}, -1", ", -1")
    with pytest.raises(UserError, match=r"row 3 of train-rle\.csv: no ImageId"):
        rows_of(root)
    (root / "train-rle.csv").write_text("ImageId, Encoded\na,-1\n")
    with pytest.raises(UserError, match=r"train-rle\.csv has no column 'EncodedPixels'; did you mean 'Encoded'"):
        rows_of(root)
    (root / "train-rle.csv").write_text(STAGE_1)
    (root / "dicom-images-train").rename(root / "films")
    with pytest.raises(UserError, match=r"no folder dicom-images-train or .* in .*kaggle\.com/c/siim-acr"):
        rows_of(root)


# Splits ---------------------------------------------------------------------------------------------------------------


def test_the_split_at_full_size() -> None:
    """70/15/15 of the 12,047 films of CM-CGNS, by the permutations that ``random_state=0`` stands for."""
    ids = [f"{PREFIX}{number * 7919 % 100_003}" for number in range(12_047)]
    splits = split_of(ids, 0.3)
    assert [list(splits.values()).count(split) for split in ("train", "val", "test")] == [8_432, 1_808, 1_807]
    in_order = np.array(sorted(ids))
    first = np.random.RandomState(0).permutation(12_047)
    assert {name for name in ids if splits[name] == "train"} == set(in_order[first[3_615:]])
    rest = in_order[first[:3_615]][np.random.RandomState(0).permutation(3_615)]
    assert {name for name in ids if splits[name] == "val"} == set(rest[:1_808])


def test_the_split_is_by_film_whatever_the_order_and_what_is_there(root: Path) -> None:
    before = {image: study.split for image, study in read(root).items()}
    assert before == split_of(before, 0.3)
    lines = STAGE_1.splitlines()
    (root / "train-rle.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    nested(root, ONE).unlink()
    after = {row.study_id: row.split for row in rows_of(root) if isinstance(row, Study)}
    assert after == {image: split for image, split in before.items() if image != ONE}
    with pytest.raises(UserError, match="2 films cannot be split"):
        split_of(["a", "b"], 0.3)


# Prepared -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same archive with its films. Read it only."""
    return stage_1(tmp_path_factory.mktemp("siim") / "siim")


def stage_1(folder: Path) -> Path:
    for image in (ONE, NONE, TWO, CLEAR, INVERTED):
        write_film(nested(folder, image), film_of(image), inverted=image == INVERTED)
    write_film(nested(folder, "1.2.3"), film_of("1.2.3", 64))
    (folder / "train-rle.csv").write_text(STAGE_1)
    return folder


DOWNLOADS = {"stage 1": stage_1}


def table(root: Path, archive: Path, text: str) -> Path:
    """Another table over the same films."""
    root.mkdir()
    (root / "dicom-images-train").symlink_to(archive / "dicom-images-train")
    (root / "train-rle.csv").write_text(text)
    return root


def test_prepared_from_the_command_line(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["prepare", "siim-pneumothorax", "--root", str(archive), "--out", str(out), "--size", "64", "--workers", "0"])
    said = capsys.readouterr().out
    assert "read from train-rle.csv" in said
    assert "left out 1 rows: film without a row in the table" in said
    assert "5 studies; CM-CGNS, section IV-A states 12,047: 12,042 fewer" in said
    corpus = PreparedCorpus.open(out)
    images = corpus.to_pandas()["study_id"].tolist()
    assert images == [ONE, NONE, TWO, CLEAR, INVERTED]
    assert corpus.to_pandas()["split"].tolist() == [split_of(images, 0.3)[image] for image in images]
    for row, image in enumerate(images):
        shrunk = film_of(image).astype(float).reshape(64, 16, 64, 16).mean((1, 3))
        assert np.abs(corpus.pixels[row] - shrunk).max() <= 3
    assert corpus.rows_with_mask("pneumothorax").tolist() == [0, 1, 2, 3, 4]
    masks = corpus.masks(range(5), "pneumothorax")
    np.testing.assert_array_equal(masks[0], first()[8::16, 8::16])
    np.testing.assert_array_equal(masks[2], (first() | second())[8::16, 8::16])
    assert not masks[[1, 3, 4]].any()
    assert corpus.labels(["pneumothorax"])[:, 0].tolist() == [1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (f"{NONE}, -1", f"{NONE}, 1048575 2", r"a run ends at pixel 1,048,577 of a film of 1,048,576"),
        (f"{NONE}, -1", "1.2.3,0 1", r"its run-length codes are for 1024 by 1024 pixels, the film has 64 by 64"),
        (f"{NONE}, -1", "1.2.3, -1", r"its run-length codes are for 1024 by 1024 pixels, the film has 64 by 64"),
    ],
)
def test_codes_that_do_not_fit_their_film(archive: Path, tmp_path: Path, old: str, new: str, reason: str) -> None:
    root = table(tmp_path / "root", archive, STAGE_1.replace(old, new))
    image = new.split(",")[0].replace(".", r"\.")
    with pytest.raises(UserError, match=rf"row 3 of train-rle\.csv, image {image}: bad mask: {reason}; mend"):
        prepare(SiimPneumothorax(root), tmp_path / "out", size=16, workers=0, log=lambda _: None)
