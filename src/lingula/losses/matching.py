"""Which query makes which item of a set: the assignment of least cost."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def match_queries(cost: Tensor, mask: Tensor) -> Tensor:
    """The one-to-one assignment of queries to the real items of each set that costs least (the Hungarian method).

    Queries that are left over belong to nothing, and padding takes no query. Exact assignments are found on the host,
    by scipy: all sets of the batch travel there in one transfer, and back in one. So the host waits here for the
    device, once.

    Args:
        cost: ``(B, Q, S)`` of giving query q to item s. No gradient.
        mask: ``(B, S)`` bool, which items are real; S <= Q.
    Returns:
        ``(B, S)`` int64 in [0, Q): the query of each item; 0 on padding.
    Raises:
        ValueError: if the shapes do not go together, or there are fewer queries than places for items.
    Example:
        >>> match_queries(torch.tensor([[[3.0, 1.0], [0.0, 2.0]]]), torch.tensor([[True, True]]))
        tensor([[1, 0]])
    """
    from scipy.optimize import linear_sum_assignment

    size, queries, items = cost.shape
    if mask.shape != (size, items):
        raise ValueError(f"expected a mask of shape {(size, items)}, got {tuple(mask.shape)}")
    if items > queries:
        raise ValueError(f"{queries} queries cannot make {items} items")
    wide = cost.nan_to_num().double()  # a loss that is not a number is the trainer's to complain of
    host = torch.cat([wide, mask[:, None].double()], dim=1).cpu().numpy()  # (B, Q + 1, S)
    found = np.zeros((size, items), dtype=np.int64)
    for own, table in zip(found, host, strict=True):
        real = table[-1].nonzero()[0]
        chosen, item = linear_sum_assignment(table[:-1, real])
        own[real[item]] = chosen
    return torch.from_numpy(found).to(cost.device)
