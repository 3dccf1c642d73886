"""Where the time of one upload goes: a stopwatch by stage, told to the browser as `Server-Timing`.

`app` starts one for each upload and laps it in the server's thread and the worker's, one after the
other; the page and notebook 08 read the header.
"""

from __future__ import annotations

from time import perf_counter

from liveness_utils.runtime import Verdict

# In the order in which they are done; `total` is from the whole request's arrival to its answer.
STAGES = {
    "read": "body into video and metadata",
    "wait": "for the worker",
    "decode": "the video",
    "align": "the frames' times and the motion data",
    "keep": "the recording, if asked",
    "landmarks": "of every frame",
    "features": "cues of every frame",
    "crops": "pictures for the network and their quality",
    "model": "the network, once",
    "challenge": "its check, if asked",
    "total": "all of it",
}


class Stopwatch:
    """Milliseconds by stage of one request; `STAGES` names them."""

    def __init__(self) -> None:
        self._begin = self._lap = perf_counter()
        self._spent: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Everything since the lap before was `stage`."""
        now = perf_counter()
        self._add(stage, now - self._lap)
        self._lap = now

    def judged(self, verdict: Verdict) -> None:
        """Take over what `runtime.predict_clip` has measured inside itself; ends its lap."""
        told = verdict.timings_ms
        parts = {"landmarks": "landmarks", "features": "features", "model": "clip"}
        for stage, name in parts.items():
            self._add(stage, told.get(name, 0.0) / 1e3)
        now = perf_counter()
        self._add("crops", now - self._lap - sum(told.get(n, 0.0) for n in parts.values()) / 1e3)
        self._lap = now

    def _add(self, stage: str, seconds: float) -> None:
        self._spent[stage] = self._spent.get(stage, 0.0) + seconds

    def milliseconds(self) -> dict[str, float]:
        """By stage, in the order of `STAGES`, up to the last lap; stages that did not take place are left out."""
        spent = self._spent | {"total": self._lap - self._begin}
        return {name: 1e3 * spent[name] for name in STAGES if name in spent}

    def header(self) -> str:
        """The value of `Server-Timing`.

        Source: W3C Server Timing, section 4.
        """
        return ", ".join(f"{name};dur={value:.1f}" for name, value in self.milliseconds().items())


def read_header(value: str) -> dict[str, float]:
    """Milliseconds by stage from a `Server-Timing` that `Stopwatch` wrote.

    >>> read_header("decode;dur=31.5, total;dur=40.0")
    {'decode': 31.5, 'total': 40.0}
    """
    parts = (part.strip().partition(";dur=") for part in value.split(",") if part.strip())
    return {name: float(duration) for name, _, duration in parts}
