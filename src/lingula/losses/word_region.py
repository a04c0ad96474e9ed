r"""GLoRIA's attention between the words of a report and the regions of a film, and the similarity made from it.

Shapes: ``n`` reports of ``W`` words, ``m`` films of ``R`` regions. Source: GLoRIA (Huang et al., ICCV 2021), as its
released code computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lingula.losses.tiles import in_tiles


def word_region_attention(words: Tensor, word_mask: Tensor, regions: Tensor, temperature: float) -> Tensor:
    r"""How much each region counts for each word: a softmax over the words, and over the regions a softmax of that.

    .. math:: a_{wr} = \frac{\exp(v_r \cdot t_w)}{\sum_{w'} \exp(v_r \cdot t_{w'})}, \qquad
              \alpha_{wr} = \frac{\exp(a_{wr} / \tau)}{\sum_{r'} \exp(a_{wr'} / \tau)}

    Args:
        words: ``(..., W, D)`` t, not normalised: the first softmax is one of bare dot products.
        word_mask: ``(..., W)`` bool.
        regions: ``(..., R, D)`` v.
        temperature: tau > 0 of the second softmax, unitless.
    Returns:
        ``(..., W, R)``: each word's row sums to 1; float32 or better. Rows of padding mean nothing.
    """
    with torch.autocast(words.device.type, enabled=False):
        return _attention(_wide(words) @ _wide(regions).transpose(-1, -2), word_mask, temperature)


def word_region_similarity(
    words: Tensor,
    word_mask: Tensor,
    regions: Tensor,
    temperature_attention: float = 0.25,
    temperature_words: float = 0.2,
    chunk: int = 8,
) -> Tensor:
    r"""Similarity of every report with every film, from what each word finds on the film.

    .. math:: Z_{ji} = \log \sum_w \exp\big(\cos(c_w, t_w) / \tau_w\big), \qquad c_w = \sum_r \alpha_{wr} v_r

    with :math:`\alpha` of :func:`word_region_attention`, and the words of report j and the regions of film i. What a
    word finds, ``(n, m, W, D)``, is never made: :math:`t \cdot c` is a weighted sum of the dot products, and
    :math:`|c|^2` a quadratic form in the film's Gram matrix. So many reports are compared at once as ``chunk`` says,
    and made anew in the backward pass, so that the memory is that of chunk x m x W x R numbers; the result does not
    depend on it.

    Args:
        words: ``(n, W, D)`` t.
        word_mask: ``(n, W)`` bool; a report without any word has similarity 0 with every film.
        regions: ``(m, R, D)`` v.
        temperature_attention: tau > 0 of the attention.
        temperature_words: tau_w > 0.
        chunk: reports compared at once, 1 or more.
    Returns:
        ``(n, m)`` in nats, float32 or better.
    Raises:
        ValueError: if the shapes do not go together, or the chunk is below 1.
    Example:
        >>> word_region_similarity(torch.ones(1, 2, 3), torch.tensor([[True, False]]), torch.ones(1, 4, 3))
        tensor([[5.]])
    """
    if words.shape[-1] != regions.shape[-1] or words.shape[:2] != word_mask.shape:
        raise ValueError(
            f"expected words and regions of one width and a mask of {tuple(words.shape[:2])}, got {tuple(words.shape)},"
            f" {tuple(regions.shape)} and {tuple(word_mask.shape)}"
        )
    if chunk < 1:
        raise ValueError(f"chunk must be 1 or more, got {chunk}")
    with torch.autocast(words.device.type, enabled=False):
        words, regions = _wide(words), _wide(regions)
        gram = regions @ regions.transpose(1, 2)  # (m, R, R)

        def part(words: Tensor, mask: Tensor) -> Tensor:
            return _similarity(words, mask, regions, gram, temperature_attention, temperature_words)

        return torch.cat(in_tiles(part, (words, word_mask), chunk))


def _similarity(
    words: Tensor, mask: Tensor, regions: Tensor, gram: Tensor, temperature_attention: float, temperature_words: float
) -> Tensor:
    products = torch.einsum("nwd,mrd->mnwr", words, regions)
    alpha = _attention(products, mask, temperature_attention)
    along = (alpha * products).sum(-1)  # (m, n, W): t.c
    flat = alpha.flatten(1, 2)  # (m, n W, R): a product of each film's with its Gram matrix, which is not copied
    square = ((flat @ gram) * flat).sum(-1).view_as(along)  # |c|^2
    length = square.clamp_min(1e-12).sqrt() * words.norm(dim=-1).clamp_min(1e-6)
    return _log_sum_exp(along / length / temperature_words, mask).T


def _attention(products: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """``(..., W, R)`` dot products and ``(..., W)`` bool to alpha."""
    over_words = products.masked_fill(~mask[..., None], torch.finfo(products.dtype).min).softmax(-2)
    return (over_words / temperature).softmax(-1)


def _log_sum_exp(x: Tensor, mask: Tensor) -> Tensor:
    """Over the real ones of the last dimension; 0 without gradient where there is none."""
    lowest = torch.finfo(x.dtype).min / 4
    return torch.where(mask.any(-1), x.masked_fill(~mask, lowest).logsumexp(-1), 0.0)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
