"""Retrieval of films and reports, on a method whose answers are known."""

import copy

import numpy as np
import pytest
import torch

from lingula.metrics.ranking import ranks
from lingula.registry import UserError
from lingula.tasks import retrieval
from lingula.tasks.retrieval import Retrieval, embed_pairs, rank_pairs


def numbers(method, loader, **settings):
    return rank_pairs(method, loader, **settings).row()


def test_an_oracle_reaches_the_ceiling_and_no_more(loader, oracle_class):
    found = numbers(oracle_class(loader), loader, pool=48)
    assert found["recall_at_5"] == pytest.approx(found["ceiling_at_5"])
    assert found["recall_at_1"] == pytest.approx(found["ceiling_at_1"])
    assert found["chance_at_5"] == pytest.approx(5 / 48)
    assert found["queries"] == 48
    assert found["recall_at_5_low"] <= found["recall_at_5"] <= found["recall_at_5_high"]


def test_a_constant_embedding_is_chance(loader, oracle_class):
    blind = oracle_class(loader)
    blind._content = lambda rows: torch.ones(len(rows), len(blind.code))
    found = numbers(blind, loader, pool=24)
    assert found["recall_at_5"] == pytest.approx(found["chance_at_5"])
    assert found["median_rank"] == pytest.approx(12.5)


def test_every_number_of_the_table_has_an_interval_that_holds_it(loader, oracle_class):
    rng = np.random.default_rng(0)
    noisy = oracle_class(loader)
    know = noisy._content
    noisy._content = lambda rows: (
        know(rows) + torch.from_numpy(rng.normal(0, 0.3, (len(rows), len(noisy.code)))).float()
    )
    found = rank_pairs(noisy, loader, pool=48, draws=200)
    assert set(found.replicates) == set(Retrieval.higher_is_better)
    row = found.row()
    for name in Retrieval.higher_is_better:
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"], name
        assert row[f"{name}_low"] < row[f"{name}_high"], name


def test_a_pool_of_nobody():
    with pytest.raises(UserError, match="pool must be at least 1, got 0"):
        Retrieval(pool=0)
    assert ranks(np.eye(2)).tolist() == [1, 1]


@pytest.mark.parametrize("processes", [2, 5])
def test_processes_that_share_the_films_come_to_the_same(loader, oracle_class, monkeypatch, processes):
    """Each in its turn: what it has, then what it makes of everybody's. 48 do not divide by five."""
    whole = embed_pairs(oracle_class(loader), loader)
    shares = [copy.copy(loader) for _ in range(processes)]
    for rank, share in enumerate(shares):
        share.rank, share.processes, share.batch_size = rank, processes, 3
        share.steps = -(-48 // (3 * processes))
    own = []
    for share in shares:
        monkeypatch.setattr(retrieval, "gather", lambda x, sizes: own.append(x) or x)
        embed_pairs(oracle_class(share), share)
    parts = [torch.cat(own[kind::3]) for kind in range(3)]  # films, reports, rows
    assert len(parts[0]) == -(-48 // processes) * processes
    coming = iter(parts)
    monkeypatch.setattr(retrieval, "gather", lambda x, sizes: next(coming))
    shared = embed_pairs(oracle_class(shares[1]), shares[1])
    for one, other in zip(shared, whole, strict=True):
        np.testing.assert_array_equal(one, other)
