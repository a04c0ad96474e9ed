"""Object-CXR (JF Healthcare, MIDL 2020): frontal films with the outlines of foreign objects.

https://github.com/hlk-1135/object-CXR, where the publisher says how to get it; the page states no licence. The films
are from some 300 township hospitals in China. Radiologists outlined objects in the lung field, except support devices.

::

    ROOT/
      train.csv    8,000 films         train/<image_name>
      dev.csv      1,000 films         dev/<image_name>

Half of the films of each have objects. The challenge's 1,000 test films were not published; if a ``test.csv`` is there,
its films are counted but left out, since nobody's results include them.

Split rule: that of CM-CGNS: dev is the test, and of train a fifth, random, is val (6,400, 1,600 and 1,000 films).

Two records of ``train.csv``. An annotation is shapes between semicolons: a kind (0 rectangle, 1 ellipse, 2 polygon),
then x y x y ... in pixels, of two corners for a rectangle and for the one around an ellipse. Nothing means no object::

    image_name,annotation
    00001.jpg,0 1024 310 1180 402;2 611 980 640 975 655 1010 620 1022
    00002.jpg,
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from lingula.data.reader import Stated, find_file, find_folder, fingerprint_of
from lingula.data.shapes import Kind, Shape, draw_shapes
from lingula.data.study import Box, LeftOut, Study
from lingula.data.tables import Table, read_table
from lingula.registry import UserError

WHENCE = "https://github.com/hlk-1135/object-CXR"

FINDING = "foreign_object"
KINDS: dict[str, Kind] = {"0": "rectangle", "1": "ellipse", "2": "polygon"}


@dataclass
class ObjectCxr:
    """Object-CXR: 9,000 films, with boxes and masks of foreign objects.

    Label ``foreign_object``, a box around each of them, and a mask, the union of the outlines themselves; looked for on
    every film. Each film is its own patient.

    Args:
        root: folder of the download.
    """

    root: Path

    name: ClassVar[str] = "object-cxr"
    licence: ClassVar[str] = "not stated by the publisher"
    remarks: ClassVar[tuple[str, ...]] = ("no patients are given: each film counts as its own patient",)
    stated: ClassVar[tuple[Stated, ...]] = (
        Stated(9_000, "studies", "CM-CGNS, section IV-A"),
        Stated(4_500, FINDING, "the publisher"),
    )

    def __post_init__(self) -> None:
        self.root = Path(self.root)

    def fingerprint(self) -> str:
        """A hash of the arguments and of the tables' content."""
        return fingerprint_of(self, [self._table_file(part) for part in ("train", "dev")])

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every film of train, then of dev, in the order of their tables.

        Raises:
            UserError: for a missing table, folder or column.
        """
        tables = {part: self._table(part) for part in ("train", "dev")}
        folders = {part: find_folder(self.root, [part], WHENCE) for part in tables}
        validation = validation_rows(len(tables["train"]))
        for position, (where, row) in enumerate(tables["train"]):
            yield _study(folders["train"], row, where, "val" if position in validation else "train")
        for where, row in tables["dev"]:
            yield _study(folders["dev"], row, where, "test")
        if (self.root / "test.csv").is_file():
            for where, row in self._table("test"):
                yield LeftOut(where, f"film of the challenge's test: {row['image_name']}", bad=False)

    def _table_file(self, part: str) -> Path:
        return find_file(self.root, [f"{part}.csv"], WHENCE)

    def _table(self, part: str) -> Table:
        table = read_table(self._table_file(part))
        table.require("image_name", "annotation")
        return table


def validation_rows(count: int) -> set[int]:
    """Which rows of ``train.csv`` are val: a fifth, rounded up, drawn by scikit-learn with seed 0, as the field does.

    CM-CGNS states the sizes; MGCA's code, which it follows, makes the same draw of a tenth.

    Raises:
        UserError: for fewer than 2 rows, which leave none to train on.
    """
    from sklearn.model_selection import train_test_split

    if count < 2:
        raise UserError(f"train.csv has {count} films, which cannot be split into train and val")
    return set(train_test_split(range(count), test_size=0.2, random_state=0)[1])


def _study(folder: Path, row: dict[str, str], where: str, split: str) -> Study | LeftOut:
    image = row["image_name"]
    if not image:
        return LeftOut(where, "no image: column 'image_name' is empty")
    try:
        shapes = read_shapes(row["annotation"])
    except ValueError as err:
        return LeftOut(where, f"unreadable annotation: {err}")
    study_id = f"{folder.name}/{image}"
    return Study(
        study_id=study_id,
        patient_id=study_id,
        image=folder / image,
        split=split,
        labels={FINDING: float(bool(shapes))},
        # The smallest box around each shape. Around a polygon MGCA's code takes a larger one, which is centred on the
        # polygon's innermost point; around the others the same.
        boxes=tuple(Box(FINDING, *shape.bounds) for shape in shapes),
        annotated=(FINDING,),
        masks={FINDING: partial(draw_shapes, shapes)},
        row=where,
    )


def read_shapes(annotation: str) -> Sequence[Shape]:
    """The shapes of an annotation.

    Raises:
        ValueError: for an unknown kind, a coordinate that is no number, and too few or too many of them.
    """
    shapes = []
    for written in annotation.split(";") if annotation else []:
        kind, *points = written.split() or [""]
        if kind not in KINDS:
            known = ", ".join(f"{number} {name}" for number, name in KINDS.items())
            raise ValueError(f"kind '{kind}' in '{written[:40]}'; expected {known}")
        shapes.append(Shape(KINDS[kind], tuple(map(float, points))))
    return tuple(shapes)
