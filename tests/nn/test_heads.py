"""Projections, and the decoder that paints a film."""

import torch
from torch import nn

from lingula.nn.heads import ConvDecoder, projection_head


def test_projection_heads():
    mlp = projection_head(4, 3)
    x = torch.randn(2, 5, 4)
    hidden = torch.relu(x @ mlp[0].weight.T + mlp[0].bias)
    torch.testing.assert_close(mlp(x), hidden @ mlp[2].weight.T + mlp[2].bias)
    assert isinstance(projection_head(4, 3, layers=1), nn.Linear)


def test_five_convolutions_and_four_doublings_between_them():
    decoder = ConvDecoder(6, (8, 8, 4, 4, 2), 224)
    sizes = []
    for convolution in decoder.convolutions:
        assert convolution.kernel_size == (3, 3)
        convolution.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    assert decoder(torch.randn(1, 6, 7, 7)).shape == (1, 1, 224, 224)
    assert sizes == [7, 14, 28, 56, 112]


def test_the_head_before_the_last_interpolation_is_the_head_after_it():
    decoder = ConvDecoder(3, (4, 2), 24).double()
    x = torch.randn(2, 3, 4, 4).double()
    y = nn.functional.interpolate(nn.functional.gelu(decoder.convolutions[0](x)), scale_factor=2, mode="bilinear")
    y = nn.functional.interpolate(nn.functional.gelu(decoder.convolutions[1](y)), size=(24, 24), mode="bilinear")
    torch.testing.assert_close(decoder(x), decoder.head(y))


def test_it_can_paint_darker_than_mid_grey():
    torch.manual_seed(0)
    decoder = ConvDecoder(3, (8, 4), 8)
    x = torch.randn(2, 3, 4, 4)
    black = torch.full((2, 1, 8, 8), -1.0)
    optimizer = torch.optim.Adam(decoder.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        loss = (decoder(x) - black).abs().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_gradient():
    decoder = ConvDecoder(2, (2, 2), 5).double()
    assert torch.autograd.gradcheck(decoder, torch.randn(1, 2, 2, 2).double().requires_grad_())
