"""What a task is, and what every task needs of its encoders, its data and its numbers. Floor 2.

A task is a dataclass of options with

- ``higher_is_better``: ``{metric: bool}``, the metrics that get an interval; the first is the one that tables show;
- ``needs``: what it asks of a method beyond an image encoder, by the names of attributes, such as ``encode_text``;
- ``version``: 2, 3, ... where it measures otherwise than an earlier release did; benchmarks reuse no cells of another;
- ``cells(seeds)``: the ``(fraction, seed)`` pairs that it is measured at; :func:`cells_of` for most, a single
  ``Cell()`` for a task that trains nothing;
- ``measure(model, corpus, cells, draws)``: one :class:`Measured` for each of the cells, in their order.

It knows nothing of how the encoders were trained. Everything that it fits, it fits on train, chooses on val, and
measures on test once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from lingula.data.class_sample import id_hash
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import MAX_TOKENS, tokenise
from lingula.metrics.bootstrap import bootstrap_weights, interval
from lingula.registry import UserError

FEW_PATIENTS = 30  # percentile intervals of fewer are too narrow


class Encoders(Protocol):
    """What a task may ask of what it measures; :class:`lingula.api.Model` is one.

    Attributes:
        method: the ``nn.Module`` with ``image_encoder``, ``encode_image(images)`` and, where it reads reports,
            ``text_encoder``, ``encode_text(reports)`` and ``attention_maps(images, reports)``; in evaluation mode. A
            task never changes its weights: one that trains copies it.
        tokenizer: of its text encoder.
        name: of the method, or ``random``.
        checkpoint: hash of its weights.
        image_size, resize_to: pixels that the encoder sees, and to which films come before they are cropped to that.
        batch_size: of its training.
        trained_on: ``name``, ``folder`` and ``fingerprint`` of the corpus that it was trained on; empty if not known.
        device: where it lives.
    """

    method: Any
    tokenizer: Any
    device: torch.device

    @property
    def name(self) -> str: ...
    @property
    def checkpoint(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def resize_to(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def trained_on(self) -> Mapping[str, Any]: ...


class Cell(NamedTuple):
    """One measurement of an encoder: with which share of the training patients, and which seed."""

    fraction: float = 1.0
    seed: int = 0


@dataclass
class Measured:
    """What came out of one cell.

    Attributes:
        numbers: every number by name, NaN where it is not defined.
        replicates: ``(draws,)`` of the metrics of ``higher_is_better``: the number again on test patients drawn with
            replacement, in the same draws for every encoder, so that two encoders can be compared draw by draw.
        notes: what it was made from: ``train_studies``, ``best_epoch``, ``test_sha256``, ...; ``undefined``: why
            numbers are NaN; ``remarks``: lines that a reader of the numbers must be told.
        cell: where it belongs; None for a task that trains nothing.
        subset_ids: the training studies that were drawn, where a share of them was.
    """

    numbers: dict[str, float]
    replicates: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    cell: Cell | None = None
    subset_ids: list[str] | None = None

    def row(self) -> dict[str, Any]:
        """As one row of ``results.jsonl``: ``<metric>_low`` and ``_high`` are the 95 % interval over test patients."""
        cell: dict[str, Any] = {} if self.cell is None else self.cell._asdict()
        row = {**cell, **self.notes, **self.numbers}
        for name, values in self.replicates.items():
            row[f"{name}_low"], row[f"{name}_high"] = interval(values)
        if self.subset_ids is not None:
            row["subset_sha256"] = id_hash(self.subset_ids)
        return row


class Task(Protocol):
    """See the head of this module."""

    higher_is_better: dict[str, bool]
    needs: tuple[str, ...]

    def cells(self, seeds: Sequence[int]) -> list[Cell]: ...
    def measure(
        self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int
    ) -> Iterator[Measured]: ...


def lacking(task: Task, method: Any) -> str | None:
    """The first thing that a task needs and a method lacks; ``None`` where it can be measured."""
    return next((name for name in task.needs if not hasattr(method, name)), None)


def check_can(task: Task, model: Encoders) -> None:
    """
    Raises:
        UserError: if the method lacks something that the task needs.
    """
    missing = lacking(task, model.method)
    if missing is not None:
        needed = "a text encoder" if not hasattr(model.method, "encode_text") else missing
        raise UserError(f"{type(task).__name__} needs a method with {needed}; '{model.name}' has none")


def cells_of(fractions: Sequence[float], seeds: Sequence[int]) -> list[Cell]:
    """Every fraction with every seed, in the order of the fractions.

    Raises:
        UserError: for a fraction outside (0, 1], or one that is named twice.
    """
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise UserError(f"fractions of the labels lie in (0, 1], got {fraction}")
    if len(set(fractions)) < len(fractions):
        raise UserError(f"a fraction of the labels is named twice: {', '.join(map(str, fractions))}")
    return [Cell(fraction, seed) for fraction in fractions for seed in seeds]


# Data -----------------------------------------------------------------------------------------------------------------


def pair_loader(model: Encoders, corpus: PreparedCorpus, rows: np.ndarray, batch_size: int | None = None) -> Loader:
    """Films and their reports, in order, as the encoders are used to them; studies without a report are left out.

    Raises:
        UserError: if none of the corpus's films has a report.
    """
    if not any(corpus.reports):
        raise UserError(f"corpus {corpus.name} has no reports")
    tokens = tokenise(corpus.reports, model.tokenizer, min(MAX_TOKENS, model.method.text_encoder.max_tokens))
    if tokens.cut_line:
        print(tokens.cut_line, file=sys.stderr)
    size = batch_size or model.batch_size
    return Loader(corpus, rows, model.image_size, model.resize_to, size, tokens, device=model.device)


def film_loader(model: Encoders, corpus: PreparedCorpus, rows: np.ndarray, batch_size: int = 64) -> Loader:
    """Films alone, in the order of ``rows``."""
    return Loader(corpus, rows, model.image_size, model.resize_to, batch_size, device=model.device)


def patients_of(corpus: PreparedCorpus, rows: np.ndarray) -> np.ndarray:
    """``(n,)`` patient of each study."""
    patients: np.ndarray = corpus.index["patient_id"].to_numpy().astype(str)[rows]
    return patients


def ids_of(corpus: PreparedCorpus, rows: np.ndarray) -> list[str]:
    """Study ids."""
    ids: list[str] = corpus.index["study_id"].to_numpy().astype(str)[rows].tolist()
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
    return split_rows(corpus, split, np.flatnonzero([bool(report) for report in corpus.reports]), "a report")


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


# Numbers --------------------------------------------------------------------------------------------------------------


def few_patients(corpus: PreparedCorpus, rows: np.ndarray) -> list[str]:
    """A remark where the studies are of fewer than :data:`FEW_PATIENTS` patients; else none."""
    count = len(set(patients_of(corpus, rows)))
    if count >= FEW_PATIENTS:
        return []
    noun = "patient" if count == 1 else "patients"
    return [f"measured on {count} {noun}, fewer than {FEW_PATIENTS}: the 95 % intervals are not to be trusted"]


def patient_draws(corpus: PreparedCorpus, rows: np.ndarray, draws: int) -> np.ndarray:
    """``(draws, n)``: how often each test study counts in each bootstrap draw, the same for every encoder."""
    return bootstrap_weights(patients_of(corpus, rows), draws, seed=0)


def mean_replicates(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The bootstrap of a mean over studies, NaN values left out.

    Args:
        values: ``(n,)`` or ``(n, k)`` for k parts that are pooled, such as the sentences of a report.
        weights: ``(draws, n)``.
    Returns:
        ``(draws,)``; NaN where a draw has no value.
    """
    values = values.reshape(len(values), -1)
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (weights @ np.nan_to_num(values).sum(1)) / (weights @ known.sum(1).astype(float))
    return means


class Summary(NamedTuple):
    """A metric over the cells of one encoder and fraction; ``sd`` is None where there is one cell, the interval NaN
    where the metric has none."""

    mean: float
    sd: float | None
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """``0.871 ± 0.004 (0.851-0.889)``, or as much of it as there is."""
        sd = "" if self.sd is None else f" ± {self.sd:.3f}"
        return f"{self.mean:.3f}{sd}" + ("" if np.isnan(self.low) else f" ({self.low:.3f}-{self.high:.3f})")


def summarise(cells: Sequence[Measured], metric: str) -> Summary:
    """Mean, standard deviation and 95 % interval over the cells of one encoder and fraction.

    The interval holds the luck of the test patients, by bootstrap, and that of the cells, by Student's t, but not that
    of pre-training. Of few cells little is known: with three it is wide, and may leave the range of the metric.
    """
    values = [cell.numbers[metric] for cell in cells]
    sd = float(np.std(values, ddof=1)) if len(cells) > 1 else None
    low = high = float("nan")
    if all(metric in cell.replicates for cell in cells):
        low, high = interval(_pooled(np.array(values), np.stack([cell.replicates[metric] for cell in cells])))
    return Summary(float(np.mean(values)), sd, low, high, len(cells))


def undefined(numbers: Mapping[str, float], reasons: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The note ``undefined`` of a measurement: why numbers are NaN, of those that are.

    Args:
        numbers: of the measurement.
        reasons: in a few words, by the names of the numbers that may be NaN.
    Example:
        >>> undefined({"dice": 0.5, "dice_positive": float("nan")}, {"dice_positive": "no test image has a lesion"})
        {'undefined': {'dice_positive': 'no test image has a lesion'}}
    """
    own = {name: why for name, why in reasons.items() if np.isnan(numbers.get(name, 0.0))}
    return {"undefined": own} if own else {}


def why_undefined(cells: Sequence[Measured], metric: str) -> str:
    """Why the mean of a metric over cells is NaN; empty where it is none."""
    missing = [cell for cell in cells if np.isnan(cell.numbers[metric])]
    if not missing:
        return ""
    why = missing[0].notes.get("undefined", {}).get(metric, "the encoder's outputs are not finite")
    return why if len(missing) == len(cells) else f"{len(missing)} of {len(cells)} measurements: {why}"


class Difference(NamedTuple):
    """``a - b`` with its 95 % interval, and the two-sided p of a test that there is none."""

    mean: float
    low: float
    high: float
    p: float


def compare(a: Sequence[Measured], b: Sequence[Measured], metric: str) -> Difference:
    """The paired test of two encoders that were measured on the same test patients.

    In every draw of the bootstrap both see the same patients; where they have the same seeds, and so the same subsets
    of labels, the differences within seeds count. The luck of the seeds is added as in :func:`summarise`. ``p`` is
    twice the share of draws on the smaller side of zero, with one draw added to each (so never 0).

    Raises:
        ValueError: if they were not measured on the same test studies.
    """
    tests = {cell.notes.get("test_sha256") for cell in (*a, *b)}
    if len(tests) != 1:
        raise ValueError(f"two encoders compare on the same test studies only, these have {len(tests)} sets of them")
    of_a, of_b = (np.stack([cell.replicates[metric] for cell in cells]) for cells in (a, b))
    values_a, values_b = (np.array([cell.numbers[metric] for cell in cells]) for cells in (a, b))
    if [cell.cell for cell in a] == [cell.cell for cell in b]:
        draws = _pooled(values_a - values_b, of_a - of_b)
    else:
        draws = _pooled(values_a, of_a, 1) - _pooled(values_b, of_b, 2)
    draws = draws[np.isfinite(draws)]
    mean = float(values_a.mean() - values_b.mean())
    if not len(draws):
        return Difference(mean, float("nan"), float("nan"), float("nan"))
    smaller = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return Difference(mean, *interval(draws), min(1.0, 2 * (smaller + 1) / (len(draws) + 1)))


def _pooled(values: np.ndarray, replicates: np.ndarray, seed: int = 1) -> np.ndarray:
    """``(cells,)`` and ``(cells, draws)`` to ``(draws,)``: the mean over the cells, and its luck.

    To draw the cells with replacement would be wrong: three of one sign happen by chance one time in four, and all
    their draws are of that sign. The mean of n cells is off by s / sqrt(n) times a Student's t of n - 1 degrees.
    """
    pooled: np.ndarray = replicates.mean(0)
    if len(values) > 1:
        luck = np.random.default_rng(seed).standard_t(len(values) - 1, size=pooled.shape)
        pooled = pooled + luck * values.std(ddof=1) / np.sqrt(len(values))
    return pooled
