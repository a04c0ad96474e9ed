"""Results on disk: one row a number, in ``results.jsonl``; and the figures of a run in ``summary.json``. Floor 0."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: NaN becomes null, arrays lists, paths strings."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return value


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a JSON-lines file."""
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(plain(row), allow_nan=False) + "\n")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; none where there is no file."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield json.loads(line)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` so that a reader never sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def id_hash(ids: Iterable[str]) -> str:
    """Sixteen hex digits of SHA-256 over the sorted ids, one a line: equal for equal sets, wherever they were drawn."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
