r"""LoVT: Localized representation learning from Vision and Text, arXiv:2112.02889 (Müller et al. 2021).

A film and its report are aligned as wholes, and place by place: each patch draws from the report what it says of that
patch, each sentence draws from the film what it shows of that sentence, and both must find what they drew among what
the other patches of the same film, or the other sentences of the same report, drew. Neighbours of a patch are positives
too, the nearer the more. A patch and a sentence count as much as the pooling to a whole looks at them.

Learns from: films and their whole reports, one view of a film.

Loss:

.. math:: \ell = \tfrac34 \ell^{I \to R} + \tfrac14 \ell^{R \to I}
          + \tfrac38 \sum_{(q, k)} \frac1B \sum_b \sum_i w_{bi} \Big[ \log \sum_j e^{\cos(q_{bi}, k_{bj}) / \tau'}
          - \sum_j p_{ij} \cos(q_{bi}, k_{bj}) / \tau' \Big]

with the first two InfoNCE over the batch at :math:`\tau = 0.1`, and :math:`\tau' = 0.3`. The sum over (q, k) has four
members: patches and what they drew, sentences and what they drew, each in both directions. w are the weights of the
attention pooling, without gradient. For patches p falls off as :math:`e^{-d}` with the distance of the cells, in units
of the grid's diagonal, up to half of it; for sentences it is 1 for the sentence itself.

Differs from the paper:

- We have read its abstract and its released code, not the paper: what is said here of its equations is the code's.
- Its batches of 32 are accumulated 16 times to a step, with negatives among the 32 only. Here ``--accumulate 16`` does
  that on the command line; on several processes the global negatives are those of all of them.
- One cosine over the whole training. The released scheduler's period is one epoch down and one up again.
- 100 epochs without early stopping (there: after 10 epochs without a better validation loss).
- Padded sentences take part in nothing. In the released code they take part in the BatchNorm of projection and
  attention, and lengthen the divisor of the mean that asks the pooling.
- The blur's kernel reaches three sigma instead of a twentieth of the film's side; grey values are brought to [-1, 1]
  instead of the corpus's mean and deviation.
- At most 8 swaps of sentences; Linear layers begin as torch's do; biases and norms do not decay.
- Views are cut from a square of 256 pixels with black margins, there from the film itself. Reports have at most 256
  tokens instead of 512, and sentences of one word are left out.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.data.transforms import CONVIRT_VIEW
from lingula.losses.local_contrast import local_contrast, neighbour_positives
from lingula.nn.attention import MeanQueryPool, SoftmaxCrossAttention, pad_sentences
from lingula.nn.contrast import contrast_pairs
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.sentences import sentence_maxima
from lingula.nn.text_encoders import TextEncoder
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {
    "image_to_text": 0.75,
    "text_to_image": 0.25,
    "patch_to_drawn": 0.375,
    "drawn_to_patch": 0.375,
    "sentence_to_drawn": 0.375,
    "drawn_to_sentence": 0.375,
}

PAPER = Recipe(
    stages=(Stage(100, WEIGHTS),),
    augmentation=CONVIRT_VIEW,
    sentences="swapped",
    frozen_text_layers=6,
    learning_rate=1e-4,
    warmup_epochs=0.0,
    weight_decay=1e-6,
    batch_size=32,
)

SCRATCH = from_scratch(Stage(10, WEIGHTS), sentences="swapped", options={"dim": 128, "hidden": 256})


class LoVT(MethodBase):
    """LoVT: patches and sentences find what they drew from each other (Müller et al. 2021).

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels; not used.
        dim: D, the width of all embeddings.
        hidden: width of the hidden layer of the four projections.
        temperature: tau, of films and reports.
        temperature_local: tau', of patches and sentences.
        reach: how far a patch's positives lie from it at most, in units of the grid's diagonal.
        decay: how fast they fall off with the distance, per diagonal.
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
        dim: int = 512,
        hidden: int = 2048,
        temperature: float = 0.1,
        temperature_local: float = 0.3,
        reach: float = 0.5,
        decay: float = 1.0,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        if temperature <= 0 or temperature_local <= 0:
            raise ValueError(f"temperatures must be positive, got {temperature} and {temperature_local}")
        if reach < 0:
            raise ValueError(f"reach must be 0 or more, got {reach}")
        self.temperature, self.temperature_local = temperature, temperature_local
        self.reach, self.decay = reach, decay
        image_width, text_width = image_encoder.width, text_encoder.width
        self.image_pool, self.report_pool = MeanQueryPool(image_width), MeanQueryPool(text_width)
        self.image_projection, self.patch_projection = (mlp(image_width, hidden, dim) for _ in range(2))
        self.report_projection, self.sentence_projection = (mlp(text_width, hidden, dim) for _ in range(2))
        self.cross_attention = SoftmaxCrossAttention(dim)

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        return self.look(images)[0]

    def look(self, images: Tensor) -> tuple[ImageEncoding, Tensor]:
        """:meth:`encode_image`, and the ``(B, P)`` weights of the patches, without gradient."""
        features = self.image_encoder(images)
        pooled, weights = self.image_pool(features.patches)
        patches = self.patch_projection(features.patches.flatten(0, 1)).unflatten(0, features.patches.shape[:2])
        return ImageEncoding(features, self.image_projection(pooled), patches, features.grid), weights.detach()

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings."""
        return self.read(reports)[0]

    def read(self, reports: Reports) -> tuple[TextEncoding, Tensor]:
        """:meth:`encode_text`, and the ``(B, S)`` weights of the sentences, 0 on padding, without gradient."""
        features = self.text_encoder(reports)
        sentences = sentence_maxima(features.tokens, reports.sentence_of_token, reports.sentence_count)
        pooled, weights = self.report_pool(*pad_sentences(sentences, reports, len(reports.token_ids)))
        encoding = TextEncoding(features, self.report_projection(pooled), self.sentence_projection(sentences))
        return encoding, weights.detach()

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: the softmax weights with which each sentence draws from its film; they add up to 1."""
        image, text = self.encode_image(images), self.encode_text(reports)
        cross = self.cross_attention(image.patches, text.sentences, reports)
        return cross.sentence_weights.unflatten(1, image.grid)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms."""
        assert batch.reports is not None
        wanted = self.wanted
        image, patch_weights = self.look(batch.image)
        text, sentence_weights = self.read(batch.reports)
        patches, sentences = image.patches, text.sentences
        terms: dict[str, Tensor] = {}
        if wanted & {"image_to_text", "text_to_image"}:
            image_to_text, text_to_image = contrast_pairs(image.embedding, text.embedding, self.temperature)
            terms |= {"image_to_text": image_to_text.mean(), "text_to_image": text_to_image.mean()}
        if wanted - {"image_to_text", "text_to_image"}:
            drawn = self.cross_attention(patches, sentences, batch.reports)
            if wanted & {"patch_to_drawn", "drawn_to_patch"}:
                near = neighbour_positives(image.grid, self.reach, self.decay, patches.device)
                there = local_contrast(patches, drawn.report_to_image, self.temperature_local, positives=near)
                back = local_contrast(drawn.report_to_image, patches, self.temperature_local, positives=near)
                terms |= {"patch_to_drawn": (patch_weights * there).sum(1).mean()}
                terms |= {"drawn_to_patch": (patch_weights * back).sum(1).mean()}
            if wanted & {"sentence_to_drawn", "drawn_to_sentence"}:
                own, mask = pad_sentences(sentences, batch.reports, len(batch))
                made, _ = pad_sentences(drawn.image_to_report, batch.reports, len(batch))
                there = local_contrast(own, made, self.temperature_local, mask)
                back = local_contrast(made, own, self.temperature_local, mask)
                terms |= {"sentence_to_drawn": (sentence_weights * there).sum(1).mean()}
                terms |= {"drawn_to_sentence": (sentence_weights * back).sum(1).mean()}
        return self.weigh(terms)
