"""``lingula benchmark FILE.yaml``: methods x tasks x shares of the labels x seeds, as the papers' tables.

Every measurement is a cell, written to OUT/cells as soon as it is there, under a name that says what went into it. So a
benchmark that was interrupted anywhere goes on where it stopped, and its tables, which are read from the cells alone,
are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
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
    only: list[str] | None = None,
    tables_only: bool = False,
) -> list[Any]:
    """Compare methods on tasks, resuming where it stopped, and print the papers' tables.

    The file names the methods, each a run, or how to train one, or an initialisation; the tasks with their prepared
    corpora and options; and the seeds. See docs/benchmark.md.

    Args:
        file: YAML.
        out: folder of the cells, the runs and the tables; the file's own name without .yaml by default.
        device: `cpu`, `cuda`, `mps` or `auto`.
        only: train and measure these methods alone; the tables show what is there of the others. Several processes may
            so share the work of one file.
        tables_only: print the tables of what is there, and measure nothing.
    """
    from lingula.commands._tables import markdown, print_tables, tables_of
    from lingula.commands.evaluate import device_of
    from lingula.data.prepared import PreparedCorpus
    from lingula.evaluation import lacking
    from lingula.registry import UserError
    from lingula.results import append_rows

    plan = read_plan(Path(file))
    out = Path(out) if out is not None else Path(file).with_suffix("")
    corpora = {entry.corpus: PreparedCorpus.open(entry.corpus) for entry in plan.tasks}
    tasks = [(entry, make_task(entry)) for entry in plan.tasks]
    device = device_of(device)
    measured_here = [] if tables_only else _chosen(only, plan)
    for name in measured_here:
        check_pretrain(name, plan.methods[name])
    for name in measured_here:  # all before any is measured: one may be like a later one
        train(name, plan.methods[name], out, plan)
    found: dict[tuple[str, int], list[Measured]] = {}
    rows: list[dict[str, Any]] = []
    for name, method in plan.methods.items():
        if name not in measured_here and not _is_there(name, method, out, plan):
            continue
        for weights in weights_of(name, method, out, plan, device):
            for number, (entry, task) in enumerate(tasks):
                if lacking(task, weights.base.method) is not None:
                    continue  # a dash in its column
                corpus = corpora[entry.corpus]
                store = Store(out / "cells", name, weights, task, corpus, plan.bootstrap)
                cells = task.cells(weights.seeds)
                if name in measured_here:
                    store.fill(cells)
                for row, measured in store.read(cells):
                    if row not in rows:  # two entries may show the same cells
                        rows.append(row)
                    found.setdefault((name, number), []).append(measured)
    if not rows:
        raise UserError(f"{out} holds no cell of {file} yet; run it without --tables_only")
    tables = tables_of(plan, tasks, corpora, found)
    print_tables(tables)
    (out / "tables.md").write_text(markdown(tables), encoding="utf-8")
    partial = out / f"results.{os.getpid()}.partial"
    partial.unlink(missing_ok=True)
    append_rows(partial, rows)
    partial.replace(out / "results.jsonl")
    print(f"{out / 'tables.md'}")
    return tables


def _chosen(only: list[str] | None, plan: Plan) -> list[str]:
    """The methods to train and measure, in the plan's order.

    Raises:
        UserError: for a name that the plan has not.
    """
    from lingula.registry import UserError, nearest

    for name in only or ():
        if name not in plan.methods:
            hint = nearest(name, plan.methods) or f"; known: {', '.join(plan.methods)}"
            raise UserError(f"the benchmark has no method '{name}'{hint}")
    return [name for name in plan.methods if only is None or name in only]


benchmark.positional = ("file",)  # type: ignore[attr-defined]


# The plan -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One line of the tables.

    Attributes:
        run: folder of a trained run.
        pretrain: options of ``lingula pretrain``; the run is trained into OUT/runs/NAME.
        each_seed: pre-train once with each of the plan's seeds, into OUT/runs/NAME-SEED, and measure that run with its
            own seed: then the spread over the seeds is that of the whole method.
        init: ``random`` or ``imagenet`` weights in the encoders of another method; one random encoder for each seed.
        like: that method.
        weights: of ``imagenet``, a file of them; timm's published ones if not given.
    """

    run: Path | None = None
    pretrain: dict[str, Any] | None = None
    each_seed: bool = False
    weights: Path | None = None
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
        metrics: shown in the tables, a column each; the task's first by default, or, of one that trains nothing, three.
    """

    task: str
    corpus: Path
    options: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    metrics: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A benchmark: methods by name, tasks, seeds of subsets and heads, draws of the bootstrap."""

    methods: dict[str, Method]
    tasks: list[Entry]
    seeds: tuple[int, ...] = (0, 1, 2)
    bootstrap: int = 1000


KINDS: dict[str, tuple[type, str]] = {  # of what the file's keys may hold
    **dict.fromkeys(("methods", "pretrain", "options"), (dict, "a table")),
    **dict.fromkeys(("run", "init", "like", "weights", "task", "corpus", "name"), (str, "a word")),
    "each_seed": (bool, "true or false"),
    **dict.fromkeys(("tasks", "metrics"), (list, "a list")),
}


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
    slugs: dict[str, str] = {}
    for name in (name for name, method in methods.items() if method.pretrain is not None):
        other = slugs.setdefault(_slug(name), name)
        if other != name or not _slug(name):
            raise UserError(f"{path.name}: methods '{other}' and '{name}' would be trained in one folder; rename one")
    entries = [Entry(**_known(f"{path.name}: task {n}", of, Entry)) for n, of in enumerate(known["tasks"], start=1)]
    seeds = known.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f"{path.name}: seeds must be a list of whole numbers from 0, got {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path.name}: a seed is named twice, which is no second measurement: {seeds!r}")
    draws = known.get("bootstrap", 1000)
    if type(draws) is not int or draws < 1:
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
    for key, value in written.items():
        accepted, noun = KINDS.get(key, (object, ""))
        if value is not None and not isinstance(value, accepted):
            raise UserError(f"{where}: {key} must be {noun}, got {value!r}")
    written = {key: value for key, value in written.items() if value is not None}
    paths = ("run", "corpus", "weights")
    return {key: Path(value) if key in paths else value for key, value in written.items()}


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
    if method.weights is not None and method.init != "imagenet":
        raise UserError(f"{where}: weights goes with init imagenet")
    if method.each_seed and method.pretrain is None:
        raise UserError(f"{where}: each_seed goes with pretrain")
    if method.pretrain is not None:
        for key in ("out", "resume", *(["seed"] if method.each_seed else [])):
            if key in method.pretrain:
                raise UserError(f"{where}: leave out {key}; the benchmark says where and with which seed, and resumes")


def make_task(entry: Entry) -> Any:
    """
    Raises:
        UserError: for an unknown task, option or metric.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    from lingula.registry import UserError, check_options, nearest
    from lingula.tasks import TASKS

    factory = TASKS[entry.task]
    check_options(f"task '{entry.task}'", factory, entry.options)
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(factory)
    try:  # the kinds of the command line: a word that is none of an option's would otherwise choose its other branch
        task = factory(**parser.parse_object(dict(entry.options)).as_dict())
    except ArgumentError as err:
        raise UserError(f"task '{entry.task}': {' '.join(str(err).split())}") from err
    for metric in entry.metrics:
        if metric not in task.higher_is_better:
            known = ", ".join(task.higher_is_better)
            hint = nearest(str(metric), task.higher_is_better) or f"; known: {known}"
            raise UserError(f"task '{entry.task}' has no metric '{metric}'{hint}")
    return task


# Encoders -------------------------------------------------------------------------------------------------------------


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


def runs_of(name: str, method: Method, out: Path, plan: Plan) -> dict[int | None, Path]:
    """Where a method's runs lie: one for each seed, or a single one under ``None``."""
    if method.like is not None:
        return runs_of(method.like, plan.methods[method.like], out, plan)
    if method.run is not None:
        return {None: method.run}
    if method.each_seed:
        return {seed: out / "runs" / f"{_slug(name)}-{seed}" for seed in plan.seeds}
    return {None: out / "runs" / _slug(name)}


def _is_there(name: str, method: Method, out: Path, plan: Plan) -> bool:
    """Whether a method that the benchmark is to train has been, at least in part."""
    owner = plan.methods[method.like] if method.like is not None else method
    return owner.pretrain is None or all(
        (run / "latest").is_file() for run in runs_of(name, method, out, plan).values()
    )


def check_pretrain(name: str, method: Method) -> None:
    """Refuse options of ``lingula pretrain`` before anything is trained, which may take days.

    Raises:
        UserError: for an unknown option, method or recipe, a value of another kind, or where there is no corpus.
    """
    from lingula.commands._training import recipe_of
    from lingula.commands.pretrain import pretrain
    from lingula.registry import UserError, check_options

    if method.pretrain is None:
        return
    check_options(f"method '{name}': pretrain", pretrain, method.pretrain)
    if "corpus" not in method.pretrain:
        raise UserError(f"method '{name}': pretrain needs a corpus")
    for option, value in method.pretrain.items():  # their defaults are the recipe's, and so say no kind
        if (
            option == "epochs"
            and value is not None
            and not (isinstance(value, list) and all(type(e) in (int, float) for e in value))
        ):
            raise UserError(f"method '{name}': pretrain: epochs must be a list, one number a stage, got {value!r}")
        if option in ("learning_rate", "weight_decay", "clip") and type(value) not in (int, float, type(None)):
            raise UserError(f"method '{name}': pretrain: {option} must be a number (1.0e-4, not 1e-4), got {value!r}")
    recipe_of(method.pretrain.get("method", "cm-cgns"), method.pretrain.get("recipe", "paper"))


def train(name: str, method: Method, out: Path, plan: Plan) -> None:
    """Train a method that is to be trained, or go on where that stopped; nothing for one that is trained."""
    from lingula.commands.pretrain import pretrain

    if method.pretrain is None:
        return
    for seed, run in runs_of(name, method, out, plan).items():
        options = method.pretrain if seed is None else {**method.pretrain, "seed": seed}
        pretrain(out=run, resume=(run / "run.json").is_file(), **options)


@dataclass(frozen=True)
class Weights:
    """Encoders by what they are; they are made, which takes its time, only where a cell is missing.

    Attributes:
        name, checkpoint: of the model, as its rows say.
        trained: whether they are those of a checkpoint.
        base: the model of the run: its own, or that whose encoders these are like.
        seeds: that they are measured with.
        make: the model, for a corpus.
    """

    name: str
    checkpoint: str
    trained: bool
    base: Model
    seeds: tuple[int, ...]
    make: Callable[[PreparedCorpus], Model]


def weights_of(name: str, method: Method, out: Path, plan: Plan, device: str) -> list[Weights]:
    """The encoders of a method: its own, one for each seed of the pre-training, or one random one for each seed."""
    from lingula.api import fresh, imagenet, imagenet_name, load
    from lingula.commands.evaluate import recalibrate, warn_of_another_preparation

    bases = {seed: load(run, device) for seed, run in runs_of(name, method, out, plan).items()}
    base = next(iter(bases.values()))

    def own(model: Model) -> Callable[[PreparedCorpus], Model]:
        def make(corpus: PreparedCorpus) -> Model:
            warn_of_another_preparation(model.made, corpus)
            return model

        return make

    def untrained(seed: int) -> Callable[[PreparedCorpus], Model]:
        def make(corpus: PreparedCorpus) -> Model:
            model = fresh(base, seed)
            recalibrate(model, corpus)
            return model

        return make

    if method.init is None:
        return [
            Weights(model.name, model.checkpoint, True, model, plan.seeds if seed is None else (seed,), own(model))
            for seed, model in bases.items()
        ]
    if method.init == "imagenet":
        checkpoint = imagenet_name(base, method.weights)
        return [Weights("imagenet", checkpoint, False, base, plan.seeds, lambda corpus: imagenet(base, method.weights))]
    return [Weights("random", f"random-{seed}", False, base, (seed,), untrained(seed)) for seed in plan.seeds]


# Cells ----------------------------------------------------------------------------------------------------------------


@dataclass
class Store:
    """The cells of one encoder on one task, on disk: ``KEY.json``, its row, and ``KEY.npz``, its replicates."""

    folder: Path
    method: str
    weights: Weights
    task: Any
    corpus: PreparedCorpus
    draws: int

    def path(self, cell: Cell) -> Path:
        """The file of a cell; its name is a hash of the weights, the task, the corpus, the cell and the draws."""
        options = {key: _content(value) for key, value in dataclasses.asdict(self.task).items() if key != "fractions"}
        parts: list[Any] = [self.weights.checkpoint, type(self.task).__name__, options, self.corpus.fingerprint]
        parts += [list(cell), self.draws]
        if not self.weights.trained:  # these weights follow from the architecture
            made = self.weights.base.made
            parts.append([made[name] for name in ("method", "options", "image_encoder", "image_size", "resize_to")])
            if not hasattr(self.task, "fractions"):  # what trains nothing may read text, in batches of the run's size
                parts.append([*_text_tower(self.weights.base), made["plan"]["batch_size"]])
        key = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
        return self.folder / f"{key}.json"

    def fill(self, cells: Sequence[Cell]) -> None:
        """Measure the cells that are missing, and write each at once."""
        import time

        missing = [cell for cell in cells if self._load(cell) is None]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        measured = self.task.measure(self.weights.make(self.corpus), self.corpus, missing, self.draws)
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
        row = {
            "method": self.method,
            **describe(self.task, self.corpus),
            **found.row(),
            "encoder": self.weights.name,
            "checkpoint": self.weights.checkpoint,
            "image_size": self.weights.base.image_size,
            "seconds": round(seconds, 1),
            "command": " ".join(["lingula", *sys.argv[1:]]),
        }
        written = {"row": row, "numbers": found.numbers, "notes": found.notes, "trained": found.cell is not None}
        # Names of this process's own, for another benchmark may be writing the same cell; the .json comes last.
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, **found.replicates)  # type: ignore[arg-type]
        partial.replace(path.with_suffix(".npz"))
        partial = path.with_suffix(f".{os.getpid()}")
        write_json(partial, written)
        partial.replace(path)

    def _load(self, cell: Cell) -> tuple[dict[str, Any], Measured] | None:
        """A cell's row and measurement; None where it is not there, or was cut off by a failing machine."""
        import zipfile

        import numpy as np

        from lingula.evaluation import Measured

        path = self.path(cell)
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            with np.load(path.with_suffix(".npz")) as file:
                replicates = dict(file)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile):
            return None
        numbers = {key: float("nan") if value is None else value for key, value in written["numbers"].items()}
        row = {**written["row"], "method": self.method}
        notes = {**written["notes"], "checkpoint": self.weights.checkpoint}
        return row, Measured(numbers, replicates, notes, cell if written["trained"] else None)

    def read(self, cells: Sequence[Cell]) -> list[tuple[dict[str, Any], Measured]]:
        """The rows and measurements of the cells that are there."""
        loaded = [self._load(cell) for cell in cells]
        return [found for found in loaded if found is not None]


def _content(value: Any) -> Any:
    """What an option stands for: of a file what it says, for that may change under its name."""
    if isinstance(value, Path) and value.is_file():
        return hashlib.sha256(value.read_bytes()).hexdigest()
    return value


def _text_tower(model: Model) -> list[Any]:
    """What random weights of a text encoder follow from: its shape, and the words of its tokenizer; nothing where there
    is none."""
    if model.tokenizer is None:
        return []
    shape = model.method.text_encoder.backbone.config.to_dict()
    return [{name: shape[name] for name in shape if name != "transformers_version"}, model.tokenizer.get_vocab()]
