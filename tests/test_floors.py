"""Imports go down only. Every file under src/lingula is parsed, and each of its imports of ours is looked at."""

import ast
from pathlib import Path

import pytest

import lingula

ROOT = Path(lingula.__file__).parent
FLOORS = {
    0: {"batch", "gather", "registry", "keyed", "losses", "metrics", "findings", "records"},
    1: {"nn"},
    2: {"training", "evaluation", "data", "terminal"},
    3: {"methods", "tasks", "corpora", "plots"},
    4: {"runs", "pages", "benchmarking", "api"},
    5: {"commands"},
    6: {"cli", "__main__"},
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}
PLUG_INS = FLOORS[3]  # there, one file is one paper, task, corpus or figure
FREE = {"__init__"}  # the package's own face, lazy: it may name everything
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def dotted(path):
    """methods/cm_cgns.py -> [methods, cm_cgns]; methods/__init__.py -> [methods]."""
    parts = list(path.with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def exists(parts):
    return (ROOT.joinpath(*parts).with_suffix(".py")).exists() or (ROOT.joinpath(*parts) / "__init__.py").exists()


def imports(source, path):
    """``(line, [methods, cm_cgns])`` of every import of ours, wherever it stands; names inside modules are cut off."""
    package = ["lingula", *path.parent.parts]
    for node in ast.walk(ast.parse(source)):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            targets = [[*base, alias.name] for alias in node.names]
        for target in targets:
            if target[0] == "lingula":
                parts = target[1:]
                while parts and not exists(parts) and not ROOT.joinpath(*parts).is_dir():
                    parts = parts[:-1]
                yield node.lineno, parts


def complaints(source, path):
    """What is wrong with a file's imports, in words."""
    own = dotted(path)
    for line, target in imports(source, path):
        where = f"{path}:{line} imports lingula.{'.'.join(target)}"
        if not target:
            continue  # the package itself, for its version
        if target[0] not in FLOOR_OF:
            yield f"{where}: which floor is that on?"
        elif target[0] == own[0]:  # the same folder
            if own[0] in PLUG_INS and target[1:2] != own[1:2]:
                yield f"{where}: siblings never import each other"
        elif FLOOR_OF[target[0]] > FLOOR_OF[own[0]]:
            yield f"{where}: that is upstairs"
        elif FLOOR_OF[target[0]] == FLOOR_OF[own[0]] and FLOOR_OF[own[0]] in (0, 3):
            yield f"{where}: that is on the same floor"
        elif FLOOR_OF[target[0]] == FLOOR_OF[own[0]] == 4 and target[0] != "runs":
            yield f"{where}: of its own floor it may use runs alone"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down_only(path):
    if dotted(path)[0] in FREE:
        return
    assert dotted(path)[0] in FLOOR_OF, f"{path}: say in this test which floor it is on"
    assert list(complaints((ROOT / path).read_text(encoding="utf-8"), path)) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("losses/x.py", "from lingula.losses.cosine import unit", None),
        ("losses/x.py", "from lingula.keyed import keyed_uniform", "same floor"),
        ("keyed.py", "import lingula.nn.heads", "upstairs"),
        ("nn/x.py", "def f():\n    from lingula.training.recipe import Recipe", "upstairs"),
        ("nn/x.py", "from lingula.nn import heads", None),
        ("evaluation/x.py", "from lingula.training.loop import fit", None),
        ("data/x.py", "from . import study\nfrom ..training.recipe import Recipe", None),
        ("data/x.py", "from ..methods import METHODS", "upstairs"),
        ("methods/x.py", "from lingula.methods.cm_cgns import CMCGNS", "siblings"),
        ("methods/x.py", "from lingula.methods import METHODS", "siblings"),
        ("methods/x.py", "from . import cm_cgns", "siblings"),
        ("methods/x.py", "from lingula import methods", "siblings"),
        ("methods/__init__.py", "from lingula.methods.cm_cgns import CMCGNS", "siblings"),
        ("methods/x.py", "from lingula.tasks import TASKS", "same floor"),
        ("corpora/synthetic/x.py", "from lingula.corpora.synthetic.shapes import disc", None),
        ("commands/x.py", "from lingula.methods.cm_cgns import CMCGNS", None),
        ("commands/x.py", "from lingula.cli import main", "upstairs"),
        ("__main__.py", "from lingula.cli import main", None),
        ("commands/x.py", "from lingula.api import load", None),
        ("training/x.py", "from lingula.api import load", "upstairs"),
        ("pages/x.py", "from lingula.runs.model import load", None),
        ("pages/x.py", "from lingula.benchmarking.tables import lines", "of its own floor"),
        ("runs/x.py", "from lingula.pages.report import write_report", "of its own floor"),
        ("nn/x.py", "from lingula import __version__", None),
        ("nn/x.py", "import lingula.elsewhere", None),  # no such module: the interpreter will say so
    ],
)
def test_this_test_sees(path, source, complaint):
    found = list(complaints(source, Path(path)))
    assert (complaint is None and found == []) or (complaint is not None and complaint in found[0])
