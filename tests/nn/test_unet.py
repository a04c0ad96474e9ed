"""The U-Net against segmentation_models_pytorch's own, and what it makes of encoders of other strides."""

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

from lingula.batch import ImageFeatures
from lingula.nn.frozen import encoder_to_use
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.unet import UNet


class Maps(nn.Module):
    """An encoder of nothing but average pooling: a map of each stride, the last one also as patches."""

    def __init__(self, *strides):
        super().__init__()
        self.strides, self.norm = strides, nn.BatchNorm2d(1)

    def forward(self, images):
        images = self.norm(images)
        maps = [F.avg_pool2d(images, stride, ceil_mode=True).repeat(1, stride, 1, 1) for stride in self.strides]
        patches = maps[-1].flatten(2).transpose(1, 2)
        return ImageFeatures(patches.mean(1), patches, tuple(maps[-1].shape[-2:]), maps)


class Theirs(nn.Module):
    """An encoder of segmentation_models_pytorch in the form of ours."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images):
        maps = self.encoder(images)[1:]
        patches = maps[-1].flatten(2).transpose(1, 2)
        return ImageFeatures(patches.mean(1), patches, tuple(maps[-1].shape[-2:]), maps)


@pytest.mark.parametrize(
    ("name", "size"),
    [("small_resnet", 48), ("small_resnet", 50), ("resnet18", 52), ("vit_tiny_patch16_224", 48)],
)
def test_one_logit_a_pixel_whatever_the_encoder(name, size):
    torch.manual_seed(0)
    unet = UNet(ImageEncoder(name, size), size)
    logits = unet(torch.randn(2, 1, size, size))
    assert logits.shape == (2, 1, size, size)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in unet.head.parameters())


def test_their_unet_on_their_encoder():
    torch.manual_seed(0)
    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=1).eval()
    ours = UNet(Theirs(theirs.encoder), 64).eval()
    ours.head.decoder.load_state_dict(theirs.decoder.state_dict())
    ours.head.output.load_state_dict(theirs.segmentation_head.state_dict())
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_resnet50_has_the_field_s_decoder():
    def shapes(module):
        return {name: value.shape for name, value in module.state_dict().items()}

    unet = UNet(ImageEncoder("resnet50", 64), 64).eval()
    with torch.no_grad():
        assert unet(torch.randn(1, 1, 64, 64)).shape == (1, 1, 64, 64)
    ours = unet.head
    with torch.device("meta"):
        theirs = smp.Unet("resnet50", encoder_weights=None, in_channels=1)
    assert shapes(ours.decoder) == shapes(theirs.decoder)
    assert shapes(ours.output) == shapes(theirs.segmentation_head)
    first = ours.decoder.blocks[0].conv1[0].weight.detach()  # and starts as theirs does: Kaiming uniform
    assert first.abs().max() <= (6 / (3072 * 9)) ** 0.5
    assert float(first.std()) == pytest.approx((2 / (3072 * 9)) ** 0.5, rel=0.01)
    assert (ours.output[0].bias == 0).all()


def test_missing_strides_and_two_maps_of_one():
    """Strides 4, 8, 16, 16: the last of each, at the widths that a ResNet has there; nothing to join at 2 and 1."""
    encoder = ImageEncoder("small_resnet", 48)
    decoder = UNet(encoder, 48).head.decoder
    widths = [(block.conv1[0].in_channels, block.conv2[0].out_channels) for block in decoder.blocks]
    assert widths == [(96 + 48, 128), (128 + 24, 64), (64, 32), (32, 16)]
    assert UNet(encoder, 48).head.places == [None, 0, 1, 3]
    ours = UNet(Maps(8, 16), 32)
    joined = []
    ours.head.decoder.register_forward_hook(lambda module, args, output: joined.append(args[0]))
    images = torch.randn(2, 1, 32, 32)
    ours(images)
    given = [tuple(features_map.shape[1:]) for features_map in joined[0]]
    assert given == [(1, 32, 32), (0, 16, 16), (0, 8, 8), (8, 4, 4), (16, 2, 2)]


def test_a_transformer_s_tokens_are_upsampled():
    torch.manual_seed(0)
    encoder = ImageEncoder("vit_tiny_patch16_224", 48).eval()
    unet = UNet(encoder, 48).eval()
    images = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        x = encoder.backbone.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]
        assert x.shape == (2, 192, 3, 3)
        for conv, norm in zip(unet.head.layers[:-1:4], unet.head.layers[1:-1:4], strict=True):
            x = F.interpolate(norm(conv(x)).relu(), scale_factor=2, mode="bilinear")
        torch.testing.assert_close(unet(images), unet.head.layers[-1](x))
    assert [layer.out_channels for layer in unet.head.layers[::4]] == [512, 256, 128, 64, 1]


@pytest.mark.parametrize(("size", "stride"), [(32, 4), (28, 7), (64, 32), (56, 14)])
def test_patches_of_any_size_end_at_the_film_s(size, stride):
    unet = UNet(Maps(stride), size)
    assert unet(torch.randn(2, 1, size, size)).shape == (2, 1, size, size)


@pytest.mark.parametrize("training", [True, False])
def test_looking_at_the_encoder_leaves_no_trace(training):
    encoder = Maps(2, 4).train(training)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    UNet(encoder, 16)
    assert encoder.training == training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_frozen_is_frozen():
    encoder = Maps(2, 4)
    unet = UNet(encoder_to_use(encoder, False), 16).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    unet(5 + torch.randn(4, 1, 16, 16)).sum().backward()
    assert unet.head.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
