"""The report writer: the same facts in many words.

Every fact has several wordings, so that sentences of different reports often mean the same without sharing their
words, and every finding of the film is stated once with all that is known of it. Nothing that is said is false of the
film. A row, for a film with one finding::

    Portable AP radiograph of the chest.                    view|AP
    There is a small effusion at the left side.             effusion|left|small|present
    No pneumothorax is seen.                                no pneumothorax
    The cardiac silhouette is normal in size.               no cardiomegaly
    Impression: small left pleural effusion.                effusion|left|small|present
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lingula.corpora.synthetic.findings import DEVICES, FINDINGS, KINDS, Finding, change, pick

if TYPE_CHECKING:
    from numpy.random import Generator


@dataclass(frozen=True)
class Statement:
    """A sentence of a report and its truth.

    Attributes:
        text: one sentence with its full stop.
        meaning: equal for two statements exactly when they mean the same.
        finding: the finding that it affirms; ``None`` for negations and boilerplate.
    """

    text: str
    meaning: str
    finding: Finding | None = None


# Three ways to say each finding; "a " opens those that take an article where the sentence gives one.
PHRASES: dict[str, tuple[str, ...]] = {
    "effusion": ("a {size} {side} pleural effusion", "{size} pleural fluid {on}", "a {size} {side} effusion"),
    "bilateral effusion": (
        "{size} pleural fluid {on}",
        "{size} bilateral pleural fluid",
        "{size} fluid in both pleural spaces",
    ),
    "pneumothorax": ("a {size} {side} pneumothorax", "a {size} pneumothorax {on}", "{size} {side} pleural air"),
    "consolidation": (
        "{size} consolidation in the {side} {zone}",
        "a {size} airspace opacity in the {side} {zone}",
        "{size} {side} {zone} pneumonia",
    ),
    "oedema": ("{severity} pulmonary edema", "{severity} interstitial edema", "{severity} pulmonary congestion"),
    "cardiomegaly": (
        "{severity} cardiomegaly",
        "{severity} cardiac enlargement",
        "{severity} enlargement of the heart",
    ),
    "atelectasis": (
        "linear atelectasis in the {side} {zone}",
        "{side} {zone} atelectasis",
        "plate-like collapse in the {side} {zone}",
    ),
    "bilateral atelectasis": ("linear atelectasis in both {zone}s", "bilateral {zone} atelectasis"),
    "nodule": (
        "a {size} nodule in the {side} {zone}",
        "a {size} round opacity in the {side} {zone}",
        "a {size} {side} {zone} nodule",
    ),
    "granuloma": (
        "a calcified granuloma in the {side} {zone}",
        "a {side} {zone} granuloma",
        "a dense calcified focus in the {side} {zone}",
    ),
    "rib_fracture": ("a {level} rib fracture {on}", "a broken {side} {level} rib", "a displaced {side} {level} rib"),
    "hyperinflation": ("{severity} hyperinflation", "{severity} emphysema", "{severity} overinflation of both lungs"),
    "endotracheal_tube": (
        "an endotracheal tube with its tip {tip}",
        "a tracheal tube ending {tip}",
        "an ET tube ending {tip}",
    ),
    "central_line": (
        "a {side} central line with its tip {tip}",
        "a {side} central venous catheter ending {tip}",
        "a {side} subclavian catheter ending {tip}",
    ),
    "pacemaker": ("a {side} pacemaker", "a cardiac pacing device {on}", "a {side} chest pacemaker with two leads"),
}
SIZE_WORDS = {"small": ("small", "minor"), "moderate": ("moderate", "medium"), "large": ("large", "extensive")}
SEVERITY_WORDS = {"small": ("mild", "slight"), "moderate": ("moderate",), "large": ("severe", "marked")}
SIDE_WORDS = {"left": ("left", "left-sided"), "right": ("right", "right-sided"), "bilateral": ("bilateral",)}
ON_WORDS = {
    "left": ("on the left", "at the left side"),
    "right": ("on the right", "at the right side"),
    "bilateral": ("on both sides", "at both sides"),
}
ZONE_WORDS = {
    "upper": ("upper zone", "upper lung"),
    "mid": ("mid zone", "middle lung"),
    "lower": ("lower zone", "base"),
}
LEVEL_WORDS = {"upper": "upper", "mid": "middle", "lower": "lower"}
TIP_WORDS = {
    "endotracheal_tube": {
        "upper": ("at the clavicles", "too high"),
        "mid": ("above the carina", "in good position"),
        "lower": ("in the right main bronchus", "below the carina"),
    },
    "central_line": {
        "mid": ("in the superior vena cava", "in the SVC"),
        "lower": ("in the right atrium", "in the heart"),
    },
}
AFFIRM = ("There is {a}.", "{A} is seen.", "{A} is present.", "{X}.")
DOUBT = ("Possible {x}.", "Findings may represent {a}.", "{A} is suspected.", "There is probably {a}.")
COMPARE = {
    "unchanged": ("unchanged from the prior", "stable since the prior study"),
    "larger": ("increased from the prior", "worse than on the prior study"),
    "smaller": ("decreased from the prior", "improved since the prior study"),
    "new": ("new since the prior", "which is new"),
}
PLAIN = {  # for negations and for what has gone
    "effusion": ("pleural effusion", "pleural fluid"),
    "pneumothorax": ("pneumothorax", "pleural air"),
    "consolidation": ("consolidation", "pneumonia"),
    "oedema": ("pulmonary edema", "pulmonary congestion"),
    "cardiomegaly": ("cardiomegaly", "cardiac enlargement"),
    "atelectasis": ("atelectasis", "collapse"),
    "nodule": ("nodule", "round opacity"),
    "granuloma": ("granuloma", "calcified focus"),
    "rib_fracture": ("rib fracture", "broken rib"),
    "hyperinflation": ("hyperinflation", "emphysema"),
    "endotracheal_tube": ("endotracheal tube", "tracheal tube"),
    "central_line": ("central line", "central venous catheter"),
    "pacemaker": ("pacemaker", "cardiac pacing device"),
}
DENY = ("No {x}.", "No {x} is seen.", "There is no {x}.", "No evidence of {x}.")

LUNG = ("consolidation", "oedema", "atelectasis", "nodule", "granuloma")
ACUTE = tuple(name for name in FINDINGS if KINDS[name].acute)
# meaning: (findings that must all be absent, weight, own wordings); the rest is DENY with the names in the meaning.
NEGATIONS: dict[str, tuple[tuple[str, ...], float, tuple[str, ...]]] = {
    "no effusion, no pneumothorax": (("effusion", "pneumothorax"), 7.0, ()),
    "no effusion": (("effusion",), 1.5, ("The costophrenic angles are clear.",)),
    "no pneumothorax": (("pneumothorax",), 1.5, ()),
    "no consolidation": (("consolidation",), 3.0, ()),
    "no consolidation, no effusion": (("consolidation", "effusion"), 0.6, ()),
    "no oedema": (("oedema",), 1.5, ("The pulmonary vessels are not congested.",)),
    "no nodule": (("nodule", "granuloma"), 0.4, ()),
    "no atelectasis": (("atelectasis", "pneumothorax"), 0.3, ()),
    "no rib_fracture": (("rib_fracture",), 1.2, ("The ribs are intact.", "No acute bone injury.")),
    "no cardiomegaly": (
        ("cardiomegaly",),
        6.0,
        (
            "Heart size is normal.",
            "The heart is not enlarged.",
            "The cardiac silhouette is normal in size.",
            "Normal heart.",
        ),
    ),
    "lungs clear": (
        (*LUNG, "effusion", "pneumothorax", "hyperinflation"),
        6.0,
        ("The lungs are clear.", "Both lungs are clear.", "Clear lungs on both sides."),
    ),
    "no devices": (
        DEVICES,
        0.6,
        ("No lines or tubes.", "There are no tubes or lines.", "No support devices are seen."),
    ),
}
BOILERPLATE: dict[str, tuple[str, ...]] = {
    "mediastinum normal": (
        "The mediastinal contours are normal.",
        "The mediastinum is not widened.",
        "Normal mediastinal contours.",
    ),
    "abdomen normal": (
        "The upper abdomen is normal.",
        "Normal upper abdomen.",
        "There is nothing abnormal below the diaphragm.",
    ),
}
VIEWS = {
    "PA": ("PA view of the chest.", "Upright PA radiograph of the chest.", "Frontal PA film, patient standing."),
    "AP": ("AP view of the chest.", "Portable AP radiograph of the chest.", "Frontal AP film, patient lying."),
}
NO_PRIOR = ("No prior study for comparison.", "There is no prior film to compare.", "Comparison: none.")
NO_CHANGE = ("No change since the prior study.", "Unchanged from the prior film.", "Stable compared with the prior.")
GONE = ("The {x} of the prior study has resolved.", "The prior {x} is no longer seen.", "Resolved {x} since the prior.")
REMOVED = ("The prior {x} is no longer seen.", "The {x} has been removed since the prior.", "Removed {x}.")
NOTHING_ACUTE = ("No acute cardiopulmonary disease.", "No acute process in the chest.", "Nothing acute.")
NORMAL = ("Normal chest.", "Normal chest radiograph.", "The film is normal.")


def write_report(
    findings: Sequence[Finding], rng: Generator, *, view: str = "", prior: Sequence[Finding] | None = None
) -> tuple[Statement, ...]:
    """A report of a film: every finding stated in full, some of what is absent, boilerplate, and an impression.

    Args:
        findings: of the film; all of them are stated.
        rng: chooses words, order and length.
        view: ``PA`` or ``AP``, named in some reports; empty never is.
        prior: findings of an earlier film to compare with; ``None`` where there is none.
    Returns:
        About 4 to 9 statements, in the order of the report.
    """
    opening: list[Statement] = []
    if view and rng.random() < 0.45:
        opening.append(Statement(pick(rng, VIEWS[view]), f"view|{view}"))
    if prior is None and rng.random() < 0.12:
        opening.append(Statement(pick(rng, NO_PRIOR), "prior|none"))

    body = [_affirm(finding, prior, rng) for finding in findings]
    names = {finding.name for finding in findings}
    body += [_gone(old, rng) for old in prior or () if old.name not in names]
    ending = _impression(findings, prior, rng)
    # The more there is to say, the less is said of what is absent; four sentences at least.
    missing = 4 - len(opening) - len(body) - len(ending)
    wanted = max(missing, (1 if len(body) < 4 else 0) + int(rng.random() * (3 if len(body) < 3 else 2)))
    body += _deny(names, wanted, rng)
    chance = 0.35 if len(body) < 5 else 0.1
    for meaning, wordings in BOILERPLATE.items():
        if rng.random() < chance:
            body.append(Statement(pick(rng, wordings), meaning))
    body = [body[int(i)] for i in rng.permutation(len(body))]
    return (*opening, *body, *ending)


def content(findings: Sequence[Finding]) -> str:
    """The stated facts that the film shows; ``normal`` where nothing is wrong. Equal for films of equal findings.

    Wording, boilerplate, which absent findings a report happens to mention, and comparisons with an earlier film are
    no part of it: a film cannot show them.
    """
    return "; ".join(sorted(finding.meaning for finding in findings)) or "normal"


def _affirm(finding: Finding, prior: Sequence[Finding] | None, rng: Generator) -> Statement:
    words, meaning = _phrase(finding, rng), finding.meaning
    bare = words.partition(" ")[2] if words.startswith(("a ", "an ")) else words
    text = pick(rng, AFFIRM if finding.certain else DOUBT).format(a=words, A=_capital(words), x=bare, X=_capital(bare))
    how = change(finding, prior) if prior is not None else ""
    if how and rng.random() < 0.7:
        text = f"{text[:-1]}, {pick(rng, COMPARE[how])}."
        meaning = f"{meaning}|{how}"
    return Statement(text, meaning, finding)


def _phrase(finding: Finding, rng: Generator) -> str:
    """A noun phrase that says all of a finding, with its article."""
    name, side, zone = finding.name, finding.side, finding.zone
    # Not "in the left-sided upper zone": the long form only stands before the finding itself.
    long = name in ("effusion", "pneumothorax", "central_line", "pacemaker")
    slots = {
        "size": pick(rng, SIZE_WORDS.get(finding.size, ("",))),
        "severity": pick(rng, SEVERITY_WORDS.get(finding.size, ("",))),
        "side": pick(rng, SIDE_WORDS[side]) if long else side,
        "on": pick(rng, ON_WORDS.get(side, ("",))),
        "zone": pick(rng, ZONE_WORDS.get(zone, ("",))),
        "level": LEVEL_WORDS.get(zone, ""),
        "tip": pick(rng, TIP_WORDS[name][zone]) if name in TIP_WORDS else "",
    }
    key = f"bilateral {name}" if side == "bilateral" else name
    words = pick(rng, PHRASES[key]).format(**slots)
    return f"an{words[1:]}" if words.startswith("a ") and words[2] in "aeiou" else words


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _deny(names: set[str], wanted: int, rng: Generator) -> list[Statement]:
    """Some true negations, no two of which say the same."""
    left = [(meaning, *rule) for meaning, rule in NEGATIONS.items() if not names & set(rule[0])]
    said: list[Statement] = []
    covered: set[str] = set()
    while left and len(said) < wanted:
        u = rng.random() * sum(weight for _, _, weight, _ in left)
        for meaning, absent, weight, own in left:  # noqa: B007  the loop stops at the drawn one
            u -= weight
            if u < 0:
                break
        said.append(Statement(_negation(meaning, absent, own, rng), meaning))
        covered |= set(absent)
        left = [entry for entry in left if not covered & set(entry[1])]
    return said


def _negation(meaning: str, absent: tuple[str, ...], own: tuple[str, ...], rng: Generator) -> str:
    if own and (not meaning.startswith("no ") or len(own) > 2 or rng.random() < 0.4):
        return pick(rng, own)
    said = [name for name in absent if f"no {name}" in meaning]
    words = " or ".join(pick(rng, PLAIN[name]) for name in said)
    return pick(rng, DENY).format(x=words)


def _gone(old: Finding, rng: Generator) -> Statement:
    wordings = REMOVED if old.name in DEVICES else GONE
    return Statement(pick(rng, wordings).format(x=pick(rng, PLAIN[old.name])), f"{old.name}|resolved")


def _impression(findings: Sequence[Finding], prior: Sequence[Finding] | None, rng: Generator) -> list[Statement]:
    """At most one closing sentence: the gravest finding again, or that there is nothing new or nothing acute."""
    if rng.random() > 0.72:
        return []
    if prior is not None and set(prior) == set(findings) and rng.random() < 0.5:
        return [Statement(_lead(pick(rng, NO_CHANGE), rng), "no change")]
    acute = [finding for finding in findings if finding.name in ACUTE]
    if not findings and rng.random() < 0.5:
        return [Statement(_lead(pick(rng, NORMAL), rng), "normal")]
    if not acute and (not findings or rng.random() < 0.6):
        return [Statement(_lead(pick(rng, NOTHING_ACUTE), rng), "nothing acute")]
    finding = pick(rng, acute or list(findings))
    words = _phrase(finding, rng)
    bare = words.partition(" ")[2] if words.startswith(("a ", "an ")) else words
    return [Statement(_lead(f"{bare}." if finding.certain else f"possible {bare}.", rng), finding.meaning, finding)]


def _lead(text: str, rng: Generator) -> str:
    lead = pick(rng, ("Impression: ", "Conclusion: ", ""))
    if not lead:
        return _capital(text)
    return lead + (text if text.startswith("ET ") else text[0].lower() + text[1:])
