r"""Codes over prototypes that use all prototypes equally, and the loss that predicts one view's codes from another.

Source: SwAV, arXiv:2006.09882, sections 3.1 and 3.2, as MGCA, arXiv:2210.06044, uses them between films and reports.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, temperature: float = 0.05, iterations: int = 3) -> Tensor:
    r"""Codes of a batch: exp(scores / epsilon), its columns and rows rescaled in turn (Sinkhorn and Knopp 1967).

    .. math:: Q_{bk} = u_k\, \exp(z_{bk} / \varepsilon)\, v_b, \qquad
              \sum_k Q_{bk} = 1, \quad \sum_b Q_{bk} \to B / K

    In logarithms, so that no score is too large. The last step is always the rows'.

    Args:
        scores: ``(B, K)`` z of every sample with every prototype; the samples of *all* processes.
        temperature: epsilon > 0; small values give hard codes.
        iterations: 1 or more.
    Returns:
        ``(B, K)``, rows sum to 1; float32 or better, no gradient.
    Raises:
        ValueError: for fewer than 1 iteration, or a temperature of 0 or less.
    Example:
        >>> sinkhorn(torch.eye(2), temperature=1.0)
        tensor([[0.7311, 0.2689],
                [0.2689, 0.7311]])
    """
    if iterations < 1 or temperature <= 0:
        raise ValueError(f"iterations >= 1 and a temperature > 0, got {iterations} and {temperature}")
    logarithm = (scores if scores.dtype == torch.float64 else scores.float()) / temperature
    for _ in range(iterations):
        logarithm = logarithm.log_softmax(0)  # every prototype has the same mass
        logarithm = logarithm.log_softmax(1)  # every sample has the same mass: 1, where the papers write 1 / B
    return logarithm.exp()


def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    r"""Cross-entropy of what one modality's scores say of the prototypes with the other modality's codes.

    .. math:: \ell_b = -\sum_k q_{bk} \log \frac{\exp(z_{bk} / \tau)}{\sum_{k'} \exp(z_{bk'} / \tau)}

    Source: one of the two halves of SwAV, arXiv:2006.09882, Eq. 2.

    Args:
        scores: ``(B, K)`` z.
        codes: ``(B, K)`` q of the other modality, rows sum to 1.
        temperature: tau > 0, unitless.
    Returns:
        ``(B,)`` in nats, float32 or better.
    Raises:
        ValueError: if the shapes differ.
    """
    if scores.shape != codes.shape:
        raise ValueError(f"scores and codes must match, got {tuple(scores.shape)} and {tuple(codes.shape)}")
    with torch.autocast(scores.device.type, enabled=False):
        wide = scores if scores.dtype == torch.float64 else scores.float()
        return -(codes * F.log_softmax(wide / temperature, dim=-1)).sum(-1)
