"""Spreadsheets: files written by hand as their standards say, and by openpyxl and odfpy where they are installed."""

import datetime
import math
import zipfile

import pandas as pd
import pytest

from lingula.data.sheets import cell_text, read_sheet
from lingula.data.tables import read_any_table
from lingula.registry import UserError

# ECMA-376: the smallest workbook. Strings stand in the cell; style 1 is a date, days since 1899-12-30.
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
STYLES = f"""<styleSheet xmlns="{MAIN}"><fonts count="1"><font/></fonts><fills count="1"><fill/></fills>
<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs>
<cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14" applyNumberFormat="1"/><xf numFmtId="22" applyNumberFormat="1"/>
</cellXfs></styleSheet>"""


def xlsx(path, sheets):
    """``{sheet: {"B3": cell}}``; a sheet whose name begins with a dot is hidden."""
    with zipfile.ZipFile(path, "w") as book:
        kinds = ['<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.'
                 'spreadsheetml.sheet.main+xml"/>']  # fmt: skip
        names, links = [], []
        for place, (name, cells) in enumerate(sheets.items(), start=1):
            rows = {}
            for where, value in cells.items():
                rows.setdefault(int(where.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")), []).append(cell(where, value))
            data = "".join(f'<row r="{row}">{"".join(rows[row])}</row>' for row in sorted(rows))
            text = f'<worksheet xmlns="{MAIN}"><sheetData>{data}</sheetData></worksheet>'
            book.writestr(f"xl/worksheets/sheet{place}.xml", text)
            state = ' state="hidden"' if name.startswith(".") else ""
            names.append(f'<sheet name="{name}" sheetId="{place}" r:id="r{place}"{state}/>')
            links.append(
                f'<Relationship Id="r{place}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{place}.xml"/>'
            )
        links.append(f'<Relationship Id="rs" Type="{OFFICE}/styles" Target="styles.xml"/>')
        workbook = f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{"".join(names)}</sheets></workbook>'
        relations = f'<Relationships xmlns="{PACKAGE}/relationships">'
        book.writestr("xl/workbook.xml", workbook)
        book.writestr("xl/styles.xml", STYLES)
        book.writestr("xl/_rels/workbook.xml.rels", f"{relations}{''.join(links)}</Relationships>")
        book.writestr("_rels/.rels", f'{relations}<Relationship Id="r1" Type="{OFFICE}/officeDocument" '
                                     'Target="xl/workbook.xml"/></Relationships>')  # fmt: skip
        book.writestr("[Content_Types].xml", f'<Types xmlns="{PACKAGE}/content-types">{"".join(kinds)}</Types>')
    return path


def cell(where, value):
    if isinstance(value, bool):
        return f'<c r="{where}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, datetime.datetime | datetime.date):
        days = pd.Timestamp(value) - pd.Timestamp("1899-12-30")
        style = 2 if isinstance(value, datetime.datetime) else 1
        return f'<c r="{where}" s="{style}"><v>{days / pd.Timedelta(days=1)!r}</v></c>'
    if isinstance(value, int | float):
        return f'<c r="{where}"><v>{value!r}</v></c>'
    if value.startswith("#"):
        return f'<c r="{where}" t="e"><v>{value}</v></c>'
    if value.startswith("="):  # a formula, and the text that it gave when the file was saved
        return f'<c r="{where}" t="str"><f>{value[1:]}</f><v>saved</v></c>'
    return f'<c r="{where}" t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'


def ods(path, rows):
    """OpenDocument 1.3 with one sheet of texts and numbers; three empty rows in between are one element."""
    office = "urn:oasis:names:tc:opendocument:xmlns"
    body = ""
    for row in rows:
        cells = "".join(
            f'<table:table-cell office:value-type="string"><text:p>{value}</text:p></table:table-cell>'
            if isinstance(value, str)
            else f'<table:table-cell office:value-type="float" office:value="{value}"/>'
            for value in row
        )
        repeated = "" if row else ' table:number-rows-repeated="3"'
        body += f"<table:table-row{repeated}>{cells or '<table:table-cell/>'}</table:table-row>"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        book.writestr(
            "content.xml",
            f'<office:document-content xmlns:office="{office}:office:1.0" xmlns:table="{office}:table:1.0" '
            f'xmlns:text="{office}:text:1.0"><office:body><office:spreadsheet><table:table table:name="Befunde">{body}'
            "</table:table></office:spreadsheet></office:body></office:document-content>",
        )
        book.writestr("META-INF/manifest.xml", f'<m:manifest xmlns:m="{office}:manifest:1.0"/>')
    return path


CELLS = {
    "A1": "image", "B1": "day", "C1": "time", "D1": "label", "E1": "real", "F1": "truth", "G1": "sum",
    "A2": "0001", "B2": datetime.date(2020, 1, 22), "C2": datetime.datetime(2020, 1, 22, 14, 30),
    "D2": 3.0, "E2": 0.1, "F2": True, "G2": "=1+1",
    "A5": " 007 ", "D5": -1, "E5": "#N/A", "F5": False,
}  # fmt: skip


def test_cells_become_text_and_rows_keep_their_numbers(tmp_path):
    table = read_any_table(xlsx(tmp_path / "t.xlsx", {"Befunde": CELLS}), ["image"])
    assert table.columns == ["image", "day", "time", "label", "real", "truth", "sum"]
    assert table.rows == [
        ["0001", "2020-01-22", "2020-01-22 14:30:00", "3", "0.1", "True", "saved"],
        ["007", "", "", "-1", "", "False", ""],
    ]
    assert [where for where, _ in table] == ["row 2 of t.xlsx", "row 5 of t.xlsx"]
    assert table.remarks == []


def test_a_table_that_begins_elsewhere(tmp_path):
    table = read_any_table(xlsx(tmp_path / "t.xlsx", {"s": {"C4": "image", "D4": "n", "C6": "a.png", "D6": 1}}))
    assert [row for _, row in table] == [{"": "", "image": "a.png", "n": "1"}]
    assert table.numbers == [6]
    title = {"A1": "Export", "A3": "image", "B3": "n", "A4": "a.png", "B4": 1}
    with pytest.raises(
        UserError,
        match=r"row 3 of t\.xlsx: wrong number of cells: expected 1 cells as .*, got 2; is the first row a title",
    ):
        read_any_table(xlsx(tmp_path / "t.xlsx", {"s": title}))


def test_open_document(tmp_path):
    table = read_any_table(ods(tmp_path / "t.ods", [["image", "n"], ["0001", 3.0], [], ["é &lt; b", 0.5]]))
    assert table.rows == [["0001", "3"], ["é < b", "0.5"]]
    assert [where for where, _ in table] == ["row 2 of t.ods", "row 6 of t.ods"]


def test_which_sheet_is_read(tmp_path):
    sheets = {
        "leer": {},
        ".alt": {"A1": "x"},
        "Befunde": {"A1": "image", "A2": "a"},
        "Codes": {"A1": "image", "A2": "b"},
    }
    path = xlsx(tmp_path / "t.xlsx", sheets)
    table = read_any_table(path)
    assert list(table) == [("row 2 of sheet 'Befunde' of t.xlsx", {"image": "a"})]
    assert table.remarks == ["sheet 'Befunde' is read; other sheets with rows: '.alt', 'Codes' (--sheet chooses)"]
    named = read_any_table(path, sheet="Codes")
    assert list(named) == [("row 2 of sheet 'Codes' of t.xlsx", {"image": "b"})]
    assert named.remarks == []
    with pytest.raises(UserError, match=r"t\.xlsx has no sheet 'Befund'; did you mean 'Befunde'\?; its sheets: leer"):
        read_any_table(path, sheet="Befund")
    with pytest.raises(UserError, match="is empty"):
        read_any_table(path, sheet="leer").require("image")
    with pytest.raises(UserError, match=r"t\.xlsx is empty"):
        read_any_table(xlsx(path, {"a": {}, "b": {}})).require("image")


def test_numbers_that_a_spreadsheet_has_cut_are_said(tmp_path):
    cells = {"A1": "id", "A2": 2020012212345678, "A3": 1e15, "A4": 999999999999999, "A5": "2020012212345678"}
    (remark,) = read_any_table(xlsx(tmp_path / "t.xlsx", {"s": cells})).remarks
    assert remark == (
        "2 numbers of more than 15 digits, of which a spreadsheet keeps 15, such as 2020012212345678 in row 2 of sheet "
        "'s'; ids must be stored as text"
    )


def test_files_that_are_no_spreadsheets(tmp_path):
    for name in ("none.xlsx", "none.ods", "none.xls"):
        with pytest.raises(UserError, match=f"no table at .*{name}"):
            read_sheet(tmp_path / name)
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        with pytest.raises(UserError, match=f"cannot read table .*{name}: [^;]*$"):
            read_sheet(tmp_path / name)
        (tmp_path / name).write_text("image\ta\n")  # as programs write text for Excel
        with pytest.raises(UserError, match=f"{name}: .*; it is no spreadsheet inside: if it is text, name it .csv"):
            read_sheet(tmp_path / name)


FRAME = {
    "id": ["0001", "2", "x y"],
    "report": ['say "no"; or, so', "two\nlines", "Größe é 心"],
    "whole": [1.0, -1.0, math.nan],
    "real": [0.25, 1e-7, 123456.789],
    "truth": [True, False, True],
    "day": [datetime.date(1999, 12, 31), None, datetime.date(2024, 2, 29)],
}


@pytest.mark.parametrize(("ending", "engine"), [("xlsx", "openpyxl"), ("ods", "odf")])
def test_as_another_library_wrote_it(tmp_path, ending, engine):
    pytest.importorskip(engine)
    path = tmp_path / f"t.{ending}"
    with pd.ExcelWriter(path, engine=engine) as writer:
        pd.DataFrame(FRAME).to_excel(writer, sheet_name="one", index=False)
        pd.DataFrame({"image": ["b"]}).to_excel(writer, sheet_name="two", index=False)
    table = read_any_table(path)
    cells = {column: [row[column] for _, row in table] for column in table.columns}
    assert cells == {
        "id": FRAME["id"],
        "report": FRAME["report"],
        "whole": ["1", "-1", ""],
        "real": ["0.25", "1e-07", "123456.789"],
        "truth": ["True", "False", "True"],
        "day": ["1999-12-31", "", "2024-02-29"],
    }
    assert table.numbers == [2, 3, 4]
    assert table.remarks == ["sheet 'one' is read; other sheets with rows: 'two' (--sheet chooses)"]


def test_cells_of_other_kinds():
    assert cell_text(datetime.time(8, 5)) == "08:05:00"
    assert cell_text(None) == cell_text(math.nan) == cell_text(pd.NaT) == ""
    assert cell_text("nan") == "nan"  # a word that somebody wrote
