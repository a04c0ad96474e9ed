"""InfoNCE inside one film or one report: its own places, or its own sentences, are the only negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from lingula.losses.cosine import unit


def local_contrast(
    query: Tensor,
    key: Tensor,
    temperature: float | Tensor,
    mask: Tensor | None = None,
    positives: Tensor | None = None,
) -> Tensor:
    r"""Each element of a set against the keys of the same set, with one positive or a distribution over them.

    .. math:: \ell_i = -\sum_j p_{ij} \frac{\cos(q_i, k_j)}{\tau} + \log \sum_j \exp \frac{\cos(q_i, k_j)}{\tau}

    Without ``positives`` p is 1 for the key in the same place and 0 elsewhere, and this is InfoNCE inside the set: a
    report of one sentence gives 0.

    Source: the local losses of LoVT, arXiv:2112.02889, as its released code has them; PRIOR, arXiv:2307.12577, has the
    same without soft positives on its text side.

    Args:
        query: ``(B, n, D)`` anchors; the i-th of a set is paired with the i-th key of that set. Normalised here.
        key: ``(B, n, D)`` candidates. Normalised here.
        temperature: tau > 0, unitless.
        mask: ``(B, n)`` bool, for ragged sets: padding is nobody's candidate.
        positives: ``(n, n)`` p, whose rows add up to 1; only for sets without padding.
    Returns:
        ``(B, n)`` one loss per anchor, in nats; 0 on padding.
    Raises:
        ValueError: if the shapes do not go together, or both ``mask`` and ``positives`` are given.
    Example:
        >>> local_contrast(torch.eye(2)[None], torch.eye(2)[None], temperature=1.0)
        tensor([[0.3133, 0.3133]])
    """
    if query.shape != key.shape:
        raise ValueError(f"query and key must pair up, got {tuple(query.shape)} and {tuple(key.shape)}")
    if mask is not None and mask.shape != query.shape[:2]:
        raise ValueError(f"expected a mask of shape {tuple(query.shape[:2])}, got {tuple(mask.shape)}")
    if positives is not None and positives.shape != (query.shape[1], query.shape[1]):
        raise ValueError(f"expected positives of shape {(query.shape[1],) * 2}, got {tuple(positives.shape)}")
    if mask is not None and positives is not None:
        raise ValueError("soft positives are for sets without padding; give a mask or positives, not both")
    with torch.autocast(query.device.type, enabled=False):
        logits = unit(query) @ unit(key).transpose(1, 2) / temperature  # (B, n, n)
        if positives is None:
            positive = logits.diagonal(dim1=1, dim2=2)
        else:
            positive = (logits * positives.to(logits.dtype)).sum(-1)
        if mask is None:
            return logits.logsumexp(-1) - positive
        # The smallest number instead of minus infinity: a set without any element then has a gradient, of zeros.
        candidates = logits.masked_fill(~mask[:, None], torch.finfo(logits.dtype).min)
        return torch.where(mask, candidates.logsumexp(-1) - positive, 0.0)


def neighbour_positives(
    grid: tuple[int, int], reach: float = 0.5, decay: float = 1.0, device: torch.device | str = "cpu"
) -> Tensor:
    r"""How much each place of a film counts as a positive of each other: the nearer, the more.

    .. math:: p_{ij} \propto \begin{cases} \exp(-\lambda d_{ij}) & d_{ij} \le T \\ 0 & \text{else} \end{cases}

    with d the distance of the two cells in units of the grid's diagonal, and rows that add up to 1.

    Source: LoVT, arXiv:2112.02889, as its released code has it.

    Args:
        grid: ``(h, w)`` cells.
        reach: T >= 0; 0 leaves the place itself.
        decay: lambda.
        device: where the result is wanted.
    Returns:
        ``(P, P)`` float64, P = h w in reading order.
    Raises:
        ValueError: for a negative reach.
    Example:
        >>> neighbour_positives((1, 2), reach=0.0)
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    if reach < 0:
        raise ValueError(f"reach must be 0 or more, got {reach}")
    height, width = grid
    y = torch.arange(height, device=device).repeat_interleave(width).double()
    x = torch.arange(width, device=device).repeat(height).double()
    square = (y[:, None] - y).square() + (x[:, None] - x).square()  # (P, P), whole numbers: the edge is exact
    diagonal = float(height**2 + width**2)
    weights = torch.exp(-decay * (square / diagonal).sqrt()) * (square <= reach**2 * diagonal)
    return weights / weights.sum(1, keepdim=True)
