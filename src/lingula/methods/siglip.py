r"""SigLIP: Sigmoid loss for Language-Image Pre-training, arXiv:2303.15343 (Zhai et al. 2023).

A film and its report are aligned as wholes, as in CLIP, but no softmax compares the candidates: of each pair of a film
and a report it is asked by itself whether the two belong together. All pairs of the batch but its diagonal do not, so a
bias starts low, and is learned.

Learns from: films and their whole reports, one view of a film.

Loss:

.. math:: \ell = -\frac1B \sum_i \sum_j \log \sigma\big(z_{ij} (e^{t'} S_{ij} + b)\big), \qquad
          S_{ij} = \cos\big(W_v \bar v_i,\; W_t \bar t_j\big)

with :math:`z_{ij} = 1` for a film and its own report, else -1; :math:`t'` and :math:`b` learned, from
:math:`\log 10` and -10; :math:`\bar v` the attention pool of the patches and :math:`\bar t` the mean of the tokens.

Differs from the paper:

- The field's encoders: ResNet-50 with ImageNet's weights and BioClinicalBERT, instead of a vision transformer and a
  text transformer from scratch on billions of pairs; hence the optimiser, rates and batch of our recipe of CLIP, from
  which this one differs in the loss only.
- The bias of -10 is the paper's, for batches of thousands. In ours of 32 to 64 a larger share of the pairs belongs
  together, and a higher start would fit that share better. It is kept all the same.
- A report is the mean of its tokens. Films and reports are pooled as in our CLIP.
- Read in the authors' code: the sum over the candidates and the mean over the films. The first values of t' and b are
  from memory of the paper. Its chunked computation, device by device, is not needed for batches of this size: the
  embeddings of all processes are gathered.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.gather import evenly, gather
from lingula.losses.sigmoid import sigmoid_loss
from lingula.nn.attention import AttentionPool, cosine_maps
from lingula.nn.contrast import own_columns
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.sentences import token_means
from lingula.nn.text_encoders import TextEncoder
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"sigmoid": 1.0}

PAPER = Recipe(stages=(Stage(30, WEIGHTS),), learning_rate=2e-5, weight_decay=0.05, clip=1.0)

SCRATCH = from_scratch(Stage(10, WEIGHTS), options={"dim": 128})


class SigLIP(MethodBase):
    """SigLIP: films and reports aligned as wholes, each pair judged by itself (Zhai et al. 2023).

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels; not used.
        dim: D, the width of the embeddings.
        scale: exp(t'), one over a temperature; its first value.
        bias: b; its first value.
    Raises:
        ValueError: for a scale of 0 or less.
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
        scale: float = 10.0,
        bias: float = -10.0,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.image_pool = AttentionPool(image_encoder.width, grid=image_encoder.grid)
        self.image_projection = nn.Linear(image_encoder.width, dim)
        self.text_projection = nn.Linear(text_encoder.width, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))  # t'
        self.bias = nn.Parameter(torch.tensor(bias))  # b

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        pooled = self.image_pool(features.patches, grid=features.grid)
        places = self.image_pool.places(features.patches)
        return ImageEncoding(features, self.image_projection(pooled), self.image_projection(places), features.grid)

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
        """B pairs to the weighted term."""
        assert batch.reports is not None
        features, text = self.image_encoder(batch.image), self.text_encoder(batch.reports)
        image = self.image_projection(self.image_pool(features.patches, grid=features.grid))
        report = self.text_projection(token_means(text.tokens, text.token_mask))
        positive = own_columns(len(image), image.device)
        loss = sigmoid_loss(image, gather(report, evenly(report)), self.log_scale.exp(), self.bias, positive)
        terms = {"sigmoid": loss.mean()}
        return self.weigh(terms)
