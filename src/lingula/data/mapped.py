"""An Arrow table on disk whose rows are looked up where they lie. Floor 2.

The file is memory-mapped: what was looked at lies in the system's cache of files, which all processes of a machine
share and which is given back when memory is short. A process keeps the list of the record batches, about 5 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Sequence[int] | np.ndarray


class Mapped:
    """A table in record batches.

    Args:
        schema: of all batches.
        batches: in order.
    Attributes:
        starts: ``(batches + 1,)`` int64; batch b holds rows ``starts[b]`` to ``starts[b + 1] - 1``.
    """

    def __init__(self, schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> None:
        self.schema, self._batches = schema, list(batches)
        self.starts = np.cumsum([0, *(len(batch) for batch in self._batches)], dtype=np.int64)

    @classmethod
    def open(cls, path: Path) -> Mapped:
        """An Arrow IPC file, mapped.

        Raises:
            OSError, ValueError: if it is missing or damaged (``pyarrow``'s errors are these).
        """
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return cls(reader.schema, [reader.get_batch(number) for number in range(reader.num_record_batches)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batches(self, name: str) -> Iterator[pa.Array]:
        """A column, batch after batch."""
        place = self.schema.get_field_index(name)
        if place < 0:
            raise KeyError(name)
        return (batch.column(place) for batch in self._batches)

    def take(self, name: str, rows: Rows) -> pa.Array:
        """The values of a column at these rows, in their order."""
        import pyarrow as pa

        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of a table of {len(self)}")
        place = self.schema.get_field_index(name)
        if place < 0:
            raise KeyError(name)
        if not len(rows):
            return pa.array([], self.schema.field(place).type)
        batch_of = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(batch_of, kind="stable")
        numbers, first = np.unique(batch_of[order], return_index=True)
        parts = [
            self._batches[number].column(place).take(pa.array(rows[own] - self.starts[number]))
            for number, own in zip(numbers.tolist(), np.split(order, first[1:]), strict=True)
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(back))

    def values(self, name: str, rows: Rows | None = None) -> np.ndarray:
        """The values of a column as an array of its own: of numbers, or of ``str`` and ``None`` objects.

        Args:
            name: of the column.
            rows: which; all of them if not given.
        """
        if rows is not None:
            return _as_numpy(self.take(name, rows))
        parts = [_as_numpy(part) for part in self.batches(name)]
        return np.concatenate(parts) if parts else _as_numpy(self.take(name, []))

    def lists(self, name: str, rows: Rows) -> list[Any]:
        """The values at these rows as Python objects."""
        found: list[Any] = self.take(name, rows).to_pylist()
        return found

    def where(self, name: str, value: str) -> np.ndarray:
        """Rows at which a column of text is this value, ascending ``(n,)`` int64."""
        found = [
            start + np.flatnonzero(_equal(part, value))
            for start, part in zip(self.starts.tolist(), self.batches(name), strict=False)
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])

    def to_pandas(self, rows: Rows | None = None) -> Any:
        """A data frame of all columns: a copy in memory.

        Args:
            rows: which; all of them if not given.
        """
        import pyarrow as pa

        if rows is None:
            return pa.Table.from_batches(self._batches, self.schema).to_pandas()
        return pa.table([self.take(field.name, rows) for field in self.schema], schema=self.schema).to_pandas()


def _equal(array: pa.Array, value: str) -> np.ndarray:
    """Where an array of text is this value; ``(n,)`` bool."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        known = array.dictionary.to_pylist()
        code = known.index(value) if value in known else -1
        codes: np.ndarray = array.indices.to_numpy()
        return codes == code
    return _as_numpy(pc.fill_null(pc.equal(array, value), False))


def _as_numpy(array: pa.Array) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    found: np.ndarray
    if pa.types.is_string(array.type):
        found = np.empty(len(array), dtype=object)
        found[:] = array.to_pylist()
        return found
    found = array.to_numpy(zero_copy_only=False)
    return found
