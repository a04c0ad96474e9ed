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
    """Pre-train CM-CGNS on synthetic images and reports, measure what it learned, and write report.html.

    Args:
        out: folder for everything that the demo writes.
        train: number of synthetic training images.
        val: number of synthetic validation images.
        test: number of synthetic test images.
        size: height and width of the images in pixels.
        epochs: lengths of the two training stages in epochs (default: 4 0.4).
        seed: seed of the training.
        subsets: number of label subsets, and of random encoders, that the linear probe is repeated on.
    """
    from lingula.corpora.synthetic import Synthetic
    from lingula.data.prepared import PreparedCorpus

    started = time.perf_counter()
    print("\n1. Draw the corpus")
    from lingula.commands.prepare import prepare

    corpus_folder, run = out / f"corpus-{train}-{val}-{test}-{size}", out / "run"
    prepare(Synthetic(train, val, test, film_size=size), corpus_folder, size)
    corpus = PreparedCorpus.open(corpus_folder)
    print(f"an example of a report: {' '.join(corpus.reports[0])}")

    print("\n2. Learn")
    from lingula.commands.pretrain import pretrain
    from lingula.registry import UserError

    if (run / "run.json").exists():
        raise UserError(f"{run} holds an earlier demo; delete {out} or choose another --out")
    pretrain(corpus_folder, run, recipe="scratch", image_size=size, epochs=epochs or [4.0, 0.4], seed=seed)

    print("\n3. Measure")
    summary = measure(run, corpus, tuple(range(subsets)))
    print("\n4. Write the report")
    from lingula.commands.report import report
    from lingula.records import write_json

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
    from lingula.commands.evaluate import show as show_task
    from lingula.records import append_rows
    from lingula.runs.measure import describe
    from lingula.runs.measure import measure as measure_task
    from lingula.runs.model import load
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
    from lingula.evaluation.statistics import summarise

    probe: dict[str, dict[str, dict[str, Any]]] = {}
    for (encoder, fraction), cells in found.items():
        mean, sd, low, high, _ = summarise(cells, "auroc")
        seeds, films = [cell.cell.seed for cell in cells], cells[0].notes["train_studies"]
        numbers = {"mean": mean, "sd": sd, "low": low, "high": high, "seeds": seeds, "train_studies": films}
        probe.setdefault(str(fraction), {})[encoder] = numbers
    return probe


def show(summary: dict[str, Any], page: Path) -> None:
    """The figures of ``summary.json`` with what each is to be compared with."""
    from lingula.terminal.plain_table import print_table
    from lingula.terminal.progress import duration

    probe, ranked = summary["probe_auroc"], summary["retrieval_recall_at_5"]
    pointed, swap, pairs = summary["pointing_game"], summary["swap_test"], summary["false_negatives"]
    method = next(name for name in probe if name != "random")

    def interval(row: dict[str, Any]) -> str:
        return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"

    untrained = f"{min(pointed['untrained_runs']):.3f} to {max(pointed['untrained_runs']):.3f}"
    text = pairs["string_equality"]
    caught = "  caught by the clusters"
    body = [
        ["AUROC, linear probe, 10 % of labels", interval(probe[method])],
        ["  with random weights", interval(probe["random"])],
        ["image finds its report, recall at 5 of 200", f"{ranked['value']:.3f}"],
        ["  by chance; at most", f"{ranked['chance']:.3f}; {ranked['ceiling']:.3f}"],
        ["attention points into the finding's box", f"{pointed['value']:.3f}"],
        ["  by chance", f"{pointed['chance']:.3f}"],
        ["  with random weights", f"{pointed['untrained']:.3f} ({untrained})"],
        ["sentence finds its image's representation", f"{swap['right']:.3f}"],
        ["  by chance", f"{swap['chance']:.3f}"],
        ["  with another patient's image", f"{swap['swapped']:.3f}; should be near chance"],
        ["negatives of a batch that mean the same", f"{pairs['share']:.3f}"],
        [f"{caught}, precision", f"{pairs['precision']:.3f}; by equal text {text['precision']:.3f}"],
        [f"{caught}, recall", f"{pairs['recall']:.3f}; by equal text {text['recall']:.3f}"],
    ]
    print_table("What was learned", ["on the test split", "value"], body)
    print(f"{duration(summary['seconds'])}. Open {page}")
