"""``lingula pretrain``: from a prepared corpus to a trained run.

The machinery is in ``_recipe.py``, ``_devices.py`` and ``_run.py``. jsonargparse reads the annotations here and runs a
module's ``TYPE_CHECKING`` imports to do so; this module has none, so that ``--help`` is quick.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


def pretrain(
    corpus: str | Path,
    out: Path,
    method: str = "cm-cgns",
    recipe: str = "paper",
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
    accumulate: int = 1,
    vocabulary: int = 2000,
    seed: int = 42,
    precision: str | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    fsdp: bool = False,
    compile: bool = False,
    cuda_graphs: bool = False,
    checkpoint_activations: bool = False,
    log_every: int = 20,
    checkpoint_every: int = 500,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Learn from the films of a prepared corpus and their reports.

    Everything that is not given comes from the method's recipe; `lingula list methods --json` shows the recipes.

    Args:
        corpus: folder of a prepared corpus (`lingula prepare`), or folder or URL of its shards
            (`lingula prepare --shards`), which are streamed.
        out: folder of the run: checkpoints, metrics.jsonl, TensorBoard events, run.json.
        method: what to train; see `lingula list methods`.
        recipe: `paper`, `scratch` (no pre-trained weights needed), or another of the method's own.
        options: arguments of the method, as `--options.mu 3`; they win over the recipe's.
        weights: weights of loss terms, as `--weights.margin 0`; they win over those of every stage that has the term.
        image_encoder: a timm model, `small_resnet` or `small_vit`.
        text_encoder: a Hugging Face name or folder, or `small_bert`.
        pretrained: start the encoders from published weights.
        image_weights: a file (safetensors or PyTorch) to take the image encoder's weights from, instead.
        image_size: height and width in pixels that the image encoder sees.
        resize_to: side in pixels to which films come before they are cropped to the image size.
        sentences: which of a report are read: `whole` reports, `one` sentence of each, all of them `shuffled`, or a few
            `swapped`.
        batch_size: pairs per process and step (times `accumulate`).
        epochs: length of each stage; 0 leaves a stage out.
        learning_rate: its peak; those of single stages, of the text encoder and of biases keep their ratio to it.
        weight_decay: of the optimiser.
        clip: largest gradient norm.
        accumulate: batches whose gradients are averaged into one step.
        vocabulary: tokens of the WordPiece vocabulary that is learnt where the text encoder starts from scratch.
        seed: of weights, order, crops, masks and clusters.
        precision: `32`, `bf16-mixed`, `16-mixed`, or `auto`: bf16-mixed where the hardware has it, 16-mixed on older
            GPUs.
        accelerator: `cpu`, `cuda`, `mps`, or `auto`.
        devices: processes on this machine, one a device.
        nodes: machines.
        fsdp: split weights, gradients and moments among the processes (FSDP2), for models larger than a device.
        compile: compile the encoders (torch.compile), which takes minutes once; worth it for days on a GPU.
        cuda_graphs: the same, and launch the image encoder's kernels all at once: for small batches, where a GPU
            waits for the next launch.
        checkpoint_activations: compute the encoders' inner results again in the backward pass instead of keeping them:
            a third more time, for batches that would not fit.
        log_every: steps between two lines of metrics.jsonl.
        checkpoint_every: steps between two checkpoints; one more is written at the end of every stage.
        resume: go on from the newest checkpoint of `out`, mid-epoch, where the run stopped.
        quiet: no progress bar.
    """
    from lingula.checkpoint import load_weights
    from lingula.commands._devices import (
        check_cuda_graphs,
        check_fsdp,
        compile_encoders,
        forget_activations,
        loss_scale,
        make_fabric,
        precision_of,
    )
    from lingula.commands._recipe import check, recipe_of, resolve
    from lingula.commands._run import Run, begin, build, find
    from lingula.data.shards import open_corpus
    from lingula.log import Log
    from lingula.methods import METHODS
    from lingula.registry import UserError

    given = {
        "image_encoder": image_encoder,
        "text_encoder": text_encoder,
        "pretrained": pretrained,
        "image_weights": None if image_weights is None else str(image_weights),
        "image_size": image_size,
        "resize_to": resize_to,
        "sentences": sentences,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "clip": clip,
        "precision": precision,
    }
    plan = resolve(recipe_of(method, recipe), given, epochs, options or {}, weights or {})
    counts = {
        "accumulate": accumulate,
        "vocabulary": vocabulary,
        "devices": devices,
        "nodes": nodes,
        "log_every": log_every,
        "checkpoint_every": checkpoint_every,
    }
    check(method, plan, counts, seed, accelerator)
    opened = open_corpus(corpus)
    exact_precision = precision_of(plan.precision, accelerator)
    if fsdp:
        check_fsdp(devices * nodes, exact_precision, compile or cuda_graphs)
    fabric = make_fabric(accelerator, devices, nodes, exact_precision, fsdp)
    if cuda_graphs:
        check_cuda_graphs(fabric)
    made = {
        "method": method,
        "recipe": recipe,
        "options": plan.options,
        "plan": dataclasses.asdict(plan),
        "image_encoder": plan.image_encoder,
        "text_encoder_name": plan.text_encoder if METHODS[method].uses_text else None,
        "image_size": plan.image_size,
        "resize_to": plan.resize_to,
        "seed": seed,
        "accumulate": accumulate,
        "processes": devices * nodes,
        "precision": str(fabric.strategy.precision.precision),
        "corpus": {
            "name": opened.name,
            "fingerprint": opened.fingerprint,
            "folder": str(corpus) if "://" in str(corpus) else str(Path(corpus).resolve()),
        },
    }
    state = find(out, made, resume)  # before the other processes start, so that a refusal is said once
    fabric.launch()
    model, config, loaders = build(fabric, opened, plan, method, out, vocabulary, seed, fresh=state is None)
    if checkpoint_activations:
        forget_activations(model)
    if compile or cuda_graphs:
        compile_encoders(model, cuda_graphs)
    steps_per_epoch = max(1, len(loaders["train"]) // accumulate)
    lengths = [round(stage.epochs * steps_per_epoch) for stage in plan.stages]
    if not any(lengths):
        raise UserError(f"nothing to train: the epochs come to no step of {accumulate} x {plan.batch_size} pairs")
    if state is None:
        begin(fabric, out, made, config)
    else:
        load_weights(out, model)
        if "scaler" in state[1]:
            loss_scale(fabric).load_state_dict(state[1]["scaler"])
    if fabric.is_global_zero:
        parameters = sum(p.numel() for p in model.parameters())
        noun = "pairs" if model.uses_text else "films"
        fabric.print(
            f"{method} ({recipe}) on {opened.name}: {loaders['train'].studies} {noun}, "
            f"{len(loaders['train'])} steps an epoch, {parameters / 1e6:.1f} M parameters, {made['precision']}"
        )
    wrapped = fabric.setup_module(model)
    log = Log(fabric, out, state[0].total if state else 0, quiet)
    run = Run(fabric, out, plan, model, wrapped, loaders, log, seed)
    for number, steps in enumerate(lengths):
        done, moments = 0, None
        if state is not None and number <= state[0].stage:
            done, moments = (state[0].step, state[1]["optimizer"]) if number == state[0].stage else (steps, None)
        if done < steps:
            run.stage(number, steps, done, moments, sum(lengths[:number]), accumulate, log_every, checkpoint_every)
    run.log.close()
    fabric.print(f"{out}: trained {sum(lengths)} steps")
    return out
