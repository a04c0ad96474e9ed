"""From a coded finding of the Indiana reports (``Opacity/lung/base/left/mild``) to what the renderer can draw of it.

A code is a heading and its qualifiers. It is *drawn* where the film shows all that it says, *partly* where a qualifier
is lost or where the drawing stands for something that looks alike, and *not* where there is no drawing of it. Where
a code leaves the side, the zone or the size open, one is chosen by chance when the film is drawn, which contradicts
nothing; words that tell nothing more of such a drawing (a *focal* line, a *mild* one, a *healed* fracture) count as
shown. :func:`read_code` is the whole table; :func:`coverage` counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lingula.corpora.synthetic.findings import FURTHER, KINDS, Finding, pick

if TYPE_CHECKING:
    from numpy.random import Generator

NORMAL = "normal"
UNTOLD = ("", "no indexing", "technical quality of image unsatisfactory")  # headings that say nothing of a finding

SIZE = {"mild": "small", "small": "small", "moderate": "moderate", "severe": "large", "large": "large"}
ZONE = {
    "upper lobe": "upper",
    "apex": "upper",
    "middle lobe": "mid",
    "lingula": "mid",
    "hilum": "mid",
    "lower lobe": "lower",
    "base": "lower",
    "costophrenic angle": "lower",
    "retrocardiac": "lower",
}
SIDE_OF = {"middle lobe": "right", "lingula": "left", "retrocardiac": "left"}  # where the code names none
MANY = {"multiple", "scattered"}
LUNG = {"lung", *ZONE}  # places of a finding in the lung
OUTSIDE = {  # places where the same heading means something that is not in the lung
    "abdomen", "aorta", "blood vessels", "breast", "bronchi", "cardiophrenic angle", "clavicle", "coronary vessels",
    "diaphragm", "heart", "heart atria", "heart ventricles", "humerus", "lymph nodes", "mediastinum", "mitral valve",
    "neck", "paratracheal", "pleura", "pleural sinus", "ribs", "shoulder", "spine", "sternum", "sulcus",
    "thoracic vertebrae", "thorax", "trachea", "trachea, carina",
}  # fmt: skip
SHADOWS = ("opacity", "density", "infiltrate", "airspace disease", "consolidation", "pneumonia")
SURE = ("airspace disease", "consolidation", "pneumonia")  # drawn at full contrast, the vaguer words fainter
BACK = ("thoracic vertebrae", "lumbar vertebrae", "spine", "spondylosis", "osteophyte")


@dataclass(frozen=True)
class Drawing:
    """What can be drawn of one code.

    Attributes:
        findings: an empty side, zone or size of one that must have it is chosen when the film is drawn.
        lost: what the code says besides, in its own words.
    """

    findings: tuple[Finding, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """``drawn``, ``partly`` or ``not``."""
        return ("partly" if self.lost else "drawn") if self.findings else "not"


@dataclass
class _Code:
    """A heading and its qualifiers, which are taken away as the drawing shows them."""

    head: str
    left: list[str]
    implied: str = ""  # the side of a place that only one side has

    def __post_init__(self) -> None:
        self.implied = next((side for word, side in SIDE_OF.items() if word in self.left), "")

    def take(self, *words: str) -> str:
        """The first of these that the code has; all of them count as shown."""
        there = [word for word in self.left if word in words]
        self.left = [word for word in self.left if word not in words]
        return there[0] if there else ""

    def has(self, *words: str) -> bool:
        return any(word in self.left for word in words)

    def sides(self) -> tuple[str, ...]:
        side = self.take("right", "left", "bilateral") or self.implied
        return ("left", "right") if side == "bilateral" else (side,)

    def size(self, default: str = "") -> str:
        return SIZE.get(self.take(*SIZE), default)

    def zone(self) -> str:
        """The zone of the first place in the lung; a second place is lost."""
        first = next((word for word in self.left if word in ZONE), "")
        self.take("lung", first)
        return ZONE.get(first, "")


def read_code(written: str) -> Drawing:
    """What can be drawn of one code.

    Example:
        >>> read_code("Pleural Effusion/left/small")
        Drawing(findings=(Finding(name='effusion', side='left', zone='', size='small', certain=True),), lost=())
        >>> read_code("Mastectomy/left").how
        'not'
    """
    head, *words = (part.strip().lower() for part in written.split("/"))
    code = _Code(" ".join(head.split()), words)
    findings = _findings(code)
    return Drawing(tuple(findings), tuple(code.left) if findings else ())


def _findings(code: _Code) -> list[Finding]:
    head = code.head
    if head in SHADOWS:
        return _shadow(code)
    if head in ("nodule", "mass"):
        code.take("round")
        return _spots(code, "nodule", "large" if head == "mass" else "small")
    if head in ("calcified granuloma", "granuloma"):
        code.take("round", "small")
        return _spots(code, "granuloma", "")
    if head == "granulomatous disease":  # which leaves calcified granulomas; nobody says where
        stands_for(code)
        return _spots(code, "granuloma", "")
    if head == "calcinosis":
        return _lime(code)
    if head == "atherosclerosis":
        code.take("aorta", "aorta, thoracic")
        return [Finding("aortic_calcification")]
    if head == "cicatrix" and not code.has(*OUTSIDE - {"pleura"}):
        if code.has("pleura"):
            return _thickening(code)
        code.take("streaky", "focal", "chronic", "small", "mild")
        zone = code.zone()
        return [Finding("linear_opacity", side, zone) for side in code.sides()]
    if head == "thickening" and code.has("pleura"):
        return _thickening(code)
    if head == "cardiomegaly" or (head == "cardiac shadow" and code.has("enlarged", "borderline")):
        code.take("enlarged", "prominent")
        if code.take("borderline"):
            return [Finding("cardiomegaly", size="borderline")]
        return [Finding("cardiomegaly", size=code.size())]
    if head in ("pleural effusion", "hemothorax"):
        return _effusions(code)
    if head in ("pneumothorax", "hydropneumothorax", "hemopneumothorax"):
        code.take("apex", "upper lobe")
        size = code.size()
        sides = code.sides()
        found = [Finding("pneumothorax", side, size=size) for side in sides]
        return found if head == "pneumothorax" else [*found, *(Finding("effusion", side) for side in sides)]
    if head in ("pulmonary edema", "pulmonary congestion"):
        code.take("interstitial", "bilateral", "diffuse", "prominent", "pulmonary alveoli")
        return [Finding("oedema", size=code.size("small" if head == "pulmonary congestion" else ""))]
    if head == "pulmonary atelectasis":
        code.take("streaky", "focal", "chronic", "mild", "small")
        zone = code.zone()
        return [Finding("atelectasis", side, zone) for side in code.sides()]
    if head in ("markings", "lung diseases, interstitial", "pulmonary fibrosis", "fibrosis"):
        if head != "markings":
            stands_for(code)
        return _interstitial(code)
    if head == "lung":
        return _volume(code)
    if head in ("emphysema", "pulmonary emphysema", "pulmonary disease, chronic obstructive", "lung, hyperlucent"):
        if head != "emphysema" and head != "pulmonary emphysema":
            stands_for(code)
        code.take("chronic", "bilateral")
        return [Finding("hyperinflation", size="large" if code.take("severe") else "moderate")]
    if head in ("diaphragm", "diaphragmatic eventration"):
        if head == "diaphragm" and code.has("flattened"):
            stands_for(code)  # the lungs are drawn large as well
            code.take("flattened", "bilateral")
            return [Finding("hyperinflation", size="moderate")]
        if head == "diaphragm" and not code.has("elevated"):
            return []
        if head == "diaphragmatic eventration":
            stands_for(code)
        code.take("elevated", "chronic")
        size = code.size("moderate")
        return [Finding("raised_diaphragm", side, size=size) for side in code.sides()]
    if head in ("costophrenic angle", "sulcus") and code.has("blunted"):
        code.take("blunted", "mild", "chronic", "sulcus")
        return [Finding("blunted_angle", side) for side in code.sides()]
    if head in ("aorta", "aorta, thoracic") and code.has("tortuous"):
        code.take("tortuous")
        return [Finding("tortuous_aorta", size=code.size())]
    if head == "hernia, hiatal":
        code.take("retrocardiac", "prominent")
        return [Finding("hiatal_hernia", size=code.size())]
    if head in BACK and (head in BACK[3:] or code.has("degenerative")):
        if code.has("lumbar vertebrae") or head == "lumbar vertebrae":
            return []  # below the film
        code.take("degenerative", "thoracic vertebrae", "spine", "multiple", "chronic", "diffuse", "small", "anterior")
        return [Finding("spine_degeneration", size=code.size())]
    if head == "scoliosis" and not code.has("lumbar vertebrae"):
        code.take("thoracic vertebrae")
        return [Finding("scoliosis", side, size=code.size()) for side in code.sides()]
    if head == "fractures, bone" and code.has("ribs"):
        code.take("ribs", "healed", "chronic")
        return [Finding("rib_fracture", side) for side in code.sides()]
    if head in ("implanted medical device", "catheters, indwelling"):
        if set(code.left) - {"left", "right", "bilateral", "thorax", "anterior"}:
            return []  # a valve, a prosthesis, a shunt
        code.take("thorax", "anterior")
        if not code.has("left", "right", "bilateral"):
            stands_for(code)  # most are pacemakers and central lines, but nobody says so
        if head == "implanted medical device":
            return [Finding("pacemaker", side) for side in code.sides()]
        return [Finding("central_line", side, "mid") for side in code.sides()]  # where a line should end
    if head == "tube, inserted" and code.has("trachea", "trachea, carina"):
        code.take("trachea", "trachea, carina")
        return [Finding("endotracheal_tube", zone="mid")]
    if head == "surgical instruments" and code.has("mediastinum", "hilum", "abdomen"):
        code.take("lung", "multiple")
        zone = code.take("mediastinum", "hilum", "abdomen")
        (side, *_) = code.sides()
        return [Finding("clips", side if zone != "mediastinum" else "", zone)]
    return []


def stands_for(code: _Code) -> None:
    """Mark a drawing that only looks like what the heading says."""
    code.left.append(f"{code.head} itself")


def _shadow(code: _Code) -> list[Finding]:
    """An opacity by any name: round is a nodule, streaky a line, interstitial a net, and the rest a consolidation."""
    if code.has(*OUTSIDE) or not (
        code.has(*LUNG, "pulmonary alveoli") or code.head in ("pneumonia", "airspace disease")
    ):
        return []
    if code.has("interstitial", "reticular"):
        return _interstitial(code)
    if code.has("round"):
        code.take("round", "focal")
        return _spots(code, "nodule", "")
    zone = code.zone()
    if code.take("streaky"):
        code.take("mild", "small", "patchy")
        return [Finding("linear_opacity", side, zone) for side in code.sides()]
    code.take("patchy", "focal", "pulmonary alveoli", "acute")
    size = code.size()
    size = "large" if not size and code.take("diffuse") else size
    if size == "moderate":
        size = "large"
    certain = code.head in SURE
    return [Finding("consolidation", side, zone, size, certain) for side in code.sides()]


def _spots(code: _Code, name: str, size: str) -> list[Finding]:
    """Nodules or granulomas in the lung: several where the code says so and leaves it open where they are."""
    if code.has(*OUTSIDE - {"thorax"}):
        return []
    zone = code.zone()
    many = code.has(*MANY)
    if KINDS[name].sizes != ("",):
        size = code.size(size)
        size = "large" if size == "moderate" else size
    sides = code.sides()
    if not many:
        return [Finding(name, side, zone, size) for side in sides]
    zones = (zone,) if zone else ("upper", "lower")
    sides = ("left", "right") if sides == ("",) else sides
    if len(zones) * len(sides) > 1:
        code.take(*MANY)
    return [Finding(name, side, z, size) for side in sides for z in zones]


def _lime(code: _Code) -> list[Finding]:
    """Calcification: of the aorta, of lymph nodes, or of a spot in the lung."""
    if code.has("aorta", "aorta, thoracic", "blood vessels"):
        if code.take("blood vessels"):
            stands_for(code)
        code.take("aorta", "aorta, thoracic")
        return [Finding("aortic_calcification")]
    if code.has("ribs", "mitral valve", "pleura", "abdomen", "coronary vessels", "bronchi", "spine"):
        return []
    if code.has("lymph nodes", "mediastinum", "hilum", "paratracheal", "trachea, carina"):
        hilar = code.has("hilum")
        code.take("lung", "hilum", "lymph nodes", "mediastinum", "trachea, carina", "small", "multiple")
        if not hilar:
            return [Finding("calcified_nodes", zone="mediastinum")]
        return [Finding("calcified_nodes", side, "hilum") for side in code.sides()]
    if code.has(*LUNG):
        code.take("round", "small")
        return _spots(code, "granuloma", "")
    return []


def _thickening(code: _Code) -> list[Finding]:
    if code.has("middle lobe"):
        return []
    code.take("pleura", "mild", "round", "small", "chronic")
    zone = "upper" if code.take("apex", "upper lobe") else ""
    return [Finding("pleural_thickening", side, zone) for side in code.sides()]


def _effusions(code: _Code) -> list[Finding]:
    code.take("base", "costophrenic angle", "lower lobe")
    size = code.size()
    return [Finding("effusion", side, size=size) for side in code.sides()]


def _interstitial(code: _Code) -> list[Finding]:
    if code.has(*OUTSIDE):
        return []
    for plain in ("interstitial", "bronchovascular", "prominent", "reticular", "diffuse", "chronic", "irregular"):
        code.take(plain)
    code.take("scattered", "patchy")
    zone = code.zone()
    size = code.size("moderate" if code.head != "markings" else "small")
    sides = code.sides()
    return [
        Finding("interstitial_markings", side, zone, size) for side in (("left", "right") if "" in sides else sides)
    ]


def _volume(code: _Code) -> list[Finding]:
    """``Lung``: how much air is in it, or its markings."""
    if code.has("interstitial"):
        return _interstitial(code)
    code.take("bilateral", "chronic")
    if code.take("hypoinflation"):
        return [Finding("hypoinflation", size=code.size())]
    if code.take("hyperdistention"):
        return [Finding("hyperinflation", size="large" if code.take("severe", "large") else "moderate")]
    return []


# One film -------------------------------------------------------------------------------------------------------------


def split_codes(mesh: str) -> list[str]:
    """The codes of a cell, each once; those that say nothing of a finding are left out."""
    codes = dict.fromkeys(" ".join(code.split()) for code in mesh.split(";"))
    return [code for code in codes if code.lower() not in UNTOLD]


def stated(codes: Iterable[str]) -> tuple[Finding, ...]:
    """What a report's codes say that can be drawn, each place of a finding once; what they leave open is empty.

    Of two codes for one place the larger size counts, a code with a place counts for one without, and an angle that is
    blunted by an effusion is drawn with it.
    """
    found: list[Finding] = []
    for code in codes:
        for new in read_code(code).findings:
            same = next((i for i, old in enumerate(found) if _same_place(old, new)), None)
            if same is None:
                found.append(new)
            else:
                found[same] = _joined(found[same], new)
    wet = {finding.side for finding in found if finding.name == "effusion"}
    found = [f for f in found if f.name != "blunted_angle" or not (f.side in wet or (wet and not f.side))]
    return tuple(sorted(found, key=_order))


def _order(finding: Finding) -> tuple[int, Finding]:
    return [*KINDS, *FURTHER].index(finding.name), finding


def _same_place(one: Finding, other: Finding) -> bool:
    if one.name != other.name:
        return False
    sides, zones = {one.side, other.side} - {""}, {one.zone, other.zone} - {""}
    return len(sides) < 2 and len(zones) < 2


def _joined(one: Finding, other: Finding) -> Finding:
    sizes = ("", "borderline", "small", "moderate", "large")
    side, zone = one.side or other.side, one.zone or other.zone
    if one.name in ("interstitial_markings", "pleural_thickening"):
        zone = one.zone if one.zone == other.zone else ""  # no zone is all of the lung
    size = max(one.size, other.size, key=sizes.index)
    return replace(one, side=side, zone=zone, size=size, certain=one.certain or other.certain)


def completed(findings: Sequence[Finding], rng: Generator) -> tuple[Finding, ...]:
    """The findings with a side, zone and size where the codes left them open, so that they can be drawn.

    A size that nobody states is not the largest, and a place that nobody states is not where another of its kind is.
    """
    whole: list[Finding] = []
    for finding in findings:
        kind = KINDS.get(finding.name) or FURTHER[finding.name]
        taken = {(other.side, other.zone) for other in (*findings, *whole) if other.name == finding.name}
        for _ in range(6):
            side, zone, size = finding.side, finding.zone, finding.size
            if not side and ("" not in kind.sides or zone in ("hilum", "abdomen")):  # the mediastinum has no side
                side = pick(rng, ("left", "right"))
            if not zone and "" not in kind.zones:
                zone = pick(rng, kind.zones)
            if not size and "" not in kind.sizes:
                size = pick(rng, [size for size in kind.sizes if size != "large"] or kind.sizes)
            if (side, zone) not in taken or (side, zone) == (finding.side, finding.zone):
                break
        whole.append(replace(finding, side=side, zone=zone, size=size))
    return tuple(whole)


def coverage(cells: Iterable[str]) -> dict[str, Counter[str]]:
    """How many mentions of each heading are drawn, partly drawn and not drawn.

    Args:
        cells: the column of codes, one cell a report.
    Returns:
        ``{heading: {"drawn": count, "partly": count, "not": count}}``, the most frequent heading first.
    """
    counts: dict[str, Counter[str]] = {}
    for cell in cells:
        for code in split_codes(cell):
            if code != NORMAL:
                heading = " ".join(code.partition("/")[0].split())
                counts.setdefault(heading, Counter())[read_code(code).how] += 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1].total(), entry[0])))
