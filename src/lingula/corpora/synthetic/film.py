"""The renderer: a chest to the pixels of a frontal film.

What the beam crosses is added up: soft tissue, less the air of the lungs, plus bone and metal. A finding either takes
the place of air (effusion, consolidation) or adds to the sum (a tube), as on a real film, so that a nodule behind a
rib is brighter than one beside it. The sum is then shown as a digital detector shows it, air black and bone white.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from lingula.corpora.synthetic.anatomy import SIGN, Anatomy, Points, band, smooth
from lingula.corpora.synthetic.chest import BODY, TEXTURE, Chest
from lingula.corpora.synthetic.shapes import Region, fracture_at, gas_of, pleural_line
from lingula.data.study import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

Plane = Any  # (size, size) float32; cv2's own annotations know no dtype
Bytes = Any  # (size, size) uint8

SUBPIXEL = 4  # bits
# Share of the air that a finding takes, by severity.
OPACITY = {
    "effusion": {"small": 0.92, "moderate": 0.95, "large": 0.98},
    "consolidation": {"small": 0.62, "large": 0.78},
    "oedema": {"small": 0.24, "moderate": 0.40, "large": 0.60},
    "atelectasis": {"": 0.85},
    "nodule": {"small": 0.75, "large": 0.85},
    "rib_fracture": {"": 0.62},
    "linear_opacity": {"": 0.75},
    "pleural_thickening": {"": 0.85},
    "blunted_angle": {"": 0.92},
}
SOFTNESS = {
    "effusion": 0.010,
    "consolidation": 0.020,
    "oedema": 0.045,
    "rib_fracture": 0.006,
    "pleural_thickening": 0.005,
    "blunted_angle": 0.008,
}  # of the edge, film sides
METAL_AND_LIME = {"aortic_calcification": 0.26, "calcified_nodes": 0.34, "spine_degeneration": 0.10, "clips": 0.50}
UNSURE = 0.66  # contrast of an uncertain finding

SIDES = tuple(SIGN)
RIBS, _ARC = 10, 14
_QUARTER = np.linspace(0, np.pi / 2, _ARC)
_RISE, _FALL, _HUMP = np.sin(_QUARTER), np.cos(_QUARTER), np.sin(2 * _QUARTER)
_TURN = np.linspace(0, 2 * np.pi, 33)[:-1]
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_VERTEBRA = np.array([(-1.0, -1.0), (-0.9, 0.0), (-1.0, 1.0), (1.0, 1.0), (0.9, 0.0), (1.0, -1.0)])


@dataclass(frozen=True)
class Film:
    """A drawn film and its truth.

    Attributes:
        pixels: ``(H, W)`` uint8, air dark and bone bright.
        boxes: one per finding and side, tight around its mask, in pixels.
        masks: per finding ``(H, W)`` bool, True where it lies, both sides of a bilateral one together.
    """

    pixels: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    masks: dict[str, NDArray[np.bool_]]


def draw_film(chest: Chest, size: int) -> Film:
    """Draw a chest with its boxes and masks on a film of ``(size, size)`` pixels."""
    boxes = tuple(region.box(size) for region in chest.regions())
    return Film(draw_pixels(chest, size), boxes, draw_masks(chest, size))


def draw_masks(chest: Chest, size: int) -> dict[str, NDArray[np.bool_]]:
    """One mask ``(size, size)`` bool for each finding that is there, both sides of a bilateral one together."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for region in chest.regions():
        mask = masks.setdefault(region.finding.name, np.zeros((size, size), bool))
        mask |= draw_mask(region, size)
    return masks


def draw_mask(region: Region, size: int) -> NDArray[np.bool_]:
    """``(size, size)`` bool, True inside any outline of the region."""
    canvas = np.zeros((size, size), np.uint8)
    for outline in region.outlines:
        cv2.fillPoly(canvas, [np.floor(outline * size).astype(np.int32)], 1)
    return canvas.astype(bool)


def draw_pixels(chest: Chest, size: int) -> NDArray[np.uint8]:
    """The ``(size, size)`` uint8 film of a chest; the same bits for the same chest and size."""
    anatomy = chest.anatomy
    rng = np.random.default_rng([*chest.film_key, TEXTURE])
    x, y = _body_grid(anatomy, size)
    texture = _texture(rng, size)
    lungs = {side: _fill(anatomy.to_film(anatomy.lung_outline(side)), size, 0.006) for side in SIGN}

    tissue = _soft_tissue(anatomy, size, x, y)
    heart = _fill(anatomy.to_film(anatomy.heart_outline()), size, 0.006)
    middle = np.maximum(heart * np.float32(0.95), _mediastinum(anatomy, size))
    air = np.maximum(lungs["left"], lungs["right"]) * (1 - np.float32(0.90) * middle)
    vessels = _vessels(chest, size)
    extra = np.float32(0.14) * middle + _bones(chest, size) * (1 - np.float32(0.55) * middle)
    depth = np.float32(0.46) - np.float32(0.05) * (y - np.float32(0.3)) + np.float32(0.02) * texture

    for region in chest.regions():
        name, finding = region.finding.name, region.finding
        sure = np.float32(1.0 if finding.certain else UNSURE)
        if name in OPACITY:
            opacity = _fill(region.outlines, size, SOFTNESS.get(name, 0.004)) * (sure * OPACITY[name][finding.size])
            if name in ("consolidation", "oedema"):
                opacity *= 1 + np.float32(0.30) * texture
            air *= 1 - np.clip(opacity, 0, 1)
            if name == "oedema":
                vessels *= 1 + np.float32({"small": 0.20, "moderate": 0.30, "large": 0.35}[finding.size])
        elif name == "pneumothorax":
            empty = _fill(region.outlines, size, 0.003) * sure
            vessels *= 1 - empty
            air *= 1 + np.float32(0.42) * empty  # blacker, and without a marking
            line = _fill(band(pleural_line(region), 0.009), size, 0.002)
            extra += np.float32(0.17) * sure * line * lungs[region.side]
            if finding.size == "large":  # the collapsed lung is dense
                air *= 1 - np.float32(0.30) * sure * lungs[region.side] * (1 - empty)
        elif name == "granuloma":
            extra += np.float32(0.36) * _fill(region.outlines, size, 0.003)
        elif name == "hyperinflation":
            air *= 1 + np.float32({"moderate": 0.10, "large": 0.18}[finding.size]) * lungs[region.side]
            vessels *= 1 - np.float32(0.25) * lungs[region.side]
        elif name == "endotracheal_tube":
            extra += np.float32(0.23) * _fill(region.outlines, size, 0.0)
        elif name == "central_line":
            extra += np.float32(0.28) * _fill(region.outlines, size, 0.0)
        elif name == "pacemaker":
            generator, *leads = region.outlines
            extra += np.float32(0.26) * _fill(tuple(leads), size, 0.0)
            extra += np.float32(0.45) * _fill(generator, size, 0.0)
        elif name == "tortuous_aorta":
            air *= 1 - np.float32(0.92) * _fill(region.outlines, size, 0.005)
            extra += np.float32(0.05) * _fill(region.outlines, size, 0.005)
        elif name == "scoliosis":  # beside the midline the spine takes the place of air
            spine = _fill(region.outlines, size, 0.005)
            air *= 1 - np.float32(0.75) * spine
            extra += np.float32(0.05) * spine
        elif name == "interstitial_markings":
            strength = np.float32({"small": 0.45, "moderate": 0.60, "large": 0.80}[finding.size])
            there = _fill(region.outlines, size, 0.02) * strength
            air *= 1 - there * (np.float32(0.10) + np.float32(0.55) * _net(chest, region.side, size))
        elif name == "hiatal_hernia":
            sac = _fill(region.outlines, size, 0.004)
            air *= 1 - np.float32(0.85) * sac
            extra += np.float32(0.09) * sac - np.float32(0.22) * _fill(gas_of(region), size, 0.004)
        elif name in METAL_AND_LIME:
            extra += np.float32(METAL_AND_LIME[name]) * _fill(region.outlines, size, 0.002)

    density = tissue + extra - depth * air + np.float32(0.20) * vessels * np.clip(air, 0, 1)
    return _expose(density, anatomy, rng, size)


def _expose(density: Plane, anatomy: Anatomy, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Density to grey levels, with the noise of the detector. The window is the exposure's, never the content's."""
    gain = 0.90 * anatomy.contrast
    shown = np.maximum(density * np.float32(gain) + np.float32(anatomy.exposure - 0.02 * gain), np.float32(0))
    over = np.maximum(shown - np.float32(0.8), np.float32(0))
    shown = shown - over + over / (1 + np.float32(5.0) * over)  # a soft shoulder: 0.8 to 1 for all that is denser
    shown = np.float32(255) * cv2.pow(shown, anatomy.gamma)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    if size >= 160:
        grain = cv2.GaussianBlur(grain, (3, 3), 0.6) * np.float32(1.5)
    shown += np.float32(anatomy.noise) * grain
    return np.minimum(np.maximum(shown, np.float32(0)), np.float32(255)).astype(np.uint8)


def _soft_tissue(anatomy: Anatomy, size: int, x: Plane, y: Plane) -> Plane:
    """The trunk with neck, shoulders, abdomen and breasts, the trachea and the stomach's bubble taken out."""
    neck, top = 0.095 + 0.03 * anatomy.thickness, anatomy.clavicle
    side = anatomy.half_width + 0.045 + 0.05 * anatomy.thickness
    path = [(neck, -0.2), (neck, top - 0.13), (neck + 0.07, top - 0.075), (0.34, top - 0.035), (0.56, top + 0.03)]
    path += [
        (0.70, top + 0.2),
        (0.70, 0.32),
        (side + 0.055, 0.36),
        (side, 0.46),
        (side - 0.01, 0.75),
        (side + 0.02, 1.2),
    ]
    half = smooth(path, 40)
    trunk = _fill(anatomy.to_film(np.concatenate([half, half[::-1] * np.array([-1.0, 1.0])])), size, 0.014)
    thick = np.float32(0.60 + 0.08 * anatomy.thickness) * (1 - np.float32(0.18 / side**2) * x * x)
    thick += np.clip((y - np.float32(anatomy.dome - 0.05)) * np.float32(0.56), 0, np.float32(0.14))
    tissue = trunk * thick
    if anatomy.breast > 0.1:
        r = 0.13 + 0.03 * anatomy.breast
        rings = [np.array([s * 0.21, 0.615]) + _CIRCLE * np.array([r, 0.95 * r]) for s in SIGN.values()]
        tissue += np.float32(0.075 * anatomy.breast) * _fill(_on_film(anatomy, rings), size, 0.022)
    cx, cy = anatomy.carina
    windpipe = band(smooth([(0.4 * anatomy.turned, -0.1), (cx + 0.3 * anatomy.turned, 0.5 * cy), (cx, cy)], 10), 0.042)
    tubes = [windpipe, band(np.array([(cx, cy - 0.012), (cx - 0.03, cy + 0.03), (cx - 0.065, cy + 0.06)]), 0.026)]
    tubes.append(band(np.array([(cx, cy - 0.012), (cx + 0.035, cy + 0.033), (cx + 0.085, cy + 0.06)]), 0.022))
    tissue -= np.float32(0.13) * _fill(_on_film(anatomy, tubes), size, 0.006)
    if anatomy.stomach > 0.05:
        dome, _ = anatomy.dome_of("left")
        rx, ry = 0.05 + 0.035 * anatomy.stomach, 0.024 + 0.016 * anatomy.stomach
        ring = np.array([0.175, dome + 0.04 + ry]) + _CIRCLE * np.array([rx, ry])
        tissue -= np.float32(0.22) * _fill(anatomy.to_film(ring), size, 0.008)
    return tissue


def _mediastinum(anatomy: Anatomy, size: int) -> Plane:
    """Great vessels: the upper mediastinum with the aortic knob, narrow above and wide where it meets the heart."""
    w, cy, turned = anatomy.pedicle, anatomy.carina[1], 0.5 * anatomy.turned
    right = [(-0.035, -0.05), (-w * 0.85, anatomy.top + 0.06), (-w, cy), (-w - 0.012, cy + 0.10), (-w, cy + 0.30)]
    left = [(w, cy + 0.30), (w + 0.035, cy + 0.12), (w + 0.012, cy + 0.05), (w + anatomy.aorta * 0.9, cy - 0.025)]
    left += [(w + anatomy.aorta * 0.5, cy - 0.07), (w * 0.8, cy - 0.10), (0.045, anatomy.top + 0.03), (0.035, -0.05)]
    outline = np.concatenate([smooth(right, 20), smooth(left, 32)])
    outline[:, 0] += turned * np.clip(outline[:, 1] / 0.3, 0, 1)
    return _fill(anatomy.to_film(outline), size, 0.007)


def _bones(chest: Chest, size: int) -> Plane:
    """Spine, ribs (the broken one with its gap), clavicles, shoulder blades and humeral heads."""
    anatomy = chest.anatomy
    rear, fore, heights = _ribs(anatomy)
    back, front = list(band(rear.reshape(-1, _ARC, 2), 0.021)), list(band(fore[:, 1:7].reshape(-1, _ARC, 2), 0.023))
    for finding in chest.findings:
        if finding.name == "rib_fracture":
            for side in finding.sides:
                v, angle = fracture_at(finding, anatomy, chest.place(finding))
                row = SIDES.index(side)
                i = int(np.argmin(np.abs(heights - anatomy.top - v * (anatomy.dome - anatomy.top))))
                back[row * RIBS + i], outer = _break(rear[row, i], side, angle)
                back.append(outer)
    strength = np.float32(0.125 if anatomy.view == "PA" else 0.105)
    bone = strength * _cortical(_on_film(anatomy, back), size)
    girdle: list[Points] = []
    blades: list[Points] = []
    c = anatomy.clavicle
    inward = anatomy.half_width + (0.02 if anatomy.view == "PA" else -0.035)
    for s in SIGN.values():
        turned = 0.6 * anatomy.turned
        path = [(s * 0.035 + turned, c + 0.012), (s * 0.13 + turned, c - 0.004)]
        path += [(s * 0.24 + 0.5 * turned, c - 0.040), (s * 0.37, c - 0.052)]
        girdle.append(band(smooth(path, 20), 0.026))
        girdle.append(np.array([s * 0.45, c + 0.025]) + _CIRCLE * np.array([0.052, 0.056]))
        edge = [(s * (inward + 0.07), c - 0.01), (s * (inward - 0.02), c + 0.06)]
        edge += [(s * (inward - 0.005), c + 0.20), (s * (inward + 0.02), c + 0.29)]
        blades.append(np.concatenate([smooth(edge, 16), np.array([(s * (inward + 0.075), c + 0.16)])]))
    bone += _cortical(
        _on_film(anatomy, [*front, *girdle]), size, [125] * len(front) + [255] * len(girdle)
    ) * np.float32(0.14)
    bone += np.float32(0.05) * _fill(_on_film(anatomy, blades), size, 0.008)
    pitch = 0.86 * anatomy.rib_pitch
    y = np.arange(16)[:, None, None] * pitch - 0.05
    x = anatomy.spine(y) if anatomy.bend else np.zeros_like(y)
    corners = _VERTEBRA * np.array([0.036, 0.40 * pitch]) + np.concatenate([x, y], axis=2)
    bone += np.float32(0.075) * _fill(_on_film(anatomy, list(corners)), size, 0.006)
    return bone


def _ribs(anatomy: Anatomy) -> tuple[Points, Points, Points]:
    """Centre lines ``(2, RIBS, _ARC, 2)`` of the posterior arcs, from the spine to the chest wall, and of the anterior
    arcs from there; and ``(RIBS,)`` the height of each rib near the wall. Sides in the order of :data:`SIDES`."""
    i = np.arange(RIBS)[:, None]
    start = anatomy.top - 0.012 + i * anatomy.rib_pitch
    drop = anatomy.rib_drop * (0.45 + 0.55 * np.minimum(i, 4) / 4)
    wall = anatomy.wall(np.clip((start + drop - anatomy.top) / (anatomy.dome - anatomy.top), 0.06, 1.0)) + 0.008
    end = 0.10 + 0.02 * i
    rear_x, rear_y = 0.03 + (wall - 0.03) * _RISE, start - 0.018 * _HUMP + drop * (1 - _FALL)
    fore_x, fore_y = wall - (wall - end) * (1 - _FALL), start + drop + (0.09 + 0.012 * i) * _RISE
    rear = np.stack([np.stack([SIGN[side] * rear_x, rear_y], axis=-1) for side in SIDES])
    fore = np.stack([np.stack([SIGN[side] * fore_x, fore_y], axis=-1) for side in SIDES])
    return rear, fore, (start + 0.6 * drop)[:, 0]


def _break(rib: Points, side: str, at: float) -> list[Points]:
    """A rib in two pieces: a gap, and the outer piece pushed down and inwards."""
    cut = int(at / (np.pi / 2) * (len(rib) - 1))
    inner, outer = rib[: cut + 1], rib[cut:].copy()
    outer[0] = outer[0] + 0.35 * (outer[1] - outer[0])
    outer += np.array([-SIGN[side] * 0.012, 0.026])
    return [band(inner, 0.024), band(outer, 0.024)]


def _vessels(chest: Chest, size: int) -> Plane:
    """``(size, size)`` in [0, 1]: vessels that fan out from each hilum and thin as they branch."""
    rng = np.random.default_rng([*chest.body_key, BODY, 1])
    canvas = np.zeros((size, size), np.uint8)
    n, steps = 13, 9
    u = np.linspace(0, 1, steps)
    for side in SIGN:
        r = rng.random((2 * n, 4))
        angle = np.linspace(-1.45, 1.45, n) + 0.25 * (r[:n, 0] - 0.5)
        reach = 0.55 + 0.35 * r[:n, 1]
        bend = 0.5 * (r[:n, 2] - 0.5)
        turn = angle[:, None] + bend[:, None] * u
        t = 0.06 + 0.95 * (reach[:, None] * u) * np.cos(turn)
        v = 0.47 + 0.56 * (reach[:, None] * u) * np.sin(turn) * (1.0 - 0.12 * np.cos(turn))
        # Each vessel gives off a branch halfway.
        fork = turn[:, 3:4] + np.where(r[n:, 0] < 0.5, -0.55, 0.55)[:, None]
        length = (0.22 + 0.20 * r[n:, 1])[:, None] * u
        t2, v2 = t[:, 3:4] + length * np.cos(fork), v[:, 3:4] + 0.56 * length * np.sin(fork)
        t, v = np.clip(np.concatenate([t, t2]), 0.01, 0.95), np.clip(np.concatenate([v, v2]), 0.03, 0.96)
        points = anatomy_points(chest.anatomy, side, t, v, size)
        for width, first, last, grey in ((0.016, 0, 3, 255), (0.010, 2, 5, 225), (0.007, 4, steps, 170)):
            lines = points[:n, first:last]
            _polylines(canvas, lines, width * size, grey)
        _polylines(canvas, points[n:], 0.006 * size, 150)
    return cv2.GaussianBlur(canvas, (0, 0), max(0.0035 * size, 0.5)).astype(np.float32) / np.float32(255)


def _net(chest: Chest, side: str, size: int) -> Plane:
    """``(size, size)`` in [0, 1]: the fine mesh of a thickened interstitium, the same on all films of a patient."""
    r = np.random.default_rng([*chest.body_key, BODY, 3, SIDES.index(side)]).random((220, 4))
    turn, half = np.pi * r[:, 2:3], 0.035 + 0.035 * r[:, 3:4]
    along = np.array([[-1.0, 0.0, 1.0]])
    t = np.clip(0.04 + 0.92 * r[:, 0:1] + half * along * np.cos(turn), 0.01, 0.98)
    v = np.clip(0.05 + 0.92 * r[:, 1:2] + 0.6 * half * along * np.sin(turn), 0.02, 0.98)
    canvas = np.zeros((size, size), np.uint8)
    _polylines(canvas, anatomy_points(chest.anatomy, side, t, v, size), 0.006 * size, 230)
    return _blur(canvas, 0.0025 * size).astype(np.float32) * np.float32(1 / 255)


def anatomy_points(anatomy: Anatomy, side: str, t: Any, v: Any, size: int) -> NDArray[np.int32]:
    """``(N, M, 2)`` fixed-point pixels of ``(N, M)`` lung coordinates, for cv2's sub-pixel drawing."""
    points = anatomy.to_film(anatomy.lung(side, t.ravel(), v.ravel())).reshape(*t.shape, 2)
    return _fixed(points, size)


def _polylines(canvas: NDArray[np.uint8], lines: NDArray[np.int32], width: float, grey: int) -> None:
    thickness = max(1, round(width))
    shade = int(grey * min(1.0, width / thickness + 0.15))  # a line cannot be thinner than a pixel, only fainter
    cv2.polylines(canvas, list(lines), False, shade, thickness, cv2.LINE_AA, SUBPIXEL)


def _cortical(outlines: tuple[Points, ...], size: int, greys: list[int] | None = None) -> Plane:
    """Filled outlines, white or of those greys, with brighter rims: bone is denser at its surface."""
    canvas = _canvas(outlines, size, greys)
    if size % 2 == 0 and size >= 128:
        half = cv2.resize(canvas, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
        soft = cv2.resize(_blur(half, 0.005 * size), (size, size), interpolation=cv2.INTER_LINEAR)
    else:
        soft = _blur(canvas, 0.010 * size)
    rim = cv2.multiply(canvas, cv2.addWeighted(soft, -0.52, soft, 0.0, 250.0), scale=1 / 255)
    return _blur(rim, max(0.003 * size, 0.4)).astype(np.float32) * np.float32(1.45 / 255)


def _fill(outlines: Points | tuple[Points, ...], size: int, softness: float) -> Plane:
    """``(size, size)`` float32 in [0, 1], 1 inside the film-frame outlines, blurred by ``softness`` film sides."""
    outlines = outlines if isinstance(outlines, tuple) else (outlines,)
    sigma = softness * size
    shrink = next((k for k in (8, 4, 2) if sigma >= 1.2 * k and size % k == 0), 1)  # a wide blur needs few pixels
    canvas = _blur(_canvas(outlines, size // shrink), sigma / shrink)
    if shrink > 1:
        canvas = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_LINEAR)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def _canvas(outlines: tuple[Points, ...], size: int, greys: list[int] | None = None) -> Bytes:
    canvas = np.zeros((size, size), np.uint8)
    points, end = _fixed(np.concatenate(outlines), size), 0
    for i, outline in enumerate(outlines):
        start, end = end, end + len(outline)
        cv2.fillPoly(canvas, [points[start:end]], greys[i] if greys else 255, cv2.LINE_AA, SUBPIXEL)
    return canvas


def _blur(canvas: Bytes, sigma: float) -> Bytes:
    """A Gaussian blur of 8 bits, which is what a film has and several times faster than float32."""
    if sigma < 0.3:
        return canvas
    width = 2 * max(1, round(2.2 * sigma)) + 1
    return cv2.GaussianBlur(canvas, (width, width), sigma)


def _on_film(anatomy: Anatomy, outlines: list[Points]) -> tuple[Points, ...]:
    """Body-frame outlines in the film frame."""
    points, end = anatomy.to_film(np.concatenate(outlines)), 0
    return tuple(points[end - len(outline) : end] for outline in outlines if (end := end + len(outline)))


def _fixed(points: Points, size: int) -> NDArray[np.int32]:
    # cv2 puts the centre of the first pixel at 0, the film frame puts its edge there.
    return np.rint((points * size - 0.5) * (1 << SUBPIXEL)).astype(np.int32)


def _texture(rng: np.random.Generator, size: int) -> Plane:
    """``(size, size)`` float32, smooth and patchy, mean 0 and deviation about 1."""
    coarse = cv2.resize(rng.standard_normal((10, 10), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.standard_normal((36, 36), dtype=np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.float32(0.9) * coarse + np.float32(0.8) * fine


def _body_grid(anatomy: Anatomy, size: int) -> tuple[Plane, Plane]:
    """Body-frame ``X`` and ``Y`` of every pixel centre."""
    x, y = _unit_grid(size)
    c, s = np.cos(anatomy.tilt) / anatomy.scale, np.sin(anatomy.tilt) / anatomy.scale
    dx, dy = x - np.float32(0.5 + anatomy.shift[0]), y - np.float32(0.5 + anatomy.shift[1])
    return np.float32(c) * dx + np.float32(s) * dy, np.float32(c) * dy - np.float32(s) * dx + np.float32(0.5)


@lru_cache(maxsize=8)
def _unit_grid(size: int) -> tuple[Plane, Plane]:
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return at[None, :], at[:, None]
