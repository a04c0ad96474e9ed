"""Prepared corpora of formats 1 and 2, whose tables were Parquet files: read as they are, or turned into format 3.

Floor 2. No image is decoded again: ``pixels.npy`` and ``masks.npy`` stay what they are, and so does the fingerprint, by
which runs know the corpus that they were trained on.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lingula.data.layout import BATCH, FORMAT, LABEL, TABLES, TableWriter, as_array, schemas, split_column
from lingula.data.mapped import Mapped
from lingula.data.prepared import OLDER, PreparedCorpus, packed_bytes
from lingula.records import write_json
from lingula.registry import UserError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = ("index.parquet", "boxes.parquet", "masks.parquet")


def upgrade(folder: Path, log: Callable[[str], None] = print) -> PreparedCorpus:
    """Turn a prepared corpus of an older format into one of format 3, a batch of rows at a time.

    The old tables go after the new ones are whole and ``corpus.json`` names their format: interrupted at any time, the
    folder is a corpus of one format or the other.

    Args:
        folder: of the prepared corpus.
        log: takes one line of text.
    Raises:
        UserError: if there is no prepared corpus, it is damaged, or the folder cannot be written to.
    """
    old = PreparedCorpus.open(folder)  # it is whole
    if old.meta["format"] in OLDER:
        try:
            for name, schema in schemas(old.label_names).items():
                writer = TableWriter(folder, name, schema)
                with contextlib.closing(writer):
                    for columns in _converted(folder, name):
                        writer.write(columns)
                    writer.finish()
            if not (folder / "masks.npy").exists():
                np.save(folder / "masks.npy", np.empty((0, packed_bytes(old.size)), dtype=np.uint8))
            write_json(folder / "corpus.json", {**old.meta, "format": FORMAT})
        except OSError as err:
            raise UserError(f"cannot write to {folder}: {err.strerror or err}") from err
        log(f"{old.name}: {folder} is now of format {FORMAT}")
    else:
        log(f"{old.name}: {folder} is of format {FORMAT} already; nothing to do")
    for file in PARQUET:
        (folder / file).unlink(missing_ok=True)
    return PreparedCorpus.open(folder)


def older_tables(folder: Path, meta: dict[str, Any]) -> dict[str, Mapped]:
    """The tables of an older corpus as those of format 3, in memory."""
    import pyarrow as pa

    tables = {}
    for name, schema in schemas(meta["label_names"]).items():
        batches = [
            pa.RecordBatch.from_arrays([as_array(columns[field.name], field.type) for field in schema], schema=schema)
            for columns in _converted(folder, name)
        ]
        tables[name] = Mapped(schema, batches)
    return tables


def _converted(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The columns of a table of format 3, some rows at a time."""
    assert name in TABLES
    if name in ("boxes", "masks"):
        yield from ({**columns} for _, columns in _parquet(folder / f"{name}.parquet"))
        return
    known = _columns(folder / "index.parquet")
    named = _named_boxes(folder) if name == "images" and "annotated" not in known else {}
    for start, columns in _parquet(folder / "index.parquet"):
        yield _studies(columns) if name == "studies" else _images(columns, start, named)


def _studies(old: dict[str, pa.Array]) -> dict[str, Any]:
    count = len(old["study_id"])
    nothing = [None] * count
    unknown = [[None] * len(report) for report in old["sentences"].to_pylist()]
    return {
        **{name: old[name] for name in ("study_id", "patient_id", "sentences")},
        **{name: values for name, values in old.items() if name.startswith(LABEL)},
        "split": split_column(old["split"].to_pylist()),
        "date": nothing,
        "prior": nothing,
        "meanings": old.get("meanings", unknown),
        "findings": old.get("findings", unknown),
        "content": old.get("content", nothing),
        "row": old.get("row", [""] * count),
    }


def _images(old: dict[str, pa.Array], start: int, named: dict[int, list[str]]) -> dict[str, Any]:
    count = len(old["study_id"])
    unknown = [[None] * len(report) for report in old["sentences"].to_pylist()]
    return {
        **{name: old[name] for name in ("image", "height", "width", "scale", "pad_x", "pad_y")},
        "study": range(start, start + count),
        "projection": old.get("view", [""] * count),
        "order": [0] * count,
        "annotated": old.get("annotated", [named.get(row, []) for row in range(start, start + count)]),
        "sentence_boxes": old.get("sentence_boxes", unknown),
    }


def _named_boxes(folder: Path) -> dict[int, list[str]]:
    """What each image has boxes of: format 1 did not say what annotators looked for."""
    names: dict[int, set[str]] = defaultdict(set)
    for _, columns in _parquet(folder / "boxes.parquet"):
        for row, name in zip(columns["row"].to_pylist(), columns["name"].to_pylist(), strict=True):
            names[row].add(name)
    return {row: sorted(own) for row, own in names.items()}


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(path).names
    return names


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """The rows of a Parquet file, some at a time, with the number of the first; none where there is no file."""
    import pyarrow.parquet as pq

    if path.name == "masks.parquet" and not path.exists():  # format 1 had no masks
        return
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield start, dict(zip(batch.schema.names, batch.columns, strict=True))
            start += len(batch)
