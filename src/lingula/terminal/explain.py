"""Types and wrong values of the command line in plain words."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from lingula.registry import nearest


def alternatives(hint: Any) -> list[Any]:
    """``[int]`` of ``int | None``, ``[str, Path]`` of ``str | Path``: what a value may be, None apart."""
    if get_origin(hint) in (Union, types.UnionType):
        return [one for one in get_args(hint) if one is not type(None)]
    return [hint]


def choices_of(hint: Any) -> list[str]:
    """The words of a ``Literal``, or true and false; empty where anything may be given."""
    hint = alternatives(hint)[0]
    if hint is bool:
        return ["true", "false"]
    return [str(word) for word in get_args(hint)] if get_origin(hint) is Literal else []


def metavar(hint: Any, help: str = "") -> str:
    """What stands for a value in help: ``NUMBER``, ``FOLDER``, ``true|false``; ``...`` where several may follow.

    Args:
        hint: the type.
        help: says whether a path is that of a file or a folder: the one it names first.
    """
    kinds = alternatives(hint)
    kind = kinds[0]
    if choices_of(kind):
        return "|".join(choices_of(kind))
    if get_origin(kind) is list:
        return f"{metavar(get_args(kind)[0], help)} ..."
    if get_origin(kind) is dict:
        return metavar(get_args(kind)[1], help)
    if kind in (int, float):
        return "NUMBER"
    if Path in kinds:
        named = re.search(r"\b(folder|file)s?\b", help)
        return named[1].upper() if named else "PATH"
    return "VALUE" if kind is Any else "NAME"


def noun(hint: Any) -> str:
    """``a whole number``, ``a number``, ``true or false``, ``frozen or finetuned``."""
    kinds = alternatives(hint)
    kind = kinds[0]
    if choices_of(kind):
        words = choices_of(kind)
        return " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"
    if get_origin(kind) is list:
        return f"a list of {({int: 'whole numbers', float: 'numbers'}).get(get_args(kind)[0], 'names')}"
    if get_origin(kind) is dict:
        return "names and values"
    return {int: "a whole number", float: "a number", Path: "a path"}.get(kind, "a word")


def explain(message: str, parser: Any) -> str:
    """A parser's message in one line, with the nearest option, or what was expected and what came."""
    actions = {action.dest: action for action in parser._actions}
    known = [name for action in parser._actions for name in action.option_strings if not name.endswith("+")]
    message = " ".join(message.split())
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        return f"missing: {', '.join(_required(actions[name]) for name in missing[1].split(', '))}"
    unknown = re.search(r"nrecognized arguments: (\S+)", message) or re.search(r"Option '([^']+)' is not", message)
    if unknown:
        word = unknown[1].partition("=")[0]
        if not word.startswith("-") and word.replace(".", "").isidentifier() and "nrecognized" not in message:
            return f"unknown option '{word}'{nearest(word, [name.lstrip('-') for name in known])}"
        if word.startswith("-"):
            return f"unknown option '{word}'{nearest(word, known)}"
        return f"'{word}' is one word too many"
    valueless = re.search(r"argument (--[\w.-]+).*: expected", message)
    if valueless:
        action = next(action for action in parser._actions if valueless[1] in action.option_strings)
        return f"{valueless[1]} needs a value: {metavar(hint_of(action), action.help or '')}"
    file = re.search(r'key "config": (.*?): (\S.*)$', message)
    if file:
        return f"--config: {file[1][0].lower()}{file[1][1:]}: {file[2]}"
    other = re.search(r"Unexpected config: (.*)", message)
    if other:
        return f"--config: expected lines of the form `option: value`, got '{other[1]}'"
    yaml = re.search(r"Problems parsing config: (.*)", message)
    if yaml:
        place = re.search(r"line (\d+), column (\d+)\s*$", yaml[1])
        where = f" (line {place[1]}, column {place[2]})" if place else ""
        return f"--config: not valid YAML{where}; expected lines of the form `option: value`"
    key = re.search(r'Parser key "([\w.]+)":', message)
    action = actions.get(key[1].split(".")[0]) if key else None
    if action is not None and getattr(action, "_typehint", None) is not None:
        return _wrong_value(parser, action, message)
    return plain(message)


def hint_of(action: Any) -> Any:
    """An option's type; text where none is known."""
    return getattr(action, "_typehint", None) or str


def plain(message: str) -> str:
    """A message of the parser's in words rather than in classes."""
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word", "NoneType": "null"}
    message = re.sub(r"<class '([\w.]+)'>", lambda found: names.get(found[1], found[1].rpartition(".")[2]), message)
    return message.removeprefix("Parser ")


def _required(action: Any) -> str:
    """``--run``, ``FILE``, or ``one of methods, corpora, tasks``."""
    if action.option_strings:
        return str(action.option_strings[0])
    return noun(hint_of(action)) if choices_of(hint_of(action)) else str(action.dest).upper()


def _wrong_value(parser: Any, action: Any, message: str) -> str:
    """``--batch_size: expected a whole number, got 'abc'``."""
    name = f"{action.option_strings[0]}: " if action.option_strings else ""
    kind = alternatives(hint_of(action))[0]
    nested = re.search(r"NestedArg\(key='(\w+)', val=(.*)\)", message)
    given = re.search(r"Given value: (.*)$", message) or re.search(r"Got value: (.*)$", message)
    inner = re.search(r"Got value: (.*?)(?: - Expected| Given value|$)", message)
    whole = re.search(r"Expected a <class '(list|dict)'>\. Got", message)
    if inner and not nested and not whole and get_origin(kind) in (list, dict):  # one value among several
        given, kind = inner, get_args(kind)[-1]
    if nested:
        name, value, kind = f"{name[:-2]}.{nested[1]}: ", nested[2].strip("'\""), get_args(kind)[1]
    elif given:
        value = given[1].strip("'\"")
    else:
        return plain(message)
    if value == "None" and action.dest in getattr(parser, "needed", ()):
        return f"missing: {_required(action)}"
    hint = nearest(value, choices_of(kind)) if choices_of(kind) and kind is not bool else ""
    way = f"; write {name[:-2]}.NAME VALUE" if get_origin(kind) is dict else ""
    return f"{name}expected {noun(kind)}, got '{value}'{hint}{way}"
