"""The swap test: does the local alignment read the film, or does it recognise the sentence that asked?

Each sentence makes its own cross-modal representation, with itself as the query. So it can find that representation
among the batch's by recognising the query, whatever the film shows. Here the films are exchanged: a method that reads
them should fall towards chance. (Not quite to it: much of what is said is true of many films.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lingula.data.loader import Loader
from lingula.losses.cosine import cosine

higher_is_better = {"right": True, "swapped": False}


def _found(sentences: Tensor, cross_modal: Tensor) -> float:
    """How many sentences are most similar to the representation that they made."""
    nearest = cosine(sentences, cross_modal).argmax(1)
    return float((nearest == torch.arange(len(nearest), device=nearest.device)).sum())


@torch.inference_mode()
def swap_test(method: Any, loader: Loader) -> dict[str, float]:
    """Local top-1 accuracy over the sentences of each batch, with the right films and with each other's.

    Args:
        method: with ``encode_image``, ``encode_text`` and ``cross_attention``.
        loader: not training; its batch size sets how many sentences compete. A last batch of one film is left out.
    Returns:
        ``right`` and ``swapped`` in [0, 1], ``chance`` (the mean of one over the number of sentences), ``sentences``.
    """
    method.eval()
    right = swapped = chance = total = 0.0
    for batch in loader:
        if len(batch) < 2:
            continue
        patches = method.encode_image(batch.image)[2]
        sentences = method.encode_text(batch.reports)[2]
        right += _found(sentences, method.cross_attention(patches, sentences, batch.reports).image_to_report)
        others = patches.roll(1, dims=0)
        swapped += _found(sentences, method.cross_attention(others, sentences, batch.reports).image_to_report)
        chance += 1.0  # N sentences, each with chance 1 / N
        total += len(sentences)
    return {"right": right / total, "swapped": swapped / total, "chance": chance / total, "sentences": total}
