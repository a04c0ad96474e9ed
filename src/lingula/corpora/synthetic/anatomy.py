"""The chest itself: a few numbers per patient and per exposure, and the outlines that follow from them.

Two frames. The *body* frame is measured in sides of the film before the patient is tilted: ``X`` runs from the midline,
positive towards the right of the film (the patient's left), ``Y`` from the top down. The *film* frame is ``(x, y)`` in
``[0, 1]``. Within a lung a point is ``(t, v)``: ``t`` from the mediastinum (0) to the chest wall (1), ``v`` from the
apex (0) to the diaphragm (1); whatever is placed by ``(t, v)`` lies in the lung, however the chest is shaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lingula.corpora.synthetic.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

Points = Any  # (N, 2) float array
SIGN = {"left": 1.0, "right": -1.0}
CARDIOMEGALY = {
    "borderline": (0.51, 0.53),
    "small": (0.56, 0.59),
    "moderate": (0.63, 0.66),
    "large": (0.70, 0.74),
}  # cardiothoracic ratio
SHALLOW = {"small": 0.045, "moderate": 0.080, "large": 0.120}  # how far a shallow breath leaves the diaphragm up
RAISED = {"small": 0.045, "moderate": 0.085}  # one dome, film sides
BEND = {"small": 0.035, "moderate": 0.060, "large": 0.090}  # of a scoliotic spine, film sides
FLATTENING = {"moderate": 0.55, "large": 1.0}  # of the diaphragm, in hyperinflation


@dataclass(frozen=True)
class Anatomy:
    """One patient before one exposure; lengths in sides of the film, body frame."""

    half_width: float  # midline to the chest wall at its widest
    top: float  # Y of the lung apices
    dome: float  # Y of the right diaphragm's dome
    angle: float  # how far the costophrenic angle lies below the dome
    left_lower: float  # how far the left dome lies below the right one
    medial: float  # midline to the inner border of a lung
    squareness: float  # of the shoulders of the lung, 2 is an ellipse
    heart_ratio: float  # cardiothoracic ratio
    heart_height: float
    heart_lean: float  # share of the heart that lies left of the midline
    heart_tilt: float  # radians
    aorta: float
    pedicle: float  # half width of the upper mediastinum
    rib_pitch: float
    rib_drop: float
    clavicle: float  # Y of its inner end
    thickness: float  # of the soft tissue, 0 lean to 1 heavy
    breast: float  # 0 none to 1
    stomach: float  # 0 no bubble to 1
    trachea: float  # X of the trachea at the carina
    turned: float  # rotation of the trunk, as a shift of what lies in front
    tilt: float  # radians
    scale: float
    shift: tuple[float, float]
    exposure: float
    contrast: float
    gamma: float
    noise: float
    view: str  # "PA" or "AP"
    raised: tuple[float, float] = (0.0, 0.0)  # of the right and of the left dome
    bend: float = 0.0  # of the spine, positive to the patient's left

    def to_film(self, points: Points) -> Points:
        """``(N, 2)`` points of the body frame, in the film frame."""
        c, s = self.scale * np.cos(self.tilt), self.scale * np.sin(self.tilt)
        out = np.empty(points.shape)
        x, y = points[:, 0], points[:, 1] - 0.5
        out[:, 0] = 0.5 + self.shift[0] + c * x - s * y
        out[:, 1] = 0.5 + self.shift[1] + s * x + c * y
        return out

    def lung(self, side: str, t: NDArray[np.float64], v: NDArray[np.float64]) -> Points:
        """``(N, 2)`` points of the body frame for ``(N,)`` lung coordinates ``t`` and ``v``."""
        dome, angle = self.dome_of(side)
        lateral = self.wall(v)
        medial = self.medial + 0.055 * np.exp(v * v * (-1 / 0.13**2))
        x = medial + t * (lateral - medial)
        roof = self.top + 0.03 * (2 * t - 1) ** 2 * (1 - v)
        off = t - 0.42
        floor = dome + np.where(off > 0, angle / 0.58**2, 0.025 / 0.42**2) * off * off
        out = np.empty((len(x), 2))
        out[:, 0] = SIGN[side] * x
        out[:, 1] = roof * (1 - v) + floor * v
        return out

    def wall(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Midline to the inner chest wall at height ``v``."""
        up = np.maximum(1 - v * (1 / 0.85), 0.0)
        curve = (1 - up**self.squareness) ** (1 / self.squareness)
        return 0.165 + (self.half_width - 0.165) * curve

    def dome_of(self, side: str) -> tuple[float, float]:
        """``Y`` of a diaphragm's dome, and how far its costophrenic angle lies below."""
        if side == "left":
            return self.dome + self.left_lower - self.raised[1], self.angle
        return self.dome - self.raised[0], self.angle

    def spine(self, y: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """``X`` of the middle of the spine at height ``y``; 0 but in scoliosis."""
        return self.bend * np.sin(np.clip((y - 0.12) / 0.66, 0.0, 1.0) * np.pi)

    def lung_outline(self, side: str) -> Points:
        """``(64, 2)`` outline of a lung in the body frame."""
        return self.lung(side, _AROUND_T, _AROUND_V)

    def heart_outline(self) -> Points:
        """``(48, 2)`` outline of the heart in the body frame, an ellipse that leans to the patient's left."""
        width = 2 * self.heart_ratio * self.half_width
        a, b, tilt = width / 2, self.heart_height / 2, self.heart_tilt
        # The tilted ellipse must be exactly as wide as the ratio says: solve its long axis for the horizontal extent.
        long = np.sqrt(max(a * a - (b * np.sin(tilt)) ** 2, 0.25 * a * a)) / np.cos(tilt)
        x = long * _COS * np.cos(tilt) - b * _SIN * np.sin(tilt)
        y = long * _COS * np.sin(tilt) + b * _SIN * np.cos(tilt)
        x = x + (2 * self.heart_lean - 1) * a + 0.4 * self.turned
        y = y + self.dome + 0.055 - 0.88 * self.heart_height / 2
        return np.stack([x, y], axis=1)

    @property
    def carina(self) -> tuple[float, float]:
        """Where the trachea divides, body frame."""
        return self.trachea, self.top + 0.36 * (self.dome - self.top)


def make_anatomy(body: list[float], pose: list[float], findings: Iterable[Finding], view: str) -> Anatomy:
    """The chest that 20 uniform numbers of a patient and 12 of an exposure describe, changed by what is wrong with it.

    Args:
        body: 20 numbers in [0, 1), the same on all films of one patient.
        pose: 12 numbers in [0, 1), of one exposure.
        findings: cardiomegaly widens the heart, hyperinflation flattens the diaphragm, and so on.
        view: ``PA`` or ``AP``; an AP film is taken lying down: less deep breath, larger heart, more tilt.
    """

    def between(u: float, low: float, high: float) -> float:
        return low + u * (high - low)

    ap, findings = view == "AP", tuple(findings)
    names = {finding.name: finding for finding in findings}
    ratio = between(body[5], 0.42, 0.48) * (1.05 if ap else 1.0)
    height = between(body[6], 0.27, 0.31)
    if "cardiomegaly" in names:
        low, high = CARDIOMEGALY[names["cardiomegaly"].size]
        ratio = between(body[5], low, high)
        height = height * (1 + 0.7 * (ratio - 0.5))
    half_width = between(body[0], 0.325, 0.375)
    top = between(body[1], 0.085, 0.13)
    dome = between(body[2], 0.70, 0.765) - (0.035 if ap else 0.0)
    angle = between(body[3], 0.07, 0.11)
    if "hyperinflation" in names:
        flat = FLATTENING[names["hyperinflation"].size]
        dome, angle = dome + 0.075 * flat, angle * (1 - 0.6 * flat)
        half_width, ratio = half_width + 0.015 * flat, ratio * (1 - 0.2 * flat)
    raised, bend = [0.0, 0.0], 0.0
    if "hypoinflation" in names:
        dome, ratio = dome - SHALLOW[names["hypoinflation"].size], ratio * 1.04
    for finding in findings:
        if finding.name == "raised_diaphragm":
            raised[finding.side == "left"] = RAISED[finding.size]
        elif finding.name == "scoliosis":
            bend = SIGN[finding.side] * BEND[finding.size]
    return Anatomy(
        half_width=half_width,
        top=top,
        dome=dome,
        angle=angle,
        left_lower=between(body[4], 0.01, 0.03),
        medial=between(body[7], 0.042, 0.055),
        squareness=between(body[8], 1.9, 2.5),
        heart_ratio=ratio,
        heart_height=height,
        heart_lean=between(body[9], 0.62, 0.70),
        heart_tilt=between(body[10], 0.30, 0.60),
        aorta=between(body[11], 0.026, 0.038),
        pedicle=between(body[12], 0.045, 0.060) * (1.15 if ap else 1.0),
        rib_pitch=between(body[13], 0.066, 0.076),
        rib_drop=between(body[14], 0.09, 0.15),
        clavicle=top + between(body[15], 0.055, 0.085) - (0.02 if ap else 0.0),
        thickness=body[16],
        breast=max(0.0, 2 * body[17] - 1),
        stomach=max(0.0, 1.4 * body[18] - 0.4),
        trachea=between(body[19], -0.008, 0.004),
        turned=between(pose[0], -0.02, 0.02) * (1.4 if ap else 1.0),
        tilt=between(pose[1], -0.07, 0.07) * (1.4 if ap else 1.0),
        scale=between(pose[2], 0.88, 1.09),
        shift=(between(pose[3], -0.045, 0.045), between(pose[4], -0.03, 0.035)),
        exposure=between(pose[5], -0.07, 0.07),
        contrast=between(pose[6], 0.80, 1.20),
        gamma=between(pose[7], 0.78, 1.25),
        noise=between(pose[8], 2.0, 6.5) * (1.25 if ap else 1.0),
        view=view,
        raised=(raised[0], raised[1]),
        bend=bend,
    )


def band(points: Points, width: float) -> Points:
    """The ``(..., 2N, 2)`` outline of a line of that width along ``(..., N, 2)`` points."""
    along = np.empty_like(points)
    along[..., 1:-1, :] = points[..., 2:, :] - points[..., :-2, :]
    along[..., 0, :], along[..., -1, :] = points[..., 1, :] - points[..., 0, :], points[..., -1, :] - points[..., -2, :]
    length = np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-9)[..., None]
    across = along[..., ::-1] * (_LEFT_TURN * (0.5 * width) / length)
    return np.concatenate([points + across, (points - across)[..., ::-1, :]], axis=-2)


def smooth(points: list[tuple[float, float]], n: int = 16) -> Points:
    """``(n, 2)`` points of a Catmull-Rom curve through a few points."""
    return _spline(len(points), n) @ np.array([points[0], *points, points[-1]])


@lru_cache(maxsize=64)
def _spline(knots: int, n: int) -> NDArray[np.float64]:
    """``(n, knots + 2)`` weights of the knots, the first and the last of them doubled."""
    at = np.linspace(0, knots - 1 - 1e-6, n)
    i = at.astype(int)
    u = at - i
    weights = np.zeros((n, knots + 2))
    row = np.arange(n)
    weights[row, i] = 0.5 * (-u + 2 * u**2 - u**3)
    weights[row, i + 1] = 0.5 * (2 - 5 * u**2 + 3 * u**3)
    weights[row, i + 2] = 0.5 * (u + 4 * u**2 - 3 * u**3)
    weights[row, i + 3] = 0.5 * (u**3 - u**2)
    return weights


_LEFT_TURN = np.array([-1.0, 1.0])
_EDGE = np.linspace(0, 1, 17)[:-1]
_ZERO, _ONE = np.zeros(16), np.ones(16)
_AROUND_T = np.concatenate([_EDGE, _ONE, 1 - _EDGE, _ZERO])
_AROUND_V = np.concatenate([_ZERO, _EDGE, _ONE, 1 - _EDGE])
_PHI = np.linspace(0, 2 * np.pi, 49)[:-1]
_COS, _SIN = np.cos(_PHI), np.sin(_PHI)
