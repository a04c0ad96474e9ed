"""A command's parser, made from the function that it calls: options, ``--config``, ``--print_config`` and help."""

from __future__ import annotations

import inspect
import json
import re
from types import SimpleNamespace
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from lingula.registry import UserError
from lingula.terminal.explain import alternatives, explain, hint_of


def make_parser(program: str, function: Any, choice: Any = None) -> Any:
    """A jsonargparse parser for a function's arguments, and for those of a class that is its first.

    A function may have attributes: ``positional``, the names of arguments that are words without an option, and
    ``filled``, which turns the options in effect into those that ``--print_config`` prints.

    Args:
        program: ``lingula pretrain``, or ``lingula prepare csv``.
        function: of the command.
        choice: the chosen corpus or task.
    """
    from jsonargparse import ArgumentParser

    from lingula.terminal.help import page

    filled = getattr(function, "filled", None)

    class Parser(ArgumentParser):
        own_arguments: frozenset[str] = frozenset()
        needed: frozenset[str] = frozenset()
        chosen = choice is not None

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise UserError(f"{program}: {explain(message, self)}")

        def format_help(self, formatter: Any = None) -> str:
            return page(self, documented(function))

        def dump(self, namespace: Any, *args: Any, **settings: Any) -> str:
            printed: str = super().dump(namespace if filled is None else filled(namespace), *args, **settings)
            return printed

    description = inspect.cleandoc((choice or function).__doc__ or "").partition("\nArgs:")[0].strip()
    parser = Parser(prog=program, description=description.replace("``", "`"), default_env=False)
    parser.add_argument("--config", action="config")
    resolve_hints(function)
    skip: set[str | int] = set()
    if choice is not None:
        parser.add_class_arguments(choice)
        skip.add(1)
    for name, kind in positionals_of(function).items():
        parser.add_argument(name, type=kind)
        skip.add(name)
    parser.own_arguments = frozenset(parser.add_function_arguments(function, skip=skip))
    parser.needed = frozenset(action.dest for action in parser._actions if action.required)
    return parser


def documented(function: Any) -> dict[str, str]:
    """What the docstring says of each argument."""
    import docstring_parser

    described = docstring_parser.parse(function.__doc__ or "").params
    return {one.arg_name: one.description or "" for one in described}


def resolve_hints(function: Any) -> None:
    """Turn a function's annotations from strings into types.

    jsonargparse would do so by running the module's ``if TYPE_CHECKING:`` imports, torch and all.
    """
    arguments = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    hints = get_type_hints(SimpleNamespace(__annotations__=arguments), function.__globals__)
    function.__annotations__ = {**hints, "return": None}


def positionals_of(function: Any) -> dict[str, Any]:
    """A function's positional arguments: required ones of a few words, as in ``lingula list methods``, and those that
    it names in ``positional``."""
    named = getattr(function, "positional", ())
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(function).parameters.items()
        if name in named
        or (parameter.default is inspect.Parameter.empty and get_origin(parameter.annotation) is Literal)
    }


def parse(parser: Any, arguments: list[str]) -> Any:
    """Parsed options without the parser's own.

    Raises:
        UserError: if a file of options allows a class, which only the command line may.
    """
    config = parser.parse_args(spell_out(parser, arguments))
    for name in config.get("allow") or ():
        if name not in named_in(arguments):
            raise UserError(f"{parser.prog}: a file cannot allow a class; name it on the command line: --allow {name}")
    for own in ("config", "print_config"):
        config.pop(own, None)
    return config


def named_in(arguments: list[str]) -> list[str]:
    """The classes that are named on the command line itself: the values of ``--method`` and ``--allow``.

    Example:
        >>> named_in(["--method", "a:B", "--allow=c:D", "e.f:G", "--out", "h:I"])
        ['a:B', 'c:D', 'e.f:G']
    """
    named, option = [], ""
    for word in arguments:
        if word.startswith("--"):
            option, _, word = word.partition("=")
        if option in ("--method", "--allow") and word:
            named += re.findall(r"[\w.]+:\w+", word)
    return named


def spell_out(parser: Any, arguments: list[str]) -> list[str]:
    """``--resume`` as ``--resume true``, and ``--labels effusion nodule`` as ``--labels ["effusion", "nodule"]``."""
    kinds = {name: alternatives(hint_of(a))[0] for a in parser._actions for name in a.option_strings}
    spelt: list[str] = []
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        spelt.append(option)
        values = []
        while rest and not rest[0].startswith("--") and rest[0] != "-h":
            values.append(rest.pop(0))
        kind = kinds.get(option)
        if kind is bool and not values:
            values = ["true"]
        elif get_origin(kind) is list and values and not values[0].startswith("["):
            words = get_args(kind)[0] is str and not any("," in value for value in values)  # "a,b" is two words
            values = [json.dumps(values, ensure_ascii=False) if words else f"[{','.join(values)}]"]
        spelt += values
    return spelt
