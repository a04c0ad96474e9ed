"""Loss terms: one small panel a term, its weighted value over the optimiser's steps, every second stage shaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "train/"
NOT_TERMS = ("gradient_norm",)  # logged beside the terms


def term_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The terms of ``metrics.jsonl``, without their prefix, in the order in which they came."""
    names = dict.fromkeys(key.removeprefix(LOSS) for row in rows for key in row if key.startswith(LOSS))
    return [name for name in names if name not in NOT_TERMS]


def stage_spans(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """``(stage, first step, last step)`` of every stage, stages from 1; a stage starts where the one before ended."""
    ends: dict[int, int] = {}
    for row in rows:
        if "stage" in row:
            ends[row["stage"]] = max(row["step"], ends.get(row["stage"], 0))
    starts = [0, *ends.values()]
    return [(stage, start, end) for (stage, end), start in zip(ends.items(), starts, strict=False)]


def loss_term(rows: Sequence[dict[str, Any]], name: str) -> Figure:
    """One term over the steps, nats or cosines as the method defines it, times its weight.

    Args:
        rows: of ``metrics.jsonl``; those without the term are gaps, where its stage did not ask for it.
        name: of the term.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2, 2.0), layout="constrained")
    axes = figure.subplots()
    logged = [row for row in rows if "stage" in row]
    spans = stage_spans(rows)
    for stage, start, end in spans:
        own = [(row["step"], row.get(LOSS + name)) for row in logged if row["stage"] == stage]
        known = [(step, value) for step, value in own if value is not None]
        if known:
            marker = "o" if len(known) == 1 else None
            axes.plot(*zip(*known, strict=True), color="#2f86c9", marker=marker, markersize=3)
        if stage % 2 == 0:
            axes.axvspan(start, end, color="0.5", alpha=0.15, linewidth=0)
        if len(spans) > 1:
            axes.text((start + end) / 2, 1.0, f"stage {stage}", transform=axes.get_xaxis_transform(), ha="center")
    axes.set_title(name, loc="left", pad=12 if len(spans) > 1 else 6)
    axes.set_xlabel("step")
    axes.set_xlim(0, max((row["step"] for row in logged), default=1) * 1.02)
    return figure
