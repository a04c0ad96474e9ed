"""C12: memory and gradient of the report loss on one, two and four processes with the same global batch.

Run as a script this is those processes: ``processes.py FOLDER PROCESSES CLUSTERS WIDTH COUNT...``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.ratios.clustering import points  # noqa: E402
from benchmarks.ratios.measure import Figure, extra_memory  # noqa: E402
from benchmarks.ratios.report_loss import batch_of, method  # noqa: E402

from lingula.batch import Batch  # noqa: E402
from lingula.methods.cm_cgns import CMCGNS  # noqa: E402


def work(rank: int, processes: int, clusters: int, width: int, counts: list[int]) -> dict[int, dict[str, Any]]:
    """Of each number of sentences: this process's gradients, averaged as DDP does, and its memory."""
    found = {}
    model = method(width)
    model.clusters = clusters
    for count in counts:
        share = slice(rank * count // processes, (rank + 1) * count // processes)
        f, v = (points(count, width, seed)[share].clone().requires_grad_() for seed in (1, 2))
        batch = batch_of(count)
        assert batch.reports is not None
        batch.reports.sentence_key = batch.reports.sentence_key[share]
        step = partial(gradients, model, f, v, batch)
        grads = [grad / processes for grad in step()]
        found[count] = {"grads": grads, "memory": max(extra_memory(step) for _ in range(3))}
    return found


def gradients(model: CMCGNS, f: torch.Tensor, v: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, ...]:
    """Of the report loss, by this process's share of the sentences and of what they drew from their films."""
    return torch.autograd.grad(sum(model.report_losses(f, v, batch)), (f, v))


def main() -> None:
    folder, (processes, clusters, width, *counts) = Path(sys.argv[1]), map(int, sys.argv[2:])
    torch.set_num_threads(1)
    children, rank = [], 0
    for other in range(1, processes):
        child = os.fork()  # no thread has been started yet
        if child == 0:
            children, rank = [], other
            break
        children.append(child)
    if processes > 1:
        store = dist.FileStore(str(folder / f"store{processes}"), processes)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    torch.save(work(rank, processes, clusters, width, counts), folder / f"{processes}-{rank}.pt")
    if processes > 1:
        dist.destroy_process_group()
    for child in children:
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(1)


def loss_memory(counts: tuple[int, ...], worlds: tuple[int, ...], clusters: int, width: int) -> list[Figure]:
    """The exponent of the memory in N, and how far the gradients are from one process's."""
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    environment["MALLOC_MMAP_THRESHOLD_"] = "131072"  # or glibc keeps what is freed, and it is that which is measured
    memory: dict[int, list[float]] = {}
    error = 0.0
    with tempfile.TemporaryDirectory() as name:
        for processes in worlds:
            command = [sys.executable, __file__, name, *map(str, (processes, clusters, width, *counts))]
            subprocess.run(command, env=environment, check=True)
            found = [torch.load(Path(name) / f"{processes}-{r}.pt", weights_only=True) for r in range(processes)]
            memory[processes] = [max(of[count]["memory"] for of in found) for count in counts]
            if processes == 1:
                alone = found[0]
            for count in counts:
                for which in range(2):
                    expected = alone[count]["grads"][which]
                    grad = torch.cat([of[count]["grads"][which] for of in found])
                    error = max(error, float((grad - expected).abs().max() / expected.abs().max()))
    exponents = {w: float(np.polyfit(np.log(counts), np.log(memory[w]), 1)[0]) for w in worlds}
    detail = {f"mb_of_{w}": dict(zip(counts, (round(m / 1e6, 1) for m in memory[w]), strict=True)) for w in worlds}
    detail |= {"exponents": {w: round(exponent, 2) for w, exponent in exponents.items()}}
    falls = memory[worlds[-1]][-1] / memory[worlds[0]][-1]
    last = f"{worlds[-1]} processes over one"
    return [
        Figure("C12 exponent", "loss memory against N, exponent", max(exponents.values()), 1.1, False, detail),
        Figure("C12 processes", f"loss memory at N = {counts[-1]:,}, {last}", falls, 1.0, False, detail),
        Figure("C12 gradient", "relative error of the gradient against one process's", error, 1e-5, False, detail),
    ]


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    return loss_memory((96, 192), (1, 2), 8, 16) if small else loss_memory((1536, 3072, 6144), (1, 2, 4), 128, 768)


if __name__ == "__main__":
    main()
