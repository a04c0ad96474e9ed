"""``lingula prepare CORPUS``: from a raw download to a prepared corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lingula.corpora import CORPORA


def prepare(
    corpus: Any,
    out: Path,
    size: int = 256,
    workers: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    skip_bad_rows: bool = False,
    shards: str | None = None,
) -> None:
    """Read a corpus once into an index and memory-mapped pixels.

    Args:
        corpus: the reader.
        out: folder of the prepared corpus. Preparing twice is a no-op; an interrupted preparation goes on.
        size: films become squares of this many pixels, aspect kept, padded with black.
        workers: processes that decode; all cores by default.
        val_fraction: share of the patients for validation, where the corpus has no split of its own.
        test_fraction: share of the patients for the test, where the corpus has no split of its own.
        split_seed: of that draw.
        skip_bad_rows: leave out rows with a missing or unreadable film, an empty report, a box outside its film or a
            mask of another size, one line each, instead of stopping at the first.
        shards: also write the training and the validation split to this folder or URL (anything fsspec reaches:
            `s3://bucket/corpus`), from where `lingula pretrain --corpus` streams them. Several preparations may go to
            one URL, as the pieces of a corpus that is larger than a disk.
    """
    from lingula.data.preparation import prepare as prepare_corpus
    from lingula.data.shards import write_shards

    prepared = prepare_corpus(corpus, out, size, workers, val_fraction, test_fraction, split_seed, skip_bad_rows)
    if shards is not None:
        write_shards(prepared, shards)


prepare.choices = CORPORA  # type: ignore[attr-defined]
