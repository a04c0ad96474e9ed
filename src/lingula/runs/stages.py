"""The stages of a pre-training, each with its own terms, optimiser and schedule. Floor 4."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lingula.data.loader import Batches, Loader
from lingula.gather import as_the_first
from lingula.nn.method import Method, check_terms
from lingula.runs.resume import Changes, plan_of
from lingula.tasks.retrieval import rank_pairs
from lingula.training.checkpoint import Progress, load_moments, save_checkpoint
from lingula.training.devices import loss_scale
from lingula.training.log import Log
from lingula.training.loop import fit
from lingula.training.optim import build_optimizer, learning_rate_at
from lingula.training.recipe import Recipe
from lingula.training.sharding import callable_in_parts


@dataclasses.dataclass
class Run:
    """What all stages share; ``wrapped`` is the model as Fabric set it up."""

    fabric: Any
    out: Path
    plan: Recipe
    model: Method
    wrapped: Any
    loaders: dict[str, Batches]
    log: Log
    seed: int

    def stage(
        self,
        number: int,
        steps: int,
        done: int,
        moments: dict[str, Any] | None,
        before: int,
        accumulate: int,
        log_every: int,
        checkpoint_every: int,
    ) -> None:
        """Fit one stage of the recipe with its own terms, optimiser, warm-up and order of the films.

        Args:
            number: of the stage, from 0.
            steps: its length.
            done: steps taken already, before a resume.
            moments: the optimiser's state then.
            before: steps of the stages before it.
            accumulate, log_every, checkpoint_every: as in :func:`pretrain`.
        """
        plan, loader, log = self.plan, self.loaders["train"], self.log
        stage = plan.stages[number]
        self.model.weights = dict(stage.weights)
        loader.seed = self.seed + 7919 * number
        scaler = loss_scale(self.fabric)
        optimizer = build_optimizer(self.model, plan, fused=scaler is None)
        fabric_optimizer = self.fabric.setup_optimizers(optimizer)
        if moments is not None:  # they go where the parameters have gone
            load_moments(optimizer, moments)
        epoch = max(1, len(loader) // accumulate)
        rate = schedule_of(plan, number, steps, epoch)

        def on_log(step: int, terms: dict[str, float]) -> None:
            check_terms((name for name, weight in stage.weights.items() if weight), terms)
            log.terms(before + step, number, rate(step - 1), terms)

        def after_each(step: int) -> None:
            log.step(before + step)
            if step % epoch == 0 or step == steps:
                log.validation(before + step, validate(self.model, self.loaders.get("val")))
            if step % checkpoint_every == 0 or step == steps:
                self.fabric.barrier()
                save_checkpoint(self.out, self.model, optimizer, Progress(number, step, before + step), scaler)
                self.fabric.barrier()

        clipping = "set --clip 1.0" if plan.clip is None else f"--clip (now {plan.clip:g})"
        with log.bar(f"stage {number + 1} of {len(plan.stages)}", before + done, before + steps):
            fit(
                self.fabric,
                self.wrapped,
                fabric_optimizer,
                loader,
                rate,
                steps,
                done,
                accumulate,
                plan.clip,
                self.seed + number,
                log_every,
                on_log,
                after_each,
                f"lower --learning_rate or {clipping}",
            )
        for warning in self.model.warnings():
            self.fabric.print(f"warning: stage {number + 1}: {warning}", file=sys.stderr)


def schedule_of(plan: Recipe, number: int, steps: int, epoch: int) -> Callable[[int], float]:
    """The learning rate of each step of a stage.

    Args:
        plan: the recipe with what was given instead.
        number: of the stage, from 0.
        steps: its length.
        epoch: steps of an epoch.
    """
    stage = plan.stages[number]
    warmup = min(round(plan.warmup_epochs * epoch), max(1, steps // 10))
    if stage.warmup_epochs is not None:
        warmup = round(stage.warmup_epochs * epoch)
    peak = stage.learning_rate or plan.learning_rate

    def rate(step: int) -> float:
        return learning_rate_at(step, steps, warmup, peak, plan.start_learning_rate, plan.schedule)

    return rate


def say_changes(
    fabric: Any,
    out: Path,
    before: dict[str, Any],
    plan: Recipe,
    changes: Changes,
    progress: Progress | None,
    lengths: list[int],
    epoch: int,
) -> None:
    """Say what a resume changes, and how the learning rate goes on in a stage that becomes longer.

    Args:
        fabric: of the run.
        out: its folder.
        before: ``run.json`` as it was.
        plan: as it is.
        changes: of :func:`lingula.runs.resume.resumed`.
        progress: of the newest checkpoint, if there is one.
        lengths: steps of each stage, as they are.
        epoch: steps of an epoch.
    """
    for name, values in changes.items():
        fabric.print(f"{out}: {name}: {' -> '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}")
    if progress is None:
        return
    old, number = plan_of(before["plan"], out), progress.stage
    if old.stages[number] != plan.stages[number]:
        steps = round(old.stages[number].epochs * epoch)
        last = schedule_of(old, number, steps, epoch)(progress.step - 1)
        following = schedule_of(plan, number, lengths[number], epoch)(progress.step)
        fabric.print(
            f"{out}: from step {progress.step + 1} of stage {number + 1}, the learning rate is that of the schedule "
            f"({plan.schedule}) of {lengths[number]:,} steps instead of {steps:,}: {following:.1e} there, after "
            f"{last:.1e}"
        )


def validate(model: Method, loader: Batches | None) -> dict[str, float]:
    """Retrieval on the validation split, of which each process encodes its share; nothing where there is no such split.

    Each process has its own statistics in BatchNorms: those of the first, which a checkpoint has, are taken by all.
    """
    if loader is None:
        return {}
    assert isinstance(loader, Loader)  # a validation split is read in order
    as_the_first(model.buffers())
    with callable_in_parts(model):
        return rank_pairs(model, loader, draws=0).numbers
