"""``lingula list``: what there is."""

from __future__ import annotations

import json as json_module
from typing import Any, Literal


def list_parts(what: Literal["methods", "corpora", "tasks"], json: bool = False) -> None:
    """List the methods, corpora or tasks.

    Args:
        what: what to list.
        json: print JSON with all options and recipes; this takes some seconds.
    """
    from lingula.corpora import CORPORA
    from lingula.methods import METHODS
    from lingula.tasks import TASKS

    registry = {"methods": METHODS, "corpora": CORPORA, "tasks": TASKS}[what]
    if not json:
        for name in registry:
            print(f"{name:<18} {registry.summary(name)}")
        return
    print(json_module.dumps({name: describe(registry[name]) for name in registry}, indent=2))


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
