"""Detection: a YOLOv3 head on the maps of the image encoder, to draw boxes around findings.

One example: on test film 17 annotators drew two boxes around pneumonia, and on film 18, where they looked too, none.
The head finds one of the two with an IoU of .62 (right up to a threshold of .60) and one box on film 18 (wrong at every
threshold). The number is the average precision over all test films, those without boxes included, averaged over IoU
thresholds from .40 to .75 as the field reports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lingula.batch import Batch
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.finetune import Tuning, finetune, tuning_batch
from lingula.evaluation.labels import FEW_OF_A_SIDE
from lingula.evaluation.statistics import few_patients, patient_draws, undefined
from lingula.evaluation.studies import draw_subset, ids_of, labelled_rows, patients_of
from lingula.evaluation.task import Cell, Encoders, Measured, cells_of
from lingula.losses.yolo import yolo
from lingula.metrics.detection import Boxes, average_precision, mean_average_precision, weighted_average_precision
from lingula.nn.frozen import encoder_to_use
from lingula.nn.yolo_v3 import YoloV3, anchors_for, decode, three_scales
from lingula.records import id_hash
from lingula.registry import UserError

PROTOCOLS = {"mgca": Tuning(learning_rate=5e-4, weight_decay=1e-6, batch_size=16, epochs=50, patience=10)}
WEIGHTS = {"centre": 2.5, "size": 2.5, "object": 1.0, "background": 0.5, "class": 1.0}
OVERLAP = 0.5  # IoU above which the less sure of two boxes of a class is dropped
METRICS = {"map_40_75": (0.40, 0.75), "map_50_95": (0.50, 0.95)}
BATCH = 64  # films measured at once


@dataclass
class Detection:
    """Boxes around what annotators looked for, by a YOLOv3 head; ``map_40_75`` is the field's number.

    Films are resized without a crop or any augmentation. They are letterboxed, so that their aspect is kept; the
    field's released code squeezes them. A box is given where objectness is ``confidence`` or more, so with one target
    average precision is a lower bound of what the head would reach if it gave all its guesses.

    Args:
        targets: names of the boxes to find; each is a class.
        encoder: ``frozen``: train the head alone; ``finetuned``: train a copy of the encoder with it.
        fractions: shares of the training patients.
        protocol: ``mgca``: AdamW(5e-4, weight decay 1e-6), batch 16, cosine per epoch, at most 50 epochs, patience 10
            on validation's ``map_40_75``.
        confidence: lowest objectness at which a box counts as found, in (0, 1); the protocol's is 0.5.
        learning_rate: peak learning rate (default: the protocol's).
        epochs: largest number of epochs (default: the protocol's).
        batch_size: images per step (default: the protocol's).
        patience: epochs without a better validation mAP after which training stops (default: the protocol's).
    Raises:
        UserError: for options that make no sense.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[dict[str, bool]] = dict.fromkeys(METRICS, True)
    targets: list[str]
    encoder: Literal["frozen", "finetuned"] = "frozen"
    fractions: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0])
    protocol: Literal["mgca"] = "mgca"
    confidence: float = 0.5
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise UserError(f"detection: name what to find, each once, with --targets, got {self.targets}")
        if self.encoder not in ("frozen", "finetuned"):
            raise UserError(f"detection: encoder must be frozen or finetuned, got '{self.encoder}'")
        if self.protocol not in PROTOCOLS:
            raise UserError(f"detection: unknown protocol '{self.protocol}'; known: {', '.join(PROTOCOLS)}")
        if not 0 < self.confidence < 1:
            raise UserError(f"detection: confidence lies in (0, 1), got {self.confidence}")
        self.tuning = PROTOCOLS[self.protocol].changed(
            learning_rate=self.learning_rate, epochs=self.epochs, batch_size=self.batch_size, patience=self.patience
        )

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Every fraction with every seed."""
        return cells_of(self.fractions, seeds)

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """Train a head for each cell, and measure it on the test films.

        Raises:
            UserError: for a target that the corpus does not know, or a split without films that were looked at.
        """
        size, classes = model.image_size, len(self.targets)
        rows = labelled_rows(corpus, corpus.rows_with_boxes(self.targets), f"boxes of {', '.join(self.targets)}")
        corners, labels = true_boxes(corpus, self.targets, size)
        shown = np.stack([(labels[rows["train"]] == label).any(1) for label in range(classes)], 1)  # (n, C)
        truth = {split: _flat(corners[own], labels[own]) for split, own in rows.items()}
        if not len(truth["val"].image):
            targets = ", ".join(self.targets)
            raise UserError(f"corpus {corpus.name}: no val study has a box of {targets}, to choose the best epoch by")
        weights = patient_draws(corpus, rows["test"], draws)
        remarks = few_patients(corpus, rows["test"])
        positive = len(set(truth["test"].image.tolist()))
        if positive < FEW_OF_A_SIDE:
            remarks.append(f"measured on {positive} test images with a box, fewer than {FEW_OF_A_SIDE}")
        test_ids = ids_of(corpus, rows["test"])

        def look(detector: Detector, split: str) -> tuple[Boxes, np.ndarray]:
            """What a detector finds in a split, and its average precision there."""
            found = detector.find(Loader(corpus, rows[split], size, size, BATCH, device=model.device))
            return found, average_precision(found, truth[split], len(rows[split]), classes)

        def score(detector: Detector) -> float:
            return self._numbers(look(detector, "val")[1])["map_40_75"]

        for cell in cells:
            drawn = draw_subset(patients_of(corpus, rows["train"]), shown, cell.fraction, cell.seed)
            train = rows["train"][drawn]
            torch.manual_seed(cell.seed)
            encoder = encoder_to_use(model.method.image_encoder, self.encoder == "finetuned")
            detector = Detector(encoder, corners, labels, classes, size, self.confidence).to(model.device)
            batch = tuning_batch(self.tuning, len(train))
            loader = Loader(corpus, train, size, size, batch, training=True, seed=cell.seed, device=model.device)
            outcome = finetune(
                detector, loader, partial(score, detector), True, self.tuning, seed=cell.seed, device=model.device
            )
            found, precision = look(detector, "test")
            replicates = weighted_average_precision(found, truth["test"], weights, classes)
            notes = {
                "protocol": self.protocol,
                "encoder_mode": self.encoder,
                "confidence": self.confidence,
                "train_studies": len(train),
                "test_studies": len(test_ids),
                "test_boxes": len(truth["test"].image),
                "test_found": len(found.image),
                "test_sha256": id_hash(test_ids),
                "remarks": remarks,
                **outcome.notes(),
            }
            numbers = self._numbers(precision)
            notes |= undefined(numbers, dict.fromkeys(METRICS, "no test image has a box"))
            yield Measured(
                numbers,
                {name: mean_average_precision(replicates, *between) for name, between in METRICS.items()},
                notes,
                cell,
                ids_of(corpus, train),
            )

    def _numbers(self, precision: np.ndarray) -> dict[str, float]:
        numbers = {name: float(mean_average_precision(precision, *between)) for name, between in METRICS.items()}
        if len(self.targets) > 1:
            for label, target in enumerate(self.targets):
                own = mean_average_precision(precision[:, [label]], *METRICS["map_40_75"])
                numbers[f"map_40_75/{target}"] = float(own)
        return numbers


class Detector(nn.Module):
    """An image encoder with a YOLOv3 head, and the true boxes of the whole corpus beside it.

    Args:
        encoder: gives :class:`lingula.batch.ImageFeatures`; in evaluation mode if it is frozen.
        corners, labels: of :func:`true_boxes`; copied.
        classes: how many there are.
        image_size: H = W in pixels.
        confidence: least objectness of a box that is given.
    """

    def __init__(
        self,
        encoder: nn.Module,
        corners: np.ndarray,
        labels: np.ndarray,
        classes: int,
        image_size: int,
        confidence: float,
    ) -> None:
        super().__init__()
        self.image_size, self.confidence, self.classes = image_size, confidence, classes
        self.encoder = encoder.eval()
        with torch.no_grad():
            device = next(encoder.parameters()).device
            maps = three_scales(encoder(torch.zeros(1, 1, image_size, image_size, device=device)).maps)
        self.head = YoloV3([one.shape[1] for one in maps], classes)
        boxes = np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)
        self.anchors: Tensor
        self.boxes: Tensor
        self.labels: Tensor
        self.register_buffer("anchors", anchors_for(image_size), persistent=False)
        self.register_buffer("boxes", torch.from_numpy(boxes), persistent=False)
        self.register_buffer("labels", torch.tensor(labels), persistent=False)

    def predict(self, images: Tensor) -> list[Tensor]:
        """``(B, 1, H, W)`` in [-1, 1] to the logits of each scale."""
        predictions: list[Tensor] = self.head(three_scales(self.encoder(images).maps))
        return predictions

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        boxes, labels = self.boxes[batch.rows], self.labels[batch.rows]
        terms = yolo(self.predict(batch.image), self.anchors, boxes, labels, self.image_size)
        return {name: WEIGHTS[name] * term.mean() for name, term in terms.items()}

    def after_step(self) -> None:
        """Nothing moves without gradient."""

    @torch.inference_mode()
    def find(self, loader: Any) -> Boxes:
        """The boxes of every film of a loader, in evaluation mode; ``image`` counts them from 0.

        A prediction is of its likeliest class, and its score is objectness, times the probability of that class where
        there are several. Of two of a class that overlap by more than :data:`OVERLAP` the surer stays.
        """
        from torchvision.ops import batched_nms

        self.eval()
        parts, films = [], 0
        for batch in loader:
            corners, objectness, classes = decode(self.predict(batch.image), self.anchors, self.image_size)
            film, place = (objectness >= self.confidence).nonzero(as_tuple=True)
            likeliest, label = classes[film, place].max(-1)
            score = objectness[film, place] * (likeliest if self.classes > 1 else 1)
            kept = batched_nms(corners[film, place], score, film * self.classes + label, OVERLAP)
            columns = (film + films, label, corners[film, place], score)
            parts.append([column[kept].cpu().numpy() for column in columns])
            films += len(batch)
        return Boxes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def true_boxes(corpus: PreparedCorpus, targets: Sequence[str], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of every film of a corpus, side by side.

    Args:
        corpus: prepared.
        targets: names of boxes; the i-th is class i, others are left out.
        image_size: H = W in pixels of what the encoder sees.
    Returns:
        ``(studies, M, 4)`` float32 x0, y0, x1, y1 in pixels of that, 0 where there is none, and ``(studies, M)`` int64
        classes, -1 where there is none; M is the largest number of boxes of a film, or 1.
    """
    own = corpus.boxes(targets)
    row, place = own["row"].to_numpy(), own.groupby("row").cumcount().to_numpy()
    most = int(place.max(initial=0)) + 1
    corners = np.zeros((len(corpus), most, 4), dtype=np.float32)
    labels = np.full((len(corpus), most), -1, dtype=np.int64)
    corners[row, place] = own[["x0", "y0", "x1", "y1"]].to_numpy() * (image_size / corpus.size)
    labels[row, place] = own["name"].map({target: label for label, target in enumerate(targets)}).to_numpy()
    return corners, labels


def _flat(corners: np.ndarray, labels: np.ndarray) -> Boxes:
    """Boxes side by side, ``(films, M, 4)`` and ``(films, M)``, one after another."""
    image, place = np.nonzero(labels >= 0)
    return Boxes(image, labels[image, place], corners[image, place], np.ones(len(image), dtype=np.float32))
