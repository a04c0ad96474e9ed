"""Names to classes, resolved when asked: listing every method imports none of them. Floor 0."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import numbers
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with 2."""


def nearest(name: str, names: Iterable[str]) -> str:
    """``did you mean 'x'?`` where one of ``names`` is close to ``name``, else the empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


class Registry(Mapping[str, Any]):
    """Names to ``"module:Class"`` paths. Indexing imports; iterating does not.

    Example:
        >>> shapes = Registry("shape", {"counter": "collections:Counter"})
        >>> shapes["counter"]("aab")["a"]
        2
        >>> shapes["conter"]
        Traceback (most recent call last):
        lingula.registry.UserError: unknown shape 'conter'; did you mean 'counter'?
    """

    def __init__(self, noun: str, paths: dict[str, str]) -> None:
        self.noun = noun
        self.paths = paths

    def __getitem__(self, name: str) -> Any:
        if name not in self.paths:
            hint = nearest(name, self.paths) or f"; known: {', '.join(self.paths)}"
            raise UserError(f"unknown {self.noun} '{name}'{hint}")
        module, _, attribute = self.paths[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def summary(self, name: str) -> str:
        """The first line of an entry's docstring, read from its file without importing it."""
        module, _, attribute = self.paths[name].partition(":")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{self.noun} '{name}': no module {module}")
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        raise AttributeError(f"{self.noun} '{name}': {module} has no {attribute}")

    def __contains__(self, name: object) -> bool:
        return name in self.paths  # Mapping's own would import, and raise for an unknown name

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


# What the command line may give for a default of this type, and what to call it.
_KINDS: tuple[tuple[type, Any, str], ...] = (
    (bool, bool, "true or false"),
    (int, numbers.Integral, "a whole number"),
    (float, numbers.Real, "a number"),
    (str, str, "a word"),
    (tuple, list | tuple, "a list"),
)


def check_options(what: str, factory: Any, options: Mapping[str, Any], not_options: Iterable[str] = ()) -> None:
    """Refuse options that ``factory`` does not take, naming the nearest that it does, and values of another kind.

    The kind is that of the default: true or false, a whole number, a number, a word. ``not_options`` are parameters
    that others give.

    Raises:
        UserError: for the first option that is wrong.
    """
    parameters = inspect.signature(factory).parameters
    known = [name for name in parameters if name not in ("self", *not_options)]
    for option, value in options.items():
        if option not in known:
            hint = nearest(option, known) or f"; known: {', '.join(known)}"
            raise UserError(f"{what} has no option '{option}'{hint}")
        for kind, accepted, noun in _KINDS:
            if type(parameters[option].default) is kind:
                if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
                    raise UserError(f"{what}: option '{option}' must be {noun}, got {value!r}")
                break
