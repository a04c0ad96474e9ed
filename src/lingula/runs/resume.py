"""What a run of ``lingula pretrain`` is made from, fresh or resumed.

A resumed run takes everything from its ``run.json``. What is given again is compared with it: what the weights so far
come from may not change, the stage that the run is in and the later ones may become longer, the corpus may have moved,
and how the run is computed and logged (:data:`lingula.runs.recipes.LAUNCH`) may change.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import ShardedCorpus, open_corpus
from lingula.data.transforms import Augmentation
from lingula.records import plain, write_json
from lingula.registry import UserError
from lingula.runs.folder import command
from lingula.runs.recipes import INSTEAD, LAUNCH, MAKING, each_length, recipe_of, resolve
from lingula.runs.settings import Settings, absolute, given_files
from lingula.training.checkpoint import Progress
from lingula.training.devices import precision_of
from lingula.training.recipe import Recipe, Stage

Changes = dict[str, tuple[Any, Any]]  # by the name of the setting, what it was and what it is


def resumed(
    out: Path, before: dict[str, Any], given: dict[str, Any], progress: Progress | None
) -> tuple[Settings, Changes]:
    """The settings of a run that goes on, and which of them are new.

    Args:
        out: folder of the run.
        before: its ``run.json``.
        given: as in :func:`asked`.
        progress: of its newest checkpoint, if it has one.
    Raises:
        UserError: naming the first setting that may not change and would.
    """
    plan = plan_of(before["plan"], out)
    instead = {name: given.get(name) for name in INSTEAD if name != "precision"}
    for name, path in given_files(given).items():  # the same file, however it is written
        was = getattr(plan, name)
        instead[name] = was if was is not None and absolute(was) == path else path
    again = resolve(plan, instead, None, given.get("options", {}), given.get("weights", {}))
    recorded = before.get("launch", {})  # runs of version 0.1 have none
    launch = {**LAUNCH, "devices": before["processes"], **recorded}
    launch |= {name: given[name] for name in LAUNCH if name in given}
    precision = precision_of(given["precision"], launch["accelerator"]) if "precision" in given else before["precision"]
    making = {name: given.get(name, before.get(name, default)) for name, default in MAKING.items()}
    settings = Settings(str(given.get("corpus", before["corpus"]["folder"])), plan=again, precision=precision,
                        launch=launch, **making)  # fmt: skip
    now = {name: getattr(settings, name) for name in (*MAKING, "processes", "precision") if name in before}
    was_and_is = differences(
        {**{name: before[name] for name in now}, "plan": plain(dataclasses.asdict(plan))},
        plain({**now, "plan": dataclasses.asdict(again)}),
    )
    differ = {name: (was, new) for name, was, new in was_and_is}
    if differ:
        name = min(differ, key=lambda name: name not in given)  # not what follows from it
        was, new = differ[name]
        raise UserError(f"cannot resume {out}: its {name} is {was}, not {new}")
    changes = {name: (recorded[name], launch[name]) for name in recorded if launch[name] != recorded[name]}
    if "epochs" in given:
        again, longer = lengthened(out, settings, given["epochs"], progress)
        settings, changes = dataclasses.replace(settings, plan=again), longer | changes
    if "corpus" in given and absolute(settings.corpus) != before["corpus"]["folder"]:
        changes["corpus"] = (before["corpus"]["folder"], absolute(settings.corpus))
    return settings, changes


def lengthened(
    out: Path, settings: Settings, epochs: Sequence[float], progress: Progress | None
) -> tuple[Recipe, Changes]:
    """The plan of a run with longer stages, and which these are.

    Args:
        out: folder of the run, for messages.
        settings: of the run as it is.
        epochs: of each stage.
        progress: of its newest checkpoint, if it has one.
    Raises:
        UserError: for a stage that would become shorter, or that the run has left.
    """
    own = recipe_of(settings.method, settings.recipe).stages
    stages, changes = [], {}
    for number, (stage, length) in enumerate(each_length(settings.plan, epochs)):
        if length != stage.epochs:
            name = f"epochs of stage {number + 1}"
            if length < stage.epochs:
                raise UserError(
                    f"cannot resume {out}: its {name} is {stage.epochs:g}, not {length:g}; a run can become longer only"
                )
            if progress is not None and number < progress.stage:
                raise UserError(
                    f"cannot resume {out}: stage {number + 1} is over; stage {progress.stage + 1} started from its "
                    f"weights and has done {progress.step} steps. Lengthen stage {progress.stage + 1}, or train anew "
                    "in another --out"
                )
            changes[name] = (stage.epochs, length)
            warmup = (stage if stage.epochs else own[number]).of_length(length).warmup_epochs
            stage = dataclasses.replace(stage, epochs=length, warmup_epochs=warmup)
        stages.append(stage)
    return dataclasses.replace(settings.plan, stages=tuple(stages)), changes


def corpus_of(out: Path, before: dict[str, Any], folder: str) -> PreparedCorpus | ShardedCorpus:
    """The corpus that a run is resumed on.

    Raises:
        UserError: if it is not where it was, or is another preparation than the run began with.
    """
    was = before["corpus"]
    try:
        opened = open_corpus(folder)
    except UserError as err:
        raise UserError(f"{err}; if the corpus of {out} has moved, name its folder with --corpus") from err
    if opened.fingerprint != was["fingerprint"]:
        raise UserError(f"cannot resume {out}: it was trained on another preparation of {was['name']}")
    if was.get("shards", isinstance(opened, ShardedCorpus)) != isinstance(opened, ShardedCorpus):
        kinds = ("a prepared corpus", "shards")
        raise UserError(
            f"cannot resume {out}: it was trained on {kinds[was['shards']]}, not on {kinds[not was['shards']]}, which "
            "have another order"
        )
    return opened


def check_studies(out: Path, before: dict[str, Any], studies: int) -> None:
    """Refuse a corpus with more or fewer studies to train on than when the run began: a preparation of the same
    settings may have left out others.

    Raises:
        UserError: naming both counts.
    """
    was = before["corpus"].get("studies", studies)
    if was != studies:
        raise UserError(f"cannot resume {out}: it was trained on {was} studies, and its corpus now has {studies}")


def how_to_lengthen(plan: Recipe, progress: Progress) -> str:
    """What to add to the command of a run that is finished."""
    longer = [stage.epochs * (1 + (number == progress.stage)) for number, stage in enumerate(plan.stages)]
    return f"give --epochs to train it longer, as in --epochs {' '.join(f'{epochs:g}' for epochs in longer)}"


def record(out: Path, before: dict[str, Any], made: dict[str, Any], progress: Progress, changes: Changes) -> None:
    """Write down in ``run.json`` what a resume changes, and at which step."""
    continued = {
        "step": progress.total,
        "changed": {name: {"from": was, "to": now} for name, (was, now) in changes.items()},
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": command(),
    }
    new = {name: made[name] for name in ("plan", "launch", "corpus")}
    write_json(out / "run.json", {**before, **new, "continued": [*before.get("continued", []), continued]})


def plan_of(recorded: dict[str, Any], out: Path) -> Recipe:
    """A recipe from ``run.json``; what older versions did not have is as its default.

    Raises:
        UserError: for a setting that this version does not have.
    """
    try:
        settings = {name: _as_tuple(value) if name == "betas" else value for name, value in recorded.items()}
        settings["stages"] = tuple(Stage(**stage) for stage in recorded["stages"])
        if "augmentation" in recorded:
            views = recorded["augmentation"].items()
            settings["augmentation"] = Augmentation(**{name: _as_tuple(value) for name, value in views})
        return Recipe(**settings)
    except TypeError as err:
        raise UserError(f"{out / 'run.json'} has a setting that this version of lingula does not have: {err}") from err


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """``(name, old, new)`` of the settings that differ, named as the command line has them.

    Example:
        >>> list(differences({"plan": {"batch_size": 4, "clip": 1.0}}, {"plan": {"batch_size": 2, "clip": 1.0}}))
        [('batch_size', 4, 2)]
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            inner = name if (name, key) == ("", "plan") else f"{name}.{key}" if name else key
            yield from differences(old.get(key), new.get(key), inner)
    elif name == "stages" and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (was, now) in enumerate(zip(old, new, strict=True), start=1):
            for setting, *values in differences(was, now):
                yield (f"{setting} of stage {number}", *values)
    elif old != new:
        yield name, old, new
