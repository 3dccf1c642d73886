"""The verdict on a stream or a recording: landmarks, cues and the bundle's model in one loop.

Frames and IMU samples come in as they are filmed; a `Verdict` goes out to `widget`, `web` and
`cli`. Needs neither torch nor tensorflow. Every failure rejects.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from liveness_utils import inputs
from liveness_utils.bundle import (
    SHORT,
    Bundle,
    OnnxModel,
    TfliteModel,
    load,
    open_clip_model,
    open_step_model,
    run_steps,
)
from liveness_utils.clips import Clip, Imu, Intrinsics, imu_windows, network_frame_count, network_frame_indices
from liveness_utils.config import plain
from liveness_utils.cues import FEATURE_SCALE, FRAME_FEATURES, FeatureExtractor
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment.camera import Evidence, TaughtCamera
from liveness_utils.errors import BundleError, LivenessError, SessionError
from liveness_utils.landmarks import FaceTracker, Landmarker, face_crop
from liveness_utils.perception import imu_quality

DECISIONS = ("bona_fide", "not_sure", "attack", "no_decision")
MAX_PIXELS = 4096 * 4096
MAX_FRAME_GAP = 0.25
# The last instant of the grid is at 2.4 s; the frame after it may come a longest gap later.
JUDGED_SECONDS = (inputs.FRAMES - 1) / inputs.RATE + MAX_FRAME_GAP
IMU_MEMORY = 30.0
GRID_SLACK = 1e-6
_VIDEO_RATES = [FRAME_FEATURES.index(f"video_rate_{axis}") for axis in "xyz"]


@dataclass(frozen=True)
class Verdict:
    """What was decided, and why.

    Attributes:
        decision: bona_fide, not_sure, attack or no_decision; only the first one accepts. *Not sure* is what a challenge
            (`challenge`) decides, and rejects without one.
        score: P(bona fide), or None without a decision.
        threshold: the score at which a clip is accepted, or None without a decision.
        reasons: sentences; why there is no decision, or why the score rejects.
        quality: measured input quality, see `inputs.summarise_quality`.
        cues: the features of the last frame by name in their own units (`cues.FRAME_FEATURES`),
            the network's consistency and species.
        timings_ms: landmarks, features and model.
        dev: the threshold's errors on the dev set, as `metrics.Threshold.as_dict`.
        notes: sentences on what was converted before it was judged, such as units, and on what the taught camera was
            not taught.
        camera: what the taught camera rests on, as numbers (`camera.Reading`): pixels, motion, mask, distance; {} without one.
    """

    decision: str
    score: float | None = None
    threshold: float | None = None
    reasons: tuple[str, ...] = ()
    quality: dict[str, float] = field(default_factory=dict)
    cues: dict[str, Any] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    dev: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    camera: dict[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """One line for a person.

        >>> dev = {"target": 0.01, "apcer": {"value": 0.01}}
        >>> Verdict("bona_fide", 0.934, 0.71, dev=dev).sentence
        'bona fide 0.93 ≥ 0.71 (dev: APCER 1 %)'
        >>> Verdict("no_decision", reasons=("no face in 25 of 25 frames",)).sentence
        'no decision: no face in 25 of 25 frames'
        """
        if self.decision == "no_decision" or self.score is None or self.threshold is None:
            return "no decision: " + ("; ".join(self.reasons) or "no reason was recorded")
        word, sign = self.decision.replace("_", " "), "≥" if self.decision == "bona_fide" else "<"
        score, threshold = _told_apart(self.score, self.threshold)
        rate = self.dev.get("apcer", {}).get("value")
        known = f" (dev: APCER {100 * rate:.3g} %)" if rate is not None else ""
        known = " (taught camera)" if self.camera else known
        return f"{word} {score} {sign} {threshold}{known}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold; numbers that are not finite become None."""
        return plain(asdict(self) | {"sentence": self.sentence})

    def to_json(self) -> str:
        """The verdict as one JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


def _told_apart(score: float, threshold: float) -> tuple[str, str]:
    """Both numbers with as many digits as it takes to see which is larger."""
    for digits in range(2, 10):
        a, b = f"{score:.{digits}f}", f"{threshold:.{digits}f}"
        if a != b or score == threshold:
            return a, b
    return a, b


def no_decision(*reasons: str, **known: Any) -> Verdict:
    """A verdict that rejects, with its reasons."""
    return Verdict("no_decision", reasons=tuple(reasons), **known)


# ---------------------------------------------------------------------------------------- deciding
def decide(
    bundle: Bundle,
    out: Mapping[str, np.ndarray],
    presence: np.ndarray,
    quality: dict[str, float],
    camera: TaughtCamera | None = None,
    seen: Evidence | None = None,
    **known: Any,
) -> Verdict:
    """Hold a model's output against the gates and the bundle's threshold, or against a taught camera.

    Args:
        bundle: with thresholds and limits. out: outputs of the clip or the step model.
        presence: (3,) what the clip has. quality: see `inputs.summarise_quality`.
        camera: judges in place of the threshold. seen: of the same clip, for the camera.
        known: cues and timings_ms, passed on to the verdict.

    Returns:
        bona_fide only if no gate objects, and the score is a number at or above the threshold.
    """
    reasons = inputs.quality_reasons(quality, inputs.limits_from(dict(bundle.quality)))
    if reasons:
        return no_decision(*reasons, quality=quality, **known)
    try:
        threshold = bundle.threshold(presence, int(quality["frames"]))
    except BundleError as error:
        return no_decision(str(error), quality=quality, **known)
    score = _probability(out.get("logit"))
    if score is None:
        return no_decision("the model gave no number", quality=quality, **known)
    known = {**known, "cues": known.get("cues", {}) | _opinions(bundle, out, presence)}
    if camera is not None:
        if seen is None or not np.isfinite([seen.motion, *seen.embedding, *seen.statistics]).all():
            return no_decision("the model gave no numbers for the taught camera", quality=quality, **known)
        return _by_camera(camera.judge(seen), quality, **known)
    value, frames = float(threshold["value"]), int(quality["frames"])
    if score >= value:
        return Verdict("bona_fide", score, value, (), quality, dev=threshold, **known)
    decision = "not_sure" if bundle.floor(presence, frames) <= score else "attack"
    return Verdict(decision, score, value, _suspicions(known["cues"]), quality, dev=threshold, **known)


def _by_camera(found: cameras.Reading, quality: dict[str, float], **known: Any) -> Verdict:
    rests = {name: getattr(found, name) for name in ("pixels", "motion", "mask", "distance")}
    return Verdict(
        found.decision, found.score, 0.5, found.reasons, quality, notes=found.notes, camera=rests, **known
    )  # fmt: skip


def _probability(logit: Any) -> float | None:
    value = float(np.ravel(logit)[0]) if logit is not None and np.size(logit) else math.nan
    if not math.isfinite(value):
        return None
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, value))))


def _opinions(bundle: Bundle, out: Mapping[str, np.ndarray], presence: np.ndarray) -> dict[str, Any]:
    """The network's side outputs by name: IMU consistency and the likeliest species."""
    told: dict[str, Any] = {}
    if presence[2] > 0.5:
        told["consistency"] = _probability(out.get("consistency"))
    species = np.ravel(out.get("species", []))
    if len(species) == len(bundle.species) and np.isfinite(species).all():
        told["species"] = bundle.species[int(species.argmax())]
    return told


def _suspicions(cues: Mapping[str, Any]) -> tuple[str, ...]:
    reasons = []
    consistency = cues.get("consistency")
    if consistency is not None and consistency < 0.5:
        reasons.append("the phone's motion does not fit the video")
    if cues.get("species") not in (None, "bona_fide"):
        reasons.append(f"looks most like {cues['species'].replace('_', ' ')}")
    return tuple(reasons) or ("the score is below the threshold",)


# ----------------------------------------------------------------------------------------- session
@dataclass(frozen=True)
class _Frame:
    """One frame with what was seen in it; cropped only if the network is to see it."""

    t: float
    image: np.ndarray
    box: np.ndarray | None
    features: np.ndarray
    n_faces: int
    points: np.ndarray | None


@dataclass(frozen=True)
class _Chosen:
    """One of the network's frames: its crop, `inputs.frame_quality` row, IMU window and its validity."""

    t: float
    crop: np.ndarray
    features: np.ndarray
    quality: np.ndarray
    imu: np.ndarray
    imu_valid: bool


@dataclass(frozen=True)
class Seen:
    """What a session saw in the last frame, for display.

    Attributes:
        n_faces: in view. box: (4,) x, y, w, h in px of the last face there was, or None.
        cues: features by name in their own units (`cues.FRAME_FEATURES`).
        quality: `inputs.frame_quality` row of the network's last frame, or None before the first.
    """

    n_faces: int
    box: np.ndarray | None
    cues: dict[str, float]
    quality: np.ndarray | None


class _ImuBuffer:
    """The last seconds of IMU samples, in order of time."""

    def __init__(self) -> None:
        self._rows = np.zeros((0, 7))

    def push(self, rows: np.ndarray) -> np.ndarray:
        """Append (m, 7) rows t, ax … gz; returns those that are new, finite and in order."""
        rows = rows[np.isfinite(rows).all(axis=1)]
        last = self._rows[-1, 0] if len(self._rows) else -math.inf
        ahead = np.maximum.accumulate(np.concatenate([[last], rows[:, 0]]))[:-1]
        rows = rows[rows[:, 0] > ahead]
        kept = np.concatenate([self._rows, rows])
        self._rows = kept[kept[:, 0] >= kept[-1, 0] - IMU_MEMORY] if len(kept) else kept
        return rows

    @property
    def record(self) -> Imu:
        """What is held, as one record."""
        return Imu(self._rows[:, 0], self._rows[:, 1:4].astype(np.float32), self._rows[:, 4:7].astype(np.float32))

    def window(self, t: float) -> tuple[np.ndarray, bool]:
        """(32, 6) samples that had arrived by t, and whether they were recorded."""
        windows, valid = imu_windows(self.record, np.array([t]))
        return windows[0], bool(valid[0])


class LivenessSession:
    """Judges one person in front of one camera while the frames come in.

    Each of the network's frames (10 Hz, chosen by time) runs the step model once, so that a score
    is there while filming; `verdict` runs the whole-clip model on the last 25 of them, or from 1.2 s on as many as
    there are, at a threshold chosen for that length. Calls from several threads are put in line.

    Motion data that were given or promised (`expect_imu`) and are then missing or broken
    (`imu_quality.problems`) are a reason for no decision: less evidence never helps.

    Args:
        bundle: a folder, or a bundle already loaded.
        intrinsics: of the camera, or None. facing: front or rear. threads: of the model.
        stream: also run the step model.
        require_imu: expect motion data of everyone.
        camera: a taught camera, or its file.

    Raises:
        BundleError: the bundle is refused. LandmarkError: MediaPipe or its model is missing. CameraError: the camera's
        file is refused.

    Example: see notebook 08.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        intrinsics: Intrinsics | None = None,
        facing: str = "front",
        threads: int = 1,
        stream: bool = True,
        require_imu: bool = False,
        camera: TaughtCamera | str | Path | None = None,
    ) -> None:
        self.require_imu = require_imu
        self.bundle = bundle if isinstance(bundle, Bundle) else load(bundle)
        self.camera = camera if isinstance(camera, TaughtCamera | None) else cameras.load(camera, self.bundle)
        if self.bundle.feature_names != FRAME_FEATURES:
            raise BundleError(
                f"{self.bundle.folder}: was exported for other features than this program measures; "
                "export it again with this version."
            )
        self.intrinsics, self.facing = intrinsics, facing
        self._fill = np.asarray(self.bundle.feature_fill, np.float32)
        self._clip_model = open_clip_model(self.bundle, threads)
        self._step_model = open_step_model(self.bundle, threads) if stream else None
        self._threads, self._stream = threads, stream
        self._landmarker = Landmarker()
        self._lock = threading.RLock()
        self._begin()

    def __enter__(self) -> LivenessSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the landmarker; the session cannot be used afterwards."""
        with self._lock:
            self._landmarker.close()

    def reset(self, *, intrinsics: Intrinsics | None = None, facing: str | None = None) -> None:
        """Forget what was seen, for the next person or the next clip."""
        with self._lock:
            self.intrinsics, self.facing = intrinsics, facing or self.facing
            self._landmarker.reset()
            self._begin()

    def _begin(self) -> None:
        self._tracker = FaceTracker(self._landmarker)
        self._extractor = FeatureExtractor(self.intrinsics, self.facing)
        self._imu, self._imu_expected = _ImuBuffer(), self.require_imu
        self._chosen: deque[_Chosen] = deque(maxlen=inputs.FRAMES)
        self._turning: deque[tuple[float, np.ndarray]] = deque(maxlen=512)
        self._before: _Frame | None = None
        self._start, self._grid, self._box = math.nan, 0, None
        self._problem = ""
        self._steps, self._state, self._score = 0, {}, None
        self._small_before: np.ndarray | None = None
        self._evidence: Evidence | None = None
        self._spent: dict[str, float] = {"landmarks": 0.0, "features": 0.0, "model": 0.0}
        self._pushed = 0

    # -- input
    def expect_imu(self) -> None:
        """Promise motion data, as of a phone that has shown its sensors: until `reset`, no verdict without them."""
        with self._lock:
            self._imu_expected = True

    def push_imu(self, samples: np.ndarray | Imu) -> None:
        """Take in IMU samples, before or after the frames of their time; from the first one on they are expected.

        Args:
            samples: (m, 7) t, ax, ay, az, gx, gy, gz (s, m/s², rad/s; W3C device axes), or `Imu`.

        Raises:
            SessionError: of another shape, or of one sensor alone.
        """
        if isinstance(samples, Imu):
            if samples.accel is None or samples.gyro is None:
                self.expect_imu()
                raise SessionError("IMU samples must be of both sensors, accelerometer and gyroscope.")
            samples = np.column_stack([samples.t, samples.accel, samples.gyro])
        rows = np.asarray(samples, np.float64)
        if rows.ndim != 2 or rows.shape[1] != 7:
            raise SessionError(f"IMU samples must be (m, 7): t, ax, ay, az, gx, gy, gz; got {rows.shape}.")
        with self._lock:
            self._imu_expected |= len(rows) > 0
            fresh = self._imu.push(rows)
            if len(fresh):
                self._extractor.push_imu(fresh[:, 0], fresh[:, 4:7])

    def push(self, frame: np.ndarray, t: float) -> float | None:
        """Take in one frame.

        Args:
            frame: (H, W, 3) uint8 RGB, upright, unmirrored. t: seconds, increasing.

        Returns:
            the streaming score P(bona fide) so far, or None; it is for display, `verdict` decides.

        Raises:
            SessionError: the frame is no such picture or time goes back, and it was not used; or it
                failed half way, and then there is no verdict until `reset`.
        """
        with self._lock:
            self._check(frame, t)
            try:
                self._take(frame, float(t))
            except Exception as error:
                self._problem = f"a frame could not be processed ({error})"
                raise SessionError(self._problem) from error
            return self._score

    def finish(self) -> None:
        """Say that no frame follows: the last one stands in for an instant just after it."""
        with self._lock:
            due = self._start + self._grid / inputs.RATE
            if self._before is not None and due - self._before.t <= 0.5 / inputs.RATE:
                self._accept(self._before)
                self._grid += 1

    def _check(self, frame: np.ndarray, t: float) -> None:
        shape = getattr(frame, "shape", ())
        if len(shape) != 3 or shape[2] != 3 or frame.dtype != np.uint8 or min(shape[:2]) < 16:
            raise SessionError(f"A frame must be (H, W, 3) uint8 RGB of 16 px or more, not {shape}.")
        if shape[0] * shape[1] > MAX_PIXELS:
            raise SessionError(f"A frame of {shape[1]} x {shape[0]} px is too large; scale it down.")
        if not math.isfinite(t) or (self._before is not None and t <= self._before.t):
            raise SessionError(f"Frame times must increase; {t} s came after {getattr(self._before, 't', None)} s.")

    def _take(self, frame: np.ndarray, t: float) -> None:
        if self._before is not None and t - self._before.t > MAX_FRAME_GAP:
            # A pause breaks the clip: what came before it cannot be joined to what follows.
            self._chosen.clear()
            self._start, self._grid, self._steps, self._state, self._score = t, 0, 0, {}, None
            self._before = None
        now = self._look(frame, t)
        if math.isnan(self._start):
            self._start = t
        self._choose(now)
        self._before, self._pushed = now, self._pushed + 1

    def _look(self, frame: np.ndarray, t: float) -> _Frame:
        begin = time.perf_counter()
        face, count = self._tracker.push(frame, t, self.intrinsics)
        seen = time.perf_counter()
        features = self._extractor.push(frame, t, face)
        self._turning.append((t, (features * FEATURE_SCALE)[_VIDEO_RATES]))
        self._box = self._box if face is None else face.box
        self._spent["landmarks"] += seen - begin
        self._spent["features"] += time.perf_counter() - seen
        # A copy: cameras often fill the same buffer again.
        return _Frame(t, frame.copy(), self._box, features, count, None if face is None else face.points)

    def _choose(self, now: _Frame) -> None:
        """Pick for every instant of the 10 Hz grid the nearer of the frames around it."""
        while now.t >= (due := self._start + self._grid / inputs.RATE) - GRID_SLACK:
            old = self._before
            nearest = now if old is None or not due - old.t < now.t - due else old
            self._accept(nearest)
            self._grid += 1

    def _accept(self, frame: _Frame) -> None:
        crop = face_crop(frame.image, frame.box, inputs.CROP, inputs.MARGIN)
        small, before = inputs.thumbnail(frame.image), self._small_before if self._chosen else None
        quality = inputs.frame_quality(crop, frame.n_faces, frame.points, small, before)
        self._small_before = small
        window, valid = self._imu.window(frame.t)
        chosen = _Chosen(frame.t, crop, frame.features, quality, window, valid)
        self._chosen.append(chosen)
        if self._stream:
            self._step(chosen)

    def _step(self, chosen: _Chosen) -> None:
        """One step of the streaming score, which starts anew every 25 frames."""
        begin = time.perf_counter()
        if self._steps % inputs.FRAMES == 0:
            shapes = self._step_model.input_shapes
            self._state = {k: np.zeros(shapes[k], np.float32) for k in ("h", "c")}
        fed = {
            "frame": chosen.crop[None].astype(np.float32) / np.float32(255.0),
            "features": inputs.fill_missing(chosen.features, self._fill)[None],
            "imu": chosen.imu[None],
            "presence": np.array([[1.0, np.isfinite(chosen.features).any(), chosen.imu_valid]], np.float32),
        }
        out = self._step_model(**fed, **self._state)
        self._state = {k: out[k] for k in ("h", "c")}
        self._steps += 1
        self._score = _probability(out["logit"])
        self._spent["model"] += time.perf_counter() - begin

    # -- output
    @property
    def score(self) -> float | None:
        """The streaming score of the frames so far; for display."""
        return self._score

    @property
    def progress(self) -> float:
        """How much of a clip is there, 0..1."""
        return len(self._chosen) / inputs.FRAMES

    @property
    def seen(self) -> Seen | None:
        """What was in the last frame; None before the first."""
        with self._lock:
            now = self._before
            quality = self._chosen[-1].quality if self._chosen else None
            return None if now is None else Seen(now.n_faces, now.box, _by_name(now.features), quality)

    @property
    def evidence(self) -> Evidence | None:
        """What the last `verdict` measured, for `teaching.label`; None where there was no decision."""
        return self._evidence

    @property
    def timings_ms(self) -> dict[str, float]:
        """Milliseconds spent so far on landmarks, features and the step model, and the number of frames."""
        return {k: 1e3 * v for k, v in self._spent.items()} | {"frames": float(self._pushed)}

    def verdict(self) -> Verdict:
        """Decide on the last 2.5 s, or on all there is from 1.2 s on.

        Returns:
            a `Verdict`; whatever fails on the way is a reason for no decision.
        """
        with self._lock:
            try:
                return self._verdict()
            except Exception as error:
                return no_decision(f"the input could not be judged ({error})")

    def _verdict(self) -> Verdict:
        self._evidence = None
        rows = np.array([c.quality for c in self._chosen])
        t = np.array([c.t for c in self._chosen])
        quality = inputs.summarise_quality(rows, t)
        if self._problem:
            return no_decision(self._problem, quality=quality)
        if len(self._chosen) < SHORT[0]:
            need = (SHORT[0] - 1) / inputs.RATE
            return no_decision(f"too short: {quality['seconds']:.1f} s of at least {need:.1f} s", quality=quality)
        broken = self._imu_problems(float(t[0]), float(t[-1])) if self._imu_expected else ()
        if broken:
            return no_decision(*broken, quality=quality)
        fed, presence = self._model_input()
        begin = time.perf_counter()
        whole = len(self._chosen) == inputs.FRAMES
        out = self._clip_model(**fed) if whole else run_steps(self._steps_of_a_short_clip(), **fed)
        spent = self.timings_ms | {"clip": 1e3 * (time.perf_counter() - begin)}
        last = _by_name(self._chosen[-1].features)
        seen = self._evidence_of(out, presence)
        found = decide(self.bundle, out, presence, quality, self.camera, seen, cues=last, timings_ms=spent)
        rejects = presence[2] and found.decision in ("attack", "not_sure")
        apart = self._out_of_step(float(t[0])) if rejects else ()
        if apart:
            return no_decision(*apart, quality=quality, cues=found.cues, timings_ms=spent)
        self._evidence = None if found.decision == "no_decision" else seen
        return found

    def _evidence_of(self, out: Mapping[str, np.ndarray], presence: np.ndarray) -> Evidence | None:
        """What a taught camera needs; None where the model does not give it."""
        if "pixels" not in out or "embedding" not in out:
            return None
        try:
            limit = float(self.bundle.threshold(presence, len(self._chosen))["value"])
        except BundleError:
            return None
        motion = float(np.ravel(out["logit"])[0] - np.ravel(out["pixels"])[0])
        height, width = self._before.image.shape[:2]
        crops = np.stack([c.crop for c in self._chosen])
        embedding = np.ravel(out["embedding"]).astype(np.float64)
        return Evidence(
            embedding, cameras.image_statistics(crops), motion, math.log(limit / (1 - limit)), (width, height)
        )

    def _steps_of_a_short_clip(self) -> TfliteModel | OnnxModel:
        """The model that judges as many frames as there are: the whole-clip model takes 25."""
        self._step_model = self._step_model or open_step_model(self.bundle, self._threads)
        return self._step_model

    def _imu_problems(self, start: float, stop: float) -> tuple[str, ...]:
        found = imu_quality.problems(self._imu.record, start, stop)
        late = sum(not c.imu_valid for c in self._chosen)
        if late and not found:
            count = len(self._chosen)
            return (f"motion samples came after {late} of {count} frames that they belong to; send them first",)
        return found

    def _out_of_step(self, start: float) -> tuple[str, ...]:
        """Whether a record that does not fit the video would, at another time."""
        t, rates = (np.array(v) for v in zip(*self._turning, strict=True))
        later = t >= start
        return imu_quality.out_of_step(self._imu.record, self.facing, t[later], rates[later])

    def _model_input(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        features = np.stack([c.features for c in self._chosen])
        valid = np.array([c.imu_valid for c in self._chosen])
        presence = inputs.presence_of(features, valid)
        frames = np.stack([c.crop for c in self._chosen]).astype(np.float32) / np.float32(255.0)
        fed = {
            "frames": frames[None],
            "features": inputs.fill_missing(features, self._fill)[None],
            "imu": inputs.hold_imu(np.stack([c.imu for c in self._chosen]), valid)[None],
            "presence": presence[None],
        }
        return fed, presence


def _by_name(features: np.ndarray) -> dict[str, float]:
    """One frame's features in their own units."""
    return {n: float(v) for n, v in zip(FRAME_FEATURES, features * FEATURE_SCALE, strict=True)}


# --------------------------------------------------------------------------------------- recordings
def predict_clip(clip: Clip, bundle: Bundle | str | Path, *, session: LivenessSession | None = None) -> Verdict:
    """Judge a recording by its first 2.5 s, or by all of it if it lasts 1.2 s or more; landmarks once.

    Args:
        clip: any clip (`clips.load_recording` reads a bare video). A motion record that it has must
            be evidence (`imu_quality.problems`), else there is no decision.
        bundle: folder or loaded.
        session: one to use again (it is reset), else one is opened and closed.

    Returns:
        a `Verdict`, for every readable clip.

    Raises:
        BundleError: the bundle is refused. LandmarkError: MediaPipe or its model is missing.
    """
    if session is None:
        with LivenessSession(bundle, stream=False) as own:
            return predict_clip(clip, bundle, session=own)
    begin = time.perf_counter()
    if len(clip.t) == 1:
        return _predict_still(clip, session)
    session.reset(intrinsics=clip.intrinsics, facing=clip.camera_facing)
    notes = () if clip.imu is None else clip.imu.notes
    try:
        count = max(network_frame_count(clip.t), SHORT[0])
        judged = clip.t[network_frame_indices(clip.t, count)]  # raises where the clip is too short or pauses
        if clip.imu is not None:
            broken = imu_quality.problems(clip.imu, judged[0], judged[-1])
            if broken:
                return no_decision(*broken, notes=notes)
            session.push_imu(imu_quality.part(clip.imu, judged[0], judged[-1]))
        for frame, t in zip(clip.frames, clip.t, strict=True):
            session.push(frame, float(t))
            if session.progress >= 1.0:
                break
        if session.progress < 1.0:
            session.finish()
    except LivenessError as error:
        return no_decision(str(error), notes=notes)
    found = session.verdict()
    found = replace(found, notes=(*notes, *found.notes))
    found.timings_ms["total"] = 1e3 * (time.perf_counter() - begin)
    return found


def _predict_still(clip: Clip, session: LivenessSession) -> Verdict:
    """Judge a single picture, if the bundle was made for stills; one made for video refuses it."""
    if inputs.limits_from(dict(session.bundle.quality)).min_seconds > 0:
        return no_decision("a single picture shows no motion, and this bundle judges video: give 2.5 s of it")
    if session.camera is not None:
        return no_decision("a taught camera judges video: give 2.5 s of it, or judge the picture without --camera")
    try:
        with Landmarker(2, "image") as landmarker:
            track = inputs.still_track(clip, landmarker)
        found = inputs.still_inputs(clip, track, np.full((1, len(FRAME_FEATURES)), np.nan, np.float32))
        fed = {
            "frames": inputs.still_views(found.crops[0])[None].astype(np.float32) / np.float32(255.0),
            "features": inputs.fill_missing(found.features, session._fill)[None],
            "imu": found.imu[None],
            "presence": found.presence[None],
        }
        quality = inputs.summarise_quality(found.quality_rows, found.t)
        return decide(session.bundle, session._clip_model(**fed), found.presence, quality)
    except Exception as error:
        return no_decision(f"the picture could not be judged ({error})")
