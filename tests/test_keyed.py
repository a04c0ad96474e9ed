"""Random numbers that belong to keys: are they uniform, and do they belong?"""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from lingula.keyed import keyed_gumbel, keyed_uniform

MASK = 2**64 - 1


def literal_mix(x):
    """SplitMix64's finaliser on a Python int of 64 bits."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def literal_uniform(seed, key, draw):
    golden = 0x9E3779B97F4A7C15
    start = literal_mix(literal_mix(key * golden & MASK) + (seed * 0xD1342543DE82EF95 + 1) & MASK)
    bits = literal_mix(start + (draw + 1) * golden & MASK)
    return ((bits >> 12) + 0.5) / 2**52


AWKWARD = [0, 1, -1, 2, 12345, -987654321, 2**31, 2**40 + 7, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("seed", [0, 1, -3, 2**31, 2**70 + 1])
def test_unsigned_integers_of_python_give_the_same(seed):
    numbers = keyed_uniform(seed, torch.tensor(AWKWARD), 3)
    expected = [[literal_uniform(seed, key, draw) for draw in range(3)] for key in AWKWARD]
    assert numbers.tolist() == expected
    assert numbers.dtype == torch.float64


@pytest.mark.parametrize(
    "keys",
    [torch.arange(20_000), -torch.arange(20_000), torch.arange(20_000) * 2**32, 2**62 + torch.arange(20_000) * 1024],
    ids=["rows", "negative", "high bits", "large"],
)
def test_uniform_over_keys_and_over_draws(keys):
    for draw in keyed_uniform(3, keys, 3).T:
        assert stats.kstest(draw.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(keyed_uniform(3, keys[:1], 20_000)[0].numpy(), "uniform").pvalue > 1e-3
    seeds = [keyed_uniform(seed, keys[7:8], 1).item() for seed in range(3000)]
    assert stats.kstest(seeds, "uniform").pvalue > 1e-3


def test_seeds_keys_and_draws_are_unrelated():
    numbers = [keyed_uniform(seed, torch.arange(20_000), 3) for seed in (0, 1, 2, 1000)]
    columns = torch.cat(numbers, dim=1).numpy()
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 5 / 20_000**0.5
    for lag, column in itertools.product((1, 2, 64), columns.T):  # neighbouring keys
        assert abs(np.corrcoef(column[lag:], column[:-lag])[0, 1]) < 5 / 20_000**0.5
    assert len(np.unique(columns)) == columns.size


def test_numbers_belong_to_keys_not_to_places():
    keys = torch.tensor([5, -7, 2**50, 5, 0])
    numbers = keyed_uniform(9, keys, 4)
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.equal(keyed_uniform(9, keys[order], 4), numbers[order])
    assert torch.equal(numbers[0], numbers[3])
    assert torch.equal(keyed_uniform(9, keys, 2), numbers[:, :2])  # more draws change no earlier one


def test_the_interval_is_open():
    numbers = keyed_uniform(0, torch.arange(300_000), 1)
    assert numbers.min() > 0
    assert numbers.max() < 1
    assert keyed_gumbel(0, torch.arange(300_000), 1).isfinite().all()
    assert 0 < 0.5 / 2**52
    assert (2**52 - 0.5) / 2**52 < 1  # the largest number there is


def test_gumbel_draws_in_proportion():
    weights = torch.tensor([1.0, 2.0, 5.0])
    drawn = (weights.log() + keyed_gumbel(1, torch.arange(3), 20_000).T).argmax(1)
    share = torch.bincount(drawn, minlength=3) / 20_000
    torch.testing.assert_close(share, weights / 8, atol=0.015, rtol=0)
    assert stats.kstest(keyed_gumbel(2, torch.arange(20_000), 1)[:, 0].numpy(), "gumbel_r").pvalue > 1e-3
