"""The swap test: does the local alignment read the film, or does it recognise the sentence that asked?

One example: "a large left effusion." draws its representation from a film without any, and still finds it among the 180
of the batch: a hit that no reader of films could have.

Each sentence makes its own cross-modal representation, with itself as the query. So it can find that representation
among the batch's by recognising the query, whatever the film shows. Here the films are exchanged: a method that reads
them should fall towards chance. (Not quite to it: much of what is said is true of many films.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.statistics import few_patients, mean_replicates
from lingula.evaluation.studies import ids_of, pair_loader, patients_of, reported_rows
from lingula.evaluation.task import Cell, Encoders, Measured
from lingula.losses.cosine import cosine
from lingula.metrics.bootstrap import bootstrap_weights
from lingula.nn.method import Method
from lingula.records import id_hash
from lingula.registry import UserError


@dataclass
class SwapTest:
    """Local top-1 accuracy over the sentences of each batch, with the right films and with other patients'.

    ``right`` and ``swapped`` in [0, 1], ``chance`` (the mean of one over the number of sentences) and ``sentences``. A
    batch of one patient is left out.

    Args:
        batch_size: pairs per batch, whose sentences compete (default: that of the training).
        split: `val` or `test`.
    """

    needs: ClassVar[tuple[str, ...]] = ("encode_text", "cross_attention")
    higher_is_better: ClassVar[dict[str, bool]] = {"right": True, "swapped": False}

    batch_size: int | None = None
    split: Literal["val", "test"] = "test"

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Nothing is trained: one."""
        return [Cell()]

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """The numbers of one encoder.

        Raises:
            UserError: if every batch holds a single patient, or there are no reports.
        """
        for _ in cells:
            loader = pair_loader(model, corpus, reported_rows(corpus, self.split), self.batch_size)
            yield swap_films(model.method, loader, draws)


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
def swap_films(method: Method, loader: Loader, draws: int = 1000) -> Measured:
    """The numbers of :class:`SwapTest`.

    Args:
        method: with ``encode_image``, ``encode_text`` and ``cross_attention``.
        loader: not training.
        draws: of the bootstrap, over patients.
    Raises:
        UserError: if every batch holds a single patient.
    """
    method.eval()
    samples: dict[str, list[Any]] = {"row": [], "right": [], "swapped": [], "chance": []}
    for batch in loader:
        reports = batch.reports
        assert reports is not None
        rows = batch.rows.cpu().numpy()
        others = torch.from_numpy(other_film(patients_of(loader.corpus, rows))).to(batch.rows.device)
        if (others < 0).any():
            continue
        patches = method.encode_image(batch.image).patches
        sentences = method.encode_text(reports).sentences
        samples["right"] += _found(sentences, method.cross_attention(patches, sentences, reports).image_to_report)
        swapped = method.cross_attention(patches[others], sentences, reports).image_to_report
        samples["swapped"] += _found(sentences, swapped)
        samples["row"] += rows[reports.report_of_sentence.cpu().numpy()].tolist()
        samples["chance"] += [1 / len(sentences)] * len(sentences)
    if not samples["row"]:
        if len(set(patients_of(loader.corpus, loader.rows))) < 2:
            raise UserError("the swap test gives a sentence another patient's image, and this split has one patient")
        raise UserError("the swap test needs batches of two patients or more; choose a larger --batch_size")
    numbers = {key: float(np.mean(samples[key])) for key in ("right", "swapped", "chance")}
    rows = np.asarray(samples["row"])
    weights = bootstrap_weights(patients_of(loader.corpus, rows), draws, seed=0)
    return Measured(
        {**numbers, "sentences": float(len(rows)), "batch_size": float(loader.batch_size)},
        {key: mean_replicates(np.asarray(samples[key]), weights) for key in ("right", "swapped")},
        {
            "test_sha256": id_hash(ids_of(loader.corpus, np.unique(rows))),
            "remarks": few_patients(loader.corpus, np.unique(rows)),
        },
    )


def _found(sentences: Tensor, cross_modal: Tensor) -> list[float]:
    """Whether each sentence is most similar to the representation that it made."""
    nearest = cosine(sentences, cross_modal).argmax(1)
    return (nearest == torch.arange(len(nearest), device=nearest.device)).float().tolist()
