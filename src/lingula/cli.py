"""The command line: COMMANDS = {name: function}; jsonargparse reads the functions. Floor 5.

Only the command that was asked for is imported, and its heavy libraries only when it runs.
"""

from __future__ import annotations

import inspect
import os
import sys
from types import SimpleNamespace
from typing import Any, Literal, NoReturn, get_origin, get_type_hints

from lingula.registry import Registry, UserError, nearest

COMMANDS = Registry(
    "command",
    {
        "demo": "lingula.commands.demo:demo",
        "prepare": "lingula.commands.prepare:prepare",
        "pretrain": "lingula.commands.pretrain:pretrain",
        "evaluate": "lingula.commands.evaluate:evaluate",
        "benchmark": "lingula.commands.benchmark:benchmark",
        "report": "lingula.commands.report:report",
        "list": "lingula.commands.list:list_parts",
    },
)


def main(arguments: list[str] | None = None) -> None:
    """Run ``lingula COMMAND ...``; errors that the user can mend are one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # PyTorch's threads spin while they wait for each other, on cores that others may need: let them spin briefly.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(overview())
            return
        if arguments[0] == "--version":
            from lingula import __version__

            print(f"lingula {__version__}")
            return
        name, rest = arguments[0], arguments[1:]
        call(f"lingula {name}", COMMANDS[name], rest)
    except UserError as err:
        fail(f"lingula: {err}")
    except KeyboardInterrupt:
        fail("lingula: interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on stderr, and out."""
    print(" ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]


def overview() -> str:
    """What ``lingula --help`` prints."""
    lines = [
        "usage: lingula COMMAND [options]",
        "",
        "Learn visual representations from medical images and their reports, and measure honestly what was learned.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<10} {first_line(COMMANDS[name])}" for name in COMMANDS]
    lines += ["", "lingula COMMAND --help shows a command's options; --print_config its YAML, for --config FILE."]
    return "\n".join(lines)


def call(program: str, function: Any, arguments: list[str]) -> Any:
    """Parse ``arguments`` for ``function`` and call it; a registry stands for its entries as sub-commands.

    A function may carry ``choices``, a registry whose chosen entry's arguments it takes besides its own, as its first
    argument: ``lingula prepare csv --images DIR ... --out DIR``.
    """
    choices: Registry | None = getattr(function, "choices", None)
    if choices is None:
        parser = make_parser(program, function)
        return function(**parser.instantiate_classes(parse(parser, arguments)))
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: {program} {choices.noun.upper()} [options]\n\n{first_line(function)}\n\n{choices.noun} is one of:"
        )
        for name in choices:
            print(f"  {name:<18} {choices.summary(name)}")
        print(f"\n{program} {choices.noun.upper()} --help shows the options.")
        return None
    choice = choices[arguments[0]]
    parser = make_parser(f"{program} {arguments[0]}", function, choice)
    config = parser.instantiate_classes(parse(parser, arguments[1:]))
    own = {key: value for key, value in config.items() if key in parser.own_arguments}
    rest = {key: value for key, value in config.items() if key not in parser.own_arguments}
    return function(choice(**rest), **own)


def make_parser(program: str, function: Any, choice: Any = None) -> Any:
    """A jsonargparse parser for a function's arguments (and a chosen class's), with ``--config`` and nearest names."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        own_arguments: frozenset[str] = frozenset()

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(f"{program}: {explain(message, self)}")

    description = inspect.cleandoc((choice or function).__doc__ or "").partition("\nArgs:")[0].strip()
    parser = Parser(prog=program, description=description, default_env=False)
    parser.add_argument("--config", action="config", help="YAML file of these options.")
    resolve_hints(function)
    skip: set[str | int] = set()
    if choice is not None:
        parser.add_class_arguments(choice)
        skip.add(1)
    for name, kind in positionals_of(function).items():
        parser.add_argument(name, type=kind)
        skip.add(name)
    parser.own_arguments = frozenset(parser.add_function_arguments(function, skip=skip))
    return parser


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
    """Parsed options without the parser's own."""
    config = parser.parse_args(spell_out(parser, arguments))
    for own in ("config", "print_config"):
        config.pop(own, None)
    return config


def spell_out(parser: Any, arguments: list[str]) -> list[str]:
    """``--resume`` as ``--resume true``, and ``--labels effusion nodule`` as ``--labels [effusion,nodule]``."""
    kinds = {name: getattr(action, "_typehint", None) for action in parser._actions for name in action.option_strings}
    spelt: list[str] = []
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        spelt.append(option)
        kind = str(kinds.get(option, ""))
        values = []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if not values and kinds.get(option) in (bool, bool | None):
            values = ["true"]
        elif "list[" in kind and values and not values[0].startswith("["):
            values = [f"[{','.join(values)}]"]
        spelt += values
    return spelt


def explain(message: str, parser: Any) -> str:
    """A parser's message with the nearest option where one is unknown."""
    import re

    known = [name for action in parser._actions for name in action.option_strings]
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        names = missing[1].split(", ")
        return f"missing: {', '.join(f'--{name}' if f'--{name}' in known else name for name in names)}"
    unknown = re.search(r"(--[\w.-]+)", message)
    if unknown and unknown[1] not in known and "nrecognized" in message:
        return f"unknown option '{unknown[1]}'{nearest(unknown[1], known)}"
    choice = re.search(r'key "(\w+)":\s+Expected a typing.Literal\[(.*)\]\.\s+Got value:\s+(\S+)', message)
    if choice:
        words = re.findall(r"'([^']+)'", choice[2])
        return f"unknown {choice[1]} '{choice[3]}'{nearest(choice[3], words) or '; known: ' + ', '.join(words)}"
    return message
