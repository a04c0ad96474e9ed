"""Where each finding lies: outlines in the film frame, from numbers alone; nothing is drawn here.

The outlines give the boxes, the masks and what :mod:`film` draws, so the three always agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lingula.corpora.synthetic.anatomy import SIGN, Anatomy, Points, band, smooth
from lingula.corpora.synthetic.findings import Finding
from lingula.data.study import Box

ZONE_V = {"upper": (0.17, 0.31), "mid": (0.43, 0.57), "lower": (0.70, 0.82)}  # of the centre of a focal finding
EFFUSION = {"small": (0.30, 0.04), "moderate": (0.48, 0.22), "large": (0.70, 0.48)}  # share of the height: wall, middle
COLLAPSE = {"small": (0.17, 0.11), "moderate": (0.33, 0.22), "large": (0.58, 0.40)}  # share of the lung: wall, apex
CONSOLIDATION = {"small": 0.070, "large": 0.115}  # radius, sides of the film
NODULE = {"small": 0.026, "large": 0.050}
GRANULOMA = 0.017
TUBE_TIP = {"upper": 0.02, "mid": 0.62, "lower": 1.22}  # 0 at the clavicles, 1 at the carina
TUBE_WIDTH, LINE_WIDTH, LEAD_WIDTH = 0.017, 0.012, 0.012

_PHI = np.linspace(0, 2 * np.pi, 33)[:-1]
_CIRCLE = np.stack([np.cos(_PHI), np.sin(_PHI)], axis=1)
_TWO, _FIVE = np.cos(2 * _PHI), np.sin(5 * _PHI)
_SQUARE = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.55  # a rounded one
_U, _ONES = np.linspace(0, 1, 16), np.ones(16)
_SIN, _COS, _ARCH = np.sin(_U * np.pi / 2), np.cos(_U * np.pi / 2), np.sin(_U * np.pi)


@dataclass(frozen=True)
class Region:
    """One connected place of a finding: its outlines, each ``(N, 2)`` in the film frame; one box around them all."""

    finding: Finding
    side: str
    outlines: tuple[Points, ...]

    def corners(self, size: int) -> tuple[int, int, int, int]:
        """The tight box ``x0, y0, x1, y1`` in pixels of a film of that size."""
        points = self.outlines[0] if len(self.outlines) == 1 else np.concatenate(self.outlines)
        x0, y0, x1, y1 = (float(at) * size for at in (*points.min(axis=0), *points.max(axis=0)))
        last = size - 1  # pixel i covers [i, i + 1): the box of a pixel ends one further
        return (
            min(max(int(x0), 0), last),
            min(max(int(y0), 0), last),
            max(min(int(x1), last), 0) + 1,
            max(min(int(y1), last), 0) + 1,
        )

    def box(self, size: int) -> Box:
        """The same, named after the finding."""
        x0, y0, x1, y1 = self.corners(size)
        return Box(self.finding.name, x0, y0, x1, y1)


def find_regions(finding: Finding, anatomy: Anatomy, u: list[float]) -> tuple[Region, ...]:
    """Where a finding lies in one chest: a region per side that it touches, one for a finding without a side.

    Args:
        finding: any of :data:`FINDINGS` or :data:`FURTHER`, already checked.
        anatomy: the chest.
        u: 12 numbers in [0, 1) that place and shape it; they belong to the patient, so that it stays on the next film.
    """
    draw = _OUTLINES[finding.name]
    both = finding.name in ("oedema", "hyperinflation", "hypoinflation")
    sides = ("right", "left") if both else finding.sides or ("",)
    return tuple(
        Region(finding, side, tuple(anatomy.to_film(outline) for outline in draw(finding, side, anatomy, u)))
        for side in sides
    )


def _effusion(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    wall, middle = EFFUSION[finding.size]
    height = middle + (wall - middle) * _U**2.5 + 0.06 * (u[0] - 0.5) * _U
    start = 0.28 if finding.size == "small" else 0.0  # a small one only fills the costophrenic angle
    t = start + (1 - start) * _U
    return [anatomy.lung(side, np.concatenate([t, t[::-1]]), np.concatenate([1 - height, _ONES]))]


def _pneumothorax(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    wall, apex = (depth * (0.9 + 0.2 * u[0]) for depth in COLLAPSE[finding.size])
    end = {"small": 0.72, "moderate": 0.92, "large": 0.97}[finding.size]
    # The edge of the collapsed lung: from the inner apex over the top and down along the wall, where it tapers.
    drop = 1 - _COS
    t = np.concatenate([0.08 + (1 - wall - 0.08) * _SIN, 1 - wall * (1 - _U**3), _ONES, 1 - _U * 0.92])
    v = np.concatenate([apex + 0.12 * drop * drop, apex + 0.12 + (end - apex - 0.12) * _U, end * (1 - _U), 0 * _U])
    return [anatomy.lung(side, t, v)]


def pleural_line(region: Region) -> Points:
    """The edge of the collapsed lung, the part of a pneumothorax's outline that shows as a white line."""
    return region.outlines[0][:32]


def _consolidation(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    low, high = ZONE_V[finding.zone]
    r = CONSOLIDATION[finding.size] * (0.9 + 0.2 * u[2])
    t0 = 0.42 + 0.22 * u[0] + (0.06 if side == "left" and finding.zone == "lower" else 0.0)
    return [_blob(side, anatomy, (t0, low + u[1] * (high - low)), (r * (0.9 + 0.3 * u[3]), r), u[4:8])]


def _nodule(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    low, high = ZONE_V[finding.zone]
    r = NODULE[finding.size] * (0.92 + 0.16 * u[2])
    t0 = 0.38 + 0.34 * u[0] + (0.12 if side == "left" and finding.zone == "lower" else 0.0)
    return [_blob(side, anatomy, (t0, low + u[1] * (high - low)), (r, r), [x * 0.35 for x in u[4:8]])]


def _granuloma(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    low, high = ZONE_V[finding.zone]
    t0 = 0.32 + 0.42 * u[0] + (0.12 if side == "left" and finding.zone == "lower" else 0.0)
    return [_blob(side, anatomy, (t0, low + u[1] * (high - low)), (GRANULOMA, GRANULOMA), [0.0] * 4)]


def _blob(
    side: str, anatomy: Anatomy, centre: tuple[float, float], radii: tuple[float, float], u: list[float]
) -> Points:
    """A lumpy ellipse around a point of the lung, cut where it would leave the lung."""
    v0 = np.array([centre[1]])
    wide = float(anatomy.wall(v0)[0]) - anatomy.medial
    tall = anatomy.dome - anatomy.top
    lumps = 1 + 0.20 * (u[0] - 0.5) * _TWO + 0.30 * u[1] * np.cos(3 * _PHI + 6 * u[2]) + 0.22 * u[3] * _FIVE
    t = np.minimum(np.maximum(centre[0] + radii[0] / wide * lumps * _CIRCLE[:, 0], 0.02), 0.98)
    v = np.minimum(np.maximum(centre[1] + radii[1] / tall * lumps * _CIRCLE[:, 1], 0.02), 0.97)
    return anatomy.lung(side, t, v)


def _oedema(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    reach = {"small": 0.58, "moderate": 0.70, "large": 0.84}[finding.size]
    t = 0.02 + (reach - 0.02) * (0.5 + 0.5 * _CIRCLE[:, 0])
    v = 0.52 + (0.26 + 0.20 * reach) * _CIRCLE[:, 1]
    return [anatomy.lung(side, t, v)]


def _atelectasis(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    low, high = {"upper": (0.22, 0.30), "mid": (0.48, 0.58), "lower": (0.74, 0.80)}[finding.zone]
    shift = 0.0 if side == "right" else 0.08
    wave = 0.03 * np.sin(3 * _U + 6 * u[0])
    t = [0.20 + shift + 0.10 * u[3 + i] + (0.55 - 0.12 * i) * _U for i in range(2)]
    v = [low + (high - low) * u[1 + i] + 0.11 * i + (0.07 + 0.06 * u[5 + i]) * (_U - 0.5) + wave for i in range(2)]
    return list(band(anatomy.lung(side, np.concatenate(t), np.concatenate(v)).reshape(2, 16, 2), 0.018))


def _cardiomegaly(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    return [anatomy.heart_outline()]


def _hyperinflation(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    return [anatomy.lung_outline(side)]


def fracture_at(finding: Finding, anatomy: Anatomy, u: list[float]) -> tuple[float, float]:
    """Height ``v`` in the lung of a broken rib, and the angle along it (0 spine, pi / 2 chest wall)."""
    low, high = {"upper": (0.22, 0.32), "mid": (0.45, 0.58), "lower": (0.70, 0.80)}[finding.zone]
    return low + u[0] * (high - low), 1.0 + 0.25 * u[1]


def _rib_fracture(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    """The haematoma under the broken rib: a lens on the inner chest wall."""
    v0, _ = fracture_at(finding, anatomy, u)
    half = 0.10 + 0.03 * u[2]
    v = v0 + half * (2 * _U - 1)
    t = 1.0 - (0.20 + 0.05 * u[3]) * _ARCH
    return [anatomy.lung(side, np.concatenate([1.03 * _ONES, t]), np.concatenate([v[::-1], v]))]


def _endotracheal_tube(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    x, y = anatomy.carina
    tip = anatomy.clavicle + TUBE_TIP[finding.zone] * (y - anatomy.clavicle)
    bend = 0.010 * (u[0] - 0.5)
    path = [(x + 0.5 * anatomy.turned + bend, -0.06), (x + bend, 0.6 * tip), (x, min(tip, y - 0.005))]
    if finding.zone == "lower":  # one lung only: into the right main bronchus
        path.append((x - 0.035, tip))
    return [band(smooth(path), TUBE_WIDTH)]


def _central_line(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    s = SIGN[side]
    cava = -anatomy.pedicle + 0.004  # the superior vena cava runs along the right border of the mediastinum
    y = anatomy.clavicle
    end = anatomy.carina[1] + (0.045 if finding.zone == "mid" else 0.20)
    path = [(s * (0.30 + 0.06 * u[0]), y - 0.055), (s * 0.20, y + 0.012), (s * 0.09, y + 0.035)]
    path += [(cava - 0.002, y + 0.085)] if side == "right" else [(0.0, y + 0.065), (cava, y + 0.12)]
    path += [(cava + 0.004, 0.5 * (y + 0.12 + end)), (cava + (0.0 if finding.zone == "mid" else 0.022), end)]
    return [band(smooth(path, 40), LINE_WIDTH)]


def _pacemaker(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    s = SIGN[side]
    y, x = anatomy.clavicle + 0.075 + 0.03 * u[1], s * (0.255 + 0.03 * u[0])
    cava = -anatomy.pedicle + 0.010
    box = _SQUARE * np.array([0.050 + 0.008 * u[2], 0.042 + 0.006 * u[3]]) + np.array([x, y])
    heart = anatomy.heart_outline()
    bottom = float(heart[:, 1].max()) - 0.055
    apex = float(heart[:, 0].max())
    start = [(x - s * 0.03, y - 0.03), (s * 0.13, anatomy.clavicle + 0.03)]
    start += (
        [(cava, anatomy.clavicle + 0.12)]
        if side == "right"
        else [(0.02, anatomy.clavicle + 0.055), (cava, anatomy.clavicle + 0.13)]
    )
    ventricle = [*start, (cava, bottom - 0.14), (-0.005, bottom), (0.55 * apex, bottom - 0.012 - 0.02 * u[4])]
    atrium = [*start[1:], (cava - 0.006, bottom - 0.15), (-0.040, bottom - 0.06), (-0.062, bottom - 0.10)]
    return [box, band(smooth(ventricle, 48), LEAD_WIDTH), band(smooth(atrium, 40), LEAD_WIDTH)]


# Those of FURTHER -----------------------------------------------------------------------------------------------------


def _raised_diaphragm(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    """What lies between the raised dome and where it would be."""
    edge = anatomy.lung(side, 0.08 + 0.84 * _U, _ONES)
    return [np.concatenate([edge, edge[::-1] + np.array([0.0, anatomy.raised[side == "left"]])])]


def _tortuous_aorta(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    """A knob that stands out, and a descending part that bulges to the patient's left."""
    out = {"small": 0.012, "moderate": 0.024, "large": 0.038}[finding.size] + 0.006 * u[0]
    w, y, knob = anatomy.pedicle, anatomy.carina[1], anatomy.aorta
    path = [(w * 0.3, y - 0.10), (w + knob * 0.4, y - 0.075), (w + knob * 0.6 + out, y - 0.015)]
    path += [(w + 0.3 * out, y + 0.07), (w + 1.2 * out, y + 0.17), (w + 1.1 * out, y + 0.27), (w * 0.5, y + 0.38)]
    return [band(smooth(path, 32), 0.055)]


def _aortic_calcification(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    """A thin shell on the knob."""
    r = 0.030 + 0.004 * u[0]
    at = np.linspace(-1.5, 0.7 + 0.4 * u[1], 16)
    arc = np.stack([np.cos(at) * r, np.sin(at) * r * 1.15], axis=1)
    return [band(arc + np.array([anatomy.pedicle + 0.55 * anatomy.aorta - 0.006, anatomy.carina[1] - 0.030]), 0.010)]


def _scoliosis(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    """The bent part of the spine."""
    y = 0.12 + 0.66 * _U
    return [band(np.stack([anatomy.spine(y), y], axis=1), 0.085)]


def _spine_degeneration(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    """Spurs to both sides of a few discs."""
    count = {"small": 3, "moderate": 5, "large": 7}[finding.size]
    out = {"small": 0.020, "moderate": 0.026, "large": 0.034}[finding.size]
    pitch = 0.86 * anatomy.rib_pitch
    y = (8 - count // 2 + np.arange(count) + 0.5 + (u[0] > 0.5)) * pitch - 0.05
    x = anatomy.spine(y)
    spur = np.array([(0.026, -0.013), (0.036 + out, -0.005), (0.036 + out, 0.005), (0.026, 0.013)])
    return [spur * np.array([s, 1.0]) + np.array([x[i], y[i]]) for i in range(count) for s in SIGN.values()]


def _hiatal_hernia(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    r = {"small": 0.045, "moderate": 0.062, "large": 0.085}[finding.size]
    return [_CIRCLE * np.array([1.1 * r, r]) + np.array([0.012 + 0.03 * u[0], anatomy.dome + 0.02 - 0.9 * r])]


def gas_of(region: Region) -> Points:
    """The bubble in the upper half of a hiatal hernia."""
    outline = region.outlines[0]
    middle = outline.mean(axis=0)
    gas: Points = (outline - middle) * np.array([0.62, 0.42]) + middle
    gas[:, 1] -= 0.28 * (outline[:, 1].max() - middle[1])
    return gas


def _linear_opacity(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    low, high = ZONE_V[finding.zone]
    t = 0.26 + (0.10 if side == "left" and finding.zone == "lower" else 0.0) + 0.10 * u[0] + (0.42 + 0.1 * u[1]) * _U
    v = low + (high - low) * u[2] + (0.06 + 0.10 * u[3]) * (_U - 0.5) * (1 if u[4] < 0.5 else -1)
    return [band(anatomy.lung(side, t, v), 0.011)]


def _interstitial_markings(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    top, bottom = {"": (0.06, 0.97), "upper": (0.06, 0.40), "mid": (0.34, 0.70), "lower": (0.58, 0.97)}[finding.zone]
    v = 0.5 * (top + bottom) + 0.5 * (bottom - top) * _SQUARE[:, 1]
    return [anatomy.lung(side, 0.5 + 0.46 * _SQUARE[:, 0], v)]


def _pleural_thickening(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    if finding.zone == "upper":  # a cap over the apex
        t, depth = 0.12 + 0.88 * _U, (0.075 + 0.03 * u[0]) * _ARCH + 0.012
        return [anatomy.lung(side, np.concatenate([t, t[::-1]]), np.concatenate([0 * _U, depth[::-1]]))]
    v = 0.34 + 0.06 * u[0] + 0.52 * _U
    t = 1.0 - (0.10 + 0.03 * u[1]) * _ARCH**0.5
    return [anatomy.lung(side, np.concatenate([1.0 * _ONES, t[::-1]]), np.concatenate([v, v[::-1]]))]


def _blunted_angle(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    t, height = 0.70 + 0.30 * _U, (0.13 + 0.05 * u[0]) * _U**1.6
    return [anatomy.lung(side, np.concatenate([t, t[::-1]]), np.concatenate([1 - height, _ONES]))]


def _calcified_nodes(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    if finding.zone == "hilum":
        side = side or ("left" if u[8] < 0.5 else "right")
        t = np.array([0.05 + 0.05 * u[0], 0.13 + 0.05 * u[1], 0.08 + 0.05 * u[2]])
        centres = anatomy.lung(side, t, np.array([0.40, 0.45, 0.51]) + 0.03 * u[3])
    else:
        x, y = anatomy.carina
        centres = np.array([(x - 0.028, y - 0.01), (x + 0.004, y + 0.035), (x - 0.040, y - 0.05)])
    lumps = 1 + 0.25 * u[4] * _TWO + 0.18 * _FIVE
    return [centre + (0.010 + 0.004 * u[5 + i]) * lumps[:, None] * _CIRCLE for i, centre in enumerate(centres)]


def _clips(finding: Finding, side: str, anatomy: Anatomy, u: list[float]) -> list[Points]:
    s = SIGN.get(side, 1.0 if u[0] < 0.5 else -1.0)
    if finding.zone == "mediastinum":
        step = np.arange(5)[:, None]
        centres = np.array([(0.030, anatomy.carina[1] + 0.03)]) + step * np.array([(0.009, 0.045)])
    elif finding.zone == "hilum":
        centres = anatomy.lung(
            "left" if s > 0 else "right", 0.06 + 0.10 * np.array(u[1:4]), 0.42 + 0.1 * np.array(u[4:7])
        )
    else:
        centres = np.array(
            [(s * (0.12 + 0.05 * x), anatomy.dome + 0.08 + 0.05 * y) for x, y in zip(u[1:4], u[4:7], strict=True)]
        )
    angles = np.pi * np.array(u[7:] + u[:1])[: len(centres)]
    along = 0.012 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [band(np.stack([at - by, at, at + by]), 0.008) for at, by in zip(centres, along, strict=True)]


_OUTLINES: dict[str, Callable[[Finding, str, Anatomy, list[float]], list[Points]]] = {
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "consolidation": _consolidation,
    "oedema": _oedema,
    "cardiomegaly": _cardiomegaly,
    "atelectasis": _atelectasis,
    "nodule": _nodule,
    "granuloma": _granuloma,
    "rib_fracture": _rib_fracture,
    "hyperinflation": _hyperinflation,
    "endotracheal_tube": _endotracheal_tube,
    "central_line": _central_line,
    "pacemaker": _pacemaker,
    "hypoinflation": _hyperinflation,
    "raised_diaphragm": _raised_diaphragm,
    "tortuous_aorta": _tortuous_aorta,
    "aortic_calcification": _aortic_calcification,
    "scoliosis": _scoliosis,
    "spine_degeneration": _spine_degeneration,
    "hiatal_hernia": _hiatal_hernia,
    "linear_opacity": _linear_opacity,
    "interstitial_markings": _interstitial_markings,
    "pleural_thickening": _pleural_thickening,
    "blunted_angle": _blunted_angle,
    "calcified_nodes": _calcified_nodes,
    "clips": _clips,
}
