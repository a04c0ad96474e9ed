"""Spherical k-means against scikit-learn, below and above the size at which it changes its way."""

import statistics

import pytest
import torch
from sklearn.cluster import KMeans

from lingula.nn import kmeans
from lingula.nn.kmeans import spherical_kmeans

LIMITS = (0, kmeans.GRAM_LIMIT)


def blobs(count, dim=16, groups=8, seed=0, spread=0.4):
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(groups, dim, generator=generator)
    points = middles[torch.arange(count) % groups] + spread * torch.randn(count, dim, generator=generator)
    return torch.nn.functional.normalize(points, dim=1)


def inertia(points, assignment):
    """Sum of squared distances to the means of the clusters, as scikit-learn counts it."""
    total = 0.0
    for k in assignment.unique():
        members = points[assignment == k]
        total += (members - members.mean(0)).square().sum().item()
    return total


@pytest.fixture(autouse=True, params=["on the Gram matrix", "for many points"])
def way(request, monkeypatch):
    """Both ways must do all of this."""
    if request.param == "for many points":
        monkeypatch.setattr(kmeans, "GRAM_LIMIT", 0)


@pytest.mark.parametrize("spread", [0.4, 3.0])  # clusters that are there, and next to none
def test_inertia_is_scikit_learns(spread):
    ours, theirs = [], []
    for seed in range(9):
        points = blobs(384, 64, groups=100, seed=seed, spread=spread)
        ours.append(inertia(points, spherical_kmeans(points, 128, seed).assignment))
        theirs.append(KMeans(128, n_init=1, random_state=seed).fit(points.numpy()).inertia_)
    assert statistics.median(ours) <= 1.01 * statistics.median(theirs)


def test_separate_groups_are_found():
    points = blobs(80, groups=8, spread=0.05)
    assignment = spherical_kmeans(points, 8, seed=3).assignment
    for group in range(8):
        assert len(assignment[group::8].unique()) == 1
    assert len(assignment.unique()) == 8


@pytest.mark.parametrize("spread", [0.4, 3.0])
def test_what_k_means_promises(spread):
    points = 3 * blobs(96, 64, spread=spread)
    points.requires_grad_()
    clusters = spherical_kmeans(points, 10, seed=1)
    assert not clusters.centres.requires_grad
    torch.testing.assert_close(clusters.centres.norm(dim=1), torch.ones(10))
    unit = points.detach() / points.detach().norm(dim=1, keepdim=True)
    lies_with_its_nearest_centre(unit, clusters)
    for k in clusters.assignment.unique():  # each centre is the direction of its members' sum
        total = unit[clusters.assignment == k].sum(0)
        torch.testing.assert_close(clusters.centres[k], total / total.norm(), rtol=1e-4, atol=1e-5)


def lies_with_its_nearest_centre(points, clusters):
    for point, own in zip(points.tolist(), clusters.assignment.tolist(), strict=True):
        cosines = [sum(x * y for x, y in zip(point, c, strict=True)) for c in clusters.centres.tolist()]
        assert cosines[own] >= max(cosines) - 1e-6


def test_the_assignment_is_to_the_last_centres():
    points = blobs(96, 64, spread=3.0)
    for iterations in (0, 1, 2):  # before anything has settled
        lies_with_its_nearest_centre(points, spherical_kmeans(points, 10, iterations=iterations))


def test_iterations_go_on_lowering_the_inertia():
    points = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)).double()
    points = points / points.norm(dim=1, keepdim=True)  # a sphere without groups settles slowly
    found = [inertia(points, spherical_kmeans(points, 10, iterations=n).assignment) for n in (0, 1, 4, 10)]
    assert found[0] > found[1] > found[2] > found[3]
    assert inertia(points, spherical_kmeans(points, 10).assignment) == found[3]  # 10 is the default


@pytest.mark.parametrize("way", ["on the Gram matrix"], indirect=True)
@pytest.mark.parametrize("seed", [360, 670, 475])  # of 6,000 draws of seeds as bad as these, six empty a cluster
def test_a_centre_that_loses_its_last_point_stays_where_it_is(seed, monkeypatch):
    count, clusters = (16, 8) if seed == 475 else (20, 6)
    generator = torch.Generator().manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(count, 2, generator=generator).double(), dim=1)
    chosen = torch.randint(count, (clusters,), generator=generator).unique()
    monkeypatch.setattr(kmeans, "_spread_out", lambda *_: chosen)
    expected, has_moved, was_left = points[chosen].clone(), set(), set()
    for _ in range(10):  # Lloyd's steps as they are written in books
        nearest = (points @ expected.T).argmax(1)
        for k in range(len(chosen)):
            total = points[nearest == k].sum(0)
            if (nearest == k).any():
                expected[k] = total / total.norm()
                has_moved.add(k)
            elif k in has_moved:
                was_left.add(k)
    assert was_left
    torch.testing.assert_close(spherical_kmeans(points, len(chosen)).centres, expected)


def test_the_same_seed_gives_the_same_clusters_and_another_may_not():
    points = blobs(96, 64, spread=3.0)
    one, again, other = (spherical_kmeans(points, 24, seed) for seed in (5, 5, 6))
    assert torch.equal(one.centres, again.centres)
    assert torch.equal(one.assignment, again.assignment)
    assert not torch.equal(one.assignment, other.assignment)


def test_the_order_of_the_points_does_not_matter():
    points = blobs(96, 64, spread=3.0).double()
    keys = torch.randint(0, 2**40, (96,), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(96, generator=torch.Generator().manual_seed(1))
    one = spherical_kmeans(points, 24, seed=2, keys=keys)
    other = spherical_kmeans(points[order], 24, seed=2, keys=keys[order])
    assert torch.equal(other.assignment, one.assignment[order])
    torch.testing.assert_close(other.centres, one.centres)


def test_length_and_rotation():
    points = blobs(64).double()
    rotation = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q
    one, other = spherical_kmeans(points, 8), spherical_kmeans(7 * points @ rotation, 8)
    assert torch.equal(one.assignment, other.assignment)
    torch.testing.assert_close(other.centres, one.centres @ rotation)


def test_edges():
    one = spherical_kmeans(torch.tensor([[0.0, 2.0]]), 5)
    assert one.centres.tolist() == [[0.0, 1.0]]
    assert one.assignment.tolist() == [0]
    assert spherical_kmeans(blobs(5), 128).centres.shape == (5, 16)  # clamped to N
    same = spherical_kmeans(torch.ones(6, 4), 3)
    assert same.centres.isfinite().all()
    with pytest.raises(ValueError, match="k-means needs points and clusters, got 0 points and K = 3"):
        spherical_kmeans(torch.zeros(0, 4), 3)
    with pytest.raises(ValueError, match="got 4 points and K = 0"):
        spherical_kmeans(torch.ones(4, 4), 0)


def test_points_that_are_no_numbers_are_left_to_whoever_checks_the_loss():
    points = blobs(40)
    points[7] = float("nan")
    for broken in (points, torch.full((40, 16), float("nan"))):
        clusters = spherical_kmeans(broken, 6)
        assert clusters.centres.shape == (6, 16)
        assert clusters.assignment.shape == (40,)
        assert set(clusters.assignment.tolist()) <= set(range(6))


def test_full_precision_under_autocast():
    points = blobs(192, 64, spread=3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clusters = spherical_kmeans(points, 48)
    assert torch.equal(clusters.centres, spherical_kmeans(points, 48).centres)


@pytest.mark.parametrize("groups", [40, 400])
def test_the_ways_meet_where_they_change(groups, monkeypatch):
    found = {}
    for limit in LIMITS:
        monkeypatch.setattr(kmeans, "GRAM_LIMIT", limit)
        found[limit] = statistics.median(
            inertia(points, spherical_kmeans(points, 64, seed).assignment)
            for seed in range(5)
            for points in [blobs(1000, 32, groups, seed)]
        )
    one, other = found.values()
    assert abs(one / other - 1) < 0.02
