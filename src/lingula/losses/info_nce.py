"""InfoNCE: each query against every key of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.losses.cosine import cosine


def info_nce(query: Tensor, key: Tensor, temperature: float | Tensor, positive: Tensor | None = None) -> Tensor:
    r"""InfoNCE of each query against every key of the batch.

    .. math:: \ell_i = -\log \frac{\exp(\langle q_i, k_{p(i)} \rangle / \tau)}
              {\sum_j \exp(\langle q_i, k_j \rangle / \tau)}

    Source: CM-CGNS, arXiv:2506.11674, Eqs. 2-3 (there as the mean over the batch).

    Args:
        query: ``(n, D)`` anchors. Normalised here.
        key: ``(N, D)`` candidates. Normalised here.
        temperature: tau > 0, unitless; small values sharpen the softmax.
        positive: ``(n,)`` int64, the key that belongs to each query; by default the i-th key to the i-th query.
    Returns:
        ``(n,)`` one loss per query, in nats.
    Raises:
        ValueError: if the shapes do not pair up.
    Example:
        >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor([0.3133, 0.3133])
    """
    if positive is None:
        if query.shape != key.shape:
            raise ValueError(f"query and key must pair up, got {tuple(query.shape)} and {tuple(key.shape)}")
        positive = torch.arange(len(query), device=query.device)
    return F.cross_entropy(cosine(query, key) / temperature, positive, reduction="none")
