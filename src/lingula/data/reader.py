"""What a corpus reader is, and what every reader needs. Floor 2."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lingula.data.study import LeftOut, Mask, Study
from lingula.data.tables import read_table
from lingula.registry import UserError


@dataclass(frozen=True)
class Stated:
    """A size that a paper or the publisher states, to be printed beside what was found.

    Attributes:
        count: how many.
        what: of what: ``studies``, ``patients``, or a label name (studies in which it is present).
        where: who says so: "CM-CGNS, section IV-A".
        note: what else explains a difference, in a few words; may be empty.
    """

    count: int
    what: str
    where: str
    note: str = ""


@runtime_checkable
class Corpus(Protocol):
    """A reader: names its source and its licence, and yields its studies.

    It may also have

    - ``label_groups``: classes that exclude each other, as ``{group: [label name, ...]}``;
    - ``uncertain_as`` and ``unknown_as``: what the field's protocol takes -1 and NaN of a label for, ``{label: 0 or
      1}``; labels that are not named there stay uncertain and unknown;
    - ``reading``: the :class:`lingula.data.reports.ReportReader` that it reads its reports with, which counts them;
    - ``stated``: sizes to compare with, a sequence of :class:`Stated`;
    - ``remarks``: lines for the log.
    """

    @property
    def name(self) -> str:
        """As it is named in ``lingula prepare NAME``, or by its user."""

    @property
    def licence(self) -> str:
        """Of the data."""

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every row of the source, in its order, as a study or as a reason why not; decodes nothing."""

    def fingerprint(self) -> str:
        """Equal where the reader would yield equal studies; see :func:`fingerprint_of`."""


def fingerprint_of(reader: Any, files: Iterable[Path | str] = ()) -> str:
    """SHA-256 over a dataclass reader's fields and the content of its tables.

    Paths count resolved, so that a fingerprint does not depend on the working folder; the table files count by what
    they hold, not by where they lie. The films themselves are not read: that would take as long as preparing them.
    """
    tables = {Path(file).resolve() for file in files}
    fields = {field.name: getattr(reader, field.name) for field in dataclasses.fields(reader)}
    digest = hashlib.sha256(type(reader).__qualname__.encode())
    for name in sorted(fields):
        value = fields[name]
        if isinstance(value, Path):
            value = "a table" if value.resolve() in tables else str(value.resolve())
        digest.update(canonical_json([name, value]).encode())
    for file in sorted(tables):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """One text for equal values, to be hashed."""
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def find_file(root: Path, names: Iterable[str], whence: str) -> Path:
    """The first of ``names`` that is there, each also as ``NAME.gz``.

    Args:
        root: folder of the download.
        names: paths below it, the likeliest first.
        whence: where to get it, for the message: "PhysioNet, https://physionet.org/content/mimic-cxr-jpg/".
    Raises:
        UserError: if the folder or all of the files are missing.
    """
    if not root.is_dir():
        raise UserError(f"no folder at {root}")
    names = list(names)
    found = optional_file(root, names)
    if found is None:
        raise UserError(f"no {' or '.join(names)} in {root}; it comes from {whence}")
    return found


def optional_file(root: Path, names: Iterable[str]) -> Path | None:
    """The same for a file that may be missing."""
    paths = (root / f"{name}{suffix}" for name in names for suffix in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def find_folder(root: Path, names: Iterable[str], whence: str) -> Path:
    """The same for a folder."""
    if not root.is_dir():
        raise UserError(f"no folder at {root}")
    names = list(names)
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"no folder {' or '.join(names)} in {root}; it comes from {whence}")


def masks_of_table(path: Path) -> dict[str, dict[str, Mask]]:
    """The masks of every image by name, from a table of ``image_id, target, mask_path``, a path below its folder.

    Empty where the table is missing.
    """
    masks: dict[str, dict[str, Mask]] = defaultdict(dict)
    if path.is_file():
        table = read_table(path)
        table.require("image_id", "target", "mask_path")
        for _, row in table:
            masks[row["image_id"]][row["target"]] = path.parent / row["mask_path"]
    return masks


def split_of(ids: Iterable[str], held_out: float) -> dict[str, str]:
    """The split of every id, as MGCA's code draws that of RSNA: sorted, then two calls of scikit-learn with seed 0.

    Args:
        ids: of all films, in any order.
        held_out: share of test and val together, rounded up to films; of their films test takes half, rounded down.
    Raises:
        UserError: for fewer than 4 ids, which leave a split empty.
    """
    from sklearn.model_selection import train_test_split

    ids = sorted(ids)
    if len(ids) < 4:
        raise UserError(f"{len(ids)} films cannot be split into train, val and test; at least 4 are needed")
    train, rest = train_test_split(ids, test_size=held_out, random_state=0)
    test, val = train_test_split(rest, test_size=0.5, random_state=0)  # test is the first part, as in MGCA's code
    return dict.fromkeys(train, "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
