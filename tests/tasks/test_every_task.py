"""What every task promises, whichever it is; a new one is covered by its line in TASKS."""

import importlib

import numpy as np
import pytest

from lingula.commands.evaluate import evaluate
from lingula.tasks import TASKS


@pytest.mark.parametrize("task", list(TASKS))
def test_it_says_which_way_is_better_and_gives_those_numbers(task, tiny_run, capsys):
    module = importlib.import_module(TASKS.paths[task].partition(":")[0])
    assert module.higher_is_better
    assert "One example" in module.__doc__
    settings = {"labels": ["effusion"], "fractions": [1.0], "protocol": "logistic"} if task == "classification" else {}
    found = evaluate(task, tiny_run, seeds=[0], bootstrap=20, **settings)
    numbers = found["1.0"] if task == "classification" else found
    assert set(numbers) == {"cm-cgns", "random"}
    for encoder in numbers.values():
        names = {"auroc": "mean"} if task == "classification" else {}
        for metric in module.higher_is_better:
            value = np.mean(encoder[names.get(metric, metric)])
            assert np.isfinite(value)
            assert 0 <= value <= (1 if metric != "median_rank" else 16)
    again = evaluate(task, tiny_run, seeds=[0], bootstrap=20, **settings)
    assert again == found  # the same seeds, the same numbers
