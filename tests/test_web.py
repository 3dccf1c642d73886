"""The phone page's service: what it accepts, what it refuses, and that nothing fails open."""

from __future__ import annotations

import base64
import io
import json
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liveness_utils import cli, clips, config, runtime
from liveness_utils.challenge import ChallengeBook
from liveness_utils.errors import ConfigError
from liveness_utils.web import Limits, create_app, timing
from liveness_utils.web import app as web_app
from liveness_utils.web import serve as web_serve
from liveness_utils.web import upload as web_upload
from liveness_utils.web.problems import UploadError

SAMPLES = config.samples_dir()
OPEN = Limits(
    clips_per_minute=1e6,
    sessions_per_minute=1e6,
    burst=100_000,
    session_seconds=900.0,
    open_sessions=50_000,
    wait_seconds=300.0,
)
BONA_FIDE = runtime.Verdict("bona_fide", 0.99, 0.5)


# ------------------------------------------------------------------------------------------ helpers
@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return bundle_folder


@pytest.fixture(scope="module")
def app(bundle):
    made = create_app(bundle, limits=OPEN)
    yield made
    made.extensions["liveness"].close()


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def accepting(monkeypatch):
    """A judge that finds everything bona fide: what still rejects is the service itself."""
    monkeypatch.setattr(web_app, "predict_clip", lambda *_, **__: BONA_FIDE)


def sample(species: str = "bona_fide") -> clips.Clip:
    table = clips.read_manifest(SAMPLES)
    row = table[table["pai_species"].fillna("bona_fide") == species].iloc[0]
    return clips.load_clip(SAMPLES, row["clip_id"], row=row)


def video_bytes(clip: clips.Clip) -> bytes:
    return (SAMPLES / "clips" / clip.clip_id / "video.mp4").read_bytes()


def prints_of(frames: np.ndarray) -> str:
    small = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (8, 8), interpolation=cv2.INTER_AREA) for f in frames]
    return base64.b64encode(np.array(small, np.uint8).tobytes()).decode()


def imu_rows(imu: clips.Imu, zero: float = 0.0) -> list[list[float]]:
    return np.column_stack([1e3 * (imu.t + zero), imu.accel, np.degrees(imu.gyro)]).tolist()


def meta_of(clip: clips.Clip, nonce: str, **change) -> dict:
    """What the page would send for a stored clip; the page's clock is at 4 s when it begins."""
    held = {
        "nonce": nonce,
        "frames": (1e3 * (clip.t + 4.0)).tolist(),
        "prints": prints_of(clip.frames),
        "clock": "capture",
        "camera_facing": clip.camera_facing,
        "imu": {"platform": "w3c", "screen_angle": 0, "samples": imu_rows(clip.imu, 4.0)},
        "record": None,
    }
    return held | change


def nonce(client, challenge: bool = False) -> str:
    return client.post("/api/v1/sessions", json={"challenge": challenge}).json["nonce"]


def post(client, video: bytes, meta, path: str = "/api/v1/clips", **more):
    text = meta if isinstance(meta, (str, bytes)) else json.dumps(meta)
    form = {"video": (io.BytesIO(video), "../../etc/passwd"), "meta": text}
    return client.post(path, data=form, content_type="multipart/form-data", **more)


def refused(response, status: int, words: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    held = response.json
    assert held["status"] == status and held["decision"] == "no_decision" and "score" not in held
    assert held["title"] and words in held["detail"]


# ------------------------------------------------------------------------------------- page, headers
def test_the_page_is_whole_and_has_no_inline_script(client):
    page = client.get("/")
    assert page.status_code == 200 and page.mimetype == "text/html"
    text = page.text
    assert "<style" not in text and " style=" not in text and " onclick" not in text
    assert text.count("<script") == 1 and 'src="/static/page.js"' in text
    for name in ("page.js", "capture.js", "teach.js", "page.css", "icon.svg"):
        assert client.get(f"/static/{name}").status_code == 200
    assert json.loads(text.split("data-config='")[1].split("'")[0])["labels"] == []


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/static/page.js", "/api/v1/openapi.json", "/nowhere", "/api/v1/clips"]
)
def test_every_answer_has_strict_headers(client, path):
    found = client.get(path).headers
    assert "default-src 'none'" in found["Content-Security-Policy"]
    assert "unsafe" not in found["Content-Security-Policy"]
    assert found["X-Content-Type-Options"] == "nosniff" and found["Referrer-Policy"] == "no-referrer"
    assert "camera=(self)" in found["Permissions-Policy"] and "microphone=()" in found["Permissions-Policy"]
    assert "Access-Control-Allow-Origin" not in found


def test_health(client):
    assert client.get("/healthz").json == {"status": "ok", "waiting": 0, "recording": False}


# ------------------------------------------------------------------------------------------ verdicts
@pytest.mark.parametrize("species", ["bona_fide", "flat_print"])
def test_an_upload_gets_the_offline_verdict(client, bundle, species):
    clip = sample(species)
    answer = post(client, video_bytes(clip), meta_of(clip, nonce(client)))
    assert answer.status_code == 200
    found, offline = answer.json, runtime.predict_clip(replace(clip, intrinsics=None), bundle)
    assert found["decision"] == offline.decision != "no_decision"
    assert found["score"] == pytest.approx(offline.score, abs=1e-4)
    assert found["threshold"] == offline.threshold and found["capture"]["has_imu"]
    assert found["capture"]["offset"] == pytest.approx(4.0, abs=1e-3)
    assert {b["name"] for b in found["bars"]} >= {"consistency", "luma"} and found["recorded"] is None
    assert all(0 <= b["level"] <= 1 for b in found["bars"])


def test_an_answer_says_where_its_time_went(client):
    clip, begin = sample(), time.perf_counter()
    answer = post(client, video_bytes(clip), meta_of(clip, nonce(client)))
    whole, spent = 1e3 * (time.perf_counter() - begin), timing.read_header(answer.headers["Server-Timing"])
    asked = {"keep", "challenge"}
    assert list(spent) == [name for name in timing.STAGES if name not in asked]
    assert 0 < spent["total"] <= whole and min(spent.values()) >= 0
    assert spent["total"] == pytest.approx(sum(v for k, v in spent.items() if k != "total"), abs=0.1 * len(spent))
    told = answer.json["timings_ms"]
    assert spent["landmarks"] == pytest.approx(told["landmarks"], abs=0.1)
    assert spent["model"] == pytest.approx(told["clip"], abs=0.1) and spent["decode"] > 0
    said = client.get("/api/v1/openapi.json").json["paths"]["/api/v1/clips"]["post"]["responses"]["200"]["headers"]
    pattern = said["Server-Timing"]["schema"]["pattern"]
    assert re.fullmatch(pattern, answer.headers["Server-Timing"]) and not re.fullmatch(pattern, "decode=3")
    assert all(f"`{name}`" in said["Server-Timing"]["description"] for name in spent)


def test_only_what_was_judged_tells_its_time(client, app, accepting, monkeypatch):
    clip = sample()
    asked = client.post("/api/v1/sessions", json={"challenge": True}).json["nonce"]
    answer = post(client, video_bytes(clip), meta_of(clip, asked))
    assert timing.read_header(answer.headers["Server-Timing"])["challenge"] > 0
    assert "Server-Timing" not in post(client, video_bytes(clip), meta_of(clip, asked)).headers, "refused"


def test_a_stopwatch_adds_up_and_keeps_its_order(monkeypatch):
    now = iter([0.0, 0.5, 0.75, 2.0, 3.0])
    monkeypatch.setattr(timing, "perf_counter", lambda: next(now))
    watch = timing.Stopwatch()
    watch.lap("wait"), watch.lap("read")
    told = {"landmarks": 1000.0, "features": 100.0, "clip": 50.0, "total": 1200.0}
    watch.judged(runtime.Verdict("attack", 0.1, 0.5, timings_ms=told))
    watch.lap("challenge")
    assert watch.milliseconds() == pytest.approx({
        "read": 250, "wait": 500, "landmarks": 1000, "features": 100, "crops": 100, "model": 50, "challenge": 1000,
        "total": 3000,
    })  # fmt: skip


def test_video_alone_is_judged_by_its_own_threshold(client, bundle):
    clip = sample()
    found = post(client, video_bytes(clip), meta_of(clip, nonce(client), imu=None)).json
    offline = runtime.predict_clip(replace(clip, intrinsics=None, imu=None), bundle)
    assert found["threshold"] == offline.threshold and not found["capture"]["has_imu"]


def test_a_clip_without_a_face_is_no_decision(client):
    t = np.arange(0, 2.6, 1 / 30)
    grey = np.full((len(t), 128, 128, 3), 90, np.uint8)
    clip = clips.Clip("x", grey, t)
    found = post(client, encoded(grey, t), {"nonce": nonce(client), "frames": (1e3 * clip.t).tolist()}).json
    assert found["decision"] == "no_decision" and found["score"] is None
    assert any("no face" in reason for reason in found["reasons"])


def encoded(frames: np.ndarray, t: np.ndarray, codec: str = "libx264", form: str = "mp4", rate: int = 30) -> bytes:
    """A video of this picture in memory."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for image, seconds in zip(frames, t, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = round(1e4 * seconds), web_time_base()
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def web_time_base():
    from fractions import Fraction

    return Fraction(1, 10_000)


def test_the_model_is_loaded_once(client, app, monkeypatch, accepting):
    monkeypatch.setattr(runtime, "LivenessSession", None)
    clip = sample()
    assert post(client, video_bytes(clip), meta_of(clip, nonce(client))).status_code == 200


def test_require_imu_refuses_video_alone(bundle, accepting):
    app = create_app(bundle, limits=OPEN, require_imu=True)
    client, clip = app.test_client(), sample()
    refused(post(client, video_bytes(clip), meta_of(clip, nonce(client), imu=None)), 422, "motion data")
    assert post(client, video_bytes(clip), meta_of(clip, nonce(client))).status_code == 200
    app.extensions["liveness"].close()


# ------------------------------------------------------------------------------- sessions, challenge
def test_a_nonce_serves_once(client, accepting):
    clip, name = sample(), nonce(client)
    assert post(client, video_bytes(clip), meta_of(clip, name)).json["decision"] == "bona_fide"
    refused(post(client, video_bytes(clip), meta_of(clip, name)), 409, "nonce")
    refused(post(client, video_bytes(clip), meta_of(clip, "made-up-nonce")), 409)


def test_a_stale_nonce_is_refused(client, app, monkeypatch, accepting):
    now = [0.0]
    service = replace(app.extensions["liveness"], plain=ChallengeBook(60.0, lambda: now[0], steps=1))
    name, clip = web_app._open_session(service, False)["nonce"], sample()
    now[0] = 61.0
    with pytest.raises(UploadError, match="too old"):
        web_app._judge_upload(service, web_upload.parse(video_bytes(clip), json.dumps(meta_of(clip, name))))


def test_a_challenge_not_done_is_never_bona_fide(client, accepting):
    session = client.post("/api/v1/sessions", json={"challenge": True}).json
    assert len(session["prompts"]) == 2 and all(p["instruction"] for p in session["prompts"])
    clip = sample("flat_print")
    found = post(client, video_bytes(clip), meta_of(clip, session["nonce"])).json
    assert found["challenge"]["passed"] is False and found["decision"] == "no_decision"
    assert any("challenge failed" in reason for reason in found["reasons"])


def test_a_challenge_nonce_is_no_plain_one(client, accepting):
    asked = client.post("/api/v1/sessions", json={"challenge": True}).json["nonce"]
    clip = sample()
    refused(post(client, video_bytes(clip), meta_of(clip, asked.removeprefix("c-"))), 409)


@pytest.mark.parametrize("challenge", [False, True])
def test_a_nonce_that_begins_like_the_other_kind_is_taken(app, monkeypatch, challenge):
    monkeypatch.setattr("liveness_utils.challenge.secrets.token_urlsafe", lambda n: "c-p-likely-once-in-4096")
    service = app.extensions["liveness"]
    found = web_app._redeem(service, web_app._open_session(service, challenge)["nonce"])
    assert (found is not None) is challenge


@pytest.mark.parametrize(
    ("require_imu", "motion", "swept"), [(False, True, True), (False, False, False), (True, False, True)]
)
def test_a_device_without_sensors_is_asked_what_it_can_show(app, require_imu, motion, swept):
    drawn_from = []

    class Book:
        def issue(self, *, prompts):
            drawn_from.extend(prompts)
            raise web_app.ChallengeError("full")

    service = replace(app.extensions["liveness"], require_imu=require_imu, asked=Book())
    with pytest.raises(web_app.UploadError):
        web_app._open_session(service, True, motion)
    assert len(drawn_from) >= 4 and ("sweep" in drawn_from) is swept


@pytest.mark.parametrize("body", ["[]", "{", '{"challenge": 1}', '{"motion": null}', '{"more": true}', "null", "\x00"])
def test_a_session_wants_a_sound_body(client, body):
    refused(client.post("/api/v1/sessions", data=body, content_type="application/json"), 400)


# ------------------------------------------------------------------------------------ who may send
@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "[::1", "a:b:c", ""])
def test_strange_hosts_are_refused(client, name):
    refused(client.post("/api/v1/sessions", headers={"Host": name}), 421)


@pytest.mark.parametrize("name", ["localhost:8000", "127.0.0.1", "192.168.1.20:8443", "[::1]:8000"])
def test_addresses_are_known(client, name):
    assert client.post("/api/v1/sessions", headers={"Host": name}).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:9999"},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
def test_other_sites_are_refused(client, headers):
    refused(client.post("/api/v1/sessions", headers=headers), 403)
    refused(post(client, b"", {}, headers=headers), 403)


def test_the_page_itself_is_let_in(client):
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/v1/sessions", headers=headers).status_code == 201


def test_each_address_has_its_rate(bundle):
    app = create_app(bundle, limits=replace(OPEN, sessions_per_minute=60.0, clips_per_minute=6.0, burst=2))
    client = app.test_client()
    codes = [client.post("/api/v1/sessions").status_code for _ in range(5)]
    assert codes == [201] * 4 + [429]
    late = client.post("/api/v1/sessions")
    refused(late, 429)
    assert int(late.headers["Retry-After"]) >= 1
    assert [post(client, b"", {}).status_code for _ in range(3)] == [415, 415, 429]
    other = client.post("/api/v1/sessions", environ_base={"REMOTE_ADDR": "10.0.0.9"})
    forged = client.post("/api/v1/sessions", headers={"X-Forwarded-For": "10.0.0.10"})
    assert (other.status_code, forged.status_code) == (201, 429)
    app.extensions["liveness"].close()


# ---------------------------------------------------------------------------------------- bad uploads
BROKEN = {
    "no json": "{", "a list": "[]", "nothing": "", "unknown field": {"path": "/etc/passwd"},
    "NaN": '{"nonce": "abcdefgh", "frames": [0, NaN]}', "deep": "[" * 100_000,
    "no nonce": {"nonce": None}, "nonce is a path": {"nonce": "../../../x"},
    "no frames": {"frames": None}, "one frame": {"frames": [0]}, "frames stand": {"frames": [0, 0, 1]},
    "frames go back": {"frames": [0, 33, 20]}, "frames are text": {"frames": ["0", "33"]},
    "frames are true": {"frames": [True, False]}, "frames are huge": {"frames": [0, 1e300]},
    "frames are endless": {"frames": [0, 10**400]}, "too many frames": {"frames": list(range(501))},
    "prints of too few": {"prints": base64.b64encode(bytes(64)).decode()}, "prints no base64": {"prints": "é" * 9},
    "prints a number": {"prints": 7}, "clock": {"clock": "sundial"}, "facing": {"camera_facing": "left"},
    "imu a list": {"imu": []}, "imu unknown": {"imu": {"samples": [], "file": "x"}}, "imu empty": {"imu": {"samples": []}},
    "imu narrow": {"imu": {"samples": [[0, 1, 2], [1, 1, 2]]}}, "imu ragged": {"imu": {"samples": [[0] * 7, [1] * 6]}},
    "imu of nulls": {"imu": {"samples": [[0] + [None] * 6, [1] + [None] * 6]}},
    "imu back in time": {"imu": {"samples": [[5] + [0] * 6, [1] + [0] * 6]}},
    "imu platform": {"imu": {"platform": "toaster", "samples": [[0] * 7, [1] * 7]}},
    "imu angle": {"imu": {"screen_angle": 45, "samples": [[0] * 7, [1] * 7]}},
    "imu angle true": {"imu": {"screen_angle": False, "samples": [[0] * 7, [1] * 7]}},
    "record a text": {"record": "yes"}, "record empty": {"record": {}},
    "record by name": {"record": {"label": "bona_fide", "subject": "Jane Doe", "consent": True}},
    "record into a path": {"record": {"label": "bona_fide", "subject": "../x", "consent": True}},
    "consent is text": {"record": {"label": "bona_fide", "subject": "a", "consent": "true"}},
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_malformed_meta_is_one_clear_error(client, accepting, case):
    clip, change = sample(), BROKEN[case]
    meta = change if isinstance(change, str) else meta_of(clip, nonce(client)) | change
    refused(post(client, video_bytes(clip), meta), 400)


@pytest.mark.parametrize(
    "head", [b"", b"\x00", b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n",
             b"\xff\xd8\xff\xe0JFIF", b"RIFF0000AVI ", b"v=0\nc=IN IP4 10.0.0.1\n"],
)  # fmt: skip
def test_other_containers_are_never_opened(client, monkeypatch, head):
    meta = meta_of(sample(), nonce(client))
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("opened"))
    refused(post(client, head, meta), 415, "MP4")


def test_other_codecs_are_refused(client):
    frames, t = np.zeros((10, 64, 64, 3), np.uint8), np.arange(10) / 30
    with pytest.raises(UploadError) as found:
        web_upload.decode(encoded(frames, t, "mjpeg", "mov"))
    assert found.value.status == 415


def test_webm_is_taken():
    rng = np.random.default_rng(0)
    frames, t = rng.integers(0, 255, (20, 64, 96, 3), np.uint8), np.arange(20) / 30
    found, times = web_upload.decode(encoded(frames, t, "libvpx", "webm"))
    assert found.shape == frames.shape
    np.testing.assert_allclose(times - times[0], t, atol=1e-3)


def test_limits_of_size_and_length():
    frames, t = np.zeros((60, 64, 64, 3), np.uint8), np.arange(60) / 30
    film = encoded(frames, t)
    for name, value in {"max_frames": 59, "max_seconds": 1.9, "pixels": 64 * 63, "decoded_bytes": 60_000}.items():
        with pytest.raises(UploadError) as found:
            web_upload.decode(film, replace(Limits(), **{name: value}))
        assert found.value.status in (413, 422), name
    with pytest.raises(UploadError, match="too long to decode"):
        web_upload.decode(film, replace(Limits(), decode_seconds=0.0))
    assert web_upload.decode(film, replace(Limits(), side=32 * 2))[0].shape == frames.shape


def test_an_index_of_billions_is_not_built(monkeypatch):
    """A video of some kilobytes that claims 300 million samples would take 17 GB and 12 s to open."""
    film = bytearray(video_bytes(sample()))
    sizes, chunks = film.find(b"stsz"), film.find(b"stsc")
    film[sizes + 8 : sizes + 16] = (1).to_bytes(4, "big") + (300_000_000).to_bytes(4, "big")
    film[chunks + 16 : chunks + 20] = (300_000_000).to_bytes(4, "big")
    opened = []
    monkeypatch.setattr(web_upload.av, "open", lambda *a, **k: opened.append(a))
    with pytest.raises(UploadError, match="index"):
        web_upload.decode(bytes(film))
    assert not opened, "refused before a demuxer builds its table"


def test_a_large_body_is_refused_unread(bundle):
    app = create_app(bundle, limits=replace(OPEN, body_bytes=100_000))
    refused(post(app.test_client(), bytes(200_000), "{}"), 413, "100000 bytes")
    app.extensions["liveness"].close()


def test_parts(client):
    good = {"video": (io.BytesIO(b""), "v"), "meta": "{}"}
    for extra in ({"path": "x"}, {"more": (io.BytesIO(b"x"), "x")}, {"meta": ["{}", "{}"]}):
        parts = {"video": (io.BytesIO(b""), "v"), "meta": "{}"} | extra
        refused(client.post("/api/v1/clips", data=parts, content_type="multipart/form-data"), 400)
    refused(client.post("/api/v1/clips", data={"meta": "{}"}, content_type="multipart/form-data"), 400)
    refused(client.post("/api/v1/clips", json=good["meta"]), 415)
    refused(client.post("/api/v1/clips", data=b"--x", content_type="multipart/form-data"), 400)
    many = {f"p{k}": "x" for k in range(20)}
    refused(client.post("/api/v1/clips", data=many, content_type="multipart/form-data"), 413)


def test_uploads_stay_in_memory(app):
    with app.test_request_context():
        request = app.request_class({"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO()})
        assert type(request._get_file_stream(10**7, "video/mp4")) is io.BytesIO


# ------------------------------------------------------------------------- things that do not fit
def contradictions(clip: clips.Clip) -> dict[str, dict]:
    frames, rows = 1e3 * (clip.t + 4.0), imu_rows(clip.imu, 4.0)
    late = [[r[0] + 1500, *r[1:]] for r in rows]
    inside = [r for r in rows if not 4800 < r[0] < 5200]
    other = sample("rigid_mask")
    return {
        "times of a slower clock": {"frames": (4000 + 1.2 * (frames - 4000)).tolist()},
        "fewer times than frames": {"frames": frames[::2].tolist(), "prints": None},
        "times of a part": {"frames": frames[: len(frames) // 2].tolist(), "prints": None},
        "many more times": {"frames": np.linspace(frames[0], frames[-1], 2 * len(frames)).tolist(), "prints": None},
        "times far too long": {"frames": [*frames.tolist(), 60_000.0], "prints": None},
        "prints of another clip": {"prints": prints_of(other.frames[np.arange(len(frames)) % len(other.frames)])},
        "prints in reverse": {"prints": prints_of(np.random.default_rng(0).permutation(255 - clip.frames))},
        "motion of another time": {"imu": {"samples": late}},
        "motion with a hole": {"imu": {"samples": inside}},
        "motion ends early": {"imu": {"samples": [r for r in rows if r[0] < 5500]}},
        "motion sampled rarely": {"imu": {"samples": rows[::25]}},
        "motion without gravity": {"imu": {"samples": [[r[0], 0.0, 0.0, 0.1, *r[4:]] for r in rows]}},
        "motion in g": {"imu": {"samples": [[r[0], *(v / 9.80665 for v in r[1:4]), *r[4:]] for r in rows]}},
    }  # fmt: skip


@pytest.mark.parametrize("case", list(contradictions(sample())))
def test_what_contradicts_itself_is_rejected(client, accepting, case):
    clip = sample()
    meta = meta_of(clip, nonce(client)) | contradictions(clip)[case]
    refused(post(client, video_bytes(clip), meta), 422)


def test_a_cut_video_is_rejected(client, accepting):
    """The sample's index lies at its end: what is cut off is missed."""
    clip = sample()
    for share in (0.3, 0.7, 0.99):
        cut = video_bytes(clip)[: int(share * len(video_bytes(clip)))]
        refused(post(client, cut, meta_of(clip, nonce(client))), 422)


@pytest.mark.parametrize("seed", range(5))
def test_a_recording_without_exact_start_is_found(seed):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.uniform(0.028, 0.039, 80))
    stamps = np.sort(rng.permutation(t)[:76]) + 17.25 + rng.normal(0, 5e-4, 76)
    inside = slice(int(rng.integers(0, 3)), 80 - int(rng.integers(0, 3)))
    found = web_upload.align(t[inside], stamps, np.zeros((80, 8, 8), np.float32)[inside], None)
    assert found.offset == pytest.approx(17.25, abs=2e-3) and found.matched > 0.9 and found.residual < 2e-3
    assert not web_upload.disagreements(found, t[inside], stamps, "capture")


def test_even_frames_are_told_apart_by_their_prints():
    rng = np.random.default_rng(1)
    t = np.arange(78) / 30
    prints = np.cumsum(rng.normal(0, 3, (80, 8, 8)), 0) + 128
    small = (prints[2:] * 0.9 + 4 + rng.normal(0, 1, (78, 8, 8))).astype(np.float32)
    found = web_upload.align(t, np.arange(80) / 30 + 5.0, small, prints.clip(0, 255).astype(np.uint8))
    assert found.offset == pytest.approx(5.0 + 2 / 30, abs=1e-6) and found.difference < 4


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("platform", ["w3c", "ios_safari"])
def test_platforms_agree_after_reading(platform, angle):
    """One phone, its picture upright: whatever is reported, gravity ends along the picture's y."""
    sign = -1.0 if platform == "ios_safari" else 1.0
    up = {0: (0.0, 9.8), 90: (9.8, 0.0), 180: (0.0, -9.8), 270: (-9.8, 0.0)}[angle]
    rows = [[10.0 * k, sign * up[0], sign * up[1], sign * 0.5, 0.0, 0.0, 90.0] for k in range(40)]
    meta = {
        "nonce": "abcdefgh",
        "frames": [0, 33],
        "imu": {"platform": platform, "screen_angle": angle, "samples": rows},
    }
    imu = web_upload.parse(video_bytes(sample()), json.dumps(meta)).imu
    np.testing.assert_allclose(imu.accel[0], (0.0, 9.8, 0.5), atol=1e-5)
    np.testing.assert_allclose(imu.gyro[0], (0.0, 0.0, np.pi / 2), atol=1e-6)


# --------------------------------------------------------------------------------------------- line
def test_a_full_line_says_when_to_come_back(bundle, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(web_app, "predict_clip", lambda *_, **__: go.wait(600) and BONA_FIDE)
    app = create_app(bundle, limits=replace(OPEN, queue=2))
    clip = sample()
    names = [nonce(app.test_client()) for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(post, app.test_client(), video_bytes(clip), meta_of(clip, n)) for n in names[:2]]
        while app.extensions["liveness"].judge.waiting < 2:
            time.sleep(0.01)
        full = post(app.test_client(), video_bytes(clip), meta_of(clip, names[2]))
        refused(full, 503, "busy")
        assert full.headers["Retry-After"] == "2"
        go.set()
        assert [h.result().status_code for h in held] == [200, 200]
    assert post(app.test_client(), video_bytes(clip), meta_of(clip, names[2])).status_code == 200, "the nonce was spent"
    app.extensions["liveness"].close()


def test_a_verdict_that_takes_too_long_is_503(bundle, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(web_app, "predict_clip", lambda *_, **__: go.wait(600) and BONA_FIDE)
    app = create_app(bundle, limits=replace(OPEN, wait_seconds=2.0))
    clip, client = sample(), app.test_client()
    refused(post(client, video_bytes(clip), meta_of(clip, nonce(client))), 503)
    go.set()
    app.extensions["liveness"].close()


def test_a_crash_rejects_and_the_worker_lives(client, monkeypatch):
    clip = sample()
    monkeypatch.setattr(web_app, "predict_clip", lambda *_, **__: 1 / 0)
    refused(post(client, video_bytes(clip), meta_of(clip, nonce(client))), 500)
    monkeypatch.setattr(web_app, "predict_clip", lambda *_, **__: BONA_FIDE)
    assert post(client, video_bytes(clip), meta_of(clip, nonce(client))).json["decision"] == "bona_fide"


# ----------------------------------------------------------------------------------------- recorder
@pytest.fixture(scope="module")
def recording(bundle, tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded")
    made = create_app(bundle, limits=OPEN, record=root)
    yield made.test_client(), root
    made.extensions["liveness"].close()


WISH = {"label": "flat_print", "subject": "s-01", "device": "phone-a", "consent": True}


def test_a_recording_is_a_clip_of_the_contract(recording, bundle):
    client, root = recording
    clip = sample("flat_print")
    found = post(client, video_bytes(clip), meta_of(clip, nonce(client), record=WISH)).json
    row = clips.read_manifest(root).set_index("clip_id").loc[found["recorded"]]
    assert (row.subject_id, row.device_id, row.pai_species, bool(row.is_bonafide)) == (
        "s-01",
        "phone-a",
        "flat_print",
        False,
    )
    assert bool(row.consent) and "agrees" in row.consent_text and row.isna()["split"] and row.isna()["fx"]
    kept = clips.load_clip(root, found["recorded"])
    assert clips.validate_clip(kept) == [] and len(kept.frames) == len(clip.frames)
    np.testing.assert_allclose(kept.t, clip.t, atol=1e-5)
    np.testing.assert_allclose(
        np.interp(1.0, kept.imu.t, kept.imu.gyro[:, 1]), np.interp(1.0, clip.imu.t, clip.imu.gyro[:, 1]), atol=1e-4
    )
    offline = runtime.predict_clip(kept, bundle)
    assert (found["decision"], found["score"]) == (offline.decision, offline.score)
    assert {p.name for p in root.iterdir()} <= {"clips", "manifest.parquet", ".manifest.lock"}


@pytest.mark.parametrize(
    ("change", "status"),
    [({"consent": False}, 400), ({"label": "deepfake"}, 400), ({"subject": "a b"}, 400)],
)
def test_nothing_is_kept_without_consent_or_label(recording, accepting, change, status):
    client, root = recording
    before = sorted(p.name for p in root.rglob("*"))
    clip = sample()
    refused(post(client, video_bytes(clip), meta_of(clip, nonce(client), record=WISH | change)), status)
    assert post(client, video_bytes(clip), meta_of(clip, nonce(client))).json["recorded"] is None
    assert sorted(p.name for p in root.rglob("*")) == before


def test_a_server_that_does_not_record_says_so(client):
    clip = sample()
    refused(post(client, video_bytes(clip), meta_of(clip, nonce(client), record=WISH)), 403)


def test_half_a_recording_leaves_nothing(recording, monkeypatch):
    client, root = recording
    before = sorted(p.name for p in root.rglob("*") if p.is_file())
    monkeypatch.setattr(clips, "_imu_table", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    clip = sample()
    refused(post(client, video_bytes(clip), meta_of(clip, nonce(client), record=WISH)), 503, "disk")
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == before


def test_recorders_share_a_folder(bundle, tmp_path):
    from liveness_utils.recorder import Recorder, RecordRequest

    clip, wish = sample(), RecordRequest("bona_fide", "s-02", None, True)
    clip = replace(clip, frames=clip.frames[:5], t=clip.t[:5])
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(lambda k: Recorder(tmp_path, ["bona_fide"]).keep(replace(clip, clip_id=f"c{k}"), wish), range(12))
        )
    table = clips.read_manifest(tmp_path)
    assert sorted(table["clip_id"]) == sorted(f"c{k}" for k in range(12)) and table["is_bonafide"].all()


# --------------------------------------------------------------------------------------------- fuzz
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(data=st.data())
def test_damaged_videos_end_in_a_refusal(app, data):
    """Whatever bytes are turned: no crash, no hang, and no frame that a decoder made up."""
    clip, client = sample(), app.test_client()
    film = bytearray(video_bytes(clip))
    start = data.draw(st.integers(0, len(film) - 1))
    for k in range(start, min(len(film), start + data.draw(st.integers(1, 400)))):
        film[k] ^= data.draw(st.integers(1, 255)) if k == start else 0xA5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_app, "predict_clip", lambda *_, **__: BONA_FIDE)
        found = post(client, bytes(film), meta_of(clip, nonce(client)))
    assert found.status_code < 500
    if found.status_code != 200:
        assert found.json["decision"] == "no_decision"
    else:  # a byte that no picture and no time depends on, or the tail of an entropy-coded slice
        assert found.json["capture"]["frames"] == len(clip.t) and found.json["capture"]["difference"] < 24


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(name=st.sampled_from(["nonce", "frames", "prints", "clock", "camera_facing", "imu", "record", "x"]), value=JSON)
def test_a_meta_with_one_wrong_value_is_refused(app, name, value):
    clip, client = sample(), app.test_client()
    allowed = {"prints": [None], "imu": [None], "record": [None], "clock": ["capture", "presentation"],
               "camera_facing": ["front", "rear"]}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_app, "predict_clip", lambda *_, **__: BONA_FIDE)
        found = post(client, video_bytes(clip), json.dumps(meta_of(clip, nonce(client)) | {name: value}))
    if value in allowed.get(name, []):
        assert found.status_code == 200
    else:
        assert 400 <= found.status_code < 500 and found.json["decision"] == "no_decision"


@FUZZ
@given(data=st.data())
def test_motion_samples_with_damage_are_refused_or_read_as_they_are(app, data):
    clip = sample()
    rows = imu_rows(clip.imu, 4.0)
    k, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 6))
    value = data.draw(st.floats() | st.none() | st.integers() | st.text(max_size=3))
    rows[k] = [*rows[k][:column], value, *rows[k][column + 1 :]]
    client = app.test_client()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_app, "predict_clip", lambda *_, **__: BONA_FIDE)
        found = post(client, video_bytes(clip), json.dumps(meta_of(clip, nonce(client), imu={"samples": rows})))
    numeric = type(value) in (int, float) and abs(value) <= 1e9
    assert found.status_code < 500 and (numeric or found.status_code == 400)


def test_the_description_is_sound(client, app):
    import jsonschema

    told = client.get("/api/v1/openapi.json").json
    own = {"sessions", "clips", "steps", "camera", "openapi.json"}
    assert set(told["paths"]) == {"/healthz", *(f"/api/v1/{name}" for name in own)}
    known = {str(rule) for rule in app.url_map.iter_rules()}
    assert set(told["paths"]) <= known
    clip = sample()
    parts = {"components": told["components"]}
    jsonschema.validate(meta_of(clip, "abcdefgh"), {"$ref": "#/components/schemas/Meta", **parts})
    answer = post(client, video_bytes(clip), meta_of(clip, nonce(client))).json
    jsonschema.validate(answer, {"$ref": "#/components/schemas/Verdict", **parts})


@pytest.mark.slow
def test_the_api_holds_what_its_description_says(app):
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.generation import GenerationMode

    seen = Counter()
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)

    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in list(GenerationMode) if len(operation.body) else [GenerationMode.POSITIVE]:
            probe_one(operation, mode, seen)
    assert sum(seen.values()) > 150 and {200, 201, 400, 415} <= set(seen), seen


def probe_one(operation, mode, seen: Counter) -> None:
    """All of schemathesis' checks but one: a schema cannot say that times increase or a video decodes."""
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def probe(case):
        response = case.call()
        case.validate_response(response, excluded_checks=[positive_data_acceptance])
        seen[response.status_code] += 1
        if operation.path == "/api/v1/clips":
            assert response.json()["decision"] == "no_decision"

    probe()


# --------------------------------------------------------------------------------- server, load, TLS
@pytest.fixture
def running(app):
    server = web_serve.make_server(app, "127.0.0.1", 0, limits=OPEN)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.close()


@pytest.fixture
def crowded(bundle):
    """A server whose line holds three."""
    limits = replace(OPEN, queue=3, retry_seconds=1)
    app = create_app(bundle, limits=limits)
    server = web_serve.make_server(app, "127.0.0.1", 0, limits=limits)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.close()
    app.extensions["liveness"].close()


def body_of(video: bytes, meta: dict) -> tuple[bytes, str]:
    edge = "edge-of-a-part"
    parts = (("video", '; filename="clip"', video), ("meta", "", json.dumps(meta).encode()))
    text = b"".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"
        for name, more, data in parts
    )
    return text + f"--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"


def send(base: str, path: str, body: bytes, kind: str, context=None):
    request = urllib.request.Request(base + path, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=300, context=context) as response:
        return json.load(response)


def patient(base: str, video: bytes, meta: dict, refusals: list) -> dict:
    """A client that comes back when it is told to."""
    body, kind = body_of(video, meta)
    for _ in range(300):
        try:
            return send(base, "/api/v1/clips", body, kind)
        except urllib.error.HTTPError as error:
            refusals.append((error.code, error.headers.get("Retry-After")))
            assert error.code == 503, error.read()
            time.sleep(int(error.headers["Retry-After"]))
    raise AssertionError("never let in")


@pytest.mark.slow
def test_more_at_once_than_the_line_holds_and_none_is_lost(crowded, bundle):
    running, clients = crowded, 16
    clip, refusals = sample(), []
    names = [send(running, "/api/v1/sessions", b"", "application/json")["nonce"] for _ in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda n: patient(running, video_bytes(clip), meta_of(clip, n), refusals), names))
    offline = runtime.predict_clip(replace(clip, intrinsics=None), bundle)
    assert len(answers) == clients and {a["decision"] for a in answers} == {offline.decision}
    assert {round(a["score"], 3) for a in answers} == {round(offline.score, 3)}
    assert refusals and all(code == 503 and int(wait) >= 1 for code, wait in refusals)


def test_https_with_a_certificate_of_ones_own(app, tmp_path):
    import trustme

    authority = trustme.CA()
    held = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    held.cert_chain_pems[0].write_to_path(str(cert))
    held.private_key_pem.write_to_path(str(key))
    server = web_serve.make_server(app, "127.0.0.1", 0, f"{cert},{key}", OPEN)
    threading.Thread(target=server.run, daemon=True).start()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    base = f"https://localhost:{server.port}"
    assert len(send(base, "/api/v1/sessions", b"", "application/json", context)["nonce"]) > 16
    with pytest.raises(urllib.error.URLError):  # told 413, or cut off while still sending
        send(base, "/api/v1/clips", bytes(OPEN.body_bytes + 1), "multipart/form-data; boundary=x", context)
    with pytest.raises(ssl.SSLError):
        old = ssl.create_default_context()
        authority.configure_trust(old)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
        try:
            send(base, "/healthz", b"", "text/plain", old)
        except urllib.error.URLError as error:
            raise error.reason from error
    server.close()


def test_https_adhoc_serves(app):
    server = web_serve.make_server(app, "127.0.0.1", 0, "adhoc", OPEN)
    threading.Thread(target=server.run, daemon=True).start()
    trusting = ssl._create_unverified_context()
    with urllib.request.urlopen(f"https://127.0.0.1:{server.port}/healthz", context=trusting, timeout=300) as found:
        assert json.load(found)["status"] == "ok"
    server.close()


def test_serve_says_what_is_wrong(capsys, tmp_path, bundle, app):
    with pytest.raises(ConfigError, match="CERT,KEY"):
        web_serve.certificate(f"{tmp_path}/a.pem,{tmp_path}/b.pem", "localhost")
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="--https"):
        web_serve.make_server(app, "127.0.0.1", 0, f"{tmp_path}/no.pem,{tmp_path}/no.pem")
    assert cli.main(["serve", "--bundle", str(tmp_path), "--port", "0"]) == cli.FAILED
    assert str(tmp_path) in capsys.readouterr().err


def test_the_address_and_its_code_are_printed():
    import qrcode

    lines = []
    found = web_serve.addresses("0.0.0.0", 8443, True)
    web_serve._announce(found, "0.0.0.0", "adhoc", Path("records"), lines.append)
    text = "\n".join(lines)
    assert found[0].startswith("https://") and found[0].endswith(":8443/") and found[0] in text and "records" in text
    code = qrcode.QRCode(border=2)
    code.add_data(found[0])
    out = io.StringIO()
    code.print_ascii(out=out, invert=True)
    assert out.getvalue() in text
