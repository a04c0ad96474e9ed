"""DICOM grey values: windows, tables, padding, polarity, against pydicom and the standard's formulas."""

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
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from tests.data.conftest import R8, R12, R16, RAMP, dcmtk, table, with_dcmtk, worst, write

from lingula.data.image import letterbox, read_image, read_square
from lingula.registry import UserError

# Cases of public bug reports ------------------------------------------------------------------------------------------


UP, DOWN = (0, 65, 130, 194, 255), (255, 190, 125, 61, 0)
BYTES = np.linspace(0, 255, 4096).round()


@pytest.mark.parametrize(
    ("stored", "bits", "fields", "expected"),
    [
        # OHIF/Viewers #127: 8 bits and no window, but a rescale (Agfa)
        (R8, 8, {"RescaleSlope": "-10", "RescaleIntercept": "3000"}, DOWN),
        (R8.astype(np.uint16), 8, {"RescaleSlope": "-1", "RescaleIntercept": "255"}, DOWN),
        # fo-dicom #1062: 65,536 entries are written as 0
        (R16, 16, {"VOILUTSequence": table(0, 0, 16, np.arange(65536))}, UP),
        (R16, 16, {"ModalityLUTSequence": table(0, 0, 16, np.arange(65536))}, UP),
        # pydicom #2317: a modality table of 9 to 15 bits
        (R12, 12, {"ModalityLUTSequence": table(4096, 0, 12, np.arange(4096)[::-1])}, DOWN),
        # highdicom #171, cornerstone3D #2856: 8 bits an entry, in words (which the standard allows for) and packed
        (R12, 12, {"VOILUTSequence": table(4096, 0, 8, BYTES)}, UP),
        (R12, 12, {"VOILUTSequence": table(4096, 0, 8, BYTES, packed=True)}, UP),
        (R12, 12, {"ModalityLUTSequence": table(4096, 0, 8, BYTES, packed=True)}, UP),
        # fo-dicom #140: bits that do not end at bit 0
        (R12 << 4, 12, {"HighBit": 15}, UP),
        (R12 << 4, 12, {"HighBit": 15, "WindowCenter": 2048, "WindowWidth": 4096}, UP),
    ],
)
def test_grey_values_of_public_bug_reports(
    tmp_path: Path, stored: np.ndarray, bits: int, fields: dict[str, Any], expected: tuple[int, ...]
) -> None:
    image = read_image(write(tmp_path / "a.dcm", stored, bits, **fields))
    assert tuple(image[0, [0, 16, 32, 48, 63]].tolist()) == expected
    assert (image == image[:1]).all()


# Windows and tables ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    center=st.floats(-3000, 3000).map(lambda value: round(value, 3)),
    width=st.floats(0.01, 9000).map(lambda value: round(value, 3)),
    slope=st.sampled_from([1.0, -2.0, 0.5]),
)
def test_linear_exact_is_the_standards_formula(folder: Path, center: float, width: float, slope: float) -> None:
    """PS3.3, C.11.2.1.3.2, as it stands there; DCMTK takes LINEAR_EXACT for LINEAR."""
    fields = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": str(center), "WindowWidth": str(width)}
    path = write(folder / "a.dcm", RAMP, 12, RescaleSlope=str(slope), RescaleIntercept="-500", **fields)
    expected = []
    for x in (RAMP.ravel() * slope - 500).tolist():
        if x <= center - width / 2:
            expected.append(0.0)
        elif x > center + width / 2:
            expected.append(255.0)
        else:
            expected.append(((x - center) / width + 0.5) * 255)
    assume(np.ptp(expected) > 2)
    assert np.abs(read_image(path).ravel() - np.array(expected)).max() <= 0.501


@pytest.mark.parametrize(("center", "width"), [(1500, 1000), (1500, 2), (1500, 1), (1500.5, 1), (1500.25, 1.5)])
def test_window_is_the_standards_formula(tmp_path: Path, center: float, width: float) -> None:
    image = read_image(write(tmp_path / "a.dcm", RAMP, WindowCenter=center, WindowWidth=width))
    for x in (0, 1000, 1001, 1200, 1499, 1500, 1501, 1700, 1999, 2000, 3071):
        if x <= center - 0.5 - (width - 1) / 2:
            expected = 0.0
        elif x > center - 0.5 + (width - 1) / 2:
            expected = 255.0
        else:
            expected = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
        assert abs(image.flat[x] - expected) <= 0.5


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_window_agrees_with_pydicom(tmp_path: Path, function: str, kind: type) -> None:
    stored = (RAMP.astype(int) - (1500 if kind is np.int16 else 0)).astype(kind)
    fields = {"WindowCenter": [400, 9], "WindowWidth": [900, 9], "RescaleSlope": 2, "RescaleIntercept": -700}
    path = write(tmp_path / "a.dcm", stored, VOILUTFunction=function, **fields)
    # pydicom maps the window to the range of rescaled values; undo that.
    shown = apply_windowing(stored * 2.0 - 700, pydicom.dcmread(path))
    limits = np.iinfo(kind)
    low, high = limits.min * 2.0 - 700, limits.max * 2.0 - 700
    expected = (shown - low) / (high - low) * 255
    assert np.abs(read_image(path) - expected).max() <= 0.51
    assert np.ptp(expected) > 100


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": "nan", "WindowWidth": 100},
        {"WindowCenter": 100, "WindowWidth": "inf"},
        {"WindowCenter": 100},
        {"WindowCenter": 60000, "WindowWidth": 10},  # shows none of the image
        {"VOILUTSequence": table(100, 60000, 12, np.arange(100) * 40)},  # nor does this table
        {"RescaleSlope": "", "RescaleIntercept": "", "VOILUTSequence": None},
        {"RescaleSlope": "1e300"},
    ],
)
def test_without_a_usable_window_the_range_is_robust(tmp_path: Path, window: dict[str, Any]) -> None:
    stored = RAMP.copy()
    stored[0, 0] = 40000  # one hot pixel
    image = read_image(write(tmp_path / "a.dcm", stored, **window))
    low, high = np.percentile(stored, [0.5, 99.5])
    expected = np.clip((stored - low) / (high - low), 0, 1) * 255
    assert np.abs(image - expected).max() <= 0.51
    assert image[32, 0] == pytest.approx(128, abs=3)  # the hot pixel has not darkened the image


@pytest.mark.parametrize(
    ("fields", "same_as"),
    [
        ({"WindowCenter": [5, 1500], "WindowWidth": [0, 1000]}, {}),  # the first that is valid
        ({"WindowCenter": [1500, 5], "WindowWidth": [1000, 9]}, {}),
        ({"WindowCenter": ["60000", "1500"], "WindowWidth": ["10", "1000"]}, {}),  # and shows some of the image
        ({"VOILUTFunction": "OWN"}, {}),
        ({"VOILUTSequence": table(100, 60000, 12, np.arange(100) * 40)}, {}),  # shows none of the image
        ({"RescaleSlope": 1}, {}),
        ({"RescaleIntercept": 100, "WindowCenter": 1600}, {}),
        ({"RescaleSlope": 2, "RescaleIntercept": "", "WindowCenter": 3000, "WindowWidth": 2000}, {}),
        # a table goes before a window, and a modality table before a rescale
        ({"VOILUTSequence": table(3072, 0, 12, np.arange(3072))}, {"WindowCenter": 2048, "WindowWidth": 4096}),
        (
            {"ModalityLUTSequence": table(3072, 0, 16, np.arange(3072)), "RescaleSlope": 5, "RescaleIntercept": 9},
            {"RescaleSlope": 1},
        ),
    ],
)
def test_the_first_way_that_shows_the_image_is_taken(
    tmp_path: Path, fields: dict[str, Any], same_as: dict[str, Any]
) -> None:
    usual = {"WindowCenter": 1500, "WindowWidth": 1000}
    image = read_image(write(tmp_path / "a.dcm", RAMP, **usual | fields))
    assert worst(image, read_image(write(tmp_path / "b.dcm", RAMP, **usual | same_as))) <= 1


@with_dcmtk
@pytest.mark.parametrize(("declared", "used"), [(16, 12), (16, 10), (14, 10), (8, 12)])
def test_a_table_whose_descriptor_misstates_its_bits_is_shown_by_its_entries(
    tmp_path: Path, declared: int, used: int
) -> None:
    entries = np.linspace(0, (1 << used) - 1, 4096).round()
    path = write(tmp_path / "a.dcm", R12, 12, VOILUTSequence=table(4096, 0, declared, entries))
    assert worst(read_image(path), dcmtk(path, "--use-voi-lut", "1", "--ignore-vlut-depth")) <= 1


@pytest.mark.parametrize("vr", ["US", "SS", "OW", "OB"])
@pytest.mark.parametrize("packed", [False, True])
def test_table_entries_of_every_encoding(tmp_path: Path, vr: str, packed: bool) -> None:
    bits = 8 if packed else 16
    entries = np.arange(4095) * ((1 << bits) - 1) // 4094  # an odd number: the last packed word is half empty
    sequence = table(4095, 1, bits, entries, packed=packed)
    data = sequence[0]["LUTData"].value
    words = data if vr in ("OW", "OB") else np.frombuffer(data, "<i2" if vr == "SS" else "<u2").tolist()
    del sequence[0]["LUTData"]
    sequence[0].add_new("LUTData", vr, words)
    image = read_image(write(tmp_path / "a.dcm", R12, 12, VOILUTSequence=sequence))
    np.testing.assert_allclose(image, entries[np.clip(R12.astype(int) - 1, 0, 4094)] / entries.max() * 255, atol=0.51)


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("first", [-32768, -1, 0, 1, 32767, 32768, 65000])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_tables_begin_at_their_first_value_in_its_sign(tmp_path: Path, name: str, first: int, syntax: Any) -> None:
    values = np.arange(first - 4, first + 96).clip(-32768 if first < 0 else 0).reshape(10, 10)
    stored = values.astype(np.int16 if first < 0 else np.uint16)
    image = read_image(
        write(tmp_path / "a.dcm", stored, syntax=syntax, **{name: table(92, first, 8, np.arange(92) * 2)})
    )
    entries = (values - first).clip(0, 91) * 2
    low, high = np.percentile(entries, [0.5, 99.5]) if name == "ModalityLUTSequence" else (0, 255)
    np.testing.assert_allclose(image, ((entries - low) / (high - low) * 255).clip(0, 255), atol=0.51)


def test_a_voi_tables_first_value_is_in_the_sign_of_the_modalitys_output(tmp_path: Path) -> None:
    """Where the file leaves its VR implicit, pydicom takes that of the pixels."""
    fields = {"RescaleIntercept": 32768, "VOILUTSequence": table(4096, 40000, 12, np.arange(4096))}
    signed = (R12.astype(int) + 40000 - 32768).astype(np.int16)
    image = read_image(write(tmp_path / "a.dcm", signed, syntax=ImplicitVRLittleEndian, **fields))
    np.testing.assert_allclose(image, R12 / 4095 * 255, atol=0.51)


def test_voi_table_agrees_with_pydicom_where_that_knows_it(tmp_path: Path) -> None:
    first, entries = 500, 2000
    sequence = table(entries, first, 16, [int(65535 * (i / (entries - 1)) ** 2) for i in range(entries)])
    path = write(tmp_path / "a.dcm", RAMP, VOILUTSequence=sequence, WindowCenter=1, WindowWidth=2)
    image = read_image(path)
    share = np.clip((RAMP.astype(float) - first) / (entries - 1), 0, 1)
    assert np.abs(image - share**2 * 255).max() <= 0.51
    assert np.abs(image - apply_voi(RAMP, pydicom.dcmread(path)) / 65535 * 255).max() <= 0.51


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_rescale_and_window_of_an_enhanced_image(tmp_path: Path, groups: str) -> None:
    fields = {"RescaleSlope": -2, "RescaleIntercept": 7, "WindowCenter": -3000, "WindowWidth": 2000}
    group, transformation, window = Dataset(), Dataset(), Dataset()
    for name, value in fields.items():
        setattr(transformation if name.startswith("Rescale") else window, name, value)
    group.PixelValueTransformationSequence = Sequence([transformation])
    group.FrameVOILUTSequence = Sequence([window])
    plain = read_image(write(tmp_path / "a.dcm", RAMP, 12, **fields))
    image = read_image(write(tmp_path / "b.dcm", RAMP, 12, NumberOfFrames=1, **{groups: Sequence([group])}))
    np.testing.assert_array_equal(image, plain)
    assert plain[0, 0] > plain[-1, -1]


# Bits, padding, polarity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "bits", "expected"),
    [
        (R8, 8, R8),  # ready for display: as it is
        (R8.astype(np.uint16), 8, R8),
        (R8 // 4, 6, np.rint(R8 // 4 / 63 * 255)),
        (R8 // 128, 1, R8 // 128 * 255),
        (R8 // 2 + 60, 8, R8 // 2 + 60),
        (np.full((5, 6), 77, np.uint8), 8, 77),
        (np.full((5, 6), 900, np.uint16), 12, 0),  # really constant
        ((R12.astype(int) - 2048).astype(np.int16), 12, np.rint(R12 / 4095 * 255)),
        (R12.astype(np.uint32) * 100_000, 32, np.rint(R12 / 4095 * 255)),
        (R12.astype(np.int32) * 100_000 - 200_000_000, 32, np.rint(R12 / 4095 * 255)),
    ],
)
def test_without_a_window(tmp_path: Path, stored: np.ndarray, bits: int, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(
        read_image(write(tmp_path / "a.dcm", stored, bits)), np.broadcast_to(expected, stored.shape)
    )


@pytest.mark.parametrize("big", [False, True])
def test_one_bit_a_pixel(tmp_path: Path, big: bool) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (8, 24), dtype=np.uint8)
    packed = np.packbits(mask, bitorder="little").reshape(8, 3)
    path = write(tmp_path / "a.dcm", packed, BitsAllocated=1, BitsStored=1, HighBit=0, Columns=24)
    np.testing.assert_array_equal(read_image(path), mask * 255)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    ("bits", "fields"),
    [
        (16, {"PixelPaddingValue": -2000}),
        (16, {"PixelPaddingValue": 63536}),  # the same, in the other sign
        (16, {"PixelPaddingValue": -3000, "PixelPaddingRangeLimit": -1500}),
        (12, {"PixelPaddingValue": -2000}),
        (12, {"PixelPaddingValue": 2096}),  # the same, as 12 bits
        (12, {"PixelPaddingValue": -3000, "PixelPaddingRangeLimit": -1500}),  # of whole words
    ],
)
def test_padding_is_black_and_outside_the_range(
    tmp_path: Path, inverted: bool, bits: int, fields: dict[str, Any]
) -> None:
    stored = (RAMP.astype(int) // 2 - 500).astype(np.int16)
    stored[:8] = -2000
    photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
    path = write(tmp_path / "a.dcm", stored, bits, PhotometricInterpretation=photometric, **fields)
    image = read_image(path)
    assert not image[:8].any()
    low, high = np.percentile(stored[8:], [0.5, 99.5])
    expected = np.clip((stored[8:].astype(float) - low) / (high - low), 0, 1) * 255
    assert np.abs((255 - image[8:] if inverted else image[8:]) - expected).max() <= 0.51


def test_padding_of_more_bits_than_are_stored_is_looked_for_in_whole_words(tmp_path: Path) -> None:
    stored = R12.copy()
    stored[:4] = 63536  # -2000 as a scanner wrote it into 16 bits; of its 12, 2096 is a value of the image
    image = read_image(write(tmp_path / "a.dcm", stored, 12, PixelPaddingValue=63536))
    assert not image[:4].any()
    np.testing.assert_array_equal(image[4:], np.rint(R12[4:] / 4095 * 255))


def test_padding_that_would_leave_nothing_is_none(tmp_path: Path) -> None:
    fields = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.dcm", R12, 12, **fields)), np.rint(R12 / 4095 * 255))


@pytest.mark.parametrize(
    ("photometric", "shape", "inverse"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "IDENTITY", False),  # contradictions: DCMTK's way
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "", True),
    ],
)
def test_polarity(tmp_path: Path, photometric: str, shape: str | None, inverse: bool) -> None:
    fields = {"PhotometricInterpretation": photometric} | ({} if shape is None else {"PresentationLUTShape": shape})
    plain = read_image(write(tmp_path / "a.dcm", RAMP, WindowCenter=1500, WindowWidth=1000))
    image = read_image(write(tmp_path / "b.dcm", RAMP, WindowCenter=1500, WindowWidth=1000, **fields))
    np.testing.assert_array_equal(image, 255 - plain if inverse else plain)


# Refused by name ------------------------------------------------------------------------------------------------------


LONG, SHORT = np.arange(4096), np.arange(4000)


def without(sequence: Sequence, name: str) -> Sequence:
    del sequence[0][name]
    return sequence


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"BitsAllocated": 12}, "BitsAllocated is 12, expected 1, 8, 16 or 32"),
        ({"BitsAllocated": 64, "Columns": 16}, "BitsAllocated is 64, expected 1, 8, 16 or 32"),
        ({"BitsAllocated": None}, "BitsAllocated is missing, expected a whole number"),
        ({"BitsStored": 17}, "BitsStored is 17, expected 1 to 16, the BitsAllocated"),
        ({"BitsStored": 0}, "BitsStored is 0, expected 1 to 16"),
        ({"HighBit": 10}, "HighBit is 10, expected 11 to 15: 12 of 16 bits"),
        ({"HighBit": 16}, "HighBit is 16, expected 11 to 15"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is 2, expected 0 or 1"),
        ({"PixelRepresentation": [0, 1]}, "PixelRepresentation is 0, 1, expected one finite number"),
        ({"RescaleSlope": "nan"}, "RescaleSlope is nan, expected one finite number"),
        ({"RescaleSlope": "inf"}, "RescaleSlope is inf, expected one finite number"),
        ({"RescaleSlope": "0"}, "RescaleSlope is 0, expected a number that keeps grey values apart"),
        ({"RescaleSlope": "1e308"}, "RescaleSlope and RescaleIntercept: from 0 to inf, expected finite values that"),
        ({"RescaleSlope": "1,5"}, "RescaleSlope is '1,5', expected a number"),
        ({"RescaleSlope": ["1", "2"]}, "RescaleSlope is 1, 2, expected one finite number"),
        ({"RescaleIntercept": "nan"}, "RescaleIntercept is nan, expected one finite number"),
        ({"RescaleIntercept": "-inf"}, "RescaleIntercept is -inf, expected one finite number"),
        ({"RescaleIntercept": "1e308"}, "from 1e.308 to 1e.308, expected finite values that differ"),
        ({"RescaleIntercept": "none"}, "RescaleIntercept is 'none', expected a number"),
        ({"WindowCenter": "x", "WindowWidth": "1"}, "WindowCenter is 'x', expected a number"),
        (
            {"VOILUTSequence": table(4096, 0, 12, SHORT)},
            "VOILUTSequence: expected 4096 entries of 12 bits, LUTData holds",
        ),
        (
            {"VOILUTSequence": table(4096, 0, 12, SHORT % 256, packed=True)},
            "VOILUTSequence: expected 4096 entries of 12",
        ),
        (
            {"VOILUTSequence": table(4096, 0, 8, SHORT % 256, packed=True)},
            "expected 4096 entries of 8 bits, LUTData holds",
        ),
        ({"VOILUTSequence": table(0, 0, 16, LONG)}, "expected 65536 entries of 16 bits, LUTData holds 8192 bytes"),
        ({"VOILUTSequence": table(4096, 0, 7, LONG)}, "VOILUTSequence: 7 bits an entry, expected 8 to 16"),
        ({"ModalityLUTSequence": table(4096, 0, 17, LONG)}, "ModalityLUTSequence: 17 bits an entry, expected 8 to 16"),
        ({"ModalityLUTSequence": without(table(4096, 0, 12, LONG), "LUTData")}, "ModalityLUTSequence has no LUTData"),
        (
            {"ModalityLUTSequence": without(table(4096, 0, 12, LONG), "LUTDescriptor")},
            "expected a LUTDescriptor of 3 whole",
        ),
        (
            {"ModalityLUTSequence": table(4096, 0, 12, LONG * 0 + 7)},
            "ModalityLUTSequence: from 7 to 7, expected finite",
        ),
    ],
)
def test_what_cannot_be_shown_right_is_refused_by_name(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settled = {
            name: value
            for name, value in fields.items()
            if name not in ("RescaleSlope", "RescaleIntercept", "WindowCenter")
        }
        path = write(tmp_path / "a.dcm", R12, 12, **settled)
        written = {name: value for name, value in fields.items() if name not in settled}
    for name, value in written.items():
        put(path, name, value if isinstance(value, str) else "\\".join(value))
    with pytest.raises(UserError, match=f"cannot read image .*a.dcm: .*{message}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def put(path: Path, name: str, value: str) -> None:
    """A decimal string as it stands in a file; pydicom does not write what is no number."""
    data = pydicom.dcmread(path)
    setattr(data, name, "0")
    data[name] = pydicom.dataelem.RawDataElement(data[name].tag, "DS", len(value), value.encode(), 0, False, True)
    data.save_as(path)


@with_dcmtk
@pytest.mark.parametrize(
    ("stored", "bits", "message"),
    [
        (R16, (8, 8, 7), "BitsAllocated is 8, expected the 16 bits of its JPEG Lossless"),
        (R8, (32, 32, 31), "BitsAllocated is 32, expected 8 or 16 with JPEG Lossless"),  # gdcm would end the process
    ],
)
def test_headers_that_do_not_fit_their_codestream_are_refused(
    tmp_path: Path, stored: np.ndarray, bits: tuple[int, int, int], message: str
) -> None:
    path = write(tmp_path / "a.dcm", stored)
    subprocess.run(["dcmcjpeg", "+e1", path, path], check=True, capture_output=True)
    data = pydicom.dcmread(path)
    data.BitsAllocated, data.BitsStored, data.HighBit = bits
    data.save_as(path)
    with pytest.raises(UserError, match=message):
        read_image(path)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.dcm", RAMP)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"cannot read image .*cut\.dcm"):
        read_image(cut)
    data = pydicom.dcmread(whole)
    pixels = data.PixelData
    del data.PixelData
    data.save_as(tmp_path / "report.dcm")
    with pytest.raises(UserError, match="holds no pixel data"):
        read_image(tmp_path / "report.dcm")
    data.FloatPixelData = RAMP.astype("<f4").tobytes()
    data.save_as(tmp_path / "float.dcm")
    with pytest.raises(UserError, match="its pixels are FloatPixelData, expected whole numbers"):
        read_image(tmp_path / "float.dcm")
    two = pydicom.dcmread(whole)
    two.NumberOfFrames = 2
    two.PixelData = pixels * 2
    two.save_as(tmp_path / "two.dcm")
    with pytest.raises(UserError, match="expected one frame, got 2"):
        read_image(tmp_path / "two.dcm")


# Files ----------------------------------------------------------------------------------------------------------------


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[0, 0] = [255, 0, 0]
    colours[1, 1] = [40, 40, 40]
    image = read_image(write(tmp_path / "a.dcm", colours))
    assert abs(int(image[0, 0]) - 76) <= 1
    assert image[1, 1] == 40
    with pytest.raises(UserError, match="HighBit is 15, expected 7 for an image in colour"):
        read_image(write(tmp_path / "b.dcm", colours.astype(np.uint16), 8, HighBit=15))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_without_a_preamble_and_without_a_suffix(tmp_path: Path, syntax: Any) -> None:
    path = write(tmp_path / "a.dcm", RAMP, syntax=syntax)
    expected = np.clip(
        np.rint((RAMP - np.percentile(RAMP, 0.5)) / np.ptp(np.percentile(RAMP, [0.5, 99.5])) * 255), 0, 255
    )
    for copy in (tmp_path / "IM0001", tmp_path / "old.dcm", tmp_path / "bare.dcm"):
        shutil.copy(path, copy)
    (tmp_path / "old.dcm").write_bytes(path.read_bytes()[132:])
    data = pydicom.dcmread(path)
    bare = Dataset()
    bare.update(data)
    bare.save_as(tmp_path / "bare.dcm", implicit_vr=False, little_endian=syntax == ExplicitVRLittleEndian)
    for copy in (path, tmp_path / "IM0001", tmp_path / "old.dcm", tmp_path / "bare.dcm"):
        np.testing.assert_array_equal(read_image(copy), expected)


def test_square_of_a_dicom(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, WindowCenter=1500, WindowWidth=3000)
    square, geometry = read_square(path, 32)
    np.testing.assert_array_equal(square, letterbox(read_image(path), 32)[0])
    assert geometry.scale == pytest.approx(0.5)
