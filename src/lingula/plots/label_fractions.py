"""Linear probe over shares of the labels: AUROC with its 95 % interval, trained beside random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def label_fractions(found: dict[str, dict[str, dict[str, Any]]]) -> Figure:
    """One place a share of the labels, one mark an encoder.

    Args:
        found: ``{share: {encoder: {mean, low, high, train_studies}}}``, shares as strings in (0, 1], the encoder with
            random weights called ``random``.
    """
    from matplotlib.figure import Figure

    shares = sorted(found, key=float)
    encoders = dict.fromkeys(encoder for share in shares for encoder in found[share])
    figure = Figure(figsize=(3.4, 2.2), layout="constrained")
    axes = figure.subplots()
    for place, encoder in enumerate(sorted(encoders, key=lambda name: name == "random")):
        rows = [(x, found[share][encoder]) for x, share in enumerate(shares) if encoder in found[share]]
        rows = [(x, row) for x, row in rows if row.get("mean") is not None]
        means = [row["mean"] for _, row in rows]
        # An interval that is not known is drawn as none.
        low = [row["mean"] - row["low"] if row.get("low") is not None else 0.0 for _, row in rows]
        high = [row["high"] - row["mean"] if row.get("high") is not None else 0.0 for _, row in rows]
        style: dict[str, Any] = {"color": "#2f86c9", "marker": "o"}
        if encoder == "random":
            style = {"color": "0.5", "marker": "s", "linestyle": "--"}
        x = [x + 0.06 * (place - 0.5) for x, _ in rows]
        label = "random weights" if encoder == "random" else encoder
        yerr = [[max(0.0, value) for value in side] for side in (low, high)]
        axes.errorbar(x, means, yerr=yerr, label=label, capsize=3, markersize=4, **style)
    axes.axhline(0.5, color="0.5", linestyle=":", linewidth=1.2, label="chance")
    films = [next(iter(found[share].values())).get("train_studies") for share in shares]
    ticks = [
        f"{float(share):.3g}" if n is None else f"{float(share):.0%}\n{n:,} films"
        for share, n in zip(shares, films, strict=True)
    ]
    axes.set_xticks(range(len(shares)), ticks)
    axes.set_xlim(-0.4, len(shares) - 0.6)
    axes.set_ylim(top=1.0)
    axes.set_title("AUROC by share of the labels", loc="left")
    figure.legend(loc="outside lower center", ncols=3, handlelength=1.5, columnspacing=1.0)
    return figure
