"""The tables of a prepared corpus, format 3: their columns, and how they are written. Floor 2.

What they mean stands in :mod:`lingula.data.prepared`. Every table is an Arrow IPC file of record batches, written a
batch at a time and moved to its name when it is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lingula.data.reader import canonical_json
from lingula.data.study import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 3
LABEL = "label:"  # prefix of the label columns
TABLES = ("studies", "images", "boxes", "masks")
BATCH = 8192  # rows of a record batch


def schemas(label_names: Sequence[str]) -> dict[str, pa.Schema]:
    """The columns of every table, by its name."""
    import pyarrow as pa

    texts = pa.list_(pa.string())
    studies = {
        "study_id": pa.string(),
        "patient_id": pa.string(),
        "split": pa.dictionary(pa.int8(), pa.string()),
        "date": pa.string(),
        "prior": pa.int64(),
        "sentences": texts,
        "meanings": texts,
        "findings": texts,
        "content": pa.string(),
        "row": pa.string(),
    } | {LABEL + name: pa.float32() for name in label_names}
    images = {
        "study": pa.int64(),
        "projection": pa.string(),
        "order": pa.int16(),
        "image": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "scale": pa.float64(),
        "pad_x": pa.int32(),
        "pad_y": pa.int32(),
        "annotated": texts,
        "sentence_boxes": pa.list_(pa.list_(pa.float64())),
    }
    boxes = {"row": pa.int64(), "name": pa.string()} | dict.fromkeys(("x0", "y0", "x1", "y1"), pa.float64())
    masks = {"row": pa.int64(), "name": pa.string()}
    return {
        name: pa.schema(list(columns.items()))
        for name, columns in zip(TABLES, (studies, images, boxes, masks), strict=True)
    }


def split_column(splits: Sequence[str] | np.ndarray) -> pa.Array:
    """Names of splits as the column ``split`` holds them: one dictionary for all batches."""
    import pyarrow as pa

    codes = [SPLITS.index(split) for split in splits]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(SPLITS))


class TableWriter:
    """Writes one table; :meth:`finish` gives it its name.

    Args:
        folder: of the corpus.
        name: of the table.
        schema: of its columns.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.path, self.schema = folder / f"{name}.arrow", schema
        self._partial = self.path.with_name(self.path.name + ".tmp")
        self._file = self._partial.open("wb")
        self._writer = pa.ipc.new_file(self._file, schema)
        self._digest = hashlib.sha256()

    def write(self, columns: dict[str, Any]) -> None:
        """One record batch; none where it would be empty."""
        import pyarrow as pa

        arrays = [as_array(columns[field.name], field.type) for field in self.schema]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        if not len(batch):
            return
        self._writer.write_batch(batch)
        for start in range(0, len(batch), 1024):
            self._digest.update(canonical_json(batch.slice(start, 1024).to_pylist()).encode())

    def finish(self) -> bytes:
        """Close it and give it its name. Returns a digest of its rows, whatever library wrote them."""
        self.close()
        self._partial.replace(self.path)
        return self._digest.digest()

    def close(self) -> None:
        """Leave it; without :meth:`finish`, as a file that nobody reads."""
        if not self._file.closed:
            self._writer.close()
            self._file.close()


def as_array(values: Any, kind: pa.DataType) -> pa.Array:
    """Values, Python's or Arrow's, as an array of this type."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values if values.type == kind else values.cast(kind)
    return pa.array(values, kind, from_pandas=False)
