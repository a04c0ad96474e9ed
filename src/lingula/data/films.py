"""The films of a preparation: decoded by several processes, ticked off one by one, resumable after a kill. Floor 2."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import pickle
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

from lingula.data.image import Geometry, letterbox, read_square
from lingula.registry import UserError

CHUNK = 16  # films a worker takes at a time
SMALL = 256  # films; below this, starting processes takes longer than it saves
RECORD = struct.Struct("<IIII")  # progress of one film: state, checksum of its square, height, width
RECORD_TYPE = np.dtype([("state", "<u4"), ("checksum", "<u4"), ("height", "<u4"), ("width", "<u4")])
DONE = 1

Log = Callable[[str], None]
Film = Path | Callable[[], np.ndarray]


@dataclass
class Films:
    """The films of an unfinished preparation: their squares, and one record for each that says whether it is done.

    A record is written after its square and carries its checksum, so that a square which a power cut lost is seen and
    drawn again.
    """

    out: Path
    count: int
    size: int

    @property
    def folder(self) -> Path:
        return self.out / "unfinished"

    @property
    def squares(self) -> Path:
        return self.folder / "pixels.npy"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.bin"

    @classmethod
    def open_or_make(cls, out: Path, settings: dict[str, Any], ids: list[str], size: int, log: Log) -> Films:
        """Go on with the unfinished preparation in ``out``, or start one."""
        work = cls(out, len(ids), size)
        plan = {"settings": settings, "ids": hashlib.sha256(canonical_json(ids).encode()).hexdigest()}
        plan_file = work.folder / "plan.json"
        if plan_file.is_file():
            old = json.loads(plan_file.read_text(encoding="utf-8"))
            check_same(old["settings"], settings, f"{out} holds an unfinished preparation of another corpus")
            if old["ids"] == plan["ids"]:
                if not work.squares.exists():  # stopped between moving the squares and saying so
                    (out / "pixels.npy").replace(work.squares)
                log(f"going on with the preparation in {out}: {len(work.done())} of {work.count} films are there")
                return work
            log(f"the rows have changed since the preparation in {out} was interrupted; starting it again")
        ours = ("index.parquet", "boxes.parquet", "pixels.npy", "left_out.csv")
        found = [name for name in ours if (out / name).exists() and not work.folder.exists()]
        if found:
            raise UserError(f"{out} holds {found[0]} but no corpus.json; name another folder or delete that file")
        try:
            shutil.rmtree(work.folder, ignore_errors=True)
            work.folder.mkdir(parents=True)
        except OSError as err:
            raise UserError(f"cannot write to {out}: {err.strerror}") from err
        need = len(ids) * size * size
        free = shutil.disk_usage(out).free
        if need > free:
            raise UserError(
                f"{out} has {free / 1e9:.1f} GB free, {len(ids)} films of {size} px take {need / 1e9:.1f} GB"
            )
        pixels = np.lib.format.open_memmap(work.squares, mode="w+", dtype=np.uint8, shape=(work.count, size, size))
        del pixels
        work.progress.write_bytes(bytes(RECORD.size * work.count))
        write_text(plan_file, canonical_json(plan))
        return work

    def _records(self) -> np.ndarray:
        return np.fromfile(self.progress, dtype=RECORD_TYPE)

    def done(self) -> np.ndarray:
        """Positions of the films that are there, their checksums verified."""
        records = self._records()
        pixels = np.load(self.squares, mmap_mode="r")
        there = [
            position
            for position in np.flatnonzero(records["state"] == DONE)
            if zlib.crc32(pixels[position]) == records["checksum"][position]
        ]
        return np.array(there, dtype=np.int64)

    def geometries(self) -> list[Geometry]:
        records = self._records()
        sides = zip(records["height"].tolist(), records["width"].tolist(), strict=True)
        return [Geometry.of(max(height, 1), max(width, 1), self.size) for height, width in sides]

    def decode(self, films: list[Film], workers: int | None, title: str) -> dict[int, str]:
        """Draw every film that is not there yet. Returns why not, by position, for those that cannot be read."""
        left = np.setdiff1d(np.arange(self.count), self.done()).tolist()
        problems: dict[int, str] = {}
        tasks = (
            (self.squares, self.progress, self.size, [(position, films[position]) for position in left[i : i + CHUNK]])
            for i in range(0, len(left), CHUNK)
        )
        workers = _worker_count(workers, [films[position] for position in left])
        with _progress(title, len(films), len(films) - len(left)) as advance:
            results = map(_draw_chunk, tasks) if not workers else _in_pool(tasks, workers)
            for drawn, chunk_problems in results:
                problems |= chunk_problems
                advance(drawn)
        return problems

    def finish(self, keep: list[int]) -> None:
        """Move the squares to their place; without those of the films that were left out, if any."""
        target = self.out / "pixels.npy"
        if len(keep) == self.count:
            self.squares.replace(target)
            return
        packed = self.folder / "packed.npy"
        pixels = np.load(self.squares, mmap_mode="r")
        with packed.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(keep), self.size, self.size)}
            np.lib.format.write_array_header_1_0(file, header)
            for position in keep:
                file.write(pixels[position].tobytes())
        packed.replace(target)


Task = tuple[Path, Path, int, list[tuple[int, Film]]]


def _draw_chunk(task: Task) -> tuple[int, dict[int, str]]:
    """Draw some films, each straight into the file of squares, and tick each off. Runs in a worker."""
    squares, progress, size, films = task
    problems: dict[int, str] = {}
    offset = np.load(squares, mmap_mode="r").offset
    with squares.open("r+b", buffering=0) as pixels, progress.open("r+b", buffering=0) as records:
        for position, image in films:
            try:
                square, geometry = _draw(image, size)
            except UserError as err:
                problems[position] = f"unreadable image: {err}"
                continue
            data = square.tobytes()
            pixels.seek(offset + position * len(data))
            pixels.write(data)
            records.seek(position * RECORD.size)
            records.write(RECORD.pack(DONE, zlib.crc32(data), geometry.height, geometry.width))
    return len(films), problems


def _draw(image: Film, size: int) -> tuple[np.ndarray, Geometry]:
    if isinstance(image, Path):
        return read_square(image, size)
    film = image()
    try:
        return letterbox(film, size)
    except (AttributeError, ValueError) as err:
        raise UserError(str(err)) from err


def _worker_count(workers: int | None, films: list[Film]) -> int:
    """Processes to start; 0 draws in this one."""
    drawn = next((film for film in films if not isinstance(film, Path)), None)
    try:
        pickle.dumps(drawn)
    except (pickle.PicklingError, AttributeError, TypeError) as err:
        if workers:
            raise UserError(
                f"the function that draws a film cannot be sent to a process ({err}); use --workers 0"
            ) from err
        return 0
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cores if cores > 1 and len(films) >= SMALL else 0
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


@contextlib.contextmanager
def _progress(title: str, total: int, done: int) -> Iterator[Callable[[int], object]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{title}: films", total=total, completed=done)
        yield lambda count: progress.advance(task, count)


def canonical_json(value: Any) -> str:
    """One text for equal values, to be hashed."""
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def check_same(old: dict[str, Any], new: dict[str, Any], what: str) -> None:
    """Refuse settings other than those of a folder's preparation, naming the differences."""
    differences = [
        f"{key} was {old.get(key)!r}, now {new[key]!r}" for key in new if key != "source" and old.get(key) != new[key]
    ]
    if old.get("source") != new["source"]:
        differences.append("the source's table or the reader's arguments differ")
    if differences:
        raise UserError(
            f"{what}: {'; '.join(differences)}; name another folder, or delete this one to prepare it again"
        )
