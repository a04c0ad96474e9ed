"""``lingula list``: what there is."""

from __future__ import annotations

import json as json_module
import sys
from typing import Any, Literal

from lingula.registry import Registry, UserError


def list_parts(what: Literal["methods", "corpora", "tasks"], json: bool = False) -> None:
    """List the methods, corpora or tasks, those of installed packages too.

    Args:
        what: what to list.
        json: print JSON with all options and recipes; this takes some seconds.
    """
    from lingula.corpora import CORPORA
    from lingula.methods import METHODS
    from lingula.tasks import TASKS

    registry = {"methods": METHODS, "corpora": CORPORA, "tasks": TASKS}[what]
    for why in dict.fromkeys(entry.refused for entry in registry.entries() if entry.refused):
        print(f"note: {why}", file=sys.stderr)
    if not json:
        for name in registry:
            plugged_in = "" if name in registry.paths else f" ({registry.source(name)})"
            print(f"{name:<18} {registry.summary(name)}{plugged_in}".replace("  (", " ("))
        return
    described = {name: {"from": registry.source(name), **describe(registry[name])} for name in usable(registry)}
    print(json_module.dumps(described, indent=2))


def usable(registry: Registry) -> list[str]:
    """The names of a registry, without the classes of other packages that do not load; a note says why."""
    names = []
    for name in registry:
        try:
            registry[name]
            names.append(name)
        except UserError as err:
            print(f"note: {err}", file=sys.stderr)
    return names


def describe(part: Any) -> dict[str, Any]:
    """A part's options with their defaults, and its recipes."""
    import dataclasses
    import inspect

    from lingula.records import plain
    from lingula.runs.build import TOWERS

    options = {
        name: None if parameter.default is inspect.Parameter.empty else parameter.default
        for name, parameter in inspect.signature(part).parameters.items()
        if name not in TOWERS
    }
    described: dict[str, Any] = {"summary": (part.__doc__ or "").strip().splitlines()[0], "options": options}
    if hasattr(part, "recipes"):
        described["recipes"] = {name: dataclasses.asdict(recipe) for name, recipe in part.recipes.items()}
    result: dict[str, Any] = json_module.loads(json_module.dumps(plain(described), default=str))
    return result
