"""SimSiam's negative cosine with a stop-gradient."""

from __future__ import annotations

from torch import Tensor

from lingula.losses.cosine import unit


def simsiam(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Negative cosine of a prediction with a target that gets no gradient.

    .. math:: \ell_i = -\operatorname{sim}(h(x_i), S(y_i))

    Source: one of the two halves of CM-CGNS, arXiv:2506.11674, Eq. 10; SimSiam, arXiv:2011.10566, Eq. 1.

    Args:
        prediction: ``(..., D)``, h(x), out of the predictor.
        target: ``(..., D)``, y; the gradient stops here.
    Returns:
        ``(...)`` in [-1, 1], unitless.
    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction and target must match, got {tuple(prediction.shape)} and {tuple(target.shape)}")
    return -(unit(prediction) * unit(target.detach())).sum(-1)
