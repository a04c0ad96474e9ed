"""Text encoders: any Hugging Face model by name or folder, and a small BERT that learns from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lingula.batch import Packing, Reports, TextFeatures
from lingula.nn.hub import fetch, no_model, refuse_code
from lingula.nn.sentences import sentence_means
from lingula.nn.weights import misfit
from lingula.registry import UserError

SMALL_BERT = "small_bert"
HEADS = (  # what language models and classifiers put on the encoder, by transformers' names; not used here
    *("pooler.", "cls.", "lm_head.", "lm_predictions.", "mask_predictions.", "predictions.", "classifier.", "score."),
    *("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "sop_classifier.", "qa_outputs."),
    *("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    *("head.dense.", "head.norm.", "decoder.bias", "decoder.weight"),
)
PACKING = ("bert", "electra")  # model types that read packed reports
_SMALL_BERT: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 256,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def text_config(name: str, vocabulary: int) -> Any:
    """The transformers configuration of ``small_bert`` or of a model by name or local folder.

    Args:
        name: ``small_bert``, a Hugging Face name, or a local folder.
        vocabulary: tokens of its tokenizer.
    Raises:
        UserError: where there is no such model, or no network to get it; for one that is no text encoder, runs code of
            its own, or has fewer embeddings than there are tokens.
    """
    from transformers import AutoConfig, BertConfig

    if name == SMALL_BERT:
        return BertConfig(vocab_size=vocabulary, **_SMALL_BERT)
    try:
        config = fetch(AutoConfig, name)
    except UserError:
        raise
    except Exception as err:
        raise UserError(no_model("text encoder", name, err)) from err
    check_vocabulary(name, config, vocabulary)
    return config


def check_vocabulary(name: str | Path, config: Any, vocabulary: int) -> None:
    """Refuse a tokenizer with more tokens than a text encoder has embeddings of.

    Raises:
        UserError: as said, or for a model that is no encoder of text.
    """
    for needed in ("vocab_size", "hidden_size", "max_position_embeddings"):
        if not isinstance(getattr(config, needed, None), int):
            raise UserError(f"'{name}' is no text encoder: its config.json names no {needed}")
    if vocabulary > config.vocab_size:
        raise UserError(
            f"the tokenizer of '{name}' has {vocabulary} tokens, and the text encoder embeddings of "
            f"{config.vocab_size} only; take the tokenizer that belongs to its weights"
        )


class TextEncoder(nn.Module):
    """A report to features; sentences are encoded in the context of their whole report.

    Args:
        config: a transformers configuration (:func:`text_config`).
        weights: the name or folder to take weights from; ``None`` starts from random ones.
    Raises:
        UserError: for weights that cannot be had, or that do not fit the model in every tensor.
    Attributes:
        width: C of ``tokens`` and ``sentences``.
        max_tokens: the longest report the model can read.
        packs: whether it reads packed reports: a model that takes positions, counted from 0, and a mask of pairs.
    """

    def __init__(self, config: Any, weights: str | Path | None = None) -> None:
        super().__init__()
        if weights is None:
            from transformers import AutoModel

            refuse_code(getattr(config, "_name_or_path", ""), config)
            self.backbone: Any = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
        else:
            self.backbone = _published(config, weights)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # never used here, and DDP refuses parameters without gradient
        self.width: int = self.backbone.config.hidden_size
        self.max_tokens: int = self.backbone.config.max_position_embeddings
        self.packs: bool = self.backbone.config.model_type in PACKING

    def forward(self, reports: Reports, layers: int = 1) -> TextFeatures:
        """:class:`Reports` of B reports and N sentences to :class:`TextFeatures`.

        Args:
            reports: the tokenised reports.
            layers: the ``tokens`` are the sum of the states after so many last layers, at most all of them.
        """
        if layers == 1:
            return self.features(self._run(reports)[-1], reports)
        states = self.states(reports)[1:]  # not the embeddings, before the first layer
        return self.features(torch.stack(states[-layers:]).sum(0), reports)

    @property
    def config(self) -> Any:
        """Its transformers configuration."""
        return self.backbone.config

    def compile(self, *arguments: Any, **settings: Any) -> None:
        """Compile the backbone alone: how many sentences a batch has differs from batch to batch."""
        self.backbone.compile(*arguments, **settings)

    def checkpoint_activations(self) -> None:
        """Keep the inputs of the blocks only, and compute the rest again in the backward pass."""
        newer = getattr(self.backbone, "activation_checkpointing_enable", None)  # transformers is renaming it
        (newer or self.backbone.gradient_checkpointing_enable)({"use_reentrant": False})

    def states(self, reports: Reports) -> tuple[Tensor, ...]:
        """The embeddings and what each layer makes of them, ``(B, T, C)`` each; the last is what ``forward`` gives."""
        return self._run(reports, every_layer=True)

    def features(self, tokens: Tensor, reports: Reports) -> TextFeatures:
        """``(B, T, C)`` states and the means of their sentences."""
        sentences = sentence_means(tokens, reports.sentence_of_token, reports.sentence_count)
        return TextFeatures(tokens, reports.token_mask, sentences, reports.report_of_sentence)

    def _run(self, reports: Reports, every_layer: bool = False) -> tuple[Tensor, ...]:
        """The last hidden states, or all of them; of packed reports they are zeros on padding."""
        packing = reports.packing if self.packs else None
        if packing is None:
            inputs = {"input_ids": reports.token_ids, "attention_mask": reports.token_mask.long()}
        else:
            inputs = {
                "input_ids": reports.token_ids.flatten()[packing.token],
                "position_ids": packing.position,
                # empty slots see each other: a softmax over nothing would not be a number
                "attention_mask": (packing.report[:, :, None] == packing.report[:, None, :])[:, None],  # (R, 1, L, L)
            }
        found = self.backbone(**inputs, output_hidden_states=every_layer)
        states: tuple[Tensor, ...] = found.hidden_states if every_layer else (found.last_hidden_state,)
        return states if packing is None else tuple(_unpack(state, packing, reports.token_mask) for state in states)


def _published(config: Any, weights: str | Path) -> Any:
    """A model with all of its weights from a name or folder: none is left random, and none of theirs unused but those
    of the heads (:data:`HEADS`).

    Raises:
        UserError: where they cannot be had, or do not fit.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of what does not fit is many lines, and ends in nothing
    try:
        model, found = fetch(
            AutoModel,
            weights,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below
        )
    except UserError:
        raise
    except Exception as err:
        raise UserError(no_model("text encoder", weights, err)) from err
    finally:
        logging.set_verbosity(level)
    wanted = [key for key in model.state_dict() if not key.startswith("pooler.")]  # that is made, and left out again
    missing = [key for key in wanted if key in found["missing_keys"]]
    unknown = sorted(
        key for key in found["unexpected_keys"] if not key.startswith(HEADS) and not key.endswith(".position_ids")
    )
    reshaped = sorted(found["mismatched_keys"])
    if missing or unknown or reshaped:
        why = misfit(missing, unknown, reshaped, len(wanted))
        raise UserError(f"the weights of the text encoder '{weights}' do not fit its config.json: {why}")
    broken = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise UserError(
            f"the weights of the text encoder '{weights}' are NaN or infinite in {len(broken)} tensors, such as "
            f"'{broken[0]}'"
        )
    return model


def _unpack(states: Tensor, packing: Packing, mask: Tensor) -> Tensor:
    """``(R, L, C)`` packed states to ``(B, T, C)``, zeros on padding."""
    tokens = states.flatten(0, 1).index_select(0, packing.slot.flatten()).unflatten(0, packing.slot.shape)
    return torch.where(mask[..., None], tokens, 0.0)


@torch.no_grad()
def first_token_attention(encoder: TextEncoder, before: Tensor, mask: Tensor) -> Tensor:
    """How much the first token, BERT's ``[CLS]``, looks at each token in the last layer: the mean over the heads.

    From the last layer's queries and keys, since the fast attentions keep no weights; without dropout or gradient.

    Args:
        encoder: a BERT, or one built like it (:func:`has_first_token_attention`).
        before: ``(B, T, C)`` states before the last layer (:meth:`TextEncoder.states`).
        mask: ``(B, T)`` bool.
    Returns:
        ``(B, T)`` float32 or better, 0 on padding; the rows sum to 1.
    """
    attention = encoder.backbone.encoder.layer[-1].attention.self
    query, key = attention.query(before[:, 0]), attention.key(before)
    query, key = (x if x.dtype == torch.float64 else x.float() for x in (query, key))
    heads, width = attention.num_attention_heads, attention.attention_head_size
    with torch.autocast(before.device.type, enabled=False):
        logits = torch.einsum("bhd,bthd->bht", query.unflatten(-1, (heads, width)), key.unflatten(-1, (heads, width)))
        logits = (logits / width**0.5).masked_fill(~mask[:, None], -torch.inf)
        return logits.softmax(-1).mean(1)


def has_first_token_attention(encoder: TextEncoder) -> bool:
    """Whether the last layer's queries and keys are where BERT has them."""
    stack = getattr(getattr(encoder.backbone, "encoder", None), "layer", None)
    attention = getattr(getattr(stack[-1], "attention", None), "self", None) if stack else None
    return hasattr(attention, "query") and hasattr(attention, "key") and hasattr(attention, "attention_head_size")


def freeze_layers(encoder: TextEncoder, layers: int) -> None:
    """Let the embeddings and the first ``layers`` layers stay as they are; nothing for 0.

    Raises:
        UserError: if the encoder has fewer layers, or does not say which they are.
    """
    if not layers:
        return
    stack = getattr(getattr(encoder.backbone, "encoder", None), "layer", ())
    if len(stack) < layers:
        raise UserError(f"cannot freeze {layers} layers of the text encoder, of which {len(stack)} are known")
    encoder.backbone.embeddings.requires_grad_(False)
    for layer in stack[:layers]:
        layer.requires_grad_(False)
