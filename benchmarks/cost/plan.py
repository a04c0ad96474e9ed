"""From the formulas of ``law.py`` and a few assumptions: time, price and room for corpora.

Computed, not measured: everything that a GPU does here rests on :class:`Machine`, which is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from benchmarks.cost.law import (
    HOST,
    Step,
    cluster_additions,
    flop,
    on_the_wire,
    parameters,
    resident,
    stream_bytes,
    table,
    wire,
)

CORPORA = {  # pairs and epochs, a third of them in stage 1
    "MIMIC-CXR": (232_286, 30),
    "1M": (1_000_000, 30),
    "10M": (10_000_000, 10),
    "100M": (100_000_000, 3),
}


@dataclass(frozen=True)
class Machine:
    """Eight H100 or H200, and what is believed of them. Every number is an assumption."""

    bf16: float = 989e12  # dense peak, FLOP/s
    bf16_share: float = 0.20  # of it; our goal, not measured
    fp32: float = 67e12  # peak without TensorFloat-32, which the cosines forgo
    fp32_share: float = 0.50
    gpus: int = 8
    inside: float = 450e9  # bytes/s a GPU, NVLink
    between: float = 50e9  # bytes/s a GPU, between machines
    latency: float = 30e-6  # seconds a collective
    buckets: int = 28  # collectives that DDP makes of one gradient of 25 MB each
    loader: float = 4_000.0  # pairs/s of one process's loader; host.rate() on a core of a Xeon, rounded down
    storage: float = 5e9  # bytes/s a machine, random reads of 64 kB
    written: float = 1e9  # bytes/s, checkpoints
    dollars: float = 3.0  # a GPU and hour


def seconds(step: Step, machine: Machine) -> dict[str, float]:
    """Of one step. Gradients travel behind the backward pass, two thirds of the computation; nothing else is hidden.
    Launches, memory-bound kernels and waiting for the slowest process are all in ``bf16_share``."""
    parts = flop(step)
    full = sum(value for part, value in parts.items() if part.endswith("fp32"))
    found = {
        "bf16": (sum(parts.values()) - full) / machine.bf16 / machine.bf16_share,
        "fp32": full / machine.fp32 / machine.fp32_share,
        "gradients, not hidden": 0.0,
        "other collectives": 0.0,
    }
    sent = on_the_wire(step)
    if sent:
        rate = machine.inside if step.processes <= machine.gpus else machine.between
        gradients = sent.pop("gradients (DDP)") / rate + machine.buckets * machine.latency
        found["gradients, not hidden"] = max(0.0, gradients - 2 / 3 * (found["bf16"] + found["fp32"]))
        calls = sum(count for name, (_, count, _) in wire(step).items() if name in sent)
        found["other collectives"] = sum(sent.values()) / rate + calls * machine.latency
    return found


def pace(pairs: int, processes: int, machine: Machine, stage: int) -> tuple[Step, dict[str, float], float]:
    """A typical step, its seconds by part, and the seconds that a pair of the global batch takes: the GPUs', or the
    loader's or the storage's where these are slower."""
    from benchmarks.cost.check import typical_step

    step = typical_step(pairs, processes=processes, stage=stage)
    spent = seconds(step, machine)
    film = stream_bytes()["film"]
    local = min(processes, machine.gpus)
    slowest = max(sum(spent.values()), pairs / machine.loader, pairs * local * film / machine.storage)
    return step, spent, slowest / (pairs * processes)


def tables(machine: Machine | None = None) -> Iterator[str]:
    """As Markdown."""
    machine = machine or Machine()
    yield table(["assumed", "value"], [[field.name, f"{getattr(machine, field.name):,g}"] for field in fields(machine)])

    step, *_ = pace(64, 8, machine, stage=2)
    parts = flop(step)
    lines: list[list[object]] = [
        [part, value / 1e9, 100 * value / sum(parts.values())] for part, value in parts.items()
    ]
    lines.append(["additions of the clustering", cluster_additions(step) / 1e9, ""])
    about = f"n = {step.sentences}, S = {step.longest}, L = {step.row}, {step.slots} slots"
    yield table([f"B = 64, W = 8, stage 2: {about}", "GFLOP", "%"], lines)

    lines = []
    for pairs, processes in ((64, 1), (64, 8), (64, 64), (64, 512), (256, 8), (256, 64), (256, 512)):
        step, spent, each = pace(pairs, processes, machine, stage=1)
        parts = flop(step)
        share = 100 * parts["report loss, fp32"] / sum(parts.values())
        times = [1e3 * value for value in spent.values()]
        sent = sum(on_the_wire(step).values()) / 1e9
        held = sum(resident(step).values()) / 1e9
        row = [pairs, processes, step.total, step.total / step.k, sum(parts.values()) / pairs / 1e9, share, *times]
        lines.append([*row, sent, held, 1 / each / processes, 1 / each / processes * min(processes, 8) * 65_536 / 1e9])
    head = "B W N N/K GFLOP/pair loss,% bf16,ms fp32,ms gradients,ms others,ms sent,GB held,GB pairs/s/GPU machine,GB/s"
    yield table([name.replace(",", ", ") for name in head.split()], lines)

    lines = []
    for name, (pairs, epochs) in CORPORA.items():
        row = [name, pairs, epochs]
        for processes in (1, 8, 64):
            hours = sum(
                pairs * epochs * share * pace(64, processes, machine, stage)[2] / 3600
                for stage, share in ((1, 1 / 3), (2, 2 / 3))
            )
            row.append(f"{hours:,.3g} h, {hours * processes * machine.dollars:,.0f} USD")
        lines.append(row)
    yield table(["corpus", "pairs", "epochs", "1 GPU", "8 GPUs", "64 GPUs"], lines)

    lines = []
    for name, (pairs, _) in CORPORA.items():
        disk, host = stream_bytes()["film"] * pairs, {part: size * pairs for part, size in HOST.items()}
        parts = (disk, host["index on disk"], stream_bytes()["tokens on disk"] * pairs, host["held"], 8 * host["held"])
        lines.append([name, *(part / 1e9 for part in parts)])
    head = [
        "corpus",
        "films on disk, GB",
        "index on disk, GB",
        "tokens on disk, GB",
        "private to a process, GB",
        "to eight, GB",
    ]
    yield table(head, lines)

    step, spent, _ = pace(64, 64, machine, stage=1)
    lines = [[part, size / 1e9] for part, size in resident(step).items()]
    yield table(["resident, B = 64, W = 64", "GB"], lines)
    count = sum(parameters(step).values())
    write = 12 * count / machine.written
    every = 500 * sum(spent.values())
    lines = [[part, size / 1e6] for part, size in parameters(step).items()]
    lines += [["all", count / 1e6], ["checkpoint, GB", 12 * count / 1e9], ["its writing, s", write],
              ["500 steps, B = 64, W = 64, s", every]]  # fmt: skip
    yield table(["parameters", "millions"], lines)
    lines = [[name, kind, calls, size / 1e6] for name, (kind, calls, size) in wire(step, 2).items()]
    yield table(["handed over, B = 64, W = 64, bf16-mixed", "kind", "calls", "MB"], lines)
