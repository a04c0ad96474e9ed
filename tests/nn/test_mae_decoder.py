"""The decoder of the masked autoencoder: where its tokens stand, and what it is given."""

import pytest
import torch

from lingula.nn.mae_decoder import MaskedDecoder


def decoder(prefix=0):
    torch.manual_seed(0)
    model = MaskedDecoder(6, (2, 3), 5, width=8, depth=2, heads=2).double().eval()
    encoded = torch.randn(2, prefix + 2, 6, dtype=torch.float64)
    visible = torch.tensor([[4, 1], [0, 5]])
    hidden = torch.tensor([[0, 5, 2, 3], [1, 2, 3, 4]])
    return model, encoded, visible, hidden


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_it_is_what_the_loop_makes(prefix):
    model, encoded, visible, hidden = decoder(prefix)
    found = model(encoded, visible, hidden)
    assert found.shape == (2, 4, 5)
    for b in range(2):
        tokens = [model.mask_token for _ in range(6)]
        for n, place in enumerate(visible[b].tolist()):
            tokens[place] = model.embed(encoded[b, prefix + n])
        tokens = [token + model.positions[place] for place, token in enumerate(tokens)]
        tokens = [model.embed(encoded[b, n]) for n in range(prefix)] + tokens  # of no place
        x = model.norm(model.blocks(torch.stack(tokens)[None]))[0]
        for m, place in enumerate(hidden[b].tolist()):
            torch.testing.assert_close(found[b, m], model.head(x[prefix + place]))


def test_the_order_of_the_lists_does_not_matter():
    model, encoded, visible, hidden = decoder(1)
    expected = model(encoded, visible, hidden)
    swapped = model(encoded[:, [0, 2, 1]], visible[:, [1, 0]], hidden)
    torch.testing.assert_close(swapped, expected)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(model(encoded, visible, hidden[:, order]), expected[:, order])


def test_positions_are_fixed_and_not_saved():
    model = decoder()[0]
    assert "positions" not in dict(model.named_parameters())
    assert "positions" not in model.state_dict()


def test_errors():
    with pytest.raises(ValueError, match="width 6 is not divisible by 4"):
        MaskedDecoder(6, (2, 2), 5, width=6, heads=3)
    with pytest.raises(ValueError, match="width 8 is not divisible by 3 heads"):
        MaskedDecoder(6, (2, 2), 5, width=8, heads=3)
