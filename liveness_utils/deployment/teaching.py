"""From clips to a taught camera: measured by a session as they would be judged, labelled, and a head fitted to them.

Videos or films of guided steps come in, a `camera.TaughtCamera` goes out.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from liveness_utils.bundle import Bundle
from liveness_utils.clips import Clip, load_recording
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment.camera import Evidence, Head, Taught, TaughtCamera
from liveness_utils.errors import CameraError, LivenessError
from liveness_utils.runtime import JUDGED_SECONDS, LivenessSession, predict_clip

INSTRUMENTS = ("print", "screen", "mask", "attack")  # words to teach with, beside the course's species
RIDGE = 0.01  # C of the logistic regression
PRIOR_SCALE = 10.0  # the general head's logit beside standardised numbers: hardly shrunk, so that it is the prior
ALONE = 1.5  # bona fide alone: so many deviations below the taught living clips is the threshold
LIVING_NEEDED = 2
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


def label_videos(
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
        kind: see `label`.
        session: measures.
        person: a code of who is shown. number: of the sitting.

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
        rows += label(seen, shown, names=names, person=person, light=light, number=number)
    return rows


# ------------------------------------------------------------------------------------------ fitting
def label(
    seen: Sequence[Evidence],
    kind: str,
    *,
    names: Sequence[str],
    person: str = "1",
    light: str = "",
    number: int = 1,
) -> list[Taught]:
    """Label what was measured of clips, to be taught.

    Args:
        seen: of `LivenessSession.evidence`, a clip each. kind: `cameras.LIVING`, or print, screen, mask or a species.
        names: of the clips' files. person: a code, no name. light: a word of one's own. number: of the sitting.
    """
    return [
        Taught(kind, person, light, name, number, tuple(float(f"{v:.4g}") for v in found.embedding),
               tuple(float(f"{v:.4g}") for v in found.statistics), tuple(found.size))
        for found, name in zip(seen, names, strict=True)
    ]  # fmt: skip


def teach(
    clips: Sequence[Taught], bundle: Bundle, *, name: str = "camera", extend: TaughtCamera | None = None
) -> TaughtCamera:
    """Fit a head to clips, and choose its threshold on those left out in turn.

    The general network's flat head is the prior: its logit is an input that is hardly shrunk, the 432 numbers of the
    embedding correct it. Where attacks were taught, the threshold lies half way from the fit's own zero to the middle
    between living clips and attacks that were left out (a person in turn where there are several, else a clip): few
    clips may move it, and not far. Of living clips alone it is the general logit, a distance below theirs.

    Args:
        clips: of `label`. bundle: whose embedding they are of. name: of the camera.
        extend: an earlier teaching, whose clips are kept.

    Raises:
        CameraError: too few clips, clips of cameras of different sizes, living and attack mixed up, or the bundle or
            the earlier teaching does not fit.
    """
    general, model = cameras.general_head(bundle), cameras.model_of(bundle)
    if extend is not None:
        if extend.model != model:
            raise CameraError(f"camera {extend.name} was taught with another bundle: teach it anew.")
        clips, name = (*extend.clips, *clips), extend.name
    _check(clips, bundle)
    head = fit(clips, general)
    left = {side: np.mean(values) for side, values in head.left_out.items() if values}
    if len(left) == 2 and left["living"] < left["attacks"]:
        raise CameraError(
            "living clips and attacks look mixed up: each, left out, is taken for the other; check the labels."
        )
    return TaughtCamera(name, model, tuple(clips), head, general)


def fit(clips: Sequence[Taught], general: dict[str, Any]) -> Head:
    """Fit a head to clips, as `teach` does, without asking whether they are enough.

    Args:
        clips: of `label`; rows of one name are parts of one clip. general: `Bundle.picture_head`.
    """
    alive = np.array([c.kind == cameras.LIVING for c in clips])
    embedding, unit = cameras.stack(clips)[0], _unit(clips, general)
    if alive.all():
        return _alone(embedding, general, unit)
    names = np.array([f"{c.person} {c.kind} {c.name} {c.sitting}" for c in clips])
    people = np.array([c.person for c in clips])
    logits = _left_out(embedding, alive, people if len(set(people)) > 1 else names, general)
    by_clip = [(alive[names == n][0], float(logits[names == n].mean())) for n in dict.fromkeys(names)]
    living, attacks = (
        np.array([v for side, v in by_clip if side == want and np.isfinite(v)]) for want in (True, False)
    )
    head = replace(_fit(embedding, alive, general), unit=unit)
    if not (len(living) and len(attacks)):
        return head
    threshold = 0.25 * float(living.mean() + attacks.mean())
    floor = threshold - 0.25 * max(0.0, float(living.mean() - attacks.mean()))
    errors = {"living": _rate(living < threshold), "attacks": _rate(attacks >= threshold)}
    left_out = {"living": living.round(3).tolist(), "attacks": attacks.round(3).tolist()}
    return replace(head, threshold=float(threshold), floor=float(floor), errors=errors, left_out=left_out)


def undo(camera: TaughtCamera, bundle: Bundle) -> TaughtCamera:
    """Forget the last sitting.

    Raises:
        CameraError: it is the only one.
    """
    kept = [c for c in camera.clips if c.sitting < camera.sittings]
    if not kept:
        raise CameraError(f"camera {camera.name} was taught in one sitting: remove the file instead.")
    return teach(kept, bundle, name=camera.name)


def _check(clips: Sequence[Taught], bundle: Bundle) -> None:
    known = (cameras.LIVING, *INSTRUMENTS, *bundle.species)
    for kind in sorted({c.kind for c in clips} - set(known)):
        raise CameraError(f"{kind!r} cannot be taught: say {', '.join(known[:4])}.")
    living = len({(c.name, c.sitting) for c in clips if c.kind == cameras.LIVING})
    if living < LIVING_NEEDED:
        raise CameraError(f"{living} living clips are too few: give {LIVING_NEEDED} or more, in different lights.")
    seen: dict[tuple, str] = {}
    for clip in clips:
        if clip.embedding in seen:
            raise CameraError(f"{clip.name} shows the very same as {seen[clip.embedding]}: give each clip once.")
        seen[clip.embedding] = clip.name
    usual = Counter(c.size for c in clips).most_common(1)[0][0]
    for clip in clips:
        if not cameras.same_camera(clip.size, usual):
            raise CameraError(
                f"{clip.name} is of another camera, or of one that was turned ({clip.size[0]}×{clip.size[1]} px, not "
                f"{usual[0]}×{usual[1]}): teach each by itself."
            )


def _unit(clips: Sequence[Taught], general: dict[str, Any]) -> float:
    living = [c for c in clips if c.kind == cameras.LIVING]
    names = np.array([f"{c.person} {c.name} {c.sitting}" for c in living])
    place = cameras.place(general, *cameras.stack(living))
    between = np.linalg.norm(place[:, None] - place[None], axis=2)
    nearest = np.where(names[:, None] == names[None], np.inf, between).min(axis=1)
    return float(nearest.mean())


def _alone(embedding: np.ndarray, general: dict[str, Any], unit: float) -> Head:
    known = cameras.general_logit(general, embedding)
    spread = max(float(known.std(ddof=1)) if len(known) > 1 else 0.0, cameras.LEAST_SPREAD)
    threshold = float(known.mean()) - ALONE * spread
    size = embedding.shape[1]
    return Head((0.0,) * size, (1.0,) * size, (0.0,) * size, 1.0, 0.0, threshold, threshold - spread, unit)


def _fit(embedding: np.ndarray, alive: np.ndarray, general: dict[str, Any]) -> Head:
    from sklearn.linear_model import LogisticRegression

    mean, scale = embedding.mean(axis=0), embedding.std(axis=0) + 1e-9
    prior = PRIOR_SCALE * cameras.general_logit(general, embedding)
    ridge = LogisticRegression(C=RIDGE, class_weight="balanced", max_iter=3000)
    weight = ridge.fit(np.column_stack([(embedding - mean) / scale, prior]), alive).coef_[0]
    rounded = [tuple(float(f"{v:.5g}") for v in row) for row in (mean, scale, weight[:-1])]
    return Head(*rounded, float(weight[-1]) * PRIOR_SCALE, float(ridge.intercept_[0]), 0.0, -0.5, math.inf)


def _left_out(embedding: np.ndarray, alive: np.ndarray, groups: np.ndarray, general: dict[str, Any]) -> np.ndarray:
    found = np.full(len(alive), np.nan)
    for group in np.unique(groups):
        out = groups == group
        if len(np.unique(alive[~out])) == 2:
            found[out] = cameras.logits(_fit(embedding[~out], alive[~out], general), general, embedding[out])
    return found


def _rate(wrong: np.ndarray) -> dict[str, Any]:
    from liveness_utils import metrics

    return metrics.Rate(int(wrong.sum()), len(wrong)).as_dict()


# ------------------------------------------------------------------------------------------- guided
@dataclass(frozen=True)
class Step:
    """One step of the guided teaching.

    Attributes:
        name: by which it is repeated. kind: what is shown, see `label`. light: a word.
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
            CameraError: see `teach`.
        """
        number = self.before.sittings + 1 if self.before else 1
        rows: list[Taught] = []
        for step in STEPS:
            seen = self._taken.get(step.name, [])
            names = [step.name] * len(seen)
            rows += label(seen, step.kind, names=names, light=step.light, number=number)
        return teach(rows, self.bundle, name=self.name, extend=self.before)


def told(camera: TaughtCamera) -> dict[str, Any]:
    """What page and widget show of a taught camera: name, clips, threshold, floor, left_out, errors, notes, text."""
    head = camera.head
    return {
        "name": camera.name, "clips": len(camera.clips), "threshold": head.threshold, "floor": head.floor,
        "left_out": head.left_out, "errors": head.errors, "notes": list(camera.notes), "text": camera.describe(),
    }  # fmt: skip
