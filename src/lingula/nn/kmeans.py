"""Spherical k-means on the device, without a host synchronisation, its work shared among the processes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lingula.gather import gather, sum_over_all, world
from lingula.keyed import keyed_gumbel, keyed_uniform
from lingula.losses.cosine import unit

GRAM_LIMIT = 1024  # points; up to here everything is read off their Gram matrix
ROUNDS = 5  # of k-means||


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


@torch.no_grad()
def spherical_kmeans(
    points: Tensor,
    clusters: int,
    seed: int = 0,
    keys: Tensor | None = None,
    iterations: int = 10,
    sizes: list[int] | None = None,
) -> Clusters:
    """k-means on the unit sphere (Dhillon and Modha 2001): cosine, centres re-normalised, no gradient.

    Up to 1,024 points: greedy k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's steps on the Gram matrix, which
    cost N^2 additions each instead of N K D products. Above: k-means|| (Bahmani et al. 2012), and every process looks
    after its own points; what travels in a step are N numbers while seeding, then K x D sums, however many processes
    there are.

    Args:
        points: ``(N, D)``, those of all processes. Normalised here.
        clusters: K, clamped to N.
        seed: of the seeding; the same seed gives the same clusters.
        keys: ``(N,)`` int64, each point's identity (:func:`lingula.keyed.keyed_uniform`); by default its place. With
            keys, the clusters do not depend on the order of the points.
        iterations: Lloyd's steps; fixed, so that nobody has to ask the device whether it has converged. A centre that
            loses its last point stays where it is.
        sizes: how many of the points each process looks after, in the order of the ranks; by default every process
            does all the work.
    Returns:
        :class:`Clusters` in float32 (float64 for float64 points), the same on all processes.
    Raises:
        ValueError: for no points or no clusters.
    """
    if len(points) == 0 or clusters < 1:
        raise ValueError(f"k-means needs points and clusters, got {len(points)} points and K = {clusters}")
    with torch.autocast(points.device.type, enabled=False):
        points = unit(points)
        if keys is None:
            keys = torch.arange(len(points), device=points.device)
        clusters = min(clusters, len(points))
        if len(points) <= GRAM_LIMIT:
            return _on_the_gram_matrix(points, clusters, seed, keys, iterations)
        return _shared(points, clusters, seed, keys, iterations, sizes)


def _on_the_gram_matrix(points: Tensor, clusters: int, seed: int, keys: Tensor, iterations: int) -> Clusters:
    """Every centre is a weighted sum of points, so its products with the points are sums of the Gram matrix's rows."""
    order = keys.argsort()  # from here on nothing depends on the order in which the points came
    points = points.index_select(0, order)
    gram = points @ points.T
    chosen = _spread_out(gram, None, clusters, seed)
    along = gram.index_select(0, chosen)  # (K, N): products of centres and points
    assignment = _nearest(along, 0)
    of_each = torch.empty_like(assignment[:clusters]).fill_(-1)  # of each centre, the step that moved it last
    assignments = []
    for step in range(iterations):
        sums = torch.zeros_like(along).index_add_(0, assignment, gram)
        own = sums.gather(0, assignment[None])[0]  # each point with its cluster's sum; they add up to its square
        lengths = torch.zeros_like(own[:clusters]).index_add_(0, assignment, own).clamp_min(0).sqrt()
        moved = lengths > 1e-6
        of_each = of_each.masked_fill(moved, step)
        along = torch.where(moved[:, None], sums / lengths.clamp_min(1e-6)[:, None], along)
        assignments.append(assignment)
        assignment = _nearest(along, 0)
    members = torch.zeros_like(along).scatter_(1, chosen[:, None], 1.0)
    if assignments:
        then = torch.stack(assignments).index_select(0, of_each.clamp_min(0))  # (K, N)
        here = then == torch.arange(clusters, device=then.device)[:, None]
        members = torch.where(of_each[:, None] < 0, members, here.to(members.dtype))
    return Clusters(unit(members @ points), torch.empty_like(assignment).scatter_(0, order, assignment))


def _nearest(along: Tensor, dim: int) -> Tensor:
    """Where along a dimension the largest is; on CPUs torch's max is twice as fast as its argmax."""
    return along.max(dim).indices


def _shared(
    points: Tensor, clusters: int, seed: int, keys: Tensor, iterations: int, sizes: list[int] | None
) -> Clusters:
    """Each process looks after its own rows of the points, and sees all of them."""
    start = 0 if sizes is None else sum(sizes[: world()[0]])
    stop = len(points) if sizes is None else start + sizes[world()[0]]
    own = points[start:stop]

    def of_all(x: Tensor) -> Tensor:
        return x if sizes is None else gather(x, sizes)

    def added(x: Tensor) -> Tensor:
        return x if sizes is None else sum_over_all(x)

    # k-means||: a few rounds, each of which draws candidates in proportion to their distance to those before; no point
    # twice.
    each_round = max(1, min(2 * clusters, (len(points) - 1) // ROUNDS))
    taken = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    luck = keyed_gumbel(seed, keys[start:stop], ROUNDS + 1).to(points.dtype)
    drawn = [of_all(luck[:, 0]).argmax(0, keepdim=True)]
    nearest = own.new_full((len(own),), 4.0)  # the largest squared distance on the sphere
    owner = torch.zeros(len(own), dtype=torch.int64, device=own.device)  # of each point, the nearest candidate
    count = 0
    for turn in range(1, ROUNDS + 2):
        distance, place = (2.0 - 2.0 * (own @ points[drawn[-1]].T)).clamp_min(0.0).min(1)
        owner = torch.where(distance < nearest, count + place, owner)
        nearest = torch.minimum(nearest, distance)
        count += len(drawn[-1])
        if turn <= ROUNDS:
            taken[drawn[-1]] = True
            score = of_all(nearest.clamp_min(1e-12).log() + luck[:, turn]).masked_fill(taken, -torch.inf)
            drawn.append(score.topk(each_round).indices)
    candidates = points[torch.cat(drawn)]
    masses = added(own.new_zeros(count).index_add_(0, owner, torch.ones_like(nearest)))
    centres = candidates[_spread_out(candidates @ candidates.T, masses, clusters, seed)]

    for _ in range(iterations):
        sums = added(torch.zeros_like(centres).index_add_(0, _nearest(own @ centres.T, 1), own))
        lengths = sums.norm(dim=1, keepdim=True)
        centres = torch.where(lengths > 1e-6, sums / lengths.clamp_min(1e-6), centres)
    return Clusters(centres, of_all(_nearest(own @ centres.T, 1)))


def _spread_out(gram: Tensor, masses: Tensor | None, clusters: int, seed: int) -> Tensor:
    """Greedy k-means++: of a few candidates, drawn in proportion to mass times squared distance to the nearest chosen
    point, the one that leaves the least inertia.

    Args:
        gram: ``(M, M)`` of unit vectors.
        masses: ``(M,)`` how many points each stands for; ``None`` for one each.
        clusters: K <= M.
        seed: of the draws.
    Returns:
        ``(K,)`` int64 places in [0, M).
    """
    distance = (2.0 - 2.0 * gram).clamp_min(0.0).nan_to_num(0.0)  # (M, M), squared; points may be no numbers
    steps = torch.arange(clusters, device=gram.device)
    luck = keyed_uniform(seed, steps, 2 + int(math.log(clusters))).to(gram.dtype).unbind()  # K x (candidates,)

    def draw(weights: Tensor, uniform: Tensor) -> Tensor:
        """Where numbers from 0 to the sum of all weights fall among their cumulated sums."""
        heights = weights.cumsum(0)
        return torch.searchsorted(heights, uniform * heights[-1])

    chosen = [draw(torch.ones_like(gram[0]) if masses is None else masses, luck[0][:1])]
    nearest = distance.index_select(0, chosen[0])  # (1, M)
    for uniform in luck[1:]:
        drawn = draw((nearest if masses is None else nearest * masses)[0], uniform)
        left = torch.minimum(nearest, distance.index_select(0, drawn))  # (candidates, M)
        best = (left.sum(1) if masses is None else left @ masses).argmin(0, keepdim=True)
        nearest = left.index_select(0, best)
        chosen.append(drawn.index_select(0, best))
    return torch.cat(chosen)
