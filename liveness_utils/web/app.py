"""The service: routes, and the order of checks that every request passes.

A request comes in, is held against host, origin, rate and size, is parsed (`upload`), waits its turn
(`judge`), and leaves as a verdict (`report`) or as a problem (`problems`). Every failure rejects.
"""

from __future__ import annotations

import io
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from liveness_utils.bundle import Bundle
from liveness_utils.bundle import load as load_bundle
from liveness_utils.challenge import PROMPTS, WITHOUT_IMU, Challenge, ChallengeBook, ChallengeError, verify
from liveness_utils.errors import CameraError, ConfigError, LivenessError, RecordError
from liveness_utils.recorder import CONSENT, Recorder
from liveness_utils.runtime import LivenessSession, predict_clip
from liveness_utils.web import teaching
from liveness_utils.web.judge import Judge
from liveness_utils.web.limits import LIMITS, Limits, RateLimiter
from liveness_utils.web.openapi import description
from liveness_utils.web.problems import UploadError, problem
from liveness_utils.web.report import outcome
from liveness_utils.web.timing import Stopwatch
from liveness_utils.web.upload import Upload, parse, to_clip

QUIET_SECONDS, STEP_SECONDS, STEPS = 2.6, 3.0, 2
_ASKED, _PLAIN = "c-", "p-"  # begin the nonces of sessions with and without a challenge
LOG = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), accelerometer=(self), gyroscope=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Service:
    """Everything a running page holds; kept as ``app.extensions["liveness"]``."""

    bundle: Bundle
    judge: Judge
    limits: Limits
    plain: ChallengeBook
    asked: ChallengeBook
    clip_rate: RateLimiter
    session_rate: RateLimiter
    recorder: Recorder | None
    teaching: teaching.PageTeaching | None
    require_imu: bool
    hosts: frozenset[str]

    def close(self) -> None:
        """End the worker and free the model."""
        self.judge.close()


class _MemoryRequest(Request):
    """Keeps uploads in memory, which the size limit bounds, so that none touches the disk."""

    def _get_file_stream(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO()


def create_app(
    bundle: Bundle | str | Path,
    *,
    record: str | Path | None = None,
    limits: Limits = LIMITS,
    require_imu: bool = False,
    hosts: Sequence[str] = (),
    camera: str | Path | None = None,
    teach: str | Path | None = None,
) -> Flask:
    """Make the WSGI application.

    Args:
        bundle: folder or loaded; loaded once. record: folder for the recorder, None keeps nothing.
        limits: see `Limits`. require_imu: reject clips without motion data, as a deployment on phones
            should: an attacker can always leave the sensors out.
        hosts: names, beside localhost and bare addresses, under which the page may be reached.
        camera: file of a taught camera, which judges.
        teach: file into which this page may teach its camera; it judges if it is there. Every visitor may then teach,
            and who may teach may open the door: keep such a page to yourself.

    Raises:
        BundleError: the bundle is refused. LandmarkError: MediaPipe or its model is missing. CameraError: the camera's
            file is refused. ConfigError: both `camera` and `teach`.
    """
    app = Flask(__name__)
    app.request_class = _MemoryRequest
    app.config |= {"MAX_CONTENT_LENGTH": limits.body_bytes, "MAX_FORM_MEMORY_SIZE": 2_100_000, "MAX_FORM_PARTS": 8}
    app.json.sort_keys = False
    if camera and teach:
        raise ConfigError("give --camera or --teach: a page that may be taught judges with what it teaches.")
    service = _service(bundle, record, limits, require_imu, hosts, camera, teach)
    app.extensions["liveness"] = service
    _guard(app, service)
    _routes(app, service)
    teaching.add_routes(app, service, limit_rate=_limit_rate, read_upload=_read_upload, redeem=_redeem)
    return app


def _service(
    bundle: Any, record: Any, limits: Limits, require_imu: bool, hosts: Sequence[str], camera: Any, teach: Any
) -> Service:
    held = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    kept = dict(max_open=limits.open_sessions)
    taught = teaching.PageTeaching(held, teach) if teach else None
    if taught is not None and taught.file.exists():
        camera = taught.file
    return Service(
        bundle=held,
        judge=Judge(held, limits, camera),
        limits=limits,
        plain=ChallengeBook(limits.session_seconds, steps=1, **kept),
        asked=ChallengeBook(limits.session_seconds, steps=STEPS, **kept),
        clip_rate=RateLimiter(limits.clips_per_minute, limits.burst, limits.addresses),
        session_rate=RateLimiter(limits.sessions_per_minute, 2 * limits.burst, limits.addresses),
        recorder=None if record is None else Recorder(record, held.species),
        teaching=taught,
        require_imu=require_imu,
        hosts=frozenset(h.lower() for h in ("localhost", *hosts)),
    )


# ------------------------------------------------------------------------------------------- guards
def _guard(app: Flask, service: Service) -> None:
    @app.before_request
    def check_sender() -> None:
        if not _known_host(request.host, service.hosts):
            raise UploadError(421, "This page is not served under that name; use the address it printed.")
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            _same_origin()

    @app.after_request
    def set_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    @app.errorhandler(UploadError)
    def refused(error: UploadError) -> Response:
        return problem(error)

    @app.errorhandler(RecordError)
    def not_kept(error: RecordError) -> Response:
        return problem(UploadError(400, str(error)))

    @app.errorhandler(CameraError)
    def not_taught(error: CameraError) -> Response:
        text = str(error)
        return problem(UploadError(422, text[:1].upper() + text[1:]))

    @app.errorhandler(LivenessError)
    def unusable(error: LivenessError) -> Response:
        return problem(UploadError(422, f"The recording cannot be used: {error}"))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = problem(UploadError(error.code or 500, _said(error, service.limits)))
        allowed = error.get_response().headers.get("Allow")
        if allowed:
            response.headers["Allow"] = allowed
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        LOG.exception("request failed")
        return problem(UploadError(500, "The server failed on this request; nothing was decided."))


def _known_host(host: str, names: frozenset[str]) -> bool:
    """Bare addresses and known names only: a stranger's name that resolves to here is DNS rebinding."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = (parts.hostname or "").lower(), parts.port  # a port that is no number raises too
    except ValueError:
        return False
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same_origin() -> None:
    """Refuse what another site's page sends; programs that are no browser send neither header."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if (origin is not None and origin != request.host_url.rstrip("/")) or site not in (None, "same-origin", "none"):
        raise UploadError(403, "Requests from other sites' pages are refused; open the page itself.")


def _said(error: HTTPException, limits: Limits) -> str:
    known = {
        404: "There is nothing at this address; see /api/v1/openapi.json.",
        405: "This address does not take that method; see /api/v1/openapi.json.",
        413: f"The request is too large: at most {limits.body_bytes} bytes and 8 parts.",
    }
    return known.get(error.code or 0, error.description or "The request cannot be read.")


def _limit_rate(limiter: RateLimiter) -> None:
    wait = limiter.wait(request.remote_addr or "")
    if wait > 0.0:
        raise UploadError(429, "Too many requests from this address; wait a moment.", retry_after=wait)


# ------------------------------------------------------------------------------------------- routes
def _routes(app: Flask, service: Service) -> None:
    @app.get("/")
    def page() -> str:
        return render_template("index.html", config=_page_config(service), consent=CONSENT)

    @app.get("/favicon.ico")
    def icon() -> Response:
        return app.send_static_file("icon.svg")

    @app.get("/healthz")
    def health() -> tuple[Response, int]:
        alive = service.judge.alive
        body = {"status": "ok" if alive else "failed", "waiting": service.judge.waiting}
        return jsonify(body | {"recording": service.recorder is not None}), 200 if alive else 503

    @app.get("/api/v1/openapi.json")
    def openapi() -> Response:
        return jsonify(description(service.limits, service.bundle.species))

    @app.post("/api/v1/sessions")
    def new_session() -> tuple[Response, int]:
        _limit_rate(service.session_rate)
        return jsonify(_open_session(service, *_wishes())), 201

    @app.post("/api/v1/clips")
    def new_clip() -> Response:
        _limit_rate(service.clip_rate)
        service.judge.check_room()
        watch = Stopwatch()
        upload = _read_upload(service.limits)
        watch.lap("read")
        response = jsonify(_judge_upload(service, upload, watch))
        response.headers["Server-Timing"] = watch.header()
        return response


def _page_config(service: Service) -> dict[str, Any]:
    labels = service.recorder.labels if service.recorder else []
    return {
        "quietSeconds": QUIET_SECONDS, "stepSeconds": STEP_SECONDS, "labels": list(labels),
        "maxBytes": service.limits.body_bytes, "requireImu": service.require_imu,
        "teach": service.teaching is not None,
    }  # fmt: skip


def _wishes() -> tuple[bool, bool]:
    """Whether a challenge is wanted, and whether the device has motion sensors."""
    if not request.data:
        return False, True
    held = request.get_json(silent=True)
    known = {"challenge": False, "motion": True}
    if not isinstance(held, dict) or set(held) - set(known) or any(type(v) is not bool for v in held.values()):
        raise UploadError(400, 'The body must be empty or {"challenge": …, "motion": …}, true or false, as JSON.')
    return tuple((known | held).values())


def _open_session(service: Service, challenge: bool, motion: bool = True) -> dict[str, Any]:
    """A nonce, and prompts: without sensors none that needs them, where clips without motion data are taken at all."""
    book = service.asked if challenge else service.plain
    try:
        made = book.issue(prompts=PROMPTS if motion or service.require_imu else WITHOUT_IMU)
    except ChallengeError as error:
        raise UploadError(503, f"The server is busy: {error}", retry_after=service.limits.retry_seconds) from error
    steps = zip(made.prompts, made.instructions, strict=True) if challenge else ()
    return {
        "nonce": (_ASKED if challenge else _PLAIN) + made.nonce,
        "expires_s": made.ttl,
        "quiet_s": QUIET_SECONDS,
        "prompts": [{"name": n, "instruction": text, "seconds": STEP_SECONDS} for n, text in steps],
    }


def _redeem(service: Service, nonce: str) -> Challenge | None:
    """Use a nonce up; returns the challenge if one was asked.

    Raises:
        UploadError: 409 if it is unknown, was used, or is too old.
    """
    asked = nonce.startswith(_ASKED)
    book = service.asked if asked else service.plain
    try:
        found = book.redeem(nonce.removeprefix(_ASKED if asked else _PLAIN))
    except ChallengeError as error:
        raise UploadError(409, "The session's nonce is unknown, was used, or is too old; record again.") from error
    return found if asked else None


def _read_upload(limits: Limits, **more: Any) -> Upload:
    if request.mimetype != "multipart/form-data":
        raise UploadError(415, "Send multipart/form-data with the parts `video` and `meta`.")
    if set(request.files) - {"video", "meta"} or set(request.form) - {"meta"} or "video" not in request.files:
        raise UploadError(400, "Send exactly the parts `video` (a file) and `meta` (JSON).")
    parts = [*request.files.getlist("meta"), *request.form.getlist("meta")]
    if len(parts) != 1 or len(request.files.getlist("video")) != 1:
        raise UploadError(400, "Send the parts `video` and `meta` once each.")
    text = parts[0] if isinstance(parts[0], str) else parts[0].read().decode("utf-8", "replace")
    return parse(request.files["video"].read(), text, limits, **more)


def _judge_upload(service: Service, upload: Upload, watch: Stopwatch | None = None) -> dict[str, Any]:
    watch = watch or Stopwatch()
    if upload.record is not None:
        if service.recorder is None:
            raise UploadError(403, "This server keeps no recordings; send `record`: null.")
        if upload.nonce.startswith(_ASKED):
            raise UploadError(400, "Recordings are made without a challenge.")
        service.recorder.check(upload.record)
    with service.judge.reserve() as place:
        challenge = _redeem(service, upload.nonce)
        return place.run(lambda session: _work(service, upload, challenge, session, watch))


def _work(
    service: Service, upload: Upload, challenge: Challenge | None, session: LivenessSession, watch: Stopwatch
) -> dict[str, Any]:
    """What the worker does for one upload: decode, keep, judge, check the challenge."""
    watch.lap("wait")
    clip, found = to_clip(upload, service.limits, lap=watch.lap)
    if clip.imu is None and service.require_imu:
        raise UploadError(422, "This server needs motion data; use a phone and allow its sensors.")
    recorded = None
    if upload.record is not None and service.recorder is not None:
        try:
            clip = service.recorder.keep(clip, upload.record)
        except OSError as error:
            raise UploadError(503, "The recording could not be stored; see the server's disk.") from error
        recorded = clip.clip_id
        watch.lap("keep")
    verdict = predict_clip(clip, service.bundle, session=session)
    watch.judged(verdict)
    result = None
    if challenge is not None:
        result = verify(challenge, clip, need_imu=service.require_imu)
        watch.lap("challenge")
    return outcome(verdict, clip, found, challenge=result, recorded=recorded)
