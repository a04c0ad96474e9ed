"""What a run has learned, on one page that a browser opens without a network. Floor 4."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingula.pages.figures import draw
from lingula.pages.images import colour_bar, film_figures
from lingula.pages.maps import cluster_words, tsne_maps
from lingula.registry import UserError

if TYPE_CHECKING:
    from markupsafe import Markup

    from lingula.data.prepared import PreparedCorpus
    from lingula.runs.model import Model


def write_report(
    run: Path, corpus: Path | None, films: int, clusters: int, tsne_films: int, seed: int, split: str
) -> Path:
    """Write RUN/report.html; the arguments are those of :func:`lingula.commands.report.report`.

    Raises:
        UserError: for a count below 0, a corpus that the run was not trained on, or a split that it does not have.
    """
    import jinja2

    from lingula import __version__
    from lingula.data.tokens import MAX_TOKENS, tokenise_corpus
    from lingula.plots.results_table import result_tables
    from lingula.records import read_rows
    from lingula.runs.model import load

    started = time.perf_counter()
    for name, value in (("films", films), ("clusters", clusters), ("tsne_films", tsne_films)):
        if value < 0:
            raise UserError(f"{name} must be at least 0, got {value}")
    model = load(run)
    prepared = open_corpus(model.made, corpus)
    rows = prepared.rows(split)
    if not len(rows):
        there = [name for name, count in prepared.meta["studies"].items() if count]
        raise UserError(f"corpus {prepared.name} has no {split} split; it has: {', '.join(there)}")
    tokens, told = None, rows[:0]
    if model.tokenizer is not None:
        tokens = tokenise_corpus(prepared, model.tokenizer, min(MAX_TOKENS, model.method.text_encoder.max_tokens))
        told = rows[tokens.sentences[rows] > 0]  # the films with a report
    metrics = list(read_rows(run / "metrics.jsonl"))
    summary = read_summary(run)

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("lingula", "pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = templates.get_template("report.html.j2").render(
        run=run.resolve().name,
        version=__version__,
        made=model.made,
        facts=facts(model, prepared, metrics),
        tiles=summary_tiles(summary),
        seconds=summary.get("seconds"),
        fractions=label_fractions(summary),
        results=result_tables(list(read_rows(run / "results.jsonl")), model.made["checkpoint_sha256"]),
        curves=curves(metrics),
        films=film_figures(model, prepared, tokens, told, films, seed),
        colour_bar=colour_bar(),
        maps=tsne_maps(model, prepared, rows, tsne_films, seed),
        clusters=cluster_words(model, prepared, tokens, told, clusters, seed),
        split=split,
        seed=seed,
    )
    path = run / "report.html"
    partial = run / "report.html.partial"
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - started:.0f} s")
    return path


def open_corpus(made: dict[str, Any], folder: Path | None) -> PreparedCorpus:
    """The corpus that the run was trained on.

    Raises:
        UserError: if it is not there, or is another one.
    """
    from lingula.data.prepared import PreparedCorpus

    prepared = PreparedCorpus.open(folder or made["corpus"]["folder"])
    if prepared.fingerprint != made["corpus"]["fingerprint"]:
        raise UserError(
            f"the run was trained on another corpus than {prepared.folder}: expected {made['corpus']['name']} with "
            f"fingerprint {made['corpus']['fingerprint'][:12]}, got {prepared.name} with {prepared.fingerprint[:12]}"
        )
    return prepared


def read_summary(run: Path) -> dict[str, Any]:
    """``summary.json``; empty where there is none.

    Raises:
        UserError: if it is no JSON object.
    """
    import json

    path = run / "summary.json"
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise UserError(f"{path} is damaged ({err}); delete it or measure again") from err
    if not isinstance(summary, dict):
        raise UserError(f"{path} is damaged (expected an object, got {type(summary).__name__}); measure again")
    return summary


def facts(model: Model, corpus: PreparedCorpus, metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """How the run was made, as name and value."""
    made = model.made
    minutes = training_seconds(metrics) / 60
    steps = max((row["step"] for row in metrics), default=0)
    counts = ", ".join(f"{count:,} {name}" for name, count in corpus.meta["studies"].items())
    encoders = f"{made['image_encoder'] or 'its own'} at {made['image_size']} px"
    if made["text_encoder_name"] is not None:
        encoders += f", {made['text_encoder_name']}"
    processes = f"{made['processes']} process{'es' * (made['processes'] > 1)}"
    found = [
        ("method", f"{made['method']}, recipe {made['recipe']}"),
        ("encoders", encoders + ("" if made["plan"]["pretrained"] else ", from random weights")),
        ("corpus", f"{corpus.name}: {counts} studies; fingerprint {corpus.fingerprint[:12]}"),
        ("licence of the corpus", str(corpus.meta.get("licence", ""))),
        ("training", f"{steps:,} steps" + (f" in {minutes:.1f} minutes" if minutes else "")),
        ("machine", f"{made.get('machine', '')}, {made['precision']}, {processes}"),
        ("seed", str(made["seed"])),
        ("started", str(made.get("started", ""))),
        ("versions", f"lingula {made.get('lingula')}, torch {made.get('torch')}, Python {made.get('python')}"),
        ("checkpoint (SHA-256)", made["checkpoint_sha256"]),
        ("command", str(made.get("command", ""))),
    ]
    return [(name, value) for name, value in found if value]


def training_seconds(metrics: list[dict[str, Any]]) -> float:
    """Seconds of training: the clock starts again whenever a run is resumed, so the parts are added."""
    total = last = 0.0
    for row in metrics:
        now = row.get("seconds", last)
        if now < last:
            total += last
        last = now
    return total + last


def summary_tiles(summary: dict[str, Any]) -> list[tuple[Any, Markup | None]]:
    """Each tile with its bars drawn."""
    from lingula.plots.summary import bars, tiles

    def words(tile: Any) -> str:
        return f"{tile.title}: " + ", ".join(f"{bar.name} {bar.value:.3f}" for bar in tile.bars)

    return [(tile, draw(words(tile), bars, tile.bars)) for tile in tiles(summary)]


def label_fractions(summary: dict[str, Any]) -> Markup | None:
    """The probe over the shares of the labels."""
    from lingula.plots.label_fractions import label_fractions as figure

    found = summary.get("probe_auroc_by_fraction")
    return draw("AUROC of the linear probe by share of the labels", figure, found) if found else None


def curves(metrics: list[dict[str, Any]]) -> list[Markup]:
    """One panel a loss term, and validation."""
    from lingula.plots.loss_terms import loss_term, term_names
    from lingula.plots.validation import validation_retrieval

    drawn = [draw(f"loss term {name} over the steps", loss_term, metrics, name) for name in term_names(metrics)]
    drawn.append(draw("validation recall at 5 over the steps", validation_retrieval, metrics))
    return [figure for figure in drawn if figure is not None]
