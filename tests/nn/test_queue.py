"""The queue against a list that is written by hand, its loss against a literal sum, and the groups of keys."""

import math
import random

import pytest
import torch
from torch import nn

import lingula.nn.queue
from lingula.nn.queue import KeyQueue, in_shuffled_groups


def make_keys(count, dim=3, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


# The queue.


@pytest.mark.parametrize(
    "sizes", [(2, 2, 2, 2), (3, 3, 3, 3, 3), (1, 4, 2, 5), (5,), (6, 6), (7, 2), (13, 1, 23)], ids=str
)
def test_first_in_first_out(sizes):
    """K = 6: batches that divide it, that do not, that fill it, and that are longer."""
    queue = KeyQueue(6, 3).double()
    waiting = queue.keys.tolist()  # the oldest first
    for number, size in enumerate(sizes):
        keys = make_keys(size, seed=number)
        queue.put(keys)
        queue.after_step()
        for row in keys.tolist():
            waiting.pop(0)
            waiting.append(literal_unit(row))
        oldest_first = queue.keys.roll(-int(queue.pointer), 0)
        torch.testing.assert_close(oldest_first, torch.tensor(waiting, dtype=torch.float64))
    assert int(queue.pointer) == sum(sizes) % 6


def test_it_starts_with_the_same_random_directions_whatever_the_seed():
    torch.manual_seed(0)
    first, state = KeyQueue(500, 8).keys, torch.get_rng_state()
    torch.manual_seed(1)
    random.seed(1)
    assert torch.equal(KeyQueue(500, 8).keys, first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)  # and it takes no number from anybody
    torch.testing.assert_close(first.norm(dim=1), torch.ones(500))
    cosines = first @ first.T - torch.eye(500)
    assert abs(cosines.mean()) < 0.01
    assert cosines.std().item() == pytest.approx(1 / math.sqrt(8), rel=0.05)


def test_it_is_written_after_the_step_and_only_in_training():
    queue = KeyQueue(4, 3).double()
    before = queue.keys.clone()
    queue.put(make_keys(2))
    assert torch.equal(queue.keys, before)
    queue.after_step()
    assert not torch.equal(queue.keys, before)
    before = queue.keys.clone()
    queue.after_step()  # once
    assert torch.equal(queue.keys, before)
    queue.eval()
    queue.put(make_keys(2, seed=1))
    queue.after_step()
    queue.train()
    queue.after_step()
    assert torch.equal(queue.keys, before)


def test_all_batches_of_an_accumulated_step():
    one, other = KeyQueue(4, 3).double(), KeyQueue(4, 3).double()
    keys = make_keys(3)
    one.put(keys[:1])
    one.put(keys[1:])
    other.put(keys)
    for queue in (one, other):
        queue.after_step()
    assert torch.equal(one.keys, other.keys)


def test_keys_of_all_processes_in_the_order_of_the_ranks(monkeypatch):
    """As the second of two processes sees it; tests/methods/test_two_processes.py has two real ones."""
    keys = nn.functional.normalize(make_keys(4))
    monkeypatch.setattr(lingula.nn.queue, "gather", lambda x: torch.cat([keys[:2], x]))
    queue, whole = KeyQueue(5, 3).double(), KeyQueue(5, 3).double()
    queue.put(keys[2:])
    queue.after_step()
    monkeypatch.setattr(lingula.nn.queue, "gather", lambda x: x)
    whole.put(keys)
    whole.after_step()
    torch.testing.assert_close(queue.keys, whole.keys)
    assert torch.equal(queue.pointer, whole.pointer)


def test_it_comes_back_from_a_checkpoint():
    queue, other = KeyQueue(5, 3), KeyQueue(5, 3)
    queue.put(make_keys(3))
    queue.after_step()
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.put(make_keys(4, seed=1))
        each.after_step()
    assert torch.equal(queue.keys, other.keys)
    assert torch.equal(queue.pointer, other.pointer)


def test_a_queue_of_nothing():
    with pytest.raises(ValueError, match="one key or more, got 0"):
        KeyQueue(0, 3)


# Its loss.


def literal_contrast(query, key, queue, tau):
    """Eq. 1 of MoCo: one Python sum per sum of the equation."""
    losses = []
    for q, k in zip(query, key, strict=True):
        q, k = literal_unit(q), literal_unit(k)
        own = math.exp(sum(x * y for x, y in zip(q, k, strict=True)) / tau)
        denominator = own
        for u in queue:
            denominator += math.exp(sum(x * y for x, y in zip(q, u, strict=True)) / tau)
        losses.append(-math.log(own / denominator))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equation(size, tau):
    queue = KeyQueue(7, 3).double()
    query, key = make_keys(size, seed=1), make_keys(size, seed=2)
    expected = literal_contrast(query.tolist(), key.tolist(), queue.keys.tolist(), tau)
    torch.testing.assert_close(queue.contrast(query, key, tau), expected)


def test_the_other_keys_of_the_batch_are_no_candidates():
    queue = KeyQueue(7, 3).double()
    query, key = make_keys(4, seed=1), make_keys(4, seed=2)
    alone = torch.cat([queue.contrast(query[i : i + 1], key[i : i + 1], 0.1) for i in range(4)])
    torch.testing.assert_close(queue.contrast(query, key, 0.1), alone)


def test_gradient_to_the_query_alone():
    queue = KeyQueue(7, 3).double()
    query, key = make_keys(3, seed=1).requires_grad_(), make_keys(3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: queue.contrast(q, key.detach(), 0.2), query)
    queue.contrast(query, key, 0.2).sum().backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None
    assert not queue.keys.requires_grad


def test_closed_forms():
    queue = KeyQueue(7, 3).double()
    queue.keys.copy_(torch.tensor([1.0, 0.0, 0.0]))
    same = torch.ones(2, 1).double() * queue.keys[0]
    eight = torch.full((2,), math.log(8), dtype=torch.float64)
    torch.testing.assert_close(queue.contrast(same, same, 0.07), eight)
    across = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([math.log(math.exp(1 / 0.5) + 7) - 1 / 0.5], dtype=torch.float64)
    torch.testing.assert_close(queue.contrast(across, across, 0.5), expected)


def test_lengths_do_not_matter():
    queue = KeyQueue(7, 3).double()
    query, key = make_keys(3, seed=1), make_keys(3, seed=2)
    torch.testing.assert_close(queue.contrast(5 * query, key / 7, 0.1), queue.contrast(query, key, 0.1))


def test_full_precision_under_autocast():
    queue = KeyQueue(7, 3)
    query, key = make_keys(3, seed=1).float().requires_grad_(), make_keys(3, seed=2).float()
    expected = queue.contrast(query, key, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = queue.contrast(query, key, 0.01)
        half = queue.contrast(query.bfloat16(), key.bfloat16(), 0.01)
        queue.put(key.bfloat16())
    assert loss.dtype == half.dtype == torch.float32
    assert half.isfinite().all()
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert query.grad.isfinite().all()
    queue.after_step()
    assert queue.keys.dtype == torch.float32


def test_shapes_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r"query and key must pair up, got \(2, 3\) and \(1, 3\)"):
        KeyQueue(4, 3).contrast(torch.ones(2, 3), torch.ones(1, 3), 0.1)


# Keys in groups.


def watched(norm, seen):
    def encode(films):
        seen.append(films)
        return norm(films)

    return encode


@pytest.mark.parametrize(
    ("count", "groups", "sizes"),
    [(8, 4, [2] * 4), (10, 4, [3, 3, 2, 2]), (10, 3, [4, 3, 3]), (5, 8, [3, 2]), (3, 2, [3]), (8, 1, [8]), (1, 4, [1])],
)
def test_every_film_is_in_one_group_of_two_or_more(count, groups, sizes):
    seen, films = [], torch.arange(float(count))[:, None]
    encoded = in_shuffled_groups(watched(nn.Identity(), seen), films, torch.arange(count), 3, groups)
    assert [len(group) for group in seen] == sizes
    assert sorted(torch.cat(seen)[:, 0].tolist()) == films[:, 0].tolist()
    assert torch.equal(encoded, films)  # back in their order


def test_a_group_has_its_own_statistics():
    """Against each group by hand: the mean and the variance of its own films."""
    seen, films = [], make_keys(9, dim=2)
    norm = nn.BatchNorm1d(2, eps=1e-12).double()
    encoded = in_shuffled_groups(watched(norm, seen), films, torch.arange(9), 3, 3)
    for group in seen:
        for film in group:
            place = (films == film).all(1).nonzero().item()
            for d in range(2):
                column = group[:, d].tolist()
                mean = sum(column) / len(column)
                variance = sum((x - mean) ** 2 for x in column) / len(column)
                expected = (film[d].item() - mean) / math.sqrt(variance)
                assert encoded[place, d].item() == pytest.approx(expected, rel=1e-9)
    assert not torch.allclose(encoded, nn.BatchNorm1d(2, eps=1e-12).double()(films))


def test_the_groups_belong_to_seed_and_rows():
    films, rows = make_keys(16, dim=2), torch.arange(50, 66)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4, 15, 8, 14, 9, 13, 10, 12, 11])

    def encode(films, rows, seed):
        return in_shuffled_groups(nn.BatchNorm1d(2).double(), films, rows, seed, 4)

    first = encode(films, rows, 3)
    torch.testing.assert_close(encode(films[order], rows[order], 3), first[order])
    assert not torch.allclose(encode(films, rows, 4), first)


def test_groups_change_nothing_where_the_norms_stand_still():
    films, norm = make_keys(8, dim=2), nn.BatchNorm1d(2).double().eval()
    torch.testing.assert_close(in_shuffled_groups(norm, films, torch.arange(8), 3, 4), norm(films))
