r"""CLIP: Contrastive Language-Image Pre-training, arXiv:2103.00020 (Radford et al. 2021).

A film and its report are aligned as wholes, and nothing else: of all films and reports of a batch, each shall find its
own partner. It is the baseline of every method here that aligns more than wholes.

Learns from: films and their whole reports, one view of a film.

Loss:

.. math:: \ell = \tfrac12 \left[ \mathrm{CE}\big(S / \tau, I\big) + \mathrm{CE}\big(S^\top / \tau, I\big) \right],
          \qquad S_{ij} = \cos\big(W_v \bar v_i,\; W_t \bar t_j\big)

with :math:`\tau` learned, :math:`\bar v` the attention pool of the patches and :math:`\bar t` the mean of the tokens.

Differs from the paper:

- The field's encoders: ResNet-50 with ImageNet's weights and BioClinicalBERT, instead of both from scratch on 400
  million pairs; hence AdamW's rates of a fine-tuning, and batches of 64 instead of 32,768.
- A report is the mean of its tokens, not the last one's state: BERT's reads both ways.
- The pool has 8 heads and a Linear layer of its own before the projection, which has a bias, and D is 512; the paper's
  has 32 heads and goes straight to D = 1,024. Gradients are clipped at 1. The temperature is held below 1 too.
- The recipe ``lovt`` is near what the LoVT paper compared with under this name: one random sentence of a report, the
  views and frozen layers of ConVIRT, MLPs, a fixed temperature of 0.1, and the direction from film to report three
  times as heavy. There a report is the maximum over its tokens without ``[CLS]`` and ``[SEP]``, the mean of the patches
  only asks and there are no positions, and 16 batches make a step (``--accumulate 16``).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.data.transforms import CONVIRT_VIEW
from lingula.nn.attention import AttentionPool, cosine_maps
from lingula.nn.contrast import Temperature, contrast_pairs
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.sentences import token_means
from lingula.nn.text_encoders import TextEncoder
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"image_to_text": 0.5, "text_to_image": 0.5}  # the mean of the two directions

PAPER = Recipe(stages=(Stage(30, WEIGHTS),), learning_rate=2e-5, weight_decay=0.05, clip=1.0)

LOVT = Recipe(
    stages=(Stage(100, {"image_to_text": 0.75, "text_to_image": 0.25}),),
    frozen_text_layers=6,
    augmentation=CONVIRT_VIEW,
    learning_rate=1e-4,
    warmup_epochs=0.0,
    weight_decay=1e-6,
    batch_size=32,
    sentences="one",
    options={"projection_layers": 2, "temperature": 0.1, "learnable_temperature": False},
)

SCRATCH = from_scratch(Stage(10, WEIGHTS), options={"dim": 128})


class CLIP(MethodBase):
    """CLIP: films and reports aligned as wholes (Radford et al. 2021).

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels; not used.
        dim: D, the width of the embeddings.
        projection_layers: 1 for the paper's Linear projections; 2 for MLPs with BatchNorm, 2048 wide (LoVT).
        temperature: tau; where it is learned, its first value.
        learnable_temperature: whether it is learned.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "lovt": LOVT, "scratch": SCRATCH}
    views: ClassVar[int] = 1
    uses_text: ClassVar[bool] = True
    smallest_batch: ClassVar[int] = 2  # BatchNorm

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_size: int,
        dim: int = 512,
        projection_layers: int = 1,
        temperature: float = 0.07,
        learnable_temperature: bool = True,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        hidden = (2048,) * (projection_layers - 1)
        self.image_pool = AttentionPool(image_encoder.width, grid=image_encoder.grid)
        self.image_projection = mlp(image_encoder.width, *hidden, dim)
        self.text_projection = mlp(text_encoder.width, *hidden, dim)
        self.temperature = Temperature(temperature, learnable_temperature)

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        pooled = self.image_pool(features.patches, grid=features.grid)
        places = self.image_pool.places(features.patches)
        patches = self.image_projection(places.flatten(0, 1)).unflatten(0, places.shape[:2])
        return ImageEncoding(features, self.image_projection(pooled), patches, features.grid)

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings."""
        features = self.text_encoder(reports)
        report = self.text_projection(token_means(features.tokens, features.token_mask))
        return TextEncoding(features, report, self.text_projection(features.sentences))

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: cosine of each sentence with each patch of its film; nothing in the loss asks for it."""
        image, text = self.encode_image(images), self.encode_text(reports)
        return cosine_maps(image.patches, text.sentences, reports, image.grid)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms."""
        assert batch.reports is not None
        features, text = self.image_encoder(batch.image), self.text_encoder(batch.reports)
        image = self.image_projection(self.image_pool(features.patches, grid=features.grid))
        report = self.text_projection(token_means(text.tokens, text.token_mask))
        image_to_text, text_to_image = contrast_pairs(image, report, self.temperature())
        terms = {"image_to_text": image_to_text.mean(), "text_to_image": text_to_image.mean()}
        return self.weigh(terms)
