"""Draws of so many films of each class, such as CheXpert 5x200, that can be repeated elsewhere. Floor 2.

A draw depends on nothing but its seed and the ids: the ids are put in the order of a hash of ``(seed, id)``, and the
first ones are taken. So neither the order of the rows nor a library's generator matters, and when a film comes or goes
at most one other film of its class changes places with it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

from lingula.registry import UserError


def hash_order(keys: Iterable[str], seed: int) -> list[str]:
    """The keys in the order of ``sha256("SEED:KEY")``, which looks random and belongs to the keys alone."""
    return sorted(keys, key=lambda key: (hashlib.sha256(f"{seed}:{key}".encode()).digest(), key))


def only_class(labels: Mapping[str, float], classes: Iterable[str], absent: Iterable[str] = ()) -> str | None:
    """The one of ``classes`` that is present while all others, and all of ``absent``, are not.

    A blank (NaN) counts as not present, as in the field's 5x200 sets; an uncertain label (-1) is neither, so that a
    film with one is of no class.

    Args:
        labels: 1 present, 0 absent, -1 uncertain, NaN blank.
        classes: names of labels, of which one may be present.
        absent: names of further labels, of which none may be.
    Returns:
        its name; None where there is no such class.
    """
    classes = list(classes)
    marked = [name for name in [*classes, *absent] if not (labels[name] == 0 or math.isnan(labels[name]))]
    return marked[0] if len(marked) == 1 and marked[0] in classes and labels[marked[0]] == 1 else None


def sample_by_class(
    ids: Sequence[str], classes: Sequence[str | None], per_class: int, seed: int, wanted: Iterable[str] = ()
) -> list[int]:
    """Draw equally many of every class.

    Args:
        ids: of all candidates, each once.
        classes: the class of each, None for none.
        per_class: how many to draw of each class.
        seed: of the draw.
        wanted: classes that must be there; those of ``classes`` are wanted anyway.
    Returns:
        ascending places in ``ids``.
    Raises:
        UserError: if a class has too few.
    """
    place = {study_id: position for position, study_id in enumerate(ids)}
    if len(place) < len(ids):
        raise ValueError(f"ids must differ, got {len(place)} different ones among {len(ids)}")
    members: dict[str, list[str]] = {name: [] for name in wanted}
    for study_id, name in zip(ids, classes, strict=True):
        if name is not None:
            members.setdefault(name, []).append(study_id)
    few = [f"{name} {len(found)}" for name, found in sorted(members.items()) if len(found) < per_class]
    if few:
        raise UserError(f"{per_class} of each class are wanted, and there are too few of: {', '.join(few)}")
    drawn = [study_id for found in members.values() for study_id in hash_order(found, seed)[:per_class]]
    return sorted(place[study_id] for study_id in drawn)
