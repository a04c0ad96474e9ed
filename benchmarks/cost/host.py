"""What falls on the host: memory for the index and the tokens, and the loader's pace.

Run as a script it prints :func:`memory`: the memory of a process that has done other things says little.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from benchmarks.ratios.measure import extra_memory  # noqa: E402
from benchmarks.ratios.tokens import corpus as random_tokens  # noqa: E402

from lingula.data.preparation import prepare  # noqa: E402
from lingula.data.prepared import PreparedCorpus  # noqa: E402
from lingula.data.study import Sentence, Study  # noqa: E402
from lingula.data.tokens import tokenise, train_tokenizer  # noqa: E402


class RandomReports:
    """A corpus of blank films and reports of random words, ten a sentence, no sentence twice."""

    name, licence = "random", "none"

    def __init__(self, count: int) -> None:
        self.count = count

    def studies(self) -> Any:
        rng = np.random.default_rng(0)
        words = np.array(["".join(letters) for letters in rng.choice(list("abcdefghij"), (1000, 5))])
        counts = np.diff(random_tokens(self.count).first_sentence)
        for number, sentences in enumerate(counts.tolist()):
            texts = [" ".join(row) for row in rng.choice(words, (sentences, 10))]
            report = tuple(Sentence(text) for text in texts)
            yield Study(f"s{number:08d}", f"p{number:08d}", lambda: np.zeros((8, 8), np.uint8), "train", report, "PA")

    def fingerprint(self) -> str:
        return str(self.count)


def memory(count: int = 10_000) -> dict[str, float]:
    """Bytes a report that a process holds of an opened corpus and its tokens, its peak meanwhile, and bytes on disk."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(RandomReports(count), Path(folder) / "corpus", 8, 0, log=lambda _: None)
        on_disk = (Path(folder) / "corpus" / "index.parquet").stat().st_size
        some = PreparedCorpus.open(Path(folder) / "corpus").reports[:1000]
        tokenizer = train_tokenizer([s for report in some for s in report], Path(folder) / "tokenizer", 2000)
        held: list[Any] = []

        def hold() -> None:
            corpus = PreparedCorpus.open(Path(folder) / "corpus")
            held.extend((corpus, tokenise(corpus.reports, tokenizer)))

        peak = extra_memory(hold)
        tokens = held[1]
        arrays = sum(getattr(tokens, field.name).nbytes for field in dataclasses.fields(tokens) if field.name != "pad")
        before = _resident()
        held.clear()
        del tokens
        freed = before - _resident()
    return {"peak": peak / count, "held": freed / count, "tokens": arrays / count, "index on disk": on_disk / count}


def _resident() -> int:
    """Bytes of this process, after what can be given back has been."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rate(pairs: int = 64, steps: int = 24) -> float:
    """Pairs a second that one thread crops, collates and packs; films of 256 pixels in memory."""
    from benchmarks.gpu import Sizes, loader_of

    loader = loader_of(Sizes(films=2048), pairs, torch.device("cpu"))
    loader.batch(0)
    taken = []
    for number in range(1, steps):
        start = time.perf_counter()
        loader.batch(number)
        taken.append(time.perf_counter() - start)
    return pairs / float(np.median(taken))


def memory_of_a_fresh_process() -> dict[str, float]:
    """:func:`memory`, measured in a process of its own."""
    done = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    print(json.dumps(memory()))
