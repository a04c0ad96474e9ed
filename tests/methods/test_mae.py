"""MAE as a whole against a loop over films and patches, and what the encoder may not see."""

from __future__ import annotations

import math

import pytest
import torch

from lingula.keyed import keyed_uniform
from lingula.methods.mae import MAE
from lingula.nn.image_encoders import ImageEncoder

TINY = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
TRANSFORMERS = ("small_vit", "vit_tiny_patch16_224", "deit3_small_patch16_224")  # without and with a class token


def build(tiny, encoder="small_vit", size=48, **options):
    torch.manual_seed(0)
    return MAE(ImageEncoder(encoder, size), size, **TINY | options).double().eval()


def films(tiny, count=3, size=48):
    batch = tiny.double(tiny.batch((1,) * count))
    generator = torch.Generator().manual_seed(1)
    batch.images = torch.rand(count, 1, 1, size, size, generator=generator, dtype=torch.float64) * 2 - 1
    return batch


def literal_loss(model, batch, normalise=True):
    """One film and one patch at a time, 16 pixels wide."""
    backbone, total, count = model.image_encoder.backbone, 0.0, 0
    h, w = model.image_encoder.grid
    weight, bias = backbone.patch_embed.proj.weight.flatten(1), backbone.patch_embed.proj.bias
    for film, draws in zip(batch.image[:, 0], keyed_uniform(batch.seed, batch.rows, h * w).tolist(), strict=True):
        order = sorted(range(h * w), key=draws.__getitem__)
        visible, hidden = order[: h * w // 4], order[h * w // 4 :]
        patches = [film[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].flatten() for y in range(h) for x in range(w)]
        tokens = [weight @ patches[p] + bias + backbone.pos_embed[0, p] for p in visible]
        encoded = backbone.norm(backbone.blocks(torch.stack(tokens)[None]))
        painted = model.decoder(encoded, torch.tensor([visible]), torch.tensor([hidden]))[0].tolist()
        for made, p in zip(painted, hidden, strict=True):
            pixels = patches[p].tolist()
            mean, sigma = 0.0, 1.0
            if normalise:
                mean = sum(pixels) / 256
                sigma = math.sqrt(sum((x - mean) ** 2 for x in pixels) / 255 + 1e-6)
            total += sum((m - (x - mean) / sigma) ** 2 for m, x in zip(made, pixels, strict=True)) / 256
            count += 1
    return total / count


@pytest.mark.parametrize("normalise", [True, False])
def test_the_equation(tiny, normalise):
    model, batch = build(tiny, normalise_patches=normalise), films(tiny)
    model.weights = {"reconstruction": 3.0}
    terms = model(batch)
    assert list(terms) == ["reconstruction"]
    assert terms["reconstruction"].item() == pytest.approx(3 * literal_loss(model, batch, normalise), rel=1e-9)


@pytest.mark.parametrize("encoder", TRANSFORMERS)
def test_with_everything_visible_it_is_the_encoder_as_it_is(tiny, encoder):
    model, batch = build(tiny, encoder), films(tiny)
    backbone = model.image_encoder.backbone
    everything = torch.arange(9).expand(3, -1)
    torch.testing.assert_close(model.encode_visible(batch.image, everything), backbone.forward_features(batch.image))


@pytest.mark.parametrize("encoder", TRANSFORMERS)
def test_hidden_pixels_never_reach_the_encoder(tiny, encoder):
    model, batch = build(tiny, encoder), films(tiny)
    visible, hidden = model.mask(batch)
    images = batch.image.clone().requires_grad_()
    model.encode_visible(images, visible).square().sum().backward()
    seen = images.grad.unfold(2, 16, 16).unfold(3, 16, 16).abs().amax((1, 4, 5)).flatten(1) > 0  # (B, P)
    for b in range(3):
        assert seen[b, visible[b]].all()
        assert not seen[b, hidden[b]].any()


def test_three_quarters_are_hidden_of_every_film(tiny):
    model = build(tiny, size=64)
    batch = films(tiny, 5, 64)
    visible, hidden = model.mask(batch)
    assert visible.shape == (5, 4)
    assert hidden.shape == (5, 12)
    assert torch.cat([visible, hidden], dim=1).sort(1).values.tolist() == [list(range(16))] * 5
    assert len({tuple(row) for row in visible.tolist()}) > 1  # each film has its own
    batch.seed += 1
    assert not torch.equal(model.mask(batch)[0], visible)  # and another one in the next step


def test_a_share_that_has_no_exact_number(tiny):
    assert build(tiny, size=160, mask_ratio=0.9).visible_patches == 10


def test_every_place_is_hidden_equally_often(tiny):
    model, batch = build(tiny), films(tiny)
    batch.rows = torch.arange(3600)
    share = torch.bincount(model.mask(batch)[0].flatten(), minlength=9) / 3600
    torch.testing.assert_close(share, torch.full((9,), 2 / 9), rtol=0, atol=0.03)


def test_the_mask_belongs_to_the_film(tiny):
    model, batch = build(tiny), films(tiny)
    expected = model.mask(batch)[0]
    batch.rows = batch.rows[[2, 0, 1]]
    assert torch.equal(model.mask(batch)[0], expected[[2, 0, 1]])


def test_a_patch_of_one_grey_is_finite(tiny):
    model, batch = build(tiny).float(), films(tiny)
    batch.images = torch.full((3, 1, 1, 48, 48), -1.0)
    loss = model(batch)["reconstruction"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_finite_in_bfloat16(tiny):
    model, batch = build(tiny).float(), films(tiny)
    batch.images = batch.images.float()
    expected = model(batch)["reconstruction"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch)["reconstruction"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)


def test_encode_image_sees_the_whole_film(tiny):
    model, batch = build(tiny), films(tiny)
    seen = model.encode_image(batch.image)
    features, embedding, patches = seen.features, seen.embedding, seen.patches
    assert torch.equal(embedding, features.pooled)
    assert torch.equal(patches, model.image_encoder(batch.image).patches)


@pytest.mark.parametrize("encoder", ["small_resnet", "resnet18", "swin_tiny_patch4_window7_224"])
def test_other_encoders_are_refused(encoder):
    size = 224 if "swin" in encoder else 48
    with pytest.raises(ValueError, match=f"needs a plain vision transformer, such as .*, got {encoder}"):
        MAE(ImageEncoder(encoder, size), size)


@pytest.mark.parametrize("ratio", [0.0, 0.95, 1.0])
def test_a_mask_of_nothing_or_everything_is_refused(tiny, ratio):
    with pytest.raises(ValueError, match=r"mask_ratio must leave some of 3 x 3 patches visible and hide some"):
        build(tiny, mask_ratio=ratio)
