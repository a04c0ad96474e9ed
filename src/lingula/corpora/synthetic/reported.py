"""Real reports, drawn films: each coded report of the Indiana collection with a phantom that shows what its codes say.

Source: ``iu_reports/reports.csv``, the texts and manual MeSH codes of the Indiana University chest X-rays (Open-i,
https://openi.nlm.nih.gov/faq#collection) in one table. Licence of the texts: CC BY-NC-ND 4.0 (Demner-Fushman et al.
2016); the films are drawn here. Layout::

    SOURCE/reports.csv    report_id, findings, impression, mesh, text_group, split; other columns are not read

Split rule: the table's own; texts that are alike share a ``text_group``, which stands in one split and is the patient
here, so that drawing patients with replacement keeps equal texts together. One record (invented text)::

    report_id,findings,impression,mesh,text_group,split
    CXR7,The heart is mildly enlarged.,Mild cardiomegaly.,Cardiomegaly/mild; Pleural Effusion/left,t1,train

    study_id  CXR7-0    patient_id  t1    labels  {"cardiomegaly": 1, "effusion": 1, "nodule": 0, ..., "normal": 0}
    sentence  "mild cardiomegaly."    finding  cardiomegaly    box  (88, 120, 151, 177)
    content   cardiomegaly|small|present; effusion|left|present

The codes are what joins the two: :mod:`lingula.corpora.synthetic.codes` says which of them are drawn. The words of the
reports are real and all the rest is not: the film is a phantom, its view and whatever its codes leave open are chosen
by chance, a text may speak of what was not coded, and a finding may lie under another one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from lingula.corpora.synthetic import LARGEST, SMALLEST, no_mask
from lingula.corpora.synthetic.codes import NORMAL, completed, read_code, split_codes, stated
from lingula.corpora.synthetic.findings import FINDINGS, FURTHER, Finding
from lingula.corpora.synthetic.grammar import content
from lingula.data.reader import find_file, fingerprint_of
from lingula.data.sentences import MIN_TOKENS, count_tokens, report_sentences
from lingula.data.study import LeftOut, Sentence, Study
from lingula.data.tables import read_table
from lingula.registry import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lingula.corpora.synthetic.chest import Chest
    from lingula.corpora.synthetic.shapes import Region

TABLE = "reports.csv"
WHENCE = (
    "the folder iu_reports of the open data, made of the reports of Open-i, https://openi.nlm.nih.gov/faq#collection"
)
DRAWN = (*FINDINGS, *FURTHER)
VERSION = 1  # raised by every change that draws another film or ties another sentence


@dataclass
class IuPhantoms:
    """Indiana University's real reports, each with a film drawn from its manual codes: real language, known findings.

    Twenty-six findings with side, zone and size as far as the codes tell them; what they leave open is chosen by
    chance, what cannot be drawn is not drawn. Boxes, masks and labels are known of every film. A label is 1 where the
    finding is drawn, 0 where it is not, -1 for a borderline heart; ``normal`` is 1 where that is the only code, 0 where
    something is drawn, and unknown where all that is coded cannot be drawn. ``content`` is what the film shows of the
    codes.

    A sentence is tied to the finding that it affirms, with its box, where its words leave no doubt; what two sentences
    mean is not known. Reports without codes, or of fewer than three tokens, are left out.

    Args:
        source: folder with ``reports.csv``.
        films_per_report: films drawn of each training report, of as many chests; val and test have one of each.
        codes: "any" takes all coded reports, "drawn" only those all of whose codes are drawn whole.
        seed: seed of the chests and of what the codes leave open.
        film_size: height and width of the images in pixels.
    """

    source: Path
    films_per_report: int = 1
    codes: Literal["any", "drawn"] = "any"
    seed: int = 0
    film_size: int = 224

    name: ClassVar[str] = "iu-phantoms"
    licence: ClassVar[str] = "CC BY-NC-ND 4.0 (the reports); the films are drawn by lingula"

    def __post_init__(self) -> None:
        self.source = Path(self.source)
        if self.films_per_report < 1:
            raise UserError(f"iu-phantoms: films_per_report must be at least 1, got {self.films_per_report}")
        if self.codes not in ("any", "drawn"):
            raise UserError(f"iu-phantoms: codes '{self.codes}'; expected any or drawn")
        if self.seed < 0:
            raise UserError(f"iu-phantoms: seed must be at least 0, got {self.seed}")
        if not SMALLEST <= self.film_size <= LARGEST:
            raise UserError(f"iu-phantoms: films are {SMALLEST} to {LARGEST} pixels wide, got {self.film_size}")

    def fingerprint(self) -> str:
        """A hash of the arguments, of the table, and of the version of the drawing."""
        return f"{fingerprint_of(self, [find_file(self.source, [TABLE], WHENCE)])}-v{VERSION}"

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every report in the order of the table, as one study or several.

        Raises:
            UserError: for a missing file or column.
        """
        table = read_table(find_file(self.source, [TABLE], WHENCE))
        table.require("report_id", "findings", "impression", "mesh", "text_group", "split")
        for where, row in table:
            codes = split_codes(row["mesh"])
            sentences = [s for section in ("findings", "impression") for s in report_sentences(row[section])]
            reason = ""
            if not codes:
                reason = "report without codes"
            elif sum(map(count_tokens, sentences)) < MIN_TOKENS:
                reason = f"report of fewer than {MIN_TOKENS} tokens: {row['findings']} {row['impression']}"
            elif self.codes == "drawn" and (lost := _undrawn(codes)):
                reason = f"code that is not drawn whole: {lost}"
            if reason:
                yield LeftOut(where, reason, bad=False)
                continue
            for film in range(self.films_per_report if row["split"] == "train" else 1):
                yield self._study(where, row, codes, sentences, film)

    def _study(self, where: str, row: dict[str, str], codes: list[str], sentences: list[str], film: int) -> Study:
        from lingula.corpora.synthetic.ties import tie

        said = stated(codes)
        key = (self.seed, _number(row["report_id"]), film)
        chest = _chest(key, said)
        regions = chest.regions()
        labels = dict.fromkeys(DRAWN, 0.0)
        for finding in chest.findings:
            labels[finding.name] = -1.0 if finding.size == "borderline" else 1.0
        labels[NORMAL] = 1.0 if codes == [NORMAL] else 0.0 if said else math.nan
        return Study(
            study_id=f"{row['report_id']}-{film}",
            patient_id=row["text_group"],
            image=partial(draw, key, said, self.film_size),
            split=row["split"],
            sentences=tuple(_sentence(text, tie(text, regions), self.film_size) for text in sentences),
            view=chest.anatomy.view,
            labels=labels,
            boxes=tuple(region.box(self.film_size) for region in regions),
            annotated=DRAWN,
            masks={name: partial(mask_of, key, said, name) if labels[name] else no_mask for name in DRAWN},
            content=content(said),
            row=where,
        )


def draw(key: tuple[int, ...], said: tuple[Finding, ...], size: int) -> NDArray[np.uint8]:
    """The film of what a report says, ``(size, size)`` uint8; what a study's ``image`` calls."""
    from lingula.corpora.synthetic.film import draw_pixels

    return draw_pixels(_chest(key, said), size)


def mask_of(key: tuple[int, ...], said: tuple[Finding, ...], name: str, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of one of its findings, ``(height, width)`` bool; films are square."""
    from lingula.corpora.synthetic.film import draw_masks

    return draw_masks(_chest(key, said), height)[name]


def _chest(key: tuple[int, ...], said: tuple[Finding, ...]) -> Chest:
    """The chest of a film. Nobody tells the views of the reports: a patient with a tube lies, the others stand."""
    import numpy as np

    from lingula.corpora.synthetic.chest import make_chest

    found = completed(said, np.random.default_rng([*key, 4]))  # 0 to 3 are the streams of the chest
    tube = any(finding.name == "endotracheal_tube" for finding in found)
    return make_chest(found, key, key, "AP" if tube else "PA")


def _number(report_id: str) -> int:
    """An integer of a report's name, so that a film depends on no other row of the table."""
    return int.from_bytes(hashlib.sha256(report_id.encode()).digest()[:6], "big")


def _undrawn(codes: Iterable[str]) -> str:
    """The first code that the film does not show whole; empty where there is none."""
    return next((code for code in codes if code != NORMAL and read_code(code).how != "drawn"), "")


def _sentence(text: str, regions: tuple[Region, ...], size: int) -> Sentence:
    """A sentence with the box around all that it is tied to."""
    if not regions:
        return Sentence(text)
    boxes = [region.box(size) for region in regions]
    around = (
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )
    return Sentence(text, None, regions[0].finding.name, around)
