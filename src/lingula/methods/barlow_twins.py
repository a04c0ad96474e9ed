r"""Barlow Twins: redundancy reduction, arXiv:2103.03230 (Zbontar et al. 2021).

Two views of a film shall have the same embedding, and no two dimensions of it shall say the same. Over the batch, each
dimension of one view is correlated with each of the other: the matrix of correlations is driven to the identity. There
are no negatives, no momentum and no stop-gradient.

Learns from: films alone, two views of each.

Loss:

.. math:: \ell = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

with :math:`C` the correlation, over the batch of all processes, of the dimensions of the two views' projections, and
:math:`\lambda = 0.0051`.

Differs from the paper:

- Augmentation: no hue, saturation or greyscale, which mean nothing on a grey film, no solarisation, crops of 60 % of a
  film or more, and both views drawn alike (the paper blurs one view always and solarises the other at times).
- The weight decay of 1.5e-6 is the paper's, from memory; the released code's is 1e-6. Lambda is 0.0051, as in the
  released code; the paper has 0.005, from memory, as are its equations.
- The rate falls to 0, not to a thousandth of its peak, and it belongs to 2,048 films a step over all processes: for
  other numbers multiply it by films / 2,048.
- The BatchNorms of encoder and projector see one process's films, unless they are made to see all; the correlation
  always does. In the authors' code they see all.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lingula.batch import Batch, ImageEncoding
from lingula.data.transforms import TWO_VIEWS
from lingula.gather import evenly, gather
from lingula.losses.barlow_twins import barlow_twins, cross_correlation
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.training.recipe import Recipe, Stage, from_scratch

REDUNDANCY = 0.0051  # lambda
WEIGHTS = {"invariance": 1.0, "redundancy": REDUNDANCY}

PAPER = Recipe(
    stages=(Stage(1000, WEIGHTS),),
    pretrained=False,
    augmentation=TWO_VIEWS,
    optimizer="lars",
    learning_rate=0.2 * 2048 / 256,
    bias_learning_rate=0.0048 * 2048 / 256,
    warmup_epochs=10,
    weight_decay=1.5e-6,
    batch_size=2048,
)

SCRATCH = from_scratch(Stage(10, WEIGHTS), augmentation=TWO_VIEWS, options={"projector": (512, 512, 512)})


class BarlowTwins(MethodBase):
    """Barlow Twins: two views of a film agree, and no two dimensions do (Zbontar et al. 2021).

    Args:
        image_encoder: the tower.
        image_size: H = W in pixels; not used.
        projector: widths of the projector's layers; the last is D.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "scratch": SCRATCH}
    views: ClassVar[int] = 2
    uses_text: ClassVar[bool] = False
    smallest_batch: ClassVar[int] = 2  # BatchNorm, and a correlation

    def __init__(
        self, image_encoder: ImageEncoder, image_size: int, projector: tuple[int, ...] = (8192, 8192, 8192)
    ) -> None:
        super().__init__(WEIGHTS, image_encoder)
        self.projector = mlp(image_encoder.width, *projector)
        self.projector[-1].register_parameter("bias", None)  # centred away in the loss; the authors have none

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        patches = self.projector(features.patches.flatten(0, 1)).unflatten(0, features.patches.shape[:2])
        return ImageEncoding(features, self.projector(features.pooled), patches, features.grid)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B films, two views of each, to the weighted terms."""
        # One view after the other, so that BatchNorm knows each view's own statistics, as in the paper.
        one, other = (self.projector(self.image_encoder(batch.images[:, view]).pooled) for view in range(2))
        invariance, redundancy = barlow_twins(cross_correlation(gather(one, evenly(one)), gather(other, evenly(other))))
        terms = {"invariance": invariance.sum(), "redundancy": redundancy.sum()}
        return self.weigh(terms)
