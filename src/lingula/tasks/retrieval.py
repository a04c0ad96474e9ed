"""Retrieval: does a film find its own report, and a report its film?

One example: of 200 test films and their 200 reports, film 17's report is the third most similar to it: a hit at 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lingula.data.loader import Loader
from lingula.metrics.bootstrap import mean_interval
from lingula.metrics.ranking import median_rank, recall_at, recall_ceiling

higher_is_better = {"recall_at_1": True, "recall_at_5": True, "recall_at_10": True, "median_rank": False}


@torch.inference_mode()
def embed_pairs(method: Any, loader: Loader) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit-length global embeddings of all films and reports: ``(n, D)`` twice, and their ``(n,)`` corpus rows."""
    method.eval()
    films, reports, rows = [], [], []
    for batch in loader:
        films.append(F.normalize(method.encode_image(batch.image)[1].float(), dim=-1).cpu())
        reports.append(F.normalize(method.encode_text(batch.reports)[1].float(), dim=-1).cpu())
        rows.append(batch.rows.cpu())
    return torch.cat(films).numpy(), torch.cat(reports).numpy(), torch.cat(rows).numpy()


def retrieval(method: Any, loader: Loader, pool: int = 200, seed: int = 0, bootstrap: int = 1000) -> dict[str, float]:
    """Recall among pools of films and their reports, both directions, with chance and the corpus's own ceiling.

    Args:
        method: with ``encode_image`` and ``encode_text``.
        loader: over the split, not training.
        pool: candidates per query; the split is shuffled once and cut into pools of this size, and a last pool of less
            than half is left out.
        seed: of that shuffle.
        bootstrap: draws of the 95 % intervals, over patients.
    Returns:
        ``recall_at_{1,5,10}`` film to report, ``report_to_film_recall_at_{1,5,10}``, ``median_rank`` (from 1),
        ``recall_at_{1,5,10}_low`` and ``_high``,
        ``chance_at_{1,5,10}``, ``pool``, ``queries``, and, where the corpus knows what its films show,
        ``ceiling_at_{1,5,10}``: several reports of a pool may say just the same.
    """
    films, reports, rows = embed_pairs(method, loader)
    content = loader.corpus.index["content"].to_numpy()[rows]
    order = np.random.default_rng(seed).permutation(len(rows))
    pool = min(pool, len(rows))
    pools = [order[i : i + pool] for i in range(0, len(order), pool)]
    pools = [members for members in pools if len(members) * 2 >= pool]
    found: dict[str, list[np.ndarray]] = {}
    ranks = []
    for members in pools:
        similarity = films[members] @ reports[members].T
        ranks.append(median_rank(similarity))
        for k in (1, 5, 10):
            found.setdefault(f"recall_at_{k}", []).append(recall_at(similarity, k))
            found.setdefault(f"report_to_film_recall_at_{k}", []).append(recall_at(similarity.T, k))
            chance = min(1.0, k / len(members))
            found.setdefault(f"chance_at_{k}", []).append(np.full(len(members), chance))
            if all(shown is not None for shown in content):
                ceiling = recall_ceiling(content[members].astype(str), k)
                found.setdefault(f"ceiling_at_{k}", []).append(ceiling)
    numbers = {name: float(np.concatenate(values).mean()) for name, values in found.items()}
    patients = loader.corpus.index["patient_id"].to_numpy().astype(str)[rows[np.concatenate(pools)]]
    for k in (1, 5, 10):
        low, high = mean_interval(np.concatenate(found[f"recall_at_{k}"]), patients, bootstrap)
        numbers |= {f"recall_at_{k}_low": low, f"recall_at_{k}_high": high}
    return {
        **numbers,
        "median_rank": float(np.mean(ranks)),
        "pool": float(pool),
        "queries": float(sum(len(members) for members in pools)),
    }
