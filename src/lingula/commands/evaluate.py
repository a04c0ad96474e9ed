"""``lingula evaluate TASK``: measure what a run has learned."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lingula.api import Model
    from lingula.data.loader import Loader
    from lingula.data.prepared import PreparedCorpus


def evaluate(
    task: Literal["classification", "retrieval", "pointing", "swap-test", "false-negatives"],
    run: Path,
    corpus: Path | None = None,
    split: Literal["val", "test"] = "test",
    labels: list[str] | None = None,
    protocol: Literal["mgca", "logistic"] = "mgca",
    fractions: list[float] | None = None,
    seeds: list[int] | None = None,
    pool: int = 200,
    batch_size: int | None = None,
    bootstrap: int = 1000,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure what a run has learned, beside the same encoders with random weights.

    Rows are added to RUN/results.jsonl; the subsets of labels that were drawn are written to RUN/subsets/.

    Args:
        task: what to measure; see `lingula list tasks`.
        run: folder of a run.
        corpus: a prepared corpus; the one that the run was trained on by default.
        split: the split to measure on.
        labels: label columns, or the name of one group of exclusive classes; all labels by default. (classification)
        protocol: `mgca`, the field's linear head, or `logistic`, which converges on few films. (classification)
        fractions: shares of the labelled patients; 0.01 0.1 1 by default. (classification)
        seeds: of the subsets, the heads and the random encoders; 0 1 2 by default.
        pool: candidates per query. (retrieval)
        batch_size: films per batch; for swap-test and false-negatives it sets how many sentences compete, by default as
            many as in training.
        bootstrap: draws of the 95 % interval.
        device: `cpu`, `cuda`, `mps` or `auto`.
    """
    from lingula.api import fresh, load
    from lingula.registry import UserError
    from lingula.results import append_rows
    from lingula.tasks import TASKS

    started = time.perf_counter()
    draws = tuple(seeds or (0, 1, 2))
    for name, value in {"pool": pool, "batch_size": batch_size or 1, "bootstrap": bootstrap}.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if min(draws) < 0:
        raise UserError(f"seeds must not be negative, got {list(draws)}")
    if task == "classification" and split != "test":
        raise UserError("classification fits on train, chooses on val and measures on test; it takes no other split")
    if task != "classification" and (labels or fractions):
        raise UserError(f"labels and fractions are for classification; {task} takes none")
    model = load(run, _device(device))
    prepared = open_corpus(model.made, corpus)
    batch_size = batch_size or model.made["plan"]["batch_size"]
    about = {
        "task": task,
        "run": str(run),
        "corpus": prepared.name,
        "corpus_fingerprint": prepared.fingerprint,
        "split": split,
        "command": " ".join(["lingula", *sys.argv[1:]]),
    }
    found: dict[str, Any]
    if task == "classification":
        shares = tuple(fractions or (0.01, 0.1, 1.0))
        found, rows = classify(model, prepared, labels, protocol, shares, draws, bootstrap, run)
        print_probe(found, model.made["method"], protocol)
    else:
        settings = {"pool": pool} if task == "retrieval" else {}
        if task != "false-negatives":
            settings["bootstrap"] = bootstrap
        loader = loader_of(model, prepared, split, batch_size)
        found, rows = {}, []
        for name, encoders in ((model.made["method"], [model]), ("random", [fresh(model, seed) for seed in draws])):
            numbers = []
            for encoder in encoders:
                if name == "random":
                    recalibrate(encoder, prepared)
                numbers.append(TASKS[task](encoder.method, loader, **settings))
                checkpoint = encoder.made["checkpoint_sha256"]
                rows.append({"encoder": name, "checkpoint": checkpoint, "batch_size": batch_size, **numbers[-1]})
            found[name] = {key: [n.get(key, float("nan")) for n in numbers] for key in numbers[0]}
        print_numbers(task, found)
    append_rows(Path(run) / "results.jsonl", [{**about, **row} for row in rows])
    print(f"{task} on {prepared.name} ({split}): {time.perf_counter() - started:.0f} s")
    return found


def open_corpus(made: dict[str, Any], corpus: Path | None) -> PreparedCorpus:
    """The corpus that was asked for, or the one that the run was trained on.

    Raises:
        UserError: if there is none, or the folder of the training now holds another preparation, whose test split may
            hold films that were trained on.
    """
    from lingula.data.prepared import PreparedCorpus
    from lingula.registry import UserError

    trained_on = made["corpus"]
    prepared = PreparedCorpus.open(corpus or Path(trained_on["folder"]))
    if prepared.name == trained_on["name"] and prepared.fingerprint != trained_on["fingerprint"]:
        if corpus is None:
            raise UserError(
                f"{prepared.folder} holds another preparation of {prepared.name} than the run was trained on "
                f"({prepared.fingerprint[:12]}, not {trained_on['fingerprint'][:12]}); name a corpus with --corpus"
            )
        print(
            f"note: {prepared.folder} is another preparation of {prepared.name} than the run was trained on; "
            "its test films may have been trained on"
        )
    return prepared


def _device(name: str) -> str:
    import torch

    from lingula.registry import UserError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as err:
        raise UserError(f"no device '{name}' here; choose cpu, cuda, mps or auto") from err
    return name


def loader_of(model: Model, corpus: PreparedCorpus, split: str, batch_size: int) -> Loader:
    """Films and reports of a split, in order, for evaluation.

    Raises:
        UserError: if none of its films has a report.
    """
    from lingula.data.loader import Loader
    from lingula.data.tokens import tokenise
    from lingula.registry import UserError

    if not any(corpus.reports):
        raise UserError(f"corpus {corpus.name} has no reports")
    tokens = tokenise(corpus.reports, model.tokenizer, min(256, model.method.text_encoder.max_tokens))
    made = model.made
    rows = corpus.rows(split)
    return Loader(corpus, rows, made["image_size"], made["resize_to"], batch_size, tokens, device=model.device)


def film_loader(model: Model, corpus: PreparedCorpus, rows: Any, batch_size: int = 64) -> Loader:
    """Films alone, in the order of ``rows``."""
    from lingula.data.loader import Loader

    made = model.made
    return Loader(corpus, rows, made["image_size"], made["resize_to"], batch_size, device=model.device)


def recalibrate(model: Model, corpus: PreparedCorpus, films: int = 512) -> None:
    """BatchNorm statistics of an untrained encoder from training films drawn at random: a fair baseline."""
    import numpy as np

    from lingula.nn.image_encoders import recalibrate_batch_norm

    rows = np.random.default_rng(0).permutation(corpus.rows("train"))[:films]
    loader = film_loader(model, corpus, np.sort(rows))
    recalibrate_batch_norm(model.method.image_encoder, [batch.image for batch in loader])
    model.method.eval()


def classify(
    model: Model,
    corpus: PreparedCorpus,
    labels: list[str] | None,
    protocol: str,
    fractions: tuple[float, ...],
    seeds: tuple[int, ...],
    bootstrap: int,
    run: Path,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A linear probe of the run and of random encoders, one for each seed, on the same subsets.

    Returns:
        ``{fraction: {encoder: summary}}`` and one row a head.
    """
    from lingula.api import fresh
    from lingula.tasks.classification import LinearProbe

    names = labels or list(corpus.label_names)
    if len(names) == 1 and names[0] in corpus.label_groups:
        names = corpus.label_groups[names[0]]
    probe = LinearProbe(corpus, names, protocol, fractions, seeds)

    def features(encoder: Model) -> Any:
        return probe.features(encoder.method.image_encoder, lambda rows: film_loader(encoder, corpus, rows))

    method = model.made["method"]
    heads = [
        {"encoder": method, "checkpoint": model.made["checkpoint_sha256"], **row} for row in probe.run(features(model))
    ]
    for seed in seeds:
        untrained = fresh(model, seed)
        recalibrate(untrained, corpus)
        own = LinearProbe(corpus, names, protocol, fractions, (seed,))
        checkpoint = untrained.made["checkpoint_sha256"]
        heads += [{"encoder": "random", "checkpoint": checkpoint, **row} for row in own.run(features(untrained))]
    folder = Path(run) / "subsets"
    folder.mkdir(exist_ok=True)
    for head in heads:
        ids = head.pop("subset_ids")
        (folder / f"{head['subset_sha256']}.txt").write_text("\n".join(ids) + "\n")
    found = {}
    for fraction in fractions:
        of_fraction = [head for head in heads if head["fraction"] == fraction]
        found[str(fraction)] = {
            encoder: probe.summarise([head for head in of_fraction if head["encoder"] == encoder], bootstrap)
            for encoder in (method, "random")
        }
    described = {"protocol": protocol, "labels": names}
    return found, [{**described, **{k: v for k, v in head.items() if k != "scores"}} for head in heads]


def print_probe(found: dict[str, Any], method: str, protocol: str) -> None:
    """The table of a linear probe. Its intervals hold the luck of test patients and subsets, not that of training."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "labels", "films", "encoder", "AUROC", "accuracy", "n", title=f"Linear probe, protocol {protocol}, test split"
    )
    for fraction, encoders in found.items():
        for encoder in (method, "random"):
            row = encoders[encoder]
            table.add_row(
                f"{float(fraction):.0%}",
                str(row["train_studies"]),
                encoder,
                f"{plus_minus(row['mean'], row['sd'])} ({row['low']:.3f}-{row['high']:.3f})",
                f"{plus_minus(row['accuracy'], row['accuracy_sd'])}"
                f" ({row['accuracy_low']:.3f}-{row['accuracy_high']:.3f})",
                str(len(row["seeds"])),
            )
    Console().print(table)


def plus_minus(mean: float, sd: float | None) -> str:
    """``0.871 ± 0.004``, or the mean alone where there was one run."""
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def print_numbers(task: str, found: dict[str, dict[str, list[float]]]) -> None:
    """A table of numbers, a column an encoder: mean and spread over several encoders, the interval of a single one."""
    import statistics

    from rich.console import Console
    from rich.table import Table

    table = Table(task, *(f"{name} (n = {len(next(iter(of.values())))})" for name, of in found.items()))
    for key in next(iter(found.values())):
        if key.endswith(("_low", "_high")):
            continue
        cells = []
        for numbers in found.values():
            values = numbers[key]
            cell = plus_minus(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
            if len(values) == 1 and f"{key}_low" in numbers:
                cell += f" ({numbers[f'{key}_low'][0]:.3f}-{numbers[f'{key}_high'][0]:.3f})"
            cells.append(cell)
        table.add_row(key, *cells)
    Console().print(table)
