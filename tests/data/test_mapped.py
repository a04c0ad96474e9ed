"""Rows looked up in a mapped table, against the same lists in Python; and what a process holds of it."""

import pyarrow as pa
import pytest

from lingula.data import layout
from lingula.data.layout import TableWriter, schemas
from lingula.data.mapped import Mapped

COUNT = 70
COLUMNS = {
    "study_id": [f"s{row}" for row in range(COUNT)],
    "content": [None if row % 3 else f"c{row}" for row in range(COUNT)],
    "sentences": [[f"{row} {place}." for place in range(row % 4)] for row in range(COUNT)],
    "label:x": [float(row) for row in range(COUNT)],
    "split": ["train" if row % 5 else "test" for row in range(COUNT)],
}


@pytest.fixture(params=[1, 7, 1000])
def table(request, tmp_path):
    """The columns in record batches of so many rows."""
    schema = pa.schema([field for field in schemas(["x"])["studies"] if field.name in COLUMNS])
    writer = TableWriter(tmp_path, "studies", schema)
    for start in range(0, COUNT, request.param):
        own = {name: values[start : start + request.param] for name, values in COLUMNS.items()}
        writer.write(own | {"split": layout.split_column(own["split"])})
    writer.finish()
    return Mapped.open(tmp_path / "studies.arrow")


@pytest.mark.parametrize("rows", [[], [0], [69, 0, 33, 33, 7, 6], range(COUNT), range(COUNT - 1, -1, -1)])
def test_rows_in_any_order(table, rows):
    for name, values in COLUMNS.items():
        expected = [values[row] for row in rows]
        assert table.take(name, rows).to_pylist() == expected
        assert table.lists(name, rows) == expected
        if name != "sentences":
            assert table.values(name, rows).tolist() == expected
    assert table.to_pandas(rows)["study_id"].tolist() == [COLUMNS["study_id"][row] for row in rows]


def test_whole_columns(table):
    assert len(table) == COUNT
    assert table.values("label:x").tolist() == COLUMNS["label:x"]
    assert table.values("content").tolist() == COLUMNS["content"]
    assert [row for part in table.batches("sentences") for row in part.to_pylist()] == COLUMNS["sentences"]
    for name, value in (("split", "test"), ("split", "val"), ("content", "c3"), ("study_id", "s69")):
        expected = [row for row in range(COUNT) if COLUMNS[name][row] == value]
        assert table.where(name, value).tolist() == expected


def test_rows_and_columns_that_are_not_there(table):
    with pytest.raises(IndexError, match="rows from 3 to 70 of a table of 70"):
        table.take("study_id", [3, 70])
    with pytest.raises(IndexError, match="rows from -1 to 5"):
        table.take("study_id", [5, -1])
    for call in (lambda: table.take("nothing", [1]), lambda: table.batches("nothing")):
        with pytest.raises(KeyError, match="nothing"):
            call()


def test_a_table_without_rows(tmp_path):
    TableWriter(tmp_path, "masks", schemas([])["masks"]).finish()
    table = Mapped.open(tmp_path / "masks.arrow")
    assert len(table) == 0
    assert table.values("row").tolist() == table.where("name", "lung").tolist() == []


def test_a_digest_says_what_the_rows_are_and_not_how_they_were_written(tmp_path):
    def digest(batches, change=0):
        writer = TableWriter(tmp_path, "masks", schemas([])["masks"])
        for start, stop in batches:
            rows = list(range(start, stop))
            writer.write({"row": [row + change * (row == 1500) for row in rows], "name": ["a"] * len(rows)})
        return writer.finish()

    assert digest([(0, 2048)]) == digest([(0, 1024), (1024, 2048)]) != digest([(0, 2048)], change=1)
