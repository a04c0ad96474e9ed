"""Tables as plain text: columns in line, nothing cut off, in parts where the terminal is too narrow for all."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

Cell = tuple[str, str]  # text and style: "bold", or nothing
GAP = 2  # blanks between columns


def print_table(title: str, heading: Sequence[str], body: Sequence[Sequence[str | Cell]]) -> None:
    """Print a table to stdout.

    Args:
        title: above it.
        heading: of the columns; long ones are broken between words, never within one.
        body: lines of as many cells.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(width=10_000)  # it would break lines; the parts are narrow enough
    width = shutil.get_terminal_size().columns
    for line in table(title, heading, [[_cell(cell) for cell in cells] for cells in body], width):
        text = Text()
        for word, style in line:
            text.append(word, style)
        text.rstrip()
        console.print(text, soft_wrap=True)


def table(title: str, heading: Sequence[str], body: Sequence[Sequence[Cell]], width: int) -> list[list[Cell]]:
    """The lines of a table, each in pieces with their styles; a part leaves out the lines that are empty in it.

    Args:
        title, heading, body: as in :func:`print_table`.
        width: letters in a line.
    """
    columns = [[cells[place][0] for cells in body] for place in range(len(heading))]
    wide = [max(map(len, (*head.split(), *own)), default=0) for head, own in zip(heading, columns, strict=True)]
    lines: list[list[Cell]] = [[(title, "bold")]]
    for part in parts_within(width, wide):
        heads = [textwrap.wrap(heading[place], wide[place], break_on_hyphens=False) for place in part]
        for row in range(max(map(len, heads))):
            words = [head[row] if row < len(head) else "" for head in heads]
            lines.append([_padded((word, ""), wide[place]) for word, place in zip(words, part, strict=True)])
        lines.append([_padded(("-" * wide[place], ""), wide[place]) for place in part])
        rows = [cells for cells in body if any(cells[place][0] for place in part[1:]) or len(part) == 1]
        lines += [[_padded(cells[place], wide[place]) for place in part] for cells in rows]
        lines.append([])
    return lines


def parts_within(width: int, wide: Sequence[int]) -> list[list[int]]:
    """Places of the columns of each part of a table, the first column in each.

    Example:
        >>> parts_within(20, [6, 5, 5, 5])
        [[0, 1, 2], [0, 3]]
    """
    parts: list[list[int]] = [[0]]
    for place in range(1, len(wide)):
        if len(parts[-1]) > 1 and sum(wide[other] + GAP for other in parts[-1]) + wide[place] > width:
            parts.append([0])
        parts[-1].append(place)
    return parts


def _cell(cell: str | Cell) -> Cell:
    return (cell, "") if isinstance(cell, str) else cell


def _padded(cell: Cell, width: int) -> Cell:
    return cell[0].ljust(width + GAP), cell[1]
