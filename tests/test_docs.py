"""What the README and the docs say to type works: Python examples run, command lines parse."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lingula.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def commands() -> list[str]:
    joined = "\n".join(block for page in PAGES for block in blocks(page, "(?:bash|sh)")).replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*", "", line).strip().removeprefix(".venv/bin/") for line in joined.splitlines()]
    return sorted({line for line in lines if line.startswith("lingula ") and "--help" not in line})


@pytest.mark.parametrize("line", commands())
def test_every_command_line_in_the_docs_parses(line, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    arguments = shlex.split(line)[1:]
    if arguments[-1] != "--version":
        arguments.append("--print_config")
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code in (0, None), capsys.readouterr().err


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_the_python_examples_run(page, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "run").symlink_to(tiny_run)
    film = np.random.default_rng(0).integers(0, 256, (300, 260), dtype=np.uint8)
    Image.fromarray(film).save(tmp_path / "film.png")
    space: dict = {}
    for block in blocks(page, "python"):
        exec(compile(block, f"{page.name}", "exec"), space)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_pages_of_the_methods_are_those_of_the_source(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import build_methods

    written = build_methods.pages()
    there = set((ROOT / "docs" / "methods").glob("*.md"))
    assert there == set(written), "run `make docs`"
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make docs`"


def test_the_example_of_a_new_method_is_short_and_runs(tmp_path):
    example = ROOT / "examples" / "add_a_method.py"
    assert len(example.read_text().splitlines()) < 60
    command = [sys.executable, str(example), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [row["encoder"] for row in rows] == ["add_a_method:SentenceToImage"]
    assert rows[0]["recall_at_5"] > rows[0]["chance_at_5"]


def test_the_examples_of_a_new_corpus_and_a_new_task_run(tmp_path, tiny_run, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    rng = np.random.default_rng(0)
    for patient, sentence in (("p1", "There is a left effusion."), ("p2", "The lungs are clear."), ("p3", None)):
        (tmp_path / "scans" / patient).mkdir(parents=True)
        for study in ("s1", "s2"):
            place = tmp_path / "scans" / patient / study
            Image.fromarray(rng.integers(0, 256, (64, 48), dtype=np.uint8)).save(place.with_suffix(".png"))
            if sentence is not None:
                place.with_suffix(".txt").write_text(f"{sentence} The heart size is normal.")
    corpus = tmp_path / "corpus"
    fractions = ["--val_fraction", "0", "--test_fraction", "0.5", "--size", "48", "--workers", "0"]
    roots = ["--root", str(tmp_path / "scans"), "--out", str(corpus)]
    main(["prepare", "add_a_corpus:PatientFolders", *roots, *fractions])
    studies = json.loads((corpus / "corpus.json").read_text())["studies"]
    assert (studies["train"], studies["test"]) == (2, 2)  # a patient's studies stay together
    assert (corpus / "left_out.csv").read_text().count("no report") == 2

    run = shutil.copytree(tiny_run, tmp_path / "run")
    main(["evaluate", "add_a_task:EffectiveRank", "--run", str(run), "--seeds", "0", "--quiet"])
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [(row["task"], row["encoder"]) for row in rows] == [
        ("add_a_task:EffectiveRank", "cm-cgns"),
        ("add_a_task:EffectiveRank", "random"),
    ]
    assert all(1 < row["effective_rank"] <= 16 for row in rows)  # 16 test images


def test_the_effective_rank_of_the_example_is_the_number_of_equal_directions(monkeypatch):
    """Four images whose features are the corners of a square: two directions of equal size."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import add_a_task

    corners = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    encoder = SimpleNamespace(image_encoder=lambda images: SimpleNamespace(pooled=corners))
    corpus = SimpleNamespace(rows=lambda split: np.arange(4))
    monkeypatch.setattr(add_a_task, "film_loader", lambda *given: [SimpleNamespace(image=None)])
    monkeypatch.setattr(add_a_task, "ids_of", lambda *given: ["a", "b", "c", "d"])
    task = add_a_task.EffectiveRank()
    (measured,) = task.measure(SimpleNamespace(method=encoder), corpus, task.cells([0]), 0)
    assert measured.numbers["effective_rank"] == pytest.approx(2)
