"""The images of a report with what the model attends to. Floor 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lingula.data.loader import Loader
    from lingula.data.prepared import PreparedCorpus
    from lingula.data.tokens import Tokens
    from lingula.plots.attention import FilmFigure
    from lingula.runs.model import Model


SIDE = 320  # pixels: the longest side at which films are shown


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
    findings = (corpus.labels(findings_of(corpus), order) == 1).sum(1)
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

    from lingula.data.image import Geometry
    from lingula.plots.attention import film_figure
    from lingula.runs.model import on_original
    from lingula.tasks.grounding import cells_touched

    corpus, size, (h, w) = loader.corpus, loader.image_size, grid
    study = corpus.to_pandas([row]).iloc[0]
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
    labels = corpus.labels(names, [row])[0]
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
