"""What every task promises, whichever it is; a new one is covered by its line in TASKS, and by its options here."""

import dataclasses
import importlib

import numpy as np
import pytest

from lingula.cli import main
from lingula.commands.evaluate import evaluate
from lingula.tasks import TASKS

QUICK = {"fractions": [1.0], "epochs": 1}
OPTIONS = {  # what a task needs besides its defaults, on the tiny synthetic corpus, to be quick
    "classification": {"labels": ["effusion"], "fractions": [1.0], "protocol": "logistic"},
    "detection": {"targets": ["cardiomegaly"], **QUICK},
    "segmentation": {"target": "cardiomegaly", **QUICK},
    "class-retrieval": {"labels": ["effusion", "central_line"], "per_class": 2},
    "zero-shot": {"labels": ["effusion", "cardiomegaly"]},
    "report-generation": {"protocol": "small", **QUICK},
}


@pytest.mark.parametrize("name", list(TASKS))
def test_it_is_a_documented_dataclass_that_the_command_line_reads(name, capsys):
    task = TASKS[name]
    assert dataclasses.is_dataclass(task)
    assert task.higher_is_better
    assert "One example" in importlib.import_module(task.__module__).__doc__
    for field in dataclasses.fields(task):
        assert f"{field.name}:" in task.__doc__, f"{name}: the docstring says nothing of '{field.name}'"
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(task):
        assert f"--{field.name}" in shown


@pytest.mark.parametrize("name", list(TASKS))
def test_it_measures_two_encoders_and_the_same_seeds_give_the_same_numbers(name, tiny_run, capsys):
    task = TASKS[name](**OPTIONS.get(name, {}))
    found = evaluate(task, tiny_run, seeds=[0], bootstrap=20)
    assert {encoder for encoder, _ in found} == {"cm-cgns", "random"}
    for (encoder, _), cells in found.items():
        for measured in cells:
            assert measured.notes["encoder"] == encoder
            headline = next(iter(task.higher_is_better))
            assert not np.isinf(list(measured.numbers.values())).any()
            assert headline in measured.numbers
            assert measured.notes["test_sha256"]
            if measured.replicates:  # 16 test studies
                assert any("fewer than 30" in remark for remark in measured.notes["remarks"])
            for metric, replicates in measured.replicates.items():
                assert metric in task.higher_is_better
                assert replicates.shape == (20,)
                if np.isfinite(measured.numbers[metric]) and np.isfinite(replicates).all():
                    low, high = replicates.min(), replicates.max()
                    assert low - 1e-9 <= measured.numbers[metric] <= high + 1e-9, metric
    said = capsys.readouterr().out
    assert ("the 95 % intervals are not to be trusted" in said) is (name != "false-negatives")
    again = evaluate(task, tiny_run, seeds=[0], bootstrap=20)
    for key, cells in found.items():
        for one, other in zip(cells, again[key], strict=True):
            np.testing.assert_equal(one.numbers, other.numbers)
            np.testing.assert_equal(one.replicates, other.replicates)
            assert one.subset_ids == other.subset_ids
