"""Words for missing values, against those of pandas."""

from pandas._libs.parsers import STR_NA_VALUES

from lingula.data.missing import EXCEL_ERRORS, MISSING


def test_what_pandas_reads_as_missing_is_missing():
    assert {word.lower() for word in STR_NA_VALUES} <= MISSING


def test_errors_are_written_as_excel_writes_them():
    assert EXCEL_ERRORS <= MISSING
    for word in EXCEL_ERRORS:
        assert word == word.lower()
        assert word[0] == "#"
        assert word[-1] in "!?" or word in ("#n/a", "#nv", "#n/d", "#n/b", "#getting_data")
