"""Recipes: what a paper says under "implementation details". Floor 2."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lingula.data.transforms import Augmentation

OPTIMIZERS = ("adam", "adamw", "sgd", "lars")


SCHEDULES = ("cosine", "constant", "step")


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own terms; each begins with a fresh optimiser and its own warm-up.

    Attributes:
        epochs: length.
        weights: the weight of each loss term; a term that is not named is not computed.
        learning_rate: its own peak, where that differs from the recipe's.
        warmup_epochs: its own warm-up, as long as it is here; it grows and shrinks with the stage.
    """

    epochs: float
    weights: dict[str, float]
    learning_rate: float | None = None
    warmup_epochs: float | None = None

    def of_length(self, epochs: float) -> Stage:
        """The same stage of another length, its own warm-up the same share of it."""
        share = None if self.warmup_epochs is None else self.warmup_epochs / self.epochs
        return replace(self, epochs=epochs, warmup_epochs=None if share is None else share * epochs)


@dataclass(frozen=True)
class Recipe:
    """Everything but the data.

    Attributes:
        stages: in order.
        image_encoder, text_encoder: names (``lingula.nn``).
        pretrained: whether the encoders start from published weights.
        image_weights: a file to take the image encoder's from, instead.
        image_size: H = W in pixels that the image encoder sees.
        resize_to: side in pixels to which films come before they are cropped to ``image_size``.
        frozen_text_layers: the text encoder's embeddings and this many of its first layers stay as they were.
        augmentation: how the views of a film are drawn.
        sentences: which sentences of a report are read (:data:`lingula.data.collate.SENTENCES`).
        optimizer: ``adam``, ``adamw``, ``sgd`` or ``lars``.
        learning_rate: peak, after the warm-up.
        text_learning_rate: that of the text encoder, where it differs.
        bias_learning_rate: that of biases and norms, where it differs; of ``adamw`` and ``lars``.
        start_learning_rate: where the warm-up begins.
        warmup_epochs: per stage; of a stage shorter than ten of them, a tenth.
        schedule: after the warm-up: ``cosine`` to 0, ``constant``, or ``step``, a tenth after 60 % of the stage and a
            hundredth after 80 %.
        betas, momentum, weight_decay: of the optimiser; only ``adam`` and ``sgd`` decay biases and norms.
        batch_size: pairs per process.
        clip: gradient norm, or ``None``.
        precision: ``32``, ``bf16-mixed``, ``16-mixed``, or ``auto``: bf16-mixed on hardware that has it,
            16-mixed on older GPUs.
        options: arguments of the method that belong to this recipe.
    """

    stages: tuple[Stage, ...]
    image_encoder: str = "resnet50.tv_in1k"  # torchvision's weights, the field's start; timm's own are others
    text_encoder: str = "emilyalsentzer/Bio_ClinicalBERT"
    pretrained: bool = True
    image_weights: str | None = None
    image_size: int = 224
    resize_to: int = 256
    frozen_text_layers: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    sentences: str = "whole"
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    text_learning_rate: float | None = None
    bias_learning_rate: float | None = None
    start_learning_rate: float = 0.0
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 64
    clip: float | None = None
    precision: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)


def from_scratch(*stages: Stage, **changes: Any) -> Recipe:
    """The recipe for encoders without pre-trained weights: small ones, on films of 96 pixels, minutes on two cores.

    It is ours, found by measurement on the synthetic corpus (docs/results.md), and the same for all methods, so that
    they can be compared: 10 epochs of 32 pairs at the same rate, and windows of the film as the only augmentation.
    """
    common: dict[str, Any] = {
        "image_encoder": "small_resnet",
        "text_encoder": "small_bert",
        "pretrained": False,
        "image_size": 96,
        "resize_to": 96,
        "optimizer": "adamw",
        "learning_rate": 6e-4,
        "betas": (0.9, 0.98),
        "weight_decay": 1e-4,
        "warmup_epochs": 0.5,
        "batch_size": 32,
        "clip": 1.0,
        "precision": "32",  # encoders this small gain nothing from bfloat16; on CPUs they lose by it
    }
    return Recipe(stages, **{**common, **changes})
