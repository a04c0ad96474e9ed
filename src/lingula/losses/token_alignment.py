r"""MGCA's token-wise alignment: each token has to find, among what all tokens of its sample draw from the other
modality, what it drew itself.

Shapes: ``B`` samples, ``n`` tokens, ``m`` tokens of the other modality.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lingula.losses.cosine import unit


def cross_weights(tokens: Tensor, others: Tensor, temperature: float, other_mask: Tensor | None = None) -> Tensor:
    r"""How much each token of the other modality counts for each token: a softmax of cosines.

    .. math:: \alpha_{ij} = \frac{\exp(\cos(x_i, y_j) / \tau)}{\sum_{j'} \exp(\cos(x_i, y_{j'}) / \tau)}

    Args:
        tokens: ``(B, n, D)`` x.
        others: ``(B, m, D)`` y.
        temperature: tau > 0, unitless.
        other_mask: ``(B, m)`` bool, where there are others; by default everywhere.
    Returns:
        ``(B, n, m)`` float32 or better; rows sum to 1, and are 0 on the padding of the others.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        return _weights(unit(tokens) @ unit(others).mT / temperature, other_mask)


def token_alignment(
    tokens: Tensor,
    others: Tensor,
    temperature: float,
    mask: Tensor | None = None,
    other_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""InfoNCE of each token with what it draws from the other modality, inside one sample; for both modalities.

    .. math:: \ell_i = -\tfrac12 \left[ \log \frac{\exp(A_{ii})}{\sum_k \exp(A_{ik})}
              + \log \frac{\exp(A_{ii})}{\sum_k \exp(A_{ki})} \right], \qquad
              A_{ik} = \cos(x_i, c_k) / \tau, \quad c_k = \sum_j \alpha_{kj}\, y_j

    with :math:`\alpha` of :func:`cross_weights` and y of unit length; then the same with x and y exchanged. Both sides
    read one matrix of cosines. Source: MGCA, arXiv:2210.06044, its cross-attention-based token-wise alignment, as its
    released code computes it; there, the words of padding are among the words that a word is told from, here they are
    not.

    Args:
        tokens: ``(B, n, D)`` x. Normalised here.
        others: ``(B, m, D)`` y. Normalised here.
        temperature: tau > 0 of both softmaxes, unitless.
        mask: ``(B, n)`` bool, where there are tokens; by default everywhere.
        other_mask: ``(B, m)`` bool, where there are others; by default everywhere.
    Returns:
        ``(B, n)`` for the tokens and ``(B, m)`` for the others, in nats, 0 on padding; float32 or better. The paper
        weights the tokens and sums them.
    Raises:
        ValueError: if the shapes do not go together.
    Example:
        >>> token_alignment(torch.eye(2)[None], torch.eye(2)[None], temperature=1.0)
        (tensor([[0.4399, 0.4399]]), tensor([[0.4399, 0.4399]]))
    """
    if (tokens.shape[0], tokens.shape[2]) != (others.shape[0], others.shape[2]):
        raise ValueError(
            f"tokens and others must be of the same samples and width, got {tuple(tokens.shape)} and "
            f"{tuple(others.shape)}"
        )
    for name, given, x in (("mask", mask, tokens), ("other_mask", other_mask, others)):
        if given is not None and given.shape != x.shape[:2]:
            raise ValueError(f"expected {name} of shape {tuple(x.shape[:2])}, got {tuple(given.shape)}")
    with torch.autocast(tokens.device.type, enabled=False):
        x, y = unit(tokens), unit(others)
        cosines = x @ y.mT / temperature  # over tau, (B, n, m)
        return (
            _among_siblings(x, _weights(cosines, other_mask) @ y, temperature, mask),
            _among_siblings(y, _weights(cosines.mT, mask) @ x, temperature, other_mask),
        )


def _weights(cosines: Tensor, other_mask: Tensor | None) -> Tensor:
    """alpha, of cosines over tau."""
    if other_mask is not None:
        cosines = cosines.masked_fill(~other_mask[:, None], torch.finfo(cosines.dtype).min)
    return cosines.softmax(-1)


def _among_siblings(x: Tensor, drawn: Tensor, temperature: float, mask: Tensor | None) -> Tensor:
    """The loss of each x_i, of unit length, with its own c_i among the c_k of its sample: all ``(B, n, D)``."""
    length = torch.linalg.vector_norm(drawn, dim=-1).clamp_min(1e-12)
    logits = x @ drawn.mT / (length * temperature)[:, None]  # A, (B, n, n): shorter to divide here than c, (B, n, D)
    if mask is None:
        return _cross_entropy_both_ways(logits)
    pairs = mask[:, :, None] & mask[:, None]
    logits = logits.masked_fill(~pairs, torch.finfo(logits.dtype).min / 4)
    return torch.where(mask, _cross_entropy_both_ways(logits), 0.0)


def _cross_entropy_both_ways(logits: Tensor) -> Tensor:
    """``(B, n, n)`` to ``(B, n)``: the diagonal against its row and its column, the mean of the two."""
    return -0.5 * (logits.log_softmax(2) + logits.log_softmax(1)).diagonal(dim1=1, dim2=2)


def clipped_weights(attention: Tensor, mask: Tensor, share: float = 0.1) -> Tensor:
    """MGCA's weights of the tokens of a sample: attention between two of its quantiles, with a sum of 1.

    Args:
        attention: ``(B, n)`` 0 or more.
        mask: ``(B, n)`` bool, where there are tokens: the quantiles are of these.
        share: of the tokens that are raised to the lower quantile, and of those lowered to the upper, in [0, 0.5).
    Returns:
        ``(B, n)`` 0 on padding; rows sum to 1, but for samples without tokens. No gradient.
    """
    with torch.no_grad():
        known = torch.where(mask, attention, torch.nan)
        low, high = (torch.nanquantile(known, q, dim=1, keepdim=True) for q in (share, 1 - share))
        clipped = torch.where(mask, attention.clamp(low, high), 0.0)
        return clipped / clipped.sum(1, keepdim=True).clamp_min(torch.finfo(clipped.dtype).tiny)
