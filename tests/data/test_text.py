"""Sections and sentences against hand-made truth, 3,141 real reports, and properties of every text."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingula.data.text import count_tokens, report_body, report_sentences, sections, split_sentences

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
IU_REPORTS = DATA / "iu_reports" / "reports.csv"

# Sentences ------------------------------------------------------------------------------------------------------------

SENTENCES: dict[str, list[str]] = {
    # abbreviations
    "Discussed with Dr. Smith today. He agrees.": ["Discussed with Dr. Smith today.", "He agrees."],
    "Atelectasis vs. pneumonia. No effusion.": ["Atelectasis vs. pneumonia.", "No effusion."],
    "Lines, e.g. Port-A-Cath, i.e. central. Fine.": ["Lines, e.g. Port-A-Cath, i.e. central.", "Fine."],
    "Tip approx. 3 cm above the carina. Clear.": ["Tip approx. 3 cm above the carina.", "Clear."],
    "Tube No. 5 is in place. Tip is high.": ["Tube No. 5 is in place.", "Tip is high."],
    "Seen at 5 a.m. by the team. Stable.": ["Seen at 5 a.m. by the team.", "Stable."],
    "Called at 6 p.m. The tube was moved.": ["Called at 6 p.m.", "The tube was moved."],
    "PA and lat. views of the chest.": ["PA and lat. views of the chest."],
    "Read by J. R. Smith, M.D. on Monday.": ["Read by J. R. Smith, M.D. on Monday."],
    "Dictated by John F. Kennedy. Signed.": ["Dictated by John F. Kennedy.", "Signed."],
    "Known hepatitis B. Stable scarring.": ["Known hepatitis B.", "Stable scarring."],
    "R. lower lobe opacity. Compared with Jan. 2010.": ["R. lower lobe opacity.", "Compared with Jan. 2010."],
    # decimals and units
    "A 1.5 cm nodule. It was 1.2 cm.": ["A 1.5 cm nodule.", "It was 1.2 cm."],
    "Nodule of 1.5 cm. in the left apex. Unchanged.": ["Nodule of 1.5 cm. in the left apex.", "Unchanged."],
    "Mass of 2.5 x 3.4 cm. No effusion.": ["Mass of 2.5 x 3.4 cm.", "No effusion."],
    # enumerations
    "1. No effusion. 2. Stable heart.": ["No effusion.", "Stable heart."],
    "1. No effusion 2. Stable heart": ["No effusion", "Stable heart"],
    "1) Clear lungs.\n2) Normal heart.": ["Clear lungs.", "Normal heart."],
    "(1) Clear lungs. (2) Normal heart.": ["Clear lungs.", "Normal heart."],
    "1.No effusion.\n2.Heart normal": ["No effusion.", "Heart normal"],
    "Clear lungs\n1. no effusion\n2. heart normal": ["Clear lungs", "no effusion", "heart normal"],
    "Impression: 1. Old fracture of rib 2. No pneumothorax.": [
        "Impression:",
        "Old fracture of rib 2.",
        "No pneumothorax.",
    ],
    "Hand 1. Fracture. 2. Swelling. Chest 1. Clear.": ["Hand", "Fracture.", "Swelling.", "Chest", "Clear."],
    "Pneumothorax? No. 2. Heart is large.": ["Pneumothorax?", "No.", "Heart is large."],
    # de-identification marks
    "Compared to XXXX. XXXX opacity is new.": ["Compared to XXXX.", "XXXX opacity is new."],
    "Findings told to Dr. ___ at ___. Agreed.": ["Findings told to Dr. ___ at ___.", "Agreed."],
    "Since [**2115-4-5**]. Dr. [**First Name8 (NamePattern2) 12. **] saw it.": [
        "Since [**2115-4-5**].",
        "Dr. [**First Name8 (NamePattern2) 12. **] saw it.",
    ],
    # lines, bullets, ends
    "There is no focal\nconsolidation or\r\neffusion. Heart is normal": [
        "There is no focal consolidation or effusion.",
        "Heart is normal",
    ],
    "- No effusion\n- Heart is normal\n• Clear lungs": ["No effusion", "Heart is normal", "Clear lungs"],
    "Clear lungs\n\nNormal heart": ["Clear lungs", "Normal heart"],
    "No change - the heart is large.": ["No change - the heart is large."],
    "The lungs are clear.The heart is normal.": ["The lungs are clear.", "The heart is normal."],
    "no effusion. the heart is normal.": ["no effusion.", "the heart is normal."],
    "Mass (see above.) Biopsy advised.": ["Mass (see above.)", "Biopsy advised."],
    "? pneumonia. Cough ? duration": ["? pneumonia.", "Cough ? duration"],
    "Is it new? Yes! Done.. .": ["Is it new?", "Yes!", "Done.."],
    "Opacity in the left ... lower lobe.": ["Opacity in the left ... lower lobe."],
    "": [],
    " \n . - ": [],
}


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences(text: str) -> None:
    assert split_sentences(text) == SENTENCES[text]


PIECES = (
    "No effusion. heart Heart normal Dr. vs. e.g. 1. 2. 3) (4) 1.5 cm. cm XXXX ___ [**2115-4-5**] No. 5 12. a.m. ? ! . "
    "- • J. B. (see above.) \n \n\n \r\n rib Impression: \t lungs.The 1.No"
)
TEXTS = st.lists(st.sampled_from(PIECES.split(" ")), max_size=25).map(" ".join) | st.text(max_size=80)
MARK = re.compile(r"\d{1,2}")


def missing_words(text: str, sentences: list[str]) -> list[str]:
    """The words of the text that its sentences lack; fails where they have other words or another order."""
    left = iter(re.findall(r"\w+", text))
    missing = []
    for word in re.findall(r"\w+", "\n".join(sentences)):
        for candidate in left:
            if candidate == word:
                break
            missing.append(candidate)
        else:
            raise AssertionError(f"{word!r} is not in {text!r}, or not in this place")
    return missing + list(left)


@given(TEXTS)
def test_no_word_is_lost_or_invented_but_enumeration_marks(text: str) -> None:
    sentences = split_sentences(text)
    for word in missing_words(text, sentences):
        assert MARK.fullmatch(word)
        assert re.search(rf"\(?{word}[.)]", text)


@given(TEXTS)
def test_sentences_are_lines_with_words(text: str) -> None:
    for sentence in split_sentences(text):
        assert not re.search(r"[\n\r\t]|  ", sentence)
        assert sentence == sentence.strip()
        assert count_tokens(sentence) >= 1
        assert not re.match(r"\(?\d{1,2}[.)] ", sentence)


@given(st.lists(st.sampled_from(["No effusion is seen.", "Heart size is normal.", "A 1.5 cm nodule."]), max_size=8))
def test_joined_sentences_come_apart_however_they_are_laid_out(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences
    assert split_sentences("\n".join(sentences)) == sentences
    assert split_sentences(" ".join(sentences).replace(" ", "\n")) == sentences
    assert split_sentences("".join(f"{n}. {s}\n" for n, s in enumerate(sentences, 1))) == sentences
    assert split_sentences("".join(f"- {s[:-1]}\n" for s in sentences)) == [s[:-1] for s in sentences]


def test_report_sentences_are_lower_case_and_of_two_words_at_least() -> None:
    text = "Normal. Heart SIZE is normal. XXXX. Emphysema.\nNo acute disease"
    assert report_sentences(text) == ["heart size is normal.", "no acute disease"]
    assert count_tokens("No x-ray, 1.5 cm.") == 6  # no, x, ray, 1, 5, cm


# Sections -------------------------------------------------------------------------------------------------------------

MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with ascites  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation.  Bilateral
 nodular opacities.

 IMPRESSION:

 No acute process.
 ADDENDUM:  Discussed with Dr. ___.
"""

REPORTS: dict[str, dict[str, str]] = {
    MIMIC: {
        "examination": "CHEST (PA AND LAT)",
        "indication": "___F with ascites  // eval for infection",
        "comparison": "None.",
        "findings": "There is no focal consolidation.  Bilateral\n nodular opacities.",
        "impression": "No acute process.",
        "addendum": "Discussed with Dr. ___.",
    },
    "FINDINGS: a b. IMPRESSION: c d.": {"findings": "a b.", "impression": "c d."},
    "INDICATION: cough COMPARISON: none FINDINGS: clear Impression: normal": {
        "indication": "cough",
        "comparison": "none",
        "findings": "clear",
        "impression": "normal",
    },
    "Findings: a.\nComparison: b.\nFindings: c.": {"findings": "a.\n\nc.", "comparison": "b."},
    "findings:\na\nconclusion:\nb": {"findings": "a", "impression": "b"},
    "Findings\nClear lungs\nImpression\nNormal": {"findings": "Clear lungs", "impression": "Normal"},
    "FINDINGS AND IMPRESSION: clear": {"findings": "clear"},
    "FINDINGS/IMPRESSION: clear\nFINDINGS & IMPRESSION: too": {"findings": "clear\n\ntoo"},
    "FINDINGS (AP view): clear": {"findings": "clear"},
    "RECOMMENDATION(S): CT\nPORTABLE CHEST, ___: clear": {"recommendation": "CT", "portable chest, ___": "clear"},
    "PROVISIONAL FINDINGS IMPRESSION (PFI): ___ 2:19 PM\n Edema.\n________\n FINAL REPORT\n CHEST: clear": {
        "wet read": "___ 2:19 PM\n Edema.",
        "chest": "clear",
    },
    "**IMPRESSION:** clear": {"impression": "clear"},
    "REASON FOR EXAM: cough. TECHNIQUE: AP.": {"indication": "cough.", "technique": "AP."},
    "CHEST, PA AND LATERAL: clear.\nHISTORY: cough": {"chest, pa and lateral": "clear.", "history": "cough"},
    "Heart is normal. The impression: mild edema.": {"": "Heart is normal. The impression: mild edema."},
    "Preface.\nIMPRESSION: ok": {"": "Preface.", "impression": "ok"},
    "FINDINGS:\nIMPRESSION: ok": {"findings": "", "impression": "ok"},
    "": {},
}


@pytest.mark.parametrize("report", REPORTS)
def test_sections(report: str) -> None:
    assert sections(report) == REPORTS[report]


@given(TEXTS)
def test_a_text_without_headings_is_one_section(text: str) -> None:
    if ":" not in text and not sections(text).keys() - {""}:
        assert sections(text).get("", "").split() == text.split()


def test_the_body_is_findings_then_impression() -> None:
    assert report_body("IMPRESSION: second.\nHISTORY: no.\nFINDINGS: first.") == "first.\n\nsecond."
    assert report_body("IMPRESSION: only.\nHISTORY: no.") == "only."
    assert report_body("No headings here.") == "No headings here."
    assert report_body("EXAMINATION: CHEST\n\nREASON: cough\n\nHeart is normal.\nLungs are clear.\n") == (
        "Heart is normal.\nLungs are clear."
    )
    assert report_body("CHEST, PA: clear.\nHISTORY: cough") == "clear."
    assert report_body("HISTORY: cough") == ""
    assert report_sentences(report_body(MIMIC)) == [
        "there is no focal consolidation.",
        "bilateral nodular opacities.",
        "no acute process.",
    ]


FINAL = "                                 FINAL REPORT\n"
RULE = " ______________________________________________________________________________\n"
BODIES: dict[str, str] = {
    # a wet read before the report; the line between them is not text
    " WET READ: ___ ___ ___ 8:09 AM\n  edema\n WET READ VERSION #1 ___ ___ 11:26 PM\n"
    + RULE
    + FINAL
    + " INDICATION:  Cough.\n\n IMPRESSION:\n\n No edema is seen.\n": "No edema is seen.",
    # an addendum before the report, and one after it
    "                                 ADDENDUM  Corrected side: left.\n"
    + RULE
    + FINAL
    + " FINDINGS:  Right effusion.\n\n IMPRESSION:  Effusion\n"
    + RULE
    + " ADDENDUM:  Told to Dr. ___ by phone.\n": "Right effusion.\n\nEffusion",
    # a heading twice, once empty
    FINAL + " FINDINGS:\n\n FINDINGS:  Clear lungs.": "Clear lungs.",
    FINAL + " FINDINGS:  Clear.\n\n TECHNIQUE: AP.\n\n FINDINGS:  Large heart.": "Clear.\n\nLarge heart.",
    # the film's name as the heading of the reading
    FINAL + " INDICATION: Cough.\n\n PORTABLE AP CHEST:  Clear.\n\n IMPRESSION:  Normal.": "Clear.\n\nNormal.",
    FINAL + " FRONTAL AND LATERAL VIEWS OF THE CHEST:\n Clear lungs.": "Clear lungs.",
    FINAL + " SEMI-UPRIGHT PORTABLE CHEST RADIOGRAPH, ___:  Clear lungs.": "Clear lungs.",
    FINAL + " PORTABLE AP CHEST: ___.\n\n FINDINGS: Clear lungs.": "Clear lungs.",
    "WET READ: ___\n PORTABLE CHEST: Edema.\n" + FINAL + " CHEST: No edema.": "No edema.",
    "FINDINGS\r\nClear lungs.\r\nIMPRESSION:\r\nNormal.": "Clear lungs.\n\nNormal.",
    # headings below the findings belong to them, those after the impression do not
    "FINDINGS:\n LUNGS: Clear.\n HEART: Large.\n BONES:\n\nIMPRESSION: Large heart.\nREADER: Someone.": (
        "LUNGS: Clear.\n\nHEART: Large.\n\nLarge heart."
    ),
    "FINDINGS: Clear.\nPA AND LATERAL VIEWS: No effusion.": "Clear.\n\nPA AND LATERAL VIEWS: No effusion.",
    "LUNGS: Clear.\nIMPRESSION: Normal.": "Normal.",
    "CONCLUSION:  Normal chest.": "Normal chest.",
    "FINDINGS AND IMPRESSION:  ___ is new.": "___ is new.",
    "IMPRESSION:  Seen by Dr.\n ___\n today.": "Seen by Dr.\n ___\n today.",
    # no title
    "": "",
    "_": "",
    FINAL + " Heart is normal.\n Lungs are clear.": "",
    FINAL + " CHEST RADIOGRAPH OF ___.\n\n HISTORY: Cough.\n\n Heart is normal.": "",
    "WET READ: no edema": "",
    "LUNGS: Clear.": "",
}


@pytest.mark.parametrize("report", BODIES)
def test_bodies_of_reports_as_they_are_written_in_mimic(report: str) -> None:
    assert report_body(report, titled_only=True) == BODIES[report]
    if BODIES[report]:
        assert report_body(report) == BODIES[report]


def test_bodies_without_a_title() -> None:
    assert report_body(FINAL + " Heart is normal.\n\n Lungs are clear.") == "Heart is normal.\n\n Lungs are clear."
    # a line that names the film stands before the headings, the reading after them
    assert report_body(FINAL + " CHEST FILM OF ___.\n\n HISTORY: Cough.\n\n Heart is normal.") == "Heart is normal."
    assert report_body(FINAL + " Heart is normal.\n\n HISTORY: Cough.") == "Heart is normal."
    assert report_body("LUNGS: Clear.\nHISTORY: Cough.") == "Clear."
    assert report_body("WET READ: no edema") == ""
    assert report_body("HISTORY: Cough.\n\nHeart is normal.\n" + RULE) == "Heart is normal."


@given(TEXTS)
def test_a_titled_body_is_a_body(text: str) -> None:
    titled = report_body(text, titled_only=True)
    assert titled in ("", report_body(text))


# Real reports ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iu_texts() -> list[str]:
    if not IU_REPORTS.is_file():
        pytest.skip("the reports of Indiana University are not on this machine (set LINGULA_DATA)")
    table = pd.read_csv(IU_REPORTS, keep_default_na=False)
    assert len(table) == 3141
    return [text for column in ("findings", "impression") for text in table[column]]


def test_real_reports(iu_texts: list[str]) -> None:
    counts, lengths, split = [], [], Counter()
    for text in iu_texts:
        sentences = split_sentences(text)
        counts.append(len(sentences))
        for word in missing_words(text, sentences):
            split[word] += 1
        for sentence in sentences:
            lengths.append(count_tokens(sentence))
            assert "\n" not in sentence
            assert not re.match(r"\d+[.)](?!\d)", sentence)
            # no full stop stays inside but after an abbreviation or an initial
            assert not re.search(r"(?<!\bDr)(?<!\bvs)(?<!\bNo)(?<!\b[A-Z])\. [A-Z][a-z]+ [a-z]+", sentence), sentence
    # the only words that go are the marks 1 to 9, small numbers more often than large ones
    assert all(MARK.fullmatch(word) for word in split)
    assert split["1"] > split["2"] > split["3"] > 20
    # half of the texts are findings (about 4 sentences), half impressions (about 1.5)
    assert 2.7 < sum(counts) / len(counts) < 3.1
    assert 6 < sum(lengths) / len(lengths) < 9
    assert max(lengths) < 90


def test_real_reports_by_eye(iu_texts: list[str]) -> None:
    """Read by a person: how many sentences the first findings have."""
    assert [len(split_sentences(text)) for text in iu_texts[:3]] == [5, 4, 2]
    assert report_sentences(iu_texts[0])[1:3] == ["there is no pulmonary edema.", "there is no focal consolidation."]
