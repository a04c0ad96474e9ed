"""C9 and C10: a step of CM-CGNS beside a step of plain CLIP, and what of it the clustering takes."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.ratios.measure import Figure, in_turns, milliseconds, seconds

from lingula.api import build_method
from lingula.batch import Batch
from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.data.tokens import tokenise, train_tokenizer
from lingula.methods import METHODS
from lingula.nn.text_encoders import text_config
from lingula.optim import build_optimizer


def against_clip(folder: Path, pairs: int, rounds: int = 21) -> list[Figure]:
    """The recipes ``scratch`` of the two methods, on the same batches: forward, backward and the optimiser's step."""
    corpus = prepare(Synthetic(pairs, 1, 1, film_size=96), folder / "corpus", 96, 0, log=lambda _: None)
    tokenizer = train_tokenizer([s.lower() for r in corpus.reports for s in r], folder / "tokenizer", 2000)
    config = text_config("small_bert", len(tokenizer))
    tokens = tokenise(corpus.reports, tokenizer)
    recipe = METHODS["cm-cgns"].recipes["scratch"]
    size = min(recipe.batch_size, pairs)
    loader = Loader(corpus, corpus.rows("train"), 96, 96, size, tokens, training=True)
    models: dict[str, Any] = {}
    for name in ("cm-cgns", "clip"):
        torch.manual_seed(0)
        own = METHODS[name].recipes["scratch"]
        model: Any = build_method(name, own.options, own.image_encoder, config, 96, False, None)
        model.weights = dict(own.stages[0].weights)
        models[name] = model.train(), build_optimizer(model, own)

    def step(name: str, batch: Batch) -> None:
        model, optimizer = models[name]
        sum(model(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    batches = [loader.batch(number) for number in range(len(loader))]
    turn = {"cm-cgns": 0, "clip": 0}

    def next_step(name: str) -> None:
        turn[name] += 1
        step(name, batches[turn[name] % len(batches)])

    ours, plain = in_turns(lambda: next_step("cm-cgns"), lambda: next_step("clip"), rounds=rounds)
    model = models["cm-cgns"][0]
    with torch.no_grad():
        cross = model.attend(batches[0].image, batches[0].reports).image_to_report
    keys = batches[0].reports.sentence_key
    model.find_clusters(cross, keys, 0)
    clustering = statistics.median(seconds(lambda: model.find_clusters(cross, keys, 0)) for _ in range(rounds))
    detail = {"batch": size, "sentences": len(cross), "clip_ms": milliseconds(plain), "cm_cgns_ms": milliseconds(ours)}
    share = detail | {"clustering_ms": milliseconds(clustering)}
    return [
        Figure("C9", "CM-CGNS stage-1 step over a plain CLIP step", ours / plain, 1.10, at_least=False, detail=detail),
        Figure("C10", "clustering's share of a step", clustering / ours, 0.05, at_least=False, detail=share),
    ]


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    with tempfile.TemporaryDirectory() as name:
        return against_clip(Path(name), 8, 1) if small else against_clip(Path(name), 256)
