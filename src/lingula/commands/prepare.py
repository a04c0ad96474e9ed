"""``lingula prepare CORPUS``: from a raw download to a prepared corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

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
    duplicates: Literal["refuse", "first", "last"] = "refuse",
    shards: str | None = None,
) -> None:
    """Read a corpus once into an index and memory-mapped pixels.

    Args:
        corpus: the reader.
        out: folder of the prepared corpus. Preparing twice is a no-op; an interrupted preparation goes on.
        size: side in pixels of the squares that images become; their aspect is kept, the rest is black.
        workers: number of processes that decode images (default: all cores).
        val_fraction: share of the patients for validation, where the corpus has no split of its own.
        test_fraction: share of the patients for testing, where the corpus has no split of its own.
        split_seed: seed of the draw of validation and test patients.
        skip_bad_rows: leave out rows with a missing or unreadable image, an empty report, a box outside its image, a
            mask of another size, or a study that an earlier row lists, instead of stopping. They are counted by cause,
            and each is listed in `left_out.csv`.
        duplicates: which row to keep where several list one study, or one image under several patients; `refuse` makes
            all but the first bad rows.
        shards: also write the training and the validation split to this folder or URL (anything fsspec reaches:
            `s3://bucket/corpus`), from where `lingula pretrain --corpus` streams them. Several preparations may go to
            one URL, as the pieces of a corpus that is larger than a disk.
    """
    from lingula.data.preparation import prepare as prepare_corpus
    from lingula.data.shards import write_shards

    prepared = prepare_corpus(
        corpus, out, size, workers, val_fraction, test_fraction, split_seed, skip_bad_rows, duplicates
    )
    if shards is not None:
        write_shards(prepared, shards)


def upgrade(folder: str) -> None:
    """Turn a prepared corpus of an older format into the present one, without decoding its images again."""
    from lingula.data.upgrade import upgrade as upgrade_corpus

    upgrade_corpus(Path(folder))


prepare.instead = {"--upgrade": upgrade}  # type: ignore[attr-defined]
prepare.choices = CORPORA  # type: ignore[attr-defined]
