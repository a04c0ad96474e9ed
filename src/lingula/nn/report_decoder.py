"""A transformer that writes a report, a token at a time, looking at a film's patches. Floor 1."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.registry import UserError


class ReportDecoder(nn.Module):
    """transformers' BERT as a causal decoder with cross-attention, from random weights.

    Patches are normalised, since encoders differ in scale, projected, and each place's own learnt vector is added:
    cross-attention alone could not tell left from right.

    Args:
        patch_width: C of the patches.
        places: P, how many there are.
        vocabulary: number of tokens.
        max_tokens: the longest report, first and last token included.
        begin, end, pad: their token ids.
        width, layers, heads, feed_forward, dropout: of the decoder.
    Raises:
        UserError: if ``max_tokens`` leaves no room for a word.
    """

    def __init__(
        self,
        patch_width: int,
        places: int,
        vocabulary: int,
        max_tokens: int,
        begin: int,
        end: int,
        pad: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int = 256,
        dropout: float = 0.1,
    ) -> None:
        from transformers import BertConfig, BertLMHeadModel

        super().__init__()
        if max_tokens < 3:
            raise UserError(f"max_tokens must be 3 or more, got {max_tokens}")
        self.max_tokens, self.begin = max_tokens, begin
        self.project = nn.Sequential(nn.LayerNorm(patch_width), nn.Linear(patch_width, width))
        self.place = nn.Parameter(torch.randn(places, width) * 0.02)
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=feed_forward,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=max_tokens,
            is_decoder=True,
            add_cross_attention=True,
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=pad,
        )
        self.language_model: Any = BertLMHeadModel(config)

    def forward(self, patches: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """How surprising each token of the reports is, given the patches and the tokens before it.

        Args:
            patches: ``(B, P, C)``.
            token_ids: ``(B, T)`` from ``begin`` to ``end``, padded to the right.
            token_mask: ``(B, T)`` bool.
        Returns:
            ``(B, T - 1)`` nats, of the second token on; 0 at padding.
        """
        # Nothing looks ahead, so the padding, which comes last, needs no mask.
        logits = self.language_model(
            input_ids=token_ids[:, :-1], encoder_hidden_states=self._seen(patches), use_cache=False
        ).logits  # (B, T - 1, vocabulary)
        nats = F.cross_entropy(logits.float().flatten(0, 1), token_ids[:, 1:].flatten(), reduction="none")
        return nats.unflatten(0, (len(token_ids), -1)) * token_mask[:, 1:]

    @torch.no_grad()
    def generate(self, patches: Tensor, beams: int = 3) -> Tensor:
        """The likeliest reports that a beam search finds; likeliest per token, as transformers ranks by default.

        Args:
            patches: ``(B, P, C)``.
            beams: how many beginnings are kept; 1 is greedy.
        Returns:
            ``(B, T)`` token ids from ``begin`` on; after its first ``end`` a report has only ``end`` or ``pad``.
        """
        from transformers import DynamicCache, EncoderDecoderCache

        begin = torch.full((len(patches), 1), self.begin, device=patches.device)
        config = self.language_model.config
        tokens: Tensor = self.language_model.generate(
            begin,
            attention_mask=torch.ones_like(begin),
            encoder_hidden_states=self._seen(patches),
            # By itself generate() makes a cache without a place for cross-attention.
            past_key_values=EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config)),
            num_beams=beams,
            max_length=self.max_tokens,
            do_sample=False,
        )
        return tokens

    def _seen(self, patches: Tensor) -> Tensor:
        seen: Tensor = self.project(patches) + self.place
        return seen
