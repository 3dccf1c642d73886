"""From the bytes of a request to a `Clip`, in bounded time and memory, or to a refusal.

In: a video and a JSON text with the capture time of every frame and the IMU samples, all by the
page's one clock. Out: one clip of the contract. Nothing here trusts a name, a type or a length that
the client gives.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np

from liveness_utils.clips import Clip, Imu, clip_id_for, normalise_imu, upright_rgb, validate_clip
from liveness_utils.perception import imu_quality
from liveness_utils.recorder import RecordRequest
from liveness_utils.web.limits import LIMITS, Limits
from liveness_utils.web.problems import UploadError

PLATFORMS = ("w3c", "ios_safari")
ANGLES = (0, 90, 180, 270)
CLOCKS = ("capture", "presentation")
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")
PRINT_SIDE = 8
_TEXT_BYTES = 2_000_000
_SAMPLES = 20_000
_CODE = re.compile(r"[A-Za-z0-9_-]{1,24}")
_KNOWN = {"nonce", "frames", "prints", "clock", "imu", "camera_facing", "record"}


@dataclass(frozen=True)
class Upload:
    """A request that is well formed; whether its parts fit together is `to_clip`'s to say.

    Attributes:
        video: bytes of an MP4 or WebM file. stamps: (M,) float64 s, capture time of each frame.
        prints: (M, 8, 8) uint8 grey thumbnails of the frames, or None. clock: what `stamps` is:
            capture, or presentation, which lags behind by an unknown part of a frame.
        imu: raw samples, same clock as `stamps`, W3C axes of upright video, or None.
        camera_facing: front or rear. nonce: of the session. record: or None.
        step: of the teaching that the clip is for, or None.
    """

    video: bytes
    stamps: np.ndarray
    prints: np.ndarray | None
    clock: str
    imu: Imu | None
    camera_facing: str
    nonce: str
    record: RecordRequest | None
    step: str | None = None


# ------------------------------------------------------------------------------------------ parsing
def parse(video: bytes, text: str, limits: Limits = LIMITS, *, steps: Sequence[str] = ()) -> Upload:
    """Read the two parts of a request.

    Args:
        video: content of the part ``video``. text: of the part ``meta``, a JSON object.
        limits: of counts. steps: names of which ``meta`` must give one as ``step``; else it has none.

    Raises:
        UploadError: 400 if something is missing, of the wrong type or out of range; 415 if the
            video is neither MP4 nor WebM.
    """
    held = _json_object(text, _KNOWN | ({"step"} if steps else set()))
    _container(video)
    return Upload(
        video=video,
        stamps=_stamps(held.get("frames"), limits),
        prints=_prints(held.get("prints"), len(held["frames"])),
        clock=_choice(held, "clock", CLOCKS),
        imu=_imu(held.get("imu"), limits),
        camera_facing=_choice(held, "camera_facing", ("front", "rear")),
        nonce=_nonce(held.get("nonce")),
        record=_record(held.get("record")),
        step=_step(held.get("step"), steps) if steps else None,
    )


def _bad(detail: str) -> UploadError:
    return UploadError(400, detail)


def _json_object(text: str, known: set[str]) -> Mapping[str, Any]:
    if not text or len(text) > _TEXT_BYTES:
        raise _bad(f"The part `meta` must be a JSON object of at most {_TEXT_BYTES} characters.")
    try:
        held = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad("The part `meta` is not valid JSON.") from error
    if not isinstance(held, dict) or set(held) - known:
        raise _bad(f"The part `meta` must be a JSON object with no other names than {sorted(known)}.")
    return held


def _no_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _choice(held: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> Any:
    """The value of an optional field, its first choice if absent; `True` is no 1 here."""
    value = held.get(name, known[0])
    if not any(type(value) is type(k) and value == k for k in known):
        raise _bad(f"`{name}` must be one of {list(known)}.")
    return value


def _step(value: Any, steps: Sequence[str]) -> str:
    if value not in steps:
        raise _bad(f"`step` must be one of {list(steps)}.")
    return value


def _nonce(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{8,64}", value):
        raise _bad("`nonce` must be the one that POST /api/v1/sessions gave.")
    return value


def _numbers(value: Any, columns: int | None, name: str, limit: int) -> np.ndarray:
    """A list of numbers (columns None) or of equal lists of them as float64; `limit` rows at most."""
    shape = "numbers" if columns is None else f"lists of {columns} numbers"
    wrong = _bad(f"`{name}` must be a list of 2 to {limit} {shape}.")
    if not isinstance(value, list) or not 2 <= len(value) <= limit:
        raise wrong
    rows = [value] if columns is None else value
    width = len(value) if columns is None else columns
    if not all(isinstance(r, list) and len(r) == width and all(type(v) in (int, float) for v in r) for r in rows):
        raise wrong
    try:
        numbers = np.array(value, np.float64)
    except (OverflowError, ValueError) as error:
        raise wrong from error
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e9:
        raise wrong
    return numbers


def _stamps(value: Any, limits: Limits) -> np.ndarray:
    stamps = _numbers(value, None, "frames", limits.max_frames) / 1e3
    if np.any(np.diff(stamps) <= 0):
        raise _bad("`frames` must increase: one capture time in milliseconds for each frame.")
    return stamps


def _prints(value: Any, count: int) -> np.ndarray | None:
    if value is None:
        return None
    size = PRINT_SIDE**2
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != count * size:
        raise _bad(f"`prints` must be base64 of {size} grey values for each of the {count} frames.")
    return np.frombuffer(raw, np.uint8).reshape(count, PRINT_SIDE, PRINT_SIDE)


def _imu(value: Any, limits: Limits) -> Imu | None:
    """Samples as the browser gives them (ms, m/s², °/s) in this course's units and axes."""
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) - {"platform", "screen_angle", "samples"}:
        raise _bad("`imu` must be null or an object with platform, screen_angle and samples.")
    platform, angle = _choice(value, "platform", PLATFORMS), _choice(value, "screen_angle", ANGLES)
    rows = _numbers(value.get("samples"), 7, "imu.samples", limits.imu_samples)
    if np.any(np.diff(rows[:, 0]) <= 0):
        raise _bad("`imu.samples` must increase in time.")
    raw = Imu(rows[:, 0] / 1e3, rows[:, 1:4].astype(np.float32), rows[:, 4:7].astype(np.float32))
    return normalise_imu(raw, platform=platform, screen_angle=angle, gyro_unit="deg/s")


def _record(value: Any) -> RecordRequest | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) - {"label", "subject", "device", "consent"}:
        raise _bad("`record` must be null or an object with label, subject, device and consent.")
    label, consent = value.get("label"), value.get("consent")
    if not isinstance(label, str) or len(label) > 40 or type(consent) is not bool:
        raise _bad("`record` needs a label and consent, true or false.")
    device = value.get("device")
    return RecordRequest(
        label, _code(value.get("subject"), "subject"), None if device is None else _code(device, "device"), consent
    )


def _code(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        raise _bad(f"`record.{name}` must be a code of 1 to 24 letters, digits, '-' or '_'; no names.")
    return value


# ----------------------------------------------------------------------------------------- decoding
def _container(video: bytes) -> str:
    """The demuxer by the file's first bytes: no other is ever tried, so that none can follow a link."""
    if video[4:8] == b"ftyp":
        return "mov"
    if video[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    raise UploadError(415, "The part `video` is neither MP4 nor WebM; record it as one of these.")


def decode(video: bytes, limits: Limits = LIMITS) -> tuple[np.ndarray, np.ndarray]:
    """Decode a video within bounds.

    Args:
        video: MP4 or WebM. limits: of pixels, frames, seconds, memory and time.

    Returns:
        frames (N, H, W, 3) uint8 RGB upright, no side longer than `limits.side`; (N,) float64 s
        as the file tells them.

    Raises:
        UploadError: 415 for another container or codec, 413 beyond a limit, 422 if damaged.
    """
    _check_counts(video)
    options = {"max_pixels": str(limits.pixels), "max_streams": "4", "analyzeduration": "1000000"}
    try:
        with av.open(io.BytesIO(video), format=_container(video), options=options) as container:
            images, times = _frames(container, limits)
    except UploadError:
        raise
    except Exception as error:  # damaged files reach every corner of the decoder
        raise UploadError(422, "The video is damaged and cannot be decoded; record it again.") from error
    if len(images) < 2 or not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
        raise UploadError(422, "The video's frame times do not increase; record it again.")
    frames = np.empty((len(images), *images[0].shape), np.uint8)
    for k in range(len(images)):  # letting go of each as it is copied: half the peak of np.stack
        frames[k], images[k] = images[k], None
    return frames, np.array(times, np.float64)


def _check_counts(video: bytes) -> None:
    """Refuse an MP4 that announces millions of samples: the demuxer makes a table of them first.

    A file of a kilobyte can so ask for gigabytes. Any place that looks like such a box is checked,
    whether or not it is one: by chance that is true of one good file in ten thousand.
    """
    for box, offset in ((b"stsz", 12), (b"stz2", 12), (b"trun", 8)):
        place = video.find(box)
        while place >= 0:
            if int.from_bytes(video[place + offset : place + offset + 4], "big") > _SAMPLES:
                raise UploadError(422, "The video's index is damaged; record it again.")
            place = video.find(box, place + 4)


def _frames(container: Any, limits: Limits) -> tuple[list[np.ndarray], list[float]]:
    stream = _stream(container, limits)
    deadline, images, times = time.monotonic() + limits.decode_seconds, [], []
    for frame in _decoded(container, stream, deadline):
        if frame.pts is None or frame.is_corrupt or frame.width * frame.height > limits.pixels:
            raise UploadError(422, "A frame of the video is damaged, too large or without time; record it again.")
        seconds = float(frame.pts * frame.time_base)
        _within(limits, len(images) + 1, seconds - (times[0] if times else seconds))
        images.append(upright_rgb(frame, None, limits.side))
        times.append(seconds)
        if images[-1].shape != images[0].shape or min(images[0].shape[:2]) < 64:
            raise UploadError(422, "The picture changes size or is under 64 pixels; record it again.")
        if len(images) * images[0].nbytes > limits.decoded_bytes:
            raise UploadError(413, "The video takes too much memory; record it shorter or smaller.")
    return images, times


def _stream(container: Any, limits: Limits) -> Any:
    if len(container.streams.video) != 1 or container.streams.video[0].codec_context is None:
        raise UploadError(422, "The file must hold exactly one video track that can be decoded.")
    stream = container.streams.video[0]
    codec = stream.codec_context
    if codec.name not in CODECS and codec.codec.canonical_name not in CODECS:
        raise UploadError(415, f"The video's codec must be one of {', '.join(CODECS)}.")
    if codec.width * codec.height > limits.pixels:
        raise UploadError(413, f"Frames must have at most {limits.pixels} pixels; record them smaller.")
    stream.thread_type = "NONE"
    codec.options = {"err_detect": "crccheck+bitstream+buffer+explode"}  # no guessing what damage hid
    return stream


def _decoded(container: Any, stream: Any, deadline: float) -> Iterator[Any]:
    """Frames in order; the clock is looked at for every packet, also where none gives a frame."""
    for packet in container.demux(stream):
        if time.monotonic() > deadline:
            raise UploadError(413, "The video takes too long to decode; record it shorter or smaller.")
        yield from packet.decode()


def _within(limits: Limits, count: int, seconds: float) -> None:
    if count > limits.max_frames or seconds > limits.max_seconds:
        raise UploadError(413, f"Record at most {limits.max_seconds:.0f} s and {limits.max_frames} frames.")


# ----------------------------------------------------------------------------------------- aligning
@dataclass(frozen=True)
class Alignment:
    """How the video's times lie on the page's clock.

    Attributes:
        offset: s, added to the video's times. matched: share of frames with a capture time near.
        residual: s, median distance of these. drift: relative, of one clock to the other.
        difference: mean absolute grey difference of matching thumbnails (0..255), NaN without.
    """

    offset: float
    matched: float
    residual: float
    drift: float
    difference: float


def align(t: np.ndarray, stamps: np.ndarray, small: np.ndarray, prints: np.ndarray | None) -> Alignment:
    """Find where a recording without an exact start lies among the capture times of its frames.

    Evenly spaced frames fit at many places, one frame apart; the thumbnails tell which is right,
    and that the times are of these pictures.

    Args:
        t: (N,) s of the decoded frames. stamps: (M,) s. small: (N, 8, 8) float32 grey thumbnails of
            the decoded frames. prints: (M, 8, 8) uint8 by the page, or None.

    Returns:
        the best `Alignment`; whether it is good enough is `disagreements`' to say.
    """
    anchors = t[[0, len(t) // 2, len(t) - 1]]
    candidates = np.unique((stamps[:, None] - anchors).round(4))
    found = [_fit(t, stamps, small, prints, offset) for offset in candidates]
    most = max(a.matched for a in found)
    return min((a for a in found if a.matched >= 0.9 * most), key=lambda a: _cost(a, t, stamps))


def _cost(a: Alignment, t: np.ndarray, stamps: np.ndarray) -> tuple[float, float]:
    """Grey levels first, to a tenth; then misfit in time, and the ends that stick out."""
    ends = abs(t[0] + a.offset - stamps[0]) + abs(t[-1] + a.offset - stamps[-1])
    grey = 0.0 if math.isnan(a.difference) else round(a.difference, 1)
    return grey, a.residual + 0.01 * ends


def _fit(t: np.ndarray, stamps: np.ndarray, small: np.ndarray, prints: np.ndarray | None, offset: float) -> Alignment:
    right = np.clip(np.searchsorted(stamps, t + offset), 1, len(stamps) - 1)
    nearest = right - (t + offset - stamps[right - 1] < stamps[right] - t - offset)
    error = stamps[nearest] - t - offset
    near = np.abs(error) < 0.6 * float(np.median(np.diff(stamps)))
    if near.sum() < 2:
        return Alignment(offset, 0.0, math.inf, math.inf, math.nan)
    shift = float(np.median(error[near]))
    slope = float(np.polyfit(t[near], error[near], 1)[0])
    grey = math.nan if prints is None else _difference(small[near], prints[nearest[near]])
    return Alignment(offset + shift, float(near.mean()), float(np.median(np.abs(error[near] - shift))), slope, grey)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of thumbnails, brightness and contrast of each clip set aside."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    b = (b - b.mean()) * (a.std() / max(float(b.std()), 1e-3)) + a.mean()
    return float(np.abs(a - b).mean())


def disagreements(found: Alignment, t: np.ndarray, stamps: np.ndarray, clock: str) -> list[str]:
    """Sentences on everything in which video and uploaded times contradict each other."""
    tolerance = 0.012 if clock == "capture" else 0.020
    length, told = float(t[-1] - t[0]), float(stamps[-1] - stamps[0])
    checks = [
        (abs(length - told) > 0.35, f"the video lasts {length:.2f} s, its frames' times {told:.2f} s"),
        (not 0.7 <= len(t) / len(stamps) <= 1.4, f"{len(t)} frames in the video, {len(stamps)} times"),
        (found.matched < 0.8, f"only {100 * found.matched:.0f} % of the frames have their time"),
        (found.residual > tolerance, f"frame times differ by {1e3 * found.residual:.0f} ms"),
        (abs(found.drift) > 0.02, "the video's clock and the frames' times run at different speeds"),
        (found.difference > 24.0, "the frame times belong to other pictures"),
    ]
    return [sentence for failed, sentence in checks if failed]


# ---------------------------------------------------------------------------------------- composing
def to_clip(
    upload: Upload, limits: Limits = LIMITS, *, lap: Callable[[str], None] = lambda _: None
) -> tuple[Clip, Alignment]:
    """Decode an upload and set its parts on one clock.

    Args:
        upload: as `parse` gives it. limits: of `decode`. lap: called with ``decode`` and ``align``
            when that is done.

    Returns:
        the clip, its times from the first frame, and the alignment found.

    Raises:
        UploadError: 413, 415 or 422; see `decode`, `disagreements`, `clips.validate_clip` and
            `imu_quality.problems`.
    """
    frames, t = decode(upload.video, limits)
    lap("decode")
    small = np.stack([_thumbnail(frame) for frame in frames])
    found = align(t, upload.stamps, small, upload.prints)
    problems = disagreements(found, t, upload.stamps, upload.clock)
    if problems:
        raise UploadError(422, "The recording contradicts itself: " + "; ".join(problems) + ".")
    imu = None if upload.imu is None else _on_clip_clock(upload.imu, t[0] + found.offset, t[-1] - t[0])
    clip = Clip(
        clip_id=clip_id_for(upload.nonce), frames=frames, t=t - t[0], imu=imu,
        camera_facing=upload.camera_facing, source="upload",
    )  # fmt: skip
    wrong = [p.removeprefix("upload: ") for p in validate_clip(clip)]
    if imu is not None and not wrong:
        wrong = [f"{problem}." for problem in imu_quality.problems(imu, 0.0, float(clip.t[-1]))]
    if wrong:
        raise UploadError(422, "The recording cannot be used: " + " ".join(wrong))
    lap("align")
    return clip, found


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (PRINT_SIDE, PRINT_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _on_clip_clock(imu: Imu, start: float, length: float) -> Imu:
    t = imu.t - start
    keep = (t >= -1.0) & (t <= length + 0.5)
    return Imu(t[keep], imu.accel[keep], imu.gyro[keep])
