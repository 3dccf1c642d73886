"""The measurable differences between a face and a picture of one, as pure functions of arrays.

In come a `Clip` and its `Track` from `landmarks`; out go one row of cues a clip (classical baseline,
notebooks 02 to 04) and one row of causal features a stored frame (network, live session).
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from liveness_utils.clips import EXPRESSION_NAMES, Clip, Imu, Intrinsics
from liveness_utils.errors import LivenessError
from liveness_utils.landmarks import (
    RIGID_POINTS,
    FaceObservation,
    Track,
    assumed_intrinsics,
    blink_signal,
    canonical_face,
    detect_blinks,
    eye_aspect_ratio,
    head_pose_angles,
    interocular_distance,
    ray_rotation,
    track,
)

if TYPE_CHECKING:
    import pandas as pd

# --- which points -------------------------------------------------------------------------------

_LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398,
             359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414)  # fmt: skip
_RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173,
              130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190)  # fmt: skip
EYE_POINTS = frozenset(_LEFT_EYE + _RIGHT_EYE)

# Points below the nose move when we speak and would look like depth.
_SPEECH_LINE = -0.055  # metres below the eyes, in the canonical face


@functools.lru_cache(maxsize=2)
def geometry_points(eyes: bool = True) -> np.ndarray:
    """Return the landmarks that the flatness cues use: the mesh above the mouth.

    Args:
        eyes: whether lids and eye corners are among them. Leave them out where somebody's real
            eyes may look through holes in a print.

    Returns:
        (P,) int64 indices into the 478 points.
    """
    above = np.flatnonzero(canonical_face()[0][:, 1] > _SPEECH_LINE)
    return above if eyes else np.array([i for i in above if i not in EYE_POINTS])


# --- flat or not --------------------------------------------------------------------------------


def _normalised(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    centre = points.mean(0)
    scale = max(float(np.sqrt(((points - centre) ** 2).sum(1).mean())), 1e-9)
    return (points - centre) / scale, centre, scale


def homography_residual(a: np.ndarray, b: np.ndarray, unit: float = 1.0) -> float:
    """Return what no homography explains between two pictures of the same points.

    Every view of a flat thing maps onto every other by a homography, whatever moved; a head's
    points do not. The eight parameters are fitted by linear least squares on centred, scaled
    points; the residual is measured in the second picture.

    Args:
        a, b: (P, 2) pixels, P >= 5.
        unit: pixels that count as one, usually the inter-ocular distance.

    Returns:
        Root mean square residual in `unit`; about 0.004 for a photo and 0.035 for a head after
        14 degrees. NaN where a point is missing.

    Source: Hartley & Zisserman, Multiple View Geometry, 2nd ed., 4.1 and 13.1.

    >>> square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.2]])
    >>> homography_residual(square, 3 * square + 7) < 1e-9
    True
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    p, _, _ = _normalised(np.asarray(a, float)[:, :2])
    q, _, scale = _normalised(np.asarray(b, float)[:, :2])
    x, y = p.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows_u = np.stack([x, y, one, zero, zero, zero, -x * q[:, 0], -y * q[:, 0]], 1)
    rows_v = np.stack([zero, zero, zero, x, y, one, -x * q[:, 1], -y * q[:, 1]], 1)
    A, target = np.concatenate([rows_u, rows_v]), q.T.ravel()
    h = np.linalg.solve(A.T @ A + 1e-9 * np.eye(8), A.T @ target)
    w = 1.0 + p @ h[6:]
    mapped = np.stack([(p @ h[0:2] + h[2]) / w, (p @ h[3:5] + h[5]) / w], 1)
    return float(np.sqrt(((mapped - q) ** 2).sum(1).mean()) * scale / unit)


def _trajectory_values(points: np.ndarray) -> np.ndarray | None:
    """Singular values of the centred trajectory matrix, largest first; None with under 3 frames."""
    seen = points[np.isfinite(points).all(axis=(1, 2))]
    if len(seen) < 3:
        return None
    centred = (seen - seen.mean(1, keepdims=True)).transpose(0, 2, 1).reshape(-1, seen.shape[1])
    return np.sqrt(np.maximum(np.linalg.eigvalsh(centred @ centred.T)[::-1], 0.0))


def trajectory_gap(points: np.ndarray) -> float:
    """Return the third singular value of the centred trajectory matrix over the fourth.

    One rigid relief adds one dimension, noise and a landmarker's guesses add many: the third
    stands above the fourth only where there is relief.

    Args:
        points: (F, P, 2) pixels; frames with NaN are dropped.

    Returns:
        Ratio from 1: about 2 for a flat picture, 3 to 13 for a head that turned by 10 degrees and
        more. NaN with fewer than three frames.

    Source: Tomasi & Kanade 1992; the gap as in any test of numerical rank.
    """
    values = _trajectory_values(points)
    return math.nan if values is None else float(values[2] / max(values[3], 1e-9))


def trajectory_rank(points: np.ndarray) -> float:
    """Return the third singular value of the centred trajectory matrix over the first.

    Under weak perspective, F pictures of P rigid points stack to a 2F x P matrix of rank 3; points
    on a plane give rank 2, so the third singular value is left to noise.

    Args:
        points: (F, P, 2) pixels; frames with NaN are dropped.

    Returns:
        Ratio 0..1: about 0.04 for a head that turned by ±7 degrees, 0.006 for a photo. NaN with
        fewer than three frames.

    Source: Tomasi & Kanade, Shape and Motion from Image Streams under Orthography, IJCV 1992.
    """
    values = _trajectory_values(points)
    return math.nan if values is None else float(values[2] / max(values[0], 1e-9))


@functools.lru_cache(maxsize=2)
def _relief_points(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks without eyes (P,), and the canonical face's depth there (P,)."""
    chosen = geometry_points(eyes=False)[::step]
    return chosen, canonical_face()[0][chosen, 2]


def relief_energy(shape: np.ndarray, points: np.ndarray, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Split what no affine map explains into a face's relief and the rest.

    Under weak perspective a view of a rigid relief is an affine map of another view plus the
    relief itself, times one number in x and one in y (affine structure from motion). The relief
    is taken from the canonical face: heads differ less among each other than from a sheet.

    Args:
        shape: (478, 2 or 3) pixels, the view compared with (or the mean of all).
        points: (F, 478, 2 or 3) pixels.
        step: every so many landmarks are used.

    Returns:
        (F, 2) what the relief explains in x and y (pixels, over all points), (F,) squared length
        of all that the affine map leaves.

    Source: Koenderink & van Doorn, Affine structure from motion, J. Opt. Soc. Am. A 1991.
    """
    chosen, depth = _relief_points(step)
    flat = np.concatenate([shape[chosen, :2].astype(float), np.ones((len(chosen), 1))], 1)
    q = np.linalg.qr(flat)[0]
    left = np.asarray(points, float)[:, chosen, :2]
    left = left - np.einsum("pk,qk,fqd->fpd", q, q, left, optimize=True)
    relief = depth - q @ (q.T @ depth)
    relief = relief / max(float(np.linalg.norm(relief)), 1e-12)
    return np.einsum("p,fpd->fd", relief, left), (left**2).sum(axis=(1, 2))


def relief_share(points: np.ndarray) -> float:
    """Return how much of the face's non-flat motion is what a rigid face's relief would make.

    Free of scale: neither the size of the face nor of the turn matters, as long as the turn
    stands out of the landmarks' noise. Eye points are left out.

    Args:
        points: (F, 478, 2 or 3) pixels; frames with NaN are dropped.

    Returns:
        0..1; after a turn of 5 degrees and more about 0.95 in the median for a head and 0.6 for flat
        pictures (simulated), which rise to 0.9 when they are turned far. NaN with fewer than five frames.

    Source: see `relief_energy`.
    """
    seen = points[np.isfinite(points[:, 0, 0])]
    if len(seen) < 5:
        return math.nan
    along, left = relief_energy(seen.mean(0), seen)
    return float((along**2).sum() / max(float(left.sum()), 1e-9))


# The brows, about which points are no measure of a rigid shape.
_BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 336, 296, 334, 293, 300, 276, 283, 282, 295, 285)
_BROW_REACH = 0.006  # metres in the canonical face
SURFACE_MODES = ("x2", "xy", "y2", "x3", "x2y", "xy2", "y3", "x4", "x3y", "x2y2", "xy3", "y4", "face")


@functools.lru_cache(maxsize=1)
def _surface_basis() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks (P,), their place in a frontal face (P, 2) in IOD, orthonormal depth modes (P, 13)."""
    model = canonical_face()[0]
    still = geometry_points(eyes=False)
    brows = model[list(_BROWS), :2]
    apart = np.linalg.norm(model[still, None, :2] - brows, axis=-1).min(1)
    chosen = still[apart > _BROW_REACH]
    unit = float(interocular_distance(model))
    x, y = ((model[chosen, :2] - model[chosen, :2].mean(0)) / unit).T
    powers = [x ** (n - k) * y**k for n in range(5) for k in range(n + 1)]
    q, r = np.linalg.qr(np.stack([*powers, model[chosen, 2] / unit], 1))
    modes = (q * np.sign(np.diag(r)))[:, 3:]  # three of them are a plane, which no affine map leaves
    return chosen, np.stack([x, -y], 1), modes


def surface_motion(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split what no affine map explains into the motion that one depth mode or another makes.

    Where a surface z(x, y) turns, its points shift by z times the turn. A bent sheet has a depth
    that is quadratic across the bend; a head has one of higher order, and what remains of the
    canonical face beside all polynomials up to the fourth order (nose, cheeks) is the last mode.
    A landmarker that guesses a head into a picture gives each mode another share than a head does.
    Left out are points of eyes, brows and mouth: they move without a turn.

    Args:
        points: (F, 478, 2 or 3) pixels, no NaN.

    Returns:
        (F, 13, 2) motion along each of `SURFACE_MODES` in x (right) and y (down), (F, 2) squared
        length of all that is left; inter-ocular distances (squared), root mean square over the
        points. Both in the face's own axes, about the mean over time.

    Source: Koenderink & van Doorn, Affine structure from motion, J. Opt. Soc. Am. A 1991; the
    modes derived.
    """
    chosen, place, modes = _surface_basis()
    seen = np.asarray(points[:, chosen, :2], float)
    seen = seen - seen.mean(1, keepdims=True)
    across = np.swapaxes(seen, 1, 2)
    to_affine = np.linalg.inv(across @ seen + 1e-9 * np.eye(2)) @ across
    shape = place
    for _ in range(2):
        carried = seen @ (to_affine @ shape)
        shape = carried.mean(0)
    left = carried - shape
    root = math.sqrt(len(chosen))
    return np.einsum("pk,fpd->fkd", modes, left, optimize=True) / root, (left**2).mean(1)


def surface_cues(points: np.ndarray) -> dict[str, float]:
    """Measure which surface the motion of the face over a clip would be that of.

    Free of scale, as `relief_share`: only how the motion is divided among the modes.

    Args:
        points: (F, 478, 2 or 3) pixels; frames with NaN are dropped.

    Returns:
        For each of `SURFACE_MODES` and "rest" (none of them): surface_MODE_x and _y, natural log
        of its share of the non-affine motion. Empty with fewer than five frames.

    Source: `surface_motion`.
    """
    seen = points[np.isfinite(points[:, 0, 0])]
    if len(seen) < 5:
        return {}
    along, total = surface_motion(seen)
    energy, total = (along**2).mean(0), total.mean(0)
    parts = np.concatenate([energy, np.maximum(total - energy.sum(0), 0.0)[None]])
    # Floors of a thousandth of an IOD and less: at rest the logs stay finite.
    shares = np.log((parts + 1e-7) / (total.sum() + 1e-6))
    kinds = (*SURFACE_MODES, "rest")
    return {f"surface_{m}_{a}": float(shares[i, k]) for k, a in enumerate("xy") for i, m in enumerate(kinds)}


@functools.lru_cache(maxsize=1)
def _parallax_basis() -> tuple[np.ndarray, list[int], np.ndarray]:
    """Fit matrix (3, P) of an affine map from the canonical face, its P landmarks, its nose (2,)."""
    plane = [i for i in RIGID_POINTS if i not in (1, 4, 5, 195, 197, 6, 198, 420)]
    model = canonical_face()[0][:, :2] / interocular_distance(canonical_face()[0])
    design = np.concatenate([model[plane], np.ones((len(plane), 1))], 1)
    return np.linalg.pinv(design), plane, model[[1, 4]].mean(0)


def nose_parallax(points: np.ndarray) -> np.ndarray:
    """Return where the nose tip stands over the plane of the rest of the face.

    An affine map from the canonical face is fitted to eye corners, temples, forehead and cheeks;
    the nose tip is read in that frame. A flat picture is carried along by the map whatever it
    does, so the value stays; a real nose sways over the face as the viewing direction changes.

    Args:
        points: (..., 478, 2 or 3) pixels.

    Returns:
        (..., 2) in inter-ocular distances from its place in a frontal average face; x grows when
        the face turns to the image right, y when it looks up. About 0.7 a radian for a head.

    Source: plane-plus-parallax (Irani & Anandan, ECCV 1996), on landmarks.
    """
    pinv, plane, rest = _parallax_basis()
    affine = np.einsum("kp,...pd->...kd", pinv, np.asarray(points, float)[..., plane, :2])
    nose = np.mean(np.asarray(points, float)[..., [1, 4], :2], axis=-2) - affine[..., 2, :]
    frame = np.swapaxes(affine[..., :2, :], -1, -2)
    missing = ~np.isfinite(frame).all(axis=(-1, -2))
    frame = np.where(missing[..., None, None], np.eye(2), frame)
    place = np.linalg.solve(frame, nose[..., None])[..., 0]
    return np.where(missing[..., None], np.nan, place - rest)


# --- motion in the picture ----------------------------------------------------------------------


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fit b = scale * rotation(a - c) + c + shift about the centroid c of a, by least squares.

    Args:
        a, b: (P, 2) pixels.

    Returns:
        (4,) shift x, shift y (pixels), rotation (radians, clockwise in the image), log scale.
    """
    ca, cb = a.mean(0), b.mean(0)
    za, zb = (a - ca) @ [1, 1j], (b - cb) @ [1, 1j]
    ratio = (np.conj(za) @ zb) / max((np.abs(za) ** 2).sum(), 1e-9)
    shift = cb - ca
    return np.array([*shift, np.angle(ratio), math.log(max(abs(ratio), 1e-6))])


def _cauchy_weights(residual: np.ndarray) -> np.ndarray:
    scale = 2.0 * (np.median(residual) + 1e-6)
    return 1.0 / (1.0 + (residual / scale) ** 2)


def rotation_from_flow(
    a: np.ndarray, b: np.ndarray, intrinsics: Intrinsics, rounds: int = 4
) -> tuple[np.ndarray, float]:
    """Estimate the camera's small rotation between two frames from tracks of things far away.

    For a static point at normalised image place (x, y) a rotation of the camera by (rx, ry, rz)
    about its own axes moves it by

        dx = -ry (1 + x^2) + rx x y + rz y,    dy = rx (1 + y^2) - ry x y - rz x.

    Args:
        a, b: (P, 2) pixels before and after.
        intrinsics: of the frame.
        rounds: re-weightings (Cauchy), against people walking by and the presenter's shoulders.

    Returns:
        (3,) radians about the camera's x, y, z; and the weighted residual in pixels.

    Source: Longuet-Higgins & Prazdny, Proc. R. Soc. B 208, 1980, without the translational part.
    """
    focal = np.array([intrinsics.fx, intrinsics.fy])
    place = ((a + b) * 0.5 - [intrinsics.cx, intrinsics.cy]) / focal
    moved = (b - a) / focal
    x, y = place.T
    A = np.stack([np.stack([x * y, -1 - x * x, y], 1), np.stack([1 + y * y, -x * y, -x], 1)], 1)
    weights = np.ones(len(a))
    for _ in range(rounds):
        normal = np.einsum("p,pij,pik->jk", weights, A, A) + 1e-9 * np.eye(3)
        rotation = np.linalg.solve(normal, np.einsum("p,pij,pi->j", weights, A, moved))
        residual = np.linalg.norm((moved - A @ rotation) * focal, axis=1)
        weights = _cauchy_weights(residual)
    return rotation, float((weights * residual).sum() / weights.sum())


@dataclass(frozen=True)
class FrameMotion:
    """Motion between the frame before and this one, per second.

    Attributes:
        camera: (3,) rad/s, rotation of the camera about its own axes as the background shows it.
        background: (4,) shift x, y (frame heights/s), rotation (rad/s), log scale (1/s).
        face: (4,) the same for the face's rigid points.
        residual: background motion that no similarity explains, frame heights/s.
        tracks: background points followed.
    """

    camera: np.ndarray
    background: np.ndarray
    face: np.ndarray
    residual: float
    tracks: int

    @staticmethod
    def unknown() -> FrameMotion:
        """The motion of a first frame: NaN, no tracks."""
        return FrameMotion(np.full(3, np.nan), np.full(4, np.nan), np.full(4, np.nan), math.nan, 0)


def flow_grey(frame: np.ndarray, side: int = 256) -> tuple[np.ndarray, float]:
    """Return a grey copy whose shorter side is at most `side`, and its scale against the frame."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    scale = side / min(grey.shape)
    if scale >= 1.0:
        return grey, 1.0
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def background_mask(shape: tuple[int, int], box: np.ndarray | None) -> np.ndarray:
    """Return where background may be: not the face, its hair, nor the body below it.

    Args:
        shape: (H, W) of the mask.
        box: (4,) face box in the mask's pixels, or None for no face.

    Returns:
        (H, W) uint8, 255 for background.
    """
    mask = np.full(shape, 255, np.uint8)
    if box is not None and np.isfinite(box).all():
        x, y, w, h = box
        left, right = (int(max(0, v)) for v in (x - 0.2 * w, x + 1.2 * w))
        mask[int(max(0, y - 0.35 * h)) : int(max(0, y + 1.1 * h)), left:right] = 0
        left, right = (int(max(0, v)) for v in (x - 0.6 * w, x + 1.6 * w))
        mask[int(max(0, y + 1.0 * h)) :, left:right] = 0
    return mask


_LK = {"winSize": (15, 15), "maxLevel": 2}


class MotionMeter:
    """Follows corners of the background from frame to frame (pyramidal Lucas-Kanade).

    Args:
        intrinsics: of the frames; None takes MediaPipe's assumption (63° vertical).
        corners: points followed at most.
        refresh: frames after which corners are chosen anew.
    """

    def __init__(self, intrinsics: Intrinsics | None = None, corners: int = 60, refresh: int = 5) -> None:
        self.intrinsics, self.corners, self.refresh = intrinsics, corners, refresh
        self._grey: np.ndarray | None = None
        self._points = np.zeros((0, 2), np.float32)
        self._face: np.ndarray | None = None
        self._t = -math.inf
        self._age = 0

    def push(self, frame: np.ndarray, t: float, points: np.ndarray | None) -> FrameMotion:
        """Measure the motion since the frame before.

        Args:
            frame: (H, W, 3) uint8.
            t: seconds.
            points: (478, 3) pixels, or None without a face.
        """
        grey, scale = flow_grey(frame)
        face = None if points is None else points[list(RIGID_POINTS), :2].astype(float)
        motion = FrameMotion.unknown()
        if self._grey is not None and t > self._t:
            a, b = self._follow(grey, scale)
            motion = self._measure(a, b, face, frame.shape, t - self._t)
        self._remember(grey, scale, points)
        self._t, self._face = t, face
        return motion

    def _follow(self, grey: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        if len(self._points) == 0 or grey.shape != self._grey.shape:
            self._points = np.zeros((0, 2), np.float32)
            return self._points, self._points
        moved, status, error = cv2.calcOpticalFlowPyrLK(self._grey, grey, self._points[:, None], None, **_LK)
        moved = moved[:, 0]
        inside = ((moved >= 0) & (moved < np.array(grey.shape)[::-1])).all(1)
        good = (status[:, 0] == 1) & inside & (error[:, 0] < 20)
        before, self._points = self._points[good], moved[good]
        return (before + 0.5) / scale - 0.5, (self._points + 0.5) / scale - 0.5

    def _measure(self, a: np.ndarray, b: np.ndarray, face: np.ndarray | None, shape: tuple, dt: float) -> FrameMotion:
        height, width = shape[:2]
        unit = np.array([height, height, 1.0, 1.0])
        motion = FrameMotion.unknown()
        own = motion.face
        if face is not None and self._face is not None:
            own = similarity(self._face, face) / unit / dt
        if len(a) < 8:
            return FrameMotion(motion.camera, motion.background, own, math.nan, len(a))
        camera = self.intrinsics or assumed_intrinsics(width, height)
        rotation, _ = rotation_from_flow(a.astype(float), b.astype(float), camera)
        shift, residual = robust_similarity(a.astype(float), b.astype(float))
        return FrameMotion(rotation / dt, shift / unit / dt, own, residual / height / dt, len(a))

    def _remember(self, grey: np.ndarray, scale: float, points: np.ndarray | None) -> None:
        self._age += 1
        if self._grey is None or self._age >= self.refresh or len(self._points) < self.corners // 3:
            self._age = 0
            box = None
            if points is not None:
                low, high = points[:, :2].min(0) * scale, points[:, :2].max(0) * scale
                box = np.concatenate([low, high - low])
            mask = background_mask(grey.shape, box)
            found = cv2.goodFeaturesToTrack(grey, self.corners, 0.01, 6, mask=mask)
            self._points = np.zeros((0, 2), np.float32) if found is None else found[:, 0]
        self._grey = grey


def robust_similarity(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit `similarity` to the half of the tracks that agree best; return it and the rms of all.

    Args:
        a, b: (P, 2) pixels.

    Returns:
        (4,) as `similarity` about the centroid of all points, and pixels.
    """
    keep = np.ones(len(a), bool)
    for _ in range(3):
        fit = similarity(a[keep], b[keep])
        centre = a[keep].mean(0)
        residual = np.linalg.norm(_moved(a, centre, fit) - b, axis=1)
        keep = residual <= np.median(residual) * 1.5 + 1e-6
    at_centroid = _moved(a.mean(0)[None], centre, fit)[0] - a.mean(0)
    rms = float(np.sqrt((np.minimum(residual, 20.0) ** 2).mean()))
    return np.array([*at_centroid, fit[2], fit[3]]), rms


def _moved(points: np.ndarray, centre: np.ndarray, fit: np.ndarray) -> np.ndarray:
    c, s = math.exp(fit[3]) * math.cos(fit[2]), math.exp(fit[3]) * math.sin(fit[2])
    return (points - centre) @ np.array([[c, s], [-s, c]]) + centre + fit[:2]


@dataclass(frozen=True)
class Motion:
    """`FrameMotion` of every stored frame, stacked: camera (N, 3), background and face (N, 4) …"""

    t: np.ndarray
    camera: np.ndarray
    background: np.ndarray
    face: np.ndarray
    residual: np.ndarray
    tracks: np.ndarray


def stack_motion(t: np.ndarray, rows: Sequence[FrameMotion]) -> Motion:
    """Stack the motion of successive frames."""
    names = ("camera", "background", "face", "residual", "tracks")
    return Motion(np.asarray(t, float), *(np.array([getattr(r, n) for r in rows]) for n in names))


def measure_motion(clip: Clip, found: Track) -> Motion:
    """Measure background and face motion between all stored frames of a clip."""
    meter = MotionMeter(clip.intrinsics)
    rows = [meter.push(f, t, face) for f, t, face in zip(clip.frames, clip.t, _faces(found), strict=True)]
    return stack_motion(clip.t, rows)


def _faces(found: Track) -> list[np.ndarray | None]:
    return [p if ok else None for p, ok in zip(found.points, found.found, strict=True)]


# --- the phone's own motion ---------------------------------------------------------------------

_DEVICE_TO_CAMERA = {"front": np.array([-1.0, -1.0, 1.0]), "rear": np.array([1.0, -1.0, -1.0])}


def gyro_in_camera_axes(gyro: np.ndarray, facing: str = "front") -> np.ndarray:
    """Turn angular rates from device axes (W3C, portrait) into camera axes (OpenCV).

    Args:
        gyro: (..., 3) rad/s.
        facing: "front" or "rear".

    Returns:
        (..., 3) rad/s.

    Raises:
        LivenessError: another `facing`.

    >>> gyro_in_camera_axes(np.array([0.1, 0.2, 0.3])).tolist()
    [-0.1, -0.2, 0.3]
    """
    if facing not in _DEVICE_TO_CAMERA:
        raise LivenessError(f'Unknown camera facing {facing!r}: "front" or "rear".')
    return np.asarray(gyro, float) * _DEVICE_TO_CAMERA[facing]


class GyroRecord:
    """Angle integrated from a gyroscope that grows sample by sample, asked only about the past.

    Args:
        facing: camera that films, to answer in its axes.
        longest_gap: seconds without a sample after which nothing is known.
        kept: newest samples kept, for a live stream without end; 0 keeps all.
    """

    def __init__(self, facing: str = "front", longest_gap: float = 0.1, kept: int = 0) -> None:
        self.facing, self.longest_gap, self.kept = facing, longest_gap, kept
        self._t = np.zeros(0)
        self._rate = np.zeros((0, 3))
        self._angle = np.zeros((0, 3))

    def push(self, t: np.ndarray, gyro: np.ndarray) -> None:
        """Append samples.

        Args:
            t: (m,) seconds, increasing; samples not later than the last one are dropped.
            gyro: (m, 3) rad/s, device axes.
        """
        last = self._t[-1] if len(self._t) else -math.inf
        later = np.asarray(t, float) > last
        rate = gyro_in_camera_axes(np.asarray(gyro)[later], self.facing)
        self._t = np.concatenate([self._t, np.asarray(t, float)[later]])[-self.kept :]
        self._rate = np.concatenate([self._rate, rate])[-self.kept :]
        step = 0.5 * (self._rate[1:] + self._rate[:-1]) * np.diff(self._t)[:, None]
        self._angle = np.concatenate([np.zeros((1, 3)), np.cumsum(step, 0)])

    def angle(self, t: np.ndarray, now: float) -> np.ndarray:
        """Return the angle about each camera axis at times `t`, from samples up to `now`.

        Between samples it is interpolated; past the last one it goes on at the last rate.

        Returns:
            (..., 3) radians, from an arbitrary zero; NaN outside the record and in its gaps.
        """
        t = np.asarray(t, float)
        n = int(np.searchsorted(self._t, now, side="right"))
        if n < 2:
            return np.full((*t.shape, 3), np.nan)
        times, angles = self._t[:n], self._angle[:n]
        ahead = np.maximum(t - times[-1], 0.0)
        value = np.stack([np.interp(t, times, a) for a in angles.T], -1)
        value = value + ahead[..., None] * self._rate[n - 1]
        right = np.clip(np.searchsorted(times, t), 1, n - 1)
        gap = np.where(t > times[-1], ahead, times[right] - times[right - 1])
        bad = (t < times[0]) | (gap > self.longest_gap)
        return np.where(bad[..., None], np.nan, value)


def gyro_record(imu: Imu | None, facing: str) -> GyroRecord:
    """Return the whole record of a clip's gyroscope; empty without one."""
    record = GyroRecord(facing)
    if imu is not None and imu.gyro is not None and len(imu.t) > 1:
        record.push(imu.t, imu.gyro)
    return record


def _per_second(change: np.ndarray, dt: np.ndarray | float) -> np.ndarray:
    """Change over time; NaN where no time passed, which numpy would also say aloud."""
    change, dt = np.broadcast_arrays(change, np.asarray(dt, float))
    return np.divide(change, dt, out=np.full(dt.shape, np.nan), where=dt != 0)


def _median(values: Sequence[float] | np.ndarray) -> float:
    """Median of what was measured; NaN if nothing was, which `np.nanmedian` would also say aloud."""
    values = np.asarray(values)
    seen = values[~np.isnan(values)]
    return float(np.median(seen)) if len(seen) else math.nan


def frame_rates(record: GyroRecord, t: np.ndarray, lag: float = 0.0) -> np.ndarray:
    """Return the mean angular rate between successive frames.

    Args:
        record: the gyroscope.
        t: (N,) frame times, seconds.
        lag: seconds added to the frame times (t_imu = t_video + offset).

    Returns:
        (N, 3) rad/s, camera axes; NaN in row 0 and outside the record.
    """
    angle = record.angle(np.asarray(t, float) + lag, math.inf)
    rates = np.full((len(t), 3), np.nan)
    rates[1:] = _per_second(np.diff(angle, axis=0), np.diff(t)[:, None])
    return rates


# --- consistency --------------------------------------------------------------------------------

# Rotation below this is noise of the picture (a tenth of a pixel at 30 Hz), rad/s.
RATE_FLOOR = 0.01


@dataclass(frozen=True)
class Consistency:
    """Rotation seen in the video against rotation felt by the gyroscope.

    Attributes:
        correlation: at the best lag, -1..1; near 0 also when nothing moved.
        gain: video = gain x gyroscope, 1 for a genuine clip with known intrinsics.
        lag: seconds; the camera–IMU offset, t_imu = t_video + lag.
        residual: rms difference in rad/s at that lag.
        video_rms, gyro_rms: rad/s, means removed.
        correlation_at_zero: the same at lag 0.
    """

    correlation: float
    gain: float
    lag: float
    residual: float
    video_rms: float
    gyro_rms: float
    correlation_at_zero: float


def _matched(video: np.ndarray, gyro: np.ndarray) -> tuple[float, float, float, float, float]:
    """Correlation, gain, rms difference and both rms of two (N, 3) rates, means removed."""
    good = np.isfinite(video).all(1) & np.isfinite(gyro).all(1)
    if good.sum() < 8:
        return (math.nan,) * 5
    v, g = video[good] - video[good].mean(0), gyro[good] - gyro[good].mean(0)
    vv, gg, vg = ((p * q).sum(1).mean() for p, q in ((v, v), (g, g), (v, g)))
    floor = RATE_FLOOR**2
    correlation = vg / math.sqrt((vv + floor) * (gg + floor))
    difference = ((v - g) ** 2).sum(1).mean()
    return tuple(float(x) for x in (correlation, vg / (gg + floor), *np.sqrt([difference, vv, gg])))


def imu_consistency(
    video: np.ndarray, record: GyroRecord, t: np.ndarray, max_lag: float = 0.15, step: float = 0.005
) -> Consistency:
    """Compare the camera's rotation in the video with the gyroscope's, at the best lag.

    Args:
        video: (N, 3) rad/s of the camera between frames, row 0 NaN (`Motion.camera`).
        record: gyroscope of the clip.
        t: (N,) seconds.
        max_lag, step: seconds, the lags tried; the best is refined by a parabola.

    Returns:
        `Consistency`; NaN without IMU or without background.

    Source: cross-correlation of visual and inertial rates, e.g. Mair et al., Spatio-temporal
    initialization for IMU to camera registration, ROBIO 2011.
    """
    lags = np.arange(-round(max_lag / step), round(max_lag / step) + 1) * step
    rows = [_matched(video, frame_rates(record, t, lag)) for lag in lags]
    scores = np.array([row[0] for row in rows])
    if not np.isfinite(scores).any():
        return Consistency(*(math.nan,) * 7)
    k = int(np.nanargmax(scores))
    at_zero = float(scores[len(lags) // 2])
    correlation, gain, residual, video_rms, gyro_rms = rows[k]
    lag = lags[k] + step * _parabola(scores, k)
    return Consistency(correlation, gain, float(lag), residual, video_rms, gyro_rms, at_zero)


def _parabola(values: np.ndarray, k: int) -> float:
    """Offset of the peak of a parabola through values[k-1..k+1], in samples, -0.5..0.5."""
    if k == 0 or k == len(values) - 1 or not np.isfinite(values[k - 1 : k + 2]).all():
        return 0.0
    a, b, c = values[k - 1 : k + 2]
    curvature = a - 2 * b + c
    return float(np.clip(0.5 * (a - c) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def find_axes(video: np.ndarray, gyro: np.ndarray) -> tuple[np.ndarray, float]:
    """Find how a gyroscope of unknown mounting lies against the camera.

    All 24 right-handed signed permutations of the axes are tried; the one with the highest
    pooled correlation wins. (A left-handed one would be a mirrored picture.)

    Args:
        video: (N, 3) rad/s in camera axes.
        gyro: (N, 3) rad/s in the sensor's axes, at the same intervals.

    Returns:
        (3, 3) R with rate_camera = R @ rate_sensor, and its correlation.
    """
    from itertools import permutations, product

    best = (np.eye(3), -math.inf)
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        R = np.diag(signs) @ np.eye(3)[list(order)]
        score = _matched(video, gyro @ R.T)[0] if np.linalg.det(R) > 0 else -math.inf
        if score > best[1]:
            best = (R, score)
    return best


# --- coherent parallax --------------------------------------------------------------------------


@dataclass(frozen=True)
class Orbit:
    """The geometry that coherent parallax compares, one row a frame, small angles in radians.

    Axes are those of the view ray at the first frame (x right, y down); NaN where unknown.

    Attributes:
        phone: (N, 2) rotation of this phone about x and y, from its gyroscope alone.
        ray: (N, 2) rotation of the ray from phone to face in the room: gyroscope plus the face's
            place in the picture. An orbit turns it, turning the phone in place does not.
        aspect: (N, 2) rotation of the ray as the face's visible side tells it (head pose).
        nose: (N, 2) `nose_parallax`, in the same sense of rotation, inter-ocular distances.
    """

    phone: np.ndarray
    ray: np.ndarray
    aspect: np.ndarray
    nose: np.ndarray


def _exp(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of a rotation vector (Rodrigues)."""
    angle = float(np.sqrt(vector @ vector))
    x, y, z = vector
    K = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    a = 1.0 if angle < 1e-8 else math.sin(angle) / angle
    b = 0.5 if angle < 1e-8 else (1 - math.cos(angle)) / angle**2
    return np.eye(3) + a * K + b * (K @ K)


def _log(R: np.ndarray) -> np.ndarray:
    """Rotation vector of a rotation matrix (angles well below pi)."""
    vector = 0.5 * np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    sine = float(np.sqrt(vector @ vector))
    cosine = 0.5 * (np.trace(R) - 1.0)
    return vector if sine < 1e-9 else vector * (math.atan2(sine, cosine) / sine)


class OrbitMeter:
    """Builds `Orbit` rows frame by frame; everything is relative to the first frame with a face.

    Args:
        intrinsics: of the frames; None takes MediaPipe's assumption.
    """

    def __init__(self, intrinsics: Intrinsics | None = None) -> None:
        self.intrinsics = intrinsics
        self._phone = np.eye(3)
        self._start: tuple[np.ndarray, np.ndarray] | None = None

    def push(self, turn: np.ndarray, pose: np.ndarray | None, points: np.ndarray | None) -> np.ndarray:
        """Return phone, ray, aspect and nose of this frame, (4, 2); NaN where unknown.

        Args:
            turn: (3,) radians the phone turned since the frame before, camera axes; NaN for none.
            pose: (4, 4) T_camera_head, or None without a face.
            points: (478, 3) pixels, or None.
        """
        row = np.full((4, 2), np.nan)
        felt = bool(np.isfinite(turn).all())
        if felt:
            self._phone = self._phone @ _exp(turn)
        if pose is None or points is None:
            return row
        ray = ray_rotation(pose[:3, 3])
        aspect = ray.T @ pose[:3, :3]
        if self._start is None:
            self._start = (self._phone @ ray, aspect)
            felt = True
        start_ray, start_aspect = self._start
        row[2] = -_log(aspect @ start_aspect.T)[:2]
        # A ray that turns about x (down) or y (right) shows the face looking up or to the right.
        row[3] = nose_parallax(points)[::-1]
        if felt:
            row[0] = _log(self._phone)[:2]
            row[1] = _log(start_ray.T @ self._phone @ ray)[:2]
        return row


def orbit(clip: Clip, found: Track) -> Orbit:
    """Measure phone, ray, aspect and nose over all stored frames of a clip."""
    meter, record = OrbitMeter(clip.intrinsics), gyro_record(clip.imu, clip.camera_facing)
    turns = frame_rates(record, clip.t) * np.gradient(clip.t)[:, None]
    turns[1:] = frame_rates(record, clip.t)[1:] * np.diff(clip.t)[:, None]
    if np.isfinite(turns[1:]).any():
        turns[0] = 0.0
    rows = []
    for turn, pose, face in zip(turns, found.T_camera_head.astype(float), _faces(found), strict=True):
        rows.append(meter.push(turn, None if face is None else pose, face))
    return Orbit(*np.array(rows).transpose(1, 0, 2))


@dataclass(frozen=True)
class Parallax:
    """Coherent parallax of a clip.

    Attributes:
        slope: head-pose change that goes with this phone's motion, per radian of orbit: 1 for a
            head that stays, 1 - gain for one that follows the phone, 0 for a picture or a replay.
        nose_slope: the same for `nose_parallax`, inter-ocular distances per radian (head: 0.7).
        information: degrees (rms) of orbit that the phone's own rotation made. Below
            `SILENT_ORBIT` both slopes are NaN: nothing was moved that could tell.
    """

    slope: float
    nose_slope: float
    information: float


SILENT_ORBIT = math.radians(1.5)


def coherent_parallax(path: Orbit, silent: float = SILENT_ORBIT) -> Parallax:
    """Regress what the face shows on the orbit, keeping only what this phone's gyroscope made.

    A replayed head turns too, and so passes every test of parallax; but another camera's motion
    turned it. With the phone's rotation z as the instrument, x the orbit of the view ray and y
    the aspect of the face, the slope is cov(z, y) / cov(z, x): what the head (or the replay) does
    on its own is not correlated with z and drops out, and so does the face's walk through the
    picture while the phone rests. Turning the phone in place leaves x alone: no information.

    Args:
        path: see `orbit`.
        silent: radians of information below which the answer is NaN.

    Returns:
        `Parallax`.

    Source: Li et al., FaceLive, CCS 2015, doi 10.1145/2810103.2813612 (head pose against inertial
    sensors); instrumental-variable estimate as in Wright 1928.
    """
    stacked = np.stack([path.phone, path.ray, path.aspect, path.nose])
    good = np.isfinite(stacked).all(axis=(0, 2))
    if good.sum() < 8:
        return Parallax(math.nan, math.nan, math.nan)
    z, x, y, r = (v[good] - v[good].mean(0) for v in stacked)
    zz, zx, zy, zr = ((z * v).sum() / good.sum() for v in (z, x, y, r))
    information = max(zx, 0.0) / math.sqrt(zz + 1e-12)
    if information < silent:
        return Parallax(math.nan, math.nan, math.degrees(information))
    return Parallax(float(zy / zx), float(zr / zx), math.degrees(information))


# --- expression ---------------------------------------------------------------------------------


def _shape(blendshapes: np.ndarray, *names: str) -> np.ndarray:
    return blendshapes[..., [EXPRESSION_NAMES.index(name) for name in names]].mean(-1)


def expression_liveliness(blendshapes: np.ndarray, t: np.ndarray) -> float:
    """Return how fast the expression changes: mean absolute rate over all blendshapes, 1/s.

    Args:
        blendshapes: (N, 52).
        t: (N,) seconds.

    Returns:
        0 for a rigid thing (its jitter: some 0.05), 0.1 to 0.5 for a face; NaN without a face.
    """
    rates = _per_second(np.abs(np.diff(blendshapes, axis=0)).mean(1), np.diff(t))
    return float(np.nanmean(rates)) if np.isfinite(rates).any() else math.nan


def spread(signal: np.ndarray) -> float:
    """Return the range between the 5th and 95th percentile, NaN ignored."""
    seen = signal[np.isfinite(signal)]
    return float(np.quantile(seen, 0.95) - np.quantile(seen, 0.05)) if len(seen) > 2 else math.nan


def landmark_jitter(points: np.ndarray) -> float:
    """Return how much the face's points shiver against each other between frames.

    Args:
        points: (N, 478, 3) pixels.

    Returns:
        Median over frames of the rms residual of a similarity from frame to frame, in
        inter-ocular distances; about 0.003.
    """
    faces = points[np.isfinite(points[:, 0, 0])][:, list(RIGID_POINTS), :2].astype(float)
    if len(faces) < 3:
        return math.nan
    unit = np.nanmedian(interocular_distance(points))
    residuals = []
    for a, b in zip(faces, faces[1:], strict=False):
        moved = _moved(a, a.mean(0), similarity(a, b))
        residuals.append(np.sqrt(((moved - b) ** 2).sum(1).mean()))
    return float(np.median(residuals) / unit)


# --- pixels -------------------------------------------------------------------------------------


def face_patch(frame: np.ndarray, box: np.ndarray, inner: float = 0.9) -> np.ndarray:
    """Return the middle of the face box in the frame's own pixels, (h, w, 3) uint8; may be empty."""
    x, y, w, h = box
    x0, x1 = x + 0.5 * w * (1 - inner), x + 0.5 * w * (1 + inner)
    y0, y1 = y + 0.5 * h * (1 - inner), y + 0.5 * h * (1 + inner)
    left, right = (int(np.clip(v, 0, frame.shape[1])) for v in (x0, x1))
    top, bottom = (int(np.clip(v, 0, frame.shape[0])) for v in (y0, y1))
    return frame[top:bottom, left:right]


def spectral_peak(grey: np.ndarray) -> float:
    """Return how far the strongest narrow peak stands out of the spectrum's own ring.

    A screen's pixel grid beating with the camera's, or a halftone, is periodic: a point in the
    spectrum. Skin and codec noise spread over rings.

    Args:
        grey: (H, W) uint8 patch of the face, unscaled.

    Returns:
        log10 of peak over ring median between 0.06 and 0.5 cycles a pixel; 0.6 to 1.0 for skin.

    Source: Patel et al., Live face video vs. spoof face video: use of moiré patterns, ICB 2015.
    """
    side = min(grey.shape)
    if side < 32:
        return math.nan
    patch = cv2.resize(grey, (128, 128), interpolation=cv2.INTER_AREA) if side > 256 else grey
    patch = patch.astype(np.float32) - cv2.GaussianBlur(patch, (0, 0), 4).astype(np.float32)
    window = np.outer(np.hanning(patch.shape[0]), np.hanning(patch.shape[1]))
    power = np.abs(np.fft.rfft2(patch * window))
    fy, fx = np.fft.fftfreq(patch.shape[0])[:, None], np.fft.rfftfreq(patch.shape[1])[None]
    radius = np.hypot(fy, fx)
    ring = np.digitize(radius, np.linspace(0.06, 0.5, 12))
    best = 0.0
    for k in range(1, 12):
        values = power[ring == k]
        if len(values) > 8:
            best = max(best, math.log10((values.max() + 1e-6) / (np.median(values) + 1e-6)))
    return best


def high_frequency_share(grey: np.ndarray) -> float:
    """Return the share of fine detail: variance above 0.25 cycles a pixel over that above 0.06.

    Args:
        grey: (H, W) uint8.

    Returns:
        0..1, about 0.1; less for a recaptured picture (two lenses, two samplings), more with moiré.
    """
    image = grey.astype(np.float32)
    fine = image - cv2.GaussianBlur(image, (0, 0), 0.8)
    coarse = image - cv2.GaussianBlur(image, (0, 0), 3.0)
    return float(fine.var() / max(coarse.var(), 1e-3))


def sharpness(grey: np.ndarray) -> float:
    """Return the root mean square of the Laplacian in grey levels (0 = blank)."""
    return float(np.sqrt((cv2.Laplacian(grey, cv2.CV_32F) ** 2).mean()))


def specular_share(rgb: np.ndarray) -> float:
    """Return the share of pixels that are bright and colourless: highlights, glare (0..1).

    Args:
        rgb: (H, W, 3) uint8.
    """
    high, low = rgb.max(2).astype(int), rgb.min(2).astype(int)
    bright = high > max(200, np.quantile(high, 0.5) * 1.4)
    return float((bright & (high - low < 0.2 * high)).mean())


def chroma_spread(rgb: np.ndarray) -> float:
    """Return the spread of chroma: sqrt of the determinant of the (a*, b*) covariance, CIELAB.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        CIELAB units squared; printer and screen gamuts shrink or stretch it.
    """
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 1:].reshape(-1, 2).astype(float)
    return float(np.sqrt(max(np.linalg.det(np.cov(lab.T)), 0.0)))


def black_level(rgb: np.ndarray) -> float:
    """Return the 2nd percentile of luma (0..255): a backlit or glossy picture has no deep black."""
    return float(np.quantile(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 0.02))


def row_banding(greys: np.ndarray) -> float:
    """Return how much brightness stripes roll over the rows from frame to frame.

    A refreshing screen under a rolling shutter shows bands that move; a room does not.

    Args:
        greys: (F, H, W) uint8 of successive frames.

    Returns:
        Median over frames of the rms, in grey levels, of the row means' change after removing
        shift and slope of the change.
    """
    rows = np.diff(greys.astype(np.float32).mean(2), axis=0)
    if len(rows) == 0:
        return math.nan
    y = np.linspace(-1, 1, rows.shape[1])
    basis = np.stack([np.ones_like(y), y], 1)
    left = rows - (rows @ np.linalg.pinv(basis).T) @ basis.T
    return float(np.median(np.sqrt((left**2).mean(1))))


def border_lines(grey: np.ndarray, box: np.ndarray) -> float:
    """Return the length of long straight edges outside the face: sheet or bezel (or a door).

    Args:
        grey: (H, W) uint8.
        box: (4,) face box in its pixels.

    Returns:
        Sum of lengths over the frame's shorter side.
    """
    edges = cv2.Canny(cv2.GaussianBlur(grey, (3, 3), 0), 40, 120)
    x, y, w, h = (int(v) for v in box)
    edges[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = 0
    side = min(grey.shape)
    lines = cv2.HoughLinesP(edges, 2, np.pi / 90, 40, minLineLength=0.3 * side, maxLineGap=4)
    if lines is None:
        return 0.0
    ends = np.asarray(lines, float).reshape(-1, 4)
    return float(np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]).sum() / side)


# --- one row a clip -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Cue:
    """One column of `extract_cues`: unit, usual range, what it means, where it comes from."""

    name: str
    unit: str
    range: str
    meaning: str
    source: str
    modality: str


_HZ = "Hartley & Zisserman 2004"
_TK = "Tomasi & Kanade 1992"
_LIP = "Longuet-Higgins & Prazdny 1980"
_BS = "MediaPipe blendshapes"
_LIVE = "Li et al., FaceLive, CCS 2015"

_PLAIN_CUES = (
    Cue("homography_residual", "IOD", "0.003–0.06", "face that no plane explains, 0.4–0.8 s apart, 90th percentile", _HZ, "landmarks"),
    Cue("homography_residual_no_eyes", "IOD", "0.003–0.06", "the same without lids and eye corners", _HZ, "landmarks"),
    Cue("widest_residual", "IOD", "0.003–0.15", "homography residual of the two frames whose poses differ most", _HZ, "landmarks"),
    Cue("widest_residual_no_eyes", "IOD", "0.003–0.15", "the same without lids and eye corners", _HZ, "landmarks"),
    Cue("trajectory_rank", "ratio", "0.003–0.1", "third over first singular value of the tracks; 0 for still and flat", _TK, "landmarks"),
    Cue("trajectory_rank_no_eyes", "ratio", "0.003–0.1", "the same without lids and eye corners", _TK, "landmarks"),
    Cue("trajectory_gap", "ratio", "1–13", "third over fourth singular value, without eyes: one relief, or noise", _TK, "landmarks"),
    Cue("relief_share", "1", "0–1", "share of the non-affine motion that a rigid face's relief explains, without eyes", "Koenderink & van Doorn 1991", "landmarks"),
    Cue("nose_range", "IOD", "0–0.5", "sway of the nose tip over the face's plane, 5th to 95th percentile", "Irani & Anandan 1996", "landmarks"),
    Cue("nose_per_turn", "IOD/rad", "0–1", "slope of that sway on the head's own yaw and pitch", "Irani & Anandan 1996", "landmarks"),
    Cue("pose_range", "rad", "0–1", "head rotation relative to the view ray, 5th to 95th percentile", "FaceGeometry", "landmarks"),
    Cue("blink_count", "1", "0–4", "blinks in the clip", "Soukupová & Čech 2016", "landmarks"),
    Cue("blink_depth", "1", "0–1", "deepest closure of the eyes (blendshape above open level)", _BS, "landmarks"),
    Cue("ear_range", "1", "0–0.3", "range of the eye aspect ratio", "Soukupová & Čech 2016", "landmarks"),
    Cue("jaw_range", "1", "0–0.7", "range of jawOpen", _BS, "landmarks"),
    Cue("gaze_range", "1", "0–1", "range of the sideways gaze blendshapes", _BS, "landmarks"),
    Cue("expression_liveliness", "1/s", "0.03–0.5", "mean absolute rate of all blendshapes", _BS, "landmarks"),
    Cue("landmark_jitter", "IOD", "0.001–0.01", "shiver of the points against each other", "derived", "landmarks"),
    Cue("interocular_px", "px", "15–120", "inter-ocular distance", "derived", "landmarks"),
    Cue("face_motion", "1/s", "0–0.5", "rms shift of the face, frame heights a second", "derived", "landmarks"),
    Cue("face_minus_background", "1/s", "0–0.5", "rms difference of face and background shift", "Anjos & Marcel, IJCB 2011", "landmarks"),
    Cue("face_background_correlation", "1", "−1–1", "correlation of face and background shift", "Anjos & Marcel, IJCB 2011", "landmarks"),
    Cue("camera_rate", "rad/s", "0–0.5", "rms rotation of the camera in the video", _LIP, "video"),
    Cue("background_residual", "1/s", "0–0.1", "background motion that no similarity explains: parallax, or two layers", "derived", "video"),
    Cue("background_tracks", "1", "0–60", "corners followed outside the face", "Lucas & Kanade 1981", "video"),
    Cue("spectral_peak", "log10", "0.5–1.5", "strongest periodic pattern on the face: moiré, halftone", "Patel et al., ICB 2015", "video"),
    Cue("high_frequency_share", "1", "0–0.5", "fine over coarse detail of the face", "derived", "video"),
    Cue("sharpness", "level", "1–30", "rms Laplacian of the face", "Pech-Pacheco et al., ICPR 2000", "video"),
    Cue("sharpness_ratio", "1", "0.1–10", "sharpness of the face over that of the frame", "derived", "video"),
    Cue("specular_share", "1", "0–0.2", "bright colourless pixels of the face", "Wen et al., TIFS 2015", "video"),
    Cue("specular_change", "1", "0–0.05", "standard deviation of that share over time", "derived", "video"),
    Cue("chroma_spread", "Lab²", "0–200", "spread of colours on the face", "Wen et al., TIFS 2015", "video"),
    Cue("black_level", "level", "0–100", "darkest 2 % of the face box", "Wen et al., TIFS 2015", "video"),
    Cue("row_banding", "level", "0–5", "stripes that roll over the rows", "derived", "video"),
    Cue("border_lines", "1", "0–20", "long straight edges around the face", "Komulainen et al., BTAS 2013", "video"),
    Cue("consistency_correlation", "1", "−0.3–1", "video rotation against gyroscope, at the best lag", "Mair et al., ROBIO 2011", "imu"),
    Cue("consistency_gain", "1", "0–1.3", "video over gyroscope", "Mair et al., ROBIO 2011", "imu"),
    Cue("consistency_lag", "s", "−0.15–0.15", "best lag: the camera–IMU offset", "Mair et al., ROBIO 2011", "imu"),
    Cue("consistency_residual", "rad/s", "0–0.5", "rms difference of the two rotations", "derived", "imu"),
    Cue("gyro_rate", "rad/s", "0–0.5", "rms rotation felt", "derived", "imu"),
    Cue("parallax_slope", "1", "−0.3–1.1", "head-pose change that goes with this phone's orbit", _LIVE, "imu"),
    Cue("parallax_nose_slope", "IOD/rad", "−0.2–1", "nose sway that goes with this phone's orbit", _LIVE, "imu"),
    Cue("parallax_information", "deg", "0–10", "rms orbit that the phone's own rotation made", "derived", "imu"),
)  # fmt: skip


def _surface_entries() -> tuple[Cue, ...]:
    kinds = {m: f"a surface z = {m}" for m in SURFACE_MODES}
    kinds |= {"face": "what the canonical face has beside these surfaces", "rest": "none of these"}
    means = "share of the non-affine motion along {} made by {}, without eyes and brows"
    return tuple(
        Cue(f"surface_{m}_{a}", "log", "−10–0", means.format(a, k), "Koenderink & van Doorn 1991", "landmarks")
        for a in "xy"
        for m, k in kinds.items()
    )


SURFACE_CUES = tuple(cue.name for cue in _surface_entries())
CUES = (*_PLAIN_CUES, *_surface_entries())
CUE_NAMES = tuple(cue.name for cue in CUES)


def cue_table() -> pd.DataFrame:
    """Return `CUES` as a table, one row a cue."""
    import pandas as pd

    return pd.DataFrame([vars(cue) for cue in CUES]).set_index("name")


def extract_cues(clip: Clip, found: Track | None = None, motion: Motion | None = None) -> pd.Series:
    """Measure every cue of one clip.

    Args:
        clip: the presentation.
        found: its track; None runs the landmarker.
        motion: its motion; None measures it.

    Returns:
        Series of float64 indexed by `CUE_NAMES`; NaN where the modality is missing, no face was
        seen, or the cue is silent.
    """
    import pandas as pd

    found = track(clip) if found is None else found
    motion = measure_motion(clip, found) if motion is None else motion
    values = {
        **geometry_cues(found),
        **expression_cues(found),
        **motion_cues(motion),
        **pixel_cues(clip, found),
        **imu_cues(clip, found, motion),
    }
    return pd.Series({name: float(values.get(name, math.nan)) for name in CUE_NAMES}, dtype=float)


def ray_relative_angles(found: Track) -> np.ndarray:
    """Return yaw and pitch of the head against its viewing ray, (N, 2) radians, NaN for no face."""
    angles = np.full((len(found.t), 2), np.nan)
    seen = found.found
    poses = found.T_camera_head[seen].astype(float)
    if len(poses):
        relative = np.swapaxes(ray_rotation(poses[:, :3, 3]), -1, -2) @ poses[:, :3, :3]
        angles[seen] = head_pose_angles(relative)[:, :2]
    return angles


def widest_pair(angles: np.ndarray) -> tuple[int, int] | None:
    """Return the two frames whose yaw and pitch differ most, or None with fewer than two faces."""
    seen = np.flatnonzero(np.isfinite(angles).all(1))
    if len(seen) < 2:
        return None
    smooth = angles[seen]
    distance = np.linalg.norm(smooth[:, None] - smooth[None], axis=-1)
    i, j = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(seen[i]), int(seen[j])


def geometry_cues(found: Track) -> dict[str, float]:
    """Flatness of the face; see `CUES`."""
    angles = ray_relative_angles(found)
    pair = widest_pair(angles)
    if pair is None:
        return {}
    unit = float(np.nanmedian(interocular_distance(found.points)))
    pairs = earlier_frames(found.t)
    nose = nose_parallax(found.points)
    values = {"pose_range": math.hypot(spread(angles[:, 0]), spread(angles[:, 1]))}
    for suffix, eyes in (("", True), ("_no_eyes", False)):
        xy = found.points[:, geometry_points(eyes), :2].astype(float)
        residuals = [homography_residual(xy[j], xy[k], unit) for k, j in enumerate(pairs) if j >= 0]
        if np.isfinite(residuals).any():
            values["homography_residual" + suffix] = float(np.nanquantile(residuals, 0.9))
        values["widest_residual" + suffix] = homography_residual(xy[pair[0]], xy[pair[1]], unit)
        values["trajectory_rank" + suffix] = trajectory_rank(xy)
    values["trajectory_gap"] = trajectory_gap(found.points[:, geometry_points(False), :2].astype(float))
    values["relief_share"] = relief_share(found.points)
    values["nose_range"] = math.hypot(spread(nose[:, 0]), spread(nose[:, 1]))
    values["nose_per_turn"] = _pooled_slope(angles, nose)
    return values | surface_cues(found.points)


def _pooled_slope(x: np.ndarray, y: np.ndarray) -> float:
    good = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    if good.sum() < 8:
        return math.nan
    x, y = x[good] - x[good].mean(0), y[good] - y[good].mean(0)
    # One degree of noise in the denominator: without a turn the slope goes to nought, not astray.
    return float((x * y).sum() / ((x * x).sum() + good.sum() * math.radians(1.0) ** 2))


def earlier_frames(t: np.ndarray, ago: float = 0.6, least: float = 0.4) -> np.ndarray:
    """Return for each frame the one nearest to `ago` seconds before, -1 where none is `least` old.

    >>> earlier_frames(np.arange(8) * 0.1).tolist()
    [-1, -1, -1, -1, 0, 0, 0, 1]
    """
    t = np.asarray(t, float)
    before = np.searchsorted(t, t - ago - 1e-9)
    lower = np.maximum(before - 1, 0)
    nearest = np.where(np.abs(t[lower] - t + ago) < np.abs(t[before] - t + ago), lower, before)
    return np.where(t - t[nearest] >= least - 1e-9, nearest, -1)


def expression_cues(found: Track) -> dict[str, float]:
    """Blinks, mouth, gaze; see `CUES`."""
    if found.found.sum() < 3:
        return {}
    shapes, lids = found.blendshapes, blink_signal(found.blendshapes)
    blinks = detect_blinks(lids, found.t)
    gaze = _shape(shapes, "eyeLookOutLeft", "eyeLookInRight") - _shape(shapes, "eyeLookInLeft", "eyeLookOutRight")
    width = np.nanmedian(interocular_distance(found.points))
    return {
        "blink_count": len(blinks),
        "blink_depth": float(np.nanmax(lids) - np.nanquantile(lids, 0.3)),
        "ear_range": spread(eye_aspect_ratio(found.points).mean(-1)),
        "jaw_range": spread(_shape(shapes, "jawOpen")),
        "gaze_range": spread(gaze),
        "expression_liveliness": expression_liveliness(shapes, found.t),
        "landmark_jitter": landmark_jitter(found.points),
        "interocular_px": float(width),
    }


def _rms(values: np.ndarray) -> float:
    seen = values[np.isfinite(values).all(1)] if values.ndim == 2 else values[np.isfinite(values)]
    return float(np.sqrt((seen**2).sum(-1).mean() if values.ndim == 2 else (seen**2).mean())) if len(seen) else math.nan


def motion_cues(motion: Motion) -> dict[str, float]:
    """Face against background, camera rotation; see `CUES`."""
    face, background = motion.face[:, :2], motion.background[:, :2]
    good = np.isfinite(face).all(1) & np.isfinite(background).all(1)
    values = {
        "face_motion": _rms(face),
        "camera_rate": _rms(motion.camera),
        "background_residual": _median(motion.residual),
        "background_tracks": float(np.median(motion.tracks[1:])) if len(motion.tracks) > 1 else math.nan,
    }
    if good.sum() >= 8:
        f, b = face[good] - face[good].mean(0), background[good] - background[good].mean(0)
        floor = 0.01**2 * good.sum()
        values["face_minus_background"] = _rms(face[good] - background[good])
        values["face_background_correlation"] = float(
            (f * b).sum() / math.sqrt(((f * f).sum() + floor) * ((b * b).sum() + floor))
        )
    return values


def pixel_cues(clip: Clip, found: Track, samples: int = 5) -> dict[str, float]:
    """Texture, colour, light and borders on a few frames; see `CUES`."""
    seen = np.flatnonzero(found.found)
    if len(seen) == 0:
        return {}
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, samples).round().astype(int))]
    rows = [row for k in chosen if (row := _frame_pixels(clip.frames[k], found.box[k]))]
    values = {k: _median([r[k] for r in rows]) for k in rows[0]} if rows else {}
    if rows:
        values["specular_change"] = float(np.std([r["specular_share"] for r in rows]))
    middle = slice(len(clip.frames) // 2 - 4, len(clip.frames) // 2 + 4)
    greys = np.array([flow_grey(f, 128)[0] for f in clip.frames[middle]])
    values["row_banding"] = row_banding(greys) if len(greys) > 1 else math.nan
    return values


def _frame_pixels(frame: np.ndarray, box: np.ndarray) -> dict[str, float]:
    patch = face_patch(frame, box)
    if min(patch.shape[:2]) < 16:
        return {}
    grey, whole = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    small, scale = flow_grey(frame)
    return {
        "spectral_peak": spectral_peak(grey),
        "high_frequency_share": high_frequency_share(grey),
        "sharpness": sharpness(grey),
        "sharpness_ratio": sharpness(grey) / max(sharpness(whole), 1e-3),
        "specular_share": specular_share(patch),
        "chroma_spread": chroma_spread(patch),
        "black_level": black_level(patch),
        "border_lines": border_lines(small, box * scale),
    }


def imu_cues(clip: Clip, found: Track, motion: Motion) -> dict[str, float]:
    """Consistency and coherent parallax; see `CUES`. Empty without a gyroscope."""
    if clip.imu is None or clip.imu.gyro is None:
        return {}
    record = gyro_record(clip.imu, clip.camera_facing)
    match = imu_consistency(motion.camera, record, clip.t)
    depth = coherent_parallax(orbit(clip, found))
    return {
        "consistency_correlation": match.correlation,
        "consistency_gain": match.gain,
        "consistency_lag": match.lag,
        "consistency_residual": match.residual,
        "gyro_rate": _rms(frame_rates(record, clip.t)),
        "parallax_slope": depth.slope,
        "parallax_nose_slope": depth.nose_slope,
        "parallax_information": depth.information,
    }


# --- one row a stored frame, from the past alone ------------------------------------------------

# name, scale (value / scale is of order one), modality.
_FEATURES = (
    ("pose_yaw", 0.3, "landmarks"), ("pose_pitch", 0.3, "landmarks"), ("pose_roll", 0.2, "landmarks"),
    ("pose_yaw_rate", 0.5, "landmarks"), ("pose_pitch_rate", 0.5, "landmarks"),
    ("pose_roll_rate", 0.5, "landmarks"),
    ("ear_left", 0.3, "landmarks"), ("ear_right", 0.3, "landmarks"), ("ear_drop", 0.5, "landmarks"),
    ("blink_left", 0.5, "landmarks"), ("blink_right", 0.5, "landmarks"),
    ("jaw_open", 0.3, "landmarks"), ("mouth_smile", 0.5, "landmarks"),
    ("mouth_pucker", 0.5, "landmarks"), ("mouth_roll", 0.3, "landmarks"),
    ("mouth_press", 0.3, "landmarks"), ("brow_up", 0.5, "landmarks"),
    ("brow_down", 0.5, "landmarks"), ("eye_squint", 0.5, "landmarks"),
    ("gaze_side", 0.5, "landmarks"), ("gaze_up", 0.5, "landmarks"),
    ("expression_speed", 0.3, "landmarks"),
    ("face_x", 0.2, "landmarks"), ("face_y", 0.2, "landmarks"), ("face_scale", 0.5, "landmarks"),
    ("nose_x", 0.2, "landmarks"), ("nose_y", 0.2, "landmarks"),
    ("planar_residual", 0.02, "landmarks"), ("planar_residual_no_eyes", 0.02, "landmarks"),
    ("turn_since", 0.15, "landmarks"),
    ("relief_share", 1.0, "landmarks"), ("relief_amplitude", 0.5, "landmarks"),
    ("face_dx", 0.2, "landmarks"), ("face_dy", 0.2, "landmarks"), ("face_spin", 0.5, "landmarks"),
    ("face_zoom", 0.3, "landmarks"),
    ("background_dx", 0.2, "video"), ("background_dy", 0.2, "video"),
    ("background_spin", 0.3, "video"), ("background_zoom", 0.2, "video"),
    ("background_residual", 0.05, "video"), ("background_tracks", 40.0, "video"),
    ("face_minus_background_x", 0.2, "landmarks"), ("face_minus_background_y", 0.2, "landmarks"),
    ("video_rate_x", 0.3, "video"), ("video_rate_y", 0.3, "video"), ("video_rate_z", 0.3, "video"),
    ("gyro_rate_x", 0.3, "imu"), ("gyro_rate_y", 0.3, "imu"), ("gyro_rate_z", 0.3, "imu"),
    ("rate_difference_x", 0.3, "imu"), ("rate_difference_y", 0.3, "imu"),
    ("rate_difference_z", 0.3, "imu"),
    ("consistency_correlation", 1.0, "imu"), ("consistency_gain", 1.0, "imu"),
    ("consistency_lag", 0.1, "imu"), ("consistency_residual", 0.3, "imu"),
    ("video_motion", 0.3, "imu"), ("gyro_motion", 0.3, "imu"),
    ("parallax_slope", 1.0, "imu"), ("parallax_nose_slope", 0.7, "imu"),
    ("parallax_information", 5.0, "imu"),
)  # fmt: skip
FRAME_FEATURES = tuple(name for name, _, _ in _FEATURES)
FEATURE_MODALITY = tuple(modality for _, _, modality in _FEATURES)
FEATURE_SCALE = np.array([scale for _, scale, _ in _FEATURES])
FEATURE_SCALE.setflags(write=False)
FEATURE_LIMIT = 6.0


@dataclass(frozen=True)
class FrameFeatures:
    """Causal features of every stored frame.

    Attributes:
        values: (N, G) float32, scaled to order one and clipped to ±6; NaN where not measured. A
            row without a face is NaN throughout; columns of modality "imu" are NaN without IMU.
        names: the G names (`FRAME_FEATURES`).
        valid: (N,) bool, frames with a face.
    """

    values: np.ndarray
    names: tuple[str, ...]
    valid: np.ndarray

    def filled(self) -> np.ndarray:
        """Return the values with 0 where not measured, for arithmetic that cannot carry NaN."""
        return np.nan_to_num(self.values, nan=0.0)


class _Decaying:
    """Means and covariances over the past with exponential forgetting."""

    def __init__(self, memory: float) -> None:
        self.memory, self.weight = memory, 0.0
        self._sum: np.ndarray | None = None
        self._products: np.ndarray | None = None

    def push(self, signals: np.ndarray, dt: float) -> None:
        """Add one instant: (S, A) signals over A axes, whose means are kept apart."""
        keep = math.exp(-dt / self.memory)
        products = np.einsum("ia,ja->ij", signals, signals)
        first = self._sum is None
        self._sum = signals if first else keep * self._sum + signals
        self._products = products if first else keep * self._products + products
        self.weight = keep * self.weight + 1.0

    def covariance(self) -> np.ndarray:
        """(S, S) covariance summed over the axes."""
        mean = self._sum / self.weight
        return self._products / self.weight - np.einsum("ia,ja->ij", mean, mean)


class RunningConsistency:
    """`imu_consistency` from the past alone, with forgetting.

    The lag of the two clocks is not known, so a bank of lags runs side by side; to stay causal
    for a gyroscope that lags behind, an interval enters when `max_lag` has passed since.

    Args:
        memory: seconds after which an interval counts for a third.
        max_lag, step: seconds.
    """

    def __init__(self, memory: float = 2.0, max_lag: float = 0.1, step: float = 0.02) -> None:
        self.lags = np.arange(-round(max_lag / step), round(max_lag / step) + 1) * step
        self.max_lag, self._memory = max_lag, memory
        self._sums = _Decaying(memory)
        self._waiting: deque[tuple[float, float, np.ndarray]] = deque()

    def push(self, t0: float, t1: float, video: np.ndarray, record: GyroRecord) -> np.ndarray:
        """Take in the interval (t0, t1] and return the state at t1.

        Args:
            t0, t1: frame times, seconds.
            video: (3,) rad/s in that interval, NaN where unknown.
            record: gyroscope, read up to t1 only.

        Returns:
            (6,) correlation, gain, lag (s), residual, video rms, gyro rms (rad/s); NaN until three
            intervals are in.
        """
        if np.isfinite(video).all():
            self._waiting.append((t0, t1, video))
        while self._waiting and self._waiting[0][1] + self.max_lag <= t1 + 1e-9:
            self._take(*self._waiting.popleft(), record, t1)
        return self._state()

    def _take(self, t0: float, t1: float, video: np.ndarray, record: GyroRecord, now: float) -> None:
        ends = record.angle(np.stack([t0 + self.lags, t1 + self.lags]), now)
        gyro = (ends[1] - ends[0]) / (t1 - t0)
        if np.isfinite(gyro).all():
            self._sums.push(np.concatenate([video[None], gyro]), t1 - t0)

    def _state(self) -> np.ndarray:
        if self._sums.weight < 2.5:
            return np.full(6, np.nan)
        covariance = self._sums.covariance()
        variance = np.maximum(np.diag(covariance), 0.0)
        floor = RATE_FLOOR**2
        scores = covariance[0, 1:] / np.sqrt((variance[0] + floor) * (variance[1:] + floor))
        k = int(scores.argmax())
        cross, gyro = covariance[0, 1 + k], variance[1 + k]
        difference = math.sqrt(max(variance[0] + gyro - 2 * cross, 0.0))
        return np.array(
            [scores[k], cross / (gyro + floor), self.lags[k], difference,
             math.sqrt(variance[0]), math.sqrt(gyro)]
        )  # fmt: skip


class RunningParallax:
    """`coherent_parallax` from the past alone, with forgetting.

    Instead of falling silent the slopes shrink towards 0 when there was little orbit; the
    information beside them tells which of the two a small slope means.

    Args:
        memory: seconds after which a frame counts for a third.
    """

    def __init__(self, memory: float = 4.0) -> None:
        self._sums = _Decaying(memory)

    def push(self, row: np.ndarray, dt: float) -> np.ndarray:
        """Take in one `OrbitMeter` row; return slope, nose slope, information in degrees, (3,)."""
        if np.isfinite(row).all():
            self._sums.push(row, dt)
        if self._sums.weight < 2.5:
            return np.full(3, np.nan)
        zz, zx, zy, zr = self._sums.covariance()[0]
        information = max(zx, 0.0) / math.sqrt(zz + 1e-8)
        shrink = information**2 / (information**2 + SILENT_ORBIT**2)
        slopes = np.array([zy, zr]) / max(zx, 1e-8) * shrink
        return np.array([*np.clip(slopes, -3, 3), math.degrees(information)])


@dataclass
class _Past:
    """What the extractor remembers of earlier frames with a face."""

    t: deque = field(default_factory=lambda: deque(maxlen=64))
    points: deque = field(default_factory=lambda: deque(maxlen=64))
    angles: deque = field(default_factory=lambda: deque(maxlen=64))
    blendshapes: np.ndarray | None = None
    speed: float = 0.0
    open_eye: float = 0.0
    relief: np.ndarray = field(default_factory=lambda: np.zeros(2))


class FeatureExtractor:
    """Turns a stream of frames, faces and gyroscope samples into `FRAME_FEATURES`, causally.

    `frame_features` (a stored clip) and the live session run the same code: push the samples that
    have arrived, then the frame.

    Args:
        intrinsics: of the frames, or None.
        facing: camera that films.
    """

    def __init__(self, intrinsics: Intrinsics | None = None, facing: str = "front") -> None:
        self.record = GyroRecord(facing, kept=3000)
        self._meter = MotionMeter(intrinsics)
        self._orbit = OrbitMeter(intrinsics)
        self._consistency, self._parallax = RunningConsistency(), RunningParallax()
        self._past = _Past()
        self._t: float | None = None

    def push_imu(self, t: np.ndarray, gyro: np.ndarray) -> None:
        """Append gyroscope samples: (m,) seconds in the recorded clock, (m, 3) rad/s device axes."""
        self.record.push(t, gyro)

    def push(self, frame: np.ndarray, t: float, face: FaceObservation | None) -> np.ndarray:
        """Return the features of one frame.

        Args:
            frame: (H, W, 3) uint8.
            t: seconds, increasing.
            face: what the landmarker saw, or None.

        Returns:
            (G,) float32 as in `FrameFeatures.values`.
        """
        return self.push_motion(frame.shape, t, face, self.measure(frame, t, face))

    def measure(self, frame: np.ndarray, t: float, face: FaceObservation | None) -> FrameMotion:
        """Follow the background into this frame (first half of `push`)."""
        return self._meter.push(frame, t, None if face is None else face.points)

    def push_motion(self, shape: tuple, t: float, face: FaceObservation | None, motion: FrameMotion) -> np.ndarray:
        """Return the features from a motion already measured (second half of `push`)."""
        values = {**_background_features(motion), **self._imu_features(t, face, motion)}
        if face is None:
            return np.full(len(FRAME_FEATURES), np.nan, np.float32)
        return _scaled(values | _face_features(face, shape, motion) | self._history_features(t, face))

    def push_other_imu(
        self, t: float, face: FaceObservation | None, motion: FrameMotion, known: np.ndarray
    ) -> np.ndarray:
        """Return the `known` features (G,) of a frame with those that the IMU has part in measured anew.

        Of an extractor that was given another IMU, and asked for nothing else since its first frame.
        """
        values = self._imu_features(t, face, motion)
        return known if face is None else np.where(_OF_IMU, _scaled(values), known)

    def _imu_features(self, t: float, face: FaceObservation | None, motion: FrameMotion) -> dict:
        before = t if self._t is None else self._t
        ends = self.record.angle(np.array([before, t]), t)
        turn = ends[1] - ends[0]
        pose, points = (None, None) if face is None else (face.T_camera_head, face.points)
        row = self._orbit.push(turn, pose, points)
        started, self._t = self._t is not None, t
        if not started or not np.isfinite(turn).all():
            return {}
        gyro = _per_second(turn, t - before)
        state = self._consistency.push(before, t, motion.camera, self.record)
        depth = self._parallax.push(row, t - before)
        names = ("correlation", "gain", "lag", "residual")
        return {
            **{f"gyro_rate_{a}": g for a, g in zip("xyz", gyro, strict=True)},
            **{f"rate_difference_{a}": v for a, v in zip("xyz", motion.camera - gyro, strict=True)},
            **{f"consistency_{n}": v for n, v in zip(names, state, strict=False)},
            "video_motion": state[4],
            "gyro_motion": state[5],
            "parallax_slope": depth[0],
            "parallax_nose_slope": depth[1],
            "parallax_information": depth[2],
        }

    def _history_features(self, t: float, face: FaceObservation) -> dict:
        past, angles = self._past, head_pose_angles(face.T_camera_head[:3, :3])
        values = {**self._eye_features(face), **self._speed_features(t, face, angles)}
        values |= self._relief_features(t, face)
        old = [k for k, when in enumerate(past.t) if 0.4 <= t - when <= 0.9]
        if old:
            k = min(old, key=lambda i: abs(t - past.t[i] - 0.6))
            unit = max(float(interocular_distance(face.points)), 1.0)
            for name, eyes in (("planar_residual", True), ("planar_residual_no_eyes", False)):
                chosen = geometry_points(eyes)[::3]
                a, b = past.points[k][chosen, :2], face.points[chosen, :2]
                values[name] = homography_residual(a, b, unit)
            values["turn_since"] = float(np.linalg.norm((angles - past.angles[k])[:2]))
        past.t.append(t), past.points.append(face.points), past.angles.append(angles)
        past.blendshapes = face.blendshapes
        return values

    def _relief_features(self, t: float, face: FaceObservation) -> dict:
        past = self._past
        if not past.t or t - past.t[0] < 0.3:
            return {}
        # Against the oldest face remembered (two seconds): the wider the turn, the clearer.
        along, left = relief_energy(past.points[0], face.points[None], step=3)
        unit = max(float(interocular_distance(face.points)), 1.0)
        energy = np.array([float((along**2).sum()), float(left[0])]) / unit**2
        past.relief = past.relief * math.exp(-(t - past.t[-1]) / 4.0) + energy
        # A floor of landmark noise, so that a face at rest reads 0 and not a quotient of noise.
        share = past.relief[0] / (past.relief[1] + 0.02)
        return {"relief_share": share, "relief_amplitude": math.sqrt(energy[0])}

    def _eye_features(self, face: FaceObservation) -> dict:
        past, ratios = self._past, eye_aspect_ratio(face.points)
        mean = float(ratios.mean())
        # The open level follows upwards at once and downwards slowly: blinks do not pull it down.
        past.open_eye = max(mean, past.open_eye + 0.02 * (mean - past.open_eye))
        drop = 1.0 - mean / max(past.open_eye, 1e-3)
        return {"ear_left": ratios[0], "ear_right": ratios[1], "ear_drop": drop}

    def _speed_features(self, t: float, face: FaceObservation, angles: np.ndarray) -> dict:
        past = self._past
        if past.blendshapes is None or t - past.t[-1] > 0.5:
            return {}
        dt = t - past.t[-1]
        rates = _per_second(angles - past.angles[-1], dt)
        change = float(_per_second(np.abs(face.blendshapes - past.blendshapes).mean(), dt))
        past.speed += (1 - math.exp(-dt / 0.5)) * (change - past.speed)
        names = ("pose_yaw_rate", "pose_pitch_rate", "pose_roll_rate")
        return {**dict(zip(names, rates, strict=True)), "expression_speed": past.speed}


def _scaled(values: dict) -> np.ndarray:
    """Features by name as one row (G,) float32, NaN where there is none."""
    raw = np.array([values.get(name, math.nan) for name in FRAME_FEATURES]) / FEATURE_SCALE
    return np.clip(raw, -FEATURE_LIMIT, FEATURE_LIMIT).astype(np.float32)


_OF_IMU = np.array([modality == "imu" for modality in FEATURE_MODALITY])


def _background_features(motion: FrameMotion) -> dict:
    names = ("background_dx", "background_dy", "background_spin", "background_zoom")
    return {
        **dict(zip(names, motion.background, strict=True)),
        **{f"video_rate_{a}": v for a, v in zip("xyz", motion.camera, strict=True)},
        "background_residual": motion.residual,
        "background_tracks": motion.tracks,
    }


_SHAPE_FEATURES = {
    "blink_left": ("eyeBlinkLeft",),
    "blink_right": ("eyeBlinkRight",),
    "jaw_open": ("jawOpen",),
    "mouth_smile": ("mouthSmileLeft", "mouthSmileRight"),
    "mouth_pucker": ("mouthPucker", "mouthFunnel"),
    "mouth_roll": ("mouthRollLower", "mouthRollUpper"),
    "mouth_press": ("mouthPressLeft", "mouthPressRight"),
    "brow_up": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "brow_down": ("browDownLeft", "browDownRight"),
    "eye_squint": ("eyeSquintLeft", "eyeSquintRight"),
}


def _face_features(face: FaceObservation, shape: tuple, motion: FrameMotion) -> dict:
    height, width = shape[:2]
    shapes, (x, y, w, h) = face.blendshapes, face.box
    angles, nose = head_pose_angles(face.T_camera_head[:3, :3]), nose_parallax(face.points)
    apart = motion.face - motion.background
    right = _shape(shapes, "eyeLookOutLeft", "eyeLookInRight")
    down = _shape(shapes, "eyeLookDownLeft", "eyeLookDownRight")
    return {
        **{name: _shape(shapes, *parts) for name, parts in _SHAPE_FEATURES.items()},
        **dict(zip(("pose_yaw", "pose_pitch", "pose_roll"), angles, strict=True)),
        **dict(zip(("face_dx", "face_dy", "face_spin", "face_zoom"), motion.face, strict=True)),
        "gaze_side": right - _shape(shapes, "eyeLookInLeft", "eyeLookOutRight"),
        "gaze_up": _shape(shapes, "eyeLookUpLeft", "eyeLookUpRight") - down,
        "face_x": (x + 0.5 * w) / width - 0.5,
        "face_y": (y + 0.5 * h) / height - 0.5,
        "face_scale": math.log(max(float(interocular_distance(face.points)), 1.0) / (0.2 * height)),
        "nose_x": nose[0],
        "nose_y": nose[1],
        "face_minus_background_x": apart[0],
        "face_minus_background_y": apart[1],
    }


def observations(found: Track) -> list[FaceObservation | None]:
    """Return a track's rows as observations, None where no face was seen."""
    return [
        FaceObservation(found.points[k], found.blendshapes[k], found.T_camera_head[k].astype(float)) if seen else None
        for k, seen in enumerate(found.found)
    ]


def frame_features(
    clip: Clip, found: Track | None = None, motion: Motion | None = None, known: FrameFeatures | None = None
) -> FrameFeatures:
    """Measure the causal features of every stored frame of a clip.

    Args:
        clip: the presentation.
        found: its track; None runs the landmarker.
        motion: its motion; None measures it.
        known: features of the same video with another IMU: what this one has no part in is taken over.

    Returns:
        `FrameFeatures`; row k depends on frames and IMU samples up to time t[k] only.
    """
    found = track(clip) if found is None else found
    motion = measure_motion(clip, found) if motion is None else motion
    extractor = FeatureExtractor(clip.intrinsics, clip.camera_facing)
    shape = clip.frames.shape[1:]
    steps = (FrameMotion(*parts) for parts in zip(motion.camera, motion.background, motion.face,
                                                  motion.residual, motion.tracks, strict=True))  # fmt: skip
    rows, heard = [], 0
    for k, (t, face, step) in enumerate(zip(clip.t, observations(found), steps, strict=True)):
        heard = _push_until(extractor, clip.imu, heard, t)
        if known is None:
            rows.append(extractor.push_motion(shape, t, face, step))
        else:
            rows.append(extractor.push_other_imu(t, face, step, known.values[k]))
    return FrameFeatures(np.array(rows), FRAME_FEATURES, found.found)


def _push_until(extractor: FeatureExtractor, imu: Imu | None, heard: int, t: float) -> int:
    """Give the extractor the samples up to time `t` that it has not heard; return how many it has."""
    if imu is None or imu.gyro is None:
        return 0
    end = int(np.searchsorted(imu.t, t, side="right"))
    extractor.push_imu(imu.t[heard:end], imu.gyro[heard:end])
    return max(end, heard)


@dataclass(frozen=True)
class Analysis:
    """Everything measured on one clip, each stage run once."""

    track: Track
    motion: Motion
    cues: pd.Series
    features: FrameFeatures


def analyse(clip: Clip, found: Track | None = None) -> Analysis:
    """Run landmarks, motion, cues and frame features over one clip, each once."""
    found = track(clip) if found is None else found
    motion = measure_motion(clip, found)
    cues = extract_cues(clip, found, motion)
    return Analysis(found, motion, cues, frame_features(clip, found, motion))
