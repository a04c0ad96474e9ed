"""``lingula benchmark FILE.yaml``: methods x tasks x shares of the labels x seeds, as the papers' tables.

Every measurement is a cell, written to OUT/cells as soon as it is there, under a name that says what went into it. So a
benchmark that was interrupted anywhere goes on where it stopped, and its tables, which are read from the cells alone,
are the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from lingula.benchmarking.cells import chosen_of, fill
from lingula.benchmarking.plan import check_pretrain, make_task, read_plan
from lingula.commands.pretrain import pretrain


def benchmark(
    file: Path,
    out: Path | None = None,
    device: str = "auto",
    only: list[str] | None = None,
    tables_only: bool = False,
    allow: list[str] | None = None,
    quiet: bool = False,
) -> list[Any]:
    """Compare methods on tasks, resuming where it stopped, and print the papers' tables.

    The file lists the methods (a trained run, the options to train one, or an initialisation), the tasks with their
    prepared corpora and options, and the seeds. See docs/benchmark.md.

    Args:
        file: YAML file of the benchmark.
        out: folder for the cells, the runs and the tables (default: FILE without its .yaml).
        device: `cpu`, `cuda`, `mps` or `auto`.
        only: methods to train and measure; the tables still include the other methods as far as they have been
            measured. Several processes can share the work of one file this way.
        tables_only: measure nothing; print the tables of what has been measured.
        allow: classes outside lingula that may be imported, as `package:Class`: methods and tasks that the file or its
            runs name.
        quiet: do not show progress.
    """
    from lingula.benchmarking.tables import markdown, print_tables, tables_of
    from lingula.data.prepared import PreparedCorpus
    from lingula.records import append_rows
    from lingula.registry import UserError, trust
    from lingula.terminal.progress import quietly
    from lingula.training.devices import device_of

    trust(allow)
    plan = read_plan(Path(file))
    out = Path(out) if out is not None else Path(file).with_suffix("")
    corpora = {entry.corpus: PreparedCorpus.open(entry.corpus) for entry in plan.tasks}
    tasks = [(entry, make_task(entry)) for entry in plan.tasks]
    device = device_of(device)
    measured_here = [] if tables_only else chosen_of(only, plan)
    for name in measured_here:
        check_pretrain(name, plan.methods[name], pretrain)
    with quietly(quiet):
        rows, found = fill(plan, tasks, corpora, out, device, measured_here, pretrain)
    if not rows:
        raise UserError(f"{out} holds no cell of {file} yet; run it without --tables_only")
    tables = tables_of(plan, tasks, corpora, found)
    print_tables(tables)
    (out / "tables.md").write_text(markdown(tables), encoding="utf-8")
    partial = out / f"results.{os.getpid()}.partial"
    partial.unlink(missing_ok=True)
    append_rows(partial, rows)
    partial.replace(out / "results.jsonl")
    print(out / "tables.md", file=sys.stderr)
    return tables


benchmark.positional = ("file",)  # type: ignore[attr-defined]
