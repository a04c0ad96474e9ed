"""Retrieval of films and reports, on a method whose answers are known."""

import numpy as np
import pytest
import torch

from lingula.metrics.ranking import ranks
from lingula.registry import UserError
from lingula.tasks.retrieval import Retrieval, rank_pairs


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
