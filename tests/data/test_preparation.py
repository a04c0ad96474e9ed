"""Preparation: what lands on disk, what is refused, and that a kill costs nothing."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lingula.data import films, preparation
from lingula.data.image import Geometry, letterbox, letterbox_mask
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.reader import fingerprint_of
from lingula.data.splits import draw_splits
from lingula.data.spool import patient_number
from lingula.data.study import SPLITS, Box, LeftOut, Sentence, Study
from lingula.registry import UserError


def film(seed: int, height: int = 40, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@dataclass
class Toy:
    """A corpus of given rows."""

    rows: list[Study | LeftOut]
    version: str = "1"
    label_groups: dict[str, list[str]] = field(default_factory=dict)
    name = "toy"
    licence = "CC0"

    def studies(self) -> Iterator[Study | LeftOut]:
        yield from self.rows

    def fingerprint(self) -> str:
        return self.version


def study(number: int, **fields: Any) -> Study:
    ours: dict[str, Any] = {
        "study_id": f"s{number}",
        "patient_id": f"p{number // 2}",
        "image": partial(film, number),
        "split": ("train", "train", "val", "test")[number // 2 % 4],
        "row": f"row {number + 2} of toy.csv",
    }
    return Study(**{**ours, **fields})


def toy(count: int = 8, **fields: Any) -> Toy:
    return Toy([study(number, **fields) for number in range(count)])


def quiet(_: str) -> None:
    pass


def run(corpus: Any, out: Path, **options: Any) -> PreparedCorpus:
    return prepare(corpus, out, **{"size": 16, "workers": 0, "log": quiet, **options})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What lands on disk ---------------------------------------------------------------------------------------------------


def test_every_column_says_what_the_study_said(tmp_path: Path) -> None:
    Image.fromarray(film(5, 60, 20)).save(tmp_path / "a.png")
    rows = [
        study(
            0,
            image=tmp_path / "a.png",
            view="PA",
            sentences=(
                Sentence("small nodule.", "nodule", "nodule", (2, 30, 12, 60)),
                Sentence("no effusion."),
            ),
            labels={"nodule": 1, "effusion": 0},
            boxes=(Box("nodule", 2, 30, 12, 60), Box("heart", 0, 0, 20.4, 60)),
            content="nodule",
        ),
        study(2, labels={"nodule": -1, "mass": float("nan")}),
    ]
    corpus = run(Toy(rows, label_groups={"class": ["nodule", "normal"]}), tmp_path / "out")
    row = corpus.to_pandas().iloc[0].to_dict()
    assert {name: row[name] for name in ("study_id", "patient_id", "split", "projection", "content", "row")} == {
        "study_id": "s0",
        "patient_id": "p0",
        "split": "train",
        "projection": "PA",
        "content": "nodule",
        "row": "row 2 of toy.csv",
    }
    assert row["image"] == str(tmp_path / "a.png")
    assert Geometry(row["scale"], row["pad_x"], row["pad_y"], row["height"], row["width"]) == Geometry.of(60, 20, 16)
    assert list(row["sentences"]) == ["small nodule.", "no effusion."]
    assert list(row["meanings"]) == ["nodule", None]
    assert list(row["findings"]) == ["nodule", None]
    scale, pad_x = 16 / 60, 5
    np.testing.assert_allclose(row["sentence_boxes"][0], [2 * scale + pad_x, 8, 12 * scale + pad_x, 16])
    assert row["sentence_boxes"][1] is None
    assert corpus.to_pandas().iloc[1]["content"] is None
    assert corpus.to_pandas().iloc[1]["image"] == ""
    assert corpus.boxes()["row"].tolist() == [0, 0]
    assert corpus.boxes()["name"].tolist() == ["nodule", "heart"]
    # the heart's box overshoots its film by less than a pixel, and is clipped to it
    np.testing.assert_allclose(corpus.boxes()[["x0", "y0", "x1", "y1"]].iloc[1], [pad_x, 0, 20 * scale + pad_x, 16])
    assert corpus.label_names == ["nodule", "effusion", "mass", "normal"]
    assert corpus.label_groups == {"class": ["nodule", "normal"]}
    labels = corpus.labels(["effusion", "nodule", "normal"])
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, [[0, 1, np.nan], [np.nan, -1, np.nan]])
    assert corpus.to_pandas()["label:mass"].dtype == np.float32
    assert list(corpus.reports) == [["small nodule.", "no effusion."], []]
    assert len(corpus) == 2
    with pytest.raises(UserError, match="no label 'nodul'; did you mean 'nodule'"):
        corpus.labels(["nodul"])


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_are_the_letterboxed_films_in_the_order_of_the_index(tmp_path: Path, workers: int) -> None:
    corpus = run(toy(40), tmp_path / "out", workers=workers)
    assert corpus.to_pandas()["study_id"].tolist() == [f"s{number}" for number in range(40)]
    assert isinstance(corpus.pixels, np.memmap)
    assert not corpus.pixels.flags.writeable
    for number in range(40):
        np.testing.assert_array_equal(corpus.pixels[number], letterbox(film(number), 16)[0])
    assert sorted(path.name for path in corpus.folder.iterdir()) == [
        "boxes.arrow",
        "corpus.json",
        "images.arrow",
        "left_out.csv",
        "masks.arrow",
        "masks.npy",
        "pixels.npy",
        "studies.arrow",
    ]


def test_corpus_json(tmp_path: Path) -> None:
    rows = [*toy().rows, LeftOut("row 10", "other view: LL", bad=False), LeftOut("row 11", "other view: RL", bad=False)]
    lines: list[str] = []
    corpus = run(Toy(rows), tmp_path / "out", log=lines.append)
    meta = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert meta == corpus.meta
    assert (meta["format"], meta["name"], meta["licence"], meta["size"]) == (3, "toy", "CC0", 16)
    assert meta["studies"] == {"train": 4, "val": 2, "test": 2}
    assert meta["patients"] == {"train": 2, "val": 1, "test": 1}
    assert meta["left_out"] == {"other view": 2}
    assert lines[0] == "toy: left out 2 rows: other view (first: row 10: LL)"
    left_out = pd.read_csv(tmp_path / "out" / "left_out.csv")
    assert left_out.to_dict("records")[1] == {"row": "row 11", "reason": "other view: RL"}
    other = run(Toy(toy().rows, version="2"), tmp_path / "other")
    assert other.fingerprint != corpus.fingerprint
    assert other.meta["index_sha256"] == corpus.meta["index_sha256"]
    changed = run(Toy([*toy(7).rows, study(7, view="AP")]), tmp_path / "changed")
    assert changed.meta["index_sha256"] != corpus.meta["index_sha256"]


def test_rows_of_a_split(tmp_path: Path) -> None:
    corpus = run(toy(), tmp_path / "out")
    assert [corpus.rows(split).tolist() for split in ("train", "val", "test")] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    with pytest.raises(UserError, match="unknown split 'dev'"):
        corpus.rows("dev")


def test_a_corpus_pickles_as_its_path(tmp_path: Path) -> None:
    corpus = run(toy(), tmp_path / "out")
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).pixels, corpus.pixels)


# Preparing again ------------------------------------------------------------------------------------------------------


def test_preparing_twice_does_nothing(tmp_path: Path) -> None:
    run(toy(), tmp_path / "out")
    before = content(tmp_path / "out")

    def fail() -> np.ndarray:
        raise AssertionError("a film was drawn again")

    lines: list[str] = []
    again = run(toy(image=fail), tmp_path / "out", log=lines.append)
    assert len(again) == 8
    assert lines == [f"toy: already prepared in {tmp_path / 'out'}, 8 studies; nothing to do"]
    assert content(tmp_path / "out") == before


def test_another_preparation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(toy(), tmp_path / "out")
    with pytest.raises(
        UserError, match=r"already holds another prepared corpus: size was 16, now 8; name another folder"
    ):
        run(toy(), tmp_path / "out", size=8)
    with pytest.raises(UserError, match="seed was 0, now 3"):
        run(toy(), tmp_path / "out", seed=3)
    with pytest.raises(UserError, match="the source's table or the reader's arguments differ"):
        run(Toy(toy().rows, version="2"), tmp_path / "out")


def test_a_folder_with_files_of_ours_but_no_corpus_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pixels.npy").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"holds pixels\.npy but no corpus\.json"):
        run(toy(), tmp_path)
    assert (tmp_path / "pixels.npy").read_bytes() == b"precious"


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="cannot write to"):
        run(toy(), tmp_path / "out")


def test_a_disk_too_small_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(UserError, match=r"films of 16 px"):
        run(toy(), tmp_path / "out")


# Interruptions --------------------------------------------------------------------------------------------------------


class Drawer:
    """Counts its films, and is interrupted at one of them."""

    def __init__(self, stop_at: int | None) -> None:
        self.stop_at = stop_at
        self.calls: Counter[int] = Counter()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a copy would count by itself")

    def __call__(self, number: int) -> np.ndarray:
        if number == self.stop_at:
            self.stop_at = None
            raise KeyboardInterrupt
        self.calls[number] += 1
        return film(number)


@pytest.mark.parametrize("stop_at", [0, 1, 17, 39])
def test_an_interrupted_preparation_goes_on(tmp_path: Path, stop_at: int) -> None:
    drawer = Drawer(stop_at)
    corpus = Toy([study(number, image=partial(drawer, number)) for number in range(40)])
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out")
    with pytest.raises(UserError, match="was not finished; run the same command again"):
        PreparedCorpus.open(tmp_path / "out")
    lines: list[str] = []
    run(corpus, tmp_path / "out", log=lines.append)
    assert lines[0].endswith(f"{stop_at} of 40 films are there")
    assert set(drawer.calls.values()) == {1}
    assert len(drawer.calls) == 40
    run(toy(40), tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("step", ["_image_columns", "write_left_out", "write_text"])
def test_an_interruption_while_finishing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, step, stop)
        with pytest.raises(KeyboardInterrupt):
            run(toy(), tmp_path / "out")
    drawer = Drawer(None)
    run(Toy([study(number, image=partial(drawer, number)) for number in range(8)]), tmp_path / "out")
    assert not drawer.calls
    run(toy(), tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_square_that_was_lost_is_drawn_again(tmp_path: Path) -> None:
    """A power cut may keep the record of a film and lose its square."""
    drawer = Drawer(30)
    corpus = Toy([study(number, image=partial(drawer, number)) for number in range(40)])
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out")
    squares = np.load(tmp_path / "out" / "unfinished" / "pixels.npy", mmap_mode="r+")
    squares[7] = 0
    squares.flush()
    run(corpus, tmp_path / "out")
    assert drawer.calls[7] == 2
    assert sum(drawer.calls.values()) == 41
    run(toy(40), tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def drawn_mask(number: int, height: int, width: int) -> np.ndarray:
    return film(100 + number, height, width) > 128


def masked(count: int, drawer: Drawer) -> Toy:
    """A film in three has two masks, one in three has one, and the fourth film cannot be drawn."""
    rows: list[Study | LeftOut] = [
        study(
            number,
            image=partial(drawer, number) if number != 3 else partial(np.zeros, (0, 0), np.uint8),
            masks={name: partial(drawn_mask, number + place) for place, name in enumerate(["a", "b"][: number % 3])},
        )
        for number in range(count)
    ]
    rows[3] = replace(rows[3], masks={"a": partial(drawn_mask, 3)})  # type: ignore[arg-type]
    return Toy(rows)


def test_masks_survive_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while drawing, then with a mask that a power cut lost, then between moving films and moving masks."""
    whole = run(masked(40, Drawer(None)), tmp_path / "whole", skip_bad_rows=True)
    out, drawer = tmp_path / "out", Drawer(30)
    corpus = masked(40, drawer)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, out, skip_bad_rows=True)
    lost = np.load(out / "unfinished" / "masks.npy", mmap_mode="r+")
    lost[2] = 0  # of film 2: films 1 and 2 have one and two
    lost.flush()
    move, moved = films._move, []

    def stop(source: Path, *where: Any) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(source.name)
        move(source, *where)

    with monkeypatch.context() as patch:
        patch.setattr(films, "_move", stop)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, out, skip_bad_rows=True)
    assert moved == ["pixels.npy"]
    run(corpus, out, skip_bad_rows=True)
    assert content(out) == content(tmp_path / "whole")
    assert {number for number, count in drawer.calls.items() if count > 1} == {2}
    for name in ("a", "b"):
        rows = whole.rows_with_mask(name)
        numbers = [int(whole.to_pandas().loc[row, "study_id"][1:]) for row in rows]
        assert numbers == [number for number in range(40) if number % 3 > "ab".index(name) and number != 3]
        for mask, number in zip(whole.masks(rows, name), numbers, strict=True):
            np.testing.assert_array_equal(mask, letterbox_mask(drawn_mask(number + "ab".index(name), 40, 30), 16))


def test_a_kill_while_starting_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that changed start a preparation again; one that is half cleared away must not be taken for whole."""
    drawer = Drawer(5)
    with pytest.raises(KeyboardInterrupt):
        run(Toy([study(number, image=partial(drawer, number)) for number in range(8)]), tmp_path / "out")

    def half(folder: Path, **_: Any) -> None:
        (folder / "pixels.npy").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            run(toy(9), tmp_path / "out")
    assert len(run(toy(8), tmp_path / "out")) == 8


def test_a_disk_that_fills_is_said(tmp_path: Path) -> None:
    """The system writes what still fits and reports no error, and only then refuses."""

    class Full:
        name = str(tmp_path / "out" / "pixels.npy")

        def __init__(self, left: int) -> None:
            self.left = left

        def seek(self, place: int) -> None: ...

        def write(self, data: bytes) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            return min(self.left, len(data))

    films._write_at(Full(4), 0, b"four")
    with pytest.raises(UserError, match=r"cannot write to .*out: the disk is full"):
        films._write_at(Full(3), 0, b"four")
    with pytest.raises(UserError, match=r"cannot write to .*out: No space left on device"):
        films._write_at(Full(0), 0, b"four")


def test_an_unfinished_preparation_of_another_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(toy(image=partial(Drawer(0), 0)), tmp_path / "out")
    with pytest.raises(UserError, match="holds an unfinished preparation of another corpus: size was 16, now 32"):
        run(toy(), tmp_path / "out", size=32)


KILLED = """
import os, sys, time
from functools import partial
from pathlib import Path
import numpy as np
from lingula.data.preparation import prepare
from lingula.data.study import Study

def film(number, calls):
    time.sleep(0.01)
    with open(calls, "a") as file:
        file.write(f"{number} {os.getpid()}\\n")
    return np.random.default_rng(number).integers(0, 256, (40, 30), dtype=np.uint8)

class Toy:
    name, licence = "toy", "CC0"
    def studies(self):
        for n in range(200):
            yield Study(f"s{n}", f"p{n}", partial(film, n, sys.argv[2]), split="train")
    def fingerprint(self):
        return "1"

if __name__ == "__main__":
    prepare(Toy(), Path(sys.argv[1]), size=16, workers=int(sys.argv[3]))
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b"" if Path("/proc").is_dir() else True
    except OSError:
        return False


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_preparation_goes_on(tmp_path: Path, workers: int) -> None:
    script, calls, out = tmp_path / "script.py", tmp_path / "calls", tmp_path / "out"
    script.write_text(KILLED)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, script, out, calls, str(workers)], stdout=subprocess.DEVNULL)

    process = start()
    deadline = time.monotonic() + 60
    while not calls.exists() or calls.read_text().count("\n") < 60:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pids = {int(line.split()[1]) for line in calls.read_text().splitlines()}
    assert len(pids) == max(workers, 1)
    while any(map(alive, pids)):  # its workers leave with it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    seen = calls.read_text().count("\n")
    assert 60 <= seen < 200
    records = np.fromfile(out / "unfinished" / "progress.bin", dtype=films.RECORD_TYPE)
    done = set(np.flatnonzero(records["state"] == films.DONE).tolist())
    assert seen - len(done) <= max(workers, 1)  # only those being drawn when the signal came
    assert start().wait() == 0
    counts = Counter(int(line.split()[0]) for line in calls.read_text().splitlines())
    assert set(counts) == set(range(200))
    assert all(counts[number] == 1 for number in done)
    run(Toy([Study(f"s{n}", f"p{n}", partial(film, n), split="train") for n in range(200)]), tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")


# Bad rows -------------------------------------------------------------------------------------------------------------


def never() -> np.ndarray:
    raise AssertionError("a film was drawn although rows were bad")


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "missing": (lambda folder: {"image": folder / "none.png"}, "missing image file: .*none.png"),
    "sentence": (lambda _: {"sentences": (Sentence(" "),)}, "empty sentence"),
    "box": (lambda _: {"boxes": (Box("a", 3, 4, 3, 9),)}, "empty box: a at 3, 4, 3, 9"),
    "nan box": (lambda _: {"boxes": (Box("a", float("nan"), 4, 3, 9),)}, "empty box: a at nan"),
    "label": (lambda _: {"labels": {"a": 2}}, "unknown label value: a is 2"),
    "split": (lambda _: {"split": "dev"}, "unknown split: 'dev'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_found_before_any_film_is_drawn(tmp_path: Path, kind: str) -> None:
    fields, reason = BAD[kind]
    rows = toy(image=never).rows
    rows[3] = study(3, **{"image": never, **fields(tmp_path)})
    rows += [LeftOut("row 10 of toy.csv", "empty report"), LeftOut("row 11 of toy.csv", "empty report")]
    said, _, detail = reason.partition(": ")
    match = rf"toy: 3 bad rows: 2 empty report \(first: row 10 of toy\.csv\), 1 {said} \(first: row 5 of toy\.csv"
    with pytest.raises(UserError, match=f"{match}{detail and ': '}{detail}") as error:
        run(Toy(rows), tmp_path / "out")
    assert str(error.value).endswith("; mend them, or leave them out with --skip_bad_rows")
    assert not (tmp_path / "out").exists()


def test_bad_rows_are_skipped_when_asked(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    rows = toy(12).rows
    rows[1] = study(1, image=tmp_path / "none.png")
    rows[5] = study(5, image=tmp_path / "broken.png")
    rows[8] = study(8, boxes=(Box("a", 0, 0, 32, 10),))  # 30 wide
    rows[9] = study(9, sentences=(Sentence("a box.", box=(0, -2, 9, 10)),))
    rows[10] = study(10, image=partial(np.zeros, (4, 4, 3), np.uint8))
    rows[11] = study(11, boxes=(Box("a", -0.9, 3, 0, 10),))
    rows.insert(0, LeftOut("row 1", "empty report"))
    lines: list[str] = []
    corpus = run(Toy(rows), tmp_path / "out", skip_bad_rows=True, log=lines.append)
    kept = [0, 2, 3, 4, 6, 7]
    assert corpus.to_pandas()["study_id"].tolist() == [f"s{number}" for number in kept]
    for position, number in enumerate(kept):
        np.testing.assert_array_equal(corpus.pixels[position], letterbox(film(number), 16)[0])
    assert corpus.meta["left_out"] == {
        "box outside its image": 3,
        "empty report": 1,
        "missing image file": 1,
        "unreadable image": 2,
    }
    first = "toy: left out 3 rows: box outside its image (first: row 10 of toy.csv: a at 0, 0, 32, 10 in a film of 30"
    second = f"toy: left out 2 rows: unreadable image (first: row 7 of toy.csv: cannot read image {tmp_path}/broken.png"
    said = [line for line in lines if "left out" in line]
    assert said[0] == "toy: left out 1 rows: empty report (first: row 1)"
    assert said[1] == f"toy: left out 1 rows: missing image file (first: row 3 of toy.csv: {tmp_path}/none.png)"
    assert said[2].startswith(first)
    assert said[3].startswith(second)
    assert len(said) == 5
    written = pd.read_csv(tmp_path / "out" / "left_out.csv")
    assert len(written) == 7
    assert "got (4, 4, 3)" in written["reason"].iloc[5]


def test_an_unreadable_film_stops_but_costs_nothing(tmp_path: Path) -> None:
    for name in ("broken.png", "other.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    drawer = Drawer(None)
    rows: list[Study | LeftOut] = [study(number, image=partial(drawer, number)) for number in range(8)]
    rows[2] = study(2, image=tmp_path / "broken.png")
    rows[6] = study(6, image=tmp_path / "other.png")
    with pytest.raises(UserError, match=r"2 bad rows: 2 unreadable image \(first: row 4 of toy\.csv: .*\); mend"):
        run(Toy(rows), tmp_path / "out")
    corpus = run(Toy(rows), tmp_path / "out", skip_bad_rows=True)
    assert len(corpus) == 6
    assert set(drawer.calls.values()) == {1}
    clean = Toy([row for row in rows if isinstance(row, Study) and row.study_id not in ("s2", "s6")])
    assert (run(clean, tmp_path / "clean").pixels == corpus.pixels).all()


def test_a_mended_film_lets_the_preparation_finish(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    rows = [*toy().rows, study(8, image=broken, split="train")]
    with pytest.raises(UserError, match="unreadable image"):
        run(Toy(rows), tmp_path / "out")
    Image.fromarray(film(8)).save(broken)
    assert len(run(Toy(rows), tmp_path / "out")) == 9


def twice(folder: Path) -> list[Study | LeftOut]:
    """Rows 2 to 9, then study s2 again and the image of s0 under another patient and under the same."""
    Image.fromarray(film(0)).save(folder / "a.png")
    rows = toy().rows
    rows[0] = study(0, image=folder / "a.png")
    again = study(2, row="row 10", view="again")
    other = study(8, row="row 11", image=folder / "a.png", patient_id="p9", split="train")
    return [*rows, again, other, study(9, row="row 12", image=folder / "a.png", patient_id="p0", split="train")]


def test_what_is_listed_twice_is_a_bad_row(tmp_path: Path) -> None:
    rows = twice(tmp_path)
    with pytest.raises(UserError) as error:
        run(Toy(rows), tmp_path / "out")
    assert str(error.value) == (
        f"toy: 2 bad rows: 1 image of two patients (first: row 11: {tmp_path}/a.png is also row 2 of toy.csv, of "
        "patient 'p0'), 1 study listed twice (first: row 10: 's2' is also row 4 of toy.csv); mend them, or leave them "
        "out with --skip_bad_rows, or keep one of each with --duplicates first or last"
    )
    # a row that is bad for another reason does not take the place of a sound one
    sound = run(Toy([study(3, image=tmp_path / "none.png"), *toy().rows]), tmp_path / "sound", skip_bad_rows=True)
    assert sound.to_pandas()["study_id"].tolist() == [f"s{n}" for n in range(8)]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"skip_bad_rows": True}, [0, 1, 2, 3, 4, 5, 6, 7, 9]),
        ({"duplicates": "first"}, [0, 1, 2, 3, 4, 5, 6, 7, 9]),
        ({"duplicates": "last"}, [0, 1, 3, 4, 5, 6, 7, 2, 9]),
    ],
)
def test_one_of_those_listed_twice_is_kept(tmp_path: Path, options: dict[str, Any], kept: list[int]) -> None:
    rows = twice(tmp_path)
    lines: list[str] = []
    corpus = run(Toy(rows), tmp_path / "out", log=lines.append, **options)
    assert corpus.to_pandas()["study_id"].tolist() == [f"s{number}" for number in kept]
    assert corpus.to_pandas()["projection"][kept.index(2)] == ("again" if options == {"duplicates": "last"} else "")
    assert lines[0] == (
        "toy: 1 rows show an image that another study of the same patient shows, such as row 2 of toy.csv and row 12: "
        f"{tmp_path}/a.png"
    )
    assert corpus.meta["left_out"] == {"image of two patients": 1, "study listed twice": 1}
    assert sum("left out 1 rows: study listed twice" in line for line in lines) == 1
    assert len(pd.read_csv(tmp_path / "out" / "left_out.csv")) == 2


def test_which_of_two_rows_is_kept_is_part_of_a_preparation(tmp_path: Path) -> None:
    first = run(Toy(twice(tmp_path)), tmp_path / "out", duplicates="first")
    assert run(Toy(twice(tmp_path)), tmp_path / "out", duplicates="first").fingerprint == first.fingerprint
    for other in ("last", "refuse"):
        with pytest.raises(UserError, match="already holds another prepared corpus: duplicates was 'first', now"):
            run(Toy(twice(tmp_path)), tmp_path / "out", duplicates=other)
    # the default is what preparations were before there was a choice
    assert "duplicates" not in run(toy(), tmp_path / "plain").meta["settings"]


def test_an_error_of_many_causes_is_one_bounded_line(tmp_path: Path) -> None:
    rows = [LeftOut(f"row {n}", f"cause {n % 9}: {'long ' * 500}\nend") for n in range(90)]
    with pytest.raises(UserError) as error:
        run(Toy([*toy().rows, *rows]), tmp_path / "out")
    assert len(str(error.value)) < 2500
    assert "90 bad rows: 10 cause 0 (first: row 0: long" in str(error.value)
    assert "3 more causes" in str(error.value)


def test_a_name_too_long_for_a_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 2 of toy\.csv: missing image file: .*xxx"):
        run(Toy([study(0, image=tmp_path / ("x" * 5000))]), tmp_path / "out")


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"toy: no studies$"):
        run(Toy([]), tmp_path / "out")
    rows = [LeftOut(f"row {n}", "other view: LL", bad=False) for n in range(5)]
    with pytest.raises(UserError, match="toy: no studies; left out: 5 other view"):
        run(Toy(rows), tmp_path / "out")


def test_a_corpus_may_be_for_measuring_only(tmp_path: Path) -> None:
    corpus = run(toy(4, split="test"), tmp_path / "out")
    assert [len(corpus.rows(split)) for split in ("train", "val", "test")] == [0, 0, 4]


# Splits ---------------------------------------------------------------------------------------------------------------


def test_a_patient_in_two_splits(tmp_path: Path) -> None:
    rows = toy().rows
    rows[5] = study(5, split="test")
    with pytest.raises(UserError, match=r"patient 'p2' is in two splits: val \(row 6 .*\) and test \(row 7 .*\)"):
        run(Toy(rows), tmp_path / "out")


def test_drawn_splits_follow_the_patient_alone(tmp_path: Path) -> None:
    rows = toy(60, split=None).rows
    first = run(Toy(rows), tmp_path / "a").to_pandas().set_index("study_id")["split"]
    other = run(Toy(rows[::-1]), tmp_path / "b").to_pandas().set_index("study_id")["split"]
    assert first.to_dict() == other.to_dict()
    assert first.nunique() == 3
    patients = run(Toy(rows), tmp_path / "c").to_pandas().groupby("patient_id")["split"].nunique()
    assert (patients == 1).all()
    assert run(Toy(rows), tmp_path / "d", seed=1).to_pandas()["split"].tolist() != first.tolist()


def drawn(patients: list[str], fractions: dict[str, float], seed: int) -> dict[str, str]:
    """The split of every patient, by name."""
    numbers = np.array([patient_number(patient, seed) for patient in patients], dtype=np.uint64)
    return {name: SPLITS[code] for name, code in zip(patients, draw_splits(numbers, fractions).tolist(), strict=True)}


def test_drawn_fractions_and_stability() -> None:
    patients = [f"p{number}" for number in range(20000)]
    chosen = drawn(patients, {"test": 0.2, "val": 0.05}, seed=0)
    sizes = Counter(chosen.values())
    assert sizes["test"] == pytest.approx(4000, abs=5 * (20000 * 0.2 * 0.8) ** 0.5)
    assert sizes["val"] == pytest.approx(1000, abs=5 * (20000 * 0.05 * 0.95) ** 0.5)
    half = drawn(patients[::2], {"test": 0.2, "val": 0.05}, seed=0)
    assert all(chosen[patient] == split for patient, split in half.items())
    other = drawn(patients, {"test": 0.2, "val": 0.05}, seed=1)
    assert other != chosen


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("seed", range(5))
def test_small_corpora_have_every_split_they_can(count: int, seed: int) -> None:
    patients = [f"p{number}" for number in range(count)]
    chosen = drawn(patients, {"test": 0.1, "val": 0.1}, seed)
    assert set(chosen) == set(patients)
    assert set(chosen.values()) == ({"train", "val", "test"} if count >= 3 else {"train"})
    assert drawn(patients[::-1], {"test": 0.1, "val": 0.1}, seed) == chosen
    assert set(drawn(patients, {"test": 0.0, "val": 0.0}, seed).values()) == {"train"}


def test_partly_given_splits(tmp_path: Path) -> None:
    """Studies follow their patient; the others never enlarge a split that the corpus gives."""
    rows = [study(n, split="test" if n < 4 else None) for n in range(80)]
    rows[1] = study(1, split=None)  # of patient p0, whose other study is test
    lines: list[str] = []
    index = run(Toy(list(rows)), tmp_path / "a", test_fraction=0.5, log=lines.append).to_pandas()
    assert index.loc[index["split"] == "test", "study_id"].tolist() == ["s0", "s1", "s2", "s3"]
    assert set(index["split"]) == {"train", "val", "test"}
    assert any("38 patients without a split were drawn into train, val" in line for line in lines)


def test_a_split_whose_films_are_missing_is_not_drawn(tmp_path: Path) -> None:
    """Otherwise films of the train list would be measured on as if they were the official test."""
    rows = [study(n, split="test" if n < 4 else None) for n in range(80)]
    rows[:4] = [study(n, split="test", image=tmp_path / "none.png") for n in range(4)]
    index = run(Toy(list(rows)), tmp_path / "a", test_fraction=0.5, skip_bad_rows=True).to_pandas()
    assert set(index["split"]) == {"train", "val"}


def test_fractions_that_leave_no_train(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must leave a share for train"):
        run(toy(), tmp_path / "out", val_fraction=0.5, test_fraction=0.5)


# Processes ------------------------------------------------------------------------------------------------------------


def test_a_function_that_no_process_can_take(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be sent to a process"):
        run(toy(image=lambda: film(0)), tmp_path / "out", workers=2)
    assert len(run(toy(image=lambda: film(0)), tmp_path / "out", workers=None)) == 8
    Image.fromarray(film(0)).save(tmp_path / "film.png")
    masks = {"lung": lambda height, width: np.zeros((height, width), dtype=bool)}
    with pytest.raises(UserError, match="cannot be sent to a process"):
        run(toy(image=tmp_path / "film.png", patient_id="p", split="test", masks=masks), tmp_path / "masks", workers=2)


def test_negative_workers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers must be 0 or more"):
        run(toy(), tmp_path / "out", workers=-1)


def dies() -> np.ndarray:
    os._exit(3)


def test_a_worker_that_dies_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a process that decodes films died"):
        run(toy(image=dies), tmp_path / "out", workers=1)


# Opening --------------------------------------------------------------------------------------------------------------


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        PreparedCorpus.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"it holds no corpus\.json"):
        PreparedCorpus.open(tmp_path)


def test_opening_another_format(tmp_path: Path) -> None:
    run(toy(), tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "corpus.json").read_text())
    (tmp_path / "out" / "corpus.json").write_text(json.dumps({**meta, "format": 99}))
    for call in (lambda: PreparedCorpus.open(tmp_path / "out"), lambda: run(toy(), tmp_path / "out")):
        with pytest.raises(UserError, match="was prepared by format 99, this lingula reads 3; run prepare again"):
            call()
    (tmp_path / "out" / "corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"corpus\.json is damaged"):
        PreparedCorpus.open(tmp_path / "out")


@pytest.mark.parametrize("name", ["pixels.npy", "studies.arrow", "images.arrow", "boxes.arrow"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_opening_truncated_files(tmp_path: Path, name: str, share: float) -> None:
    run(toy(), tmp_path / "out")
    file = tmp_path / "out" / name
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(UserError, match=r"is damaged .*; delete it and prepare again"):
        PreparedCorpus.open(tmp_path / "out")


def test_opening_pixels_of_another_corpus(tmp_path: Path) -> None:
    run(toy(), tmp_path / "out")
    np.save(tmp_path / "out" / "pixels.npy", np.zeros((7, 16, 16), np.uint8))
    with pytest.raises(UserError, match=r"expected pixels of shape \(8, 16, 16\), got \(7, 16, 16\)"):
        PreparedCorpus.open(tmp_path / "out")


# Fingerprints ---------------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    table: Path
    images: Path
    columns: list[str] = field(default_factory=list)


def test_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "a.csv"
    table.write_text("a,b\n")

    def of(reader: Reader) -> str:
        return fingerprint_of(reader, files=[reader.table])

    first = of(Reader(table, tmp_path))
    monkeypatch.chdir(tmp_path)
    assert of(Reader(Path("a.csv"), Path())) == first
    assert of(Reader(table, tmp_path, ["x"])) != first
    assert of(Reader(table, tmp_path / "other")) != first
    moved = tmp_path / "b.csv"
    moved.write_text("a,b\n")
    assert of(Reader(moved, tmp_path)) == first
    table.write_text("a,c\n")
    assert of(Reader(table, tmp_path)) != first


@pytest.mark.parametrize(
    ("patients", "splits", "options", "said"),
    [
        (1, None, {}, ["val and test are empty: there is one patient; add others (heads are chosen on val, evaluate "
                       "measures on test)"]),
        (2, None, {}, ["val and test are empty: 2 patients are too few for three splits; add others, or give "
                       "--val_fraction 0 (heads are chosen on val, evaluate measures on test)"]),
        (2, None, {"val_fraction": 0.0}, ["val is empty: --val_fraction is 0 (heads are chosen on val)"]),
        (3, None, {}, []),
        (4, ["train", "test"], {}, ["val is empty: the corpus has splits of its own, without a usable study there "
                                    "(heads are chosen on val)"]),
        (2, ["val", "test"], {}, ["train is empty: the corpus has splits of its own, without a usable study there "
                                  "(pretrain learns from train)"]),
    ],
)  # fmt: skip
def test_empty_splits_are_told_with_their_reason(tmp_path, patients, splits, options, said):
    rows = [
        study(n, patient_id=f"p{n}", split=None if splits is None else splits[n % len(splits)]) for n in range(patients)
    ]
    lines = []
    corpus = run(Toy(rows), tmp_path, log=lines.append, **options)
    assert [line for line in lines if " note: " in line] == [f"toy: note: {line}" for line in said]
    assert {split for split in ("train", "val", "test") if not len(corpus.rows(split))} == {
        split for split in ("train", "val", "test") for line in said if split in line.partition(" empty")[0].split()
    }
