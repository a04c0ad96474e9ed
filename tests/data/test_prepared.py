"""Masks and boxes in a prepared corpus, against films and masks drawn by hand; and the sizes that others state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.reader import Stated
from lingula.data.study import Box, LeftOut, Study
from lingula.registry import UserError

HEIGHT, WIDTH, SIZE = 20, 12, 10  # half size: 10 by 6 pixels, two empty columns on both sides


def film(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value, dtype=np.uint8)


def block(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rectangle(x0: int, y0: int, x1: int, y1: int) -> partial[np.ndarray]:
    return partial(_rectangle, (x0, y0, x1, y1))


def _rectangle(box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    return block(height, width, *box)


@dataclass
class Toy:
    rows: list[Study | LeftOut]
    stated: tuple[Stated, ...] = ()
    uncertain_as: dict[str, float] = field(default_factory=dict)
    unknown_as: dict[str, float] = field(default_factory=dict)
    name = "toy"
    licence = "CC0"

    def studies(self) -> Iterator[Study | LeftOut]:
        yield from self.rows

    def fingerprint(self) -> str:
        return "1"


def study(number: int, **fields: Any) -> Study:
    return Study(f"s{number}", f"p{number}", partial(film, number), "train", row=f"row {number}", **fields)


def run(rows: list[Study | LeftOut], out: Path, **options: Any) -> PreparedCorpus:
    options = {"size": SIZE, "workers": 0, "log": lambda _: None, **options}
    return prepare(Toy(rows), out, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_lie_where_their_films_do(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "lung.png"
    Image.fromarray(block(HEIGHT, WIDTH, 0, 0, 6, 10)).save(file)
    rows: list[Study | LeftOut] = [
        study(0, masks={"lung": file, "heart": rectangle(6, 4, 10, 8)}),
        study(1),
        study(2, masks={"lung": rectangle(3, 0, 6, 2)}),  # covers half of the first pixel, and the next whole
        study(3, masks={"heart": rectangle(0, 0, 0, 0)}),
    ]
    corpus = run(rows, tmp_path / "out", workers=workers)
    corpus = PreparedCorpus.open(corpus.folder)
    assert corpus.mask_names == ["heart", "lung"]
    assert corpus.rows_with_mask("lung").tolist() == [0, 2]
    assert corpus.rows_with_mask("heart").tolist() == [0, 3]
    lungs = corpus.masks([2, 0], "lung")
    np.testing.assert_array_equal(lungs[1], block(SIZE, SIZE, 2, 0, 5, 5))
    np.testing.assert_array_equal(lungs[0], block(SIZE, SIZE, 3, 0, 5, 1))
    np.testing.assert_array_equal(corpus.masks([0], "heart")[0], block(SIZE, SIZE, 5, 2, 7, 4))
    assert not corpus.masks([3], "heart").any()
    with pytest.raises(KeyError):
        corpus.masks([1], "lung")
    with pytest.raises(UserError, match="corpus toy has no mask 'lungs'; did you mean 'lung'"):
        corpus.masks([0], "lungs")


def raising(height: int, width: int) -> np.ndarray:
    raise ValueError(f"run-length code ends at 999, past the {height * width} pixels of its film")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("small.png", "row 1: bad mask: small.png has 12 by 19 pixels, its film 12 by 20"),
        ("absent.png", "row 1: missing mask file: lung: "),
        ("lossy.jpg", "row 1: bad mask: .*a mask must be lossless, this is a JPEG"),
        (raising, "row 1: bad mask: run-length code ends at 999, past the 240 pixels of its film"),
        (lambda height, width: np.zeros((height, width)), "row 1: bad mask: expected a mask of shape .* in bool"),
    ],
)
def test_a_bad_mask_stops_or_is_left_out_by_name(tmp_path: Path, mask: Any, message: str) -> None:
    Image.fromarray(np.zeros((19, WIDTH), dtype=np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)).save(tmp_path / "lossy.jpg")
    bad = tmp_path / mask if isinstance(mask, str) else mask
    good = rectangle(0, 0, 6, 10)
    rows: list[Study | LeftOut] = [study(0, masks={"lung": good}), study(1, masks={"lung": bad})]
    rows.append(study(2, masks={"lung": rectangle(6, 10, 12, 20)}))
    with pytest.raises(UserError, match=message):
        run(rows, tmp_path / "out")
    corpus = run(rows, tmp_path / "out", skip_bad_rows=True)
    assert corpus.to_pandas()["study_id"].tolist() == ["s0", "s2"]
    masks = corpus.masks([0, 1], "lung")  # the masks have moved with their films
    np.testing.assert_array_equal(masks[0], block(SIZE, SIZE, 2, 0, 5, 5))
    np.testing.assert_array_equal(masks[1], block(SIZE, SIZE, 5, 5, 8, 10))


def test_mask_files_of_many_modes(tmp_path: Path) -> None:
    """Whatever the file says that is not black and not transparent is the mask."""
    truth = block(HEIGHT, WIDTH, 3, 2, 9, 11)
    grey = Image.fromarray(truth.astype(np.uint8) * 255)
    palette = Image.fromarray(truth.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 10, 10])
    alpha = Image.merge("RGBA", [grey.point(lambda _: 255)] * 3 + [grey])
    files = {
        "one.png": Image.fromarray(truth),
        "ones.png": Image.fromarray(truth.astype(np.uint8)),
        "grey.png": grey,
        "deep.png": Image.fromarray(truth.astype(np.uint16) * 40000),
        "colour.png": Image.merge("RGB", [grey, grey.point(lambda _: 0), grey]),
        "palette.png": palette,
        "alpha.png": alpha,
        "plain.bmp": grey,
    }
    rows: list[Study | LeftOut] = []
    for number, (name, picture) in enumerate(files.items()):
        picture.save(tmp_path / name)
        rows.append(study(number, masks={"lung": tmp_path / name}))
    corpus = run(rows, tmp_path / "out", size=HEIGHT)
    pad = (HEIGHT - WIDTH) // 2
    for name, mask in zip(files, corpus.masks(range(len(rows)), "lung"), strict=True):
        np.testing.assert_array_equal(mask[:, pad : pad + WIDTH], truth, err_msg=name)


def test_where_annotators_looked(tmp_path: Path) -> None:
    rows: list[Study | LeftOut] = [
        study(0, boxes=(Box("nodule", 0, 0, 4, 4),)),
        study(1, annotated=("nodule", "mass")),
        study(2),
        study(3, boxes=(Box("mass", 0, 0, 4, 4), Box("mass", 4, 4, 8, 8)), annotated=("nodule",)),
    ]
    corpus = run(rows, tmp_path / "out")
    assert corpus.box_names == ["mass", "nodule"]
    assert corpus.rows_with_boxes(["nodule"]).tolist() == [0, 1, 3]
    assert corpus.rows_with_boxes(["mass", "nodule"]).tolist() == [1, 3]
    with pytest.raises(UserError, match="corpus toy has no boxes 'nodules'; did you mean 'nodule'"):
        corpus.rows_with_boxes(["nodules"])


def test_stated_sizes_are_printed_beside_what_was_found(tmp_path: Path) -> None:
    stated = (
        Stated(2, "studies", "The paper"),
        Stated(5, "patients", "The publisher", "version 1 had more"),
        Stated(1, "effusion", "Table 2"),
    )
    rows: list[Study | LeftOut] = [study(0, labels={"effusion": 1}), study(1, labels={"effusion": 1})]
    rows.append(LeftOut("row 2", "lateral view", bad=False))
    lines: list[str] = []
    run_with = Toy(rows, stated, {"effusion": 1.0}, {"effusion": 0.0})
    corpus = prepare(run_with, tmp_path / "out", size=SIZE, workers=0, log=lines.append)
    assert [line for line in lines if " states" in line] == [
        "toy: 2 studies, as The paper states",
        "toy: 2 patients; The publisher states 5: 3 fewer; left out: 1 lateral view; version 1 had more",
        "toy: 2 effusion; Table 2 states 1: 1 more; left out: 1 lateral view",
    ]
    assert (corpus.uncertain_as, corpus.unknown_as) == ({"effusion": 1.0}, {"effusion": 0.0})
