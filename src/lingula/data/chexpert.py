"""What CheXpert and CheXpert Plus share beside their labels: their views, and their 5x200 set. Floor 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lingula.data.class_sample import sample_by_class
from lingula.data.study import LeftOut, Study
from lingula.findings import CHEXPERT, CHEXPERT_COMPETITION
from lingula.registry import UserError, nearest

OTHERS = tuple(name for name in CHEXPERT if name not in (*CHEXPERT_COMPETITION, "No Finding"))
VIEWS = ("frontal", "lateral", "AP", "PA", "LL", "RL")
PER_CLASS = 200


def check_views(views: Sequence[str]) -> None:
    """
    Raises:
        UserError: for a view that there is not, in any case of letters, naming the nearest.
    """
    known = {name.lower() for name in VIEWS}
    for view in views:
        if view.lower() not in known:
            raise UserError(f"unknown view '{view}'{nearest(view, VIEWS) or '; known: ' + ', '.join(VIEWS)}")


def draw_5x200(classes: Mapping[str, str], seed: int) -> dict[str, str]:
    """200 films of each of the five classes.

    Args:
        classes: of every film that has just one of the five, by its id.
        seed: of the draw.
    Returns:
        the class of every film that was drawn, by its id.
    Raises:
        UserError: if a class has too few.
    """
    ids = list(classes)
    drawn = sample_by_class(ids, list(classes.values()), PER_CLASS, seed, CHEXPERT_COMPETITION)
    return {ids[place]: classes[ids[place]] for place in drawn}


def in_5x200(film: Study, drawn: Mapping[str, str]) -> Study | LeftOut:
    """A film as it stands in the set, whose five classes exclude each other; or that it is not of it."""
    own = drawn.get(film.study_id)
    if own is None:
        return LeftOut(film.row, "not of the 5x200 set", bad=False)
    return replace(film, split="test", labels={name: float(name == own) for name in CHEXPERT_COMPETITION})
