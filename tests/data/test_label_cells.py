"""Cells of label and class columns, against what people write."""

import math
import re

import pytest

from lingula.data.label_cells import classes_of, label_value, label_words
from lingula.data.tables import read_table
from lingula.registry import UserError


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        ("1 1.0 1,0 01 yes Yes YES y True true TRUE t present Positive pos ja Ja j positiv WAHR oui sí", 1),
        ("0 0.0 0,0 no No n False FALSE f absent negative Neg nein Nein negativ FALSCH non não", 0),
        ("-1 -1.0 -1,0 uncertain Uncertain equivocal", -1),
        (
            "nan NaN NA N/A n/a #N/A #NV #nv #NAME? #WERT! #VALUE! #REF! #DIV/0! #BEZUG! #VALEUR! <NA> None null NULL "
            "- -- ? unknown",
            math.nan,
        ),
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
