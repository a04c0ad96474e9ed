"""Barlow Twins' cross-correlation of two views, and how far it is from the identity."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_correlation(one: Tensor, other: Tensor, eps: float = 1e-5) -> Tensor:
    r"""Correlation of each dimension of one view with each of the other, over the batch.

    .. math:: C_{ij} = \frac{\sum_b z^A_{b,i} z^B_{b,j}}{\sqrt{\sum_b (z^A_{b,i})^2} \sqrt{\sum_b (z^B_{b,j})^2}}

    with z centred over the batch.

    Source: Barlow Twins, arXiv:2103.03230, Eq. 2. As in the authors' code, which standardises by a BatchNorm, ``eps``
    is added to the variances, so that a dimension that stands still correlates with nothing.

    Args:
        one, other: ``(n, D)`` embeddings of two views of the same n films, all those of the batch.
        eps: added to the variances, in units of the embeddings' squares.
    Returns:
        ``(D, D)`` in [-1, 1], float32 (float64 for float64 input).
    Raises:
        ValueError: if the shapes differ.
    Example:
        >>> x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> cross_correlation(x, -x).round(decimals=3) + 0.0
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """
    if one.shape != other.shape:
        raise ValueError(f"the two views must match, got {tuple(one.shape)} and {tuple(other.shape)}")
    with torch.autocast(one.device.type, enabled=False):
        one, other = (x if x.dtype == torch.float64 else x.float() for x in (one, other))
        one, other = (
            (x - x.mean(0)) * (x.var(0, correction=0) + eps).rsqrt() for x in (one, other)
        )  # as a BatchNorm without scale and shift
        return one.T @ other / len(one)


def barlow_twins(correlation: Tensor) -> tuple[Tensor, Tensor]:
    r"""What keeps each dimension the same in both views, and what keeps it from saying what others say.

    .. math:: (1 - C_{ii})^2 \qquad\text{and}\qquad \sum_{j \ne i} C_{ij}^2

    Source: Barlow Twins, arXiv:2103.03230, Eq. 1, whose loss is the sum over i of the first and of lambda times the
    second.

    Args:
        correlation: ``(D, D)``, from :func:`cross_correlation`.
    Returns:
        ``(D,)`` invariance and ``(D,)`` redundancy of each dimension, unitless.
    Raises:
        ValueError: if the matrix is not square.
    Example:
        >>> barlow_twins(torch.tensor([[1.0, 0.5], [0.0, 0.0]]))
        (tensor([0., 1.]), tensor([0.2500, 0.0000]))
    """
    if correlation.ndim != 2 or correlation.shape[0] != correlation.shape[1]:
        raise ValueError(f"the correlation must be a square matrix, got {tuple(correlation.shape)}")
    diagonal = correlation.diagonal()
    others = correlation * ~torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)
    return (1 - diagonal).square(), others.square().sum(1)
