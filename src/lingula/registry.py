"""Names to classes, resolved when asked: listing every method imports none of them. Floor 0.

Three kinds of names are known: those of lingula itself, the entry points of installed packages (groups
``lingula.methods``, ``lingula.corpora`` and ``lingula.tasks``), and ``package:Class``. A class of the third kind is
imported only if the user named it (:func:`trust`): a run folder or a benchmark that somebody else wrote names classes
too, and must not run code.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import numbers
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with 2."""


def nearest(name: str, names: Iterable[str]) -> str:
    """``did you mean 'x'?`` where one of ``names`` is close to ``name``, else the empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


_trusted: set[str] = set()  # what the user named, as "package:Class"
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*")


def trust(classes: str | Iterable[str] | None) -> None:
    """Let classes outside lingula be imported when a registry is asked for them.

    Args:
        classes: ``"my_package:MyMethod"``, or several; what the *user* named, never what a file says.
    """
    _trusted.update([classes] if isinstance(classes, str) else classes or ())


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry point of an installed package.

    Attributes:
        name: what the package calls it.
        path: ``module:Class``.
        source: name and version of the package.
        refused: why the name cannot be used; empty where it can.
    """

    name: str
    path: str
    source: str
    refused: str = ""


class Registry(Mapping[str, Any]):
    """Names to ``"module:Class"`` paths. Indexing imports; iterating does not. A name that two give is neither's.

    Args:
        noun: what an entry is, for messages.
        paths: the entries of lingula itself.
        group: entry points of this group are entries too, and ``package:Class`` may be asked for.
        needs: attributes that a class from outside lingula must have.

    Example:
        >>> shapes = Registry("shape", {"counter": "collections:Counter"})
        >>> shapes["counter"]("aab")["a"]
        2
        >>> shapes["conter"]
        Traceback (most recent call last):
        lingula.registry.UserError: unknown shape 'conter'; did you mean 'counter'?
    """

    def __init__(self, noun: str, paths: dict[str, str], group: str | None = None, needs: Iterable[str] = ()) -> None:
        self.noun = noun
        self.paths = paths
        self.group = group
        self.needs = tuple(needs)
        self._asked: dict[type, str] = {}  # classes from outside, and the names that they were asked for by

    def __getitem__(self, name: str) -> Any:
        path, source = self._find(name)
        module, _, attribute = path.partition(":")
        if source == "lingula":
            return getattr(importlib.import_module(module), attribute)
        if source == "" and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # last: what is installed goes first
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as err:  # whatever a package that is not ours does
            where = f" of {source}" if source else ""
            raise UserError(f"{self.noun} '{name}'{where} does not load: {type(err).__name__}: {err}") from err
        if not isinstance(found, type):
            raise UserError(f"'{name}' is not a {self.noun}: it is not a class")
        lacks = [need for need in self.needs if not hasattr(found, need)]
        if lacks:
            raise UserError(f"'{name}' is not a {self.noun}: it has no {', '.join(lacks)}")
        self._asked[found] = name
        return found

    def _find(self, name: Any) -> tuple[str, str]:
        """The path of an entry and where it comes from: ``lingula``, a package, or empty for a class the user named.

        Raises:
            UserError: if there is none, if two have the name, or if the class is outside lingula and not trusted.
        """
        if isinstance(name, str):
            entries = self.entries()
            for entry in entries:
                if entry.name == name:
                    if entry.refused:
                        raise UserError(entry.refused)
                    return entry.path, entry.source
            if name in self.paths:
                return self.paths[name], "lingula"
            if self.group is not None and _CLASS.fullmatch(name):
                if name in self.paths.values():
                    return name, "lingula"
                for entry in entries:
                    if entry.path == name:
                        return name, entry.source
                if name in _trusted:
                    return name, ""
                raise UserError(
                    f"{self.noun} '{name}' is neither part of lingula nor an installed plug-in; if you trust its "
                    f"code, name it on the command line: --allow {name}"
                )
        hint = nearest(str(name), self) or f"; known: {', '.join(self)}"
        raise UserError(f"unknown {self.noun} {name!r}{hint}")

    def entries(self) -> tuple[Entry, ...]:
        """The entry points of installed packages, those that are refused too; imports none of them."""
        here = Path.cwd()  # a folder that says it is an installed package, among files that somebody sent, is none
        folders = tuple(folder for folder in sys.path if Path(folder).resolve() != here)
        found = () if self.group is None else _installed(self.group, folders)
        return tuple(dataclasses.replace(entry, refused=_why_refused(entry, found, self)) for entry in found)

    def source(self, name: str) -> str:
        """Where an entry comes from: ``lingula``, name and version of a package, or empty for ``package:Class``."""
        return self._find(name)[1]

    def name_of(self, kind: type) -> str:
        """What a class is called: its name here, or ``module:Class``."""
        path = f"{kind.__module__}:{kind.__qualname__}"
        return next((name for name, own in self.paths.items() if own == path), self._asked.get(kind, path))

    def summary(self, name: str) -> str:
        """The first line of an entry's docstring, read from its file without importing it.

        Empty where a class from outside lingula cannot be found that way.
        """
        path, source = self._find(name)
        module, _, attribute = path.partition(":")
        file = _file_of(module)
        if file is not None:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
                    return (ast.get_docstring(node) or "").partition("\n")[0]
        if source != "lingula":
            return ""
        if file is None:
            raise ModuleNotFoundError(f"{self.noun} '{name}': no module {module}")
        raise AttributeError(f"{self.noun} '{name}': {module} has no {attribute}")

    def __contains__(self, name: object) -> bool:
        return name in tuple(self)  # Mapping's own would import, and raise for an unknown name

    def __iter__(self) -> Iterator[str]:
        entries = self.entries()
        refused = {entry.name for entry in entries if entry.refused}
        yield from (name for name in self.paths if name not in refused)
        yield from (entry.name for entry in entries if not entry.refused)

    def __len__(self) -> int:
        return len(tuple(iter(self)))


@functools.lru_cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[Entry, ...]:
    """The entry points of a group in the folders of ``path``, sorted by name; the first of two versions."""
    from importlib.metadata import distributions

    packages: dict[str, Any] = {}
    for package in distributions(path=list(path)):
        packages.setdefault(re.sub(r"[-_.]+", "-", str(package.name)).lower(), package)
    found = [
        Entry(point.name, "".join(point.value.split()), f"{package.name} {package.version}")
        for package in packages.values()
        for point in package.entry_points.select(group=group)
    ]
    return tuple(sorted(found, key=lambda entry: (entry.name, entry.source)))


def _why_refused(entry: Entry, entries: Iterable[Entry], registry: Registry) -> str:
    """Why the name of an entry point cannot be used; empty where it can."""
    own = registry.paths.get(entry.name)
    owners = [("lingula", own)] if own is not None else []
    owners += [(other.source, other.path) for other in entries if other.name == entry.name]
    if len(owners) > 1:
        return (
            f"{registry.noun} '{entry.name}' is given by {' and by '.join(source for source, _ in owners)}; name the "
            f"class instead ({' or '.join(path for _, path in owners)}) or uninstall a package"
        )
    if not _NAME.fullmatch(entry.name) or not _CLASS.fullmatch(entry.path):
        return (
            f"{registry.noun} '{entry.name}' of {entry.source} is refused: an entry point needs a name of letters, "
            f"digits, dots and dashes, and a value of the form module:Class, got '{entry.path}'"
        )
    return ""


def _file_of(module: str) -> Path | None:
    """The source of a module, found without importing it or a package that it is in."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    file = Path(spec.origin) if spec.origin else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for name in inner:
        places = [place for folder in folders for place in (folder / name / "__init__.py", folder / f"{name}.py")]
        file = next((place for place in places if place.is_file()), None)
        folders = [folder / name for folder in folders]
    return file if file is not None and file.suffix == ".py" else None


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
