r"""ConVIRT: Contrastive Visual Representation learning from Text, arXiv:2010.00747 (Zhang et al. 2020).

A film and one random sentence of its report find each other among those of the batch. CLIP is a simplification of it:
here films are augmented, the projections are not linear, and the direction from film to sentence counts three times as
much as the other.

Learns from: films and one random sentence of their reports, one augmented view of a film.

Loss:

.. math:: \ell = \lambda\, \mathrm{CE}\big(S / \tau, I\big) + (1 - \lambda)\, \mathrm{CE}\big(S^\top / \tau, I\big),
          \qquad S_{ij} = \cos\big(g_v(\bar v_i),\; g_t(\hat t_j)\big)

with :math:`\lambda = 0.75`, :math:`\tau = 0.1`, :math:`g` a Linear-ReLU-Linear, :math:`\bar v` the mean of the patches
and :math:`\hat t` the maximum over the tokens.

Differs from the paper:

- The recipe ``paper`` is the LoVT authors' reading of it: weights, temperature, rate, weight decay and batch are from
  their configuration, and the same as the paper's as we remember it.
- The rate falls by a cosine over 100 epochs, without warm-up. The paper halves it whenever the validation loss has
  stood still, which is not offered here; LoVT's configuration does so after 12 epochs and stops early within 500.
- The film is blurred in every view: how often the paper blurs is not known to us.
- The hidden layer of both heads has D = 512 units; LoVT's has 2,048.
- Views are shifted by up to a tenth of the film, and what lies beside the crop comes into sight; in LoVT's code by a
  tenth of the crop, after it was cut, and black comes in.
- Negatives are those of all processes; LoVT takes those of one batch of 32.
- The maximum is over the real tokens, [CLS] and [SEP] among them, and never over padding. A sentence of a longer report
  is pooled over its own tokens alone.
- The recipe ``scratch`` draws films as those of all our methods with text, by windows only, and freezes nothing.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.data.transforms import CONVIRT_VIEW
from lingula.nn.attention import cosine_maps
from lingula.nn.contrast import contrast_pairs
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.sentences import sentence_maxima, token_maxima
from lingula.nn.text_encoders import TextEncoder
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"image_to_text": 0.75, "text_to_image": 0.25}  # lambda, 1 - lambda

PAPER = Recipe(
    stages=(Stage(100, WEIGHTS),),
    frozen_text_layers=6,
    augmentation=CONVIRT_VIEW,
    sentences="one",
    optimizer="adam",
    learning_rate=1e-4,
    warmup_epochs=0,
    weight_decay=1e-6,
    batch_size=32,
)

SCRATCH = from_scratch(Stage(10, WEIGHTS), sentences="one", options={"dim": 128})


class ConVIRT(MethodBase):
    """ConVIRT: films and one sentence of each report aligned as wholes (Zhang et al. 2020).

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels; not used.
        dim: D, the width of the embeddings and of the projections' hidden layer.
        temperature: tau.
    Raises:
        ValueError: for a temperature of 0 or less.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "scratch": SCRATCH}
    views: ClassVar[int] = 1
    uses_text: ClassVar[bool] = True
    smallest_batch: ClassVar[int] = 1

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_size: int,
        dim: int = 512,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        if temperature <= 0:
            raise ValueError(f"temperatures must be positive, got {temperature}")
        self.image_projection = mlp(image_encoder.width, dim, dim, norm=False)  # g_v
        self.text_projection = mlp(text_encoder.width, dim, dim, norm=False)  # g_t
        self.temperature = temperature  # tau

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings: the same
        projection of each patch, of which the pool is the mean."""
        features = self.image_encoder(images)
        return ImageEncoding(
            features, self.image_projection(features.pooled), self.image_projection(features.patches), features.grid
        )

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings."""
        features = self.text_encoder(reports)
        report = self.text_projection(token_maxima(features.tokens, features.token_mask))
        sentences = sentence_maxima(features.tokens, reports.sentence_of_token, reports.sentence_count)
        return TextEncoding(features, report, self.text_projection(sentences))

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: cosine of each sentence with each patch of its film; nothing in the loss asks for it."""
        image, text = self.encode_image(images), self.encode_text(reports)
        return cosine_maps(image.patches, text.sentences, reports, image.grid)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms."""
        assert batch.reports is not None
        text = self.text_encoder(batch.reports)
        image = self.image_projection(self.image_encoder(batch.image).pooled)
        sentence = self.text_projection(token_maxima(text.tokens, text.token_mask))
        image_to_text, text_to_image = contrast_pairs(image, sentence, self.temperature)
        terms = {"image_to_text": image_to_text.mean(), "text_to_image": text_to_image.mean()}
        return self.weigh(terms)
