"""False negatives: how many of a batch's negatives mean the same as the anchor, and how many the clusters catch.

One example: "no pleural effusion." and "there is no pleural fluid." of another report mean the same, yet each is a
negative of the other. The paper takes the members of the cluster nearest to a sentence for its false negatives
(CM-CGNS, the text above Eq. 8). On a corpus that knows what each sentence means, that is a detector whose precision and
recall can be measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lingula.batch import Reports
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.statistics import undefined
from lingula.evaluation.studies import ids_of, pair_loader, reported_rows
from lingula.evaluation.task import Cell, Encoders, Measured
from lingula.losses.cluster_guided import false_negative_mask
from lingula.losses.cosine import cosine
from lingula.nn.method import Method
from lingula.records import id_hash

NUMBERS = ("share", "precision", "recall", "string_precision", "string_recall", "same_report")


@dataclass
class FalseNegatives:
    """Share of false negatives among all (anchor, negative) pairs of a batch, and how well they are detected.

    ``share``; ``precision`` and ``recall`` of the clusters; ``string_precision`` and ``string_recall`` of plain
    equality of the texts, for comparison; ``same_report``: the share of the clusters' pairs that stand in one report;
    ``pairs``. All NaN where no meanings are known. Pairs are no sample of patients, so there is no interval.

    Args:
        batch_size: pairs per batch, for which the share is measured (default: that of the training).
        split: `val` or `test`.
    """

    needs: ClassVar[tuple[str, ...]] = ("encode_text", "cross_attention", "find_clusters")
    higher_is_better: ClassVar[dict[str, bool]] = {"precision": True, "recall": True}

    batch_size: int | None = None
    split: Literal["val", "test"] = "test"

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Nothing is trained: one."""
        return [Cell()]

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """The numbers of one method that clusters sentences.

        Raises:
            UserError: if the split has no reports.
        """
        for _ in cells:
            rows = reported_rows(corpus, self.split)
            numbers = false_negatives(model.method, pair_loader(model, corpus, rows, self.batch_size))
            notes = {"test_sha256": id_hash(ids_of(corpus, rows)), **undefined(numbers, reasons(numbers["pairs"] > 0))}
            yield Measured(numbers, notes=notes)


def reasons(known: bool) -> dict[str, str]:
    """Why numbers of this task may be NaN; ``known``: whether there are pairs to look at."""
    if not known:
        why = "the corpus does not tell what its sentences mean, or no batch has four sentences"
        return dict.fromkeys(NUMBERS, why)
    none = dict.fromkeys(("precision", "same_report"), "the clusters detect no pair")
    same = dict.fromkeys(("recall", "string_recall"), "no two sentences of a batch mean the same")
    return {**none, **same, "string_precision": "no two sentences of a batch are equal"}


@torch.inference_mode()
def false_negatives(method: Method, loader: Loader) -> dict[str, float]:
    """Share of false negatives among all (anchor, negative) pairs of a batch, and how well they are detected.

    Args:
        method: with ``encode_image``, ``encode_text``, ``cross_attention`` and ``find_clusters``.
        loader: its batch size is the one to know the share for. The corpus must know its sentences' meanings.
    Returns:
        ``share``; ``precision`` and ``recall`` of the clusters; ``string_precision`` and ``string_recall`` of plain
        equality of the texts, for comparison; ``same_report``: the share of the clusters' pairs that stand in one
        report; ``pairs``. All NaN where no meanings are known.
    """
    if loader.meaning is None:
        return {**dict.fromkeys(NUMBERS, float("nan")), "pairs": 0.0}
    method.eval()
    pairs = false = caught = caught_false = equal = equal_false = together = 0.0
    for batch in loader:
        reports = batch.reports
        assert reports is not None
        assert reports.meaning is not None
        sentences = method.encode_text(reports).sentences
        if len(sentences) < 4:
            continue
        patches = method.encode_image(batch.image).patches
        cross_modal = method.cross_attention(patches, sentences, reports).image_to_report
        centres, assignment, *_ = method.find_clusters(cross_modal, reports.sentence_key, batch.seed)
        own = torch.arange(len(sentences), device=sentences.device)
        detected = false_negative_mask(cosine(sentences, centres).argmax(1), assignment, own)
        others = own[:, None] != own
        same = (reports.meaning[:, None] == reports.meaning) & (reports.meaning >= 0) & others
        text = text_codes(loader, batch.rows, reports).to(sentences.device)
        same_text = (text[:, None] == text) & others
        pairs += float(others.sum())
        false += float(same.sum())
        caught += float(detected.sum())
        caught_false += float((detected & same).sum())
        equal += float(same_text.sum())
        equal_false += float((same_text & same).sum())
        together += float((detected & (reports.report_of_sentence[:, None] == reports.report_of_sentence)).sum())

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else float("nan")

    return {
        "share": ratio(false, pairs),
        "precision": ratio(caught_false, caught),
        "recall": ratio(caught_false, false),
        "string_precision": ratio(equal_false, equal),
        "string_recall": ratio(equal_false, false),
        "same_report": ratio(together, caught),
        "pairs": pairs,
        "batch_size": float(loader.batch_size),
    }


def text_codes(loader: Loader, rows: Tensor, reports: Reports) -> Tensor:
    """``(N,)`` on the CPU, equal where two sentences of a batch are the same text."""
    assert loader.tokens is not None
    own = rows.cpu().numpy()
    first = loader.tokens.first_sentence[own]
    written = loader.corpus.reports.of(own)
    keys, report_of = reports.sentence_key.cpu().numpy(), reports.report_of_sentence.cpu().numpy()
    places = zip(report_of.tolist(), (keys - first[report_of]).tolist(), strict=True)
    texts = np.array([written[report][place] for report, place in places], dtype=object)
    return torch.from_numpy(np.unique(texts.astype(str), return_inverse=True)[1])
