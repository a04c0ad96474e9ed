"""Centres that outlive their batch, against their rules written out."""

import math

import torch

from lingula.nn.clusters import CarriedCentres, OnlineCentres
from lingula.nn.kmeans import spherical_kmeans


def blobs(count, dim=16, groups=8, seed=0, spread=0.4):
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(groups, dim, generator=generator)
    points = middles[torch.arange(count) % groups] + spread * torch.randn(count, dim, generator=generator)
    return torch.nn.functional.normalize(points, dim=1)


# Clusters carried over.


def test_one_batch_in_every_few_is_clustered():
    carried = CarriedCentres(16, 6, every=3)
    batches = [blobs(48, seed=seed) for seed in range(5)]
    for step, points in enumerate(batches):
        found = carried(points, 6, step, keys(points), None, step)
        anew = spherical_kmeans(points, 6, step, keys(points))
        if step % 3 == 0:
            last = anew.centres
            assert torch.equal(found.assignment, anew.assignment)
        else:
            assert not torch.equal(anew.centres, last)
        assert torch.equal(found.centres, last)
        for point, own in zip(points.tolist(), found.assignment.tolist(), strict=True):
            cosines = [sum(x * y for x, y in zip(point, c, strict=True)) for c in last.tolist()]
            assert cosines[own] >= max(cosines) - 1e-6


def test_carried_clusters_go_on_after_a_resume_in_between():
    carried = CarriedCentres(16, 6, every=4)
    first, second = blobs(8), blobs(48, seed=1)
    carried(first, 4, 0, keys(first), None, 0)  # fewer clusters than the buffer has room for
    resumed = CarriedCentres(16, 6, every=4)
    resumed.load_state_dict(carried.state_dict())
    one, other = (bank(second, 6, 1, keys(second), None, 1) for bank in (carried, resumed))
    assert one.centres.shape == (4, 16)
    assert torch.equal(one.centres, other.centres)
    assert torch.equal(one.assignment, other.assignment)


def test_a_run_that_begins_in_between_is_clustered_at_once():
    carried, points = CarriedCentres(16, 6, every=4), blobs(48)
    assert torch.equal(
        carried(points, 6, 0, keys(points), None, 3).centres, spherical_kmeans(points, 6, 0, keys(points)).centres
    )


def test_the_one_cluster_of_a_single_sentence_is_not_carried_over():
    carried, single, points = CarriedCentres(16, 6, every=4), blobs(1), blobs(48)
    assert len(carried(single, 2, 0, keys(single), None, 0).centres) == 1
    assert torch.equal(
        carried(points, 6, 1, keys(points), None, 1).centres, spherical_kmeans(points, 6, 1, keys(points)).centres
    )


def test_evaluation_clusters_every_batch_and_carries_nothing():
    carried, first, second = CarriedCentres(16, 6, every=4), blobs(48), blobs(48, seed=1)
    carried(first, 6, 0, keys(first), None, 0)
    before = carried.centres.clone()
    found = carried.eval()(second, 6, 0, keys(second), None, 1)
    assert torch.equal(found.centres, spherical_kmeans(second, 6, 0, keys(second)).centres)
    assert torch.equal(carried.centres, before)


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
