"""What can be wrong with a chest: thirteen findings, which go together, and how they change until the next film."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from lingula.registry import UserError, nearest

if TYPE_CHECKING:
    from numpy.random import Generator

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Finding:
    """One finding of a film.

    Attributes:
        name: one of :data:`FINDINGS`, or of :data:`FURTHER`.
        side: the *patient's* side, ``left``, ``right`` or ``bilateral``; empty where a finding has none. The patient's
            left is on the right of the film.
        zone: ``upper``, ``mid`` or ``lower``; for a tube or a line the height of its tip; for nodes and clips
            ``hilum``, ``mediastinum`` or ``abdomen``; empty where it has none.
        size: ``small``, ``moderate`` or ``large``, or for a severity mild, moderate, severe; empty where it has none.
        certain: False for a finding that is drawn at two thirds of its contrast and reported as "possible".

    Example:
        >>> Finding("effusion", side="left", size="small").meaning
        'effusion|left|small|present'
    """

    name: str
    side: str = ""
    zone: str = ""
    size: str = ""
    certain: bool = True

    @property
    def meaning(self) -> str:
        """The fact as one string: name, side, zone, size (where it has them), then ``present`` or ``possible``."""
        parts = (self.name, self.side, self.zone, self.size, "present" if self.certain else "possible")
        return "|".join(part for part in parts if part)

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that it touches: both for a bilateral finding, none for one without a side."""
        return ("right", "left") if self.side == "bilateral" else (self.side,) if self.side else ()


@dataclass(frozen=True)
class Kind:
    """The attributes that a finding may have; an empty string means that it has none. ``on_request``: zones and sizes
    that can be drawn too, but that no phantom is given by chance."""

    sides: tuple[str, ...] = ("",)
    zones: tuple[str, ...] = ("",)
    sizes: tuple[str, ...] = ("",)
    may_be_uncertain: bool = True
    keeps: float = 0.5  # chance that the next film shows it unchanged
    acute: bool = True
    on_request: tuple[str, ...] = ()


EACH = ("left", "right")
ANY = ("left", "right", "bilateral")
ZONES = ("upper", "mid", "lower")
SIZES = ("small", "moderate", "large")

KINDS: dict[str, Kind] = {
    "effusion": Kind(sides=ANY, sizes=SIZES),
    "pneumothorax": Kind(sides=EACH, sizes=SIZES),
    "consolidation": Kind(sides=EACH, zones=ZONES, sizes=("small", "large")),
    "oedema": Kind(sizes=SIZES),
    "cardiomegaly": Kind(sizes=SIZES, may_be_uncertain=False, keeps=0.85, acute=False, on_request=("borderline",)),
    "atelectasis": Kind(sides=ANY, zones=("mid", "lower"), on_request=("upper",)),
    "nodule": Kind(sides=EACH, zones=ZONES, sizes=("small", "large"), keeps=0.8, acute=False),
    "granuloma": Kind(sides=EACH, zones=ZONES, may_be_uncertain=False, keeps=1.0, acute=False),
    "rib_fracture": Kind(sides=EACH, zones=ZONES, keeps=0.9),
    "hyperinflation": Kind(sizes=("moderate", "large"), may_be_uncertain=False, keeps=1.0, acute=False),
    "endotracheal_tube": Kind(zones=ZONES, may_be_uncertain=False, keeps=0.6, acute=False),
    "central_line": Kind(sides=EACH, zones=("mid", "lower"), may_be_uncertain=False, keeps=0.7, acute=False),
    "pacemaker": Kind(sides=EACH, may_be_uncertain=False, keeps=1.0, acute=False),
}
FINDINGS: tuple[str, ...] = tuple(KINDS)
# Drawn only where they are asked for: what radiologists name often and the phantoms of :func:`sample_findings` lack.
FURTHER: dict[str, Kind] = {
    "hypoinflation": Kind(sizes=SIZES, may_be_uncertain=False, acute=False),
    "raised_diaphragm": Kind(sides=EACH, sizes=("small", "moderate"), may_be_uncertain=False, acute=False),
    "tortuous_aorta": Kind(sizes=SIZES, may_be_uncertain=False, acute=False),
    "aortic_calcification": Kind(may_be_uncertain=False, acute=False),
    "scoliosis": Kind(sides=EACH, sizes=SIZES, may_be_uncertain=False, acute=False),  # the side to which it bulges
    "spine_degeneration": Kind(sizes=SIZES, may_be_uncertain=False, acute=False),
    "hiatal_hernia": Kind(sizes=SIZES, may_be_uncertain=False, acute=False),
    "linear_opacity": Kind(sides=EACH, zones=ZONES, acute=False),
    "interstitial_markings": Kind(sides=EACH, zones=("", *ZONES), sizes=SIZES, may_be_uncertain=False),
    "pleural_thickening": Kind(sides=EACH, zones=("", "upper"), acute=False),  # of the wall, or over the apex
    "blunted_angle": Kind(sides=EACH, acute=False),
    "calcified_nodes": Kind(("", *EACH), ("hilum", "mediastinum"), may_be_uncertain=False, acute=False),
    "clips": Kind(("", *EACH), ("hilum", "mediastinum", "abdomen"), may_be_uncertain=False, acute=False),
}
DEVICES = ("endotracheal_tube", "central_line", "pacemaker")
FOCAL = ("consolidation", "atelectasis", "nodule", "granuloma")

# A patient comes for a reason: findings of one film go together. (share, {finding: chance}); the rest is normal.
SCENARIOS: tuple[tuple[float, dict[str, float]], ...] = (
    (0.16, {"cardiomegaly": 0.8, "oedema": 0.75, "effusion": 0.6, "pacemaker": 0.25}),
    (0.13, {"endotracheal_tube": 0.85, "central_line": 0.75, "atelectasis": 0.3, "consolidation": 0.25}),
    (0.12, {"rib_fracture": 0.8, "pneumothorax": 0.65, "effusion": 0.15}),
    (0.14, {"consolidation": 0.9, "effusion": 0.35}),
    (0.14, {"hyperinflation": 0.55, "nodule": 0.5, "granuloma": 0.4, "pneumothorax": 0.1}),
    (0.11, {"pacemaker": 0.6, "cardiomegaly": 0.5, "atelectasis": 0.5}),
)
EXTRA = 0.018  # chance of every other finding to be there by accident
UNCERTAIN = 0.15


def pick(rng: Generator, options: Sequence[T]) -> T:
    """One of ``options``; many times faster than ``rng.choice``."""
    return options[int(rng.random() * len(options))]


def check_finding(finding: Finding) -> None:
    """Refuse a finding that cannot be drawn.

    Raises:
        UserError: for a name, side, zone or size that is not known or not possible, with what is.
    """
    kind = KINDS.get(finding.name) or FURTHER.get(finding.name)
    if kind is None:
        hint = nearest(finding.name, FINDINGS) or f"; known: {', '.join(FINDINGS)}"
        raise UserError(f"unknown finding '{finding.name}'{hint}")
    for attribute, options in (("side", kind.sides), ("zone", kind.zones), ("size", kind.sizes)):
        value = getattr(finding, attribute)
        if value not in options and value not in kind.on_request:
            expected = "none" if options == ("",) else f"one of {', '.join(options)}"
            raise UserError(
                f"{finding.name}: unknown {attribute} '{value}', expected {expected}{nearest(value, options)}"
            )


def clash(one: Finding, other: Finding) -> bool:
    """True where one finding would hide the other, or where the two cannot be in one chest."""
    return one.name == other.name or _hides(one, other) or _hides(other, one)


def _hides(one: Finding, other: Finding) -> bool:
    names = (one.name, other.name)
    same_side = bool(set(one.sides) & set(other.sides))
    if one.name == "hyperinflation":
        return other.name in ("oedema", "cardiomegaly", "pneumothorax")
    if one.name == "oedema":
        return other.name in FOCAL and (one.size != "small" or other.name in ("nodule", "granuloma"))
    if one.name == "cardiomegaly":
        return one.size != "small" and other.name in FOCAL and "left" in other.sides and other.zone == "lower"
    if not same_side:
        return False
    if one.name == "effusion":
        if names == ("effusion", "pneumothorax"):
            return one.size == "large" or other.size == "large"
        if names == ("effusion", "consolidation") and one.size == "small":
            return False
        hidden = {"small": ("lower",), "moderate": ("lower",), "large": ("lower", "mid")}[one.size]
        return other.name in (*FOCAL, "rib_fracture") and other.zone in hidden
    if one.name == "pneumothorax":
        return other.name in FOCAL and (one.size != "small" or other.zone == "upper")
    if one.name == "pacemaker":
        return other.name in (*FOCAL, "rib_fracture") and other.zone == "upper"
    return one.name in (*FOCAL, "rib_fracture") and other.name in (*FOCAL, "rib_fracture") and one.zone == other.zone


def sample_findings(rng: Generator) -> tuple[Finding, ...]:
    """The findings of one film: none on about 20 % of the films, else up to five that go together.

    Args:
        rng: consumed.
    Returns:
        Findings in the order of :data:`FINDINGS`, at most one of a name, none of which hides another.
    """
    u = rng.random()
    chances: dict[str, float] = {}
    for share, chances in SCENARIOS:  # noqa: B007  the loop stops at the drawn one
        u -= share
        if u < 0:
            break
    if u >= 0:
        return ()
    names = [name for name, chance in chances.items() if rng.random() < chance] or [pick(rng, tuple(chances))]
    names += [name for name, x in zip(FINDINGS, rng.random(len(FINDINGS)).tolist(), strict=True) if x < EXTRA]
    found: list[Finding] = []
    for name in names:
        _add(found, name, rng)
    return _ordered(found)


def follow_up(prior: Iterable[Finding], rng: Generator) -> tuple[Finding, ...]:
    """The findings of the same patient's next film: each kept, grown, shrunk or gone, and sometimes one more."""
    found: list[Finding] = []
    for finding in prior:
        kind = KINDS[finding.name]
        if rng.random() < kind.keeps:
            found.append(finding)
        elif len(kind.sizes) > 1 and rng.random() < 0.6:
            changed = replace(finding, size=pick(rng, [size for size in kind.sizes if size != finding.size]))
            found.append(changed if not any(clash(changed, other) for other in found) else finding)
    # A change of size can make a kept finding invisible: that one is then gone as well.
    found = [one for i, one in enumerate(found) if not any(clash(one, other) for other in found[:i])]
    if rng.random() < 0.4:
        gone = {finding.name for finding in prior}
        _add(found, pick(rng, [name for name in FINDINGS if name not in gone]), rng)
    return _ordered(found)


def change(finding: Finding, prior: Iterable[Finding]) -> str:
    """How a finding compares with the prior film: ``new``, ``unchanged``, ``larger``, ``smaller``; empty if unlike."""
    for old in prior:
        if old.name == finding.name:
            if (old.side, old.zone) != (finding.side, finding.zone):
                return ""
            if old.size == finding.size:
                return "unchanged"
            return "larger" if SIZES.index(finding.size) > SIZES.index(old.size) else "smaller"
    return "new"


def _add(found: list[Finding], name: str, rng: Generator) -> None:
    """Append a finding of that name, in the first of six draws that nothing hides."""
    kind = KINDS[name]
    for _ in range(6):
        finding = Finding(
            name,
            pick(rng, kind.sides),
            pick(rng, kind.zones),
            pick(rng, kind.sizes),
            certain=not (kind.may_be_uncertain and rng.random() < UNCERTAIN),
        )
        if not any(clash(finding, other) for other in found):
            found.append(finding)
            return


def _ordered(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda finding: FINDINGS.index(finding.name)))
