"""Spreadsheets: the rows of one sheet of an Excel or OpenDocument file, as text. Floor 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lingula.data.missing import MISSING
from lingula.registry import UserError, nearest

ENDINGS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how their files begin
EXACT = 1e15  # spreadsheets keep 15 digits of a number


@dataclass(frozen=True)
class Sheet:
    """One sheet.

    Attributes:
        name: as its tab says.
        others: names of the other sheets that are not empty.
        rows: cells as they are stored, from the first row of the sheet on: text, numbers, dates and truth values.
    """

    name: str
    others: tuple[str, ...]
    rows: list[list[Any]]

    def cells(self) -> Iterator[tuple[int, list[str]]]:
        """Row by row, its number in the sheet and its cells as text."""
        for number, row in enumerate(self.rows, start=1):
            yield number, [cell_text(value) for value in row]

    @property
    def remarks(self) -> list[str]:
        """What the reader of this sheet should know: other sheets, and numbers too long to be exact."""
        said = []
        if self.others:
            named = ", ".join(f"'{name}'" for name in self.others)
            said.append(f"sheet '{self.name}' is read; other sheets with rows: {named} (--sheet chooses)")
        long = [
            (number, value)
            for number, row in enumerate(self.rows, start=1)
            for value in row
            if isinstance(value, int | float) and abs(value) >= EXACT
        ]
        if long:
            number, value = long[0]
            said.append(
                f"{len(long):,} numbers of more than 15 digits, of which a spreadsheet keeps 15, such as "
                f"{cell_text(value)} in row {number} of sheet '{self.name}'; ids must be stored as text"
            )
        return said


def read_sheet(path: Path, sheet: str | None = None) -> Sheet:
    """One sheet of a spreadsheet: that of the given name, else the first that is visible and not empty.

    Formulas count with the value that was saved, errors such as ``#N/A`` and formulas never computed as empty cells.

    Raises:
        UserError: if the file is missing or no spreadsheet, or has no such sheet.
    """
    from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

    if not path.is_file():
        raise UserError(f"no table at {path}")
    try:
        book = CalamineWorkbook.from_path(path)
        tables = {entry.name: entry for entry in book.sheets_metadata if entry.typ == SheetTypeEnum.WorkSheet}
        if sheet is not None and sheet not in tables:
            hint = nearest(sheet, tables)
            raise UserError(f"{path.name} has no sheet '{sheet}'{hint}; its sheets: {', '.join(tables)}")
        full = [name for name in tables if book.get_sheet_by_name(name).height]
        shown = [name for name in full if tables[name].visible == SheetVisibleEnum.Visible]
        chosen = sheet or next(iter([*shown, *full, *tables]), None)
        rows = book.get_sheet_by_name(chosen).to_python(skip_empty_area=False) if chosen else []
    except OSError as err:
        raise UserError(f"cannot read table {path}: {err}") from err
    except CalamineError as err:
        with path.open("rb") as file:
            hint = "" if file.read(4) in MAGIC else "; it is no spreadsheet inside: if it is text, name it .csv"
        raise UserError(f"cannot read table {path}: {err}{hint}") from err
    others = [] if sheet else [name for name in full if name != chosen]
    return Sheet(chosen or "", tuple(others), rows)


def cell_text(value: Any) -> str:
    """One cell as text: 3.0 as "3", a date as 2020-01-22, what is missing as the empty string."""
    if isinstance(value, str):
        return value.strip()
    if str(value).lower() in MISSING:
        return ""
    whole = not isinstance(value, bool) and hasattr(value, "is_integer") and value.is_integer()
    return str(int(value) if whole else value).strip()
