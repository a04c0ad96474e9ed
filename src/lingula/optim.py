"""Recipes: what a paper says under "implementation details", and the optimiser and schedule made from it. Floor 2."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own terms; each begins with a fresh optimiser and its own warm-up.

    Attributes:
        epochs: length.
        weights: the weight of each loss term; a term that is not named is not computed.
    """

    epochs: float
    weights: dict[str, float]


@dataclass(frozen=True)
class Recipe:
    """Everything but the data.

    Attributes:
        stages: in order.
        image_encoder, text_encoder: names (``lingula.nn``).
        pretrained: whether the encoders start from published weights.
        image_size: H = W in pixels that the image encoder sees.
        resize_to: side in pixels to which films come before they are cropped to ``image_size``.
        optimizer: ``adam`` or ``adamw``.
        learning_rate: peak, after the warm-up.
        start_learning_rate: where the warm-up begins.
        warmup_epochs: per stage; of a stage shorter than ten of them, a tenth.
        betas, weight_decay: of the optimiser; biases and norms are not decayed by ``adamw``.
        batch_size: pairs per process.
        clip: gradient norm, or ``None``.
        precision: ``32``, ``bf16-mixed``, ``16-mixed``, or ``auto``: bf16-mixed on hardware that has it,
            16-mixed on older GPUs.
        options: arguments of the method that belong to this recipe.
    """

    stages: tuple[Stage, ...]
    image_encoder: str = "resnet50"
    text_encoder: str = "emilyalsentzer/Bio_ClinicalBERT"
    pretrained: bool = True
    image_size: int = 224
    resize_to: int = 256
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    start_learning_rate: float = 0.0
    warmup_epochs: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    batch_size: int = 64
    clip: float | None = None
    precision: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)


def build_optimizer(model: nn.Module, recipe: Recipe, fused: bool = True) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters that want a gradient.

    ``adam`` adds the decay to the gradient of every parameter, as the papers' code does; ``adamw`` decays matrices
    only.

    Args:
        model: whose parameters.
        recipe: which optimiser, and its numbers.
        fused: one kernel for all parameters; not together with a loss scale (16-mixed), which such a kernel takes off
            itself, too late for clipping.
    Raises:
        ValueError: for another optimiser.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            parameters, recipe.learning_rate, recipe.betas, weight_decay=recipe.weight_decay, fused=fused
        )
    if recipe.optimizer == "adamw":
        groups: Iterable[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, recipe.learning_rate, recipe.betas, fused=fused)
    raise ValueError(f"optimizer must be adam or adamw, got '{recipe.optimizer}'")


def learning_rate_at(step: int, steps: int, warmup: int, peak: float, start: float = 0.0) -> float:
    """Linear warm-up from ``start`` to ``peak``, then a cosine to 0.

    Args:
        step: from 0; the rate that this step is taken with.
        steps: of the whole stage.
        warmup: steps of warm-up; ``peak`` is reached at step ``warmup``.
        peak, start: learning rates.
    Example:
        >>> [round(learning_rate_at(s, 6, 2, 1.0), 2) for s in range(6)]
        [0.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
