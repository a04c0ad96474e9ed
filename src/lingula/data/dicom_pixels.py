"""What a DICOM file stores: the numbers of its attributes, and its pixels as unsigned words with the place of a sample.

pydicom parses the file and python-gdcm decompresses it; bits are read here, because pydicom ignores HighBit. Floor 2.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from lingula.registry import UserError

FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # of JPEG and JPEG-LS; the precision follows


def numbers(dataset: Any, name: str) -> list[float]:
    """The numbers of an attribute: none where it is absent or empty, NaN for an empty one among others.

    Raises:
        UserError: if one of them is no number.
    """
    try:
        value = dataset.get(name)
        if value is None or value == "":
            return []
        values = value if isinstance(value, MutableSequence) else [value]
        return [float("nan") if number is None or number == "" else float(number) for number in values]
    except (TypeError, ValueError, OverflowError) as err:
        raw = dataset.get_item(name).value  # as it stands in the file
        written = raw.decode("latin-1").strip() if isinstance(raw, bytes) else str(raw)
        raise UserError(f"{name} is {written!r}, expected a number") from err


def number(dataset: Any, name: str, absent: float) -> float:
    """The one finite number of an attribute, ``absent`` where it is absent or empty.

    Raises:
        UserError: if it is none, not finite, or several.
    """
    found = numbers(dataset, name) or [absent]
    if len(found) > 1 or not np.isfinite(found[0]):
        raise UserError(f"{name} is {', '.join(f'{one:g}' for one in found)}, expected one finite number")
    return found[0]


def integer(dataset: Any, name: str, absent: int | None = None) -> int:
    """As :func:`number`, for whole numbers, and a UserError where there is none and ``absent`` is not given."""
    if absent is None and not numbers(dataset, name):
        raise UserError(f"{name} is missing, expected a whole number")
    return int(number(dataset, name, absent or 0))


@dataclass(frozen=True)
class Bits:
    """Where a sample lies in its word (PS3.5, 8.1.1): ``stored`` bits that end at bit ``high`` of ``allocated``."""

    allocated: int
    stored: int
    high: int
    signed: bool

    @classmethod
    def of(cls, dataset: Any) -> Bits:
        """As the file says. Raises UserError where that is impossible."""
        allocated, stored = (integer(dataset, name) for name in ("BitsAllocated", "BitsStored"))
        high = integer(dataset, "HighBit", stored - 1)
        representation = integer(dataset, "PixelRepresentation")
        if allocated not in (1, 8, 16, 32):
            raise UserError(f"BitsAllocated is {allocated}, expected 1, 8, 16 or 32")
        if not 1 <= stored <= allocated:
            raise UserError(f"BitsStored is {stored}, expected 1 to {allocated}, the BitsAllocated")
        if not stored - 1 <= high < allocated:
            raise UserError(
                f"HighBit is {high}, expected {stored - 1} to {allocated - 1}: {stored} of {allocated} bits"
            )
        if representation not in (0, 1):
            raise UserError(f"PixelRepresentation is {representation}, expected 0 or 1")
        return cls(allocated, stored, high, bool(representation))

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest sample that can be stored."""
        return (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.signed else (0, (1 << self.stored) - 1)

    def samples(self, words: np.ndarray) -> np.ndarray:
        """Unsigned words to their samples: shifted, masked (overlays may lie in the other bits), sign extended."""
        samples: np.ndarray = words.astype(np.int32 if self.allocated <= 16 else np.int64)
        samples >>= self.high + 1 - self.stored
        samples &= (1 << self.stored) - 1
        sign = 1 << (self.stored - 1)
        return (samples ^ sign) - sign if self.signed else samples

    def value(self, number: int) -> int | None:
        """A 16-bit attribute such as PixelPaddingValue as a sample, in whichever sign it was written."""
        value = number % (1 << self.stored)
        if self.signed and value >= 1 << (self.stored - 1):
            value -= 1 << self.stored
        return value if (number - value) % (1 << 16) == 0 or number == value % (1 << self.stored) else None


def decoded(dataset: Any, bits: Bits) -> tuple[np.ndarray, Bits]:
    """The unsigned words of the image, ``(H, W)`` or ``(H, W, 3)`` in red, green and blue, and where samples lie."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGExtended12Bit, JPEGLosslessSV1

    if getattr(dataset, "file_meta", None) is None or "TransferSyntaxUID" not in dataset.file_meta:
        dataset.ensure_file_meta()
        big = dataset.original_encoding[1] is False
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ImplicitVRLittleEndian
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        raise UserError(f"no decoder for {syntax.name}{_without_gdcm()}")
    if syntax.is_encapsulated:
        bits, precision = _bits_of_codec(dataset, bits, syntax)
        if syntax == JPEGExtended12Bit and precision == 12:
            # gdcm goes by the codestream and decodes it like DCMTK; pydicom only lets it for the lossless syntaxes.
            dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
            decoder = get_decoder(JPEGLosslessSV1)
    elif bits.high != bits.stored - 1 and dataset.get("SamplesPerPixel") != 1:
        raise UserError(f"HighBit is {bits.high}, expected {bits.stored - 1} for an image in colour")
    # With fewer bits stored than allocated, gdcm masks at bit 0 whatever HighBit says, and ends the process for fewer
    # than 8: it is told that all are stored, and the others are removed in Bits.samples.
    options: Any = {"bits_stored": bits.allocated, "correct_unused_bits": False}
    if "gdcm" in decoder.available_plugins:  # what pydicom would try next fills in for missing parts of a codestream
        options["decoding_plugin"] = "gdcm"
    try:
        words, _ = decoder.as_array(dataset, **options)
    except Exception as err:  # decoders raise anything, over several lines
        reason = " ".join(str(err).split())
        if syntax.is_encapsulated:
            reason = f"its {syntax.name} is damaged or not what its header says{_without_gdcm()} ({reason})"
        raise UserError(reason) from err
    return words.astype(f"u{words.dtype.itemsize}"), bits


def _without_gdcm() -> str:
    return "" if find_spec("gdcm") else "; python-gdcm, which has most decoders, is missing: pip install python-gdcm"


def _bits_of_codec(dataset: Any, bits: Bits, syntax: Any) -> tuple[Bits, int]:
    """Where samples lie in decompressed words, and how many bits of each the codestream holds."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import JPEGTransferSyntaxes, RLELossless

    if syntax == RLELossless:  # of words
        return bits, bits.allocated
    precision = _precision(next(generate_frames(dataset.PixelData, number_of_frames=1))) or bits.stored
    if precision > bits.allocated:
        raise UserError(f"BitsAllocated is {bits.allocated}, expected the {precision} bits of its {syntax.name}")
    if syntax in JPEGTransferSyntaxes and bits.allocated > 16:  # on which gdcm ends the process
        raise UserError(f"BitsAllocated is {bits.allocated}, expected 8 or 16 with {syntax.name}")
    if precision <= bits.stored:  # the codec was given samples, not words
        return replace(bits, high=bits.stored - 1), precision
    if precision <= bits.high:
        raise UserError(f"HighBit is {bits.high}, expected less than the {precision} bits of its {syntax.name}")
    return bits, precision


def _precision(frame: bytes) -> int | None:
    """Bits a sample of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it does not begin like one."""
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC, SIZ
        return (frame[42] & 0x7F) + 1
    at = 2  # after SOI
    while at + 4 < len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in FRAME_MARKERS:
            return frame[at + 4]
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
