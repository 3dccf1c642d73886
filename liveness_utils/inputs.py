"""What the network sees of a presentation, and whether it is good enough to be judged.

Frames, face points and IMU samples come in; crops, IMU windows and quality sentences go out.
`dataset` (a file of clips) and `runtime` (a live stream) both call this room, so they agree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from liveness_utils import clips
from liveness_utils.errors import ClipError
from liveness_utils.landmarks import face_crop, interocular_distance, make_track
from liveness_utils.perception import imu_quality

FRAMES = 25
RATE = 10.0
CROP = 112
MARGIN = 1.7
WINDOW = 32
MODALITIES = ("video", "landmarks", "imu")
QUALITY_COLUMNS = ("faces", "iod_px", "luma", "sharpness", "change")


def hold_imu(windows: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Let a window that was not recorded repeat the one before (the first valid one at the start).

    Args:
        windows: (n, W, 6), see `clips.imu_windows`. valid: (n,) bool.

    Returns:
        (n, W, 6) float32; zeros if nothing is valid, which `presence_of` then masks.
    """
    if not valid.any():
        return np.zeros_like(windows)
    source = np.maximum.accumulate(np.where(valid, np.arange(len(valid)), -1))
    return windows[np.where(source < 0, int(np.argmax(valid)), source)]


def presence_of(features: np.ndarray, imu_valid: np.ndarray) -> np.ndarray:
    """Which modalities a clip has: video, landmarks, IMU.

    Args:
        features: (n, G), NaN where not measured; half of the frames must carry something.
        imu_valid: (n,) bool; one window is enough. Whether the record is whole is for `imu_quality.problems` to say:
            a broken one is refused, never judged as if there were none.

    Returns:
        (3,) float32 of 1 and 0; video is always 1.

    >>> presence_of(np.full((4, 2), np.nan), np.ones(4, bool)).tolist()
    [1.0, 0.0, 1.0]
    """
    seen = np.isfinite(features).any(axis=1).mean() >= 0.5
    return np.array([1.0, seen, np.any(imu_valid)], np.float32)


def fill_missing(values: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """Replace values that were not measured by the training set's mean of their column.

    The network masks absent modalities itself; this only keeps NaN out of the arithmetic.

    >>> fill_missing(np.array([[np.nan, 1.0]]), np.array([5.0, 6.0])).tolist()
    [[5.0, 1.0]]
    """
    return np.where(np.isfinite(values), values, fill).astype(np.float32)


@dataclass(frozen=True)
class QualityLimits:
    """Bounds outside which no decision is made.

    Shares are over the network's frames; `min_eyes_px` is the inter-ocular distance, `luma` the
    mean of the face crop (0..255), `min_sharpness` see `frame_quality`, `min_seconds` the time
    between first and last frame.
    """

    min_face_share: float = 0.8
    max_several_share: float = 0.2
    min_eyes_px: float = 18.0
    min_luma: float = 18.0
    max_luma: float = 245.0
    min_sharpness: float = 0.6
    min_seconds: float = 1.1
    max_frozen_share: float = 0.5


# For single pictures: nothing lasts and nothing moves. A bundle that holds these was made for stills.
STILL_LIMITS = QualityLimits(min_seconds=0.0, max_frozen_share=1.0)


def limits_from(values: dict) -> QualityLimits:
    """Rebuild limits from plain data, ignoring names of later versions."""
    known = {f.name for f in fields(QualityLimits)}
    return QualityLimits(**{k: float(v) for k, v in values.items() if k in known})


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A small grey copy (64, 64) float32, to tell whether the picture changes at all."""
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def frame_quality(
    crop: np.ndarray, n_faces: int, points: np.ndarray | None, small: np.ndarray, before: np.ndarray | None
) -> np.ndarray:
    """Measure one frame.

    Args:
        crop: (112, 112, 3) uint8 RGB. n_faces: faces found. points: (478, 2 or 3) px or None.
        small, before: `thumbnail` of this frame and of the one before (None at the start).

    Returns:
        (5,) float64 in the order of QUALITY_COLUMNS: faces, inter-ocular distance (px), mean of
        the crop (0..255), sharpness (root mean square of the Laplacian, grey levels), mean
        absolute change of the thumbnail (grey levels; NaN at the start).
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    found = points is not None and np.isfinite(points).all()
    eyes = float(interocular_distance(points)) if found else np.nan
    sharpness = float(np.sqrt(np.mean(cv2.Laplacian(grey, cv2.CV_32F) ** 2)))
    change = np.nan if before is None else float(np.abs(small - before).mean())
    return np.array([n_faces, eyes, grey.mean(), sharpness, change], np.float64)


def summarise_quality(rows: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """Fold the frames' measurements into one clip's.

    Args:
        rows: (n, 5), see `frame_quality`. t: (n,) s.

    Returns:
        frames, no_face and several_faces (counts), eyes_px, luma, sharpness (medians),
        frozen_share (frames equal to the one before), seconds.
    """
    rows = np.asarray(rows, np.float64).reshape(-1, len(QUALITY_COLUMNS))
    if len(rows) == 0:
        return {"frames": 0, "no_face": 0, "several_faces": 0, "seconds": 0.0}
    faces, eyes, luma, sharpness, change = rows.T
    moved = change[np.isfinite(change)]
    return {
        "frames": len(rows),
        "no_face": int((~np.isfinite(eyes)).sum()),
        "several_faces": int((faces > 1).sum()),
        "eyes_px": float(np.median(eyes[np.isfinite(eyes)])) if np.isfinite(eyes).any() else 0.0,
        "luma": float(np.median(luma)),
        "sharpness": float(np.median(sharpness)),
        "frozen_share": float((moved < 1e-3).mean()) if len(moved) else 0.0,
        "seconds": float(t[-1] - t[0]),
    }


def quality_reasons(quality: dict[str, float], limits: QualityLimits = QualityLimits()) -> tuple[str, ...]:
    """Say in words why a clip cannot be judged; empty when it can.

    >>> quality_reasons({"frames": 25, "no_face": 25, "several_faces": 0, "seconds": 2.4})
    ('no face in 25 of 25 frames',)
    """
    n, missed, several = (int(quality[k]) for k in ("frames", "no_face", "several_faces"))
    if n == 0:
        return ("no frames",)
    reasons = []
    if quality["seconds"] < limits.min_seconds:
        reasons.append(f"too short: {quality['seconds']:.1f} s of at least {limits.min_seconds:.1f} s")
    if several > limits.max_several_share * n:
        reasons.append(f"several faces in {several} of {n} frames")
    if n - missed < limits.min_face_share * n:
        return (*reasons, f"no face in {missed} of {n} frames")
    return (*reasons, *_picture_reasons(quality, limits))


def _picture_reasons(quality: dict[str, float], limits: QualityLimits) -> list[str]:
    eyes, luma, sharp, frozen = (quality[k] for k in ("eyes_px", "luma", "sharpness", "frozen_share"))
    checks = (
        (eyes < limits.min_eyes_px, f"face too small: {eyes:.0f} px between the eyes"),
        (luma < limits.min_luma, f"too dark: mean level {luma:.0f} of 255"),
        (luma > limits.max_luma, f"too bright: mean level {luma:.0f} of 255"),
        (sharp < limits.min_sharpness, f"too blurred: sharpness {sharp:.1f}"),
        (frozen > limits.max_frozen_share, f"frozen or repeated frames: {100 * frozen:.0f} %"),
    )
    return [sentence for failed, sentence in checks if failed]


@dataclass(frozen=True)
class ClipInputs:
    """What the network is given of one clip, and how good it is.

    crops (25, 112, 112, 3) uint8; features (25, G) float32, NaN where not measured; imu
    (25, 32, 6) float32; presence (3,) float32; t (25,) float64 s; quality_rows (25, 5), see
    `frame_quality`; index (25,) int, the frames among those stored.
    """

    crops: np.ndarray
    features: np.ndarray
    imu: np.ndarray
    presence: np.ndarray
    t: np.ndarray
    quality_rows: np.ndarray
    index: np.ndarray


def clip_inputs(clip, track, features: np.ndarray, index: np.ndarray | None = None) -> ClipInputs:
    """Crop, measure and align one clip for the network.

    Args:
        clip: clips.Clip. track: landmarks.Track of it. features: (N, G) of all its stored frames
            (`cues.frame_features(...).values`). index: stored frames to use; None chooses 25 by
            timestamp.

    Raises:
        ClipError: the clip is too short or pauses, or its motion record is no evidence (neither is
            asked where an index is given).
    """
    if index is None:
        index = clips.network_frame_indices(clip.t)
        broken = () if clip.imu is None else imu_quality.problems(clip.imu, *clip.t[index[[0, -1]]])
        if broken:
            raise ClipError("; ".join(broken))
    features = np.asarray(features, np.float32)[index]
    windows, valid = clips.imu_windows(clip.imu, clip.t[index])
    crops = face_crops(clip, track, index)
    return ClipInputs(
        crops,
        features,
        hold_imu(windows, valid),
        presence_of(features, valid),
        clip.t[index],
        quality_rows(clip, track, index, crops),
        index,
    )


def still_inputs(clip, track, features: np.ndarray) -> ClipInputs:
    """What the network is given of a single picture: video alone (`still_views` makes 25 pictures of it).

    Geometry and IMU count as absent: everything in them that tells a face from its picture is
    motion. `crops` holds the one picture, (1, 112, 112, 3); all else is as in `clip_inputs`.

    Args:
        clip: one frame. track: its landmarks. features: (1, G).
    """
    found = clip_inputs(clip, track, features, np.zeros(FRAMES, np.int64))
    return replace(found, crops=found.crops[:1], presence=np.array([1, 0, 0], np.float32))


def still_views(crop: np.ndarray) -> np.ndarray:
    """A still in place of a clip's pictures: as it is and mirrored by turns, over which the network takes the mean.

    Args:
        crop: (112, 112, 3) uint8.

    Returns:
        (25, 112, 112, 3) uint8, the first of them the crop itself.
    """
    return np.stack([crop[:, ::-1] if number % 2 else crop for number in range(FRAMES)])


def moved(crop: np.ndarray, enlarge: float, move: np.ndarray, degrees: float = 0.0, **how) -> np.ndarray:
    """Enlarge, turn and move a square picture about its middle.

    Args:
        crop: (S, S, ...). enlarge: factor. move: (2,) right and down, in sides. degrees: clockwise.
        how: `cv2.warpAffine`'s; by default linear, with the picture mirrored at its border.
    """
    size = len(crop)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), -degrees, enlarge)
    matrix[:, 2] += move * size
    how = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REFLECT_101} | how
    return cv2.warpAffine(crop, matrix, (size, size), **how)


def still_track(clip, landmarker):
    """Landmarks of a clip of one frame, by a landmarker for images with room for two faces.

    Args:
        clip: one frame. landmarker: `Landmarker(2, "image")`, which many stills can share.

    Returns:
        landmarks.Track of length one.
    """
    faces = landmarker.detect(clip.frames[0], 0.0, clip.intrinsics)
    return make_track(clip.t, faces[:1] or [None], [len(faces)])


def face_crops(clip, track, index: np.ndarray) -> np.ndarray:
    """Face crops (n, 112, 112, 3) uint8; a frame without a face uses the last face's box."""
    found = np.flatnonzero(track.found)
    crops = []
    for k in index:
        before = found[found <= k]
        crops.append(face_crop(clip.frames[k], track.box[before[-1]] if len(before) else None, CROP, MARGIN))
    return np.stack(crops)


def quality_rows(clip, track, index: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """`frame_quality` of each chosen frame, (n, 5) float64."""
    rows, before = [], None
    for k, crop in zip(index, crops, strict=True):
        small = thumbnail(clip.frames[k])
        points = track.points[k] if track.found[k] else None
        rows.append(frame_quality(crop, int(track.n_faces[k]), points, small, before))
        before = small
    return np.stack(rows)
