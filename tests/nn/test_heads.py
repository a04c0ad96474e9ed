"""Projections, and the decoder that paints a film."""

import pytest
import torch
from torch import nn

from lingula.nn.heads import ConvDecoder, UpsamplingDecoder, mlp


def test_a_head_without_norm():
    head = mlp(4, 3, 3, norm=False)
    x = torch.randn(2, 5, 4)
    hidden = torch.relu(x @ head[0].weight.T + head[0].bias)
    torch.testing.assert_close(head(x), hidden @ head[2].weight.T + head[2].bias)


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


def test_an_mlp_is_its_layers():
    kinds = [type(layer).__name__ for layer in mlp(4, 5, 3)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in mlp(4, 3)] == ["Linear"]
    assert [type(layer).__name__ for layer in mlp(4, 5, 3, norm=False)] == ["Linear", "ReLU", "Linear"]
    last = mlp(4, 5, 3, last_norm=True, last_affine=False)
    assert [type(layer).__name__ for layer in last] == [*kinds, "BatchNorm1d"]
    assert [layer.bias is None for layer in last if isinstance(layer, nn.Linear)] == [True, True]
    assert [layer.affine for layer in last if isinstance(layer, nn.BatchNorm1d)] == [True, False]
    assert [layer.out_features for layer in last if isinstance(layer, nn.Linear)] == [5, 3]
    assert mlp(4, 5, 3)[3].bias is not None


def test_blocks_that_enlarge_and_convolve_twice():
    decoder = UpsamplingDecoder(6, (8, 8, 4, 4, 2), 224)
    sizes = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    assert decoder(torch.randn(1, 6, 7, 7)).shape == (1, 1, 224, 224)
    assert sizes == [14, 28, 56, 112, 224]


def test_the_upsampling_decoder_step_by_step():
    decoder = UpsamplingDecoder(2, (3, 2), 8).double()
    x = torch.randn(2, 2, 2, 2).double()
    y = x
    for block in decoder.blocks:
        y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)  # nearest neighbour
        for convolution in (block[0], block[3]):
            y = nn.functional.conv2d(y, convolution.weight, padding=1)
            mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), unbiased=False, keepdim=True)
            y = ((y - mean) / (variance + 1e-5).sqrt()).clamp_min(0)
    expected = nn.functional.conv2d(y, decoder.head.weight, decoder.head.bias, padding=1)
    torch.testing.assert_close(decoder(x), expected)


def test_a_decoder_without_blocks():
    with pytest.raises(ValueError, match="needs one block or more"):
        UpsamplingDecoder(2, (), 8)


def test_the_upsampling_decoders_gradient():
    decoder = UpsamplingDecoder(2, (2,), 5).double()
    assert torch.autograd.gradcheck(decoder, torch.randn(1, 2, 2, 2).double().requires_grad_())
