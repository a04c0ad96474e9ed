"""Queries that draw observations from a film's patches, and patches that are completed by what a report says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lingula.nn.positions import grid_positions


class DecoderLayer(nn.Module):
    """A pre-norm transformer decoder layer whose cross-attention can be looked at.

    Self-attention of the queries, cross-attention to the patches, then a feed-forward network four times as wide, each
    added to what came in; no dropout.

    Args:
        dim: D, divisible by ``heads``.
        heads: of both attentions.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_norm, self.cross_norm, self.feed_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, Q, D)`` and ``(B, P, D)`` to ``(B, Q, D)`` and the ``(B, Q, P)`` weights, a mean over the heads."""
        x = self.self_norm(queries)
        queries = queries + self.self_attention(x, x, x, need_weights=False)[0]
        drawn, weights = self.cross_attention(self.cross_norm(queries), patches, patches)
        queries = queries + drawn
        return queries + self.feed_forward(self.feed_norm(queries)), weights


class ObservationExtractor(nn.Module):
    """Observations of a film: learned queries that attend to its patches.

    "A Visual Pathology Observation Extractor is introduced to extract visual pathological observation representations
    from localized tokens" (PLACE, arXiv:2506.10573, abstract). What is inside is ours.

    Args:
        dim: D, divisible by 4 and by ``heads``.
        grid: ``(h, w)`` of the patches.
        queries: Q.
        layers: of the decoder.
        heads: of its attentions.
    """

    def __init__(self, dim: int, grid: tuple[int, int], queries: int = 16, layers: int = 2, heads: int = 8) -> None:
        super().__init__()
        if min(queries, layers) < 1 or dim % heads:
            raise ValueError(
                f"queries and layers must be 1 or more and the width divisible by the heads, got {queries} queries, "
                f"{layers} layers, width {dim} and {heads} heads"
            )
        self.grid = grid
        self.queries = nn.Parameter(torch.randn(queries, dim) * 0.02)
        self.patch_norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, patches: Tensor, grid: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Observations, and where they were seen.

        Args:
            patches: ``(B, P, D)``.
            grid: ``(h, w)`` of these patches, where the film has another size than in training.
        Returns:
            ``(B, Q, D)``, and ``(B, Q, P)`` weights of the last layer's cross-attention, which add up to 1 over P.
        """
        places = grid_positions(grid or self.grid, patches.shape[-1], self.grid, patches.device)
        keys = self.patch_norm(patches) + places.to(patches.dtype)
        x = self.queries.to(patches.dtype).expand(len(patches), -1, -1)
        weights = x.new_zeros(())
        for layer in self.layers:
            x, weights = layer(x, keys)
        return self.norm(x), weights


class MaskedPatches(nn.Module):
    """Patches of which some are masked, completed by what the report says, and made ready to be correlated.

    .. math:: H^0 = \\tilde V, \\quad H^{l+1} = H^l + \\mathrm{CrossAttention}(H^l + \\mathrm{pos}, T), \\quad
              z = \\mathrm{MLP}(H^L)

    There is no attention between patches: what a masked one holds is its place and the report.

    Args:
        dim: D, divisible by 4 and by ``heads``.
        text_width: C of the report's tokens.
        grid: ``(h, w)`` of the patches.
        layers: L.
        heads: of the attentions.
    """

    def __init__(self, dim: int, text_width: int, grid: tuple[int, int], layers: int = 2, heads: int = 8) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be 1 or more, got {layers}")
        self.grid = grid
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.token_projection = nn.Sequential(nn.Linear(text_width, dim), nn.LayerNorm(dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(dim, heads, batch_first=True) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, patches: Tensor, masked: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """z.

        Args:
            patches: ``(B, P, D)``.
            masked: ``(B, P)`` bool, True where the patch is hidden.
            tokens: ``(B, T, C)`` states of the text encoder.
            token_mask: ``(B, T)`` bool.
        Returns:
            ``(B, P, D)``.
        """
        x = torch.where(masked[..., None], self.mask_token.to(patches.dtype), patches)
        places = grid_positions(self.grid, x.shape[-1], device=x.device).to(x.dtype)
        said = self.token_projection(tokens)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            x = x + attention(norm(x) + places, said, said, key_padding_mask=~token_mask, need_weights=False)[0]
        z: Tensor = self.head(x)
        return z
