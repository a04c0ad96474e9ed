"""``lingula evaluate``: both encoders side by side, rows on disk, the same call the same numbers."""

import json

import numpy as np
import pytest

from lingula.cli import main
from lingula.commands.evaluate import evaluate, show
from lingula.evaluation.task import Cell, Measured
from lingula.records import read_rows
from lingula.registry import UserError
from lingula.tasks import TASKS
from lingula.tasks.classification import Classification
from lingula.tasks.retrieval import Retrieval
from lingula.tasks.swap_test import SwapTest


def test_classification_compares_with_random_weights_on_the_same_subsets(small_corpus, small_run):
    task = Classification(["effusion", "oedema"], protocol="logistic", fractions=[0.5, 1.0])
    found = evaluate(task, small_run, seeds=[0, 1], bootstrap=50)
    rows = [row for row in read_rows(small_run / "results.jsonl") if row["task"] == "classification"]
    assert {row["encoder"] for row in rows} == {"cm-cgns", "random"}
    halves = {
        e: [r["subset_sha256"] for r in rows if r["encoder"] == e and r["fraction"] == 0.5]
        for e in ("cm-cgns", "random")
    }
    assert halves["cm-cgns"] == halves["random"]
    assert len(set(halves["cm-cgns"])) == 2
    for row in rows:
        assert (small_run / "subsets" / f"{row['subset_sha256']}.txt").read_text().count("\n") == row["train_studies"]
        assert row["protocol"] == "logistic"
        assert row["options"]["labels"] == ["effusion", "oedema"]
        assert row["corpus_fingerprint"] == json.loads((small_corpus / "corpus.json").read_text())["fingerprint"]
        assert len(row["checkpoint"]) == 64 or row["checkpoint"].startswith("random-")
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
    assert len({row["test_sha256"] for row in rows}) == 1
    for (encoder, fraction), cells in found.items():
        mine = [r["auroc"] for r in rows if r["encoder"] == encoder and r["fraction"] == fraction]
        assert [cell.numbers["auroc"] for cell in cells] == mine
    # with all labels a regression of one encoder has nothing to draw, but every random encoder is another
    assert [len(found[key]) for key in (("cm-cgns", 0.5), ("cm-cgns", 1.0), ("random", 1.0))] == [2, 1, 2]


@pytest.mark.parametrize("name", ["retrieval", "grounding", "swap-test", "false-negatives"])
def test_tasks_that_train_nothing_stand_beside_random_weights_too(small_run, name, capsys):
    found = evaluate(TASKS[name](), small_run, seeds=[0, 1])
    assert set(found) == {("cm-cgns", None), ("random", None)}
    rows = [row for row in read_rows(small_run / "results.jsonl") if row["task"] == name]
    assert [row["encoder"] for row in rows] == ["cm-cgns", "random", "random"]
    assert [row.get("seed") for row in rows] == [None, 0, 1]
    assert rows[1]["checkpoint"] != rows[2]["checkpoint"]
    shown = capsys.readouterr().out
    assert "difference" in shown or name == "false-negatives"
    assert set(evaluate(TASKS[name](), small_run, baseline=False)) == {("cm-cgns", None)}


def test_an_interruption_keeps_what_was_measured(small_run, monkeypatch):
    task, seen = Classification(["effusion"], protocol="logistic", fractions=[0.5]), []
    real = Classification._features

    def third_stops(*arguments):
        seen.append(1)
        if len(seen) == 3:  # the trained encoder, the first random one, ...
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(Classification, "_features", third_stops)
    with pytest.raises(KeyboardInterrupt):
        evaluate(task, small_run, seeds=[0, 1], bootstrap=10)
    rows = list(read_rows(small_run / "results.jsonl"))
    assert [(row["encoder"], row["seed"]) for row in rows] == [("cm-cgns", 0), ("cm-cgns", 1), ("random", 0)]
    assert all((small_run / "subsets" / f"{row['subset_sha256']}.txt").is_file() for row in rows)


def test_the_command_line(small_run, capsys):
    main(["evaluate", "retrieval", "--run", str(small_run), "--pool", "12", "--seeds", "0", "--bootstrap", "10"])
    (row, random) = read_rows(small_run / "results.jsonl")
    assert (row["pool"], row["options"]["pool"], random["checkpoint"]) == (12, 12, "random-0")
    assert np.isclose(row["chance_at_5"], 5 / 12)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "retreival", "--run", str(small_run)])
    assert stop.value.code == 2
    assert "unknown task 'retreival'; did you mean 'retrieval'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "retrieval", "--run", str(small_run), "--labels", "effusion"])
    assert "--labels" in capsys.readouterr().err


def test_another_preparation_in_the_training_folder_is_not_measured_unasked(small_run, capsys):
    made = json.loads((small_run / "run.json").read_text())
    made["corpus"]["fingerprint"] = "0" * 64
    (small_run / "run.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match="another preparation of synthetic than the run was trained on"):
        evaluate(Retrieval(), small_run)
    evaluate(Retrieval(), small_run, corpus=made["corpus"]["folder"], seeds=[0])
    assert "may have been trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bootstrap": 0}, "bootstrap must be at least 1"),
        ({"seeds": [-1]}, "seeds must not be negative"),
        ({"seeds": [3, 3]}, "a seed is named twice"),
        ({"device": "gpuu"}, "no device 'gpuu'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(small_run, settings, message):
    with pytest.raises(UserError, match=message):
        evaluate(Retrieval(), small_run, **settings)


def test_refusals(small_run, tmp_path):
    with pytest.raises(UserError, match="two patients or more"):
        evaluate(SwapTest(batch_size=1), small_run)
    with pytest.raises(UserError, match="did you mean 'effusion'"):
        evaluate(Classification(["efusion"]), small_run)
    with pytest.raises(UserError, match="no prepared corpus"):
        evaluate(Retrieval(), small_run, corpus=tmp_path / "nowhere")


def test_the_table_says_shares_in_per_cent_and_why_a_number_is_missing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    nan, replicates = float("nan"), np.array([0.4, 0.5])

    def cell(dice, positive, why=None):
        notes = {"train_studies": 45, "test_sha256": "t", **({"undefined": {"dice_positive": why}} if why else {})}
        return Measured({"dice": dice, "dice_positive": positive}, {"dice": replicates}, notes, Cell(1.0))

    found = {
        ("a-method-of-a-long-name", 1.0): [cell(0.5, nan, "no test image has a lesion")],
        ("random", 1.0): [cell(0.4, 0.1), cell(nan, nan, "no test image has a lesion")],
    }
    show("segmentation", {"dice": True}, found)
    out = capsys.readouterr().out
    assert out.startswith("segmentation, 100 % of training data (45 studies)\n")
    assert max(map(len, out.splitlines())) <= 80
    assert "nan (no test image has a lesion)" in out
    assert "nan (1 of 2 measurements: no test image has a lesion)" in out
    assert "nan (1 of 2 measurements: the encoder's outputs are not finite)" in out
    assert "0.500 (0.40" in out
    assert "a-method-of-a-long-name" in out
