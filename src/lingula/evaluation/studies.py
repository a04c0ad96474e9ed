"""The studies that a task measures on: which rows, in which order, in which batches. Floor 2."""

from __future__ import annotations

import sys

import numpy as np

from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import MAX_TOKENS, tokenise_corpus
from lingula.evaluation.task import Encoders
from lingula.registry import UserError


def pair_loader(model: Encoders, corpus: PreparedCorpus, rows: np.ndarray, batch_size: int | None = None) -> Loader:
    """Films and their reports, in order, as the encoders are used to them; studies without a report are left out.

    Raises:
        UserError: if none of the corpus's films has a report.
    """
    if not len(corpus.rows_with_report()):
        raise UserError(f"corpus {corpus.name} has no reports")
    tokens = tokenise_corpus(corpus, model.tokenizer, min(MAX_TOKENS, model.method.text_encoder.max_tokens))
    if tokens.cut_line:
        print(tokens.cut_line, file=sys.stderr)
    size = batch_size or model.batch_size
    return Loader(corpus, rows, model.image_size, model.resize_to, size, tokens, device=model.device)


def film_loader(model: Encoders, corpus: PreparedCorpus, rows: np.ndarray, batch_size: int = 64) -> Loader:
    """Films alone, in the order of ``rows``."""
    return Loader(corpus, rows, model.image_size, model.resize_to, batch_size, device=model.device)


def patients_of(corpus: PreparedCorpus, rows: np.ndarray) -> np.ndarray:
    """``(n,)`` patient of each study."""
    patients: np.ndarray = corpus.values("patient_id", rows).astype(str)
    return patients


def ids_of(corpus: PreparedCorpus, rows: np.ndarray) -> list[str]:
    """Study ids."""
    ids: list[str] = corpus.values("study_id", rows).astype(str).tolist()
    return ids


def split_rows(corpus: PreparedCorpus, split: str, having: np.ndarray, what: str) -> np.ndarray:
    """The studies of a split that a task can use, for tasks that are measured on val or test alone.

    Args:
        corpus: prepared.
        split: ``val`` or ``test``.
        having: ``(m,)`` positions of the studies with what the task needs.
        what: what that is, for the message: "a report".
    Returns:
        ``(n,)`` ascending positions.
    Raises:
        UserError: if there are none, naming the other split where that has some.
    """
    rows = np.intersect1d(corpus.rows(split), having)
    if not len(rows):
        other = "val" if split == "test" else "test"
        count = len(np.intersect1d(corpus.rows(other), having))
        way = f"; {other} has {count}: give --split {other}" if count else ""
        raise UserError(f"corpus {corpus.name} has no {split} studies with {what}{way}")
    return rows


def reported_rows(corpus: PreparedCorpus, split: str) -> np.ndarray:
    """The studies of a split with a report, ``(n,)`` ascending positions.

    Raises:
        UserError: if there are none.
    """
    return split_rows(corpus, split, corpus.rows_with_report(), "a report")


def labelled_rows(corpus: PreparedCorpus, labelled: np.ndarray, what: str) -> dict[str, np.ndarray]:
    """The studies of each split that a task can use.

    Args:
        corpus: prepared.
        labelled: ``(m,)`` positions of the studies with what the task needs.
        what: for the message: "mask 'lung'".
    Returns:
        ``{"train": (n,), "val": (n,), "test": (n,)}``, ascending.
    Raises:
        UserError: if a split has none.
    """
    rows = {split: np.intersect1d(corpus.rows(split), labelled) for split in ("train", "val", "test")}
    for split, own in rows.items():
        if len(own) == 0:
            counts = ", ".join(f"{len(of_split)} {name}" for name, of_split in rows.items())
            raise UserError(
                f"corpus {corpus.name} has no {split} studies with {what} (it has {counts}); this task fits on train, "
                "chooses on val and measures on test"
            )
    return rows


def draw_subset(patients: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A share of the studies, drawn by patient, seeded, stratified by each patient's rarest label.

    Args:
        patients: ``(n,)`` patient of each study.
        labels: ``(n, C)`` 1, 0 or NaN.
        fraction: share of the patients, in (0, 1]. Of every stratum at least one patient is drawn.
        seed: of the draw.
    Returns:
        ``(m,)`` ascending places in [0, n).
    """
    if fraction >= 1:
        return np.arange(len(patients))
    names, member = np.unique(patients, return_inverse=True)
    frequency = np.nansum(labels == 1, axis=0)
    rarity = np.where(labels == 1, frequency, np.inf)  # (n, C)
    stratum_of_study = np.where(np.isfinite(rarity.min(1)), rarity.argmin(1), -1)
    rarest_first = np.argsort(np.where(stratum_of_study < 0, np.inf, rarity.min(1)), kind="stable")
    stratum = np.full(len(names), -1)
    for study in rarest_first[::-1]:  # the rarest label of a patient's studies is written last
        stratum[member[study]] = stratum_of_study[study]
    rng = np.random.default_rng(seed)
    drawn = np.zeros(len(names), dtype=bool)
    for value in np.unique(stratum):
        candidates = np.flatnonzero(stratum == value)
        count = max(1, round(fraction * len(candidates)))
        drawn[rng.permutation(candidates)[:count]] = True
    return np.flatnonzero(drawn[member])
