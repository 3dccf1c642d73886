"""From files to a taught camera: clips are measured by a session as they would be judged, then taught.

Paths of videos come in, `camera.Taught` rows go out; `camera.teach` fits the head.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from liveness_utils.bundle import Bundle
from liveness_utils.clips import Clip, load_recording
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment.camera import Evidence, Taught, TaughtCamera
from liveness_utils.errors import CameraError, LivenessError
from liveness_utils.runtime import JUDGED_SECONDS, LivenessSession, predict_clip

SECONDS = 6.0  # of each step of a guided teaching: two windows and what it takes to begin
WINDOWS = 4  # of a long video at most so many parts are taught


def measure(clip: Clip, session: LivenessSession) -> list[Evidence]:
    """What a session measures of a clip, 2.5 s at a time.

    Args:
        clip: of one face, 1.2 s or longer; its motion record, if it has one, is left out: a camera is taught pixels.
        session: it is reset.

    Returns:
        one `Evidence` for each 2.5 s, four at most.

    Raises:
        CameraError: there was no decision, with the reason.
    """
    seen = []
    for part in _parts(clip):
        found = predict_clip(part, session.bundle, session=session)
        if session.evidence is not None:
            seen.append(session.evidence)
        elif not seen:
            raise CameraError("; ".join(found.reasons))
    return seen


def _parts(clip: Clip) -> Iterator[Clip]:
    start = float(clip.t[0])
    for k in range(WINDOWS):
        shown = (clip.t >= start + k * JUDGED_SECONDS) & (clip.t < start + (k + 1) * JUDGED_SECONDS)
        if k and (shown.sum() < 2 or clip.t[shown][-1] - clip.t[shown][0] < JUDGED_SECONDS / 2):
            return
        yield replace(clip, frames=clip.frames[shown], t=clip.t[shown], imu=None)


def lessons(
    paths: Sequence[str | os.PathLike],
    kind: str,
    session: LivenessSession,
    *,
    person: str = "1",
    number: int = 1,
) -> list[Taught]:
    """Measure videos of one kind.

    Args:
        paths: of videos; WORD=PATH names the light of a living clip, or the instrument of an attack.
        kind: see `camera.lesson`.
        session: measures.
        person: a code of who is shown. number: of the lesson.

    Raises:
        CameraError: a video cannot be read, or shows no face that can be judged; it names the file.
    """
    rows = []
    for given in paths:
        word, _, rest = str(given).rpartition("=") if not os.path.exists(given) else ("", "", str(given))
        path = Path(rest)
        try:
            seen = measure(load_recording(path, max_seconds=WINDOWS * JUDGED_SECONDS), session)
        except LivenessError as error:
            raise CameraError(f"{path}: cannot be taught: {str(error).removeprefix(f'{path}: ')}") from error
        living = kind == cameras.LIVING
        shown, light = (kind, word) if living else (word or kind, "")
        names = ["/".join(path.parts[-2:])] * len(seen)
        rows += cameras.lesson(seen, shown, names=names, person=person, light=light, number=number)
    return rows


# ------------------------------------------------------------------------------------------- guided
@dataclass(frozen=True)
class Step:
    """One step of the guided teaching.

    Attributes:
        name: by which it is repeated. kind: what is shown, see `camera.lesson`. light: a word.
        title, text: what to do. optional: whether it may be left out.
    """

    name: str
    kind: str
    light: str
    title: str
    text: str
    optional: bool = False


STEPS = (
    Step("usual", "bona_fide", "usual", "As you sit", "Look into the camera and turn your head slowly left and right."),
    Step("window", "bona_fide", "window", "Towards the light", "Face a window or a lamp, and turn your head again."),
    Step("away", "bona_fide", "away", "Away from the light", "Turn your back to the light, and turn your head again."),
    Step("dim", "bona_fide", "dim", "In less light", "Switch a lamp off or draw a curtain.", True),
    Step(
        "screen", "screen", "usual", "A photo of you on a phone", "Hold it where your face was, and move it a little."
    ),
    Step("screen_window", "screen", "window", "The phone in other light", "Turn it towards the window or lamp.", True),
    Step("print", "print", "usual", "A photo of you on paper", "Hold the sheet still, then bend it a little.", True),
    Step("print_window", "print", "window", "The sheet in other light", "Turn it towards the window or lamp.", True),
)


class Teacher:
    """Collects what the guided steps measured, and fits the camera: what widget and page share.

    Numbers are held, and no picture. A step that is done again replaces what it taught before.

    Args:
        bundle: whose embedding it is.
        camera: an earlier teaching, which is extended.
        name: of the camera.
    """

    def __init__(self, bundle: Bundle, camera: TaughtCamera | None = None, name: str = "camera") -> None:
        self.bundle, self.before, self.name = bundle, camera, name
        self._taken: dict[str, list[Evidence]] = {}

    @property
    def done(self) -> dict[str, int]:
        """How many windows of 2.5 s each finished step has, by its name."""
        return {name: len(seen) for name, seen in self._taken.items()}

    def take(self, step: str, clip: Clip, session: LivenessSession) -> int:
        """Measure one step's clip.

        Args:
            step: name of one of `STEPS`. clip: what was filmed. session: measures; it is reset.

        Returns:
            number of windows that were taken.

        Raises:
            CameraError: there is no such step, or nothing in the clip can be judged; what was there stays.
        """
        if step not in {s.name for s in STEPS}:
            raise CameraError(f"{step!r} is no step of the teaching: {', '.join(s.name for s in STEPS)}.")
        self._taken[step] = measure(clip, session)
        return len(self._taken[step])

    def drop(self, step: str = "") -> None:
        """Forget one step, or all of them."""
        if step:
            self._taken.pop(step, None)
        else:
            self._taken.clear()

    def fit(self) -> TaughtCamera:
        """The camera that the steps taught.

        Raises:
            CameraError: see `camera.teach`.
        """
        number = 1 + max((clip.lesson for clip in self.before.clips), default=0) if self.before else 1
        rows: list[Taught] = []
        for step in STEPS:
            seen = self._taken.get(step.name, [])
            names = [step.name] * len(seen)
            rows += cameras.lesson(seen, step.kind, names=names, light=step.light, number=number)
        return cameras.teach(rows, self.bundle, name=self.name, extend=self.before)


def told(camera: TaughtCamera) -> dict[str, Any]:
    """What page and widget show of a taught camera: name, clips, threshold, floor, left_out, errors, notes, text."""
    head = camera.head
    return {
        "name": camera.name, "clips": len(camera.clips), "threshold": head.threshold, "floor": head.floor,
        "left_out": head.left_out, "errors": head.errors, "notes": list(camera.notes), "text": camera.describe(),
    }  # fmt: skip
