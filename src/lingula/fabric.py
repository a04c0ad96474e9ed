"""Lightning's Fabric, which says nothing but warnings and looks for a GPU once. Floor 2."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch


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
