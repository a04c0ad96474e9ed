"""NT-Xent: InfoNCE among the views of all films, each view's other view against all the rest."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lingula.losses.cosine import cosine


def nt_xent(anchor: Tensor, candidate: Tensor, temperature: float, itself: Tensor, positive: Tensor) -> Tensor:
    r"""The normalised, temperature-scaled cross entropy of each anchor among all candidates but itself.

    .. math:: \ell_i = -\log \frac{\exp(\langle z_i, z_{p(i)} \rangle / \tau)}
              {\sum_{k \neq i} \exp(\langle z_i, z_k \rangle / \tau)}

    Source: SimCLR, arXiv:2002.05709, Eq. 1. With two views of each of B films there are 2B - 1 candidates.

    Args:
        anchor: ``(n, D)``. Normalised here.
        candidate: ``(N, D)``, the anchors among them. Normalised here.
        temperature: tau > 0, unitless.
        itself: ``(n,)`` int64, the candidate that the anchor is.
        positive: ``(n,)`` int64, the candidate that is the film's other view.
    Returns:
        ``(n,)`` one loss an anchor, in nats.
    Raises:
        ValueError: if the shapes do not fit.
    Example:
        >>> import torch
        >>> two_films = torch.eye(2).repeat(2, 1)
        >>> nt_xent(two_films, two_films, 1.0, torch.arange(4), torch.tensor([2, 3, 0, 1]))
        tensor([0.5514, 0.5514, 0.5514, 0.5514])
    """
    if not len(anchor) == len(itself) == len(positive):
        raise ValueError(
            f"each anchor has one place and one positive, got {len(anchor)} anchors, {len(itself)} places and "
            f"{len(positive)} positives"
        )
    logits = cosine(anchor, candidate) / temperature  # (n, N)
    logits = logits.scatter(1, itself[:, None], float("-inf"))
    return F.cross_entropy(logits, positive, reduction="none")
