"""The pointing game: does the place where a sentence looks hardest lie in the region that it speaks of?

One example: "there is a small left apical pneumothorax"; its highest attention cell touches the pneumothorax's box: a
hit. (Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop".)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lingula.data.loader import Loader
from lingula.metrics.bootstrap import mean_interval

higher_is_better = {"value": True}


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
    index = loader.corpus.index
    scale = loader.resize_to / loader.corpus.size
    offset = (loader.resize_to - loader.image_size) // 2
    found = []
    place = 0
    for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
        for sentence in range(count):
            box = index["sentence_boxes"].iat[row][sentence]
            finding = index["findings"].iat[row][sentence]
            if box is not None and len(box) == 4 and finding is not None:
                found.append((place + sentence, finding, np.asarray(box, dtype=float) * scale - offset))
        place += count
    return found


@torch.inference_mode()
def pointing(method: Any, loader: Loader, bootstrap: int = 1000) -> dict[str, float]:
    """Share of the sentences that affirm a finding whose highest attention cell touches that finding's box.

    Args:
        method: with ``attend``.
        loader: not training, over a corpus that knows its sentences' boxes.
        bootstrap: draws of the 95 % interval, over patients.
    Returns:
        ``value`` with ``value_low`` and ``value_high``; ``chance``, the mean share of cells that a box touches;
        ``sentences``; and ``value/<finding>`` and ``chance/<finding>`` for each. NaN where the corpus knows no boxes.
    """
    method.eval()
    patients = loader.corpus.index["patient_id"].to_numpy().astype(str)
    of_patient: dict[str, list[str]] = {}
    hits: dict[str, list[float]] = {}
    chances: dict[str, list[float]] = {}
    for batch in loader:
        assert batch.reports is not None
        weights = method.attend(batch.image, batch.reports).sentence_weights.cpu()
        grid = method.image_encoder.grid
        counts = torch.bincount(batch.reports.report_of_sentence.cpu(), minlength=len(batch))
        for place, finding, box in boxes_of_batch(loader, batch.rows.cpu(), counts):
            cells = cells_touched(box, grid, loader.image_size)
            if not cells.any():  # cropped away
                continue
            hits.setdefault(finding, []).append(float(cells[int(weights[place].argmax())]))
            chances.setdefault(finding, []).append(float(cells.mean()))
            row = int(batch.rows[int(batch.reports.report_of_sentence[place])])
            of_patient.setdefault(finding, []).append(patients[row])
    every_hit = [hit for values in hits.values() for hit in values]
    every_chance = [chance for values in chances.values() for chance in values]
    numbers = {
        "value": float(np.mean(every_hit)) if every_hit else float("nan"),
        "chance": float(np.mean(every_chance)) if every_hit else float("nan"),
        "sentences": float(len(every_hit)),
    }
    if every_hit:
        every_patient = np.concatenate([of_patient[finding] for finding in hits])
        numbers["value_low"], numbers["value_high"] = mean_interval(np.asarray(every_hit), every_patient, bootstrap)
    for finding in sorted(hits):
        numbers[f"value/{finding}"] = float(np.mean(hits[finding]))
        numbers[f"chance/{finding}"] = float(np.mean(chances[finding]))
    return numbers
