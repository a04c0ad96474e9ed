"""What a corpus reader yields: one film and everything known about it. Floor 2; no pixels are read here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")

Mask = Path | Callable[[int, int], np.ndarray]
"""Where something lies on a film: an image file of the film's own size, whose non-zero pixels are it, or a function of
the original film's height and width that draws ``(H, W)`` bool (and raises ``ValueError`` where it cannot)."""


@dataclass(frozen=True, slots=True)
class Box:
    """A named rectangle, in pixels of the *original* film, ``x0 <= x < x1`` and ``y0 <= y < y1``."""

    name: str
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a report, and its truth where the corpus knows it.

    Attributes:
        text: the sentence as written, without its line breaks.
        meaning: two sentences mean the same exactly when these are equal; ``None`` where nobody knows.
        finding: the finding that the sentence affirms (a label name); ``None`` for negations, boilerplate, or unknown.
        box: the region that it points at, in pixels of the original film; ``None`` where there is none.
    """

    text: str
    meaning: str | None = None
    finding: str | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """One film with its report.

    Attributes:
        study_id: unique in the corpus.
        patient_id: studies of one patient never stand in two splits.
        split: ``train``, ``val`` or ``test``; ``None`` leaves the choice to :func:`lingula.data.preparation.prepare`.
        image: a file to decode, or a function that draws the ``(H, W)`` uint8 film.
        sentences: the report, split; empty for a film without one.
        view: ``PA``, ``AP``, ``lateral``, ... as the corpus names it; empty where unknown.
        labels: 1 present, 0 absent, -1 uncertain, NaN unknown.
        boxes: regions of the film, whether or not a sentence names them.
        annotated: names that annotators looked for to draw boxes of, found or not; those of ``boxes`` need not be
            named again. A film without boxes is a true negative for these, and unknown for all others.
        masks: by name; an empty mask says that there is none, a missing one that nobody looked.
        content: what the film shows, in a form in which equal strings mean indistinguishable reports (the ceiling of
            retrieval); ``None`` where nobody knows.
        row: where the study stands in its source ("row 17 of reports.csv"), for error messages.
    """

    study_id: str
    patient_id: str
    image: Path | Callable[[], np.ndarray]
    split: str | None = None
    sentences: tuple[Sentence, ...] = ()
    view: str = ""
    labels: dict[str, float] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    annotated: tuple[str, ...] = ()
    masks: dict[str, Mask] = field(default_factory=dict)
    content: str | None = None
    row: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row of the source that became no study, and why; every one is written to ``left_out.csv``.

    Attributes:
        row: where it stands in its source ("row 17 of reports.csv").
        reason: ``kind`` or ``kind: detail``; rows are counted by kind.
        bad: True where the row is broken, which stops a preparation unless bad rows are skipped; False where it is
            sound but not wanted (another view, a report too short), which is only logged.
    """

    row: str
    reason: str
    bad: bool = True
