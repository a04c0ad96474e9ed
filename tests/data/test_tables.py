"""Tables, against pandas where it can say, and against what was written where it cannot."""

import gzip
import math
import re

import numpy as np
import pandas as pd
import pytest

from lingula.data.tables import classes_of, label_value, label_words, number, read_table
from lingula.registry import UserError

TEXT = 'image , report,n\na.png,"First line.\nSecond, ""quoted"" line.",1\n\n b.png , None ,\n'
ROWS = [
    {"image": "a.png", "report": 'First line.\nSecond, "quoted" line.', "n": "1"},
    {"image": "b.png", "report": "None", "n": ""},
]


def rows(path):
    return [row for _, row in read_table(path)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".CSV"])
def test_quotes_spaces_empty_lines_marks_and_gzip(tmp_path, ending, mark, packed, suffix):
    data = (mark + TEXT).replace("\n", ending).encode()
    path = tmp_path / f"t{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(data) if packed else data)
    table = read_table(path)
    assert table.columns == ["image", "report", "n"]
    assert len(table) == 2
    expected = [{key: value.replace("\n", ending) for key, value in row.items()} for row in ROWS]
    assert [row for _, row in table] == expected
    # the report has a line break and an empty line follows, so the second row starts on line 5
    assert [where for where, _ in table] == [f"row 2 of t{suffix}", f"row 5 of t{suffix}"]


def test_tabs_separate_a_tsv_and_commas_do_not(tmp_path):
    (tmp_path / "t.tsv").write_text('a\tb\nx, y\t"1\t2"\n')
    assert rows(tmp_path / "t.tsv") == [{"a": "x, y", "b": "1\t2"}]
    (tmp_path / "t.csv").write_text("a\tb\nx\ty\n")
    assert read_table(tmp_path / "t.csv").columns == ["a\tb"]


def test_a_csv_reads_as_pandas_reads_it(tmp_path):
    frame = pd.DataFrame({"a": ["x,y", 'say "no"', "two\nlines", "é"], "b": ["1", "-1", "0.5", "NA"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert rows(tmp_path / "t.csv") == frame.to_dict("records")


def test_parquet_cells_become_text(tmp_path):
    frame = pd.DataFrame(
        {
            "text": [" a ", None, "nan"],
            "tags": [["x", "y"], None, ["z"]],
            "narrow": np.array([3, math.nan, 0.5], dtype=np.float32),
            "day": pd.to_datetime(["2020-01-22", None, "2020-01-25"]),
            "whole": pd.array([1, None, -1], dtype="Int64"),
            "real": [1.0, math.nan, 0.25],
            "truth": [True, False, True],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    cells = {column: [row[column] for _, row in table] for column in table.columns}
    assert cells.pop("tags")[1] == ""
    assert cells == {
        "text": ["a", "", "nan"],  # a word that somebody wrote
        "narrow": ["3", "", "0.5"],
        "day": ["2020-01-22 00:00:00", "", "2020-01-25 00:00:00"],
        "whole": ["1", "", "-1"],
        "real": ["1", "", "0.25"],
        "truth": ["True", "False", "True"],
    }
    assert [where for where, _ in table] == [f"row {n} of t.parquet" for n in (1, 2, 3)]


def test_a_cell_longer_than_the_default_of_the_reader(tmp_path):
    long = "1 2 " * 60_000
    (tmp_path / "t.csv").write_text(f"mask\n{long}\n")
    assert rows(tmp_path / "t.csv") == [{"mask": long.strip()}]


@pytest.mark.parametrize("line", ["1,2,3", "1"])
def test_a_ragged_row_is_named_by_its_line(tmp_path, line):
    (tmp_path / "t.csv").write_text(f'a,b\n"x\ny",1\n{line}\n')
    cells = len(line.split(","))
    with pytest.raises(UserError, match=rf"row 4 of t\.csv: expected 2 cells as in the header, got {cells}"):
        read_table(tmp_path / "t.csv")


def test_files_that_cannot_be_read(tmp_path):
    for name in ("none.csv", "none.tsv.gz", "none.parquet"):
        with pytest.raises(UserError, match=f"no table at .*{name}"):
            read_table(tmp_path / name)
    (tmp_path / "open.csv").write_text('a\n"x')
    with pytest.raises(UserError, match=r"cannot read table .*open\.csv: row 2"):
        read_table(tmp_path / "open.csv")
    (tmp_path / "latin.csv").write_bytes("a\né\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.csv.*save it as UTF-8"):
        read_table(tmp_path / "latin.csv")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(TEXT.encode() * 100)[:40])
    with pytest.raises(UserError, match=r"cannot read table .*cut\.csv\.gz"):
        read_table(tmp_path / "cut.csv.gz")
    (tmp_path / "plain.csv.gz").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"cannot read table .*plain\.csv\.gz"):
        read_table(tmp_path / "plain.csv.gz")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot read table .*t\.parquet"):
        read_table(tmp_path / "t.parquet")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"expected \.csv, \.tsv or \.parquet"):
        read_table(tmp_path / "t.xlsx")


def test_required_columns(tmp_path):
    (tmp_path / "t.csv").write_text("image,report,report\na,b,c\n")
    table = read_table(tmp_path / "t.csv")
    with pytest.raises(
        UserError, match=r"t\.csv has no column 'imgae'; did you mean 'image'\?; its columns: image, rep"
    ):
        table.require("image", "imgae")
    with pytest.raises(UserError, match=r"t\.csv has the column 'report' twice"):
        table.require("image")
    (tmp_path / "empty.csv").write_text("image\n\n")
    with pytest.raises(UserError, match=r"empty\.csv has no rows"):
        read_table(tmp_path / "empty.csv").require("image")
    (tmp_path / "sound.csv").write_text("image\na\n")
    read_table(tmp_path / "sound.csv").require("image")


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        ("1 1.0 1,0 01 yes Yes YES y True true TRUE t present Positive pos ja Ja j positiv WAHR oui sí", 1),
        ("0 0.0 0,0 no No n False FALSE f absent negative Neg nein Nein negativ FALSCH non não", 0),
        ("-1 -1.0 -1,0 uncertain Uncertain equivocal", -1),
        ("nan NaN NA N/A n/a #N/A <NA> None null NULL - -- ? unknown", math.nan),
    ],
)
def test_label_values(cells, value):
    for written in cells.split():
        assert label_value(written, "row 2 of t.csv", "edema") == pytest.approx(value, nan_ok=True), written
    assert math.isnan(label_value("", "row 2 of t.csv", "edema"))


@pytest.mark.parametrize("written", ["2", "0.5", "inf", "-inf", "maybe", "u", "+", "x", "possible", "1.0.0", "1 0"])
def test_other_labels_are_refused(written):
    with pytest.raises(
        UserError, match=rf"row 2 of t\.csv: '{re.escape(written)}' in label column 'edema'; expected 1, 0"
    ):
        label_value(written, "row 2 of t.csv", "edema")


def test_numbers():
    assert number("-2.5e1", "row 2", "x") == -25
    for written in ("", "nan", "inf", "1,5", "one"):
        with pytest.raises(UserError, match=f"row 2: '{written}' in column 'x'; expected a number"):
            number(written, "row 2", "x")


@pytest.mark.parametrize(
    ("cells", "classes", "line"),
    [
        ("viral||normal|viral", "viral||normal|viral", ""),
        (
            "viral|nan|NaN|NA|n/a|None|null|-|NaN|normal",
            "viral|||||||||normal",
            "column 'kind': 'NaN' (2 cells) read as unknown, '-' (1 cell) as unknown, 'NA' (1 cell) as unknown, "
            "'None' (1 cell) as unknown, 'n/a' (1 cell) as unknown, 'nan' (1 cell) as unknown, and 1 more",
        ),
        ("1|1.0|0|0.00|2", "1|1|0|0|2", "column 'kind': '0.00' (1 cell) read as '0', '1.0' (1 cell) as '1'"),
        (
            "1.0|2.0|2,0",
            "1|2|2",
            "column 'kind': '1.0' (1 cell) read as '1', '2,0' (1 cell) as '2', '2.0' (1 cell) as '2'",
        ),
        (
            "Viral|viral|viral|COVID  19|COVID 19",
            "viral|viral|viral|COVID 19|COVID 19",
            "read as 'COVID 19', 'Viral' (1 cell) as 'viral'",
        ),
        ("01|1|1.5|1.50|A1|A1.0", "01|1|1.5|1.50|A1|A1.0", ""),
        ("no|yes|False", "no|yes|False", ""),  # names of classes
    ],
)
def test_classes(tmp_path, cells, classes, line):
    (tmp_path / "t.csv").write_text("a,kind\n" + "".join(f'x,"{cell}"\n' for cell in cells.split("|")))
    table = read_table(tmp_path / "t.csv")
    called, lines = classes_of(table, "kind")
    assert [called[row["kind"]] for _, row in table] == classes.split("|")
    assert line in "".join(lines)
    assert bool(lines) is bool(line)


def test_words_in_label_columns_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text("x,y,z\nyes,1,2\nNo,0.0,2\nyes,NA,2\n,maybe,2\n")
    table = read_table(tmp_path / "t.csv")
    (line,) = label_words(table, ["x", "y"])  # "maybe" is refused where its row is read
    assert line == "label columns: 'yes' (2 cells) read as 1, 'NA' (1 cell) as unknown, 'No' (1 cell) as 0"
    assert label_words(table, []) == []


@pytest.mark.parametrize("header_ends", ["", ",", ",,,"])
@pytest.mark.parametrize("row_ends", ["", ",", ",,,", ", ,"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_empty_cells_at_the_end_do_not_count(tmp_path, header_ends, row_ends, line_end):
    lines = [f"a,b [x,y]{header_ends}", f"1,2,3{row_ends}", "", f" 4 ,,{row_ends}", f"5,6,7{row_ends}"]
    (tmp_path / "t.csv").write_text(line_end.join(lines), encoding="utf-8-sig", newline="")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    for name in ("t.csv", "t.csv.gz"):
        assert list(read_table(tmp_path / name)) == [
            ("row 2 of t.csv", {"a": "1", "b [x": "2", "y]": "3"}),
            ("row 4 of t.csv", {"a": "4", "b [x": "", "y]": ""}),
            ("row 5 of t.csv", {"a": "5", "b [x": "6", "y]": "7"}),
        ]


@pytest.mark.parametrize("row", ["1,2,3,4", "1,2", "1,2,,,5"])
def test_other_cells_do(tmp_path, row):
    (tmp_path / "t.csv").write_text(f"a,b [x,y],,\n1,2,3\n{row}\n")
    with pytest.raises(UserError, match=r"row 3 of t\.csv: expected 3 cells as in the header, got [245]"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_that_nobody_wants_are_not_kept(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    frame = pd.DataFrame({"image": ["a", "b"], "text": ["x " * 99, "y"], "label": ["1", "0"]})
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    table = read_table(path, ["label", "image"])
    assert table.columns == ["label", "image"]
    assert table.rows == [["1", "a"], ["0", "b"]]
    with pytest.raises(UserError, match="has no column 'lable'; did you mean 'label'"):
        read_table(path, ["lable"])
