"""The reader of any table, on small tables written here and on two real corpora where they are at hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.csv_table import CsvTable
from lingula.data.image import letterbox, read_image
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import SPLITS, Box, LeftOut, Study
from lingula.registry import UserError

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")

TABLE = """\
image,patient,side,part,report,effusion,edema,kind
a.png,p1,PA,training,"FINDINGS: Small LEFT effusion.
Heart is normal.

IMPRESSION: Effusion is small.",1,0,ill
b.png,p2,AP,valid,IMPRESSION: No effusion is seen.,0.0,-1,healthy
c.png,p3,LATERAL,test,Lungs are clear. Normal.,,1,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(folder: Path) -> Path:
    for number, name in enumerate("abc"):
        Image.fromarray(np.full((20, 10), 50 * number, np.uint8)).save(folder / f"{name}.png")
    (folder / "reports.csv").write_text(TABLE, encoding="utf-8")
    return folder


def own(folder: Path) -> dict[str, Any]:
    columns = {"image_column": "image", "patient_column": "patient", "report_column": "report"}
    return {"images": write(folder), "table": folder / "reports.csv", "labels": ["effusion"], **columns}


DOWNLOADS = {"own": own}


def reader(folder: Path, table: str = "reports.csv", **options: Any) -> CsvTable:
    return CsvTable(folder, folder / table, **options)


def read(folder: Path, table: str = "reports.csv", **options: Any) -> list[Study | LeftOut]:
    return list(reader(folder, table, **options).studies())


FULL: dict[str, Any] = {
    "report_column": "report",
    "patient_column": "patient",
    "split_column": "part",
    "view_column": "side",
    "labels": ["effusion", "edema"],
    "class_column": "kind",
}


def test_every_field_of_a_study(folder: Path) -> None:
    first, second, third = read(folder, **FULL)
    assert isinstance(first, Study)
    assert isinstance(second, Study)
    assert isinstance(third, Study)
    assert (first.study_id, first.patient_id, first.split, first.view) == ("a.png", "p1", "train", "PA")
    assert first.image == folder / "a.png"
    assert [sentence.text for sentence in first.sentences] == [
        "small left effusion.",
        "heart is normal.",
        "effusion is small.",
    ]
    assert [sentence.text for sentence in third.sentences] == ["lungs are clear."]
    assert first.labels == {"effusion": 1, "edema": 0, "healthy": 0, "ill": 1}
    assert second.labels == {"effusion": 0, "edema": -1, "healthy": 1, "ill": 0}
    assert third.labels["edema"] == 1
    assert all(math.isnan(third.labels[name]) for name in ("effusion", "healthy", "ill"))
    assert [row.split for row in (first, second, third)] == ["train", "val", "test"]
    # the first row has three line breaks in its report, so the second starts on line 6
    assert [row.row for row in (first, second, third)] == [f"row {n} of reports.csv" for n in (2, 6, 7)]
    assert reader(folder, **FULL).label_groups == {"kind": ["healthy", "ill"]}


def test_the_rows_are_the_lines_where_they_start(folder: Path) -> None:
    lines = (folder / "reports.csv").read_text(encoding="utf-8").splitlines()
    for row, image in zip(read(folder), ("a.png", "b.png", "c.png"), strict=True):
        assert lines[int(row.row.split()[1]) - 1].startswith(image)


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_other_formats_read_alike(folder: Path, suffix: str) -> None:
    table = pd.read_csv(folder / "reports.csv")  # numbers as numbers, what is missing as NaN
    if suffix == "tsv":
        table.to_csv(folder / "reports.tsv", sep="\t", index=False)
    else:
        table.to_parquet(folder / "reports.parquet")
    for ours, other in zip(read(folder, **FULL), read(folder, f"reports.{suffix}", **FULL), strict=True):
        assert isinstance(ours, Study)
        assert isinstance(other, Study)
        assert (ours.sentences, ours.split, ours.image) == (other.sentences, other.split, other.image)
        assert list(ours.labels) == list(other.labels)
        np.testing.assert_array_equal(list(ours.labels.values()), list(other.labels.values()))
    if suffix == "parquet":
        assert read(folder, "reports.parquet")[0].row == "row 1 of reports.parquet"


def test_ids_and_suffixes(folder: Path) -> None:
    (folder / "ids.csv").write_text("id,name\na,x\nb,y\n")
    rows = read(folder, "ids.csv", image_column="id", image_suffix=".png", study_column="name")
    assert all(isinstance(row, Study) for row in rows)
    assert [(row.study_id, row.patient_id, row.image) for row in rows if isinstance(row, Study)] == [
        ("x", "x", folder / "a.png"),
        ("y", "y", folder / "b.png"),
    ]
    alone = reader(folder, "ids.csv", image_column="id", image_suffix=".png")
    assert alone.remarks == ["no patient_column given: each row counts as its own patient"]
    assert reader(folder, patient_column="patient").remarks == []


def test_sections_in_their_order(folder: Path) -> None:
    (folder / "s.csv").write_text(
        "image,findings,impression\na.png,Heart is big.,No acute disease\nb.png,,Clear lungs now.\n"
    )
    first, second = read(folder, "s.csv", section_columns=["impression", "findings"])
    assert isinstance(first, Study)
    assert isinstance(second, Study)
    assert [sentence.text for sentence in first.sentences] == ["no acute disease", "heart is big."]
    assert [sentence.text for sentence in second.sentences] == ["clear lungs now."]


def test_views_are_kept_in_any_case(folder: Path) -> None:
    rows = read(folder, view_column="side", views=["pa", "Ap"])
    assert [isinstance(row, Study) for row in rows] == [True, True, False]
    assert rows[2] == LeftOut("row 7 of reports.csv", "view 'LATERAL' not among pa, Ap", bad=False)


def test_empty_and_short_reports(folder: Path) -> None:
    (folder / "r.csv").write_text(
        "image,report\na.png,\nb.png,Lungs clear.\nc.png,Normal. Clear. Fine.\na.png,None. NA of these\n"
    )
    empty, short, single, words = read(folder, "r.csv", report_column="report")
    assert empty == LeftOut("row 2 of r.csv", "empty report: nothing to read in column 'report'", bad=True)
    assert short == LeftOut("row 3 of r.csv", "report of fewer than 3 tokens: Lungs clear.", bad=False)
    assert single == LeftOut("row 4 of r.csv", "report of fewer than 3 tokens: Normal. Clear. Fine.", bad=False)
    assert isinstance(words, Study)  # "None" and "NA" are words here, not missing values
    assert [sentence.text for sentence in words.sentences] == ["na of these"]
    kept = read(folder, "r.csv", report_column="report", require_report=False)
    assert [len(row.sentences) if isinstance(row, Study) else -1 for row in kept] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("indication: cough for weeks", "the cell holds 'indication: cough for weeks', all of it under 'indication'"),
        ("INDICATION: " + "long " * 30, "long long lon...', all of it under 'indication'"),
        ("<div>HISTORY: x y</div>", "'<div>HISTORY: x y</div>', HTML or XML tags, all of it under 'history'"),
        ("HISTORY: a b c<br>DATE: 1.1.2020", "all of it under 'history', 'administration'"),
    ],
)
def test_an_empty_report_shows_its_cell(folder: Path, cell: str, reason: str) -> None:
    (folder / "r.csv").write_text(f'image,report\na.png,"{cell}"\n')
    (row,) = read(folder, "r.csv", report_column="report")
    assert isinstance(row, LeftOut)
    assert row.bad
    assert row.reason.startswith("empty report: nothing to read in column 'report': the cell holds '")
    assert row.reason.endswith(reason)


def test_headings_of_a_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "h.yaml").write_text("findings:\n  sv: [Utlåtande]\nindication:\n  sv: [Anledning]\n", encoding="utf-8")
    (folder / "r.csv").write_text(
        'image,report\na.png,"Anledning: Hosta länge.\nUtlåtande: Ingen vätska.\nIMPRESSION: Normal bild nu."\n'
    )
    options: dict[str, Any] = {"report_column": "report"}
    (plain,) = read(folder, "r.csv", **options)
    (ours,) = read(folder, "r.csv", headings=folder / "h.yaml", **options)
    assert isinstance(plain, Study)
    assert isinstance(ours, Study)
    assert [sentence.text for sentence in plain.sentences] == ["normal bild nu."]
    assert [sentence.text for sentence in ours.sentences] == ["ingen vätska.", "normal bild nu."]
    marks = {reader(folder, "r.csv", **options, headings=path).fingerprint() for path in (None, folder / "h.yaml")}
    (folder / "h.yaml").write_text("findings:\n  sv: [Utlåtande]\n", encoding="utf-8")
    marks.add(reader(folder, "r.csv", **options, headings=folder / "h.yaml").fingerprint())
    assert len(marks) == 3
    monkeypatch.setattr("lingula.data.headings.Headings.fingerprint", lambda self: "of another version")
    assert reader(folder, "r.csv", **options).fingerprint() not in marks


def test_what_was_read_is_said_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line to the table at the end and to corpus.json."""
    reports = [
        "Anamnese: Husten seit drei Wochen, raucht.\nUNTERSUCHER: Dr. A.\nBEFUND: Kein Erguss. Herz normal.",
        "INDIKATION: Luftnot.\nBEFUND: Kleiner Erguss links. Die Lunge ist frei.",
        "Der Erguss ist kleiner. " + "Die Lunge ist frei. " * 70,
    ]
    rows = "".join(f'{name}.png,p{name},"{report}"\n' for name, report in zip("abc", reports, strict=True))
    (folder / "r.csv").write_text("image,patient,report\n" + rows, encoding="utf-8")
    (folder / "h.yaml").write_text("history:\n  de: [UNTERSUCHER]\n")
    arguments = ["--images", str(folder), "--table", str(folder / "r.csv"), "--report_column", "report"]
    arguments += ["--patient_column", "patient", "--size", "16", "--workers", "0"]
    main(["prepare", "csv", *arguments, "--out", str(folder / "out")])
    said = capsys.readouterr().out
    assert "csv_table: report text: 3 read\n" in said
    assert "dropped: history (by design)\n" in said
    assert "dropped: 'untersucher' (not known)\n" in said
    assert "language, guessed: German 100.0%\n" in said
    assert "1 reports or more are longer than 256 tokens: 21 of their sentences" in said
    read = PreparedCorpus.open(folder / "out").meta["reports"]
    assert read["reports"] == 3
    assert read["dropped"]["untersucher"] == {"sentences": 1, "characters": 5}
    assert read["languages"] == {"German": 3}
    assert read["longer_than_256_tokens_at_least"] == {"reports": 1, "sentences": 21}
    main(["prepare", "csv", *arguments, "--headings", str(folder / "h.yaml"), "--out", str(folder / "ours")])
    assert "untersucher" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "csv", *arguments, "--headings", str(folder / "none.yaml"), "--out", str(folder / "no")])
    assert stop.value.code == 2
    assert "cannot read the headings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "split"),
    [("Train", "train"), ("TRAINING", "train"), ("testing", "test"), ("test", "test"), ("", None)]
    + [(name, "val") for name in ("val", "valid", "validate", "validation", "dev", "Development")],
)
def test_split_names(folder: Path, written: str, split: str | None) -> None:
    (folder / "s.csv").write_text(f"image,part\na.png,{written}\n")
    (row,) = read(folder, "s.csv", split_column="part")
    assert isinstance(row, Study)
    assert row.split == split


def test_a_missing_column_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        read(folder, report_column="reprot")
    assert str(error.value) == (
        "reports.csv has no column 'reprot'; did you mean 'report'?; its columns: "
        "image, patient, side, part, report, effusion, edema, kind"
    )
    for options in ({"labels": ["x"]}, {"section_columns": ["x"]}, {"class_column": "x"}, {"image_column": "x"}):
        with pytest.raises(UserError, match=r"reports\.csv has no column 'x'; its columns: image"):
            reader(folder, **options).fingerprint()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "image,x\na.png,1\nb.png,maybe\n",
            {"labels": ["x"]},
            r"row 3 of t\.csv: 'maybe' in label column 'x'; expected 1, 0",
        ),
        ("image,x\na.png,2\n", {"labels": ["x"]}, r"row 2 of t\.csv: '2' in label column 'x'"),
        ("image,x\na.png,inf\n", {"labels": ["x"]}, "'inf' in label column"),
        ("image,x\na.png,holdout\n", {"split_column": "x"}, r"row 2 of t\.csv: unknown split 'holdout' in column 'x'"),
        (
            "image,x\na.png,1,2\n",
            {},
            r"row 2 of t\.csv: wrong number of cells: expected 2 cells as in the header, got 3",
        ),
        ("image,image\na.png,1\n", {}, r"t\.csv has the column 'image' twice"),
        ("image\n", {}, r"t\.csv has no rows"),
        ("", {}, r"t\.csv is empty"),
        ("other\n", {}, r"t\.csv has no column 'image'"),
        ('image\n"a.png', {}, r"cannot read table .*row 2"),
        ("image,x,y\na.png,1,x\n", {"labels": ["x"], "class_column": "y"}, "'x' is both a label column and a class"),
        ("image\na.png\n", {"views": ["PA"]}, "need the column that names them: view_column"),
        ("image\na.png\n", {"report_column": "a", "section_columns": ["b"]}, "either report_column or section_columns"),
    ],
)
def test_errors_name_the_row_and_the_way_out(folder: Path, text: str, options: dict[str, Any], message: str) -> None:
    (folder / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read(folder, "t.csv", **options)


def test_files_that_are_not_there_or_not_tables(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no table at .*none\.csv"):
        read(folder, "none.csv")
    with pytest.raises(UserError, match=r"no table at .*none\.parquet"):
        read(folder, "none.parquet")
    (folder / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"cannot read table .*t\.xlsx"):
        read(folder, "t.xlsx")
    (folder / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot read table"):
        read(folder, "t.parquet")
    (folder / "latin.csv").write_bytes("image,b\na.png,é\n".encode("latin-1"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        read(folder, "latin.csv", encoding="utf-8")
    with pytest.raises(UserError, match="no folder of images"):
        list(CsvTable(folder / "none", folder / "reports.csv").studies())


def test_rows_without_ids_are_bad(folder: Path) -> None:
    (folder / "t.csv").write_text("image,patient\n,p1\na.png,\n")
    first, second = read(folder, "t.csv", patient_column="patient")
    assert first == LeftOut("row 2 of t.csv", "no image: column 'image' is empty")
    assert second == LeftOut("row 3 of t.csv", "no id: column 'patient' is empty")


def test_labels_and_classes_as_people_write_them(folder: Path) -> None:
    rows = [("yes", "1.0"), ("No", "1"), ("N/A", "NaN"), ("uncertain", "2"), ("1", "-")]
    text = "".join(f"{image}.png,{x},{kind}\n" for image, (x, kind) in zip("abcde", rows, strict=True))
    (folder / "t.csv").write_text("image,x,kind\n" + text)
    corpus = reader(folder, "t.csv", labels=["x"], class_column="kind")
    nan = math.nan
    expected = [(1, 1, 0), (0, 1, 0), (nan, nan, nan), (-1, 0, 1), (1, nan, nan)]
    studies = [row for row in corpus.studies() if isinstance(row, Study)]
    assert corpus.label_groups == {"kind": ["1", "2"]}
    np.testing.assert_array_equal([[row.labels[name] for name in ("x", "1", "2")] for row in studies], expected)
    kind, words = (line for line in corpus.remarks if "read as" in line)
    assert kind == "column 'kind': '-' (1 cell) read as unknown, '1.0' (1 cell) as '1', 'NaN' (1 cell) as unknown"
    assert words.startswith(
        "label columns: 'N/A' (1 cell) read as unknown, 'No' (1 cell) as 0, 'uncertain' (1 cell) as -1"
    )


def test_a_byte_order_mark_and_blank_lines_and_spaces(folder: Path) -> None:
    (folder / "t.csv").write_bytes(b"\xef\xbb\xbfimage , x\r\n a.png ,1\r\n\r\nb.png, 0 \r\n\r\n")
    rows = read(folder, "t.csv", labels=["x"])
    assert [row.row for row in rows] == ["row 2 of t.csv", "row 4 of t.csv"]
    assert [row.labels for row in rows if isinstance(row, Study)] == [{"x": 1}, {"x": 0}]


def test_the_fingerprint_follows_lists_and_the_rules_by_which_texts_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reader(folder).fingerprint()
    assert reader(folder, labels=["edema"]).fingerprint() != first
    texts: list[dict[str, Any]] = [{"report_column": "report"}, {"section_columns": ["report"]}]
    read = [reader(folder, **options).fingerprint() for options in texts]
    monkeypatch.setattr("lingula.data.reports.RULES", 0)  # the same reports read by other rules
    assert not {reader(folder, **options).fingerprint() for options in texts} & {*read}
    assert reader(folder).fingerprint() == first  # without reports there is nothing to read


def test_prepared(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    table = reader(folder, **{**FULL, "patient_column": None}, name="three", licence="CC0")
    corpus = prepare(table, tmp_path / "out", size=16, workers=0, log=lines.append)
    assert lines[0] == "three: no patient_column given: each row counts as its own patient"
    assert (corpus.name, corpus.meta["licence"], corpus.label_groups) == ("three", "CC0", {"kind": ["healthy", "ill"]})
    np.testing.assert_array_equal(corpus.pixels[2], letterbox(np.full((20, 10), 100, np.uint8), 16)[0])
    assert corpus.to_pandas()["split"].tolist() == ["train", "val", "test"]
    (folder / "m.csv").write_text("image\nz.png\n")
    with pytest.raises(UserError, match=r"csv_table: row 2 of m\.csv: missing image file: .*z\.png; mend"):
        prepare(reader(folder, "m.csv"), tmp_path / "other", log=lines.append)


def test_importing_the_reader_imports_no_pandas() -> None:
    heavy = "pandas", "torch", "cv2", "PIL"
    code = f"import sys, lingula.corpora.csv_table; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Names of files -------------------------------------------------------------------------------------------------------


def images(folder: Path, *names: str) -> Path:
    """A folder of images of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 10), 50, np.uint8)).save(folder / name, format="PNG")
    return folder


def listing(folder: Path, *rows: str) -> str:
    (folder / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return "t.csv"


def test_images_are_found_under_other_names_and_that_is_counted(folder: Path) -> None:
    root = images(folder / "root", "p1/a.png", "p1/b.png", "Ro\u0308ntgen.png", "deep/er/C.PNG", "plain.png")
    names = ("p1\\a.png", "p1\\b.png", "R\u00f6ntgen.png", "c", "plain.png")
    table = CsvTable(root, folder / listing(folder, "image,patient", *(f"{name},p" for name in names)))
    rows = [row for row in table.studies() if isinstance(row, Study)]
    assert [row.image for row in rows] == [
        root / name for name in ("p1/a.png", "p1/b.png", "Ro\u0308ntgen.png", "deep/er/C.PNG", "plain.png")
    ]
    assert [row.study_id for row in rows] == list(names)  # as the table has them
    assert table.remarks[1:] == [
        "4 of 5 names of files are not written as the files are, and were matched: 2 by turning backslashes into "
        "slashes ('p1\\a.png' is p1/a.png); 1 by changing the Unicode form ('R\u00f6ntgen.png' is Ro\u0308ntgen.png); "
        "1 by adding the ending and changing the letter case and searching subfolders ('c' is deep/er/C.PNG)"
    ]
    assert reader(folder).remarks == ["no patient_column given: each row counts as its own patient"]


def test_names_that_fit_several_images_or_only_another(folder: Path) -> None:
    root = images(folder / "root", "p1/a.png", "p2/a.png", "p1/b.png")
    rows = list(CsvTable(root, folder / listing(folder, "image", "a", "b.jpg", "p2/b.png", "c.png")).studies())
    assert rows[:3] == [
        LeftOut("row 2 of t.csv", "ambiguous image file: 'a' could be 'p1/a.png' or 'p2/a.png'"),
        LeftOut("row 3 of t.csv", f"missing image file: {root}/b.jpg, but 'p1/b.png' is there"),
        LeftOut("row 4 of t.csv", f"missing image file: {root}/p2/b.png, but 'p1/b.png' is there"),
    ]
    assert isinstance(rows[3], Study)  # prepare says that it is missing


def test_rows_of_another_length_are_counted_and_skipped(folder: Path) -> None:
    rows = ("a.png,1", "b.png,No effusion, clear.", "c.png", "c.png,2")
    name = listing(folder, "image,n", *rows)
    long, short = [row for row in read(folder, name) if isinstance(row, LeftOut)]
    assert long == LeftOut("row 3 of t.csv", "wrong number of cells: expected 2 cells as in the header, got 3")
    assert short == LeftOut("row 4 of t.csv", "wrong number of cells: expected 2 cells as in the header, got 1")
    with pytest.raises(
        UserError, match=r"2 bad rows: 2 wrong number of cells \(first: row 3 of t\.csv: exp.*--skip_bad_rows"
    ):
        prepare(reader(folder, name), folder / "out", size=16, workers=0, log=lambda _: None)
    lines: list[str] = []
    corpus = prepare(reader(folder, name), folder / "out", size=16, workers=0, skip_bad_rows=True, log=lines.append)
    assert len(corpus) == 2
    assert "left out 2 rows: wrong number of cells (first: row 3" in "".join(lines)
    left_out = pd.read_csv(folder / "out" / "left_out.csv")
    assert left_out["row"].tolist() == ["row 3 of t.csv", "row 4 of t.csv"]
    assert left_out["reason"].tolist() == [long.reason, short.reason]


def test_one_image_under_two_names_is_one_study(folder: Path) -> None:
    name = listing(folder, "image,patient", "a.png,p1", "a,p1", "A.PNG,p1")
    assert [row.study_id for row in read(folder, name, patient_column="patient") if isinstance(row, Study)] == [
        "a.png"
    ] * 3
    with pytest.raises(
        UserError, match=r"2 bad rows: 2 study listed twice \(first: row 3 of t\.csv: 'a\.png' is also row 2"
    ):
        prepare(reader(folder, name), folder / "out", size=16, workers=0, log=lambda _: None)


def test_a_mask_is_not_taken_for_its_image(folder: Path) -> None:
    root = images(folder / "root", "a.png", "masks/b.png", "own/c.png")
    name = listing(folder, "image,lung", "a,masks\\b.png", "b,masks\\b.png", "c,")
    table = CsvTable(root, folder / name, mask_columns=["lung"], mask_folders={"heart": root / "own"})
    first, second, third = table.studies()
    assert isinstance(first, Study)
    assert isinstance(second, Study)
    assert isinstance(third, Study)
    assert (first.image, first.masks) == (root / "a.png", {"lung": root / "masks" / "b.png"})
    assert (second.image, third.image) == (root / "b", root / "c")  # both missing
    assert third.masks == {"heart": root / "own" / "c.png"}


def test_masks_and_boxes_follow_the_image_and_not_its_name(folder: Path) -> None:
    root = images(folder / "root", "p1/a.png", "p2/Ro\u0308.png", "p3/c.png", "m/M1.png")
    own = images(folder / "own", "p1/a.tif", "p2/R\u00f6.bmp")
    sides = [1.0, 2.0, 3.0, 4.0]
    boxes = coco(folder / "b.json", ["p1\\A.PNG", "c.png", "R\u00f6"], [("p1\\A.PNG", "tube", sides)])
    table = CsvTable(
        root,
        folder / listing(folder, "image,other", "a,m\\m1", "p2\\R\u00f6.png,x", "c,"),
        mask_columns=["other"],
        mask_folders={"lung": own},
        boxes=boxes,
    )
    rows = list(table.studies())
    assert rows[1] == Study(
        study_id="p2\\R\u00f6.png",
        patient_id="p2\\R\u00f6.png",
        image=root / "p2" / "Ro\u0308.png",
        annotated=("nodule", "tube"),
        masks={"other": root / "x", "lung": own / "p2" / "R\u00f6.bmp"},
        row="row 3 of t.csv",
    )
    first, third = rows[0], rows[2]
    assert isinstance(first, Study)
    assert isinstance(third, Study)
    assert first.boxes == (Box("tube", 1, 2, 4, 6),)
    assert first.masks == {"other": root / "m" / "M1.png", "lung": own / "p1" / "a.tif"}
    assert third.annotated == ("nodule", "tube")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["s.png"], r"image 's\.png' of b\.json could be 'p1/s\.png' or 'p2/s\.png'"),
        (["p1/s.png", "p1\\s.png"], r"'p1/s\.png' and 'p1\\s\.png' of b\.json are the same image, p1/s\.png"),
        (["p3/s.png"], r"none of the 1 images of b\.json belongs to a film of the table"),
    ],
)
def test_boxes_of_an_unclear_image_are_refused(folder: Path, names: list[str], message: str) -> None:
    table = listing(folder, "image", "p1/s.png", "p2/s.png")
    with pytest.raises(UserError, match=message):
        read(folder, table, boxes=coco(folder / "b.json", names, []))


def test_the_format_of_the_table_is_given_or_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.txt").write_bytes("image|größe;x\na.png|1;0\n".encode("cp1252"))
    out = folder / "out"
    words = ["prepare", "csv", "--images", str(folder), "--table", str(folder / "t.txt"), "--size", "20"]
    main([*words, "--workers", "0", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "t.txt is not UTF-8 and is read as cp1252 (größe); --encoding chooses another" in printed
    assert "the columns of t.txt are separated by '|'" in printed
    for options in (["--delimiter", ";"], ["--delimiter", "tab"], ["--encoding", "utf-16"], ["--sheet", "x"]):
        with pytest.raises(SystemExit):
            main([*words, "--out", str(folder / "other"), *options])
    printed = capsys.readouterr().err
    assert printed.count("t.txt has no column 'image'; is it separated by '|'?; its columns: image|größe") == 2
    assert "t.txt is not in utf-16" in printed
    assert "--sheet is for .xlsx" in printed
    given = reader(folder, "t.txt", delimiter="|", encoding="cp1252")
    assert given.fingerprint() != reader(folder, "t.txt").fingerprint()
    assert given.remarks == ["no patient_column given: each row counts as its own patient"]


# Masks and boxes ------------------------------------------------------------------------------------------------------


def mask(path: Path, columns: slice, height: int = 20, width: int = 10) -> Path:
    """A mask that is white in these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, columns] = 255
    Image.fromarray(pixels).save(path)
    return path


def coco(path: Path, images: list[str], boxes: list[tuple[str, str, list[float]]]) -> Path:
    categories = ["nodule", "tube"]
    content = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories)],
        "images": [{"id": number, "file_name": name} for number, name in enumerate(images)],
        "annotations": [
            {"id": number, "image_id": images.index(image), "category_id": categories.index(name), "bbox": sides}
            for number, (image, name, sides) in enumerate(boxes)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def studies(folder: Path, table: str = "reports.csv", **options: Any) -> list[Study]:
    rows = read(folder, table, **options)
    assert all(isinstance(row, Study) for row in rows)
    return [row for row in rows if isinstance(row, Study)]


def test_mask_columns_start_from_the_images_and_empty_is_not_annotated(folder: Path) -> None:
    mask(folder / "masks" / "one.png", slice(0, 5))
    (folder / "m.csv").write_text("image,lung,heart\na.png,masks/one.png,\nb.png,,masks/one.png\nc.png,,\n")
    first, second, third = studies(folder, "m.csv", mask_columns=["lung", "heart"])
    assert first.masks == {"lung": folder / "masks" / "one.png"}
    assert second.masks == {"heart": folder / "masks" / "one.png"}
    assert third.masks == {}
    with pytest.raises(UserError, match="no column 'lungs'; did you mean 'lung'"):
        read(folder, "m.csv", mask_columns=["lungs"])


def test_mask_folders_by_path_or_bare_name_whatever_the_ending(folder: Path) -> None:
    (folder / "m.csv").write_text("image\np1/s.dcm\np2/s.dcm\np2/t.1.dcm\nnone.dcm\n")
    own = folder / "own"
    for name in ("p1/s.png", "p2/s.tif", "t.1.bmp", "nobody.png", ".hidden.png"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(b"")
    table = reader(folder, "m.csv", mask_folders={"lung": own})
    rows = [row for row in table.studies() if isinstance(row, Study)]
    assert [row.masks for row in rows] == [
        {"lung": own / "p1" / "s.png"},
        {"lung": own / "p2" / "s.tif"},
        {"lung": own / "t.1.bmp"},
        {},
    ]
    assert table.remarks[1:] == ["1 mask files 'lung' belong to no film of the table, such as 'nobody.png'"]


@pytest.mark.parametrize(
    ("films", "files", "message"),
    [
        (
            ["p1/s.png", "p2/s.png"],
            ["s.png"],
            r"mask 'lung' s\.png could be of p1/s\.png or of p2/s\.png; lay masks out",
        ),
        (["a.png"], ["a.png", "a.tif"], r"two masks 'lung' for one film: a\.png and a\.tif in .*own"),
        (["a.png"], ["a_mask.png"], r"none of the 1 mask files 'lung' belongs to .*: 'a_mask\.png' against 'a\.png'"),
        (["a.png"], [], r"none of the 0 mask files 'lung' belongs to a film of the table$"),
        (["a.png"], None, r"no folder of masks 'lung' at .*own"),
    ],
)
def test_mask_folders_that_leave_doubt_are_refused(
    folder: Path, films: list[str], files: list[str] | None, message: str
) -> None:
    (folder / "m.csv").write_text("\n".join(["image", *films, ""]))
    if files is not None:
        (folder / "own").mkdir()
        for name in files:
            (folder / "own" / name).write_bytes(b"")
    with pytest.raises(UserError, match=message):
        read(folder, "m.csv", mask_folders={"lung": folder / "own"})


def test_one_mask_has_one_source(folder: Path) -> None:
    with pytest.raises(UserError, match="'side' is both a column and a folder of masks"):
        reader(folder, mask_columns=["side"], mask_folders={"side": folder})


def test_boxes_by_file_name(folder: Path) -> None:
    sides = [1.0, 2.0, 3.0, 4.0]
    boxes = coco(folder / "b.json", ["a.png", "c.png", "x.png"], [("a.png", "tube", sides), ("x.png", "tube", sides)])
    table = reader(folder, boxes=boxes)
    first, second, third = (row for row in table.studies() if isinstance(row, Study))
    assert first.boxes == (Box("tube", 1, 2, 4, 6),)
    assert third.boxes == ()
    assert first.annotated == third.annotated == ("nodule", "tube")
    assert (second.boxes, second.annotated) == ((), ())  # nobody looked
    assert table.remarks[1:] == ["1 images of b.json belong to no film of the table, such as 'x.png'"]
    coco(boxes, ["films/a.png"], [])
    with pytest.raises(
        UserError, match=r"none of the 1 images of b\.json belongs to .*: 'films/a\.png' against 'a\.png'"
    ):
        read(folder, boxes=boxes)


def test_boxes_of_ids_with_a_suffix(folder: Path) -> None:
    (folder / "ids.csv").write_text("image\na\nb\n")
    boxes = coco(folder / "b.json", ["b.png"], [])
    first, second = studies(folder, "ids.csv", image_suffix=".png", boxes=boxes)
    assert (first.annotated, second.annotated) == ((), ("nodule", "tube"))


def test_the_fingerprint_follows_masks_and_boxes(folder: Path) -> None:
    mask(folder / "own" / "a.png", slice(0, 5))
    boxes = coco(folder / "b.json", ["a.png"], [])
    options: dict[str, Any] = {"mask_folders": {"lung": folder / "own"}, "boxes": boxes}
    first = reader(folder, **options).fingerprint()
    assert reader(folder, **options).fingerprint() == first
    assert reader(folder, boxes=boxes).fingerprint() != first
    mask(folder / "own" / "b.png", slice(0, 5))
    second = reader(folder, **options).fingerprint()
    assert second != first
    coco(folder / "b.json", ["a.png", "b.png"], [])
    assert reader(folder, **options).fingerprint() != second


def test_masks_and_boxes_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask(folder / "own" / "a.png", slice(0, 5))
    mask(folder / "heart" / "a.tif", slice(5, 10))
    coco(folder / "b.json", ["a.png", "b.png"], [("a.png", "nodule", [0, 10, 5, 10])])
    (folder / "m.csv").write_text("image,lesion\na.png,\nb.png,own/a.png\n")
    out = tmp_path / "prepared"
    words = f"prepare csv --images {folder} --table {folder / 'm.csv'} --mask_columns lesion"
    words += f" --mask_folders.lung {folder}/own --mask_folders.heart {folder}/heart"
    words += f" --boxes {folder / 'b.json'} --out {out} --size 20 --workers 0"
    main(words.split())
    assert "prepared 2 studies" in capsys.readouterr().out
    corpus = PreparedCorpus.open(out)
    assert corpus.mask_names == ["heart", "lesion", "lung"]
    left, right = np.zeros((2, 20, 20), bool)
    left[:, 5:10] = True  # the film of 10 by 20 stands in columns 5 to 14
    right[:, 10:15] = True
    np.testing.assert_array_equal(corpus.masks([0], "lung")[0], left)
    np.testing.assert_array_equal(corpus.masks([0], "heart")[0], right)
    np.testing.assert_array_equal(corpus.masks([1], "lesion")[0], left)
    assert corpus.rows_with_boxes(["nodule", "tube"]).tolist() == [0, 1]
    assert corpus.boxes().values.tolist() == [[0, "nodule", 5, 10, 10, 20]]


# Real corpora ---------------------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not on this machine (set LINGULA_DATA)")
    return DATA / name


COMMON: dict[str, Any] = {
    "image_column": "image_path",
    "study_column": "image_id",
    "patient_column": "patient_id",
    "split_column": "split",
}


@pytest.mark.parametrize(("columns", "with_text"), [(["text"], 224), (["findings", "impression"], 210)])
def test_covid_cxr(tmp_path: Path, columns: list[str], with_text: int) -> None:
    """Counts of images, splits and texts as the corpus's own description states them."""
    folder = real("covid_cxr")
    table = CsvTable(folder, folder / "reports.csv", section_columns=columns, view_column="view", **COMMON)
    with pytest.raises(UserError, match=rf": {295 - with_text} bad rows: \d+ empty report \(first: row \d+ of"):
        prepare(table, tmp_path / "out", size=64, workers=0, log=lambda _: None)
    corpus = prepare(table, tmp_path / "out", size=64, workers=0, skip_bad_rows=True, log=lambda _: None)
    assert corpus.meta["left_out"]["empty report"] == 295 - with_text
    assert len(corpus) + corpus.meta["left_out"].get("report of fewer than 3 tokens", 0) == with_text
    assert all(sentence == sentence.lower() for report in corpus.reports for sentence in report)
    assert all(report for report in corpus.reports)


def test_covid_cxr_without_text(tmp_path: Path) -> None:
    folder = real("covid_cxr")
    corpus = prepare(
        CsvTable(folder, folder / "reports.csv", **COMMON), tmp_path, size=64, workers=0, log=lambda _: None
    )
    assert corpus.meta["studies"] == {"train": 200, "val": 40, "test": 55}
    assert corpus.meta["patients"] == {"train": 98, "val": 18, "test": 34}
    row = corpus.to_pandas().iloc[17]
    film = letterbox(read_image(row["image"]), 64)[0]
    assert np.abs(corpus.pixels[17].astype(int) - film).mean() < 2

    names = ["covid19", "bacterial", "fungal", "no_finding"]
    rows = list(CsvTable(folder, folder / "labels.csv", labels=names, **COMMON).studies())
    train = [list(row.labels.values()) for row in rows if isinstance(row, Study) and row.split == "train"]
    assert np.sum(train, axis=0).tolist() == [122, 17, 7, 7]


def test_kermany_cxr() -> None:
    """Class counts as the corpus's own description states them."""
    folder = real("kermany_cxr")
    table = CsvTable(folder, folder / "labels.csv", labels=["pneumonia"], class_column="label", **COMMON)
    assert table.label_groups == {"label": ["bacterial_pneumonia", "normal", "viral_pneumonia"]}
    studies = [row for row in table.studies() if isinstance(row, Study)]
    assert len(studies) == 4643
    assert len({row.patient_id for row in studies}) == 2464
    for split, counts in {"train": (1553, 879, 818), "val": (212, 125, 126), "test": (431, 252, 247)}.items():
        rows = [row for row in studies if row.split == split]
        assert tuple(sum(row.labels[name] for row in rows) for name in table.label_groups["label"]) == counts
    assert all(row.labels["pneumonia"] == 1 - row.labels["normal"] for row in studies)
    assert all(Path(str(row.image)).is_file() for row in studies[::100])


def test_covid_cxr_with_masks_and_boxes() -> None:
    """Counts as the corpus's own description states them."""
    folder = real("covid_cxr")
    lungs = folder / "masks_256" / "lung_v7"
    boxes = folder / "boxes" / "instances_train.json"
    table = CsvTable(folder, folder / "reports.csv", mask_folders={"lung_v7": lungs}, boxes=boxes, **COMMON)
    rows = [row for row in table.studies() if isinstance(row, Study)]
    assert [sum("lung_v7" in row.masks for row in rows if row.split == split) for split in SPLITS] == [103, 20, 28]
    assert sum(bool(row.annotated) for row in rows) == 176
    assert all(row.split == "train" for row in rows if row.annotated)
