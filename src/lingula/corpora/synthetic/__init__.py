"""The embedded corpus: frontal chest films and their reports, drawn from two integers. Nothing is downloaded.

Source: this package. Licence: that of the library; a film belongs to nobody's patient. Splits: three fixed ranges of
indices, so a larger training set leaves the test set as it was; no patient stands in two of them. One record::

    study_id   synthetic-0-0000004       patient_id  synthetic-0-patient-0000004       split  train       view  PA
    labels     {"effusion": 1, "pneumothorax": 0, ...}
    sentence   "There is a small left pleural effusion."
    meaning    effusion|left|small|present                  finding  effusion    box  (160, 150, 199, 181)
    content    effusion|left|small|present

Everything is known of every film: which findings, where (boxes and masks), which sentence states which, and which
sentences of different reports mean the same. It is a phantom: no number measured on it speaks of patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from lingula.corpora.synthetic.findings import FINDINGS, Finding, sample_findings
from lingula.corpora.synthetic.grammar import Statement, content, write_report
from lingula.data.study import Box, LeftOut, Sentence, Study
from lingula.registry import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    from lingula.corpora.synthetic.film import Film

__all__ = [
    "FINDINGS",
    "Example",
    "Finding",
    "Statement",
    "Synthetic",
    "content",
    "draw",
    "generate",
    "render",
    "sample_findings",
    "write_report",
]

# First index of each split. All are even, so that no pair of visits lies across two of them.
STARTS = {"train": 0, "val": 8_000_000, "test": 9_000_000}
ENDS = {"train": 8_000_000, "val": 9_000_000, "test": 10_000_000}
SMALLEST, LARGEST = 32, 2048  # pixels
VERSION = 1  # raised by every change that draws another film or writes another report


@dataclass(frozen=True)
class Example:
    """One film with its report and the whole truth.

    Attributes:
        film: pixels ``(size, size)`` uint8, boxes and masks.
        findings: what is wrong; empty on a normal film.
        prior: findings of the patient's earlier film; ``None`` where there is none.
        view: ``PA`` or ``AP``.
        sentences: the report; boxes in pixels of the film.
        labels: 1 or 0 for each of :data:`FINDINGS`.
        content: equal strings mean equal findings.
        patient: index of the patient's first film.
    """

    film: Film
    findings: tuple[Finding, ...]
    prior: tuple[Finding, ...] | None
    view: str
    sentences: tuple[Sentence, ...]
    labels: dict[str, float]
    content: str
    patient: int


def generate(seed: int, index: int, size: int = 224) -> Example:
    """The film and report of an index: the same bits in every order and every process.

    Args:
        seed: >= 0, of the corpus.
        index: >= 0, of the film.
        size: sides of the film in pixels.
    Raises:
        UserError: if an argument is out of range.
    Example:
        >>> example = generate(seed=0, index=4, size=96)
        >>> example.film.pixels.shape, example.view in ("PA", "AP")
        ((96, 96), True)
    """
    from lingula.corpora.synthetic.chest import chest_of
    from lingula.corpora.synthetic.film import draw_film

    _check_film(seed, size)
    if index < 0:
        raise UserError(f"synthetic: index must be at least 0, got {index}")
    study = _study(seed, index, size, None)
    who, chest = chest_of(seed, index)
    film = draw_film(chest, size)
    return Example(
        film, who.findings, who.prior, study.view, study.sentences, study.labels, content(who.findings), who.patient
    )


def render(findings: Sequence[Finding], rng_or_seed: Generator | int, size: int = 224, view: str = "") -> Film:
    """Draw a film of given findings; the same seed draws the same chest whatever is wrong with it.

    Args:
        findings: at most one of a name, with side, zone and size where the kind of finding has them.
        rng_or_seed: chooses anatomy, exposure and noise; a generator gives one number.
        size: sides of the film in pixels.
        view: ``PA`` or ``AP``; empty draws one, ``AP`` more often with a tube. Name it to compare two films.
    Returns:
        Pixels ``(size, size)`` uint8, boxes in pixels, masks ``(size, size)`` bool.
    Raises:
        UserError: for an unknown name, side, zone, size or view, with the nearest that is known.
    Example:
        >>> film = render([Finding("effusion", side="left", size="large")], 0, size=96)
        >>> film.masks["effusion"].any(), len(film.boxes)
        (np.True_, 1)
    """
    from lingula.corpora.synthetic.chest import make_chest
    from lingula.corpora.synthetic.film import draw_film

    seed = rng_or_seed if isinstance(rng_or_seed, int) else int(rng_or_seed.integers(2**62))
    _check_film(seed, size)
    if view not in ("", "PA", "AP"):
        raise UserError(f"unknown view '{view}', expected PA or AP")
    names = [finding.name for finding in findings]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"a film has at most one finding of a name, got {min(twice)} twice; is it bilateral?")
    return draw_film(make_chest(findings, (seed,), (seed, 0), view), size)


def draw(seed: int, index: int, size: int) -> NDArray[np.uint8]:
    """The pixels of :func:`generate` alone, ``(size, size)`` uint8; what a study's ``image`` calls."""
    from lingula.corpora.synthetic.chest import chest_of
    from lingula.corpora.synthetic.film import draw_pixels

    return draw_pixels(chest_of(seed, index)[1], size)


def mask_of(seed: int, index: int, name: str, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a finding of :func:`generate` alone, ``(height, width)`` bool; films are square."""
    from lingula.corpora.synthetic.chest import chest_of
    from lingula.corpora.synthetic.film import draw_masks

    return draw_masks(chest_of(seed, index)[1], height)[name]


def no_mask(height: int, width: int) -> NDArray[np.bool_]:
    """An empty mask: the finding is not there."""
    import numpy as np

    return np.zeros((height, width), dtype=bool)


@dataclass
class Synthetic:
    """Chest-film phantoms with reports and complete ground truth, drawn here: nothing to download, any size.

    Thirteen findings with side, zone and size, that go together as diseases do; about 20 % of the films are normal and
    15 % of the patients have a second film, which their report compares with the first. Labels, boxes, masks, the
    meaning of every sentence and the ceiling of retrieval are known.

    Args:
        train: number of training films.
        val: number of validation films.
        test: number of test films; they stay the same whatever the other numbers are.
        seed: seed of the whole corpus; another seed draws other patients.
        film_size: height and width of the images in pixels.
    """

    name: ClassVar[str] = "synthetic"
    licence: ClassVar[str] = "that of lingula, Apache-2.0"
    train: int = 6000
    val: int = 500
    test: int = 1000
    seed: int = 0
    film_size: int = 224

    def __post_init__(self) -> None:
        for split, start in STARTS.items():
            count, most = getattr(self, split), ENDS[split] - start
            if not 0 <= count <= most:
                raise UserError(f"synthetic: {split} must be between 0 and {most}, got {count}")
        if self.train + self.val + self.test == 0:
            raise UserError("synthetic: train, val and test are all 0, so there is nothing to draw")
        _check_film(self.seed, self.film_size)

    def fingerprint(self) -> str:
        """Equal where the films and reports are equal: of the arguments, and of the version of the drawing."""
        from lingula.data.reader import fingerprint_of

        return f"{fingerprint_of(self)}-v{VERSION}"

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every study in the order train, val, test; pixels are drawn when ``Study.image`` is called."""
        for split, start in STARTS.items():
            for index in range(start, start + getattr(self, split)):
                yield _study(self.seed, index, self.film_size, split)


def _study(seed: int, index: int, size: int, split: str | None) -> Study:
    import numpy as np

    from lingula.corpora.synthetic.chest import TEXT, chest_of

    who, chest = chest_of(seed, index)
    regions = chest.regions()
    boxes = tuple(region.box(size) for region in regions)
    around = _around(boxes)
    view = chest.anatomy.view
    report = write_report(who.findings, np.random.default_rng([seed, index, TEXT]), view=view, prior=who.prior)
    names = {finding.name for finding in who.findings}
    return Study(
        study_id=f"synthetic-{seed}-{index:07d}",
        patient_id=f"synthetic-{seed}-patient-{who.patient:07d}",
        image=partial(draw, seed, index, size),
        split=split,
        sentences=tuple(
            Sentence(s.text, s.meaning, s.finding.name, around[s.finding.name])
            if s.finding
            else Sentence(s.text, s.meaning)
            for s in report
        ),
        view=view,
        labels={name: float(name in names) for name in FINDINGS},
        boxes=boxes,
        annotated=tuple(FINDINGS),
        masks={name: partial(mask_of, seed, index, name) if name in names else no_mask for name in FINDINGS},
        content=content(who.findings),
        row=f"index {index} of seed {seed}",
    )


def _around(boxes: Sequence[Box]) -> dict[str, tuple[float, float, float, float]]:
    """One box per finding: for a bilateral one the box around both sides, since one sentence states both."""
    around: dict[str, tuple[float, float, float, float]] = {}
    for box in boxes:
        x0, y0, x1, y1 = around.get(box.name, (box.x0, box.y0, box.x1, box.y1))
        around[box.name] = (min(x0, box.x0), min(y0, box.y0), max(x1, box.x1), max(y1, box.y1))
    return around


def _check_film(seed: int, size: int) -> None:
    if seed < 0:
        raise UserError(f"synthetic: seed must be at least 0, got {seed}")
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"synthetic: films are {SMALLEST} to {LARGEST} pixels wide, got {size}")
