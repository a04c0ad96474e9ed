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
        logits = unit(tokens) @ unit(others).transpose(1, 2) / temperature
        if other_mask is not None:
            logits = logits.masked_fill(~other_mask[:, None], torch.finfo(logits.dtype).min)
        return logits.softmax(-1)


def token_alignment(
    tokens: Tensor,
    others: Tensor,
    temperature: float,
    mask: Tensor | None = None,
    other_mask: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE of each token with what it draws from the other modality, inside one sample, both directions.

    .. math:: \ell_i = -\tfrac12 \left[ \log \frac{\exp(A_{ii})}{\sum_k \exp(A_{ik})}
              + \log \frac{\exp(A_{ii})}{\sum_k \exp(A_{ki})} \right], \qquad
              A_{ik} = \cos(x_i, c_k) / \tau, \quad c_k = \sum_j \alpha_{kj}\, y_j

    with :math:`\alpha` of :func:`cross_weights` and y of unit length. Source: MGCA, arXiv:2210.06044, its
    cross-attention-based token-wise alignment, as its released code computes it; there, the words of padding are
    among the words that a word is told from, here they are not.

    Args:
        tokens: ``(B, n, D)`` x. Normalised here.
        others: ``(B, m, D)`` y. Normalised here.
        temperature: tau > 0 of both softmaxes, unitless.
        mask: ``(B, n)`` bool, where there are tokens; by default everywhere.
        other_mask: ``(B, m)`` bool, where there are others; by default everywhere.
    Returns:
        ``(B, n)`` in nats, 0 on padding; float32 or better. The paper weights the tokens and sums them.
    Raises:
        ValueError: if the shapes do not go together.
    Example:
        >>> token_alignment(torch.eye(2)[None], torch.eye(2)[None], temperature=1.0)
        tensor([[0.4399, 0.4399]])
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
        drawn = cross_weights(tokens, others, temperature, other_mask) @ unit(others)  # c, (B, n, D)
        logits = unit(tokens) @ unit(drawn).transpose(1, 2) / temperature  # A, (B, n, n)
        positive = logits.diagonal(dim1=1, dim2=2)
        if mask is None:
            return 0.5 * (logits.logsumexp(2) + logits.logsumexp(1)) - positive
        lowest = torch.finfo(logits.dtype).min / 4
        rows = logits.masked_fill(~mask[:, None], lowest).logsumexp(2)
        columns = logits.masked_fill(~mask[:, :, None], lowest).logsumexp(1)
        return torch.where(mask, 0.5 * (rows + columns) - positive, 0.0)


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
