r"""SimCLR: Simple framework for Contrastive Learning of visual Representations, arXiv:2002.05709 (Chen et al. 2020).

Two views are drawn of each film of a batch. Each view shall find the other view of its film among all the views of the
batch; those of the other films are its negatives, and there is nothing beside the batch.

Learns from: films alone, two views of a film.

Loss:

.. math:: \ell_i = -\log \frac{\exp(\langle z_i, z_{p(i)} \rangle / \tau)}
          {\sum_{k \neq i} \exp(\langle z_i, z_k \rangle / \tau)}

over the 2B views of all processes, with :math:`z` the embeddings, of unit length, and :math:`p(i)` the other view of
the film; the mean over all views.

Differs from the paper:

- The recipe ``paper`` is the one this field compares with, of the LoVT paper's code (arXiv:2112.02889): Adam at 3e-4 on
  batches of 128, ImageNet's weights to start from, :math:`\tau` 0.1, and brightness and contrast changed by 0.8.
- In it, and in ``scratch``, a crop keeps 60 % of the film or more, so that a lesion stays on it; 8 % in LoVT's code.
- The recipe ``original`` is the paper's for photographs: LARS at 0.3 for each 256 films of the whole batch, no weights
  to start from, crops from 8 %. It has the rate for 256 films: the paper's batch of 4,096, over all processes, takes
  ``--learning_rate 4.8``. What it does to colours has no meaning on grey films and is left out.
- The head has no BatchNorm, as in the paper's formula of it, and biases; that of the released code has a BatchNorm
  after each layer.
- Both views pass the encoder together, as in SimCLR's code; in LoVT's one after the other.
- Every process normalises by the statistics of its own films; the paper's by those of the whole batch.
- The numbers of ``paper`` were read in LoVT's code and those of ``original`` in SimCLR's, not in the papers; the
  smallest crop and the probabilities of its augmentation are from memory.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lingula.batch import Batch, ImageEncoding
from lingula.data.transforms import TWO_VIEWS, Augmentation
from lingula.gather import evenly, gather
from lingula.losses.nt_xent import nt_xent
from lingula.nn.contrast import own_columns
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"contrast": 1.0}

PAPER = Recipe(
    stages=(Stage(100, WEIGHTS),),
    augmentation=Augmentation(
        crop_scale=(0.6, 1.0), flip=0.5, brightness=0.8, contrast=0.8, jitter_probability=0.8, blur=(0.1, 2.0)
    ),
    optimizer="adam",
    learning_rate=3e-4,
    weight_decay=1e-4,
    batch_size=128,
)

ORIGINAL = Recipe(
    stages=(Stage(100, WEIGHTS),),
    pretrained=False,
    augmentation=Augmentation(
        crop_scale=(0.08, 1.0), flip=0.5, brightness=0.8, contrast=0.8, jitter_probability=0.8, blur=(0.1, 2.0)
    ),
    optimizer="lars",
    learning_rate=0.3,  # x B / 256
    warmup_epochs=10.0,
    weight_decay=1e-6,
    batch_size=256,
)

SCRATCH = from_scratch(Stage(10, WEIGHTS), augmentation=TWO_VIEWS, options={"hidden": 256})


class SimCLR(MethodBase):
    """SimCLR: a view finds the other among all views of the batch (Chen et al. 2020).

    Args:
        image_encoder: the tower.
        image_size: H = W in pixels; not used.
        dim: D, the width of the embeddings.
        hidden: width of the head's hidden layer.
        temperature: tau.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "original": ORIGINAL, "scratch": SCRATCH}
    views: ClassVar[int] = 2
    uses_text: ClassVar[bool] = False
    smallest_batch: ClassVar[int] = 1

    def __init__(
        self,
        image_encoder: ImageEncoder,
        image_size: int,
        dim: int = 128,
        hidden: int = 2048,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder)
        if temperature <= 0:
            raise ValueError(f"temperatures must be positive, got {temperature}")
        self.temperature = temperature  # tau
        self.projection = mlp(image_encoder.width, hidden, dim, norm=False)

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        return ImageEncoding(
            features, self.projection(features.pooled), self.projection(features.patches), features.grid
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B films of two views to the weighted term; processes have equally many."""
        if not self.wanted:
            return {}
        both = torch.cat([batch.images[:, 0], batch.images[:, 1]])  # one BatchNorm for all views
        one, other = self.projection(self.image_encoder(both).pooled).chunk(2)
        all_one, all_other = gather(one, evenly(one)), gather(other, evenly(other))
        first = own_columns(len(one), one.device)
        second = first + len(all_one)
        loss = nt_xent(
            torch.cat([one, other]),
            torch.cat([all_one, all_other]),
            self.temperature,
            itself=torch.cat([first, second]),
            positive=torch.cat([second, first]),
        )
        return self.weigh({"contrast": loss.mean()})
