"""Label names of the field, and what they say of an image. Floor 0.

A label names a finding (``Pleural Effusion``, ``covid19``), says that something is absent (``no_effusion``) or that
nothing is wrong (``No Finding``, ``normal``), or says nothing that an image can show (``unchanged``, ``positive``).
Names are compared without case, spaces and signs: ``No Finding``, ``no_finding`` and ``NoFinding`` are one. Names that
are in no table are read by their words; where these do not tell what is meant (``pneumonia_neg``, ``Edema=0``,
``class1``), there are no prompts.

Names from CheXpert and MIMIC-CXR (14), NIH ChestX-ray14, PadChest, VinDr-CXR, RSNA, SIIM-ACR, COVIDx, the COVID-19
Image Data Collection, Kermany, and the synthetic corpora.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

CHEXPERT = (  # the 14 labels of CheXpert, in the order of its tables; MIMIC-CXR has the same
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
CHEXBERT = (*CHEXPERT[1:], CHEXPERT[0])  # in the order of CheXbert's heads
CHEXPERT_COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


class Prompts(NamedTuple):
    """Sentences that a report says of an image with the label, and of one without it; both in lower case."""

    present: tuple[str, ...]
    absent: tuple[str, ...]

    def swapped(self) -> Prompts:
        """The prompts of the opposite label."""
        return Prompts(self.absent, self.present)


def template(words: str, plural: bool = False) -> Prompts:
    """``there is {words}.`` and ``there is no {words}.``"""
    verb = "are" if plural else "is"
    return Prompts((f"there {verb} {words}.",), (f"there {verb} no {words}.",))


NOTHING_WRONG = Prompts(("there is no acute abnormality.", "the lungs are clear."), ("there is an abnormality.",))

_NOTHING_WRONG = """
    no finding, no findings, no abnormality, no abnormalities, no abnormal finding, no abnormal findings,
    no acute abnormality, no acute finding, no acute findings, no significant finding, no significant findings,
    no disease, no pathology, nothing, none, normal, normal chest, normal chest x-ray, normal chest radiograph,
    normal cxr, normal film, normal image, normal lung, normal lungs, normal study, normal x-ray, normal radiograph,
    healthy, healthy control, healthy lung, healthy lungs, healthy subject, clear, clear lungs, lungs clear,
    unremarkable, within normal limits, wnl, disease free, not abnormal
"""
_SOMETHING_WRONG = """
    abnormal, abnormality, abnormalities, any abnormality, any finding, finding, findings, disease, diseased,
    pathology, pathological, not normal, unhealthy, sick, ill
"""
# Names whose words are what reports write, in case they are written together (PleuralEffusion, pneumoThorax).
_PLAIN = """
    atelectasis, cardiomegaly, consolidation, edema, enlarged cardiomediastinum, fracture, lung lesion, lung opacity,
    pleural effusion, pneumonia, pneumothorax,
    effusion, emphysema, fibrosis, hernia, infiltration, mass, nodule, pleural thickening, pulmonary edema,
    aortic enlargement, calcification, clavicle fracture, lung cavity, lung cyst, lung tumor, mediastinal shift,
    pulmonary fibrosis, rib fracture, tuberculosis,
    air trapping, aortic elongation, apical pleural thickening, bronchiectasis, costophrenic angle blunting,
    hemidiaphragm elevation, hiatal hernia, interstitial pattern, alveolar pattern, kyphosis, laminar atelectasis,
    scoliosis, vascular hilar enlargement, volume loss,
    bacterial pneumonia, viral pneumonia, fungal pneumonia, lipoid pneumonia
"""
_PLURAL = """
    support devices, infiltrates, chronic changes, copd signs, calcified densities, vertebral degenerative changes,
    non axial articular degenerative changes, post radiotherapy changes, asbestosis signs, other diseases
"""
_CALLED = {  # label: what reports call it
    "covid19": "covid-19",
    "covid2019": "covid-19",
    "h1n1": "h1n1",
    "sarscov2": "sars-cov-2",
    "bacterial": "bacterial pneumonia",
    "viral": "viral pneumonia",
    "viral other": "viral pneumonia",
    "fungal": "fungal pneumonia",
    "lipoid": "lipoid pneumonia",
    "ild": "interstitial lung disease",
    "enlarged pa": "enlarged pulmonary artery",
    "tb": "tuberculosis",
    "nsg tube": "nasogastric tube",
    "pneumoperitoneo": "pneumoperitoneum",
}
_OWN = {  # labels whose name makes no sentence
    "pleural other": Prompts(
        ("there is pleural thickening.", "there is pleural scarring."),
        ("there is no pleural thickening.", "there is no pleural scarring."),
    ),
    "other lesion": Prompts(("there is another lesion.",), ("there is no other lesion.",)),
    "other disease": Prompts(("there is another disease.",), ("there is no other disease.",)),
    "bullas": template("bullae", plural=True),
    "no lung opacity / not normal": Prompts(
        ("there is an abnormality, but no lung opacity.",), ("there is lung opacity.", "the lungs are clear.")
    ),
}
_UNSAID = """
    unchanged, exclude, suboptimal study, unknown, uncertain, indeterminate, not available, na, other, others
"""

_ABSENCE = (
    "no|not|without|absence|absent|none|nothing|negative|normal|healthy|unremarkable|clear"
    "|kein|keine|ohne|unauffällig|normalbefund|sans|aucun|aucune|sin|ningún|sem|nenhum|senza|nessun|geen|zonder"
)
_SAYS_ABSENT = re.compile(rf"(?:{_ABSENCE})\b.*|[无無未].*|正常")
_DENIED = re.compile(
    r"(?:no|not|without|w/o|absence of|absent|lack of|free of|negative for)[ -]+(?P<before>.+)"
    r"|(?P<after>.+?)[ -]+(?:absent|negative|free|ruled out)"
)
_AFFIRMED = re.compile(r"(?P<before>.+?)[ -]+(?:present|positive)|(?:presence of|positive for)[ -]+(?P<after>.+)")
_HAS = re.compile(r"(?:has|have|is|are|with)[ -]+(.+)")
_DOUBTED = re.compile(  # the opposite, or neither: not to be affirmed
    r"=|\br/o\b|\b(?:neg|negativ[ao]?|négatif|négative|unlikely|improbable|doubtful|rule[ -]out|exclud\w*"
    r"|exclusion|resolved|unwahrscheinlich|fraglich|ausschluss|ausgeschlossen|exclue?s?|descartad[ao]s?|excluíd[ao]s?"
    r"|improvável|esclus[oaie]|improbabile|onwaarschijnlijk|uitgesloten)\b"
)
_VALUE = re.compile(  # "edema=0", "edema -1.0", "edema yes", as one-hot encodings call their columns; "0"
    r"(?:.*?[\s=:(-])??(?P<value>[-+]?\d+(?:[.,]\d+)?|true|false|yes|no|nan|unknown|uncertain)\)?"
)
_NAMES_NOTHING = re.compile(
    r"\b(?:class(?:es)?|(?:label|target|categor|group|type|grade|stage)(?:s|y|ies)?|any|other)(?![^\W\d_])"
)
_NOUN = re.compile(r"[^\W\d_]{2}|[^\W\d_\x00-\x7f]")  # a word of two letters, or one beyond ASCII
_NO_NOUN = re.compile(rf"\b(?:{_ABSENCE}|non|present|positive)\b|[无無未]|正常")  # what "there is no" would not deny


def words_of(label: str) -> str:
    """A label's name as it stands in a sentence: in lower case, with spaces, a slash read as "or".

    Example:
        >>> words_of("Pleural_Thickening"), words_of("Nodule/Mass"), words_of("PleuralEffusion")
        ('pleural thickening', 'nodule or mass', 'pleural effusion')
    """
    called = _CALLED_BY_KEY.get(_key(label))
    if called is not None:
        return called
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", label)).replace("_", " ").lower()
    return " ".join(re.sub(r"(?<=\w\w)\s*/\s*(?=\w\w)", " or ", apart).replace("&", " and ").split())


def prompts_of(label: str, corpus: str = "") -> Prompts | None:
    """The default prompts of a label; ``None`` where its name does not tell what it says of an image.

    Args:
        label: name of the label.
        corpus: name of the corpus that has it: "positive" means something in COVIDx.

    Example:
        >>> prompts_of("Edema").present, prompts_of("No Finding").absent, prompts_of("no_effusion").present
        (('there is edema.',), ('there is an abnormality.',), ('there is no effusion.',))
        >>> prompts_of("unchanged") is None
        True
    """
    return _meaning(label, corpus)[0]


def is_finding(label: str, corpus: str = "") -> bool:
    """Whether a label that is 1 says that something is to be seen: not that nothing is, nor nothing of the image.

    Args:
        label: name of the label.
        corpus: name of the corpus that has it.

    Example:
        >>> [name for name in ("Edema", "No Finding", "no_effusion", "normal", "abnormal") if is_finding(name)]
        ['Edema', 'abnormal']
    """
    return _meaning(label, corpus)[1]


def _meaning(label: str, corpus: str = "") -> tuple[Prompts | None, bool]:
    """The prompts of a label, and whether it is a finding: from the tables, or else by the words of its name."""
    if re.search(r"[<>?!~¬]", label):  # which keys would drop
        return None, False
    if known := _MEANINGS.get(f"{corpus}:{_key(label)}") or _MEANINGS.get(_key(label)):
        return known
    words = words_of(label)
    if has := _HAS.fullmatch(words):
        return _meaning(has[1], corpus)
    if valued := _VALUE.fullmatch(words):
        return None, re.fullmatch(r"\+?0*[1-9].*|0[.,]0*[1-9].*|true|yes", valued["value"]) is not None
    if denied := _DENIED.fullmatch(words):
        prompts, finding = _meaning(denied["before"] or denied["after"])
        return prompts and prompts.swapped(), not finding
    if affirmed := _AFFIRMED.fullmatch(words):
        return _meaning(affirmed["before"] or affirmed["after"])
    if _DOUBTED.search(words):
        return None, False
    if _NO_NOUN.search(words) or not _NOUN.search(_NAMES_NOTHING.sub("", words)):
        return None, not _SAYS_ABSENT.fullmatch(words)
    return template(words), True


def _key(label: str) -> str:
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFC", label).lower())


def _keys(names: str) -> dict[str, str]:
    return {_key(name): " ".join(name.split()) for name in names.split(",")}


_CALLED_BY_KEY = _keys(_PLAIN) | _keys(_PLURAL) | {_key(name): called for name, called in _CALLED.items()}
_MEANINGS: dict[str, tuple[Prompts | None, bool]] = {
    **{key: (template(called), True) for key, called in _CALLED_BY_KEY.items()},
    **{key: (template(name, plural=True), True) for key, name in _keys(_PLURAL).items()},
    **{_key(name): (own, True) for name, own in _OWN.items()},
    **dict.fromkeys(_keys(_SOMETHING_WRONG), (NOTHING_WRONG.swapped(), True)),
    **dict.fromkeys(_keys(_NOTHING_WRONG), (NOTHING_WRONG, False)),
    **dict.fromkeys(_keys(_UNSAID), (None, False)),
    "covidx:positive": (template("covid-19"), True),
    "covidx:negative": (template("covid-19").swapped(), False),
}
