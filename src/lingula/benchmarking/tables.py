"""Tables of a benchmark in the papers' own shape: methods down, corpora and shares of the labels across.

Mean and standard deviation over seeds, in per cent where the metric lies in [0, 1]; the best of a column in bold, with
a paired test against the runner-up; a paper's own numbers beside ours only where corpus and protocol are the same.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lingula.data.prepared import PreparedCorpus
    from lingula.evaluation.task import Measured

PUBLISHED = Path(__file__).parent.parent / "published.csv"  # CM-CGNS, arXiv:2506.11674, Tables I to III
TITLES = {
    "classification": "Table I: linear classification",
    "detection": "Table II: object detection",
    "segmentation": "Table III: semantic segmentation",
}
RSNA_TEST = {"classification": 0.15, "detection": 0.2, "segmentation": 0.2}  # the field's shares of that corpus
RATES = ("learning_rate", "epochs", "batch_size", "patience")
BEYOND_ONE = ("median_rank", "cnr", "cider")  # metrics that are no share of anything


@dataclass
class Column:
    """One corpus and share of the labels, or one metric of a task that trains nothing.

    Attributes:
        title, share, metric: what is measured.
        cells: by method.
        higher_is_better: which values are.
        paper: ``{method: "87.24 ± 0.38"}`` where a paper has this very number.
        why_not: why there is none of the paper's, where its table has the corpus.
        protocol: its name, and the rates that were changed.
    """

    title: str
    share: str
    metric: str
    cells: dict[str, list[Measured]]
    higher_is_better: bool
    paper: dict[str, str]
    why_not: str = ""
    protocol: str = ""

    @property
    def same_test(self) -> bool:
        """Whether all were measured on the same test studies and labels; else none is the best."""
        key = "labels_never_read" if self.metric == "auroc_words_read" else "test_sha256"  # which labels are left out
        notes = [cell.notes for cells in self.cells.values() for cell in cells]
        return len({(of.get("test_sha256"), str(of.get(key))) for of in notes}) <= 1


@dataclass
class Table:
    """A task."""

    title: str
    columns: list[Column]


def tables_of(
    plan: Any,
    tasks: Sequence[tuple[Any, Any]],
    corpora: Mapping[Path, PreparedCorpus],
    found: Mapping[tuple[str, int], list[Measured]],
) -> list[Table]:
    """One table a task, its columns in the order of the plan."""
    tables: dict[str, Table] = {}
    for number, (entry, task) in enumerate(tasks):
        corpus = corpora[entry.corpus]
        table = tables.setdefault(entry.task, Table(TITLES.get(entry.task, entry.task), []))
        of = {method: found.get((method, number), []) for method in plan.methods}
        metrics = entry.metrics or list(task.higher_is_better)[: 1 if hasattr(task, "fractions") else 3]
        for metric in metrics:
            fractions = dict.fromkeys(c.cell.fraction if c.cell else None for cells in of.values() for c in cells)
            for fraction in fractions:
                own = {
                    method: [c for c in cells if (c.cell.fraction if c.cell else None) == fraction]
                    for method, cells in of.items()
                }
                paper, why_not = published(entry, task, corpus, metric, fraction)
                share = "" if fraction is None else f"{fraction:.3g}" if fraction < 0.01 else f"{fraction:.0%}"
                better = task.higher_is_better[metric]
                used = {c.notes["protocol"]: None for cells in own.values() for c in cells if "protocol" in c.notes}
                title, how = entry.name or corpus.name, _protocol(task, *used)
                table.columns.append(Column(title, share, metric, own, better, paper, why_not, how))
    return [table for table in tables.values() if table.columns]


def _protocol(task: Any, *used: str) -> str:
    """``mgca, epochs 10``: the protocol and where it was departed from; empty for a task without one."""
    changed = [f"{rate} {getattr(task, rate)}" for rate in RATES if getattr(task, rate, None) is not None]
    named = [" and ".join(used) or task.protocol] if hasattr(task, "protocol") else []  # of `auto` what was used
    return ", ".join(named + changed if named else [])


def published(
    entry: Any, task: Any, corpus: PreparedCorpus, metric: str, fraction: float | None
) -> tuple[dict[str, str], str]:
    """``{method: number}`` of the paper's table for this column, and, where it has the corpus, why none may stand here.

    The same means: the reader of the official download, all of its studies and the field's split of them, the field's
    protocol with its own rates and a frozen encoder, and the paper's labels.
    """
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["task"] == entry.task and r["corpus"] == corpus.name]
    if not rows:
        return {}, ""
    rows = [row for row in rows if row["metric"] == metric and float(row["fraction"]) == fraction]
    if not rows:
        return {}, f"the paper's table has no {metric} at this share of the labels"
    if not _has_the_papers_protocol(task, corpus):
        return {}, "another protocol than the paper's"
    short = [line for line in corpus.meta.get("stated", []) if line["found"] != line["count"]]
    if short or not corpus.meta.get("stated"):
        return {}, "not the whole of the corpus that the paper used"
    studies = corpus.meta["studies"]
    share = RSNA_TEST[entry.task] if corpus.name == "rsna-pneumonia" else None
    if share is not None and abs(studies["test"] / sum(studies.values()) - share) > 0.005:
        return {}, "another split than the paper's for this task"
    if not _has_the_papers_labels(task, corpus):
        return {}, "other labels than the paper's"
    return {row["method"]: f"{row['mean']} ± {row['sd']}" if row["mean"] else "below 1" for row in rows}, ""


def _has_the_papers_protocol(task: Any, corpus: PreparedCorpus) -> bool:
    named = getattr(task, "protocol", None) == "mgca" and getattr(task, "encoder", "frozen") == "frozen"
    changed = any(getattr(task, rate, None) is not None for rate in RATES)
    same = getattr(task, "label_policy", "corpus") == "corpus" and getattr(task, "confidence", 0.5) == 0.5
    negatives = "as-many" if corpus.name == "siim-pneumothorax" else "all"
    return named and not changed and same and getattr(task, "negatives", negatives) == negatives


def _has_the_papers_labels(task: Any, corpus: PreparedCorpus) -> bool:
    """The names of CheXpert's five, RSNA's pneumonia, or COVIDx's classes; the others have one thing to look for."""
    asked = list(getattr(task, "labels", None) or corpus.label_names)
    if not hasattr(task, "labels"):
        asked = list(getattr(task, "targets", None) or [task.target])
    if corpus.name == "chexpert":
        return set(asked) == set(corpus.uncertain_as)
    if corpus.name == "rsna-pneumonia":
        return asked == ["pneumonia"]
    if corpus.name == "covidx":
        return set(asked) in ({"class"}, set(corpus.label_groups["class"]))
    return True


def cell_text(cells: Sequence[Measured], metric: str) -> str:
    """``86.3 ± 0.4``, per cent; the mean alone where there was one run; a dash where there was none."""
    from lingula.evaluation.statistics import summarise

    if not cells or any(metric not in cell.numbers for cell in cells):
        return "–"
    summary, scale = summarise(cells, metric), 1 if metric in BEYOND_ONE else 100
    if summary.mean != summary.mean:  # not defined for one of them: a mean of the others would be of something else
        return "–"
    sd = "" if summary.sd is None else f" ± {scale * summary.sd:.2f}"
    return f"{scale * summary.mean:.2f}{sd}"


def ranking(column: Column) -> list[str]:
    """The methods with a number, best first; none where they were not measured on the same test studies."""
    from lingula.evaluation.statistics import summarise

    if not column.same_test:
        return []

    means = {
        method: summarise(cells, column.metric).mean
        for method, cells in column.cells.items()
        if cells and all(column.metric in cell.numbers for cell in cells)
    }
    known = [method for method, mean in means.items() if mean == mean]
    return sorted(known, key=lambda method: means[method], reverse=column.higher_is_better)


def test_text(column: Column) -> str:
    """The paired test of the best against the runner-up: ``p = 0.012``; a dash where there are not two."""
    from lingula.evaluation.statistics import compare

    order = ranking(column)
    if len(order) < 2 or column.metric not in column.cells[order[0]][0].replicates:
        return "–"
    p = compare(column.cells[order[0]], column.cells[order[1]], column.metric).p
    return "–" if p != p else f"p = {p:.3f}"


def lines(table: Table) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """The heading, and the lines of a table: cells as ``(text, style)``, the style ``bold`` for the best."""
    columns = table.columns
    heading = ["method", *(f"{c.title} {c.share} ({c.metric})".replace("  ", " ") for c in columns)]
    best = [next(iter(ranking(column)), None) for column in columns]
    body = []
    for method in dict.fromkeys(method for column in columns for method in column.cells):
        texts = [cell_text(column.cells.get(method, []), column.metric) for column in columns]
        body.append([(method, ""), *((t, "bold" if method == b else "") for t, b in zip(texts, best, strict=True))])
    body.append([("best against runner-up", ""), *((test_text(column), "") for column in columns)])
    for method in dict.fromkeys(method for column in columns for method in column.paper):
        body.append([(f"{method}, as CM-CGNS prints it", ""), *((c.paper.get(method, ""), "") for c in columns)])
    return heading, body


def notes(table: Table) -> list[str]:
    """What a reader must know of a table's numbers."""
    counts = sorted({len(own) for column in table.columns for own in column.cells.values() if own})
    seeds = f"n = {' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} seeds" if counts else ""
    said = [f"Mean ± standard deviation, per cent but for {', '.join(BEYOND_ONE)}; {seeds} of subset and head;"]
    said[0] += f" {_pretrainings(table)}. Best in bold; p of a paired test: bootstrap over test patients, t over seeds."
    protocols = dict.fromkeys(f"{column.title}: {column.protocol}" for column in table.columns if column.protocol)
    if protocols:
        said.append(f"Protocols: {'; '.join(protocols)}.")
    why = {f"{column.title}: {column.why_not}" for column in table.columns if column.why_not}
    if why:
        said.append(f"Without the paper's numbers: {'; '.join(sorted(why))}.")
    if any(column.paper for column in table.columns):
        said.append("The paper's own numbers come from code that measures otherwise in places: see docs/tasks.md.")
    other = [f"{column.title} {column.share} ({column.metric})" for column in table.columns if not column.same_test]
    if other:
        said.append(f"Not ranked: the methods were measured on different test studies or labels: {', '.join(other)}.")
    remarks = dict.fromkeys(
        f"{column.title}: {remark}."
        for column in table.columns
        for cells in column.cells.values()
        for cell in cells
        for remark in cell.notes.get("remarks", ())
    )
    said += remarks
    return said


def _pretrainings(table: Table) -> str:
    """How many pre-trainings a method's numbers come from."""
    counts = {
        len({cell.notes["checkpoint"] for cell in cells})
        for column in table.columns
        for cells in column.cells.values()
        if cells
        and all("checkpoint" in cell.notes for cell in cells)
        and not str(cells[0].notes["checkpoint"]).startswith("random-")
    }
    if counts <= {1}:
        return "one pre-training a method"
    return f"{' or '.join(map(str, sorted(counts)))} pre-trainings a method, each with its own seed"


def print_tables(tables: Sequence[Table]) -> None:
    """To the terminal, in parts where that is too narrow."""
    import textwrap

    from lingula.terminal.help import width
    from lingula.terminal.plain_table import print_table

    for table in tables:
        print_table(table.title, *lines(table))
        for note in notes(table):
            print(textwrap.fill(note, width(), initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))


def markdown(tables: Sequence[Table]) -> str:
    """The same as Markdown."""
    parts = []
    for table in tables:
        heading, body = lines(table)
        rows = [[_escaped(text) for text in heading], ["---"] * len(heading)]
        rows += [[f"**{_escaped(text)}**" if style else _escaped(text) for text, style in line] for line in body]
        parts.append(f"## {table.title}\n")
        parts += ["| " + " | ".join(row) + " |" for row in rows]
        parts += ["", *(f"- {_escaped(note)}" for note in notes(table)), ""]
    return "\n".join([*parts, "For research use only.", ""])


def _escaped(text: str) -> str:
    """Without what Markdown would take for a column, emphasis or a link."""
    return "".join(f"\\{letter}" if letter in "|*`<[\\" else letter for letter in " ".join(text.split()))
