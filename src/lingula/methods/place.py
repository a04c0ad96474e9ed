r"""PLACE: Pathological-Level Alignment and Correlation Exploration, arXiv:2506.10573 (Wang et al. 2025).

A re-implementation from the abstract; details ours. Neither the paper's full text nor its code could be had, so no
number of the paper may be expected of it. What is known, partly from summaries by others: learned queries extract
observations of a film from its patches, these are aligned with the observations that the report states, without
labels; and in a proxy task the correlations among the patches of a film are predicted, given the report.

Here a report's observations are its sentences. A set of observations and a set of sentences are compared by pairing
them softly, and each film shall find its report by that similarity; within a report, each sentence shall find what it
draws from the film. In the proxy task half of the patches are hidden, and what a hidden one holds is its place and the
report.

Learns from: films, their whole reports and the sentences of these, one view of a film.

Loss:

.. math:: \ell = \ell_\mathrm{NCE}\big(\cos(v_i, t_j)\big) + \Big[ \ell_\mathrm{NCE}(S_{ij}) + \tfrac12
          \ell_\mathrm{siblings} \Big] + \mathrm{smooth}_{L_1}\big(\hat C, \Sigma\big) + 0.01 \;
          \overline{\cos^2(O_q, O_{q'})}

with S the similarity of a film's observations O with a report's sentences
(:func:`lingula.losses.set_similarity.set_similarity`), :math:`\Sigma` the correlations of the film's patches and
:math:`\hat C` the predicted ones.

Differs from the paper:

- Whether anything below differs is unknown: only the abstract, summaries and one figure's caption were read. Each
  line names a choice that is ours, and the option or weight that changes it. Backbone, widths, temperatures, weights,
  rates and epochs of the paper are unknown too.
- The encoders are ResNet-50 and BioClinicalBERT; wholes are means over places and over tokens, and the four heads MLPs
  with BatchNorm (``hidden``, ``dim``). Every contrastive term is the mean of its two directions.
- An observation of the report is a sentence, the first 16 of a report (``max_sentences``).
- The extractor is a transformer decoder: 16 learned queries (``queries``), 2 layers (``layers``) of 8 heads
  (``heads``), sine positions, no dropout.
- Observations and sentences are paired softly (``pairing`` ``soft``); ``hungarian`` pairs them one to one, for which
  the host waits for the device; ``sinkhorn`` by a transport plan (``sinkhorn_epsilon``, ``sinkhorn_steps``).
- Their alignment (``pathology``) has two parts: films among reports, and sentences among their siblings of the same
  report, half as heavy (``lambda_in``). Sentences of other reports are never negatives, since the same words stand in
  many reports; nor are reports of the very same tokens.
- The term ``diversity``, against observations that all become one, is ours.
- Correlations are predicted: the abstract speaks of correlations among patches and does not say how they are measured;
  a summary by others has their covariance instead.
- What is correlated (``target``): ``pixel``, the greys of each patch averaged to 8 x 8; or ``ema``, the tokens of a
  momentum encoder (``momentum``). Of ``pixel``, patches in which nothing varies, such as black margins, are left out.
- Half of the patches are hidden (``mask_share``), after the image encoder: a convolution's places have seen something
  of their hidden neighbours. Without it the correlations could be read from the patches, and no report were needed.
- The correlations are predicted by two layers (``correlation_layers``) of attention from patches to the report's
  tokens. They do listen to the report, if little: :meth:`PLACE.correlation_gap`, measured in ``docs/comparison.md``.
- All temperatures are fixed: 0.07 for wholes (``temperature``), 0.1 for the softmax of the pairing
  (``pairing_temperature``) and for sets and siblings (``set_temperature``).
- AdamW for 50 epochs, as fine-tunings of such encoders go: 1e-4, a tenth of it for the text encoder.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.gather import evenly, gather, mean_over_all, row_counts, world
from lingula.keyed import keyed_uniform
from lingula.losses.cosine import unit
from lingula.losses.patch_correlation import correlation, correlation_loss, patch_pixels
from lingula.losses.set_similarity import Pairing, overlap, pair_sets, set_similarity, sibling_nce, similarity_nce
from lingula.nn.attention import pad_sentences
from lingula.nn.contrast import contrast_pairs, own_columns
from lingula.nn.heads import mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.momentum import MomentumEncoder
from lingula.nn.observations import MaskedPatches, ObservationExtractor
from lingula.nn.sentences import token_means
from lingula.nn.text_encoders import TextEncoder
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"global": 1.0, "pathology": 1.0, "correlation": 1.0, "diversity": 0.01}
TARGETS = ("pixel", "ema")
FLAT = 1e-3  # a patch's standard deviation, where a film's greys are in [-1, 1], below which it is a margin

PAPER = Recipe(  # ours: the paper's is unknown
    stages=(Stage(50, WEIGHTS),),
    learning_rate=1e-4,
    text_learning_rate=1e-5,
    warmup_epochs=5.0,
    weight_decay=0.05,
    batch_size=144,
    clip=1.0,
)

SCRATCH = from_scratch(Stage(10, WEIGHTS), options={"dim": 128, "hidden": 256, "queries": 16, "layers": 2, "heads": 4})


class Observed(NamedTuple):
    """What sentences find on their films.

    Attributes:
        image_to_report: ``(N, D)``: for each sentence, the mean of its film's observations by the soft pairing.
        sentence_weights: ``(N, P)``, adding up to 1 over P: where these observations were seen.
    """

    image_to_report: Tensor
    sentence_weights: Tensor


class PLACE(MethodBase):
    """PLACE: observations of the film aligned with sentences; re-implementation from the abstract (Wang et al. 2025).

    A re-implementation from the abstract; details ours. The options below are choices of ours.

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels; not used.
        dim: D, the width of all embeddings, divisible by 4 and by ``heads``.
        hidden: width of the hidden layer of the four projections, which has a BatchNorm.
        queries: Q, observations of a film.
        layers: of the extractor.
        heads: of every attention.
        max_sentences: sentences of a report that are aligned, from the first.
        temperature: of films and reports as wholes.
        pairing: ``soft``, ``hungarian`` or ``sinkhorn`` (:class:`lingula.losses.set_similarity.Pairing`).
        pairing_temperature: of the softmax of the soft pairing.
        sinkhorn_epsilon, sinkhorn_steps: of the transport plan.
        set_temperature: of sets among sets and of sentences among siblings.
        lambda_in: weight, within ``pathology``, of sentences among their siblings; 0 leaves them out.
        target: ``pixel`` or ``ema``: what the predicted correlations are correlations of.
        mask_share: the share of patches that is hidden, in (0, 1).
        correlation_layers: of attention from patches to the report's tokens.
        momentum: of the momentum encoder of ``ema``.
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
        dim: int = 256,
        hidden: int = 2048,
        queries: int = 16,
        layers: int = 2,
        heads: int = 8,
        max_sentences: int = 16,
        temperature: float = 0.07,
        pairing: str = "soft",
        pairing_temperature: float = 0.1,
        sinkhorn_epsilon: float = 0.05,
        sinkhorn_steps: int = 5,
        set_temperature: float = 0.1,
        lambda_in: float = 0.5,
        target: str = "pixel",
        mask_share: float = 0.5,
        correlation_layers: int = 2,
        momentum: float = 0.996,
    ) -> None:
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        if target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got '{target}'")
        if not 0 < mask_share < 1 or max_sentences < 1 or lambda_in < 0:
            raise ValueError(
                "mask_share in (0, 1), max_sentences >= 1 and lambda_in >= 0, got "
                f"{mask_share}, {max_sentences} and {lambda_in}"
            )
        if min(temperature, set_temperature) <= 0:
            raise ValueError(f"temperatures must be positive, got {temperature} and {set_temperature}")
        self.max_sentences = max_sentences
        self.temperature, self.set_temperature = temperature, set_temperature
        self.pairing = Pairing(pairing, pairing_temperature, sinkhorn_epsilon, sinkhorn_steps)
        self.soft = Pairing("soft", pairing_temperature)
        self.lambda_in = lambda_in
        self.mask_share = mask_share
        image_width, text_width = image_encoder.width, text_encoder.width
        self.image_projection = mlp(image_width, hidden, dim)
        self.patch_projection = mlp(image_width, hidden, dim)
        self.report_projection = mlp(text_width, hidden, dim)
        self.sentence_projection = mlp(text_width, hidden, dim)
        self.extractor = ObservationExtractor(dim, image_encoder.grid, queries, layers, heads)
        self.masked_patches = MaskedPatches(dim, text_width, image_encoder.grid, correlation_layers, heads)
        self.momentum_encoder = MomentumEncoder(image_encoder, momentum) if target == "ema" else None

    # The two towers, each of which can be called alone.

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        patches = self.patch_projection(features.patches.flatten(0, 1)).unflatten(0, features.patches.shape[:2])
        return ImageEncoding(features, self.image_projection(features.pooled), patches, features.grid)

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings."""
        features = self.text_encoder(reports)
        report = self.report_projection(token_means(features.tokens, features.token_mask))
        return TextEncoding(features, report, self.sentence_projection(features.sentences))

    def cross_attention(
        self, patches: Tensor, sentences: Tensor, reports: Reports, grid: tuple[int, int] | None = None
    ) -> Observed:
        """What each of the ``(N, D)`` sentences finds on its film, of ``(B, P, D)`` patches.

        The pairing is the soft one, whichever was trained with: a film's observations weighted by the softmax of their
        cosines with the sentence.
        """
        observations, seen = self.extractor(patches, grid)  # (B, Q, D), (B, Q, P)
        own = reports.report_of_sentence
        with torch.autocast(patches.device.type, enabled=False):
            each = unit(observations)[own]  # (N, Q, D)
            cosines = each @ unit(sentences)[..., None]  # (N, Q, 1)
            weights, _ = pair_sets(cosines, torch.ones_like(cosines[:, 0], dtype=torch.bool), self.soft)
            drawn = (weights * each).sum(1)
            maps = (weights * seen[own].to(weights.dtype)).sum(1)
        return Observed(drawn, maps)

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: the maps of the film's observations, which are the weights of the last cross-attention of the
        extractor, added up by the soft pairing of these observations with the sentence."""
        image, text = self.encode_image(images), self.encode_text(reports)
        observed = self.cross_attention(image.patches, text.sentences, reports, image.grid)
        return observed.sentence_weights.unflatten(1, image.grid)

    # The objective.

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms."""
        assert batch.reports is not None
        wanted = self.wanted
        image, text = self.encode_image(batch.image), self.encode_text(batch.reports)
        patches, sentences, tokens = image.patches, text.sentences, text.features
        terms: dict[str, Tensor] = {}
        if "global" in wanted:
            image_to_text, text_to_image = contrast_pairs(image.embedding, text.embedding, self.temperature)
            terms["global"] = 0.5 * (image_to_text.mean() + text_to_image.mean())
        if wanted & {"pathology", "diversity"}:
            observations, _ = self.extractor(patches)
            if "pathology" in wanted:
                terms["pathology"] = self.pathology_loss(observations, sentences, batch.reports)
            if "diversity" in wanted:
                terms["diversity"] = overlap(observations).mean()
        if "correlation" in wanted:
            terms["correlation"] = self.correlation_loss(patches, tokens.tokens, tokens.token_mask, batch)
        return self.weigh(terms)

    def sentence_sets(self, sentences: Tensor, reports: Reports) -> tuple[Tensor, Tensor]:
        """``(N, D)`` sentences as sets, ``(B, S, D)`` and ``(B, S)`` bool; S is the same on all processes."""
        padded, mask = pad_sentences(sentences, reports, len(reports.token_ids))
        room = max(row_counts(reports.max_sentences, padded.device)) - reports.max_sentences
        padded, mask = F.pad(padded, (0, 0, 0, room)), F.pad(mask, (0, room))
        return padded[:, : self.max_sentences], mask[:, : self.max_sentences]

    def pathology_loss(self, observations: Tensor, sentences: Tensor, reports: Reports) -> Tensor:
        """Films and reports find each other among those of all processes by their sets; then sentences among siblings.

        A report without sentences is nobody's candidate and adds nothing.
        """
        sets, mask = self.sentence_sets(sentences, reports)
        between = self.contrast_sets(observations, sets, mask, reports)
        present = mask.any(1)
        loss = mean_over_all(torch.where(present, between, between.new_zeros(())).sum(), present.sum())
        if self.lambda_in:
            with torch.autocast(observations.device.type, enabled=False):
                each = unit(observations)
                weights, _ = pair_sets(each @ unit(sets).transpose(1, 2), mask, self.pairing)  # (B, Q, S)
                drawn, paired = weights.transpose(1, 2) @ each, weights.detach().sum(1) > 0.5
            siblings = sibling_nce(drawn, sets, paired, self.set_temperature)  # 0 of a report without sentences
            loss = loss + self.lambda_in * mean_over_all(siblings.sum(), present.sum())
        return loss

    def contrast_sets(self, observations: Tensor, sets: Tensor, mask: Tensor, reports: Reports) -> Tensor:
        """``(n,)`` nats, the mean of both directions, of this process's films and reports."""
        count, processes = len(observations), world()[1]
        sizes = evenly(observations)
        everyone = gather(sets, sizes), gather(mask.long(), sizes).bool()
        image_to_text = set_similarity(observations, *everyone, self.pairing)  # (n, N)
        if processes == 1:
            text_to_image = image_to_text.T
        else:
            text_to_image = set_similarity(gather(observations, sizes), sets, mask, self.pairing).T
        positive = own_columns(count, observations.device)
        excluded = self.same_text(reports) | ~everyone[1].any(1)
        one, other = (
            similarity_nce(similarity, positive, excluded, self.set_temperature)
            for similarity in (image_to_text, text_to_image)
        )
        return 0.5 * (one + other)

    @torch.no_grad()
    def same_text(self, reports: Reports) -> Tensor:
        """``(n, N)`` bool: whether this process's reports and those of all processes are the same tokens."""
        ids = torch.where(reports.token_mask, reports.token_ids, -1)
        longest = max(row_counts(ids.shape[1], ids.device))
        ids = F.pad(ids, (0, longest - ids.shape[1]), value=-1)
        return (ids[:, None] == gather(ids, evenly(ids))).all(-1)

    def hide(self, batch: Batch, places: int) -> Tensor:
        """``(B, P)`` bool: the patches that are hidden, equally many of each film; a function of (seed, row)."""
        rank = keyed_uniform(batch.seed, batch.rows, places).argsort(1).argsort(1)
        return rank < max(1, round(self.mask_share * places))

    @torch.no_grad()
    def correlations(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The target: ``(B, P, P)`` correlations, and the ``(B, P)`` patches that have any."""
        if self.momentum_encoder is None:
            return correlation(patch_pixels(batch.image, self.image_encoder.grid), centre=-1, smallest=FLAT)
        return correlation(self.momentum_encoder(batch.image).patches, centre=-2)

    def correlation_loss(self, patches: Tensor, tokens: Tensor, token_mask: Tensor, batch: Batch) -> Tensor:
        """The error of the predicted correlations over all pairs of two patches of which one at least is hidden."""
        masked = self.hide(batch, patches.shape[1])
        prediction, _ = correlation(self.masked_patches(patches, masked, tokens, token_mask), centre=-2)
        target, varies = self.correlations(batch)
        pairs = (masked[:, :, None] | masked[:, None, :]) & varies[:, :, None] & varies[:, None, :]
        pairs = pairs & ~torch.eye(patches.shape[1], dtype=torch.bool, device=patches.device)
        return correlation_loss(prediction, target, pairs).mean()

    @torch.no_grad()
    def correlation_gap(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Whether the report is of any use for the correlations: their error with each film's own report, and with the
        next film's of the batch, round the end, the same patches hidden.

        Where the second is not larger, reports are not listened to, and ``target`` ``ema`` is worth a try. Call it in
        evaluation mode, on batches of two films or more.
        """
        assert batch.reports is not None
        patches = self.encode_image(batch.image).patches
        text = self.text_encoder(batch.reports)
        own = self.correlation_loss(patches, text.tokens, text.token_mask, batch)
        swapped = self.correlation_loss(patches, text.tokens.roll(-1, 0), text.token_mask.roll(-1, 0), batch)
        return own, swapped

    def after_step(self) -> None:
        """The momentum encoder follows, where there is one."""
        if self.momentum_encoder is not None and self.training:
            self.momentum_encoder.follow(self.image_encoder)
