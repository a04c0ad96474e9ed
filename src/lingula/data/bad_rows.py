"""Rows that make no study: those listed twice, and how bad rows are counted and said. Floor 2."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Literal

import numpy as np

from lingula.data.spool import Spool
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


def rows_listed_once(spool: Spool, keep: Duplicates) -> tuple[np.ndarray, list[LeftOut]]:
    """What :func:`listed_once` says of all studies, of which only those are looked at that may be listed twice.

    Returns:
        ``(n,)`` positions of the studies that are kept, and the rows that are not, both in their order.
    """
    suspects = _repeated(spool.ids)
    shared = np.flatnonzero((spool.images != 0) & _repeated(spool.images))
    _, image = np.unique(spool.images[shared], return_inverse=True)
    patients = spool.patients[shared]
    first = np.zeros(len(shared), dtype=np.uint64)
    first[image] = patients  # of each image, some patient
    several = np.zeros(len(shared), dtype=bool)
    np.logical_or.at(several, image, first[image] != patients)
    suspects[shared] |= several[image]
    positions = np.flatnonzero(suspects).tolist()
    studies = list(spool.read(positions))
    place_of = {id(study): position for study, position in zip(studies, positions, strict=True)}
    kept, twice = listed_once(studies, keep)
    suspects[[place_of[id(study)] for study in kept]] = False
    return np.flatnonzero(~suspects), twice


def _repeated(numbers: np.ndarray) -> np.ndarray:
    """``(n,)`` bool: which stand in another place too."""
    order = np.argsort(numbers, kind="stable")
    same = numbers[order][1:] == numbers[order][:-1]
    found = np.zeros(len(numbers), dtype=bool)
    found[order[1:][same]] = found[order[:-1][same]] = True
    return found


def log_shared(name: str, spool: Spool, kept: np.ndarray, log: Callable[[str], None]) -> None:
    """Say which images stand under several studies of one patient."""
    drawn_from_files = kept[spool.images[kept] != 0]
    _, first, image = np.unique(spool.images[drawn_from_files], return_index=True, return_inverse=True)
    again = np.flatnonzero(first[image] != np.arange(len(image)))
    if len(again):
        one, other = (spool.at(int(drawn_from_files[place])) for place in (first[image[again[0]]], again[0]))
        log(
            f"{name}: {len(again):,} rows show an image that another study of the same patient shows, such as "
            f"{where_of(one)} and {where_of(other)}: {one.image}"
        )


class LeftOutRows:
    """Rows that became no study: their kinds are counted, the first of each is kept, all are written to a file.

    Args:
        folder: where the file is made; it has no name and goes with the process.
    Attributes:
        counts: rows of each kind.
        first: the first row of each kind.
    """

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, LeftOut] = {}
        self._file: IO[str] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed with the object
            2**20, "w+", dir=str(folder), encoding="utf-8", errors="backslashreplace", newline=""
        )
        self._writer = csv.writer(self._file, lineterminator="\n")

    def add(self, row: LeftOut) -> None:
        """One more."""
        kind = kind_of(row.reason)
        self.counts[kind] += 1
        self.first.setdefault(kind, row)
        self._writer.writerow([row.row, row.reason])

    def extend(self, rows: Iterable[LeftOut]) -> None:
        """More of them."""
        for row in rows:
            self.add(row)

    def __len__(self) -> int:
        return self.counts.total()

    def kinds(self) -> list[tuple[str, int]]:
        """The kinds of reason and how many rows have each, the most frequent first."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))

    def copy_to(self, file: IO[str]) -> None:
        """Their lines of ``left_out.csv``."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)


def write_left_out(path: Path, parts: Iterable[LeftOutRows]) -> None:
    """``left_out.csv``: every row of the source that became no study, and why."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write("row,reason\n")
        for rows in parts:
            rows.copy_to(file)
    temporary.replace(path)


def stop_or_log(name: str, bad: LeftOutRows, skip_bad_rows: bool, log: Callable[[str], None]) -> None:
    """Stop at bad rows, or log how many are left out; either way by cause, with the first row of each.

    Raises:
        UserError: one line of bounded length.
    """
    if not len(bad) or skip_bad_rows:
        log_left_out(name, bad, log)
        return
    if len(bad) == 1:
        (only,) = bad.first.values()
        said = f"{only.row}: {_cut(only.reason)}"
    else:
        kinds = bad.kinds()
        causes = [f"{count:,} {kind} (first: {_first(bad.first[kind])})" for kind, count in kinds[:CAUSES]]
        more = f", {len(kinds) - CAUSES} more causes" if len(kinds) > CAUSES else ""
        said = f"{len(bad):,} bad rows: {', '.join(causes)}{more}"
    ways = "leave them out with --skip_bad_rows"
    if any(kind in TWICE for kind in bad.counts):
        ways += ", or keep one of each with --duplicates first or last"
    raise UserError(f"{name}: {said}; mend them, or {ways}")


def log_left_out(name: str, rows: LeftOutRows, log: Callable[[str], None]) -> None:
    """One line a cause, with its first row; every row stands in ``left_out.csv``."""
    for kind, count in rows.kinds():
        log(f"{name}: left out {count:,} rows: {kind} (first: {_first(rows.first[kind])})")


def _first(row: LeftOut) -> str:
    """``row 4 of t.csv: films/x.png``"""
    detail = row.reason.partition(": ")[2]
    return f"{row.row}: {_cut(detail)}" if detail else row.row


def _cut(text: str) -> str:
    """A text of a bounded length: of a path, the end tells most."""
    return text if len(text) <= DETAIL else f"{text[: DETAIL // 3]} ... {text[-(DETAIL - DETAIL // 3) :]}"
