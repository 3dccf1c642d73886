"""Active challenge: a random sequence of small tasks, and the check that they were done, now and in order.

A nonce and prompts go out to the person; clips, tracks and the phone's IMU come back and become a
`ChallengeResult`. It stands beside the passive verdict of `runtime` and never replaces it.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.ndimage import median_filter

from liveness_utils.clips import Clip, slice_clip
from liveness_utils.config import plain
from liveness_utils.cues import (
    Orbit,
    OrbitMeter,
    coherent_parallax,
    frame_rates,
    gyro_in_camera_axes,
    gyro_record,
    imu_consistency,
    measure_motion,
)
from liveness_utils.errors import LivenessError
from liveness_utils.landmarks import Landmarker, Track, blink_signal, detect_blinks, track
from liveness_utils.perception import imu_quality

PROMPTS = ("turn_left", "turn_right", "blink_twice", "move_closer", "sweep")
INSTRUCTIONS: Mapping[str, str] = MappingProxyType({
    "turn_left": "Turn your head to your left, then look back at the camera.",
    "turn_right": "Turn your head to your right, then look back at the camera.",
    "blink_twice": "Blink twice, with open eyes in between.",
    "move_closer": "Move the phone closer to your face and keep it there.",
    "sweep": "Keep your head still and sweep the phone sideways around your face.",
})  # fmt: skip
WITHOUT_IMU = ("turn_left", "turn_right", "blink_twice", "move_closer")  # a sweep cannot be told by pixels alone
MAX_OPEN = 4096
MAX_SECONDS = 20.0


class ChallengeError(LivenessError):
    """A nonce that is unknown, used or expired, or a challenge that cannot be made."""


# ---------------------------------------------------------------------------------------- asking
@dataclass(frozen=True)
class Challenge:
    """What one person was asked to do.

    Attributes:
        nonce: unguessable name, for one answer.
        prompts: names from `PROMPTS`, in the order in which they must be done.
        created: s on the clock of whoever made it.
        ttl: s after which an answer is stale.
    """

    nonce: str
    prompts: tuple[str, ...]
    created: float
    ttl: float

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence a prompt, for the person."""
        return tuple(INSTRUCTIONS[p] for p in self.prompts)

    def expired(self, now: float) -> bool:
        """Whether an answer that arrives at `now` (same clock) is stale, or from before the question."""
        return not 0.0 <= now - self.created <= self.ttl


def new_challenge(
    rng: np.random.Generator | None = None,
    steps: int = 2,
    ttl: float = 30.0,
    *,
    now: float | None = None,
    prompts: Sequence[str] = PROMPTS,
) -> Challenge:
    """Draw a challenge: different prompts in random order, and a nonce.

    Args:
        rng: for repeatable tests; None draws from the operating system, as a service must.
        steps: prompts; 2 of 5 leave 20 sequences, 3 leave 60.
        ttl: s. now: time of birth, s; None takes time.monotonic().
        prompts: to draw from: `PROMPTS`, or `WITHOUT_IMU` for a device without motion sensors.

    Raises:
        ChallengeError: fewer than one or more steps than there are prompts, or no time to answer.

    >>> new_challenge(np.random.default_rng(0), steps=3, now=0.0).prompts
    ('blink_twice', 'sweep', 'move_closer')
    """
    known = [p for p in PROMPTS if p in prompts]
    if not 1 <= steps <= len(known) or not 0 < ttl < math.inf:
        raise ChallengeError(f"{steps} steps in {ttl} s: ask for 1 to {len(known)} steps and a positive time.")
    if rng is None:
        drawn, nonce = secrets.SystemRandom().sample(known, steps), secrets.token_urlsafe(16)
    else:
        drawn, nonce = [known[k] for k in rng.permutation(len(known))[:steps]], rng.bytes(12).hex()
    return Challenge(nonce, tuple(drawn), time.monotonic() if now is None else float(now), float(ttl))


class ChallengeBook:
    """Hands out challenges and takes each back once. Calls from several threads are put in line.

    Args:
        ttl: s an answer may take. clock: of seconds that never goes back. steps: prompts a challenge.
        max_open: challenges waiting for an answer at most, so that asking cannot fill the memory.
    """

    def __init__(
        self,
        ttl: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        steps: int = 2,
        max_open: int = MAX_OPEN,
    ) -> None:
        self.ttl, self.steps, self.max_open = float(ttl), steps, max_open
        self._clock, self._lock = clock, threading.Lock()
        self._open: dict[str, Challenge] = {}

    def issue(self, rng: np.random.Generator | None = None, *, prompts: Sequence[str] = PROMPTS) -> Challenge:
        """Make a challenge and remember it until it is redeemed or stale.

        Args:
            rng, prompts: see `new_challenge`.

        Raises:
            ChallengeError: too many are open.
        """
        with self._lock:
            now = self._clock()
            self._open = {n: c for n, c in self._open.items() if not c.expired(now)}
            if len(self._open) >= self.max_open:
                raise ChallengeError("too many challenges are open; try again in a few seconds.")
            made = new_challenge(rng, self.steps, self.ttl, now=now, prompts=prompts)
            self._open[made.nonce] = made
            return made

    def redeem(self, nonce: str) -> Challenge:
        """Take a challenge out of the book; whatever comes of the answer, the nonce is spent.

        Raises:
            ChallengeError: the nonce is unknown, was used, or its time is over.
        """
        with self._lock:
            found = self._open.pop(nonce, None) if isinstance(nonce, str) else None
            if found is None:
                raise ChallengeError("this challenge is unknown or was answered before; ask for a new one.")
            if found.expired(self._clock()):
                raise ChallengeError(f"this challenge was open for {found.ttl:.0f} s only; ask for a new one.")
            return found


# ---------------------------------------------------------------------------------------- measuring
@dataclass(frozen=True)
class Limits:
    """What counts as done; angles in radians.

    Attributes:
        turn: of the head in the room, against where it began (people asked to turn go 25 to 45°).
        orbit: of the ray from phone to face, sideways. phone: of the phone itself, the same way.
        slope: least part of the orbit that the face must show (`cues.coherent_parallax`).
        growth: of the face's size; 1.25 is 40 cm → 32 cm.
        blink_gap: s between two blinks that belong together.
        rotation: least correlation of gyroscope and video while the phone is swept.
        contradiction: the same over a whole answer in which both turned; under it they do not fit.
        approach: least partial correlation of accelerometer and distance while coming closer.
        faces: least share of frames with a face. several: greatest share with more than one.
    """

    turn: float = math.radians(14.0)
    orbit: float = math.radians(10.0)
    phone: float = math.radians(7.0)
    slope: float = 0.35
    growth: float = 1.25
    blink_gap: float = 1.2
    rotation: float = 0.2
    contradiction: float = 0.2
    approach: float = 0.5
    faces: float = 0.8
    several: float = 0.2


@dataclass(frozen=True)
class Event:
    """One thing that was done: prompt it answers, begin, peak and end in s, and how much (rad, ratio or count)."""

    prompt: str
    start: float
    peak: float
    end: float
    amount: float


@dataclass(frozen=True)
class Signals:
    """What an answer shows over time, one value a stored frame; NaN where no face was seen.

    Attributes:
        t: (N,) s. turn: (N,) rad, head yaw in the room against its first value, + to the subject's left.
        orbit: `cues.Orbit` rows; without a gyroscope the phone's turn is the one seen in the background.
        size: (N,) natural logarithm of the face's size against its first value.
        blinks: peaks, s. camera: (N, 3) rad/s, rotation of the camera as the background shows it.
        imu: whether there is a gyroscope.
    """

    t: np.ndarray
    turn: np.ndarray
    orbit: Orbit
    size: np.ndarray
    blinks: tuple[float, ...]
    camera: np.ndarray
    imu: bool


def measure(clip: Clip, found: Track) -> Signals:
    """Turn a clip and its track into the signals that prompts are checked on.

    The head's yaw in the room is what the face shows (aspect) less what the ray from phone to face
    turned: a sweep around a still head leaves it at nought, a turn of the head does not.
    """
    video = measure_motion(clip, found).camera
    record = gyro_record(clip.imu, clip.camera_facing)
    rates = frame_rates(record, clip.t)
    imu = bool(np.isfinite(rates[1:]).all(1).mean() > 0.9) if len(clip.t) > 1 else False
    turns = np.nan_to_num((rates if imu else video) * np.diff(clip.t, prepend=clip.t[0])[:, None])
    meter, rows = OrbitMeter(clip.intrinsics), []
    for turn, pose, points, seen in zip(turns, found.T_camera_head, found.points, found.found, strict=True):
        rows.append(meter.push(turn, pose.astype(float) if seen else None, points if seen else None))
    path = Orbit(*np.array(rows).transpose(1, 0, 2))
    distance = found.T_camera_head[:, 2, 3].astype(float)
    size = _from_start(-np.log(np.where(distance > 0, distance, np.nan)), clip.t)
    blinks = tuple(b.peak for b in detect_blinks(blink_signal(found.blendshapes), clip.t))
    return Signals(clip.t, _from_start(path.aspect[:, 1] - path.ray[:, 1], clip.t), path, size, blinks, video, imu)


def _from_start(values: np.ndarray, t: np.ndarray, seconds: float = 0.3) -> np.ndarray:
    """Smoothed against jitter and counted from the median of the first moments with a face."""
    seen = np.isfinite(values)
    if seen.sum() < 5:
        return np.full(len(values), np.nan)
    whole = np.interp(t, t[seen], values[seen])
    smooth = median_filter(whole, size=5, mode="nearest")
    first = t[seen][0]
    return np.where(seen, smooth - np.median(smooth[(t >= first) & (t <= first + seconds)]), np.nan)


def find_events(signals: Signals, limits: Limits = Limits()) -> list[Event]:
    """Find what was done on purpose, in order of time; neighbours of one kind count once.

    Args:
        signals: see `measure`. limits: see `Limits`.

    Returns:
        Events of every prompt but `blink_twice`, whose pairs also happen by themselves.
    """
    s = signals
    ray = np.abs(_from_start(s.orbit.ray[:, 1], s.t))
    phone = np.abs(_from_start(s.orbit.phone[:, 1], s.t))
    swept = np.minimum(ray / limits.orbit, phone / limits.phone) * limits.orbit
    found = [
        *_excursions("turn_left", s.t, s.turn, limits.turn),
        *_excursions("turn_right", s.t, -s.turn, limits.turn),
        *_excursions("sweep", s.t, swept, limits.orbit),
        *_excursions("move_closer", s.t, s.size, math.log(limits.growth)),
    ]
    found.sort(key=lambda e: e.peak)
    return [e for k, e in enumerate(found) if k == 0 or e.prompt != found[k - 1].prompt]


def _excursions(prompt: str, t: np.ndarray, values: np.ndarray, limit: float) -> list[Event]:
    """Stretches over half the limit whose largest value reaches it; `peak` is when it is first reached."""
    over = np.concatenate([[False], np.nan_to_num(values, nan=-1.0) > 0.5 * limit, [False]])
    edges = np.flatnonzero(np.diff(over.astype(np.int8)))
    events = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        inside = values[start:end]
        if inside.max() >= limit:
            reached = start + int(np.argmax(inside >= limit))
            events.append(Event(prompt, float(t[start]), float(t[reached]), float(t[end - 1]), float(inside.max())))
    return events


def blink_pairs(blinks: Sequence[float], gap: float = Limits.blink_gap) -> list[Event]:
    """Return every two successive blinks at most `gap` s apart, as events.

    >>> [e.peak for e in blink_pairs((0.2, 1.0, 4.0))]
    [1.0]
    """
    pairs = [(a, b) for a, b in zip(blinks, blinks[1:], strict=False) if b - a <= gap]
    return [Event("blink_twice", a, b, b, 2.0) for a, b in pairs]


def approach_match(clip: Clip, found: Track, start: float, end: float) -> float:
    """Return how far the accelerometer explains the change of the face's distance.

    Gravity is carried along by the gyroscope; what is left along the optical axis, integrated
    twice, must be what the distance lost, up to a parabola (bias, tilt and first velocity).

    Args:
        clip: with IMU. found: its track. start, end: of the approach, s.

    Returns:
        Partial correlation −1..1: 1 where this phone moved, about 0 where it rested. NaN unknown.

    Source: as `cues.coherent_parallax`, for the one direction in which nothing rotates.
    """
    imu, seen = clip.imu, found.found & (clip.t >= start - 0.5) & (clip.t <= end + 0.5)
    if imu is None or imu.accel is None or imu.gyro is None or seen.sum() < 12:
        return math.nan
    t = clip.t[seen]
    inside = (imu.t >= t[0] - 0.1) & (imu.t <= t[-1] + 0.1)
    if inside.sum() < 20 or imu.t[inside][0] > t[0] + 0.1 or imu.t[inside][-1] < t[-1] - 0.1:
        return math.nan
    moved = np.interp(t, imu.t[inside], _along_axis(imu.t[inside], imu.accel[inside], imu.gyro[inside], clip))
    base = np.stack([np.ones_like(t), t - t[0], (t - t[0]) ** 2], 1)
    a, b = (v - base @ np.linalg.lstsq(base, v, rcond=None)[0] for v in (moved, -found.T_camera_head[seen, 2, 3]))
    return float(a @ b / max(math.sqrt((a @ a) * (b @ b)), 1e-12))


def _along_axis(t: np.ndarray, accel: np.ndarray, gyro: np.ndarray, clip: Clip) -> np.ndarray:
    """Displacement (M,) m along the optical axis by double integration, gravity turned by the gyroscope."""
    force, rate = (gyro_in_camera_axes(v, clip.camera_facing) for v in (accel, gyro))
    step = np.diff(t, prepend=t[0])
    gravity, rest = force[t <= t[0] + 0.3].mean(0), np.zeros(len(t))
    for k in range(len(t)):
        gravity = gravity - step[k] * np.cross(rate[k], gravity)
        rest[k] = force[k, 2] - gravity[2]
    return np.cumsum(np.cumsum(rest * step) * step)


# ----------------------------------------------------------------------------------------- checking
@dataclass(frozen=True)
class StepResult:
    """One prompt: whether it was done, what was measured, and why not."""

    prompt: str
    passed: bool
    measured: dict[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class ChallengeResult:
    """Whether the right things were done in the right order, and in time.

    Attributes:
        passed: only if every step passed and nothing objects. reasons: sentences; empty if passed.
        steps: one `StepResult` a prompt.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    steps: tuple[StepResult, ...] = ()

    @property
    def sentence(self) -> str:
        """One line for a person."""
        return "challenge passed" if self.passed else "challenge failed: " + "; ".join(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return plain(asdict(self) | {"sentence": self.sentence})


def verify(
    challenge: Challenge,
    response: Clip | Sequence[Clip],
    tracks: Track | Sequence[Track] | None = None,
    *,
    landmarker: Landmarker | None = None,
    now: float | None = None,
    need_imu: bool = False,
    limits: Limits = Limits(),
) -> ChallengeResult:
    """Check an answer. Redeem the nonce first (`ChallengeBook.redeem`): this function keeps no book.

    Args:
        challenge: what was asked.
        response: one clip in which everything is done in order, or one clip a prompt.
        tracks: of the clips, if known. landmarker: to track with; None opens one.
        now: time of arrival on the clock of `challenge.created`; None does not ask for the time.
        need_imu: whether an answer without motion data fails whatever was asked, as a sweep does always (and as
            it should where this phone has shown sensors: leaving them out is what an attacker would do).
        limits: what counts as done.

    Returns:
        `ChallengeResult`. Nothing raises: whatever goes wrong is a reason not to pass.
    """
    try:
        clips = [response] if isinstance(response, Clip) else list(response)
        if now is not None and challenge.expired(now):
            return ChallengeResult(False, (f"the answer came after more than {challenge.ttl:.0f} s",))
        if not challenge.prompts or any(p not in PROMPTS for p in challenge.prompts):
            return ChallengeResult(False, ("the challenge asks for something unknown",))
        if len(clips) not in (1, len(challenge.prompts)):
            return ChallengeResult(False, (f"{len(clips)} clips answer {len(challenge.prompts)} prompts",))
        found = _tracks(clips, tracks, landmarker)
        return _verify(challenge.prompts, clips, found, need_imu, limits)
    except Exception as error:
        return ChallengeResult(False, (f"the answer could not be checked ({error})",))


def _tracks(clips: list[Clip], tracks: Any, landmarker: Landmarker | None) -> list[Track]:
    if tracks is not None:
        return [tracks] if isinstance(tracks, Track) else list(tracks)
    return [track(clip, landmarker) for clip in clips]


def _verify(
    prompts: tuple[str, ...], clips: list[Clip], found: list[Track], need_imu: bool, limits: Limits
) -> ChallengeResult:
    asked = [prompts] if len(clips) == 1 else [(p,) for p in prompts]
    objections, steps = [], []
    for clip, seen, todo in zip(clips, found, asked, strict=True):
        objections += _objections(clip, seen, limits) + _imu_objections(clip, need_imu)
        signals = measure(clip, seen)
        events = find_events(signals, limits)
        objections += _disorder(events, todo)
        objections += _contradictions(clip, signals, limits) if signals.imu else []
        steps += _steps(todo, events, signals, clip, seen, limits)
    reasons = dict.fromkeys([*objections, *(s.reason for s in steps if not s.passed)])
    return ChallengeResult(not reasons and all(s.passed for s in steps), tuple(reasons), tuple(steps))


def _objections(clip: Clip, found: Track, limits: Limits) -> list[str]:
    """Why a clip is no answer at all, whatever is on it."""
    t = np.asarray(clip.t, float)
    if len(t) < 10 or len(clip.frames) != len(t) or len(found.t) != len(t) or not np.isfinite(t).all():
        return ["the answer is too short or damaged"]
    checks = (
        (np.diff(t).min() <= 0 or np.diff(t).max() > 0.25, "the video pauses or runs backwards"),
        (t[-1] - t[0] > MAX_SECONDS, f"the answer takes over {MAX_SECONDS:.0f} s"),
        (t[-1] - t[0] < 1.0, "the answer is too short or damaged"),
        (found.found.mean() < limits.faces, f"no face in {np.sum(~found.found)} of {len(t)} frames"),
        ((found.n_faces > 1).mean() > limits.several, "several faces"),
    )
    return [sentence for failed, sentence in checks if failed]


def _imu_objections(clip: Clip, need_imu: bool) -> list[str]:
    """A record that is no evidence objects, and so does the lack of one where it is needed."""
    if clip.imu is None:
        return ["no motion data: allow the motion sensors and answer again"] if need_imu else []
    return list(imu_quality.problems(clip.imu, float(clip.t[0]), float(clip.t[-1])))


def _disorder(events: list[Event], prompts: Sequence[str]) -> list[str]:
    """Whether something else, or the right things in another order, was done."""
    wanted, done = [p for p in prompts if p != "blink_twice"], [e.prompt for e in events]
    extra = [p for p in done if p not in wanted]
    if extra:
        return [f"not asked for: {', '.join(p.replace('_', ' ') for p in dict.fromkeys(extra))}"]
    return ["done in another order"] if [p for p in wanted if p in done] != list(dict.fromkeys(done)) else []


def _contradictions(clip: Clip, signals: Signals, limits: Limits) -> list[str]:
    """Gyroscope against video over a whole clip, where both turned enough to be compared."""
    match = imu_consistency(signals.camera, gyro_record(clip.imu, clip.camera_facing), clip.t)
    turned = max(match.video_rms, match.gyro_rms) > 0.06
    if turned and not match.correlation >= limits.contradiction:
        return ["the phone's motion does not fit the video"]
    return []


def _steps(todo, events, signals: Signals, clip: Clip, found: Track, limits: Limits):
    """Give each prompt its event, in order; blinks must fall between the neighbours' events."""
    by_name, steps = {e.prompt: e for e in events}, []
    for k, prompt in enumerate(todo):
        if prompt == "blink_twice":
            lo = max((by_name[p].peak for p in todo[:k] if p in by_name), default=-math.inf)
            hi = min((by_name[p].peak for p in todo[k + 1 :] if p in by_name), default=math.inf)
            between = [e for e in blink_pairs(signals.blinks, limits.blink_gap) if lo < e.peak and e.start < hi]
            steps.append(_blink_step(between, signals))
        elif not signals.imu and prompt == "sweep":
            steps.append(StepResult(prompt, False, {}, f"no motion data for: {prompt.replace('_', ' ')}"))
        elif prompt not in by_name:
            steps.append(StepResult(prompt, False, {}, f"not done: {prompt.replace('_', ' ')}"))
        else:
            steps.append(_judge(by_name[prompt], signals, clip, found, limits))
    return steps


def _blink_step(pairs: list[Event], signals: Signals) -> StepResult:
    measured = {"blinks": float(len(signals.blinks))}
    if not pairs:
        return StepResult("blink_twice", False, measured, "not done: blink twice")
    return StepResult("blink_twice", True, measured | {"at": pairs[0].peak})


def _judge(event: Event, signals: Signals, clip: Clip, found: Track, limits: Limits) -> StepResult:
    """Hold the event against what a real head before this very phone would show."""
    measured: dict[str, float] = {"amount": event.amount, "at": event.peak}
    reason = ""
    if event.prompt in ("turn_left", "turn_right"):
        measured["relief"] = _nose_with_turn(event, signals)
        reason = "" if measured["relief"] > 0.25 else "the face turned without depth"
    elif event.prompt == "sweep":
        measured |= _sweep_evidence(event, signals, clip)
        reason = _sweep_reason(measured, limits)
    elif signals.imu:
        measured["approach"] = approach_match(clip, found, event.start, event.peak + 0.5)
        reason = "" if measured["approach"] >= limits.approach else "the phone did not come closer, the picture did"
    return StepResult(event.prompt, not reason, measured, reason)


def _nose_with_turn(event: Event, signals: Signals) -> float:
    """Sway of the nose over the face's plane for each radian of turn; about 0.7 for a head, 0 for a sheet."""
    near = (signals.t >= event.start - 0.5) & (signals.t <= event.end + 0.5)
    x, y = signals.orbit.aspect[near, 1], signals.orbit.nose[near, 1]
    good = np.isfinite(x) & np.isfinite(y)
    if good.sum() < 5:
        return math.nan
    x, y = x[good] - x[good].mean(), y[good] - y[good].mean()
    return float((x @ y) / max(x @ x, 1e-9))


def _sweep_evidence(event: Event, signals: Signals, clip: Clip) -> dict[str, float]:
    near = (signals.t >= event.start - 0.4) & (signals.t <= event.end + 0.4)
    path = Orbit(*(getattr(signals.orbit, n)[near] for n in ("phone", "ray", "aspect", "nose")))
    depth = coherent_parallax(path)
    told = {"slope": depth.slope, "nose_slope": depth.nose_slope}
    if signals.imu:
        record = gyro_record(clip.imu, clip.camera_facing)
        told["rotation"] = imu_consistency(signals.camera[near], record, clip.t[near]).correlation
    return told


def _sweep_reason(measured: Mapping[str, float], limits: Limits) -> str:
    if "rotation" in measured and not measured["rotation"] >= limits.rotation:
        return "the phone's motion does not fit the video"
    if not measured["slope"] >= limits.slope or not measured["nose_slope"] >= 0.5 * limits.slope:
        return "the face did not show its side while the phone was swept"
    return ""


def split_response(clip: Clip, seconds: float, steps: int) -> list[Clip]:
    """Cut a recording of equal steps into one clip a prompt.

    Args:
        clip: recording. seconds: a step. steps: number of steps.

    Raises:
        ClipError: the recording is shorter.
    """
    return [slice_clip(clip, k * seconds, (k + 1) * seconds) for k in range(steps)]
