"""Long work shows itself on stderr: a bar on a terminal, and a line a minute where there is none. Floor 2.

    with progress("stage 1", total=9400, unit="step") as bar:
        for step in range(9400):
            ...
            bar.at(step + 1)

    for batch in over(loader, "encoding images"):
        ...

In a file: ``stage 1: step 1,200 of 9,400 (13 %), 4.1 steps/s, 33 min left``. Work inside work says where it belongs:
``retrieval, measurement 2 of 4: encoding images: batch 12 of 40 (30 %), ...``. Short work shows nothing.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")

FIRST, EVERY = 10.0, 60.0  # seconds of work before the first line, and between two lines
APPEAR, REFRESH = 1.0, 0.1  # seconds of work before a bar appears on a terminal, and between two of its states


class Bar:
    """One piece of work under way, made by :func:`progress`.

    Attributes:
        label: what is done.
        total, done: units of work, in all and so far.
        unit: the singular noun of what is counted.
        at_most: whether the work may stop earlier.
        note: shown last, such as ``total 3.21``.
    """

    def __init__(self, display: Display, label: str, total: int, unit: str, done: int, at_most: bool) -> None:
        self.display, self.label, self.total, self.unit, self.at_most = display, label, total, unit, at_most
        self.done, self.note = done, ""
        self.started = display.clock()
        self.past = deque([(self.started, done)], maxlen=11)  # when a line was shown: the rate is that of ten minutes
        self.task: Any = None

    def at(self, done: int) -> None:
        """``done`` units are done."""
        self.done = done
        self.display.moved(self)

    def advance(self, count: int = 1) -> None:
        """``count`` more units are done."""
        self.at(self.done + count)

    def say(self, line: str) -> None:
        """A line for what is worth one at once, such as a result that was written."""
        self.display.say(line)

    def rate(self, now: float) -> float:
        """Units a second over the last lines; 0 where nothing is known yet."""
        then, done = self.past[0]
        return (self.done - done) / (now - then) if now > then else 0.0

    def state(self, now: float) -> str:
        """``step 1,200 of 9,400 (13 %), 4.1 steps/s, 33 min left, total 3.21``."""
        parts = [
            f"{self.unit} {self.done:,} of {self.total:,} ({self.done / max(self.total, 1):.0%})".replace("%", " %")
        ]
        rate = self.rate(now)
        if rate > 0:
            left = f"{duration((self.total - self.done) / rate)} left"
            parts += [speed(rate, self.unit), f"at most {left}" if self.at_most else left]
        return ", ".join([*parts, self.note] if self.note else parts)


def duration(seconds: float) -> str:
    """``45 s``, ``33 min``, ``2 h 10 min`` or ``3 d 4 h``.

    Example:
        >>> [duration(seconds) for seconds in (45, 1980, 7800, 273600)]
        ['45 s', '33 min', '2 h 10 min', '3 d 4 h']
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def speed(rate: float, unit: str) -> str:
    """``4.1 steps/s``, or ``2.5 s/step`` where that is slower than one a second."""
    if rate < 1:
        return f"{1 / rate:.1f} s/{unit}"
    plural = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
    return f"{rate:,.1f} {plural}/s" if rate < 100 else f"{rate:,.0f} {plural}/s"


# Where it is shown ----------------------------------------------------------------------------------------------------


class Display:
    """Lines in a file; on a terminal, :class:`Terminal`.

    Args:
        stream: where lines go; stderr by default.
        clock: seconds, never going back.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self.open: list[Bar] = []  # from the outermost to the innermost
        self.next = -math.inf  # when the next line is due

    def opened(self, bar: Bar) -> None:
        if not self.open and bar.started > self.next + EVERY:  # after a rest; many short pieces in a row share a line
            self.next = bar.started + FIRST
        self.open.append(bar)

    def moved(self, bar: Bar) -> None:
        now = self.clock()
        if now >= self.next:
            self.next = now + EVERY
            long = [one for one in self.open if one.done and now - one.started >= FIRST]
            shown = (long or [bar])[-1]  # the innermost of them, rather than a short pass
            self.say(self.line(shown, now))
            shown.past.append((now, shown.done))

    def closed(self, bar: Bar) -> None:
        """Outermost work that took its time ends with a line."""
        if bar not in self.open:
            return
        while self.open.pop() is not bar:  # what an error has left open inside
            pass
        seconds = self.clock() - bar.started
        if not self.open and seconds >= FIRST:
            note = f", {bar.note}" if bar.note else ""
            self.say(f"{bar.label}: {bar.unit} {bar.done:,} of {bar.total:,} after {duration(seconds)}{note}")

    def line(self, bar: Bar, now: float) -> str:
        outer = self.open[: self.open.index(bar)] if bar in self.open else []
        places = [f"{one.label}, {one.unit} {min(one.done + 1, one.total):,} of {one.total:,}" for one in outer]
        return ": ".join([*places, bar.label, bar.state(now)])

    def say(self, line: str) -> None:
        print(line, file=self.stream or sys.stderr, flush=True)


class Silence(Display):
    """Shows nothing."""

    def moved(self, bar: Bar) -> None:
        pass

    def say(self, line: str) -> None:
        pass


class Terminal(Display):
    """rich's bars, gone when the work is done."""

    def __init__(self, console: Any, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console.file, clock)
        self.console = console
        self.bars: Any = None
        self.next = 0.0

    def opened(self, bar: Bar) -> None:
        self.open.append(bar)

    def moved(self, bar: Bar) -> None:
        now = self.clock()
        shown = [one for one in self.open if now - one.started >= APPEAR]  # what is over at once does not flicker
        if now < self.next or not shown:
            return
        self.next = now + REFRESH
        if self.bars is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            text = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[state]}", markup=False)
            columns = text[0], BarColumn(bar_width=20), MofNCompleteColumn(), text[1]
            # What is printed meanwhile appears above the bars, but results that go to a file still go there.
            both = sys.stdout.isatty()
            self.bars = Progress(
                *columns, console=self.console, transient=True, redirect_stdout=both, auto_refresh=False
            )
            self.bars.start()
        for one in shown:
            if now - one.past[-1][0] >= EVERY:
                one.past.append((now, one.done))
            if one.task is None:
                one.task = self.bars.add_task(one.label, total=one.total, state="")
            rest = one.state(now).partition(" %), ")[2]
            self.bars.update(one.task, description=one.label, completed=one.done, state=rest)
        self.bars.refresh()

    def closed(self, bar: Bar) -> None:
        if self.bars is not None and bar in self.open:
            if bar is self.open[0]:
                self.bars.stop()
                self.bars = None
            elif bar.task is not None:
                self.bars.remove_task(bar.task)
                self.bars.refresh()
        super().closed(bar)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


_display: Display | None = None


@contextmanager
def shown_on(display: Display) -> Iterator[None]:
    """Show the work of this context on ``display``."""
    global _display
    before, _display = _display, display
    try:
        yield
    finally:
        _display = before


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Show nothing of the work of this context."""
    if quiet:
        with shown_on(Silence()):
            yield
    else:
        yield


@contextmanager
def progress(label: str, total: int, unit: str = "step", done: int = 0, at_most: bool = False) -> Iterator[Bar]:
    """Show a piece of work while the context lasts.

    Args:
        label: what is done: "encoding images".
        total: units of work in all.
        unit: the singular noun of what is counted.
        done: units that are done already; the rate counts from there.
        at_most: the work may stop before ``total``.
    """
    global _display
    display, outermost = _display or _made_for(sys.stderr), _display is None
    _display = display
    bar = Bar(display, label, total, unit, done, at_most)
    display.opened(bar)
    try:
        yield bar
    finally:
        display.closed(bar)
        if outermost:
            _display = None


def over(items: Any, label: str, unit: str = "batch") -> Iterator[Any]:
    """Each of ``items``, such as a loader's batches, while their number is shown; they must have a length."""
    with progress(label, len(items), unit) as bar:
        for item in items:
            yield item
            bar.advance()


def stop() -> None:
    """Take all bars away: an error may have left some open in a generator."""
    if _display is not None and _display.open:
        _display.closed(_display.open[0])


_lines = Display()  # one for the process: many short pieces of work in a row show themselves too


def _made_for(stream: TextIO) -> Display:
    """Bars where ``stream`` is a terminal (or a notebook), else lines."""
    from rich.console import Console

    console = Console(file=stream)
    if (console.is_terminal and not console.is_dumb_terminal) or console.is_jupyter:
        return Terminal(console)
    return _lines
