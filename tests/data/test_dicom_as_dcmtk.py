"""DICOM images look as in DCMTK: those that pydicom ships, and images of every kind."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)
from tests.data.conftest import dcmtk, percentiles, table, window_of, with_dcmtk, worst, write

from lingula.data.image import read_image
from lingula.registry import UserError

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"

REFUSED = {
    "MR_truncated.dcm": "number of bytes of pixel data is less than expected",
    "badVR.dcm": "NumberOfFrames is '1A', expected a number",
    "JPEG2000-embedded-sequence-delimiter.dcm": "its JPEG 2000.* is damaged",  # the delimiter cuts its codestream
}
ODD_IN_DCMTK = ("rtdose_expb_1frame.dcm",)  # 32 bits big-endian: swapped by 16 bits; it has a twin below
NO_J2K = ("693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small_jp2klossless.dcm")  # DCMTK reads none


def shipped() -> list[str]:
    """Every monochrome single-frame image of the installed package, by its path."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(path for path in SHIPPED.rglob("*") if path.is_file() and path.suffix in ("", ".dcm")):
            data = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            single = data.get("NumberOfFrames") in (None, 1, "1A")
            if single and str(data.get("PhotometricInterpretation")).startswith("MONOCHROME"):
                found.append(str(path.relative_to(SHIPPED)))
    return found


@with_dcmtk
@pytest.mark.parametrize("name", [name for name in shipped() if name not in (*REFUSED, *ODD_IN_DCMTK)])
def test_files_that_pydicom_ships_look_as_in_dcmtk(name: str, tmp_path: Path) -> None:
    copy = Path(shutil.copy(SHIPPED / name, tmp_path / "a.dcm"))
    data = pydicom.dcmread(copy)
    if data.file_meta.TransferSyntaxUID == JPEGExtended12Bit:  # pydicom cannot read it with gdcm, DCMTK can
        subprocess.run(["dcmdjpeg", copy, copy], check=True)
        data = pydicom.dcmread(copy)
    stored = data.pixel_array
    if name in NO_J2K:
        data.PixelData = stored.tobytes()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.save_as(copy)
    real = stored[stored != data["PixelPaddingValue"].value] if "PixelPaddingValue" in data else stored
    rescaled = real * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    theirs = dcmtk(copy, "--use-window", "1") if "WindowCenter" in data else None
    if theirs is None or np.ptp(theirs) == 0:  # no window, or one that shows nothing of the image
        ready = data.BitsStored <= 8
        theirs = dcmtk(copy, *(window_of(0, 2**data.BitsStored - 1) if ready else percentiles(rescaled) or ()))
    assert worst(read_image(SHIPPED / name), theirs) <= 1
    assert np.ptp(theirs) > 0


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_files_that_pydicom_ships_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=REFUSED[name]):
        read_image(SHIPPED / name)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("MR_small_RLE", "MR_small"),
        ("MR_small_jp2klossless", "MR_small"),
        ("MR_small_jpeg_ls_lossless", "MR_small"),
        ("MR_small_bigendian", "MR_small"),
        ("MR_small_implicit", "MR_small"),
        ("rtdose_rle_1frame", "rtdose_1frame"),
        ("rtdose_expb_1frame", "rtdose_1frame"),
        ("liver_expb_1frame", "liver_1frame"),
    ],
)
def test_twins_that_pydicom_ships_look_alike(name: str, twin: str) -> None:
    np.testing.assert_array_equal(read_image(SHIPPED / f"{name}.dcm"), read_image(SHIPPED / f"{twin}.dcm"))


UPPER = 20  # bits of the widest images: DCMTK computes in 32


@st.composite
def tables(draw: st.DrawFn, low: int, high: int, big: bool) -> tuple[Sequence, int, np.ndarray]:
    """A table of random entries that begins somewhere around the input values, ``low`` to ``high``; where; they."""
    bits = draw(st.integers(8, 16))
    count = draw(st.sampled_from([2, 3, 255, 256, 257, 4096, 32768, 65535, 65536]) | st.integers(2, 5000))
    first = draw(
        st.integers(max(low - 20, -(1 << 15) if low < 0 else 0), min(high, (1 << (15 if low < 0 else 16)) - 1))
    )
    entries = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 1 << bits, count)
    entries[[0, -1]] = (1 << bits) - 1, 1 << (bits - 1)
    packed = bits == 8 and draw(st.booleans())
    return table(count % 65536, first, bits, entries, packed=packed, big=big), first, entries


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], tuple[str, ...] | None]:
    """Words, the fields of their file, and the options by which DCMTK shows it as the file says."""
    allocated = draw(st.sampled_from([8, 16, 16, 32]))
    signed = draw(st.booleans())
    stored = draw(st.integers(1 + signed, min(allocated, UPPER)))
    high_bit = draw(st.integers(stored - 1, allocated - 1))
    syntax = draw(st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]))
    syntax = ExplicitVRLittleEndian if allocated == 32 else syntax
    big = syntax == ExplicitVRBigEndian
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    fields: dict[str, Any] = {"HighBit": high_bit, "PixelRepresentation": int(signed), "syntax": syntax}
    fields["PhotometricInterpretation"] = draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
    shape = draw(st.sampled_from([None, "IDENTITY", "INVERSE"]))
    if shape:
        fields["PresentationLUTShape"] = shape

    samples = np.linspace(low, high, 512).round().astype(np.int64).reshape(8, 64)
    shift = high_bit + 1 - stored
    mask = ((1 << stored) - 1) << shift
    words = (samples << shift) & mask
    if draw(st.booleans()):  # an overlay, or what else was left in the other bits
        words |= np.random.default_rng(0).integers(0, 1 << allocated, words.shape) & ~mask

    whole, ready = True, stored <= 8 and not signed
    kind = draw(st.sampled_from(["none", "rescale", "table"] if stored <= 16 else ["none", "rescale"]))
    rescaled: np.ndarray = samples.astype(float)
    if kind == "rescale":
        whole = stored < 10 or draw(st.booleans())  # of a few values with fractions DCMTK leaves nothing
        slope = draw(st.sampled_from([1, 2, 10, -1, -3] if whole else [0.684, -0.25, 1.5, 0.333333]))
        intercept = draw(st.integers(-3000, 3000)) + (0 if whole else 0.5)
        fields |= {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
        rescaled = samples * float(slope) + intercept
        low, high = sorted((int(low * slope + intercept), int(high * slope + intercept)))
    elif kind == "table":
        fields["ModalityLUTSequence"], first, entries = draw(tables(low, high, big))
        rescaled = entries[np.clip(samples - first, 0, len(entries) - 1)].astype(float)
        low, high, ready = 0, int(entries.max()), False

    shown = draw(st.sampled_from(["LINEAR", "SIGMOID", "table", "nothing"] if whole else ["LINEAR", "SIGMOID"]))
    if shown == "table":
        fields["VOILUTSequence"], _, _ = draw(tables(low, high, big))
        return words, fields | {"bits": stored, "allocated": allocated}, ("--use-voi-lut", "1")
    if shown == "nothing":
        options = window_of(low, high) if ready else percentiles(rescaled)
        return words, fields | {"bits": stored, "allocated": allocated}, options
    # DCMTK cuts rescaled values to whole numbers: with fractions, a narrower window would show it.
    width = draw(st.integers(1 if whole else 512, max(1024, 2 * (high - low)))) + draw(st.sampled_from([0, 0.5]))
    fields |= {"WindowCenter": str(draw(st.integers(low, max(low, high))) + 0.25), "WindowWidth": str(width)}
    fields["VOILUTFunction"] = shown
    return words, fields | {"bits": stored, "allocated": allocated}, ("--use-window", "1")


def look_as_in_dcmtk(folder: Path, image: tuple[np.ndarray, dict[str, Any], tuple[str, ...] | None]) -> None:
    words, fields, options = image
    assume(options is not None)
    kind = f"u{fields['allocated'] // 8}"
    fields = {name: value for name, value in fields.items() if name != "allocated"}
    path = write(folder / "a.dcm", words.astype(kind), **fields)
    theirs = dcmtk(path, *(options or ()))
    assume(np.ptp(theirs) > 2)  # a window beside the image: lingula then shows the image's own range
    assert worst(read_image(path), theirs) <= 1


@with_dcmtk
@settings(max_examples=100, deadline=None)
@given(image=images())
def test_images_of_every_kind_look_as_in_dcmtk(folder: Path, image: Any) -> None:
    look_as_in_dcmtk(folder, image)


@pytest.mark.slow
@with_dcmtk
@settings(max_examples=3000, deadline=None)
@given(image=images())
def test_many_images_of_every_kind_look_as_in_dcmtk(folder: Path, image: Any) -> None:
    look_as_in_dcmtk(folder, image)
