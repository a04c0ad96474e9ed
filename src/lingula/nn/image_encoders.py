"""Image encoders: any timm model by name, and a small ResNet and ViT that learn from scratch on two CPU cores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lingula.batch import ImageFeatures
from lingula.registry import UserError, nearest

SMALL_RESNET, SMALL_VIT = "small_resnet", "small_vit"


class _Block(nn.Module):
    """A basic residual block: two 3x3 convolutions with BatchNorm (He et al. 2015)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class SmallResNet(nn.Module):
    """Four residual blocks after a 5x5 stem of stride 4; output stride 16, so 6 x 6 places for 96 pixels.

    Args:
        widths: channels of the four blocks.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 96)) -> None:
        super().__init__()
        self.num_features = widths[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 5, stride=4, padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        strides = (1, 2, 2, 1)
        channels = (widths[0], *widths[:3])
        self.blocks = nn.ModuleList(_Block(c, w, s) for c, w, s in zip(channels, widths, strides, strict=True))

    def forward_intermediates(self, x: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        """``(B, 1, H, W)`` to the last map ``(B, C, h, w)`` and the maps of all blocks; named as timm names it."""
        x = self.stem(x)
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return x, maps


def small_vit(image_size: int) -> Any:
    """A vision transformer that learns from scratch on two CPU cores: patches of 16 pixels, so 6 x 6 places for 96
    pixels, as ``small_resnet`` has; 6 blocks of width 96, 4 heads. Positions are learned, without a class token."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=image_size,
        patch_size=16,
        in_chans=1,
        num_classes=0,
        global_pool="avg",
        class_token=False,
        embed_dim=96,
        depth=6,
        num_heads=4,
        mlp_ratio=2.0,
        fc_norm=False,
    )


def _timm_model(name: str, pretrained: bool | Path, image_size: int) -> Any:
    import timm

    if not timm.is_model(name):
        hint = nearest(name.split(".")[0], [SMALL_RESNET, SMALL_VIT, *timm.list_models()])
        raise UserError(f"unknown image encoder '{name}'{hint}")
    settings: dict[str, Any] = {"pretrained": pretrained is True, "in_chans": 1, "num_classes": 0}
    try:
        try:
            model = timm.create_model(name, **settings, img_size=image_size)
        except TypeError:  # convolutions take any size and know no such argument
            model = timm.create_model(name, **settings)
    except Exception as err:
        if pretrained is not True:
            raise UserError(f"image encoder '{name}' cannot be built for {image_size} pixels: {err}") from err
        raise UserError(
            f"cannot get the pre-trained weights of '{name}' ({type(err).__name__}); go online once, name a file of "
            "them, or start from scratch with --pretrained false"
        ) from err
    if isinstance(pretrained, Path):
        _load_file(model, name, pretrained)
    return model


def _load_file(model: Any, name: str, path: Path) -> None:
    """All of a timm model's weights from a file in timm's or torchvision's names: the first layer folded to one
    channel, the classifier left out, positions resampled. (timm's own loading lets missing weights pass.)"""
    from timm.models import adapt_input_conv, load_state_dict

    if not path.is_file():
        raise UserError(f"no weights of the image encoder '{name}' at {path}")
    try:
        state: Any = load_state_dict(str(path), weights_only=True)
        rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        state = dict(state if rename is None else rename(state, model))
        first, last = (_names(model.pretrained_cfg.get(part)) for part in ("first_conv", "classifier"))
        for layer in first:
            state[f"{layer}.weight"] = adapt_input_conv(1, state[f"{layer}.weight"])
        state = {key: value for key, value in state.items() if key.rpartition(".")[0] not in last}
        model.load_state_dict(state)
    except Exception as err:
        why = " ".join(str(err).split())
        raise UserError(f"the weights in {path} do not fit the image encoder '{name}': {why}") from err


def _names(layers: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else layers or ()


class ImageEncoder(nn.Module):
    """A film to features: one contract for every backbone.

    Args:
        name: a timm model that gives feature maps or tokens, ``small_resnet`` or ``small_vit``.
        image_size: H = W in pixels, to learn the grid from.
        pretrained: take timm's weights, or those of a file; the first layer is folded to one channel.
    Raises:
        UserError: for an unknown name, weights that cannot be had, or a model that gives no map at this size.
    Attributes:
        width: C of ``pooled`` and ``patches``.
        grid: ``(h, w)`` at ``image_size``.
        map_widths, map_grids: C and ``(h, w)`` of each of the ``maps``.
    """

    def __init__(self, name: str, image_size: int, pretrained: bool | Path = False) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        if isinstance(pretrained, Path) and name in (SMALL_RESNET, SMALL_VIT):
            raise UserError(f"{name} is made here, and has no weights to be read from {pretrained}")
        if name == SMALL_RESNET:
            self.backbone: Any = SmallResNet()
        elif name == SMALL_VIT:
            self.backbone = small_vit(image_size)
        else:
            self.backbone = _timm_model(name, pretrained, image_size)
        self.width: int = self.backbone.num_features
        self.to(memory_format=torch.channels_last)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                features = self(torch.zeros(1, 1, image_size, image_size))
        except Exception as err:
            raise UserError(f"image encoder '{name}' cannot read films of {image_size} pixels: {err}") from err
        self.grid = features.grid
        self.map_widths = [map_.shape[1] for map_ in features.maps]
        self.map_grids = [(map_.shape[2], map_.shape[3]) for map_ in features.maps]
        if features.patches.shape[1:] != (self.grid[0] * self.grid[1], self.width):
            raise UserError(
                f"image encoder '{name}' gives {tuple(features.patches.shape)}, no map of width {self.width}"
            )
        self.train(was_training)

    def forward(self, images: Tensor) -> ImageFeatures:
        """``(B, 1, H, W)`` in [-1, 1] to :class:`ImageFeatures`."""
        images = images.contiguous(memory_format=torch.channels_last)
        last, maps = self.backbone.forward_intermediates(images, output_fmt="NCHW")
        if last.dim() == 3:  # a transformer's tokens; the spatial ones come last, after class and register tokens
            h, w = maps[-1].shape[-2:]
            patches = last[:, -h * w :]
        else:
            if last.shape[1] != self.width:  # (B, H, W, C), as Swin has it
                last = last.permute(0, 3, 1, 2)
            h, w = last.shape[-2:]
            patches = last.flatten(2).transpose(1, 2)  # places, not channel groups: the released code forgot this
        return ImageFeatures(patches.mean(1), patches, (h, w), maps)

    def checkpoint_activations(self) -> None:
        """Keep the inputs of the blocks only, and compute the rest again in the backward pass.

        A BatchNorm of such a block sees each batch twice (tried out here), so its momentum is set to what comes to the
        same.

        Raises:
            UserError: for an encoder that cannot.
        """
        if not hasattr(self.backbone, "set_grad_checkpointing"):
            raise UserError(f"image encoder '{self.name}' cannot checkpoint its activations; leave it out")
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        before = {name: buffer.clone() for name, buffer in self.named_buffers()}
        counted = [_batches_seen(norm) for norm in norms]
        self.backbone.set_grad_checkpointing(True)
        was_training = self.training
        self.train()
        self(torch.zeros(2, 1, self.image_size, self.image_size)).patches.sum().backward()
        for norm, count in zip(norms, counted, strict=True):
            if _batches_seen(norm) == count + 2 and norm.momentum:
                norm.momentum = 1 - (1 - norm.momentum) ** 0.5
        for name, buffer in self.named_buffers():
            buffer.copy_(before[name])
        self.zero_grad(set_to_none=True)
        self.train(was_training)


def _batches_seen(norm: nn.modules.batchnorm._BatchNorm) -> int:
    return 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)


def recalibrate_batch_norm(encoder: nn.Module, batches: list[Tensor]) -> None:
    """Set every BatchNorm's running statistics to those of ``batches`` of ``(B, 1, H, W)`` films.

    An untrained ResNet in evaluation mode would otherwise normalise by a mean of 0 and a variance of 1 that it never
    had, and be a needlessly weak baseline.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms or not batches:
        return
    was_training, momenta = encoder.training, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    encoder.train()
    with torch.no_grad():
        for images in batches:
            encoder(images)
    encoder.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
