"""What a task is, and what it may ask of the encoders that it measures. Floor 2.

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from lingula.data.prepared import PreparedCorpus
from lingula.metrics.bootstrap import interval
from lingula.nn.method import Method
from lingula.records import id_hash
from lingula.registry import UserError


class Encoders(Protocol):
    """What a task may ask of what it measures; :class:`lingula.runs.model.Model` is one.

    Attributes:
        method: in evaluation mode. A task never changes its weights: one that trains copies it.
        tokenizer: of its text encoder.
        name: of the method, or ``random``.
        checkpoint: hash of its weights.
        image_size, resize_to: pixels that the encoder sees, and to which films come before they are cropped to that.
        batch_size: of its training.
        trained_on: ``name``, ``folder`` and ``fingerprint`` of the corpus that it was trained on; empty if not known.
        device: where it lives.
    """

    method: Method
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


def lacking(task: Task, method: Method) -> str | None:
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
