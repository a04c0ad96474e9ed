"""Image encoders: any timm model by name, and a small ResNet and ViT that learn from scratch on two CPU cores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lingula.batch import ImageFeatures
from lingula.nn.hub import cache_if_unreachable, reachable, unreached
from lingula.nn.weights import misfit, read_weights
from lingula.registry import UserError, nearest

SMALL_RESNET, SMALL_VIT = MADE_HERE = "small_resnet", "small_vit"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of its images


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


def _timm_model(name: str, pretrained: bool | Path, image_size: int, channels: int) -> Any:
    import timm

    if not timm.is_model(name):
        hint = nearest(name.split(".")[0], [SMALL_RESNET, SMALL_VIT, *timm.list_models()])
        raise UserError(f"unknown image encoder '{name}'{hint}")
    if pretrained is True:
        check_published(name)  # before the model is built, which may take its time
    settings: dict[str, Any] = {"pretrained": pretrained is True, "in_chans": channels, "num_classes": 0}
    try:
        with cache_if_unreachable() if pretrained is True else nullcontext():
            try:
                model = timm.create_model(name, **settings, img_size=image_size)
            except TypeError:  # convolutions take any size and know no such argument
                model = timm.create_model(name, **settings)
    except Exception as err:
        if pretrained is not True:
            raise UserError(f"image encoder '{name}' cannot be built for {image_size} pixels: {err}") from err
        raise UserError(_no_weights(name, type(err).__name__)) from err
    if isinstance(pretrained, Path):
        _load_file(model, name, pretrained)
    return model


def check_published(name: str) -> None:
    """Refuse a model that has no published weights, or whose weights are neither in the hub's cache nor to be had now.

    Raises:
        UserError: as said.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError as err:
        raise UserError(_no_weights(name, "timm knows no weights of that name")) from err
    if published is None or not published.has_weights:
        raise UserError(_no_weights(name, "timm knows of none"))
    if published.hf_hub_id and not reachable():
        files = [published.hf_hub_filename] if published.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        repository, _, revision = published.hf_hub_id.partition("@")
        if not any(isinstance(try_to_load_from_cache(repository, f, revision=revision or None), str) for f in files):
            raise UserError(_no_weights(name, unreached()))


def _no_weights(name: str, why: str) -> str:
    return (
        f"cannot get the pre-trained weights of '{name}': {why}; go online once, name a file of them (--image_weights "
        "FILE, or weights: FILE in a benchmark), or start from scratch with --recipe scratch or --pretrained false"
    )


def _load_file(model: Any, name: str, path: Path) -> None:
    """All of a timm model's weights from a file in timm's or torchvision's names: of a model of one channel the first
    layer is folded, the classifier is left out, positions are resampled. (timm's own loading lets missing weights
    pass.)"""
    from timm.models import adapt_input_conv

    if not path.is_file():
        raise UserError(f"no weights of the image encoder '{name}' at {path}")
    state: dict[str, Any] = read_weights(path)
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if rename is not None:
        with suppress(Exception):  # it is for files that fit; of others, their own names are the ones to show
            state = dict(rename(dict(state), model))
    wanted = model.state_dict()
    first, last = (_names(model.pretrained_cfg.get(part)) for part in ("first_conv", "classifier"))
    for key in (f"{layer}.weight" for layer in first):
        if key in state and key in wanted and wanted[key].shape[1] == 1:
            with suppress(Exception):  # no convolution after all: its shape is named below
                state[key] = adapt_input_conv(1, state[key])
    state = {key: value for key, value in state.items() if key.rpartition(".")[0] not in last}
    needed = [key for key in wanted if not key.endswith("num_batches_tracked")]  # which old files have not
    missing = [key for key in needed if key not in state]
    unknown = [key for key in state if key not in wanted]
    both = [key for key in wanted if key in state]
    reshaped = [(key, state[key].shape, wanted[key].shape) for key in both if state[key].shape != wanted[key].shape]
    if missing or unknown or reshaped:
        why = misfit(missing, unknown, reshaped, len(needed))
        raise UserError(f"the weights in {path} do not fit the image encoder '{name}': {why}")
    model.load_state_dict(state)


def _names(layers: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else layers or ()


def input_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of red, green and blue in [0, 1], by which the inputs of a timm model's published
    weights were normalised; ``None`` where both are 0.5: one channel in [-1, 1], as images come here, is just that."""
    import timm

    known = timm.get_pretrained_cfg(name)
    mean, std = IMAGENET if known is None else (tuple(known.mean), tuple(known.std))
    return None if {*mean, *std} == {0.5} else (mean, std)


def normalisation(statistics: tuple[Sequence[float], Sequence[float]] | None) -> str:
    """In words, for a row of results.

    Example:
        >>> normalisation(None), normalisation(IMAGENET)
        ('mean 0.5, std 0.5', 'mean 0.485 0.456 0.406, std 0.229 0.224 0.225')
    """
    mean, std = statistics or ((0.5,), (0.5,))
    return ", ".join(f"{name} {' '.join(f'{v:g}' for v in values)}" for name, values in (("mean", mean), ("std", std)))


class Normalise(nn.Module):
    """A grey image in [-1, 1] as the three channels that an encoder was trained on: ``(0.5 x + 0.5 - mean) / std``.

    In front of the first convolution, so that its zero padding is that of the training. Folding that layer to one
    channel is exact only where mean and standard deviation are 0.5.

    Args:
        mean, std: of red, green and blue in [0, 1].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        centre, spread = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (0.5 / spread).float(), persistent=False)
        self.register_buffer("shift", ((0.5 - centre) / spread).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 1, H, W)`` to ``(B, 3, H, W)``."""
        return images * self.scale + self.shift


class ImageEncoder(nn.Module):
    """An image to features: one contract for every backbone.

    Args:
        name: a timm model that gives feature maps or tokens, ``small_resnet`` or ``small_vit``.
        image_size: H = W in pixels, to learn the grid from.
        pretrained: take timm's weights, or those of a file.
        normalised: give the weights the three channels that they were trained on, normalised by their own mean and
            standard deviation (:func:`input_statistics`). Otherwise the first layer is folded to one channel in
            [-1, 1], as the methods' authors start their training.
    Raises:
        UserError: for an unknown name, weights that cannot be had, or a model that gives no map at this size.
    Attributes:
        width: C of ``pooled`` and ``patches``.
        grid: ``(h, w)`` at ``image_size``.
        map_widths, map_grids: C and ``(h, w)`` of each of the ``maps``.
        input_normalisation: mean and standard deviation, in words.
    """

    def __init__(self, name: str, image_size: int, pretrained: bool | Path = False, normalised: bool = False) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        if pretrained and name in MADE_HERE:
            where = "published" if pretrained is True else f"to be read from {pretrained}"
            raise UserError(f"{name} is made here, and has no weights {where}")
        self.normalise: nn.Module = nn.Identity()
        statistics = None
        if name == SMALL_RESNET:
            self.backbone: Any = SmallResNet()
        elif name == SMALL_VIT:
            self.backbone = small_vit(image_size)
        else:
            statistics = input_statistics(name) if normalised else None
            self.backbone = _timm_model(name, pretrained, image_size, 1 if statistics is None else 3)
            if statistics is not None:
                self.normalise = Normalise(*statistics)
        self.input_normalisation = normalisation(statistics)
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
        images = self.normalise(images).contiguous(memory_format=torch.channels_last)
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


def has_batch_norm(encoder: nn.Module) -> bool:
    """Whether an encoder normalises by statistics that it has seen."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in encoder.modules())


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
