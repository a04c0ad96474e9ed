"""Figures as they stand in a page. Floor 4."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


INK = "#0a0b0c"  # stands in figures for the page's own text colour, so that they read in light and dark
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lingula",
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def draw(label: str, figure_of: Callable[..., Figure | None], *args: Any) -> Markup | None:
    """A figure as SVG that stands in the page and takes its colours; ``None`` where there is nothing to draw."""
    import io

    import matplotlib
    from markupsafe import Markup, escape

    with matplotlib.rc_context(STYLE):
        figure = figure_of(*args)
        if figure is None:
            return None
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns|xmlns:xlink|version)="[^"]*"', "", svg)  # HTML knows them
    svg = re.sub(r'<g id="[a-zA-Z0-9]+_\d+">', "<g>", svg)  # ids are the page's, and several figures share it
    svg = re.sub(
        r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{escape(label)}">', svg
    )
    return Markup(svg.replace("xlink:href", "href").replace(INK, "currentColor"))
