"""What only a GPU can show, in one run of under ten minutes; see gpu.sh.

Encoders and data at full size and made on the spot: ResNet-50 and BERT-base with random weights, random films of 256
pixels, reports about as long as MIMIC-CXR's. ``--small`` shows on any machine that the script works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from benchmarks.ratios.tokens import corpus as random_tokens  # noqa: E402
from transformers import BertConfig  # noqa: E402

from lingula.batch import Batch  # noqa: E402
from lingula.data.loader import Loader  # noqa: E402
from lingula.methods import METHODS  # noqa: E402
from lingula.runs.build import build_method  # noqa: E402
from lingula.training.optim import build_optimizer  # noqa: E402

PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}  # dense bf16 FLOP/s, as the maker states


@dataclass
class Sizes:
    """How large everything is."""

    image_encoder: str = "resnet50"
    stored: int = 256
    seen: int = 224
    films: int = 2048
    batches: tuple[int, int] = (64, 512)
    steps: int = 20
    small: bool = False

    def text(self) -> BertConfig:
        """BERT-base, or a tiny one."""
        if self.small:
            shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
            return BertConfig(vocab_size=1000, max_position_embeddings=512, **shape)
        return BertConfig(vocab_size=30_000)


def loader_of(sizes: Sizes, batch: int, device: torch.device) -> Loader:
    """Random films and reports: nothing of them is learnt, everything is computed."""
    rng = np.random.default_rng(0)
    tokens = random_tokens(sizes.films)
    pixels = rng.integers(0, 256, (sizes.films, sizes.stored, sizes.stored), dtype=np.uint8)
    corpus: Any = SimpleNamespace(pixels=pixels, size=sizes.stored, name="random", knows=lambda _: False)
    return Loader(corpus, np.arange(sizes.films), sizes.seen, sizes.stored, batch, tokens, training=True, device=device)


def model_of(name: str, sizes: Sizes, stage: int, device: torch.device) -> tuple[Any, Any]:
    """A method by its recipe `paper`, and its optimiser."""
    recipe = METHODS[name].recipes["paper"]
    torch.manual_seed(0)
    options = {"dim": 32, "decoder_widths": (8, 8)} if sizes.small and name == "cm-cgns" else recipe.options
    model: Any = build_method(name, options, sizes.image_encoder, sizes.text(), sizes.seen, False, None)
    model.weights = dict(recipe.stages[stage].weights)
    model.to(device).train()
    return model, build_optimizer(model, recipe)


def step(model: Any, optimizer: Any, batch: Batch) -> None:
    """One step in bf16 mixed precision."""
    with torch.autocast(batch.images.device.type, dtype=torch.bfloat16):
        loss = sum(model(batch).values())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    model.after_step()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(take: Callable[[int], None], steps: int, device: torch.device) -> float:
    """Median seconds of a step, three stretches of them after a warm-up."""
    for number in range(5):
        take(number)
    wait(device)
    taken = []
    for stretch in range(3):
        start = time.perf_counter()
        for number in range(steps):
            take(5 + stretch * steps + number)
        wait(device)
        taken.append((time.perf_counter() - start) / steps)
    return statistics.median(taken)


def flops_per_pair(sizes: Sizes, batch: Batch, device: torch.device) -> float:
    """Of one step's forward and backward passes, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    model, _ = model_of("cm-cgns", sizes, 0, device)
    with FlopCounterMode(display=False) as counted:
        sum(model(batch).values()).backward()
    return counted.get_total_flops() / len(batch)


def clustering_of(model: Any, batch: Batch, steps: int, device: torch.device) -> tuple[int, float]:
    """Sentences of a batch, and the seconds that clustering them takes."""
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        points = model.attend(batch.image, batch.reports).image_to_report.float()
    assert batch.reports is not None
    keys = batch.reports.sentence_key
    return len(points), rate(lambda _: model.find_clusters(points, keys, 0), steps, device)


def idle_share(take: Callable[[int], None], device: torch.device) -> float:
    """Of five steps, the share of the time in which no kernel runs."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        wait(device)
        start = time.perf_counter()
        for number in range(5):
            take(number)
        wait(device)
        wall = time.perf_counter() - start
    spans = sorted((e.time_range.start, e.time_range.end) for e in seen.events() if e.device_type.name == "CUDA")
    busy, last = 0.0, 0.0
    for begin, end in spans:
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    return 1 - busy / 1e6 / wall


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Everything, by name."""
    found: dict[str, Any] = {}
    cuda = device.type == "cuda"
    for batch_size in sizes.batches:
        loader = loader_of(sizes, batch_size, device)
        seconds: dict[str, float] = {}
        for name in ("clip", "cm-cgns"):
            model, optimizer = model_of(name, sizes, 0, device)

            def take(number: int, model: Any = model, optimizer: Any = optimizer, loader: Loader = loader) -> None:
                step(model, optimizer, loader.batch(number))

            seconds[name] = rate(take, sizes.steps, device)
            if cuda:
                torch.cuda.set_sync_debug_mode("error")
                take(0)  # raises where the host waits for the device
                torch.cuda.set_sync_debug_mode("default")
                found[f"synchronisations of {name}, batch {batch_size}"] = 0
                found[f"idle share of {name}, batch {batch_size}"] = idle_share(take, device)
        found[f"pairs a second, stage 1, batch {batch_size}"] = batch_size / seconds["cm-cgns"]
        found[f"step over CLIP's, batch {batch_size}"] = seconds["cm-cgns"] / seconds["clip"]

        sentences, clustering = clustering_of(model, loader.batch(0), sizes.steps, device)
        found[f"clustering share of a step, batch {batch_size}"] = clustering / seconds["cm-cgns"]
        found[f"sentences, batch {batch_size}"] = sentences
    flops = flops_per_pair(sizes, loader_of(sizes, min(sizes.batches), device).batch(0), device)
    found["GFLOP a pair"] = flops / 1e9
    machine = torch.cuda.get_device_name() if cuda else "cpu"
    peak = next((value for known, value in PEAK.items() if known in machine), float("nan"))
    found["share of peak"] = flops * found[f"pairs a second, stage 1, batch {sizes.batches[-1]}"] / peak

    model, optimizer = model_of("cm-cgns", sizes, 1, device)
    loader = loader_of(sizes, sizes.batches[-1], device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    found[f"pairs a second, stage 2, batch {sizes.batches[-1]}"] = sizes.batches[-1] / rate(
        lambda number: step(model, optimizer, loader.batch(number)), max(2, sizes.steps // 4), device
    )
    if cuda:
        found[f"GB, stage 2, batch {sizes.batches[-1]}"] = torch.cuda.max_memory_allocated() / 1e9

    if not sizes.small:
        small, large = sizes.batches
        for batch_size, cuda_graphs in ((large, False), (small, False), (small, True)):
            name = f"stage 1, {'CUDA graphs' if cuda_graphs else 'compiled'}, batch {batch_size}"
            found[f"pairs a second, {name}"], made = compiled(sizes, batch_size, cuda_graphs, device)
            found[f"recompilations in the steady state, {name}"] = made
    return {"device": machine, "torch": torch.__version__, **found}


def compiled(sizes: Sizes, batch_size: int, cuda_graphs: bool, device: torch.device) -> tuple[float, int]:
    """Pairs a second with compiled encoders, and the graphs made after the first steps."""
    from torch._dynamo.utils import counters

    from lingula.training.devices import compile_encoders

    model, optimizer = model_of("cm-cgns", sizes, 0, device)
    compile_encoders(model, cuda_graphs)
    loader = loader_of(sizes, batch_size, device)
    for number in range(8):
        step(model, optimizer, loader.batch(number))
    before = counters["stats"]["unique_graphs"]
    seconds = rate(lambda number: step(model, optimizer, loader.batch(number)), sizes.steps, device)
    return batch_size / seconds, counters["stats"]["unique_graphs"] - before


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = Sizes()
    if asked.small:
        sizes = Sizes("small_resnet", 40, 32, 16, (4, 8), 1, True)
    elif device.type != "cuda":
        sys.exit("no CUDA device here; --small shows that the script works")
    found = measure(sizes, device)
    for name, value in found.items():
        print(f"{name}: {value if isinstance(value, str) else f'{value:,.4g}'}", flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / f"gpu-{'-'.join(str(found['device']).lower().split())}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(path)
    return found


if __name__ == "__main__":
    main()
