"""``lingula benchmark FILE.yaml``: methods x tasks x shares of the labels x seeds, as the papers' tables.

Every measurement is a cell, written to OUT/cells as soon as it is there, under a name that says what went into it. So a
benchmark that was interrupted anywhere goes on where it stopped, and its tables, which are read from the cells alone,
are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lingula.api import Model
    from lingula.data.prepared import PreparedCorpus
    from lingula.evaluation import Cell, Measured


def benchmark(
    file: Path,
    out: Path | None = None,
    device: str = "auto",
    tables_only: bool = False,
) -> list[Any]:
    """Compare methods on tasks, resuming where it stopped, and print the papers' tables.

    The file names the methods, each a run, or how to train one, or an initialisation; the tasks with their prepared
    corpora and options; and the seeds. See docs/benchmark.md.

    Args:
        file: YAML.
        out: folder of the cells, the runs and the tables; the file's own name without .yaml by default.
        device: `cpu`, `cuda`, `mps` or `auto`.
        tables_only: print the tables of what is there, and measure nothing.
    """
    from lingula.commands._tables import markdown, print_tables, tables_of
    from lingula.commands.evaluate import device_of
    from lingula.data.prepared import PreparedCorpus
    from lingula.registry import UserError

    plan = read_plan(Path(file))
    out = Path(out) if out is not None else Path(file).with_suffix("")
    corpora = {entry.corpus: PreparedCorpus.open(entry.corpus) for entry in plan.tasks}
    tasks = [(entry, make_task(entry)) for entry in plan.tasks]
    found: dict[tuple[str, int], list[Measured]] = {}
    for name, method in plan.methods.items():
        if not tables_only:
            train(name, method, out, plan)
        for number, (entry, task) in enumerate(tasks):
            for model, cells in encoders(name, method, out, plan, task, corpora[entry.corpus], device_of(device)):
                store = Store(out / "cells", name, model, task, corpora[entry.corpus], plan.bootstrap)
                if not tables_only:
                    store.fill(cells)
                found.setdefault((name, number), []).extend(store.read(cells))
    if not any(found.values()):
        raise UserError(f"{out} holds no cell of {file} yet; run it without --tables_only")
    tables = tables_of(plan, tasks, corpora, found)
    print_tables(tables)
    (out / "tables.md").write_text(markdown(tables), encoding="utf-8")
    print(f"{out / 'tables.md'}")
    return tables


benchmark.positional = ("file",)  # type: ignore[attr-defined]


# The plan -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One line of the tables.

    Attributes:
        run: folder of a trained run.
        pretrain: options of ``lingula pretrain``; the run is trained into OUT/runs/NAME.
        init: ``random`` or ``imagenet`` weights in the encoders of another method; one random encoder for each seed.
        like: that method.
    """

    run: Path | None = None
    pretrain: dict[str, Any] | None = None
    init: Literal["random", "imagenet"] | None = None
    like: str | None = None


@dataclass(frozen=True)
class Entry:
    """One task of the benchmark.

    Attributes:
        task: its name in ``lingula list tasks``.
        corpus: folder of a prepared corpus.
        options: of the task.
        name: heading of its columns; the corpus's name by default.
        metric: shown in the tables; the task's first by default.
    """

    task: str
    corpus: Path
    options: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Plan:
    """A benchmark: methods by name, tasks, seeds of subsets and heads, draws of the bootstrap."""

    methods: dict[str, Method]
    tasks: list[Entry]
    seeds: tuple[int, ...] = (0, 1, 2)
    bootstrap: int = 1000


def read_plan(path: Path) -> Plan:
    """
    Raises:
        UserError: for a file that is missing, no YAML, or does not say what it must, naming the nearest key.
    """
    import yaml

    from lingula.registry import UserError

    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise UserError(f"cannot read the benchmark {path}: {' '.join(str(err).split())}") from err
    known = _known(path.name, written, Plan)
    methods = {
        str(name): Method(**_known(f"{path.name}: method '{name}'", options, Method))
        for name, options in known["methods"].items()
    }
    for name, method in methods.items():
        _check_method(f"{path.name}: method '{name}'", method, methods)
    entries = [Entry(**_known(f"{path.name}: task {n}", of, Entry)) for n, of in enumerate(known["tasks"], start=1)]
    seeds = known.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise UserError(f"{path.name}: seeds must be a list of whole numbers from 0, got {seeds!r}")
    draws = known.get("bootstrap", 1000)
    if not isinstance(draws, int) or draws < 1:
        raise UserError(f"{path.name}: bootstrap must be a whole number from 1, got {draws!r}")
    return Plan(methods, entries, tuple(seeds), draws)


def _known(where: str, written: Any, kind: Any) -> dict[str, Any]:
    """A table whose keys are fields of a dataclass."""
    from lingula.registry import UserError, nearest

    if not isinstance(written, dict):
        raise UserError(f"{where} must be a table of options, got {type(written).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in written:
        if key not in fields:
            hint = nearest(str(key), fields) or f"; known: {', '.join(fields)}"
            raise UserError(f"{where}: unknown key '{key}'{hint}")
    for name, of in fields.items():
        needed = of.default is dataclasses.MISSING and of.default_factory is dataclasses.MISSING
        if needed and not written.get(name):
            raise UserError(f"{where} names no {name}")
    paths = ("run", "corpus")
    return {key: Path(value) if key in paths and value is not None else value for key, value in written.items()}


def _check_method(where: str, method: Method, methods: dict[str, Method]) -> None:
    from lingula.registry import UserError, nearest

    given = [name for name in ("run", "pretrain", "init") if getattr(method, name) is not None]
    if len(given) != 1:
        raise UserError(f"{where} needs one of run, pretrain and init, got {' and '.join(given) or 'none'}")
    if method.init is not None:
        if method.init not in ("random", "imagenet"):
            raise UserError(f"{where}: unknown init '{method.init}'; known: random, imagenet")
        if method.like is None or method.like not in methods or methods[method.like].init is not None:
            hint = nearest(str(method.like), methods) if method.like else ""
            raise UserError(f"{where}: like must name a method with a run, whose encoders it takes{hint}")
    elif method.like is not None:
        raise UserError(f"{where}: like goes with init")
    if method.pretrain is not None:
        for key in ("out", "resume"):
            if key in method.pretrain:
                raise UserError(f"{where}: leave out {key}; the benchmark says where to train, and resumes")


def make_task(entry: Entry) -> Any:
    """
    Raises:
        UserError: for an unknown task, option or metric.
    """
    from lingula.registry import UserError, check_options, nearest
    from lingula.tasks import TASKS

    factory = TASKS[entry.task]
    check_options(f"task '{entry.task}'", factory, entry.options)
    try:
        task = factory(**entry.options)
    except TypeError as err:
        raise UserError(f"task '{entry.task}': {err}") from err
    if entry.metric is not None and entry.metric not in task.higher_is_better:
        known = ", ".join(task.higher_is_better)
        hint = nearest(entry.metric, task.higher_is_better) or f"; known: {known}"
        raise UserError(f"task '{entry.task}' has no metric '{entry.metric}'{hint}")
    return task


# Encoders -------------------------------------------------------------------------------------------------------------


def run_of(name: str, method: Method, out: Path, plan: Plan) -> Path:
    """Where a method's run lies."""
    if method.like is not None:
        return run_of(method.like, plan.methods[method.like], out, plan)
    slug = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
    return method.run or out / "runs" / slug


def train(name: str, method: Method, out: Path, plan: Plan) -> None:
    """Train a method that is to be trained, or go on where that stopped; nothing for one that is trained."""
    from lingula.commands.pretrain import pretrain
    from lingula.registry import UserError, check_options

    if method.pretrain is None:
        return
    check_options(f"method '{name}': pretrain", pretrain, method.pretrain)
    if "corpus" not in method.pretrain:
        raise UserError(f"method '{name}': pretrain needs a corpus")
    run = run_of(name, method, out, plan)
    pretrain(out=run, resume=(run / "run.json").is_file(), **method.pretrain)


def encoders(
    name: str, method: Method, out: Path, plan: Plan, task: Any, corpus: PreparedCorpus, device: str
) -> Iterator[tuple[Model, list[Cell]]]:
    """The models of a method, with the cells that each is measured at."""
    from lingula.api import fresh, imagenet, load
    from lingula.commands.evaluate import recalibrate

    model = load(run_of(name, method, out, plan), device)
    if method.init is None:
        yield model, task.cells(plan.seeds)
    elif method.init == "imagenet":
        yield imagenet(model), task.cells(plan.seeds)
    else:
        for seed in plan.seeds:
            untrained = fresh(model, seed)
            recalibrate(untrained, corpus)
            yield untrained, task.cells([seed])


# Cells ----------------------------------------------------------------------------------------------------------------


@dataclass
class Store:
    """The cells of one encoder on one task, on disk: ``KEY.json``, its row, and ``KEY.npz``, its replicates."""

    folder: Path
    method: str
    model: Model
    task: Any
    corpus: PreparedCorpus
    draws: int

    def path(self, cell: Cell) -> Path:
        """The file of a cell; its name is a hash of the weights, the task, the corpus, the cell and the draws."""
        options = {key: value for key, value in dataclasses.asdict(self.task).items() if key != "fractions"}
        parts: list[Any] = [self.model.checkpoint, type(self.task).__name__, options, self.corpus.fingerprint]
        parts += [list(cell), self.draws]
        if not self.model.is_trained:  # these weights follow from the architecture
            names = ("method", "options", "image_encoder", "image_size", "resize_to")
            parts.append([self.model.made[name] for name in names])
        key = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
        return self.folder / f"{key}.json"

    def fill(self, cells: Sequence[Cell]) -> None:
        """Measure the cells that are missing, and write each at once."""
        import time

        missing = [cell for cell in cells if not self.path(cell).is_file()]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        measured = self.task.measure(self.model, self.corpus, missing, self.draws)
        for cell, found in zip(missing, measured, strict=True):
            self._write(cell, found, time.perf_counter() - started)
            share = f", {cell.fraction:.3g} of the labels, seed {cell.seed}" if found.cell else ""
            print(f"{self.method}: {type(self.task).__name__} on {self.corpus.name}{share}")
            started = time.perf_counter()

    def _write(self, cell: Cell, found: Measured, seconds: float) -> None:
        import numpy as np

        from lingula.commands.evaluate import describe, write_subsets
        from lingula.results import write_json

        path = self.path(cell)
        write_subsets(self.folder.parent / "subsets", [found])
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **found.replicates)  # type: ignore[arg-type]
        partial.replace(path.with_suffix(".npz"))
        row = {
            "method": self.method,
            **describe(self.task, self.corpus),
            "encoder": self.model.name,
            "checkpoint": self.model.checkpoint,
            **found.row(),
            "seconds": round(seconds, 1),
            "command": " ".join(["lingula", *sys.argv[1:]]),
        }
        written = {"row": row, "numbers": found.numbers, "notes": found.notes, "trained": found.cell is not None}
        write_json(path, written)

    def read(self, cells: Sequence[Cell]) -> list[Measured]:
        """The cells that are there."""
        import numpy as np

        from lingula.evaluation import Measured

        read = []
        for cell in cells:
            path = self.path(cell)
            if path.is_file():
                written = json.loads(path.read_text(encoding="utf-8"))
                numbers = {key: float("nan") if value is None else value for key, value in written["numbers"].items()}
                with np.load(path.with_suffix(".npz")) as replicates:
                    read.append(
                        Measured(numbers, dict(replicates), written["notes"], cell if written["trained"] else None)
                    )
        return read
