"""What ``lingula pretrain`` is asked for: the recipe, what the user gave instead, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from lingula.data.collate import SENTENCES
from lingula.methods import METHODS
from lingula.nn.hub import check_obtainable
from lingula.nn.image_encoders import MADE_HERE, check_published
from lingula.nn.method import check_method
from lingula.nn.text_encoders import SMALL_BERT
from lingula.registry import UserError, check_options, nearest
from lingula.runs.build import TOWERS, takes
from lingula.training.devices import ACCELERATORS, PRECISIONS
from lingula.training.recipe import OPTIMIZERS, SCHEDULES, Recipe, Stage

# What is not given is this, or, of a run that is resumed, what its run.json says.
MAKING: dict[str, Any] = {"method": "cm-cgns", "recipe": "paper", "seed": 42, "accumulate": 1, "vocabulary": 2000}


LAUNCH: dict[str, Any] = {  # how a run is computed and logged, which may differ from one resume to the next
    "accelerator": "auto",
    "devices": 1,
    "nodes": 1,
    "fsdp": False,
    "compile": False,
    "cuda_graphs": False,
    "checkpoint_activations": False,
    "log_every": 20,
    "checkpoint_every": 500,
}


INSTEAD = (  # of the recipe's own
    "image_encoder",
    "text_encoder",
    "pretrained",
    "image_weights",
    "image_size",
    "resize_to",
    "sentences",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "clip",
    "precision",
)


FEW_STEPS = 100


SCRATCH_STEPS = 930  # of the scratch recipe in docs/comparison.md: 10 epochs of 3,000 pairs in batches of 32


def recipe_of(method: str, recipe: str) -> Recipe:
    """A method's recipe by name.

    Raises:
        UserError: if there is no such method, it has no such recipe, or its class is no method.
    """
    check_method(METHODS[method])
    recipes: dict[str, Recipe] = METHODS[method].recipes
    if recipe not in recipes:
        hint = nearest(recipe, recipes) or f"; known: {', '.join(recipes)}"
        raise UserError(f"method '{method}' has no recipe '{recipe}'{hint}")
    return recipes[recipe]


def resolve(
    recipe: Recipe,
    given: dict[str, Any],
    epochs: list[float] | None,
    options: dict[str, Any],
    weights: dict[str, float],
) -> Recipe:
    """The recipe with what the user gave instead.

    Raises:
        UserError: for a number of epochs that fits no stages, or a weight of a term that no stage has.
    """
    stages = recipe.stages
    if epochs is not None:
        stages = tuple(s.of_length(e) for s, e in each_length(recipe, epochs))
    terms = {term for stage in stages for term in stage.weights}
    for term in weights:
        if term not in terms:
            raise UserError(f"no loss term '{term}'{nearest(term, terms) or '; known: ' + ', '.join(sorted(terms))}")
    stages = tuple(
        dataclasses.replace(s, weights={name: weights.get(name, value) for name, value in s.weights.items()})
        for s in stages
    )
    changes = {name: value for name, value in given.items() if value is not None}
    if "learning_rate" in changes:  # it moves all of them: no stage may go on with the recipe's own
        factor = changes["learning_rate"] / recipe.learning_rate
        stages = tuple(dataclasses.replace(s, learning_rate=_times(s.learning_rate, factor)) for s in stages)
        for name in ("text_learning_rate", "bias_learning_rate"):
            changes[name] = _times(getattr(recipe, name), factor)
    if "image_size" in changes and "resize_to" not in changes:
        changes["resize_to"] = round(changes["image_size"] * recipe.resize_to / recipe.image_size)
    return dataclasses.replace(recipe, stages=stages, options={**recipe.options, **options}, **changes)


def each_length(recipe: Recipe, epochs: Sequence[float]) -> list[tuple[Stage, float]]:
    """Every stage of a recipe with its number of epochs.

    Raises:
        UserError: if there are more or fewer numbers than stages.
    """
    count = len(recipe.stages)
    if len(epochs) != count:
        raise UserError(
            f"the recipe has {count} stages, so --epochs takes {count} numbers, as in "
            f"--epochs {' '.join(f'{s.epochs:g}' for s in recipe.stages)}; got {epochs}"
        )
    return list(zip(recipe.stages, epochs, strict=True))


def _times(rate: float | None, factor: float) -> float | None:
    return None if rate is None else rate * factor


def check(method: str, plan: Recipe, counts: dict[str, int], seed: int, accelerator: str) -> None:
    """Refuse numbers and names that would fail later, less clearly.

    Args:
        method: its name.
        plan: the recipe with what the user gave instead.
        counts: whole numbers from 1, by the names of their options.
        seed: of the run.
        accelerator: as the user named it.
    Raises:
        UserError: naming the first that is wrong.
    """
    for name, value in {"batch_size": plan.batch_size, **counts}.items():
        if value < 1:
            raise UserError(f"{name} must be 1 or more, got {value}")
    if plan.batch_size < METHODS[method].smallest_batch:
        raise UserError(
            f"method '{method}' needs a batch_size of {METHODS[method].smallest_batch} or more, got {plan.batch_size}"
        )
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    words = (
        ("accelerator", accelerator, ACCELERATORS),
        ("precision", plan.precision, PRECISIONS),
        ("optimizer", plan.optimizer, OPTIMIZERS),
        ("schedule", plan.schedule, SCHEDULES),
        ("sentences", plan.sentences, SENTENCES),
    )
    for what, word, known in words:
        if word not in known:
            raise UserError(f"unknown {what} '{word}'{nearest(word, known) or '; known: ' + ', '.join(known)}")
    if not 0 < plan.learning_rate < math.inf:
        raise UserError(f"learning_rate must be above 0, got {plan.learning_rate}")
    if not 0 <= plan.weight_decay < math.inf:
        raise UserError(f"weight_decay must be 0 or more, got {plan.weight_decay}")
    if plan.clip is not None and not plan.clip > 0:
        raise UserError(f"clip must be above 0, got {plan.clip}")
    if plan.image_size < 16:
        raise UserError(f"image_size must be 16 pixels or more, got {plan.image_size}")
    if plan.resize_to < plan.image_size:
        raise UserError(f"resize_to must be image_size ({plan.image_size}) or more, got {plan.resize_to}")
    for number, stage in enumerate(plan.stages, start=1):
        if not 0 <= stage.epochs < math.inf:
            raise UserError(f"epochs must be 0 or more, got {stage.epochs} for stage {number}")
        for term, weight in stage.weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(f"weights.{term} must be 0 or more, got {weight}")
        if stage.epochs and not any(stage.weights.values()):
            raise UserError(f"stage {number} has nothing to train: all its loss weights are 0")
    if not any(stage.epochs for stage in plan.stages):
        raise UserError("nothing to train: all epochs are 0")
    check_options(f"method '{method}'", METHODS[method], plan.options, not_options=TOWERS)


def check_published_weights(method: str, plan: Recipe) -> None:
    """Refuse encoders whose published weights, or text configuration, cannot be had; a resume needs neither.

    Raises:
        UserError: naming the encoder and the ways out.
    """
    if takes(method, "text_encoder") and plan.text_encoder != SMALL_BERT:
        check_obtainable(plan.text_encoder)
    ours = takes(method, "image_encoder") and plan.image_encoder not in MADE_HERE
    if plan.pretrained and plan.image_weights is None and ours:
        check_published(plan.image_encoder)


def few_steps(steps: int, method: str, recipe: str, plan: Recipe, accumulate: int) -> str | None:
    """A warning for a run of so few steps that it cannot learn, naming what would make them more; else ``None``."""
    if steps >= FEW_STEPS:
        return None
    measured = f" (docs/comparison.md has {SCRATCH_STEPS} for the scratch recipe)" if recipe == "scratch" else ""
    ways = [f"raise --epochs (now {' '.join(f'{stage.epochs:g}' for stage in plan.stages)})"]
    if plan.batch_size > max(2, METHODS[method].smallest_batch):  # one pair has no negative
        ways.append(f"lower --batch_size (now {plan.batch_size})")
    if accumulate > 1:
        ways.append(f"lower --accumulate (now {accumulate})")
    noun = "step" if steps == 1 else "steps"
    return f"warning: {steps} {noun} in all, too few to learn from{measured}; {' or '.join(ways)}"
