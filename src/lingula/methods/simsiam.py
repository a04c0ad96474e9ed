r"""SimSiam: Simple Siamese representation learning, arXiv:2011.10566 (Chen and He 2020).

Two views of a film are embedded alike. From the embedding of each, a small predictor shall tell that of the other,
which is held fixed meanwhile. There are no negatives, no queue and no second encoder: that the gradient stops at the
target is what keeps all films from becoming one point.

Learns from: films alone, two views of a film.

Loss:

.. math:: \ell = -\tfrac12 \cos\big(h(z_1), \operatorname{stop}(z_2)\big)
                 -\tfrac12 \cos\big(h(z_2), \operatorname{stop}(z_1)\big)

with :math:`z` the embeddings of the two views and :math:`h` the predictor; the mean over the films, in [-1, 1].

Differs from the paper:

- Films are grey, so hue, saturation and random greyscale are left out, and a crop keeps 60 % of the film or more, not
  20 %, so that a lesion stays on it.
- The encoder starts from ImageNet's weights, as the field's others do; ``--pretrained false`` is the paper's start,
  in which the last BatchNorm of each residual block is 0 (timm's ResNets; the small encoder has none).
- Every process normalises by the statistics of its own films; the paper's by those of the whole batch.
- The last BatchNorm of the projector has no scale and shift, as in the released code; the paper does not say.
- The predictor's rate falls with all others; the paper gains a little by holding it.
- 0.1 is the paper's 0.05 for each 256 films, at its batch of 512 for all GPUs together; the recipe's batch is that of
  one process.
- The recipe ``scratch`` has narrower heads, a predictor a quarter as wide as the embeddings, as the paper's.
- The numbers were checked in the released code and in a transcript of the paper's section 3.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lingula.batch import Batch, ImageEncoding
from lingula.data.transforms import TWO_VIEWS
from lingula.losses.simsiam import simsiam
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"similarity": 1.0}

PAPER = Recipe(  # section 3, "Baseline settings"
    stages=(Stage(100, WEIGHTS),),
    augmentation=TWO_VIEWS,
    optimizer="sgd",
    learning_rate=0.1,  # 0.05 x B / 256
    warmup_epochs=0.0,
    momentum=0.9,
    weight_decay=1e-4,
    batch_size=512,
)

SCRATCH = from_scratch(
    Stage(10, WEIGHTS), augmentation=TWO_VIEWS, options={"dim": 128, "hidden": 256, "bottleneck": 32}
)


class SimSiam(MethodBase):
    """SimSiam: a view predicts the other, without negatives (Chen and He 2020).

    Args:
        image_encoder: the tower.
        image_size: H = W in pixels; not used.
        dim: D, the width of the embeddings.
        hidden: width of the projector's two hidden layers.
        bottleneck: width of the predictor's hidden layer.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "scratch": SCRATCH}
    views: ClassVar[int] = 2
    uses_text: ClassVar[bool] = False
    smallest_batch: ClassVar[int] = 2  # BatchNorm

    def __init__(
        self,
        image_encoder: ImageEncoder,
        image_size: int,
        dim: int = 2048,
        hidden: int = 2048,
        bottleneck: int = 512,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder)
        self.projection = mlp(image_encoder.width, hidden, hidden, dim, last_norm=True, last_affine=False)
        self.predictor = mlp(dim, bottleneck, dim)  # h

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        patches = self.projection(features.patches.flatten(0, 1)).unflatten(0, features.patches.shape[:2])
        return ImageEncoding(features, self.projection(features.pooled), patches, features.grid)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B films of two views to the weighted term."""
        if not self.wanted:
            return {}
        # One view after the other, so that each has its own statistics in every BatchNorm, as in the released code.
        one, other = (self.projection(self.image_encoder(batch.images[:, view]).pooled) for view in range(2))
        there, back = simsiam(self.predictor(one), other), simsiam(self.predictor(other), one)  # Eq. 4
        return self.weigh({"similarity": 0.5 * there.mean() + 0.5 * back.mean()})
