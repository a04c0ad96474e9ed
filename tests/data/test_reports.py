"""What a corpus's reports were read for, and that everything is counted."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingula.data.reports import ONE_WORD, TAIL, UNFINISHED, ReportReader, Tally, say_what_was_read, what_was_read
from lingula.data.sentences import report_sentences
from lingula.data.tokens import MAX_TOKENS, tokenise, train_tokenizer
from lingula.registry import UserError

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
IU_REPORTS = DATA / "iu_reports" / "reports.csv"

REPORT = "INDICATION: Cough for a week.\nFINDINGS: Clear lungs. Normal.\nLUNG BASES: Clear too.\nSEEN BY: Dr. X.\n"
REPORT += "IMPRESSION: No disease.\nMEDICAL STAFF: Someone."
OTHER = "Utlåtande: Ingen pleuravätska. Hjärtat är normalt."


def nonspace(text: str) -> int:
    return len("".join(text.split()))


def test_a_report_and_its_counts() -> None:
    reader = ReportReader()
    reading = reader.read(REPORT)
    assert reading.sentences == ["clear lungs.", "lung bases: clear too.", "seen by: dr. x.", "no disease."]
    assert reading.dropped == [
        ("indication", "Cough for a week."),
        ("medical staff", "Someone."),
        (ONE_WORD, "Normal."),
    ]
    assert reading.dropped_names == f"'indication', 'medical staff', '{ONE_WORD}'"
    assert reading.enough
    reader.read(OTHER)
    reader.read("")
    reader.read("   ")
    reader.read(REPORT, count=False)
    tally = reader.tally
    assert tally.reports == 2
    kept = nonspace("clear lungs. lung bases: clear too. seen by: dr. x. no disease.") + nonspace(OTHER)
    assert tally.kept == Counter(sentences=6, characters=kept)
    assert tally.dropped == {
        "indication": Counter(sentences=1, characters=14),
        "medical staff": Counter(sentences=1, characters=8),
        ONE_WORD: Counter(sentences=1, characters=7),
    }
    assert tally.unknown == {"lung bases": 1, "seen by": 1, "medical staff": 1, "utlåtande": 1}
    assert tally.languages == {"English": 1, "unknown": 1}
    assert tally.characters == kept + 29


def test_sections_that_are_separate_have_no_headings() -> None:
    reader = ReportReader()
    reading = reader.read_sections([r"HISTORY: Clear lungs.\nNormal heart.", "", "['No disease.', 'None seen.']"])
    assert reading.sentences == ["history: clear lungs.", "normal heart.", "no disease.", "none seen."]
    assert reading.body == "HISTORY: Clear lungs.\nNormal heart.\n\nNo disease.\n\nNone seen."
    assert not reading.dropped


def test_titles_and_tails_are_counted() -> None:
    reader = ReportReader()
    reading = reader.read("Chest 1 view\n\nHeart is normal.", finished_only=True, tail="\nACCESSION NUMBER: 12")
    assert reading.sentences == ["heart is normal."]
    assert reading.dropped == [(TAIL, "ACCESSION NUMBER: 12"), (UNFINISHED, "Chest 1 view")]


@given(st.lists(st.sampled_from([REPORT, OTHER, "双肺清晰。", "Normal.", "NOTE: x", ""]), max_size=6))
def test_kept_and_dropped_are_everything(reports: list[str]) -> None:
    reader = ReportReader()
    readings = [reader.read(report) for report in reports]
    shown = sum(
        nonspace(reading.body) + sum(nonspace(t) for n, t in reading.dropped if n != ONE_WORD) for reading in readings
    )
    assert reader.tally.characters == shown


TABLE = """\
report text: 2 read
  sentences     characters
          6             97  77.0%  kept
          1             14  11.1%  dropped: indication (by design)
          1              8   6.3%  dropped: 'medical staff' (not known)
          1              7   5.6%  dropped: sentences of one word
  characters without spaces, headings and list marks
  language, guessed: English 50.0%, unknown 50.0%
  headings not known, in how many reports: 'lung bases' 1, 'medical staff' 1,
    'seen by' 1, 'utlåtande' 1"""


def test_the_table() -> None:
    reader = ReportReader()
    reader.read(REPORT)
    reader.read(OTHER)
    assert "\n".join(reader.tally.lines()) == TABLE
    lines: list[str] = []
    say_what_was_read("mine", reader, lines.append)
    assert lines[0] == "mine: report text: 2 read"
    warning = " ".join(line.strip() for line in lines[len(TABLE.splitlines()) :])
    assert warning.startswith("mine: warning: 23% of the report text was dropped, 11% by design (indication, ")
    assert warning.endswith("name its heading in a file: --headings FILE")
    assert max(map(len, lines)) <= 80


def test_the_table_is_bounded_and_narrow() -> None:
    reader = ReportReader()
    for number in range(60):
        letters = "".join(chr(65 + int(digit)) for digit in f"{number:02}")
        reader.read(f"FINDINGS: Clear lungs here.\nIMPRESSION: Fine lungs.\n{letters * 15}: {'word ' * (number + 1)}")
    for _ in range(9):
        reader.read("FINDINGS: Clear lungs here.\n【很长的检查报告标题名称没有人知道】")
    lines = list(reader.tally.lines())
    assert len(lines) < 40
    assert max(len(line) + sum(letter > "\u3000" for letter in line) for line in lines) <= 80
    assert "'很长的检查报告标题..." in "\n".join(lines)
    assert "dropped: 50 other headings" in "\n".join(lines)
    assert ", and 51 more" in "\n".join(lines)
    summary = reader.tally.summary()
    assert len(summary["dropped"]) == len(summary["unknown_headings"]) == 50
    assert summary["dropped_in_all"]["characters"] == 4 * sum(range(1, 61))
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize(
    ("reports", "option", "words"),
    [
        (["FINDINGS: Clear lungs here.\nNOTE: No."] * 3, "--headings FILE", ""),
        (["IMPRESSION: Clear lungs here.\nHISTORY: No."] * 3, "--headings FILE", ""),
        (
            ["IMPRESSION: Clear lungs.\nHISTORY: Cough for weeks."] * 3,
            "--headings FILE",
            "by design (indication, comparison, technique and the like)",
        ),
        (
            ["FINDINGS: Clear it.\nIMPRESSION: Ok.\nREADING: All the lungs."],
            "--headings FILE",
            "; most of it is 'reading' (not known), ",
        ),
        (
            ["HISTORY: Cough.\n\nNot a sentence\n\nIMPRESSION: Clear lungs."],
            "--headings FILE",
            "most of the rest is text below an indication, 41%",
        ),
        (["Heart is large. FINDINGS: Clear lungs."], "--headings FILE", "most of it is text under no heading"),
        (["Normal. Clear lungs."], "", "most of it is sentences of one word, 39%, which are never read"),
    ],
)
def test_much_that_is_dropped_is_said(reports: list[str], option: str, words: str) -> None:
    reader = ReportReader(option=option)
    for report in reports:
        reader.read(report)
    warning = reader.tally.warning(reader.option)
    assert (words in warning) if words else not warning
    assert ("--headings" in warning) == ("(not known)" in warning)  # the advice helps there alone


def test_a_file_of_headings_changes_what_is_read_and_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "h.yaml").write_text("impression:\n  sv: [Slutsats]\nindication:\n  sv: [Anledning]\n")
    report = "ANLEDNING: Hosta länge.\nFINDINGS: Clear lungs.\nSLUTSATS: Normal bild."
    plain, ours = ReportReader(), ReportReader(tmp_path / "h.yaml")
    assert plain.read(report).sentences == ["clear lungs.", "slutsats: normal bild."]
    assert ours.read(report).sentences == ["clear lungs.", "normal bild."]
    prints = [plain.fingerprint(), ours.fingerprint()]
    monkeypatch.setattr("lingula.data.reports.RULES", 0)
    assert len({*prints, plain.fingerprint(), ours.fingerprint()}) == 4
    with pytest.raises(UserError, match="cannot read the headings"):
        ReportReader(tmp_path / "none.yaml")


def test_the_cut_is_a_lower_bound_and_exact_where_every_word_is_a_token(tmp_path: Path) -> None:
    sentence = "the heart is normal in size today ."
    reports = [[sentence] * count for count in (1, 31, 32, 60)] + [["the " * 300, sentence], []]
    reader = ReportReader()
    for report in reports:
        reader.read_sections(["\n\n".join(report)])
    words = train_tokenizer([sentence] * 50, tmp_path / "words", 300)
    exact = tokenise(reports, words)
    left_out = int(exact.first_sentence[-1] - exact.sentences.sum())
    assert reader.tally.cut == Counter(reports=exact.cut, sentences=left_out) == Counter(reports=3, sentences=31)
    assert exact.cut_line == f"3 of 5 reports were cut at {MAX_TOKENS} tokens; 31 sentences left out"
    assert tokenise(reports[:2], words).cut_line == ""
    pieces = train_tokenizer(["a b c d e f g h i l m n o r s t u y z ."], tmp_path / "letters", 100)
    assert tokenise(reports, pieces).cut >= 3
    assert f"3 reports or more are longer than {MAX_TOKENS} tokens: 31 of their" in " ".join(reader.tally.lines())


def test_a_corpus_without_reports_says_nothing() -> None:
    lines: list[str] = []
    for reader in (None, ReportReader()):
        assert what_was_read(reader) == {}
        say_what_was_read("x", reader, lines.append)
    assert not lines
    assert not list(Tally().lines())


# Real reports ---------------------------------------------------------------------------------------------------------

FORMS = {
    "paragraphs": ("\n\n", "{}: {}", str.upper),
    "one line": (" ", "{}: {}", str.upper),
    "title case": ("\n", "{}: {}", str.title),
    "lines of their own": ("\n", "{}\n{}\n", str.upper),
    "Markdown": ("\n\n", "## {}\n{}", str.title),
    "small letters": ("\n", "{}: {}", str.lower),
    "escaped": (r"\n", "{}: {}", str.upper),
}


@pytest.mark.parametrize("form", FORMS)
def test_real_reports_however_they_are_laid_out(form: str) -> None:
    """The sections of 3,141 reports are separate: put together in any way, they must come apart as they were."""
    if not IU_REPORTS.is_file():
        pytest.skip("the reports of Indiana University are not on this machine (set LINGULA_DATA)")
    table = pd.read_csv(IU_REPORTS, keep_default_na=False)[["indication", "comparison", "findings", "impression"]]
    between, written, case = FORMS[form]
    step = len(FORMS)  # every report is read in one of the forms
    reader = ReportReader()
    marks = r"&|<br|\n|comparison:|chest:"  # HTML, several paragraphs, and headings inside a section
    rows = table.iloc[list(FORMS).index(form) :: step]
    rows = rows[~rows.apply(lambda row: row.str.contains(marks, case=False).any(), axis=1)]
    assert len(rows) > 400
    for row in rows.to_dict("records"):
        text = between.join(written.format(case(name), cell) for name, cell in row.items() if cell)
        separate = [sentence for name in ("findings", "impression") for sentence in report_sentences(row[name])]
        assert reader.read(text).sentences == separate, text
    assert reader.tally.languages["English"] > 0.995 * reader.tally.reports
