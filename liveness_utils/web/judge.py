"""One line, one worker: uploads are judged one after the other by one loaded model.

Jobs come in from the server's threads, results go back through futures. A full line is told at
once; whatever fails on the way becomes a rejection, and the worker lives on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import numpy as np

from liveness_utils.bundle import Bundle
from liveness_utils.clips import Clip
from liveness_utils.runtime import LivenessSession, predict_clip
from liveness_utils.web.limits import LIMITS, Limits
from liveness_utils.web.problems import UploadError

Job = Callable[[LivenessSession], Any]


class Judge:
    """Holds the session and the line before it.

    Args:
        bundle: loaded bundle. limits: length of the line, and how long a request waits.
        camera: a taught camera's file, or None.

    Raises:
        BundleError: the bundle is refused. LandmarkError: MediaPipe or its model is missing. CameraError: the camera's
            file is refused.
    """

    def __init__(self, bundle: Bundle, limits: Limits = LIMITS, camera: str | Path | None = None) -> None:
        self.limits = limits
        self.session = LivenessSession(bundle, stream=False, camera=camera)
        self._places = threading.BoundedSemaphore(limits.queue)
        self._jobs: queue.SimpleQueue[tuple[Job, Future] | None] = queue.SimpleQueue()
        self._waiting, self._pace, self._lock = 0, 0.0, threading.Lock()
        self._worker = threading.Thread(target=self._work, name="judge", daemon=True)
        self._worker.start()
        self._jobs.put((warm_up, Future()))

    @property
    def waiting(self) -> int:
        """Uploads in the line, with the one being judged."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether the worker runs."""
        return self._worker.is_alive()

    def reserve(self) -> Place:
        """Take a place in the line.

        Raises:
            UploadError: 503 with Retry-After if there is none.
        """
        self.check_room()
        if not self._places.acquire(blocking=False):
            raise self._busy()
        self._count(+1)
        return Place(self)

    def check_room(self) -> None:
        """Refuse early, before a body is read, what `reserve` would refuse.

        Raises:
            UploadError: 503 with Retry-After.
        """
        if not self.alive or self._waiting >= self.limits.queue:
            raise self._busy()

    def _busy(self) -> UploadError:
        """Come back when half of the line is done, by the pace of late."""
        wait = max(float(self.limits.retry_seconds), 0.5 * self._waiting * self._pace)
        return UploadError(503, "The server is busy; try again in a moment.", retry_after=wait)

    def _count(self, change: int) -> None:
        with self._lock:
            self._waiting += change

    def _release(self) -> None:
        self._count(-1)
        self._places.release()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            if future.set_running_or_notify_cancel():
                begin = time.monotonic()
                try:
                    future.set_result(job(self.session))
                except Exception as error:  # the next upload must still be judged
                    future.set_exception(error)
                self._pace += 0.3 * (time.monotonic() - begin - self._pace)

    def close(self) -> None:
        """End the worker and free the model."""
        self._jobs.put(None)
        self._worker.join(timeout=self.limits.wait_seconds)
        self.session.close()


class Place:
    """A place in the line; leaves it when the block ends, or when its job is done, if that is later."""

    def __init__(self, judge: Judge) -> None:
        self._judge, self._future = judge, None

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        if self._future is None:
            self._judge._release()

    def run(self, job: Job) -> Any:
        """Wait for the worker to do `job`, and return or raise what it does.

        Raises:
            UploadError: 503 if that takes too long; the job is then dropped if it has not begun.
        """
        self._future = Future()
        self._future.add_done_callback(lambda _: self._judge._release())
        self._judge._jobs.put((job, self._future))
        try:
            return self._future.result(timeout=self._judge.limits.wait_seconds)
        except FutureTimeout as error:
            self._future.cancel()
            raise UploadError(503, "The verdict takes too long; record again in a moment.", retry_after=10) from error


def warm_up(session: LivenessSession) -> float:
    """Run everything once, so that the first visitor waits no longer than the others; returns seconds."""
    begin = time.perf_counter()
    t = np.arange(27) / 10.0
    blank = Clip("warm-up", np.zeros((len(t), 64, 64, 3), np.uint8), t)
    predict_clip(blank, session.bundle, session=session)
    return time.perf_counter() - begin
