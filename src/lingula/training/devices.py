"""Where and how a model is computed: device, precision, processes, compilation. Floor 2."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from lingula.nn.method import Method
from lingula.registry import UserError
from lingula.training.sharding import shard

ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps")
PRECISIONS = ("auto", "32", "bf16-mixed", "16-mixed")


def quiet_fabric(**options: Any) -> Any:
    """A ``lightning.fabric.Fabric`` with these options.

    Lightning has torch look for GPUs through NVML, so that the question does not spoil a fork. Where there is none,
    torch then looks for NVML's library on the disk at every step of an optimiser; without Lightning's wish it knows.
    """
    from lightning.fabric import Fabric

    for name in ("lightning", "lightning.fabric", "lightning.pytorch"):  # importing them sets INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    if not torch.cuda.is_available():
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    return Fabric(**options)


def precision_of(precision: str, accelerator: str) -> str:
    """``auto`` is bf16-mixed on hardware with bf16 arithmetic; on other CPUs it would only be slower."""
    if precision != "auto":
        return {"32": "32-true"}.get(precision, precision)
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        flags = Path("/proc/cpuinfo")
        text = flags.read_text() if flags.is_file() else ""
        if "avx512_bf16" in text or "amx_bf16" in text:
            return "bf16-mixed"
    return "32-true"


def check_fsdp(processes: int, precision: str, compile: bool) -> None:
    """Refuse what a model cannot be together with that is split among processes.

    Raises:
        UserError: for one process, 16-mixed, or compiled encoders.
    """
    if processes == 1:
        raise UserError("--fsdp splits the model among processes, and there is one; give --devices 2 or more")
    if precision == "16-mixed":
        raise UserError("--fsdp knows no loss scale, which 16-mixed needs; give --precision bf16-mixed or 32")
    if compile:
        raise UserError("--fsdp puts weights together between the blocks that --compile would make one; leave one out")


def make_fabric(accelerator: str, devices: int, nodes: int, precision: str, sharded: bool) -> Any:
    """A Lightning Fabric over this run's processes.

    Raises:
        UserError: where the machine has no such accelerator, or not as many.
    """
    from lightning.fabric.strategies import ModelParallelStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    processes = devices * nodes
    strategy: Any = "ddp_find_unused_parameters_true" if processes > 1 else "auto"
    if sharded:

        def split(model: torch.nn.Module, mesh: Any) -> torch.nn.Module:
            return shard(model, mesh["data_parallel"])

        strategy = ModelParallelStrategy(split, data_parallel_size=processes, tensor_parallel_size=1)

    try:
        return quiet_fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=precision
        )
    except (MisconfigurationException, RuntimeError, ValueError) as err:
        raise UserError(f"accelerator '{accelerator}' with {devices} devices: {err}") from err


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the generators that a step draws from. torch.manual_seed seeds those of all kinds of devices, and notes the
    call down, with a traceback, for each kind that is not in use yet: a millisecond a step, and memory that is never
    given back."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def fabric_on(device: torch.device) -> Any:
    """A Fabric of one process on a device that is chosen already; bf16-mixed on CUDA, fp32 elsewhere."""
    if device.type == "cuda":
        return quiet_fabric(accelerator="cuda", devices=[device.index or 0], precision="bf16-mixed")
    return quiet_fabric(accelerator=device.type, devices=1, precision="32-true")


def loss_scale(fabric: Any) -> Any:
    """The ``GradScaler`` of 16-mixed, one for all stages; ``None`` at other precisions."""
    return getattr(fabric.strategy.precision, "scaler", None)


def check_cuda_graphs(fabric: Any) -> None:
    """
    Raises:
        UserError: where there are none.
    """
    if fabric.device.type != "cuda":
        raise UserError(f"--cuda_graphs needs a CUDA device, and this would run on {fabric.device.type}; leave it out")


def compile_encoders(model: Method, cuda_graphs: bool = False) -> None:
    """Compile the towers; films have one shape, of packed reports both sides vary: two graphs in all.

    Args:
        model: the method.
        cuda_graphs: launch the image encoder's kernels all at once. A CUDA graph has one shape, so the text encoder,
            whose packed rows vary, goes without.
    """
    model.image_encoder.compile(mode="reduce-overhead" if cuda_graphs else None)
    if model.uses_text:
        model.text_encoder.compile(dynamic=True)


def forget_activations(model: Method) -> None:
    """Let the towers keep the inputs of their blocks only.

    Raises:
        UserError: if one of them cannot.
    """
    for tower in ("image_encoder", "text_encoder") if model.uses_text else ("image_encoder",):
        module = getattr(model, tower)
        if not hasattr(module, "checkpoint_activations"):
            kind = tower.replace("_", " ")
            raise UserError(f"the method's own {kind} cannot checkpoint its activations; leave the option out")
        module.checkpoint_activations()


def device_of(name: str) -> str:
    """``cuda`` where there is one, for ``auto``.

    Raises:
        UserError: if there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as err:
        raise UserError(f"no device '{name}' here; choose cpu, cuda, mps or auto") from err
    return name
