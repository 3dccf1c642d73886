"""The kernel's half of the webcam widget: messages of the page go in, what the session says goes back.

`wire` checks what comes in; `runtime.LivenessSession` judges; `challenge` asks and `settled` draws the conclusion;
`teaching` teaches the camera. A bundled clip takes the same way as the camera's frames (`LivenessWidget.play`).
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from liveness_utils import challenge as challenges
from liveness_utils import inputs
from liveness_utils.clips import Clip, Imu, clip_id_for
from liveness_utils.config import plain
from liveness_utils.deployment import settled
from liveness_utils.errors import BundleError, SessionError
from liveness_utils.recorder import Recorder, RecordRequest
from liveness_utils.runtime import LivenessSession, Verdict
from liveness_utils.widget import teaching, wire

_HERE = Path(__file__).parent
ABSENT = 0.5  # s without a face after which the next face is judged anew
REFRESH = 0.5  # s between two verdicts on the last 2.5 s
IMU_KEPT = 1.0  # s of samples that a new judgement may look back on
EXCUSED = 1.0  # s that a page may be late after the kernel has checked an answer, in which it sees no frames
STAYED = 0.3  # of two boxes' union is shared where a face stayed while an answer was checked
STEP_SECONDS = 2.5
MAX_STEP_FRAMES = 200


@dataclass(frozen=True)
class Shown:
    """What the page is told about one frame.

    Attributes:
        t: s, time of the frame. presentation: number of the face since the start, from 1.
        score: streaming P(bona fide), or None. progress: of the first 2.5 s, 0..1.
        box: x, y, w, h as shares of the frame, or None. faces: in view.
        advice: what to do, in words. cues: see `wire.cue_bars`.
        verdict: a new verdict on the last 2.5 s, or None between two of them.
    """

    t: float
    presentation: int
    score: float | None
    progress: float
    box: list[float] | None
    faces: int
    advice: list[str]
    cues: list[dict[str, Any]]
    verdict: Verdict | None = None

    def to_page(self) -> dict[str, Any]:
        """Plain data for a message."""
        told = {k: v for k, v in vars(self).items() if k != "verdict"}
        return plain(told | {"verdict": None if self.verdict is None else page_verdict(self.verdict)})


def page_verdict(found: Verdict) -> dict[str, Any]:
    """The part of a verdict that the page shows."""
    names = ("decision", "score", "threshold", "reasons", "sentence", "notes", "camera")
    return plain({n: getattr(found, n) for n in names})


class LivenessWidget(anywidget.AnyWidget):
    """Camera and motion sensors of the reader's browser, judged live.

    Works with a remote kernel: pictures travel as JPEG messages, two on the way at most. The score
    curve and cue bars follow every frame; after 2.5 s with one face there is a verdict, renewed
    twice a second. A face that comes after half a second without one is judged anew. Where the device
    has shown motion sensors, no face is judged without them until the camera is started again. *Not sure* offers a
    challenge, whose answer holds for as long as the same face stays (`settled`). With a taught camera the curve
    follows the verdicts, as the streaming score is the general network's.

    Args:
        session: judges; it stays the caller's to close. Open it with `LivenessSession(bundle)`.
        teach: where to save the camera that the reader teaches in the page; None keeps it in the session alone.
        keep: s of received frames to hold on to for `recording`; 0 holds nothing.
        clock: of challenges, s.

    Traits (synced): ``state`` (see `STATES`), ``message``, ``devices``, ``device_id``, ``verdict`` (of
    the page's last one), ``threshold`` (a what-if drawn into the curve; the bundle's decides),
    ``send_side`` (px of the shorter side), ``quality`` (JPEG, 0..1), ``max_inflight``, ``mirror``,
    ``frame_rate`` and ``round_trip_ms`` (measured in the page), ``has_imu``.

    Example: see notebook 08.
    """

    _esm = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("live.js", "teach.js"))
    _css = _HERE / "live.css"

    state = traitlets.Unicode("idle").tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    devices = traitlets.List(traitlets.Dict()).tag(sync=True)
    device_id = traitlets.Unicode("").tag(sync=True)
    verdict = traitlets.Dict().tag(sync=True)
    threshold = traitlets.Float(None, allow_none=True).tag(sync=True)
    send_side = traitlets.Int(320).tag(sync=True)
    quality = traitlets.Float(0.9).tag(sync=True)
    max_inflight = traitlets.Int(2).tag(sync=True)
    mirror = traitlets.Bool(True).tag(sync=True)
    frame_rate = traitlets.Float(0.0).tag(sync=True)
    round_trip_ms = traitlets.Float(0.0).tag(sync=True)
    has_imu = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        session: LivenessSession,
        teach: str | os.PathLike | None = None,
        *,
        keep: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        **traits: Any,
    ) -> None:
        super().__init__(**traits)
        self.session = session
        self.limits = inputs.limits_from(dict(session.bundle.quality))
        self.history: deque[tuple[int, float, Verdict]] = deque(maxlen=500)
        self.errors: deque[str] = deque(maxlen=50)
        self._lock, self._seen_page = threading.RLock(), threading.Event()
        self._kept: deque[tuple[int, float, np.ndarray]] = deque()
        self._keep, self._kept_imu = float(keep), np.zeros((0, 7))
        self._book, self._clock = challenges.ChallengeBook(clock=clock), clock
        self._exam: _Exam | None = None
        self._last: Verdict | None = None  # passive, on the face that is there
        self._settled: settled.Settled | None = None
        self._teaching = teaching.WidgetTeaching(session, teach)
        self._felt = False
        self._begin()
        self.on_msg(self._receive)

    # -- the page's messages
    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Answer one message. What fails is told to the page: an exception here would be seen by nobody."""
        handlers = {
            "hello": self._hello, "start": self._start, "again": self._again, "frame": self._frame,
            "ask": self._ask, "answer": self._answer, **dict.fromkeys(teaching.KINDS, self._teach),
        }  # fmt: skip
        kind = content.get("kind") if isinstance(content, Mapping) else None
        try:
            if kind in handlers:
                with self._lock:
                    handlers[kind](content, buffers)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            self.send({"kind": "error", "id": content.get("id"), "text": str(error)})

    def _hello(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        self._seen_page.set()
        taught = self.session.camera is not None
        welcome = {"kind": "welcome", "threshold": self._threshold(), "cues": wire.cue_bars({}), "taught": taught}
        self.send(plain(welcome))

    def _start(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        facing = "rear" if content.get("facing") == "environment" else "front"
        self.session.reset(facing=facing)
        self._felt = False
        self._begin()

    def _again(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        self._reset_session()
        self._begin()

    def _reset_session(self) -> None:
        """Forget the last face, and not that this device has motion sensors."""
        self.session.reset(intrinsics=self.session.intrinsics)
        if self._felt:
            self.session.expect_imu()

    def _frame(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        message = wire.read_frame(content, buffers)
        if self._teaching.filming and content.get("teach") == self._teaching.filming:
            held = self._teaching.keep(message.image, message.t)
            self.send({"kind": "teach_kept", "id": message.number, "frames": held})
            return
        shown = self.feed(message.image, message.t, message.imu)
        if self._exam is not None:
            self._exam.take(content.get("step"), message.image, message.t)
        self.send({"kind": "result", "id": message.number, **shown.to_page()})

    # -- judging
    def _begin(self) -> None:
        self._presentation, self._face_at, self._judged_at = 0, -np.inf, -np.inf
        self._exam, self._last, self._settled = None, None, None
        self._excused, self._box = 0.0, None
        self._recent = np.zeros((0, 7))

    def feed(self, image: np.ndarray, t: float, imu: np.ndarray | None = None) -> Shown:
        """Judge one frame: the way that camera frames and bundled clips share.

        Args:
            image: (H, W, 3) uint8 RGB, unmirrored. t: s, increasing.
            imu: (m, 7) rows t, ax … gz that arrived since the frame before, or None.

        Raises:
            SessionError: the frame is none, or its time goes back.
        """
        with self._lock:
            self._feel(imu)
            score = self.session.push(image, t)
            if self._is_new_face(t):
                score = self._anew(image, t)
            self._hold(image, t)
            return self._shown(score, image, t)

    def _feel(self, imu: np.ndarray | None) -> None:
        if imu is None or not len(imu):
            return
        self._felt = True
        self.session.push_imu(imu)
        held = np.concatenate([self._recent, imu])
        self._recent = held[held[:, 0] >= held[-1, 0] - IMU_KEPT]
        if self._keep:
            kept = np.concatenate([self._kept_imu, imu])
            self._kept_imu = kept[kept[:, 0] >= kept[-1, 0] - self._keep - IMU_KEPT]
        if self._exam is not None:
            self._exam.feel(imu)

    def _is_new_face(self, t: float) -> bool:
        if not self.session.seen.n_faces:
            return False
        absent, self._face_at = t - self._face_at, t
        if absent <= ABSENT:
            return False
        excused, self._excused = self._excused, 0.0
        stayed = self._settled is not None and wire.overlap(self._box, self.session.seen.box) >= STAYED
        return not stayed or absent - excused > ABSENT

    def _anew(self, image: np.ndarray, t: float) -> float | None:
        """Forget what was before this face, but for the phone's motion of the last second."""
        self._presentation, self._judged_at = self._presentation + 1, -np.inf
        self._settled = self._last = None
        self._reset_session()
        if len(self._recent):
            self.session.push_imu(self._recent)
        return self.session.push(image, t)

    def _hold(self, image: np.ndarray, t: float) -> None:
        if self._keep:
            self._kept.append((self._presentation, t, image))
            while self._kept and self._kept[0][1] < t - self._keep:
                self._kept.popleft()

    def _shown(self, score: float | None, image: np.ndarray, t: float) -> Shown:
        now = self.session.seen
        box = wire.relative_box(now.box, image) if now.n_faces else None
        self._box, found = now.box if now.n_faces else None, self._judged(t)
        score = score if self.session.camera is None else self._last and self._last.score
        return Shown(
            t, self._presentation, score if now.n_faces else None, self.session.progress, box, now.n_faces,
            wire.advice(now.quality, self.limits), wire.cue_bars(now.cues), found,
        )  # fmt: skip

    def _judged(self, t: float) -> Verdict | None:
        """A verdict when the first 2.5 s are there, and then twice a second."""
        if self.session.progress < 1.0 or t - self._judged_at < REFRESH:
            return None
        self._judged_at = t
        found = self.session.verdict()
        self.history.append((self._presentation, t, found))
        self._last = found
        found = self._settled.apply(found) if self._settled else found
        self.verdict = page_verdict(found)
        return found

    def _threshold(self) -> float | None:
        """The threshold for what this device has, to be drawn before the first verdict."""
        if self.session.camera is not None:
            return 0.5
        presence = np.array([1.0, 1.0, float(self._felt)], np.float32)
        try:
            return float(self.session.bundle.threshold(presence)["value"])
        except BundleError:
            return None

    # -- without a camera
    def wait_for_page(self, seconds: float = 2.5) -> bool:
        """Whether a front end has shown this widget, waiting at most so long for it.

        A pipeline has none. Nor is one noticed from inside a cell where the kernel handles messages
        between cells only; then the answer is no, and the widget works all the same.
        """
        return self._seen_page.wait(seconds)

    def play(self, clip: Clip, *, imu: Imu | None | str = "own", show: bool = True) -> list[Shown]:
        """Send a clip the way of the camera's frames, and its pictures to the page if there is one.

        Args:
            clip: with frames and times. imu: another record, or None for no sensors.
            show: also send the pictures.

        Returns:
            One `Shown` a frame, up to the first verdict.
        """
        record = clip.imu if isinstance(imu, str) else imu
        rows = np.zeros((0, 7)) if record is None else np.column_stack([record.t, record.accel, record.gyro])
        shown: list[Shown] = []
        with self._lock:
            self.session.reset(intrinsics=clip.intrinsics, facing=clip.camera_facing)
            self._felt = record is not None
            if self._felt:
                self.session.expect_imu()
            self._begin()
            sent = 0
            for frame, t in zip(clip.frames, clip.t, strict=True):
                due = int(np.searchsorted(rows[:, 0], t, side="right"))
                shown.append(self.feed(frame, float(t), rows[sent:due]))
                sent = due
                if show and self._seen_page.is_set():
                    self.send({"kind": "picture", **shown[-1].to_page()}, [wire.encode_jpeg(frame)])
                if shown[-1].verdict is not None:
                    return shown
            return self._finished(shown)

    def _finished(self, shown: list[Shown]) -> list[Shown]:
        """The clip is over: let its last frame stand for the last instant."""
        self.session.finish()
        found = self.session.verdict()
        self.history.append((self._presentation, shown[-1].t, found))
        shown[-1] = replace(shown[-1], verdict=found)
        if self._seen_page.is_set():
            self.send({"kind": "picture", **shown[-1].to_page()}, [])
        return shown

    def recording(self, presentation: int | None = None) -> Clip:
        """The frames received, as a clip; only with `keep`.

        Args:
            presentation: number of the face; None the last one.

        Raises:
            SessionError: nothing was kept.
        """
        with self._lock:
            wanted = self._presentation if presentation is None else presentation
            held = [(t, image) for number, t, image in self._kept if number == wanted]
            if not held:
                raise SessionError("no frames were kept: open the widget with keep=5 and start the camera.")
            return _clip(held, self._kept_imu if self._felt else None, self.session.facing)

    def save(self, root: str | Path, *, label: str, subject: str, consent: bool, device: str | None = None) -> str:
        """Keep the last presentation as a labelled clip, for `clips.load_clip` and notebook 09.

        Args:
            root: data folder; made if it is not there. label: ``bona_fide`` or a species.
            subject: a code, no name. consent: of the person shown. device: a code.

        Returns:
            The clip's id.

        Raises:
            RecordError: an unknown label, or no consent. SessionError: see `recording`.
        """
        clip = replace(self.recording(), clip_id=clip_id_for("widget", secrets.token_hex(8)))
        wish = RecordRequest(label, subject, device, bool(consent))
        return Recorder(root, self.session.bundle.species).keep(clip, wish).clip_id

    # -- active challenge
    def _ask(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        question = self._book.issue(prompts=challenges.PROMPTS if self._felt else challenges.WITHOUT_IMU)
        self._exam = _Exam(question, self._recent if self._felt else None, self._presentation, self._last)
        told = {"nonce": question.nonce, "prompts": question.prompts, "instructions": question.instructions}
        self.send(plain({"kind": "challenge", "seconds": STEP_SECONDS, **told}))

    def _answer(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        exam, self._exam = self._exam, None
        question = self._book.redeem(content.get("nonce"))
        if exam is None or exam.question.nonce != question.nonce:
            raise challenges.ChallengeError("these frames answer another challenge; ask for a new one.")
        begun = self._clock()
        found = challenges.verify(question, exam.clips(self.session.facing), need_imu=self._felt)
        self._excused = self._clock() - begun + EXCUSED
        last = self._last if exam.asked == self._presentation else None
        before = last if last and (exam.before is None or last.decision == "attack") else exam.before
        shown, self._settled = settled.settle(before, exam.asked, self._presentation, found)
        self.verdict = page_verdict(shown)
        self.send({"kind": "challenge_result", **found.to_dict(), "verdict": self.verdict})

    # -- teaching
    def _teach(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Answer a message of the teaching; the ticket tells the page to which of its questions."""
        about = {"ticket": content.get("ticket"), "step": content.get("step")}
        try:
            told = self._teaching.answer(content)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            told = {"kind": "teach_error", "of": content.get("kind"), "text": str(error)}
        if told["kind"] == "teach_fitted":
            self._again(content, buffers)
            told["level"] = self._threshold()
        self.send(plain(about | told))


class _Exam:
    """Frames and motion of one answer while it is filmed, step by step.

    Args:
        question: what was asked. imu: (m, 7) motion samples of the moment before, None for no sensors.
        asked: number of the face that was asked. before: the last passive verdict on it.
    """

    def __init__(
        self,
        question: challenges.Challenge,
        imu: np.ndarray | None = None,
        asked: int = 0,
        before: Verdict | None = None,
    ) -> None:
        self.question, self.asked, self.before = question, asked, before
        self._steps: list[list[tuple[float, np.ndarray]]] = [[] for _ in question.prompts]
        self._imu = imu

    def feel(self, rows: np.ndarray) -> None:
        """Keep motion samples (m, 7)."""
        self._imu = (rows if self._imu is None else np.concatenate([self._imu, rows]))[-6000:]

    def take(self, step: Any, image: np.ndarray, t: float) -> None:
        """Keep a frame of a step; frames between steps have none."""
        if isinstance(step, int) and 0 <= step < len(self._steps) and len(self._steps[step]) < MAX_STEP_FRAMES:
            self._steps[step].append((t, image))

    def clips(self, facing: str) -> list[Clip]:
        """One clip a step.

        Raises:
            SessionError: a step without frames.
        """
        if not all(self._steps):
            raise SessionError("a step of the challenge has no frames; ask for a new one.")
        return [_clip(step, self._imu, facing) for step in self._steps]


def _clip(held: Sequence[tuple[float, np.ndarray]], imu: np.ndarray | None, facing: str) -> Clip:
    """Frames and motion samples of the page's clock as a clip that begins at 0; `imu` None for no sensors."""
    t = np.array([at for at, _ in held])
    clip = Clip("live", np.stack([image for _, image in held]), t - t[0], None, None, facing, source="the camera")
    if imu is None:
        return clip
    near = imu[(imu[:, 0] >= t[0] - IMU_KEPT) & (imu[:, 0] <= t[-1] + IMU_KEPT)]
    near = near[np.unique(near[:, 0], return_index=True)[1]]  # in order and once, as the session keeps them
    return replace(clip, imu=Imu(near[:, 0] - t[0], near[:, 1:4].astype(np.float32), near[:, 4:7].astype(np.float32)))
