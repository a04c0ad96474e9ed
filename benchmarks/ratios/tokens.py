"""C8: reports packed into rows, against reports padded to 256 tokens. C17: both sides of MGCA's token loss at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from benchmarks.ratios.measure import Figure, in_turns, milliseconds
from torch import Tensor

from lingula.batch import Reports
from lingula.data.collate import collate_reports
from lingula.data.tokens import Tokens
from lingula.losses.cosine import unit
from lingula.losses.token_alignment import token_alignment
from lingula.nn.text_encoders import TextEncoder, text_config

LONGEST = 256


def corpus(reports: int, median: float = 90.0) -> Tokens:
    """Random tokens in reports about as long as MIMIC-CXR's: log-normal, cut at 256; a sentence is ten tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(median), 0.5, reports).clip(5, LONGEST).astype(int)
    offsets = np.concatenate([[0], lengths.cumsum()])
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    inside = (place > 0) & (place < np.repeat(lengths, lengths) - 1)
    sentence = np.where(inside, (place - 1) // 10, -1).astype(np.int16)
    counts = -(-(lengths - 2) // 10)
    first = np.concatenate([[0], counts.cumsum()])
    word = np.where(inside, place - 1, -1).astype(np.int16)
    return Tokens(rng.integers(5, 1000, offsets[-1]).astype(np.int32), sentence, word, offsets, counts, first, 0)


def padded(reports: Reports, width: int) -> Reports:
    """The same, of one length, as the released code reads them."""
    more = width - reports.token_ids.shape[1]

    def pad(x: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, more), value=value)

    return dataclasses.replace(
        reports,
        token_ids=pad(reports.token_ids, 0),
        token_mask=pad(reports.token_mask, 0),
        sentence_of_token=pad(reports.sentence_of_token, -1),
        word_of_token=pad(reports.word_of_token, -1),
        packing=None,
    )


def packed_against_padded(batch: int, batches: int, name: str = "small_bert", rounds: int = 7) -> list[Figure]:
    """The share of real tokens among those that are computed, and the text encoder's forward and backward."""
    tokens = corpus(batch * batches)
    made = [collate_reports(tokens, np.arange(start, start + batch)) for start in range(0, batch * batches, batch)]
    real = sum(int(reports.token_mask.sum()) for reports in made)
    computed = sum(reports.packing.token.numel() for reports in made if reports.packing is not None)
    widest = sum(reports.token_mask.numel() for reports in made)
    torch.manual_seed(0)
    encoder = TextEncoder(text_config(name, 1000)).train()
    ours = made[0]
    theirs = padded(ours, LONGEST)
    weights = torch.randn(ours.sentence_count, encoder.width)

    def step(reports: Reports) -> torch.Tensor:
        encoder.zero_grad()
        features = encoder(reports)
        (features.sentences * weights).sum().backward()
        return features.sentences.detach()

    torch.testing.assert_close(step(ours), step(theirs), rtol=1e-3, atol=1e-4)
    fast, slow = in_turns(lambda: step(ours), lambda: step(theirs), rounds=rounds)
    detail = {"real_tokens": real, "computed": computed, "padded_to_the_longest_of_the_batch": widest}
    return [
        Figure("C8 tokens", "real tokens / computed tokens", real / computed, 0.9, detail=detail),
        Figure(
            "C8 time",
            "text encoder, forward + backward, against padding to 256",
            slow / fast,
            2,
            detail={"reports": batch, "ours_ms": milliseconds(fast), "padded_ms": milliseconds(slow)},
        ),
    ]


def one_side(tokens: Tensor, others: Tensor, mask: Tensor, other_mask: Tensor, temperature: float) -> Tensor:
    """MGCA's token loss of one modality alone, step by step as it is defined."""
    x, y = unit(tokens), unit(others)
    lowest = torch.finfo(x.dtype).min / 4
    weights = (x @ y.mT / temperature).masked_fill(~other_mask[:, None], lowest).softmax(-1)
    logits = x @ unit(weights @ y).mT / temperature
    rows = logits.masked_fill(~mask[:, None], lowest).logsumexp(2)
    columns = logits.masked_fill(~mask[:, :, None], lowest).logsumexp(1)
    return torch.where(mask, 0.5 * (rows + columns) - logits.diagonal(dim1=1, dim2=2), 0.0)


def both_sides_at_once(samples: int, words: int, patches: int, width: int, rounds: int = 7) -> Figure:
    """Forward and backward of :func:`token_alignment`, against one side after the other."""
    generator = torch.Generator().manual_seed(0)
    embeddings = tuple(
        torch.randn(samples, count, width, generator=generator).requires_grad_() for count in (words, patches)
    )
    mask = torch.arange(words) < torch.randint(1, words + 1, (samples, 1), generator=generator)
    everywhere = torch.ones(samples, patches, dtype=torch.bool)

    def run(losses: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum(loss.sum() for loss in losses), embeddings)

    def ours() -> tuple[Tensor, ...]:
        return run(token_alignment(*embeddings, 0.1, mask=mask))

    def theirs() -> tuple[Tensor, ...]:
        one, other = embeddings
        return run((one_side(one, other, mask, everywhere, 0.1), one_side(other, one, everywhere, mask, 0.1)))

    for found, expected in zip(ours(), theirs(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    fast, slow = in_turns(ours, theirs, rounds=rounds)
    detail = {"samples": samples, "words": words, "patches": patches, "width": width}
    detail |= {"ours_ms": milliseconds(fast), "one_after_the_other_ms": milliseconds(slow)}
    return Figure("C17", "MGCA's token loss, against one side after the other", slow / fast, 1 / 0.48, detail=detail)


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    if small:
        return [*packed_against_padded(6, 2, rounds=1), both_sides_at_once(3, 4, 5, 8, rounds=1)]
    return [*packed_against_padded(64, 20), both_sides_at_once(144, 80, 49, 128)]
