r"""MGCA: Multi-Granularity Cross-modal Alignment, arXiv:2210.06044 (Wang et al. 2022).

A film and its report are aligned at three levels. As wholes; by tokens, where each word draws from the patches of its
film what they hold for it and has to tell it from what the other words of the report have drawn, and each patch
likewise from the words; and by "diseases": films and reports are assigned to prototypes, and the assignment of a film
shall be predicted from its report, and the report's from the film.

Learns from: films and their whole reports, one view of a film.

Loss:

.. math:: \ell = \lambda_1 \ell_{\mathrm{instance}} + \lambda_2 \ell_{\mathrm{token}}
          + \lambda_3 \ell_{\mathrm{prototype}}, \qquad
          \ell_{\mathrm{prototype}} = -\tfrac12 \sum_k \left( q^v_k \log p^t_k + q^t_k \log p^v_k \right)

with :math:`\ell_{\mathrm{instance}}` InfoNCE between films and reports, both directions summed,
:math:`\ell_{\mathrm{token}}` InfoNCE between a sample's words (and between its patches, summed) and what each draws by
attention, q the codes of Sinkhorn's algorithm and p the softmax over the prototypes.

Differs from the paper:

- Only the beginning of the paper's text was at hand: this follows what its authors' code computes (HKU-MedAI/MGCA),
  and its command line's weights, 1, 1 and 1.
- The negatives of the instances are those of all processes; the released code has those of one process.
- Padding is left out everywhere, of the BatchNorms' statistics too. In the released code words are told from words of
  padding as well.
- Punctuation marks are words, every sixth of a radiologist's report, so that the full stops of a report are negatives
  of each other; the released code reads letters and digits only. ``[SEP]`` is no word. A word's weight is the
  attention of ``[CLS]`` to that word; in the released code it is that to the token after it.
- All patches have the same weight. The paper's vision transformer weights them by its class token's attention, which
  our image encoders do not give; its ResNet weights them alike. What its patches draw is not brought to unit length.
  For the same reason the whole of a film is the mean of its patches, not a class token.
- The prototypes learn from the first step. The released code lets them stand still for an epoch, of which a method
  here knows nothing: ``freeze_prototypes_steps`` says for how many steps.
- No early stop. Reports have at most 256 tokens instead of 112. Biases and norms do not decay.
- The default encoder is ResNet-50, one of the paper's two; the released code's is ViT-B/16.
- The prototypes are set to unit length after a step, not before it: the same numbers.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding, TextFeatures
from lingula.gather import evenly, gather
from lingula.losses.sinkhorn import sinkhorn, swapped_prediction
from lingula.losses.token_alignment import clipped_weights, cross_weights, token_alignment
from lingula.nn.contrast import contrast_pairs, own_columns
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.masked import WordProjection
from lingula.nn.method import MethodBase
from lingula.nn.prototypes import Prototypes
from lingula.nn.regions import read_regions, region_width
from lingula.nn.sentences import sentence_means
from lingula.nn.text_encoders import TextEncoder, first_token_attention, has_first_token_attention
from lingula.nn.words import sentence_of_word, word_sums
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"instance": 1.0, "token": 1.0, "prototype": 1.0}

PAPER = Recipe(
    stages=(Stage(50, WEIGHTS, warmup_epochs=20),),  # 40 % of all steps
    learning_rate=2e-5,
    weight_decay=0.05,
    batch_size=72,
    options={"upsample_to": 299},
)

SCRATCH = from_scratch(
    Stage(10, WEIGHTS),
    options={"hidden": 256, "local_map": "last", "prototypes": 64, "word_weights": "uniform"},
)


class Words(NamedTuple):
    """Reports word by word.

    Attributes:
        features: what left the text encoder.
        embedding: ``(B, D)``, one a report.
        words: ``(B, W, D)``.
        mask: ``(B, W)`` bool.
        weights: ``(B, W)``, how much each word counts in its report.
    """

    features: TextFeatures
    embedding: Tensor
    words: Tensor
    mask: Tensor
    weights: Tensor


class MGCA(MethodBase):
    """MGCA: films and reports aligned as wholes, by tokens and by prototypes (Wang et al. 2022).

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels; not used.
        dim: D, the width of all embeddings.
        hidden: width of the hidden layer of the four projections.
        local_map: the patches: places of the ``penultimate`` map (``layer3`` of a ResNet) or of the ``last``.
        upsample_to: H = W in pixels to which films are enlarged for the encoder, 0 for not at all; vision transformers
            see films as they are.
        word_weights: ``attention``: a word counts by how much ``[CLS]`` looks at it in the text encoder's last layer,
            between the quantiles of a tenth and nine tenths; or ``uniform``.
        temperature: tau > 0, of the wholes.
        temperature_local: tau > 0, of the tokens, in attention and contrast.
        prototypes: K.
        temperature_prototypes: tau > 0, of the softmax over the prototypes.
        epsilon: > 0, the temperature of Sinkhorn's codes.
        sinkhorn_iterations: 1 or more.
        freeze_prototypes_steps: training steps at the beginning in which the prototypes do not learn.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "scratch": SCRATCH}
    views: ClassVar[int] = 1
    uses_text: ClassVar[bool] = True
    smallest_batch: ClassVar[int] = 2  # BatchNorm

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_size: int,
        dim: int = 128,
        hidden: int = 2048,
        local_map: str = "penultimate",
        upsample_to: int = 0,
        word_weights: str = "attention",
        temperature: float = 0.07,
        temperature_local: float = 0.1,
        prototypes: int = 500,
        temperature_prototypes: float = 0.2,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        freeze_prototypes_steps: int = 0,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        taus = (temperature, temperature_local, temperature_prototypes, epsilon)
        if min(taus) <= 0:
            raise ValueError(f"temperatures and epsilon must be positive, got {taus}")
        if sinkhorn_iterations < 1 or upsample_to < 0:
            raise ValueError(
                f"sinkhorn_iterations >= 1 and upsample_to >= 0, got {sinkhorn_iterations} and {upsample_to}"
            )
        if word_weights not in ("attention", "uniform"):
            raise ValueError(f"word_weights must be one of attention, uniform, got '{word_weights}'")
        if word_weights == "attention" and not has_first_token_attention(text_encoder):
            raise ValueError("word_weights 'attention' needs a text encoder built like BERT; take 'uniform'")
        self.local_map = local_map
        self.upsample_to = upsample_to
        self.word_weights = word_weights
        self.temperature, self.temperature_local, self.temperature_prototypes, self.epsilon = taus
        self.sinkhorn_iterations = sinkhorn_iterations
        last = {"last_norm": True, "last_affine": False}
        self.image_projection = mlp(image_encoder.width, hidden, dim, **last)
        self.patch_projection = mlp(region_width(image_encoder, local_map), hidden, dim, **last)
        self.report_projection = mlp(text_encoder.width, hidden, dim, **last)
        self.word_projection = WordProjection(text_encoder.width, hidden, dim)
        self.prototypes = Prototypes(dim, prototypes, freeze_prototypes_steps)

    # The two towers, each of which can be called alone.

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features, regions, grid = read_regions(self.image_encoder, images, self.local_map, self.upsample_to)
        patches = self.patch_projection(regions.flatten(0, 1)).unflatten(0, regions.shape[:2])
        return ImageEncoding(features, self.image_projection(features.pooled), patches, grid)

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings: the means of their words', which
        the paper does not have."""
        read = self.read_words(reports)
        sentences = sentence_means(read.words, sentence_of_word(reports), reports.sentence_count)
        return TextEncoding(read.features, read.embedding, sentences)

    def read_words(self, reports: Reports) -> Words:
        """Reports to their words, and to themselves as wholes."""
        if self.word_weights == "attention":
            states = self.text_encoder.states(reports)
            features = self.text_encoder.features(states[-1], reports)
            attention = first_token_attention(self.text_encoder, states[-2], reports.token_mask)
            weights = word_sums(attention[..., None], reports)[0][..., 0]
            words, mask = word_sums(features.tokens, reports)
        else:
            features = self.text_encoder(reports)
            words, mask = word_sums(features.tokens, reports)
            weights = mask.to(words.dtype)
        report = self.report_projection(features.tokens[:, 0])  # [CLS]
        return Words(features, report, self.word_projection(words, mask), mask, clipped_weights(weights, mask))

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: the mean over a sentence's words of each word's attention over the patches of its film; sums
        to 1. On the grid of the patches."""
        image, words = self.encode_image(images), self.read_words(reports).words
        alpha = cross_weights(words, image.patches, self.temperature_local)  # (B, W, P)
        return sentence_means(alpha, sentence_of_word(reports), reports.sentence_count).unflatten(1, image.grid)

    # The objective.

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms."""
        assert batch.reports is not None
        image, read = self.encode_image(batch.image), self.read_words(batch.reports)
        terms: dict[str, Tensor] = {}
        if self.weights.get("instance"):
            image_to_text, text_to_image = contrast_pairs(image.embedding, read.embedding, self.temperature)
            terms["instance"] = image_to_text.mean() + text_to_image.mean()
        if self.weights.get("token"):
            # (B, W) and (B, P)
            of_words, of_patches = token_alignment(read.words, image.patches, self.temperature_local, mask=read.mask)
            terms["token"] = (of_words * read.weights).sum(1).mean() + of_patches.mean(1).mean()
        if self.weights.get("prototype"):
            terms["prototype"] = self.prototype_loss(image.embedding, read.embedding)
        return self.weigh(terms)

    def prototype_loss(self, image: Tensor, report: Tensor) -> Tensor:
        """Each modality's codes predicted from the other; the codes are made of all processes' samples.

        Args:
            image, report: ``(n, D)`` of this process, equally many on each.
        """
        image_scores, report_scores = self.prototypes(image), self.prototypes(report)
        own = own_columns(len(image), image.device)
        image_codes, report_codes = (
            sinkhorn(gather(scores.detach(), evenly(scores)), self.epsilon, self.sinkhorn_iterations)[own]
            for scores in (image_scores, report_scores)
        )
        image_to_text = swapped_prediction(report_scores, image_codes, self.temperature_prototypes)
        text_to_image = swapped_prediction(image_scores, report_codes, self.temperature_prototypes)
        return 0.5 * (image_to_text + text_to_image).mean()

    def after_step(self) -> None:
        """The prototypes back to unit length."""
        self.prototypes.after_step()
