"""``lingula pretrain``: from a prepared corpus to a trained run."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lingula.data.loader import Loader
    from lingula.data.prepared import PreparedCorpus
    from lingula.log import Log
    from lingula.optim import Recipe


def pretrain(
    corpus: Path,
    out: Path,
    method: str = "cm-cgns",
    recipe: str = "paper",
    options: dict[str, Any] | None = None,
    weights: dict[str, float] | None = None,
    image_encoder: str | None = None,
    text_encoder: str | None = None,
    pretrained: bool | None = None,
    image_size: int | None = None,
    resize_to: int | None = None,
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
    log_every: int = 20,
    checkpoint_every: int = 500,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Learn from the image-report pairs of a prepared corpus.

    Everything that is not given comes from the method's recipe; `lingula list methods --json` shows the recipes.

    Args:
        corpus: folder of a prepared corpus (`lingula prepare`).
        out: folder of the run: checkpoints, metrics.jsonl, TensorBoard events, run.json.
        method: what to train; see `lingula list methods`.
        recipe: `paper`, `official` or `scratch` (no pre-trained weights needed).
        options: arguments of the method, as `--options.mu 3`; they win over the recipe's.
        weights: weights of loss terms, as `--weights.margin 0`; they win over those of every stage that has the term.
        image_encoder: a timm model, or `small_resnet`.
        text_encoder: a Hugging Face name or folder, or `small_bert`.
        pretrained: start the encoders from published weights.
        image_size: height and width in pixels that the image encoder sees.
        resize_to: side in pixels to which films come before they are cropped to the image size.
        batch_size: pairs per process and step (times `accumulate`).
        epochs: length of each stage; 0 leaves a stage out.
        learning_rate: its peak.
        weight_decay: of the optimiser.
        clip: largest gradient norm.
        accumulate: batches whose gradients are averaged into one step.
        vocabulary: tokens of the WordPiece vocabulary that is learnt where the text encoder starts from scratch.
        seed: of weights, order, crops, masks and clusters.
        precision: `32`, `bf16-mixed`, `16-mixed`, or `auto`: bf16-mixed where the hardware has it.
        accelerator: `cpu`, `cuda`, `mps`, or `auto`.
        devices: processes on this machine, one a device.
        nodes: machines.
        log_every: steps between two lines of metrics.jsonl.
        checkpoint_every: steps between two checkpoints; one more is written at the end of every stage.
        resume: go on from the newest checkpoint of `out`, mid-epoch, where the run stopped.
        quiet: no progress bar.
    """
    from lightning.fabric import Fabric

    from lingula.checkpoint import load_weights
    from lingula.data.prepared import PreparedCorpus
    from lingula.log import Log
    from lingula.methods import METHODS
    from lingula.registry import UserError, nearest

    factory = METHODS[method]
    if recipe not in factory.recipes:
        known = f"; known: {', '.join(factory.recipes)}"
        raise UserError(f"method '{method}' has no recipe '{recipe}'{nearest(recipe, factory.recipes) or known}")
    given = {
        "image_encoder": image_encoder,
        "text_encoder": text_encoder,
        "pretrained": pretrained,
        "image_size": image_size,
        "resize_to": resize_to,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "clip": clip,
        "precision": precision,
    }
    plan = resolve(factory.recipes[recipe], given, epochs, options or {}, weights or {})
    prepared = PreparedCorpus.open(corpus)

    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp_find_unused_parameters_true" if devices * nodes > 1 else "auto",
        precision=_precision(plan.precision, accelerator),  # type: ignore[arg-type]
    )
    fabric.launch()
    made = {
        "method": method,
        "recipe": recipe,
        "options": plan.options,
        "plan": dataclasses.asdict(plan),
        "image_encoder": plan.image_encoder,
        "text_encoder_name": plan.text_encoder,
        "image_size": plan.image_size,
        "resize_to": plan.resize_to,
        "seed": seed,
        "accumulate": accumulate,
        "processes": fabric.world_size,
        "precision": str(fabric.strategy.precision.precision),
        "corpus": {"name": prepared.name, "fingerprint": prepared.fingerprint, "folder": str(corpus)},
    }
    state = begin(fabric, out, made, resume)
    model, loaders = build(fabric, prepared, plan, made, out, vocabulary, seed)
    if fabric.is_global_zero:
        parameters = sum(p.numel() for p in model.parameters())
        fabric.print(
            f"{method} ({recipe}) on {prepared.name}: {len(loaders['train'].rows)} pairs, "
            f"{len(loaders['train'])} steps an epoch, {parameters / 1e6:.1f} M parameters, {made['precision']}"
        )
    if state is not None:
        load_weights(out, model)
    run = Run(fabric, out, plan, model, loaders, Log(fabric, out, state[0].total if state else 0, quiet), seed)
    steps_per_epoch = max(1, len(loaders["train"]) // accumulate)
    lengths = [round(stage.epochs * steps_per_epoch) for stage in plan.stages]
    for number, steps in enumerate(lengths):
        done, moments = 0, None
        if state is not None and number <= state[0].stage:
            done, moments = (state[0].step, state[1]["optimizer"]) if number == state[0].stage else (steps, None)
        if done < steps:
            run.stage(number, steps, done, moments, sum(lengths[:number]), accumulate, log_every, checkpoint_every)
    run.log.close()
    fabric.print(f"{out}: trained {sum(lengths)} steps")
    return out


@dataclasses.dataclass
class Run:
    """What all stages share."""

    fabric: Any
    out: Path
    plan: Recipe
    model: Any
    loaders: dict[str, Loader]
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
        from lingula.checkpoint import Progress, save_checkpoint
        from lingula.optim import build_optimizer, learning_rate_at
        from lingula.train import fit

        plan, loader, log = self.plan, self.loaders["train"], self.log
        self.model.weights = dict(plan.stages[number].weights)
        loader.seed = self.seed + 7919 * number
        optimizer = build_optimizer(self.model, plan)
        if moments is not None:
            optimizer.load_state_dict(moments)
        epoch = max(1, len(loader) // accumulate)
        warmup = min(round(plan.warmup_epochs * epoch), max(1, steps // 10))

        def rate(step: int) -> float:
            return learning_rate_at(step, steps, warmup, plan.learning_rate, plan.start_learning_rate)

        def on_log(step: int, terms: dict[str, float]) -> None:
            log.terms(before + step, number, rate(step - 1), terms)

        def after_each(step: int) -> None:
            log.step(before + step)
            if step % epoch == 0 or step == steps:
                log.validation(before + step, validate(self.model, self.loaders.get("val")))
            if step % checkpoint_every == 0 or step == steps:
                self.fabric.barrier()
                if self.fabric.is_global_zero:
                    save_checkpoint(self.out, self.model, optimizer, Progress(number, step, before + step))
                self.fabric.barrier()

        model, fabric_optimizer = self.fabric.setup(self.model, optimizer)
        with log.bar(f"stage {number + 1} of {len(plan.stages)}", before + done, before + steps):
            fit(
                self.fabric,
                model,
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
            )


def resolve(
    recipe: Recipe,
    given: dict[str, Any],
    epochs: list[float] | None,
    options: dict[str, Any],
    weights: dict[str, float],
) -> Recipe:
    """The recipe with what the user gave instead.

    Raises:
        UserError: for a number of epochs that fits no stages, or a weight of a term that no stage has.
    """
    from lingula.registry import UserError, nearest

    stages = recipe.stages
    if epochs is not None:
        if len(epochs) != len(stages):
            raise UserError(
                f"the recipe has {len(stages)} stages, so --epochs takes {len(stages)} numbers, got {epochs}"
            )
        stages = tuple(dataclasses.replace(s, epochs=e) for s, e in zip(stages, epochs, strict=True))
    terms = {term for stage in stages for term in stage.weights}
    for term in weights:
        if term not in terms:
            raise UserError(f"no loss term '{term}'{nearest(term, terms) or '; known: ' + ', '.join(sorted(terms))}")
    stages = tuple(
        dataclasses.replace(s, weights={name: weights.get(name, value) for name, value in s.weights.items()})
        for s in stages
    )
    changes = {name: value for name, value in given.items() if value is not None}
    if "image_size" in changes and "resize_to" not in changes:
        changes["resize_to"] = round(changes["image_size"] * recipe.resize_to / recipe.image_size)
    return dataclasses.replace(recipe, stages=stages, options={**recipe.options, **options}, **changes)


def _precision(precision: str, accelerator: str) -> str:
    """``auto`` is bf16-mixed on hardware with bf16 arithmetic; on other CPUs it would be two to three times slower."""
    import torch

    if precision != "auto":
        return {"32": "32-true"}.get(precision, precision)
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    if accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        flags = Path("/proc/cpuinfo")
        text = flags.read_text() if flags.is_file() else ""
        if "avx512_bf16" in text or "amx_bf16" in text:
            return "bf16-mixed"
    return "32-true"


def begin(fabric: Any, out: Path, made: dict[str, Any], resume: bool) -> Any:
    """Make the run's folder and say in it how the run is made; or find where an interrupted one stopped.

    Raises:
        UserError: if the folder holds a run already and this is no resume, or a resume of another run.
    """
    from lingula import __version__
    from lingula.checkpoint import load_state
    from lingula.registry import UserError
    from lingula.results import plain, write_json

    path = out / "run.json"
    old = json.loads(path.read_text()) if path.is_file() else None
    if old is not None and not resume:
        raise UserError(f"{out} already holds a run; go on with it by --resume, or choose another --out")
    if old is not None:
        for key, value in plain(made).items():
            if key != "corpus" and old.get(key) != value:
                raise UserError(f"cannot resume {out}: its {key} is {old.get(key)}, not {value}")
        if old["corpus"]["fingerprint"] != made["corpus"]["fingerprint"]:
            raise UserError(f"cannot resume {out}: it was trained on another preparation of {old['corpus']['name']}")
    state = load_state(out) if old is not None else None
    fabric.barrier()
    if fabric.is_global_zero and old is None:
        import torch

        out.mkdir(parents=True, exist_ok=True)
        about = {
            "lingula": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {fabric.device}",
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        write_json(path, {**made, **about})
    fabric.barrier()
    return state


def build(
    fabric: Any, prepared: PreparedCorpus, plan: Recipe, made: dict[str, Any], out: Path, vocabulary: int, seed: int
) -> tuple[Any, dict[str, Loader]]:
    """The method on its towers, and the loaders of train and val."""
    import torch

    from lingula.api import build_method
    from lingula.data.loader import Loader
    from lingula.data.tokens import load_tokenizer, tokenise, train_tokenizer
    from lingula.nn.text_encoders import SMALL_BERT, text_config

    folder = out / "tokenizer"
    if fabric.is_global_zero and not folder.is_dir():
        if plan.text_encoder == SMALL_BERT:
            texts = (s.lower() for row in prepared.rows("train") for s in prepared.reports[row])
            train_tokenizer(texts, folder, vocabulary)
        else:
            load_tokenizer(plan.text_encoder).save_pretrained(str(folder))
    fabric.barrier()
    tokenizer = load_tokenizer(folder)
    config = text_config(plan.text_encoder, len(tokenizer))
    if fabric.is_global_zero:
        config.save_pretrained(out / "text_encoder")

    torch.manual_seed(seed)
    take_text = plan.text_encoder if plan.pretrained and plan.text_encoder != SMALL_BERT else None
    model: Any = build_method(
        made["method"], plan.options, plan.image_encoder, config, plan.image_size, plan.pretrained, take_text
    )
    tokens = tokenise(prepared.reports, tokenizer, min(256, model.text_encoder.max_tokens))

    def loader(split: str, training: bool) -> Loader:
        return Loader(
            prepared,
            prepared.rows(split),
            plan.image_size,
            plan.resize_to,
            plan.batch_size,
            tokens,
            training,
            seed,
            fabric.device,
            *((fabric.global_rank, fabric.world_size) if training else (0, 1)),
        )

    loaders = {"train": loader("train", True)}
    if any(tokens.sentences[row] for row in prepared.rows("val")):
        loaders["val"] = loader("val", False)
    return model, loaders


def validate(model: Any, loader: Loader | None) -> dict[str, float]:
    """Retrieval on the validation split, by every process alike; nothing where there is no such split."""
    from lingula.tasks.retrieval import retrieval

    return {} if loader is None else retrieval(model, loader)
