"""Training of a task's head, and of its encoder where that is not frozen, by ``training/loop.py``. Floor 2."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lingula.data.loader import Loader
from lingula.registry import UserError
from lingula.terminal.progress import progress
from lingula.training.devices import fabric_on
from lingula.training.loop import fit


@dataclass(frozen=True)
class Tuning:
    """How a head is trained; the field's protocols differ in these numbers only.

    AdamW(0.9, 0.999), cosine to zero over ``epochs``, one rate an epoch, no warm-up; the weights of the best epoch on
    validation count, and training stops ``patience`` epochs after it.
    """

    learning_rate: float = 5e-4
    weight_decay: float = 1e-6
    batch_size: int = 48
    epochs: int = 100
    patience: int = 10

    def changed(self, **given: Any) -> Tuning:
        """With what was given, ``None`` standing for not given.

        Raises:
            UserError: for a number that makes no sense.
        """
        new = dataclasses.replace(self, **{name: value for name, value in given.items() if value is not None})
        for name in ("batch_size", "epochs", "patience"):
            if getattr(new, name) < 1:
                raise UserError(f"{name} must be 1 or more, got {getattr(new, name)}")
        if not 0 < new.learning_rate < math.inf:
            raise UserError(f"learning_rate must be above 0, got {new.learning_rate}")
        return new


@dataclass(frozen=True)
class Outcome:
    """``best_epoch`` from 1, ``epochs`` that were trained, and the validation ``score`` of the best."""

    best_epoch: int
    epochs: int
    score: float

    def notes(self) -> dict[str, Any]:
        """For a row of results."""
        return {"best_epoch": self.best_epoch, "epochs": self.epochs, "val_score": self.score}


def finetune(
    module: nn.Module,
    loader: Loader,
    score: Callable[[], float],
    higher_is_better: bool,
    tuning: Tuning,
    seed: int,
    device: torch.device,
) -> Outcome:
    """Train ``module`` in place; afterwards it has the weights of its best epoch and is in evaluation mode.

    Args:
        module: ``forward(batch) -> {name: weighted scalar}`` and ``after_step()``; what requires no gradient is left
            alone.
        loader: training, of the task's own studies.
        score: measures ``module``, in evaluation mode and without gradient, on the validation split.
        higher_is_better: which scores are.
        tuning: rates and lengths; its batch size is the loader's affair.
        seed: of dropout and the like.
        device: where to train; on CUDA in bf16-mixed.
    Raises:
        UserError: if a term is not finite, or a score never is.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=tuning.learning_rate, weight_decay=tuning.weight_decay, fused=True)
    fabric = fabric_on(device)
    model, wrapped = fabric.setup(module, optimizer)
    best: dict[str, torch.Tensor] = {}
    best_score, best_epoch, epoch = math.nan, 0, 0
    with progress("training", tuning.epochs * len(loader), "step", at_most=True) as bar:
        for epoch in range(1, tuning.epochs + 1):
            rate = tuning.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / tuning.epochs))
            first = (epoch - 1) * len(loader)
            fit(
                fabric, model, wrapped, loader, _constant(rate), first + len(loader), first,
                seed=seed, on_log=_ignore, after_each=bar.at,
            )  # fmt: skip
            module.eval()
            with torch.inference_mode():
                now = score()
            if not math.isnan(now) and (not best or (now > best_score if higher_is_better else now < best_score)):
                best = {name: value.detach().clone() for name, value in module.state_dict().items()}
                best_score, best_epoch = now, epoch
            elif best and epoch - best_epoch >= tuning.patience:
                break
            bar.note = f"epoch {epoch}, best on validation {best_score:.4g} in epoch {best_epoch}"
    if not best:
        raise UserError("validation gave no number in any epoch: its split holds nothing that can be scored")
    module.load_state_dict(best)
    module.eval()
    return Outcome(best_epoch, epoch, best_score)


def tuning_batch(tuning: Tuning, studies: int) -> int:
    """The protocol's batch size, or all studies where there are fewer."""
    return min(tuning.batch_size, studies)


def _constant(rate: float) -> Callable[[int], float]:
    return lambda _: rate


def _ignore(step: int, terms: dict[str, float]) -> None:
    """Terms are summed only where somebody listens, and only then are they found not to be finite."""
