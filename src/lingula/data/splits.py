"""Which split each study stands in: no patient in two of them. Floor 2."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lingula.data.bad_rows import where_of
from lingula.data.films import Log
from lingula.data.spool import NO_SPLIT, Spool
from lingula.data.study import SPLITS
from lingula.registry import UserError


def split_of_rows(
    name: str,
    spool: Spool,
    kept: np.ndarray,
    official: set[str],
    fractions: Mapping[str, float],
    log: Log,
) -> np.ndarray:
    """One split a study; see :func:`lingula.data.preparation.prepare` for the rule.

    Args:
        name: of the corpus.
        spool: the studies.
        kept: ``(n,)`` positions of those to place.
        official: splits that the corpus has, which are not drawn into.
        fractions: share of the patients for each split but train.
        log: takes one line of text.
    Returns:
        ``(n,)`` int8 places in ``SPLITS``.
    Raises:
        UserError: for a patient in two splits.
    """
    patients, member = np.unique(spool.patients[kept], return_inverse=True)
    given = spool.splits[kept]
    chosen = np.full(len(patients), NO_SPLIT, dtype=np.int8)
    sure = np.flatnonzero(given != NO_SPLIT)[::-1]
    chosen[member[sure]] = given[sure]  # the first study of each patient is written last
    conflict = np.flatnonzero((given != NO_SPLIT) & (given != chosen[member]))
    if len(conflict):
        later = conflict[0]
        earlier = np.flatnonzero((member == member[later]) & (given != NO_SPLIT))[0]
        first, second = (spool.at(int(kept[row])) for row in (earlier, later))
        raise UserError(
            f"{name}: patient '{second.patient_id}' is in two splits: {first.split} ({where_of(first)}) and "
            f"{second.split} ({where_of(second)}); a model would be tested on patients that it has seen"
        )
    missing = np.flatnonzero(chosen == NO_SPLIT)
    fractions = {split: 0.0 if split in official else fraction for split, fraction in fractions.items()}
    chosen[missing] = draw_splits(patients[missing], fractions)
    if official and len(missing):
        drawn = ", ".join(sorted(SPLITS[code] for code in set(chosen[missing].tolist())))
        log(f"{name}: {len(missing)} patients without a split were drawn into {drawn}")
    return chosen[member]


def draw_splits(patients: np.ndarray, fractions: Mapping[str, float]) -> np.ndarray:
    """A split for every patient, by its own number alone.

    A patient keeps its split when others come or go. Only where a wanted split would stay empty does the patient next
    to its limit go there (train first, then in the order of ``fractions``), as long as there are as many patients as
    splits; with fewer, all are train.

    Args:
        patients: ``(n,)`` uint64, different; see :func:`lingula.data.spool.patient_number`.
        fractions: share of each split but train, which takes the rest.
    Returns:
        ``(n,)`` int8 places in ``SPLITS``.
    """
    draws = patients / 2.0**64
    wanted = {split: fraction for split, fraction in fractions.items() if fraction > 0}
    limits = np.cumsum(list(wanted.values()))
    train = SPLITS.index("train")
    codes = np.array([SPLITS.index(split) for split in wanted] + [train], dtype=np.int8)
    if len(draws) <= len(wanted):
        return np.full(len(draws), train, dtype=np.int8)
    chosen: np.ndarray = codes[np.searchsorted(limits, draws, side="right")]
    for code, limit in zip([train, *codes[:-1].tolist()], [1.0, *limits.tolist()], strict=True):
        sizes = np.bincount(chosen, minlength=len(SPLITS))
        if not sizes[code]:
            spare = np.flatnonzero(sizes[chosen] > 1)
            chosen[spare[np.abs(draws[spare] - limit).argmin()]] = code
    return chosen
