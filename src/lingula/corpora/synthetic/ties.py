"""Which sentence of a real report speaks of which drawn finding, by its words. Rather none than a wrong one.

A sentence is tied to a finding of its film if it names exactly one kind of all that can be drawn, that kind is on the
film, no word of it denies or doubts, and the side and the height that it names are those of the drawing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lingula.corpora.synthetic.shapes import Region

# Tried from top to bottom; a phrase that one has matched is not there for the next, so that the narrower stands first.
# A pattern with a gap (".*") leaves its match in place, as other findings may be named in the gap.
WORDS: tuple[tuple[str, str], ...] = (
    ("oedema", r"interstitial (?:pulmonary )?edema|edema|congesti\w+"),
    (
        "calcified_nodes",
        r"calcif\w+.*\b(?:lymph|nodes?|nodal|hil\w+|mediastin\w+)|\b(?:hil|mediastin|lymph|node|nodal)\w*.*calcif\w+",
    ),
    ("granuloma", r"granuloma\w*|calcified (?:pulmonary |lung )?nodul\w+"),
    (
        "aortic_calcification",
        r"(?:atheroscl|aort)\w+.*calcif\w+|calcif\w+.*(?:atheroscl|aort)\w+|atheroscl\w+",
    ),
    ("linear_opacity", r"(?:linear|streak\w*|band-?like|strand\w*)(?: \w+)? (?:opaci\w+|densit\w+)|scar\w*"),
    ("pleural_thickening", r"(?:pleura\w*|apical|apices).*(?:thicken\w+|caps?\b)"),
    ("nodule", r"(?:nodul\w+|round\w*)(?: \w+)? (?:opaci\w+|densit\w+)|nodul\w+|\bmass(?:es)?\b"),
    (
        "interstitial_markings",
        r"(?:interstiti|reticul)\w*(?: \w+)? opaci\w+|interstiti\w+|reticul\w+|fibro\w+|bronchovasc\w+|markings",
    ),
    ("consolidation", r"opaci\w+|consolidat\w+|infiltrat\w+|air ?-?space disease|pneumonia|densit\w+"),
    ("effusion", r"effusions?|pleural fluid"),
    ("pneumothorax", r"\w*pneumothora\w+"),
    ("cardiomegaly", r"cardiomegaly|(?:heart|cardi\w+|silhouette).*enlarg\w+|enlarg\w+.*(?:heart|cardi\w+)"),
    ("atelectasis", r"\w*atelecta\w+"),
    ("rib_fracture", r"\bribs?\b.*fractur\w+|fractur\w+.*\bribs?\b"),
    (
        "hyperinflation",
        r"hyper-?(?:inflat|expan|lucen|aerat)\w+|emphyse\w+|\bcopd\b|chronic obstructive|flatten\w+.*diaphragm\w*|"
        r"diaphragm\w*.*flatten\w+",
    ),
    (
        "hypoinflation",
        r"hypo-?(?:inflat|expan|aerat|ventilat)\w+|low(?: lung)? volumes?|volumes are (?:low|decreased|diminished)|"
        r"(?:decreased|diminished|reduced) lung volumes",
    ),
    ("raised_diaphragm", r"(?:elevat|eventrat)\w+.*diaphragm\w*|diaphragm\w*.*(?:elevat|eventrat)\w+|eventrat\w+"),
    ("tortuous_aorta", r"tortu\w+|ectasia|ectatic|uncoil\w+"),
    ("scoliosis", r"\w*scolio\w+|(?:dextro|levo)\w*curv\w+"),
    ("spine_degeneration", r"degenerative|osteophyt\w+|spondyl\w+|spurr?\w*"),
    ("hiatal_hernia", r"hernia\w*"),
    ("blunted_angle", r"blunt\w+"),
    ("pacemaker", r"pacemaker|pacer|pacing|defibrillator|\ba?icd\b"),
    (
        "central_line",
        r"\bpicc\b|\bport\b|porta?-?a?-?cath\w*|mediport|catheter|central (?:venous )?line|subclavian|jugular",
    ),
    ("endotracheal_tube", r"endotracheal|\bett?\b(?: tube)?"),
    ("clips", r"\bclips?\b"),
)
_WORDS = tuple((name, re.compile(pattern), ".*" not in pattern) for name, pattern in WORDS)

_DENIAL = re.compile(
    r"\b(?:no|not|non|nor|none|never|without|negative|free|absen\w+|clear\w*|normal\w*|unremarkable|resol\w+|remov\w+|"
    r"neither|rather|exclud\w+|cannot|unlikely|versus|vs|or|if|question\w*|rule|history|longer|intact|limits?|limited|may|"
    r"might|could|possib\w+|prob\w+|suspic\w+|suspect\w*|evaluat\w+|follow-?up|recommend\w*|suggest\w*|differential|"
    r"improved|cleared|less|status|post|obscur\w*|correlat\w+|appears?|mimic\w*|simulat\w*|artifact\w*|silhouetting)\b|\?"
)
_ELSEWHERE = re.compile(  # what the words may speak of and no finding here is
    r"\b(?:shoulders?|acromi\w+|glenohum\w+|humer\w+|clavic\w+|joints?|lumbar|thoracolumbar|cervical|abdom\w+|sternum|"
    r"lateral view|sternal|mitral|coronary|valve|bone density|soft tissues?|breast|skin|thyroid|vertebra\w* bod\w+|"
    r"ventric\w+|atri\w+|fissures?|compression|wedge|costochondral|cartilage|splenic|gallbladder|posterior\w*|nipple|"
    r"shunt|helpful)\b"
)
_SIDES = (
    ("left", re.compile(r"\bleft\b|\blt\b|\blingula\w*|retrocardiac")),
    ("right", re.compile(r"\bright\b|\brt\b")),
)
_BOTH = re.compile(r"\bbilateral\w*|\bboth\b|\bbi(?:bas|ap)\w+|\bbases\b|\bapices\b")
_ZONES = (
    ("upper", re.compile(r"\bupper\b|\b(?:bi)?ap(?:ex|ical|ices)\b|suprahilar")),
    ("mid", re.compile(r"\bmid\w*\b|\blingula\w*|\w*hil(?:um|ar|a)\b")),
    ("lower", re.compile(r"\blower\b|\b(?:bi)?bas(?:e|es|al|ilar)\b|retrocardiac|costophrenic|infrahilar")),
)
_NODES = (
    ("hilum", re.compile(r"hil(?:um|ar|a)\b")),
    ("mediastinum", re.compile(r"mediastin\w+|paratracheal|carin\w+|aorto\w+")),
)
PLACED = ("consolidation", "atelectasis", "nodule", "granuloma", "linear_opacity", "interstitial_markings")  # by height


def named(sentence: str) -> set[str]:
    """The kinds of finding that the words of a sentence name, denied or not.

    Example:
        >>> sorted(named("streaky opacities in the left base with a small effusion."))
        ['effusion', 'linear_opacity']
    """
    text = sentence.lower()
    there = set()
    for name, pattern, used_up in _WORDS:
        if pattern.search(text):
            there.add(name)
            text = pattern.sub(" ; ", text) if used_up else text
    return there


def tie(sentence: str, regions: Iterable[Region]) -> tuple[Region, ...]:
    """The regions of the one finding that a sentence affirms; empty where that is in any doubt."""
    text = sentence.lower()
    there = named(text)
    if len(there) != 1 or _DENIAL.search(text) or _ELSEWHERE.search(text):
        return ()
    (name,) = there
    mine = [region for region in regions if region.finding.name == name]
    sides = {side for side, pattern in _SIDES if pattern.search(text)}
    sides |= {"left", "right"} if _BOTH.search(text) else set()
    if sides and all(region.finding.side for region in mine):
        mine = [region for region in mine if region.side in sides]
        if {region.side for region in mine} != sides:
            return ()
    patterns = _ZONES if name in PLACED else _NODES if name == "calcified_nodes" else ()
    zones = {zone for zone, pattern in patterns if pattern.search(text)}
    if zones:
        mine = [region for region in mine if region.finding.zone in ("", *zones)]
        if {region.finding.zone for region in mine if region.finding.zone} not in (zones, set()):
            return ()
    return tuple(mine)
