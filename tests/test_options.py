"""What a message advises exists: every option named in a string of the source is one of some command's."""

import ast
import re
from pathlib import Path

import pytest

import lingula
from lingula.cli import COMMANDS
from lingula.corpora import CORPORA
from lingula.tasks import TASKS
from lingula.terminal.parser import make_parser

SOURCE = Path(lingula.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z]\w*(?:\.\w+)?")
# of `lingula` itself, of `lingula list`, and pip's --force-reinstall
OTHERS = {"--version", "--json", "--print_shell_completion", "--force"}


def parsers():
    """A parser for every command, and for each of its choices: ``{"evaluate retrieval": ...}``."""
    for name in COMMANDS:
        function = COMMANDS[name]
        choices = getattr(function, "choices", None)
        if choices is None:
            yield name, make_parser(name, function)
        else:
            for choice in choices:
                yield f"{name} {choice}", make_parser(name, function, choices[choice])


@pytest.fixture(scope="module")
def options():
    return {
        name: {option for action in parser._actions for option in action.option_strings}
        | set(getattr(COMMANDS[name.split()[0]], "instead", ()))
        for name, parser in parsers()
    }


def strings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


PRETRAIN = ("methods/", "nn/", "training/", "runs/")
PREPARE = ("data/preparation.py", "data/films.py")


def shown_by(file, options):
    """The commands that show what a file says, by the room that it is in; none where that cannot be told."""
    room, name = file.split("/")[0], file.removesuffix(".py").split("/")[-1]
    if file == "training/loop.py":
        return ["pretrain", *(f"evaluate {task}" for task in TASKS if hasattr(TASKS[task], "learning_rate"))]
    if file.startswith(PRETRAIN):
        return ["pretrain"]
    if file.startswith(PREPARE):
        return [command for command in options if command.startswith("prepare ")]
    if file.startswith("commands/") and name in COMMANDS:
        return [command for command in options if command.split()[0] == name]
    module = f"lingula.{room}.{name}:"
    return [
        f"{verb} {entry}"
        for verb, registry in (("evaluate", TASKS), ("prepare", CORPORA))
        for entry, path in registry.paths.items()
        if path.startswith(module)
    ]


def test_every_option_that_a_message_names_is_one_of_each_command_that_shows_it(options):
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
            for match in OPTION.finditer(text):
                option = match[0].partition(".")[0]
                named = re.search(r"lingula (\w+)[^`\n]*$", text[: match.start()])  # `lingula prepare ... --shards`
                if named and named[1] in COMMANDS:
                    known = set().union(*(own for name, own in options.items() if name.split()[0] == named[1]))
                else:
                    commands = shown_by(file, options)
                    sets = [options[command] for command in commands]
                    known = set.intersection(*sets) if sets else set().union(*options.values())
                if option not in known | OTHERS:
                    wrong.append(f"{file}:{line}: {match[0]}")
    assert not wrong, f"options that do not exist where they are named: {', '.join(wrong)}"


def test_an_option_that_is_none_is_found(options):
    assert "--batch_size" in options["pretrain"]
    assert "--batch_size" not in options["evaluate retrieval"]
    assert shown_by("tasks/retrieval.py", options) == ["evaluate retrieval"]
    assert shown_by("corpora/csv_table.py", options) == ["prepare csv"]
    assert shown_by("commands/report.py", options) == ["report"]
    assert shown_by("nn/unet.py", options) == ["pretrain"]
    assert shown_by("evaluation/task.py", options) == []
    assert "evaluate segmentation" in shown_by("training/loop.py", options)
    assert OPTION.findall('give --batch_size, not a-b--c, --options.mu 3 or "--epochs 1"') == [
        "--batch_size", "--options.mu", "--epochs"
    ]  # fmt: skip
