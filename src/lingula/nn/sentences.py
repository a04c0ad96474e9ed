"""From token states to sentences, all of the batch at once."""

from __future__ import annotations

import torch
from torch import Tensor


def sentence_means(tokens: Tensor, sentence_of_token: Tensor, sentences: int) -> Tensor:
    """Mean of each sentence's token states, in one scatter: no loop over reports or sentences.

    Args:
        tokens: ``(B, T, C)`` states.
        sentence_of_token: ``(B, T)`` int64 in [0, N); -1 for tokens of no sentence.
        sentences: N.
    Returns:
        ``(N, C)``; float32 sums for half-precision states.
    """
    flat = tokens.flatten(0, 1)
    flat = flat.float() if flat.dtype in (torch.bfloat16, torch.float16) else flat
    place = sentence_of_token.flatten()
    place = torch.where(place < 0, sentences, place)  # a bin for everybody else, dropped below
    sums = flat.new_zeros(sentences + 1, flat.shape[1]).index_add(0, place, flat)
    counts = flat.new_zeros(sentences + 1, 1).index_add(0, place, flat.new_ones(len(flat), 1)).clamp_min(1)
    return (sums / counts)[:sentences]


def token_means(tokens: Tensor, mask: Tensor) -> Tensor:
    """``(B, T, C)`` states and ``(B, T)`` bool to the ``(B, C)`` mean of each report's real tokens, no pads among
    them; float32 for half-precision states."""
    states = tokens.float() if tokens.dtype in (torch.bfloat16, torch.float16) else tokens
    weights = mask.to(states.dtype)[..., None]
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1)


def token_maxima(tokens: Tensor, mask: Tensor) -> Tensor:
    """``(B, T, C)`` states and ``(B, T)`` bool to the ``(B, C)`` largest of each report's real tokens."""
    return tokens.masked_fill(~mask[..., None], float("-inf")).amax(1)


def sentence_maxima(tokens: Tensor, sentence_of_token: Tensor, sentences: int) -> Tensor:
    """The largest value of each channel over each sentence's tokens, in one scatter.

    Args:
        tokens: ``(B, T, C)`` states.
        sentence_of_token: ``(B, T)`` int64 in [0, N); -1 for tokens of no sentence.
        sentences: N.
    Returns:
        ``(N, C)``; zeros for a sentence without tokens.
    """
    flat, place = tokens.flatten(0, 1), sentence_of_token.flatten()
    place = torch.where(place < 0, sentences, place)  # a bin for everybody else, dropped below
    bins = flat.new_zeros(sentences + 1, flat.shape[1])
    return bins.scatter_reduce(0, place[:, None].expand_as(flat), flat, "amax", include_self=False)[:sentences]
