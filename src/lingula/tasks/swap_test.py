"""The swap test: does the local alignment read the film, or does it recognise the sentence that asked?

One example: "a large left effusion." draws its representation from a film without any, and still finds it among the 180
of the batch: a hit that no reader of films could have.

Each sentence makes its own cross-modal representation, with itself as the query. So it can find that representation
among the batch's by recognising the query, whatever the film shows. Here the films are exchanged: a method that reads
them should fall towards chance. (Not quite to it: much of what is said is true of many films.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lingula.data.loader import Loader
from lingula.losses.cosine import cosine
from lingula.metrics.bootstrap import mean_interval
from lingula.registry import UserError

higher_is_better = {"right": True, "swapped": False}


def other_film(patients: np.ndarray) -> np.ndarray:
    """For each film of a batch the next one, round the end, of another patient; -1 where all are of one patient.

    Args:
        patients: ``(B,)`` the patient of each film.
    Returns:
        ``(B,)`` int64 places in [0, B), or -1.
    """
    count = len(patients)
    others = np.full(count, -1)
    for film in range(count):
        for step in range(1, count):
            if patients[(film + step) % count] != patients[film]:
                others[film] = (film + step) % count
                break
    return others


@torch.inference_mode()
def swap_test(method: Any, loader: Loader, bootstrap: int = 1000) -> dict[str, float]:
    """Local top-1 accuracy over the sentences of each batch, with the right films and with other patients'.

    Args:
        method: with ``encode_image``, ``encode_text`` and ``cross_attention``.
        loader: not training; its batch size sets how many sentences compete. A batch of one patient is left out.
        bootstrap: draws of the 95 % intervals, over patients.
    Returns:
        ``right`` and ``swapped`` in [0, 1], each with ``_low`` and ``_high``, ``chance`` (the mean of one over the
        number of sentences) and ``sentences``.
    Raises:
        UserError: if every batch holds a single patient.
    """
    method.eval()
    patients = loader.corpus.index["patient_id"].to_numpy().astype(str)
    samples: dict[str, list[Any]] = {"patient": [], "right": [], "swapped": [], "chance": []}
    for batch in loader:
        reports = batch.reports
        assert reports is not None
        own = patients[batch.rows.cpu().numpy()]
        others = torch.from_numpy(other_film(own)).to(batch.rows.device)
        if (others < 0).any():
            continue
        patches = method.encode_image(batch.image)[2]
        sentences = method.encode_text(reports)[2]
        samples["right"] += _found(sentences, method.cross_attention(patches, sentences, reports).image_to_report)
        swapped = method.cross_attention(patches[others], sentences, reports).image_to_report
        samples["swapped"] += _found(sentences, swapped)
        samples["patient"] += own[reports.report_of_sentence.cpu().numpy()].tolist()
        samples["chance"] += [1 / len(sentences)] * len(sentences)
    if not samples["patient"]:
        raise UserError("the swap test needs batches of two patients or more; choose a larger --batch_size")
    numbers = {key: float(np.mean(samples[key])) for key in ("right", "swapped", "chance")}
    for key in ("right", "swapped"):
        low, high = mean_interval(np.asarray(samples[key]), np.asarray(samples["patient"]), bootstrap)
        numbers |= {f"{key}_low": low, f"{key}_high": high}
    return {**numbers, "sentences": float(len(samples["patient"]))}


def _found(sentences: Tensor, cross_modal: Tensor) -> list[float]:
    """Whether each sentence is most similar to the representation that it made."""
    nearest = cosine(sentences, cross_modal).argmax(1)
    return (nearest == torch.arange(len(nearest), device=nearest.device)).float().tolist()
