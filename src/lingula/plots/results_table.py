"""All measurements of a run as tables: a line a number, or, for a probe, a line a head."""

from __future__ import annotations

from typing import Any, NamedTuple

ABOUT = ("corpus", "split", "encoder", "protocol", "fraction", "train_studies", "seed")  # what a row says of itself
SETTINGS = ("corpus_fingerprint", "options")  # what else makes it another measurement


class Results(NamedTuple):
    """The rows of one task: names of its columns, cells as text, how many rows other checkpoints have, and notes."""

    task: str
    columns: list[str]
    rows: list[list[str]]
    left_out: int
    notes: list[str]


def result_tables(rows: list[dict[str, Any]], checkpoint: str) -> list[Results]:
    """``results.jsonl`` as one table a task: a line a number, or, for a probe, a line a head.

    Of a measurement that was repeated on the same checkpoint, the last row counts; those of other checkpoints are
    counted, not shown.
    """
    tables = []
    for task in dict.fromkeys(str(row.get("task")) for row in rows):
        own = [row for row in rows if str(row.get("task")) == task]
        current = [row for row in own if row.get("encoder") == "random" or row.get("checkpoint") in (None, checkpoint)]
        latest = list(
            {(*(str(row.get(key)) for key in ABOUT + SETTINGS), row.get("checkpoint")): row for row in current}.values()
        )
        latest.sort(key=lambda row: row.get("encoder") == "random")
        if not latest:
            continue
        about = [key for key in ABOUT if any(row.get(key) is not None for row in latest)]
        names = dict.fromkeys(
            key
            for row in latest
            for key, value in row.items()
            if key not in ABOUT + SETTINGS and isinstance(value, float) and not is_end(key, row)
        )
        if any("fraction" in row for row in latest):
            columns = [*about, *names]
            cells = [[with_interval(row, key) for key in columns] for row in latest]
        else:  # many numbers, few encoders: stand it on its side
            columns = ["", *(in_words(row.get("encoder")) for row in latest)]
            shown = [key for key in about if key != "encoder"]
            cells = [[key, *(with_interval(row, key) for row in latest)] for key in [*shown, *names]]
        tables.append(Results(task, columns, cells, len(own) - len(current), notes_of(latest)))
    return tables


def notes_of(rows: list[dict[str, Any]]) -> list[str]:
    """The labels that rows are about, and their remarks, each once."""
    notes = {f"labels: {', '.join(map(str, labels))}": None for row in rows if (labels := row.get("labels"))}
    notes |= dict.fromkeys(str(remark) for row in rows for remark in row.get("remarks") or ())
    return list(notes)


def is_end(key: str, row: dict[str, Any]) -> bool:
    """Whether a number is an end of another's interval."""
    name, _, end = key.rpartition("_")
    return end in ("low", "high") and name in row


def with_interval(row: dict[str, Any], key: str) -> str:
    """A cell with its 95 % interval, where it has one: ``0.193 (0.175–0.212)``."""
    ends = [row.get(f"{key}_{end}") for end in ("low", "high")]
    known = "" if None in ends else f" ({'–'.join(in_words(end) for end in ends)})"
    return in_words(row.get(key), key) + known


def in_words(value: Any, column: str = "") -> str:
    """A cell: whole numbers whole, fractions in per cent, others with three decimals, nothing as a dash."""
    if value is None:
        return "–"
    if column == "fraction":
        return f"{value:.3g}" if value < 0.01 else f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.3f}"
    return str(value)
