"""``lingula pretrain``: from a prepared corpus to a trained run.

jsonargparse reads the annotations here and runs a module's ``TYPE_CHECKING`` imports to do so; this module has none, so
that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lingula.methods import METHODS
from lingula.registry import trust
from lingula.runs.filled import filled


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
    allow: list[str] | None = None,
    quiet: bool = False,
) -> Path:
    """Pre-train on the images and reports of a prepared corpus.

    Everything that is not given comes from the method's recipe; `lingula list methods --json` shows the recipes. With
    `--resume` it comes from the run itself: `lingula pretrain --resume --out RUN` is enough.

    Args:
        corpus: folder of a prepared corpus (`lingula prepare`), or folder or URL of its shards
            (`lingula prepare --shards`), which are streamed.
        out: folder of the run: checkpoints, metrics.jsonl, TensorBoard events, run.json.
        method: what to train, `cm-cgns` by default; see `lingula list methods`. `package:Class` is a method of your
            own.
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
        allow: classes outside lingula that may be imported, as `package:Class`; one named by `--method` is one.
        quiet: no progress bar.
    """
    given = {name: value for name, value in locals().items() if value is not None and name != "allow"}

    from lingula.runs.pretraining import run

    trust(allow)
    return run(given)


pretrain.names = {"method": METHODS, "recipe": ("paper", "scratch")}  # type: ignore[attr-defined]
pretrain.filled = filled  # type: ignore[attr-defined]
