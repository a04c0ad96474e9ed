"""Phrase grounding: does a sentence look at the region that it speaks of?

One example: "there is a small left apical pneumothorax"; its highest attention cell touches the pneumothorax's box: a
hit of the pointing game (Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop"). Contrast-to-noise and
mIoU (Boecking et al. 2022, arXiv:2204.09817) look at the whole map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lingula.batch import Reports
from lingula.data.collate import collate_reports
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import tokenise
from lingula.evaluation.statistics import few_patients, mean_replicates, undefined
from lingula.evaluation.studies import film_loader, ids_of, pair_loader, patients_of, reported_rows
from lingula.evaluation.task import Cell, Encoders, Measured
from lingula.findings import words_of
from lingula.metrics.bootstrap import bootstrap_weights
from lingula.metrics.grounding import contrast_to_noise, mean_iou
from lingula.records import id_hash
from lingula.registry import UserError

METRICS = ("pointing", "cnr", "miou")


@dataclass
class Grounding:
    """Where sentences look, against boxes: the pointing game, contrast-to-noise and mIoU of their attention.

    ``pointing``: the share of phrases whose highest cell touches a box, of equally high ones the share of them;
    ``chance``: the mean share of cells that do. ``cnr``: contrast-to-noise of the map inside and outside the boxes,
    above 0 where it is higher inside (the field prints its size alone, which a map that points away has too:
    ``cnr_size``). ``miou``: mean IoU of map and boxes over the thresholds .1 to .5, the map stretched to [0, 1]. Maps
    are bilinear on the encoder's pixels. Each also as ``<metric>/<name>`` for every finding, and ``phrases``, how many
    there were.

    Args:
        phrases: `sentences` of the reports whose box is known, or `names`: those of the film's boxes in a template, for
            films without reports.
        names: names of the boxes to look at (default: all).
        template: sentence about a box, with {} for its name.
        split: `val` or `test`.
    Raises:
        UserError: for a template without {}.
    """

    needs: ClassVar[tuple[str, ...]] = ("attention_maps",)
    higher_is_better: ClassVar[dict[str, bool]] = {"pointing": True, "cnr": True, "miou": True}
    version: ClassVar[int] = 2  # names of boxes in the words of findings.py; in 1, as they are written

    phrases: Literal["sentences", "names"] = "sentences"
    names: list[str] = field(default_factory=list)
    template: str = "there is {}."
    split: Literal["val", "test"] = "test"

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise UserError(f"the template needs {{}} for the name, got '{self.template}'")

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Nothing is trained: one."""
        return [Cell()]

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """The numbers of one encoder.

        Raises:
            UserError: for a name that no box has, or if there is no phrase with a box.
        """
        if self.names:
            corpus.rows_with_boxes(self.names)  # names the nearest
        for _ in cells:
            looks = self._of_names(model, corpus) if self.phrases == "names" else self._of_sentences(model, corpus)
            yield score(list(looks), corpus, draws)

    def _of_sentences(self, model: Encoders, corpus: PreparedCorpus) -> Iterator[Look]:
        loader = pair_loader(model, corpus, reported_rows(corpus, self.split))
        for batch in loader:
            assert batch.reports is not None
            counts = torch.bincount(batch.reports.report_of_sentence.cpu(), minlength=len(batch))
            pointed = [
                item
                for item in boxes_of_batch(loader, batch.rows.cpu(), counts)
                if not self.names or item[1] in self.names
            ]
            if not pointed:
                continue
            maps = attention(model, batch.image, batch.reports)
            for place, name, box in pointed:
                row = int(batch.rows[int(batch.reports.report_of_sentence[place])])
                yield Look(row, name, maps[place], box[None], model.image_size)

    def _of_names(self, model: Encoders, corpus: PreparedCorpus) -> Iterator[Look]:
        boxes = corpus.boxes(self.names or None)
        boxes = boxes[boxes["row"].isin(corpus.rows(self.split))]
        names = sorted(set(boxes["name"]))
        if not names:
            return
        said = [[self.template.format(words_of(name))] for name in names]
        tokens = tokenise(said, model.tokenizer, model.method.text_encoder.max_tokens)
        loader = film_loader(model, corpus, np.unique(boxes["row"].to_numpy()))
        of = {
            key: group[["x0", "y0", "x1", "y1"]].to_numpy(dtype=float) for key, group in boxes.groupby(["row", "name"])
        }
        for batch in loader:
            pairs = [
                (place, row, name)
                for place, row in enumerate(batch.rows.tolist())
                for name in names
                if (row, name) in of
            ]
            reports = collate_reports(tokens, np.array([names.index(name) for *_, name in pairs])).to(model.device)
            maps = attention(model, batch.image[[place for place, *_ in pairs]], reports)
            for number, (_, row, name) in enumerate(pairs):
                yield Look(row, name, maps[number], in_crop(of[row, name], loader), model.image_size)


class Look(NamedTuple):
    """Where one phrase looks on one film, and where it should.

    Attributes:
        row: of the corpus.
        name: of the finding.
        map: ``(h, w)`` weights.
        boxes: ``(k, 4)`` x0, y0, x1, y1 in pixels of the encoder's film.
        image_size: H = W of that film.
    """

    row: int
    name: str
    map: np.ndarray
    boxes: np.ndarray
    image_size: int


@torch.inference_mode()
def attention(model: Encoders, images: Tensor, reports: Reports) -> np.ndarray:
    """``(N, h, w)``: the weights of each of the N sentences on its own film."""
    maps: np.ndarray = model.method.attention_maps(images, reports).float().cpu().numpy()
    return maps


def in_crop(boxes: np.ndarray, loader: Loader) -> np.ndarray:
    """``(..., 4)`` boxes in prepared pixels to pixels of the film that the encoder sees."""
    offset = (loader.resize_to - loader.image_size) // 2
    moved: np.ndarray = boxes * (loader.resize_to / loader.corpus.size) - offset
    return moved


def cells_touched(box: np.ndarray, grid: tuple[int, int], image_size: int) -> np.ndarray:
    """Which cells of the grid a box touches.

    Args:
        box: ``(4,)`` x0, y0, x1, y1 in pixels of the encoder's film.
        grid: ``(h, w)``.
        image_size: H = W in pixels.
    Returns:
        ``(P,)`` bool in reading order.
    """
    h, w = grid
    x0, y0, x1, y1 = box
    left, top = np.arange(w) * image_size / w, np.arange(h) * image_size / h
    columns = (left < x1) & (left + image_size / w > x0)
    rows = (top < y1) & (top + image_size / h > y0)
    return (rows[:, None] & columns).ravel()


def boxes_of_batch(loader: Loader, rows: Tensor, counts: Tensor) -> list[tuple[int, str, np.ndarray]]:
    """(place in the batch's N sentences, finding, box in pixels of the encoder's film) of all sentences with a box."""
    boxes, findings = (loader.corpus.lists(name, rows.numpy()) for name in ("sentence_boxes", "findings"))
    found = []
    place = 0
    for own_boxes, own_findings, count in zip(boxes, findings, counts.tolist(), strict=True):
        for sentence in range(count):
            box, finding = own_boxes[sentence], own_findings[sentence]
            if box is not None and len(box) == 4 and finding is not None:
                found.append((place + sentence, finding, in_crop(np.asarray(box, dtype=float), loader)))
        place += count
    return found


def score(looks: Sequence[Look], corpus: PreparedCorpus, draws: int) -> Measured:
    """The numbers of :class:`Grounding`; boxes that were cropped away are left out.

    Raises:
        UserError: if there is no phrase with a box.
    """
    values: dict[str, list[float]] = {name: [] for name in ("pointing", "chance", "cnr", "cnr_size", "miou")}
    rows, names = [], []
    for look in looks:
        cells = np.any([cells_touched(box, look.map.shape, look.image_size) for box in look.boxes], axis=0)
        if not cells.any():
            continue
        inside = pixels_inside(look.boxes, look.image_size)
        drawn = upsample(look.map, look.image_size)
        contrast = contrast_to_noise(drawn, inside)
        rows.append(look.row)
        names.append(look.name)
        highest = look.map.ravel() == look.map.max()
        values["pointing"].append(float(cells[highest].mean()) if highest.any() else float("nan"))  # NaN: a map of NaN
        values["chance"].append(float(cells.mean()))
        values["cnr"].append(contrast)
        values["cnr_size"].append(abs(contrast))
        values["miou"].append(mean_iou(drawn, inside))
    if not rows:
        raise UserError(
            f"corpus {corpus.name}: no phrase has a box in this split; for films without reports, --phrases names"
        )
    arrays = {name: np.asarray(of) for name, of in values.items()}
    numbers = {name: float(np.nanmean(of)) for name, of in arrays.items()}
    numbers["phrases"] = float(len(rows))
    for finding in sorted(set(names)):
        own = np.asarray(names) == finding
        for name in ("pointing", "chance", "cnr", "miou"):
            numbers[f"{name}/{finding}"] = float(np.nanmean(arrays[name][own]))
    patients = patients_of(corpus, np.asarray(rows))
    weights = bootstrap_weights(patients, draws, seed=0)
    replicates = {name: mean_replicates(arrays[name], weights) for name in METRICS}
    studies = np.unique(rows)
    finite = np.isfinite(numbers["pointing"])
    why = {name: "the boxes cover the whole image" for name in numbers if name.startswith("cnr") and finite}
    notes = {
        "test_sha256": id_hash(ids_of(corpus, studies)),
        "remarks": few_patients(corpus, studies),
        **undefined(numbers, why),
    }
    return Measured(numbers, replicates, notes)


def pixels_inside(boxes: np.ndarray, image_size: int) -> np.ndarray:
    """``(H, W)`` bool: pixels whose centre lies in one of the boxes, or the pixel at a box's centre where none does."""
    centre = np.arange(image_size) + 0.5
    inside = np.zeros((image_size, image_size), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        own = ((centre > y0) & (centre < y1))[:, None] & ((centre > x0) & (centre < x1))
        if not own.any():
            y, x = (int(np.clip((a + b) / 2, 0, image_size - 1)) for a, b in ((y0, y1), (x0, x1)))
            own[y, x] = True
        inside |= own
    return inside


def upsample(map_: np.ndarray, image_size: int) -> np.ndarray:
    """``(h, w)`` to ``(H, W)``, bilinear."""
    grid = torch.from_numpy(np.ascontiguousarray(map_))[None, None].double()
    drawn: np.ndarray = torch.nn.functional.interpolate(grid, (image_size, image_size), mode="bilinear")[0, 0].numpy()
    return drawn
