"""A run of ``lingula pretrain``: how it begins, its parts, and one stage of it."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lingula import __version__
from lingula.api import build_method
from lingula.checkpoint import Progress, load_moments, save_checkpoint
from lingula.commands._devices import loss_scale
from lingula.commands._resume import Changes, Settings, command, plan_of
from lingula.data.loader import Batches, Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import ShardedCorpus
from lingula.data.streaming import StreamLoader
from lingula.data.tokens import MAX_TOKENS, Tokens, load_tokenizer, tokenise, train_tokenizer
from lingula.gather import as_the_first
from lingula.log import Log
from lingula.methods import METHODS
from lingula.nn.image_encoders import MADE_HERE
from lingula.nn.text_encoders import SMALL_BERT, freeze_layers, text_config
from lingula.optim import Recipe, build_optimizer, learning_rate_at
from lingula.registry import UserError
from lingula.results import write_json
from lingula.sharding import callable_in_parts
from lingula.tasks.retrieval import rank_pairs
from lingula.train import fit


def claim(out: Path) -> None:
    """Make the folder of a fresh run; a run that never got to a checkpoint may begin again in its own.

    Raises:
        UserError: if the folder cannot be made, or holds a trained run, or files of the names that a run's have.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UserError(f"cannot make the folder {out}: {err.strerror}; choose another --out") from err
    if not (out / "run.json").is_file():
        taken = [name for name in ("latest", "metrics.jsonl", "tokenizer", "text_encoder") if (out / name).exists()]
        if taken:
            raise UserError(f"{out} holds {taken[0]} but no run.json: it is no run; choose another --out")
    elif (out / "latest").is_file():
        raise UserError(f"{out} already holds a run; go on with it by --resume, or choose another --out")


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
            "command": command(),
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
    settings: Settings,
    out: Path,
    fresh: bool,
) -> tuple[Any, Any, dict[str, Batches]]:
    """The method on its towers, the configuration of its text encoder, and the loaders of train and val.

    A fresh run's tokenizer is made in ``tokenizer.partial``; :func:`begin` gives it its name. A method of films alone
    has neither tokenizer nor configuration, and reads the studies without a report too. Published weights are taken by
    a fresh run only: the checkpoint of another one holds all of its weights.
    """
    plan, method = settings.plan, settings.method
    tokenizer = config = None
    if METHODS[method].uses_text:
        if next(corpus.training_texts(), None) is None:
            raise UserError(
                f"corpus {corpus.name} has no train studies with a report, which method '{method}' reads; some "
                "methods learn from films alone (lingula list methods)"
            )
        folder = out / ("tokenizer.partial" if fresh else "tokenizer")
        tokenizer = _tokenizer(fabric, corpus, plan, folder, settings.vocabulary)
        own = fresh or plan.text_encoder == SMALL_BERT
        config = text_config(plan.text_encoder if own else str(out / "text_encoder"), len(tokenizer))

    torch.manual_seed(settings.seed)
    take_text = plan.text_encoder if plan.pretrained and plan.text_encoder != SMALL_BERT else None
    take_image: Path | bool = plan.pretrained and plan.image_encoder not in MADE_HERE
    if plan.image_weights is not None:
        take_image = Path(plan.image_weights)
    published = (take_image, take_text) if fresh else (False, None)
    if fresh:
        _say_what_is_random(fabric, plan, take_image, take_text, config)
    model: Any = build_method(method, plan.options, plan.image_encoder, config, plan.image_size, *published)
    if config is not None and take_text is not None:  # random layers that stayed as they were would know nothing
        freeze_layers(model.text_encoder, plan.frozen_text_layers)
    return model, config, _loaders(fabric, corpus, plan, model, tokenizer, settings.seed)


def _say_what_is_random(fabric: Any, plan: Recipe, take_image: Path | bool, take_text: str | None, config: Any) -> None:
    """Encoders without published weights in a recipe that starts from such, and weights that a recipe does not take."""
    if not plan.pretrained and config is not None and plan.text_encoder != SMALL_BERT:
        fabric.print(
            f"note: '{plan.text_encoder}' starts from random weights; --pretrained true takes its own", file=sys.stderr
        )
    image = [] if take_image else [plan.image_encoder]
    text = [] if take_text or config is None else [plan.text_encoder]
    if plan.pretrained and image + text:
        fabric.print(f"note: no published weights for {' and '.join(image + text)}: random ones", file=sys.stderr)


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
    longest = min(MAX_TOKENS, model.text_encoder.max_tokens) if tokenizer is not None else 0
    held_out: PreparedCorpus | None
    if isinstance(corpus, ShardedCorpus):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            held_out = corpus.validation(Path(scratch))
    else:
        held_out = corpus
    tokens = tokenise(held_out.reports, tokenizer, longest) if tokenizer is not None and held_out is not None else None
    check_batch(corpus, tokens, plan, model, fabric.world_size)
    if tokens is not None and tokens.cut_line:
        fabric.print(tokens.cut_line, file=sys.stderr)
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


def check_batch(
    corpus: PreparedCorpus | ShardedCorpus, tokens: Tokens | None, plan: Recipe, model: Any, processes: int
) -> None:
    """Refuse a batch that the studies do not fill, naming the largest that they do.

    Raises:
        UserError: naming what they are, and how many.
    """
    if isinstance(corpus, ShardedCorpus):
        studies = int(corpus.counts[: corpus.paired if model.uses_text else None].sum())
    else:
        rows = corpus.rows("train")
        studies = len(rows) if tokens is None else int((tokens.sentences[rows] > 0).sum())
    if studies >= plan.batch_size * processes:
        return
    among = f" on each of {processes} processes" if processes > 1 else ""
    least, most = max(model.smallest_batch, 2 if model.uses_text else 1), studies // processes
    way = f"give --batch_size {most} or less" if most >= least else f"{least * processes} or more are needed"
    what = f"{studies} train {'study' if studies == 1 else 'studies'}{' with a report' if model.uses_text else ''}"
    fill = "does not fill" if studies == 1 else "do not fill"
    raise UserError(f"corpus {corpus.name}: {what} {fill} one batch of {plan.batch_size}{among}; {way}")


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
        rate = schedule_of(plan, number, steps, epoch)

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
        online = getattr(self.model, "online", None)
        if online is not None and not online.started:
            self.fabric.print(
                f"warning: stage {number + 1}: no batch had at least {len(online.centres)} sentences with mean cosine "
                f"<= {online.start_below}, so there were no hard negatives",
                file=sys.stderr,
            )


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
        changes: of :func:`lingula.commands._resume.resumed`.
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


def validate(model: Any, loader: Any) -> dict[str, float]:
    """Retrieval on the validation split, of which each process encodes its share; nothing where there is no such split.

    Each process has its own statistics in BatchNorms: those of the first, which a checkpoint has, are taken by all.
    """
    if loader is None:
        return {}
    as_the_first(model.buffers())
    with callable_in_parts(model):
        return rank_pairs(model, loader, draws=0).numbers
