"""A model split among processes (FSDP2), for models larger than a device. Floor 2.

Each process keeps a part of every weight, of its gradient and of its moments: some rows. A group of weights is put
together from all processes before it is used, and let go again; gradients are averaged over the processes, as DDP does,
and each process gets those of its rows. A block of a tower is a group, and all else is one more, which is whole from
the beginning of ``forward`` to the end of the backward pass. Not split are buffers (statistics of BatchNorms, queues,
banks of centres) and weights that are single numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lingula.gather import sum_over_all, world
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import Method
from lingula.nn.text_encoders import TextEncoder


def shard(model: nn.Module, mesh: Any) -> nn.Module:
    """Split a method's weights, in place and once; its optimiser is to be built afterwards.

    Args:
        model: the same on every process; on any device.
        mesh: the one-dimensional ``DeviceMesh`` of all processes; its device is where the model goes.
    """
    from torch.distributed.fsdp import fully_shard

    numbers = {p for p in model.parameters() if p.ndim == 0}  # they have no rows: every process keeps them
    for p in model.parameters():
        p.data = p.data.contiguous()  # channels_last has its rows elsewhere
    for p in numbers:
        p.data = p.data.to(mesh.device_type)
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(_average)
    towers = [module for module in model.modules() if isinstance(module, ImageEncoder | TextEncoder)]
    for tower in towers:
        # The last block stays with the rest: the backward pass begins with it, so it would be let go for nothing; and
        # first_token_attention reads weights of the text encoder's.
        for block in list(_blocks(tower))[:-1]:
            fully_shard(block, mesh=mesh, ignored_params=numbers)
    fully_shard(model, mesh=mesh, ignored_params=numbers)
    return model


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What the outermost lists of a module hold, but for single layers, as those of a stem."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from (block for block in child if any(True for _ in block.children()))
        else:
            yield from _blocks(child)


@torch.no_grad()
def _average(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.copy_(sum_over_all(parameter.grad) / world()[1])


@contextmanager
def callable_in_parts(model: Method | nn.Module) -> Iterator[None]:
    """Let ``encode_image`` and the like be called, not ``forward`` only, by all processes alike; a model that is not
    split needs nothing."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()  # all but the blocks, which do so by themselves
    yield
    model.reshard()
