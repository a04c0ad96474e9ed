"""C14: memory of an opened corpus and its tokens. C15: peak of preparing and tokenising. C16: opening 10 M rows.

Each is measured in a process of its own, without a past: `python benchmarks/ratios/index.py PART FOLDER N`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # beside this file lie modules that would hide others
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.ratios.measure import Figure

from lingula.data.layout import BATCH, FORMAT, LABEL, TABLES, TableWriter, schemas, split_column
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import Sentence, Study
from lingula.data.tokens import load_tokenizer, tokenise_corpus, train_tokenizer
from lingula.records import write_json

SIDE = 8  # pixels
WORDS = 1000
VOCABULARY = 2000
SENTENCES, LENGTH = 5, 10  # of a report, words of a sentence


class RandomReports:
    """Blank images with reports of random words, five sentences of ten, no sentence twice.

    Args:
        count: how many.
    """

    name, licence = "random", "none"

    def __init__(self, count: int) -> None:
        self.count = count

    def studies(self) -> Iterator[Study]:
        rng = np.random.default_rng(0)
        words = np.array(["".join(letters) for letters in rng.choice(list("abcdefghij"), (WORDS, 5))])
        for number in range(self.count):
            texts = [" ".join(row) for row in rng.choice(words, (SENTENCES, LENGTH))]
            report = tuple(Sentence(text) for text in texts)
            yield Study(f"s{number:08d}", f"p{number:08d}", _blank, "train", report, "PA", labels={"any": 0.0})

    def fingerprint(self) -> str:
        return f"{self.count}"


def _blank() -> np.ndarray:
    return np.zeros((SIDE, SIDE), np.uint8)


def private() -> int:
    """Bytes that are resident in this process and shared with no other, nor given back when memory is short.

    Pages of files that are mapped and were only read count as nobody's own, though Linux calls them private where one
    process has them mapped.
    """
    own = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            own = 1024 * int(line.split()[1])
    return own


def peak(call: Callable[[], Any], every: float = 0.01) -> int:
    """The most anonymous memory of this process while it runs, looked at a hundred times a second; bytes."""
    most, done = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(every):
            status = Path("/proc/self/status").read_text()
            most = max(most, 1024 * int(status.partition("RssAnon:")[2].split()[0]))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return most


def prepare_some(folder: Path, count: int) -> dict[str, float]:
    """C15, the first half."""
    start = time.perf_counter()
    most = peak(lambda: prepare(RandomReports(count), folder / "corpus", SIDE, 0, log=lambda _: None))
    return {"peak": most, "seconds": time.perf_counter() - start}


def tokenise_some(folder: Path, count: int) -> dict[str, float]:
    """C15, the second half: learning a vocabulary and tokenising."""
    corpus = PreparedCorpus.open(folder / "corpus")
    start = time.perf_counter()

    def both() -> None:
        tokenise_corpus(corpus, train_tokenizer(corpus.training_texts(), folder / "tokenizer", VOCABULARY))

    return {"peak": peak(both), "seconds": time.perf_counter() - start}


def hold(folder: Path, count: int) -> dict[str, float]:
    """C14: what a process has for itself of a corpus and its tokens, after looking at 4,096 rows of each."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    with tempfile.TemporaryDirectory() as scratch:  # what libraries keep of their first use is not of the corpus
        prepare(RandomReports(100), Path(scratch) / "corpus", SIDE, 0, log=lambda _: None)
        read(PreparedCorpus.open(Path(scratch) / "corpus"), tokenizer)
    before = private()
    held = read(PreparedCorpus.open(folder / "corpus"), tokenizer)
    after = private()
    assert len(held[0]) == count
    return {"private": (after - before) / count}


def read(corpus: PreparedCorpus, tokenizer: Any) -> tuple[Any, ...]:
    """Open, map the tokens, and look at rows all over the corpus, as a loader does."""
    tokens = tokenise_corpus(corpus, tokenizer)
    rows = np.random.default_rng(1).integers(0, len(corpus), 4096)
    sums = [int(tokens.ids[tokens.offsets[row]]) + int(corpus.pixels[row, 0, 0]) for row in rows.tolist()]
    return corpus, tokens, corpus.reports.of(rows[:64]), sum(sums), corpus.rows("train")


def write_rows(folder: Path, count: int) -> None:
    """A corpus of format 3 whose index has ``count`` rows and whose pixels are a hole in a file."""
    folder.mkdir(parents=True)
    for name, schema in schemas(["any"]).items():
        writer = TableWriter(folder, name, schema)
        for start in range(0, count if name in ("studies", "images") else 0, BATCH):
            writer.write(_rows(name, range(start, min(start + BATCH, count))))
        writer.finish()
    np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=(count, 1, 1)).flush()
    np.save(folder / "masks.npy", np.empty((0, 1), dtype=np.uint8))
    made = PreparedCorpus.open(_small(folder.with_name("small")))
    meta = {**made.meta, "format": FORMAT, "size": 1, "label_names": ["any"], "studies": {"train": count}}
    write_json(folder / "corpus.json", meta)


def _small(folder: Path) -> Path:
    prepare(RandomReports(10), folder, SIDE, 0, log=lambda _: None)
    return folder


def _rows(name: str, rows: range) -> dict[str, Any]:
    count = len(rows)
    if name == "studies":
        return {
            "study_id": [f"s{row:08d}" for row in rows],
            "patient_id": [f"p{row // 2:08d}" for row in rows],
            "split": split_column(["train"] * count),
            "date": [None] * count,
            "prior": [None] * count,
            "sentences": [["no effusion is seen .", "the heart is normal ."]] * count,
            "meanings": [[None, None]] * count,
            "findings": [[None, None]] * count,
            "content": [None] * count,
            "row": [""] * count,
            f"{LABEL}any": [0.0] * count,
        }
    assert name in TABLES
    columns: dict[str, Any] = {
        "study": rows,
        "projection": ["PA"] * count,
        "order": [0] * count,
        "image": [f"p{row:08d}.png" for row in rows],
        "annotated": [[]] * count,
        "sentence_boxes": [[None, None]] * count,
    }
    numbers = {"height": 1, "width": 1, "scale": 1.0, "pad_x": 0.0, "pad_y": 0.0}
    return columns | {key: [value] * count for key, value in numbers.items()}


def open_rows(folder: Path, count: int) -> dict[str, float]:
    """C16: seconds to open the corpus and to find the rows of a split."""
    start = time.perf_counter()
    corpus = PreparedCorpus.open(folder / "rows")
    opened = time.perf_counter() - start
    assert len(corpus) == count
    rows = corpus.rows("train")
    assert len(rows) == count
    return {"open": opened, "with_the_rows_of_a_split": time.perf_counter() - start}


PARTS = {"prepare": prepare_some, "tokenise": tokenise_some, "hold": hold, "open": open_rows}


def alone(part: str, folder: Path, count: int) -> dict[str, float]:
    """One of :data:`PARTS` in a process of its own."""
    command = [sys.executable, __file__, part, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    count, many = (300, 500) if small else (1_000_000, 10_000_000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepared = alone("prepare", folder, count)
        tokenised = alone("tokenise", folder, count)
        held = alone("hold", folder, count)
        shutil.rmtree(folder / "corpus")
        write_rows(folder / "rows", many)
        opened = alone("open", folder, many)
    gigabytes = max(prepared["peak"], tokenised["peak"]) / 1e9
    detail = {"rows": count, "prepare_GB": round(prepared["peak"] / 1e9, 3), "prepare_s": round(prepared["seconds"])}
    detail |= {"tokenise_GB": round(tokenised["peak"] / 1e9, 3), "tokenise_s": round(tokenised["seconds"])}
    found = {"rows": many, "with_the_rows_of_a_split_s": round(opened["with_the_rows_of_a_split"], 2)}
    return [
        Figure("C14", "private bytes an image, opened and tokenised", held["private"], 100, False, {"rows": count}),
        Figure("C15", "peak of preparing and tokenising, GB", gigabytes, 1.5, False, detail),
        Figure("C16", "seconds to open 10 M rows", opened["open"], 2, False, found),
    ]


if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
