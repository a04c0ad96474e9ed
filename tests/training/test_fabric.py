"""One place that makes a Fabric."""

import logging

import pytest
import torch

from lingula.training.devices import quiet_fabric


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and nothing to look for in vain")
def test_no_step_looks_for_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning does when it is imported
    asked = []
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: asked.append("NVML") or -1)
    model = torch.nn.Linear(2, 1)
    fabric = quiet_fabric(accelerator="cpu", devices=1)
    module, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters()))
    asked.clear()
    fabric.backward(module(torch.ones(1, 2)).sum())
    optimizer.step()
    assert asked == []


def test_it_says_nothing_but_warnings():
    logging.getLogger("lightning.fabric").setLevel(logging.INFO)
    quiet_fabric(accelerator="cpu", devices=1)
    assert logging.getLogger("lightning.fabric").level == logging.WARNING
