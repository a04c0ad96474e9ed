"""The optimiser and the schedule that a recipe asks for. Floor 2."""

from __future__ import annotations

import math

import torch
from torch import nn

from lingula.nn.method import Method
from lingula.training.recipe import OPTIMIZERS, Recipe


def build_optimizer(model: Method | nn.Module, recipe: Recipe, fused: bool = True) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that want a gradient.

    ``adam`` and ``sgd`` add the decay to the gradient of every parameter, as the papers' code does; ``adamw`` and
    ``lars`` decay matrices only, and ``lars`` adapts the rate of what decays only, so it wants a weight decay. Each
    group holds ``scale``: what its rate is of the recipe's.

    Args:
        model: whose parameters.
        recipe: which optimiser, and its numbers.
        fused: one kernel for all parameters, of ``adam``, ``adamw`` and ``sgd``; not together with a loss scale
            (16-mixed), which such a kernel takes off itself, too late for clipping.
    Raises:
        ValueError: for another optimiser.
    """
    from torch.distributed.tensor import DTensor

    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got '{recipe.optimizer}'")
    groups = []
    text = {id(p) for name, p in model.named_parameters() if name.startswith("text_encoder.")}
    text_scale = (recipe.text_learning_rate or recipe.learning_rate) / recipe.learning_rate
    bias_scale = (recipe.bias_learning_rate or recipe.learning_rate) / recipe.learning_rate
    only_matrices = recipe.optimizer in ("adamw", "lars")
    for matrix in (True, False) if only_matrices else (None,):
        for of_text in (False, True) if text_scale != 1 else (None,):
            own = [
                p
                for p in model.parameters()
                if p.requires_grad
                and (matrix is None or (p.ndim > 1) is matrix)
                and (of_text is None or (id(p) in text) is of_text)
            ]
            decay = 0.0 if matrix is False else recipe.weight_decay
            scale = (text_scale if of_text else 1.0) * (bias_scale if matrix is False else 1.0)
            if own:
                groups.append({"params": own, "weight_decay": decay, "scale": scale})
    if recipe.optimizer == "lars":
        from timm.optim import Lars

        return Lars(groups, recipe.learning_rate, momentum=recipe.momentum)
    if recipe.optimizer == "sgd":
        sharded = any(isinstance(p, DTensor) for p in model.parameters())  # torch has no such kernel for these
        return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, fused=fused and not sharded)
    adam = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return adam(groups, recipe.learning_rate, recipe.betas, fused=fused)


def learning_rate_at(
    step: int, steps: int, warmup: int, peak: float, start: float = 0.0, schedule: str = "cosine"
) -> float:
    """Linear warm-up from ``start`` to ``peak``, then a cosine to 0, or another schedule.

    Args:
        step: from 0; the rate that this step is taken with.
        steps: of the whole stage.
        warmup: steps of warm-up; ``peak`` is reached at step ``warmup``.
        peak, start: learning rates.
        schedule: ``cosine``, ``constant`` or ``step``.
    Example:
        >>> [round(learning_rate_at(s, 6, 2, 1.0), 2) for s in range(6)]
        [0.0, 0.5, 1.0, 0.85, 0.5, 0.15]
        >>> [round(learning_rate_at(s, 10, 0, 1.0, schedule="step"), 2) for s in range(5, 9)]
        [1.0, 0.1, 0.1, 0.01]
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak * 0.1 ** sum(step >= share * steps for share in (0.6, 0.8))
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
