"""``lingula pretrain``: from a prepared corpus to a trained run.

The machinery is in ``_recipe.py``, ``_resume.py``, ``_devices.py`` and ``_run.py``. jsonargparse reads the annotations
here and runs a module's ``TYPE_CHECKING`` imports to do so; this module has none, so that ``--help`` is quick.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from lingula.commands._filled import filled


def pretrain(
    corpus: str | Path | None = None,
    out: Path | None = None,
    method: str | None = None,
    recipe: str | None = None,
    options: dict[str, Any] | None = None,
    weights: dict[str, float] | None = None,
    image_encoder: str | None = None,
    text_encoder: str | None = None,
    pretrained: bool | None = None,
    image_weights: Path | None = None,
    image_size: int | None = None,
    resize_to: int | None = None,
    sentences: str | None = None,
    batch_size: int | None = None,
    epochs: list[float] | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
    accumulate: int | None = None,
    vocabulary: int | None = None,
    seed: int | None = None,
    precision: str | None = None,
    accelerator: str | None = None,
    devices: int | None = None,
    nodes: int | None = None,
    fsdp: bool | None = None,
    compile: bool | None = None,
    cuda_graphs: bool | None = None,
    checkpoint_activations: bool | None = None,
    log_every: int | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Pre-train on the images and reports of a prepared corpus.

    Everything that is not given comes from the method's recipe; `lingula list methods --json` shows the recipes. With
    `--resume` it comes from the run itself: `lingula pretrain --resume --out RUN` is enough.

    Args:
        corpus: folder of a prepared corpus (`lingula prepare`), or folder or URL of its shards
            (`lingula prepare --shards`), which are streamed.
        out: folder of the run: checkpoints, metrics.jsonl, TensorBoard events, run.json.
        method: what to train, `cm-cgns` by default; see `lingula list methods`.
        recipe: `paper`, the default, `scratch` (no pre-trained weights needed), or another of the method's own.
        options: arguments of the method, as in `--options.mu 3`; they replace the recipe's.
        weights: weights of loss terms, as in `--weights.margin 0`; they replace those of every stage with that term.
        image_encoder: a timm model, `small_resnet` or `small_vit`.
        text_encoder: a Hugging Face name or folder, or `small_bert`.
        pretrained: start the encoders from published weights.
        image_weights: a file (safetensors or PyTorch) to take the image encoder's weights from, instead.
        image_size: height and width in pixels that the image encoder sees.
        resize_to: side in pixels to which images are resized before they are cropped to the image size.
        sentences: sentences of a report that are read: `whole` reports, `one` sentence of each, all of them `shuffled`,
            or with a few `swapped`.
        batch_size: pairs per process and step (times `accumulate`).
        epochs: length of each stage; 0 leaves a stage out. With `--resume`, the stage that the run is in and later ones
            may become longer. From the step it stands at, such a stage follows the learning rate of the longer
            schedule. The steps before followed the shorter one, so the weights are those of an uninterrupted longer run
            only where the two agree up to that step: in a stage that had not begun, or at a constant rate.
        learning_rate: peak learning rate; the rates of stages, text encoder and biases scale with it.
        weight_decay: weight decay of the optimiser.
        clip: largest gradient norm; larger ones are scaled down to it.
        accumulate: batches whose gradients are averaged into one step; 1 by default.
        vocabulary: tokens of the WordPiece vocabulary that is learnt where the text encoder starts from scratch; 2000
            by default.
        seed: seed of weights, order, crops, masks and clusters; 42 by default.
        precision: `32`, `bf16-mixed`, `16-mixed`, or `auto`: bf16-mixed where the hardware has it, 16-mixed on older
            GPUs.
        accelerator: `cpu`, `cuda`, `mps`, or `auto`, the default.
        devices: processes on this machine, one a device; 1 by default.
        nodes: number of machines; 1 by default.
        fsdp: split weights, gradients and moments among the processes (FSDP2), for models larger than a device.
        compile: compile the encoders (torch.compile), which takes minutes once; worth it for days on a GPU.
        cuda_graphs: compile, and launch all kernels of the image encoder at once: for small batches, where a GPU waits
            for the next launch.
        checkpoint_activations: recompute the encoders' activations in the backward pass instead of storing them: a
            third more time, for batches that would not fit.
        log_every: steps between two lines of metrics.jsonl; 20 by default.
        checkpoint_every: steps between two checkpoints, 500 by default; one more is written at the end of every stage.
        resume: go on from the newest checkpoint of `out`, mid-epoch, where the run stopped, with the settings in its
            run.json. Of settings that are given again, `epochs` may be larger, `corpus` may name the place to which the
            same corpus has moved, and accelerator, devices and nodes (as many processes in all), fsdp, compile,
            cuda_graphs, checkpoint_activations, log_every and checkpoint_every may differ; another value of any other
            is refused. Where there is no run yet, it begins.
        quiet: no progress bar.
    """
    given = {name: value for name, value in locals().items() if value is not None}

    from lingula.checkpoint import load_state, load_weights, read_run
    from lingula.commands._devices import (
        check_cuda_graphs,
        check_fsdp,
        compile_encoders,
        forget_activations,
        loss_scale,
        make_fabric,
    )
    from lingula.commands._recipe import check, check_published_weights, few_steps
    from lingula.commands._resume import asked, check_studies, corpus_of, how_to_lengthen, record, resumed
    from lingula.commands._run import Run, begin, build, claim, say_changes
    from lingula.data.shards import open_corpus
    from lingula.log import Log
    from lingula.registry import UserError

    if out is None:
        raise UserError("missing: --out, the folder of the run")
    out = Path(out)
    before = read_run(out) if resume and (out / "run.json").is_file() else None
    if before is None:
        if corpus is None:
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
    run = Run(fabric, out, plan, model, wrapped, loaders, log, settings.seed)
    for number, steps in enumerate(lengths):
        done, moments = 0, None
        if state is not None and number <= state[0].stage:
            done, moments = (state[0].step, state[1]["optimizer"]) if number == state[0].stage else (steps, None)
        if done < steps:
            every = launch["log_every"], launch["checkpoint_every"]
            run.stage(number, steps, done, moments, sum(lengths[:number]), accumulate, *every)
    run.log.close()
    fabric.print(f"{out}: trained {sum(lengths)} steps")
    return out


pretrain.filled = filled  # type: ignore[attr-defined]
