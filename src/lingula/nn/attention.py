"""Attention between the two modalities, and attention pooling within one."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.batch import Reports
from lingula.losses.cosine import unit


def pad_sentences(sentences: Tensor, reports: Reports, batch_size: int) -> tuple[Tensor, Tensor]:
    """Sentences of one report side by side.

    Args:
        sentences: ``(N, D)``.
        reports: says which report and which place each sentence has.
        batch_size: B.
    Returns:
        ``(B, S, D)`` with zeros where there is no sentence, and ``(B, S)`` bool.
    """
    where = (reports.report_of_sentence, reports.position_of_sentence)
    padded = sentences.new_zeros(batch_size, reports.max_sentences, sentences.shape[-1]).index_put(where, sentences)
    mask = torch.zeros(padded.shape[:2], dtype=torch.bool, device=padded.device)
    return padded, mask.index_put(where, torch.ones_like(reports.report_of_sentence, dtype=torch.bool))


def cosine_maps(patches: Tensor, sentences: Tensor, reports: Reports, grid: tuple[int, int]) -> Tensor:
    """Where a sentence is, of a method whose loss compares wholes only: its cosine with each patch of its film.

    Args:
        patches: ``(B, P, D)`` embeddings in the space of the sentences.
        sentences: ``(N, D)``.
        reports: says whose each sentence is.
        grid: ``(h, w)`` of the patches.
    Returns:
        ``(N, h, w)`` in [-1, 1].
    """
    own = unit(patches)[reports.report_of_sentence]  # (N, P, D)
    return (own * unit(sentences)[:, None]).sum(-1).unflatten(1, grid)


class AttentionPool(nn.Module):
    """One vector for a set: multi-head attention whose one query is the set's mean, as CLIP pools its image patches.

    "We obtain the global image feature by performing self-attention pooling" (CM-CGNS, section III-B).

    Args:
        dim: D, divisible by ``heads``.
        heads: attention heads.
        grid: ``(h, w)`` of the patches, for learned positions; ``None`` for sets without order, such as sentences.
    Raises:
        ValueError: if D is not divisible by the heads.
    """

    def __init__(self, dim: int, heads: int = 8, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.grid = grid
        if grid is not None:
            self.positions = nn.Parameter(torch.randn(1 + grid[0] * grid[1], dim) / dim**0.5)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """``(1 + P, D)``, resampled where the film has another size than in training."""
        if grid == self.grid:
            return self.positions
        assert self.grid is not None
        map_ = self.positions[1:].T.reshape(1, -1, *self.grid)
        map_ = F.interpolate(map_, size=grid, mode="bilinear", align_corners=False)
        return torch.cat([self.positions[:1], map_.flatten(2)[0].T])

    def forward(self, x: Tensor, mask: Tensor | None = None, grid: tuple[int, int] | None = None) -> Tensor:
        """``(B, n, D)`` and, for ragged sets, ``(B, n)`` bool to ``(B, D)``."""
        if mask is None:
            mean = x.mean(1, keepdim=True)
        else:
            count = mask.sum(1).clamp_min(1)[:, None, None]
            mean = torch.where(mask[..., None], x, 0.0).sum(1, keepdim=True) / count
            mask = F.pad(mask, (1, 0), value=True)[:, None, None, :]  # (B, 1, 1, 1 + n): the mean is always there
        x = torch.cat([mean, x], dim=1)  # (B, 1 + n, D)
        if self.grid is not None:
            x = x + self._positions(grid or self.grid).to(x.dtype)

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, n, D / heads)

        pooled = F.scaled_dot_product_attention(
            split(self.query(x[:, :1])), split(self.key(x)), split(self.value(x)), attn_mask=mask
        )
        pooled_output: Tensor = self.output(pooled.transpose(1, 2).flatten(2)[:, 0])
        return pooled_output

    def places(self, x: Tensor) -> Tensor:
        """``(B, n, D)`` to ``(B, n, D)``: what would be pooled if only that place were looked at, so that places can be
        compared with what the pool is compared with (MaskCLIP, arXiv:2112.01071, section 3.2)."""
        output: Tensor = self.output(self.value(x))
        return output


class CrossModal(NamedTuple):
    """What cross-attention makes of a batch.

    Attributes:
        image_to_report: ``(N, D)``, I->R: for each sentence, what its film holds for it.
        report_to_image: ``(B, P, D)``, R->I: for each patch, what its report holds for it.
        sentence_weights: ``(N, P)`` in (0, 1): how much each patch counts for each sentence. The attention map.
        patch_weights: ``(B, P, S)`` in [0, 1): how much each sentence counts for each patch; 0 on padding.
    """

    image_to_report: Tensor
    report_to_image: Tensor
    sentence_weights: Tensor
    patch_weights: Tensor


class SigmoidCrossAttention(nn.Module):
    r"""Single-head attention between sentences and patches of the same pair, with sigmoid weights.

    .. math:: f^{I \to R}_m = \sum_p \sigma\!\left(\frac{Q f^R_m \cdot K f^I_p}{\sqrt D}\right) V f^I_p

    "We use the sigmoid function instead of softmax ... not all sub-regions or sentences are informative" (CM-CGNS,
    arXiv:2506.11674, Eqs. 5-6). Each modality has its own Q, K and V, used in both directions.

    Args:
        dim: D.
        normalise_inputs: LayerNorm before Q, K and V. The paper has none. From scratch it makes the attention move.
    """

    def __init__(self, dim: int, normalise_inputs: bool = False) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.image_norm = nn.LayerNorm(dim) if normalise_inputs else nn.Identity()
        self.text_norm = nn.LayerNorm(dim) if normalise_inputs else nn.Identity()
        self.image_query, self.image_key, self.image_value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.text_query, self.text_key, self.text_value = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(self, patches: Tensor, sentences: Tensor, reports: Reports) -> CrossModal:
        """``(B, P, D)`` patches and ``(N, D)`` sentences, un-normalised: unit vectors leave every weight at one
        half."""
        patches, sentences = self.image_norm(patches), self.text_norm(sentences)
        padded, mask = pad_sentences(sentences, reports, len(patches))
        weights = self._weights(self.text_query(padded), self.image_key(patches))  # (B, S, P)
        image_to_report = weights @ self.image_value(patches)  # (B, S, D)
        patch_weights = self._weights(self.image_query(patches), self.text_key(padded)) * mask[:, None]  # (B, P, S)
        report_to_image = patch_weights @ self.text_value(padded)
        where = (reports.report_of_sentence, reports.position_of_sentence)
        return CrossModal(image_to_report[where], report_to_image, weights[where], patch_weights)

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        """Sigmoid weights, in float32 or better."""
        with torch.autocast(query.device.type, enabled=False):
            query, key = (x if x.dtype == torch.float64 else x.float() for x in (query, key))
            return torch.sigmoid(query @ key.transpose(1, 2) * self.scale)

    def film_similarity(self, patches: Tensor, sentences: Tensor) -> Tensor:
        """Cosine of each sentence with the representation that it would draw from *each* film of the batch.

        The query is held fixed and only the film changes. The representations themselves, ``(N, B, D)``, are never
        made: f.v is a weighted sum of f.V_p, and \\|v\\|^2 a quadratic form in the film's Gram matrix of values.

        Args:
            patches: ``(B, P, D)`` projected patches.
            sentences: ``(N, D)`` projected sentences.
        Returns:
            ``(N, B)`` in [-1, 1], float32 or better.
        """
        value = self.image_value(self.image_norm(patches))  # (B, P, D)
        query = self.text_query(self.text_norm(sentences))
        key = self.image_key(self.image_norm(patches))
        with torch.autocast(patches.device.type, enabled=False):
            value, query, key = (x if x.dtype == torch.float64 else x.float() for x in (value, query, key))
            weights = torch.sigmoid(torch.einsum("nd,bpd->bnp", query, key) * self.scale)  # (B, N, P)
            along = (weights * torch.einsum("nd,bpd->bnp", unit(sentences), value)).sum(-1)  # (B, N)
            gram = value @ value.transpose(1, 2)  # (B, P, P)
            length = ((weights @ gram) * weights).sum(-1).clamp_min(1e-12).sqrt()  # (B, N)
            return (along / length).T


class MeanQueryPool(nn.Module):
    """One vector for a set, and how much each element counts in it: multi-head attention whose query is the set's mean.

    LoVT (arXiv:2112.02889) pools patches and sentences so. Unlike in :class:`AttentionPool` the mean only asks, it is
    not among what is pooled, so the weights of the elements add up to 1; and there are no positions.

    Args:
        dim: D, divisible by ``heads``.
        heads: attention heads.
    Raises:
        ValueError: if D is not divisible by the heads.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, n, D)`` and, for ragged sets, ``(B, n)`` bool to ``(B, D)`` and the ``(B, n)`` weights, the mean over
        the heads; 0 on padding. An empty set is pooled as one of zeros."""
        if mask is None:
            pooled, weights = self.attention(x.mean(1, keepdim=True), x, x)
            return pooled[:, 0], weights[:, 0]
        x = torch.where(mask[..., None], x, 0.0)
        mean = x.sum(1, keepdim=True) / mask.sum(1).clamp_min(1)[:, None, None]
        hidden = ~mask & mask.any(1, keepdim=True)  # a softmax over nothing would not be a number
        pooled, weights = self.attention(mean, x, x, key_padding_mask=hidden)
        return pooled[:, 0], weights[:, 0] * mask


class SoftmaxCrossAttention(nn.Module):
    r"""Single-head attention between sentences and patches of the same pair, with softmax weights, the same both ways.

    .. math:: z^{a \to b}_m = \mathrm{BN}\Big(W_o \sum_p \mathrm{softmax}_p\Big(
              \frac{W_k z^b_m \cdot W_k z^a_p}{\sqrt D}\Big) W_v z^a_p\Big)

    The alignment model of LoVT (arXiv:2112.02889), as its released code has it: one W_k for queries and keys of both
    modalities, one W_v and one W_o. BatchNorm sees real sentences only; there it sees padding too.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(3))
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, patches: Tensor, sentences: Tensor, reports: Reports) -> CrossModal:
        """``(B, P, D)`` patches and ``(N, D)`` sentences; the weights of a sentence over the patches of its film add
        up to 1, and so do those of a patch over the sentences of its report."""
        padded, mask = pad_sentences(sentences, reports, len(patches))
        query, key = self.key(patches), self.key(padded)
        with torch.autocast(query.device.type, enabled=False):
            query, key = (x if x.dtype == torch.float64 else x.float() for x in (query, key))
            scores = query @ key.transpose(1, 2) * self.scale  # (B, P, S)
            weights = scores.transpose(1, 2).softmax(-1)  # (B, S, P)
            real = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
            patch_weights = real.softmax(-1) * mask[:, None]  # (B, P, S)
        where = (reports.report_of_sentence, reports.position_of_sentence)
        report_to_image = self.output(patch_weights @ self.value(padded))
        image_to_report = self.output((weights @ self.value(patches))[where])
        report_to_image = self.norm(report_to_image.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return CrossModal(self.norm(image_to_report), report_to_image, weights[where], patch_weights)
