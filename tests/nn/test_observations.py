"""The extractor of observations and the completion of masked patches against torch's own decoder and attention."""

import pytest
import torch

from lingula.nn.observations import DecoderLayer, MaskedPatches, ObservationExtractor
from lingula.nn.positions import grid_positions

DIM, HEADS, GRID = 16, 4, (2, 3)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torchs_layer(layer):
    """torch's own pre-norm decoder layer with the same weights."""
    other = torch.nn.TransformerDecoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    pairs = {
        "self_attn": layer.self_attention,
        "multihead_attn": layer.cross_attention,
        "linear1": layer.feed_forward[0],
        "linear2": layer.feed_forward[2],
        "norm1": layer.self_norm,
        "norm2": layer.cross_norm,
        "norm3": layer.feed_norm,
    }
    for name, module in pairs.items():
        getattr(other, name).load_state_dict(module.state_dict())
    return other


def test_a_layer_is_torchs():
    layer = DecoderLayer(DIM, HEADS).double()
    queries, patches = draw(2, 5, DIM), draw(2, 6, DIM, seed=1)
    found, weights = layer(queries, patches)
    torch.testing.assert_close(found, torchs_layer(layer)(queries, patches))
    assert weights.shape == (2, 5, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_the_extractor():
    extractor = ObservationExtractor(DIM, GRID, queries=5, layers=2, heads=HEADS).double()
    patches = draw(2, 6, DIM)
    keys = extractor.patch_norm(patches) + grid_positions(GRID, DIM).double()
    expected = extractor.queries.expand(2, -1, -1)
    for layer in extractor.layers:
        before, expected = expected, torchs_layer(layer)(expected, keys)
    observations, maps = extractor(patches)
    torch.testing.assert_close(observations, extractor.norm(expected))
    # The maps are the last layer's: its own attention, asked again.
    last = extractor.layers[-1]
    x = last.self_norm(before)
    asked = last.cross_norm(before + last.self_attention(x, x, x)[0])
    torch.testing.assert_close(maps, last.cross_attention(asked, keys, keys)[1])


def test_another_order_of_the_queries_is_another_order_of_the_observations():
    extractor = ObservationExtractor(DIM, GRID, queries=5, heads=HEADS).double()
    with torch.no_grad():
        extractor.queries.mul_(50)
    patches, order = draw(2, 6, DIM), [3, 0, 4, 1, 2]
    observations, maps = extractor(patches)
    assert (observations[:, 0] - observations[:, 1]).abs().max() > 1e-3
    with torch.no_grad():
        extractor.queries.copy_(extractor.queries[order])
    again, maps_again = extractor(patches)
    torch.testing.assert_close(again, observations[:, order])
    torch.testing.assert_close(maps_again, maps[:, order])


def test_the_extractor_knows_places_and_takes_other_grids():
    extractor = ObservationExtractor(DIM, GRID, queries=3, heads=HEADS).double()
    patches = draw(1, 6, DIM)
    assert (extractor(patches)[0] - extractor(patches[:, [1, 0, 2, 3, 4, 5]])[0]).abs().max() > 1e-6
    assert extractor(draw(1, 24, DIM), (4, 6))[1].shape == (1, 3, 24)


def completed(**options):
    return MaskedPatches(DIM, 10, GRID, heads=HEADS, **options).double()


def test_masked_patches():
    module = completed(layers=2)
    patches, tokens = draw(2, 6, DIM), draw(2, 7, 10, seed=1)
    real = torch.arange(7) < torch.tensor([4, 7])[:, None]
    masked = torch.rand(2, 6, generator=torch.Generator().manual_seed(3)) < 0.5
    places = grid_positions(GRID, DIM).double()
    for film in range(2):
        h = torch.stack([module.mask_token if masked[film, p] else patches[film, p] for p in range(6)])
        said = module.token_projection(tokens[film, : 4 if film == 0 else 7])[None]
        for norm, attention in zip(module.norms, module.attentions, strict=True):
            h = h + attention((norm(h) + places)[None], said, said)[0][0]
        expected = module.head(h)
        torch.testing.assert_close(module(patches, masked, tokens, real)[film], expected)


def test_what_is_masked_is_not_seen_and_what_is_said_is():
    module = completed()
    patches, tokens, real = draw(1, 6, DIM), draw(1, 4, 10, seed=1), torch.ones(1, 4, dtype=torch.bool)
    masked = torch.tensor([[True, False, True, False, False, True]])
    z = module(patches, masked, tokens, real)
    other = torch.where(masked[..., None], draw(1, 6, DIM, seed=2), patches)
    torch.testing.assert_close(module(other, masked, tokens, real), z)
    assert (module(patches, masked, tokens.flip(-1), real) - z).abs().amax(-1).min() > 1e-6
    assert (z[0, 0] - z[0, 2]).abs().max() > 1e-6  # two that are hidden know where they are


def test_errors():
    with pytest.raises(ValueError, match="got 0 queries, 2 layers, width 16 and 4 heads"):
        ObservationExtractor(DIM, GRID, queries=0, heads=HEADS)
    with pytest.raises(ValueError, match="divisible by the heads, got 16 queries, 2 layers, width 16 and 3 heads"):
        ObservationExtractor(DIM, GRID, heads=3)
    with pytest.raises(ValueError, match="layers must be 1 or more, got 0"):
        completed(layers=0)
