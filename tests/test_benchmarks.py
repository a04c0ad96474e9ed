"""`make bench` on toy sizes: every benchmark runs, both of its sides agree, and its table is complete."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _from_the_root():
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def test_every_ratio_is_measured(tmp_path):
    bench = importlib.import_module("benchmarks.bench")
    bench.main(["--small", "--out", str(tmp_path)])
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert {key.split()[0] for key in found} == {f"C{n}" for n in range(1, 18)} | {"run"}
    for key, row in found.items():
        if key != "run":
            assert math.isfinite(row["ratio"]), key
            assert row["ratio"] > 0 or "exponent" in row["what"], key  # a toy's time need not grow with its size
            better = row["ratio"] >= row["goal"] if row["better"] == "more" else row["ratio"] <= row["goal"]
            assert row["met"] is better, key
    table = path.with_suffix(".md").read_text()
    assert all(f"| {key} |" in table for key in found if key != "run")


def test_sides_that_disagree_are_no_benchmark(monkeypatch):
    loops = importlib.import_module("benchmarks.ratios.loops")
    monkeypatch.setattr(loops, "sentence_means", off_by_a_little)
    with pytest.raises(AssertionError, match="not close"):
        loops.sentence_pooling(3, 8, 1)


def off_by_a_little(tokens, *rest):
    from lingula.nn.sentences import sentence_means

    return sentence_means(tokens, *rest) * 1.001


def test_what_a_gpu_has_to_show_runs_here_in_small(tmp_path):
    found = importlib.import_module("benchmarks.gpu").main(["--small", "--out", str(tmp_path)])
    assert found["GFLOP a pair"] > 0
    assert {name for name in found if name.startswith("pairs a second")} == {
        "pairs a second, stage 1, batch 4",
        "pairs a second, stage 1, batch 8",
        "pairs a second, stage 2, batch 8",
    }
    assert json.loads(next(tmp_path.glob("gpu-*.json")).read_text()).keys() == found.keys()
