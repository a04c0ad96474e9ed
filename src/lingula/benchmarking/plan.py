"""What a benchmark's file says: methods, tasks, seeds; and what is refused of it before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


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
        task: its name in ``lingula list tasks``, or ``package:Class``.
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
        other = slugs.setdefault(slug(name), name)
        if other != name or not slug(name):
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
        if "allow" in method.pretrain:
            raise UserError(f"{where}: a file cannot allow a class; name it on the command line: --allow package:Class")
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
    from lingula.terminal.explain import explain

    factory = TASKS[entry.task]
    check_options(f"task '{entry.task}'", factory, entry.options)
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(factory)
    try:  # the kinds of the command line: a word that is none of an option's would otherwise choose its other branch
        task = factory(**parser.parse_object(dict(entry.options)).as_dict())
    except ArgumentError as err:
        raise UserError(f"task '{entry.task}': {explain(str(err), parser)}") from err
    for metric in entry.metrics:
        if metric not in task.higher_is_better:
            known = ", ".join(task.higher_is_better)
            hint = nearest(str(metric), task.higher_is_better) or f"; known: {known}"
            raise UserError(f"task '{entry.task}' has no metric '{metric}'{hint}")
    return task


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


def check_pretrain(name: str, method: Method, pretrain: Callable[..., Path]) -> None:
    """Refuse options of ``lingula pretrain`` before anything is trained, which may take days.

    Args:
        name, method: of the plan.
        pretrain: :func:`lingula.commands.pretrain.pretrain`, whose options they are.
    Raises:
        UserError: for an unknown option, method or recipe, a value of another kind, or where there is no corpus.
    """
    from functools import partial

    from lingula.registry import UserError, check_options
    from lingula.runs.recipes import LAUNCH, MAKING, recipe_of

    if method.pretrain is None:
        return
    defaults = {**MAKING, **LAUNCH}
    check_options(f"method '{name}': pretrain", partial(pretrain, **defaults), method.pretrain)
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
    recipe_of(*(method.pretrain.get(option, defaults[option]) for option in ("method", "recipe")))
