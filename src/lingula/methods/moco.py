r"""MoCo: Momentum Contrast, arXiv:1911.05722 (He et al. 2019).

Two views are drawn of a film. One is the query; the other is encoded to its key by a second encoder, a slow average of
the first. The query shall find its key among those of the films before, which wait in a queue. So there are many
negatives whatever the size of the batch, and since the second encoder moves slowly, all of them are nearly its own.

Learns from: films alone, two views of a film.

Loss:

.. math:: \ell_i = -\log \frac{\exp(\langle q_i, k_i \rangle / \tau)}
          {\exp(\langle q_i, k_i \rangle / \tau) + \sum_{j=1}^{K} \exp(\langle q_i, u_j \rangle / \tau)},
          \qquad \theta_k \leftarrow m\,\theta_k + (1 - m)\,\theta_q

with :math:`q` and :math:`k` the embeddings of the two views, of unit length, and :math:`u` the queue.

Differs from the paper:

- Films are grey, so hue, saturation and random greyscale are left out, and a crop keeps 60 % of the film or more, not
  20 %, so that a lesion stays on it.
- The encoder starts from ImageNet's weights, as the field's others do; ``--pretrained false`` begins at random.
- The paper shuffles a batch over its GPUs, so that a query and its key are normalised by the statistics of different
  films. Here each process splits its own keys into random groups (``shuffle_groups``, 8 as the paper's GPUs), and its
  queries stay together. The statistics of the two are then less alike, but not of different films, and films are not
  exchanged between processes. Encoders without BatchNorm need no groups.
- The paper's batch of 256, at a rate of 0.03, is that of all its GPUs; the recipe's is that of one process.
- The key encoder moves after the optimiser's step, the released code's before the next batch: the same keys.
- The recipe ``scratch`` has a smaller queue, for corpora of few films, and a faster key encoder, for few steps.
- The numbers were checked in the released code and in others' notes of the paper, not in the paper itself.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lingula.batch import Batch, ImageEncoding
from lingula.data.transforms import TWO_VIEWS, Augmentation
from lingula.losses.queue_nce import queue_nce
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.momentum import MomentumEncoder
from lingula.nn.queue import KeyQueue, in_shuffled_groups
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"contrast": 1.0}

PAPER = Recipe(  # section 3.3
    stages=(Stage(200, WEIGHTS),),
    augmentation=Augmentation(crop_scale=(0.6, 1.0), flip=0.5, brightness=0.4, contrast=0.4),
    optimizer="sgd",
    learning_rate=0.03,
    warmup_epochs=0.0,
    schedule="step",
    momentum=0.9,
    weight_decay=1e-4,
    batch_size=256,
)

SCRATCH = from_scratch(
    Stage(10, WEIGHTS),
    augmentation=TWO_VIEWS,
    options={"queue_size": 1024, "momentum": 0.99, "shuffle_groups": 4},
)


class MoCo(MethodBase):
    """MoCo: a view finds the other among the keys of a queue (He et al. 2019).

    Args:
        image_encoder: the tower, of the queries; the keys' is its slow copy.
        image_size: H = W in pixels; not used.
        dim: D, the width of the embeddings.
        queue_size: K, the negatives.
        momentum: m of the key encoder, in [0, 1).
        temperature: tau.
        shuffle_groups: into how many random groups the keys of a batch are split, each normalised by its own
            statistics (:func:`lingula.nn.queue.in_shuffled_groups`); 1 for none.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "scratch": SCRATCH}
    views: ClassVar[int] = 2
    uses_text: ClassVar[bool] = False
    smallest_batch: ClassVar[int] = 1

    def __init__(
        self,
        image_encoder: ImageEncoder,
        image_size: int,
        dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.07,
        shuffle_groups: int = 8,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder)
        if temperature <= 0 or shuffle_groups < 1:
            raise ValueError(f"temperature > 0 and shuffle_groups >= 1, got {temperature} and {shuffle_groups}")
        self.temperature = temperature  # tau
        self.shuffle_groups = shuffle_groups
        self.projection = mlp(image_encoder.width, dim)  # a Linear layer
        self.key_encoder = MomentumEncoder(self.image_encoder, momentum)
        self.key_projection = MomentumEncoder(self.projection, momentum)
        self.queue = KeyQueue(queue_size, dim)

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        return ImageEncoding(
            features, self.projection(features.pooled), self.projection(features.patches), features.grid
        )

    @torch.no_grad()
    def encode_keys(self, images: Tensor, rows: Tensor, seed: int) -> Tensor:
        """``(B, 1, H, W)`` to ``(B, D)`` by the key encoder; in training, in random groups."""

        def encode(films: Tensor) -> Tensor:
            keys: Tensor = self.key_projection(self.key_encoder(films).pooled)
            return keys

        return in_shuffled_groups(encode, images, rows, seed, self.shuffle_groups if self.training else 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B films of two views to the weighted term; their keys wait for :meth:`after_step`."""
        if not self.wanted:
            return {}
        query = self.projection(self.image_encoder(batch.images[:, 0]).pooled)
        key = self.encode_keys(batch.images[:, 1], batch.rows, batch.seed)
        loss = queue_nce(query, key, self.queue.keys, self.temperature)  # Eq. 1
        self.queue.put(key)
        return self.weigh({"contrast": loss.mean()})

    def after_step(self) -> None:
        """The key encoder follows, Eq. 2, and the queue takes the batch's keys; in training only."""
        if self.training:
            self.key_encoder.follow(self.image_encoder)
            self.key_projection.follow(self.projection)
            self.queue.after_step()
