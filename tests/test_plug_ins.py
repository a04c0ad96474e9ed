"""Methods, corpora and tasks from outside lingula: installed packages, and ``package:Class`` where the user names it.

Whatever is imported here leaves a file behind, so that a test can tell that something was *not* imported.
"""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import lingula
from lingula import registry
from lingula.benchmarking.plan import make_task, read_plan
from lingula.cli import main
from lingula.commands.benchmark import benchmark
from lingula.commands.evaluate import evaluate
from lingula.commands.pretrain import pretrain
from lingula.corpora import CORPORA
from lingula.methods import METHODS
from lingula.registry import UserError
from lingula.tasks import TASKS
from lingula.tasks.retrieval import Retrieval

PARTS = '''
"""Parts of another package."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lingula.corpora.synthetic import Synthetic
from lingula.methods.convirt import ConVIRT
from lingula.tasks.retrieval import Retrieval

Path(__file__).with_name("imported").touch()


class Mine(ConVIRT):
    """Mine: a method of another package."""


@dataclass
class Films(Synthetic):
    """Films of another package.

    Args:
        train: number of training studies.
        val: number of validation studies.
        test: number of test studies.
        film_size: side of the films in pixels.
    """

    train: int = 16
    val: int = 0
    test: int = 8
    film_size: int = 48


@dataclass
class Finding(Retrieval):
    """Finding: a task of another package.

    Args:
        split: split that is measured.
    """


class Empty:
    """Has nothing of what a method, corpus or task needs."""


def main():
    Path(__file__).with_name("called").touch()
'''
ENTRY_POINTS = """
[lingula.methods]
mine = their_parts.inner:Mine
[lingula.corpora]
films = their_parts.inner:Films
[lingula.tasks]
finding = their_parts.inner:Finding
"""
QUICK = ["--recipe", "scratch", "--image_size", "48", "--batch_size", "8", "--epochs", "1", "--quiet"]


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Every test begins as a new process would: nothing is trusted, and nothing from outside is imported."""
    monkeypatch.setattr(registry, "_trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    _forget_modules()


def _forget_modules():
    for name in [name for name in sys.modules if name.split(".")[0] in ("their_parts", "canary")]:
        del sys.modules[name]


def write_package(folder):
    """A package that holds a method, a corpus and a task."""
    package = folder / "their_parts"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PARTS.split("from dataclasses")[0] + "from pathlib import Path\n"
                                         'Path(__file__).with_name("imported").touch()\n')  # fmt: skip
    (package / "inner.py").write_text(PARTS)
    return package


def install(folder, name, entry_points, version="1.5"):
    """What pip writes of an installed package."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that can be imported, and is not installed."""
    written = write_package(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return written


@pytest.fixture
def installed(package):
    """The same package, installed with entry points."""
    install(package.parent, "their-parts", ENTRY_POINTS)
    return package


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module in the working folder; gives the file that its import, and only that, makes."""
    made = tmp_path / "made"
    (tmp_path / "canary.py").write_text(f"open({str(made)!r}, 'w')\nclass Canary: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return made


def refused(capsys, *arguments):
    """The one line on stderr of a call that the command line refuses."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def stranger(run, to, **changes):
    """A copy of a run whose ``run.json`` says something else."""
    shutil.copytree(run, to)
    made = json.loads((to / "run.json").read_text())
    (to / "run.json").write_text(json.dumps({**made, **changes}))
    return to


# Installed packages ---------------------------------------------------------------------------------------------------


def test_an_installed_package_goes_through_list_prepare_pretrain_resume_evaluate_and_report(
    installed, tmp_path, capsys
):
    for what, line in (
        ("methods", "mine               Mine: a method of another package. (their-parts 1.5)"),
        ("corpora", "films              Films of another package. (their-parts 1.5)"),
        ("tasks", "finding            Finding: a task of another package. (their-parts 1.5)"),
    ):
        main(["list", what])
        assert line in capsys.readouterr().out.splitlines()
    assert not (installed / "imported").exists()  # listing reads the source
    assert not (installed / "inner" / "imported").exists()

    corpus, run = str(tmp_path / "corpus"), tmp_path / "run"
    main(["prepare", "films", "--out", corpus, "--size", "48", "--workers", "0"])
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text())["studies"]["train"] == 16
    main(["pretrain", "--corpus", corpus, "--out", str(run), "--method", "mine", *QUICK])
    assert json.loads((run / "run.json").read_text())["method"] == "mine"
    main(["pretrain", "--resume", "--out", str(run), "--epochs", "2", "--quiet"])
    main(["evaluate", "finding", "--run", str(run), "--seeds", "0", "--bootstrap", "10", "--quiet"])
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [(row["task"], row["encoder"]) for row in rows] == [("finding", "mine"), ("finding", "random")]
    main(["report", "--run", str(run), "--films", "1", "--clusters", "0"])
    assert "mine" in (run / "report.html").read_text()
    assert lingula.load(run).name == "mine"


def test_list_as_json_says_where_each_comes_from_and_passes_over_what_does_not_load(package, capsys):
    (package / "broken.py").write_text("import a_package_that_nobody_has\n")
    broken = ENTRY_POINTS.replace("mine =", "broken = their_parts.broken:X\nmine =")
    install(package.parent, "their-parts", broken)
    main(["list", "methods", "--json"])
    captured = capsys.readouterr()
    described = json.loads(captured.out)
    assert described["mine"]["from"] == "their-parts 1.5"
    assert described["clip"]["from"] == "lingula"
    assert "broken" not in described
    assert captured.err.splitlines() == [
        "note: method 'broken' of their-parts 1.5 does not load: ModuleNotFoundError: No module named "
        "'a_package_that_nobody_has'"
    ]


def test_the_class_of_an_installed_package_may_be_named_by_its_path(installed):
    assert METHODS["their_parts.inner:Mine"] is METHODS["mine"]
    assert METHODS["lingula.methods.clip:CLIP"] is METHODS["clip"]
    assert METHODS.source("their_parts.inner:Mine") == "their-parts 1.5"


def test_names_that_clash_are_refused_and_all_owners_are_named(tmp_path, monkeypatch, capsys):
    install(tmp_path, "first", "[lingula.methods]\nclip = one:A\nsame = one:B\n")
    install(tmp_path, "second", "[lingula.methods]\nsame = two:B\n[lingula.tasks]\nretrieval = two:C\n", "2.0")
    monkeypatch.syspath_prepend(tmp_path)
    said = refused(capsys, "pretrain", "--corpus", tmp_path, "--out", tmp_path / "run", "--method", "clip")
    assert "method 'clip' is given by lingula and by first 1.5; name the class instead" in said
    assert "(lingula.methods.clip:CLIP or one:A) or uninstall a package" in said
    with pytest.raises(
        UserError, match=r"'same' is given by first 1\.5 and by second 2\.0; name .* \(one:B or two:B\)"
    ):
        METHODS["same"]
    assert "task 'retrieval' is given by lingula and by second 2.0" in refused(capsys, "evaluate", "retrieval")
    assert METHODS["simclr"].__name__ == "SimCLR"  # the others are as they were
    main(["list", "methods"])
    captured = capsys.readouterr()
    assert [line.split()[2] for line in captured.err.splitlines()] == ["'clip'", "'same'"]
    assert {"clip", "same"}.isdisjoint(line.split()[0] for line in captured.out.splitlines())


@pytest.mark.parametrize("line", ["a:b = one:A", "odd = one", "odd = one.two:A.b", "../odd = one:A", "odd = one:A [x]"])
def test_entry_points_of_another_form_are_refused(line, tmp_path, monkeypatch):
    install(tmp_path, "odd-package", f"[lingula.methods]\n{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    (entry,) = METHODS.entries()
    assert "of odd-package 1.5 is refused: an entry point needs a name of" in entry.refused
    with pytest.raises(UserError, match="is refused"):
        METHODS[entry.name]


# A class that the user names ------------------------------------------------------------------------------------------


def test_a_class_named_on_the_command_line_goes_through_prepare_pretrain_resume_and_evaluate(
    tmp_path, monkeypatch, capsys
):
    """The package lies in the working folder, which is not on the path of the command ``lingula``."""
    package = write_package(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", ".")])
    corpus, run = str(tmp_path / "corpus"), str(tmp_path / "run")
    main(["prepare", "their_parts.inner:Films", "--out", corpus, "--size", "48", "--workers", "0"])
    main(["pretrain", "--corpus", corpus, "--out", run, "--method", "their_parts.inner:Mine", *QUICK])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["method"] == "their_parts.inner:Mine"
    assert sys.path[-1] == str(tmp_path / "work")

    registry._trusted.clear()
    _forget_modules()
    for imported in package.rglob("imported"):
        imported.unlink()
    capsys.readouterr()
    out = "--allow their_parts.inner:Mine"
    assert out in refused(capsys, "evaluate", "retrieval", "--run", run)
    assert out in refused(capsys, "report", "--run", run)
    assert out in refused(capsys, "pretrain", "--resume", "--out", run, "--epochs", "2")
    with pytest.raises(UserError, match=out):
        lingula.load(run)
    assert not list(package.rglob("imported"))

    more = ["--run", run, "--seeds", "0", "--bootstrap", "10", "--quiet"]
    main(["evaluate", "their_parts.inner:Finding", *more, "--allow", "their_parts.inner:Mine"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows} == {"their_parts.inner:Finding"}
    assert [row["encoder"] for row in rows] == ["their_parts.inner:Mine", "random"]
    registry._trusted.clear()
    main(["pretrain", "--resume", "--out", run, "--epochs", "2", "--method", "their_parts.inner:Mine", "--quiet"])
    registry._trusted.clear()
    assert lingula.load(run, allow="their_parts.inner:Mine").name == "their_parts.inner:Mine"


@pytest.mark.parametrize("name", ["os:system", "lingula.cli:main", "their_parts.inner:main"])
def test_a_function_is_not_called(name, package, tmp_path, capsys):
    said = refused(capsys, "pretrain", "--corpus", tmp_path, "--out", tmp_path / "run", "--method", name)
    assert f"'{name}' is not a method: it is not a class" in said
    assert "is not a corpus: it is not a class" in refused(capsys, "prepare", name, "--out", tmp_path)
    assert "is not a task: it is not a class" in refused(capsys, "evaluate", name, "--run", tmp_path)
    assert not (package / "called").exists()


def test_a_class_of_another_kind_is_refused_with_what_it_lacks(package, tmp_path, capsys):
    name = "their_parts.inner:Empty"
    said = refused(capsys, "pretrain", "--corpus", tmp_path, "--out", tmp_path / "run", "--method", name)
    assert f"'{name}' is not a method: it has no recipes, forward, encode_image" in said
    assert "is not a corpus: it has no name, licence, studies" in refused(capsys, "prepare", name, "--out", tmp_path)
    assert "is not a task: it has no higher_is_better" in refused(capsys, "evaluate", name, "--run", tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("their_parts.inner:Nobody", "AttributeError: module 'their_parts.inner' has no attribute 'Nobody'"),
        ("their_parts.nowhere:X", "ModuleNotFoundError: No module named 'their_parts.nowhere'"),
    ],
)
def test_a_class_that_is_not_there(name, why, package, tmp_path, capsys):
    assert f"method '{name}' does not load: {why}" in refused(
        capsys, "pretrain", "--corpus", tmp_path, "--out", tmp_path / "run", "--method", name
    )


def test_a_task_called_like_one_of_lingula_has_results_and_cells_of_its_own(package, tiny_corpus):
    from lingula.benchmarking.cells import Store, Weights
    from lingula.data.prepared import PreparedCorpus
    from lingula.evaluation.task import Cell
    from lingula.runs.measure import name_of

    source = package / "inner.py"
    source.write_text(source.read_text() + "\nRetrieval = type('Retrieval', (Retrieval,), {'__module__': __name__})\n")
    registry.trust("their_parts.inner:Retrieval")
    theirs = TASKS["their_parts.inner:Retrieval"]()
    assert (name_of(Retrieval()), name_of(theirs)) == ("retrieval", "their_parts.inner:Retrieval")
    corpus = PreparedCorpus.open(tiny_corpus)
    weights = Weights("x", "0" * 64, True, None, (0,), None)
    paths = {Store(Path("cells"), "x", weights, task, corpus, 10).path(Cell()) for task in (Retrieval(), theirs)}
    assert len(paths) == 2


# What others wrote runs no code ---------------------------------------------------------------------------------------

ODD = ["canary:Canary", "canary.Canary", "canary", "os:system", "lingula.cli:main", "./canary.py:Canary", "../canary",
       "canary:Canary.x", "canary:Canary()", "__import__('canary'):X", "", ":", "canary:", ":Canary",
       ["canary:Canary"], {"class_path": "canary.Canary"}, 3, None, True]  # fmt: skip


@pytest.mark.parametrize("method", ODD, ids=str)
def test_a_run_folder_runs_no_code(method, tiny_run, tmp_path, canary, capsys):
    run = stranger(tiny_run, tmp_path / "run", method=method)
    for arguments in (
        ["evaluate", "retrieval", "--run", run],
        ["report", "--run", run],
        ["pretrain", "--resume", "--out", run, "--epochs", "3", "2"],
        ["pretrain", "--resume", "--out", run, "--method", "clip"],
    ):
        said = refused(capsys, *arguments)
        assert "method" in said
        if method == "canary:Canary" and "clip" not in arguments:
            assert "if you trust its code, name it on the command line: --allow canary:Canary" in said
    with pytest.raises(UserError):
        lingula.load(run)
    assert not canary.exists()
    assert "canary" not in sys.modules


def test_another_class_that_is_allowed_does_not_allow_that_of_the_run(tiny_run, tmp_path, canary, capsys):
    run = stranger(tiny_run, tmp_path / "run", method="canary:Canary")
    assert "canary:Canary" in refused(capsys, "evaluate", "retrieval", "--run", run, "--allow", "canary:Other")
    assert not canary.exists()


def test_a_folder_whose_name_is_a_class_allows_nothing(tiny_run, tmp_path, canary, capsys):
    run = stranger(tiny_run, tmp_path / "canary:Canary", method="canary:Canary")
    refused(capsys, "evaluate", "retrieval", "--run", run.name)
    refused(capsys, "evaluate", "retrieval", f"--run={run.name}")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["canary:Canary", "os:system"])
def test_a_corpus_runs_no_code(name, tiny_corpus, tiny_run, tmp_path, canary):
    """The name of a corpus is a word for people; nothing is looked up by it."""
    shutil.copytree(tiny_corpus, tmp_path / "corpus")
    meta = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    (tmp_path / "corpus" / "corpus.json").write_text(json.dumps({**meta, "name": name}))
    found = evaluate(
        Retrieval(), Path(shutil.copytree(tiny_run, tmp_path / "run")), tmp_path / "corpus", baseline=False
    )
    assert list(found) == [("cm-cgns", None)]
    assert not canary.exists()


def plan(folder, methods, tasks):
    (folder / "plan.yaml").write_text(yaml.safe_dump({"methods": methods, "tasks": tasks}))
    return folder / "plan.yaml"


def test_a_plan_runs_no_code(tiny_run, tiny_corpus, tmp_path, canary, capsys):
    own, task = {"run": str(tiny_run)}, {"task": "retrieval", "corpus": str(tiny_corpus)}
    trained = {"corpus": str(tiny_corpus), "recipe": "scratch", "method": "canary:Canary"}
    out = "name it on the command line: --allow canary:Canary"
    assert out in refused(capsys, "benchmark", plan(tmp_path, {"x": {"pretrain": trained}}, [task]))
    assert out in refused(capsys, "benchmark", plan(tmp_path, {"x": own}, [{**task, "task": "canary:Canary"}]))
    run = stranger(tiny_run, tmp_path / "run", method="canary:Canary")
    assert out in refused(capsys, "benchmark", plan(tmp_path, {"x": {"run": str(run)}}, [task]))
    allowed = {"x": {"pretrain": {**trained, "allow": ["canary:Canary"]}}}
    assert "a file cannot allow a class" in refused(capsys, "benchmark", plan(tmp_path, allowed, [task]))
    assert not canary.exists()
    assert "canary" not in sys.modules


@pytest.mark.parametrize(
    "value",
    [{"class_path": "canary.Canary"}, "canary.Canary", ["canary.Canary"], {"__class__": "canary.Canary"}],
    ids=str,
)
def test_options_in_a_plan_make_no_objects(value, tiny_corpus, tiny_run, tmp_path, canary):
    for name in TASKS:
        for option in TASKS[name].__dataclass_fields__:
            entry = {"task": name, "corpus": str(tiny_corpus), "options": {option: value}}
            entries = read_plan(plan(tmp_path, {"x": {"run": str(tiny_run)}}, [entry])).tasks
            with contextlib.suppress(UserError):  # most are values of another kind
                make_task(entries[0])
    assert not canary.exists()


def test_a_plan_may_use_what_is_allowed(package, tiny_corpus, tmp_path, capsys):
    quick = {"recipe": "scratch", "image_size": 48, "batch_size": 8, "epochs": [1], "quiet": True}
    trained = {"corpus": str(tiny_corpus), "method": "their_parts.inner:Mine", **quick}
    file = plan(
        tmp_path,
        {"Mine": {"pretrain": trained}},
        [{"task": "their_parts.inner:Finding", "corpus": str(tiny_corpus)}],
    )
    text = yaml.safe_load(file.read_text()) | {"seeds": [0], "bootstrap": 10}
    file.write_text(yaml.safe_dump(text))
    main(["benchmark", str(file), "--quiet", "--allow", "their_parts.inner:Mine", "their_parts.inner:Finding"])
    (row,) = [json.loads(line) for line in (tmp_path / "plan" / "results.jsonl").read_text().splitlines()]
    assert row["task"] == "their_parts.inner:Finding"
    assert "Mine" in capsys.readouterr().out


def test_a_working_folder_is_no_installed_package(tiny_run, tmp_path, canary, capsys, monkeypatch):
    """It is the first place on the path of ``python -m lingula``, written as an empty string."""
    install(tmp_path, "strangers", "[lingula.methods]\ntheirs = canary:Canary\n")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    run = stranger(tiny_run, tmp_path / "run", method="theirs")
    assert "unknown method 'theirs'" in refused(capsys, "evaluate", "retrieval", "--run", run)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"theirs"', '"canary:Canary"'))
    assert "--allow canary:Canary" in refused(capsys, "evaluate", "retrieval", "--run", run)
    assert not canary.exists()


def test_a_file_of_options_allows_nothing(tiny_corpus, tmp_path, canary, capsys):
    (tmp_path / "options.yaml").write_text(yaml.safe_dump({"method": "canary:Canary", "allow": ["canary:Canary"]}))
    arguments = ["pretrain", "--config", "options.yaml", "--corpus", tiny_corpus, "--out", "run"]
    assert "name it on the command line: --allow canary:Canary" in refused(capsys, *arguments)
    assert "--allow canary:Canary" in refused(capsys, *arguments, "--print_config")
    (tmp_path / "options.yaml").write_text(yaml.safe_dump({"method": "canary:Canary"}))
    assert "--allow canary:Canary" in refused(capsys, *arguments)
    assert not canary.exists()
    assert "it has no recipes" in refused(capsys, *arguments, "--allow", "canary:Canary")
    assert canary.exists()


def test_functions_of_the_library_ask_too(tiny_run, tiny_corpus, tmp_path, canary):
    with pytest.raises(UserError, match="--allow canary:Canary"):
        pretrain(tiny_corpus, tmp_path / "out", method="canary:Canary")
    with pytest.raises(UserError, match="--allow canary:Canary"):
        evaluate(Retrieval(), stranger(tiny_run, tmp_path / "run", method="canary:Canary"))
    with pytest.raises(UserError, match="--allow canary:Canary"):
        benchmark(plan(tmp_path, {"x": {"run": str(tmp_path / "run")}},
                       [{"task": "retrieval", "corpus": str(tiny_corpus)}]))  # fmt: skip
    assert not canary.exists()
    with pytest.raises(UserError, match="'canary:Canary' is not a method: it has no recipes"):
        lingula.load(tmp_path / "run", allow="canary:Canary")


def test_nothing_from_outside_is_asked_of_a_registry_that_has_no_group(capsys):
    assert "unknown command 'canary:Canary'" in refused(capsys, "canary:Canary")
    assert CORPORA.group == "lingula.corpora"
