"""The films of a preparation, with their masks: decoded by several processes, ticked off one by one, resumable after a
kill. Floor 2."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lingula.data.image import Geometry, letterbox, letterbox_mask, read_mask, read_square
from lingula.data.layout import TABLES
from lingula.data.prepared import packed_bytes
from lingula.data.reader import canonical_json
from lingula.data.study import Mask
from lingula.registry import UserError
from lingula.terminal.progress import progress

CHUNK = 16  # films a worker takes at a time
SMALL = 256  # films; below this, starting processes takes longer than it saves
RECORD = struct.Struct("<IIII")  # progress of one film: state, checksum of its square, height, width
RECORD_TYPE = np.dtype([("state", "<u4"), ("checksum", "<u4"), ("height", "<u4"), ("width", "<u4")])
DONE = 1

Log = Callable[[str], None]
Draws = Callable[[], np.ndarray]


@dataclass(frozen=True, slots=True)
class Film:
    """One film to decode, and its masks."""

    image: Path | Draws
    masks: tuple[Mask, ...] = ()


@dataclass
class Films:
    """The films of an unfinished preparation: their squares and masks, and one record for each that says whether it is
    done.

    A record is written after its square and masks and carries their checksum, so that a square which a power cut lost
    is seen and drawn again.

    Attributes:
        out: folder of the preparation.
        first_mask: ``(count + 1,)`` int64; the masks of film i are ``first_mask[i]`` to ``first_mask[i + 1] - 1``.
        size: side of a square, pixels.
    """

    out: Path
    first_mask: np.ndarray
    size: int

    @property
    def count(self) -> int:
        return len(self.first_mask) - 1

    @property
    def folder(self) -> Path:
        return self.out / "unfinished"

    @property
    def squares(self) -> Path:
        return self.folder / "pixels.npy"

    @property
    def masks(self) -> Path:
        return self.folder / "masks.npy"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.bin"

    @classmethod
    def open_or_make(
        cls, out: Path, settings: dict[str, Any], rows: str, mask_counts: np.ndarray, size: int, log: Log
    ) -> Films:
        """Go on with the unfinished preparation in ``out``, or start one.

        Args:
            out: folder of the preparation.
            settings: with which it is made.
            rows: equal where the studies and their masks are the same, in the same order.
            mask_counts: ``(count,)`` how many masks each film has.
            size: side of a square, pixels.
            log: takes one line of text.
        """
        work = cls(out, np.concatenate([[0], np.cumsum(mask_counts, dtype=np.int64)]), size)
        plan = {"settings": settings, "ids": rows}
        plan_file = work.folder / "plan.json"
        if plan_file.is_file():
            old = json.loads(plan_file.read_text(encoding="utf-8"))
            check_same(old["settings"], settings, f"{out} holds an unfinished preparation of another corpus")
            if old["ids"] == plan["ids"]:
                for file in (work.squares, work.masks):
                    if not file.exists():  # stopped between moving it and saying so
                        (out / file.name).replace(file)
                log(f"going on with the preparation in {out}: {len(work.done())} of {work.count} films are there")
                return work
            log(f"the rows have changed since the preparation in {out} was interrupted; starting it again")
        ours = [f"{name}.arrow" for name in TABLES] + ["index.parquet", "pixels.npy", "masks.npy", "left_out.csv"]
        found = [name for name in ours if (out / name).exists() and not work.folder.exists()]
        if found:
            raise UserError(f"{out} holds {found[0]} but no corpus.json; name another folder or delete that file")
        with writing(out):
            plan_file.unlink(missing_ok=True)  # first: a plan says that all else is there
            shutil.rmtree(work.folder, ignore_errors=True)
            work.folder.mkdir(parents=True)
        need = work.count * size * size + int(work.first_mask[-1]) * packed_bytes(size)
        free = shutil.disk_usage(out).free
        if need > free:
            raise UserError(
                f"{out} has {free / 1e9:.1f} GB free, {work.count} films of {size} px take {need / 1e9:.1f} GB"
            )
        with writing(out):
            _make_array(work.squares, (work.count, size, size))
            _make_array(work.masks, (int(work.first_mask[-1]), packed_bytes(size)))
            work.progress.write_bytes(bytes(RECORD.size * work.count))
            write_text(plan_file, canonical_json(plan))
        return work

    def _records(self) -> np.ndarray:
        return np.memmap(self.progress, dtype=RECORD_TYPE, mode="r")

    def done(self) -> np.ndarray:
        """Positions of the films that are there, their checksums verified."""
        records = self._records()
        pixels = np.load(self.squares, mmap_mode="r")
        masks = np.load(self.masks, mmap_mode="r" if self.first_mask[-1] else None)

        def checksum(position: int) -> int:
            own = masks[self.first_mask[position] : self.first_mask[position + 1]]
            return zlib.crc32(own.tobytes(), zlib.crc32(pixels[position]))

        there = np.flatnonzero(records["state"] == DONE)
        sound = (checksum(position) == records["checksum"][position] for position in there.tolist())
        return there[np.fromiter(sound, dtype=bool, count=len(there))]

    def geometry_of(self, places: np.ndarray) -> Callable[[int], Geometry]:
        """A function from a row to the geometry of the film at ``places[row]``."""
        records = self._records()

        def geometry(row: int) -> Geometry:
            record = records[places[row]]
            return Geometry.of(max(int(record["height"]), 1), max(int(record["width"]), 1), self.size)

        return geometry

    def decode(
        self,
        films: Callable[[np.ndarray], Iterator[Film]],
        workers: int | None,
        unpicklable: str,
        title: str,
    ) -> dict[int, str]:
        """Draw every film that is not there yet. Returns why not, by position, for those that cannot be read.

        Args:
            films: the films at some ascending positions.
            workers: processes; all cores if None, none besides this one if 0.
            unpicklable: why some film cannot be sent to a process; empty where all can.
            title: for the bar.
        """
        to_do = np.ones(self.count, dtype=bool)
        to_do[self.done()] = False
        left = np.flatnonzero(to_do)
        problems: dict[int, str] = {}
        alone = dataclasses.replace(self, first_mask=self.first_mask[:1])  # not for every chunk
        numbered = zip(left.tolist(), self.first_mask[left].tolist(), films(left), strict=True)
        tasks = iter(lambda: (alone, list(itertools.islice(numbered, CHUNK))), (alone, []))
        workers = _worker_count(workers, len(left), unpicklable)
        with progress(f"{title}: reading images", self.count, "image", self.count - len(left)) as bar:
            results = map(_draw_chunk, tasks) if not workers else _in_pool(tasks, workers)
            for drawn, chunk_problems in results:
                problems |= chunk_problems
                bar.advance(drawn)
        return problems

    def finish(self, keep: np.ndarray) -> None:
        """Move the squares and masks to their place; without those of the films that were left out, if any."""
        kept = np.zeros(self.count, dtype=bool)
        kept[keep] = True
        masks = np.flatnonzero(np.repeat(kept, np.diff(self.first_mask)))
        with writing(self.out):
            for source, places in ((self.squares, keep), (self.masks, masks)):
                _move(source, self.out / source.name, places)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """A full disk, or a folder that may not be written to, as an error that the user can mend."""
    try:
        yield
    except OSError as err:
        raise UserError(f"cannot write to {out}: {err.strerror or err}") from err


def _make_array(path: Path, shape: tuple[int, ...]) -> None:
    """A ``.npy`` of zeros that takes no memory, and no disk until it is written."""
    if 0 in shape:
        np.save(path, np.zeros(shape, dtype=np.uint8))
    else:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _move(source: Path, target: Path, places: np.ndarray) -> None:
    """Move a ``.npy`` array, of which only these rows are kept."""
    array = np.load(source, mmap_mode="r" if source.stat().st_size > 128 else None)
    if len(places) == len(array):
        del array
        source.replace(target)
        return
    kept = source.with_name("kept.npy")
    with kept.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(places), *array.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for place in places:
            file.write(array[place].tobytes())
    kept.replace(target)


Task = tuple[Films, list[tuple[int, int, Film]]]  # position, place of its first mask


def _draw_chunk(task: Task) -> tuple[int, dict[int, str]]:
    """Draw some films, each straight into the file of squares, and tick each off. Runs in a worker."""
    work, films = task
    problems: dict[int, str] = {}
    with (
        work.squares.open("r+b", buffering=0) as pixels,
        work.masks.open("r+b", buffering=0) as masks,
        work.progress.open("r+b", buffering=0) as records,
    ):
        pixels_start, masks_start = _data_start(pixels), _data_start(masks)
        for position, first_mask, film in films:
            try:
                square, geometry = _draw(film.image, work.size)
            except UserError as err:
                problems[position] = f"unreadable image: {err}"
                continue
            try:
                drawn = b"".join(_draw_mask(mask, geometry, work.size) for mask in film.masks)
            except UserError as err:
                problems[position] = f"bad mask: {err}"
                continue
            data = square.tobytes()
            _write_at(pixels, pixels_start + position * len(data), data)
            _write_at(masks, masks_start + first_mask * packed_bytes(work.size), drawn)
            checksum = zlib.crc32(drawn, zlib.crc32(data))
            record = RECORD.pack(DONE, checksum, geometry.height, geometry.width)
            _write_at(records, position * RECORD.size, record)
    return len(films), problems


def _write_at(file: Any, place: int, data: bytes) -> None:
    """Write to an unbuffered file, all of it: the system itself writes a part, without an error, as a disk fills."""
    with writing(Path(file.name).parent):
        file.seek(place)
        if file.write(data) != len(data):
            raise OSError("the disk is full")


def _data_start(file: Any) -> int:
    """Bytes of a ``.npy`` file's header."""
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    start: int = file.tell()
    return start


def _draw(image: Path | Draws, size: int) -> tuple[np.ndarray, Geometry]:
    if isinstance(image, Path):
        return read_square(image, size)
    film = image()
    try:
        return letterbox(film, size)
    except (AttributeError, ValueError) as err:
        raise UserError(str(err)) from err


def _draw_mask(mask: Mask, geometry: Geometry, size: int) -> bytes:
    """One mask in the geometry of its film's square, eight pixels a byte."""
    shape = (geometry.height, geometry.width)
    if isinstance(mask, Path):
        full = read_mask(mask)
        if full.shape != shape:
            raise UserError(
                f"{mask.name} has {full.shape[1]} by {full.shape[0]} pixels, its film {shape[1]} by {shape[0]}"
            )
    else:
        try:
            full = mask(*shape)
        except ValueError as err:
            raise UserError(str(err)) from err
        if full.shape != shape or full.dtype != bool:
            raise UserError(f"expected a mask of shape {shape} in bool, got {full.shape} in {full.dtype}")
    return np.packbits(letterbox_mask(full, size)).tobytes()


def _worker_count(workers: int | None, count: int, unpicklable: str) -> int:
    """Processes to start for so many films; 0 draws in this one."""
    if unpicklable:
        if workers:
            raise UserError(
                f"the function that draws a film or a mask cannot be sent to a process ({unpicklable}); use --workers 0"
            )
        return 0
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cores if cores > 1 and count >= SMALL else 0
    if workers < 0:
        raise UserError(f"workers must be 0 or more, got {workers}")
    return workers


def _in_pool(tasks: Iterator[Task], workers: int) -> Iterator[tuple[int, dict[int, str]]]:
    """Chunks drawn by processes; few in flight, so that memory stays flat however long the corpus."""
    context = multiprocessing.get_context("spawn")  # fork copies locks that other threads hold
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        running: set[Future[tuple[int, dict[int, str]]]] = set()
        exhausted = False
        while running or not exhausted:
            while not exhausted and len(running) < 3 * workers:
                task = next(tasks, None)
                exhausted = task is None
                if task is not None:
                    running.add(pool.submit(_draw_chunk, task))
            finished, running = wait(running, return_when=FIRST_COMPLETED) if running else (set(), set())
            for future in finished:
                yield future.result()
    except BrokenProcessPool as err:
        raise UserError(
            "a process that decodes films died; it may have run out of memory (try --workers 0), and a script that "
            'calls prepare must do so under `if __name__ == "__main__":`'
        ) from err
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """A worker leaves interrupts to its parent, and leaves when the parent is gone, even killed."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()

    def leave() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def check_same(old: dict[str, Any], new: dict[str, Any], what: str) -> None:
    """Refuse settings other than those of a folder's preparation, naming the differences."""
    differences = [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in {**new, **old}
        if key != "source" and old.get(key) != new.get(key)
    ]
    if old.get("source") != new["source"]:
        differences.append("the source's table or the reader's arguments differ")
    if differences:
        raise UserError(
            f"{what}: {'; '.join(differences)}; name another folder, or delete this one to prepare it again"
        )
