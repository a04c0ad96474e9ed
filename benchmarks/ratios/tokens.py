"""C8: reports packed into rows, against reports padded to 256 tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from benchmarks.ratios.measure import Figure, in_turns, milliseconds

from lingula.batch import Reports
from lingula.data.collate import collate_reports
from lingula.data.tokens import Tokens
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


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    return packed_against_padded(6, 2, rounds=1) if small else packed_against_padded(64, 20)
