"""``lingula report``: what a run has learned, on one page that a browser opens without a network."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lingula.registry import UserError

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from lingula.api import Model
    from lingula.data.loader import Loader
    from lingula.data.prepared import PreparedCorpus
    from lingula.data.tokens import Tokens
    from lingula.plots.attention import FilmFigure

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
SIDE = 320  # pixels: the longest side at which films are shown
BATCHES = 4  # of sentences that are clustered together


def report(
    run: Path,
    corpus: Path | None = None,
    films: int = 6,
    clusters: int = 12,
    tsne_films: int = 600,
    seed: int = 0,
    split: Literal["val", "test"] = "test",
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
    """
    import jinja2

    from lingula import __version__
    from lingula.api import load
    from lingula.data.tokens import MAX_TOKENS, tokenise
    from lingula.plots.results_table import result_tables
    from lingula.results import read_rows

    started = time.perf_counter()
    run = Path(run)
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
        tokens = tokenise(prepared.reports, model.tokenizer, min(MAX_TOKENS, model.method.text_encoder.max_tokens))
        told = rows[tokens.sentences[rows] > 0]  # the films with a report
    metrics = list(read_rows(run / "metrics.jsonl"))
    summary = read_summary(run)

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("lingula", "commands"),
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


# Drawing --------------------------------------------------------------------------------------------------------------


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


# How the run was made -------------------------------------------------------------------------------------------------


def facts(model: Model, corpus: PreparedCorpus, metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """How the run was made, as name and value."""
    made = model.made
    minutes = training_seconds(metrics) / 60
    steps = max((row["step"] for row in metrics), default=0)
    counts = ", ".join(f"{count:,} {name}" for name, count in corpus.meta["studies"].items())
    encoders = f"{made['image_encoder']} at {made['image_size']} px"
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


# What was measured ----------------------------------------------------------------------------------------------------


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


# Films and their sentences --------------------------------------------------------------------------------------------


def loader_over(model: Model, corpus: PreparedCorpus, tokens: Tokens, rows: np.ndarray, batch_size: int) -> Loader:
    """Films and reports of these rows, in their order, as in evaluation."""
    from lingula.data.loader import Loader

    made = model.made
    return Loader(corpus, rows, made["image_size"], made["resize_to"], batch_size, tokens, device=model.device)


def choose_films(corpus: PreparedCorpus, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of films to show: at random, those with several findings first; all alike where no labels are known.

    Chosen before anyone has looked at what the model does with them.
    """
    order = np.random.default_rng(seed).permutation(rows)
    findings = (corpus.labels(findings_of(corpus))[order] == 1).sum(1)
    return order[np.argsort(-findings.clip(max=2), kind="stable")][:count]


def findings_of(corpus: PreparedCorpus) -> list[str]:
    """The labels that say that something is to be seen: not ``normal``, not ``No Finding``."""
    from lingula.findings import is_finding

    return [name for name in corpus.label_names if is_finding(name, corpus.name)]


def film_figures(
    model: Model, corpus: PreparedCorpus, tokens: Tokens | None, rows: np.ndarray, count: int, seed: int
) -> list[FilmFigure]:
    """Films with one heat map a sentence, the box where it is known, and the cell of highest weight."""
    import torch

    chosen = choose_films(corpus, rows, count, seed)
    if tokens is None or not len(chosen):
        return []
    loader = loader_over(model, corpus, tokens, chosen, len(chosen))
    batch = loader.batch(0)
    assert batch.reports is not None
    with torch.inference_mode():
        maps = model.method.attention_maps(batch.image, batch.reports).float().cpu()
    weights, grid = maps.flatten(1), (maps.shape[1], maps.shape[2])
    places = torch.bincount(batch.reports.report_of_sentence.cpu(), minlength=len(chosen)).cumsum(0).tolist()
    boxes = sentence_boxes(loader, batch)
    return [
        one_film(loader, int(row), weights[start:end], boxes[start:end], grid)
        for row, start, end in zip(chosen, [0, *places], places, strict=False)
    ]


def sentence_boxes(loader: Loader, batch: Any) -> list[np.ndarray | None]:
    """For each of the batch's N sentences its finding's box in pixels of the encoder's film, where it is known."""
    import torch

    from lingula.tasks.grounding import boxes_of_batch

    reports = batch.reports
    counts = torch.bincount(reports.report_of_sentence.cpu(), minlength=len(batch))
    boxes: list[np.ndarray | None] = [None] * reports.sentence_count
    for place, _, box in boxes_of_batch(loader, batch.rows.cpu(), counts):
        boxes[place] = box
    return boxes


def one_film(
    loader: Loader, row: int, weights: Any, boxes: list[np.ndarray | None], grid: tuple[int, int]
) -> FilmFigure:
    """A film at its own aspect, at most :data:`SIDE` pixels long, with its sentences' maps and boxes on it.

    Args:
        loader: whose crop the encoder saw.
        row: of the film.
        weights: ``(S, P)``.
        boxes: S boxes in pixels of the encoder's film.
        grid: ``(h, w)`` of the patches.
    """
    from PIL import Image

    from lingula.api import on_original
    from lingula.data.image import Geometry
    from lingula.plots.attention import film_figure
    from lingula.tasks.grounding import cells_touched

    corpus, size, (h, w) = loader.corpus, loader.image_size, grid
    study = corpus.index.iloc[row]
    side = min(corpus.size, SIDE)  # of the prepared square as it is shown; then its empty margins are cut off
    scale, offset = loader.resize_to / side, (loader.resize_to - size) // 2
    geometry = Geometry(study["scale"], study["pad_x"], study["pad_y"], study["height"], study["width"])
    top, left, rows, columns = (
        round(value * side / corpus.size) for value in (geometry.pad_y, geometry.pad_x, *geometry.shape)
    )
    inside = np.s_[..., top : top + rows, left : left + columns]
    film = np.asarray(Image.fromarray(corpus.pixels[row]).resize((side, side), Image.Resampling.BOX))[inside]
    maps = on_original(weights.unflatten(1, grid), Geometry(scale, 0, 0, side, side), size, offset)[inside]

    def on_film(box: np.ndarray) -> np.ndarray:
        """Pixels of the encoder's film to pixels of the film that is shown."""
        return (np.asarray(box) + offset) / scale - [left, top, left, top]

    highest = weights.argmax(1).numpy()
    y, x = np.divmod(highest, w)
    cells = np.stack([x * size / w, y * size / h, (x + 1) * size / w, (y + 1) * size / h], axis=1)
    hits = [
        None if box is None else bool(cells_touched(box, grid, size)[cell])
        for box, cell in zip(boxes, highest, strict=True)
    ]
    names = findings_of(corpus)
    labels = corpus.labels(names)[row]
    findings = [name.replace("_", " ") for name, value in zip(names, labels, strict=True) if value == 1]
    return film_figure(
        ", ".join([str(study["study_id"]), *findings]),
        film,
        maps,
        corpus.reports[row][: len(weights)],
        on_film(cells),
        weights.amax(1).numpy(),
        [None if box is None else on_film(box) for box in boxes],
        hits,
    )


def colour_bar() -> str:
    """The colour scale as a data URI."""
    from lingula.plots.attention import colour_bar as picture

    return picture()


# Features and clusters ------------------------------------------------------------------------------------------------


class Map(NamedTuple):
    """A t-SNE map and its share of nearest neighbours with the same label; ``films`` on it, and what chance gives."""

    svg: Markup | None
    title: str
    agreement: float
    chance: float
    films: int


def tsne_maps(model: Model, corpus: PreparedCorpus, rows: np.ndarray, most: int, seed: int) -> list[Map]:
    """The trained features and those of random weights, on the same films; nothing where too few have one label."""
    from lingula.api import fresh
    from lingula.commands.evaluate import recalibrate
    from lingula.evaluation import film_loader
    from lingula.plots.tsne import chance_agreement, neighbour_agreement, project, scatter, singly_labelled
    from lingula.tasks.classification import extract_features

    classes = {name for group in corpus.label_groups.values() for name in group}  # of these, "normal" is one as well
    groups = [name for name in corpus.label_names if name in classes or name in findings_of(corpus)]
    if not groups:
        return []
    films, label, columns = singly_labelled(corpus.labels(groups)[rows])
    drawn = np.sort(np.random.default_rng(seed).permutation(len(films))[:most])
    films, label = films[drawn], label[drawn]
    if len(films) < 5 or len(np.unique(label)) < 2:
        return []
    names = [groups[column] for column in columns]
    of_film = [groups[column] for column in label]
    untrained = fresh(model, seed)
    recalibrate(untrained, corpus)
    maps = []
    for title, encoder in ((model.made["method"], model), ("random weights", untrained)):
        features = extract_features(encoder.method.image_encoder, film_loader(encoder, corpus, rows[films]))
        svg = draw(f"t-SNE of image features, {title}", scatter, project(features, seed), of_film, names, title)
        maps.append(Map(svg, title, neighbour_agreement(features, label), chance_agreement(label), len(films)))
    return maps


class Clustered(NamedTuple):
    """``shown``: the largest of ``clusters`` over ``sentences`` of ``films``; purity of all, and of one cluster."""

    shown: list[Any]
    clusters: int
    sentences: int
    films: int
    purity: float
    base: float


def cluster_words(
    model: Model, corpus: PreparedCorpus, tokens: Tokens | None, rows: np.ndarray, show: int, seed: int
) -> Clustered | None:
    """The method's own clusters of the cross-modal representations, in words; ``None`` where it makes none."""
    import torch

    from lingula.losses.cosine import cosine
    from lingula.plots.clusters import largest_clusters, purity

    method = model.method
    if show == 0 or tokens is None or not hasattr(method, "find_clusters"):
        return None
    batch_size = model.made["plan"]["batch_size"]
    some = np.sort(np.random.default_rng(seed).permutation(rows)[: BATCHES * batch_size])
    if tokens.sentences[some].sum() < 4:
        return None
    made, keys, reports = [], [], []
    with torch.inference_mode():
        for batch in loader_over(model, corpus, tokens, some, batch_size):
            assert batch.reports is not None
            made.append(method.attend(batch.image, batch.reports).image_to_report.float())
            keys.append(batch.reports.sentence_key)
            reports.append(batch.rows[batch.reports.report_of_sentence])
        cross_modal, key, report_of = torch.cat(made), torch.cat(keys), torch.cat(reports).cpu().numpy()
        centres, assignment, exist = method.find_clusters(cross_modal, key, seed)
        if exist is not None and not bool(exist):
            return None
        similarity = cosine(cross_modal, centres).gather(1, assignment[:, None])[:, 0].cpu().numpy()
    cluster = assignment.cpu().numpy()
    places = (key.cpu().numpy() - tokens.first_sentence[report_of]).tolist()
    texts = [corpus.reports[row][place] for row, place in zip(report_of, places, strict=True)]
    meaning_of = corpus.index["meanings"].to_numpy()
    meanings = [meaning_of[row][place] for row, place in zip(report_of, places, strict=True)]
    shown = largest_clusters(similarity, cluster, texts, meanings, report_of, show)
    return Clustered(shown, len(np.unique(cluster)), len(texts), len(some), *purity(cluster, meanings))
