"""The delimiter of a table, which the standard library's writer knows because it wrote it."""

import csv
import io

import pytest

from lingula.data.delimiters import find_delimiter, known_delimiter, stated_delimiter
from lingula.registry import UserError

REPORT = "Small effusion, left; none, right; heart | normal,\tlungs clear; as before, unchanged."
LINES = 'FINDINGS: a, b; c\nsecond "line", with; more\n'


def lines(rows, delimiter, quoting=csv.QUOTE_MINIMAL):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, quoting=quoting).writerows(rows)
    return buffer.getvalue().splitlines(keepends=True)


def find(rows, delimiter, wanted=("file",), default=",", **options):
    return find_delimiter(lines(rows, delimiter, **options), wanted, default, "t.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("cell", [REPORT, LINES, "1,5", "", "Cardiomegaly|Effusion"])
@pytest.mark.parametrize("wanted", [("file", "report"), ("file",), ("FILE", "reprot"), ("image",)])
def test_reports_full_of_other_delimiters(delimiter, quoting, cell, wanted):
    rows = [["file", "patient", "report"], *([f"{n}.png", f"p{n}", cell] for n in range(5))]
    for default in (",", "\t"):
        assert find(rows, delimiter, wanted, default, quoting=quoting) == delimiter


@pytest.mark.parametrize("default", [",", "\t"])
def test_one_column_is_the_default_s(default):
    assert find([["file"], ["a.png"], ["b.png"]], ",", default=default) == default
    assert find([["file"]], ",", default=default) == default
    assert find([], ",", default=default) == default
    # rows of one column that hold something else: quoted, they are one cell with any delimiter
    assert find([["file"], ["a;b.png"], ["a,b.png"]], default, default=default, quoting=csv.QUOTE_ALL) == default


def test_rows_without_wanted_columns_decide_by_their_cells():
    assert find([["a,x", "b,y"], ["1", "2"]], ";", wanted=["z"]) == ";"
    assert find([["a", "b;y"], ["1", "2"], ["3", "4;5;6"]], ",", wanted=["z"]) == ","


def test_doubt_is_refused_with_both_readings():
    with pytest.raises(UserError) as error:
        find_delimiter(["a,b;c\n", "1,2;3\n"], ["image"], ",", "t.csv")
    assert str(error.value) == (
        "the columns of t.csv could be separated by ',' (2 columns: a, b;c) or by ';' (2 columns: a,b, c); "
        "give --delimiter"
    )
    assert find_delimiter(["a,b;c\n", "1,2;3\n"], ["c"], ",", "t.csv") == ";"
    assert find_delimiter(["a,b;c\n", "1,2;3\n"], ["a", "b;c"], "\t", "t.tsv") == ","


def test_a_row_that_the_head_cuts_off_does_not_count():
    head = ["a,b;c\n", "1,2;3\n", '4,"5\n']
    assert find_delimiter([*head[:2], "4,5\n"], ["z"], ",", "t.csv") == ","
    with pytest.raises(UserError, match="could be separated"):
        find_delimiter([*head[:2], "4,5\n"], ["z"], ",", "t.csv", cut=True)
    with pytest.raises(UserError, match="could be separated"):
        find_delimiter(head, ["z"], ",", "t.csv", cut=True)


@pytest.mark.parametrize(
    ("line", "delimiter"),
    [("sep=;\r\n", ";"), ("SEP=,\n", ","), ('"sep=\t"\n', "\t"), ("sep=|", "|")]
    + [(line, None) for line in ("sep=\n", "separator;x\n", "file;sep=;\n", "", "sep=;;\n")],
)
def test_excel_s_first_line(line, delimiter):
    assert stated_delimiter(line) == delimiter


def test_names_of_delimiters():
    assert [known_delimiter(given) for given in (";", "semicolon", "Tab", "\\t", "\t", "|", "pipe", "^")] == [
        *(";", ";", "\t", "\t", "\t", "|", "|", "^")
    ]
    for given in (";;", "", "a", '"', "1"):
        with pytest.raises(UserError, match=f"cannot use '{given}' as delimiter; expected one such as ';' or one of"):
            known_delimiter(given)
