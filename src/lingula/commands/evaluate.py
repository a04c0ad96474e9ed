"""``lingula evaluate TASK``: measure what a run has learned, beside the same encoders with random weights."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingula.tasks import TASKS

if TYPE_CHECKING:
    from lingula.evaluation.task import Measured

Found = dict[tuple[str, float | None], list[Any]]


def evaluate(
    task: Any,
    run: Path,
    corpus: Path | None = None,
    seeds: list[int] | None = None,
    baseline: bool = True,
    bootstrap: int = 1000,
    device: str = "auto",
    allow: list[str] | None = None,
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
        allow: classes outside lingula that may be imported, as `package:Class`; needed for a run of such a method.
        quiet: do not show progress.
    """
    from lingula.evaluation.task import check_can
    from lingula.records import append_rows
    from lingula.registry import UserError, trust
    from lingula.runs.folder import open_corpus
    from lingula.runs.measure import describe, measure, write_subsets
    from lingula.runs.model import load
    from lingula.terminal.progress import duration, quietly
    from lingula.training.devices import device_of

    trust(allow)
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


def show(task: str, metrics: dict[str, bool], found: Found) -> None:
    """One table a fraction: a line a number, a column an encoder, and, for metrics, the difference of the encoders."""
    from lingula.evaluation.statistics import compare, summarise, why_undefined
    from lingula.runs.measure import share
    from lingula.terminal.plain_table import print_table

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
