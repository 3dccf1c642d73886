"""Skin, eyes, hair and cloth, painted into the head model's texture.

An identity and the texel tables of `head_model` come in; linear albedo and a gloss map
(1 − roughness) go out to `faces`. All painting happens in template space, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import cv2
import numba as nb
import numpy as np
from scipy.ndimage import gaussian_filter1d

from liveness_utils.errors import FaceError
from liveness_utils.face_hair import HAIR_STYLES, fringe, hairline
from liveness_utils.head_model import ATLAS, EYE_SPAN, REGIONS, SKULL_CENTRE, TEXTURE_SIZE, HeadModel

MONK_HEX = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
"""The ten tones of the Monk Skin Tone scale, sRGB (E. Monk, 2019; skintone.google, CC BY 4.0)."""

IRIS_ANGLE = float(np.arcsin(0.0059 / 0.0149))  # limbus radius 5.9 mm on the model's eyeball
_UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
_LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
_BROWS = (((107, 66, 105, 63, 70), (55, 65, 52, 53, 46)), ((336, 296, 334, 293, 300), (285, 295, 282, 283, 276)))
_NASOLABIAL = ((129, 203, 206, 216, 212), (358, 423, 426, 436, 432))
_TEAR_TROUGH = ((245, 233, 232, 231, 230, 229), (465, 453, 452, 451, 450, 449))


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """sRGB 0..1 to linear light 0..1 (IEC 61966-2-1)."""
    v = np.asarray(value, np.float64)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def monk_linear(monk: int) -> np.ndarray:
    """(3,) linear RGB of Monk tone 1..10, as printed on the scale.

    >>> monk_linear(1).round(2).tolist()
    [0.92, 0.85, 0.78]
    """
    code = MONK_HEX[int(monk) - 1]
    return srgb_to_linear(np.array([int(code[k : k + 2], 16) for k in (0, 2, 4)]) / 255)


def skin_albedo(monk: int) -> np.ndarray:
    """(3,) diffuse albedo of skin whose well-exposed picture has the given Monk tone.

    The scale's swatches are display colours; real skin reflects less (light skin about 0.6
    in red, dark skin not below 0.04) and more redly, so they are compressed into that range.
    """
    swatch = monk_linear(monk)
    level = swatch @ np.array([0.2126, 0.7152, 0.0722])
    skin = np.array([1.0, 0.60 + 0.14 * level, 0.43 + 0.20 * level])
    hue = 0.35 * swatch / swatch[0] + 0.65 * skin
    return (0.60 * swatch[0] + 0.030) * hue


@lru_cache(maxsize=1)
def landmark_table() -> tuple[np.ndarray, np.ndarray]:
    """Render-mesh triangle (478,) int32 and weights (478,3) float32 under each MediaPipe landmark.

    Found once by running FaceLandmarker on rendered faces of many identities and keeping the
    medoid; `scripts/find_landmarks.py` does it again.

    Raises:
        FaceError: the package's data file is missing.
    """
    path = resources.files("liveness_utils") / "data" / "landmarks.npz"
    if not path.is_file():
        raise FaceError("liveness_utils/data/landmarks.npz is missing: reinstall the package from its repository.")
    with path.open("rb") as stream, np.load(stream) as stored:
        return stored["triangles"].astype(np.int32), stored["weights"].astype(np.float32)


@dataclass
class _Coat:
    """What is being painted: skin and cloth texels as flat lists, colours changed in place."""

    at: np.ndarray  # (N,3) template positions, metres
    region: np.ndarray  # (N,)
    masks: np.ndarray  # (4,N) lips, eyelids, ears, face
    rgb: np.ndarray  # (N,3)
    gloss: np.ndarray  # (N,)
    marks: np.ndarray  # (478,3) template landmarks

    def blend(self, alpha: np.ndarray, colour) -> None:
        """Lay a colour over the coat."""
        ids, colour = _where(alpha), np.asarray(colour)
        colour = colour[ids] if colour.ndim == 2 else colour
        self.rgb[ids] += alpha[ids, None] * (colour - self.rgb[ids])

    def absorb(self, amount: np.ndarray, density) -> None:
        """Darken by Beer–Lambert absorption with optical density per channel."""
        ids = _where(amount)
        self.rgb[ids] *= np.exp(-amount[ids, None] * np.asarray(density))


def _where(amount: np.ndarray) -> np.ndarray | slice:
    """The texels of which there is any: most layers touch few."""
    ids = np.flatnonzero(amount)
    return ids if 2 * len(ids) < len(amount) else np.s_[:]


_BLOOD = np.array([0.10, 1.0, 0.85])  # haemoglobin absorbs green and blue
_MELANIN = np.array([0.55, 0.80, 1.0])


def _template_marks(model: HeadModel) -> np.ndarray:
    triangle, weight = landmark_table()
    return np.einsum("nk,nkc->nc", weight, model.template[model.split[model.triangles[triangle]]])


def _noise(at: np.ndarray, cell: float, rng: np.random.Generator, stretch=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Smooth noise of about unit scale over positions, features of `cell` metres."""
    lattice = 1.5 * rng.normal(size=(24, 24, 24)).astype(np.float32)
    return _trilinear(lattice, at, 1.0 / (cell * np.asarray(stretch, np.float64)))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _trilinear(lattice: np.ndarray, at: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(N,) float32 values of a lattice that repeats, at positions times scale."""
    side = lattice.shape[0]
    out = np.empty(at.shape[0], np.float32)
    low, high, part = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3, np.float32)
    for n in range(at.shape[0]):
        for k in range(3):
            x = at[n, k] * scale[k]
            whole = np.floor(x)
            part[k], low[k] = np.float32(x - whole), int(whole) % side
            high[k] = low[k] + 1 if low[k] + 1 < side else 0
        value = np.float32(0.0)
        for i in range(8):
            a, wa = (high[0], part[0]) if i & 4 else (low[0], np.float32(1.0) - part[0])
            b, wb = (high[1], part[1]) if i & 2 else (low[1], np.float32(1.0) - part[1])
            c, wc = (high[2], part[2]) if i & 1 else (low[2], np.float32(1.0) - part[2])
            value += wa * wb * wc * lattice[a, b, c]
        out[n] = value
    return out


def _window(at: np.ndarray, points: np.ndarray, margin: float) -> np.ndarray:
    """Indices of positions inside the box around points, widened by a margin."""
    lo, hi = points.min(0) - margin, points.max(0) + margin
    inside = (at[:, 0] > lo[0]) & (at[:, 0] < hi[0]) & (at[:, 1] > lo[1]) & (at[:, 1] < hi[1])
    return np.flatnonzero(inside)


def _squared(d: np.ndarray) -> np.ndarray:
    return np.einsum("nk,nk->n", d, d)


def _near(coat: _Coat, points: np.ndarray, size) -> np.ndarray:
    """Sum of Gaussians of `size` metres around points, at most 1."""
    sizes = np.broadcast_to(np.asarray(size, float), (len(points),))
    total = np.zeros(len(coat.at))
    for p, s in zip(points, sizes, strict=True):
        ids = _window(coat.at, p[None], 3.5 * s)
        total[ids] += np.exp(-_squared(coat.at[ids] - p) / (2 * s * s))
    return np.minimum(total, 1)


def _to_line(at: np.ndarray, line: np.ndarray, reach: float = 0.015) -> np.ndarray:
    """Distance of positions to a polyline (n,3); 1 m beyond `reach` of its box."""
    ids = _window(at, line, reach)
    near, best = at[ids], np.full(len(ids), 1.0)
    for a, b in zip(line[:-1], line[1:], strict=True):
        d = b - a
        t = np.clip((near - a) @ d / max(d @ d, 1e-12), 0, 1)
        best = np.minimum(best, _squared(near - a - t[:, None] * d))
    out = np.ones(len(at))
    out[ids] = np.sqrt(best)
    return out


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


# ------------------------------------------------------------------ skin


def _complexion(coat: _Coat, who, rng) -> None:
    """Blood and melanin by zones of the face, mottling at several scales."""
    m, red = coat.marks, 0.30 * np.exp(-who.monk / 7)
    coat.absorb(_near(coat, m[[50, 280]], 0.017) * red * rng.uniform(0.5, 1.3), _BLOOD)
    coat.absorb(_near(coat, m[[4, 48, 278]], (0.010, 0.008, 0.008)) * red * rng.uniform(0.5, 1.2), _BLOOD)
    coat.absorb(coat.masks[2] * red * 0.9 + _near(coat, m[[152]], 0.014) * red * 0.4, _BLOOD)
    sockets = _near(coat, m[[159, 386, 145, 374, 133, 362]], 0.010)
    coat.absorb(sockets * rng.uniform(0.12, 0.34), _MELANIN * 0.8 + _BLOOD * 0.2)
    coat.absorb(_near(coat, m[[10, 109, 338]], 0.03) * 0.06, _MELANIN)
    coat.absorb(_near(coat, m[[17, 61, 291]], 0.013) * rng.uniform(0.03, 0.14), _MELANIN)
    for cell, amount in ((0.045, 0.036), (0.014, 0.030), (0.005, 0.026), (0.0022, 0.034)):
        coat.absorb(_noise(coat.at, cell, rng) * amount, _MELANIN)
        coat.absorb(_noise(coat.at, cell * 1.3, rng) * amount * 0.9 * (0.4 + 2 * red), _BLOOD)


def _spots(coat: _Coat, who, rng) -> None:
    """Freckles, moles and, with age, sun spots."""
    face = np.flatnonzero((coat.masks[3] > 0.3) & (coat.masks[0] < 0.1) & (coat.masks[1] < 0.3))
    skin = coat.at[face]
    counts = (int(230 * who.freckles), who.moles, int(max(who.age - 55, 0) * 0.5))
    for count, sizes, depth in zip(
        counts, ((0.0006, 0.0013), (0.0008, 0.0017), (0.0015, 0.0035)), (0.45, 1.3, 0.22), strict=True
    ):
        if not count:
            continue
        centres = coat.at[rng.choice(face, count)]
        amount = np.zeros(len(coat.at))
        for c, s in zip(centres, rng.uniform(*sizes, count), strict=True):
            ids = face[_window(skin, c[None], 3 * s)]
            amount[ids] = np.maximum(
                amount[ids], np.exp(-((_squared(coat.at[ids] - c) / s**2) ** 1.5)) * rng.uniform(0.5, 1)
            )
        coat.absorb(amount * depth, _MELANIN)


def _wrinkles(coat: _Coat, who, rng) -> None:
    """Folds that deepen with age: forehead, crow's feet, nasolabial, under the eye."""
    m, at = coat.marks, coat.at
    old = float(np.clip((who.age - 28) / 45, 0, 1))
    folds = np.zeros(len(at))
    waver = 0.0016 * _noise(at, 0.02, rng)
    for line in _NASOLABIAL:
        folds += (0.05 + 0.30 * old) * np.exp(-(((_to_line(at, m[list(line)]) + waver * 0.5) / 0.0022) ** 2))
    for line in _TEAR_TROUGH:
        folds += (0.05 + 0.20 * old) * np.exp(-((_to_line(at, m[list(line)]) / 0.0022) ** 2))
    if old > 0.1:
        folds += old * _forehead_lines(coat, rng, waver) + old * _crows_feet(coat, rng, waver)
        folds += old * 0.07 * np.maximum(_noise(at, 0.004, rng, (2.2, 0.6, 1.5)), 0) * coat.masks[3]
    coat.absorb(np.maximum(folds, 0), _MELANIN * 0.7 + _BLOOD * 0.3)


def _forehead_lines(coat: _Coat, rng, waver) -> np.ndarray:
    at, top = coat.at, coat.marks[[105, 334], 1].mean()
    width = _step(0.050 - np.abs(at[:, 0]), 0, 0.02) * (at[:, 2] > -0.06)
    out = np.zeros(len(at))
    for k in range(int(rng.integers(2, 5))):
        y = top + 0.012 + 0.009 * k + rng.normal(0, 0.001)
        bend = 0.004 * np.cos(at[:, 0] / 0.025) + 1.2 * waver
        out += rng.uniform(0.12, 0.30) * np.exp(-(((at[:, 1] - y - bend) / 0.0012) ** 2)) * width
    for side in (-1, 1):
        d = np.abs(at[:, 0] - side * 0.0055 + waver * 0.4)
        out += (
            rng.uniform(0.0, 0.25)
            * np.exp(-((d / 0.0012) ** 2))
            * np.exp(-(((at[:, 1] - top + 0.002) / 0.007) ** 2))
            * (at[:, 2] > -0.03)
        )
    return out


def _crows_feet(coat: _Coat, rng, waver) -> np.ndarray:
    out = np.zeros(len(coat.at))
    for corner, side in ((33, -1), (263, 1)):
        d = coat.at - coat.marks[corner]
        reach = np.hypot(d[:, 0], d[:, 1])
        window = (
            _step(reach, 0.004, 0.009)
            * _step(0.026 - reach, 0, 0.014)
            * (d[:, 0] * side > 0)
            * (np.abs(d[:, 2]) < 0.03)
        )
        for slope in rng.uniform(-0.65, 0.55, 4):
            miss = d[:, 1] - slope * np.abs(d[:, 0]) + waver * 0.5
            out += rng.uniform(0.10, 0.24) * np.exp(-((miss / 0.0010) ** 2)) * window
    return out


def _lips(coat: _Coat, who, rng) -> None:
    mask = np.clip(coat.masks[0] * 1.15, 0, 1)
    dark = who.monk / 10
    natural = coat.rgb * np.exp(
        -np.outer(
            np.ones(len(coat.at)),
            (0.12 + 0.25 * dark) * np.array([0.6, 0.8, 0.9]) + who.lips * (0.42 - 0.28 * dark) * _BLOOD,
        )
    )
    if who.lips > 0.95:
        stick = np.array([[0.34, 0.035, 0.05], [0.42, 0.09, 0.10], [0.20, 0.02, 0.05], [0.38, 0.12, 0.11]])[
            rng.integers(4)
        ]
        natural = natural + 0.4 * (stick * (1.15 - 0.55 * dark) - natural)
    lines = 1 - 0.10 * np.maximum(_noise(coat.at, 0.0016, rng, (0.8, 4.0, 4.0)), 0)
    coat.blend(mask * (0.75 + 0.25 * min(who.lips, 1)), natural * lines[:, None])
    coat.gloss += mask * (0.60 + 0.15 * (who.lips > 0.95) - coat.gloss)
    seam = _to_line(coat.at, coat.marks[[61, 191, 80, 81, 82, 13, 312, 311, 310, 415, 291]])
    coat.absorb(0.35 * np.exp(-((seam / 0.0014) ** 2)), _MELANIN * 0.5 + _BLOOD * 0.5)


def _lids(coat: _Coat, who, rng) -> None:
    """Lash lines, the crease above the eye, and eyeliner or shadow for some."""
    make_up = who.gender < 0.5 and rng.random() < 0.3
    lash = np.array([0.012, 0.009, 0.008])
    for upper, lower in zip(_UPPER_LIDS, _LOWER_LIDS, strict=True):
        up = _to_line(coat.at, coat.marks[list(upper)])
        width = 0.0017 if make_up else 0.0012
        coat.blend(0.75 * np.exp(-((up / width) ** 2)), lash)
        low = _to_line(coat.at, coat.marks[list(lower)])
        coat.blend((0.35 if make_up else 0.18) * np.exp(-((low / 0.0008) ** 2)), lash * 2)
        coat.absorb(
            0.30 * np.exp(-(((up - 0.0062) / 0.0013) ** 2)) * (coat.at[:, 1] > coat.marks[upper[4], 1]), _MELANIN
        )
        if make_up:
            shade = np.array([[0.6, 0.7, 0.6], [0.5, 0.9, 1.1], [0.9, 0.6, 0.35]])[rng.integers(3)]
            coat.absorb(0.3 * np.exp(-((up / 0.006) ** 2)) * (coat.at[:, 1] > coat.marks[upper[0], 1]), shade)


def _oil(coat: _Coat, who, rng) -> None:
    """Gloss of the skin: an oily T-zone, matte cheeks, pores everywhere."""
    zone = _near(coat, coat.marks[[151, 9, 4, 5, 152, 108, 337]], (0.022, 0.014, 0.008, 0.007, 0.012, 0.02, 0.02))
    cheek = _near(coat, coat.marks[[117, 346]], 0.013)
    pores = 0.03 * _noise(coat.at, 0.003, rng) + 0.02 * _noise(coat.at, 0.02, rng)
    coat.gloss[:] = 0.40 + 0.12 * who.oil + zone * (0.06 + 0.12 * who.oil) + 0.05 * cheek + pores


# ------------------------------------------------------------------ hair on the skin


def _skull_angles(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    d = at - SKULL_CENTRE
    return np.arctan2(np.hypot(d[:, 0], d[:, 2]), d[:, 1]), np.arctan2(d[:, 0], d[:, 2])


def _scalp(coat: _Coat, who, rng, colour: np.ndarray) -> None:
    """Hair painted on the scalp, with a soft, uneven hairline."""
    style = HAIR_STYLES[who.hair_style]
    density = style.painted if style.painted > 0 else 0.12
    polar, azimuth = _skull_angles(coat.at)
    limit = hairline(azimuth, who.hairline + (0.01 if style.painted == 0 else 0)) + fringe(style, azimuth)
    along = np.stack([0.09 * azimuth, 0.09 * polar, 0 * polar], 1)  # metres: strands run with the polar angle
    edge = 0.03 * _noise(coat.at, 0.008, rng) + 0.035 * _noise(along, 0.0015, rng, (1, 10, 1))
    cover = _step(limit - polar + edge, -0.06, 0.09) * (coat.masks[2] < 0.25)
    if style.top_bald:
        cover *= _step(polar - np.deg2rad(58) + edge, 0, 0.25) * _step(np.abs(azimuth), 0.85, 1.15)
    strands = np.clip(0.88 + 0.2 * _noise(along, 0.0015, rng, (1, 10, 1)), 0, 1.2)
    coat.blend(np.clip(density * cover * strands, 0, 0.97), colour * 0.75)
    coat.gloss += density * cover * (0.30 - coat.gloss)


def beard_density(at: np.ndarray, marks: np.ndarray, kind: str) -> np.ndarray:
    """(N,) 0..1 density of a beard of a kind at template positions."""
    x, y, z = np.abs(at[:, 0]), at[:, 1], at[:, 2]
    mouth, nose, chin = marks[[61, 291], 1].mean(), marks[2, 1], marks[152, 1]
    width = np.abs(marks[[61, 291], 0]).mean()
    cheek = mouth + 0.004 + 0.75 * np.maximum(x - width, 0)
    low = chin - 0.012 + 0.45 * np.maximum(-z - 0.035, 0)
    jaw = _step(cheek - y, 0, 0.022) * _step(y - low, 0, 0.024) * _step(z + 0.090, 0, 0.020)
    beside = _step(x - width + 0.003, 0, 0.012)
    lip = _step(nose - 0.003 - y, 0, 0.006) * _step(width + 0.008 - x, 0, 0.012) * (y > mouth - 0.004) * (z > -0.04)
    below = _step(mouth - 0.008 - y, 0, 0.010)
    full = np.maximum(jaw * np.maximum(beside, below), lip)
    near_mouth = _step(width + 0.010 - x, 0, 0.012) * (z > -0.05)
    return {"moustache": lip, "goatee": np.maximum(lip, jaw * near_mouth * np.maximum(below, beside))}.get(kind, full)


def _beard(coat: _Coat, who, rng, colour: np.ndarray) -> None:
    if who.beard == "none":
        return
    cover = (
        beard_density(coat.at, coat.marks, who.beard) * (1 - np.clip(1.3 * coat.masks[0], 0, 1)) * (coat.masks[2] < 0.3)
    )
    ragged = 0.45 * _noise(coat.at, 0.010, rng) + 0.35 * _noise(coat.at, 0.0022, rng, (1, 2.5, 1))
    cover = _step(cover + 0.35 * (4 * cover * (1 - cover)) * ragged, 0.15, 1.0) * np.clip(0.85 + 0.2 * ragged, 0, 1)
    dots = np.clip(0.80 + 0.22 * rng.normal(size=len(cover)), 0, 1.2)
    if who.beard == "shadow":
        coat.absorb(cover * dots * 0.36 * (1.1 - who.monk / 14), np.array([1.1, 0.9, 0.75]))
        return
    strength = {"stubble": 0.42}.get(who.beard, 0.82)
    strands = dots if who.beard == "stubble" else np.clip(0.97 + 0.06 * rng.normal(size=len(cover)), 0.5, 1.05)
    streaks = 0.22 * rng.normal(size=len(cover)) + 0.16 * _noise(coat.at, 0.003, rng, (1, 2, 1))
    tone = (0.9 * colour + 0.1 * coat.rgb) * np.exp(streaks)[:, None]
    coat.blend(np.clip(cover * strength * strands, 0, 0.97), np.maximum(tone, 0.004))
    coat.gloss += cover * (0.26 - coat.gloss)


def _landmark_px(model: HeadModel) -> np.ndarray:
    """(478,2) texel coordinates of the landmarks."""
    triangle, weight = landmark_table()
    uv = np.einsum("nk,nkc->nc", weight, model.uv[model.triangles[triangle]])
    return uv * TEXTURE_SIZE - 0.5


def _brow_mask(who, model: HeadModel, rng) -> np.ndarray:
    """(512,512) coverage of the eyebrows, drawn hair by hair at four times the resolution."""
    px, fine = _landmark_px(model), 4
    canvas = np.zeros((TEXTURE_SIZE // 2 * fine, TEXTURE_SIZE * fine), np.uint8)
    thick = 0.55 + 0.45 * who.brow
    for (top, bottom), side in zip(_BROWS, (-1, 1), strict=True):
        _draw_brow(canvas, px[list(top)], px[list(bottom)], side, thick, who.brow, rng, fine)
    small = cv2.resize(canvas, (TEXTURE_SIZE, TEXTURE_SIZE // 2), interpolation=cv2.INTER_AREA)
    out = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    out[: TEXTURE_SIZE // 2] = cv2.GaussianBlur(small / 255.0, (0, 0), 0.8)
    return out


def _draw_brow(canvas, top, bottom, side, thick, dense, rng, fine) -> None:
    """Strokes of one brow, from the nose (first point) outwards; `side` is the image's."""
    count = int(170 * dense)
    s = np.sort(rng.beta(1.05, 1.25, count)) * 0.98
    t = np.clip(rng.normal(0.5, 0.24, count), 0.02, 0.98)
    knots = np.linspace(0, 1, len(top))
    upper = np.stack([np.interp(s, knots, top[:, c]) for c in (0, 1)], 1)
    lower = np.stack([np.interp(s, knots, bottom[:, c]) for c in (0, 1)], 1)
    middle, half = 0.5 * (upper + lower), 0.5 * (lower - upper)
    taper = (1 - 0.62 * np.clip((s - 0.55) / 0.45, 0, 1)) * thick
    root = middle + half * ((2 * t - 1) * taper)[:, None]
    lean = np.deg2rad(np.interp(s, [0, 0.15, 0.5, 1], [75, 50, 22, -14]) + rng.normal(0, 9, count) - 28 * (t < 0.35))
    length = np.interp(s, [0, 0.3, 1], [5.5, 7.5, 5.0]) * rng.uniform(0.7, 1.2, count)
    tip = root + length[:, None] * np.stack([side * np.cos(lean), -np.sin(lean)], 1)
    for a, b in zip(root * fine, tip * fine, strict=True):
        middle_px = tuple(int(v) for v in np.round(0.5 * (a + b)))
        start, end = (tuple(int(v) for v in np.round(p)) for p in (a, b))
        cv2.line(canvas, start, middle_px, 255, 2, cv2.LINE_AA)
        cv2.line(canvas, middle_px, end, 255, 1, cv2.LINE_AA)


# ------------------------------------------------------------------ cloth


def collar(points: np.ndarray, kind: str) -> np.ndarray:
    """Metres below the neckline (negative: bare skin) of template points, for a kind of shirt."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    line = -0.158 - 0.26 * (z + 0.045) + 1.1 * np.maximum(x - 0.062, 0)
    front = z > -0.10
    if kind == "vneck":
        line = line - np.where(front, np.maximum(0.060 - 0.95 * x, 0), 0)
    if kind == "shirt":
        line = line + 0.022 - np.where(front, np.maximum(0.065 - 1.7 * x, 0), 0)
    return line - y


def _cloth(coat: _Coat, who, rng) -> None:
    """Paint the shirt on everything below the neckline."""
    below = collar(coat.at, who.shirt)
    cover = _step(below, -0.003, 0.003) * (coat.at[:, 1] < -0.10)
    main, second = (np.array(c) for c in who.shirt_colours)
    colour = np.tile(main, (len(coat.at), 1))
    x, y = coat.at[:, 0], coat.at[:, 1]
    if who.shirt == "stripes":
        colour[np.sin(y / 0.0045 + 0.4) > 0.2] = second
    elif who.shirt == "checks":
        colour += ((np.sin(x / 0.006) > 0.3)[:, None] * 0.4 + (np.sin(y / 0.006) > 0.3)[:, None] * 0.4) * (
            second - main
        )
    elif who.shirt == "shirt":
        colour *= np.where(np.abs(np.abs(x) - 0.016) < 0.0012, 0.6, 1)[:, None]
    folds = (
        1
        + 0.14 * _noise(coat.at, 0.06, rng, (1, 2, 1))
        + 0.06 * _noise(coat.at, 0.018, rng, (1, 2, 1))
        + 0.05 * _noise(coat.at, 0.004, rng)
    )
    seam = 1 - 0.30 * np.exp(-(((below - 0.017) / 0.0016) ** 2)) - 0.35 * np.exp(-((below / 0.002) ** 2))
    coat.absorb(
        0.5 * np.exp(-((np.minimum(below, 0) / 0.012) ** 2)) * (below < 0) * (coat.at[:, 1] < -0.10), _MELANIN * 0.7
    )
    coat.blend(cover, np.clip(colour * (folds * seam)[:, None], 0.004, 0.9))
    coat.gloss += cover * (0.18 - coat.gloss)


# ------------------------------------------------------------------ tiles


def _tile(region: str) -> tuple[slice, slice]:
    x, y, w, h = ATLAS[region]
    return slice(y, y + h), slice(x, x + w)


def paint_eye(who, rng) -> np.ndarray:
    """(h,w,3) eyeball tile: pupil, iris with fibres and a dark limbus, sclera with veins."""
    _, _, w, h = ATLAS["eye"]
    x, y = np.meshgrid(np.linspace(-1, 1, w) * w / (w - 3), np.linspace(1, -1, h) * h / (h - 3))
    angle = np.hypot(x, y) ** (1 / 0.8) * EYE_SPAN
    turn = np.arctan2(y, x)
    fibres = gaussian_filter1d(rng.normal(size=256), 1.2, mode="wrap") * 1.6
    spokes = np.interp((turn + np.pi) / (2 * np.pi) * 255, np.arange(256), fibres)
    inner = angle / IRIS_ANGLE
    iris = np.array(who.iris) * (1 + 0.35 * spokes * _step(inner, 0.35, 0.6))[..., None]
    iris = iris * (0.75 + 0.65 * np.exp(-(((inner - 0.62) / 0.2) ** 2)))[..., None]
    iris = iris * (1 - 0.75 * _step(inner, 0.80, 1.0))[..., None]
    white = np.array([0.44, 0.405, 0.385]) * np.array(
        [1, 1 - 0.0012 * max(who.age - 30, 0), 1 - 0.0022 * max(who.age - 30, 0)]
    )
    sclera = white * np.exp(-0.55 * _step(angle, 0.6, 1.4)[..., None] * _BLOOD) * (1 - 0.10 * (who.monk > 6))
    veins = np.abs(gaussian_filter1d(gaussian_filter1d(rng.normal(size=(h, w)), 1.0, axis=0), 3.0, axis=1))
    sclera = sclera * np.exp(
        -(1.6 * np.maximum(0.05 - veins, 0) / 0.05 * _step(angle, 0.55, 1.2) * 0.25)[..., None] * _BLOOD
    )
    sclera = sclera * (1 - 0.35 * _step(y, 0.15, 0.55))[..., None]
    out = sclera + (1 - _step(inner, 0.94, 1.10))[..., None] * (iris - sclera)
    pupil = 1 - _step(inner, 0.36, 0.44)
    return out + pupil[..., None] * (0.004 - out)


def paint_hair(who, rng, colour: np.ndarray) -> np.ndarray:
    """(h,w,3) hair tile: strands along v, darker roots, grey ones with age."""
    _, _, w, h = ATLAS["hair"]
    style = HAIR_STYLES[who.hair_style]
    drift = gaussian_filter1d(rng.normal(size=(h, 1)), 14, axis=0) * (40 if style.curl > 0.005 else 14)
    fine, broad = rng.normal(size=w), gaussian_filter1d(rng.normal(size=w), 4, mode="wrap") * 3
    u = (
        np.arange(w)[None, :]
        + drift
        + gaussian_filter1d(gaussian_filter1d(rng.normal(size=(h, w)), 10, axis=0), 8, axis=1) * 60
    ) % w
    strand = np.interp(u, np.arange(w), 0.7 * gaussian_filter1d(fine, 0.6, mode="wrap") + 0.25 * broad)
    if style.curl > 0.005:
        curls = gaussian_filter1d(gaussian_filter1d(rng.normal(size=(h, w)), 1.2, axis=0), 1.4, axis=1) * 4
        strand = 0.3 * strand + curls
    v = np.linspace(0, 1, h)[:, None]
    tone = np.exp(0.40 * strand) * (0.75 + 0.35 * _step(v, 0.0, 0.5))
    shine = np.interp(colour.mean(), [0.02, 0.1], [0.4, 0.2]) * np.exp(-(((v - 0.38 + 0.03 * strand) / 0.10) ** 2))
    out = colour * (tone * (1 + shine))[..., None]
    tint = gaussian_filter1d(rng.normal(size=w), 1.0, mode="wrap") * 1.9
    share = _step(
        np.interp(u, np.arange(w), tint), *(np.interp(who.grey, [0, 1], [2.6, -2.2]) + np.array([-1.2, 1.2]))
    )[..., None]
    return np.clip(
        out + share * 0.45 * (np.array([0.30, 0.29, 0.28]) * np.exp(0.2 * strand)[..., None] - out), 0.003, 0.9
    )


def _mouth_tiles(albedo, gloss, model: HeadModel, rng) -> None:
    """Mouth lining, tongue and teeth with gums."""
    y = model.position[..., 1].astype(float)
    for name, colour, shine in (("mouth", (0.16, 0.035, 0.035), 0.6), ("tongue", (0.22, 0.065, 0.06), 0.5)):
        at = _tile(name)
        albedo[at] = np.array(colour) * (1 + 0.15 * rng.normal(size=albedo[at].shape[:2] + (1,)))
        gloss[at] = shine
    at = _tile("teeth")
    x, ys = model.position[at][..., 0].astype(float), y[at]
    upper = ys > np.median(ys[model.texel_region[at] == REGIONS.index("teeth")])
    gap = np.exp(-((((x / 0.0078 + 0.5 * ~upper) % 1 - 0.5) / 0.055) ** 2) * (x / 0.0078 != 0))
    ivory = np.array([0.46, 0.41, 0.33]) * rng.uniform(0.85, 1.1)
    albedo[at] = ivory * (1 - 0.45 * gap[..., None])
    gloss[at] = 0.72


# ------------------------------------------------------------------ all


def hair_colour(who) -> np.ndarray:
    """(3,) linear colour of the hair after greying."""
    return np.array(who.hair_colour) * (1 - 0.75 * who.grey) + 0.75 * who.grey * np.array([0.30, 0.29, 0.28])


def _skin_coat(who, model: HeadModel) -> tuple[_Coat, np.ndarray]:
    drawn = np.isin(model.texel_region, [REGIONS.index(r) for r in ("head", "back", "torso_front", "torso_back")])
    at = model.position[drawn].astype(np.float64)
    base = skin_albedo(who.monk)
    masks = model.masks[:, drawn] / 255.0
    n = len(at)
    return _Coat(
        at, model.texel_region[drawn], masks, np.tile(base, (n, 1)), np.full(n, 0.45), _template_marks(model)
    ), drawn


def paint(identity, model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Paint an identity.

    Args:
        identity: `faces.Identity`.
        model: the head model.

    Returns:
        albedo (512,512,3) float32 linear RGB, gloss (512,512) float32.
    """
    rng = np.random.default_rng([identity.seed, 7])
    coat, drawn = _skin_coat(identity, model)
    hair = hair_colour(identity)
    warm = rng.normal(0, 0.03)
    coat.rgb *= (1 + rng.normal(0, 0.04)) * np.array([1 + 0.3 * warm, 1 - 0.3 * warm, 1 - 1.2 * warm])
    _oil(coat, identity, rng)
    for layer in (_complexion, _spots, _wrinkles, _lips, _lids):
        layer(coat, identity, rng)
    _scalp(coat, identity, rng, hair)
    _beard(coat, identity, rng, hair)
    _cloth(coat, identity, rng)
    albedo = np.zeros((*drawn.shape, 3))
    gloss = np.full(drawn.shape, 0.4)
    albedo[drawn], gloss[drawn] = coat.rgb, coat.gloss
    _cavities(albedo, model, drawn)
    brows = np.clip(_brow_mask(identity, model, rng) * 1.2, 0, 0.85) * drawn
    tone = np.minimum(hair * 0.7 + 0.004, 0.10)
    albedo += brows[..., None] * (tone - albedo)
    return _finish(albedo, gloss, identity, model, rng, hair)


def _cavities(albedo, model: HeadModel, drawn) -> None:
    """Creases hold a little more colour than their mean occlusion explains: nostrils, ears, lip corners."""
    seen = model.occlusion[drawn].astype(float)
    albedo[drawn] *= np.exp(-1.0 * np.maximum(0.78 - seen, 0)[:, None] * (_MELANIN * 0.6 + _BLOOD * 0.4) / 0.5)


def _finish(albedo, gloss, identity, model: HeadModel, rng, hair) -> tuple[np.ndarray, np.ndarray]:
    _mouth_tiles(albedo, gloss, model, rng)
    for name, tile, shine in (("eye", paint_eye(identity, rng), 0.93), ("hair", paint_hair(identity, rng, hair), 0.32)):
        albedo[_tile(name)], gloss[_tile(name)] = tile, shine
    albedo[_tile("glasses")], gloss[_tile("glasses")] = identity.glasses_colour, 0.75
    albedo[_tile("lashes")], gloss[_tile("lashes")] = 0.010, 0.3
    fill = model.texel_fill
    return albedo.reshape(-1, 3)[fill].astype(np.float32), gloss.reshape(-1)[fill].astype(np.float32)
