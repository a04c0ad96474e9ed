"""``lingula report``: what a run has learned, on one page that a browser opens without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def report(
    run: Path,
    corpus: Path | None = None,
    films: int = 6,
    clusters: int = 12,
    tsne_films: int = 600,
    seed: int = 0,
    split: Literal["val", "test"] = "test",
    allow: list[str] | None = None,
) -> Path:
    """Write RUN/report.html: how the run was made, what was measured, and films with what their sentences attend to.

    One file without scripts or links, for the screen and for paper. What the run or the corpus does not have is left
    out: results.jsonl comes from `lingula evaluate`, summary.json from `lingula demo`.

    Args:
        run: folder of a trained run.
        corpus: folder of the prepared corpus that the run was trained on (default: where run.json says it is).
        films: number of images shown with the attention of each of their sentences.
        clusters: number of sentence clusters shown, the largest first.
        tsne_films: largest number of images in the t-SNE maps.
        seed: seed of the choice of images and of t-SNE.
        split: split from which images are shown.
        allow: classes outside lingula that may be imported, as `package:Class`; needed for a run of such a method.
    """
    from lingula.pages.report import write_report
    from lingula.registry import trust

    trust(allow)
    return write_report(Path(run), corpus, films, clusters, tsne_films, seed, split)
