"""``lingula --print_shell_completion``: a script that completes commands, corpora, tasks, options and their words.

The script knows the words of the lingula that printed it; a later one may have more.
"""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from lingula.registry import Registry, UserError
from lingula.terminal.explain import choices_of, hint_of, metavar
from lingula.terminal.parser import make_parser

SHELLS = ("bash", "zsh")
ANYWHERE = dict.fromkeys(("device", "accelerator"), ("auto", "cpu", "cuda", "mps"))
PATHS = ("FILE", "FOLDER", "PATH")
BASH = r"""# lingula: completion for {shell}
{before}_lingula_words() {{
  case "$1" in
{cases}
  esac
}}
_lingula() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" place="" word option="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{COMP_WORDS[i]}}"
    case "$word" in
      --*) option="$word" ;;
      *) if [ -z "$option" ] && [ -n "$(_lingula_words "$place $word")" ]; then place="$place $word"; fi ;;
    esac
  done
  local words=""
  if [[ "$cur" != -* && -n "$option" ]]; then words="$(_lingula_words "$place $option")"
  else
    words="$(_lingula_words "$place")"
    if [[ "$cur" != -* && -n "$(_lingula_words "$place FILE")" ]]; then words=FILES; fi
  fi
  if [ "$words" = FILES ]; then COMPREPLY=($(compgen -f -- "$cur"))
  else COMPREPLY=($(compgen -W "$words" -- "$cur")); fi
}}
complete -o filenames -F _lingula lingula
"""


def script(commands: Registry, shell: str) -> str:
    """The script for ``bash`` or ``zsh``, to be evaluated by the shell when it starts.

    Raises:
        UserError: for another shell.
    """
    if shell not in SHELLS:
        raise UserError(f"completion for which shell? known: {', '.join(SHELLS)}; got '{shell}'")
    before = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    cases = "\n".join(f'    "{place}") echo "{words}" ;;' for place, words in places(commands))
    return BASH.format(shell=shell, before=before, cases=cases)


def places(commands: Registry) -> Iterator[tuple[str, str]]:
    """What may follow the words so far: ``(" prepare csv --require_report", "true false")``."""
    yield "", " ".join([*commands, "help", "--help", "--version", "--print_shell_completion"])
    yield " --print_shell_completion", " ".join(SHELLS)
    yield " help", " ".join(commands)
    for name in commands:
        function = commands[name]
        choices = getattr(function, "choices", None)
        if choices is None:
            yield from _of_parser(f" {name}", make_parser(f"lingula {name}", function), getattr(function, "names", {}))
            continue
        yield f" {name}", " ".join([*choices, "--help"])
        for choice in choices:
            parser = make_parser(f"lingula {name} {choice}", function, choices[choice])
            yield from _of_parser(f" {name} {choice}", parser)


def _of_parser(
    place: str, parser: Any, names: Mapping[str, Iterable[str]] = MappingProxyType({})
) -> Iterator[tuple[str, str]]:
    """The options of a command, after them their words, and after those that take a path FILES.

    ``names``: the words of options whose type does not say them, as a command has them in its attribute ``names``.
    """
    positional = [action for action in parser._actions if not action.option_strings]
    words = [word for action in positional for word in choices_of(hint_of(action))]
    shown = [action for action in parser._actions if action.option_strings and action.help != SUPPRESS]
    options = [action.option_strings[-1 if action.dest == "help" else 0] for action in shown]
    yield place, " ".join([*words, *options])
    for word in words:
        yield f"{place} {word}", " ".join(options)
    if any(takes_path(action) for action in positional):
        yield f"{place} FILE", "FILES"
    for option, action in zip(options, shown, strict=True):
        if takes_path(action):
            yield f"{place} {option}", "FILES"
        elif choices := choices_of(hint_of(action)) or [*names.get(action.dest, ANYWHERE.get(action.dest, ()))]:
            yield f"{place} {option}", " ".join(choices)


def takes_path(action: Any) -> bool:
    """Whether a file or folder follows."""
    return action.dest == "config" or metavar(hint_of(action), action.help or "").split()[0] in PATHS
