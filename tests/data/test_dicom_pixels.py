"""Compressed DICOM against the uncompressed, and against DCMTK's decoders."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG2MPML,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from tests.data.conftest import R8, R12, R16, RAMP, dcmtk, ramp, with_dcmtk, worst, write

from lingula.data import dicom_pixels
from lingula.data.image import read_image
from lingula.registry import UserError

LOSSLESS = [("dcmcjpeg", "+e1"), ("dcmcjpeg", "+el"), ("dcmcjpls", "+el"), ("dcmcrle", "+fo")]


@with_dcmtk
@pytest.mark.parametrize(("tool", "option"), LOSSLESS, ids=["JPEG SV1", "JPEG 14", "JPEG-LS", "RLE"])
@pytest.mark.parametrize(
    ("allocated", "stored", "high", "signed"),
    [
        (8, 8, 7, False),
        (8, 6, 5, False),  # gdcm would end the process
        (8, 7, 7, True),
        (16, 8, 7, False),
        (16, 12, 11, False),
        (16, 12, 11, True),
        (16, 12, 15, True),  # gdcm would mask the wrong bits
        (16, 10, 12, False),
        (16, 16, 15, True),
    ],
)
def test_compressed_by_dcmtk_equals_the_uncompressed(
    tmp_path: Path, tool: str, option: str, allocated: int, stored: int, high: int, signed: bool
) -> None:
    chance = np.random.default_rng(0)
    mask = ((1 << stored) - 1) << (high + 1 - stored)
    words = (np.arange(1 << stored).repeat(2)[:: max(1, (1 << stored) // 1024)] << (high + 1 - stored)) & mask
    words = (words | (chance.integers(0, 1 << allocated, words.shape) & ~mask)).astype(f"u{allocated // 8}")
    fields = {"HighBit": high, "PixelRepresentation": int(signed), "WindowCenter": "3", "WindowWidth": str(1 << stored)}
    plain = write(tmp_path / "a.dcm", words.reshape(-1, 16), stored, **fields)
    subprocess.run([tool, option, plain, tmp_path / "b.dcm"], check=True, capture_output=True)
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm"), read_image(plain))
    assert worst(read_image(plain), dcmtk(plain, "--use-window", "1")) <= 1


@with_dcmtk
@pytest.mark.parametrize(
    ("tool", "option", "stored"),
    [
        ("dcmcjpeg", "+eb", 8),
        ("dcmcjpeg", "+ee", 12),
        ("dcmcjpeg", "+ee", 8),
        ("dcmcjpls", "+en", 7),
        ("dcmcjpls", "+en", 12),
    ],
)
def test_lossy_codecs_look_as_in_dcmtk(tmp_path: Path, tool: str, option: str, stored: int) -> None:
    pixels = ramp((1 << stored) - 1, np.uint8 if stored <= 8 else np.uint16)
    plain = write(tmp_path / "a.dcm", pixels, stored, WindowCenter=1 << stored - 1, WindowWidth=1 << stored)
    subprocess.run([tool, option, plain, tmp_path / "b.dcm"], check=True, capture_output=True)
    # a lossy encoder writes a window of its own, in its own bits
    window = ("--use-window", "1") if "WindowCenter" in pydicom.dcmread(tmp_path / "b.dcm") else ()
    assert worst(read_image(tmp_path / "b.dcm"), dcmtk(tmp_path / "b.dcm", *window)) <= 1


def compress(path: Path, codestream: bytes, syntax: str) -> Path:
    data = pydicom.dcmread(path)
    data.PixelData = encapsulate([codestream])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)
    return path


@pytest.mark.parametrize(
    ("stored", "header"),
    [
        (R8, (8, 8, 7)),
        (R16, (16, 16, 15)),
        (R12, (16, 12, 11)),
        (R12 << 4, (16, 12, 15)),  # the codec was given words
        (R8, (16, 8, 15)),  # and here samples, by an encoder that left HighBit as it was
    ],
)
def test_jpeg_2000_equals_the_uncompressed(tmp_path: Path, stored: np.ndarray, header: tuple[int, int, int]) -> None:
    allocated, bits, high = header
    plain = read_image(write(tmp_path / "a.dcm", stored, bits, HighBit=high if stored.itemsize == 2 else 7))
    path = write(tmp_path / "b.dcm", stored, bits, BitsAllocated=allocated, HighBit=high)
    stream = BytesIO()
    Image.fromarray(stored).save(stream, "JPEG2000", irreversible=False, no_jp2=True)  # of 8 or 16 bits
    np.testing.assert_array_equal(read_image(compress(path, stream.getvalue(), JPEG2000Lossless)), plain)


def test_rle_equals_the_uncompressed(tmp_path: Path) -> None:
    plain = read_image(write(tmp_path / "a.dcm", RAMP))
    np.testing.assert_array_equal(read_image(write(tmp_path / "b.dcm", RAMP, syntax=RLELossless)), plain)


def test_jpeg_in_dicom_equals_the_jpeg(tmp_path: Path) -> None:
    Image.fromarray(R8).save(tmp_path / "a.jpg", quality=90)
    path = compress(write(tmp_path / "a.dcm", R8), (tmp_path / "a.jpg").read_bytes(), JPEGBaseline8Bit)
    assert worst(read_image(path), read_image(tmp_path / "a.jpg").astype(int)) <= 1


@pytest.mark.parametrize(
    ("has_gdcm", "way_out"), [(False, "; python-gdcm.* is missing: pip install python-gdcm$"), (True, "$")]
)
def test_a_missing_decoder_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gdcm: bool, way_out: str
) -> None:
    monkeypatch.setattr(dicom_pixels, "find_spec", lambda name: has_gdcm or None)
    path = compress(write(tmp_path / "a.dcm", R8), b"no video", MPEG2MPML)
    with pytest.raises(UserError, match=r"no decoder for MPEG2 Main Profile / Main Level" + way_out):
        read_image(path)
    path = compress(write(tmp_path / "a.dcm", R8), b"no JPEG", JPEGLosslessSV1)
    monkeypatch.setattr("pydicom.pixels.get_decoder", lambda uid: SimpleNamespace(is_available=False))
    with pytest.raises(UserError, match="no decoder for JPEG Lossless.*" + way_out):
        read_image(path)


@with_dcmtk
@pytest.mark.parametrize(("tool", "option"), LOSSLESS, ids=["JPEG SV1", "JPEG 14", "JPEG-LS", "RLE"])
@pytest.mark.parametrize("share", [0.99, 0.1])
def test_a_codestream_that_is_cut_is_refused(tmp_path: Path, tool: str, option: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64), dtype=np.uint16)
    path = write(tmp_path / "a.dcm", noise, 12)
    subprocess.run([tool, option, path, path], check=True, capture_output=True)
    data = pydicom.dcmread(path)
    frame = next(generate_frames(data.PixelData, number_of_frames=1))
    compress(path, frame[: int(len(frame) * share)], data.file_meta.TransferSyntaxUID)
    with pytest.raises(UserError, match=f"its {data.file_meta.TransferSyntaxUID.name[:4]}.* is damaged"):
        read_image(path)
