"""C6 and C7: from a full-size JPEG to the cache, and a second epoch from the cache, against decoding."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from benchmarks.ratios.measure import Figure, in_turns, milliseconds
from PIL import Image

from lingula.corpora.synthetic import Synthetic, draw
from lingula.data.image import letterbox, read_square
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.data.transforms import to_unit_range


def write_film(path: Path, height: int, width: int, empty: bool = False) -> None:
    """A film as large as they come from the machine: a phantom, grain of two grey values, JPEG of quality 95; or one of
    a single grey, with nothing to decode but that."""
    film = cv2.resize(draw(0, 0, 512), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, 2, film.shape)
    pixels = np.full(film.shape, 128) if empty else film + grain
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)


def decode(path: Path, size: int) -> np.ndarray:
    """All of the pixels first, then the square."""
    with Image.open(path) as image:
        return letterbox(np.asarray(image.convert("L")), size)[0]


def preparing(folder: Path, height: int, width: int, size: int, rounds: int = 7) -> Figure:
    """C6: one film, on one core."""
    path, empty = folder / "film.jpg", folder / "empty.jpg"
    write_film(path, height, width)
    write_film(empty, height, width, empty=True)
    difference = np.abs(read_square(path, size)[0].astype(float) - decode(path, size))
    assert difference.mean() < 1, f"reduced decoding is off by {difference.mean():.2f} grey values"
    fast, slow, nothing = in_turns(
        lambda: read_square(path, size), lambda: decode(path, size), lambda: read_square(empty, size), rounds=rounds
    )
    detail = {"jpeg_mb": round(path.stat().st_size / 1e6, 2), "ours_ms": milliseconds(fast)}
    detail |= {"ours_of_an_empty_film_ms": milliseconds(nothing)}
    detail |= {"full_decode_ms": milliseconds(slow), "mean_difference_grey_values": round(float(difference.mean()), 3)}
    return Figure(
        "C6", f"JPEG of {height} x {width} to the cache, against full decoding", slow / fast, 2.5, detail=detail
    )


def second_epoch(folder: Path, films: int, stored: int, seen: int, batch_size: int, rounds: int = 7) -> list[Figure]:
    """C7: batches of random windows in [-1, 1], from the cache, and from the JPEG of each film; one thread."""
    path = folder / "film.jpg"
    corpus = prepare(Synthetic(films, 1, 1, film_size=64), folder / "corpus", stored, 0, log=lambda _: None)
    loader = Loader(corpus, corpus.rows("train"), seen, stored, batch_size, training=True)
    steps = len(loader)

    def from_cache() -> None:
        for step in range(steps, 2 * steps):
            loader.batch(step)

    def from_file() -> None:  # of one film
        square = torch.from_numpy(decode(path, stored))
        to_unit_range(square[None, :seen, :seen])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        epoch, one = in_turns(from_cache, from_file, rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    rate = steps * batch_size / epoch
    detail: dict[str, Any] = {"films_per_second": round(rate), "decoded_per_second": round(1 / one, 1)}
    return [
        Figure("C7 ratio", "second epoch from the cache, against decoding", rate * one, 1000, detail=detail),
        Figure("C7 rate", "films a second from the cache, one thread", rate, 20_000, detail=detail),
    ]


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if small:
            return [preparing(folder, 320, 256, 40, 1), *second_epoch(folder, 8, 40, 32, 4, 1)]
        return [preparing(folder, 3000, 2500, 256), *second_epoch(folder, 1024, 256, 224, 64)]
