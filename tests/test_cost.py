"""The cost law (benchmarks/cost) against real steps: what it leaves out or counts twice shows."""

import importlib
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import flop_registry

from lingula.methods.cm_cgns import CMCGNS
from lingula.nn import kmeans

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _from_the_root():
    before = list(sys.path)
    sys.path.insert(0, str(ROOT))
    yield
    sys.path[:] = before


@pytest.fixture(scope="module")
def cost():
    return importlib.import_module("benchmarks.cost.law")


@pytest.fixture(scope="module")
def check():
    return importlib.import_module("benchmarks.cost.check")


def test_it_knows_the_constants_of_the_code(cost):
    iterations = signature(kmeans.spherical_kmeans).parameters["iterations"].default
    assert (kmeans.GRAM_LIMIT, kmeans.ROUNDS, iterations) == (cost.GRAM_LIMIT, cost.ROUNDS, cost.LLOYD)
    assert CMCGNS.tile == cost.TILE


COUNTS_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu in flop_registry


# 128 pairs have more sentences than a tile, and than are clustered on their Gram matrix.
@pytest.mark.skipif(not COUNTS_ATTENTION, reason="this PyTorch's FlopCounterMode leaves out attention on the CPU")
@pytest.mark.parametrize(("pairs", "stage"), [(4, 1), (4, 2), (128, 1)])
def test_every_flop_is_counted(cost, check, pairs, stage):
    batch = check.batch_of(pairs, 96)
    step = check.step_of(batch, stage=stage)
    assert step.shared is (pairs == 128)
    assert (step.sentences > step.tile) is (pairs == 128)
    assert sum(cost.flop(step).values()) == check.counted(check.small_model(stage=stage), batch)


def test_every_parameter_is_counted(cost, check):
    model, step = check.small_model(), check.step_of(check.batch_of(2, 96))
    found = cost.parameters(step)
    for part, module in (("image encoder", model.image_encoder), ("text encoder", model.text_encoder)):
        assert found[part] == sum(p.numel() for p in module.parameters())
    assert sum(found.values()) == sum(p.numel() for p in model.parameters())


def test_resnet50_has_the_parameters_of_timms(check):
    from lingula.nn.image_encoders import ImageEncoder

    encoder = ImageEncoder("resnet50", 64)
    law = check.resnet50(64)
    assert law.parameters == sum(p.numel() for p in encoder.parameters())
    assert law.buffer_bytes == sum(x.numel() * x.element_size() for x in encoder.buffers())
    assert (law.width, law.places) == (encoder.width, encoder.grid[0] * encoder.grid[1])


def test_every_byte_that_two_processes_hand_over_is_counted(check):
    for kind, predicted, measured in check.wire_rows(processes=2, pairs=6, limit=0):
        assert predicted == measured, kind


def test_the_loss_holds_what_its_constants_say(cost, check):
    predicted = cost.LOSS["tile x N"] * cost.TILE * 1536 + cost.LOSS["N x D"] * 1536 * 256
    assert check.loss_memory(1536, 256) == pytest.approx(predicted, rel=0.03)


def test_plans_are_made(cost):
    plan = importlib.import_module("benchmarks.cost.plan")
    text = "\n".join(plan.tables())
    assert all(f"| {name} |" in text for name in plan.CORPORA)
