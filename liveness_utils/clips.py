"""Clips on disk and in memory: the store between the simulator (or a real phone) and the cues.

In: pixels, clocks, IMU samples and, from the simulator, the truth. Out: one `Clip` a presentation.
Every time is in seconds from the first video frame; nothing here looks at a label or a pixel's value.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from scipy.ndimage import uniform_filter1d
from scipy.spatial.transform import Rotation

from liveness_utils.errors import ClipError

if TYPE_CHECKING:
    # Imported where a table is read or written: a live session has none, and pandas takes 70 MB.
    import pandas as pd

IMU_COLUMNS = ("t", "ax", "ay", "az", "gx", "gy", "gz")

_MANIFEST_TYPES = {
    "clip_id": "string", "subject_id": "string", "is_bonafide": "boolean",
    "pai_species": "string", "instrument_id": "string", "device_id": "string",
    "capture_device_id": "string", "camera_facing": "string", "scene_id": "string",
    "light": "string", "motion_kind": "string", "head_follow_gain": "Float64",
    "imu_kind": "string", "split": "string", "control": "boolean",
    "width": "Int64", "height": "Int64",
    "fx": "Float64", "fy": "Float64", "cx": "Float64", "cy": "Float64",
    "fps": "Float64", "imu_offset": "Float64", "seed": "Int64",
    "monk_tone": "Int64", "age": "Float64", "gender": "Float64",
    "illuminance_lux": "Float64", "swept_angle_deg": "Float64",
}  # fmt: skip
MANIFEST_COLUMNS = tuple(_MANIFEST_TYPES)

EXPRESSION_NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft",
    "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip

CLIP_SECONDS = 2.5
NETWORK_FRAMES = 25
NETWORK_RATE = 10.0
MAX_FRAME_GAP = 0.25
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_TICKS = 1_000_000  # MP4 time base: one microsecond
_MAX_PIXELS = 4096 * 4096
_GRAVITY = 9.80665


# ----------------------------------------------------------------------------- things with a name
@dataclass(frozen=True)
class Imu:
    """Samples of a phone's inertial sensor in W3C device axes, in the sensor's own clock.

    Attributes:
        t: (M,) float64 seconds, strictly increasing.
        accel: (M, 3) float32 specific force, m/s², gravity included (upright at rest: 0, +9.81, 0);
            None where the record has no accelerometer.
        gyro: (M, 3) float32 angular rate, rad/s; None where the record has no gyroscope.
        source: file that it came from, for error messages.
        notes: sentences on what was converted in reading it.
    """

    t: np.ndarray
    accel: np.ndarray | None
    gyro: np.ndarray | None
    source: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.t)


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera in pixels; pixel centres lie at integer coordinates."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def matrix(self) -> np.ndarray:
        """The (3, 3) float64 camera matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Truth:
    """What only a simulation knows, per stored frame.

    Attributes:
        t: (N,) float64 seconds.
        T_world_camera: (N, 4, 4) float64 camera pose, OpenCV axes, metres.
        T_world_head: (N, 4, 4) float64 head pose.
        expression: (N, 52) float32 weights in the order of `EXPRESSION_NAMES`.
        landmarks: (N, 478, 2) float32 pixels, NaN where not defined.
        depth: (N, 64, 64) float16 metres along the camera's z, of the visible surface.
        face_mask: (N, 64, 64) bool, the face as shown.
    """

    t: np.ndarray
    T_world_camera: np.ndarray
    T_world_head: np.ndarray
    expression: np.ndarray
    landmarks: np.ndarray
    depth: np.ndarray
    face_mask: np.ndarray


@dataclass(frozen=True)
class Clip:
    """One presentation: frames with their times, and whatever else is known.

    Attributes:
        clip_id: name without meaning; it must not tell the label.
        frames: (N, H, W, 3) uint8 RGB, upright, unmirrored.
        t: (N,) float64 seconds, mid-exposure of the middle row, first frame at 0.
        imu: samples in the IMU's clock (t_imu = t_video + offset), or None.
        intrinsics: of `frames`, or None.
        camera_facing: ``front`` or ``rear``.
        meta: manifest row as a dict; unknown values are None.
        truth: only where a simulation made it and it was asked for.
        source: file or folder that it came from, for error messages.
    """

    clip_id: str
    frames: np.ndarray
    t: np.ndarray
    imu: Imu | None = None
    intrinsics: Intrinsics | None = None
    camera_facing: str = "front"
    meta: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None
    source: str = ""


def clip_id_for(*parts: Any) -> str:
    """A 16-character name that tells nothing of what it was made from.

    Example:
        >>> clip_id_for(7, 0)
        'ea33cfdec91189d9'
    """
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------- atomic writing
@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling that takes the name `path` only if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------ video
def write_video(
    path: str | Path,
    frames: np.ndarray,
    t: np.ndarray,
    *,
    crf: int = 23,
    preset: str = "superfast",
    bitrate: int | None = None,
) -> Path:
    """Write H.264 in MP4 with one presentation time a frame, to the microsecond.

    No B-frames, so frames come back in the order they went in. 4:2:0 video needs even sides:
    an odd one is padded by its edge, and the true size is kept in the file's comment tag.

    Args:
        path: target; written under another name and renamed.
        frames: (N, H, W, 3) uint8 RGB.
        t: (N,) seconds, strictly increasing; the file keeps them from the first one on.
        crf: x264 constant rate factor, 0 (lossless) to 51.
        preset: x264 preset, ``ultrafast`` to ``veryslow``.
        bitrate: bits per second; replaces `crf` where given, as a phone's encoder would.

    Raises:
        ClipError: if frames or times cannot make a video.
    """
    path = Path(path)
    _check_frames(frames, t, path)
    with _replacing(path) as part:
        _encode(part, frames, np.asarray(t) - t[0], crf=crf, preset=preset, bitrate=bitrate)
    return path


def _check_frames(frames: np.ndarray, t: np.ndarray, path: Path) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ClipError(f"{path}: frames must be (N, H, W, 3) uint8 RGB with N ≥ 1.")
    if len(t) != len(frames) or not np.all(np.isfinite(t)) or np.any(np.diff(t) < 1e-6):
        raise ClipError(f"{path}: give one strictly increasing time in seconds for each frame.")


def _encode(path: Path, frames: np.ndarray, t: np.ndarray, *, crf: int, preset: str, bitrate: int | None) -> None:
    height, width = frames.shape[1:3]
    rate = Fraction(max(1, round(len(t) / max(t[-1], 0.04))))
    with av.open(str(path), "w", options={"video_track_timescale": str(_TICKS)}) as container:
        container.metadata["comment"] = f"size={width}x{height}"
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        _set_codec(stream.codec_context, crf=crf, preset=preset, bitrate=bitrate)
        to_yuv = VideoReformatter()  # kept: setting one up costs more than a small frame's conversion
        for image, seconds in zip(frames, t, strict=True):
            container.mux(stream.encode(_yuv_frame(image, seconds, to_yuv)))
        container.mux(stream.encode())


def _set_codec(codec: Any, *, crf: int, preset: str, bitrate: int | None) -> None:
    codec.time_base = Fraction(1, _TICKS)
    codec.thread_count = 1  # the same bytes on every machine, and no fight between workers
    codec.colorspace, codec.color_range = 6, 1  # BT.601, limited range, said in the stream
    options = {"preset": preset, "bf": "0"}
    if bitrate is None:
        options["crf"] = str(crf)
    else:
        codec.bit_rate = int(bitrate)
    codec.options = options


def _yuv_frame(image: np.ndarray, seconds: float, to_yuv: VideoReformatter) -> av.VideoFrame:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
    frame = to_yuv.reformat(frame, format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG", threads=1)
    frame.pts, frame.time_base = round(seconds * _TICKS), Fraction(1, _TICKS)
    return frame


def read_video(
    path: str | Path,
    *,
    max_side: int | None = None,
    max_seconds: float | None = None,
    max_frames: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode a video upright, with the time of each frame.

    Times are the container's presentation times, counted from the first frame; a file that
    has none gets its nominal rate. Rotation and mirroring that the file asks for are applied.

    Args:
        path: any container and codec that PyAV opens (MP4, MOV, WebM, …).
        max_side: longer side in pixels above which frames are shrunk by area averaging.
        max_seconds: reading stops at this time.
        max_frames: reading stops at this number of frames.

    Returns:
        frames (N, H, W, 3) uint8 RGB and t (N,) float64 seconds with t[0] = 0.

    Raises:
        ClipError: if the file is no video, damaged, truncated, without frames, changes size,
            or has times that do not increase.
    """
    path = Path(path)
    if not path.is_file():
        raise ClipError(f"{path}: no such video file; check the path.")
    try:
        with av.open(str(path)) as container:
            images, times, expected = _decode(container, path, max_side, max_seconds, max_frames)
    except ClipError:
        raise
    except Exception as error:  # damaged files reach every corner of the decoder
        raise ClipError(f"{path}: not a readable video ({_reason(error)}); record or copy it again.") from error
    if expected and len(images) < 0.8 * expected:
        raise ClipError(f"{path}: truncated, {len(images)} of {expected} frames decode; copy it again.")
    return _stacked(images), _clean_times(times, path)


def _stacked(images: list[np.ndarray]) -> np.ndarray:
    """Stack frames, letting go of each as it is copied: half the peak memory of np.stack."""
    frames = np.empty((len(images), *images[0].shape), np.uint8)
    for k in range(len(images)):
        frames[k], images[k] = images[k], images[0][:0]
    return frames


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _decode(
    container: Any, path: Path, max_side: int | None, max_seconds: float | None,
    max_frames: int | None,
) -> tuple[list[np.ndarray], list[float], int]:  # fmt: skip
    """Frames, times, and the number of frames that the header promises (0: none, or cut short)."""
    stream = _video_stream(container, path)
    crop = _stored_size(container)
    images: list[np.ndarray] = []
    times: list[float] = []
    timed = None
    for frame in container.decode(stream):
        timed = frame.pts is not None if timed is None else timed
        seconds = _frame_time(frame, stream, len(times), timed, path)
        if _past_limit(times, seconds, max_seconds, max_frames):
            return images, times, 0
        images.append(upright_rgb(frame, crop, max_side))
        times.append(seconds)
        if images[-1].shape != images[0].shape:
            raise ClipError(f"{path}: the picture changes size midway; record it again.")
    if not images:
        raise ClipError(f"{path}: the video holds no frames; record it again.")
    return images, times, stream.frames


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise ClipError(f"{path}: has no video track; give a video file.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ClipError(f"{path}: no decoder for this video's codec; convert it to H.264 MP4.")
    if stream.codec_context.width * stream.codec_context.height > _MAX_PIXELS:
        raise ClipError(f"{path}: frames are larger than 4096 × 4096 pixels; shrink the video.")
    stream.thread_type = "NONE"
    return stream


def _stored_size(container: Any) -> tuple[int, int] | None:
    """Width and height that `write_video` noted, where one of them was odd."""
    found = re.fullmatch(r"size=(\d+)x(\d+)", container.metadata.get("comment", ""))
    return (int(found[1]), int(found[2])) if found else None


def _frame_time(frame: Any, stream: Any, index: int, timed: bool, path: Path) -> float:
    if timed and frame.pts is not None and frame.time_base:
        return float(frame.pts * frame.time_base)
    if timed:
        raise ClipError(f"{path}: frame {index} has no time stamp; record it again.")
    rate = stream.average_rate or stream.base_rate
    if not rate:
        raise ClipError(f"{path}: has neither time stamps nor a frame rate; convert it to MP4.")
    return float(index / rate)


def _past_limit(times: list[float], seconds: float, max_seconds: float | None, max_frames: int | None) -> bool:
    if max_frames is not None and len(times) >= max_frames:
        return True
    return bool(times) and max_seconds is not None and seconds - times[0] > max_seconds


def upright_rgb(frame: Any, crop: tuple[int, int] | None, max_side: int | None) -> np.ndarray:
    """Turn a decoded frame into pixels as a viewer sees it: the display matrix applied, padding cut off.

    Args:
        frame: av.VideoFrame. crop: width and height that were meant, where the codec padded to even ones.
        max_side: longest side in pixels; larger frames are scaled down first.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    width, height = frame.width, frame.height
    scale = min(1.0, max_side / max(width, height)) if max_side else 1.0
    smaller = {}
    if scale < 1.0:
        size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
        smaller = size | {"interpolation": "AREA"}
    # One thread: waking several takes longer than a small frame's conversion.
    image = frame.reformat(format="rgb24", threads=1, **smaller).to_ndarray()
    if crop and scale == 1.0 and 0 <= width - crop[0] <= 1 and 0 <= height - crop[1] <= 1:
        image = image[: crop[1], : crop[0]]
    return _apply_display_matrix(image, _display_matrix(frame))


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    for item in frame.side_data:
        if item.type == SideDataType.DISPLAYMATRIX:
            a, b, _, c, d, *_ = np.frombuffer(bytes(item), np.int32)
            return int(a), int(b), int(c), int(d)
    return None


def _apply_display_matrix(image: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """Turn or mirror by quarter turns as ISO/IEC 14496-12's track matrix asks for."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    image = image[:, ::-1] if a < 0 else image
    image = image[::-1] if d < 0 else image
    return np.ascontiguousarray(image)


def _clean_times(times: Sequence[float], path: Path) -> np.ndarray:
    t = np.asarray(times, np.float64)
    if not np.all(np.isfinite(t)) or np.any(np.diff(t) <= 0):
        raise ClipError(f"{path}: frame times do not increase; record it again.")
    return t - t[0]


# ----------------------------------------------------------------------------------------- stills
def read_image(path: str | Path, *, max_side: int | None = None) -> np.ndarray:
    """Read one picture upright, as (H, W, 3) uint8 RGB.

    Args:
        path: JPEG, PNG, BMP or WebP.
        max_side: longer side in pixels above which it is shrunk by area averaging.

    Raises:
        ClipError: no such file, or no readable picture.
    """
    path = Path(path)
    if not path.is_file():
        raise ClipError(f"{path}: no such image file; check the path.")
    bgr = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if bgr is None or bgr.shape[0] * bgr.shape[1] > _MAX_PIXELS:
        raise ClipError(f"{path}: not a readable picture of up to 4096 × 4096 pixels; copy or shrink it.")
    scale = max_side / max(bgr.shape[:2]) if max_side else 1.0
    if scale < 1.0:
        size = (max(1, round(bgr.shape[1] * scale)), max(1, round(bgr.shape[0] * scale)))
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def is_image(path: str | Path) -> bool:
    """Whether a file's name says that it is a picture, not a video.

    >>> is_image("face.JPG"), is_image("face.mp4")
    (True, False)
    """
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _still_file(folder: Path) -> Path | None:
    """The picture of a clip that is a single still, kept as the bytes it came in."""
    return next((p for s in IMAGE_SUFFIXES if (p := folder / f"still{s}").is_file()), None)


def media_file(root: str | Path, clip_id: str) -> Path:
    """The file of a clip's pixels: ``video.mp4``, or ``still.*`` of a clip of one picture."""
    folder = _clip_folder(root, clip_id)
    return _still_file(folder) or folder / "video.mp4"


def _write_pixels(folder: Path, clip: Clip, original: Path | None, **options: Any) -> None:
    if len(clip.frames) == 1 and original is not None:
        shutil.copyfile(original, folder / f"still{original.suffix.lower()}")
    elif len(clip.frames) == 1:
        ok, data = cv2.imencode(".png", cv2.cvtColor(clip.frames[0], cv2.COLOR_RGB2BGR))
        (folder / "still.png").write_bytes(data.tobytes() if ok else b"")
    else:
        _encode(folder / "video.mp4", clip.frames, np.asarray(clip.t) - clip.t[0], **options)


# -------------------------------------------------------------------------------------------- IMU
def write_imu(path: str | Path, imu: Imu) -> Path:
    """Write `IMU_COLUMNS` as Parquet; a missing sensor's columns are left out."""
    path = Path(path)
    table = _imu_table(imu)
    with _replacing(path) as part:
        table.to_parquet(part, index=False)
    return path


def _imu_table(imu: Imu) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, np.ndarray] = {"t": np.asarray(imu.t, np.float64)}
    for names, values in ((IMU_COLUMNS[1:4], imu.accel), (IMU_COLUMNS[4:7], imu.gyro)):
        if values is not None:
            columns.update({n: np.asarray(values[:, i], np.float32) for i, n in enumerate(names)})
    return pd.DataFrame(columns)


def read_imu(path: str | Path, *, check_units: bool = True) -> Imu:
    """Read an IMU record from Parquet or a text table.

    Column ``t`` (seconds) is required, and ``ax, ay, az`` (m/s²), ``gx, gy, gz`` (rad/s) or
    both; a sensor that is absent becomes None. Units that are another's beyond doubt are
    converted (`in_si_units`). What a platform reports with another sign or screen rotation goes
    through `normalise_imu`; whether the record is evidence is `perception.imu_quality`'s to say.

    Args:
        path: Parquet, or text with commas, semicolons (and decimal commas) or tabs; lines
            that begin with ``#`` are passed over.
        check_units: recognise and convert units; a stored clip has this course's own.

    Raises:
        ClipError: if the file is no such table, columns are missing, values are not finite,
            or times do not increase.
    """
    path = Path(path)
    imu = _imu_from_table(_read_table(path), path)
    return in_si_units(imu) if check_units else imu


def _read_table(path: Path) -> dict[str, list]:
    """Columns by name in lower case. A Parquet file is read without pandas, which takes 70 MB."""
    if path.is_dir():
        raise ClipError(f"{path}: is a folder; join its sensors into one table, {_WANTED}, and give that file.")
    if not path.is_file():
        raise ClipError(f"{path}: no such IMU file; check the path.")
    with open(path, "rb") as file:
        start = file.read(4)
    for magic, words in _NOT_TABLES.items():
        if start[: len(magic)] == magic and (magic or not start):
            raise ClipError(f"{path}: {words}.")
    try:
        columns = _parquet_columns(path) if start == b"PAR1" else _text_columns(path)
    except ClipError:
        raise
    except Exception as error:  # readers raise a dozen kinds of their own
        raise ClipError(f"{path}: not a readable CSV or Parquet table; export it again.") from error
    return {str(name).strip().lower(): values for name, values in columns.items()}


_WANTED = "columns t (s from the first video frame), ax, ay, az (m/s²), gx, gy, gz (rad/s)"
_NOT_TABLES = {
    b"PK": "is an Excel workbook; save it as CSV",
    b"{": f"is JSON; convert it to a CSV table, {_WANTED}",
    b"[": f"is JSON; convert it to a CSV table, {_WANTED}",
    b"": "is empty; record or copy it again",
}


def _parquet_columns(path: Path) -> dict[str, list]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return file.read().to_pydict()


def _text_columns(path: Path) -> dict[str, list]:
    """A text table as spreadsheets and loggers write it: the first line that is no comment names the columns."""
    import pandas as pd

    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if not line.startswith("#")]
    later = next((k for k, line in enumerate(lines[:100], 1) if _is_header(line)), 1)
    if later > 1:
        raise ClipError(f"{path}: its column names come in line {later}; delete the lines above, and give {_WANTED}.")
    separator = next((c for c in ";\t" if c in lines[0]), ",")
    decimal = "," if separator != "," and any("," in line for line in lines[1:]) else "."
    return pd.read_csv(io.StringIO("\n".join(lines)), sep=separator, decimal=decimal).to_dict("list")


def _is_header(line: str) -> bool:
    names = {name.strip().lower() for name in re.split(r"[,;\t]", line)}
    return "t" in names and bool(names & set(IMU_COLUMNS[1:]))


def _imu_from_table(table: dict[str, list], path: Path) -> Imu:
    groups = {"accel": IMU_COLUMNS[1:4], "gyro": IMU_COLUMNS[4:7]}
    present = {k: all(c in table for c in cols) for k, cols in groups.items()}
    if "t" not in table or not any(present.values()):
        raise ClipError(f"{path}: needs column t and ax, ay, az or gx, gy, gz; found {list(table)}; give {_WANTED}.")
    _check_rows({name: table[name] for name in ("t", *(c for k in groups if present[k] for c in groups[k]))}, path)
    t = np.array(table["t"], np.float64)
    _check_clock(t, path)
    values = {
        k: np.array([table[c] for c in cols], np.float64).T.astype(np.float32) if present[k] else None
        for k, cols in groups.items()
    }
    return Imu(t=t, **values, source=str(path))


def _check_rows(columns: Mapping[str, list], path: Path) -> None:
    """Every cell a number; sensors that were stamped apart leave every other row half empty."""
    known = np.array([[math.isfinite(_number(v)) for v in column] for column in columns.values()])
    bad = np.flatnonzero(~known.all(axis=0))
    if not len(bad):
        return
    if len(bad) > 0.5 * known.shape[1] and known[0].all() and known.any(axis=1).all():
        raise ClipError(
            f"{path}: the two sensors have times of their own, so that rows are half empty; "
            "interpolate both to one clock, seven numbers a row."
        )
    raise ClipError(f"{path}: row {bad[0]} of {', '.join(columns)} is empty or not a number; drop such rows.")


def _check_clock(t: np.ndarray, path: Path) -> None:
    step = np.diff(t)
    if len(t) < 2:
        raise ClipError(f"{path}: has fewer than two rows; IMU times must increase.")
    back = np.flatnonzero(step <= 0)
    if len(back):
        k, how = back[0] + 1, "repeats" if step[back[0]] == 0 else "goes back before"
        raise ClipError(
            f"{path}: IMU times must increase, and row {k} {how} the time of row {k - 1}; "
            "drop repeated rows; where the clock was set back, record again."
        )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


_TIME_UNITS = {"milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}


def in_si_units(imu: Imu) -> Imu:
    """Convert units that are another's beyond doubt, and note it; what is doubtful stays as it is.

    A phone samples motion 2 to 1000 times a second, which tells seconds from milliseconds,
    microseconds and nanoseconds; its specific force at rest is 9.8 m/s², or 1 g; rates in degrees
    carry gravity away where the same in radians leave it in place (`gravity_misfit`).

    Args:
        imu: as read.

    Returns:
        the record with `Imu.notes`.
    """
    interval = float(imu.t[-1] - imu.t[0]) / (len(imu) - 1)
    for name, unit in _TIME_UNITS.items():
        if 1e-3 <= interval * unit < 0.5:
            imu = _noted(imu, f"times read as {name}", t=imu.t * unit)
            break
    if imu.accel is not None and 0.8 < float(np.median(np.linalg.norm(imu.accel, axis=1))) < 1.2:
        imu = _noted(imu, "specific force read as units of g", accel=imu.accel * np.float32(_GRAVITY))
    if imu.accel is not None and imu.gyro is not None and interval > 0:
        degrees = replace(imu, gyro=np.radians(imu.gyro))
        if gravity_misfit(imu)[1] > 0.5 and gravity_misfit(degrees)[1] < 0.1:
            imu = _noted(imu, "angular rate read as degrees per second", gyro=degrees.gyro)
    return imu


def _noted(imu: Imu, words: str, **changes: Any) -> Imu:
    return replace(imu, notes=(*imu.notes, f"{imu.source or 'the motion record'}: {words}"), **changes)


def gravity_misfit(imu: Imu) -> tuple[float, float]:
    """How far the accelerometer is from gravity as the gyroscope turns it.

    Every reading is turned back into the axes of the first one. There gravity stands still, and
    what half a second's mean leaves beside it is the phone's slow acceleration.

    Args:
        imu: both sensors, SI units.

    Returns:
        rms in m/s² of that rest, and by how much it exceeds the rest of the readings as they
        are: above 0 the gyroscope makes it worse, as with wrong units, axes, signs or times.

    Example:
        >>> t = np.arange(0, 2, 0.01)
        >>> tip = np.stack([np.cos(t), np.sin(t), 0 * t], 1)  # gravity in a phone that rolls at -1 rad/s
        >>> good = Imu(t, 9.8 * tip, np.tile([0.0, 0.0, -1.0], (200, 1)))
        >>> [round(v) for v in gravity_misfit(good)]
        [0, -4]
    """
    steps = 0.5 * (imu.gyro[1:] + imu.gyro[:-1]).astype(float) * np.diff(imu.t)[:, None]
    turned = [np.eye(3)]
    for step in Rotation.from_rotvec(steps).as_matrix():
        turned.append(turned[-1] @ step)
    force = imu.accel.astype(float)
    width = int(np.clip(0.5 * (len(imu) - 1) / (imu.t[-1] - imu.t[0]), 3, len(imu)))
    size, rests = np.linalg.norm(force, axis=1).mean(), []
    for values in (np.einsum("nij,nj->ni", turned, force), force):
        smooth = uniform_filter1d(values, width, axis=0, mode="nearest")[width // 2 : -(width // 2)]
        smooth = smooth if len(smooth) else values
        mean = values.mean(0)
        still = mean * size / max(float(np.linalg.norm(mean)), 1e-9)
        rests.append(math.sqrt(((smooth - still) ** 2).sum(1).mean()))
    return rests[0], rests[0] - rests[1]


_ACCEL_SIGN = {"w3c": 1.0, "android": 1.0, "ios_safari": -1.0, "ios_coremotion": -1.0}


def normalise_imu(
    imu: Imu,
    *,
    platform: str = "w3c",
    screen_angle: int = 0,
    accel_unit: str = "m/s2",
    gyro_unit: str = "rad/s",
) -> Imu:
    """Bring one platform's convention to this course's: SI units, W3C axes, upright video.

    ============== =============================================================
    ``w3c``        Chromium and Firefox on Android: face up at rest reads z = +9.8
    ``android``    SensorEvent of the native API: the same
    ``ios_safari`` WebKit's ``accelerationIncludingGravity``: opposite sign
    ``ios_coremotion`` CMAccelerometerData: opposite sign, and in g
    ============== =============================================================

    A phone turned on its side shows an upright video, but its sensor axes stay with the
    case. `screen_angle` is ``screen.orientation.angle``: 90 when the phone was turned
    counter-clockwise from portrait. The vectors are turned by it about z, so that y is the
    video's up again.

    Args:
        imu: samples as the platform reported them.
        platform: a row of the table.
        screen_angle: 0, 90, 180 or 270 degrees.
        accel_unit: ``m/s2`` or ``g``.
        gyro_unit: ``rad/s`` or ``deg/s`` (a browser's rotationRate is in degrees).

    Raises:
        ClipError: if platform, angle or unit is unknown.

    Source:
        W3C Device Orientation and Motion; W3C Screen Orientation; Apple CoreMotion reference.

    Example:
        >>> upright = Imu(np.array([0.0]), np.array([[0.0, -9.81, 0.0]], np.float32), None)
        >>> normalise_imu(upright, platform="ios_safari").accel.round(2).tolist()
        [[0.0, 9.8100004196167, 0.0]]
    """
    scales = {"m/s2": 1.0, "g": _GRAVITY, "rad/s": 1.0, "deg/s": math.pi / 180.0}
    known = platform in _ACCEL_SIGN and screen_angle in (0, 90, 180, 270)
    if not known or accel_unit not in ("m/s2", "g") or gyro_unit not in ("rad/s", "deg/s"):
        raise ClipError(
            f"unknown IMU convention {platform!r}, {screen_angle}°, {accel_unit}, {gyro_unit}; "
            f"platforms are {sorted(_ACCEL_SIGN)}, angles 0, 90, 180, 270."
        )
    turn = _quarter_turn(screen_angle)
    accel = _turned(imu.accel, turn, scales[accel_unit] * _ACCEL_SIGN[platform])
    return replace(imu, accel=accel, gyro=_turned(imu.gyro, turn, scales[gyro_unit]))


def _quarter_turn(angle: int) -> np.ndarray:
    c, s = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[angle]
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float64)


def _turned(values: np.ndarray | None, turn: np.ndarray, scale: float) -> np.ndarray | None:
    if values is None:
        return None
    return (scale * (np.asarray(values, np.float64) @ turn.T) + 0.0).astype(np.float32)


def imu_windows(
    imu: Imu | None,
    t_frames: np.ndarray,
    offset: float = 0.0,
    n: int = 32,
    rate: float = 100.0,
) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the latest `n` IMU samples on a regular grid that ends at its time.

    Linear interpolation by the recorded clocks. Causal: past the last sample that was
    there at the frame's time, that sample is held; nothing later is looked at.

    Args:
        imu: record, or None.
        t_frames: (N,) frame times, s.
        offset: added to frame times to get IMU times; 0 for the network, which must live
            with the recorded clocks.
        n: samples a window.
        rate: grid rate, Hz.

    Returns:
        windows (N, n, 6) float32 as ax, ay, az, gx, gy, gz, and valid (N,) bool. Invalid
        windows are zeros: the record lacks a sensor, starts over 0.1 s after the window
        does, is over 0.1 s late at the frame, or has a gap over 0.1 s inside.
    """
    ends = np.asarray(t_frames, np.float64) + offset
    empty = np.zeros((len(ends), n, 6), np.float32)
    if imu is None or imu.accel is None or imu.gyro is None or len(imu) < 2:
        return empty, np.zeros(len(ends), bool)
    last = np.maximum(np.searchsorted(imu.t, ends, side="right") - 1, 0)
    grid = ends[:, None] - np.arange(n - 1, -1, -1) / rate
    values = np.hstack([imu.accel, imu.gyro]).astype(np.float64)
    held = np.minimum(grid, imu.t[last][:, None])
    windows = np.stack([np.interp(held, imu.t, column) for column in values.T], axis=-1)
    valid = _window_validity(imu.t, grid, last)
    return np.where(valid[:, None, None], windows, 0.0).astype(np.float32), valid


def _window_validity(t: np.ndarray, grid: np.ndarray, last: np.ndarray) -> np.ndarray:
    limit = 0.1
    late = np.abs(grid[:, -1] - t[last]) > limit
    early = t[0] > grid[:, 0] + limit
    first = np.maximum(np.searchsorted(t, grid[:, 0], side="right") - 1, 0)
    gaps = np.concatenate([[0], np.cumsum(np.diff(t) > limit)])
    return ~(late | early | (gaps[last] > gaps[first]))


# ---------------------------------------------------------------------------------------- choosing
def network_frame_indices(
    t: np.ndarray, n: int = NETWORK_FRAMES, rate: float = NETWORK_RATE, *, start: float = 0.0
) -> np.ndarray:
    """Indices of the frames that the network sees: the nearest to a 10 Hz grid, by time only.

    The grid starts `start` seconds after the first frame. A camera slower than the grid
    has frames chosen twice; one that pauses for over 0.25 s has no such clip.

    Args:
        t: (N,) frame times, s, increasing.
        n: number of frames.
        rate: grid rate, Hz.
        start: seconds after t[0].

    Returns:
        (n,) int64, not decreasing.

    Raises:
        ClipError: if the clip ends over half a grid step before the grid does, or has a gap.

    Example:
        >>> network_frame_indices(np.arange(75) / 30)[:5].tolist()
        [0, 3, 6, 9, 12]
    """
    t = np.asarray(t, np.float64)
    need = start + (n - 1) / rate
    if len(t) < 2 or t[-1] - t[0] < need - 0.5 / rate:
        length = float(t[-1] - t[0]) if len(t) else 0.0
        raise ClipError(f"the clip lasts {length:.2f} s; record at least {need:.1f} s.")
    grid = t[0] + start + np.arange(n) / rate
    right = np.clip(np.searchsorted(t, grid), 1, len(t) - 1)
    chosen = right - (grid - t[right - 1] < t[right] - grid)
    inside = t[chosen[0] : chosen[-1] + 1]
    if len(inside) > 1 and np.diff(inside).max() > MAX_FRAME_GAP:
        raise ClipError(f"the video pauses for {np.diff(inside).max():.2f} s; record it without interruption.")
    return chosen.astype(np.int64)


def network_frame_count(t: np.ndarray, n: int = NETWORK_FRAMES, rate: float = NETWORK_RATE) -> int:
    """How many frames of the network's grid a clip is long enough for, at most `n`.

    >>> network_frame_count(np.arange(48) / 30)
    17
    """
    return int(min(n, np.floor((t[-1] - t[0]) * rate + 0.5) + 1)) if len(t) else 0


def slice_clip(clip: Clip, start: float, stop: float) -> Clip:
    """The part of a recording with start ≤ t < stop, its clocks counted from its first frame.

    The IMU is kept from 0.5 s before to 0.5 s after. Truth is dropped.

    Raises:
        ClipError: if no frame lies inside.
    """
    keep = (clip.t >= start) & (clip.t < stop)
    if not keep.any():
        raise ClipError(f"{clip.source}: no frame between {start} and {stop} s; choose within it.")
    zero = clip.t[keep][0]
    imu = None if clip.imu is None else _slice_imu(clip.imu, zero, clip.t[keep][-1])
    return replace(clip, frames=clip.frames[keep], t=clip.t[keep] - zero, imu=imu, truth=None)


def _slice_imu(imu: Imu, first: float, last: float) -> Imu:
    keep = (imu.t >= first - 0.5) & (imu.t <= last + 0.5)
    accel, gyro = (None if v is None else v[keep] for v in (imu.accel, imu.gyro))
    return replace(imu, t=imu.t[keep] - first, accel=accel, gyro=gyro)


def validate_clip(clip: Clip) -> list[str]:
    """Sentences on everything that breaks the contract of a clip; empty if sound."""
    return _frame_problems(clip) + _imu_problems(clip) + _meta_problems(clip)


def _frame_problems(clip: Clip) -> list[str]:
    name, frames, t = clip.source or clip.clip_id, clip.frames, np.asarray(clip.t)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        return [f"{name}: frames must be (N, H, W, 3) uint8 RGB."]
    if len(frames) == 0 or t.shape != (len(frames),) or not np.isfinite(t).all():
        return [f"{name}: needs one finite time for each of at least one frame."]
    problems = [] if abs(t[0]) < 1e-9 else [f"{name}: the first frame's time must be 0."]
    if np.any(np.diff(t) <= 0):
        return [*problems, f"{name}: frame times must increase."]
    try:
        network_frame_indices(t)
    except ClipError as error:
        problems.append(f"{name}: {error}")
    return problems


def _imu_problems(clip: Clip) -> list[str]:
    if clip.imu is None:
        return []
    name, imu = clip.source or clip.clip_id, clip.imu
    values = [v for v in (imu.accel, imu.gyro) if v is not None]
    if not values or any(v.shape != (len(imu.t), 3) or not np.isfinite(v).all() for v in values):
        return [f"{name}: IMU values must be finite and (M, 3) for each of M times."]
    if not np.isfinite(imu.t).all() or np.any(np.diff(imu.t) <= 0):
        return [f"{name}: IMU times must increase."]
    return []


def _meta_problems(clip: Clip) -> list[str]:
    name, problems = clip.source or clip.clip_id, []
    if clip.camera_facing not in ("front", "rear"):
        problems.append(f"{name}: camera_facing is {clip.camera_facing!r}; say front or rear.")
    size = None if clip.intrinsics is None else (clip.intrinsics.height, clip.intrinsics.width)
    if size is not None and clip.frames.shape[1:3] != size:
        problems.append(f"{name}: intrinsics are of another picture size; scale them.")
    if clip.truth is not None and len(clip.truth.t) != len(clip.t):
        problems.append(f"{name}: truth and video differ in length; generate the clip again.")
    return problems


# ------------------------------------------------------------------------------------------- truth
def _write_truth(path: Path, truth: Truth) -> None:
    """An .npz with fixed dates and light compression: the same truth is the same bytes."""
    arrays = {
        "t": truth.t.astype(np.float64),
        "T_world_camera": truth.T_world_camera.astype(np.float64),
        "T_world_head": truth.T_world_head.astype(np.float64),
        "expression": truth.expression.astype(np.float32),
        # 1/64 px is far below what any landmarker resolves, and compresses
        "landmarks": (np.round(truth.landmarks * 64.0) / 64.0).astype(np.float32),
        "depth": truth.depth.astype(np.float16),
        "face_mask": np.packbits(truth.face_mask.astype(bool)),
        "mask_shape": np.array(truth.face_mask.shape, np.int64),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            archive.writestr(_undated(f"{name}.npy"), _npy_bytes(array), compresslevel=1)


def _undated(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def load_truth(root: str | Path, clip_id: str) -> Truth:
    """Read the truth of one simulated clip.

    Raises:
        ClipError: if the clip has none or its file is damaged.
    """
    path = _clip_folder(root, clip_id) / "truth.npz"
    if not path.is_file():
        raise ClipError(f"{path}: this clip has no truth; only simulated clips do.")
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        shape = tuple(arrays.pop("mask_shape"))
        bits = np.unpackbits(arrays.pop("face_mask"), count=int(np.prod(shape)))
        return Truth(face_mask=bits.reshape(shape).astype(bool), **arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ClipError(f"{path}: damaged truth file; generate the clip again.") from error


# ------------------------------------------------------------------------------------- clip folders
def _clip_folder(root: str | Path, clip_id: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", clip_id):
        raise ClipError(f"clip_id {clip_id!r} must be 1 to 64 letters, digits, '-' or '_'.")
    return Path(root) / "clips" / clip_id


def write_clip(
    root: str | Path,
    clip: Clip,
    *,
    crf: int = 23,
    preset: str = "superfast",
    bitrate: int | None = None,
    original: str | Path | None = None,
) -> Path:
    """Store a clip as ROOT/clips/<clip_id>/{video.mp4, imu.parquet, truth.npz}.

    The folder appears whole or not at all; one that is there is replaced. The manifest row
    is the caller's to collect (`write_manifest`). A clip of one frame is a still and is kept as
    a picture (``still.png``): a video codec would change the texture that it is judged by.

    Args:
        root: data folder.
        clip: what to store.
        crf: see `write_video`, as are `preset` and `bitrate`.
        original: image file of a still, whose bytes are kept as they are.

    Returns:
        The clip's folder.
    """
    folder = _clip_folder(root, clip.clip_id)
    _check_frames(clip.frames, clip.t, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{clip.clip_id}-"))
    try:
        original = None if original is None else Path(original)
        _write_pixels(part, clip, original, crf=crf, preset=preset, bitrate=bitrate)
        if clip.imu is not None:
            _imu_table(clip.imu).to_parquet(part / "imu.parquet", index=False)
        if clip.truth is not None:
            _write_truth(part / "truth.npz", clip.truth)
        part.chmod(0o755)
        _move_into_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _move_into_place(part: Path, folder: Path) -> None:
    if folder.exists():
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-old-"))
        os.replace(folder, old / folder.name)
        os.replace(part, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(part, folder)


def load_clip(
    root: str | Path,
    clip_id: str,
    *,
    truth: bool = False,
    row: Mapping[str, Any] | pd.Series | None = None,
) -> Clip:
    """Read a stored clip.

    Args:
        root: data folder.
        clip_id: name of the clip.
        truth: also read the simulator's truth.
        row: the clip's manifest row; without it the manifest is searched, which in a loop
            costs more than the video.

    Raises:
        ClipError: if the clip is missing or damaged.
    """
    folder = _clip_folder(root, clip_id)
    still = _still_file(folder)
    if still is None and not (folder / "video.mp4").is_file():
        raise ClipError(f"{folder}: no such clip; generate or copy it first.")
    meta = _find_row(root, clip_id) if row is None else _plain(dict(row))
    frames, t = (read_image(still)[None], np.zeros(1)) if still else read_video(folder / "video.mp4")
    imu_path = folder / "imu.parquet"
    if meta.get("imu_kind") is not None and not imu_path.is_file():
        raise ClipError(f"{imu_path}: the manifest tells of motion data and they are missing; copy the clip again.")
    return Clip(
        clip_id=clip_id,
        frames=frames,
        t=t,
        imu=read_imu(imu_path, check_units=False) if imu_path.is_file() else None,
        intrinsics=_intrinsics_from(meta),
        camera_facing=meta.get("camera_facing") or "front",
        meta=meta,
        truth=load_truth(root, clip_id) if truth else None,
        source=str(folder),
    )


def _find_row(root: str | Path, clip_id: str) -> dict[str, Any]:
    if not (Path(root) / "manifest.parquet").is_file():
        return {}
    table = read_manifest(root)
    rows = table[table["clip_id"] == clip_id]
    return _plain(rows.iloc[0].to_dict()) if len(rows) else {}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Python scalars, and None for what is not known."""
    import pandas as pd

    return {
        key: None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value
        for key, value in row.items()
    }


def _intrinsics_from(meta: Mapping[str, Any]) -> Intrinsics | None:
    values = [meta.get(name) for name in ("width", "height", "fx", "fy", "cx", "cy")]
    if any(value is None for value in values):
        return None
    return Intrinsics(int(values[0]), int(values[1]), *map(float, values[2:]))


def load_recording(
    video: str | Path,
    imu: str | Path | Imu | None = None,
    *,
    camera_facing: str = "front",
    platform: str = "w3c",
    screen_angle: int = 0,
    max_side: int = 640,
    max_seconds: float = 12.0,
    max_frames: int = 480,
) -> Clip:
    """Read a recording that did not come from the simulator.

    Longer recordings are read up to the limits, which bound time and memory, and say so in
    ``meta["cut_short"]``; `slice_clip` takes a part of what was read. Intrinsics are not
    known and stay None.

    Args:
        video: any file that PyAV opens; a picture becomes a clip of one frame.
        imu: Parquet or CSV file as `read_imu` takes, with t = 0 at the first video frame.
        camera_facing: ``front`` or ``rear``.
        platform: sign convention of the IMU, see `normalise_imu`.
        screen_angle: screen rotation, see `normalise_imu`.
        max_side: longer side in pixels, larger frames are shrunk.
        max_seconds: reading stops here.
        max_frames: and here.

    Raises:
        ClipError: if video or IMU cannot be used.
    """
    if camera_facing not in ("front", "rear"):
        raise ClipError(f"camera_facing is {camera_facing!r}; say front or rear.")
    video = Path(video)
    if is_image(video):
        frames, t = read_image(video, max_side=max_side)[None], np.zeros(1)
    else:
        frames, t = read_video(video, max_side=max_side, max_seconds=max_seconds, max_frames=max_frames + 1)
    cut = bool(len(t) > max_frames or t[-1] > max_seconds - 0.1)
    frames, t = frames[:max_frames], t[:max_frames]
    record = read_imu(imu) if isinstance(imu, (str, Path)) else imu
    if record is not None:
        record = normalise_imu(record, platform=platform, screen_angle=screen_angle)
    meta = {"camera_facing": camera_facing, "fps": _rate(t), "cut_short": cut}
    meta |= {"width": frames.shape[2], "height": frames.shape[1]}
    return Clip(
        clip_id=clip_id_for(video.name, len(t)), frames=frames, t=t, imu=record,
        camera_facing=camera_facing, meta=meta, source=str(video),
    )  # fmt: skip


def _rate(t: np.ndarray) -> float | None:
    return float((len(t) - 1) / t[-1]) if len(t) > 1 else None


# ---------------------------------------------------------------------------------------- manifest
def manifest_frame(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Rows as a table with the manifest's columns and nullable types; unknown is null.

    Extra columns are kept behind the known ones.

    Raises:
        ClipError: if clip_id is missing or repeated, or a value has the wrong type.
    """
    import pandas as pd

    table = pd.DataFrame(rows)
    extra = [name for name in table.columns if name not in _MANIFEST_TYPES]
    table = table.reindex(columns=[*MANIFEST_COLUMNS, *extra])
    try:
        table = table.astype(_MANIFEST_TYPES)
    except (ValueError, TypeError) as error:
        raise ClipError(f"manifest: a value has the wrong type ({error}).") from error
    if table["clip_id"].isna().any() or table["clip_id"].duplicated().any():
        raise ClipError("manifest: every row needs a clip_id of its own.")
    return table.reset_index(drop=True)


def write_manifest(root: str | Path, rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> Path:
    """Write ROOT/manifest.parquet, one row a clip, whole or not at all.

    Raises:
        ClipError: as `manifest_frame`.
    """
    path = Path(root) / "manifest.parquet"
    table = manifest_frame(rows)
    with _replacing(path) as part:
        table.to_parquet(part, index=False)
    return path


def read_manifest(root: str | Path) -> pd.DataFrame:
    """Read ROOT/manifest.parquet with nullable types.

    Raises:
        ClipError: if it is missing, damaged or not a manifest.
    """
    import pandas as pd

    path = Path(root) / "manifest.parquet"
    if not path.is_file():
        raise ClipError(f"{path}: no manifest; generate the data or point DATA_DIR at it.")
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # readers raise a dozen kinds of their own
        raise ClipError(f"{path}: damaged manifest; generate the data again.") from error
    missing = [name for name in ("clip_id", "is_bonafide", "split") if name not in table]
    if missing:
        raise ClipError(f"{path}: lacks the columns {missing}; see MANIFEST_COLUMNS.")
    return manifest_frame(table)
