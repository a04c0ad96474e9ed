"""Rows that make no study: those listed twice, and how bad rows are counted and said. Floor 2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

Duplicates = Literal["refuse", "first", "last"]
TWICE = ("study listed twice", "image of two patients")  # kinds of reason
CAUSES = 6  # of bad rows that one error names
DETAIL = 300  # characters of an example in it


def where_of(study: Study) -> str:
    """Where a study stands in its source, for messages."""
    return study.row or f"study {study.study_id}"


def kind_of(reason: str) -> str:
    """What rows are counted by: a reason without its detail."""
    return reason.partition(": ")[0]


def listed_once(studies: list[Study], keep: Duplicates) -> tuple[list[Study], list[LeftOut]]:
    """Every study once: the first of each id, and of each image the first and those of the same patient.

    An image of two patients could stand in two splits, so it counts as listed twice; several studies of one patient may
    share an image, such as one report each.

    Args:
        studies: in the order of their rows.
        keep: ``last`` keeps the last instead of the first; only ``refuse`` makes the others bad rows.
    Returns:
        the studies that are kept, and the rows that are not, both in their order.
    """
    order = studies[::-1] if keep == "last" else studies
    ids: dict[str, Study] = {}
    images: dict[Path, Study] = {}
    kept: list[Study] = []
    twice: list[LeftOut] = []
    for study in order:
        image = study.image if isinstance(study.image, Path) else None
        if study.study_id in ids:
            other = ids[study.study_id]
            reason = f"study listed twice: '{study.study_id}' is also {where_of(other)}"
        elif image in images and images[image].patient_id != study.patient_id:
            other = images[image]
            reason = f"image of two patients: {image} is also {where_of(other)}, of patient '{other.patient_id}'"
        else:
            ids[study.study_id] = study
            if image is not None:
                images.setdefault(image, study)
            kept.append(study)
            continue
        twice.append(LeftOut(where_of(study), reason, bad=keep == "refuse"))
    return (kept[::-1], twice[::-1]) if keep == "last" else (kept, twice)


def log_shared(name: str, studies: list[Study], log: Callable[[str], None]) -> None:
    """Say which images stand under several studies of one patient."""
    images: dict[Path, Study] = {}
    pairs = [
        (images[study.image], study)
        for study in studies
        if isinstance(study.image, Path) and images.setdefault(study.image, study) is not study
    ]
    if pairs:
        first, second = pairs[0]
        log(
            f"{name}: {len(pairs):,} rows show an image that another study of the same patient shows, such as "
            f"{where_of(first)} and {where_of(second)}: {first.image}"
        )


def stop_or_log(name: str, bad: list[LeftOut], skip_bad_rows: bool, log: Callable[[str], None]) -> None:
    """Stop at bad rows, or log how many are left out; either way by cause, with the first row of each.

    Raises:
        UserError: one line of bounded length.
    """
    if not bad or skip_bad_rows:
        log_left_out(name, bad, log)
        return
    if len(bad) == 1:
        said = f"{bad[0].row}: {_cut(bad[0].reason)}"
    else:
        kinds = _by_kind(bad)
        causes = [f"{len(rows):,} {kind} (first: {_first(rows)})" for kind, rows in kinds[:CAUSES]]
        more = f", {len(kinds) - CAUSES} more causes" if len(kinds) > CAUSES else ""
        said = f"{len(bad):,} bad rows: {', '.join(causes)}{more}"
    ways = "leave them out with --skip_bad_rows"
    if any(kind_of(row.reason) in TWICE for row in bad):
        ways += ", or keep one of each with --duplicates first or last"
    raise UserError(f"{name}: {said}; mend them, or {ways}")


def log_left_out(name: str, rows: list[LeftOut], log: Callable[[str], None]) -> None:
    """One line a cause, with its first row; every row stands in ``left_out.csv``."""
    for kind, same in _by_kind(rows):
        log(f"{name}: left out {len(same):,} rows: {kind} (first: {_first(same)})")


def _by_kind(rows: list[LeftOut]) -> list[tuple[str, list[LeftOut]]]:
    """The rows of each kind of reason, the most frequent first."""
    kinds: dict[str, list[LeftOut]] = defaultdict(list)
    for row in rows:
        kinds[kind_of(row.reason)].append(row)
    return sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))


def _first(rows: list[LeftOut]) -> str:
    """``row 4 of t.csv: films/x.png``"""
    detail = rows[0].reason.partition(": ")[2]
    return f"{rows[0].row}: {_cut(detail)}" if detail else rows[0].row


def _cut(text: str) -> str:
    """A text of a bounded length: of a path, the end tells most."""
    return text if len(text) <= DETAIL else f"{text[: DETAIL // 3]} ... {text[-(DETAIL - DETAIL // 3) :]}"
