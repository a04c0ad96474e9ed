"""``lingula evaluate``: both encoders side by side, rows on disk, the same call the same numbers."""

import json

import pytest

from lingula.commands.evaluate import evaluate
from lingula.registry import UserError
from lingula.results import read_rows


def test_classification_compares_with_random_weights_on_the_same_subsets(small_corpus, small_run):
    settings = {"labels": ["effusion", "oedema"], "fractions": [0.5, 1.0], "seeds": [0, 1], "bootstrap": 50}
    found = evaluate("classification", small_run, protocol="logistic", **settings)
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
        assert row["corpus_fingerprint"] == json.loads((small_corpus / "corpus.json").read_text())["fingerprint"]
        assert len(row["checkpoint"]) == 64 or row["checkpoint"].startswith("random-")
    for fraction in ("0.5", "1.0"):
        for encoder in ("cm-cgns", "random"):
            mine = [r["auroc"] for r in rows if r["encoder"] == encoder and str(r["fraction"]) == fraction]
            assert found[fraction][encoder]["mean"] == pytest.approx(sum(mine) / len(mine))
            assert found[fraction][encoder]["low"] <= found[fraction][encoder]["high"]
    assert evaluate("classification", small_run, protocol="logistic", **settings) == found


@pytest.mark.parametrize("task", ["retrieval", "pointing", "swap-test", "false-negatives"])
def test_the_other_tasks_stand_beside_random_weights_too(small_run, task):
    found = evaluate(task, small_run, seeds=[0, 1])
    assert set(found) == {"cm-cgns", "random"}
    rows = [row for row in read_rows(small_run / "results.jsonl") if row["task"] == task]
    assert [row["encoder"] for row in rows] == ["cm-cgns", "random", "random"]
    assert rows[1]["checkpoint"] != rows[2]["checkpoint"]


def test_another_preparation_in_the_training_folder_is_not_measured_unasked(small_run, tmp_path, capsys):
    made = json.loads((small_run / "run.json").read_text())
    made["corpus"]["fingerprint"] = "0" * 64
    (small_run / "run.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match="another preparation of synthetic than the run was trained on"):
        evaluate("retrieval", small_run)
    evaluate("retrieval", small_run, corpus=made["corpus"]["folder"], seeds=[0])
    assert "may have been trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": 0}, "pool must be at least 1"),
        ({"bootstrap": 0}, "bootstrap must be at least 1"),
        ({"seeds": [-1]}, "seeds must not be negative"),
        ({"device": "gpuu"}, "no device 'gpuu'"),
        ({"labels": ["effusion"]}, "are for classification; retrieval takes none"),
    ],
)
def test_settings_that_make_no_sense_are_refused(small_run, settings, message):
    with pytest.raises(UserError, match=message):
        evaluate("retrieval", small_run, **settings)


def test_refusals(small_run, tmp_path):
    with pytest.raises(UserError, match="takes no other split"):
        evaluate("classification", small_run, split="val")
    with pytest.raises(UserError, match="two patients or more"):
        evaluate("swap-test", small_run, batch_size=1)
    with pytest.raises(UserError, match="did you mean 'effusion'"):
        evaluate("classification", small_run, labels=["efusion"])
    with pytest.raises(UserError, match="no prepared corpus"):
        evaluate("retrieval", small_run, corpus=tmp_path / "nowhere")
