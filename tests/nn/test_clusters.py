"""Spherical k-means against scikit-learn; the running centres against their rule written out."""

import math
import statistics

import pytest
import torch
from sklearn.cluster import KMeans

from lingula.nn.clusters import OnlineCentres, spherical_kmeans


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
    found = [inertia(points, spherical_kmeans(points, 10, iterations=n).assignment) for n in (0, 1, 4, 20)]
    assert found[0] > found[1] > found[2] > found[3]
    assert inertia(points, spherical_kmeans(points, 10).assignment) == found[3]  # 20 is the default


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


def test_full_precision_under_autocast():
    points = blobs(192, 64, spread=3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clusters = spherical_kmeans(points, 48)
    assert torch.equal(clusters.centres, spherical_kmeans(points, 48).centres)


# The running centres.


def keys(points):
    return torch.arange(len(points))


def started_bank(points, clusters=4, momentum=0.9):
    bank = OnlineCentres(points.shape[1], clusters, momentum)
    bank(points, 0, keys(points))
    bank.after_step()
    assert bank.started
    return bank


def literal_mean_cosine(points):
    total = 0.0
    for a in points.tolist():
        for b in points.tolist():
            total += sum(x * y for x, y in zip(a, b, strict=True))
    return total / len(points) ** 2


def literal_step(centres, points, momentum):
    """c <- m c + (1 - m) mean of the points nearest to c, back to unit length; a centre without points stays."""
    members = [[] for _ in centres]
    for point in points:
        cosines = [sum(x * y for x, y in zip(point, c, strict=True)) for c in centres]
        members[cosines.index(max(cosines))].append(point)
    moved = []
    for centre, own in zip(centres, members, strict=True):
        if own:
            mean = [sum(p[d] for p in own) / len(own) for d in range(len(centre))]
            centre = [momentum * c + (1 - momentum) * m for c, m in zip(centre, mean, strict=True)]
            length = math.sqrt(sum(c * c for c in centre))
            centre = [c / length for c in centre]
        moved.append(centre)
    return torch.tensor(moved)


def test_the_bank_starts_on_the_first_batch_that_is_spread_enough():
    close, spread = blobs(32, groups=1), blobs(32, groups=8)
    assert literal_mean_cosine(close) > 0.4 >= literal_mean_cosine(spread)
    bank = OnlineCentres(16, 4)
    for points, started in ((close, False), (spread, True)):
        clusters = bank(points, 3, keys(points))
        assert not bank.started  # not before the step is over
        assert not clusters.exist
        assert (clusters.assignment == -1).all()
        bank.after_step()
        assert bool(bank.started) is started
    torch.testing.assert_close(bank.centres, spherical_kmeans(spread, 4, 3).centres)


def test_a_batch_smaller_than_the_bank_cannot_start_it():
    points = blobs(3, groups=3)
    bank = OnlineCentres(16, 4, start_below=1.0)
    bank(points, 0, keys(points))
    bank.after_step()
    assert not bank.started


def test_the_threshold_is_the_mean_cosine():
    points = blobs(24, groups=3)
    mean = literal_mean_cosine(points)
    for start_below, started in ((mean + 1e-4, True), (mean - 1e-4, False)):
        bank = OnlineCentres(16, 4, start_below=start_below)
        bank(points, 0, keys(points))
        bank.after_step()
        assert bool(bank.started) is started


def test_the_bank_moves_by_momentum_once_a_step():
    first, second = blobs(32), blobs(32, seed=9)
    bank = started_bank(first)
    before = bank.centres.clone()
    clusters = bank(second, 1, keys(second))
    torch.testing.assert_close(clusters.centres, before)  # the batch sees the bank, not its own k-means
    assert torch.equal(bank.centres, before)
    bank.after_step()
    expected = literal_step(before.tolist(), second.tolist(), 0.9)
    torch.testing.assert_close(bank.centres, expected)
    bank.after_step()
    torch.testing.assert_close(bank.centres, expected)  # no second batch, no second step


def test_a_centre_without_points_stays():
    points = blobs(32)
    bank = started_bank(points)
    with torch.no_grad():
        bank.centres[2] = -points.mean(0) / points.mean(0).norm()
    before = bank.centres.clone()
    few = bank.centres[:1] + 0.01 * torch.randn(5, 16)
    bank(few, 0, keys(few))
    bank.after_step()
    assert torch.equal(bank.centres[1:], before[1:])
    assert not torch.equal(bank.centres[0], before[0])


def test_evaluation_leaves_the_bank_alone():
    points = blobs(32)
    bank = OnlineCentres(16, 4).eval()
    bank(points, 0, keys(points))
    bank.after_step()
    assert not bank.started
    bank = started_bank(points).eval()
    before = bank.centres.clone()
    bank(blobs(32, seed=9), 0, keys(points))
    bank.after_step()
    assert torch.equal(bank.centres, before)


def test_the_bank_survives_its_state_dict():
    first, second = blobs(32), blobs(32, seed=9)
    bank = started_bank(first)
    copy = OnlineCentres(16, 4, 0.9)
    copy.load_state_dict(bank.state_dict())
    for one in (bank, copy):
        one(second, 1, keys(second))
        one.after_step()
    assert copy.started
    assert torch.equal(copy.centres, bank.centres)


def test_the_bank_has_no_gradient():
    points = blobs(32).requires_grad_()
    assert not OnlineCentres(16, 4)(points, 0, keys(points)).centres.requires_grad
    assert not list(OnlineCentres(16, 4).parameters())
