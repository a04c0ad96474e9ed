"""SigLIP's loss: of each pair of the batch, whether the two belong together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.losses.cosine import cosine


def sigmoid_loss(
    query: Tensor, key: Tensor, scale: float | Tensor, bias: float | Tensor, positive: Tensor | None = None
) -> Tensor:
    r"""Binary cross-entropy of each query with every key: 1 for its own, 0 for all others, added up.

    .. math:: \ell_i = -\sum_j \log \sigma\big(z_{ij} (t \cos(q_i, k_j) + b)\big), \qquad
              z_{ij} = 1 \text{ where } j = p(i), \text{ else } -1

    Source: SigLIP, arXiv:2303.15343, the loss of its section 3.2 (there as the mean over the batch).

    Args:
        query: ``(n, D)`` anchors. Normalised here.
        key: ``(N, D)`` candidates. Normalised here.
        scale: t > 0, one over a temperature.
        bias: b, which starts low, since nearly all pairs do not belong together.
        positive: ``(n,)`` int64, the key that belongs to each query; by default the i-th key to the i-th query.
    Returns:
        ``(n,)`` one loss per query, in nats.
    Raises:
        ValueError: if the shapes do not pair up.
    Example:
        >>> sigmoid_loss(torch.eye(2), torch.eye(2), scale=1.0, bias=0.0)
        tensor([1.0064, 1.0064])
    """
    if positive is None:
        if query.shape != key.shape:
            raise ValueError(f"query and key must pair up, got {tuple(query.shape)} and {tuple(key.shape)}")
        positive = torch.arange(len(query), device=query.device)
    logits = scale * cosine(query, key) + bias  # (n, N)
    own = positive[:, None] == torch.arange(len(key), device=key.device)
    return -F.logsigmoid(torch.where(own, logits, -logits)).sum(1)
