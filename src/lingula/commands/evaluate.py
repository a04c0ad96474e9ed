"""``lingula evaluate TASK``: measure what a run has learned, beside the same encoders with random weights."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingula.tasks import TASKS

if TYPE_CHECKING:
    from lingula.api import Model
    from lingula.data.prepared import PreparedCorpus
    from lingula.evaluation import Measured
    from lingula.progress import Bar

Found = dict[tuple[str, float | None], list[Any]]


def evaluate(
    task: Any,
    run: Path,
    corpus: Path | None = None,
    seeds: list[int] | None = None,
    baseline: bool = True,
    bootstrap: int = 1000,
    device: str = "auto",
    quiet: bool = False,
) -> Found:
    """Measure what a run has learned, beside the same encoders with random weights.

    Rows are added to RUN/results.jsonl; the subsets of labels that were drawn are written to RUN/subsets/.

    Args:
        task: what to measure.
        run: folder of a trained run.
        corpus: folder of a prepared corpus (default: the corpus that the run was trained on).
        seeds: seeds of the training subsets, the heads and the random encoders (default: 0 1 2).
        baseline: also measure encoders with random weights, one for each seed.
        bootstrap: number of bootstrap draws for the 95 % interval.
        device: `cpu`, `cuda`, `mps` or `auto`.
        quiet: do not show progress.
    """
    from lingula.api import load
    from lingula.evaluation import check_can
    from lingula.progress import duration, quietly
    from lingula.registry import UserError
    from lingula.results import append_rows

    started = time.perf_counter()
    drawn = seeds or [0, 1, 2]
    if bootstrap < 1:
        raise UserError(f"bootstrap must be at least 1, got {bootstrap}")
    if min(drawn) < 0:
        raise UserError(f"seeds must not be negative, got {drawn}")
    if len(set(drawn)) < len(drawn):
        raise UserError(f"a seed is named twice, which is no second measurement: {drawn}")
    model = load(run, device_of(device))
    check_can(task, model)
    prepared = open_corpus(model.made, corpus)
    about = describe(task, prepared)
    command = " ".join(["lingula", *sys.argv[1:]])

    def write(cell: Measured) -> None:
        write_subsets(Path(run) / "subsets", [cell])
        append_rows(Path(run) / "results.jsonl", [{**about, "run": str(run), **cell.row(), "command": command}])

    with quietly(quiet):
        found = measure(task, model, prepared, drawn, bootstrap, baseline, write)
    show(about["task"], task.higher_is_better, found)
    remarks = (remark for cells in found.values() for cell in cells for remark in cell.notes.get("remarks", ()))
    for remark in dict.fromkeys(remarks):
        print(f"note: {remark}")
    if not quiet:
        print(f"{about['task']} on {prepared.name}: {duration(time.perf_counter() - started)}", file=sys.stderr)
    return found


evaluate.choices = TASKS  # type: ignore[attr-defined]


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
    from lingula.api import fresh
    from lingula.progress import progress

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
    """What ``lingula list tasks`` calls it."""
    kind = type(task).__name__
    return next((name for name, path in TASKS.paths.items() if path.endswith(f":{kind}")), kind)


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
    from lingula.evaluation import id_hash

    for cell in cells:
        if cell.subset_ids is not None:
            folder.mkdir(exist_ok=True)
            (folder / f"{id_hash(cell.subset_ids)}.txt").write_text("\n".join(cell.subset_ids) + "\n")


def open_corpus(made: dict[str, Any], corpus: Path | None) -> PreparedCorpus:
    """The corpus that was asked for, or the one that the run was trained on.

    Raises:
        UserError: if there is none, or the folder of the training now holds another preparation, whose test split may
            hold films that were trained on.
    """
    from lingula.data.prepared import PreparedCorpus
    from lingula.registry import UserError

    trained_on = made["corpus"]
    prepared = PreparedCorpus.open(corpus or trained_on["folder"])
    same_name = prepared.name == trained_on["name"]
    if corpus is None and same_name and prepared.fingerprint != trained_on["fingerprint"]:
        raise UserError(
            f"{prepared.folder} holds another preparation of {prepared.name} than the run was trained on "
            f"({prepared.fingerprint[:12]}, not {trained_on['fingerprint'][:12]}); name a corpus with --corpus"
        )
    warn_of_another_preparation(made, prepared)
    return prepared


def warn_of_another_preparation(made: dict[str, Any], prepared: PreparedCorpus) -> None:
    """Say so where the corpus of a run was prepared anew: its test films may be among those trained on."""
    trained_on = made["corpus"]
    if prepared.name == trained_on["name"] and prepared.fingerprint != trained_on["fingerprint"]:
        print(
            f"note: {prepared.folder} is another preparation of {prepared.name} than the run was trained on; "
            "its test films may have been trained on",
            file=sys.stderr,
        )


def device_of(name: str) -> str:
    """``cuda`` where there is one, for ``auto``.

    Raises:
        UserError: if there is no such device.
    """
    import torch

    from lingula.registry import UserError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as err:
        raise UserError(f"no device '{name}' here; choose cpu, cuda, mps or auto") from err
    return name


def recalibrate(model: Model, corpus: PreparedCorpus, films: int = 512) -> None:
    """BatchNorm statistics of a baseline's encoder from images of the corpus drawn at random, those to train on where
    there are some; ``model.batch_norm`` says so.

    Args:
        model: with weights that were not trained on radiographs; nothing is done to one without BatchNorm.
        corpus: whose images.
        films: how many, at most.
    """
    import numpy as np

    from lingula.evaluation import film_loader
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


def show(task: str, metrics: dict[str, bool], found: Found) -> None:
    """One table a fraction: a line a number, a column an encoder, and, for metrics, the difference of the encoders."""
    from lingula.commands._plain_table import print_table
    from lingula.evaluation import compare, summarise, why_undefined

    for fraction in dict.fromkeys(fraction for _, fraction in found):
        of = {encoder: cells for (encoder, own), cells in found.items() if own == fraction}
        pairs = list(of.values())
        first = pairs[0][0]
        about = "" if fraction is None else f", {share(fraction)} ({first.notes['train_studies']} studies)"
        heading = [task, *(f"{encoder} (n = {len(cells)})" for encoder, cells in of.items())]
        compared = len(pairs) == 2
        body = []
        for name in first.numbers:
            if "/" in name and name.split("/")[0] in first.numbers and len(first.numbers) > 60:
                continue
            line = [name + {True: " ↑", False: " ↓", None: ""}[metrics.get(name)]]
            for cells in pairs:
                why = why_undefined(cells, name)
                line.append(f"nan ({why})" if why else str(summarise(cells, name)))
            if compared:
                line.append("")
                if name in first.replicates and not any(why_undefined(cells, name) for cells in pairs):
                    difference = compare(pairs[0], pairs[1], name)
                    line[-1] = f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
            body.append(line)
        print_table(task + about, [*heading, "difference"] if compared else heading, body)
