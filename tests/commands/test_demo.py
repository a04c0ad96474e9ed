"""The demo, small: it makes everything that it promises, and the long one learns."""

import json

import pytest

from lingula.commands.demo import demo
from lingula.registry import UserError


def test_the_demo_writes_the_summary_and_the_page(tmp_path):
    returned = demo(tmp_path / "demo", train=96, val=16, test=48, size=48, epochs=[1, 0.5], subsets=2)
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary == json.loads((tmp_path / "demo" / "run" / "summary.json").read_text())
    assert summary["seconds"] == returned["seconds"] > 0
    for encoder in ("cm-cgns", "random"):
        probe = summary["probe_auroc"][encoder]
        assert probe["low"] <= probe["mean"] <= probe["high"]
        assert probe["seeds"] == [0, 1]
    assert set(summary["probe_auroc_by_fraction"]) == {"0.01", "0.1", "1.0"}
    retrieval = summary["retrieval_recall_at_5"]
    assert retrieval["chance"] == pytest.approx(5 / 48)
    assert retrieval["chance"] < retrieval["ceiling"] <= 1
    assert set(summary["pointing_game"]) >= {"value", "chance", "untrained"}
    assert set(summary["swap_test"]) >= {"right", "swapped", "chance"}
    assert set(summary["false_negatives"]) == {"share", "precision", "recall", "string_equality"}
    assert summary["false_negatives"]["string_equality"]["precision"] == 1.0
    page = (tmp_path / "demo" / "run" / "report.html").read_text()
    assert "For research use only" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    with pytest.raises(UserError, match="holds an earlier demo"):
        demo(tmp_path / "demo", train=96, val=16, test=48, size=48)


@pytest.mark.slow
def test_cm_cgns_learns_from_scratch(tmp_path):
    """Wide margins: a gate against breaking it, not a measurement. Only what was safe over seeds is asked for."""
    summary = demo(tmp_path / "demo", train=4800, val=200, test=1000, epochs=[4, 0])  # 600 steps
    probe = summary["probe_auroc"]
    assert probe["cm-cgns"]["mean"] >= probe["random"]["mean"] + 0.10
    assert probe["cm-cgns"]["low"] > probe["random"]["high"]
    assert summary["retrieval_recall_at_5"]["value"] >= 0.15  # chance is 0.025
    assert summary["swap_test"]["right"] >= 0.5
