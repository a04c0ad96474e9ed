"""Quotes in tables of text that are not as the standard has them. Floor 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


class Escapes:
    r"""Lines in which ``\"`` becomes ``""``, as the standard has it; other backslashes, as in paths, stay."""

    def __init__(self) -> None:
        self.count = self.first = 0

    def __call__(self, lines: Iterable[str]) -> Iterator[str]:
        for number, line in enumerate(lines, start=1):
            mended, count = re.subn(r'\\"', '""', line)
            self.count += count
            self.first = self.first or (number if count else 0)
            yield mended


class Swallowed:
    """Cells that hold a line break and what looks like the beginning of another row: a quote was not closed.

    Reports of several lines hold delimiters too. What stands before the first one of a line must therefore be made as
    the first cell of the row is, such as ``p1/s1.png`` and ``p2/s10.png``; a single word without a digit does not count
    unless a tab follows.
    """

    def __init__(self, separator: str) -> None:
        self.begins = re.compile(rf"[\r\n][ \"]*([^\r\n{re.escape(separator)}]*){re.escape(separator)}")
        self.word = separator == "\t"  # whether a single word counts
        self.found: list[tuple[int, str]] = []

    def __call__(self, rows: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
        for number, cells in rows:
            for cell in cells:
                if "\n" in cell or "\r" in cell:
                    for match in self.begins.finditer(cell):
                        if self._alike(match[1].strip(), cells[0]):
                            self.found.append((number, " ".join(cell[match.start() :].split())[:60]))
                            break
            yield number, cells

    def remarks(self, name: str) -> list[str]:
        """A line for the log; none where no cell is suspicious."""
        if not self.found:
            return []
        count = f"{len(self.found):,} cell{'s' * (len(self.found) > 1)}"
        number, text = self.found[0]
        return [
            f"{count} of {name} may hold rows that follow, because of a quote that is not closed, the first in row "
            f"{number}: '{text}'; a cell with a quote in it must be quoted as a whole, and the quote doubled"
        ]

    def _alike(self, begins: str, first: str) -> bool:
        shapes = {re.sub(r"[^\W_]+", "a", text) for text in (begins, first)}
        digits = all(re.search(r"\d", text) for text in (begins, first))
        return len(shapes) == 1 and bool(first) and (self.word or digits or shapes != {"a"})
