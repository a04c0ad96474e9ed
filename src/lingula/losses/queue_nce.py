"""InfoNCE whose negatives wait in a queue."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.losses.cosine import cosine, unit


def queue_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor) -> Tensor:
    r"""InfoNCE of each query against its own key and a queue, the other keys of the batch not among the candidates.

    .. math:: \ell_i = -\log \frac{\exp(\langle q_i, k_i \rangle / \tau)}
              {\exp(\langle q_i, k_i \rangle / \tau) + \sum_{j=1}^{K} \exp(\langle q_i, u_j \rangle / \tau)}

    with :math:`u` the queue. Source: MoCo, arXiv:1911.05722, Eq. 1.

    Args:
        query: ``(n, D)``. Normalised here.
        key: ``(n, D)``, the i-th belongs to the i-th query. Normalised here; gets no gradient.
        queue: ``(K, D)``. Normalised here.
        temperature: tau > 0, unitless.
    Returns:
        ``(n,)`` one loss a query, in nats.
    Raises:
        ValueError: if the shapes do not pair up.
    """
    if query.shape != key.shape:
        raise ValueError(f"query and key must pair up, got {tuple(query.shape)} and {tuple(key.shape)}")
    positive = (unit(query) * unit(key.detach())).sum(-1, keepdim=True)  # (n, 1)
    logits = torch.cat([positive, cosine(query, queue)], dim=1) / temperature  # (n, 1 + K)
    first = torch.zeros(len(query), dtype=torch.int64, device=query.device)
    return F.cross_entropy(logits, first, reduction="none")
