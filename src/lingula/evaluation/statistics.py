"""Numbers over patients, seeds and pre-trainings: intervals, means, differences, and why one is undefined. Floor 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.studies import patients_of
from lingula.evaluation.task import Measured
from lingula.metrics.bootstrap import bootstrap_weights, interval

FEW_PATIENTS = 30  # percentile intervals of fewer are too narrow


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

    The interval covers the variation between test patients, by bootstrap, and between cells, by Student's t, but not
    between pre-training runs. With as few as three cells it is wide, and may leave the range of the metric.
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
    of labels, the differences within seeds count. The variation between seeds is added as in :func:`summarise`.
    ``p`` is twice the share of draws on the smaller side of zero, with one draw added to each (so never 0).

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
    """``(cells,)`` and ``(cells, draws)`` to ``(draws,)``: the mean over the cells, and its variation.

    To draw the cells with replacement would be wrong: three of one sign happen by chance one time in four, and all
    their draws are of that sign. The mean of n cells is off by s / sqrt(n) times a Student's t of n - 1 degrees.
    """
    pooled: np.ndarray = replicates.mean(0)
    if len(values) > 1:
        luck = np.random.default_rng(seed).standard_t(len(values) - 1, size=pooled.shape)
        pooled = pooled + luck * values.std(ddof=1) / np.sqrt(len(values))
    return pooled
