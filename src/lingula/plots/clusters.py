"""What the clusters mean: for the largest ones, the sentences nearest to the centre, and how pure they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShownCluster:
    """One cluster in words.

    Attributes:
        size: sentences in it.
        reports: different reports that they stand in.
        nearest: distinct texts, nearest to the centre first, each with how often the cluster holds it.
        other_texts: how many more distinct texts it holds.
        meaning: the commonest meaning of its sentences; ``None`` where none is known.
        purity: share of its sentences with a known meaning that have that one; NaN where none is known.
    """

    size: int
    reports: int
    nearest: list[tuple[str, int]]
    other_texts: int
    meaning: str | None
    purity: float


def largest_clusters(
    similarity: np.ndarray,
    assignment: np.ndarray,
    texts: Sequence[str],
    meanings: Sequence[str | None],
    reports: np.ndarray,
    show: int,
    sentences: int = 5,
) -> list[ShownCluster]:
    """The largest clusters, largest first.

    Args:
        similarity: ``(N,)`` cosine of each sentence's representation with the centre of its own cluster.
        assignment: ``(N,)`` cluster of each.
        texts: N sentences.
        meanings: N meanings, ``None`` where not known.
        reports: ``(N,)`` the report of each.
        show: how many clusters.
        sentences: distinct texts to show of each.
    """
    shown = []
    for cluster, size in sorted(Counter(assignment.tolist()).items(), key=lambda pair: (-pair[1], pair[0]))[:show]:
        nearest_first = np.argsort(-similarity, kind="stable")
        members = nearest_first[assignment[nearest_first] == cluster].tolist()
        counts = Counter(texts[member] for member in members)  # in the order of first appearance: nearest first
        known = Counter(meanings[member] for member in members if meanings[member] is not None)
        meaning, most = known.most_common(1)[0] if known else (None, 0)
        shown.append(
            ShownCluster(
                size,
                len(np.unique(reports[members])),
                list(counts.items())[:sentences],
                max(0, len(counts) - sentences),
                meaning,
                most / known.total() if known else float("nan"),
            )
        )
    return shown


def purity(assignment: np.ndarray, meanings: Sequence[str | None]) -> tuple[float, float]:
    """Share of the sentences that have the commonest meaning of their cluster; and were all of them one cluster.

    Sentences without a known meaning do not count. Many small clusters are pure by their smallness alone.
    """
    known = [(cluster, meaning) for cluster, meaning in zip(assignment.tolist(), meanings, strict=True) if meaning]
    if not known:
        return float("nan"), float("nan")
    of_cluster: dict[int, Counter[str]] = {}
    for cluster, meaning in known:
        of_cluster.setdefault(cluster, Counter())[meaning] += 1
    most = sum(counts.most_common(1)[0][1] for counts in of_cluster.values())
    return most / len(known), Counter(meaning for _, meaning in known).most_common(1)[0][1] / len(known)
