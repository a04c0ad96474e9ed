"""What happens to films on the device, a whole batch at a time. Floor 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.keyed import keyed_uniform

UNIT_RANGE = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)


def resize(films: Tensor, size: int) -> Tensor:
    """``(B, S, S)`` uint8 or float to ``(B, size, size)``: antialiased; the same films where the size is right."""
    if films.shape[-1] == size:
        return films
    return F.interpolate(films[:, None].float(), size=(size, size), mode="bilinear", antialias=True)[:, 0]


def crop_corners(seed: int, keys: Tensor, room: int) -> Tensor:
    """Top-left corners of random crops, ``(B, 2)`` int64 in [0, room], a function of (seed, key) alone."""
    return (keyed_uniform(seed, keys, 2) * (room + 1)).long()


def centre_corners(count: int, room: int, device: torch.device) -> Tensor:
    """Top-left corners of centre crops, ``(B, 2)`` int64."""
    return torch.full((count, 2), room // 2, dtype=torch.int64, device=device)


def crop(films: Tensor, corners: Tensor, size: int) -> Tensor:
    """``(B, S, S)`` and ``(B, 2)`` corners (y, x) to ``(B, size, size)``, in one gather."""
    span = torch.arange(size, device=films.device)
    rows = corners[:, 0, None] + span
    columns = corners[:, 1, None] + span
    film = torch.arange(len(films), device=films.device)
    return films[film[:, None, None], rows[:, :, None], columns[:, None, :]]


def to_unit_range(films: Tensor) -> Tensor:
    """Grey values in [0, 255] to float32 in [-1, 1], as the field's ``Normalize(0.5, 0.5)`` does."""
    if films.dtype == torch.uint8 and films.device.type == "cpu":  # looked up: a third of the time
        rows = films.contiguous().numpy().reshape(-1, films.shape[-1])
        return torch.from_numpy(cv2.LUT(rows, UNIT_RANGE)).reshape(films.shape)
    return films.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


# Random views ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """How a view of a film is drawn. The default is a window of the image size at a random place: nothing is turned,
    mirrored or changed in brightness, since reports say left and right, small and large.

    Attributes:
        crop_scale: a crop whose area is this share of the film, of aspect 3/4 to 4/3, resized to the image size
            (as torchvision's ``RandomResizedCrop``; a side that would be longer than the film's is as long, where
            torchvision draws again: crops of 60 % or more have 79 % of the film on average, there 74 %); ``None`` for
            the window.
        flip: probability of mirroring left and right.
        rotate: degrees, either way.
        translate: share of the film's side, either way, along both axes.
        zoom: range of the factor by which the film is enlarged.
        brightness, contrast: half-width of the factor's range around 1.
        jitter_probability: of changing brightness and contrast at all.
        blur: range of the Gaussian's sigma, in pixels of a film of 224; ``None`` for none.
        blur_probability: of blurring at all.
    """

    crop_scale: tuple[float, float] | None = None
    flip: float = 0.0
    rotate: float = 0.0
    translate: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    jitter_probability: float = 1.0
    blur: tuple[float, float] | None = None
    blur_probability: float = 0.5

    @property
    def is_window(self) -> bool:
        """Whether a view is nothing but a window of the film."""
        return self == Augmentation()


# What SimCLR and MoCo v2 do to photographs, without what means nothing on a grey film (hue, saturation, greyscale), and
# with crops large enough to keep a lesion.
TWO_VIEWS = Augmentation(
    crop_scale=(0.6, 1.0), flip=0.5, brightness=0.4, contrast=0.4, jitter_probability=0.8, blur=(0.1, 2.0)
)

# What ConVIRT does to a film, and LoVT after it: the numbers of their configurations agree.
CONVIRT_VIEW = Augmentation(
    crop_scale=(0.6, 1.0),
    flip=0.5,
    rotate=20.0,
    translate=0.1,
    zoom=(0.95, 1.05),
    brightness=0.4,
    contrast=0.4,
    blur=(0.1, 3.0),
    blur_probability=1.0,
)


def augment(films: Tensor, augmentation: Augmentation, size: int, seed: int, keys: Tensor) -> Tensor:
    """One random view of each film, a function of (seed, key) alone.

    Args:
        films: ``(B, S, S)`` grey values in [0, 255].
        augmentation: what may happen.
        size: H = W of the views, pixels.
        seed: of the draw; another view has another seed.
        keys: ``(B,)`` int64, one a film.
    Returns:
        ``(B, size, size)``: of the films' own type where the view is a window, else float32 in [0, 255].
    """
    if augmentation.is_window:
        return crop(films, crop_corners(seed, keys, films.shape[-1] - size), size)
    a = augmentation
    draws = keyed_uniform(seed, keys, 14).float().T  # (14, B)

    def between(number: int, low: float, high: float) -> Tensor:
        return low + (high - low) * draws[number]

    # Where a pixel of the view comes from, in units of half the film's side: x_film = A x_view + b.
    if a.crop_scale is None:
        width = height = torch.full_like(draws[0], size / films.shape[-1])
    else:
        area, aspect = between(0, *a.crop_scale), torch.exp(between(1, math.log(3 / 4), math.log(4 / 3)))
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = between(2, -1, 1) * (1 - width), between(3, -1, 1) * (1 - height)
    x, y = x + 2 * a.translate * between(4, -1, 1), y + 2 * a.translate * between(5, -1, 1)
    angle, zoom = math.radians(a.rotate) * between(6, -1, 1), between(7, *a.zoom)
    mirror = torch.where(draws[8] < a.flip, -1.0, 1.0)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    rows = (cos * width * mirror, -sin * height, x, sin * width * mirror, cos * height, y)
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, [len(films), 1, size, size], align_corners=False)
    views = F.grid_sample(films[:, None].float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    jittered = (draws[9] < a.jitter_probability)[:, None, None, None]
    if a.brightness:
        factor = between(10, 1 - a.brightness, 1 + a.brightness)[:, None, None, None]
        views = torch.where(jittered, (views * factor).clamp(0, 255), views)
    if a.contrast:
        factor = between(11, 1 - a.contrast, 1 + a.contrast)[:, None, None, None]
        mean = views.mean((1, 2, 3), keepdim=True)
        views = torch.where(jittered, (mean + (views - mean) * factor).clamp(0, 255), views)
    if a.blur is not None:
        sigma = between(12, *a.blur) * size / 224
        blurred = (draws[13] < a.blur_probability)[:, None, None, None]
        views = torch.where(blurred, gaussian_blur(views, sigma, a.blur[1] * size / 224), views)
    return views[:, 0]


def gaussian_blur(films: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """``(B, 1, H, W)`` blurred, each film by its own ``(B,)`` sigma in pixels, of which ``largest`` is a bound."""
    reach = max(1, min(math.ceil(3 * largest), films.shape[-1] - 1))
    place = torch.arange(-reach, reach + 1, device=films.device)
    kernel = torch.exp(-0.5 * (place / sigma.clamp_min(1e-3)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None, None]  # (B, 1, 1, 2 reach + 1)
    grouped = F.pad(films.transpose(0, 1), (reach,) * 4, mode="reflect")  # (1, B, H + 2 reach, W + 2 reach)
    grouped = F.conv2d(grouped, kernel, groups=len(films))
    return F.conv2d(grouped, kernel.transpose(2, 3), groups=len(films)).transpose(0, 1)
