"""Measure a model on a corpus with a task, beside the same encoders with random weights. Floor 4."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingula.tasks import TASKS

if TYPE_CHECKING:
    from lingula.data.prepared import PreparedCorpus
    from lingula.evaluation.task import Measured
    from lingula.runs.model import Model
    from lingula.terminal.progress import Bar


Found = dict[tuple[str, float | None], list[Any]]


def measure(
    task: Any,
    model: Model,
    corpus: PreparedCorpus,
    seeds: Sequence[int],
    draws: int,
    baseline: bool = True,
    on_cell: Callable[[Measured], None] | None = None,
) -> Found:
    """``{(encoder, fraction): cells}`` of a run and, beside it, of random encoders, one for each seed.

    Every cell notes which encoder it is of, ``encoder`` and ``checkpoint``, and goes to ``on_cell`` as soon as it is
    there, so that an interruption costs no more than the cell at hand.
    """
    from lingula.runs.model import fresh
    from lingula.terminal.progress import progress

    found: Found = {}
    own, random = task.cells(seeds), {seed: task.cells([seed]) for seed in seeds if baseline}

    def note(encoder: Model, cells: list[Any], bar: Bar, **more: Any) -> None:
        bar.label = f"{name_of(task)} of {encoder.name}"
        for measured in task.measure(encoder, corpus, cells, draws):
            about = {"encoder": encoder.name, "checkpoint": encoder.checkpoint, **encoder.conditions}
            measured.notes = {**more, **measured.notes, **about}
            fraction = measured.cell.fraction if measured.cell else None
            found.setdefault((encoder.name, fraction), []).append(measured)
            if on_cell is not None:
                on_cell(measured)
            bar.advance()

    total = len(own) + sum(len(cells) for cells in random.values())
    with progress(name_of(task), total, "measurement") as bar:
        note(model, own, bar)
        for seed, cells in random.items():
            untrained = fresh(model, seed)
            recalibrate(untrained, corpus)
            note(untrained, cells, bar, seed=seed)
    return found


def name_of(task: Any) -> str:
    """What ``lingula list tasks`` calls it, or ``package:Class``."""
    return TASKS.name_of(type(task))


def share(fraction: float) -> str:
    """``10 % of training data``."""
    return f"{100 * fraction:.3g} % of training data"


def describe(task: Any, corpus: PreparedCorpus) -> dict[str, Any]:
    """What a row of results says of the task and the corpus: options in full, so that it can be run again."""
    options = dataclasses.asdict(task)
    return {
        "task": name_of(task),
        "protocol": options.get("protocol"),
        "options": options,
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "split": options.get("split", "test"),
    }


def write_subsets(folder: Path, cells: Sequence[Measured]) -> None:
    """The id lists of the training subsets that were drawn, each in a file named by its hash."""
    from lingula.records import id_hash

    for cell in cells:
        if cell.subset_ids is not None:
            folder.mkdir(exist_ok=True)
            (folder / f"{id_hash(cell.subset_ids)}.txt").write_text("\n".join(cell.subset_ids) + "\n")


def recalibrate(model: Model, corpus: PreparedCorpus, films: int = 512) -> None:
    """BatchNorm statistics of a baseline's encoder from images of the corpus drawn at random, those to train on where
    there are some; ``model.batch_norm`` says so.

    Args:
        model: with weights that were not trained on radiographs; nothing is done to one without BatchNorm.
        corpus: whose images.
        films: how many, at most.
    """
    import numpy as np

    from lingula.evaluation.studies import film_loader
    from lingula.nn.image_encoders import has_batch_norm, recalibrate_batch_norm

    if not has_batch_norm(model.method.image_encoder):
        return
    split = "train" if len(corpus.rows("train")) else "all"
    candidates = corpus.rows("train") if split == "train" else np.arange(len(corpus))
    rows = np.random.default_rng(0).permutation(candidates)[:films]
    loader = film_loader(model, corpus, np.sort(rows))
    recalibrate_batch_norm(model.method.image_encoder, [batch.image for batch in loader])
    model.method.eval()
    model.batch_norm = f"statistics of {len(rows)} {split} images"
