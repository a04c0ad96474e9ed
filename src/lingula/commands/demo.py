"""``lingula demo``: the whole path on the synthetic corpus, in minutes on two CPU cores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

SWAP = ("right", "swapped", "chance")


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
    from lingula.api import load
    from lingula.commands.evaluate import describe
    from lingula.commands.evaluate import measure as measure_task
    from lingula.commands.evaluate import show as show_task
    from lingula.results import append_rows
    from lingula.tasks.classification import Classification
    from lingula.tasks.false_negatives import FalseNegatives
    from lingula.tasks.grounding import Grounding
    from lingula.tasks.retrieval import Retrieval
    from lingula.tasks.swap_test import SwapTest

    model = load(run)
    found = {}
    for task, baseline in (
        (Classification(protocol="logistic"), True),
        (Retrieval(), False),
        (Grounding(), True),
        (SwapTest(), False),
        (FalseNegatives(), False),
    ):
        about = describe(task, corpus)
        of_task = found[about["task"]] = measure_task(task, model, corpus, seeds, 1000, baseline)
        append_rows(run / "results.jsonl", [{**about, **cell.row()} for cells in of_task.values() for cell in cells])
    show_task("classification", Classification.higher_is_better, found["classification"])

    def row(task: str) -> dict[str, Any]:
        numbers: dict[str, Any] = found[task][model.name, None][0].row()
        return numbers

    probe = of_probe(found["classification"])
    ranked, pointed, swapped, detected = (row(t) for t in ("retrieval", "grounding", "swap-test", "false-negatives"))
    untrained = [cell.numbers["pointing"] for cell in found["grounding"]["random", None]]
    return {
        "probe_auroc": probe["0.1"],
        "probe_auroc_by_fraction": probe,
        "retrieval_recall_at_5": {
            "value": ranked["recall_at_5"],
            "low": ranked["recall_at_5_low"],
            "high": ranked["recall_at_5_high"],
            "chance": ranked["chance_at_5"],
            "ceiling": ranked.get("ceiling_at_5"),
        },
        "pointing_game": {
            "value": pointed["pointing"],
            "low": pointed["pointing_low"],
            "high": pointed["pointing_high"],
            "chance": pointed["chance"],
            "untrained": sum(untrained) / len(untrained),
            "untrained_runs": untrained,
        },
        "swap_test": {key: value for key, value in swapped.items() if key.split("_")[0] in SWAP},
        "false_negatives": {
            "share": detected["share"],
            "precision": detected["precision"],
            "recall": detected["recall"],
            "string_equality": {"precision": detected["string_precision"], "recall": detected["string_recall"]},
        },
    }


def of_probe(found: dict[tuple[str, float | None], list[Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """``{fraction: {encoder: mean, sd, low, high, seeds, train_studies}}`` of the AUROC."""
    from lingula.evaluation import summarise

    probe: dict[str, dict[str, dict[str, Any]]] = {}
    for (encoder, fraction), cells in found.items():
        mean, sd, low, high, _ = summarise(cells, "auroc")
        seeds, films = [cell.cell.seed for cell in cells], cells[0].notes["train_studies"]
        numbers = {"mean": mean, "sd": sd, "low": low, "high": high, "seeds": seeds, "train_studies": films}
        probe.setdefault(str(fraction), {})[encoder] = numbers
    return probe


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
