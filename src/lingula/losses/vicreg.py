"""VICReg's three terms: invariance, variance and covariance."""

from __future__ import annotations

import torch
from torch import Tensor


def invariance(one: Tensor, other: Tensor) -> Tensor:
    r"""Squared distance of the two views of each film, as a mean over the dimensions.

    .. math:: s_i = \frac1D \lVert z_i - z'_i \rVert^2

    Source: VICReg, arXiv:2105.04906. Its Eq. 5 is not divided by D; its Algorithm 1 and the authors' code are, and the
    weights of 25, 25 and 1 belong to them. We follow those.

    Args:
        one, other: ``(n, D)`` embeddings of the two views.
    Returns:
        ``(n,)`` one value a film, float32 or better.
    Raises:
        ValueError: if the shapes differ.
    Example:
        >>> invariance(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([1.])
    """
    if one.shape != other.shape:
        raise ValueError(f"the two views must match, got {tuple(one.shape)} and {tuple(other.shape)}")
    return (_full(one) - _full(other)).square().mean(1)


def variance(embeddings: Tensor, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    r"""How far the standard deviation of each dimension falls short of ``target``.

    .. math:: v_j = \max\big(0, \gamma - \sqrt{\mathrm{Var}(z^j) + \epsilon}\big)

    Source: VICReg, arXiv:2105.04906, Eqs. 1-2; v(Z) is the mean over j.

    Args:
        embeddings: ``(n, D)`` one view of all films of the batch, n of 2 or more.
        target: gamma, in units of the embeddings.
        eps: added to the variance.
    Returns:
        ``(D,)`` in [0, gamma).
    Raises:
        ValueError: for a single film.
    Example:
        >>> variance(torch.tensor([[0.0, -2.0], [0.0, 2.0]]))
        tensor([0.9900, 0.0000])
    """
    _enough(embeddings)
    return (target - (_full(embeddings).var(0) + eps).sqrt()).relu()


def covariance(embeddings: Tensor) -> Tensor:
    r"""Squares of each dimension's covariances with the others, added up.

    .. math:: c_i = \sum_{j \ne i} C(Z)_{ij}^2, \qquad
              C(Z) = \frac{1}{n - 1} \sum_b (z_b - \bar z) (z_b - \bar z)^\top

    Source: VICReg, arXiv:2105.04906, Eqs. 3-4; c(Z) is the mean over i.

    Args:
        embeddings: ``(n, D)`` one view of all films of the batch, n of 2 or more.
    Returns:
        ``(D,)``, float32 or better.
    Raises:
        ValueError: for a single film.
    Example:
        >>> covariance(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        tensor([4., 4.])
    """
    _enough(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        centred = _full(embeddings)
        centred = centred - centred.mean(0)
        matrix = centred.T @ centred / (len(centred) - 1)
        others = matrix * ~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
        return others.square().sum(1)


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _enough(embeddings: Tensor) -> None:
    if len(embeddings) < 2:
        raise ValueError(f"a variance needs 2 films or more, got {len(embeddings)}")
