"""Rows listed twice, as literal lists; what preparations make of them is in test_preparation."""

from pathlib import Path

import pytest

from lingula.data.bad_rows import listed_once
from lingula.data.study import LeftOut, Study

ROWS = [  # study, patient, image
    ("a", "p", "1.png"),
    ("b", "p", "1.png"),
    ("a", "p", "2.png"),
    ("c", "q", "1.png"),
    ("d", "q", "3.png"),
]


@pytest.mark.parametrize(("keep", "kept"), [("refuse", [0, 1, 4]), ("first", [0, 1, 4]), ("last", [2, 3, 4])])
def test_each_study_and_each_patient_s_image_once(keep, kept):
    studies = [Study(name, patient, Path(image), row=str(row)) for row, (name, patient, image) in enumerate(ROWS)]
    left, out = listed_once(studies, keep)
    assert left == [studies[row] for row in kept]
    assert [int(row.row) for row in out] == sorted({*range(5)} - {*kept})
    assert {row.bad for row in out} == {keep == "refuse"}  # a choice that was made leaves no bad row
    if keep != "last":
        assert out == [
            LeftOut("2", "study listed twice: 'a' is also 0", keep == "refuse"),
            LeftOut("3", "image of two patients: 1.png is also 0, of patient 'p'", keep == "refuse"),
        ]
