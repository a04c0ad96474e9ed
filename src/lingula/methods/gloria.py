r"""GLoRIA: Global-Local Representations for Images using Attention, ICCV 2021 (Huang et al. 2021).

A film and its report are aligned as wholes, and word by word: each word gathers from a film, by attention over the
film's regions, what the film holds for it, and a report is similar to a film as far as its words resemble what they
have gathered there. With that similarity too every film shall find its own report among those of the batch, and every
report its film. Films of other patients are asked the same words, so a word has to read the film to be of use.

Learns from: films and one random sentence of each report, one view of a film.

Loss:

.. math:: \ell = \mathrm{CE}\big(S / \tau, I\big) + \mathrm{CE}\big(S^\top / \tau, I\big)
          + \mathrm{CE}\big(Z / \tau, I\big) + \mathrm{CE}\big(Z^\top / \tau, I\big), \qquad
          S_{ij} = \cos(\bar v_i, \bar t_j), \quad
          Z_{ij} = \log \sum_w \exp\big(\cos(c^{i}_{jw}, t_{jw}) / \tau_w\big)

with :math:`c^i_{jw}` the regions of film i weighted by the attention of word w of report j: a softmax over the
report's words, and over the regions a softmax of that divided by :math:`\tau_a`.

Differs from the paper:

- The text of the paper was not at hand: this follows what its authors' code computes (marshuang80/gloria). It
  multiplies by 4, 5 and 10 where we divide by the temperatures 0.25, 0.2 and 0.1.
- The negatives are the reports and films of all processes; the released code has those of one process.
- Padding is left out of the mean over words too, where the released code counts it as zeros; the cosines are the same.
- ``[CLS]`` and ``[SEP]`` are no words. The released code counts ``[CLS]`` among them in training, and not when it
  compares films and reports afterwards; its mean over words has ``[SEP]`` in it too.
- Punctuation marks are words, every sixth of a radiologist's report; the released code reads letters and digits only.
- Retrieval and zero-shot classification here compare wholes, by the cosine alone; the released code adds a local score
  to it.
- The rate stays constant; the released code halves it when the validation loss no longer falls. It stops early too.
- The gradient's norm is clipped at 0.25, and the films are enlarged to 299 pixels, as there; reports have at most 256
  tokens instead of 97, the findings are read beside the impression, and the sentences are cut as this library cuts
  them. The recipe ``scratch`` reads whole reports, as that of every method does.
- A vision transformer, which the paper does not have, gives its patches for regions, and sees films as they are.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.gather import evenly, gather
from lingula.losses.word_region import word_region_attention, word_region_similarity
from lingula.nn.contrast import contrast_pairs, own_columns
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.regions import read_regions, region_width
from lingula.nn.sentences import sentence_means, token_means
from lingula.nn.text_encoders import TextEncoder
from lingula.nn.words import sentence_of_word, word_sums
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"global": 1.0, "local": 1.0}  # each the sum of the two directions

PAPER = Recipe(
    stages=(Stage(50, WEIGHTS),),
    sentences="one",
    optimizer="adam",
    learning_rate=5e-5,
    warmup_epochs=0.0,
    schedule="constant",
    betas=(0.5, 0.999),
    weight_decay=1e-6,
    batch_size=48,
    clip=0.25,
    options={"upsample_to": 299},
)

SCRATCH = from_scratch(Stage(10, WEIGHTS), options={"text_layers": 2, "local_map": "last"})


class GLoRIA(MethodBase):
    """GLoRIA: films and reports aligned as wholes and word by word (Huang et al. 2021).

    All embeddings are as wide as the text encoder's states, which are compared as they are.

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels; not used.
        text_layers: the states of so many last layers of the text encoder are summed; at most all of them.
        local_map: the regions: places of the ``penultimate`` map (``layer3`` of a ResNet) or of the ``last``.
        upsample_to: H = W in pixels to which films are enlarged for the encoder, 0 for not at all; vision transformers
            see films as they are.
        temperature_attention: tau_a > 0, of the attention's softmax over the regions.
        temperature_words: tau_w > 0, of the sum over the words.
        temperature: tau > 0, of both contrasts.
        chunk: reports whose words are compared at once with all films: a matter of memory, not of the result.
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
        text_layers: int = 4,
        local_map: str = "penultimate",
        upsample_to: int = 0,
        temperature_attention: float = 0.25,
        temperature_words: float = 0.2,
        temperature: float = 0.1,
        chunk: int = 8,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        taus = (temperature_attention, temperature_words, temperature)
        if min(taus) <= 0:
            raise ValueError(f"temperatures must be positive, got {taus}")
        if text_layers < 1 or chunk < 1 or upsample_to < 0:
            raise ValueError(
                f"text_layers >= 1, chunk >= 1 and upsample_to >= 0, got {text_layers}, {chunk} and {upsample_to}"
            )
        self.text_layers = text_layers
        self.local_map = local_map
        self.upsample_to = upsample_to
        self.temperature_attention, self.temperature_words, self.temperature = taus
        self.chunk = chunk
        dim = text_encoder.width
        self.image_projection = nn.Linear(image_encoder.width, dim)
        self.region_projection = nn.Linear(region_width(image_encoder, local_map), dim, bias=False)

    # The two towers, each of which can be called alone.

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, R, D)`` region embeddings."""
        features, regions, grid = read_regions(self.image_encoder, images, self.local_map, self.upsample_to)
        return ImageEncoding(features, self.image_projection(features.pooled), self.region_projection(regions), grid)

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings: means over the words."""
        features = self.text_encoder(reports, layers=self.text_layers)
        words, mask = word_sums(features.tokens, reports)
        sentences = sentence_means(words, sentence_of_word(reports), reports.sentence_count)
        return TextEncoding(features, token_means(words, mask), sentences)

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: the mean over a sentence's words of each word's attention over the regions of its film; sums
        to 1. On the grid of the regions."""
        image = self.encode_image(images)
        words, mask = word_sums(self.text_encoder(reports, layers=self.text_layers).tokens, reports)
        alpha = word_region_attention(words, mask, image.patches, self.temperature_attention)  # (B, W, R)
        return sentence_means(alpha, sentence_of_word(reports), reports.sentence_count).unflatten(1, image.grid)

    # The objective.

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms."""
        assert batch.reports is not None
        image = self.encode_image(batch.image)
        words, mask = word_sums(self.text_encoder(batch.reports, layers=self.text_layers).tokens, batch.reports)
        terms: dict[str, Tensor] = {}
        if self.weights.get("global"):
            image_to_text, text_to_image = contrast_pairs(image.embedding, token_means(words, mask), self.temperature)
            terms["global"] = image_to_text.mean() + text_to_image.mean()
        if self.weights.get("local"):
            terms["local"] = self.local_loss(words, mask, image.patches)
        return self.weigh(terms)

    def local_loss(self, words: Tensor, mask: Tensor, regions: Tensor) -> Tensor:
        """CE(Z) in both directions, over the reports and films of all processes, equally many on each.

        Args:
            words: ``(n, W, D)``, and ``mask`` ``(n, W)``, of this process.
            regions: ``(n, R, D)`` of this process.
        """
        # This process's reports with everybody's films, and then everybody's rows: W may differ between processes, but
        # not R, and no pair is compared twice.
        rows = word_region_similarity(
            words,
            mask,
            gather(regions, evenly(regions)),
            self.temperature_attention,
            self.temperature_words,
            self.chunk,
        )
        logits = gather(rows, evenly(rows)) / self.temperature  # (reports, films) of all processes
        own = own_columns(len(words), words.device)
        return F.cross_entropy(logits[own], own) + F.cross_entropy(logits.T[own], own)
