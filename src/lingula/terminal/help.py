"""The help pages of the command line: options with what they take, what they do and their defaults."""

from __future__ import annotations

import re
import shutil
import textwrap
from argparse import SUPPRESS
from collections.abc import Sequence
from typing import Any, get_origin

from lingula.terminal.explain import alternatives, choices_of, hint_of, metavar

INDENT, COLUMN = 2, 24  # letters before an option, and before what it does
ALWAYS = {
    "config": ("--config FILE", "read options from a YAML file; those on the command line win."),
    "print_config": ("--print_config", "print the options in effect as YAML for --config, and exit."),
    "help": ("-h, --help", "show this help and exit."),
}


def width() -> int:
    """Letters in a line: those of the terminal, 80 in a file, never more than reads well."""
    return max(40, min(110, shutil.get_terminal_size().columns))


def wrapped(text: str, width: int, **settings: Any) -> list[str]:
    """Lines of words, which are not broken at hyphens; docstring markup becomes plain text."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`"))
    return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False, **settings)


def paragraphs(text: str) -> str:
    """Text whose paragraphs, set apart by empty lines, are wrapped."""
    return "\n\n".join("\n".join(wrapped(part, width())) for part in text.split("\n\n"))


def two_columns(rows: Sequence[tuple[str, str]], column: int = COLUMN) -> str:
    """Names and what they are, wrapped; a name that is too long has a line to itself."""
    lines = []
    for name, text in rows:
        told = wrapped(text, width() - column) or [""]
        if len(name) + INDENT + 2 > column:
            lines.append(" " * INDENT + name)
        else:
            lines.append(f"{' ' * INDENT}{name:<{column - INDENT}}{told.pop(0)}")
        lines += [" " * column + line for line in told]
    return "\n".join(line.rstrip() for line in lines)


def page(parser: Any, documented: dict[str, str]) -> str:
    """The help of a command.

    Args:
        parser: jsonargparse's.
        documented: what the positional arguments are, by name; those of the others the parser knows.
    """
    actions = [action for action in parser._actions if action.dest not in ALWAYS and action.help != SUPPRESS]
    words = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    optional = [action for action in options if action.dest not in parser.needed]
    required = [action for action in options if action.dest in parser.needed]
    usage = [parser.prog, *(taken(action, "") for action in words), *(flag(action) for action in required), "[options]"]
    first = wrapped(" ".join(usage), width() - 7, subsequent_indent=" " * 4)
    parts = ["usage: " + "\n       ".join(first), paragraphs(parser.description or "")]

    def section(title: str, rows: list[tuple[str, str]]) -> None:
        if rows:
            parts.append(f"{title}:\n{two_columns(rows)}")

    section(
        "required",
        [(taken(action, ""), documented.get(action.dest, "")) for action in words]
        + [(flag(action), described(action)) for action in required],
    )
    command, _, choice = parser.prog.rpartition(" ")
    for title, chosen in ((f"options of {choice}", False), (f"options of {command}", True)):
        own = [action for action in optional if (action.dest in parser.own_arguments) == chosen]
        section(title if parser.chosen else "options", [(flag(action), described(action)) for action in own])
    section("always", list(ALWAYS.values()))
    return "\n\n".join(part for part in parts if part) + "\n"


def flag(action: Any) -> str:
    """``--epochs NUMBER ...``, ``--options.NAME VALUE``."""
    name = action.option_strings[0]
    if get_origin(alternatives(hint_of(action))[0]) is dict:
        name += ".NAME"
    return f"{name} {taken(action, action.help or '')}"


def taken(action: Any, help: str) -> str:
    """What an option takes: ``NUMBER``; of a word without an option its name."""
    if not action.option_strings and not choices_of(hint_of(action)):
        return str(action.dest).upper()
    return metavar(hint_of(action), help)


def described(action: Any) -> str:
    """What an option does, and its default where that is not already said and says something."""
    text = " ".join((action.help or "").split())
    text += "." if text and text[-1] not in ".)" else ""
    default = action.default
    if default is None or default in ("", [], {}) or "(default" in text:
        return text
    if isinstance(default, bool):
        default = str(default).lower()
    elif isinstance(default, list | tuple):
        default = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in default)
    return f"{text} (default: {default})".strip()
