"""Validation retrieval over the steps: recall at 5 in both directions, between chance and the corpus's own ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("val/recall_at_5", "film to report", {"color": "#2f86c9", "marker": "o"}),
    ("val/report_to_film_recall_at_5", "report to film", {"color": "#d9822b", "marker": "s"}),
    ("val/ceiling_at_5", "ceiling", {"color": "0.5", "linestyle": "--"}),
    ("val/chance_at_5", "chance", {"color": "0.5", "linestyle": ":"}),
)


def validation_retrieval(rows: Sequence[dict[str, Any]]) -> Figure | None:
    """Recall at 5 over the steps; ``None`` where nothing was validated.

    Args:
        rows: of ``metrics.jsonl``.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.get("val/recall_at_5") is not None]
    if not rows:
        return None
    figure = Figure(figsize=(3.2, 2.0), layout="constrained")
    axes = figure.subplots()
    for key, label, style in LINES:
        known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if not known:
            continue
        if "linestyle" in style:  # a property of the corpus, not of a step
            axes.axhline(known[-1][1], label=f"{label} {known[-1][1]:.2f}", linewidth=1.2, **style)
        else:
            axes.plot(*zip(*known, strict=True), label=label, markersize=3, **style)
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.set_title("recall at 5, validation", loc="left")
    axes.set_xlabel("step")
    figure.legend(loc="outside lower center", ncols=2, handlelength=1.5, columnspacing=1.0)
    return figure
