"""The formulas of ``law.py`` against real steps: FLOP by torch's counter, bytes that autograd keeps, bytes handed to
collectives. Run as a script this is the processes of the last: ``check.py FOLDER PROCESSES PAIRS LIMIT``.

Steps of the small encoders are computed. Those of ResNet-50 and BERT-base run on fake tensors, which have shapes and no
numbers, so that they need neither hours nor gigabytes: all operators of the method are called all the same.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from benchmarks.cost import host  # noqa: E402
from benchmarks.cost.encoders import Text, resnet50, small_resnet  # noqa: E402
from benchmarks.cost.law import LOSS, TILE, Step, flop, resident, table, wire  # noqa: E402
from benchmarks.ratios.tokens import corpus as random_tokens  # noqa: E402
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from lingula.batch import Batch, Reports, TextFeatures  # noqa: E402
from lingula.data.collate import collate_reports  # noqa: E402
from lingula.methods import METHODS  # noqa: E402
from lingula.methods.cm_cgns import CMCGNS  # noqa: E402
from lingula.nn import kmeans  # noqa: E402
from lingula.nn.image_encoders import ImageEncoder  # noqa: E402
from lingula.nn.sentences import sentence_means  # noqa: E402
from lingula.nn.text_encoders import text_config  # noqa: E402
from lingula.runs.build import build_method  # noqa: E402

SMALL = Text(2, 128, 256, 1000, 256, fused=True)
WORDS = Text(layers=0, width=16, inner=0, vocabulary=996, positions=0)


class Words(torch.nn.Module):
    """A text encoder without context: a token is its row of a table. Of the encoder only the parameters travel, and
    importing transformers takes longer than all the rest."""

    width = WORDS.width

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(1000, self.width)

    def forward(self, reports: Reports) -> TextFeatures:
        states = self.table(reports.token_ids)
        sentences = sentence_means(states, reports.sentence_of_token, reports.sentence_count)
        return TextFeatures(states, reports.token_mask, sentences, reports.report_of_sentence)


def small_model(dim: int = 128, side: int = 96, stage: int = 1) -> Any:
    """CM-CGNS on ``small_resnet`` and ``small_bert``."""
    model: Any = build_method("cm-cgns", {"dim": dim}, "small_resnet", text_config("small_bert", 1000), side)
    model.weights = dict(METHODS["cm-cgns"].recipes["paper"].stages[stage - 1].weights)
    return model.train()


def batch_of(pairs: int, side: int, rank: int = 0, median: float = 90.0) -> Batch:
    """Random films and reports about as long as MIMIC-CXR's, other ones on every process."""
    tokens = random_tokens(pairs * (rank + 1), median)
    rows = np.arange(rank * pairs, (rank + 1) * pairs)
    return Batch(torch.zeros(pairs, 1, 1, side, side).uniform_(-1, 1), torch.from_numpy(rows), 3,
                 collate_reports(tokens, rows))  # fmt: skip


def step_of(batch: Batch, small: bool = True, **more: Any) -> Step:
    """The formulas' view of a batch."""
    reports = batch.reports
    assert reports is not None
    assert reports.packing is not None
    image = (small_resnet if small else resnet50)(batch.images.shape[-1])
    rows, row = reports.packing.token.shape
    shape = {"sentences": reports.sentence_count, "slots": rows * row, "row": row, "longest": reports.max_sentences}
    more = {"text": SMALL if small else Text(), "dim": 128 if small else 768, **shape, **more}
    return Step(image, pairs=len(batch), **more)


def typical_step(pairs: int, batches: int = 8, **more: Any) -> Step:
    """At the paper's size, of so many random batches' mean shape."""
    tokens = random_tokens(pairs * batches)
    films = torch.zeros(1, 1, 1, 224, 224).expand(pairs, 1, 1, 224, 224)
    rows = [np.arange(first, first + pairs) for first in range(0, pairs * batches, pairs)]
    steps = [step_of(Batch(films, torch.from_numpy(r), 0, collate_reports(tokens, r)), small=False) for r in rows]
    mean = {
        name: round(np.mean([getattr(s, name) for s in steps])) for name in ("sentences", "slots", "row", "longest")
    }
    return dataclasses.replace(steps[0], **mean, **more)


def counted(model: Any, batch: Batch) -> float:
    """FLOP of a forward and a backward pass."""
    with FlopCounterMode(display=False) as counter:
        sum(model(batch).values()).backward()
    return float(counter.get_total_flops())


def on_fake_tensors(batch: Batch, stage: int = 1, dropout: float = 0.1) -> tuple[Any, Batch, Any]:
    """CM-CGNS at the paper's size and a batch, both of shapes only; to be used within the mode."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import BertConfig

    config = BertConfig(vocab_size=Text().vocabulary, attention_probs_dropout_prob=dropout)
    with torch.device("meta"):
        model: Any = build_method("cm-cgns", {}, "resnet50", config, 224)
    model.weights = dict(METHODS["cm-cgns"].recipes["paper"].stages[stage - 1].weights)
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            with mode:
                made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
                return torch.nn.Parameter(made) if isinstance(x, torch.nn.Parameter) else made
        if dataclasses.is_dataclass(x):
            return type(x)(**{field.name: fake(getattr(x, field.name)) for field in dataclasses.fields(x)})  # type: ignore
        return x

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            own.update({name: fake(value) for name, value in own.items()})
    return model.train(), fake(batch), mode


def counted_on_fakes(batch: Batch, stage: int = 1) -> float:
    """FLOP at the paper's size."""
    model, batch, mode = on_fake_tensors(batch, stage)
    with mode:
        return counted(model, batch)


def kept(batch: Batch, stage: int = 1) -> tuple[float, float]:
    """Bytes that autograd keeps of a forward pass in bf16-mixed, at the paper's size: activations, copies of weights.

    Attention without dropout, so that it is the fused kernel here as it is on a GPU.
    """
    model, batch, mode = on_fake_tensors(batch, stage, dropout=0.0)
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    shapes = {tuple(p.shape) for p in model.parameters()} | {
        tuple(p.T.shape) for p in model.parameters() if p.ndim == 2
    }
    seen: dict[int, tuple[torch.Tensor, bool]] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        place = x.untyped_storage()._cdata
        if place not in own:
            seen[place] = x, tuple(x.shape) in shapes
        return x

    with mode, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        terms = model(batch)
    assert terms
    sizes = [(x.untyped_storage().nbytes(), weight) for x, weight in seen.values()]
    return float(sum(n for n, weight in sizes if not weight)), float(sum(n for n, weight in sizes if weight))


class Live(TorchDispatchMode):
    """Bytes of the tensors made while it is active that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self.known: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for storage in {x.untyped_storage() for x in tree_leaves(out) if isinstance(x, torch.Tensor)}:
            if storage not in self.known and not any(
                x.untyped_storage()._cdata == storage._cdata for x in tree_leaves(args) if isinstance(x, torch.Tensor)
            ):
                self.known[storage] = None
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def _add(self, size: int) -> None:
        self.now += size


def loss_memory(sentences: int, width: int, clusters: int = 128) -> float:
    """The most bytes that the report loss holds in one process, forward and backward, beside its embeddings."""
    from benchmarks.ratios.clustering import points
    from benchmarks.ratios.report_loss import batch_of, method

    model, batch = method(width), batch_of(sentences)
    model.clusters = clusters
    f, v = (points(sentences, width, seed).requires_grad_() for seed in (1, 2))
    with Live() as live:
        torch.autograd.grad(sum(model.report_losses(f, v, batch)), (f, v))
    return float(live.most)


def fitted_kept(shapes: tuple[tuple[int, float], ...] = ((4, 30), (4, 150), (8, 90), (16, 60))) -> dict[str, float]:
    """:data:`benchmarks.cost.law.KEPT`, by least squares over steps of so many pairs with reports of so many tokens."""
    batches = [batch_of(pairs, 224, median=tokens) for pairs, tokens in shapes]
    steps = [step_of(batch, small=False) for batch in batches]
    bytes_kept = [kept(batch)[0] for batch in batches]
    (film, slot), *_ = np.linalg.lstsq(np.array([[s.pairs, s.slots] for s in steps], float), bytes_kept, rcond=None)
    return {"film": film, "slot": slot, "decoder": (kept(batches[0], 2)[0] - bytes_kept[0]) / len(batches[0])}


def fitted_loss() -> dict[str, float]:
    """:data:`benchmarks.cost.law.LOSS`, by least squares over four sizes."""
    shapes = [(sentences, width) for sentences in (1536, 3072) for width in (128, 768)]
    terms = np.array([[TILE * sentences, sentences * width] for sentences, width in shapes], float)
    (tile, whole), *_ = np.linalg.lstsq(terms, [loss_memory(*shape) for shape in shapes], rcond=None)
    return {"tile x N": tile, "N x D": whole}


COLLECTIVES = {  # what of torch.distributed is counted as what, and which of its arguments
    "all_reduce": ("reduce", 0),
    "reduce_scatter_tensor": ("scatter", 1),
    "all_gather_into_tensor": ("gather", 1),
    "_broadcast_coalesced": ("broadcast", 1),
}
KINDS = [kind for kind, _ in COLLECTIVES.values()]


@contextmanager
def handed_to_collectives() -> Iterator[dict[str, int]]:
    """What is handed to collectives meanwhile: ``{kind: bytes}``."""
    found = dict.fromkeys(KINDS, 0)
    before = {name: getattr(dist, name) for name in COLLECTIVES}

    def counted(name: str, kind: str, place: int) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            tensors = given[place] if isinstance(given[place], list) else [given[place]]
            found[kind] += sum(x.numel() * x.element_size() for x in tensors)
            return before[name](*given, **named)

        return call

    for name, (kind, place) in COLLECTIVES.items():
        setattr(dist, name, counted(name, kind, place))
    yield found
    for name, call in before.items():
        setattr(dist, name, call)


def of_words() -> CMCGNS:
    """CM-CGNS in stage 1 on ``small_resnet`` and :class:`Words`."""
    model = CMCGNS(ImageEncoder("small_resnet", 32), Words(), 32, dim=32)  # type: ignore[arg-type]
    model.weights = dict(CMCGNS.recipes["paper"].stages[0].weights)
    return model


def work(rank: int, processes: int, pairs: int, limit: int) -> dict[str, Any]:
    """One process's step under DDP: what it handed to collectives, and the shape of its batch."""
    kmeans.GRAM_LIMIT = limit
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(of_words(), find_unused_parameters=True)
    model.register_comm_hook(None, allreduce_hook)  # what the reducer does by itself, unseen
    batch, counts = batch_of(pairs, 32, rank), sentence_counts(processes, pairs)
    assert batch.reports is not None
    batch.reports.sentences_of_all = counts  # as the loader knows them
    with handed_to_collectives() as found:
        sum(model(batch).values()).backward()
    return found


def sentence_counts(processes: int, pairs: int) -> list[int]:
    """Of every process's batch."""
    every = [batch_of(pairs, 32, rank).reports for rank in range(processes)]
    return [reports.sentence_count for reports in every if reports is not None]


def handed_over(processes: int, pairs: int, limit: int) -> list[dict[str, Any]]:
    """:func:`work` of every process, gloo on the loopback."""
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, folder, *map(str, (processes, pairs, limit))]
        subprocess.run(command, env=environment, check=True)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(processes)]


def wire_rows(processes: int, pairs: int, limit: int) -> list[tuple[str, float, float]]:
    """``(kind of collective, predicted, handed over)`` bytes, of all processes."""
    found, counts = handed_over(processes, pairs, limit), sentence_counts(processes, pairs)
    rows = []
    for kind in KINDS:
        predicted = 0
        for rank in range(processes):
            seen = {"processes": processes, "all_sentences": sum(counts), "most_sentences": max(counts)}
            step = step_of(batch_of(pairs, 32, rank), text=WORDS, dim=32, gram_limit=limit, **seen)
            predicted += sum(size for of, _, size in wire(step).values() if of == kind)
        rows.append((kind, float(predicted), float(sum(of[kind] for of in found))))
    return rows


def tables() -> Iterator[str]:
    """Predicted and measured, as Markdown."""
    rows: list[tuple[str, float, float, str]] = []
    for pairs in (4, 32, 128):
        for stage in (1, 2) if pairs == 32 else (1,):
            batch = batch_of(pairs, 96)
            step = step_of(batch, stage=stage)
            found = sum(flop(step).values()), counted(small_model(stage=stage), batch)
            name = f"small encoders, B = {pairs}, N = {step.total:,}, stage {stage}"
            rows.append((name, *(value / 1e9 for value in found), "GFLOP"))
    batch = batch_of(8, 224)
    model, fakes, mode = on_fake_tensors(batch)
    step = step_of(batch, small=False)
    towers = (
        ("ResNet-50, a film, forward", model.image_encoder, fakes.image, step.image.flop * 8, 8),
        ("BERT-base, a slot", model.text_encoder, fakes.reports, sum(step.text.flop(step.slots, step.row)), step.slots),
    )
    for name, tower, given, expected, count in towers:
        with mode, torch.no_grad(), FlopCounterMode(display=False) as counter:
            tower(given)
        rows.append((name, expected / count / 1e9, counter.get_total_flops() / count / 1e9, "GFLOP"))
    for pairs, stage in ((8, 1), (64, 1), (64, 2), (256, 1)):
        batch = batch_of(pairs, 224)
        step = step_of(batch, small=False, stage=stage)
        name = f"ResNet-50 and BERT-base, B = {pairs}, N = {step.total:,}, stage {stage}"
        rows.append((name, sum(flop(step).values()) / 1e9, counted_on_fakes(batch, stage) / 1e9, "GFLOP"))
    for pairs, stage in ((64, 1), (64, 2), (256, 1)):
        batch = batch_of(pairs, 224)
        step = step_of(batch, small=False, stage=stage)
        bytes_kept, copies = kept(batch, stage)
        expected = resident(step)
        activations = sum(size for part, size in expected.items() if part.startswith("activations"))
        rows.append((f"activations kept, B = {pairs}, stage {stage}", activations / 1e9, bytes_kept / 1e9, "GB"))
    rows.append(("bf16 copies of weights, stage 1", expected["bf16 copies of weights"] / 1e9, copies / 1e9, "GB"))
    for sentences in (768, 6144):
        expected_loss = LOSS["tile x N"] * TILE * sentences + LOSS["N x D"] * sentences * 768
        measured = loss_memory(sentences, 768)
        rows.append((f"report loss's tensors, N = {sentences:,}", expected_loss / 1e6, measured / 1e6, "MB"))
    for processes, pairs, limit in ((2, 8, 1024), (2, 8, 0), (4, 8, 0)):
        how = "shared clustering" if not limit else "Gram matrix"
        for kind, expected_bytes, measured in wire_rows(processes, pairs, limit):
            rows.append((f"{kind}, W = {processes}, {how}", expected_bytes / 1e3, measured / 1e3, "kB"))
    lines = [
        [name, f"{p:,.5g}", f"{m:,.5g}", unit, f"{round(100 * (p / m - 1), 2) + 0:g} %"] for name, p, m, unit in rows
    ]
    yield table(["one step", "predicted", "measured", "unit", "error"], lines)
    constants = {"KEPT": fitted_kept(), "LOSS": fitted_loss(), "HOST": host.memory()}
    lines = [[f"{name}: {part}", f"{of[part]:,.5g}"] for name, of in constants.items() for part in of]
    lines.append(["pairs a second of one loader, B = 64", f"{host.rate():,.0f}"])
    yield table(["measured constant", "value"], lines)


def main() -> None:
    folder, (processes, pairs, limit) = Path(sys.argv[1]), map(int, sys.argv[2:])
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # DDP does, in every process
    children, rank = [], 0
    for other in range(1, processes):
        child = os.fork()
        if child == 0:
            children, rank = [], other
            break
        children.append(child)
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(folder / "store"), processes), rank=rank, world_size=processes
    )
    (folder / f"{rank}.json").write_text(json.dumps(work(rank, processes, pairs, limit)))
    dist.destroy_process_group()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(1)


if __name__ == "__main__":
    main()
