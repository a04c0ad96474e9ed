"""From token states to words, all of the batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lingula.batch import Reports


def word_sums(tokens: Tensor, reports: Reports) -> tuple[Tensor, Tensor]:
    """Sum of each word's word pieces, the words of one report side by side, in one scatter.

    GLoRIA and MGCA both add them up.

    Args:
        tokens: ``(B, T, C)`` states.
        reports: says which word each token belongs to.
    Returns:
        ``(B, W, C)``, zeros where there is no word, float32 for half-precision states; and ``(B, W)`` bool.
    """
    size, _, width = tokens.shape
    states = tokens.float() if tokens.dtype in (torch.bfloat16, torch.float16) else tokens
    place, most = _places(reports)
    sums = states.new_zeros(size * (most + 1), width).index_add(0, place.flatten(), states.flatten(0, 1))
    mask = torch.zeros(size * (most + 1), dtype=torch.bool, device=tokens.device)
    mask = mask.index_fill(0, place.flatten(), True)
    return sums.view(size, most + 1, width)[:, :most], mask.view(size, most + 1)[:, :most]


def sentence_of_word(reports: Reports) -> Tensor:
    """``(B, W)`` int64 in [0, N): the sentence of the batch that each word stands in; -1 where there is no word."""
    place, most = _places(reports)
    size = len(place)
    found = torch.full((size * (most + 1),), -1, dtype=torch.int64, device=place.device)
    found = found.scatter(0, place.flatten(), reports.sentence_of_token.flatten())
    return found.view(size, most + 1)[:, :most]


def _places(reports: Reports) -> tuple[Tensor, int]:
    """``(B, T)`` each token's bin among B (W + 1), the last of a report for tokens of no word, and W, at least 1."""
    most = max(1, reports.max_words)
    row = torch.arange(len(reports.word_of_token), device=reports.word_of_token.device)[:, None]
    word = reports.word_of_token
    return torch.where(word < 0, most, word) + row * (most + 1), most
