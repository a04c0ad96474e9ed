r"""The local report loss of CM-CGNS: InfoNCE whose negatives are completed by cluster centres.

Source: arXiv:2506.11674, Eqs. 7-9. "We treat the samples in the cluster associated with the cluster center c^1 that
is most similar to the sentence representation as false negatives."

Everything here reads two matrices of cosines: sentences x cross-modal representations (N x N) and sentences x centres
(N x K). Nothing of size N x N x D or N x K x D is ever made.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HARD_NEGATIVES = ("others", "batch", "own", "official")


def rank_centres(centre_similarity: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each sentence, c^1, and the next, c^2: its hard negative.

    Args:
        centre_similarity: ``(n, K)`` cosines of the sentences with the centres, K >= 2.
    Returns:
        ``(n,)`` and ``(n,)`` int64, places in [0, K).
    """
    first_two = centre_similarity.topk(2, dim=1).indices
    return first_two[:, 0], first_two[:, 1]


def count(places: Tensor, bins: int) -> Tensor:
    """How often each of ``bins`` places occurs, ``(bins,)`` int64; unlike torch.bincount it never asks the device."""
    return torch.zeros(bins, dtype=torch.int64, device=places.device).index_add_(0, places, torch.ones_like(places))


def _extra_logits(
    centre_similarity: Tensor, hard_counts: Tensor | None, sentences: int, temperature: float, mu: float, reading: str
) -> Tensor:
    """Logits, weights included, of what Eq. 7 adds to the denominator: ``(n, columns)``. A weight w is +log w."""
    logits = centre_similarity / temperature
    nearest, hardest = rank_centres(centre_similarity)
    columns = torch.arange(logits.shape[1], device=logits.device)
    if reading == "others":  # mu exp(f.c2/tau) + sum over r = 3..K of exp(f.cr/tau)
        logits = logits + math.log(mu) * (columns == hardest[:, None])
        return logits.masked_fill(columns == nearest[:, None], -torch.inf)
    if reading == "own":  # mu exp(f.c2/tau)
        return logits.gather(1, hardest[:, None]) + math.log(mu)
    if reading == "batch":  # sum over k of mu_jk exp(f_j.h_k/tau): the same h_k many times over, so count them
        if hard_counts is None:
            hard_counts = count(hardest, logits.shape[1])
        weights = hard_counts + (mu - 1.0) * (columns == hardest[:, None])  # mu_jj = mu, the others 1
        weights = weights.masked_fill(columns == nearest[:, None], 0.0).to(logits.dtype)
        return logits + weights.log()
    # The released code multiplies the logit by mu and turns every other sentence's hard negative into exp(0) = 1.
    own = mu * logits.gather(1, hardest[:, None])
    if sentences == 1:
        return own
    return torch.cat([own, own.new_full((len(own), 1), math.log(sentences - 1))], dim=1)


def cluster_guided_nce(
    similarity: Tensor,
    centre_similarity: Tensor,
    positive: Tensor,
    temperature: float,
    mu: float = 3.0,
    hard_negatives: str = "others",
    hard_counts: Tensor | None = None,
    excluded: Tensor | None = None,
    exist: Tensor | None = None,
) -> Tensor:
    r"""Eq. 7: each sentence against every cross-modal representation of the batch and against the cluster centres.

    .. math:: \ell_j = -\log \frac{\exp(f_j \cdot v_j / \tau)}{\sum_k \exp(f_j \cdot v_k / \tau) + \mathrm{extra}_j}

    What ``extra`` is, the paper leaves open. The readings:

    ``others``
        :math:`\mu e^{f_j c^2_j/\tau} + \sum_{r=3}^{K} e^{f_j c^r_j/\tau}`: every centre but the anchor's own, the
        hardest weighted mu (the set C* in the sentence above Eq. 7).
    ``batch``
        :math:`\sum_k \mu_{jk} e^{f_j h_k/\tau}` with :math:`h_k` the hard negative of sentence k, :math:`\mu_{jj} =
        \mu` and 1 elsewhere (mu as the matrix of Eq. 7, and Fig. 1). An :math:`h_k` that is the anchor's own
        :math:`c^1_j` is left out.
    ``own``
        :math:`\mu e^{f_j c^2_j/\tau}`.
    ``official``
        :math:`e^{\mu f_j c^2_j/\tau} + (N - 1)`, what the released code computes (with tau = 1).

    Args:
        similarity: ``(n, N)`` cosines of the n anchors with the N cross-modal representations of the batch.
        centre_similarity: ``(n, K)`` cosines of the anchors with the centres. With K < 2 there is no hard negative and
            ``extra`` is 0.
        positive: ``(n,)`` int64, the column of ``similarity`` that belongs to each anchor.
        temperature: tau_3 > 0, unitless.
        mu: weight of the hard negative, > 0, unitless.
        hard_negatives: one of the readings above.
        hard_counts: ``(K,)`` how many sentences of the whole batch have each centre as hard negative; by default
            counted over the anchors. Only ``batch`` reads it.
        excluded: ``(n, N)`` bool, columns to leave out of the sum over k (never the positive).
        exist: scalar bool, whether there are centres yet; where False, ``extra`` is 0. ``None`` means yes.
    Returns:
        ``(n,)`` in nats.
    Raises:
        ValueError: for another reading or a weight that is not positive.
    """
    if hard_negatives not in HARD_NEGATIVES:
        raise ValueError(f"hard_negatives must be one of {', '.join(HARD_NEGATIVES)}, got '{hard_negatives}'")
    if mu <= 0 or temperature <= 0:
        raise ValueError(f"mu and temperature must be positive, got {mu} and {temperature}")
    logits = similarity / temperature
    if excluded is not None:
        logits = logits.masked_fill(excluded, -torch.inf)
    if centre_similarity.shape[1] >= 2:
        extra = _extra_logits(centre_similarity, hard_counts, similarity.shape[1], temperature, mu, hard_negatives)
        if exist is not None:
            extra = extra.masked_fill(~exist, -torch.inf)
        logits = torch.cat([logits, extra], dim=1)
    return F.cross_entropy(logits, positive, reduction="none")


def false_negative_mask(nearest: Tensor, assignment: Tensor, positive: Tensor) -> Tensor:
    """Which cross-modal representations share the cluster that the anchor is nearest to.

    Args:
        nearest: ``(n,)`` int64, the centre nearest to each anchor sentence, c^1.
        assignment: ``(N,)`` int64, the cluster that each cross-modal representation was assigned to.
        positive: ``(n,)`` int64, each anchor's own column, which is never a false negative.
    Returns:
        ``(n, N)`` bool.
    """
    columns = torch.arange(len(assignment), device=assignment.device)
    return (nearest[:, None] == assignment) & (columns != positive[:, None])


def bidirectional_margin(
    similarity: Tensor, positive_similarity: Tensor, pairs: Tensor, alpha: float = 0.2, beta: float = 0.5
) -> Tensor:
    r"""Eq. 9: false negatives stay a little less similar to the anchor than its positive, and not much less.

    .. math:: \Delta = \cos(f_j, v_k) - \cos(f_j, v_j), \qquad
              \ell = \mathrm{relu}(\Delta + \alpha) + \mathrm{relu}(-\Delta - \beta)

    It is zero exactly for :math:`-\beta \le \Delta \le -\alpha`. (The sentence under Eq. 9 has the two ends swapped;
    the formula is right.)

    Args:
        similarity: ``(n, N)`` cosines of the anchors with the candidates.
        positive_similarity: ``(n,)`` cosine of each anchor with its positive.
        pairs: ``(n, N)`` bool, the (anchor, false negative) pairs.
        alpha, beta: margins in units of cosine, ``0 <= alpha <= beta``.
    Returns:
        ``(n,)`` the *sum* over each anchor's false negatives; divide by ``pairs.sum()`` for the mean.
    Raises:
        ValueError: if the margins are not ordered.
    """
    if not 0 <= alpha <= beta:
        raise ValueError(f"the margins must satisfy 0 <= alpha <= beta, got alpha={alpha} and beta={beta}")
    delta = similarity - positive_similarity[:, None]
    loss = F.relu(delta + alpha) + F.relu(-delta - beta)
    return torch.where(pairs, loss, 0.0).sum(1)
