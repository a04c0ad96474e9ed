"""The swap test, on methods that read the film and methods that do not."""

import copy

import numpy as np
import pytest

from lingula.registry import UserError
from lingula.tasks.swap_test import other_film, swap_films


def test_the_swap_test_tells_who_reads_the_film(loader, oracle_class):
    reads = swap_films(oracle_class(loader), loader).row()
    guesses = swap_films(oracle_class(loader, reads_film=False), loader).row()
    assert reads["right"] == guesses["right"] > 0.5
    assert guesses["swapped"] == guesses["right"]  # a method that recognises its own query does as well
    assert reads["swapped"] < 0.1 * reads["right"]
    assert reads["sentences"] == loader.tokens.sentences[loader.rows].sum()
    assert reads["right_low"] <= reads["right"] <= reads["right_high"]
    assert reads["chance"] == pytest.approx(len(loader) / reads["sentences"])


def test_films_are_swapped_between_patients():
    assert other_film(np.array(["a", "a", "b", "c", "c"])).tolist() == [2, 2, 3, 0, 0]
    assert other_film(np.array(["a", "a", "b"])).tolist() == [2, 2, 0]
    assert other_film(np.array(["a", "a"])).tolist() == [-1, -1]


def test_one_patient_has_no_other_image(loader, oracle_class):
    patients = loader.corpus.to_pandas()["patient_id"].to_numpy()
    alone = copy.copy(loader)
    alone.rows = loader.rows[patients[loader.rows] == patients[loader.rows[0]]]
    alone.steps = 1
    with pytest.raises(UserError, match="another patient's image, and this split has one patient"):
        swap_films(oracle_class(loader), alone)
