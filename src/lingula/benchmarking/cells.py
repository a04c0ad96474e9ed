"""The cells of a benchmark: which weights are measured on which task, and which are measured already. Floor 4."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingula.benchmarking.plan import Method, Plan, slug

if TYPE_CHECKING:
    from lingula.data.prepared import PreparedCorpus
    from lingula.evaluation.task import Cell, Measured
    from lingula.runs.model import Model


def fill(
    plan: Plan,
    tasks: list[tuple[Any, Any]],
    corpora: dict[Path, PreparedCorpus],
    out: Path,
    device: str,
    chosen: list[str],
    pretrain: Callable[..., Path],
) -> tuple[list[dict[str, Any]], dict[tuple[str, int], list[Measured]]]:
    """Train and measure the chosen methods; the rows, and the cells by method and task, of all that are there."""
    from lingula.evaluation.task import lacking
    from lingula.terminal.progress import over

    for name in over(chosen, "pre-training", "method"):  # all before any is measured: one may be like a later one
        train(name, plan.methods[name], out, plan, pretrain)
    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, int], list[Measured]] = {}
    for name, method in over(plan.methods.items(), "benchmark", "method"):
        if name not in chosen and not _is_there(name, method, out, plan):
            continue
        for weights in weights_of(name, method, out, plan, device):
            for number, (entry, task) in enumerate(tasks):
                if lacking(task, weights.base.method) is not None:
                    continue  # a dash in its column
                corpus = corpora[entry.corpus]
                store = Store(out / "cells", name, weights, task, corpus, plan.bootstrap)
                cells = task.cells(weights.seeds)
                if name in chosen:
                    store.fill(cells)
                for row, measured in store.read(cells):
                    if row not in rows:  # two entries may show the same cells
                        rows.append(row)
                    found.setdefault((name, number), []).append(measured)
    return rows, found


def chosen_of(only: list[str] | None, plan: Plan) -> list[str]:
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


def runs_of(name: str, method: Method, out: Path, plan: Plan) -> dict[int | None, Path]:
    """Where a method's runs lie: one for each seed, or a single one under ``None``."""
    if method.like is not None:
        return runs_of(method.like, plan.methods[method.like], out, plan)
    if method.run is not None:
        return {None: method.run}
    if method.each_seed:
        return {seed: out / "runs" / f"{slug(name)}-{seed}" for seed in plan.seeds}
    return {None: out / "runs" / slug(name)}


def _is_there(name: str, method: Method, out: Path, plan: Plan) -> bool:
    """Whether a method that the benchmark is to train has been, at least in part."""
    owner = plan.methods[method.like] if method.like is not None else method
    return owner.pretrain is None or all(
        (run / "latest").is_file() for run in runs_of(name, method, out, plan).values()
    )


def train(name: str, method: Method, out: Path, plan: Plan, pretrain: Callable[..., Path]) -> None:
    """Train a method that is to be trained, or go on where that stopped; nothing for one that is trained."""
    if method.pretrain is None:
        return
    for seed, run in runs_of(name, method, out, plan).items():
        options = method.pretrain if seed is None else {**method.pretrain, "seed": seed}
        with contextlib.redirect_stdout(sys.stderr):  # the tables alone are results
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
        conditions: what else their numbers follow from (:attr:`lingula.runs.model.Model.conditions`), of ``imagenet``.
    """

    name: str
    checkpoint: str
    trained: bool
    base: Model
    seeds: tuple[int, ...]
    make: Callable[[PreparedCorpus], Model]
    conditions: dict[str, str] = field(default_factory=dict)


def weights_of(name: str, method: Method, out: Path, plan: Plan, device: str) -> list[Weights]:
    """The encoders of a method: its own, one for each seed of the pre-training, or one random one for each seed.

    Both baselines, random and ImageNet's weights, get BatchNorm statistics of the corpus's images; ImageNet's weights
    get their inputs as they were trained on them too.
    """
    from lingula.nn.image_encoders import input_statistics, normalisation
    from lingula.runs.folder import warn_of_another_preparation
    from lingula.runs.measure import recalibrate
    from lingula.runs.model import fresh, imagenet, imagenet_name, load

    bases = {seed: load(run, device) for seed, run in runs_of(name, method, out, plan).items()}
    base = next(iter(bases.values()))

    def own(model: Model) -> Callable[[PreparedCorpus], Model]:
        def make(corpus: PreparedCorpus) -> Model:
            warn_of_another_preparation(model.made, corpus)
            return model

        return make

    def untrained(build: Callable[[], Model]) -> Callable[[PreparedCorpus], Model]:
        def make(corpus: PreparedCorpus) -> Model:
            model = build()
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
        make = untrained(lambda: imagenet(base, method.weights))
        conditions = {
            "input_normalisation": normalisation(input_statistics(base.made["image_encoder"])),
            "batch_norm": "statistics of the corpus",
        }
        return [Weights("imagenet", checkpoint, False, base, plan.seeds, make, conditions)]
    return [
        Weights("random", f"random-{seed}", False, base, (seed,), untrained(functools.partial(fresh, base, seed)))
        for seed in plan.seeds
    ]


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
        kind = type(self.task)
        task = kind.__name__ if kind.__module__.startswith("lingula.") else f"{kind.__module__}:{kind.__qualname__}"
        parts: list[Any] = [self.weights.checkpoint, task, options, self.corpus.fingerprint]
        parts += [list(cell), self.draws]
        if getattr(self.task, "version", 1) > 1:
            parts.append(f"version {self.task.version}")
        if not self.weights.trained:  # these weights follow from the architecture
            made = self.weights.base.made
            parts.append([made[name] for name in ("method", "options", "image_encoder", "image_size", "resize_to")])
            if not hasattr(self.task, "fractions"):  # what trains nothing may read text, in batches of the run's size
                parts.append([*_text_tower(self.weights.base), made["plan"]["batch_size"]])
        if self.weights.conditions:
            parts.append(self.weights.conditions)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
        return self.folder / f"{key}.json"

    def fill(self, cells: Sequence[Cell]) -> None:
        """Measure the cells that are missing, and write each at once."""
        import time

        from lingula.runs.measure import name_of, share
        from lingula.terminal.progress import progress

        missing = [cell for cell in cells if self._load(cell) is None]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        what = f"{self.method}, {name_of(self.task)} on {self.corpus.name}"
        with progress(what, len(missing), "measurement") as bar:
            model = self.weights.make(self.corpus)
            measured = self.task.measure(model, self.corpus, missing, self.draws)
            for cell, found in zip(missing, measured, strict=True):
                found.notes = {**found.notes, **model.conditions}
                self._write(cell, found, time.perf_counter() - started)
                bar.advance()
                bar.say(f"{what}, {share(cell.fraction)}, seed {cell.seed}" if found.cell else what)
                started = time.perf_counter()

    def _write(self, cell: Cell, found: Measured, seconds: float) -> None:
        import numpy as np

        from lingula.records import write_json
        from lingula.runs.measure import describe, write_subsets

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

        from lingula.evaluation.task import Measured

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
    config = model.text_config
    shape = {} if config is None else config.to_dict()  # a text encoder of the method's own follows from its options
    beside = ("transformers_version", "_name_or_path")  # who wrote it, and where it lies
    return [{name: shape[name] for name in shape if name not in beside}, model.tokenizer.get_vocab()]
