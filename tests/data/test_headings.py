"""Spellings of headings: those that MIMIC-CXR has, those of other languages, those of a user, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingula.data.headings import BY_DESIGN, KEPT, Headings, fold, one_slip
from lingula.data.sections import split_report
from lingula.registry import UserError

# What the splitter of MIMIC-CXR (MIT-LCP, section_parser.py) maps to what. It takes "ndication" for an impression,
# which mimic-code's pull request 1982 calls a mistake, so it stands under indication here.
MIT = {
    "impression": "impression, conclusion, findings and impression, findings/impression, findings/ impression, "
    "impresson, imprression, imoression, impressoin, imprssion, impresion, imperssion, mpression, impession",
    "findings": "findings, finding, findins, findindgs, findgings, findngs, findnings, finidngs, reference findings, "
    "chest, two views",
    "comparison": "comparison, comparisons, reference exam, comparison exam, comparison film, comparision, comparsion, "
    "comparrison, comparisions",
    "indication": "indication, reason for examination, reason for exam, clinical indication, idication, ndication",
    "history": "history, clinical history, clinical information, patient history",
    "examination": "examination, exam, type of examination",
    "technique": "technique",
    "notification": "notification",
    "recommendation": "recommendation(s), recommendations, recommendation",
    "addendum": "addendum",
    "wet read": "wet read, wetread, pfi",
}
# Two of MIT's sections that we draw elsewhere, without consequence for what is kept.
OURS = {"clinical information": "indication", "findings and impression": "findings", "chest, two views": "image"}
OURS |= {"findings/impression": "findings", "findings/ impression": "findings"}

# Headings that stand in MIMIC-CXR's reports, by the section that they mean; the rest names no section.
MIMIC = {
    "findings": "FINSINGS|FINDGINGS|FIDINGS|FINDIGNS|FINDOINGS|FINGDINGS|"
    "TECHNIQUE AND FINDINGS|FINDINGS AND IMRPESSION",
    "impression": "IMPRRESSION|OPINION|FIMPRESSION|IIMPRESSION|CONLCUSION|COCLUSION|CORRECTED IMPRESSION|IMPRESSIONS|"
    "THE IMPRESSION SHOULD READ",
    "comparison": "OMPARISON|COMAPRISON|COMPARISON STUDIES|PRIOR STUDY|PRIOR EXAM|COMPARISON CHEST|"
    "CHEST COMPARISON FILM|COMPARISON TO PRIOR STUDY|REFERENCE EXAMINATION|COMPARE|REFERENCE  EXAM",
    "indication": "CLINIC INDICATION|INDCATION|REASON FORE EXAM|REASON  FOR EXAMINATION|REASON OF EXAM",
    "history": "CLINCAL HISTORY|CHEST HISTORY|INTERVAL HISTORY|ADDITIONAL CLINICAL HISTORY PROVIDED",
    "technique": "TECHIQUE|TECHNIQUE PA AND LATERAL VIEWS OF THE CHEST|PROCEDURE DETAILS",
    "recommendation": "RECOMMEDATIONS|RECOMMMENDATIONS",
    "notification": "NOTFICATIONS",
    "wet read": "RESIDENT WET READ|PRELIMINARY RESIDENT WET READ|PRELIMINARY REPORT",
    "administration": "ACCESSION NUMBER|DATE OF EXAM",
    "": "MAIN REPORT|REPORT",
    "anatomy": "RIBS|RIGHT RIBS|OSSEOUS STRUCTURES",
    "image": "PORTABLE AP CHEST RADIOGRAPH|CXR|CHEST SINGLE VIEW|FRONAL AND LATERAL VIEWS OF THE CHEST|AP FILM|"
    "PORTALBLE AP CHEST RADIOGRAPH|PA AND LATERAL CHEST FILMS|SEMIUPRIGHT PORTABLE RADIOGRAPH OF THE CHEST",
}
NONE = (
    "NOTE|COMMENT|LEFT|PELVIS|ABDOMEN|TWO VIEWS OF THE THORACIC SPINE|PORTABLE UPRIGHT AP VIEW OF THE ABDOMEN|ERROR|CT"
)
NONE += "|COMPRESSION|MEDICATION LIST|OCCLUSION|FUNDING|NO ACUTE FINDINGS|WITHOUT COMPARISON|INDUCTION|INFECTION"


@pytest.fixture(scope="module")
def known() -> Headings:
    return Headings.read()


def test_the_spellings_of_mimic_cxr(known: Headings) -> None:
    for section, names in MIT.items():
        for name in names.replace("chest, two", "chest; two").split(", "):
            name = name.replace(";", ",")
            assert known.section(name, whole=False) == OURS.get(name, section), name
    for section, names in MIMIC.items():
        for name in names.split("|"):
            assert known.section(name, whole=False) == section, name
    for name in NONE.split("|"):
        assert known.section(name, whole=False) is None, name


@pytest.mark.parametrize("form", ["{}:\n{}", "{}: {}", "\n{}\n{}"])
def test_reports_under_these_spellings_lose_nothing_and_nothing_leaks(form: str) -> None:
    for section, names in (*MIT.items(), *((name, names.replace("|", ", ")) for name, names in MIMIC.items())):
        for name in names.replace("chest, two views", "two views").upper().split(", "):
            main = section in ("findings", "impression", "comparison", "indication") and name != "TWO VIEWS"
            if form.startswith("\n") and not main:
                continue  # alone on a line, others may be words of a sentence
            under = form.format(name, "A left effusion is seen.")
            if section in (*KEPT, ""):
                body = split_report(f"INDICATION: Cough.\n\n{under}").body
                assert body in ("A left effusion is seen.", f"{name}: A left effusion is seen."), name
            else:
                body = split_report(f"FINDINGS: The heart is normal.\n\n{under}\n\nIMPRESSION: Normal heart.").body
                assert body == "The heart is normal.\n\nNormal heart.", name


@pytest.mark.parametrize(
    ("written", "section"),
    [
        ("CHEST X-RAY FINDINGS", "findings"),
        ("Portable chest findings", "findings"),
        ("RADIOGRAPHIC FINDINGS", "findings"),
        ("HALLAZGOS RADIOLÓGICOS", "findings"),
        ("Impresion diagnostica", "impression"),
        ("RÉSULTATS", "findings"),
        ("RE\u0301SULTATS", "findings"),
        ("ＦＩＮＤＩＮＧＳ", "findings"),
        ("Befund und Beurteilung", "findings"),
        ("BEURTEILUNG/EMPFEHLUNG", "impression"),
        ("Klinische Angaben", "indication"),
        ("RÖNTGEN-THORAX IN 2 EBENEN", "image"),
        ("Radiografía de tórax", "image"),
        ("Radiographie thoracique de face", "image"),
        ("X-thorax", "image"),
        ("影像所见", "findings"),
        ("臨床診斷", "indication"),
        ("HEART/MEDIASTINUM", "anatomy"),
        ("Views", "technique"),
        ("Two views", "image"),
        ("Echo findings", None),
        ("CT FINDINGS", "findings"),
        ("ICU chest findings", "findings"),
        ("PRIOR CHEST X-RAY FINDINGS", "comparison"),
        ("Emergency department ultrasound impression", "indication"),
        ("Résultats biologiques", "indication"),
        ("Radiological diagnosis", "impression"),
        ("Discussion", "findings"),
        ("", None),
        ("():", None),
    ],
)
def test_longer_joined_and_foreign_headings(known: Headings, written: str, section: str | None) -> None:
    assert known.section(written) == section


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("WARD IMPRESSION", "impression"),
        ("Echo findings", "findings"),
        ("The ward round's diagnosis", None),  # "the": a sentence
        ("NO NEW FINDINGS", None),
        ("CLINICAL DIAGNOSIS", None),  # known
        ("WARD COMPARISON", None),
        ("ONE MORE WORD AND OTHERS IMPRESSION", None),
        ("WARD", None),
        ("", None),
    ],
)
def test_findings_and_impressions_under_unknown_words_are_likely_but_not_known(
    known: Headings, written: str, title: str | None
) -> None:
    assert known.likely(written) == title
    assert title is None or known.section(written, whole=False) is None


def test_every_spelling_is_its_own_and_no_slip_makes_another_of_it(known: Headings) -> None:
    spellings = known.spellings()
    assert len(spellings) > 700
    for name, section in spellings.items():
        assert known.section(name) == section
        assert known.exact(name.upper()) == section
    close = {
        frozenset((name, other))
        for name in spellings
        for other in spellings
        if len(name) > 7 and name.isascii() and spellings[name] != spellings[other] and one_slip(name, other)
    }
    # a misspelling between these two means either; neither leaves text in or out that the other does not
    assert close == {frozenset(("procedere", "procedure"))}
    assert {*BY_DESIGN, *KEPT} | {""} == {*spellings.values()} | {"image"}


def osa(one: str, other: str) -> int:
    """Optimal string alignment distance, by its recursion."""
    if not one or not other:
        return len(one) + len(other)
    best = min(osa(one[1:], other) + 1, osa(one, other[1:]) + 1, osa(one[1:], other[1:]) + (one[0] != other[0]))
    if one[:2] == other[1::-1] and len(one) > 1:
        best = min(best, osa(one[2:], other[2:]) + 1)
    return best


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_a_slip_is_a_distance_of_one(one: str, other: str) -> None:
    assert one_slip(one, other) == (osa(one, other) == 1)


def test_a_file_of_headings_adds_to_the_built_in_ones(tmp_path: Path, known: Headings) -> None:
    path = tmp_path / "swedish.yaml"
    path.write_text(
        "findings:\n  sv: [utlåtande, no]\nindication:\n  sv:\n    - Frågeställning\n  en: [observations]\n"
    )
    ours = Headings.read(path)
    assert ours.section("UTLÅTANDE") == "findings"
    assert ours.section("No") == "findings"  # in YAML a truth value, here a word
    assert ours.section("frågeställning") == "indication"
    assert ours.section("Observations") == "indication"  # the user's word is the last
    assert ours.section("Befund") == "findings"
    assert known.section("UTLÅTANDE") is None
    assert ours.fingerprint() != known.fingerprint() == Headings.read().fingerprint()
    assert Headings.read(path).fingerprint() == ours.fingerprint()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("finding:\n  en: [x y]", "unknown section 'finding'; did you mean 'findings'?"),
        ("xyz:\n  en: [x y]", "unknown section 'xyz'; known: findings, impression, anatomy, "),
        ("findings: [x y]", "section 'findings' has no languages; expected 'section:', below it"),
        ("findings:\n  en: x y", "'en' of section 'findings' is no list of spellings"),
        ("findings:\n  en: [x y, ':']", "'en' of section 'findings' has ':', which is no heading"),
        ("findings:\n  en: [{x: y}]", "which is no heading"),
        ("- findings", "has no headings"),
        ("", "has no headings"),
        ("findings: {en: [x", "cannot read the headings .*: "),
        (None, "cannot read the headings .*No such file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, written: str | None, message: str) -> None:
    path = tmp_path / "h.yaml"
    if written is not None:
        path.write_text(written)
    with pytest.raises(UserError, match=message.replace("?", r"\?").replace("[", r"\[")):
        Headings.read(path)


def test_folding() -> None:
    assert fold("  MOTIVO DELL'ESAME (urgente): ") == "motivo dell esame"
    assert fold("Findings / Impression") == fold("findings&impression") == "findings & impression"
    assert fold("GRÖSSE") == fold("Größe") == "grosse"
