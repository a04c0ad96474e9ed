"""Headings, sections and bodies of reports as they are written in eight languages, and that no letter is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingula.data.cells import clean_text
from lingula.data.sections import BELOW, sections, split_report
from lingula.data.sentences import report_sentences

PIECES = (
    "FINDINGS: findings: Findings **Findings:** ##_Impression IMPRESSION: INDICATION: LUNGS: Lungs: WET_READ: NOTE: "
    "PORTABLE_CHEST: CHEST_2_VIEWS: Befund: BEURTEILUNG: RÉSULTAT: 【影像所见】 诊断： [Findings] FINDNGS: clear. "
    "Heart is normal. no effusion ___ [**2115-4-5**] 10:15 the . : ** ## 1. - 双肺。 \n \n\n \n________\n \n=== \t"
)
TEXTS = st.lists(st.sampled_from([piece.replace("_", " ") for piece in PIECES.split(" ")]), max_size=25)
TEXTS = (
    TEXTS.map(" ".join)
    | st.lists(st.sampled_from(PIECES.split(" ")), max_size=12).map("".join)
    | st.lists(st.sampled_from(["HISTORY:", "NOTE:", "Lungs:", "cough.", "\n\n", "\n"]), max_size=9).map(" ".join)
    | st.text(max_size=80)
)


def report_body(report: str, titled_only: bool = False) -> str:
    return split_report(report, titled_only).body


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
    "[FINDINGS] Clear. [Impression]: Normal. [2] [see above]": {
        "findings": "Clear.",
        "impression": "Normal. [2] [see above]",
    },
    "1. TECHNIQUE: AP\nII. Findings: clear\n- **Impression:** none": {
        "technique": "AP",
        "findings": "clear",
        "impression": "none",
    },
    "> ### Lungs and more\nclear\n#### findings ####\nnone": {"lungs and more": "clear", "findings": "none"},
    "FINDINGS - Clear lungs.\nIMPRESSION No disease. CONCLUSION Fine.": {
        "findings": "Clear lungs.",
        "impression": "No disease.\n\nFine.",
    },
    "INDICATION. Cough. FINDINGS. Clear lungs. IMPRESSION. No disease.": {
        "indication": "Cough.",
        "findings": "Clear lungs.",
        "impression": "No disease.",
    },
    "FINDINGS:-Clear.\nIMPRESSION :- Ok. [NAME] saw [DATE] it.": {
        "findings": "Clear.",
        "impression": "Ok. [NAME] saw [DATE] it.",
    },
    "INDICATION:Cough.FINDINGS:Clear.Impression:Normal.": {
        "indication": "Cough.",
        "findings": "Clear.",
        "impression": "Normal.",
    },
    "FINDINGS：clear\nIMPRESSION ：ok": {"findings": "clear", "impression": "ok"},
    "PATIENT Rotated. FRACTURE Of a rib.": {"": "PATIENT Rotated. FRACTURE Of a rib."},
    "COMPARISON: CXR\nCHEST 10:15 AM, STABLE": {"comparison": "CXR\nCHEST 10:15 AM, STABLE"},
    "HISTORY: seen at 10:15\nof the\nimpression: no\nprior study: yes": {
        "history": "seen at 10:15\nof the",
        "impression": "no\nprior study: yes",
    },
    "检查方法:胸部正位。影像所见：双肺清晰。 诊断:正常": {
        "technique": "胸部正位。",
        "findings": "双肺清晰。",
        "impression": "正常",
    },
    "【影像所见】双肺清晰。【备注】无【影像诊断】：正常": {
        "findings": "双肺清晰。",
        "备注": "无",
        "impression": "正常",
    },
    "RÜCKSPRACHE: ja\nBEFUND (2 Ebenen): frei": {"rücksprache": "ja", "findings": "frei"},
    "Kein krankhafter Befund: Herz normal.": {"": "Kein krankhafter Befund: Herz normal."},
    "COUGH SINCE ONE WEEK AND MORE FINDINGS: CLEAR": {"": "COUGH SINCE ONE WEEK AND MORE", "findings": "CLEAR"},
    "Soft tissues normal IMPRESSION: Clear": {"": "Soft tissues normal", "impression": "Clear"},
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
    split = split_report(text)
    if not split.headings and not split.rules and not sections(text).keys() - {""}:
        assert letters(sections(text).get("", "")) == letters(text)


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
    "LUNGS: Clear.\nIMPRESSION: Normal.": "LUNGS: Clear.\n\nNormal.",
    "CONCLUSION:  Normal chest.": "Normal chest.",
    "FINDINGS AND IMPRESSION:  ___ is new.": "___ is new.",
    "IMPRESSION:  Seen by Dr.\n ___\n today.": "Seen by Dr.\n ___\n today.",
    # no title
    "": "",
    "_": "",
    FINAL + " Heart is normal.\n Lungs are clear.": "",
    FINAL + " CHEST RADIOGRAPH OF ___.\n\n HISTORY: Cough.\n\n Heart is normal.": "",
    "WET READ: no edema": "",
    "LUNGS: Clear.": "LUNGS: Clear.",
    "READER: Someone.": "",
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
    assert report_body("LUNGS: Clear.\nHISTORY: Cough.") == "LUNGS: Clear."
    assert report_body("WET READ: no edema") == ""
    assert report_body("HISTORY: Cough.\n\nHeart is normal.\n" + RULE) == "Heart is normal."


# Whatever a report is written like ------------------------------------------------------------------------------------


def letters(*texts: str) -> Counter[str]:
    """Every character but white space and the asterisks of Markdown."""
    return Counter("".join("".join(texts).split()).replace("*", ""))


@given(TEXTS, st.booleans())
def test_every_letter_is_kept_or_dropped_or_in_a_heading_or_a_drawn_line(text: str, titled_only: bool) -> None:
    split = split_report(text, titled_only)
    dropped = [part for _, part in split.dropped]
    assert letters(split.body, *dropped, *split.headings, *split.rules) == letters(text)
    assert all(name and part for name, part in split.dropped)


@given(TEXTS)
def test_a_titled_body_is_a_body(text: str) -> None:
    titled = report_body(text, titled_only=True)
    assert titled in ("", report_body(text))


@given(st.lists(st.sampled_from(["Clear lungs.", "Heart is normal.", "双肺清晰。"]), min_size=1, max_size=4))
def test_the_body_of_a_body_is_itself(sentences: list[str]) -> None:
    body = report_body("FINDINGS: " + " ".join(sentences) + "\nIMPRESSION: None seen.")
    assert report_body(body) == body


# Reports that were read wrongly once, with the sentences that they have.
CASES: dict[str, list[str]] = {
    # a misspelt heading, a longer one
    "INDICATION: Rule out pneumothorax.\n\nFINDNGS: A left basal effusion is seen. The heart is enlarged.\n\n"
    "IMPRESSION: Left effusion.": ["a left basal effusion is seen.", "the heart is enlarged.", "left effusion."],
    "CHEST X-RAY FINDINGS: LUNGS ARE CLEAR. NO EFFUSION. IMPRESSION: NORMAL CHEST FILM.": [
        "lungs are clear.",
        "no effusion.",
        "normal chest film.",
    ],
    "PORTABLE CHEST FINDINGS: LUNGS ARE CLEAR. IMPRESSION: NORMAL CHEST.": ["lungs are clear.", "normal chest."],
    "RADIOGRAPHIC FINDINGS: LUNGS ARE CLEAR. IMPRESSION: NORMAL CHEST.": ["lungs are clear.", "normal chest."],
    "FINDINGS: The heart is normal in size.\n\nCOMPARISION: Image of last week with a large effusion.\n\n"
    "IMPRESSION: Normal heart.": ["the heart is normal in size.", "normal heart."],
    # small letters on one line
    "indication: cough. findings: a left effusion is present. the heart is enlarged. "
    "impression: left pleural effusion.": [
        "a left effusion is present.",
        "the heart is enlarged.",
        "left pleural effusion.",
    ],
    "FINDINGS: a left effusion is present. impression: left pleural effusion.": [
        "a left effusion is present.",
        "left pleural effusion.",
    ],
    "indication: cough findings: a left effusion with no acute findings: stable impression: left effusion": [
        "a left effusion with no acute findings: stable",
        "left effusion",
    ],
    # Markdown
    "## Indication\nCough for weeks.\n\n## Findings\nA left effusion is present. The heart is enlarged.\n\n"
    "## Impression\nLeft pleural effusion.": [
        "a left effusion is present.",
        "the heart is enlarged.",
        "left pleural effusion.",
    ],
    "**Indication:** Cough.\n**Findings:** Clear **lungs** are seen.\n**Impression**\nNo disease.": [
        "clear lungs are seen.",
        "no disease.",
    ],
    "### FINDINGS\n- Clear lungs\n- Normal heart\n---\n### IMPRESSION\n1. No disease": [
        "clear lungs",
        "normal heart",
        "no disease",
    ],
    # escaped line breaks
    r"INDICATION: Cough.\nFINDINGS: Small effusion.\nHeart is normal.\nIMPRESSION: Effusion on the left.": [
        "small effusion.",
        "heart is normal.",
        "effusion on the left.",
    ],
    "INDICATION: Cough.<br/>FINDINGS: Small&nbsp;effusion.<br>IMPRESSION: Effusion on the left.": [
        "small effusion.",
        "effusion on the left.",
    ],
    "INDICATION: Cough._x000D_\nFINDINGS:\u00a0Small effusion._x000D_\nIMPRESSION: Left effusion.": [
        "small effusion.",
        "left effusion.",
    ],
    # lists and objects
    "['A left effusion is present.', 'The heart is enlarged.']": [
        "a left effusion is present.",
        "the heart is enlarged.",
    ],
    '{"indication": "Cough.", "findings": ["Small effusion.", "Big heart."]}': ["small effusion.", "big heart."],
    # parts of the chest
    "HISTORY: Cough.\nLungs: Clear.\nHeart: Normal size.\nImpression: No disease.": [
        "lungs: clear.",
        "heart: normal size.",
        "no disease.",
    ],
    "Compared with last week.\nAorta: tortuous now.\nHeart: Normal size.": [
        "compared with last week.",
        "aorta: tortuous now.",
        "heart: normal size.",
    ],
    "Compared with last week.\nChest x-ray: clear lungs.": ["compared with last week.", "chest x-ray: clear lungs."],
    "HISTORY:\nHeart: bypass\nFINDINGS: Clear lungs.": ["clear lungs."],
    "EXAMINATION: CHEST\n\nREASON: cough\n\nHeart is normal.\n\nLungs are clear.": [
        "heart is normal.",
        "lungs are clear.",
    ],
    # findings without a heading
    "The lungs are clear. Heart size is normal.\n\nIMPRESSION: No disease.": [
        "the lungs are clear.",
        "heart size is normal.",
        "no disease.",
    ],
    "EXAM: CXR\n\nHISTORY: Cough.\n\nThe lungs are clear. Heart size is normal.\n\nIMPRESSION: No disease.": [
        "the lungs are clear.",
        "heart size is normal.",
        "no disease.",
    ],
    "CHEST RADIOGRAPH OF ___.\n\nHISTORY: Cough. Fever for days.\n\nIMPRESSION: No disease.": ["no disease."],
    "CHEST RADIOGRAPH OF ___.\n\nHISTORY: Cough.\n\nSeen by Dr. X.\n\nIMPRESSION: No disease.": ["no disease."],
    "Anledning: Hosta länge.\nUtlåtande: Ingen vätska sågs.\nIMPRESSION: No disease.": ["no disease."],
    "HISTORY: Cough.\nREPORT: The lungs are clear.\nIMPRESSION: No disease.": ["the lungs are clear.", "no disease."],
    # German
    "INDIKATION: Husten seit drei Wochen.\n\n"
    "BEFUND: Kleiner Erguss links. Herz normal.\n\nBEURTEILUNG: Erguss links.": [
        "kleiner erguss links.",
        "herz normal.",
        "erguss links.",
    ],
    "Röntgen Thorax p.a. vom 12.03.2024\n\nKlinische Angaben: V. a. Pneumonie.\nFragestellung: Infiltrat?\n\nBefund:\n"
    "Zum Vergleich liegt die Voraufnahme vom 01.02.2024 vor. Herz nicht vergrößert. Fraktur der 3. Rippe re.\n\n"
    "Beurteilung:\n1. Kein Infiltrat.\n2. Rippenfraktur re.\n\nMit freundlichen Grüßen": [
        "zum vergleich liegt die voraufnahme vom 01.02.2024 vor.",
        "herz nicht vergrößert.",
        "fraktur der 3. rippe re.",
        "kein infiltrat.",
        "rippenfraktur re.",
    ],
    "Klinik: Husten. Technik: Aufnahme im Liegen. Befund: Zeichen der Stauung, bds. Ergüsse. "
    "Beurteilung: Kardiale Stauung.": [
        "zeichen der stauung, bds. ergüsse.",
        "kardiale stauung.",
    ],
    # French
    "INDICATION: Toux et fièvre.\n\nRÉSULTAT: Petit épanchement gauche. Cœur normal.\n\n"
    "CONCLUSION: Épanchement pleural gauche.": [
        "petit épanchement gauche.",
        "cœur normal.",
        "épanchement pleural gauche.",
    ],
    "RADIOGRAPHIE THORACIQUE DE FACE\nMotif : dyspnée.\nTechnique : cliché au lit.\nRésultats :\nPas d'épanchement. "
    "Opacité, p. ex. atélectasie.\nAu total : pas de foyer.": [
        "pas d'épanchement.",
        "opacité, p. ex. atélectasie.",
        "pas de foyer.",
    ],
    # Spanish
    "MOTIVO: Tos y fiebre.\n\nHALLAZGOS: Derrame pleural izquierdo. Corazón normal.\n\n"
    "IMPRESIÓN: Derrame pleural leve.": [
        "derrame pleural izquierdo.",
        "corazón normal.",
        "derrame pleural leve.",
    ],
    "Información clínica: disnea. Técnica: PA y lateral. Hallazgos radiológicos: silueta cardíaca normal. Sin derrame. "
    "Impresión diagnóstica: estudio normal.": ["silueta cardíaca normal.", "sin derrame.", "estudio normal."],
    # Portuguese
    "INDICAÇÃO CLÍNICA: Tosse.\nTÉCNICA: Incidências PA e perfil.\nANÁLISE:\nÁrea cardíaca normal. Seios livres.\n"
    "IMPRESSÃO DIAGNÓSTICA:\nExame dentro dos limites.": [
        "área cardíaca normal.",
        "seios livres.",
        "exame dentro dos limites.",
    ],
    "Motivo do exame: dor. Achados: pulmões livres. Conclusão: sem alterações.": ["pulmões livres.", "sem alterações."],
    # Italian
    "QUESITO CLINICO: Febbre.\nREFERTO:\nNon versamento pleurico. Ombra cardiaca nei limiti.\n"
    "CONCLUSIONI: Nulla di acuto.": [
        "non versamento pleurico.",
        "ombra cardiaca nei limiti.",
        "nulla di acuto.",
    ],
    "Indicazioni: tosse. Tecnica d'esame: due proiezioni. Reperti: addensamento basale dx. in sede. "
    "Diagnosi: polmonite destra.": [
        "addensamento basale dx. in sede.",
        "polmonite destra.",
    ],
    # Dutch
    "Klinische gegevens: koorts.\nVraagstelling: infiltraat?\nVerslag: Hart normaal. Geen pleuravocht.\n"
    "Conclusie: geen infiltraat.": [
        "hart normaal.",
        "geen pleuravocht.",
        "geen infiltraat.",
    ],
    "INDICATIE: hoesten. TECHNIEK: X-thorax staand. BEVINDINGEN: slank mediastinum, o.a. hili. "
    "CONCLUSIE: normaal beeld.": [
        "slank mediastinum, o.a. hili.",
        "normaal beeld.",
    ],
    # Chinese
    "检查部位：胸部正位\n临床诊断：咳嗽\n影像所见：双肺纹理清晰。心影不大。\n影像诊断：双肺未见异常。": [
        "双肺纹理清晰。",
        "心影不大。",
        "双肺未见异常。",
    ],
    "【检查所见】胸廓对称，双肺纹理增多。两膈光整。【诊断意见】1、支气管炎；2、请结合临床。": [
        "胸廓对称，双肺纹理增多。",
        "两膈光整。",
        "支气管炎；",
        "请结合临床。",
    ],
    "检查所见：双肺清晰。 印象：正常胸片。 建议：复查。": ["双肺清晰。", "正常胸片。"],
}


@pytest.mark.parametrize("report", CASES)
def test_reports_and_their_sentences(report: str) -> None:
    split = split_report(clean_text(report))
    assert report_sentences(split.body) == CASES[report]
    if report.isascii():
        assert not any(sentence in split.body for _, text in split.dropped for sentence in text.split("\n") if sentence)


# Text below an indication: what is read, and what is dropped under a name of its own, never as if it were meant.
BELOW_OTHERS: dict[str, tuple[list[str], list[str]]] = {
    "Klinik: Husten.\n\nHerz normal. Kein Erguss. Keine Stauung.": (
        ["herz normal.", "kein erguss.", "keine stauung."],
        [],
    ),
    "HISTORY: Cough.\n\nLungs clear. Heart normal. No effusion.": (
        ["lungs clear.", "heart normal.", "no effusion."],
        [],
    ),
    "COMPARISON: None\n\nA single view shows a PICC with tip in the SVC.": (
        ["a single view shows a picc with tip in the svc."],
        [],
    ),
    "Indication: dyspnée\nPas d'épanchement. Silhouette cardiaque normale.": (
        ["pas d'épanchement.", "silhouette cardiaque normale."],
        [],
    ),
    "Indicatie: hoesten\nGeen pleuravocht. Hart normaal.": (["geen pleuravocht.", "hart normaal."], []),
    "检查目的：咳嗽\n双肺清晰。心影不大。": (["双肺清晰。", "心影不大。"], []),
    "HISTORY: Cough.\nThe heart is normal. The lungs are clear.": (
        ["the heart is normal.", "the lungs are clear."],
        [],
    ),
    "DATE: 3/4/2020\n\nThe heart is normal.": (["the heart is normal."], []),
    "PATIENT: John Doe\nThe heart is normal. The lungs are clear.": (
        ["the heart is normal.", "the lungs are clear."],
        [],
    ),
    "COMPARISON: NONE. THE HEART IS NORMAL. THE LUNGS ARE CLEAR.": (
        ["the heart is normal.", "the lungs are clear."],
        [],
    ),
    "HISTORY: COUGH. THE HEART IS NORMAL. THE LUNGS ARE CLEAR.": ([], ["THE HEART IS NORMAL. THE LUNGS ARE CLEAR."]),
    "HISTORY: Cough.\nHeart failure for years. Lung cancer.": ([], ["Heart failure for years. Lung cancer."]),
    "HISTORY: Cough.\n\nSeen by Dr. X.": ([], ["Seen by Dr. X."]),
    "HISTORY: Cough.\n\nEvaluate for edema.": ([], ["Evaluate for edema."]),
    "COMPARISON: None\n\nTWO VIEWS OF THE CHEST.": ([], ["TWO VIEWS OF THE CHEST."]),
    # of the indication
    "HISTORY: Cough.\nEvaluate for edema.": ([], []),
    "HISTORY: Cough. Fever for days.": ([], []),
    "INDICATION: A woman of fifty years with shortness of breath and\nHodgkin lymphoma. Cough is new. Fever.": (
        [],
        [],
    ),
}


@pytest.mark.parametrize("between", ["\n", "\n\n"])
@pytest.mark.parametrize("report", BELOW_OTHERS)
def test_text_below_an_indication(report: str, between: str) -> None:
    read, dropped = BELOW_OTHERS[report]
    split = split_report(f"{report}{between}IMPRESSION: No disease.")
    assert report_sentences(split.body) == [*read, "no disease."]
    assert [text for name, text in split.dropped if name == BELOW] == dropped


# Headings of what others suspected, or saw elsewhere; what each is counted as.
OF_OTHERS = {
    "indication": "CLINICAL DIAGNOSIS|CLINICAL IMPRESSION|CLINICAL ASSESSMENT|CLINICAL OPINION|CLINICAL SUMMARY|"
    "CLINICAL FINDINGS|PROVISIONAL DIAGNOSIS|WORKING DIAGNOSIS|REFERRING DIAGNOSIS|ADMISSION DIAGNOSIS|"
    "PREOPERATIVE DIAGNOSIS|PRE-OP DIAGNOSIS|PAST DIAGNOSIS|DISCHARGE DIAGNOSIS|LAB RESULTS|LABORATORY RESULTS|"
    "ECG INTERPRETATION|NURSING ASSESSMENT|ED ASSESSMENT|Klinische Diagnose|Diagnostic clinique|Diagnosi clinica|"
    "Klinischer Befund|Provisional diagnosis|Résultats biologiques|"
    "DIAGNOSIS|Diagnosis|Assessment|Diagnose|Diagnostic|Hipótese diagnóstica",  # these because findings follow
    "comparison": "PRIOR FINDINGS|PREVIOUS RESULTS|Vorherige Befunde|Hallazgos previos",
    "": "WARD IMPRESSION|Ward Impression|ECHO FINDINGS|Ward Sister's Opinion",  # not known, and said so
}


@pytest.mark.parametrize(
    "form",
    [
        "{}: Suspected left lower lobe pneumonia.\n\n{}",
        "{}\nSuspected left lower lobe pneumonia.\n\n{}",
        "HISTORY: 55M. {}: Suspected left lower lobe pneumonia.\n\n{}",
        "HISTORY: 55M.\n- **{}:** Suspected left lower lobe pneumonia.\n{}",
    ],
)
@pytest.mark.parametrize("section", OF_OTHERS)
def test_what_others_suspected_is_not_read(section: str, form: str) -> None:
    for name in OF_OTHERS[section].split("|"):
        split = split_report(form.format(name, "FINDINGS: Lungs are clear.\n\nIMPRESSION: No acute disease."))
        assert split.body == "Lungs are clear.\n\nNo acute disease.", name
        alone = form.startswith("{}\n")  # without a colon, words that we do not know are no heading
        if section:
            dropped = [(section, "Suspected left lower lobe pneumonia.")]
            assert dropped == [part for part in split.dropped if part != ("history", "55M.")] or alone, name
            assert not split.unknown
        elif not alone:
            assert split.unknown == [name.lower()]
            assert (name.lower(), "Suspected left lower lobe pneumonia.") in split.dropped


@pytest.mark.parametrize(
    ("report", "body", "unknown"),
    [
        ("FINDINGS: Clear lungs.\nDIAGNOSIS: No disease.", "Clear lungs.\n\nNo disease.", []),
        ("DIAGNOSIS: No disease.", "No disease.", []),
        ("DIAGNOSIS: Cough.\nASSESSMENT: No disease.", "No disease.", []),
        ("WARD IMPRESSION: Left effusion.", "Left effusion.", ["ward impression"]),
        ("WARD FINDINGS: A mass.\nIMPRESSION: Tumour.", "A mass.\n\nTumour.", ["ward findings"]),
        ("WARD IMPRESSION: Tumour?\nFINDINGS: Clear.", "Clear.", ["ward impression"]),
        (
            "FINDINGS: Clear.\nUPPER THIRD FINDINGS: None.",
            "Clear.\n\nUPPER THIRD FINDINGS: None.",
            ["upper third findings"],
        ),
    ],
)
def test_what_may_be_ours_is_read_where_nothing_else_is(report: str, body: str, unknown: list[str]) -> None:
    split = split_report(report)
    assert (split.body, split.unknown) == (body, unknown)


def test_what_was_dropped_and_why() -> None:
    report = (
        "Preface.\nINDICATION: Cough.\nFINDINGS: Clear.\nNOTE: Kept.\nIMPRESSION: Ok.\nSEEN BY: Someone.\nAnlass: x\n"
    )
    split = split_report(report)
    assert split.body == "Clear.\n\nNOTE: Kept.\n\nOk."
    assert split.dropped == [
        ("no heading", "Preface."),
        ("indication", "Cough."),
        ("seen by", "Someone."),
        ("indication", "x"),
    ]
    assert split.unknown == ["note", "seen by"]
    split = split_report("EXAMINATION: CHEST\n\nREASON: cough,\nfever\n\nHeart is normal.\n\nLungs are clear.")
    assert split.body == "Heart is normal.\n\nLungs are clear."
    assert split.dropped == [("examination", "CHEST"), ("indication", "cough,\nfever")]
    split = split_report("Utlåtande: Ingen vätska.\nSlutsats: Normal bild.")
    assert (split.dropped, split.unknown) == ([], ["utlåtande", "slutsats"])  # read, and said
