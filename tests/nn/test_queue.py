"""The queue against a list that is written by hand, and the groups of keys."""

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
    monkeypatch.setattr(lingula.nn.queue, "gather", lambda x, sizes: torch.cat([keys[:2], x]))
    queue, whole = KeyQueue(5, 3).double(), KeyQueue(5, 3).double()
    queue.put(keys[2:])
    queue.after_step()
    monkeypatch.setattr(lingula.nn.queue, "gather", lambda x, sizes: x)
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


def test_keys_are_kept_in_full_precision_under_autocast():
    queue = KeyQueue(7, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queue.put(make_keys(3, seed=2).bfloat16())
    queue.after_step()
    assert queue.keys.dtype == torch.float32


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
