"""Sensor: a linear-light image becomes what a phone's camera would have stored, 8-bit RGB with its own flaws.
render → **sensor** → simulate. Optics, exposure, electrons and image signal processor, in the order of a real camera.
All randomness comes from the generator that is passed in: same seed, same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import cv2
import numba as nb
import numpy as np

_JIT = {"cache": True, "fastmath": True, "nogil": True, "error_model": "numpy"}
_TILE = 512  # side of the noise tile
_PREFERENCE = np.array([1.11, 1.0, 1.12])
_OVERLAP = 0.31  # of the red and green colour filters, what their matrix leaves
_CURVE = 4096  # entries of the tone curve


@dataclass(frozen=True)
class SensorProfile:
    """A camera module with its processing, for frames about 256 px wide.

    Args:
        focal_px_256: focal length in pixels when the frame is 256 px wide.
        exposure_max_s: longest exposure that auto exposure may use (bounded by the frame interval).
        exposure_min_s: shortest exposure.
        gain_max: largest analogue gain; when it is reached, dim scenes stay dark.
        sensitivity: electrons per lux-second of scene light in an output pixel, white diffuser.
        full_well_e: electrons at which an output pixel clips at gain 1.
        read_noise_e: read noise in electrons, root mean square.
        row_noise_e: noise shared by a row, in electrons.
        k1: radial distortion, ideal radius = r (1 + k1 r²), r = 1 at half the diagonal; positive is barrel.
        vignetting: light lost in the corners, 0..1 (cos⁴ and mount).
        psf_px: standard deviation of lens blur, pixels at 256.
        denoise: 0..1 strength of the noise reduction (grain grows coarser and weaker).
        sharpen: strength of the halo that sharpening leaves.
        saturation: factor on chroma.
        contrast: 0..1 strength of the S-curve.
        wb_error: relative error of the red and blue gain that a unit keeps.
        wb_strength: 0..1 share of the illuminant's colour that white balance removes.
        ae_target: display level 0..1 that auto exposure aims at.
        meter_error: relative spread of the level a scene is metered to; faces are darker and lighter than the target.
        ae_time_s: time constant of auto exposure and white balance.
        readout_s: time from the first row's exposure to the last row's (rolling shutter).
        flicker: exposures are multiples of half a mains period when light allows (0 off, else mains Hz).
    """

    focal_px_256: float = 285.0
    exposure_max_s: float = 1 / 30
    exposure_min_s: float = 1 / 8000
    gain_max: float = 16.0
    sensitivity: float = 1900.0
    full_well_e: float = 15400.0
    read_noise_e: float = 6.0
    row_noise_e: float = 1.0
    k1: float = 0.01
    vignetting: float = 0.25
    psf_px: float = 0.36
    denoise: float = 0.78
    sharpen: float = 0.31
    saturation: float = 1.02
    contrast: float = 0.58
    wb_error: float = 0.018
    wb_strength: float = 0.9
    ae_target: float = 0.46
    meter_error: float = 0.40
    ae_time_s: float = 0.35
    readout_s: float = 0.018
    flicker: float = 50.0


@dataclass(frozen=True)
class Exposure:
    """State of auto exposure and white balance.

    Args:
        exposure_s: seconds a row is exposed. gain: analogue. balance: (3,) channel gains.
        meter: factor by which this camera exposes this scene brighter than the target, for as long as it runs.
    """

    exposure_s: float
    gain: float
    balance: tuple[float, float, float]
    meter: float = 1.0


class SizedPinhole(Protocol):
    """What the sensor reads of a camera's intrinsics, in pixels."""

    width: int
    height: int
    cx: float
    cy: float


def start_exposure(
    linear: np.ndarray, profile: SensorProfile, rng: np.random.Generator, *, illuminance: float = 300.0
) -> Exposure:
    """Let auto exposure and white balance settle on a first frame.

    Args:
        linear: (H,W,3) float32, 1.0 = white diffuser under `illuminance`.
        rng: draws this clip's white-balance and metering error.
        illuminance: lux that a value of 1.0 stands for.

    Returns:
        Exposure.
    """
    error = np.exp(rng.normal(0.0, profile.wb_error, 3) * (1.0, 0.35, 1.0))
    meter = float(np.exp(rng.normal(0.0, profile.meter_error)))
    wanted = _metered(linear, profile, illuminance) * meter
    balance = _balance(linear, profile) * error
    return Exposure(*_split(wanted, profile), tuple(float(b) for b in balance / balance[1]), meter)


def adapt_exposure(
    state: Exposure, linear: np.ndarray, profile: SensorProfile, dt: float, *, illuminance: float = 300.0
) -> Exposure:
    """One step of auto exposure: the product of exposure and gain moves towards what the frame asks for.

    Args:
        state: as returned by `start_exposure` or this function.
        dt: seconds since the last step.

    Returns:
        Exposure with the same white balance.
    """
    current = state.exposure_s * state.gain
    wanted = _metered(linear, profile, illuminance) * state.meter
    share = 1.0 - np.exp(-dt / profile.ae_time_s)
    if abs(np.log(wanted / current)) < 0.12:  # phones hold still inside a dead band
        return state
    exposure_s, gain = _split(current * (wanted / current) ** share, profile)
    return replace(state, exposure_s=exposure_s, gain=gain)


def capture(
    linear: np.ndarray,
    profile: SensorProfile,
    state: Exposure,
    rng: np.random.Generator,
    *,
    illuminance: float = 300.0,
    blur_px: tuple[float, float] = (0.0, 0.0),
    row_shift: np.ndarray | None = None,
    margin: int = 0,
) -> np.ndarray:
    """Photograph a linear-light image.

    Order: lens distortion and rolling shutter (one resampling), lens and motion blur, vignetting, exposure, shot and
    read noise in electrons, white balance, colour, tone curve, sharpening, 8 bits. About 2 ms for 256 x 256.

    Args:
        linear: (H + 2·margin, W + 2·margin, 3) float32, 1.0 = white diffuser under `illuminance`.
        profile: the camera.
        state: exposure and white balance of this frame.
        rng: noise of this frame.
        illuminance: lux that 1.0 stands for; sets the number of electrons.
        blur_px: motion of the image during the exposure, pixels.
        row_shift: (H,2) px, where the content of each row has moved (dx, dy) against the middle row.
        margin: pixels that were rendered around the frame, so that shifts find content.

    Returns:
        (H,W,3) uint8 RGB.

    Raises:
        ValueError: row_shift does not fit the frame.
    """
    height, width = linear.shape[0] - 2 * margin, linear.shape[1] - 2 * margin
    if row_shift is not None and np.shape(row_shift) != (height, 2):
        raise ValueError(f"row_shift must have shape ({height}, 2), got {np.shape(row_shift)}.")
    image = _resample(linear, profile, row_shift, margin)
    image = _blur(image, profile, blur_px)
    electrons = profile.sensitivity * illuminance * state.exposure_s
    out = np.empty((height, width, 3), np.float32)
    scale = np.array(state.balance, np.float32) * np.float32(electrons * state.gain / profile.full_well_e)
    tile = _noise_tile(round(profile.denoise, 2))
    ox, oy = rng.integers(0, _TILE - max(width, 1) if width < _TILE else 1), rng.integers(0, _TILE)
    rows = rng.normal(0.0, profile.row_noise_e, height).astype(np.float32)
    flip = int(rng.integers(0, 4))
    _expose(
        image, _vignette(height, width, profile.vignetting), tile, int(ox), int(oy), flip, rows, np.float32(electrons),
        np.float32(profile.full_well_e / state.gain), np.float32(profile.read_noise_e), scale / electrons,
        _colour_matrix(profile.saturation, state.gain), _tone_curve(round(profile.contrast, 3)), out,
    )  # fmt: skip
    return _sharpened(out, profile.sharpen)


def exposure_time(profile: SensorProfile, state: Exposure) -> float:
    """Seconds a row is exposed; motion in pixels a second times this is `blur_px`."""
    return min(state.exposure_s, profile.exposure_max_s)


def row_times(profile: SensorProfile, height: int) -> np.ndarray:
    """Mid-exposure time of every row against the middle row's.

    Returns:
        (height,) float64 seconds, from −readout/2 to +readout/2.

    Example:
        >>> row_times(SensorProfile(readout_s=0.02), 3).tolist()
        [-0.01, 0.0, 0.01]
    """
    return np.linspace(-0.5, 0.5, height) * profile.readout_s


def distort_points(points: np.ndarray, profile: SensorProfile, width: int, height: int) -> np.ndarray:
    """Where ideal pinhole pixels land in the captured frame (inverse of the resampling in `capture`).

    Args:
        points: (...,2) pixels of the pinhole image, without margin.

    Returns:
        (...,2) float64 pixels.

    Example:
        >>> distort_points(np.array([127.5, 127.5]), SensorProfile(), 256, 256).tolist()
        [127.5, 127.5]
    """
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    ideal = (np.asarray(points, np.float64) - centre) / _half_diagonal(width, height)
    seen = ideal.copy()
    for _ in range(6):
        seen = ideal / (1.0 + profile.k1 * (seen * seen).sum(-1, keepdims=True))
    return seen * _half_diagonal(width, height) + centre


# ---- exposure and white balance ----------------------------------------------------------------------------------


def _metered(linear: np.ndarray, profile: SensorProfile, illuminance: float) -> float:
    """Exposure times gain (seconds) that puts the centre-weighted mean at the target."""
    small = cv2.resize(linear, (16, 16), interpolation=cv2.INTER_AREA)
    grey = np.minimum(small @ np.array([0.25, 0.6, 0.15], np.float32), 4.0)
    axis = np.exp(-0.5 * (np.linspace(-1, 1, 16) / 0.6) ** 2)
    weight = np.outer(axis, axis)
    mean = float((np.sqrt(np.maximum(grey, 1e-5)) * weight).sum() / weight.sum()) ** 2
    target = profile.ae_target**2.2
    light = profile.sensitivity * illuminance * max(mean, 1e-5) / profile.full_well_e
    limit = profile.exposure_max_s * profile.gain_max
    return float(np.clip(target / light, profile.exposure_min_s, limit))


def _split(product: float, profile: SensorProfile) -> tuple[float, float]:
    """Exposure first, gain after; whole half-periods of the mains where that costs no light."""
    exposure = float(np.clip(product, profile.exposure_min_s, profile.exposure_max_s))
    period = 0.5 / profile.flicker if profile.flicker else 0.0
    if period and exposure > period:
        exposure = np.floor(exposure / period + 1e-6) * period
    return exposure, float(np.clip(product / exposure, 1.0, profile.gain_max))


def _balance(linear: np.ndarray, profile: SensorProfile) -> np.ndarray:
    """Channel gains from a shades-of-grey estimate (Finlayson & Trezzi, 2004) of low power, applied in part.

    A high power follows what is brightest, which is the face itself, and would tint all that is neutral against it.

    Cameras render people a little towards magenta, as viewers prefer it; `_PREFERENCE` is that lean.
    """
    small = cv2.resize(linear, (32, 32), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    mean = np.power(np.mean(np.minimum(small, 2.0) ** 1.5, 0) + 1e-12, 1 / 1.5)
    gains = np.clip(mean[1] / mean, 0.45, 2.4) ** profile.wb_strength
    return gains * _PREFERENCE


# ---- optics ------------------------------------------------------------------------------------------------------


def _half_diagonal(width: int, height: int) -> float:
    return 0.5 * float(np.hypot(width - 1, height - 1))


@lru_cache(maxsize=32)
def _lens_map(height: int, width: int, margin: int, k1: float) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    stretch = 1.0 + k1 * (x * x + y * y) / _half_diagonal(width, height) ** 2
    map_x, map_y = x * stretch + (width - 1) / 2 + margin, y * stretch + (height - 1) / 2 + margin
    return map_x.astype(np.float32), map_y.astype(np.float32)


def _resample(linear: np.ndarray, profile: SensorProfile, row_shift: np.ndarray | None, margin: int) -> np.ndarray:
    """Lens distortion and rolling shutter in one bilinear resampling."""
    height, width = linear.shape[0] - 2 * margin, linear.shape[1] - 2 * margin
    if profile.k1 == 0 and row_shift is None:
        return np.ascontiguousarray(linear[margin : margin + height, margin : margin + width])
    map_x, map_y = _lens_map(height, width, margin, round(profile.k1, 5))
    if row_shift is not None:
        shift = np.asarray(row_shift, np.float32)
        map_x, map_y = map_x - shift[:, :1], map_y - shift[:, 1:]
    return cv2.remap(linear, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _blur(image: np.ndarray, profile: SensorProfile, blur_px: tuple[float, float]) -> np.ndarray:
    sigma = profile.psf_px * image.shape[1] / 256.0
    if sigma > 0.2:
        side = 3 if sigma < 0.75 else 5 if sigma < 1.2 else 2 * int(np.ceil(2.5 * sigma)) + 1
        image = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    if np.hypot(*blur_px) < 0.25:
        return image
    return cv2.filter2D(image, -1, motion_kernel(*blur_px), borderType=cv2.BORDER_REPLICATE)


def motion_kernel(dx: float, dy: float) -> np.ndarray:
    """Line of uniform motion as a convolution kernel, at most 41 px long.

    Args:
        dx, dy: displacement during the exposure, pixels.

    Returns:
        (k,k) float32 that sums to 1, k odd.

    Example:
        >>> motion_kernel(2.0, 0.0).round(2)[1].tolist()
        [0.25, 0.5, 0.25]
    """
    length = float(np.hypot(dx, dy))
    shrink = min(1.0, 41.0 / max(length, 1e-9))
    dx, dy = dx * shrink, dy * shrink
    radius = max(int(np.ceil(max(abs(dx), abs(dy)) / 2 - 1e-6)), 1)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float64)
    along = (np.arange(16 * radius) + 0.5) / (16 * radius) - 0.5
    x, y = along * dx + radius, along * dy + radius
    i, j = np.floor(x).astype(int), np.floor(y).astype(int)
    for jj, wy in ((j, 1 - (y - j)), (j + 1, y - j)):
        for ii, wx in ((i, 1 - (x - i)), (i + 1, x - i)):
            np.add.at(kernel, (np.minimum(jj, 2 * radius), np.minimum(ii, 2 * radius)), wx * wy)
    return (kernel / kernel.sum()).astype(np.float32)


@lru_cache(maxsize=32)
def _vignette(height: int, width: int, strength: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    radius2 = ((x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2) / _half_diagonal(width, height) ** 2
    return (1.0 - strength * radius2 * (0.75 + 0.25 * radius2)).astype(np.float32)


# ---- electrons and image signal processor ------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _noise_tile(denoise: float) -> np.ndarray:
    """(T,T,3) float32 noise of unit variance a raw pixel, as demosaicing and noise reduction leave it.

    White noise on a Bayer mosaic is interpolated bilinearly; noise reduction blurs its chroma more than its luma.
    """
    raw = np.random.Generator(np.random.PCG64(20300107)).standard_normal((_TILE, _TILE)).astype(np.float32)
    mask = np.zeros((_TILE, _TILE, 3), np.float32)
    mask[0::2, 0::2, 0] = mask[0::2, 1::2, 1] = mask[1::2, 0::2, 1] = mask[1::2, 1::2, 2] = 1
    soft = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
    green = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
    planes = [
        cv2.filter2D(raw * mask[..., c], -1, green if c == 1 else soft, borderType=cv2.BORDER_REFLECT) for c in range(3)
    ]
    noise = np.dstack(planes)
    luma = noise @ np.array([0.3, 0.59, 0.11], np.float32)
    chroma = noise - luma[..., None]
    luma_soft = cv2.GaussianBlur(luma, (0, 0), 0.9)
    luma = luma + denoise * (0.8 * luma_soft - luma) * 0.95
    chroma = cv2.GaussianBlur(chroma, (0, 0), 0.3 + 0.5 * denoise) * (2.3 - 0.6 * denoise)
    return np.ascontiguousarray(chroma + luma[..., None], dtype=np.float32)


@lru_cache(maxsize=64)
def _tone_curve(contrast: float) -> np.ndarray:
    """(4096,) float32: linear 0..1.6 to display 0..255; sRGB with a shoulder and an S-curve.

    Source: IEC 61966-2-1 (sRGB transfer function).
    """
    x = np.linspace(0.0, 1.6, _CURVE)
    knee = 0.62
    shoulder = np.where(x < knee, x, knee + (1 - knee) * (1 - np.exp(-(x - knee) / (1 - knee))))
    y = np.where(shoulder <= 0.0031308, 12.92 * shoulder, 1.055 * np.maximum(shoulder, 1e-9) ** (1 / 2.4) - 0.055)
    y = y / y.max()
    s_curve = y + contrast * 0.55 * y * (1 - y) * (2 * y - 1) * 1.6
    return (255.0 * np.clip(s_curve, 0, 1)).astype(np.float32)


def _colour_matrix(saturation: float, gain: float) -> np.ndarray:
    """Saturation about luma, reduced at high gain as phones do to hide chroma noise.

    Red and green filters overlap, and what their matrix cannot part stays mixed: reds are duller than blues.
    """
    s = np.float32(saturation * (1.0 - 0.12 * min(np.log2(max(gain, 1.0)) / 4.0, 1.0)))
    luma = np.array([0.2126, 0.7152, 0.0722], np.float32)
    mixed = np.eye(3, dtype=np.float32)
    mixed[:2, :2] += _OVERLAP * np.array([[-0.75, 0.75], [0.25, -0.25]], np.float32)
    return np.ascontiguousarray((s * np.eye(3, dtype=np.float32) + (1 - s) * luma[None, :]) @ mixed)


def _sharpened(image: np.ndarray, strength: float) -> np.ndarray:
    if strength > 0:
        soft = cv2.GaussianBlur(image, (5, 5), 1.1)
        image = cv2.addWeighted(image, 1.0 + strength, soft, -strength, 0.0)
    return cv2.convertScaleAbs(np.maximum(image, 0.0, out=image))


@nb.njit(**_JIT, _nrt=False)
def _expose(image, vignette, tile, ox, oy, flip, rows, electrons, well, read, scale, matrix, curve, out):
    """Electrons with noise, clipped at the well, balanced, mixed and tone-mapped, one pass over the pixels."""
    height, width = image.shape[:2]
    side, zero = tile.shape[0], np.float32(0.0)
    top = np.float32(curve.shape[0]) - np.float32(1.001)
    step = np.float32((curve.shape[0] - 1) / 1.6)
    read2 = read * read
    for y in range(height):
        ty = (oy + (height - 1 - y if flip & 1 else y)) % side
        row = rows[y]
        for x in range(width):
            tx = ox + (width - 1 - x if flip & 2 else x)
            tx = tx - side if tx >= side else tx
            light = electrons * vignette[y, x]
            e0, e1, e2 = max(image[y, x, 0], zero), max(image[y, x, 1], zero), max(image[y, x, 2], zero)
            e0, e1, e2 = e0 * light, e1 * light, e2 * light
            e0 = max(min(e0 + np.sqrt(e0 + read2) * tile[ty, tx, 0] + row, well) * scale[0], zero)
            e1 = max(min(e1 + np.sqrt(e1 + read2) * tile[ty, tx, 1] + row, well) * scale[1], zero)
            e2 = max(min(e2 + np.sqrt(e2 + read2) * tile[ty, tx, 2] + row, well) * scale[2], zero)
            for k in range(3):
                v = matrix[k, 0] * e0 + matrix[k, 1] * e1 + matrix[k, 2] * e2
                p = min(max(v * step, zero), top)
                i = np.uint32(p)
                out[y, x, k] = curve[i] + (p - np.float32(i)) * (curve[i + np.uint32(1)] - curve[i])
