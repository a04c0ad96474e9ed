"""Which patches of a film go with which: correlations of patches, and the error of guessing them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.losses.cosine import unit


def correlation(vectors: Tensor, centre: int, smallest: float = 1e-6) -> tuple[Tensor, Tensor]:
    r"""Correlation of each patch's vector with each other's.

    .. math:: \Sigma_{pp'} = \frac{\langle x_p - \mu, \; x_{p'} - \mu \rangle}{\|x_p - \mu\| \; \|x_{p'} - \mu\|}

    Args:
        vectors: ``(B, P, C)``.
        centre: what mu is the mean over: -1 for each vector's own components, which is Pearson's correlation; -2 for
            the patches of the film.
        smallest: root mean square, in the vectors' own unit, below which a centred vector is nothing but rounding.
    Returns:
        ``(B, P, P)`` in [-1, 1], symmetric, float32 or better; and ``(B, P)`` bool: whether the patch varies. The rows
        and columns of one that does not are 0.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        x = vectors if vectors.dtype == torch.float64 else vectors.float()
        x = x - x.mean(centre, keepdim=True)
        varies = x.square().mean(-1) > smallest**2
        x = unit(x) * varies[..., None]
        return x @ x.transpose(1, 2), varies


def patch_pixels(films: Tensor, grid: tuple[int, int], side: int = 8) -> Tensor:
    """``(B, 1, H, W)`` films to ``(B, P, side * side)``: each patch of the grid averaged down to side x side greys."""
    height, width = grid
    films = films if films.dtype == torch.float64 else films.float()
    small = F.adaptive_avg_pool2d(films, (height * side, width * side))
    return F.unfold(small, side, stride=side).transpose(1, 2)


def correlation_loss(prediction: Tensor, target: Tensor, pairs: Tensor) -> Tensor:
    r"""Smooth L1 between two matrices of correlations, over some pairs of patches.

    .. math:: \ell = \frac{1}{|\mathcal P|} \sum_{(p, p') \in \mathcal P}
              \begin{cases} \tfrac12 d^2 & |d| < 1 \\ |d| - \tfrac12 & \text{else} \end{cases},
              \qquad d = \hat C_{pp'} - \Sigma_{pp'}

    Source: ours; PLACE, arXiv:2506.10573, "enforces the model to identify correlations among image patches".

    Args:
        prediction: ``(B, P, P)``.
        target: ``(B, P, P)``; gets no gradient.
        pairs: ``(B, P, P)`` bool, which pairs count.
    Returns:
        ``(B,)`` unitless; 0 for a film without such a pair.
    Raises:
        ValueError: if the shapes differ.
    """
    if not prediction.shape == target.shape == pairs.shape:
        raise ValueError(
            "prediction, target and pairs must match, got "
            f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(pairs.shape)}"
        )
    with torch.autocast(prediction.device.type, enabled=False):
        prediction = prediction if prediction.dtype == torch.float64 else prediction.float()
        each = F.smooth_l1_loss(prediction, target.detach().to(prediction.dtype), reduction="none")
        return (each * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)
