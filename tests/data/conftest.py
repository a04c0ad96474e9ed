"""DICOM files of every kind, and what DCMTK makes of them. Imported by name: parameters need them too."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
with_dcmtk = pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="needs DCMTK (apt-get install dcmtk)")


def ramp(top: int, kind: type = np.uint16) -> np.ndarray:
    """64 x 64, from 0 on the left to ``top`` on the right."""
    return np.tile(np.linspace(0, top, 64).round().astype(kind), (64, 1))


R8, R12, R16 = ramp(255, np.uint8), ramp(4095), ramp(65535)


def table(entries: int, first: int, bits: int, data: Any, packed: bool = False, big: bool = False) -> Sequence:
    """A modality or VOI table; ``packed``: two entries to a word; ``big``: for a file of that byte order."""
    words = np.asarray(data)
    if packed:
        words = np.append(words, [0] * (len(words) % 2)).astype(np.uint8).view("<u2")
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries, first, bits])
    item.add_new("LUTData", "OW", words.astype(">u2" if big else "<u2").tobytes())
    return Sequence([item])


def write(path: Path, stored: np.ndarray, bits: int | None = None, **fields: Any) -> Path:
    """A DICOM file of words or colours; ``bits`` of them are stored, ``syntax`` is its transfer syntax."""
    syntax = fields.pop("syntax", ExplicitVRLittleEndian)
    compressed = syntax.is_encapsulated
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if compressed else syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["image"])
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = stored.dtype.itemsize * 8
    data.BitsStored = data.BitsAllocated if bits is None else bits
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    little = syntax != ExplicitVRBigEndian
    words = stored.astype(stored.dtype.newbyteorder("<" if little else ">")).tobytes()
    data.add_new("PixelData", "OW" if data.BitsAllocated > 8 else "OB", words + b"\0" * (len(words) % 2))
    for name, value in fields.items():
        if name.startswith("PixelPadding"):  # in the sign of its value, whatever that of the pixels
            data.add_new(name, "SS" if value < 0 else "US", value)
        else:
            setattr(data, name, value)
    if compressed:
        data.compress(syntax)
    implicit = syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(path, data, enforce_file_format=True, implicit_vr=implicit, little_endian=little)
    return path


def dcmtk(path: Path, *options: str) -> np.ndarray:
    """What DCMTK makes of it."""
    out = path.with_suffix(".pgm")
    syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    tool = (
        "dcmj2pnm" if syntax in JPEGTransferSyntaxes else "dcml2pnm" if syntax in JPEGLSTransferSyntaxes else "dcm2pnm"
    )
    done = subprocess.run(
        [tool, "--no-overlays", *options, "--write-raw-pnm", path, out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.asarray(Image.open(out)).astype(int)


def window_of(low: float, high: float) -> tuple[str, ...]:
    """DCMTK's option for the window that shows ``low`` as 0 and ``high`` as 255 (PS3.3, C.11.2.1.2.1)."""
    return "--set-window", repr(float(low + high) / 2 + 0.5), repr(float(high - low) + 1)


def percentiles(values: np.ndarray) -> tuple[str, ...] | None:
    """The same for what lingula shows of an image without a window, where there is such a range."""
    low, high = np.percentile(values, [0.5, 99.5])
    return window_of(low, high) if high > low else None


def worst(image: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(image.astype(int) - other).max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that hypothesis runs many times."""
    return tmp_path_factory.mktemp("dicom")
