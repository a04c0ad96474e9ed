r"""PRIOR: Prototype Representation Joint Learning, arXiv:2307.12577 (Cheng et al. 2023).

A film and its report are aligned as wholes, and locally: by sigmoid attention each sentence draws what the film holds
for it and has to find it among what the other sentences of its own report drew, and each patch agrees with what the
report holds for it, without negatives. From the second stage on every sentence is replaced by a mixture of prototypes
out of a learned bank. In the third, each modality helps to make the other again: the film is painted from half of its
own channels and what the report says of each place, and a set of queries looks at the film and says which prototypes
the report must have, in no order.

Learns from: films and their whole reports, one view of a film.

Loss:

.. math:: \ell = 10\,\ell_{global} + \ell_{local\,image} + \ell_{local\,text} + 10\,\| \hat s - s \|_1
          + \| \hat I - I \|_1 + 10\,\| \hat p - \hat s \|_1
          + \mathrm{KL}\big(\sigma(s E^\top) \,\|\, \sigma(\hat p E^\top)\big) + \ell_{global}(\hat p)

in the third stage; the second has the first four terms, with a weight of 1 on the first, and the first stage the first
three. s are sentences, :math:`\hat s` their mixtures of the prototypes E, :math:`\hat p` what the queries
predict, each matched to the mixture that it costs least to make, :math:`\hat I` the painted film, all norms means.
:math:`\ell_{global}` is InfoNCE over the batch, the mean of both directions; :math:`\ell_{global}(\hat p)` has the
predictions, sent through the bank and pooled, in the place of the film.

Differs from the paper:

- We have read its abstract and its released code, not the paper: the terms and their weights are those of the code, the
  epochs, rates and temperatures those of its file for pre-training.
- Patches are places of the film. In the released code a reshape without a transpose makes each "patch" out of about 42
  channels at all places.
- Matching is over the report's own prototypes; queries that are left over are ignored. There prototypes are padded with
  zeros, which are matched and counted too.
- A matched query stands in the place of the prototype that it was matched to. The released code applies the permutation
  the wrong way round.
- The queries see each other in both directions. The released decoder is built as a causal one, so each sees only those
  before it.
- The bank draws its Gumbel noise in training only, not at evaluation. It belongs to the sentence, as the channels that
  are dropped belong to the film, so neither depends on the order of the batch.
- A report of more than 16 sentences is aligned as a whole; only what its queries shall make is cut to 16 of them.
- Q, K and V of the sigmoid attention have no biases. The decoder is torch's, of BERT's shape and without dropout;
  its queries enter as they are, without BERT's positions, LayerNorm and dropout of the input.
- Only the three projections begin as in the released code; the first layer of SimSiam's predictor, and the decoder,
  begin as torch's do.
- The temperatures are held in [0.001, 1]; all stages start their warm-up at a rate of 1e-7 (there 1e-8 in the third).
- Films keep their aspect and get black margins; there they are squeezed into a square. Sentences of one word are left
  out. Biases and norms do not decay.
- Zero-shot classification here compares wholes, by the cosine alone; the released code adds the attention's score.
- The film is painted in [-1, 1], not in units of the corpus's deviation.
- Each process has its own BatchNorm statistics (there they are synchronised).
- A step asks the host for the matching, in one transfer (:func:`lingula.losses.matching.match_queries`).
- Reports of fewer than four sentences, which the authors leave out, are read like all others.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.data.transforms import Augmentation
from lingula.gather import mean_over_all
from lingula.keyed import keyed_gumbel, keyed_uniform
from lingula.losses.local_contrast import local_contrast
from lingula.losses.matching import match_queries
from lingula.losses.simsiam import simsiam
from lingula.nn.attention import AttentionPool, SigmoidCrossAttention, pad_sentences
from lingula.nn.contrast import Temperature, contrast_pairs
from lingula.nn.heads import UpsamplingDecoder
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.sentence_bank import SentenceBank
from lingula.nn.text_encoders import TextEncoder
from lingula.training.recipe import Recipe, Stage, from_scratch

STAGE_1 = {"global": 1.0, "local_image": 1.0, "local_text": 1.0}
STAGE_2 = {**STAGE_1, "prototypes": 10.0}  # with this term, prototypes stand for sentences everywhere
STAGE_3 = {
    **STAGE_2,
    "global": 10.0,
    "image_reconstruction": 1.0,
    "report_reconstruction": 10.0,
    "prototype_choice": 1.0,
    "global_prediction": 1.0,
}
OF_THE_REPORT = {"report_reconstruction", "prototype_choice", "global_prediction"}
LOWEST, HIGHEST = 1e-3, 1.0  # between which the two temperatures are held

PAPER = Recipe(
    stages=(
        Stage(20, STAGE_1),
        Stage(30, STAGE_2),
        Stage(100, STAGE_3, learning_rate=5e-6, warmup_epochs=5.0),
    ),
    resize_to=224,
    augmentation=Augmentation(flip=0.5, rotate=5.0),
    sentences="shuffled",
    learning_rate=1e-5,
    start_learning_rate=1e-7,
    weight_decay=1e-6,
    batch_size=98,
)

SCRATCH = from_scratch(
    Stage(4, STAGE_1),
    Stage(3, STAGE_2),
    Stage(3, STAGE_3, learning_rate=3e-4),
    sentences="shuffled",
    options={
        "dim": 128,
        "temperature": 0.07,
        "prototypes": 128,
        "decoder_layers": 2,
        "decoder_heads": 4,
        "decoder_widths": (32, 16, 8),
    },
)


class PRIOR(MethodBase):
    """PRIOR: sentences as prototypes, film and report made from each other (Cheng et al. 2023).

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels, of the film that is painted.
        dim: D, the width of all embeddings.
        temperature: first value of the two learned temperatures, of the wholes and of the sentences.
        prototypes: K, in the bank.
        bank_temperature: of the softmax over the bank.
        queries: how many sentences of a report can be made.
        decoder_layers, decoder_heads: of the transformer whose queries look at the film.
        dropout: share of the film's channels that are dropped before it is painted, in [0, 1).
        decoder_widths: channels of the blocks that paint the film.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "scratch": SCRATCH}
    views: ClassVar[int] = 1
    uses_text: ClassVar[bool] = True
    smallest_batch: ClassVar[int] = 1
    bank_in_use: Tensor

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_size: int,
        dim: int = 768,
        temperature: float = 0.01,
        prototypes: int = 512,
        bank_temperature: float = 0.9,
        queries: int = 16,
        decoder_layers: int = 8,
        decoder_heads: int = 12,
        dropout: float = 0.5,
        decoder_widths: tuple[int, ...] = (768, 384, 192, 96, 48),
    ) -> None:
        super().__init__(STAGE_3, image_encoder, text_encoder)
        if dim % decoder_heads:
            raise ValueError(f"width {dim} is not divisible by {decoder_heads} heads of the decoder")
        if not 0 <= dropout < 1 or queries < 1:
            raise ValueError(f"dropout must lie in [0, 1) and queries be 1 or more, got {dropout} and {queries}")
        if not LOWEST <= temperature <= HIGHEST:
            raise ValueError(f"temperature must lie in [{LOWEST}, {HIGHEST}], where it is learned, got {temperature}")
        self.dropout = dropout
        self.temperature_global, self.temperature_local = (
            Temperature(temperature, lowest=LOWEST, highest=HIGHEST) for _ in range(2)
        )
        self.image_pool = AttentionPool(image_encoder.width, heads=8, grid=image_encoder.grid)
        self.report_pool = AttentionPool(dim, heads=8)
        self.image_projection, self.patch_projection = (_linear(image_encoder.width, dim) for _ in range(2))
        self.sentence_projection = _linear(text_encoder.width, dim)
        self.cross_attention = SigmoidCrossAttention(dim)
        self.predictor = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(inplace=True), nn.Linear(dim // 2, dim))
        self.bank = SentenceBank(dim, prototypes, bank_temperature)
        self.register_buffer("bank_in_use", torch.tensor(False))  # whether training has come to the second stage
        self.image_decoder = UpsamplingDecoder(2 * dim, decoder_widths, image_size)
        self.queries = nn.Parameter(torch.randn(queries, dim))
        self.report_decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, decoder_heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True)
            for _ in range(decoder_layers)
        )

    # The two towers, each of which can be called alone.

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        pooled = self.image_pool(features.patches, grid=features.grid)
        return ImageEncoding(
            features, self.image_projection(pooled), self.patch_projection(features.patches), features.grid
        )

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings: mixtures of prototypes, without
        noise, once training has come to the second stage; before that the sentences as they are."""
        features = self.text_encoder(reports)
        sentences = self.sentence_projection(features.sentences)
        sentences = torch.where(self.bank_in_use, self.bank(sentences), sentences)
        return TextEncoding(features, self.pool_sentences(sentences, reports), sentences)

    def pool_sentences(self, sentences: Tensor, reports: Reports) -> Tensor:
        """``(N, D)`` sentences to ``(B, D)`` reports."""
        pooled: Tensor = self.report_pool(*pad_sentences(sentences, reports, len(reports.token_ids)))
        return pooled

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: the sigmoid weight, in (0, 1), with which each sentence draws from each place of its film."""
        image, text = self.encode_image(images), self.encode_text(reports)
        cross = self.cross_attention(image.patches, text.sentences, reports)
        return cross.sentence_weights.unflatten(1, image.grid)

    # The objective.

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms of the stage."""
        assert batch.reports is not None
        wanted = self.wanted
        image = self.encode_image(batch.image)
        patches = image.patches
        sentences = self.sentence_projection(self.text_encoder(batch.reports).sentences)  # s
        terms: dict[str, Tensor] = {}
        said = sentences
        if "prototypes" in wanted:
            said = self.bank(sentences, self.noise(batch, 1))  # s^
            terms["prototypes"] = mean_over_all((said - sentences).abs().mean(-1).sum(), len(said))
        report = self.pool_sentences(said, batch.reports)
        if "global" in wanted:
            terms["global"] = self.global_loss(image.embedding, report)
        if wanted & {"local_image", "local_text", "image_reconstruction"}:
            cross = self.cross_attention(patches, said, batch.reports)
            if "local_image" in wanted:
                terms["local_image"] = self.local_image_loss(patches, cross.report_to_image)
            if "local_text" in wanted:
                terms["local_text"] = self.local_text_loss(said, cross.image_to_report, batch.reports)
            if "image_reconstruction" in wanted:
                painted = self.paint(patches, cross.report_to_image, image.grid, batch)
                terms["image_reconstruction"] = F.l1_loss(painted.float(), batch.image.float())
        if wanted & OF_THE_REPORT:
            terms |= self.report_losses(patches, sentences, said, report, batch)
        return self.weigh(terms)

    def noise(self, batch: Batch, draw: int) -> Tensor | None:
        """``(N, K)`` Gumbel numbers of the batch's sentences, another for each ``draw``; ``None`` at evaluation."""
        if not self.training:
            return None
        assert batch.reports is not None
        return keyed_gumbel(batch.seed + draw, batch.reports.sentence_key, len(self.bank.prototypes))

    def global_loss(self, one: Tensor, other: Tensor) -> Tensor:
        """InfoNCE over the pairs of all processes, the mean of both directions."""
        there, back = contrast_pairs(one, other, self.temperature_global())
        return (there.mean() + back.mean()) / 2

    def local_image_loss(self, patches: Tensor, report_to_image: Tensor) -> Tensor:
        """SimSiam between patches and what the report holds for them, mean over B x P."""
        there = simsiam(self.predictor(patches), report_to_image)
        back = simsiam(self.predictor(report_to_image), patches)
        return (there.mean() + back.mean()) / 2

    def local_text_loss(self, sentences: Tensor, image_to_report: Tensor, reports: Reports) -> Tensor:
        """InfoNCE between sentences and what they drew, inside each report: mean over the report's sentences, then over
        reports. Sentences of other reports say the same too often to be negatives."""
        size = len(reports.token_ids)
        own, mask = pad_sentences(sentences, reports, size)
        drawn, _ = pad_sentences(image_to_report, reports, size)
        temperature = self.temperature_local()
        both = local_contrast(own, drawn, temperature, mask) + local_contrast(drawn, own, temperature, mask)
        return ((both / 2).sum(1) / mask.sum(1).clamp_min(1)).mean()

    def paint(self, patches: Tensor, report_to_image: Tensor, grid: tuple[int, int], batch: Batch) -> Tensor:
        """``(B, P, D)`` twice to ``(B, 1, H, W)``. In training half of the film's own channels are dropped, the others
        doubled; which, belongs to (seed, row)."""
        if self.training:
            kept = keyed_uniform(batch.seed, batch.rows, patches.shape[-1]) >= self.dropout  # (B, D)
            patches = patches * (kept.to(patches.dtype) / (1 - self.dropout))[:, None]
        fused = torch.cat([patches, report_to_image], dim=-1).transpose(1, 2)  # (B, 2D, P)
        painted: Tensor = self.image_decoder(fused.unflatten(2, grid))
        return painted

    def predict(self, patches: Tensor) -> Tensor:
        """``(B, P, D)`` patches to what the queries make of them, ``(B, Q, D)``, all at once."""
        x = self.queries.expand(len(patches), -1, -1)
        for layer in self.report_decoder:
            x = layer(x, patches)
        return x

    def report_losses(
        self, patches: Tensor, sentences: Tensor, said: Tensor, report: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """What the queries make of the film, held against the report.

        Args:
            patches: ``(B, P, D)``.
            sentences: ``(N, D)`` before the bank.
            said: ``(N, D)`` their mixtures of prototypes, which the queries shall make.
            report: ``(B, D)`` global embeddings of the reports.
            batch: whose film and report they are.
        """
        reports = batch.reports
        assert reports is not None
        most = min(reports.max_sentences, len(self.queries))
        target, mask = (x[:, :most] for x in pad_sentences(said, reports, len(batch)))  # (B, S, D), (B, S)
        made = self.predict(patches)  # (B, Q, D)
        made, target = (x if x.dtype == torch.float64 else x.float() for x in (made, target))
        cost = torch.cdist(made.detach(), target.detach(), p=1)  # (B, Q, S)
        query = match_queries(cost, mask)
        made = made.gather(1, query[..., None].expand(-1, -1, made.shape[-1]))  # (B, S, D), in the place of its target

        apart = (made - target).abs().mean(-1) * mask
        terms = {"report_reconstruction": (apart.sum(1) / mask.sum(1).clamp_min(1)).mean()}

        original = pad_sentences(sentences, reports, len(batch))[0][:, :most]
        chosen, wanted = self.bank.logits(made).log_softmax(-1), self.bank.logits(original).log_softmax(-1)
        divergence = F.kl_div(chosen, wanted, reduction="none", log_target=True).sum(-1) * mask  # (B, S)
        terms["prototype_choice"] = mean_over_all(divergence.sum(), mask.sum())

        if self.weights.get("prototypes"):
            noise = self.noise(batch, 2)
            if noise is not None:
                noise = pad_sentences(noise, reports, len(batch))[0][:, :most]
            made = self.bank(made, noise)
        terms["global_prediction"] = self.global_loss(self.report_pool(made, mask), report)
        return terms

    @torch.no_grad()
    def after_step(self) -> None:
        """Remember whether prototypes stand for sentences, for those who encode reports later."""
        if self.training:
            self.bank_in_use.fill_(bool(self.weights.get("prototypes")))


def _linear(features: int, dim: int) -> nn.Linear:
    """A Linear layer that keeps the length of what it projects, as the released code begins its projections."""
    layer = nn.Linear(features, dim)
    nn.init.normal_(layer.weight, std=features**-0.5)
    return layer
