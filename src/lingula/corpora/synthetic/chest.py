"""One chest on one film before it is drawn: findings, anatomy and the place of everything, from a few integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lingula.corpora.synthetic.anatomy import Anatomy, make_anatomy
from lingula.corpora.synthetic.findings import (
    DEVICES,
    FINDINGS,
    FURTHER,
    Finding,
    check_finding,
    follow_up,
    sample_findings,
)
from lingula.corpora.synthetic.shapes import Region, find_regions

Key = tuple[int, ...]

# What a random stream is for; the last number of its seed, so that one can change without moving the others.
FINDING, BODY, TEXT, TEXTURE = range(4)
PAIRED = 0.30 / 1.15  # share of index pairs that are two visits of one patient, which makes 15 % of the patients


@dataclass(frozen=True)
class Chest:
    """Everything that decides a film's pixels.

    Attributes:
        findings: what is wrong with it.
        anatomy: the chest and the exposure.
        places: 12 uniform numbers for each of :data:`FINDINGS`, which place and shape it.
        body_key: seeds what belongs to the patient (vessels).
        film_key: seeds what belongs to the exposure (noise).
    """

    findings: tuple[Finding, ...]
    anatomy: Anatomy
    places: list[list[float]]
    body_key: Key
    film_key: Key

    def place(self, finding: Finding) -> list[float]:
        """The 12 numbers that place a finding; one of :data:`FURTHER` has a stream of its own."""
        if finding.name in FURTHER:
            key = [*self.body_key, BODY, 2, list(FURTHER).index(finding.name)]
            return np.random.default_rng(key).random(12).tolist()
        return self.places[FINDINGS.index(finding.name)]

    def regions(self) -> tuple[Region, ...]:
        """Where each finding lies, in the order of the findings."""
        return tuple(
            region for finding in self.findings for region in find_regions(finding, self.anatomy, self.place(finding))
        )


def make_chest(
    findings: Sequence[Finding], body_key: Key, film_key: Key, view: str = "", second: bool = False
) -> Chest:
    """The chest of one patient (``body_key``) on one film (``film_key``) with these findings.

    Args:
        findings: at most one of a name.
        body_key: non-negative integers; the same on both films of a patient.
        film_key: non-negative integers of the exposure.
        view: ``PA`` or ``AP``; empty draws one, and a patient with a tube or a line lies down.
        second: True on the patient's second film, whose pose and exposure are other ones.
    Raises:
        UserError: for a finding that cannot be drawn.
    """
    for finding in findings:
        check_finding(finding)
    u = np.random.default_rng([*body_key, BODY]).random(20 + 12 * len(FINDINGS) + 26).tolist()
    body, pose = u[:20], u[-13:] if second else u[-26:-13]
    lying = any(finding.name in DEVICES[:2] for finding in findings)
    view = view or ("AP" if lying or pose[12] < 0.25 else "PA")
    places = [u[20 + 12 * i : 32 + 12 * i] for i in range(len(FINDINGS))]
    return Chest(tuple(findings), make_anatomy(body, pose, findings, view), places, body_key, film_key)


@dataclass(frozen=True)
class Visit:
    """Who comes at an index, and with what.

    Attributes:
        patient: index of the patient's first film.
        findings: of this film.
        prior: findings of the patient's earlier film; ``None`` where there is none.
    """

    patient: int
    findings: tuple[Finding, ...]
    prior: tuple[Finding, ...] | None


def visit(seed: int, index: int) -> Visit:
    """The patient of an index. An odd index may be the second visit of the patient before; an even one never is."""
    if index % 2:
        rng = np.random.default_rng([seed, index - 1, FINDING])
        if rng.random() < PAIRED:
            prior = sample_findings(rng)
            return Visit(index - 1, follow_up(prior, np.random.default_rng([seed, index, FINDING])), prior)
    rng = np.random.default_rng([seed, index, FINDING])
    rng.random()  # whether there is a second visit, which only the next index asks
    return Visit(index, sample_findings(rng), None)


def chest_of(seed: int, index: int) -> tuple[Visit, Chest]:
    """The visit and the chest of an index; a pure function of the two numbers."""
    who = visit(seed, index)
    return who, make_chest(who.findings, (seed, who.patient), (seed, index), second=index != who.patient)
