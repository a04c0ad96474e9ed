"""What one training step of CM-CGNS costs, by formula: FLOP, bytes kept, bytes sent, bytes read.

FLOP are counted as ``torch.utils.flop_counter`` counts them: two a multiply-add, of convolutions, matrix products and
attention only. Additions by index (sentence means, k-means), norms, activations and the optimiser are none of them:
they cost bytes moved, and :func:`cluster_additions` says how many the clustering makes.

Letters: B pairs of a process, n its sentences, N those of all W processes, K clusters, D width of the embeddings, P
patches of a film, S sentences of the longest report, L slots of a row of packed reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchmarks.cost.encoders import Conv, Image, Text

GRAM_LIMIT, ROUNDS, LLOYD, TILE = 1024, 5, 10, 512  # lingula.nn.kmeans, CMCGNS.tile
DECODER = (512, 256, 128, 64, 32)
# Bytes that autograd keeps in bf16-mixed, heads included: check.fitted_kept(). A slot holds a token, or nothing.
KEPT = {"film": 45.4e6, "slot": 427e3, "decoder": 5.72e6}
LOSS = {"tile x N": 25.3, "N x D": 15.4}  # bytes of the report loss's largest moment: check.fitted_loss()
HOST = {"held": 15.0, "index on disk": 493.0, "tokens on disk": 440.0}  # bytes a report: host.memory(100_000)


@dataclass(frozen=True)
class Step:
    """One step of one of W processes. ``sentences`` n, ``longest`` S, ``row`` L, ``slots`` all of its packed rows;
    ``all_sentences`` N (n W by default), ``most_sentences`` those of the process that has most (n by default)."""

    image: Image
    text: Text
    pairs: int
    sentences: int
    slots: int
    row: int
    longest: int
    processes: int = 1
    dim: int = 768
    clusters: int = 128
    stage: int = 1
    all_sentences: int = 0
    most_sentences: int = 0
    decoder: tuple[int, ...] = DECODER
    tile: int = TILE
    gram_limit: int = GRAM_LIMIT

    @property
    def total(self) -> int:
        """N."""
        return self.all_sentences or self.sentences * self.processes

    @property
    def k(self) -> int:
        """K, clamped to half the sentences."""
        return max(2, min(self.clusters, self.total // 2))

    @property
    def shared(self) -> bool:
        """Whether the processes share the clustering."""
        return self.total > self.gram_limit

    @property
    def candidates(self) -> tuple[int, int]:
        """Of k-means||: those of each round, and all of them."""
        each = max(1, min(2 * self.k, (self.total - 1) // ROUNDS))
        return each, 1 + ROUNDS * each


def flop(step: Step) -> dict[str, float]:
    """FLOP of one process's step, forward and backward, by part.

    The backward pass of a product costs two forward ones: by its input and by its weight; the stem's costs one. Above a
    tile the report loss's forward pass is computed twice. Parts marked "fp32" stay in full precision under autocast.
    """
    b, n, total, d, k = step.pairs, step.sentences, step.total, step.dim, step.k
    image, text, places = step.image, step.text, step.image.places
    linear, attention = text.flop(step.slots, step.row)

    def pool(width: int, count: int) -> float:
        """Query and output of one place, key and value of 1 + count, attention in one kernel; with the backward."""
        return 3 * 2 * width**2 * (2 + 2 * (1 + count)) + 3.5 * 4 * width * (1 + count)

    def head(width: int) -> int:
        """An MLP of two layers."""
        return 2 * d * (width + d)

    pools = b * (pool(image.width, places) + pool(text.width, step.longest))
    projections = b * (1 + places) * head(image.width) + (b + n) * head(text.width)
    cross = b * (6 * d**2 + 4 * places * d) * step.longest + b * places * 6 * d**2  # Q, K, V; weights times V
    scores = b * 4 * places * step.longest * d  # q.k, both ways
    each, drawn = step.candidates
    clusters = (
        (2 * n * d * (1 + ROUNDS * each) + 2 * drawn**2 * d + (LLOYD + 1) * 2 * n * k * d)
        if step.shared
        else (2 * total**2 * d + 2 * k * total * d)
    )
    passes = 3 if n <= step.tile else 4
    found = {
        "image encoder": b * (3 * image.flop - image.convolutions[0].flop),
        "text encoder": 3 * linear + (3.5 if text.fused else 3) * attention,
        "heads": pools + 3 * projections,
        "cross-attention": 3 * cross,
        "attention scores, fp32": 3 * scores,
        "predictor": 3 * b * places * 4 * d**2,
        "global loss, fp32": 3 * 2 * 2 * b * b * step.processes * d,
        "report loss, fp32": passes * 2 * n * (total + k) * d,  # K: ranking, forward, backward by the anchors only
        "clustering, fp32": clusters,
    }
    if step.stage == 2:
        side, before, decoder = math.isqrt(places), 2 * d, 0
        for number, width in enumerate(step.decoder):
            side *= 2 if number else 1
            decoder += Conv(before, width, 3, side).flop
            before = width
        found["decoder"] = 3 * b * (decoder + Conv(before, 1, 1, side).flop)
    return {part: float(value) for part, value in found.items()}


def cluster_additions(step: Step) -> float:
    """Additions and comparisons of one process's clustering that are no matrix products: greedy k-means++, and Lloyd's
    sums (of rows of the Gram matrix, or of the process's own points)."""
    draws = 2 + int(math.log(step.k))
    if not step.shared:
        return float(step.k * draws * step.total + LLOYD * step.total * (step.total + step.k))
    each, drawn = step.candidates
    return float(step.sentences * (1 + ROUNDS * each) + step.k * draws * drawn + LLOYD * step.sentences * step.dim)


def parameters(step: Step) -> dict[str, int]:
    """Trainable parameters by part; DDP sends those of the decoder in stage 1 too."""
    d, wide, text = step.dim, step.image.width, step.text.width

    def pool(width: int) -> int:
        return 4 * (width**2 + width)

    def head(width: int) -> int:
        return width * d + d + d * d + d

    before, decoder = 2 * d, 0
    for width in step.decoder:
        decoder += 9 * before * width + width
        before = width
    heads = pool(wide) + (1 + step.image.places) * wide + pool(text) + 2 * head(wide) + 2 * head(text)
    predictor = 2 * d * (d // 2) + d // 2 + d
    return {
        "image encoder": step.image.parameters,
        "text encoder": step.text.parameters,
        "heads, cross-attention, predictor": heads + 6 * d * d + predictor,
        "decoder": decoder + before + 1,
    }


def resident(step: Step) -> dict[str, float]:
    """Bytes that one process needs in bf16-mixed with ResNet-50 at 224 pixels and BERT-base, which KEPT is of; without
    what the allocator leaves unused, and libraries' workspaces."""
    count = sum(parameters(step).values())
    tables = (step.text.vocabulary + step.text.positions) * step.text.width
    tiles = min(step.tile, step.sentences) * step.total
    return {
        "parameters": 4.0 * count,
        "gradients": 4.0 * count * (2 if step.processes > 1 else 1),  # and DDP's buckets
        "Adam": 8.0 * count,
        "bf16 copies of weights": 2.0 * (count - parameters(step)["decoder"] - tables),
        "activations of films": (KEPT["film"] + (KEPT["decoder"] if step.stage == 2 else 0.0)) * step.pairs,
        "activations of tokens": KEPT["slot"] * step.slots,
        "report loss": LOSS["tile x N"] * tiles + LOSS["N x D"] * step.total * step.dim,
    }


def wire(step: Step, bytes_each: int = 4) -> dict[str, tuple[str, int, int]]:
    """What one process hands to collectives in a step: ``{name: (kind, calls, bytes)}``; of a gather, its own part.

    DDP's own map of the parameters that were used, 4 bytes a tensor, is left out, and what the processes of a streamed
    corpus ask each other: how many sentences each has, 8 W bytes to all-reduce.

    Args:
        step: of W > 1 processes.
        bytes_each: of an embedding: 4, or 2 in bf16-mixed.
    """
    w, d, most = step.processes, step.dim, step.most_sentences or step.sentences
    found = {
        "gradients (DDP)": ("reduce", 1, 4 * sum(parameters(step).values())),
        "buffers (DDP)": ("broadcast", 1, step.image.buffer_bytes + 16 * step.text.positions + 4),
        "global embeddings": ("gather", 2, 2 * step.pairs * d * bytes_each),
        "their gradient": ("scatter", 2, 2 * step.pairs * w * d * bytes_each),
        "cross-modal representations": ("gather", 1, most * d * bytes_each),
        "gradient of these": ("scatter", 1, most * w * d * bytes_each),
        "keys and hard negatives": ("gather", 2, 2 * 8 * most),
        "counts of the means": ("reduce", 2, 2 * 4),
    }
    if step.shared:
        found["k-means, scores"] = ("gather", 1 + ROUNDS + 1, (1 + ROUNDS) * 4 * most + 8 * most)
        found["k-means, sums"] = ("reduce", 1 + LLOYD, 4 * step.candidates[1] + LLOYD * 4 * step.k * d)
    return found


def on_the_wire(step: Step, bytes_each: int = 2) -> dict[str, float]:
    """Bytes that each process sends in a step if collectives go around a ring: of an all-reduce 2 (W - 1) / W of its
    bytes, of a reduce-scatter half of that, of a gather W - 1 times its own part, of a broadcast once."""
    w = step.processes
    times = {"reduce": 2 * (w - 1) / w, "scatter": (w - 1) / w, "gather": w - 1, "broadcast": 1}
    return {name: times[kind] * size for name, (kind, _, size) in wire(step, bytes_each).items()} if w > 1 else {}


def stream_bytes(stored: int = 256, tokens: float = 102.0) -> dict[str, float]:
    """Bytes a pair on disk: its film (8 bits a pixel; a cropped window touches nearly all of its pages), its row of the
    index, and its tokens (id, sentence, word, and three numbers a report)."""
    return {"film": float(stored**2), "index on disk": HOST["index on disk"], "tokens on disk": 8 * tokens + 24}


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Markdown; numbers in three digits."""

    def cell(value: Any) -> str:
        if not isinstance(value, int | float):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)
