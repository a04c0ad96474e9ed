"""Sharded runs come to what one process comes to, and their checkpoints are like any other.

The processes are this file run as a script, which forks once for all the runs. Where there is a BatchNorm, whose
statistics are each process's own, and in half precision, sharded runs are compared with DDP's on as many processes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lingula.commands.pretrain import pretrain
from lingula.training.checkpoint import checkpoint_folder
from lingula.training.log import Log

PAIRS = 8  # of a step, over all processes
COMMON = {"image_encoder": "small_vit", "pretrained": False, "image_size": 32, "precision": "32", "accelerator": "cpu"}
RUNS = {
    # AdamW with clipping, two stages with terms of their own
    "cm-cgns": {"recipe": "scratch", "epochs": [1 / 3, 2 / 3], "options": {"dim": 32, "decoder_widths": [8, 8]}},
    # SGD without, which tells a gradient from its double; a momentum encoder and a queue
    "moco": {"recipe": "paper", "epochs": [2 / 3], "options": {"dim": 16, "queue_size": 64, "shuffle_groups": 1}},
}
BESIDE_DDP = {
    # LARS over two batches a step, the tower's inner results computed twice; a projector with BatchNorms
    "barlow-twins": {
        "recipe": "paper",
        "epochs": [3],
        "learning_rate": 5.0,  # LARS takes a thousandth of it
        "accumulate": 2,
        "image_encoder": "vit_tiny_patch16_224",
        "checkpoint_activations": True,
        "options": {"projector": [16, 16]},
    },
    "clip": {"recipe": "scratch", "epochs": [1], "precision": "bf16-mixed"},
}
STOP = 3  # of three steps, of which the second stage has two


def train(method, corpus, out, processes, **settings):
    settings = COMMON | (RUNS | BESIDE_DDP)[method] | settings
    settings |= {"devices": processes, "batch_size": PAIRS // processes, "checkpoint_every": 1, "log_every": 1}
    return pretrain(corpus, out, method, quiet=True, **settings)


def interrupt(log, step):
    if step == STOP:
        raise KeyboardInterrupt


def work(rank, folder, corpus, processes):
    """Train MoCo sharded, CM-CGNS twice, begun sharded and ended not and the other way round, and others both ways."""
    train("moco", corpus, folder / "moco", processes, fsdp=True)
    for method in BESIDE_DDP:
        for name, shard in ((f"{method}, sharded", True), (f"{method}, not", False)):
            train(method, corpus, folder / name, processes, fsdp=shard)
    for name, shard in (("sharded", True), ("not", False)):
        uninterrupted, Log.step = Log.step, interrupt
        with pytest.raises(KeyboardInterrupt):
            train("cm-cgns", corpus, folder / name, processes, fsdp=shard)
        Log.step = uninterrupted
        if rank == 0:
            shutil.copytree(checkpoint_folder(folder / name), folder / f"{name}, stopped")
        torch.distributed.barrier()
        train("cm-cgns", corpus, folder / name, processes, fsdp=not shard, resume=True)


def main() -> None:
    folder, corpus, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    import lightning.fabric  # noqa: F401  before the fork, which then costs nothing
    import transformers.models.bert.modeling_bert  # noqa: F401

    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children: list[int] = []
    while len(children) < processes - 1 and (child := os.fork()):
        children.append(child)
    rank = (len(children) + 1) % processes  # the first has them all, and each of them those before it
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    work(rank, folder, corpus, processes)
    torch.distributed.destroy_process_group()
    if rank == 0:
        sys.exit(max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children))


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def several(request, tiny_corpus, tmp_path_factory):
    """The folder of what two processes have trained, or four."""
    folder = tmp_path_factory.mktemp("several")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), str(tiny_corpus), str(request.param)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(tiny_corpus, tmp_path_factory):
    """The folder of what one process has trained with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    for method in RUNS:
        train(method, tiny_corpus, folder / method, 1)
    return folder


def weights(checkpoint):
    return load_file(checkpoint / "weights.safetensors")


def moments(checkpoint):
    """The optimiser's state by the names of its tensors."""
    state = torch.load(checkpoint / "state.pt", weights_only=True)["optimizer"]["state"]
    return {f"{name} of {place}": value for place, own in state.items() for name, value in own.items()}


def assert_close(some, others, atol):
    assert some.keys() == others.keys()
    for name, value in others.items():
        torch.testing.assert_close(some[name], value, rtol=1e-4, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def test_sharded_steps_are_those_of_one_process(several, alone):
    assert_close(weights(checkpoint_folder(several / "moco")), weights(checkpoint_folder(alone / "moco")), 1e-6)


def test_lars_accumulated_steps_and_activations_computed_again_are_those_of_ddp(several):
    sharded, other = (weights(checkpoint_folder(several / f"barlow-twins, {name}")) for name in ("sharded", "not"))
    processes = json.loads((several / "barlow-twins, not" / "run.json").read_text())["processes"]
    # with four of them a BatchNorm sees two films, which makes 2e-5 of rounding; unsynchronised gradients make 2
    assert_close(sharded, other, {2: 1e-5, 4: 1e-4}[processes])


@pytest.mark.parametrize("method", BESIDE_DDP)
def test_losses_are_those_of_ddp_in_half_precision_too(several, method):
    sharded, other = (losses(several / f"{method}, {name}") for name in ("sharded", "not"))
    assert len(other) == 3
    assert other[2] != pytest.approx(other[1], rel=0.01)  # two steps of it were no warm-up
    assert sharded == pytest.approx(other, rel=1e-4)


def test_a_checkpoint_does_not_tell_whether_it_was_sharded(several):
    sharded, other = (several / f"{name}, stopped" for name in ("sharded", "not"))
    assert_close(weights(sharded), weights(other), 1e-5)
    assert_close(moments(sharded), moments(other), 1e-7)
    assert len(moments(sharded)) > 100


@pytest.mark.parametrize("begun", ["sharded", "not"])
def test_a_run_that_begins_sharded_may_end_otherwise_and_the_other_way_round(several, alone, begun):
    # Adam makes steps of what is only rounding, as the gradient of a key's bias is: a tenth of a step
    assert_close(weights(checkpoint_folder(several / begun)), weights(checkpoint_folder(alone / "cm-cgns")), 6e-5)
    assert validation(several / begun) == validation(alone / "cm-cgns")


def losses(run):
    """Of every step, the sum of the terms."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    terms = [[v for k, v in row.items() if k.startswith("train/") and k != "train/gradient_norm"] for row in rows]
    return [sum(of_step) for of_step in terms if of_step]


def validation(run):
    """What the last stage ended with; of eight films, so it is not of rounding."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {name: value for name, value in rows[-1].items() if name.startswith("val/")}
    assert found["val/queries"] == 8
    return found


if __name__ == "__main__":
    main()
