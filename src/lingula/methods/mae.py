r"""MAE: Masked Autoencoder, arXiv:2111.06377 (He et al. 2021).

Three quarters of a film's patches are hidden. A vision transformer reads the others, and a light decoder has to paint
what was hidden from what it has read. The encoder never sees a mask token, and afterwards it is a plain vision
transformer.

Learns from: films alone, one view of each.

Loss:

.. math:: \ell = \frac{1}{|M|} \sum_{p \in M} \frac{1}{K} \lVert \hat x_p - \tilde x_p \rVert^2

over the hidden patches M, with :math:`\tilde x_p` the K pixels of a patch, less their mean and divided by their
standard deviation, and :math:`\hat x_p` what the decoder makes of them.

Differs from the paper:

- The encoder is timm's, with its own positions, which are learned; the paper's are fixed sines and cosines, as those of
  our decoder are. Its weights start as timm starts them, the decoder's as PyTorch does, not by Xavier's rule.
- ViT-B/16 instead of the paper's ViT-L/16, for smaller corpora and machines.
- Crops of 60 % of a film or more, so that lesions survive; the paper's, from memory, are of 20 % or more. Both flip.
- The standard deviation is that of a sample (one pixel less in the divisor), as in the authors' code as we remember
  it; the paper does not say.
- The rate of 2.4e-3 is 1.5e-4 for every 256 films of the 4,096 of a step over all processes: for other numbers multiply
  it by films / 4,096. The numbers of the recipe are from the authors' instructions, but for Adam's betas of 0.9 and
  0.95, which are from memory.
- Which patches are hidden is a function of seed and film, so a resume hides the same.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lingula.batch import Batch, ImageEncoding
from lingula.data.transforms import Augmentation
from lingula.keyed import keyed_uniform
from lingula.nn.image_encoders import SMALL_VIT, ImageEncoder
from lingula.nn.mae_decoder import MaskedDecoder
from lingula.nn.method import MethodBase
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"reconstruction": 1.0}

PAPER = Recipe(
    stages=(Stage(800, WEIGHTS),),
    image_encoder="vit_base_patch16_224",
    pretrained=False,
    augmentation=Augmentation(crop_scale=(0.6, 1.0), flip=0.5),
    learning_rate=1.5e-4 * 4096 / 256,
    warmup_epochs=40,
    betas=(0.9, 0.95),
    weight_decay=0.05,
    batch_size=4096,
)

SCRATCH = from_scratch(
    Stage(10, WEIGHTS),
    image_encoder=SMALL_VIT,
    options={"decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4},
)


class MAE(MethodBase):
    """MAE: hidden patches of a film are painted from the visible ones (He et al. 2021).

    Args:
        image_encoder: a vision transformer.
        image_size: H = W in pixels; not used.
        mask_ratio: the share of the patches that is hidden, in (0, 1).
        normalise_patches: paint each patch less its mean and divided by its standard deviation, not its grey values.
        decoder_width, decoder_depth, decoder_heads: of the decoder.
    Raises:
        ValueError: for an encoder that is no plain vision transformer, or a share that hides nothing or everything.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "scratch": SCRATCH}
    views: ClassVar[int] = 1
    uses_text: ClassVar[bool] = False
    smallest_batch: ClassVar[int] = 1

    def __init__(
        self,
        image_encoder: ImageEncoder,
        image_size: int,
        mask_ratio: float = 0.75,
        normalise_patches: bool = True,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder)
        _refuse_others(image_encoder)
        grid = image_encoder.grid
        self.visible_patches = int(grid[0] * grid[1] * (1 - mask_ratio) + 1e-6)  # 1 - 0.9 is a little less than 0.1
        if not 0 < mask_ratio < 1 or not 0 < self.visible_patches < grid[0] * grid[1]:
            raise ValueError(
                f"mask_ratio must leave some of {grid[0]} x {grid[1]} patches visible and hide some, got {mask_ratio}"
            )
        self.patch_size: tuple[int, int] = image_encoder.backbone.patch_embed.patch_size
        self.normalise_patches = normalise_patches
        self.decoder = MaskedDecoder(
            image_encoder.width,
            grid,
            self.patch_size[0] * self.patch_size[1],
            decoder_width,
            decoder_depth,
            decoder_heads,
        )

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1], nothing hidden, to features, ``(B, C)`` their mean and ``(B, P, C)`` patches:
        there is no projection."""
        features = self.image_encoder(images)
        return ImageEncoding(features, features.pooled, features.patches, features.grid)

    def mask(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """``(B, v)`` places that stay visible and ``(B, m)`` places that are hidden, equally many of each film."""
        places = len(self.decoder.positions)
        order = keyed_uniform(batch.seed, batch.rows, places).argsort(1)
        return order[:, : self.visible_patches], order[:, self.visible_patches :]

    def encode_visible(self, images: Tensor, visible: Tensor) -> Tensor:
        """``(B, 1, H, W)`` and ``(B, v)`` places to ``(B, p + v, C)``: class and register tokens, as many as the
        encoder has, then the visible patches. The others are dropped before the first block."""
        backbone = self.image_encoder.backbone
        x = backbone._pos_embed(backbone.patch_embed(images))  # positions know the whole grid
        prefix, places = x[:, : backbone.num_prefix_tokens], x[:, backbone.num_prefix_tokens :]
        places = places.gather(1, visible[..., None].expand(-1, -1, places.shape[-1]))
        x = backbone.norm_pre(torch.cat([prefix, places], dim=1))
        encoded: Tensor = backbone.norm(backbone.blocks(x))
        return encoded

    def targets(self, images: Tensor, hidden: Tensor) -> Tensor:
        """``(B, m, K)`` pixels of the hidden patches, float32 or better."""
        h, w = self.patch_size
        patches = images.unfold(2, h, h).unfold(3, w, w).flatten(4).flatten(1, 3)  # (B, P, K), reading order
        patches = patches.gather(1, hidden[..., None].expand(-1, -1, patches.shape[-1]))
        if not self.normalise_patches:
            return patches
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B films to the weighted term."""
        visible, hidden = self.mask(batch)
        painted = self.decoder(self.encode_visible(batch.image, visible), visible, hidden)
        painted = painted if painted.dtype == torch.float64 else painted.float()
        terms = {"reconstruction": (painted - self.targets(batch.image, hidden)).square().mean()}
        return self.weigh(terms)


def _refuse_others(image_encoder: ImageEncoder) -> None:
    """Only where patches are cut apart first, and meet in attention alone, can some of them be left out."""
    from timm.layers import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer

    backbone = image_encoder.backbone
    if not isinstance(backbone, VisionTransformer) or not isinstance(backbone.patch_embed, PatchEmbed):
        raise ValueError(
            f"MAE hides patches and needs a plain vision transformer, such as vit_base_patch16_224 or {SMALL_VIT}, "
            f"got {image_encoder.name}"
        )
