"""COVID-19 Image Data Collection: chest films from publications, with case notes, lung masks and lung boxes.

Cohen et al., arXiv:2006.11988; https://github.com/ieee8023/covid-chestxray-dataset (open, no access to ask for).

Licence: each film has its own, in the column ``license`` (CC BY, CC BY-SA, CC BY-NC-SA, Apache 2.0, often none stated);
parts are non-commercial. The lung boxes are CC BY 4.0 (General Blockchain, Inc.), the lung masks were made by a model
(lungVAE, arXiv:2005.10052).

Layout, as cloned; only ``metadata.csv`` and ``images/`` are needed::

    metadata.csv
    images/auntminnie-a-2020_01_28_23_51_6665_2020_01_28_Vietnam_coronavirus.jpeg
    volumes/                                                 CT, not read
    annotations/imageannotation_ai_lung_bounding_boxes.json  COCO: "Right Lung", "Left Lung"; nulls where not drawn
    annotations/lungVAE-masks/lancet-case2a_mask.png         of the size of images/lancet-case2a.jpg
    annotations/covid-severity-scores.csv                    mean scores of three raters; not read, they are no classes

A compact copy is told from it by its ``reports.csv``, and read with its own labels and splits::

    reports.csv  labels.csv                       image_id, patient_id, split, image_path, view, findings, text, ...
    segmentation.csv                              image_id, target, mask_path
    boxes/instances_train.json (val, test)        COCO; "lesions_annotated" says whether lesions were looked for
    images_256/  masks_256/lung_v7/ (lung_vae, ground_glass, consolidation)

Split rule: the official release has none, so patients are drawn; the compact copy's own are kept.

One record of ``metadata.csv``, which ends each line with an empty cell (shortened)::

    patientid,offset,sex,age,finding,...,view,modality,date,location,folder,filename,doi,url,license,clinical_notes,...,
    2,0,M,65,Pneumonia/Viral/COVID-19,...,PA,X-ray,"January 22, 2020",...,images,auntminnie-a-...jpeg,...,,"On ...",,
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from lingula.data.coco import CocoBoxes, read_coco
from lingula.data.label_cells import label_value
from lingula.data.reader import canonical_json, find_file, find_folder, fingerprint_of, masks_of_table
from lingula.data.reports import ReportReader
from lingula.data.study import SPLITS, LeftOut, Sentence, Study
from lingula.data.tables import Table, read_table
from lingula.registry import UserError

WHENCE = "https://github.com/ieee8023/covid-chestxray-dataset"
LABELS = ("covid19", "viral_other", "bacterial", "fungal", "lipoid", "ards", "no_finding")
LUNGS = ("right_lung", "left_lung")
LESIONS = ("ground_glass", "consolidation")
LUNG_BOXES = "annotations/imageannotation_ai_lung_bounding_boxes.json"
LUNG_MASKS = "annotations/lungVAE-masks"


@dataclass
class Covid19Images:
    """COVID-19 Image Data Collection (Cohen et al.): films, case notes, labels, lung masks and boxes.

    Reads the official release or a compact copy, whichever ``root`` holds. The sentences of the official release are
    those of ``clinical_notes``; of the compact copy, those of ``findings``, or where they are missing or of fewer than
    three tokens, of ``text`` (its ``impression`` is a discussion of the case). These are case notes, not radiology
    reports, and films of one patient may share one. Films without notes, or of fewer than three tokens, have no report.

    Labels are covid19, viral_other, bacterial, fungal, lipoid, ards and no_finding. The official ``finding`` names one
    cause as a path, ``Pneumonia/Viral/COVID-19``; the causes that it rules out are 0, and those that it leaves open
    (``Pneumonia`` without a cause, ARDS, which the release no longer names, ``todo``) are unknown.

    Args:
        root: folder of the download.
        views: keep only these views (PA, AP, AP Supine, L, ...; of the compact copy lateral), in any case; all if
            empty. Where a film's view is not known it is the empty word.
    """

    root: Path
    views: list[str] = field(default_factory=list)

    name: ClassVar[str] = "covid19-images"
    licence: ClassVar[str] = (
        "per image (column license of metadata.csv): CC BY, CC BY-SA, CC BY-NC-SA, Apache 2.0, some not stated; "
        "parts are non-commercial"
    )

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.reading = ReportReader(option="")

    @property
    def compact(self) -> bool:
        """Whether ``root`` holds the compact copy."""
        return (self.root / "reports.csv").is_file() and not (self.root / "metadata.csv").is_file()

    @property
    def remarks(self) -> list[str]:
        """How many films stand under which licence, for the log."""
        column = "licence" if self.compact else "license"
        table = self._table()
        if column not in table.columns:
            return []
        found = Counter(row[column] or "none stated" for _, row in table if row.get("modality", "X-ray") == "X-ray")
        counts = ", ".join(f"{count} {licence}" for licence, count in found.most_common())
        return [f"each film has its own licence, NC means non-commercial: {counts}"]

    def fingerprint(self) -> str:
        """A hash of the arguments, the tables, the names of the masks, and the rules by which notes are read."""
        if self.compact:
            names = ["reports.csv", "labels.csv", "segmentation.csv", *map(_instances, SPLITS)]
        else:
            names = [find_file(self.root, ["metadata.csv"], WHENCE).name, LUNG_BOXES]
        files = [self.root / name for name in names if (self.root / name).is_file()]
        own = [fingerprint_of(self, files), self._lung_masks(), self.reading.fingerprint()]
        return hashlib.sha256(canonical_json(own).encode()).hexdigest()

    def studies(self) -> Iterator[Study | LeftOut]:
        """Every row of the table, in its order.

        Raises:
            UserError: for a missing table, column or folder, an unknown label value, and unreadable boxes.
        """
        wanted = {view.lower() for view in self.views}
        for row in self._compact_rows() if self.compact else self._official_rows():
            if isinstance(row, Study) and wanted and row.view.lower() not in wanted:
                yield LeftOut(row.row, f"view not among {', '.join(self.views)}: '{row.view}'", bad=False)
            else:
                yield row

    def _sentences(self, *texts: str) -> tuple[Sentence, ...]:
        """The sentences of the first text that has enough of them; none where none has."""
        for text in texts:
            if self.reading.read_sections([text], count=False).enough:
                return tuple(Sentence(sentence) for sentence in self.reading.read_sections([text]).sentences)
        self.reading.read_sections(texts)
        return ()

    def _table(self) -> Table:
        """The table of films."""
        name = "reports.csv" if self.compact else "metadata.csv"
        table = read_table(find_file(self.root, [name], WHENCE))
        if self.compact:
            table.require("image_id", "patient_id", "split", "image_path", "view", "findings", "text")
        else:
            table.require("patientid", "finding", "view", "modality", "folder", "filename", "clinical_notes")
        return table

    # The official release ---------------------------------------------------------------------------------------------

    def _official_rows(self) -> Iterator[Study | LeftOut]:
        table = self._table()
        find_folder(self.root, ["images"], WHENCE)
        boxes = _official_boxes(self.root / LUNG_BOXES)
        masks = set(self._lung_masks())
        for where, row in table:
            file = row["filename"]
            if row["modality"] != "X-ray":
                yield LeftOut(where, f"not an X-ray: {row['modality']}", bad=False)
            elif not file or not row["patientid"]:
                yield LeftOut(where, f"no id: column '{'patientid' if file else 'filename'}' is empty")
            else:
                mask = f"{Path(file).stem}_mask.png"
                yield Study(
                    study_id=file,
                    patient_id=row["patientid"],
                    image=self.root / (row["folder"] or "images") / file,
                    sentences=self._sentences(row["clinical_notes"]),
                    view=row["view"],
                    labels=labels_of(row["finding"]),
                    boxes=boxes.boxes.get(file, ()),
                    annotated=boxes.annotated.get(file, ()),
                    masks={"lung_vae": self.root / LUNG_MASKS / mask} if mask in masks else {},
                    row=where,
                )

    def _lung_masks(self) -> list[str]:
        """Names of the files of the official lung masks, sorted; none where the folder is not there."""
        folder = self.root / LUNG_MASKS
        return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []

    # The compact copy -------------------------------------------------------------------------------------------------

    def _compact_rows(self) -> Iterator[Study | LeftOut]:
        labels = self._compact_labels()
        masks = masks_of_table(self.root / "segmentation.csv")
        files = [self.root / _instances(split) for split in SPLITS]
        boxes = [read_coco(file) for file in files if file.is_file()]
        for where, row in self._table():
            image, image_id = row["image_path"], row["image_id"]
            study = Study(
                study_id=image_id,
                patient_id=row["patient_id"],
                image=self.root / image,
                split=row["split"],
                sentences=self._sentences(row["findings"], row["text"]),
                view=row["view"],
                labels=labels.get(image_id, {}),
                masks=masks.get(image_id, {}),
                row=where,
            )
            for listed in boxes:
                if image in listed.boxes:
                    lesions = LESIONS if listed.images[image].get("lesions_annotated") else ()
                    study = replace(study, boxes=listed.boxes[image], annotated=LUNGS + lesions)
            yield study

    def _compact_labels(self) -> dict[str, dict[str, float]]:
        table = read_table(find_file(self.root, ["labels.csv"], "the folder that reports.csv comes from"))
        table.require("image_id", *LABELS)
        return {row["image_id"]: {name: label_value(row[name], where, name) for name in LABELS} for where, row in table}


def labels_of(finding: str) -> dict[str, float]:
    """The labels of an official finding, a path from the general to the particular; NaN where it leaves them open.

    Example:
        >>> labels_of("Pneumonia/Fungal/Pneumocystis")["fungal"], labels_of("Pneumonia")["fungal"]
        (1.0, nan)
    """
    unknown = dict.fromkeys(LABELS, math.nan)
    absent = dict.fromkeys(LABELS, 0.0) | {"ards": math.nan}  # any pneumonia may have gone on to ARDS
    parts = finding.strip().split("/")
    if finding == "No Finding":
        return dict.fromkeys(LABELS, 0.0) | {"no_finding": 1.0}
    if finding == "Tuberculosis":
        return absent | {"bacterial": math.nan}  # caused by a bacterium, but filed beside Pneumonia/Bacterial
    if parts[0] != "Pneumonia":
        return unknown
    if len(parts) == 1:
        return unknown | {"no_finding": 0.0}
    if parts[1] == "Viral":
        if len(parts) == 2:
            return absent | {"covid19": math.nan, "viral_other": math.nan}
        return absent | {"covid19" if parts[2] == "COVID-19" else "viral_other": 1.0}
    known = {"Bacterial": "bacterial", "Fungal": "fungal", "Lipoid": "lipoid", "Aspiration": None}
    if parts[1] not in known:
        return unknown | {"no_finding": 0.0}
    name = known[parts[1]]
    return absent | ({name: 1.0} if name else {})


def _official_boxes(path: Path) -> CocoBoxes:
    """The lung boxes, their names as the compact copy has them; none where the file is not there."""
    if not path.is_file():
        return CocoBoxes((), {}, {}, {})
    found = read_coco(path)
    names = {"Right Lung": LUNGS[0], "Left Lung": LUNGS[1]}
    for name in found.categories:
        if name not in names:
            raise UserError(f"{path.name} has boxes of '{name}'; expected {' and '.join(names)}")
    return CocoBoxes(
        LUNGS,
        {file: tuple(replace(box, name=names[box.name]) for box in boxes) for file, boxes in found.boxes.items()},
        {file: tuple(names[name] for name in looked_for) for file, looked_for in found.annotated.items()},
        found.images,
    )


def _instances(split: str) -> str:
    return f"boxes/instances_{split}.json"
