"""What goes over the wire between page and kernel: one message in, plain data out.

Messages of `live.js` come in and are checked here; `live` passes what is sound to the session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from liveness_utils.clips import Imu, normalise_imu
from liveness_utils.errors import SessionError
from liveness_utils.inputs import QualityLimits

MAX_JPEG = 2_000_000
MAX_SIDE = 2048
MAX_SAMPLES = 600
__all__ = ["FrameMessage", "advice", "cue_bars", "decode_jpeg", "encode_jpeg", "overlap", "read_frame", "relative_box"]

PLATFORMS = ("w3c", "android", "ios_safari")

# Cue bars of the page: feature, words, value at the empty and at the full end of the bar.
BARS = (
    ("relief_share", "depth of the face", 0.5, 1.0),
    ("expression_speed", "expression", 0.0, 0.4),
    ("blink", "eyes closed", 0.0, 0.8),
    ("consistency_correlation", "phone fits video", 0.0, 1.0),
    ("parallax_slope", "turns with phone", 0.0, 1.0),
)


@dataclass(frozen=True)
class FrameMessage:
    """One frame as it arrived: number, picture (H, W, 3) uint8 RGB, t in s on the page's clock, and
    the samples since the frame before, (m, 7) or None for a device without sensors."""

    number: int
    image: np.ndarray
    t: float
    imu: np.ndarray | None


def read_frame(content: Mapping[str, Any], buffers: Sequence[Any]) -> FrameMessage:
    """Check and decode one frame message.

    Args:
        content: id, t (s), imu (rows of t, ax, ay, az in m/s², alpha, beta, gamma in °/s, as the
            browser gives them), platform and angle (of the screen, degrees). buffers: one JPEG.

    Raises:
        SessionError: anything about it is not as it must be.
    """
    t, number = content.get("t"), content.get("id")
    if not isinstance(number, int) or not isinstance(t, (int, float)) or not math.isfinite(t):
        raise SessionError("a frame came without its number or time; reload the page.")
    if len(buffers) != 1 or not 0 < len(buffers[0]) <= MAX_JPEG:
        raise SessionError(f"a frame must be one JPEG of at most {MAX_JPEG / 1e6:.0f} MB.")
    return FrameMessage(number, decode_jpeg(buffers[0]), float(t), read_imu(content))


def decode_jpeg(data: Any) -> np.ndarray:
    """Decode a JPEG into (H, W, 3) uint8 RGB.

    Raises:
        SessionError: it is damaged or larger than `MAX_SIDE`.
    """
    raw = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB) if raw[:2].tolist() == [0xFF, 0xD8] else None
    if image is None or max(image.shape[:2]) > MAX_SIDE:
        raise SessionError("a frame could not be decoded; reload the page.")
    return image


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def read_imu(content: Mapping[str, Any]) -> np.ndarray | None:
    """Turn a browser's motion events into (m, 7) rows t, ax … gz in SI units and W3C axes.

    Raises:
        SessionError: rows of another shape, or a platform that nobody knows.
    """
    rows = content.get("imu")
    if not rows:
        return None
    try:
        values = np.array(rows, np.float64).reshape(len(rows), 7)
    except (TypeError, ValueError) as error:
        raise SessionError("motion samples must be rows of seven numbers; reload the page.") from error
    platform, angle = content.get("platform", "w3c"), content.get("angle", 0)
    if len(values) > MAX_SAMPLES or platform not in PLATFORMS or angle not in (0, 90, 180, 270):
        raise SessionError("motion samples of an unknown platform or too many at once; reload the page.")
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return None
    read = Imu(values[:, 0], values[:, 1:4], values[:, 4:7])
    imu = normalise_imu(read, platform=platform, screen_angle=int(angle), gyro_unit="deg/s")
    return np.column_stack([imu.t, imu.accel, imu.gyro])


def advice(quality: np.ndarray | None, limits: QualityLimits) -> list[str]:
    """Tell a person before the camera what to do, in a few words.

    Args:
        quality: (5,) one row of `inputs.frame_quality`, or None before the first frame.
        limits: of the bundle.

    >>> advice(np.array([1, 9.0, 5.0, 8.0, 1.0]), QualityLimits())
    ['come closer', 'too dark']
    """
    if quality is None:
        return []
    faces, eyes, luma, sharpness, change = quality
    if faces > 1:
        return ["two faces" if faces == 2 else "several faces"]
    if not faces or not math.isfinite(eyes):
        return ["too dark" if luma < limits.min_luma else "no face: look into the camera"]
    checks = (
        (eyes < limits.min_eyes_px, "come closer"),
        (luma < limits.min_luma, "too dark"),
        (luma > limits.max_luma, "too bright"),
        (sharpness < limits.min_sharpness, "blurred: hold still"),
        (change < 1e-3, "picture is frozen"),
    )
    return [words for failed, words in checks if failed]


def cue_bars(features: Mapping[str, float]) -> list[dict[str, Any]]:
    """Name, value and fill (0..1) of every bar; None where a cue was not measured or is silent."""
    lids = [features.get(n, math.nan) for n in ("blink_left", "blink_right")]
    known = dict(features) | {"blink": float(np.mean(lids))}
    bars = []
    for name, words, low, high in BARS:
        value = float(known.get(name, math.nan))
        seen = math.isfinite(value)
        fill = min(max((value - low) / (high - low), 0.0), 1.0) if seen else None
        bars.append({"name": name, "words": words, "value": value if seen else None, "fill": fill})
    return bars


def overlap(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """Share of two boxes' (x, y, w, h) union that both cover; 0 where one is none.

    >>> overlap(np.array([0, 0, 10, 10]), np.array([5, 0, 10, 10]))
    0.3333333333333333
    """
    if a is None or b is None:
        return 0.0
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.clip(sides, 0, None)))
    return shared / max(float(a[2] * a[3] + b[2] * b[3]) - shared, 1e-9)


def relative_box(box: np.ndarray | None, image: np.ndarray) -> list[float] | None:
    """Face box as shares of width and height (x, y, w, h), or None."""
    if box is None or not np.isfinite(box).all():
        return None
    height, width = image.shape[:2]
    return [float(v / s) for v, s in zip(box, (width, height, width, height), strict=True)]
