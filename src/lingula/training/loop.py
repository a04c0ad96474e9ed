"""The training loop, top to bottom. Floor 2: it knows neither methods nor stages nor corpora.

One step: gather ``accumulate`` batches; for each, the method's named terms, their sum, backward; clip; the optimiser's
step at the schedule's rate; ``after_step`` for what moves without gradient. Nothing here asks the device for a number,
except to log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lingula.data.loader import Batches
from lingula.registry import UserError
from lingula.training.devices import seed_device


def fit(
    fabric: Any,
    model: Any,
    optimizer: torch.optim.Optimizer,
    loader: Batches,
    learning_rate: Callable[[int], float],
    steps: int,
    start: int = 0,
    accumulate: int = 1,
    clip: float | None = None,
    seed: int = 0,
    log_every: int = 20,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    after_each: Callable[[int], None] | None = None,
    ways_out: str = "lower --learning_rate",
) -> None:
    """Take the optimiser steps ``start .. steps - 1``.

    Args:
        fabric: a Lightning Fabric that has set up ``model`` and ``optimizer``.
        model: ``forward(batch) -> {name: weighted scalar}``.
        optimizer: stepped once for every ``accumulate`` batches.
        loader: its ``accumulate * step``-th batch is the step's first.
        learning_rate: of the step number.
        steps: the number of the step to stop before.
        start: the number of steps taken already.
        accumulate: batches whose gradients are averaged into one step.
        clip: largest gradient norm, or ``None``.
        seed: dropout and the like draw from (seed, step, rank), so that a resume draws the same.
        log_every: steps between two calls of ``on_log``.
        on_log: gets the number of steps taken and the means of the terms since the last call.
        after_each: gets the number of steps taken, after every step.
        ways_out: what a user can do about a term that is not finite.
    Raises:
        UserError: if a logged term is not finite, or no term has a gradient.
    """
    model.train()
    sums: dict[str, torch.Tensor] = {}
    seen = 0
    for step in range(start, steps):
        seed_device((seed * 1_000_003 + step) * 1_009 + fabric.global_rank, fabric.device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step) * group.get("scale", 1.0)
        for micro in range(accumulate):
            batch = loader.batch(step * accumulate + micro)
            last = micro == accumulate - 1
            with fabric.no_backward_sync(model, enabled=not last):
                terms = model(batch)
                loss: Any = sum(terms.values()) / accumulate
                if not getattr(loss, "requires_grad", False):
                    raise UserError(f"nothing to train: no gradient comes from the loss terms ({', '.join(terms)})")
                fabric.backward(loss)
            for name, term in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=term.device)) + term.detach().float()
            seen += 1
        norm = None
        if clip is not None:
            norm = fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.module.after_step()
        done = step + 1
        if on_log is not None and (done % log_every == 0 or done == steps):
            means = {name: float(value) / seen for name, value in sums.items()}
            _check_finite(done, means, ways_out)
            if norm is not None:
                means["gradient_norm"] = float(norm)
            on_log(done, means)
            sums, seen = {}, 0
        if after_each is not None:
            after_each(done)
            model.train()


def _check_finite(step: int, means: dict[str, float], ways_out: str) -> None:
    for name, value in means.items():
        if not torch.isfinite(torch.tensor(value)):
            raise UserError(f"the term '{name}' is {value} by step {step}; {ways_out}")
