"""``lingula pretrain --print_config``: the options with what the recipe gives for those that the user did not."""

from __future__ import annotations

from typing import Any


def filled(config: Any) -> Any:
    """The options of ``lingula pretrain`` in full: given to it again, they make the same run.

    A loss term that weighs differently from stage to stage is left to the recipe: an option would level it.

    Args:
        config: options, ``None`` where the recipe decides.
    Raises:
        UserError: for an unknown method, recipe, loss term or number of stages.
    """
    from lingula.commands._recipe import recipe_of, resolve
    from lingula.results import plain

    changes = {name: value for name, value in vars(config).items() if name in TAKEN}
    plan = resolve(
        recipe_of(config.method, config.recipe), changes, config.epochs, config.options or {}, config.weights or {}
    )
    full = config.clone()
    for name in TAKEN:
        full[name] = getattr(plan, name)
    full.epochs = [stage.epochs for stage in plan.stages]
    full.options = plain(plan.options)
    terms = {term for stage in plan.stages for term in stage.weights}
    by_term = {term: {stage.weights[term] for stage in plan.stages if term in stage.weights} for term in sorted(terms)}
    full.weights = {term: min(values) for term, values in by_term.items() if len(values) == 1}
    return full


TAKEN = (
    "image_encoder", "text_encoder", "pretrained", "image_weights", "image_size", "resize_to", "sentences",
    "batch_size", "learning_rate", "weight_decay", "clip", "precision",
)  # fmt: skip
