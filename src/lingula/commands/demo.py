"""``lingula demo``: the whole path on the synthetic corpus, in minutes on two CPU cores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def demo(
    out: Path = Path("demo"),
    train: int = 5000,
    val: int = 200,
    test: int = 1000,
    size: int = 96,
    epochs: list[float] | None = None,
    seed: int = 0,
    subsets: int = 3,
) -> dict[str, Any]:
    """Pre-train CM-CGNS on synthetic films and reports, measure what it learned, and write report.html.

    Args:
        out: folder of everything that the demo makes.
        train: synthetic training films.
        val: synthetic validation films.
        test: synthetic test films.
        size: of the films, pixels.
        epochs: of the two stages.
        seed: of the training.
        subsets: label subsets, and random encoders, that the probe is repeated over.
    """
    from rich.console import Console

    from lingula.corpora.synthetic import Synthetic
    from lingula.data.prepared import PreparedCorpus

    console = Console()
    started = time.perf_counter()
    console.rule("1  draw the corpus")
    from lingula.commands.prepare import prepare

    corpus_folder, run = out / f"corpus-{train}-{val}-{test}-{size}", out / "run"
    prepare(Synthetic(train, val, test, film_size=size), corpus_folder, size)
    corpus = PreparedCorpus.open(corpus_folder)
    console.print(f"   e.g. {' '.join(corpus.reports[0])}")

    console.rule("2  learn")
    from lingula.commands.pretrain import pretrain
    from lingula.registry import UserError

    if (run / "run.json").exists():
        raise UserError(f"{run} holds an earlier demo; delete {out} or choose another --out")
    pretrain(corpus_folder, run, recipe="scratch", image_size=size, epochs=epochs or [4.0, 0.4], seed=seed)

    console.rule("3  measure")
    summary = measure(run, corpus, tuple(range(subsets)))
    console.rule("4  show")
    from lingula.commands.report import report
    from lingula.results import write_json

    summary["seconds"] = round(time.perf_counter() - started, 1)
    write_json(run / "summary.json", summary)
    page = report(run, corpus_folder)
    summary["seconds"] = round(time.perf_counter() - started, 1)
    write_json(run / "summary.json", summary)
    write_json(out / "summary.json", summary)
    show(summary, page)
    return summary


def measure(run: Path, corpus: Any, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Everything that ``summary.json`` holds but the seconds, measured on the test split; rows in ``results.jsonl``."""
    from lingula.api import fresh, load
    from lingula.commands.evaluate import classify, loader_of, print_probe, recalibrate
    from lingula.results import append_rows
    from lingula.tasks.false_negatives import false_negatives
    from lingula.tasks.pointing import pointing
    from lingula.tasks.retrieval import retrieval
    from lingula.tasks.swap_test import swap_test

    model = load(run)
    batch_size = model.made["plan"]["batch_size"]
    found, heads = classify(model, corpus, None, "logistic", (0.01, 0.1, 1.0), seeds, 1000, run)
    print_probe(found, model.made["method"], "logistic")
    loader = loader_of(model, corpus, "test", batch_size)
    ranked = retrieval(model.method, loader)
    pointed = pointing(model.method, loader)
    untrained = []
    for seed in seeds:
        other = fresh(model, seed)
        recalibrate(other, corpus)
        untrained.append(pointing(other.method, loader))
    swapped = swap_test(model.method, loader)
    detected = false_negatives(model.method, loader)
    about = {"corpus": corpus.name, "corpus_fingerprint": corpus.fingerprint, "split": "test"}
    encoder = {"encoder": model.made["method"], "checkpoint": model.made["checkpoint_sha256"]}
    append_rows(
        run / "results.jsonl",
        [{"task": "classification", **about, **head} for head in heads]
        + [
            {"task": "pointing", "encoder": "random", "seed": s, **about, **u}
            for s, u in zip(seeds, untrained, strict=True)
        ]
        + [
            {"task": task, **encoder, **about, **numbers}
            for task, numbers in (
                ("retrieval", ranked),
                ("pointing", pointed),
                ("swap-test", swapped),
                ("false-negatives", detected),
            )
        ],
    )
    return {
        "probe_auroc": {name: _of_probe(row) for name, row in found["0.1"].items()},
        "probe_auroc_by_fraction": found,
        "retrieval_recall_at_5": {
            "value": ranked["recall_at_5"],
            "low": ranked["recall_at_5_low"],
            "high": ranked["recall_at_5_high"],
            "chance": ranked["chance_at_5"],
            "ceiling": ranked.get("ceiling_at_5"),
        },
        "pointing_game": {
            "value": pointed["value"],
            "low": pointed["value_low"],
            "high": pointed["value_high"],
            "chance": pointed["chance"],
            "untrained": sum(u["value"] for u in untrained) / len(untrained),
            "untrained_runs": [u["value"] for u in untrained],
        },
        "swap_test": {key: value for key, value in swapped.items() if key != "sentences"},
        "false_negatives": {
            "share": detected["share"],
            "precision": detected["precision"],
            "recall": detected["recall"],
            "string_equality": {"precision": detected["string_precision"], "recall": detected["string_recall"]},
        },
    }


def _of_probe(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("mean", "low", "high", "seeds", "sd", "train_studies")}


def show(summary: dict[str, Any], page: Path) -> None:
    """The figures of ``summary.json`` with what each is to be compared with."""
    from rich.console import Console
    from rich.table import Table

    probe, ranked = summary["probe_auroc"], summary["retrieval_recall_at_5"]
    pointed, swap, pairs = summary["pointing_game"], summary["swap_test"], summary["false_negatives"]
    method = next(name for name in probe if name != "random")
    table = Table("measured on the test split", "value", "compare with", title="What was learned")

    def interval(row: dict[str, Any]) -> str:
        return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"

    table.add_row(
        "linear probe, AUROC, 10 % of labels", interval(probe[method]), f"random weights {interval(probe['random'])}"
    )
    table.add_row(
        "film finds its report, recall at 5 of 200",
        f"{ranked['value']:.3f}",
        f"chance {ranked['chance']:.3f}, ceiling {ranked['ceiling']:.3f}",
    )
    table.add_row(
        "attention points into the finding's box",
        f"{pointed['value']:.3f}",
        f"chance {pointed['chance']:.3f}, untrained {pointed['untrained']:.3f} "
        f"({min(pointed['untrained_runs']):.3f} to {max(pointed['untrained_runs']):.3f})",
    )
    table.add_row(
        "sentence finds its film's representation",
        f"{swap['right']:.3f}",
        f"chance {swap['chance']:.3f}",
    )
    table.add_row("  ... made from another patient's film", f"{swap['swapped']:.3f}", "should be near chance")
    table.add_row("negatives of a batch that mean the same", f"{pairs['share']:.3f}", "")
    table.add_row(
        "  ... caught by the clusters, precision / recall",
        f"{pairs['precision']:.3f} / {pairs['recall']:.3f}",
        f"equal text {pairs['string_equality']['precision']:.3f} / {pairs['string_equality']['recall']:.3f}",
    )
    console = Console()
    console.print(table)
    console.print(f"{summary['seconds']:.0f} s. Open {page}")
