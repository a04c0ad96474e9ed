"""Fixed positions against sines and cosines written out."""

import math

import pytest
import torch

from lingula.nn.positions import grid_positions


@pytest.mark.parametrize(("grid", "width"), [((2, 3), 8), ((1, 1), 4), ((4, 2), 12)])
def test_positions(grid, width):
    expected = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            row = []
            for coordinate in (y, x):
                for wave in (math.sin, math.cos):
                    row += [wave(coordinate / 10000 ** (k / (width // 4))) for k in range(width // 4)]
            expected.append(row)
    torch.testing.assert_close(grid_positions(grid, width), torch.tensor(expected))


def test_positions_of_a_larger_film_lie_between_those_of_the_trained_one():
    small, large = grid_positions((2, 2), 4), grid_positions((6, 6), 4, trained=(2, 2))
    middles = torch.tensor([1, 4])  # of each third of three places
    torch.testing.assert_close(large.view(6, 6, 4)[middles][:, middles].view(4, 4), small)


def test_positions_of_a_width_that_cannot_be_split():
    with pytest.raises(ValueError, match="width 6 is not divisible by 4"):
        grid_positions((2, 2), 6)
