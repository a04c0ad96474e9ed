"""Retrieval by class: are the reports nearest to a film those of films with the same finding?

One example: of the ten reports nearest to an oedema film, four belong to oedema films: precision at 10 is 0.4, where
chance among five classes is 0.2. On CheXpert 5x200 this is the field's test of retrieval (ConVIRT, GLoRIA).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from lingula.data.class_sample import only_class, sample_by_class
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.labels import Labels
from lingula.evaluation.scores import has_own_score, score_pairs
from lingula.evaluation.statistics import few_patients, mean_replicates, patient_draws
from lingula.evaluation.studies import ids_of, pair_loader, reported_rows
from lingula.evaluation.task import Cell, Encoders, Measured
from lingula.metrics.ranking import precision_at
from lingula.records import id_hash
from lingula.registry import UserError

KS = (1, 5, 10, 100)


@dataclass
class ClassRetrieval:
    """Precision at 1, 5, 10 and 100 of retrieval by class, film to report and report to film.

    The films are those with exactly one of the labels, equally many of each. A film's own report counts as one of its
    class, as in the field's protocol. ``chance`` is the share of each class among the candidates. Ties count half;
    precision at k beyond the number of candidates is left out.

    Args:
        labels: the classes: label names, or the name of a group (default: all labels).
        per_class: number of images drawn from each class.
        seed: seed of the draw; the same seed draws the same images everywhere, and their hash is in the row.
        split: split that is measured.
    """

    needs: ClassVar[tuple[str, ...]] = ("encode_text",)
    higher_is_better: ClassVar[dict[str, bool]] = {
        f"{direction}precision_at_{k}": True for direction in ("", "report_to_film_") for k in KS
    }

    labels: list[str] = field(default_factory=list)
    per_class: int = 200
    seed: int = 0
    split: Literal["val", "test"] = "test"

    def __post_init__(self) -> None:
        if self.per_class < 1:
            raise UserError(f"per_class must be at least 1, got {self.per_class}")

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Nothing is trained: one."""
        return [Cell()]

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """The numbers of one encoder.

        Raises:
            UserError: if a class has too few films with a report, or there are no reports.
        """
        rows, classes = self.draw(corpus)
        same = classes[:, None] == classes
        weights = patient_draws(corpus, rows, draws)
        for _ in cells:
            similarity = embed_similarity(model, corpus, rows)
            values = {}
            for k in KS:
                if k <= len(rows):
                    values[f"precision_at_{k}"] = precision_at(similarity, same, k)
                    values[f"report_to_film_precision_at_{k}"] = precision_at(similarity.T, same, k)
            numbers = {name: float(of.mean()) for name, of in values.items()}
            replicates = {name: mean_replicates(of, weights) for name, of in values.items()}
            numbers |= {"chance": float(same.mean()), "films": float(len(rows))}
            notes = {"test_sha256": id_hash(ids_of(corpus, rows)), "remarks": few_patients(corpus, rows)}
            yield Measured(numbers, replicates, notes)

    def draw(self, corpus: PreparedCorpus) -> tuple[np.ndarray, np.ndarray]:
        """The films, ``(n,)`` ascending rows of the corpus, and their ``(n,)`` classes as places among the labels."""
        labels = Labels.of(corpus, self.labels, "unknown")
        if len(labels.names) < 2:
            raise UserError(f"retrieval by class needs two classes or more, got {', '.join(labels.names)}")
        rows = reported_rows(corpus, self.split)
        written = corpus.labels(labels.names, rows)
        classes = [only_class(dict(zip(labels.names, own, strict=True)), labels.names) for own in written.tolist()]
        counts = {name: classes.count(name) for name in labels.names}
        try:
            drawn = sample_by_class(ids_of(corpus, rows), classes, self.per_class, self.seed, labels.names)
        except UserError as err:
            least = min(counts.values())
            others = [name for name, count in counts.items() if count]
            ways = [f"--per_class {least}"] if least else []
            ways += [f"--labels {' '.join(others)}"] if not least and len(others) > 1 else []
            way = f"; give {ways[0]}" if ways else f"; no two classes have {self.split} studies of them alone"
            raise UserError(f"{err}{way}") from err
        return rows[drawn], np.array([labels.names.index(str(classes[place])) for place in drawn])


@torch.inference_mode()
def embed_similarity(model: Encoders, corpus: PreparedCorpus, rows: np.ndarray) -> np.ndarray:
    """``(n, n)`` scores of images and reports: the method's own, or cosines."""
    method, loader = model.method, pair_loader(model, corpus, rows, 64)
    if has_own_score(method):
        return score_pairs(method, loader)[0]
    method.eval()
    films, reports = [], []
    for batch in loader:
        assert batch.reports is not None
        films.append(F.normalize(method.encode_image(batch.image).embedding.float(), dim=-1))
        reports.append(F.normalize(method.encode_text(batch.reports).embedding.float(), dim=-1))
    similarity: np.ndarray = (torch.cat(films) @ torch.cat(reports).T).cpu().numpy()
    return similarity
