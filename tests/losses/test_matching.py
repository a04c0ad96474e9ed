"""Matching against every assignment that there is."""

import itertools

import pytest
import torch

from lingula.losses.matching import match_queries


def cheapest(cost, items):
    """The least total cost over all ways to give each item its own query."""
    return min(
        sum(cost[q][s] for s, q in enumerate(queries)) for queries in itertools.permutations(range(len(cost)), items)
    )


@pytest.mark.parametrize(("queries", "counts"), [(1, (1,)), (3, (3, 1)), (5, (4, 1, 0, 3, 2))])
def test_every_assignment(queries, counts):
    torch.manual_seed(queries)
    cost = torch.rand(len(counts), queries, max(counts), dtype=torch.float64)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    cost.masked_fill_(~mask[:, None], -100.0)  # who took padding for items would be lured
    matched = match_queries(cost, mask)
    for b, count in enumerate(counts):
        own = matched[b, :count].tolist()
        assert len(set(own)) == count  # one to one
        total = sum(cost[b, q, s].item() for s, q in enumerate(own))
        assert total == pytest.approx(cheapest(cost[b].tolist(), count))
        assert (matched[b, count:] == 0).all()


def test_it_is_the_query_of_the_item_and_not_the_other_way_round():
    """A cycle of three is not its own inverse."""
    cost = torch.tensor([[[9.0, 0.0, 9.0], [9.0, 9.0, 0.0], [0.0, 9.0, 9.0]]])  # 0 makes 1, 1 makes 2, 2 makes 0
    assert match_queries(cost, torch.ones(1, 3, dtype=torch.bool)).tolist() == [[2, 0, 1]]


def test_no_gradient_and_no_crash_where_training_has_gone_wrong():
    cost = torch.full((1, 3, 2), torch.nan, requires_grad=True)
    matched = match_queries(cost, torch.ones(1, 2, dtype=torch.bool))
    assert not matched.requires_grad
    assert len(set(matched[0].tolist())) == 2
    infinite = match_queries(torch.full((1, 3, 2), torch.inf), torch.ones(1, 2, dtype=torch.bool))
    assert len(set(infinite[0].tolist())) == 2


def test_errors():
    with pytest.raises(ValueError, match=r"expected a mask of shape \(1, 2\), got \(2, 2\)"):
        match_queries(torch.ones(1, 3, 2), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 queries cannot make 3 items"):
        match_queries(torch.ones(1, 2, 3), torch.ones(1, 3, dtype=torch.bool))
