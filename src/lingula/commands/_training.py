"""The machinery of ``lingula pretrain``: what is asked for, what is refused, how a run begins, one stage of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lingula import __version__
from lingula.api import TOWERS, build_method
from lingula.checkpoint import Progress, load_moments, load_state, save_checkpoint
from lingula.data.collate import SENTENCES
from lingula.data.loader import Batches, Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import ShardedCorpus
from lingula.data.streaming import StreamLoader
from lingula.data.tokens import load_tokenizer, tokenise, train_tokenizer
from lingula.gather import as_the_first
from lingula.log import Log
from lingula.methods import METHODS
from lingula.nn.text_encoders import SMALL_BERT, freeze_layers, text_config
from lingula.optim import OPTIMIZERS, SCHEDULES, Recipe, build_optimizer, learning_rate_at
from lingula.registry import UserError, check_options, nearest
from lingula.results import plain, write_json
from lingula.sharding import callable_in_parts, shard
from lingula.tasks.retrieval import rank_pairs
from lingula.train import fit

ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps")
PRECISIONS = ("auto", "32", "bf16-mixed", "16-mixed")


def recipe_of(method: str, recipe: str) -> Recipe:
    """A method's recipe by name.

    Raises:
        UserError: if there is no such method, or it has no such recipe.
    """
    recipes: dict[str, Recipe] = METHODS[method].recipes
    if recipe not in recipes:
        hint = nearest(recipe, recipes) or f"; known: {', '.join(recipes)}"
        raise UserError(f"method '{method}' has no recipe '{recipe}'{hint}")
    return recipes[recipe]


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
    stages = recipe.stages
    if epochs is not None:
        if len(epochs) != len(stages):
            raise UserError(
                f"the recipe has {len(stages)} stages, so --epochs takes {len(stages)} numbers, as in "
                f"--epochs {' '.join(f'{s.epochs:g}' for s in stages)}; got {epochs}"
            )
        stages = tuple(s.of_length(e) for s, e in zip(stages, epochs, strict=True))
    terms = {term for stage in stages for term in stage.weights}
    for term in weights:
        if term not in terms:
            raise UserError(f"no loss term '{term}'{nearest(term, terms) or '; known: ' + ', '.join(sorted(terms))}")
    stages = tuple(
        dataclasses.replace(s, weights={name: weights.get(name, value) for name, value in s.weights.items()})
        for s in stages
    )
    changes = {name: value for name, value in given.items() if value is not None}
    if "learning_rate" in changes:  # it moves all of them: no stage may go on with the recipe's own
        factor = changes["learning_rate"] / recipe.learning_rate
        stages = tuple(dataclasses.replace(s, learning_rate=_times(s.learning_rate, factor)) for s in stages)
        for name in ("text_learning_rate", "bias_learning_rate"):
            changes[name] = _times(getattr(recipe, name), factor)
    if "image_size" in changes and "resize_to" not in changes:
        changes["resize_to"] = round(changes["image_size"] * recipe.resize_to / recipe.image_size)
    return dataclasses.replace(recipe, stages=stages, options={**recipe.options, **options}, **changes)


def _times(rate: float | None, factor: float) -> float | None:
    return None if rate is None else rate * factor


def check(method: str, plan: Recipe, counts: dict[str, int], seed: int, accelerator: str) -> None:
    """Refuse numbers and names that would fail later, less clearly.

    Args:
        method: its name.
        plan: the recipe with what the user gave instead.
        counts: whole numbers from 1, by the names of their options.
        seed: of the run.
        accelerator: as the user named it.
    Raises:
        UserError: naming the first that is wrong.
    """
    for name, value in {"batch_size": plan.batch_size, **counts}.items():
        if value < 1:
            raise UserError(f"{name} must be 1 or more, got {value}")
    if plan.batch_size < METHODS[method].smallest_batch:
        raise UserError(
            f"method '{method}' needs a batch_size of {METHODS[method].smallest_batch} or more, got {plan.batch_size}"
        )
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    words = (
        ("accelerator", accelerator, ACCELERATORS),
        ("precision", plan.precision, PRECISIONS),
        ("optimizer", plan.optimizer, OPTIMIZERS),
        ("schedule", plan.schedule, SCHEDULES),
        ("sentences", plan.sentences, SENTENCES),
    )
    for what, word, known in words:
        if word not in known:
            raise UserError(f"unknown {what} '{word}'{nearest(word, known) or '; known: ' + ', '.join(known)}")
    if not 0 < plan.learning_rate < math.inf:
        raise UserError(f"learning_rate must be above 0, got {plan.learning_rate}")
    if not 0 <= plan.weight_decay < math.inf:
        raise UserError(f"weight_decay must be 0 or more, got {plan.weight_decay}")
    if plan.clip is not None and not plan.clip > 0:
        raise UserError(f"clip must be above 0, got {plan.clip}")
    if plan.image_size < 16:
        raise UserError(f"image_size must be 16 pixels or more, got {plan.image_size}")
    if plan.resize_to < plan.image_size:
        raise UserError(f"resize_to must be image_size ({plan.image_size}) or more, got {plan.resize_to}")
    for number, stage in enumerate(plan.stages, start=1):
        if not 0 <= stage.epochs < math.inf:
            raise UserError(f"epochs must be 0 or more, got {stage.epochs} for stage {number}")
        for term, weight in stage.weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(f"weights.{term} must be 0 or more, got {weight}")
        if stage.epochs and not any(stage.weights.values()):
            raise UserError(f"stage {number} has nothing to train: all its loss weights are 0")
    if not any(stage.epochs for stage in plan.stages):
        raise UserError("nothing to train: all epochs are 0")
    check_options(f"method '{method}'", METHODS[method], plan.options, not_options=TOWERS)


def precision_of(precision: str, accelerator: str) -> str:
    """``auto`` is bf16-mixed on hardware with bf16 arithmetic; on other CPUs it would only be slower."""
    if precision != "auto":
        return {"32": "32-true"}.get(precision, precision)
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        flags = Path("/proc/cpuinfo")
        text = flags.read_text() if flags.is_file() else ""
        if "avx512_bf16" in text or "amx_bf16" in text:
            return "bf16-mixed"
    return "32-true"


def check_fsdp(processes: int, precision: str, compile: bool) -> None:
    """Refuse what a model cannot be together with that is split among processes.

    Raises:
        UserError: for one process, 16-mixed, or compiled encoders.
    """
    if processes == 1:
        raise UserError("--fsdp splits the model among processes, and there is one; give --devices 2 or more")
    if precision == "16-mixed":
        raise UserError("--fsdp knows no loss scale, which 16-mixed needs; give --precision bf16-mixed or 32")
    if compile:
        raise UserError("--fsdp puts weights together between the blocks that --compile would make one; leave one out")


def make_fabric(accelerator: str, devices: int, nodes: int, precision: str, sharded: bool) -> Any:
    """A Lightning Fabric that says nothing but warnings.

    Raises:
        UserError: where the machine has no such accelerator, or not as many.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    processes = devices * nodes
    strategy: Any = "ddp_find_unused_parameters_true" if processes > 1 else "auto"
    if sharded:

        def split(model: torch.nn.Module, mesh: Any) -> torch.nn.Module:
            return shard(model, mesh["data_parallel"])

        strategy = ModelParallelStrategy(split, data_parallel_size=processes, tensor_parallel_size=1)

    for name in ("lightning", "lightning.fabric", "lightning.pytorch"):  # importing them sets INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
        )
    except (MisconfigurationException, RuntimeError, ValueError) as err:
        raise UserError(f"accelerator '{accelerator}' with {devices} devices: {err}") from err


def loss_scale(fabric: Any) -> Any:
    """The ``GradScaler`` of 16-mixed, one for all stages; ``None`` at other precisions."""
    return getattr(fabric.strategy.precision, "scaler", None)


def find(out: Path, made: dict[str, Any], resume: bool) -> tuple[Progress, dict[str, Any]] | None:
    """Make the run's folder, or find where an interrupted run stopped; ``None`` where none got to a checkpoint.

    Raises:
        UserError: if the folder cannot be made, or holds a trained run and this is no resume, or another run, or files
            of the names that a run's have.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UserError(f"cannot make the folder {out}: {err.strerror}; choose another --out") from err
    path = out / "run.json"
    if not path.is_file():
        taken = [name for name in ("latest", "metrics.jsonl", "tokenizer", "text_encoder") if (out / name).exists()]
        if taken:
            raise UserError(f"{out} holds {taken[0]} but no run.json: it is no run; choose another --out")
        return None
    if not resume:
        if (out / "latest").is_file():
            raise UserError(f"{out} already holds a run; go on with it by --resume, or choose another --out")
        return None
    old = json.loads(path.read_text(encoding="utf-8"))
    corpus, other = made["corpus"], old["corpus"]
    for name, was, now in differences({k: old.get(k) for k in made if k != "corpus"}, plain({**made, "corpus": None})):
        raise UserError(f"cannot resume {out}: its {name} is {was}, not {now}")
    if other["fingerprint"] != corpus["fingerprint"]:
        raise UserError(f"cannot resume {out}: it was trained on another preparation of {other['name']}")
    return load_state(out)


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


def begin(fabric: Any, out: Path, made: dict[str, Any], config: Any) -> None:
    """Say in the folder of a new run how it is made, now that all its parts could be built.

    Until here there is nothing in the folder but ``tokenizer.partial``.
    """
    fabric.barrier()  # everybody has read the tokenizer
    if fabric.is_global_zero:
        about = {
            "lingula": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {fabric.device}",
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        write_json(out / "run.json", {**made, **about})
        shutil.rmtree(out / "tokenizer", ignore_errors=True)  # of a run that never got to a checkpoint
        if config is not None:
            (out / "tokenizer.partial").rename(out / "tokenizer")
            config.save_pretrained(out / "text_encoder")
    fabric.barrier()


def build(
    fabric: Any,
    corpus: PreparedCorpus | ShardedCorpus,
    plan: Recipe,
    method: str,
    out: Path,
    vocabulary: int,
    seed: int,
    fresh: bool,
) -> tuple[Any, Any, dict[str, Batches]]:
    """The method on its towers, the configuration of its text encoder, and the loaders of train and val.

    A fresh run's tokenizer is made in ``tokenizer.partial``; :func:`begin` gives it its name. A method of films alone
    has neither tokenizer nor configuration, and reads the studies without a report too.
    """
    tokenizer = config = None
    if METHODS[method].uses_text:
        if next(corpus.training_texts(), None) is None:
            raise UserError(
                f"corpus {corpus.name} has no train studies with a report, which method '{method}' reads; some "
                "methods learn from films alone (lingula list methods)"
            )
        tokenizer = _tokenizer(fabric, corpus, plan, out / ("tokenizer.partial" if fresh else "tokenizer"), vocabulary)
        config = text_config(plan.text_encoder, len(tokenizer))

    torch.manual_seed(seed)
    take_text = plan.text_encoder if plan.pretrained and plan.text_encoder != SMALL_BERT else None
    take_image = Path(plan.image_weights) if plan.image_weights is not None else plan.pretrained
    model: Any = build_method(method, plan.options, plan.image_encoder, config, plan.image_size, take_image, take_text)
    if config is not None and take_text is not None:  # random layers that stayed as they were would know nothing
        freeze_layers(model.text_encoder, plan.frozen_text_layers)
    return model, config, _loaders(fabric, corpus, plan, model, tokenizer, seed)


def _loaders(
    fabric: Any, corpus: PreparedCorpus | ShardedCorpus, plan: Recipe, model: Any, tokenizer: Any, seed: int
) -> dict[str, Batches]:
    """Of train, and of val where that has reports and they are read."""
    sizes = (plan.image_size, plan.resize_to, plan.batch_size)
    drawn: dict[str, Any] = {
        "seed": seed,
        "rank": fabric.global_rank,
        "processes": fabric.world_size,
        "views": model.views,
        "augmentation": plan.augmentation,
        "sentences": plan.sentences,
    }
    longest = min(256, model.text_encoder.max_tokens) if tokenizer is not None else 0
    held_out: PreparedCorpus | None
    if isinstance(corpus, ShardedCorpus):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            held_out = corpus.validation(Path(scratch))
    else:
        held_out = corpus
    tokens = tokenise(held_out.reports, tokenizer, longest) if tokenizer is not None and held_out is not None else None
    train: Batches
    if isinstance(corpus, ShardedCorpus):
        train = StreamLoader(corpus, *sizes, tokenizer, longest, device=fabric.device, **drawn)
    else:
        train = Loader(corpus, corpus.rows("train"), *sizes, tokens, training=True, device=fabric.device, **drawn)
    loaders: dict[str, Batches] = {"train": train}
    if tokens is not None and held_out is not None and any(tokens.sentences[row] for row in held_out.rows("val")):
        part = {"rank": fabric.global_rank, "processes": fabric.world_size}
        loaders["val"] = Loader(held_out, held_out.rows("val"), *sizes, tokens, device=fabric.device, **part)
    return loaders


def compile_encoders(model: Any) -> None:
    """Compile the towers; films have one shape, of packed reports both sides vary: two graphs in all."""
    model.image_encoder.compile()
    if model.uses_text:
        model.text_encoder.backbone.compile(dynamic=True)


def forget_activations(model: Any) -> None:
    """Let the towers keep the inputs of their blocks only.

    Raises:
        UserError: if the image encoder cannot.
    """
    model.image_encoder.checkpoint_activations()
    if model.uses_text:
        backbone = model.text_encoder.backbone
        newer = getattr(backbone, "activation_checkpointing_enable", None)  # transformers is renaming it
        (newer or backbone.gradient_checkpointing_enable)({"use_reentrant": False})


def _tokenizer(fabric: Any, corpus: PreparedCorpus | ShardedCorpus, plan: Recipe, folder: Path, vocabulary: int) -> Any:
    """The run's tokenizer, made or fetched by the first process of a fresh run."""
    if fabric.is_global_zero and folder.suffix == ".partial":
        shutil.rmtree(folder, ignore_errors=True)
        if plan.text_encoder == SMALL_BERT:
            train_tokenizer((sentence.lower() for sentence in corpus.training_texts()), folder, vocabulary)
        else:
            load_tokenizer(plan.text_encoder).save_pretrained(str(folder))
    fabric.barrier()
    return load_tokenizer(folder)


@dataclasses.dataclass
class Run:
    """What all stages share; ``wrapped`` is the model as Fabric set it up."""

    fabric: Any
    out: Path
    plan: Recipe
    model: Any
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
        warmup = min(round(plan.warmup_epochs * epoch), max(1, steps // 10))
        if stage.warmup_epochs is not None:
            warmup = round(stage.warmup_epochs * epoch)
        peak = stage.learning_rate or plan.learning_rate

        def rate(step: int) -> float:
            return learning_rate_at(step, steps, warmup, peak, plan.start_learning_rate, plan.schedule)

        def on_log(step: int, terms: dict[str, float]) -> None:
            log.terms(before + step, number, rate(step - 1), terms)

        def after_each(step: int) -> None:
            log.step(before + step)
            if step % epoch == 0 or step == steps:
                log.validation(before + step, validate(self.model, self.loaders.get("val")))
            if step % checkpoint_every == 0 or step == steps:
                self.fabric.barrier()
                save_checkpoint(self.out, self.model, optimizer, Progress(number, step, before + step), scaler)
                self.fabric.barrier()

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
            )
        online = getattr(self.model, "online", None)
        if online is not None and not online.started:
            self.fabric.print(
                f"warning: stage {number + 1}: no batch had at least {len(online.centres)} sentences with mean cosine "
                f"<= {online.start_below}, so there were no hard negatives",
                file=sys.stderr,
            )


def validate(model: Any, loader: Any) -> dict[str, float]:
    """Retrieval on the validation split, of which each process encodes its share; nothing where there is no such split.

    Each process has its own statistics in BatchNorms: those of the first, which a checkpoint has, are taken by all.
    """
    if loader is None:
        return {}
    as_the_first(model.buffers())
    with callable_in_parts(model):
        return rank_pairs(model, loader, draws=0).numbers
