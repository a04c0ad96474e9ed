"""A folder as a hospital exports it goes through ``lingula prepare`` as it is.

Semicolons and cp1252 as Excel writes them in Germany, backslashes, names without and with endings in another case, an
image listed twice, a file that is missing, German headings, and MONOCHROME1 DICOM, plain and compressed, beside PNG and
JPEG. What must come out is known, since each image is a ramp that is written here.
"""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, RLELossless, generate_uid

from lingula.cli import main
from lingula.data.prepared import PreparedCorpus

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (64, 1))  # dark on the left
REPORTS = [
    "INDIKATION: Husten seit Tagen. BEFUND: Kleiner Erguss links. Das Herz ist nicht vergrößert; die Lunge ist frei, "
    "Übersicht unauffällig. BEURTEILUNG: Kleiner Erguss. gez. Dr. Müller",
    "Kein Erguss, kein Pneumothorax.\nHerzgröße „grenzwertig“.",
    "Infiltrat rechts basal, etwas größer; sonst unverändert.",
]
ROWS = [  # Datei, Patient, Befund, Erguss; and the file that is meant
    ("p1\\0001", "0007", REPORTS[0], "1", "p1/0001.dcm"),
    ("p1\\0002.png", "0007", REPORTS[1], "0", "p1/0002.PNG"),
    ("0003", "0008", REPORTS[2], "", "p2/0003.jpg"),
    ("p3\\Röntgen.jpg", "0009", REPORTS[1], "0", unicodedata.normalize("NFD", "p3/Röntgen.jpg")),
    ("p1\\0001", "0007", REPORTS[0], "1", ""),  # line 8 of the file: two reports have a line break
    ("p1/0001.dcm", "0007", REPORTS[2], "1", ""),
    ("p4\\0009.dcm", "0010", REPORTS[0], "1", ""),  # not exported
    ("p2\\0003.png", "0008", REPORTS[0], "1", ""),  # of another format
]


def dicom(path: Path, pixels: np.ndarray, photometric: str) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, photometric, 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def compress(path: Path, compression: str) -> None:
    """RLE by pydicom, or JPEG-LS and JPEG lossless by DCMTK's program of that name."""
    if compression == "RLE":
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(path)
    elif compression != "none":
        if shutil.which(compression) is None:
            pytest.skip(f"{compression} of DCMTK is not installed")
        subprocess.run([compression, str(path), str(path)], check=True)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed == (compression != "none")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    images = tmp_path / "export" / "bilder"
    for *_, name in ROWS[:4]:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".dcm"):
            dicom(images / name, 255 - RAMP, "MONOCHROME1")  # white is 0, so the right side is bright
        else:
            Image.fromarray(RAMP).save(images / name, format="PNG" if name.endswith("PNG") else "JPEG", quality=100)
    (images / "p1" / "._0001.dcm").write_bytes(b"macOS")
    (images / "p1" / "Thumbs.db").write_bytes(b"Windows")
    table = pd.DataFrame([row[:4] for row in ROWS], columns=["Datei", "Patient", "Befund", "Erguss"])
    table.to_csv(tmp_path / "export" / "befunde.csv", sep=";", encoding="cp1252", index=False, lineterminator="\r\n")
    return tmp_path / "export"


def words(export: Path, out: Path, *more: str) -> list[str]:
    columns = "--image_column Datei --patient_column Patient --report_column Befund --labels Erguss"
    folders = ["--images", str(export / "bilder"), "--table", str(export / "befunde.csv"), "--out", str(out)]
    return ["prepare", "csv", *folders, *columns.split(), "--size", "64", "--workers", "0", *more]


@pytest.mark.parametrize("compression", ["none", "RLE", "dcmcjpls", "dcmcjpeg"])
def test_a_hospital_s_export_is_prepared_without_a_conversion(
    export: Path, compression: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(export / "bilder" / "p1" / "0001.dcm", compression)
    with pytest.raises(SystemExit):
        main(words(export, tmp_path / "out"))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    images = export / "bilder"
    assert (
        f"4 bad rows: 2 missing image file (first: row 10 of befunde.csv: {images}/p4\\0009.dcm), "
        "2 study listed twice (first: row 8 of befunde.csv: 'p1\\0001' is also row 2 of befunde.csv); mend them"
        in error
    )
    assert "leave them out with --skip_bad_rows, or keep one of each with --duplicates first or last" in error

    main(words(export, tmp_path / "out", "--skip_bad_rows"))
    said = capsys.readouterr().out
    assert "befunde.csv is not UTF-8 and is read as cp1252 (" in said
    assert "vergrößert" in said
    assert "the columns of befunde.csv are separated by ';'" in said
    assert "4 of 7 names of files are not written as the files are, and were matched: 1 by " in said
    assert "1 by adding the ending and searching subfolders ('0003' is p2/0003.jpg)" in said
    assert "left out 2 rows: study listed twice (first: row 8 of befunde.csv" in said
    corpus = PreparedCorpus.open(tmp_path / "out")
    index = corpus.to_pandas()
    assert index["study_id"].tolist() == [row[0] for row in ROWS[:4]]
    assert index["patient_id"].tolist() == ["0007", "0007", "0008", "0009"]
    assert index["image"].tolist() == [str(images / row[4]) for row in ROWS[:4]]
    assert index["row"].tolist() == [f"row {number} of befunde.csv" for number in (2, 3, 5, 6)]
    assert all(corpus.reports)
    assert corpus.reports[0] == [
        "kleiner erguss links.",
        "das herz ist nicht vergrößert; die lunge ist frei, übersicht unauffällig.",
        "kleiner erguss.",
    ]
    np.testing.assert_array_equal(corpus.labels(["Erguss"])[:, 0], [1, 0, np.nan, 0])
    for square in corpus.pixels:
        assert np.abs(square.astype(int) - RAMP).max() <= 2  # JPEG's loss
    left_out = pd.read_csv(tmp_path / "out" / "left_out.csv")
    assert sorted(left_out["row"].str.split().str[1].astype(int)) == [8, 9, 10, 11]
    assert left_out["reason"].str.contains("p2.0003.png, but 'p2/0003.jpg' is there").sum() == 1


@pytest.mark.parametrize(("keep", "rows"), [("first", [2, 3, 5, 6]), ("last", [3, 5, 6, 8])])
def test_one_row_of_each_image_is_kept(export: Path, tmp_path: Path, keep: str, rows: list[int]) -> None:
    table = (export / "befunde.csv").read_bytes().splitlines(keepends=True)
    (export / "befunde.csv").write_bytes(b"".join(table[:8]))
    main(words(export, tmp_path / "out", "--duplicates", keep))
    index = PreparedCorpus.open(tmp_path / "out").to_pandas()
    assert [int(row.split()[1]) for row in index["row"]] == rows
