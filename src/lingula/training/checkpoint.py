"""Checkpoints: weights (safetensors), the rest of the state, and readable JSON of how it was made. Floor 2.

::

    RUN/
      run.json               how the run was made: command, recipe, corpus, versions
      latest                 the name of the newest whole checkpoint
      checkpoint-000123/
        weights.safetensors  the method's state_dict
        state.pt             the optimiser's, and the loss scale's; loaded with weights_only=True
        progress.json        stage and step
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lingula.gather import world
from lingula.registry import UserError


@dataclass(frozen=True)
class Progress:
    """How far a run has come: ``step`` optimiser steps into stage ``stage``, ``total`` in all."""

    stage: int = 0
    step: int = 0
    total: int = 0


def save_checkpoint(run: Path, model: Any, optimizer: Any, progress: Progress, scaler: Any = None) -> None:
    """Write a whole checkpoint, then let ``latest`` name it, then delete the one before.

    At every moment ``latest`` names a whole checkpoint: it can be killed anywhere. Every process calls this, for a
    sharded model is put together from all of them, and the first one writes: the same files, sharded or not. ``scaler``
    is the loss scale of 16-mixed.
    """
    import torch
    from safetensors.torch import save_file

    weights = {key: _whole(value) for key, value in model.state_dict().items()}
    state = {"optimizer": optimizer.state_dict()}
    state["optimizer"]["state"] = {
        place: {name: _whole(value) for name, value in moments.items()}
        for place, moments in state["optimizer"]["state"].items()
    }
    if world()[0] != 0:
        return
    name = f"checkpoint-{progress.total:06d}"
    partial = run / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {key: value.detach().contiguous().clone() for key, value in weights.items()}
    progress_file = partial / "progress.json"
    progress_file.write_text(json.dumps(asdict(progress)) + "\n")
    save_file(weights, partial / "weights.safetensors")
    shutil.copymode(progress_file, partial / "weights.safetensors")  # safetensors leaves the umask aside: 0600
    if scaler is not None:
        state["scaler"] = scaler.state_dict()
    torch.save(state, partial / "state.pt")
    shutil.rmtree(run / name, ignore_errors=True)
    partial.rename(run / name)
    pointer = run / "latest.partial"
    pointer.write_text(name + "\n")
    pointer.replace(run / "latest")
    for old in run.glob("checkpoint-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def _whole(value: Any) -> Any:
    """A sharded tensor put together, which only the first process keeps, on the CPU; anything else as it is."""
    from torch.distributed.tensor import DTensor

    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if world()[0] == 0 else None


def checkpoint_folder(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, or ``None``."""
    pointer = run / "latest"
    if not pointer.is_file():
        return None
    folder = run / pointer.read_text().strip()
    if not (folder / "weights.safetensors").is_file():
        raise UserError(f"{run}: its newest checkpoint, {folder.name}, is missing or damaged")
    return folder


def load_weights(run: Path, model: Any) -> str:
    """Put the newest weights of a run into ``model``, all of them and nothing else.

    Returns:
        SHA-256 of the weights file.
    Raises:
        UserError: if there is no checkpoint, or a tensor is missing, superfluous or of another shape.
    """
    from safetensors.torch import load_file

    folder = checkpoint_folder(run)
    if folder is None:
        raise UserError(f'no checkpoint in {run}; train one with "lingula pretrain --out {run}"')
    path = folder / "weights.safetensors"
    try:
        model.load_state_dict(load_file(path), strict=True)
    except RuntimeError as err:
        raise UserError(f"{path} does not fit this model: {str(err).splitlines()[-1].strip()}") from err
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_state(run: Path) -> tuple[Progress, dict[str, Any]] | None:
    """Progress and the state of optimiser and loss scale of the newest checkpoint, or ``None`` where there is none."""
    import torch

    folder = checkpoint_folder(run)
    if folder is None:
        return None
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    return Progress(**json.loads((folder / "progress.json").read_text())), state


def load_moments(optimizer: Any, state: dict[str, Any]) -> None:
    """Give an optimiser its state of a checkpoint, and each process its part of it where the weights are sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def part(value: Any, weight: Any) -> Any:
        if not isinstance(weight, DTensor) or value.shape != weight.shape:
            return value
        return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)

    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    parts = {
        place: {name: part(value, weights[place]) for name, value in moments.items()}
        for place, moments in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})
