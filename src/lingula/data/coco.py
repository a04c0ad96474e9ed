"""Boxes from a COCO JSON file, the format that most annotation tools export. Floor 2.

What is read of it, ``bbox`` being ``[x, y, width, height]`` in pixels of the original film::

    {"categories": [{"id": 1, "name": "nodule"}],
     "images": [{"id": 7, "file_name": "p1/s1.png"}],
     "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [810.5, 402, 96, 88]}]}

Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lingula.data.study import Box
from lingula.registry import UserError


@dataclass(frozen=True)
class CocoBoxes:
    """The boxes of a file, by the ``file_name`` of their image; each dictionary has every image that is listed.

    Attributes:
        categories: their names, in the order of the file.
        boxes: in pixels of the original film; an empty tuple for an image on which none was drawn.
        annotated: the categories that annotators looked for, which are all of them but those with a box of nulls on
            this image: there, somebody looked and could not draw it.
        images: the entries as they stand in the file, for what a corpus keeps there of its own.
    """

    categories: tuple[str, ...]
    boxes: dict[str, tuple[Box, ...]]
    annotated: dict[str, tuple[str, ...]]
    images: dict[str, dict[str, Any]]


def read_coco(path: Path) -> CocoBoxes:
    """Read the boxes of a COCO JSON file. Segmentations, areas and crowd flags are not looked at.

    Raises:
        UserError: if the file is missing or no COCO JSON; for an id or a file name that is there twice; for an
            annotation of an unknown image or category; for a box that is not four finite numbers. An empty box, or
            one outside its film, is no error here: :func:`lingula.data.preparation.prepare` makes it a bad row.
    """
    categories, images, annotations = _parts(path)
    names = _by_id(categories, "name", f"{path.name}: category")
    files = _by_id(images, "file_name", f"{path.name}: image")
    entries = dict(zip(files.values(), images, strict=True))
    if len(entries) < len(files):
        twice = next(file for place, file in enumerate(files.values()) if images[place] is not entries[file])
        raise UserError(f"{path.name} lists the image '{twice}' twice")
    boxes: dict[str, list[Box]] = defaultdict(list)
    not_drawn: dict[str, set[str]] = defaultdict(set)
    for annotation in annotations:
        where = f"{path.name}: annotation {_field(annotation, 'id', path.name + ': annotation')}"
        file = _known(files, annotation, "image_id", where)
        name = _known(names, annotation, "category_id", where)
        sides = _field(annotation, "bbox", where)
        if isinstance(sides, list) and len(sides) == 4 and all(side is None for side in sides):
            not_drawn[file].add(name)
        else:
            boxes[file].append(_box(name, sides, where))
    known = tuple(dict.fromkeys(names.values()))
    return CocoBoxes(
        categories=known,
        boxes={file: tuple(boxes[file]) for file in entries},
        annotated={file: tuple(name for name in known if name not in not_drawn[file]) for file in entries},
        images=entries,
    )


def _parts(path: Path) -> list[list[Any]]:
    """Categories, images and annotations."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as err:
        raise UserError(f"no file of boxes at {path}") from err
    except (OSError, ValueError) as err:
        raise UserError(f"cannot read boxes {path}: {err}") from err
    parts = []
    for key in ("categories", "images", "annotations"):
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, list):
            raise UserError(f"{path} is not COCO JSON: expected a list of '{key}' in it")
        parts.append(part)
    return parts


def _by_id(entries: list[Any], key: str, where: str) -> dict[Any, str]:
    """``{id: text}``, in the order of the entries."""
    texts: dict[Any, str] = {}
    for entry in entries:
        identity = _field(entry, "id", where)
        if identity in texts:
            raise UserError(f"{where} id {identity} is there twice")
        texts[identity] = str(_field(entry, key, f"{where} {identity}"))
    return texts


def _field(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise UserError(f"{where} has no '{key}': {str(entry)[:80]}")
    if key.endswith("id") and not isinstance(entry[key], int | str):
        raise UserError(f"{where} has {key} {entry[key]!r}; expected a whole number")
    return entry[key]


def _known(texts: dict[Any, str], annotation: dict[str, Any], key: str, where: str) -> str:
    identity = _field(annotation, key, where)
    if identity not in texts:
        raise UserError(f"{where} has {key} {identity!r}, which is not among the {len(texts)} that the file lists")
    return texts[identity]


def _box(name: str, sides: Any, where: str) -> Box:
    try:
        x, y, width, height = (float(side) for side in sides)
    except (TypeError, ValueError) as err:
        raise UserError(f"{where} has bbox {sides}; expected [x, y, width, height]") from err
    if not all(map(math.isfinite, (x, y, width, height))):
        raise UserError(f"{where} has bbox {sides}; expected finite numbers")
    return Box(name, x, y, x + width, y + height)
