"""What falls on the host: memory and disk for the index and the tokens, and the loader's pace."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from benchmarks.ratios.index import alone  # noqa: E402


def memory(count: int = 10_000) -> dict[str, float]:
    """Bytes a report: private of a process that opened a corpus and its tokens, and on disk of its index and tokens."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        alone("prepare", folder, count)
        alone("tokenise", folder, count)
        held = alone("hold", folder, count)["private"]
        index = sum(file.stat().st_size for file in (folder / "corpus").glob("*.arrow"))
        tokens = sum(file.stat().st_size for file in (folder / "corpus").glob("derived/*/*.bin"))
    return {"held": held, "index on disk": index / count, "tokens on disk": tokens / count}


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
