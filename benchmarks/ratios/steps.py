"""C9 and C10: a step of CM-CGNS beside a step of plain CLIP, and what of it the clustering takes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.ratios.measure import Figure, in_turns, milliseconds

from lingula.batch import Batch
from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.data.tokens import tokenise, train_tokenizer
from lingula.methods import METHODS
from lingula.nn.text_encoders import text_config
from lingula.runs.build import build_method
from lingula.training.optim import build_optimizer


def against_clip(folder: Path, pairs: int, rounds: int = 7) -> list[Figure]:
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
    model = models["cm-cgns"][0]
    with torch.no_grad():
        drawn = [model.attend(batch.image, batch.reports).image_to_report for batch in batches]
    clustered = [(cross, batch.reports.sentence_key) for cross, batch in zip(drawn, batches, strict=True)]

    def epoch(name: str) -> None:
        for batch in batches:
            step(name, batch)

    def clusterings() -> None:
        for cross, keys in clustered:
            model.find_clusters(cross, keys, 0)

    taken = in_turns(lambda: epoch("cm-cgns"), lambda: epoch("clip"), clusterings, rounds=rounds)
    ours, plain, clustering = (seconds / len(batches) for seconds in taken)
    sentences = round(sum(map(len, drawn)) / len(batches))
    detail = {"batch": size, "sentences": sentences, "clip_ms": milliseconds(plain), "cm_cgns_ms": milliseconds(ours)}
    share = detail | {"clustering_ms": milliseconds(clustering)}
    return [
        Figure("C9", "CM-CGNS stage-1 step over a plain CLIP step", ours / plain, 1.10, at_least=False, detail=detail),
        Figure("C10", "clustering's share of a step", clustering / ours, 0.05, at_least=False, detail=share),
    ]


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    with tempfile.TemporaryDirectory() as name:
        return against_clip(Path(name), 8, 1) if small else against_clip(Path(name), 256)
