"""How alike a set of observations of a film and a set of sentences are, where nobody says which belongs to which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.losses.cosine import unit
from lingula.losses.tiles import in_tiles

PAIRINGS = ("soft", "hungarian", "sinkhorn")


@dataclass(frozen=True)
class Pairing:
    """Which observation belongs to which sentence.

    Attributes:
        how: ``soft``: each sentence looks for its observations by a softmax, and each observation for its sentences;
            ``hungarian``: one to one, of the largest sum of cosines, without gradient through the choice; what is left
            over of the larger set is ignored; ``sinkhorn``: an entropic transport plan with equal mass on every
            observation and on every sentence.
        temperature: of the softmax of ``soft``.
        epsilon: of the plan's entropy, in units of cosine.
        steps: Sinkhorn's iterations.
    Raises:
        ValueError: for another way, or numbers that are not positive.
    """

    how: str = "soft"
    temperature: float = 0.1
    epsilon: float = 0.05
    steps: int = 5

    def __post_init__(self) -> None:
        if self.how not in PAIRINGS:
            raise ValueError(f"pairing must be one of {', '.join(PAIRINGS)}, got '{self.how}'")
        if self.temperature <= 0 or self.epsilon <= 0 or self.steps < 1:
            raise ValueError(
                f"temperature > 0, epsilon > 0 and steps >= 1, got {self.temperature}, {self.epsilon} and {self.steps}"
            )


def pair_sets(cosines: Tensor, mask: Tensor, pairing: Pairing) -> tuple[Tensor, Tensor]:
    """Weights by which each sentence draws on the observations, and each observation on the sentences.

    ``hungarian`` is solved by scipy on the host, to which the cosines travel in one transfer: the host waits for the
    device, and takes one problem after the other.

    Args:
        cosines: ``(..., Q, S)`` of each observation with each sentence.
        mask: ``(..., S)`` bool; may broadcast.
        pairing: how.
    Returns:
        ``(..., Q, S)``, whose columns add up to 1 over Q, and ``(..., Q, S)``, whose rows add up to 1 over S; all zero
        for padding, for what is left unpaired, and where there is no sentence at all.
    """
    mask = mask[..., None, :].expand(cosines.shape)  # (..., Q, S)
    if pairing.how == "hungarian":
        chosen = _assign(cosines, mask)
        return chosen, chosen
    lowest = torch.finfo(cosines.dtype).min
    if pairing.how == "soft":
        logits = (cosines / pairing.temperature).masked_fill(~mask, lowest)
    else:
        logits = _log_plan(cosines, mask, pairing.epsilon, pairing.steps)
    zero = logits.new_zeros(())
    return torch.where(mask, logits.softmax(-2), zero), torch.where(mask, logits.softmax(-1), zero)


def _log_plan(cosines: Tensor, mask: Tensor, epsilon: float, steps: int) -> Tensor:
    """``(..., Q, S)`` logarithm of the transport plan between two uniform distributions; lowest on padding."""
    lowest = torch.finfo(cosines.dtype).min
    plan = (cosines / epsilon).masked_fill(~mask, lowest)
    sentences = mask.sum(-1, keepdim=True).clamp_min(1).to(cosines.dtype)  # (..., Q, 1)
    for _ in range(steps):
        plan = plan - plan.logsumexp(-1, keepdim=True) - cosines.new_tensor(float(cosines.shape[-2])).log()
        plan = plan.masked_fill(~mask, lowest)
        plan = plan - plan.logsumexp(-2, keepdim=True) - sentences.log()
        plan = plan.masked_fill(~mask, lowest)
    return plan


@torch.no_grad()
def _assign(cosines: Tensor, mask: Tensor) -> Tensor:
    """``(..., Q, S)`` of zeros and ones: the one-to-one assignment of the largest sum, padding left out."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    flat = torch.cat([cosines.nan_to_num(), mask.to(cosines.dtype)], dim=-2).flatten(0, -3).cpu().numpy()
    chosen = np.zeros((len(flat), cosines.shape[-2], cosines.shape[-1]), flat.dtype)
    for number, both in enumerate(flat):
        values, real = np.split(both, 2)
        columns = np.flatnonzero(real[0])
        rows, of_columns = linear_sum_assignment(values[:, columns], maximize=True)
        chosen[number, rows, columns[of_columns]] = 1
    return torch.from_numpy(chosen).to(cosines.device).view(cosines.shape)


def set_similarity(observations: Tensor, sentences: Tensor, mask: Tensor, pairing: Pairing, chunk: int = 64) -> Tensor:
    r"""Similarity of each film's observations with each report's sentences, paired anew for each film and report.

    .. math:: S_{ij} = \tfrac12 \Big[ \operatorname{mean}_m \cos(\tilde O_m, T^j_m)
              + \operatorname{mean}_q \cos(O^i_q, \tilde T_q) \Big], \quad
              \tilde O_m = \sum_q a_{qm} O^i_q, \quad \tilde T_q = \sum_m b_{qm} T^j_m

    with the weights a and b of :func:`pair_sets` between film i and report j. The vectors under the tilde are never
    made: their products and lengths come from the cosines and from the Gram matrix of each set.

    Source: ours; PLACE, arXiv:2506.10573, says that observations of both kinds are aligned, not how.

    Args:
        observations: ``(n, Q, D)``. Normalised here.
        sentences: ``(N, S, D)``, padded. Normalised here.
        mask: ``(N, S)`` bool.
        pairing: how observations and sentences find each other.
        chunk: reports at a time; where there are more, each chunk is computed again in the backward pass instead of
            being kept.
    Returns:
        ``(n, N)`` in [-1, 1], float32 or better; 0 for a report without sentences.
    Raises:
        ValueError: if the shapes do not fit.
    """
    if sentences.shape[:2] != mask.shape or observations.shape[-1] != sentences.shape[-1]:
        raise ValueError(
            "observations (n, Q, D), sentences (N, S, D) and mask (N, S) must fit, got "
            f"{tuple(observations.shape)}, {tuple(sentences.shape)} and {tuple(mask.shape)}"
        )

    def part(other: Tensor, real: Tensor) -> Tensor:
        cosines = torch.einsum("iqd,jsd->ijqs", one, other)  # (n, N, Q, S)
        to_sentences, to_observations = pair_sets(cosines, real[None], pairing)
        gram = one @ one.transpose(1, 2)  # (n, Q, Q)
        squares = (torch.einsum("iqr,ijrs->ijqs", gram, to_sentences) * to_sentences).sum(-2)  # (n, N, S)
        along = (cosines * to_sentences).sum(-2) / squares.clamp_min(1e-12).sqrt()
        gram = other @ other.transpose(1, 2)  # (N, S, S)
        squares = (torch.einsum("jst,ijqt->ijqs", gram, to_observations) * to_observations).sum(-1)  # (n, N, Q)
        across = (cosines * to_observations).sum(-1) / squares.clamp_min(1e-12).sqrt()
        paired_sentences, paired_observations = to_sentences.sum(-2).round(), to_observations.sum(-1).round()
        along = along.sum(-1) / paired_sentences.sum(-1).clamp_min(1)
        across = across.sum(-1) / paired_observations.sum(-1).clamp_min(1)
        return 0.5 * (along + across)

    with torch.autocast(observations.device.type, enabled=False):
        one = unit(observations)
        return torch.cat(in_tiles(part, (unit(sentences), mask), chunk), dim=1)


def similarity_nce(similarity: Tensor, positive: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    r"""InfoNCE over rows of given similarities, some candidates left out.

    .. math:: \ell_i = -\log \frac{\exp(S_{i p(i)} / \tau)}{\sum_{j \notin X_i} \exp(S_{ij} / \tau)}

    Args:
        similarity: ``(n, N)``.
        positive: ``(n,)`` int64 in [0, N).
        excluded: ``(n, N)`` bool, the X_i; a row's positive always stays.
        temperature: tau > 0.
    Returns:
        ``(n,)`` in nats.
    Raises:
        ValueError: if the shapes differ.
    Example:
        >>> excluded = torch.tensor([[False, True], [False, False]])
        >>> similarity_nce(torch.eye(2), torch.tensor([0, 1]), excluded, temperature=1.0)
        tensor([-0.0000, 0.3133])
    """
    if similarity.shape != excluded.shape:
        raise ValueError(
            f"similarity and excluded must match, got {tuple(similarity.shape)} and {tuple(excluded.shape)}"
        )
    excluded = excluded.scatter(1, positive[:, None], False)
    return F.cross_entropy((similarity / temperature).masked_fill(excluded, -torch.inf), positive, reduction="none")


def sibling_nce(drawn: Tensor, sentences: Tensor, mask: Tensor, temperature: float) -> Tensor:
    r"""Each sentence of a report finds what it draws from its film among what its siblings draw, and the other way.

    .. math:: \ell = \frac{1}{2M} \sum_m \left[ -\log \frac{e^{\cos(\tilde O_m, T_m) / \tau}}
              {\sum_{m'} e^{\cos(\tilde O_m, T_{m'}) / \tau}} - \log \frac{e^{\cos(\tilde O_m, T_m) / \tau}}
              {\sum_{m'} e^{\cos(\tilde O_{m'}, T_m) / \tau}} \right]

    Source: ours, within PLACE, arXiv:2506.10573. Sentences of other reports are no candidates: the same words stand in
    many of them.

    Args:
        drawn: ``(B, S, D)`` what each sentence draws. Normalised here.
        sentences: ``(B, S, D)``. Normalised here.
        mask: ``(B, S)`` bool.
        temperature: tau > 0.
    Returns:
        ``(B,)`` in nats, a mean over the report's sentences; 0 for a report of one sentence or none.
    Raises:
        ValueError: if the shapes differ.
    """
    if drawn.shape != sentences.shape or mask.shape != sentences.shape[:2]:
        raise ValueError(
            "drawn, sentences (B, S, D) and mask (B, S) must match, got "
            f"{tuple(drawn.shape)}, {tuple(sentences.shape)} and {tuple(mask.shape)}"
        )
    with torch.autocast(drawn.device.type, enabled=False):
        logits = unit(drawn) @ unit(sentences).transpose(1, 2) / temperature  # (B, S, S)
        both = mask[:, :, None] & mask[:, None, :]
        logits = logits.masked_fill(~both, torch.finfo(logits.dtype).min)
        each = logits.log_softmax(2).diagonal(dim1=1, dim2=2) + logits.log_softmax(1).diagonal(dim1=1, dim2=2)
        return torch.where(mask, -0.5 * each, each.new_zeros(())).sum(1) / mask.sum(1).clamp_min(1)


def overlap(observations: Tensor) -> Tensor:
    """How much the observations of a film say the same: mean squared cosine of two different ones.

    Args:
        observations: ``(B, Q, D)``. Normalised here.
    Returns:
        ``(B,)`` in [0, 1], unitless; 0 for a single observation.
    """
    with torch.autocast(observations.device.type, enabled=False):
        each = unit(observations)
        count = each.shape[1]
        squares = (each @ each.transpose(1, 2)).square()  # (B, Q, Q)
        different = ~torch.eye(count, dtype=torch.bool, device=each.device)
        return (squares * different).sum((1, 2)) / max(1, count * (count - 1))
