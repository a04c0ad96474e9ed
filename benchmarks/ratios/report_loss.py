"""C1 and C2: the local report loss against the broadcast formulation of the released code."""

from __future__ import annotations

import statistics
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.ratios.clustering import points
from benchmarks.ratios.measure import Figure, extra_memory, in_turns, milliseconds
from torch import Tensor

from lingula.batch import Batch, Reports
from lingula.methods.cm_cgns import CMCGNS
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.kmeans import Clusters, spherical_kmeans
from lingula.nn.text_encoders import TextEncoder, text_config

TAU, MU, ALPHA, BETA = 0.07, 3.0, 0.2, 0.5


def broadcast(f: Tensor, v: Tensor, clusters: Clusters) -> Tensor:
    """Eqs. 7 and 9 with every pair side by side, (N, N, D), as cosine_similarity of broadcast tensors has it."""
    count = len(f)
    similarity = F.cosine_similarity(f[:, None], v[None], dim=-1)  # by way of (N, N, D)
    to_centres = F.cosine_similarity(f[:, None], clusters.centres[None], dim=-1)  # by way of (N, K, D)
    order = to_centres.argsort(1, descending=True)
    weights = torch.ones_like(to_centres)
    weights = weights.scatter(1, order[:, 1:2], MU).scatter(1, order[:, :1], 0.0)
    extra = (weights * (to_centres / TAU).exp()).sum(1)
    positive = similarity.diagonal()
    nce = -((positive / TAU).exp() / ((similarity / TAU).exp().sum(1) + extra)).log()
    false = (order[:, :1] == clusters.assignment) & ~torch.eye(count, dtype=torch.bool)
    delta = similarity - positive[:, None]
    margin = F.relu(delta + ALPHA) + F.relu(-delta - BETA)
    return nce.mean() + (margin * false).sum() / false.sum().clamp_min(1)


def method(width: int, clusters: Clusters | None = None) -> CMCGNS:
    """CM-CGNS, and where clusters are given, with those: finding them is measured by itself (C3)."""
    made = CMCGNS(
        ImageEncoder("small_resnet", 32),
        TextEncoder(text_config("small_bert", 60)),
        32,
        dim=width,
        temperature_local=TAU,
        mu=MU,
        alpha=ALPHA,
        beta=BETA,
    )
    if clusters is not None:
        made.find_clusters = lambda *_: clusters  # type: ignore[method-assign]
    return made


def batch_of(sentences: int) -> Batch:
    """Reports of six sentences; of everything else there is nothing that the report loss reads."""
    places = torch.arange(sentences)
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    reports = Reports(nothing, nothing.bool(), nothing, nothing, places // 6, places % 6, places, 6, 1)
    return Batch(torch.zeros(1, 1, 1, 32, 32), nothing[0], seed=0, reports=reports)


def steps(count: int, clusters: int, width: int) -> tuple[Any, Any, Any]:
    """Forward and backward of ours and of the broadcast one, and a check that they are the same."""
    f, v = (points(count, width, seed).requires_grad_() for seed in (1, 2))
    found = spherical_kmeans(v, clusters)
    model, batch = method(width, found), batch_of(count)

    def run(loss: Any) -> tuple[Tensor, Tensor, Tensor]:
        value = loss()
        return value.detach(), *torch.autograd.grad(value, (f, v))

    def ours() -> Any:
        return run(lambda: sum(model.report_losses(f, v, batch)))

    def theirs() -> Any:
        return run(lambda: broadcast(f, v, found))

    def check() -> None:
        for one, other in zip(ours(), theirs(), strict=True):
            scale = other.abs().max().item()
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * scale)

    return ours, theirs, check


def against_broadcast(count: int = 384, clusters: int = 128, width: int = 768, rounds: int = 7) -> list[Figure]:
    """C1, in time and in memory."""
    ours, theirs, check = steps(count, clusters, width)
    check()
    fast, slow = in_turns(ours, theirs, rounds=rounds)
    light = statistics.median(extra_memory(ours) for _ in range(3))
    heavy = statistics.median(extra_memory(theirs) for _ in range(3))
    sizes = {"sentences": count, "clusters": clusters, "width": width}
    time = sizes | {"ours_ms": milliseconds(fast), "broadcast_ms": milliseconds(slow)}
    memory = sizes | {"ours_mb": round(light / 1e6, 1), "broadcast_mb": round(heavy / 1e6, 1)}
    return [
        Figure("C1 time", "report loss, forward + backward, against broadcast", slow / fast, 100, detail=time),
        Figure("C1 memory", "the same, memory", heavy / max(light, 1.0), 50, detail=memory),
    ]


def many_sentences(count: int = 3072, clusters: int = 128, width: int = 768) -> Figure:
    """C2: gigabytes that a large batch needs beyond its embeddings."""
    ours, _, _ = steps(count, clusters, width)
    ours()
    extra = max(extra_memory(ours) for _ in range(3))
    (taken,) = in_turns(ours, rounds=3)
    detail = {"sentences": count, "clusters": clusters, "ours_ms": milliseconds(taken)}
    return Figure("C2", "the same at N = 3,072, GB extra", extra / 1e9, 0.5, at_least=False, detail=detail)


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    if small:
        return [*against_broadcast(48, 8, 16, rounds=1), many_sentences(600, 8, 16)]
    return [*against_broadcast(), many_sentences()]
