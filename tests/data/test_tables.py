"""Tables, against pandas where it can say, and against what was written where it cannot."""

import csv
import gzip
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingula.data.study import LeftOut
from lingula.data.tables import number, read_any_table, read_table
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
    default = csv.field_size_limit(1 << 17)
    (tmp_path / "t.csv").write_text(f"mask;n\n{long};1\n" + "x;2\n" * 3000)
    found = read_any_table(tmp_path / "t.csv", ["mask"])
    assert (found.rows[0], len(found)) == ([long.strip(), "1"], 3001)
    csv.field_size_limit(1 << 17)
    (tmp_path / "t.csv").write_text(f"mask\n{long}\n")
    assert rows(tmp_path / "t.csv") == [{"mask": long.strip()}]
    csv.field_size_limit(default)


@pytest.mark.parametrize("line", ["1,2,3", "1"])
def test_a_ragged_row_is_named_by_its_line(tmp_path, line):
    (tmp_path / "t.csv").write_text(f'a,b\n"x\ny",1\n{line}\n')
    cells = len(line.split(","))
    with pytest.raises(
        UserError, match=rf"row 4 of t\.csv: wrong number of cells: expected 2 cells as in the header, got {cells}"
    ):
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


def test_numbers():
    assert number("-2.5e1", "row 2", "x") == -25
    for written in ("", "nan", "inf", "1,5", "one"):
        with pytest.raises(UserError, match=f"row 2: '{written}' in column 'x'; expected a number"):
            number(written, "row 2", "x")


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
    with pytest.raises(
        UserError, match=r"row 3 of t\.csv: wrong number of cells: expected 3 cells as in the header, got [245]"
    ):
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


# As any program wrote it ----------------------------------------------------------------------------------------------


def said(path, **options):
    return read_any_table(path, ["file", "patient", "report"], **options).remarks


REPORT = "Small effusion, left; none | right.\tNormal."
PROGRAMS = {  # how pandas writes what other programs write
    "excel in the US": (".csv", {}, []),
    "excel in Europe": (
        ".csv",
        {"sep": ";", "encoding": "cp1252"},
        ["t.csv is not UTF-8 and is read as cp1252 (Größe)"],
    ),
    "excel, UTF-8": (".csv", {"sep": ";", "encoding": "utf-8-sig", "lineterminator": "\r\n"}, []),
    "excel, Unicode text": (".txt", {"sep": "\t", "encoding": "utf-16"}, ["t.txt is not UTF-8 and is read as utf-16"]),
    "every cell quoted": (".csv", {"sep": ";", "quoting": csv.QUOTE_ALL}, []),
    "tabs in a .csv": (".csv", {"sep": "\t"}, []),
    "commas in a .tsv": (".tsv", {"sep": ","}, []),
    "pipes": (".txt", {"sep": "|"}, []),
    "old Mac": (".csv", {"sep": ";", "encoding": "mac_roman", "lineterminator": "\r"}, ["read as mac_roman (Größe)"]),
    "spark": (".csv", {"doublequote": False, "escapechar": "\\"}, ["t.csv escapes quotes by a backslash; 4 were"]),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("packed", [False, True])
def test_what_other_programs_write(tmp_path, program, packed):
    ending, options, remarks = PROGRAMS[program]
    frame = pd.DataFrame(
        {
            "file": ["sub\\0000.png", "b.png"] if program != "spark" else ["a.png", "b.png"],
            "patient": ["007", "None"],
            "report": [f'{REPORT} The "veil" sign, "again".', f"Two lines\nof {REPORT} Größe"],
        }
    )
    path = tmp_path / f"t{ending}{'.gz' if packed else ''}"
    frame.to_csv(path, index=False, **options)
    table = read_any_table(path, ["file", "patient", "report"])
    assert [row for _, row in table] == frame.to_dict("records")
    assert [where for where, _ in table] == [f"row 2 of t{ending}", f"row 3 of t{ending}"]
    separator, default = options.get("sep", ","), "\t" if ending == ".tsv" else ","
    shown = "tab" if separator == "\t" else f"'{separator}'"
    remarks = remarks + ([f"the columns of t{ending} are separated by {shown}"] if separator != default else [])
    assert len(table.remarks) == len(remarks)
    for line, part in zip(sorted(table.remarks), sorted(remarks), strict=True):
        assert part in line


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
WIDE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(WIDE),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    ending=st.sampled_from([".csv", ".tsv", ".txt", ".csv.gz"]),
)
def test_any_table_is_read_as_it_was_written(cells, delimiter, encoding, quoting, end, ending):
    if end != "\r\n":
        quoting = csv.QUOTE_ALL  # else the standard library leaves the other end of a line bare in a cell
    rows = [(f"{place}.png", *row) for place, row in enumerate(cells)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{ending}"
        with (gzip.open if ending.endswith(".gz") else open)(path, "wt", encoding=encoding, newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
            writer.writerows([("image", "the report", "n"), *rows])
        table = read_any_table(path, ["image", "n"])
    assert table.columns == ["image", "the report", "n"]
    assert table.rows == [[cell.strip() for cell in row] for row in rows]


def test_options_override_what_is_found(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("file,x;report\nä,1;é\n".encode("cp1250"))
    assert read_any_table(path, ["file", "report"], delimiter=";", encoding="cp1250").rows == [["ä,1", "é"]]
    assert read_any_table(path, ["x;report"], delimiter="comma", encoding="cp1252").rows == [["ä", "1;é"]]
    with pytest.raises(UserError, match=r"could be separated by ',' .* or by ';' .*; give --delimiter"):
        read_any_table(path, ["name"])
    with pytest.raises(UserError, match=r"t\.csv is not in UTF-8: line 2 has 0xe4"):
        read_any_table(path, delimiter=";", encoding="utf-8")
    for option in ("delimiter", "encoding"):
        for name in ("t.xlsx", "t.parquet"):
            with pytest.raises(UserError, match=rf"--{option} is for \.csv, \.tsv and \.txt, not for {name}"):
                read_any_table(tmp_path / name, **{option: ";"})
    with pytest.raises(UserError, match=r"--sheet is for \.xlsx, .*, not for t\.csv"):
        read_any_table(path, sheet="one")


def test_the_delimiter_that_excel_states(tmp_path):
    path = tmp_path / "t.csv"
    for line, end in (("sep=;", "\n"), ('"sep=;"', "\r\n")):
        path.write_text(f"{line}{end}file;a,b,c{end}x,y;1,2,3{end}", newline="")
        table = read_any_table(path, ["a", "b"])
        assert list(table) == [("row 3 of t.csv", {"file": "x,y", "a,b,c": "1,2,3"})]
        assert table.remarks == []


def test_quotes_escaped_by_a_backslash(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(r"""file,report
p1\a.png,"the so-called \"veil\" sign"
"p1\b.png","\"x\", \"y\""
""")
    table = read_any_table(path, ["file"])
    assert table.rows == [[r"p1\a.png", 'the so-called "veil" sign'], [r"p1\b.png", '"x", "y"']]
    assert table.remarks == ["t.csv escapes quotes by a backslash; 6 were read as quotes, the first in line 2"]
    hint = r"row 2: ',' expected after '\"'; a quote inside a quoted cell must be doubled"
    for text in ('a,b\n1,"x "y" z"\n', 'a,b\n1,"x \\"y\\" z\n'):  # without a backslash, and not closed
        path.write_text(text)
        with pytest.raises(UserError, match=hint):
            read_any_table(path)
    with pytest.raises(UserError, match="must be doubled"):
        read_table(path)


def test_a_row_that_an_open_quote_swallows_is_said(tmp_path):
    (tmp_path / "t.tsv").write_text('file\treport\na.png\t"Veil sign is seen\nb.png\tnormal"\n')
    table = read_any_table(tmp_path / "t.tsv", ["file"])
    assert [row["file"] for _, row in table] == ["a.png"]
    assert table.remarks == [
        "1 cell of t.tsv may hold rows that follow, because of a quote that is not closed, the first in row 2: 'b.png "
        "normal'; a cell with a quote in it must be quoted as a whole, and the quote doubled"
    ]


def test_rows_are_named_by_their_lines_whatever_the_encoding(tmp_path):
    text = 'file;report\r\n\r\na;"x\r\n\r\ny"\r\nb;é\r\nc\r\n'
    for encoding in (*WIDE, "cp1252"):
        (tmp_path / "t.csv").write_bytes(text.encode(encoding))
        table = read_any_table(tmp_path / "t.csv", ["file"])
        assert [where for where, _ in table] == ["row 3 of t.csv", "row 6 of t.csv"]
        assert [row.row for row in table.bad] == ["row 7 of t.csv"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_rows_of_another_length_are_bad_and_do_not_hide_the_delimiter(tmp_path, separator):
    path = tmp_path / "t.csv"
    cells = [["file", "report", "n"], ["a", "x,y|z;t\tu", "1"], ["b", "x"], ["c", "1", "2", "3"], ["", "", "", "9"]]
    cells += [["d", "", ""], ["e", "x,y", "2", "", ""]]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(cells)
    table = read_any_table(path, ["file"])
    assert table.rows == [["a", "x,y|z;t\tu", "1"], ["d", "", ""], ["e", "x,y", "2"]]
    assert table.numbers == [2, 6, 7]
    said = "wrong number of cells: expected 3 cells as in the header, got"
    assert table.bad == [LeftOut(f"row {n} of t.csv", f"{said} {cells}") for n, cells in ((3, 2), (4, 4), (5, 4))]


def test_a_header_that_fits_no_row_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a title, of two\nfile,report,n\nx,y,1\n")
    with pytest.raises(UserError, match=r"row 2 of t\.csv: wrong .*got 3; is the first row a title\? the header must"):
        read_any_table(tmp_path / "t.csv", delimiter=",")


def test_errors_of_excel_are_empty_cells_and_counted(tmp_path):
    text = "file,patient,note\na.png,#NV,#12\nb.png,#NAME?,#nv\nc.png,p1,no #NV\n#WERT!,#N/A,#\n"
    (tmp_path / "t.csv").write_text(text)
    table = read_any_table(tmp_path / "t.csv", ["file"])
    assert table.rows == [["a.png", "", "#12"], ["b.png", "", ""], ["c.png", "p1", "no #NV"], ["", "", "#"]]
    assert table.remarks == ["5 cells of t.csv with an error of Excel (first: '#NV' in row 2) read as empty"]
    assert rows(tmp_path / "t.csv")[0]["patient"] == "#NV"  # tables of publishers stay as they are


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("File,report\n", "file", "; did you mean 'File'\\?"),
        ("IMAGE PATH,report\n", "image path", "; did you mean 'IMAGE PATH'\\?"),
        ("Ro\u0308ntgen,x\n", "röntgen", "; did you mean 'Röntgen'\\?"),
        ("file;patient;report\n", "file", "; is it separated by ';'\\?"),
        ("file\tpatient\n", "file", "; is it separated by tab\\?"),
        ("file|size,x;y,z\n", "file", r"; is it separated by '\|'\?"),
    ],
)
def test_what_a_missing_column_may_be(tmp_path, text, column, hint):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"has no column '{column}'{hint}; its columns: "):
        read_any_table(tmp_path / "t.csv", delimiter=",").require(column)


def test_columns_without_a_name_may_be_several(tmp_path):
    (tmp_path / "t.csv").write_text(",image,,x\n0,a.png,u,1\n")
    table = read_any_table(tmp_path / "t.csv", ["image"])
    table.require("image", "x")
    assert [row["image"] for _, row in table] == ["a.png"]
    with pytest.raises(UserError, match=r"its columns: \(unnamed\), image, \(unnamed\), x"):
        table.require("y")


def test_a_name_of_a_column_is_composed(tmp_path):
    (tmp_path / "t.csv").write_text("Ro\u0308ntgen\na\n", encoding="utf-8")
    read_any_table(tmp_path / "t.csv").require("Röntgen")


def test_kinds_of_files_that_are_not_read(tmp_path):
    with pytest.raises(UserError, match=r"t\.json: expected \.csv, \.tsv, \.txt, \.xlsx, .*\.ods or \.parquet"):
        read_any_table(tmp_path / "t.json")
    for name in ("none.csv", "none.txt.gz", "none.parquet"):
        with pytest.raises(UserError, match=f"no table at .*{name}"):
            read_any_table(tmp_path / name)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(TEXT.encode() * 100)[:40])
    with pytest.raises(UserError, match=r"cannot read table .*cut\.csv\.gz"):
        read_any_table(tmp_path / "cut.csv.gz")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.csv is empty"):
        read_any_table(tmp_path / "empty.csv").require("image")
