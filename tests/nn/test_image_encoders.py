"""One contract for every image encoder."""

import argparse

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from lingula.nn.image_encoders import ImageEncoder, recalibrate_batch_norm
from lingula.registry import UserError


@pytest.mark.parametrize(
    ("name", "size", "grid", "width"),
    [
        ("small_resnet", 48, (3, 3), 96),
        ("small_vit", 48, (3, 3), 96),
        ("resnet18", 64, (2, 2), 512),
        ("vit_tiny_patch16_224", 32, (2, 2), 192),
        ("deit_tiny_patch16_224", 64, (4, 4), 192),
        ("swin_tiny_patch4_window7_224", 64, (2, 2), 768),
    ],
)
def test_the_contract(name, size, grid, width):
    torch.manual_seed(0)
    encoder = ImageEncoder(name, size).eval()
    assert (encoder.grid, encoder.width) == (grid, width)
    with torch.no_grad():
        features = encoder(torch.randn(2, 1, size, size))
    places = grid[0] * grid[1]
    assert features.patches.shape == (2, places, width)
    assert features.pooled.shape == (2, width)
    assert features.grid == grid
    means = [[sum(channel) / places for channel in zip(*film, strict=True)] for film in features.patches.tolist()]
    torch.testing.assert_close(features.pooled, torch.tensor(means), rtol=1e-4, atol=1e-5)
    assert all(m.ndim == 4 for m in features.maps)
    sizes = [m.shape[-1] for m in features.maps]
    assert sizes == sorted(sizes, reverse=True)
    assert encoder.map_widths == [m.shape[1] for m in features.maps]
    assert encoder.map_grids == [tuple(m.shape[2:]) for m in features.maps]


def test_patches_are_places_in_reading_order():
    encoder = ImageEncoder("small_resnet", 64).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 1, 64, 64))
    h, w = features.grid
    for y in range(h):
        for x in range(w):
            torch.testing.assert_close(features.patches[0, y * w + x], features.maps[-1][0, :, y, x])


def test_a_film_brightens_its_own_patch():
    torch.manual_seed(0)
    encoder = ImageEncoder("small_resnet", 128).eval()
    dark, lit = torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)
    lit[..., 112:, :16] = 1.0  # the bottom left
    with torch.no_grad():
        change = (encoder(lit).patches - encoder(dark).patches).norm(dim=-1)[0].view(encoder.grid)
    assert change.argmax() == (encoder.grid[0] - 1) * encoder.grid[1]


def test_a_typing_error_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown image encoder 'resnet05'; did you mean 'resnet50'"):
        ImageEncoder("resnet05", 32)
    with pytest.raises(UserError, match="did you mean 'small_resnet'"):
        ImageEncoder("smal_resnet", 32)


def test_building_one_touches_no_statistics():
    encoder = ImageEncoder("small_resnet", 32)
    assert encoder.training
    assert all((m.running_mean == 0).all() for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_recalibration_takes_the_statistics_of_the_films():
    encoder = ImageEncoder("small_resnet", 32).eval()
    films = [torch.rand(4, 1, 32, 32) for _ in range(3)]
    norm = encoder.backbone.stem[1]
    momentum = norm.momentum
    recalibrate_batch_norm(encoder, films)
    assert norm.momentum == momentum
    assert not encoder.training
    with torch.no_grad():
        expected = sum(encoder.backbone.stem[0](x).mean((0, 2, 3)) for x in films) / 3
    torch.testing.assert_close(norm.running_mean, expected)


def test_every_weight_of_the_small_vision_transformer_is_used():
    encoder = ImageEncoder("small_vit", 48)
    encoder(torch.randn(2, 1, 48, 48)).patches.square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


# ImageNet's weights from a file.


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_a_file(tmp_path, suffix):
    """A classifier of three channels, as torchvision and timm publish it: its first layer is folded, its head left."""
    torch.manual_seed(0)
    weights = timm.create_model("resnet18", num_classes=7).state_dict()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    encoder = ImageEncoder("resnet18", 64, path)
    mine = encoder.backbone.state_dict()
    torch.testing.assert_close(mine["conv1.weight"], weights["conv1.weight"].sum(1, keepdim=True))
    assert all(torch.equal(mine[name], weights[name]) for name in mine if name != "conv1.weight")
    assert set(weights) - set(mine) == {"fc.weight", "fc.bias"}


def test_a_vision_transformers_positions_are_resampled(tmp_path):
    weights = timm.create_model("vit_tiny_patch16_224", num_classes=5).state_dict()
    save_file(weights, tmp_path / "vit.safetensors")
    mine = ImageEncoder("vit_tiny_patch16_224", 64, tmp_path / "vit.safetensors").backbone.state_dict()
    assert mine["pos_embed"].shape == (1, 17, 192)
    torch.testing.assert_close(mine["pos_embed"][:, 0], weights["pos_embed"][:, 0])
    assert torch.equal(mine["blocks.3.attn.qkv.weight"], weights["blocks.3.attn.qkv.weight"])


def test_weights_that_cannot_be_had(tmp_path):
    with pytest.raises(UserError, match=r"no weights of the image encoder 'resnet18' at .*nowhere.pth"):
        ImageEncoder("resnet18", 64, tmp_path / "nowhere.pth")
    whole = timm.create_model("resnet18").state_dict()
    part = {name: tensor for name, tensor in whole.items() if not name.startswith("layer4")}
    wide = {**whole, "bn1.bias": torch.zeros(65)}
    gloria = {f"gloria.img_encoder.model.{name}": tensor for name, tensor in whole.items()}
    gloria |= {f"gloria.text_encoder.model.{name}": torch.zeros(1) for name in ("embeddings.a", "embeddings.b")}
    for weights, what in (
        (part, "25 of its 100 tensors are missing, such as 'layer4.0.conv1.weight'$"),
        ({**whole, "more": torch.zeros(1)}, "the file has 'more', for which there is no place$"),
        (wide, r"'bn1.bias' is of shape \(65,\) in the file, not \(64,\)$"),
        (
            {"state_dict": gloria, "hyper_parameters": argparse.Namespace(width=1)},
            r"100 of its 100 tensors are missing, such as 'conv1.weight'; the file has 122 under "
            r"'gloria.img_encoder.model.', such as 'gloria.img_encoder.model.conv1.weight', and 2 under "
            r"'gloria.text_encoder.', for which there is no place; cut the prefix "
            r"'gloria.img_encoder.model.' off, and leave out the rest$",
        ),
    ):
        torch.save(weights, tmp_path / "else.pth")
        with pytest.raises(UserError, match=rf"else.pth do not fit the image encoder 'resnet18': .*{what}"):
            ImageEncoder("resnet18", 64, tmp_path / "else.pth")
    with pytest.raises(UserError, match=r"do not fit the image encoder 'vit_tiny_patch16_224': 150 of its 150 tensors"):
        ImageEncoder("vit_tiny_patch16_224", 64, tmp_path / "else.pth")
    (tmp_path / "else.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"else.pth is no weights file: it begins with 'no weights'"):
        ImageEncoder("resnet18", 64, tmp_path / "else.pth")
    for name in ("small_resnet", "small_vit"):
        with pytest.raises(UserError, match=f"{name} is made here, and has no weights to be read from"):
            ImageEncoder(name, 64, tmp_path / "else.pth")
        with pytest.raises(UserError, match=f"{name} is made here, and has no weights published"):
            ImageEncoder(name, 64, pretrained=True)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet18", "the Hugging Face hub cannot be reached in .*"),
        ("resnet18.none", "timm knows no weights of that name"),
        ("botnet50ts_256", "timm knows of none"),
    ],
)
def test_published_weights_that_cannot_be_had(monkeypatch, name, why):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("lingula.nn.hub._answers", lambda *_: False)
    monkeypatch.setattr(timm, "create_model", None)  # said before a model is built, which may take its time
    with pytest.raises(UserError, match=rf"weights of '{name}': {why}; .*--image_weights FILE.*--recipe scratch"):
        ImageEncoder(name, 64, pretrained=True)


# Mean and standard deviation.


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("deit_tiny_patch16_224", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("swin_tiny_patch4_window7_224", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("densenet121", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vit_tiny_patch16_224", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_weights_get_the_inputs_that_they_were_trained_on(tmp_path, name, mean, std):
    """Against timm's own model of three channels, fed as timm and torchvision feed it. 0.5 and 0.5 is one channel."""
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=3, **({} if "net1" in name else {"img_size": 64})).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    grey = torch.rand(2, 1, 64, 64)
    grey[..., :20] = 0.0  # the black beside an image
    encoder = ImageEncoder(name, 64, tmp_path / "weights.pth", normalised=True).eval()
    folded = ImageEncoder(name, 64, tmp_path / "weights.pth").eval()
    with torch.no_grad():
        inputs = (grey.expand(-1, 3, -1, -1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        expected = whole.forward_intermediates(inputs, output_fmt="NCHW")[1]
        found, other = encoder(2 * grey - 1), folded(2 * grey - 1)
    scale = expected[-1].abs().mean()
    for one, map_ in zip(found.maps, expected, strict=True):
        torch.testing.assert_close(one, map_, rtol=1e-5, atol=1e-5)
    same = torch.allclose(other.maps[-1], expected[-1], rtol=1e-3, atol=1e-3 * float(scale))
    assert same == (mean == (0.5, 0.5, 0.5))
    assert encoder.input_normalisation == f"mean {' '.join(map(str, mean))}, std {' '.join(map(str, std))}" or same
    assert folded.input_normalisation == "mean 0.5, std 0.5"


def test_torchvisions_features_of_torchvisions_file(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18-f37072fd.pth")
    encoder = ImageEncoder("resnet18", 64, tmp_path / "resnet18-f37072fd.pth", normalised=True).eval()
    grey = torch.rand(2, 1, 64, 64)
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = theirs(normalise(grey.expand(-1, 3, -1, -1)))
        torch.testing.assert_close(encoder(2 * grey - 1).pooled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "densenet121"])
def test_checkpointed_activations_change_memory_and_nothing_else(name):
    found = []
    for checkpoints in (False, True):
        torch.manual_seed(0)
        encoder, kept = ImageEncoder(name, 32).train(), {}
        before = {key: buffer.clone() for key, buffer in encoder.named_buffers()}
        if checkpoints:
            encoder.checkpoint_activations()
            assert all(torch.equal(buffer, before[key]) for key, buffer in encoder.named_buffers())
            assert all(p.grad is None for p in encoder.parameters())

        def keep(x, kept=kept):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        for step in range(3):
            torch.manual_seed(step)
            images = torch.randn(4, 1, 32, 32)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
                loss = encoder(images).patches.square().mean()
            loss.backward()
        found.append((sum(kept.values()), [p.grad for p in encoder.parameters()], dict(encoder.named_buffers())))
    (whole, grads, buffers), (less, again, others) = found
    assert less < 0.7 * whole
    for one, other in zip(grads, again, strict=True):
        if one is not None:
            torch.testing.assert_close(other, one)
    for key, buffer in buffers.items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(others[key], buffer, rtol=1e-5, atol=1e-6)


def test_the_small_resnet_has_no_checkpoints():
    with pytest.raises(UserError, match="'small_resnet' cannot checkpoint its activations"):
        ImageEncoder("small_resnet", 32).checkpoint_activations()
