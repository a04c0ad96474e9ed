r"""VICReg: Variance-Invariance-Covariance Regularisation, arXiv:2105.04906 (Bardes et al. 2022).

Two views of a film shall have the same embedding. That all films get the same is prevented in each view by itself: over
the batch, every dimension has to keep a standard deviation of 1, and no two may vary together. There are no negatives,
and the embeddings are not normalised.

Learns from: films alone, two views of each.

Loss:

.. math:: \ell = \lambda\, s(Z, Z') + \mu\, [v(Z) + v(Z')] + \nu\, [c(Z) + c(Z')]

with :math:`s` the mean squared distance of the two views, :math:`v` the mean over the dimensions of what their standard
deviations lack to 1, :math:`c` the sum of the squared covariances of different dimensions divided by their number, and
:math:`\lambda = \mu = 25`, :math:`\nu = 1`. The statistics are those of the batch of all processes.

Differs from the paper:

- The squared distance is a mean over the dimensions, as in the paper's Algorithm 1 and the authors' code; Eq. 5 as
  printed is a sum over them, 8,192 times as heavy.
- The authors' code halves the sum over the two views in the variance term, where the paper does not: the recipe
  ``official`` has that, ``paper`` has not.
- Augmentation: no hue, saturation or greyscale, which mean nothing on a grey film, no solarisation, and crops of 60 %
  of a film or more. Both views are drawn alike; the authors' code blurs one always and the other seldom.
- The rate falls to 0, not to 0.002, and it belongs to 2,048 films a step over all processes: for other numbers multiply
  it by films / 2,048.
- The last layer of the expander has no bias, as in the authors' code: no term could see it.
- The BatchNorms of encoder and expander see one process's films, unless they are made to see all.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lingula.batch import Batch, ImageEncoding
from lingula.data.transforms import TWO_VIEWS
from lingula.gather import evenly, gather
from lingula.losses.vicreg import covariance, invariance, variance
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}  # lambda, mu, nu


def _large(weights: dict[str, float]) -> Recipe:
    return Recipe(
        stages=(Stage(1000, weights),),
        pretrained=False,
        augmentation=TWO_VIEWS,
        optimizer="lars",
        learning_rate=0.2 * 2048 / 256,
        warmup_epochs=10,
        weight_decay=1e-6,
        batch_size=2048,
    )


PAPER = _large(WEIGHTS)
OFFICIAL = _large({**WEIGHTS, "variance": 12.5})  # half the sum over the two views

SCRATCH = from_scratch(Stage(10, WEIGHTS), augmentation=TWO_VIEWS, options={"expander": (512, 512, 512)})


class VICReg(MethodBase):
    """VICReg: two views agree, and their dimensions vary, each by itself (Bardes et al. 2022).

    Args:
        image_encoder: the tower.
        image_size: H = W in pixels; not used.
        expander: widths of the expander's layers; the last is D.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "official": OFFICIAL, "scratch": SCRATCH}
    views: ClassVar[int] = 2
    uses_text: ClassVar[bool] = False
    smallest_batch: ClassVar[int] = 2  # BatchNorm, and a variance

    def __init__(
        self, image_encoder: ImageEncoder, image_size: int, expander: tuple[int, ...] = (8192, 8192, 8192)
    ) -> None:
        super().__init__(WEIGHTS, image_encoder)
        self.expander = mlp(image_encoder.width, *expander)
        self.expander[-1].register_parameter("bias", None)  # the same in both views, and centred away in each

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        patches = self.expander(features.patches.flatten(0, 1)).unflatten(0, features.patches.shape[:2])
        return ImageEncoding(features, self.expander(features.pooled), patches, features.grid)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B films, two views of each, to the weighted terms."""
        # One view after the other, so that BatchNorm knows each view's own statistics, as in the authors' code.
        one, other = (self.expander(self.image_encoder(batch.images[:, view]).pooled) for view in range(2))
        wanted = self.wanted
        terms: dict[str, Tensor] = {}
        if "invariance" in wanted:
            terms["invariance"] = invariance(one, other).mean()
        if wanted & {"variance", "covariance"}:
            one, other = gather(one, evenly(one)), gather(other, evenly(other))
            if "variance" in wanted:
                terms["variance"] = variance(one).mean() + variance(other).mean()
            if "covariance" in wanted:
                terms["covariance"] = covariance(one).mean() + covariance(other).mean()
        return self.weigh(terms)
