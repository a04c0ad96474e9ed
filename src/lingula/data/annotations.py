"""Masks and boxes matched with the images of a table, by the paths of both. Floor 2."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from lingula.data.coco import CocoBoxes, read_coco
from lingula.data.paths import Names, listed
from lingula.registry import UserError


def masks_by_film(name: str, folder: Path, films: list[str]) -> tuple[dict[str, Path], list[str]]:
    """The mask file of each film that has one, and the files that are of no film.

    Raises:
        UserError: for a missing folder, and where it is not plain which file is of which film.
    """
    if not folder.is_dir():
        raise UserError(f"no folder of masks '{name}' at {folder}")
    files: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("[!.]*.*") if path.is_file()):
        key = _composed(path.relative_to(folder).with_suffix("").as_posix())
        if key in files:
            raise UserError(f"two masks '{name}' for one film: {files[key].name} and {path.name} in {path.parent}")
        files[key] = path
    found: dict[str, Path] = {}
    first: dict[Path, str] = {}
    for film in films:
        path = Path(film)
        file = files.get(_composed(path.with_suffix("").as_posix())) or files.get(_composed(path.stem))
        if file is None:
            continue
        if file in first:
            raise UserError(
                f"mask '{name}' {file.name} could be of {first[file]} or of {film}; lay masks out like films"
            )
        found[film] = file
        first[file] = film
    return found, [str(file.relative_to(folder)) for file in files.values() if file not in first]


def _composed(name: str) -> str:
    """One spelling for what file systems spell in two ways."""
    return unicodedata.normalize("NFC", name)


def boxes_by_film(path: Path, films: list[str]) -> tuple[CocoBoxes, list[str]]:
    """The boxes of the films, and the images that are of none.

    Raises:
        UserError: for a file that cannot be read, and where it is not plain which image is which film.
    """
    coco = read_coco(path)
    names = Names(films)
    film_of: dict[str, str] = {}
    unused = []
    image_of: dict[str, str] = {}
    for image in coco.boxes:
        match = names.find(image)
        if match.fits:
            raise UserError(f"image '{image}' of {path.name} could be {listed(match.fits)}")
        if match.path is None:
            unused.append(image)
            continue
        first = image_of.setdefault(match.path, image)
        if first != image:
            raise UserError(f"'{first}' and '{image}' of {path.name} are the same image, {match.path}")
        film_of[image] = match.path
    by_film = CocoBoxes(
        coco.categories,
        {film: coco.boxes[image] for image, film in film_of.items()},
        {film: coco.annotated[image] for image, film in film_of.items()},
        {film: coco.images[image] for image, film in film_of.items()},
    )
    return by_film, sorted(unused)


def unused_line(what: str, unused: list[str], used: int, films: list[str]) -> list[str]:
    """A line on what belongs to no film of the table.

    Raises:
        UserError: if all of it does.
    """
    if not used:
        example = f": '{unused[0]}' against '{films[0]}'" if unused and films else ""
        raise UserError(f"none of the {len(unused)} {what} belongs to a film of the table{example}")
    return [f"{len(unused)} {what} belong to no film of the table, such as '{unused[0]}'"] if unused else []
