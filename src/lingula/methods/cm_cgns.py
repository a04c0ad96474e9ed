r"""CM-CGNS: Cross-Modal Clustering-Guided Negative Sampling, arXiv:2506.11674 (Lan et al. 2025).

A film and its report are aligned as wholes (InfoNCE), and sentence by sentence: each sentence draws from its film a
cross-modal representation by sigmoid attention, and has to find it among those of the whole batch *and* among the
centres of their clusters, the nearest of which are "hard negatives". Members of the cluster that the sentence is
nearest to are taken for false negatives: a margin keeps them less similar than the sentence's own, but not by much. In
the second stage masked patches are completed by what the report says of them, and the film is painted again.

Learns from: films and their whole reports, sentence by sentence, one view of a film.

Loss:

.. math:: \mathcal L = \mathcal L_{global} + \mathcal L_{report} + \mathcal L_{margin} + \mathcal L_{image}
          + 10\, \mathcal L_{reconstruction}

Eq. 13 with Eq. 11 multiplied out: Eqs. 1-4, 7, 9, 10 and 12.

Differs from the paper:

- The released code does not import and differs from the paper in many places. The recipe ``paper`` follows the
  equations; ``official`` follows what that code computes where this is meaningful; ``scratch`` is for encoders without
  pre-trained weights.
- Which hard negatives enter Eq. 7 is open in the paper: four readings, by the option ``hard_negatives``. Eq. 7 has mu
  as a matrix before the whole set C*, inside the sum over k. In ``others`` mu weights the exponential of c^2 alone, the
  other centres weigh 1, and the sum over them is added once, since it has no k. In ``batch`` the matrix is mu on its
  diagonal, so a sentence's own hard negative weighs mu, and 1 off it, where the paper names no value.
- The products of Eq. 7 are cosines, as in the released code: both sides have unit length. The paper names cosines for
  Eqs. 1 and 8-10 and for the order of the centres, not for Eq. 7.
- k-means is spherical: points and centres of unit length, compared by cosine. The paper says K-means.
- Each modality has its own Q, K and V, without a bias, and uses them in both directions. The released code has them so,
  with a bias; Eqs. 5 and 6 write the same Q, K and V for both.
- K = 128, Adam, its weight decay of 1e-6, the warm-up epoch from 1e-7 that begins each stage, and the end of the cosine
  at 0 are the released code's; section IV-B names none of them. Its batch of 64 is read as that of each process.
- False negatives stay in the sum over k of Eq. 7, as it is printed; ``mask_false_negatives`` leaves them out.
- K is clamped to half the sentences of a batch, but is 2 at least; the attention is fed with un-normalised projections.
- The L1 norm of Eq. 12 is a mean over the pixels, or its weight of 10 would outweigh everything.
- A sixth term is ours and off, ``film``: each sentence, its query held fixed, finds its own film among the films of its
  process.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.batch import Batch, ImageEncoding, Reports, TextEncoding
from lingula.gather import evenly, gather, mean_over_all, row_counts, world
from lingula.keyed import keyed_uniform
from lingula.losses.cluster_guided import (
    HARD_NEGATIVES,
    bidirectional_margin,
    cluster_guided_nce,
    count,
    false_negative_mask,
    rank_centres,
)
from lingula.losses.cosine import dot, unit
from lingula.losses.info_nce import info_nce
from lingula.losses.simsiam import simsiam
from lingula.losses.tiles import sum_over_tiles
from lingula.nn.attention import AttentionPool, CrossModal, SigmoidCrossAttention, pad_sentences
from lingula.nn.clusters import CarriedCentres, OnlineCentres
from lingula.nn.contrast import Temperature, own_columns
from lingula.nn.heads import ConvDecoder, mlp
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.kmeans import Clusters, spherical_kmeans
from lingula.nn.method import MethodBase
from lingula.nn.sentences import sentence_means
from lingula.nn.text_encoders import TextEncoder
from lingula.training.recipe import Recipe, Stage, from_scratch

# Eq. 13 with Eq. 11 multiplied out. "film" is ours and off: --weights.film 1 (CMCGNS.film_loss).
STAGE_1 = {"global": 1.0, "report": 1.0, "margin": 1.0, "image": 1.0, "film": 0.0}
STAGE_2 = {**STAGE_1, "reconstruction": 10.0}

PAPER = Recipe(  # section IV-B; Adam, the warm-up and the weight decay are the released code's
    stages=(Stage(10, STAGE_1), Stage(20, STAGE_2)),
    optimizer="adam",
    learning_rate=1e-5,
    start_learning_rate=1e-7,
    weight_decay=1e-6,
    batch_size=64,
)

OFFICIAL_WEIGHTS = {**STAGE_1, "global": 0.5, "margin": 1e-4}  # 0.5: the mean of two directions
OFFICIAL = Recipe(
    stages=(Stage(10, OFFICIAL_WEIGHTS), Stage(20, {**OFFICIAL_WEIGHTS, "reconstruction": 10.0})),
    optimizer="adam",
    learning_rate=1e-5,
    start_learning_rate=1e-7,
    weight_decay=1e-6,
    batch_size=64,
    options={
        "temperature_global": 0.1,
        "learnable_temperature": True,
        "temperature_local": 1.0,
        "projection_layers": 1,
        "project_tokens": True,
        "clustering": "online",
        "hard_negatives": "official",
        "false_negatives": "text",
        "mask": "channels",
    },
)

SCRATCH = from_scratch(
    Stage(8, STAGE_1),
    Stage(2, STAGE_2),
    options={
        "dim": 128,
        "temperature_global": 0.03,
        "temperature_local": 0.07,
        "normalise_attention": True,
        "decoder_widths": (64, 32, 16, 8),
    },
)


class CMCGNS(MethodBase):
    """CM-CGNS: wholes aligned, and sentences among clusters of what they drew from films (Lan et al. 2025).

    Args:
        image_encoder, text_encoder: the two towers.
        image_size: H = W in pixels, of the film that is painted.
        dim: D, the width of all embeddings.
        temperature_global: tau_1, Eqs. 2-3.
        learnable_temperature: learn tau_1 (official), held in [0.01, 1].
        temperature_local: tau_3, Eq. 7.
        projection_layers: of the four projections: 2 for MLPs, 1 for Linear layers (official).
        project_tokens: project and normalise each token before the mean over its sentence, and pool the projected
            sentences without a further projection (official).
        normalise_attention: LayerNorm before Q, K and V (ours, for training from scratch).
        clustering: ``batch``: k-means of every batch; ``online``: one bank of centres (official).
        clusters: K, clamped to half the sentences of the batch, but 2 at least; an ``online`` bank has all K.
        cluster_every: cluster one batch in so many and assign the others to its centres. Cheaper and worse (ours).
        hard_negatives: a reading of Eq. 7 (:func:`lingula.losses.cluster_guided.cluster_guided_nce`), or ``none`` for
            the conventional local alignment that Table IV starts from.
        mu: weight of the hard negative, Eq. 7.
        mask_false_negatives: leave the false negatives, as ``cross_modal`` has them, out of the sum over k in Eq. 7.
        false_negatives: ``cross_modal``: representations in the cluster nearest to the sentence, mean over the pairs
            (the text above Eq. 8); ``text``: sentences with the same nearest centre, mean over all N x N (official).
        alpha, beta: margins of Eq. 9, in units of cosine.
        mask: what CM-MIR zeroes: ``patches`` (the paper) or ``channels`` (official).
        mask_ratio: the probability, in (0, 1), with which it zeroes each.
        decoder_widths: channels of CM-MIR's convolutions.
    """

    recipes: ClassVar[dict[str, Recipe]] = {"paper": PAPER, "official": OFFICIAL, "scratch": SCRATCH}
    views: ClassVar[int] = 1
    uses_text: ClassVar[bool] = True
    smallest_batch: ClassVar[int] = 1
    tile: ClassVar[int] = 512  # anchors of the report loss at a time

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_size: int,
        dim: int = 768,
        temperature_global: float = 0.01,
        learnable_temperature: bool = False,
        temperature_local: float = 0.01,
        projection_layers: int = 2,
        project_tokens: bool = False,
        normalise_attention: bool = False,
        clustering: str = "batch",
        clusters: int = 128,
        cluster_every: int = 1,
        hard_negatives: str = "others",
        mu: float = 3.0,
        mask_false_negatives: bool = False,
        false_negatives: str = "cross_modal",
        alpha: float = 0.2,
        beta: float = 0.5,
        mask: str = "patches",
        mask_ratio: float = 0.5,
        decoder_widths: tuple[int, ...] = (512, 256, 128, 64, 32),
    ) -> None:
        super().__init__(STAGE_2, image_encoder, text_encoder)
        _one_of("clustering", clustering, ("batch", "online"))
        _one_of("hard_negatives", hard_negatives, (*HARD_NEGATIVES, "none"))
        _one_of("false_negatives", false_negatives, ("cross_modal", "text"))
        _one_of("mask", mask, ("patches", "channels"))
        if not 0 <= alpha <= beta:
            raise ValueError(f"the margins must satisfy 0 <= alpha <= beta, got alpha={alpha} and beta={beta}")
        if clustering == "online" and cluster_every > 1:
            raise ValueError("cluster_every goes with clustering 'batch': the online bank is never clustered anew")
        if not 0 < mask_ratio < 1 or clusters < 2 or mu <= 0 or cluster_every < 1:
            raise ValueError(
                "mask_ratio in (0, 1), clusters >= 2, mu > 0 and cluster_every >= 1, "
                f"got {mask_ratio}, {clusters}, {mu} and {cluster_every}"
            )
        if temperature_local <= 0:
            raise ValueError(f"temperatures must be positive, got {temperature_local}")
        self.temperature_local = temperature_local  # tau_3
        self.project_tokens = project_tokens
        self.clusters = clusters  # K
        self.hard_negatives = hard_negatives
        self.mu = mu
        self.mask_false_negatives = mask_false_negatives
        self.false_negatives = false_negatives
        self.alpha, self.beta = alpha, beta
        self.mask, self.mask_ratio = mask, mask_ratio

        self.temperature_global = Temperature(temperature_global, learnable_temperature)  # tau_1
        image_width, text_width = image_encoder.width, text_encoder.width
        # "We use four Multi-Layer Perceptrons (MLPs) to map f^I_ip, f^R_im and f^I_i, f^R_i to the same dimension D"
        widths = (dim,) * projection_layers
        self.patch_projection = mlp(image_width, *widths, norm=False)
        self.sentence_projection = mlp(text_width, *widths, norm=False)
        self.image_projection = mlp(image_width, *widths, norm=False)
        self.image_pool = AttentionPool(image_width, heads=8, grid=image_encoder.grid)
        self.report_projection: nn.Module = nn.Identity()
        if not project_tokens:
            self.report_projection = mlp(text_width, *widths, norm=False)
        self.report_pool = AttentionPool(dim if project_tokens else text_width, heads=8)
        self.cross_attention = SigmoidCrossAttention(dim, normalise_attention)
        self.online = OnlineCentres(dim, clusters) if clustering == "online" else None
        self.carried = CarriedCentres(dim, clusters, cluster_every) if cluster_every > 1 else None
        self.predictor = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(inplace=True), nn.Linear(dim // 2, dim))
        self.decoder = ConvDecoder(2 * dim, decoder_widths, image_size)

    # The two towers, each of which can be called alone.

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1] to features, ``(B, D)`` global and ``(B, P, D)`` patch embeddings."""
        features = self.image_encoder(images)
        pooled = self.image_pool(features.patches, grid=features.grid)
        return ImageEncoding(
            features, self.image_projection(pooled), self.patch_projection(features.patches), features.grid
        )

    def encode_text(self, reports: Reports) -> TextEncoding:
        """Reports to features, ``(B, D)`` global and ``(N, D)`` sentence embeddings."""
        features = self.text_encoder(reports)
        if self.project_tokens:
            tokens = F.normalize(self.sentence_projection(features.tokens), dim=-1)
            sentences = sentence_means(tokens, reports.sentence_of_token, reports.sentence_count)
            pooled_from = sentences
        else:
            sentences = self.sentence_projection(features.sentences)
            pooled_from = features.sentences
        padded, mask = pad_sentences(pooled_from, reports, len(reports.token_ids))
        return TextEncoding(features, self.report_projection(self.report_pool(padded, mask)), sentences)

    def attend(self, images: Tensor, reports: Reports) -> CrossModal:
        """Eqs. 5-6 for B pairs."""
        return self.cross_attention(self.encode_image(images).patches, self.encode_text(reports).sentences, reports)

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: how much each patch counts for each sentence, Eq. 6."""
        image, text = self.encode_image(images), self.encode_text(reports)
        cross = self.cross_attention(image.patches, text.sentences, reports)
        return cross.sentence_weights.unflatten(1, image.grid)

    # The objective, Eq. 13.

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """B pairs to the weighted terms of the stage: scalars that add up to the loss of Eq. 13."""
        assert batch.reports is not None
        wanted = self.wanted
        image, text = self.encode_image(batch.image), self.encode_text(batch.reports)
        patches, sentences = image.patches, text.sentences
        terms: dict[str, Tensor] = {}
        if "global" in wanted:
            terms["global"] = self.global_loss(image.embedding, text.embedding)
        if wanted - {"global"}:
            cross = self.cross_attention(patches, sentences, batch.reports)
            if wanted & {"report", "margin"}:
                report_loss, margin = self.report_losses(sentences, cross.image_to_report, batch)
                terms |= {"report": report_loss, "margin": margin}
            if "image" in wanted:
                terms["image"] = self.image_loss(patches, cross.report_to_image)
            if "film" in wanted:
                terms["film"] = self.film_loss(patches, sentences, batch.reports)
            if "reconstruction" in wanted:
                terms["reconstruction"] = self.reconstruction_loss(patches, cross.report_to_image, batch)
        return self.weigh(terms)

    def global_loss(self, image: Tensor, report: Tensor) -> Tensor:
        """Eqs. 1-4: InfoNCE over the pairs of all processes, equally many on each, both directions summed."""
        # Each equation has a product of its own. contrast_pairs would share one, and round the gradient differently
        # from the runs whose numbers are in docs/.
        temperature, own = self.temperature_global(), own_columns(len(image), image.device)
        image_to_report = info_nce(image, gather(report, evenly(report)), temperature, own)  # Eq. 2
        report_to_image = info_nce(report, gather(image, evenly(image)), temperature, own)  # Eq. 3
        return image_to_report.mean() + report_to_image.mean()

    def find_clusters(
        self, cross_modal: Tensor, keys: Tensor, seed: int, sizes: list[int] | None = None, step: int = 0
    ) -> Clusters:
        """Clusters of the ``(N, D)`` f^{I->R} of the batch; ``keys (N,)`` say which sentences they belong to.

        "We cluster all the sentence cross-modal representations f^{I->R} into K clusters."
        """
        if self.online is not None:
            bank: Clusters = self.online(cross_modal, seed, keys)
            return bank
        # At least two clusters: with one there would be no second-nearest centre to take for a hard negative.
        clusters = max(2, min(self.clusters, len(cross_modal) // 2))
        if self.carried is not None:
            carried: Clusters = self.carried(cross_modal, clusters, seed, keys, sizes, step)
            return carried
        return spherical_kmeans(cross_modal, clusters, seed, keys, sizes=sizes)

    def report_losses(self, sentences: Tensor, cross_modal: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Eq. 7 and Eq. 9, a tile of anchors at a time: of cosines there are never more than tile x N and tile x K.

        Args:
            sentences: ``(n, D)`` this process's f^R, the anchors.
            cross_modal: ``(n, D)`` their f^{I->R}; those of all processes are the candidates.
        """
        assert batch.reports is not None
        sizes = batch.reports.sentences_of_all or row_counts(len(sentences), sentences.device)
        candidates = gather(cross_modal, sizes)  # (N, D)
        keys = gather(batch.reports.sentence_key, sizes)
        positive = sum(sizes[: world()[0]]) + torch.arange(len(sentences), device=sentences.device)
        anchors, candidates = unit(sentences), unit(candidates)

        if self.hard_negatives == "none":

            def conventional(anchors: Tensor, positive: Tensor) -> tuple[Tensor]:
                logits = dot(anchors, candidates) / self.temperature_local
                return (F.cross_entropy(logits, positive, reduction="sum"),)

            (nce,) = sum_over_tiles(conventional, (anchors, positive), self.tile)
            return mean_over_all(nce, len(sentences)), nce.new_zeros(())

        centres, assignment, exist = self.find_clusters(candidates.detach(), keys, batch.seed, sizes, batch.step)
        if len(centres) < 2:  # a batch of one sentence: no negatives of any kind
            return (anchors * 0).sum(), (anchors * 0).sum()
        nearest, hardest = rank_centres(dot(anchors.detach(), centres))
        hard_counts = count(gather(hardest, sizes), len(centres))
        every_nearest = gather(nearest, sizes) if self.false_negatives == "text" else None

        def part(anchors: Tensor, positive: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            similarity = dot(anchors, candidates)  # (tile, N)
            pairs = false_negative_mask(nearest, assignment, positive)  # (tile, N)
            nce = cluster_guided_nce(
                similarity,
                dot(anchors, centres),
                positive,
                self.temperature_local,
                self.mu,
                self.hard_negatives,
                hard_counts,
                excluded=pairs if self.mask_false_negatives else None,
                exist=exist,
            )
            if every_nearest is not None:
                # The released code pairs sentences by *their* nearest centres. Its Delta is the paper's all the same:
                # cosines of a sentence with cross-modal representations.
                pairs = false_negative_mask(nearest, every_nearest, positive)
                pairs = pairs if exist is None else pairs & exist
            positive_similarity = similarity.gather(1, positive[:, None])[:, 0]
            margin = bidirectional_margin(similarity, positive_similarity, pairs, self.alpha, self.beta)
            return nce.sum(), margin.sum(), pairs.sum()

        nce, margin, pair_count = sum_over_tiles(part, (anchors, positive, nearest), self.tile)
        if every_nearest is not None:  # and averages over every pair of the batch
            pair_count = torch.full_like(pair_count, len(anchors) * len(candidates))
        return mean_over_all(nce, len(sentences)), mean_over_all(margin, pair_count)

    def film_loss(self, patches: Tensor, sentences: Tensor, reports: Reports) -> Tensor:
        """Not the paper's: each sentence, its query held fixed, finds its own film among this process's B films.

        Under Eq. 7 a sentence can find its representation by recognising its own query in it, whatever the film shows
        (the swap test). Here only the film differs between the candidates, so there is nothing else to recognise.
        """
        similarity = self.cross_attention.film_similarity(patches, sentences)  # (N, B)
        loss = F.cross_entropy(similarity / self.temperature_local, reports.report_of_sentence, reduction="sum")
        return mean_over_all(loss, len(sentences))

    def image_loss(self, patches: Tensor, report_to_image: Tensor) -> Tensor:
        """Eq. 10: SimSiam between patches and what the report says of them, mean over B x P."""
        there = simsiam(self.predictor(patches), report_to_image)
        back = simsiam(self.predictor(report_to_image), patches)
        return 0.5 * there.mean() + 0.5 * back.mean()

    def reconstruct(self, patches: Tensor, report_to_image: Tensor, rows: Tensor, seed: int) -> Tensor:
        """CM-MIR: ``(B, P, D)`` twice to ``(B, 1, H, W)``. The mask belongs to (seed, row), so it can be drawn
        again."""
        ratio, (size, places, width) = self.mask_ratio, patches.shape
        draws = places if self.mask == "patches" else width
        kept = (keyed_uniform(seed, rows, draws) >= ratio).to(patches.dtype)  # "mask with a probability of 50%"
        kept = kept[:, :, None] if self.mask == "patches" else kept[:, None, :]
        fused = torch.cat([report_to_image, patches * kept], dim=-1)  # (B, P, 2D)
        return self.decoder(fused.transpose(1, 2).reshape(size, 2 * width, *self.image_encoder.grid))

    def reconstruction_loss(self, patches: Tensor, report_to_image: Tensor, batch: Batch) -> Tensor:
        """Eq. 12, the L1 as a mean over pixels: in units of the film's range [-1, 1]."""
        painted = self.reconstruct(patches, report_to_image, batch.rows, batch.seed)
        return F.l1_loss(painted.float(), batch.image)

    def after_step(self) -> None:
        """Move what moves without gradient: the bank of centres, where there is one."""
        if self.online is not None:
            self.online.after_step()

    def warnings(self) -> list[str]:
        """A bank of centres that never started gave no hard negatives."""
        if self.online is None or self.online.started:
            return []
        return [
            f"no batch had at least {len(self.online.centres)} sentences with mean cosine "
            f"<= {self.online.start_below}, so there were no hard negatives"
        ]


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got '{value}'")
