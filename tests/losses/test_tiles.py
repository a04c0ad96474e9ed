"""Sums tile by tile against the same sums at once, and what is kept for the backward pass."""

import pytest
import torch

from lingula.losses.cosine import dot
from lingula.losses.tiles import sum_over_tiles


def rows(count, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, dtype=torch.float64, generator=generator)


def compare(anchors, keys, tile, kept=None):
    """Value and gradients of an InfoNCE and a count; ``kept`` collects the bytes that the forward pass keeps."""
    anchors, keys = anchors.clone().requires_grad_(), keys.clone().requires_grad_()
    own = torch.arange(len(anchors))

    def part(anchors, own):
        logits = dot(anchors, keys)
        return torch.nn.functional.cross_entropy(logits, own, reduction="sum"), (logits > 0).sum()

    def keep(x):
        if kept is not None:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss, count = sum_over_tiles(part, (anchors, own), tile)
    return loss.detach(), count, *torch.autograd.grad(loss, (anchors, keys))


@pytest.mark.parametrize("tile", [1, 3, 5, 11])
def test_tiles_add_up(tile):
    whole = compare(rows(11), rows(13, seed=1), 11)
    tiled = compare(rows(11), rows(13, seed=1), tile)
    for one, other in zip(tiled, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_nothing_of_size_n_by_n_is_kept():
    kept = {"whole": {}, "tiled": {}}
    compare(rows(300), rows(400, seed=1), 300, kept["whole"])
    compare(rows(300), rows(400, seed=1), 50, kept["tiled"])
    matrix = 300 * 400 * 8
    assert sum(kept["whole"].values()) >= matrix
    assert max(kept["tiled"].values()) <= 400 * 4 * 8
