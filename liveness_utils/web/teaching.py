"""Teaching the camera from the page: guided steps come in as clips, a taught camera judges from then on.

Clips pass the same checks as those to be judged (`app`), are measured by the worker (`judge`) and forgotten; numbers
stay, in memory until they are fitted, then in the camera's file. Who may teach may open the door: a service has these
routes only where it was started to be taught, and refuses them everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request

from liveness_utils.bundle import Bundle
from liveness_utils.clips import Clip
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment.teaching import SECONDS, STEPS, Teacher, told
from liveness_utils.errors import CameraError
from liveness_utils.runtime import LivenessSession
from liveness_utils.web.problems import UploadError
from liveness_utils.web.upload import Upload, to_clip

NAMES = tuple(step.name for step in STEPS)


class PageTeaching:
    """The file that a page may teach into, and what was filmed for it; only the worker calls its methods.

    A teaching begins without the clips of the file that is there, and replaces it. All visitors share it.

    Args:
        bundle: whose embedding it is.
        file: of the taught camera, there or not.

    Raises:
        CameraError: there is no folder for the file.
    """

    def __init__(self, bundle: Bundle, file: str | Path) -> None:
        self.file = Path(file).expanduser()
        if not self.file.parent.is_dir():
            raise CameraError(f"{self.file}: there is no folder {self.file.parent} to teach into; make it first.")
        self._teacher = Teacher(bundle, name=self.file.stem)
        self.done: dict[str, int] = {}

    def take(self, step: str, clip: Clip, session: LivenessSession) -> dict[str, Any]:
        """Measure one step's clip.

        Args:
            step: name of one of `STEPS`.
            clip: what was filmed.
            session: measures.

        Raises:
            CameraError: nothing in it can be judged; what was there stays.
        """
        windows = self._teacher.take(step, clip, session)
        self.done = self._teacher.done
        return {"step": step, "windows": windows, "done": self.done}

    def drop(self, step: str = "") -> dict[str, Any]:
        """Forget one step, or all of them."""
        self._teacher.drop(step)
        self.done = self._teacher.done
        return {"done": self.done}

    def fit(self, session: LivenessSession) -> dict[str, Any]:
        """Fit the camera, keep its file, and let the session judge with it.

        Raises:
            CameraError: too little was taught, or it is mixed up.
            UploadError: 503 if the file cannot be written; nothing has changed then.
        """
        camera = self._teacher.fit()
        try:
            cameras.save(camera, self.file)
        except OSError as error:
            raise UploadError(503, "The taught camera could not be stored; see the server's disk.") from error
        session.camera = camera
        return told(camera)

    def forget(self, session: LivenessSession) -> dict[str, Any]:
        """Remove the file, and judge without a taught camera.

        Raises:
            UploadError: 503 if the file cannot be removed; nothing has changed then.
        """
        try:
            self.file.unlink(missing_ok=True)
        except OSError as error:
            raise UploadError(503, "The taught camera's file could not be removed; see the server's disk.") from error
        session.camera = None
        return {"taught": None}


def add_routes(
    app: Flask,
    service: Any,
    *,
    limit_rate: Callable[[Any], None],
    read_upload: Callable[..., Upload],
    redeem: Callable[[Any, str], Any],
) -> None:
    """Add the teaching's routes.

    Args:
        app: to which they are added.
        service: of the page (`app.Service`); without `teaching` each route answers 403.
        limit_rate: takes a rate limiter and refuses who comes too often.
        read_upload: reads a multipart request, as for clips.
        redeem: uses a nonce up, and returns the challenge if one was asked.
    """

    def allowed(rate: Any) -> PageTeaching:
        if service.teaching is None:
            raise UploadError(403, "This server's camera cannot be taught from its page; start it with --teach FILE.")
        limit_rate(rate)
        return service.teaching

    def work(job: Callable[[LivenessSession], Any]) -> Any:
        with service.judge.reserve() as place:
            return place.run(job)

    @app.post("/api/v1/steps")
    def new_step() -> Response:
        held = allowed(service.clip_rate)
        service.judge.check_room()
        upload = read_upload(service.limits, steps=NAMES)
        if upload.record is not None:
            raise UploadError(400, "Steps of a teaching are not kept as recordings; send `record`: null.")
        with service.judge.reserve() as place:
            if redeem(service, upload.nonce) is not None:
                raise UploadError(400, "Steps of a teaching are filmed without a challenge.")
            return jsonify(place.run(lambda session: _measure(held, upload, service.limits, session)))

    @app.delete("/api/v1/steps")
    def drop_steps() -> Response:
        held, step = allowed(service.session_rate), _which()
        return jsonify(work(lambda session: held.drop(step)))

    @app.get("/api/v1/camera")
    def tell() -> Response:
        held, camera = allowed(service.session_rate), service.judge.session.camera
        known = None if camera is None else told(camera)
        return jsonify({"taught": known, "done": held.done, "steps": steps()})

    @app.post("/api/v1/camera")
    def fit() -> Response:
        held = allowed(service.session_rate)
        return jsonify(work(held.fit))

    @app.delete("/api/v1/camera")
    def forget() -> Response:
        held = allowed(service.session_rate)
        return jsonify(work(held.forget))


def steps() -> list[dict[str, Any]]:
    """The steps as the page shows them, each with the seconds that it films."""
    return [asdict(step) | {"seconds": SECONDS} for step in STEPS]


def _measure(held: PageTeaching, upload: Upload, limits: Any, session: LivenessSession) -> dict[str, Any]:
    clip, _ = to_clip(upload, limits)
    try:
        return held.take(upload.step, clip, session)
    except CameraError as error:
        raise UploadError(422, f"This cannot be taught: {error}.") from error


def _which() -> str:
    """The step that a request names, or "" for all."""
    if not request.data:
        return ""
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or set(body) - {"step"} or body.get("step", NAMES[0]) not in NAMES:
        raise UploadError(400, 'The body must be empty or {"step": the name of a step}, as application/json.')
    return body.get("step", "")
