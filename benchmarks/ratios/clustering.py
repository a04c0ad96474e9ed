"""C3, C4 and C13: our k-means against scikit-learn's and faiss's at the same inertia, and against the number of
points."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import torch
from benchmarks.ratios.measure import ROUNDS, Figure, in_turns, milliseconds

from lingula.nn.kmeans import spherical_kmeans

SEEDS = 9


def points(count: int, width: int, seed: int) -> torch.Tensor:
    """Like sentences: many groups, few of them large, and a good deal of their own in each."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randn(max(2, count // 4), width, generator=generator)
    sizes = torch.arange(1, len(groups) + 1).reciprocal()
    own = groups[torch.multinomial(sizes, count, replacement=True, generator=generator)]
    return torch.nn.functional.normalize(own + 0.7 * torch.randn(count, width, generator=generator), dim=1)


def inertia(x: torch.Tensor, assignment: Any) -> float:
    """Sum of squared distances to the clusters' directions: what k-means on the sphere makes small. scikit-learn makes
    that to the means small, which is less; both are asked for the former."""
    assignment = torch.as_tensor(np.asarray(assignment)).long()
    sums = torch.zeros(int(assignment.max()) + 1, x.shape[1]).index_add_(0, assignment, x)
    return float(2 * len(x) - 2 * sums.norm(dim=1).sum())


def against_libraries(key: str, count: int, clusters: int, goal: float, width: int = 768) -> Figure:
    """C3 and C4."""
    from sklearn.cluster import KMeans

    sets = [points(count, width, seed) for seed in range(SEEDS)]
    ours = [inertia(x, spherical_kmeans(x, clusters, seed).assignment) for seed, x in enumerate(sets)]
    theirs = [
        inertia(x, KMeans(clusters, n_init=1, random_state=seed).fit(x.numpy()).labels_) for seed, x in enumerate(sets)
    ]
    worse = statistics.median(ours) / statistics.median(theirs)
    assert worse <= 1.01, f"inertia {worse:.3f} of scikit-learn's"
    x = sets[0]

    def run_ours() -> Any:
        return spherical_kmeans(x, clusters)

    def run_sklearn() -> Any:
        return KMeans(clusters, n_init=1, random_state=0).fit(x.numpy())

    fast, slow = in_turns(run_ours, run_sklearn)
    detail = {
        "points": count,
        "clusters": clusters,
        "ours_ms": milliseconds(fast),
        "sklearn_ms": milliseconds(slow),
        "median_inertia_over_sklearn": round(worse, 4),
    }
    detail |= _against_faiss(sets, clusters, statistics.median(ours))
    return Figure(key, f"k-means, {count} x {clusters}, against scikit-learn", slow / fast, goal, detail=detail)


def _against_faiss(sets: list[torch.Tensor], clusters: int, target: float) -> dict[str, Any]:
    """Our time over faiss's, with as many of its starts as it needs for our inertia; nothing without faiss."""
    try:
        import faiss
    except ImportError:
        return {"faiss": "not installed"}

    def fit(x: torch.Tensor, redo: int, seed: int) -> Any:
        means = faiss.Kmeans(
            x.shape[1], clusters, niter=10, nredo=redo, spherical=True, seed=seed, min_points_per_centroid=1
        )
        means.train(x.numpy())
        return means

    for redo in (1, 2, 4, 8, 16, 32):
        found = [inertia(x, fit(x, redo, seed).index.search(x.numpy(), 1)[1][:, 0]) for seed, x in enumerate(sets)]
        reached = statistics.median(found) <= target
        if reached:
            break
    fast, slow = in_turns(lambda: spherical_kmeans(sets[0], clusters), lambda: fit(sets[0], redo, 0))
    return {
        "faiss_starts": redo,
        "faiss_median_inertia_over_ours": round(statistics.median(found) / target, 4),
        "faiss_reaches_our_inertia": reached,
        "ours_over_faiss": round(fast / slow, 3),
    }


def scaling(counts: tuple[int, ...] = (384, 768, 1536, 3072, 6144, 12288), clusters: int = 128) -> Figure:
    """C13: the exponent of the time in N, by least squares over the logarithms."""
    sets = [points(count, 768, 0) for count in counts]
    taken = in_turns(*(lambda x=x: spherical_kmeans(x, clusters) for x in sets), rounds=ROUNDS)
    exponent = float(np.polyfit(np.log(counts), np.log(taken), 1)[0])
    detail = {"clusters": clusters, "ms": dict(zip(counts, map(milliseconds, taken), strict=True))}
    detail["exponent_of_the_ends"] = round(math.log(taken[-1] / taken[0]) / math.log(counts[-1] / counts[0]), 3)
    return Figure("C13", "clustering time against N, exponent", exponent, 1.1, at_least=False, detail=detail)


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    if small:
        return [against_libraries("C3", 96, 16, 8, 32), against_libraries("C4", 192, 16, 5, 32), scaling((48, 96), 8)]
    return [against_libraries("C3", 384, 128, 8), against_libraries("C4", 3072, 128, 5), scaling()]
