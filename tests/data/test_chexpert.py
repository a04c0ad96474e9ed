"""What both readers of CheXpert share; the draws themselves are tested with each of them."""

import pytest

from lingula.data.chexpert import OTHERS, check_views, draw_5x200, in_5x200
from lingula.data.study import LeftOut, Study
from lingula.findings import CHEXPERT as LABELS
from lingula.findings import CHEXPERT_COMPETITION as COMPETITION
from lingula.registry import UserError


def test_the_labels_are_the_fourteen_in_their_three_kinds():
    assert len(LABELS) == len(set(LABELS)) == 14
    assert set(LABELS) == {*COMPETITION, *OTHERS, "No Finding"}
    assert (len(COMPETITION), len(OTHERS)) == (5, 8)


def test_views_in_any_case_of_letters():
    check_views(["Frontal", "ap"])
    with pytest.raises(UserError, match="unknown view 'fontal'; did you mean 'frontal'"):
        check_views(["frontal", "fontal"])


def test_a_film_of_the_set_has_one_of_five_exclusive_classes():
    classes = {f"{name} {n}": name for name in COMPETITION for n in range(201)}
    drawn = draw_5x200(classes, seed=0)
    assert [sum(own == name for own in drawn.values()) for name in COMPETITION] == [200] * 5
    assert drawn != draw_5x200(classes, seed=1)
    film_id = next(study_id for study_id, own in drawn.items() if own == "Edema")
    film = Study(film_id, "p", lambda: None, "train", labels=dict.fromkeys(LABELS, -1.0), row="row 3")
    placed = in_5x200(film, drawn)
    assert placed.split == "test"
    assert placed.labels == {name: float(name == "Edema") for name in COMPETITION}
    (missing,) = (classes.keys() - drawn.keys()) & {f"Edema {n}" for n in range(201)}
    other = in_5x200(Study(missing, "p", lambda: None, "train", row="row 4"), drawn)
    assert other == LeftOut("row 4", "not of the 5x200 set", bad=False)
