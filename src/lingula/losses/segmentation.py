"""The two halves of the field's segmentation loss: focal loss and the logarithm of a soft Dice. Floor 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    r"""Focal loss: binary cross-entropy in which pixels that are right already count little.

    .. math:: \ell = \frac{1}{HW} \sum_{y,x} -(1 - p_t)^\gamma \log p_t, \qquad
              p_t = p \text{ inside the mask},\ 1 - p \text{ outside},\ p = \sigma(\text{logit})

    Source: Lin et al. 2017, arXiv:1708.02002, Eq. 4 (without the alpha of Eq. 5); so too MGCA's and CM-CGNS's code
    (``segmentation_loss.py``), which takes the mean over the pixels of the batch: the mean of what is returned here.

    Args:
        logits: ``(B, ...)`` any shape of pixels.
        truth: the same shape, bool: True inside.
        gamma: 0 or more, unitless; 0 is cross-entropy.
    Returns:
        ``(B,)`` mean over the pixels of each image, in nats, float32 (float64 for float64 logits).
    Raises:
        ValueError: if the shapes differ, or the truth is not bool.
    Example:
        >>> focal(torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))  # log(2) / 4
        tensor([0.1733])
    """
    logits = _checked(logits, truth)
    margin = torch.where(truth, logits, -logits)  # p_t = sigmoid(margin)
    pixels = torch.exp(-gamma * F.softplus(margin)) * F.softplus(-margin)
    return pixels.flatten(1).mean(1)


def negative_log_dice(logits: Tensor, truth: Tensor, smooth: float = 1.0) -> Tensor:
    r"""Negative logarithm of the soft Dice of *all* pixels of a batch together.

    .. math:: \ell = -\log \frac{2 \sum p\,t + s}{\sum p + \sum t + s}

    Source: MGCA's and CM-CGNS's code (``segmentation_loss.py``). The sums run over the batch, so it is no mean over
    images, and depends on which images share a batch.

    Args:
        logits: ``(B, ...)`` any shape of pixels.
        truth: the same shape, bool: True inside.
        smooth: s above 0, in pixels; it keeps a batch without any lesion finite.
    Returns:
        scalar, in nats, float32 (float64 for float64 logits).
    Raises:
        ValueError: if the shapes differ, or the truth is not bool.
    """
    logits = _checked(logits, truth)
    inside = torch.sigmoid(logits)
    both = (inside * truth).sum()
    return -torch.log((2 * both + smooth) / (inside.sum() + truth.sum() + smooth))


def _checked(logits: Tensor, truth: Tensor) -> Tensor:
    """Logits in float32 or better: under autocast they come in bfloat16, which cannot count to 300."""
    if logits.shape != truth.shape or truth.dtype != torch.bool:
        raise ValueError(
            f"expected a bool truth in the shape of the logits {tuple(logits.shape)}, "
            f"got {tuple(truth.shape)} in {truth.dtype}"
        )
    return logits if logits.dtype == torch.float64 else logits.float()
