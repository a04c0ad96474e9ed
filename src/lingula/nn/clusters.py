"""Spherical k-means on the device, without a host synchronisation, and the released code's running centres."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lingula.keyed import keyed_gumbel
from lingula.losses.cosine import unit


class Clusters(NamedTuple):
    """Clusters of the sentences of a batch.

    Attributes:
        centres: ``(K, D)`` of unit length.
        assignment: ``(N,)`` int64 in [0, K); -1 where there are no clusters yet.
        exist: scalar bool on the device: whether there are clusters yet. ``None`` means yes.
    """

    centres: Tensor
    assignment: Tensor
    exist: Tensor | None = None


def _seed_centres(points: Tensor, clusters: int, seed: int, keys: Tensor) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007) on the Gram matrix: ``(N, D)`` unit vectors to ``(K, D)``.

    Candidates are drawn in proportion to their squared distance to the nearest chosen point, by the Gumbel-max trick on
    numbers that belong to the points, so the draw does not depend on the order of the points. Of a step's candidates
    the one that leaves the least inertia is kept.
    """
    distance = (2.0 - 2.0 * (points @ points.T)).clamp_min(0.0)  # (N, N), squared
    candidates = 2 + int(math.log(clusters))
    gumbel = keyed_gumbel(seed, keys, clusters * candidates).to(distance.dtype)
    gumbel = gumbel.T.reshape(clusters, candidates, len(points))
    chosen = gumbel[0, :1].argmax(1)  # (1,), uniform: no distance to weigh by yet
    # Indexing with a tensor of one place, then [0]: with a tensor of none, torch would ask the device for its value.
    picks, nearest = [chosen], distance[chosen][0]  # nearest: (N,)
    for step in range(1, clusters):
        drawn = (nearest.clamp_min(1e-12).log() + gumbel[step]).argmax(1)  # (candidates,)
        left = torch.minimum(nearest, distance[drawn])  # (candidates, N)
        best = left.sum(1).argmin(0, keepdim=True)
        nearest = left[best][0]
        picks.append(drawn[best])
    return points[torch.cat(picks)]


@torch.no_grad()
def spherical_kmeans(
    points: Tensor, clusters: int, seed: int = 0, keys: Tensor | None = None, iterations: int = 20
) -> Clusters:
    """k-means on the unit sphere (Dhillon and Modha 2001): cosine, centres re-normalised, no gradient.

    Args:
        points: ``(N, D)``. Normalised here.
        clusters: K, clamped to N.
        seed: of the seeding; the same seed gives the same clusters.
        keys: ``(N,)`` int64, each point's identity (:func:`lingula.keyed.keyed_uniform`); by default its place. With
            keys, the clusters do not depend on the order of the points.
        iterations: fixed, so that nobody has to ask the device whether it has converged. A centre that loses its last
            point stays where it is.
    Returns:
        :class:`Clusters` in float32 (float64 for float64 points).
    Raises:
        ValueError: for no points or no clusters.
    """
    if len(points) == 0 or clusters < 1:
        raise ValueError(f"k-means needs points and clusters, got {len(points)} points and K = {clusters}")
    with torch.autocast(points.device.type, enabled=False):
        points = unit(points)
        if keys is None:
            keys = torch.arange(len(points), device=points.device)
        centres = _seed_centres(points, min(clusters, len(points)), seed, keys)
        assignment = (points @ centres.T).argmax(1)
        for _ in range(iterations):
            sums = torch.zeros_like(centres).index_add_(0, assignment, points)
            lengths = sums.norm(dim=1, keepdim=True)
            centres = torch.where(lengths > 1e-6, sums / lengths.clamp_min(1e-6), centres)
            assignment = (points @ centres.T).argmax(1)
        return Clusters(centres, assignment)


class OnlineCentres(nn.Module):
    """One bank of centres for the whole training, moved a little after every step, as the released code has it.

    It starts on the first batch whose mean cosine is at most 0.4 and that has K points, from that batch's k-means, and
    then moves by momentum: ``c <- unit(m c + (1 - m) mean of the points nearest to c)``. Until then there are no
    clusters. Its state is in buffers; evaluation leaves it alone. (The released code does not bring centres back to
    unit length, adds the sum of the points instead of their mean, and starts from a chain of far points instead of
    k-means.)

    Args:
        dim: D.
        clusters: K.
        momentum: m, 0.999 in the released code.
        start_below: the mean cosine between points at which the bank starts, 0.4 in the released code.
    """

    centres: Tensor
    started: Tensor

    def __init__(self, dim: int, clusters: int, momentum: float = 0.999, start_below: float = 0.4) -> None:
        super().__init__()
        self.momentum = momentum
        self.start_below = start_below
        self.register_buffer("centres", torch.zeros(clusters, dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self._seen: tuple[Tensor, int, Tensor] | None = None  # this step's points, seed and keys, until after_step

    @torch.no_grad()
    def forward(self, points: Tensor, seed: int, keys: Tensor) -> Clusters:
        """The bank's :class:`Clusters` of the ``(N, D)`` points of the whole batch."""
        with torch.autocast(points.device.type, enabled=False):
            points = unit(points).to(self.centres.dtype)
            if self.training:
                self._seen = points, seed, keys
            assignment = (points @ self.centres.T).argmax(1)
            exist = self.started.clone()
            return Clusters(self.centres.clone(), torch.where(exist, assignment, -1), exist)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the bank by the last batch of a step, or start it there."""
        if self._seen is None:
            return
        (points, seed, keys), self._seen = self._seen, None
        nearest = (points @ self.centres.T).argmax(1)
        sums = torch.zeros_like(self.centres).index_add_(0, nearest, points)
        counts = sums.new_zeros(len(sums), 1).index_add_(0, nearest, points.new_ones(len(points), 1))
        moved = unit(self.momentum * self.centres + (1 - self.momentum) * sums / counts.clamp_min(1))
        moved = torch.where((counts > 0) & self.started, moved, self.centres)
        if len(points) >= len(self.centres):
            mean_cosine = points.mean(0).square().sum()  # over all pairs, by linearity
            starts = (mean_cosine <= self.start_below) & ~self.started
            moved = torch.where(starts, spherical_kmeans(points, len(self.centres), seed, keys).centres, moved)
            self.started.logical_or_(starts)
        self.centres.copy_(moved)
