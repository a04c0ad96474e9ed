"""A pre-training from its options to its last checkpoint, fresh or resumed. Floor 4."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from lingula.data.shards import open_corpus
from lingula.registry import UserError
from lingula.runs.folder import begin, claim, read_run
from lingula.runs.parts import build
from lingula.runs.recipes import check, check_published_weights, few_steps
from lingula.runs.resume import check_studies, corpus_of, how_to_lengthen, record, resumed
from lingula.runs.settings import asked
from lingula.runs.stages import Run, say_changes
from lingula.training.checkpoint import load_state, load_weights
from lingula.training.devices import (
    check_cuda_graphs,
    check_fsdp,
    compile_encoders,
    forget_activations,
    loss_scale,
    make_fabric,
)
from lingula.training.log import Log


def run(given: dict[str, Any]) -> Path:
    """Pre-train, or go on with a run, up to the end of its recipe.

    Args:
        given: the arguments of :func:`lingula.commands.pretrain.pretrain` that are not ``None``.
    Returns:
        The folder of the run.
    Raises:
        UserError: for whatever cannot be trained as it was asked for, before anything is written.
    """
    if "out" not in given:
        raise UserError("missing: --out, the folder of the run")
    out, resume, quiet = Path(given["out"]), given.get("resume", False), given.get("quiet", False)
    before = read_run(out) if resume and (out / "run.json").is_file() else None
    if before is None:
        if "corpus" not in given:
            there = f"; {out} holds no run to resume, which would know it" if resume else ""
            raise UserError(f"missing: --corpus, the folder of a prepared corpus{there}")
        state, settings = None, asked(given)
    else:
        state = load_state(out)
        settings, changes = resumed(out, before, given, state and state[0])
    plan, launch, accumulate = settings.plan, settings.launch, settings.accumulate
    counts = {"accumulate": accumulate, "vocabulary": settings.vocabulary}
    counts |= {name: launch[name] for name in ("devices", "nodes", "log_every", "checkpoint_every")}
    check(settings.method, plan, counts, settings.seed, launch["accelerator"])
    opened = open_corpus(settings.corpus) if before is None else corpus_of(out, before, settings.corpus)
    if state is None:
        check_published_weights(settings.method, plan)
    fast = launch["compile"] or launch["cuda_graphs"]
    if launch["fsdp"]:
        check_fsdp(settings.processes, settings.precision, fast)
    fabric = make_fabric(launch["accelerator"], launch["devices"], launch["nodes"], settings.precision, launch["fsdp"])
    if launch["cuda_graphs"]:
        check_cuda_graphs(fabric)
    settings = dataclasses.replace(settings, precision=str(fabric.strategy.precision.precision))
    made = settings.made(opened)
    if before is None:  # before the other processes start, so that a refusal is said once
        claim(out)
    elif before["precision"] != settings.precision:
        raise UserError(f"cannot resume {out}: its precision is {before['precision']}, not {settings.precision}")
    fabric.launch()
    model, config, loaders = build(fabric, opened, settings, out, fresh=state is None)
    made["corpus"]["studies"] = loaders["train"].studies
    if launch["checkpoint_activations"]:
        forget_activations(model)
    if fast:
        compile_encoders(model, launch["cuda_graphs"])
    steps_per_epoch = max(1, len(loaders["train"]) // accumulate)
    lengths = [round(stage.epochs * steps_per_epoch) for stage in plan.stages]
    if not any(lengths):
        raise UserError(f"nothing to train: the epochs come to no step of {accumulate} x {plan.batch_size} pairs")
    if before is not None:
        check_studies(out, before, loaders["train"].studies)
        say_changes(fabric, out, before, plan, changes, state and state[0], lengths, steps_per_epoch)
    if before is None or state is None:
        if before is not None and fabric.is_global_zero:
            print(f"note: {out} was stopped before its first checkpoint, and begins again", file=sys.stderr)
        begin(fabric, out, made, config)
    else:
        finished = state[0].total == sum(lengths)
        if finished:  # nothing more is trained, and only where the corpus lies now is worth keeping
            changes = {name: change for name, change in changes.items() if name == "corpus"}
        if changes and fabric.is_global_zero:
            record(out, before, made, state[0], changes)
        if finished:
            fabric.print(f"{out}: already trained {sum(lengths)} steps; {how_to_lengthen(plan, state[0])}")
            return out
        load_weights(out, model)
        if fabric.is_global_zero and not quiet:
            print(f"{out}: going on from step {state[0].total}", file=sys.stderr)
        if "scaler" in state[1]:
            loss_scale(fabric).load_state_dict(state[1]["scaler"])
    log = Log(fabric, out, state[0].total if state else 0, quiet)
    if fabric.is_global_zero:
        parameters = sum(p.numel() for p in model.parameters())
        noun = "pairs" if model.uses_text else "films"
        log.say(
            f"{settings.method} ({settings.recipe}) on {opened.name}: {loaders['train'].studies} {noun}, "
            f"{len(loaders['train'])} steps an epoch, {parameters / 1e6:.1f} M parameters, {made['precision']}"
        )
        few = few_steps(sum(lengths), settings.method, settings.recipe, plan, accumulate)
        if few is not None:
            fabric.print(few, file=sys.stderr)
    wrapped = fabric.setup_module(model)
    training = Run(fabric, out, plan, model, wrapped, loaders, log, settings.seed)
    for number, steps in enumerate(lengths):
        done, moments = 0, None
        if state is not None and number <= state[0].stage:
            done, moments = (state[0].step, state[1]["optimizer"]) if number == state[0].stage else (steps, None)
        if done < steps:
            every = launch["log_every"], launch["checkpoint_every"]
            training.stage(number, steps, done, moments, sum(lengths[:number]), accumulate, *every)
    training.log.close()
    fabric.print(f"{out}: trained {sum(lengths)} steps")
    return out
