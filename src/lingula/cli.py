"""The command line: COMMANDS = {name: function}; ``terminal/parser.py`` reads the functions. Floor 6.

Only the command that was asked for is imported, and its heavy libraries only when it runs.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from lingula.registry import Registry, UserError, nearest, trust

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
HELP = ("-h", "--help")
PACKAGES = {  # that are installed under another name than they are imported by
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def main(arguments: list[str] | None = None) -> None:
    """Run ``lingula COMMAND ...``; errors that the user can mend are one line on stderr and exit code 2."""
    from lingula.terminal.progress import stop

    arguments = sys.argv[1:] if arguments is None else arguments
    # PyTorch's threads spin while they wait for each other, on cores that others may need: let them spin briefly.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        run(arguments)
        sys.stdout.flush()
    except UserError as err:
        fail(str(err) if str(err).startswith("lingula ") else f"lingula: {err}")
    except KeyboardInterrupt:
        fail("lingula: interrupted", 130)
    except BrokenPipeError:  # whoever read our output has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except ImportError as err:
        fail(f"lingula: {missing_package(err)}")
    finally:
        stop()


def run(arguments: list[str]) -> Any:
    """What was asked for."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in HELP:
        return print(overview())
    if arguments[0] in ("-V", "--version"):
        from lingula import __version__

        return print(f"lingula {__version__}")
    if arguments[0] == "--print_shell_completion":
        from lingula.terminal.completion import script

        return print(script(COMMANDS, " ".join(arguments[1:])), end="")
    name, rest = arguments[0], arguments[1:]
    if name.startswith("-"):
        known = ("--help", "--version", "--print_shell_completion")
        raise UserError(f"unknown option '{name}'{nearest(name, known)}; usage: lingula COMMAND [options]")
    return call(f"lingula {name}", COMMANDS[name], rest)


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on stderr, and out."""
    print(" ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)


def missing_package(err: ImportError) -> str:
    """A package that is missing or does not load, in one line with the way out.

    Raises:
        ImportError: if it is one of our own modules, which no user can mend.
    """
    cause: ImportError = err
    while isinstance(cause.__cause__, ImportError):  # transformers wraps the real one
        cause = cause.__cause__
    package = (cause.name or "").partition(".")[0]
    if package == "lingula" or not package:
        raise err
    install = f"pip install {PACKAGES.get(package, package.replace('_', '-'))}"
    if isinstance(cause, ModuleNotFoundError) and cause.name == package:
        return f"the package '{package}' is not installed; run: {install}"
    return f"the package '{package}' does not load ({cause}); run: {install} --force-reinstall"


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]


def overview() -> str:
    """What ``lingula --help`` prints."""
    from lingula.terminal.help import paragraphs, two_columns

    return "\n\n".join(
        (
            "usage: lingula COMMAND [options]",
            paragraphs(
                "Learn visual representations from medical images and their reports, and measure honestly what was "
                "learned."
            ),
            f"commands:\n{two_columns([(name, first_line(COMMANDS[name])) for name in COMMANDS], 14)}",
            "options:\n"
            + two_columns(
                [
                    ("-h, --help", "show this help; `lingula COMMAND --help` shows the options of a command."),
                    ("-V, --version", "show the version."),
                    ("--print_shell_completion bash|zsh", "print a script that completes commands and options."),
                ]
            ),
            paragraphs("For research use only: no output of lingula is a diagnosis."),
        )
    )


def call(program: str, function: Any, arguments: list[str]) -> Any:
    """Parse ``arguments`` for ``function`` and call it; a registry stands for its entries as sub-commands.

    A function may carry ``choices``, a registry whose chosen entry's arguments it takes besides its own, as its first
    argument: ``lingula prepare csv --images DIR ... --out DIR``; and ``instead``, functions of one word that an option
    calls in place of all that: ``lingula prepare --upgrade DIR``. Classes that are named among ``arguments`` may be
    imported.
    """
    from lingula.terminal.parser import make_parser, named_in, parse

    choices: Registry | None = getattr(function, "choices", None)
    trust(named_in(arguments))
    if choices is None:
        parser = make_parser(program, function)
        return function(**parser.instantiate_classes(parse(parser, arguments)))
    if not arguments or arguments[0] in HELP:
        print(overview_of(program, function, choices), file=sys.stdout if arguments else sys.stderr)
        raise SystemExit(0 if arguments else 2)
    instead: dict[str, Any] = getattr(function, "instead", {})
    if arguments[0] in instead:
        if len(arguments) != 2:
            raise UserError(f"usage: {program} {arguments[0]} DIR")
        return instead[arguments[0]](arguments[1])
    if arguments[0].startswith("-"):
        raise UserError(
            f"name the {choices.noun} first: {program} {choices.noun.upper()} {' '.join(arguments[:2])} ...; "
            f"known: {', '.join(choices)}"
        )
    trust(arguments[0])
    choice = choices[arguments[0]]
    parser = make_parser(f"{program} {arguments[0]}", function, choice)
    config = parser.instantiate_classes(parse(parser, arguments[1:]))
    own = {key: value for key, value in config.items() if key in parser.own_arguments}
    rest = {key: value for key, value in config.items() if key not in parser.own_arguments}
    return function(choice(**rest), **own)


def overview_of(program: str, function: Any, choices: Registry) -> str:
    """What ``lingula prepare --help`` prints: the corpora."""
    from lingula.terminal.help import paragraphs, two_columns

    noun = choices.noun.upper()
    rows = [(name, choices.summary(name)) for name in choices]
    return "\n\n".join(
        (
            f"usage: {program} {noun} [options]",
            paragraphs(first_line(function)),
            f"{noun} is one of:\n{two_columns(rows, 22)}",
            *(
                paragraphs(f"{program} {option} DIR: {first_line(call)}")
                for option, call in getattr(function, "instead", {}).items()
            ),
            f"or package:Class, a {choices.noun} of your own.",
            f"{program} {noun} --help shows the options.",
        )
    )
