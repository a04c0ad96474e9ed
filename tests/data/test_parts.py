"""Where what stands under a heading ends, above all inside the findings and the impression."""

from __future__ import annotations

from collections import Counter

import pytest

from lingula.data.headings import Headings
from lingula.data.parts import parts
from lingula.data.sections import split_report
from lingula.data.sentences import report_sentences


def letters(*texts: str) -> Counter[str]:
    """Every character but white space."""
    return Counter("".join("".join(texts).split()))


# A heading of another section inside the findings or the impression, and what is read.
SMALL: dict[str, list[str]] = {
    "IMPRESSION:\n1. Small left effusion is seen.\n2. Recommendation: follow-up CT of the chest.\n"
    "3. Nodule in the right upper lobe.": ["small left effusion is seen.", "nodule in the right upper lobe."],
    "IMPRESSION: 1. Small effusion. 2. Recommendation: follow-up CT in\nthree months. 3. Nodule on the right.": [
        "small effusion.",
        "nodule on the right.",
    ],
    "IMPRESSION:\n1. SMALL EFFUSION.\n2. RECOMMENDATION: CT OF THE CHEST.\n3. NODULE ON THE RIGHT.": [
        "small effusion.",
        "nodule on the right.",
    ],
    "IMPRESSION:\n1. Edema is seen.\n2. Discussed with: Dr. Smith at 3 pm.\n3. No effusion on right.": [
        "edema is seen.",
        "no effusion on right.",
    ],
    "FINDINGS:\nQuality: rotated.\nHeart is enlarged and there is edema.\nNo pneumothorax.\nIMPRESSION: Edema again.": [
        "heart is enlarged and there is edema.",
        "no pneumothorax.",
        "edema again.",
    ],
    "FINDINGS:\nQuality: rotated.\nContrast: none.\nLungs are clear bilaterally.": ["lungs are clear bilaterally."],
    "FINDINGS:\nAge: indeterminate rib fracture.\nNo pneumothorax.": [
        "age: indeterminate rib fracture.",
        "no pneumothorax.",
    ],
    "FINDINGS:\nAge: 55\nNo pneumothorax.": ["no pneumothorax."],
    "Befund:\nVergleich: 3.4.2020.\nHerz vergrößert, Stauung. Kein Erguss rechts.": [
        "herz vergrößert, stauung.",
        "kein erguss rechts.",
    ],
    "Befund:\n\nVergleich: 3.4.2020.\n\nHerz vergrößert.": ["herz vergrößert."],
    "FINDINGS: Lungs are clear. Plan: none needed. Heart: normal.": ["lungs are clear.", "heart: normal."],
    "FINDINGS: Lungs are clear.\nComparison: the image of last week, which\nshowed edema.\nHeart is normal.": [
        "lungs are clear.",
        "heart is normal.",
    ],
    # a section of its own, to the next heading or the end
    "Findings:\nLungs are clear.\nImpression:\n1. No disease.\nSigned by: Dr. X\nTranscribed 3/4/2020 by Y.": [
        "lungs are clear.",
        "no disease.",
    ],
    "Findings: Clear lungs.\n\nComparison: Last week.\nA large effusion.\n\nAnd edema.\n\nImpression: Better now.": [
        "clear lungs.",
        "better now.",
    ],
    "FINDINGS: Clear lungs.\n\nComparison:\nLast week.\nA large effusion.\n\nIMPRESSION: Better now.": [
        "clear lungs.",
        "better now.",
    ],
    "FINDINGS: Clear lungs.\nCOMPARISON: Last week.\nA large effusion.\nIMPRESSION: Better now.": [
        "clear lungs.",
        "better now.",
    ],
}


@pytest.mark.parametrize("report", SMALL)
def test_a_heading_inside_the_findings_ends_with_its_line_or_item(report: str) -> None:
    split = split_report(report)
    assert report_sentences(split.body) == SMALL[report]
    assert letters(split.body, *(text for _, text in split.dropped), *split.headings) == letters(report)
    found, rules = parts(report, Headings.read())
    assert letters(*(part.whole for part in found), *rules) == letters(report)


SIGNED = {
    "BEFUND: Kein Erguss.\nBEURTEILUNG: Kein Erguss. gez. Dr. Müller": ["kein erguss.", "kein erguss."],
    "BEFUND: Kein Erguss.\n\nMit freundlichen Grüßen\nDr. Müller\nOberarzt": ["kein erguss."],
    "IMPRESSION: No effusion.\n\nElectronically signed by John Smith, MD on 12/3/2020 9:14 AM": ["no effusion."],
    "Lungs are clear. Heart is normal.\nDictated by Dr. Smith.": ["lungs are clear.", "heart is normal."],
    "RÉSULTAT: Pas d'épanchement.\nDr Dupont Jean": ["pas d'épanchement."],
    "HALLAZGOS: Sin derrame.\nFirmado por Dra. Pérez": ["sin derrame."],
    "CONCLUSIONI: Nessun versamento. Firmato da Dott. Rossi": ["nessun versamento."],
    "CONCLUSIE: Geen pleuravocht.\nMet vriendelijke groet, dr. Jansen": ["geen pleuravocht."],
    # nobody signs here
    "FINDINGS: Small effusion.\nDr. Smith was informed by phone.": [
        "small effusion.",
        "dr. smith was informed by phone.",
    ],
    "DR CHEST PA\n\nHeart is normal. Lungs are clear.": ["dr chest pa", "heart is normal.", "lungs are clear."],
}


@pytest.mark.parametrize("report", SIGNED)
def test_who_signs_is_left_out_wherever_the_signature_stands(report: str) -> None:
    split = split_report(report)
    assert report_sentences(split.body) == SIGNED[report]
    assert letters(split.body, *(text for _, text in split.dropped), *split.headings) == letters(report)
