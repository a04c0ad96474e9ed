"""Centres that outlive their batch: the released code's running bank, and a batch's clusters carried over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lingula.losses.cosine import unit
from lingula.nn.kmeans import Clusters, spherical_kmeans


class CarriedCentres(nn.Module):
    """The clusters of one batch in every ``every``; the batches between are assigned to its centres.

    Cheaper, and worse: the centres of another batch lie farther from the points. Its state is in a buffer; evaluation
    clusters every batch anew.

    Args:
        dim: D.
        clusters: K; a batch with fewer than 2 K sentences has half as many clusters as sentences.
        every: batches.
    """

    centres: Tensor

    def __init__(self, dim: int, clusters: int, every: int) -> None:
        super().__init__()
        self.every = every
        self.register_buffer("centres", torch.zeros(clusters, dim))
        self._used: int | None = None  # rows of the buffer that are centres; read off it once after a resume

    @torch.no_grad()
    def forward(
        self, points: Tensor, clusters: int, seed: int, keys: Tensor, sizes: list[int] | None, step: int
    ) -> Clusters:
        """:class:`Clusters` of the ``(N, D)`` points of the whole batch, the ``step``-th of the training."""
        if not self.training:
            return spherical_kmeans(points, clusters, seed, keys, sizes=sizes)
        if self._used is None:
            self._used = int(self.centres.any(1).sum())
        if step % self.every == 0 or self._used < 2:  # one centre, of a batch of one sentence, is nobody's negative
            found = spherical_kmeans(points, clusters, seed, keys, sizes=sizes)
            self._used = len(found.centres)
            self.centres.zero_()[: self._used] = found.centres
            return found
        centres = self.centres[: self._used].clone()
        with torch.autocast(points.device.type, enabled=False):
            return Clusters(centres, (unit(points).to(centres.dtype) @ centres.T).argmax(1))


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
