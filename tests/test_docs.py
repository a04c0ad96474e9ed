"""What the README and the docs say to type works: Python examples run, command lines parse."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
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
def test_every_command_line_in_the_docs_parses(line, capsys):
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
    assert [row["encoder"] for row in rows] == ["sentence-to-image"]
    assert rows[0]["recall_at_5"] > rows[0]["chance_at_5"]
