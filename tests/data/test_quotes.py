"""Rows that an open quote swallows, and reports of several lines that only look like it."""

import csv
import io

import pytest

from lingula.data.quotes import Escapes, Swallowed


def remarks(text, separator):
    rows = Swallowed(separator)
    list(rows(enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator), start=1)))
    return rows.remarks("t.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("names", [("a.png", "b2.png"), ("p1", "p2"), ("1", "20"), ("x/a_1", "y/b_2"), ("a-b", "c-d")])
def test_rows_that_an_open_quote_swallows(separator, end, names):
    rows = [
        ["file", "report"],
        [names[0], '"Veil sign is seen'],
        [names[1], "normal"],
        ["x", 'no effusion"'],
        ["y", "z"],
    ]
    (line,) = remarks("".join(separator.join(row) + end for row in rows), separator)
    shown = " ".join(f"{names[1]}{separator}normal x{separator}no effusion".split())
    assert line.startswith("1 cell of t.csv may hold rows that follow")
    assert f"the first in row 2: '{shown}'; a cell" in line


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a1.png", "alpha", "17", ""])
def test_reports_of_several_lines_are_none(separator, name):
    report = (
        "FINDINGS: a, b; c | d.\nLungs:\tclear\nHowever, none; or | so.\n\n1. No effusion, 2; 3 | 4.\nHeart, lungs; x"
    )
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows([["file", "report"], [name, report], [name, "x"]])
    assert remarks(text.getvalue(), separator) == []


def test_a_single_word_counts_where_a_tab_follows():
    text = 'file{0}report\nalpha{0}"Veil sign\nbeta{0}normal"\n'
    assert len(remarks(text.format("\t"), "\t")) == 1
    assert remarks(text.format(","), ",") == []


def test_escapes_are_counted_and_other_backslashes_stay():
    escapes = Escapes()
    assert list(escapes(["a\\b\n", r"the \"veil\" sign"])) == ["a\\b\n", 'the ""veil"" sign']
    assert (escapes.count, escapes.first) == (2, 2)
