"""One process and two give equal gradients for the same global batch: of every method and every recipe of it. The two
hold the whole model each, as with DDP, or a part of it (:mod:`lingula.training.sharding`).

The two processes are this file run as a script, which forks once for all the checks. Statistics of a batch are another
matter (each process has its own): every BatchNorm stands still here.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from lingula.methods import METHODS
from lingula.training.sharding import shard

RECIPES = [(name, recipe) for name in METHODS for recipe in METHODS[name].recipes]
STEPS = 2  # the second sees what after_step has moved


def step(model, batch):
    """Terms and gradients of one step, and then the step that needs no gradient."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    model.zero_grad()
    terms = model(batch)
    sum(terms.values()).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.after_step()
    return {"terms": {name: term.detach() for name, term in terms.items()}, "grads": grads}


def build(name, recipe_name, options, make_method):
    model = make_method(name, options).double()
    with torch.no_grad():
        for p in model.text_encoder.parameters() if model.uses_text else ():
            p.mul_(3)  # a fresh BERT says nearly the same of every sentence
    model.weights = dict(METHODS[name].recipes[recipe_name].stages[-1].weights)
    return model


def work(rank, folder, make_method):
    halves, plans = torch.load(folder / "plan.pt", weights_only=False)
    shown = {}
    mesh = dist.init_device_mesh("cpu", (2,))
    for plan in plans:
        model = build(*plan, make_method)
        sharded = shard(copy.deepcopy(model), mesh)
        steps, sharded_steps = [], []
        for half in halves:
            found = step(model, half[rank])
            for grad in found["grads"].values():  # as DDP averages them
                dist.all_reduce(grad)
                grad /= 2
            steps.append(found)
            found = step(sharded, half[rank])
            found["grads"] = {name: whole(grad) for name, grad in found["grads"].items()}
            sharded_steps.append(found)
        shown[plan[:2]] = {"steps": steps, "buffers": dict(model.named_buffers())}
        held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in sharded.parameters())
        shown["sharded", *plan[:2]] = {"steps": sharded_steps, "buffers": dict(sharded.named_buffers()), "held": held}
    return shown


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def main() -> None:
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import make_method  # before the fork, which then costs nothing

    torch.set_num_threads(1)
    child = os.fork()
    rank = 1 if child == 0 else 0
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(work(rank, folder, make_method), folder / f"{rank}.pt")
    dist.destroy_process_group()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def plan_of(name, recipe_name, tiny):
    return name, recipe_name, METHODS[name].recipes[recipe_name].options | tiny.smaller.get(name, {})


@pytest.fixture(scope="module")
def wholes(tiny):
    views = max(METHODS[name].views for name in METHODS)
    return [tiny.double(tiny.batch((3, 1, 1, 2), seed, views=views)) for seed in range(STEPS)]


@pytest.fixture(scope="module")
def two(wholes, tiny, tmp_path_factory):
    """What two processes have to show."""
    folder = tmp_path_factory.mktemp("two")
    halves = [(tiny.take(whole, [0, 1]), tiny.take(whole, [2, 3])) for whole in wholes]
    torch.save((halves, [plan_of(*recipe, tiny) for recipe in RECIPES]), folder / "plan.pt")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", RECIPES, ids="-".join)
def test_two_halves_give_the_gradient_of_the_whole(wholes, two, name, tiny):
    model = build(*plan_of(*name, tiny), tiny.method)
    ways = name, ("sharded", *name)
    for number, batch in enumerate(wholes):
        found = step(model, batch)
        for way in ways:
            compare(found, [two[rank][way]["steps"][number] for rank in range(2)], number)
    for key, buffer in model.named_buffers():
        for rank in range(2):
            for way in ways:
                torch.testing.assert_close(two[rank][way]["buffers"][key], buffer, msg=key)


def compare(found, halves, number):
    """One process's step with those of the two."""
    for term, value in found["terms"].items():
        mean = (halves[0]["terms"][term] + halves[1]["terms"][term]) / 2
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-7, check_dtype=False, msg=f"{number}: {term}")
    assert any(grad.abs().max() > 0 for grad in found["grads"].values())
    for half in halves:
        assert half["grads"].keys() == found["grads"].keys()
        for key, grad in found["grads"].items():
            scale = grad.abs().max().item()
            torch.testing.assert_close(half["grads"][key], grad, rtol=1e-5, atol=1e-5 * scale + 1e-9, msg=key)


def test_each_of_two_processes_holds_half_of_a_sharded_model(two, tiny):
    for name in RECIPES:
        held = [two[rank]["sharded", *name]["held"] for rank in range(2)]
        whole = sum(p.numel() for p in build(*plan_of(*name, tiny), tiny.method).parameters())
        assert max(held) < 0.51 * whole, name


if __name__ == "__main__":
    main()
