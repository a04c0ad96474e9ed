"""Scores of a method that compares images and texts in its own way. Floor 2.

The others compare embeddings by their cosine, which needs no more than one vector for each.
"""

from __future__ import annotations

import numpy as np
import torch

from lingula.data.loader import Loader
from lingula.gather import evenly, gather, gather_objects
from lingula.nn.method import Method


def has_own_score(method: Method) -> bool:
    """Whether images and texts are compared by the method's ``score``, not by the cosine of their embeddings."""
    return hasattr(method, "score")


@torch.inference_mode()
def score_pairs(method: Method, loader: Loader) -> tuple[np.ndarray, np.ndarray]:
    """The method's own score of every image and every report.

    Args:
        method: with a ``score``.
        loader: not training. Where it deals its batches to several processes, each scores its own images.
    Returns:
        ``(n, n)`` float32 scores, a row an image and a column a report, and the ``(n,)`` rows of the corpus.
    """
    method.eval()
    texts, own_rows = [], []
    for step in range(len(loader)):
        batch = loader.batch(step)
        assert batch.reports is not None
        texts.append(method.encode_text(batch.reports).to("cpu"))
        own_rows.append(batch.rows)
    everyone = [text for of_process in gather_objects(texts) for text in of_process]
    blocks = []
    for batch in loader:
        images = method.encode_image(batch.image)
        device = images.embedding.device
        blocks.append(torch.cat([method.score(images, text.to(device)).float() for text in everyone], dim=1))
    scores, rows = torch.cat(blocks), torch.cat(own_rows)
    if loader.processes > 1:
        scores, rows = gather(scores, evenly(scores)), gather(rows, evenly(rows))
    found, places = scores.cpu().numpy(), rows.cpu().numpy()
    if loader.processes > 1:
        places, first = np.unique(places, return_index=True)  # the loader's rows ascend, and some came twice
        found = found[first][:, first]
    return found, places
