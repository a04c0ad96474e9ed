"""What a training run writes down while it runs. Floor 2."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lingula.records import append_rows
from lingula.terminal.progress import Bar, progress, quietly


class Log:
    """``metrics.jsonl``, TensorBoard events and the progress of the steps, on the first process only."""

    def __init__(self, fabric: Any, out: Path, resume_at: int, quiet: bool) -> None:
        self.active = fabric.is_global_zero
        self.quiet = quiet or not self.active
        self.started = time.perf_counter()
        self.progress: Bar | None = None
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.path = out / "metrics.jsonl"
        if self.path.is_file():  # what came after the checkpoint will be written again
            keep_until(self.path, resume_at)
        board = out / "tensorboard"
        self.board = SummaryWriter(str(board), purge_step=resume_at + 1 if board.is_dir() else None)

    @contextmanager
    def bar(self, label: str, start: int, end: int) -> Iterator[None]:
        """Show the steps from ``start`` to ``end`` while the context lasts."""
        with quietly(self.quiet), progress(label, end, "step", start) as self.progress:
            yield

    def say(self, line: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            print(line, file=sys.stderr)

    def step(self, step: int) -> None:
        """The number of steps taken."""
        if self.progress is not None:
            self.progress.at(step)

    def terms(self, step: int, stage: int, rate: float, terms: dict[str, float]) -> None:
        """The loss terms since the last call."""
        if not self.active:
            return
        if self.progress is not None:
            self.progress.note = f"total {sum(value for name, value in terms.items() if name != 'gradient_norm'):.3g}"
        self._write({"step": step, "stage": stage + 1, "learning_rate": rate, **_under("train", terms)})

    def validation(self, step: int, numbers: dict[str, float]) -> None:
        """What validation found."""
        if self.active and numbers:
            self._write({"step": step, **_under("val", numbers)})

    def _write(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name, value, row["step"])
        append_rows(self.path, [{**row, "seconds": round(time.perf_counter() - self.started, 2)}])

    def close(self) -> None:
        """Flush what is open."""
        if self.active:
            self.board.close()


def keep_until(path: Path, step: int) -> None:
    """Drop the rows of a JSON-lines file after ``step``, and a last line that was only half written."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)


def _under(group: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in numbers.items()}
