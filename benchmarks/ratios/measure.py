"""How things are measured: taken in turns, by the quickest turn, and memory by the high-water mark of the process."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROUNDS = 7


@dataclass
class Figure:
    """One line of the table.

    Attributes:
        key: as in the list of goals, ``C1``.
        what: in a few words.
        ratio: what was measured; NaN where it could not be.
        goal: and what was hoped for.
        at_least: whether more is better.
        detail: what stands behind the ratio, and why it is none.
    """

    key: str
    what: str
    ratio: float
    goal: float
    at_least: bool = True
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


def seconds(call: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(*calls: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Seconds of the quickest turn of each call, one of each after the other and then again.

    What else a machine does only ever adds time, and to two threads that wait for each other more than to one; so the
    quickest of several turns is what the call itself takes.

    Args:
        calls: without arguments.
        rounds: of each, after one that does not count.
    """
    for call in calls:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, times in zip(calls, taken, strict=True):
            times.append(seconds(call))
    return [min(times) for times in taken]


def extra_memory(call: Callable[[], Any]) -> float:
    """Bytes by which the process grew at most while it ran; NaN where the system does not say (Linux does)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is in use
    before = _kilobytes(status, "VmRSS")
    call()
    return 1024.0 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1])


def milliseconds(taken: float) -> float:
    """For a table, in three digits."""
    return float(f"{taken * 1e3:.3g}")
