"""``lingula pretrain --print_config``: the options with what the recipe gives for those that the user did not."""

from __future__ import annotations

from typing import Any


def filled(config: Any) -> Any:
    """The options of ``lingula pretrain`` in full: given to it again, they make the same run.

    A loss term that weighs differently from stage to stage is left to the recipe: an option would level it.

    Args:
        config: options, ``None`` where the recipe or a default decides. Those of a resume are left as they are: what is
            not given comes from the run's own run.json.
    Raises:
        UserError: for an unknown method, recipe, loss term or number of stages.
    """
    from lingula.records import plain
    from lingula.runs.recipes import INSTEAD, LAUNCH, MAKING, recipe_of, resolve

    full = config.clone()
    if config.resume:
        return full
    for name, default in {**MAKING, **LAUNCH}.items():
        if full[name] is None:
            full[name] = default
    given = {name: full[name] for name in INSTEAD}
    plan = resolve(recipe_of(full.method, full.recipe), given, full.epochs, full.options or {}, full.weights or {})
    for name in INSTEAD:
        full[name] = getattr(plan, name)
    full.epochs = [stage.epochs for stage in plan.stages]
    full.options = plain(plan.options)
    terms = {term for stage in plan.stages for term in stage.weights}
    by_term = {term: {stage.weights[term] for stage in plan.stages if term in stage.weights} for term in sorted(terms)}
    full.weights = {term: min(values) for term, values in by_term.items() if len(values) == 1}
    return full
