"""The API's description (OpenAPI 3.1), built from the limits that are in force.

Nothing comes in but `Limits` and the species; a plain dict goes out, which the tests fuzz against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liveness_utils import __version__
from liveness_utils.deployment.teaching import STEPS
from liveness_utils.runtime import DECISIONS
from liveness_utils.web.limits import Limits
from liveness_utils.web.timing import STAGES
from liveness_utils.web.upload import ANGLES, CLOCKS, PLATFORMS

_NUMBER = {"type": "number", "minimum": -1e9, "maximum": 1e9}
_TEXT = {"type": "string"}


def description(limits: Limits, species: Sequence[str]) -> dict[str, Any]:
    """The whole description.

    Args:
        limits: in force. species: labels that the recorder accepts.

    Source: OpenAPI Specification 3.1; RFC 9457 for problems.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Face liveness",
            "version": __version__,
            "description": (
                "Judges short clips of video and motion data. First ask for a session, then send one clip "
                "with its nonce. Scores are P(bona fide). Every failure rejects."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/healthz": {"get": _health()},
            "/api/v1/openapi.json": {"get": _self()},
            "/api/v1/sessions": {"post": _sessions()},
            "/api/v1/clips": {"post": _clips()},
            "/api/v1/steps": {"post": _new_step(), "delete": _drop_steps()},
            "/api/v1/camera": {"get": _tell_camera(), "post": _fit_camera(), "delete": _forget_camera()},
        },
        "components": {"schemas": _schemas(limits, species)},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str, text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref(name)}}}


def _problems(**known: str) -> dict[str, Any]:
    """Responses by status; those to repeat later carry Retry-After."""
    later = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {
        code[1:]: {"description": text, "content": content} | ({"headers": later} if code in ("_429", "_503") else {})
        for code, text in known.items()
    }


_SENDER = {"_403": "Sent by another site's page.", "_421": "Not the name of this server."}


def _health() -> dict[str, Any]:
    return {
        "operationId": "health",
        "summary": "Whether the worker lives, and how many clips wait.",
        "responses": {
            "200": _json("Health", "It lives."),
            "503": _json("Health", "It does not."),
            **_problems(_421=_SENDER["_421"]),
        },
    }


def _self() -> dict[str, Any]:
    schema = {"schema": {"type": "object", "required": ["openapi", "paths"]}}
    ok = {"description": "OpenAPI.", "content": {"application/json": schema}}
    return {
        "operationId": "describe",
        "summary": "This description.",
        "responses": {"200": ok, **_problems(_421=_SENDER["_421"])},
    }


def _sessions() -> dict[str, Any]:
    return {
        "operationId": "newSession",
        "summary": "Open a session: a nonce for one clip, and prompts if a challenge is wanted.",
        "requestBody": {"required": False, "content": {"application/json": {"schema": _ref("Wish")}}},
        "responses": {
            "201": _json("Session", "The session."),
            **_problems(
                _400="The body is something else.", _413="The body is too large.",
                _429="Too many from this address.", _503="Too many sessions are open.", **_SENDER,
            ),
        },
    }  # fmt: skip


def _multipart(name: str) -> dict[str, Any]:
    encoding = {"video": {"contentType": "video/mp4, video/webm"}, "meta": {"contentType": "application/json"}}
    return {"required": True, "content": {"multipart/form-data": {"schema": _ref(name), "encoding": encoding}}}


_UPLOAD = {
    "_400": "A part is missing or malformed.", "_409": "The nonce is unknown, used or too old.",
    "_413": "Too large, too long or too many frames.", "_415": "No MP4 or WebM of a known codec.",
    "_429": "Too many from this address.", "_503": "The line is full.", **_SENDER,
}  # fmt: skip


def _clips() -> dict[str, Any]:
    return {
        "operationId": "judgeClip",
        "summary": "Judge one clip.",
        "requestBody": _multipart("Clip"),
        "responses": {
            "200": _json("Verdict", "Decided, or no decision with its reasons.") | {"headers": _timing()},
            **_problems(**_UPLOAD, _422="Damaged, or video, times and motion contradict each other."),
        },
    }


# ------------------------------------------------------------------------------------------ teaching
_CLOSED = {**_SENDER, "_403": "Sent by another site's page, or this server's camera cannot be taught from its page."}
_WORK = {
    **_CLOSED, "_429": "Too many from this address.", "_503": "The line is full, or the file cannot be written.",
}  # fmt: skip


def _new_step() -> dict[str, Any]:
    return {
        "operationId": "newStep",
        "summary": "Film one step of the teaching: the clip is measured and forgotten. Filmed again, it is replaced.",
        "requestBody": _multipart("Step"),
        "responses": {
            "200": _json("Taken", "What was taken of it."),
            **_problems(**_UPLOAD | _CLOSED, _422="Damaged, or nothing in it can be judged: the reason in words."),
        },
    }


def _drop_steps() -> dict[str, Any]:
    return {
        "operationId": "dropSteps",
        "summary": "Forget what was filmed for one step, or for all of them.",
        "requestBody": {"required": False, "content": {"application/json": {"schema": _ref("Which")}}},
        "responses": {
            "200": _json("Done", "What is left."),
            **_problems(_400="The body is something else.", _413="The body is too large.", **_WORK),
        },
    }


def _tell_camera() -> dict[str, Any]:
    return {
        "operationId": "tellCamera",
        "summary": "The taught camera that judges, what was filmed since, and the steps of a teaching.",
        "responses": {"200": _json("Teaching", "As it stands."), **_problems(_429=_WORK["_429"], **_CLOSED)},
    }


def _fit_camera() -> dict[str, Any]:
    return {
        "operationId": "fitCamera",
        "summary": "Fit a camera to the steps that were filmed, keep it in place of the one before, and judge with it.",
        "responses": {
            "200": _json("Camera", "It judges from now on."),
            **_problems(_422="Too little was filmed, or it is mixed up: the reason in words.", **_WORK),
        },
    }


def _forget_camera() -> dict[str, Any]:
    forgotten = {"schema": _object(["taught"], taught={"type": "null"})}
    return {
        "operationId": "forgetCamera",
        "summary": "Forget the taught camera: its file is removed, and the bundle alone judges.",
        "responses": {
            "200": {"description": "Forgotten.", "content": {"application/json": forgotten}},
            **_problems(**_WORK),
        },
    }


def _timing() -> dict[str, Any]:
    """The header that says where the time went."""
    stages = "; ".join(f"`{name}` {text}" for name, text in STAGES.items())
    return {
        "Server-Timing": {
            "description": f"Milliseconds (`dur`) a stage, of those that took place: {stages}.",
            "required": True,
            "schema": {"type": "string", "pattern": r"^[a-z]+;dur=\d+\.\d(, [a-z]+;dur=\d+\.\d)*$"},
        }
    }


def _object(required: Sequence[str] = (), *, closed: bool = True, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": not closed,
    }  # fmt: skip


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _schemas(limits: Limits, species: Sequence[str]) -> dict[str, Any]:
    return {**_request_schemas(limits, species), **_response_schemas()}


def _request_schemas(limits: Limits, species: Sequence[str]) -> dict[str, Any]:
    code = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,24}$"}
    row = {"type": "array", "items": _NUMBER, "minItems": 7, "maxItems": 7}
    frames = {
        "type": "array", "items": _NUMBER, "minItems": 2, "maxItems": limits.max_frames,
        "description": "Capture time of each frame in ms, increasing, any zero.",
    }  # fmt: skip
    samples = {
        "type": "array", "items": row, "minItems": 2, "maxItems": limits.imu_samples,
        "description": (
            "t in ms on the clock of `frames`, increasing; acceleration including gravity in m/s², "
            "rotation rate in °/s, both as x, y, z of the browser's device axes."
        ),
    }  # fmt: skip
    meta = {
        "nonce": {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"},
        "frames": frames,
        "prints": _nullable({
            "type": "string", "contentEncoding": "base64",
            "description": "8 x 8 grey values, row by row, of each frame: says which picture a time is of.",
        }),
        "clock": {"type": "string", "enum": list(CLOCKS), "default": CLOCKS[0]},
        "camera_facing": {"type": "string", "enum": ["front", "rear"], "default": "front"},
        "imu": _nullable(_ref("Imu")),
        "record": _nullable(_ref("Record")),
    }  # fmt: skip
    step = {"type": "string", "enum": [s.name for s in STEPS]}
    return {
        "Wish": _object(challenge={"type": "boolean", "default": False}, motion={"type": "boolean", "default": True}),
        "Clip": _object(
            ["video", "meta"],
            video={"type": "string", "format": "binary", "description": "MP4 or WebM, one video track."},
            meta=_ref("Meta"),
        ),
        "Step": _object(
            ["video", "meta"], video={"type": "string", "format": "binary"}, meta=_ref("StepMeta"),
        ),
        "Which": _object(step=step),
        "Meta": _object(["nonce", "frames"], **meta),
        "StepMeta": _object(["nonce", "frames", "step"], **meta, step=step),
        "Imu": _object(
            ["samples"],
            platform={"type": "string", "enum": list(PLATFORMS), "default": PLATFORMS[0]},
            screen_angle={"type": "integer", "enum": list(ANGLES), "default": 0},
            samples=samples,
        ),
        "Record": _object(
            ["label", "subject", "consent"],
            label={"type": "string", "enum": list(species)},
            subject=code,
            device=_nullable(code),
            consent={"type": "boolean"},
        ),
    }  # fmt: skip


def _response_schemas() -> dict[str, Any]:
    number, numbers = _nullable({"type": "number"}), {"type": "object"}
    decision = {"type": "string", "enum": list(DECISIONS)}
    bar = _object(["name", "label", "text", "level"], name=_TEXT, label=_TEXT, text=_TEXT, level=_NUMBER)
    prompt = _object(["name", "instruction", "seconds"], name=_TEXT, instruction=_TEXT, seconds=_NUMBER)
    texts = {"type": "array", "items": _TEXT}
    return {
        **_teaching_schemas(texts, numbers),
        "Session": _object(
            ["nonce", "expires_s", "quiet_s", "prompts"],
            nonce=_TEXT, expires_s=_NUMBER, quiet_s=_NUMBER, prompts={"type": "array", "items": prompt},
        ),
        "Verdict": _object(
            ["decision", "score", "threshold", "reasons", "sentence", "notes", "camera", "bars", "challenge", "capture", "recorded"],
            closed=False,
            decision=decision, score=number, threshold=number, reasons=texts,
            sentence=_TEXT, bars={"type": "array", "items": bar}, quality=numbers, cues=numbers, timings_ms=numbers,
            dev=numbers, camera=numbers, notes=texts, capture=numbers, challenge=_nullable({"type": "object"}), recorded=_nullable(_TEXT),
        ),
        "Health": _object(
            ["status", "waiting", "recording"],
            status={"type": "string", "enum": ["ok", "failed"]}, waiting={"type": "integer"},
            recording={"type": "boolean"},
        ),
        "Problem": _object(
            ["type", "title", "status", "detail", "decision"],
            type=_TEXT, title=_TEXT, status={"type": "integer"}, detail=_TEXT,
            decision={"type": "string", "const": "no_decision"},
        ),
    }  # fmt: skip


def _teaching_schemas(texts: dict[str, Any], numbers: dict[str, Any]) -> dict[str, Any]:
    done = {"type": "object", "additionalProperties": {"type": "integer"}}
    step = _object(
        ["name", "kind", "light", "title", "text", "optional", "seconds"],
        name=_TEXT, kind=_TEXT, light=_TEXT, title=_TEXT, text=_TEXT, optional={"type": "boolean"}, seconds=_NUMBER,
    )  # fmt: skip
    return {
        "Taken": _object(["step", "windows", "done"], step=_TEXT, windows={"type": "integer"}, done=done),
        "Done": _object(["done"], done=done),
        "Teaching": _object(
            ["taught", "done", "steps"],
            taught=_nullable(_ref("Camera")), done=done, steps={"type": "array", "items": step},
        ),
        "Camera": _object(
            ["name", "clips", "threshold", "floor", "left_out", "errors", "notes", "text"],
            name=_TEXT, clips={"type": "integer"}, threshold={"type": "number"}, floor={"type": "number"},
            left_out=numbers, errors=numbers, notes=texts, text=_TEXT,
        ),
    }  # fmt: skip
