"""The parts of a pre-training: method, tokenizer, loaders. Floor 4."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from lingula.data.loader import Batches, Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import ShardedCorpus
from lingula.data.streaming import StreamLoader
from lingula.data.tokens import MAX_TOKENS, Tokens, load_tokenizer, tokenise_corpus, train_tokenizer
from lingula.methods import METHODS
from lingula.nn.image_encoders import MADE_HERE
from lingula.nn.method import Method
from lingula.nn.text_encoders import SMALL_BERT, freeze_layers, text_config
from lingula.registry import UserError
from lingula.runs.build import build_method, takes
from lingula.runs.settings import Settings
from lingula.training.recipe import Recipe


def build(
    fabric: Any,
    corpus: PreparedCorpus | ShardedCorpus,
    settings: Settings,
    out: Path,
    fresh: bool,
) -> tuple[Method, Any, dict[str, Batches]]:
    """The method on its towers, the configuration of its text encoder, and the loaders of train and val.

    A fresh run's tokenizer is made in ``tokenizer.partial``; :func:`begin` gives it its name. A method of films alone
    has neither tokenizer nor configuration, and reads the studies without a report too. Published weights are taken by
    a fresh run only: the checkpoint of another one holds all of its weights.
    """
    plan, method = settings.plan, settings.method
    config: Any = None
    tokenizer: Any = None
    if METHODS[method].uses_text:
        if next(iter(corpus.training_texts()), None) is None:
            raise UserError(
                f"corpus {corpus.name} has no train studies with a report, which method '{method}' reads; some "
                "methods learn from films alone (lingula list methods)"
            )
        folder = out / ("tokenizer.partial" if fresh else "tokenizer")
        tokenizer = _tokenizer(fabric, corpus, settings, folder)
    if takes(method, "text_encoder"):
        own = fresh or plan.text_encoder == SMALL_BERT
        config = text_config(plan.text_encoder if own else str(out / "text_encoder"), len(tokenizer))

    torch.manual_seed(settings.seed)
    take_text = plan.text_encoder if plan.pretrained and plan.text_encoder != SMALL_BERT else None
    own_image = not takes(method, "image_encoder")
    take_image: Path | bool = plan.pretrained and plan.image_encoder not in MADE_HERE and not own_image
    if plan.image_weights is not None:
        take_image = Path(plan.image_weights)
    published = (take_image, take_text) if fresh else (False, None)
    if fresh and not own_image:
        _say_what_is_random(fabric, plan, take_image, take_text, config)
    vocabulary = 0 if tokenizer is None else len(tokenizer)
    towers = (plan.image_encoder, config, plan.image_size)
    model = build_method(method, plan.options, *towers, *published, vocabulary=vocabulary)
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
    fabric: Any, corpus: PreparedCorpus | ShardedCorpus, plan: Recipe, model: Method, tokenizer: Any, seed: int
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
    tokens = None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # what was mapped stays readable
        held_out = corpus.validation(Path(scratch)) if isinstance(corpus, ShardedCorpus) else corpus
        if tokenizer is not None and held_out is not None:
            tokens = tokenise_corpus(held_out, tokenizer, longest)
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
    corpus: PreparedCorpus | ShardedCorpus, tokens: Tokens | None, plan: Recipe, model: Method, processes: int
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


def _tokenizer(fabric: Any, corpus: PreparedCorpus | ShardedCorpus, settings: Settings, folder: Path) -> Any:
    """The run's tokenizer, made or fetched by the first process of a fresh run; the method's own where it has one."""
    method, plan = settings.method, settings.plan
    if fabric.is_global_zero and folder.suffix == ".partial":
        shutil.rmtree(folder, ignore_errors=True)
        sentences = corpus.training_texts()
        if hasattr(METHODS[method], "make_tokenizer"):
            METHODS[method].make_tokenizer((sentence.lower() for sentence in sentences), folder, settings.vocabulary)
        elif plan.text_encoder == SMALL_BERT or not takes(method, "text_encoder"):
            train_tokenizer(sentences, folder, settings.vocabulary)
        else:
            load_tokenizer(plan.text_encoder).save_pretrained(str(folder))
    fabric.barrier()
    return load_tokenizer(folder)
