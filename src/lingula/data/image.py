"""Films from files: JPEG, PNG and DICOM to ``(H, W)`` uint8, and the letterbox that makes a film a square. Floor 2.

Air is dark, whatever the file says: MONOCHROME1 is inverted. Nothing here is random, so a film read twice is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lingula.data.dicom import read_dicom
from lingula.data.grey import spread
from lingula.registry import UserError

ORIENTATION = 0x0112  # the EXIF tag
ROTATED = (5, 6, 7, 8)  # its values that swap width and height


@dataclass(frozen=True)
class Geometry:
    """Where a film lies in its square: prepared = original * scale + pad, for x and y alike.

    Coordinates are pixel *edges*: the first pixel spans 0 to 1, and a box over the whole film is ``(0, 0, W, H)``.

    Attributes:
        scale: prepared pixels per original pixel.
        pad_x, pad_y: empty columns on the left and rows on top, prepared pixels.
        height, width: of the original film, pixels, after its EXIF orientation.
    """

    scale: float
    pad_x: int
    pad_y: int
    height: int
    width: int

    @classmethod
    def of(cls, height: int, width: int, size: int) -> Geometry:
        """The geometry of a film of ``height`` by ``width`` pixels, its long side brought to ``size``, centred."""
        scale = size / max(height, width)
        pad_x, pad_y = ((size - max(1, round(side * scale))) // 2 for side in (width, height))
        return cls(scale, pad_x, pad_y, height, width)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that the film itself covers, prepared pixels."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    def to_prepared(self, points: Any) -> np.ndarray:
        """``(..., 2k)`` x, y, x, y, ... in original pixels to the same in prepared pixels; points and boxes alike."""
        return np.asarray(points, dtype=np.float64) * self.scale + self._pads(points)

    def to_original(self, points: Any) -> np.ndarray:
        """The inverse of :meth:`to_prepared`."""
        return (np.asarray(points, dtype=np.float64) - self._pads(points)) / self.scale

    def _pads(self, points: Any) -> np.ndarray:
        length = np.shape(points)[-1]
        if length % 2:
            raise ValueError(f"expected x, y pairs in the last axis, got shape {np.shape(points)}")
        return np.tile(np.array([self.pad_x, self.pad_y], dtype=np.float64), length // 2)


def letterbox(film: np.ndarray, size: int) -> tuple[np.ndarray, Geometry]:
    """Bring the long side of a film to ``size``, keep its aspect, and centre it in a black square.

    Shrinking averages areas, so that fine structure fades instead of aliasing; enlarging interpolates linearly.

    Args:
        film: ``(H, W)`` uint8.
        size: side of the square, pixels.
    Returns:
        the ``(size, size)`` uint8 square, and where the film lies in it.
    Raises:
        ValueError: if the film is not ``(H, W)`` uint8, or is empty.
    """
    if film.ndim != 2 or film.dtype != np.uint8 or not film.size:
        raise ValueError(f"expected a film of shape (H, W) in uint8, got {film.shape} in {film.dtype}")
    return _letterbox(film, Geometry.of(film.shape[0], film.shape[1], size), size)


def _letterbox(film: np.ndarray, geometry: Geometry, size: int) -> tuple[np.ndarray, Geometry]:
    """As :func:`letterbox`, for a film that may already have been decoded smaller than its original."""
    import cv2

    rows, columns = geometry.shape
    shrinks = rows <= film.shape[0] and columns <= film.shape[1]
    square = np.zeros((size, size), dtype=np.uint8)
    square[geometry.pad_y : geometry.pad_y + rows, geometry.pad_x : geometry.pad_x + columns] = cv2.resize(
        film, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return square, geometry


def letterbox_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask in the geometry of its film's :func:`letterbox`: True where it covers at least half of a pixel.

    Args:
        mask: ``(H, W)`` bool.
        size: side of the square, pixels.
    Returns:
        ``(size, size)`` bool; False beside the film.
    Raises:
        ValueError: if the mask is not ``(H, W)`` bool, or is empty.
    """
    import cv2

    if mask.ndim != 2 or mask.dtype != bool or not mask.size:
        raise ValueError(f"expected a mask of shape (H, W) in bool, got {mask.shape} in {mask.dtype}")
    geometry = Geometry.of(mask.shape[0], mask.shape[1], size)
    rows, columns = geometry.shape
    square = np.zeros((size, size), dtype=bool)
    if not mask.any():  # most masks of most corpora
        return square
    shrinks = rows <= mask.shape[0] and columns <= mask.shape[1]
    covered = cv2.resize(
        mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    square[geometry.pad_y : geometry.pad_y + rows, geometry.pad_x : geometry.pad_x + columns] = covered >= 0.5
    return square


def read_mask(path: Path | str) -> np.ndarray:
    """The mask of a lossless image file: ``(H, W)`` bool, True where a pixel is neither black nor
    transparent.

    Raises:
        UserError: ``cannot read image PATH: reason`` for missing, truncated and unsupported files, and for JPEG, whose
            edges are not exact.
    """

    def read(path: Path) -> np.ndarray:
        with Image.open(path) as file:
            if file.format == "JPEG":
                raise UserError("a mask must be lossless, this is a JPEG")
            if len(file.getbands()) == 1 and file.mode != "P":
                return np.asarray(file) != 0
            colours = np.asarray(file.convert("RGBA"))
        return colours[..., :3].any(-1) & (colours[..., 3] > 0)

    return _guarded(Path(path), read)


def read_image(path: Path | str) -> np.ndarray:
    """The film of a JPEG, PNG or DICOM file, full size.

    Returns:
        ``(H, W)`` uint8. Colour becomes luminance, transparency black; 16-bit PNG is scaled by its own range; DICOM
        is read by :func:`~lingula.data.dicom.read_dicom`.
    Raises:
        UserError: ``cannot read image PATH: reason`` for missing, truncated and unsupported files.
    """
    return _guarded(Path(path), lambda path: _decode(path, None)[0])


def read_square(path: Path | str, size: int) -> tuple[np.ndarray, Geometry]:
    """A film from its file straight to its :func:`letterbox`, decoding no more of a large JPEG than ``size`` needs.

    Returns:
        the ``(size, size)`` uint8 square, and its geometry with respect to the film of the file.
    Raises:
        UserError: as :func:`read_image`.
    """

    def read(path: Path) -> tuple[np.ndarray, Geometry]:
        film, (height, width) = _decode(path, size)
        return _letterbox(film, Geometry.of(height, width, size), size)

    return _guarded(Path(path), read)


def _guarded(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except UserError as err:
        raise UserError(f"cannot read image {path}: {err}") from err
    except FileNotFoundError as err:
        raise UserError(f"cannot read image {path}: no such file") from err
    except Exception as err:  # decoders raise anything on broken files: struct.error, KeyError, SyntaxError, ...
        raise UserError(f"cannot read image {path}: {err or type(err).__name__}") from err


def _decode(path: Path, size: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    """The film, perhaps decoded at a reduced scale but never below ``size``, and the original height and width."""
    with path.open("rb") as file:
        head = file.read(132)
    if not head:
        raise UserError("the file is empty")
    if head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        film = read_dicom(path)
        return film, (film.shape[0], film.shape[1])
    if head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n":
        return _read_raster(path, size)
    raise UserError("not a JPEG, PNG or DICOM file")


def _read_raster(path: Path, size: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    with Image.open(path, formats=("JPEG", "PNG")) as image:
        width, height = image.size
        rotated = image.getexif().get(ORIENTATION) in ROTATED
        if size is not None and image.format == "JPEG":
            # libjpeg shrinks to 1/2, 1/4 or 1/8 while decoding; draft() takes the smallest that is no less than asked.
            # OpenCV's reduced decoding gives the same pixels as fast, but fills what is missing of a file with grey.
            rows, columns = Geometry.of(height, width, size).shape
            image.draft("L", (columns, rows))
        image.load()  # raises on truncated data
        film = ImageOps.exif_transpose(image) if ORIENTATION in image.getexif() else image
        if _is_deep_colour(path):
            film = _deep_colour(path)
    return _to_uint8(film), (width, height) if rotated else (height, width)


def _is_deep_colour(path: Path) -> bool:
    """True for a PNG of 16 bits per channel and several channels, of which Pillow keeps only the high bytes."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[:4] == b"\x89PNG" and head[24] == 16 and head[25] != 0


def _deep_colour(path: Path) -> Image.Image:
    """Its luminance, alpha applied, over its own range."""
    import cv2

    decoded = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise UserError("damaged 16-bit PNG")
    colour = decoded.astype(np.float64)
    grey = colour[..., :3] @ [0.114, 0.587, 0.299]  # OpenCV's order is blue, green, red
    opaque = colour[..., 3] / 65535 if colour.shape[-1] == 4 else 1.0
    return Image.fromarray(spread(grey * opaque))


def _to_uint8(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return spread(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("L"))
