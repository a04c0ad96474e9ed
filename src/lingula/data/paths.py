"""Files as tables name them, found below a folder although they are spelt otherwise there. Floor 2."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ENDINGS = (".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ALIKE = {".dicom": ".dcm", ".ima": ".dcm", ".jpeg": ".jpg", ".tiff": ".tif"}  # spellings of one format
TURNED = "turning backslashes into slashes"
SHOWN = 3  # paths that a message names


@dataclass(frozen=True, slots=True)
class Match:
    """What a name stands for.

    Attributes:
        path: the one path that is meant; None where none is, or where several could be.
        how: what it took to find it, such as "adding the ending"; empty where the name is the path.
        fits: where several paths could be meant, these.
        near: where none is, those of the same name with another ending or in another folder, or of the same number with
            leading zeros, which spreadsheets drop.
    """

    path: str | None
    how: str = ""
    fits: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


class Names:
    r"""Paths, found by names that differ from them in what exports, converters and file systems change.

    - backslashes for slashes: ``p1\a.png``;
    - another Unicode form, as macOS stores names: ``o`` and a combining mark for one character;
    - another letter case: ``A.PNG`` for ``a.png``;
    - another spelling of the ending, ``a.jpeg`` for ``a.jpg``, or none, ``a`` for ``a.dcm``. The ending of another
      format is not taken: that may be another image;
    - no folder, or the last ones only: ``a.png`` for ``p1/a.png``. Another folder than the one written is not taken.

    Whole paths are tried before paths in subfolders, and smaller changes before larger ones. The first change with
    which a path fits decides; where several paths fit then, none is taken.

    Args:
        paths: relative, with slashes.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)  # lists of one: the index of a large folder stays small
        for path in paths:
            self._by_stem[_fold(_stem(_last(path)))].append(path)

    def find(self, name: str) -> Match:
        """The one path that a name stands for, and what it took to find it."""
        wanted = name.replace("\\", "/").removeprefix("./")
        turned = [TURNED] if "\\" in name else []
        keys = {_fold(_last(wanted)), _fold(_stem(_last(wanted)))}
        near = tuple(sorted(path for key in keys for path in self._by_stem.get(key, ())))  # nothing else can fit
        for below in (False, True):
            for of_name, of_path, said in CHANGES:
                key = of_name(wanted)
                fits = tuple(path for path in near if _is(of_path(path), key, below))
                if len(fits) == 1:
                    how = [*turned, *([said] if said else []), *(["searching subfolders"] if below else [])]
                    return Match(fits[0], " and ".join(how))
                if fits:
                    return Match(None, fits=fits)
        return Match(None, near=near or tuple(sorted(self._by_number.get(_stem(_last(wanted)).lstrip("0"), ()))))

    @cached_property
    def _by_number(self) -> dict[str, list[str]]:
        """Paths by the number that is their name."""
        found: dict[str, list[str]] = defaultdict(list)
        for stem, paths in self._by_stem.items():
            if stem.isdigit():
                found[stem.lstrip("0")].extend(paths)
        return found


class Folder:
    """The files below a folder, found by names as :class:`Names` finds them.

    The folder is listed only when a name is not the path of a file, backslashes turned, and then once. What is hidden
    is left out, such as the ``._`` files of macOS, and links are followed.

    Args:
        root: the folder; absolute names are looked up as they are.
        without: folders below it that hold other files, such as masks.
    """

    def __init__(self, root: Path, without: Iterable[Path] = ()) -> None:
        self.root = root
        self.without = tuple(without)

    def find(self, name: str) -> Match:
        """The one file that a name stands for, its path below the folder, and what it took to find it."""
        if os.path.isfile(self.root / name):  # noqa: PTH113 - no error for a name that is too long
            return Match(name)
        slashed = name.replace("\\", "/")
        if slashed != name and os.path.isfile(self.root / slashed):  # noqa: PTH113
            return Match(slashed, TURNED)
        return self._names.find(name)

    @cached_property
    def _names(self) -> Names:
        return Names(_walk(self.root, self.without))


def listed(paths: tuple[str, ...]) -> str:
    """``'a', 'b', 'c' or 4 more``, for a message."""
    quoted = [f"'{path}'" for path in paths[:SHOWN]]
    rest = len(paths) - SHOWN
    last = f"{rest} more" if rest > 0 else quoted.pop()
    return f"{', '.join(quoted)} or {last}" if quoted else last


def _walk(root: Path, without: Iterable[Path]) -> Iterator[str]:
    """Paths of the files below a folder, with slashes."""
    folders = [("", os.fspath(root))]
    states = [os.stat(folder) for folder in without if folder.is_dir()]  # noqa: PTH116
    seen = {(state.st_dev, state.st_ino) for state in states}  # and those that were there, since links can lead back
    while folders:
        below, folder = folders.pop()
        try:
            state = os.stat(folder)  # noqa: PTH116
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        folders.append((f"{below}{entry.name}/", entry.path))
                    elif entry.is_file():
                        yield below + entry.name
        except OSError:
            continue  # a folder that may not be read holds nothing that could be read from it


def _is(path: str, key: str, below: bool) -> bool:
    return path.endswith("/" + key) if below else path == key


def _same(name: str) -> str:
    return name


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _fold(name: str) -> str:
    return _nfc(_nfc(name).casefold())


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    """A name without the ending of an image; other dots, as in the identifiers of DICOM, stay."""
    ending = _ending(name)
    return name[: len(name) - len(ending)]


def _ending(name: str) -> str:
    found = os.path.splitext(name)[1]  # noqa: PTH122
    return found if found.lower() in ENDINGS else ""


def _alike(name: str) -> str:
    ending = _ending(name).lower()
    return _fold(_stem(name)) + ALIKE.get(ending, ending)


Form = Callable[[str], str]
CHANGES: tuple[tuple[Form, Form, str], ...] = (  # form of the name, form of the path, what was done
    (_same, _same, ""),
    (_nfc, _nfc, "changing the Unicode form"),
    (_fold, _fold, "changing the letter case"),
    (_alike, _alike, "respelling the ending"),
    (_nfc, lambda path: _nfc(_stem(path)), "adding the ending"),
    (_fold, lambda path: _fold(_stem(path)), "adding the ending and changing the letter case"),
)
