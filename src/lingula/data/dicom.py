"""DICOM to ``(H, W)`` uint8: stored values, then modality table or rescale, then VOI table or window, then polarity.

Tables and windows are read here: pydicom knows neither tables of 9 to 15 bits an entry, nor packed ones, nor VOI tables
of 65,536 entries. The tests hold the result against DCMTK's ``dcm2pnm``. What cannot be shown right is refused by name.
Floor 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lingula.data.dicom_pixels import Bits, decoded, integer, number, numbers
from lingula.data.grey import luminance, spread, to_uint8
from lingula.registry import UserError

PERCENTILES = (0.5, 99.5)  # the display range of an image that names none
LARGEST_TABLE = 1 << 20  # grey values; above this an image is mapped pixel by pixel

Values = Callable[[np.ndarray], np.ndarray]  # grey values to grey values


def read_dicom(path: Path) -> np.ndarray:
    """The image of a DICOM file as a reading station would show it, with air dark.

    A VOI table goes before a window. An image that names neither, or none that shows anything of it, is shown over its
    stored range where that is 8 bits or fewer, unsigned and without a modality table, and from its 0.5th to its 99.5th
    percentile elsewhere. Padding is black.

    Returns:
        ``(H, W)`` uint8.
    Raises:
        UserError: if the file holds no image, several frames, or what cannot be shown right.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom remarks on every value that departs from the standard
        try:
            dataset = pydicom.dcmread(path)
        except InvalidDicomError:
            dataset = pydicom.dcmread(path, force=True)  # old files have no preamble
        if "PixelData" not in dataset:
            floats = [name for name in ("FloatPixelData", "DoubleFloatPixelData") if name in dataset]
            raise UserError(
                f"its pixels are {floats[0]}, expected whole numbers"
                if floats
                else "not a DICOM image: it holds no pixel data"
            )
        if (frames := integer(dataset, "NumberOfFrames", 1)) > 1:
            raise UserError(f"expected one frame, got {frames}")
        _flatten(dataset)
        bits = Bits.of(dataset)
        photometric = dataset.get("PhotometricInterpretation")
        words, bits = decoded(dataset, bits)
        if words.ndim == 3:
            return luminance(bits.samples(words).astype(words.dtype))
        if photometric == "PALETTE COLOR":
            from pydicom.pixels import apply_color_lut

            return luminance(apply_color_lut(bits.samples(words).astype(words.dtype), dataset))
        return _display(words, bits, dataset)


def _flatten(dataset: Any) -> None:
    """Rescale and window of an enhanced image, which keeps them in functional groups (PS3.3, C.7.6.16), to its top."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(groups) or ():
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in group.get(name) or ():
                    dataset.update(item)


# Grey values ----------------------------------------------------------------------------------------------------------


def _display(words: np.ndarray, bits: Bits, dataset: Any) -> np.ndarray:
    """Monochrome words to ``(H, W)`` uint8, air dark."""
    stored = bits.samples(words)
    padding = _padding(stored, words, bits, dataset)
    grey, at = _indexed(stored)
    counts = np.bincount(at.ravel() if padding is None else at[~padding], minlength=len(grey))
    modality = _modality(dataset, bits)
    values = modality(grey)
    there = values[counts > 0]
    ends = modality(np.array(bits.range))
    if not np.isfinite(np.ptp(there)) or (len(there) > 1 and np.ptp(there) == 0):
        names = "ModalityLUTSequence" if dataset.get("ModalityLUTSequence") else "RescaleSlope and RescaleIntercept"
        raise UserError(f"{names}: from {there[0]:g} to {there[-1]:g}, expected finite values that differ")
    for show in _shows(dataset, signed=ends.min() < 0):
        if len(there) == 1 or np.ptp(show(there)) > 0:
            shown = show(values)
            break
    else:  # no table or window, or none that shows any of the image: better its own range than a black square
        ready = bits.stored <= 8 and not bits.signed and not dataset.get("ModalityLUTSequence")  # for display
        low, high = sorted(ends) if ready else _percentiles(values, counts)
        if not np.isfinite(high - low) or high == low:
            low, high = there.min(), there.max()
        shown = spread(values, low, high)
    image = (255 - shown if _inverse(dataset) else shown)[at]
    if padding is not None:
        image[padding] = 0
    return image


def _indexed(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grey values in ascending order, and for each pixel the index of its own: tables are far smaller than images."""
    low, high = int(stored.min()), int(stored.max())
    if high - low < LARGEST_TABLE:
        return np.arange(low, high + 1), stored - low
    return np.unique(stored, return_inverse=True)


def _percentiles(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``np.percentile`` of all pixels, by how often each value occurs."""
    order = np.argsort(values)
    until = np.cumsum(counts[order])
    position = (until[-1] - 1) * np.array(PERCENTILES) / 100
    below, above = (values[order][np.searchsorted(until, end(position), "right")] for end in (np.floor, np.ceil))
    return below + (above - below) * (position % 1)


def _padding(stored: np.ndarray, words: np.ndarray, bits: Bits, dataset: Any) -> np.ndarray | None:
    """True where the detector saw nothing, by the file's own padding value; None where it names none."""
    if not isinstance(dataset.get("PixelPaddingValue"), int):
        return None
    named = (dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    written = [value for value in named if isinstance(value, int)]
    # A value of more bits than are stored can only have been written into whole words.
    for terms in (bits, Bits(bits.allocated, bits.allocated, bits.allocated - 1, bits.signed)):
        ends = [value for one in written if (value := terms.value(one)) is not None]
        if len(ends) == len(written):
            samples = stored if terms is bits else terms.samples(words)
            inside = (samples >= min(ends)) & (samples <= max(ends))
            return inside if inside.any() and not inside.all() else None
    return None


def _modality(dataset: Any, bits: Bits) -> Values:
    """Stored to rescaled values, by the modality table or by slope and intercept, each 1 and 0 where it is absent."""
    table = Table.of(dataset, "ModalityLUTSequence", bits.signed)
    if table is not None:
        return table
    slope, intercept = number(dataset, "RescaleSlope", 1.0), number(dataset, "RescaleIntercept", 0.0)
    if slope == 0:
        raise UserError("RescaleSlope is 0, expected a number that keeps grey values apart")

    def rescale(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return values * slope + intercept

    return rescale


def _shows(dataset: Any, signed: bool) -> Iterator[Values]:
    """The file's own ways from rescaled values to uint8: its VOI table, then its windows, as far as they are valid."""
    table = Table.of(dataset, "VOILUTSequence", signed)
    if table is not None:
        yield lambda values: to_uint8(table(values) / (2**table.bits - 1))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    for center, width in zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"), strict=False):
        if np.isfinite([center, width]).all() and (
            width > 0 if function in ("LINEAR_EXACT", "SIGMOID") else width >= 1
        ):
            yield partial(_window, center=center, width=width, function=function)


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Rescaled values to uint8 (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return to_uint8(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500))))
    if function == "LINEAR_EXACT":
        return to_uint8((values - center) / width + 0.5)
    if width == 1:
        return to_uint8(values > center - 0.5)
    return to_uint8((values - (center - 0.5)) / (width - 1) + 0.5)


def _inverse(dataset: Any) -> bool:
    """Whether low values are bright. Where the shape contradicts the photometric interpretation, DCMTK goes by it."""
    shape = dataset.get("PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return dataset.get("PhotometricInterpretation") == "MONOCHROME1"


@dataclass(frozen=True)
class Table:
    """A modality or VOI table (PS3.3, C.11.1.1 and C.11.2.1.1).

    Attributes:
        first: the input value of the first entry; below it the first entry holds, above the table the last.
        entries: ``(N,)`` output values, unsigned.
        bits: of an entry; a VOI table's output is shown from 0 to ``2 ** bits - 1``.
    """

    first: int
    entries: np.ndarray
    bits: int

    @classmethod
    def of(cls, dataset: Any, name: str, signed: bool) -> Table | None:
        """The first table of the sequence ``name``; None where there is none. ``signed``: the input values are.

        Raises:
            UserError: for an impossible descriptor, or fewer entries than it says.
        """
        if not dataset.get(name):
            return None
        item = dataset[name].value[0]
        try:
            count, first, bits = (int(value) % (1 << 16) for value in item.LUTDescriptor)
        except (AttributeError, TypeError, ValueError) as err:
            raise UserError(f"{name}: expected a LUTDescriptor of 3 whole numbers") from err
        count = count or 1 << 16  # which 16 bits cannot hold
        if not 8 <= bits <= 16:
            raise UserError(f"{name}: {bits} bits an entry, expected 8 to 16")
        if "LUTData" not in item:
            raise UserError(f"{name} has no LUTData")
        words = _words(item["LUTData"], little=dataset.original_encoding[1] is not False)
        if len(words) >= count:
            entries = words[:count]
        elif bits == 8 and len(words) == (count + 1) // 2:  # packed, two to a word
            entries = words.astype("<u2").view(np.uint8)[:count]
        else:
            raise UserError(f"{name}: expected {count} entries of {bits} bits, LUTData holds {2 * len(words)} bytes")
        if signed and first >= 1 << 15:
            first -= 1 << 16
        # Tables of 12 bits that say 16 would be shown almost black, tables of 16 that say 8 as stripes.
        used = max(8, int(entries.max()).bit_length())
        return cls(first, entries.astype(np.float64), bits if bits - 4 < used <= bits else used)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Input values, rounded where they are fractions, to output values; float64."""
        return self.entries[np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)]


def _words(element: Any, little: bool) -> np.ndarray:
    """LUTData as 16-bit words, unsigned, whichever VR it was written in."""
    value = element.value
    if not isinstance(value, bytes):  # US or SS, parsed
        return np.asarray([] if value is None else value, dtype=np.int64).reshape(-1) % (1 << 16)
    return np.frombuffer(value + b"\0" * (len(value) % 2), dtype="<u2" if little or element.VR != "OW" else ">u2")
