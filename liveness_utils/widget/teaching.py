"""The kernel's half of teaching in the widget: frames of a step go in, numbers of it and at last a camera come out.

`deployment.teaching.Teacher` measures and fits; what the page is told is made here. A step's pictures are forgotten
as soon as it was measured.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from liveness_utils.clips import Clip
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment import teaching
from liveness_utils.errors import CameraError
from liveness_utils.runtime import LivenessSession

MAX_FRAMES = 300  # of a step; a camera of 30 Hz sends 180
KINDS = ("teach_start", "teach_take", "teach_done", "teach_drop", "teach_fit", "teach_stop")
SKIP = {"print": "I have no sheet of paper"}  # in place of "Skip", by what the step shows


class WidgetTeaching:
    """One teaching after the other, as the page asks for them.

    Args:
        live: the session that judges live: it gets the camera once that is fitted, and measures nothing here.
        path: where the camera is saved, or None.
    """

    def __init__(self, live: LivenessSession, path: str | os.PathLike | None = None) -> None:
        self.live, self.path = live, None if path is None else Path(path)
        self.filming = ""
        self._teacher: teaching.Teacher | None = None
        self._session: LivenessSession | None = None
        self._frames: list[tuple[float, np.ndarray]] = []

    def answer(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one of the page's messages.

        Args:
            content: its kind, one of `KINDS`, and where it needs one the step's name.

        Returns:
            what to tell the page, with a kind of its own.

        Raises:
            CameraError: the step cannot be taught, or the camera not be fitted or saved, with the reason.
        """
        kind, step = content["kind"], content.get("step")
        if kind == "teach_start":
            return self._start(bool(content.get("extend")))
        if kind == "teach_stop":
            self.close()
            return {"kind": "teach_stopped"}
        if self._teacher is None:
            raise CameraError("no teaching is under way, perhaps as the kernel was started again: begin anew.")
        if kind == "teach_take":
            return self._take(step)
        if kind == "teach_done":
            return self._done(step)
        if kind == "teach_drop":
            self._forget()
            self._teacher.drop(str(step or ""))
            return {"kind": "teach_dropped", "done": self._teacher.done}
        return self._fit()

    def keep(self, image: np.ndarray, t: float) -> int:
        """Hold a frame of the step that is filmed until it is measured.

        Args:
            image: (H, W, 3) uint8 RGB. t: s; a time that does not increase is passed over.

        Returns:
            how many are held.
        """
        if len(self._frames) < MAX_FRAMES and (not self._frames or t > self._frames[-1][0]):
            self._frames.append((t, image))
        return len(self._frames)

    def close(self) -> None:
        """Forget everything that was not fitted yet."""
        self._forget()
        self._teacher = None
        if self._session is not None:
            self._session.close()
            self._session = None

    def _start(self, extend: bool) -> dict[str, Any]:
        self.close()
        before = self.live.camera if extend else None
        name = self.path.stem if self.path else "camera"
        self._teacher = teaching.Teacher(self.live.bundle, before, name)
        self._session = LivenessSession(self.live.bundle, facing=self.live.facing, stream=False)
        steps = [{n: getattr(s, n) for n in ("name", "kind", "title", "text", "optional")} for s in teaching.STEPS]
        steps = [s | {"skip": SKIP.get(s["kind"], "Skip")} for s in steps]
        saved = str(self.path) if self.path else ""
        return {"kind": "teach_steps", "steps": steps, "seconds": teaching.SECONDS, "saved": saved}

    def _take(self, step: Any) -> dict[str, Any]:
        if step not in {s.name for s in teaching.STEPS}:
            raise CameraError(f"{step!r} is no step of the teaching.")
        self._forget()
        self.filming = step
        return {"kind": "teach_filming", "step": step}

    def _done(self, step: Any) -> dict[str, Any]:
        frames, filmed = self._frames, self.filming
        self._forget()
        if step != filmed:
            raise CameraError(f"{step!r} is not the step that was filmed: film it again.")
        windows = self._teacher.take(step, _clip(frames, self.live.facing), self._session)
        return {"kind": "teach_taken", "step": step, "windows": windows, "done": self._teacher.done}

    def _fit(self) -> dict[str, Any]:
        taught = self._teacher.fit()
        saved = self._save(taught) if self.path else ""
        self.live.camera = taught
        self.close()
        return {"kind": "teach_fitted", "saved": saved, **teaching.told(taught)}

    def _save(self, taught: cameras.TaughtCamera) -> str:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return str(cameras.save(taught, self.path))
        except OSError as error:
            raise CameraError(f"{self.path}: cannot be written ({error.strerror}); free it and fit again.") from error

    def _forget(self) -> None:
        self._frames, self.filming = [], ""


def _clip(frames: list[tuple[float, np.ndarray]], facing: str) -> Clip:
    """What was filmed in a step, from 0 s on.

    Raises:
        CameraError: there is no film, or its pictures have several sizes.
    """
    if len(frames) < 2:
        raise CameraError("no pictures came while this step was filmed: film it again.")
    if len({image.shape for _, image in frames}) > 1:
        raise CameraError("the camera was turned or changed while this step was filmed: film it again.")
    t = np.array([at for at, _ in frames])
    return Clip("taught", np.stack([image for _, image in frames]), t - t[0], None, None, facing, source="the camera")
