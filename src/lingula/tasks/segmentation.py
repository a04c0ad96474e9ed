"""Segmentation: a U-Net on the image encoder finds the pixels of one finding or organ.

One example: film 17 with a small pneumothorax, 1.2 % of its pixels; the predicted mask covers half of it and nothing
else, so its Dice is 0.67. The means over all test films and over those with a lesion are the field's numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.batch import Batch
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.finetune import Tuning, finetune, tuning_batch
from lingula.evaluation.labels import FEW_OF_A_SIDE
from lingula.evaluation.statistics import few_patients, mean_replicates, patient_draws, undefined
from lingula.evaluation.studies import draw_subset, ids_of, labelled_rows, patients_of
from lingula.evaluation.task import Cell, Encoders, Measured, cells_of
from lingula.keyed import keyed_uniform
from lingula.losses.segmentation import focal, negative_log_dice
from lingula.metrics.segmentation import dice, iou
from lingula.nn.frozen import encoder_to_use
from lingula.nn.unet import UNet
from lingula.records import id_hash
from lingula.registry import UserError

PROTOCOLS = {"mgca": Tuning(learning_rate=5e-4, weight_decay=0.05, batch_size=16, epochs=50, patience=10)}
ENCODERS = ("frozen", "finetuned")
NEGATIVES = ("all", "as-many")


@dataclass
class Segmentation:
    """A U-Net's Dice and IoU on the test films, its encoder frozen or trained further.

    Films and masks are squares of the run's image size, and so are the masks that are scored: a mask of the prepared
    corpus is brought there by area, True where it covers at least half of a pixel. The released code squeezes films
    to a square; ours are letterboxed and keep their aspect.

    Numbers: ``dice`` and ``iou`` are means over all test films, 1 for a film without a lesion on which nothing is
    predicted and 0 for one on which something is; ``dice_positive`` and ``iou_positive`` are means over the films with
    a lesion, NaN where there are none; ``empty_share`` is the share of the films without one. The released code
    takes an unweighted mean of the means of batches, and leaves out the last, smaller one.

    Args:
        target: name of the mask to find.
        encoder: `frozen`: train the decoder alone (BatchNorm statistics stay too); `finetuned`: train both.
        fractions: shares of the training patients, stratified by whether there is a lesion.
        negatives: training films without a lesion: `all`, or, by the field's recipe for SIIM, at random `as-many` as
            there are films with one. Val and test always keep all.
        protocol: `mgca`: AdamW(5e-4, weight decay 0.05), batch 16 (its authors take 8 on SIIM), cosine per epoch, at
            most 50 epochs, patience 10 on the validation loss; loss 10 focal - log Dice; half of the training films
            are rotated by up to 10 degrees and scaled by up to 10 %.
        learning_rate: peak learning rate (default: the protocol's, which is meant for a frozen encoder).
        epochs: largest number of epochs (default: the protocol's).
        batch_size: images per step (default: the protocol's).
        patience: epochs without a better validation loss after which training stops (default: the protocol's).
    Raises:
        UserError: for an option that makes no sense; in :meth:`measure` for a mask that the corpus does not have.
    """

    target: str
    encoder: Literal["frozen", "finetuned"] = "frozen"
    fractions: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0])
    negatives: Literal["all", "as-many"] = "all"
    protocol: Literal["mgca"] = "mgca"
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    patience: int | None = None

    needs: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[dict[str, bool]] = {"dice": True, "dice_positive": True, "iou": True}

    def __post_init__(self) -> None:
        for name, known in (("encoder", ENCODERS), ("negatives", NEGATIVES), ("protocol", tuple(PROTOCOLS))):
            if getattr(self, name) not in known:
                raise UserError(f"segmentation: {name} must be {' or '.join(known)}, got '{getattr(self, name)}'")
        self.tuning = PROTOCOLS[self.protocol].changed(
            learning_rate=self.learning_rate, epochs=self.epochs, batch_size=self.batch_size, patience=self.patience
        )
        cells_of(self.fractions, [0])

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Every fraction with every seed: a seed draws its own subset, starts its own U-Net, shuffles and augments."""
        return cells_of(self.fractions, seeds)

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """Train and test one U-Net for each cell.

        Raises:
            UserError: for a mask that the corpus does not have, or not in each split.
        """
        rows = labelled_rows(corpus, corpus.rows_with_mask(self.target), f"mask '{self.target}'")
        lesion = _has_lesion(corpus, rows["train"], self.target)
        weights = patient_draws(corpus, rows["test"], draws)
        remarks = few_patients(corpus, rows["test"])
        positive = int(_has_lesion(corpus, rows["test"], self.target).sum())
        if positive < FEW_OF_A_SIDE:
            remarks.append(f"dice_positive is of {positive} test images with a lesion, fewer than {FEW_OF_A_SIDE}")

        for cell in cells:
            train = rows["train"][self._draw(corpus, rows["train"], lesion, cell)]
            torch.manual_seed(cell.seed)
            module = Segmenter(model, corpus, self.target, self.encoder == "finetuned")
            size = tuning_batch(self.tuning, len(train))
            loader = _loader(model, corpus, train, size, training=True, seed=cell.seed)
            val, test = (_loader(model, corpus, rows[split], self.tuning.batch_size) for split in ("val", "test"))
            score = partial(validation_loss, module, val)
            outcome = finetune(module, loader, score, False, self.tuning, cell.seed, model.device)
            values, lesions = overlaps(module, test)
            numbers = {name: _mean(per_film) for name, per_film in values.items()}
            numbers["empty_share"] = float(1 - lesions.mean())
            yield Measured(
                numbers,
                replicates={name: mean_replicates(values[name], weights) for name in self.higher_is_better},
                notes={
                    "protocol": self.protocol,
                    "encoder_mode": self.encoder,
                    "train_studies": len(train),
                    "test_studies": len(rows["test"]),
                    "test_sha256": id_hash(ids_of(corpus, rows["test"])),
                    "remarks": remarks,
                    **outcome.notes(),
                    **undefined(
                        numbers, dict.fromkeys(("dice_positive", "iou_positive"), "no test image has a lesion")
                    ),
                },
                cell=cell,
                subset_ids=ids_of(corpus, train) if len(train) < len(rows["train"]) else None,
            )

    def _draw(self, corpus: PreparedCorpus, rows: np.ndarray, lesion: np.ndarray, cell: Cell) -> np.ndarray:
        """Ascending places in ``rows``: the negatives first, then the share, as in the released code."""
        places = np.arange(len(rows))
        if self.negatives == "as-many":
            places = as_many_negatives(lesion, cell.seed)
        labels = lesion[places, None].astype(float)
        return places[draw_subset(patients_of(corpus, rows[places]), labels, cell.fraction, cell.seed)]


class Segmenter(nn.Module):
    """A U-Net, the masks that it shall find, and its loss: ``forward(batch)`` gives ``focal`` and ``log_dice``.

    Args:
        model: whose image encoder it stands on; not changed.
        corpus: where the masks are.
        target: their name.
        finetuned: train (a copy of) the encoder too.
    """

    def __init__(self, model: Encoders, corpus: PreparedCorpus, target: str, finetuned: bool) -> None:
        super().__init__()
        self.unet = UNet(encoder_to_use(model.method.image_encoder, finetuned), model.image_size)
        self.corpus, self.target, self.image_size = corpus, target, model.image_size

    def truth(self, rows: Tensor) -> Tensor:
        """``(B, 1, H, W)`` bool masks of these rows of the corpus."""
        masks = torch.from_numpy(self.corpus.masks(rows.cpu().numpy(), self.target)).to(rows.device)
        return resize_masks(masks, self.image_size)[:, None]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images, truth = batch.image, self.truth(batch.rows)
        if self.training:
            images, truth = augment(images, truth, batch.seed, batch.rows)
        logits = self.unet(images)
        # "10 * focal - log(dice)": MixedLoss of the code of MGCA and CM-CGNS, segmentation_loss.py.
        return {"focal": 10 * focal(logits, truth).mean(), "log_dice": negative_log_dice(logits, truth)}

    def after_step(self) -> None:
        """Nothing moves without gradient."""


# Films and masks ------------------------------------------------------------------------------------------------------


def augment(images: Tensor, masks: Tensor, seed: int, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the films rotated and scaled about their centre, their masks with them.

    Rotation is uniform in [-10, 10] degrees, scale in [0.9, 1.1]; outside of the film it is black. The numbers are
    those of the released code's ShiftScaleRotate(shift 0, scale 0.1, rotate 10, p 0.5, constant border).

    Args:
        images: ``(B, 1, H, W)`` in [-1, 1], sampled bilinearly.
        masks: ``(B, 1, H, W)`` bool, sampled at the nearest pixel.
        seed: of the batch.
        keys: ``(B,)`` int64 of the films; what happens to a film is a function of (seed, key).
    Returns:
        both, in the shapes and types that came.
    """
    luck, turn, zoom = keyed_uniform(seed, keys, 3).float().T  # (B,) each
    angle = torch.deg2rad(20 * turn - 10)
    scale = 0.9 + 0.2 * zoom
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device) + 0.5 - height / 2  # pixels from the centre
    x = torch.arange(width, device=images.device) + 0.5 - width / 2
    # Where each pixel of the result comes from: turned back and scaled down. By hand, because affine_grid multiplies
    # matrices, which autocast does in bfloat16: 0.7 pixels off at 224.
    cos, sin = (angle.cos() / scale)[:, None, None], (angle.sin() / scale)[:, None, None]
    from_x, from_y = cos * x + sin * y[:, None], cos * y[:, None] - sin * x
    grid = torch.stack([2 * from_x / width, 2 * from_y / height], dim=-1)
    moved = F.grid_sample(images + 1, grid, mode="bilinear", align_corners=False) - 1  # beyond the border: 0, black
    moved_masks = F.grid_sample(masks.float(), grid, mode="nearest", align_corners=False) > 0.5
    chosen = (luck < 0.5)[:, None, None, None]
    return torch.where(chosen, moved, images), torch.where(chosen, moved_masks, masks)


def resize_masks(masks: Tensor, size: int) -> Tensor:
    """Masks at another resolution: True where at least half of a pixel's area is covered.

    Args:
        masks: ``(B, S, S)`` bool.
        size: side of the result in pixels, smaller or larger.
    Returns:
        ``(B, size, size)`` bool.
    """
    side = masks.shape[-1]
    if side == size:
        return masks
    # Lengths in units of 1 / (side * size) of the film are whole numbers: so is the area, and a half is exactly one.
    old, new = (torch.arange(n, device=masks.device, dtype=torch.float32) for n in (side, size))
    ends = torch.minimum((new[:, None] + 1) * side, (old + 1) * size)
    overlap = (ends - torch.maximum(new[:, None] * side, old * size)).clamp_min(0)  # (size, S)
    with torch.autocast(masks.device.type, enabled=False):
        covered = overlap @ masks.float() @ overlap.T
    return 2 * covered >= side * side


def as_many_negatives(lesion: np.ndarray, seed: int) -> np.ndarray:
    """All films with a lesion, and as many of the others, drawn at random: the field's recipe for training on SIIM.

    Args:
        lesion: ``(n,)`` bool.
        seed: of the draw.
    Returns:
        ``(m,)`` ascending places in [0, n); all where there are fewer without a lesion than with one.
    Raises:
        UserError: if no film has a lesion.
    """
    positive, negative = np.flatnonzero(lesion), np.flatnonzero(~lesion)
    if len(positive) == 0:
        raise UserError("negatives as-many: no training film has a lesion, so none would be left; take --negatives all")
    drawn = np.random.default_rng(seed).permutation(negative)[: len(positive)]
    return np.sort(np.concatenate([positive, drawn]))


def _has_lesion(corpus: PreparedCorpus, rows: np.ndarray, target: str) -> np.ndarray:
    """``(n,)`` bool: is the prepared mask not empty?"""
    chunks = (rows[start : start + 256] for start in range(0, len(rows), 256))
    return np.concatenate([corpus.masks(chunk, target).any((1, 2)) for chunk in chunks])


def _loader(model: Encoders, corpus: PreparedCorpus, rows: np.ndarray, batch_size: int, **training: Any) -> Loader:
    """Whole films at the encoder's size, never cropped: masks are asked for by row."""
    size = model.image_size
    return Loader(corpus, rows, size, size, batch_size, device=model.device, **training)


# Numbers --------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def validation_loss(module: Segmenter, loader: Loader) -> float:
    """The loss of each batch of the loader, averaged with the batches' sizes as weights, as the released code's is."""
    losses = [len(batch) * float(sum(module(batch).values())) for batch in loader]
    return sum(losses) / len(loader.rows)


@torch.inference_mode()
def overlaps(module: Segmenter, loader: Loader) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every film's overlap of the truth with what is predicted at a probability of one half.

    Returns:
        ``{"dice", "dice_positive", "iou", "iou_positive": (n,)}``, the positive ones NaN for a film without a lesion;
        and ``(n,)`` bool, which films have one.
    """
    per_batch: dict[str, list[np.ndarray]] = {"dice": [], "iou": []}
    lesions = []
    for batch in loader:
        truth = module.truth(batch.rows)[:, 0].cpu().numpy()
        predicted = (module.unet(batch.image)[:, 0] > 0).cpu().numpy()
        per_batch["dice"].append(dice(predicted, truth))
        per_batch["iou"].append(iou(predicted, truth))
        lesions.append(truth.any((1, 2)))
    lesion = np.concatenate(lesions)
    values = {name: np.concatenate(of_batches) for name, of_batches in per_batch.items()}
    positive = {f"{name}_positive": np.where(lesion, per_film, np.nan) for name, per_film in values.items()}
    return {**values, **positive}, lesion


def _mean(values: np.ndarray) -> float:
    """Over what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
