"""Shards beside what others stream with: films a second of a thread, and whether two processes see the batches of one.

    pip install litdata webdataset
    python benchmarks/streaming.py                    # needs 1 GB of disk

Every way gives the same 4,000 films of 256 pixels with a row number, shuffled, in batches of 64, as bytes: no crop, no
reports. The ways take turns; the median of five is printed. MosaicML Streaming 0.13 could not be measured: it asks for
transformers below 5 and numpy below 2.2.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
FILMS, SIZE, BATCH, TURNS = 4000, 256, 64, 5


def write(folder: Path) -> None:
    """The same films in every form."""
    import webdataset
    from litdata.streaming.writer import BinaryWriter

    from lingula.data.shards import Shard, write_shard

    pixels = np.random.default_rng(0).integers(0, 256, (FILMS, SIZE, SIZE), dtype=np.uint8)
    np.save(folder / "films.npy", pixels)
    part = folder / "shards" / "part"
    part.mkdir(parents=True)
    starts = range(0, FILMS, 256)
    for number, start in enumerate(starts):
        own = pixels[start : start + 256]
        names = [str(start + place) for place in range(len(own))]
        with (part / f"films-{number:05d}.arrow").open("wb") as file:
            write_shard(file, Shard(names, own, [[]] * len(own)))
    counts = [len(pixels[start : start + 256]) for start in starts]
    about = {"format": 1, "name": "noise", "size": SIZE, "fingerprint": "0", "paired": [], "films": counts, "val": 0}
    (part / "shards.json").write_text(json.dumps(about))
    (folder / "litdata").mkdir()
    writer = BinaryWriter(str(folder / "litdata"), chunk_size=256)
    for row, film in enumerate(pixels):
        writer[row] = {"film": film, "row": row}
    writer.done()
    writer.merge(1)
    with webdataset.ShardWriter(str(folder / "web-%06d.tar"), maxcount=256, verbose=0) as tar:
        for row, film in enumerate(pixels):
            tar.write({"__key__": f"{row:08d}", "npy": film})


def ours(folder: Path, rank: int, world: int) -> Iterator[np.ndarray]:
    """Shards, in the order of :class:`lingula.data.streaming.StreamOrder`."""
    from lingula.data.shards import open_corpus
    from lingula.data.streaming import StreamLoader

    corpus = open_corpus(folder / "shards")
    loader = StreamLoader(corpus, SIZE, SIZE, BATCH // world, rank=rank, processes=world)
    for step in range(len(loader)):
        rows = loader._rows(0, step)
        loader._films(rows)
        yield rows


def prepared(folder: Path, rank: int, world: int) -> Iterator[np.ndarray]:
    """A prepared corpus, for comparison: mapped, and shuffled as a whole."""
    pixels, order = np.load(folder / "films.npy", mmap_mode="r"), np.random.default_rng(0).permutation(FILMS)
    for start in range(0, FILMS - BATCH + 1, BATCH):
        rows = order[start : start + BATCH][rank * BATCH // world :][: BATCH // world]
        pixels[rows]
        yield rows


def litdata(folder: Path, rank: int, world: int) -> Iterator[np.ndarray]:
    """litdata's own shuffle."""
    from litdata import StreamingDataset

    return _batched(StreamingDataset(str(folder / "litdata"), shuffle=True, drop_last=True), "film", "row", world)


def webdataset(folder: Path, rank: int, world: int) -> Iterator[np.ndarray]:
    """WebDataset's: shards in a random order, a buffer of 1,000 films."""
    import webdataset as web

    urls = sorted(str(path) for path in folder.glob("web-*.tar"))
    films = web.WebDataset(urls, shardshuffle=100, seed=0, nodesplitter=web.split_by_node).shuffle(1000).decode()
    return _batched(films, "npy", "__key__", world)


def _batched(films: object, pixels: str, row: str, world: int) -> Iterator[np.ndarray]:
    some = []
    for film in films:  # type: ignore[attr-defined]
        some.append(film)
        if len(some) == BATCH // world:
            np.stack([one[pixels] for one in some])
            yield np.array([int(one[row]) for one in some])
            some = []


WAYS: dict[str, Callable[[Path, int, int], Iterator[np.ndarray]]] = {
    "prepared corpus, mapped": prepared,
    "lingula's shards": ours,
    "litdata": litdata,
    "WebDataset": webdataset,
}


def batches(folder: Path, way: str, world: int) -> list[list[int]]:
    """The global batches of an epoch, each sorted, by as many processes as named."""
    script = f"""
import sys, json; sys.path[:0] = {[str(Path(__file__).parent)]!r}
import torch.distributed as dist, pathlib, streaming
dist.init_process_group("gloo")
found = [rows.tolist() for rows in streaming.WAYS[{way!r}](pathlib.Path({str(folder)!r}), dist.get_rank(), {world})]
pathlib.Path(f"{folder}/{{dist.get_rank()}}.json").write_text(json.dumps(found))
"""
    (folder / "rows.py").write_text(script)
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={world}", str(folder / "rows.py")]
    subprocess.run(run, check=True, capture_output=True)
    of_rank = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
    return [sorted(row for part in parts for row in part) for parts in zip(*of_rank, strict=False)]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder)
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(TURNS):
            for way, films in WAYS.items():
                start = time.perf_counter()
                count = sum(len(rows) for rows in films(folder, 0, 1))
                rates[way].append(count / (time.perf_counter() - start))
        print("| way | films/s, one thread | batches of two processes = those of one |\n|---|---|---|")
        for way in WAYS:
            one, two = batches(folder, way, 1), batches(folder, way, 2)
            same = sum(rows in one for rows in two)
            print(f"| {way} | {statistics.median(rates[way]):,.0f} | {same} of {len(one)} |", flush=True)


if __name__ == "__main__":
    main()
