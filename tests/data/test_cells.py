"""What exports do to a text, and what is left of it."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingula.data.cells import clean_text, oddities

CELLS = {
    # escaped
    r"FINDINGS: Small.\nHeart.\r\nIMPRESSION:\tOk.": "FINDINGS: Small.\nHeart.\nIMPRESSION:\tOk.",
    r"Lungs are\\nclear. \\nHeart.": "Lungs are\nclear. \nHeart.",
    r"left\right mass\nodule, w\no change": r"left\right mass\nodule, w\no change",  # a slash the wrong way round
    r"\u00c9panchement \xe0 gauche, \"petit\"": 'Épanchement à gauche, "petit"',
    r"INDICATION: Cough.\.br\FINDINGS: A\T\B.\X0D\\X0A\Heart.": "INDICATION: Cough.\nFINDINGS: A&B.\nHeart.",  # HL7
    "INDICATION: a.|FINDINGS: b. || IMPRESSION: Ok | so": "INDICATION: a.\nFINDINGS: b.\nIMPRESSION: Ok | so",
    # HTML and XML
    "INDICATION: a&#10;FINDINGS: b<CR>c": "INDICATION: a\nFINDINGS: b\nc",
    "Clear.<br>Heart<BR/>is <b>large</b>.<p class='x'>Normal.</p>": "Clear.\nHeart\nis large.\nNormal.\n",
    "Size &lt; 5&nbsp;mm &amp;amp; R&amp;D &quot;veil&quot; AT&T": 'Size < 5 mm & R&D "veil" AT&T',
    "<5 mm and >3 mm, a<b": "<5 mm and >3 mm, a<b",
    "<findings>Clear.</findings> <XXXX>left<name>": "\nfindings:\nClear.\n <XXXX>left<name>",
    # spreadsheets
    "FINDINGS:_x000D_\nClear._x000d_\nHeart.": "FINDINGS:\nClear.\nHeart.",
    '"FINDINGS: the ""veil"" sign."': 'FINDINGS: the "veil" sign.',
    '"Veil" sign and "mass"': '"Veil" sign and "mass"',
    # letters
    "RE\u0301SULTAT\u00a0: 3\u202fmm\u200b\ufeff": "RÉSULTAT : 3 mm",
    "Clear.\x0bHeart.\x0cNormal.\u2028Ok.\rEnd": "Clear.\nHeart.\nNormal.\nOk.\nEnd",
    # lists and objects
    "['A left effusion.', 'The heart is big.']": "A left effusion.\n\nThe heart is big.",
    '["It\'s \\"big\\".", null, "Ok."]': 'It\'s "big".\n\nOk.',
    "['One.' 'Two.'\n 'Three.']": "One.\n\nTwo.\n\nThree.",  # NumPy
    "('One.', nan)": "One.",
    "['It's clear.', 'ok']": "It's clear.\n\nok",  # nobody escaped the quote
    """['It's clear.', "Patient's heart is big.", 'ok',]""": "It's clear.\n\nPatient's heart is big.\n\nok",
    "\"['It's clear.', 'ok']\"": "It's clear.\n\nok",
    "['It's clear, isn't it.']": "It's clear, isn't it.",
    '{"findings": ["One.", "Two."], "impression": "Three.", "indication": null}': (
        "FINDINGS:\n\nOne.\n\nTwo.\n\nIMPRESSION:\n\nThree."
    ),
    "['not closed": "['not closed",
    "[1, 2]": "[1, 2]",
    "[**2115-4-5**] and [**Name**]": "[**2115-4-5**] and [**Name**]",
    # Markdown
    "**Findings:** A **large** effusion.": "**Findings:** A large effusion.",
    "- **Impression**\nNo **acute** change": "- **Impression**\nNo acute change",
    # RTF
    r"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0\b FINDINGS:\b0  \'e9panchement, \u8805?5 mm.\par Heart \{large\}.}": (
        "FINDINGS: épanchement, ≥5 mm.\nHeart {large}."
    ),
    "": "",
}


@pytest.mark.parametrize("cell", CELLS)
def test_cells(cell: str) -> None:
    assert clean_text(cell) == CELLS[cell]
    assert clean_text(CELLS[cell]) == CELLS[cell]  # once is enough


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_letter_is_lost(text: str) -> None:
    plain = "".join(letter for letter in text if letter.isalnum() and letter.isascii() and letter not in "nrtxu")
    cleaned = Counter(clean_text(plain))
    assert cleaned == Counter(plain)
    assert clean_text(clean_text(text)) is not None


@given(st.lists(st.text("abc .'\n", min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=4))
def test_lists_come_apart_as_they_were(texts: list[str]) -> None:
    expected = clean_text("\n\n".join(texts))
    assert clean_text(json.dumps(texts)) == clean_text(repr(texts)) == expected


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("", ""),
        ("  \n ", ""),
        ("INDICATION: cough", "the cell holds 'INDICATION: cough'"),
        ("x" * 100, "the cell holds '" + "x" * 60 + "...'"),
        ("NaN", "a missing value written as text"),
        (r"INDICATION: a.\nHISTORY: b.", "line breaks written as a backslash and a letter"),
        ("<div>INDICATION: a.</div>", "HTML or XML tags"),
        ("INDICATION: Ã©panchement", "letters of a wrong encoding"),
        ("[1, 2]", "a list or an object instead of a text"),
        ("reports/p10/s1.txt", "the name of a file instead of its text"),
    ],
)
def test_what_is_odd_in_a_cell(cell: str, words: str) -> None:
    assert words in oddities(cell)
    assert bool(oddities(cell)) == bool(cell.strip())
