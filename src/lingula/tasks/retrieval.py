"""Retrieval: does a film find its own report, and a report its film?

One example: of 200 test films and their 200 reports, film 17's report is the third most similar to it: a hit at 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.scores import has_own_score, score_pairs
from lingula.evaluation.statistics import few_patients, mean_replicates, patient_draws
from lingula.evaluation.studies import ids_of, pair_loader, reported_rows
from lingula.evaluation.task import Cell, Encoders, Measured
from lingula.gather import evenly, gather
from lingula.metrics.ranking import ranks, recall_at, recall_ceiling, weighted_median
from lingula.nn.method import Method
from lingula.records import id_hash
from lingula.registry import UserError

KS = (1, 5, 10)


@dataclass
class Retrieval:
    """Recall among pools of films and their reports, both directions, with chance and the corpus's own ceiling.

    ``recall_at_{1,5,10}`` film to report, ``report_to_film_recall_at_{1,5,10}``, ``median_rank`` (from 1),
    ``chance_at_{1,5,10}``, ``pool``, ``queries``, and, where the corpus knows what its films show,
    ``ceiling_at_{1,5,10}``: several reports of a pool may say just the same. Ties count half.

    Args:
        pool: candidates per query; the split is shuffled once and cut into pools of this size, and a last pool of less
            than half is left out.
        split: `val` or `test`.
    Raises:
        UserError: if `pool` < 1.
    """

    needs: ClassVar[tuple[str, ...]] = ("encode_text",)
    higher_is_better: ClassVar[dict[str, bool]] = {
        "recall_at_5": True,
        "recall_at_1": True,
        "recall_at_10": True,
        "report_to_film_recall_at_1": True,
        "report_to_film_recall_at_5": True,
        "report_to_film_recall_at_10": True,
        "median_rank": False,
    }

    pool: int = 200
    split: Literal["val", "test"] = "test"

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise UserError(f"pool must be at least 1, got {self.pool}")

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Nothing is trained: one."""
        return [Cell()]

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """The numbers of one encoder.

        Raises:
            UserError: if the split has no reports.
        """
        for _ in cells:
            yield rank_pairs(
                model.method, pair_loader(model, corpus, reported_rows(corpus, self.split)), self.pool, draws
            )


@torch.inference_mode()
def embed_pairs(method: Method, loader: Loader) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit-length global embeddings of all films and reports: ``(n, D)`` twice, and their ``(n,)`` corpus rows.

    Where the loader deals its batches to several processes, each encodes its own and gets those of all.
    """
    method.eval()
    batches = []
    for batch in loader:
        assert batch.reports is not None
        film, report = method.encode_image(batch.image).embedding, method.encode_text(batch.reports).embedding
        batches.append((F.normalize(film.float(), dim=-1), F.normalize(report.float(), dim=-1), batch.rows))
    found = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    if loader.processes > 1:
        found = [gather(own, evenly(own)) for own in found]
    films, reports, rows = (x.cpu().numpy() for x in found)
    if loader.processes > 1:
        rows, first = np.unique(rows, return_index=True)  # the loader's rows ascend, and some came twice
        films, reports = films[first], reports[first]
    return films, reports, rows


def rank_pairs(method: Method, loader: Loader, pool: int = 200, draws: int = 1000) -> Measured:
    """The numbers of :class:`Retrieval` for a method and a loader that does not train."""
    if has_own_score(method):
        scores, rows = score_pairs(method, loader)
    else:
        films, reports, rows = embed_pairs(method, loader)
    content = loader.corpus.values("content", rows)
    order = np.random.default_rng(0).permutation(len(rows))
    pool = min(pool, len(rows))
    pools = [order[i : i + pool] for i in range(0, len(order), pool)]
    pools = [members for members in pools if len(members) * 2 >= pool]
    found: dict[str, list[np.ndarray]] = {}
    for members in pools:
        own = has_own_score(method)
        similarity = scores[np.ix_(members, members)] if own else films[members] @ reports[members].T
        found.setdefault("rank", []).append(ranks(similarity))
        for k in KS:
            found.setdefault(f"recall_at_{k}", []).append(recall_at(similarity, k))
            found.setdefault(f"report_to_film_recall_at_{k}", []).append(recall_at(similarity.T, k))
            chance = min(1.0, k / len(members))
            found.setdefault(f"chance_at_{k}", []).append(np.full(len(members), chance))
            if all(shown is not None for shown in content):
                ceiling = recall_ceiling(content[members].astype(str), k)
                found.setdefault(f"ceiling_at_{k}", []).append(ceiling)
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    rank = values.pop("rank")
    queried = rows[np.concatenate(pools)]
    weights = patient_draws(loader.corpus, queried, draws)
    numbers = {name: float(of.mean()) for name, of in values.items()}
    numbers |= {"median_rank": float(np.median(rank)), "pool": float(pool), "queries": float(len(queried))}
    replicates = {name: mean_replicates(values[name], weights) for name in Retrieval.higher_is_better if name in values}
    replicates["median_rank"] = weighted_median(rank, weights)
    remarks = few_patients(loader.corpus, queried)
    return Measured(numbers, replicates, {"test_sha256": id_hash(ids_of(loader.corpus, queried)), "remarks": remarks})
