"""The phone page in a real browser: a fake camera plays clips, emulated sensors move with it."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import browser_lab as bl
import cv2
import numpy as np
import pytest

from liveness_utils import clips, config, runtime
from liveness_utils.deployment import teaching
from liveness_utils.web import Limits, create_app
from liveness_utils.web import app as web_app
from liveness_utils.web.serve import make_server

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bl.CHROMIUM is None, reason="no Chromium: scripts/install-system.sh installs it"),
]
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
SENSORS = ("accelerometer", "linear-acceleration", "gyroscope")
SIDE = 24
# Where a page is in the palindrome that the fake camera plays: the stored print nearest to the picture.
PHASE = """(() => {
  const prints = %s, side = %d, seen = [];
  window.__phase = () => seen.slice(-20);
  const canvas = document.createElement('canvas'); canvas.width = canvas.height = side;
  const g = canvas.getContext('2d', {willReadFrequently: true});
  addEventListener('DOMContentLoaded', () => {
    const v = document.getElementById('video');
    let before = -1;
    const look = (now, m) => {
      v.requestVideoFrameCallback(look);
      g.imageSmoothingQuality = 'high'; g.drawImage(v, 0, 0, side, side);
      const d = g.getImageData(0, 0, side, side).data;
      let best = [1e9, -1];
      prints.forEach((p, k) => { let s = 0; for (let i = 0; i < p.length; i++) s += Math.abs(p[i] - d[4*i+1]); if (s < best[0]) best = [s, k]; });
      if (before >= 0 && best[1] !== before) seen.push([m.captureTime, best[1], Math.sign(best[1] - before)]);
      before = best[1];
    };
    v.requestVideoFrameCallback(look);
  });
})()"""


class Presentation:
    """A clip as an endless palindrome: forth as it was, back with the rotation reversed.

    That is a presentation which could be, at every moment, so that it does not matter when the page
    begins to record: each frame once, at the clip's own mean rate. (Clips of 24 Hz on a grid of 30 Hz show
    frames up to 27 ms off their time, and a sweep that stutters does not go with any gyroscope.)
    """

    def __init__(self, clip: clips.Clip, folder: Path) -> None:
        self.clip, self.frames = clip, clip.frames
        self.rate = (len(clip.t) - 1) / float(clip.t[-1] - clip.t[0])
        self.path = folder / f"{clip.clip_id}.y4m"
        self._write()

    def _write(self) -> None:
        order = [*range(len(self.frames)), *range(len(self.frames) - 2, 0, -1)]
        height, width = self.frames.shape[1:3]
        with self.path.open("wb") as out:
            out.write(f"YUV4MPEG2 W{width} H{height} F{round(1000 * self.rate)}:1000 Ip A1:1 C420jpeg\n".encode())
            for k in order:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self.frames[k]), "rgb24")
                planes = frame.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
                out.write(b"FRAME\n" + planes.to_ndarray().tobytes())

    def script(self) -> str:
        small = [
            cv2.resize(f, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[..., 1].ravel().tolist() for f in self.frames
        ]
        return PHASE % (json.dumps(small), SIDE)

    def imu_at(self, phase: float) -> tuple[np.ndarray, np.ndarray]:
        """Specific force and angular rate at `phase` seconds of the palindrome."""
        imu, length = self.clip.imu, (len(self.frames) - 1) / self.rate
        phase %= 2 * length
        back = phase > length
        t = (2 * length - phase if back else phase) + (self.clip.meta.get("imu_offset") or 0.0)
        accel = np.array([np.interp(t, imu.t, c) for c in imu.accel.T])
        gyro = np.array([np.interp(t, imu.t, c) for c in imu.gyro.T])
        return accel, -gyro if back else gyro


class Phone:
    """A page with its sensors; `play` keeps them moving until a condition holds. An iPhone's have the opposite sign."""

    def __init__(self, page, show: Presentation | None, sign: float = 1.0) -> None:
        self.sign = sign
        self.page, self.show, self.cdp = page, show, page.context.new_cdp_session(page)
        self.late = 0.0  # s, the longest time between two values of the sensors, or by which pictures went astray

    def enable(self) -> None:
        for kind in SENSORS:
            told = {"available": True, "minimumFrequency": 1, "maximumFrequency": 60}
            self.cdp.send("Emulation.setSensorOverrideEnabled", {"enabled": True, "type": kind, "metadata": told})

    def _write(self, accel: np.ndarray, gyro: np.ndarray) -> None:
        for kind, values in zip(SENSORS, (self.sign * accel, accel * 0.0, gyro), strict=True):
            xyz = dict(zip("xyz", map(float, values), strict=True))
            self.cdp.send("Emulation.setSensorOverrideReadings", {"type": kind, "reading": {"xyz": xyz}})

    def _start_of_palindrome(self) -> float | None:
        """When (time.monotonic) the palindrome began, seen from the pictures; None before there are any."""
        seen = self.page.evaluate("() => [performance.now(), window.__phase()]")
        here = time.monotonic()
        n, found = len(self.show.frames), []
        for stamp, index, direction in seen[1]:
            if 2 < index < n - 3:
                phase = (index if direction > 0 else 2 * (n - 1) - index) / self.show.rate
                found.append(here - (seen[0] - stamp) / 1e3 - phase)
        period = 2 * (n - 1) / self.show.rate
        if len(found) < 5:
            return None
        turned = np.exp(2j * np.pi * np.array(found) / period)
        return float(np.angle(np.median(turned.real) + 1j * np.median(turned.imag)) * period / (2 * np.pi))

    def _strayed(self, start: float | None) -> float:
        """By how many seconds the last pictures came at other times than the sensors take them to have begun at."""
        again, period = self._start_of_palindrome(), 2 * (len(self.show.frames) - 1) / self.show.rate
        if start is None or again is None:
            return 0.0
        return abs((again - start + period / 2) % period - period / 2)

    def play(self, until: str, seconds: float = 300.0) -> None:
        end, start, before = time.monotonic() + seconds, None, None
        self.late = 0.0
        while time.monotonic() < end:
            for _ in range(12):
                now = time.monotonic()
                self.late, before = max(self.late, now - (before or now)), now
                self._write(*self.show.imu_at(now - start if start is not None else 0.0))
                time.sleep(max(0.0, 0.008 - (time.monotonic() - now)))
            # Again and again: a few pictures may deceive, and a camera may lag.
            start = self._start_of_palindrome() or start
            if self.page.evaluate(until):
                self.late = max(self.late, self._strayed(start))
                return
            while self.state == "judging":  # nobody listens to the sensors now, and the judge needs the processor
                before = None
                time.sleep(0.02)
        pytest.fail(f"the page did not reach: {until}; it is in {self.state!r}: {self.page.inner_text('main')}")

    @property
    def state(self) -> str:
        return self.page.evaluate("document.body.dataset.state")


@pytest.fixture(scope="module")
def browser():
    """Pages in fresh contexts of a Chromium that is started once for each set of flags."""
    with bl.Chromium() as chromium:
        yield partial(chromium.page, viewport=PHONE)


# ------------------------------------------------------------------------------------------ serving
SAMPLES = config.samples_dir()
FREE = Limits(clips_per_minute=1e6, sessions_per_minute=1e6, burst=100_000)
DONE = "['verdict','gone','busy','no-frames','denied','no-camera'].includes(document.body.dataset.state)"
UNDER_WAY = """() => { const left = Number(document.getElementById('ring').style.strokeDashoffset);
  return document.body.dataset.state === 'capturing' && left > 5 && left < 95; }"""
ASKED = """document.body.dataset.state === 'capturing'
  && !document.getElementById('prompt').textContent.startsWith('Recording')"""
# Screenshots for README and notebook 08: PAGE_FIGURES=figures pytest tests/test_web_browser.py
FIGURES = os.environ.get("PAGE_FIGURES", "")


@pytest.fixture(scope="module")
def bundle():
    """The released bundle: the pictures show its verdicts."""
    return config.released_bundle()


@contextmanager
def serving(bundle: Path, *, limits: Limits = FREE, **more):
    app = create_app(bundle, limits=limits, **more)
    server = make_server(app, "127.0.0.1", 0, limits=limits)
    threading.Thread(target=server.run, daemon=True).start()
    try:
        yield f"http://localhost:{server.port}/", app
    finally:
        server.close()
        app.extensions["liveness"].close()


@pytest.fixture(scope="module")
def plain(bundle):
    with serving(bundle) as found:
        yield found


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = Path(FIGURES) if FIGURES else tmp_path_factory.mktemp("shots")
    folder.mkdir(exist_ok=True)
    return folder


def sample(species: str) -> clips.Clip:
    table = clips.read_manifest(SAMPLES)
    names = table["pai_species"].fillna("bona_fide")
    row = table[names == species].iloc[0]
    return clips.load_clip(SAMPLES, row["clip_id"], row=row)


BONA_FIDE, PRINT = "bona_fide", "flat_print"
# One of each way that a clip takes: accepted, refused for its pixels, a face that moves by itself, a forged IMU.
WAYS = (BONA_FIDE, PRINT, "video_replay", "injection")


@pytest.fixture(scope="module")
def shows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("y4m")
    return {species: Presentation(sample(species), folder) for species in (BONA_FIDE, PRINT)}


def shot(page, folder: Path, name: str, *, full: bool = True) -> None:
    """A picture of a state, after a look at what eyes would stumble over."""
    assert untidy(page) == []
    page.screenshot(path=folder / f"page_{name}.png", full_page=full)


def untidy(page) -> list[str]:
    """What sticks out sideways, or lies over another control or text block."""
    return page.evaluate("""() => {
      const found = [], shown = (e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length;
      const width = document.documentElement.clientWidth;
      if (document.documentElement.scrollWidth > width) found.push('the page scrolls sideways');
      const blocks = [...document.querySelectorAll('h1,.badge,.picture,.prompt,.notice,button,label,select,input:not([type=checkbox]),#decision,.scale,.reasons,.bars > div,#facts,.history,footer')].filter(shown);
      const box = (e) => e.getBoundingClientRect();
      for (const e of blocks) if (box(e).left < -0.5 || box(e).right > width + 0.5) found.push('outside: ' + e.outerHTML.slice(0, 60));
      blocks.forEach((a, k) => blocks.slice(k + 1).forEach((b) => {
        const p = box(a), q = box(b);
        if (a.contains(b) || b.contains(a) || !p.height || !q.height) return;
        if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1)
          found.push(a.outerHTML.slice(0, 50) + ' lies over ' + b.outerHTML.slice(0, 50));
      }));
      for (const e of document.querySelectorAll('p,li,span,b,label,button,h1,h2,h3')) if (shown(e) && e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 13) found.push('small print: ' + e.textContent.slice(0, 40));
      return found;
    }""")


def answer(page) -> dict:
    return json.loads(page.get_attribute("#verdict", "data-answer"))


LATEST_SENSOR = 0.12  # s; a phone whose sensors pause for longer moves otherwise than its picture


def filmed(page, once, phone: Phone | None = None, tries: int = 6) -> dict:
    """Film until the server has judged a clip whose sensors were in time, and return its answer.

    A machine that others keep busy drops frames and sensor events for whole moments; the server
    rightly refuses such a recording, and there is nothing to be learned from it.
    """
    for _ in range(tries):
        once()
        if "capture" in answer(page) and (phone is None or phone.late < LATEST_SENSOR):
            return answer(page)
    pytest.skip(f"this machine is too busy to film: {answer(page)['reasons']}")


def run(page, show: Presentation, base: str, *, before=lambda page: None, sign: float = 1.0) -> Phone:
    page.add_init_script(show.script())
    phone = Phone(page, show, sign)
    phone.enable()
    page.goto(base)
    before(page)
    filmed(page, lambda: film(page, phone), phone)
    return phone


def film(page, phone: Phone) -> None:
    page.click("#start")
    phone.play(DONE)
    assert phone.state == "verdict", page.inner_text("main")


def film_nothing(page) -> None:
    """The browser's own test picture, without sensors."""
    page.click("#start")
    wait_for(page, "verdict")


# ------------------------------------------------------------------------------------------ verdicts
@pytest.mark.parametrize("label", WAYS)
def test_what_is_shown_is_what_the_server_and_the_kept_clip_say(
    browser, bundle, shots, tmp_path, label, monkeypatch, capsys
):
    """Shown verdict = the server's on the same upload = the offline one on the clip that was kept.

    The camera plays the clip at its own rate, a codec stands between, and the browser rounds the
    sensors: against the verdict on the source itself only what is clearly decided must agree. A forged IMU never
    is: what rounding and jitter here put on specific force, 0.04 m/s², moved such a clip's score from 0.06 to 0.36.
    """
    sent, root = [], tmp_path / "kept"
    monkeypatch.setattr(web_app, "parse", lambda *a, real=web_app.parse: sent.append(a) or real(*a))
    clip = sample(label)
    show = Presentation(clip, tmp_path)

    def fill(page) -> None:
        page.select_option("#label", label)
        page.fill("#subject", "s-01")
        page.check("#consent")

    with serving(bundle, record=root) as (base, app), browser(show.path) as page:
        run(page, show, base, before=fill)
        shot(page, shots, f"recorder_{label}")
        shown = page.inner_text("#decision")
        numbers = [float(page.inner_text(i)) for i in ("#score", "#threshold") if page.is_visible(i)]
        found = answer(page)
        nonce = app.test_client().post("/api/v1/sessions").json["nonce"]
        video, text, _ = sent[-1]
        upload = web_app.parse(video, json.dumps(json.loads(text) | {"nonce": nonce}), FREE)
        served = web_app._judge_upload(app.extensions["liveness"], upload)
    kept = clips.load_clip(root, found["recorded"])
    offline = runtime.predict_clip(kept, bundle)
    words = {"bona_fide": "Bona fide", "not_sure": "Not sure", "attack": "Attack", "no_decision": "No decision"}
    assert shown == words[offline.decision] == words[served["decision"]]
    assert found["score"] == served["score"] == offline.score
    if offline.score is not None:
        assert numbers == pytest.approx([offline.score, offline.threshold], abs=0.006)
    table = clips.read_manifest(root)
    assert len(table) >= 2 and bool(table["is_bonafide"][0]) == (label == BONA_FIDE) and table["consent"].all()
    assert found["capture"]["has_imu"] and found["capture"]["residual"] < 0.005
    assert found["capture"]["seconds"] == pytest.approx(2.6, abs=0.5)
    np.testing.assert_allclose(kept.imu.accel.mean(axis=0), clip.imu.accel.mean(axis=0), atol=0.5)
    own = runtime.predict_clip(replace(clip, intrinsics=None), bundle)
    clear = own.score is not None and abs(own.score - own.threshold) > 0.25
    beats = show.rate * np.diff(kept.t)  # of a busy machine they are no whole numbers: it filmed something else
    with capsys.disabled():
        print(f"\npage: {label} filmed {np.abs(beats - beats.round()).max():.2f} of a frame off its beat")
    if clear and clip.meta["imu_kind"] != "forged" and np.abs(beats - beats.round()).max() < 0.15:
        assert own.decision == offline.decision


def test_the_emulated_phone_moves_with_its_picture(browser, plain, shows):
    """The clock of sensors and camera is one: gyroscope and video agree on the page as they do offline."""
    show = shows[BONA_FIDE]
    with browser(show.path) as page:
        run(page, show, plain[0])
        found = {b["name"]: float(b["text"].rstrip("%")) for b in answer(page)["bars"]}
    assert found["consistency_correlation"] > 0.2


def test_the_verdict_says_where_its_time_went(browser, plain, shows, shots, capsys):
    """Every millisecond from the end of the capture to the verdict has a stage (the times: benchmarks/page.py)."""
    delays, stages, show = [], [], shows[BONA_FIDE]
    with browser(show.path) as page:
        phone = run(page, show, plain[0])
        shot(page, shots, "verdict")
        for again in (True, False):
            delays.append(float(page.get_attribute("#verdict", "data-delay-ms")))
            stages.append(json.loads(page.get_attribute("#verdict", "data-spent")))
            assert delays[-1] > answer(page)["timings_ms"]["total"]
            if again:
                filmed(page, lambda: film(page, phone), phone)
        assert page.locator("#list li").count() >= 2
        shot(page, shots, "history")
        page.set_viewport_size(DESK)
        shot(page, shots, "verdict_desktop")
    assert all(sum(s.values()) == pytest.approx(d, abs=5) for s, d in zip(stages, delays, strict=True)), "no gap"
    assert all(min(s.values()) > -5 and {"close", "network", "decode", "landmarks", "draw"} <= set(s) for s in stages)
    with capsys.disabled():
        print(f"\nverdict {statistics.median(delays):.0f} ms after the capture (median of {len(delays)}: {delays})")
        print(", ".join(f"{k} {statistics.median(s[k] for s in stages):.0f}" for k in stages[0]))


def test_a_challenge_is_asked_for_and_its_failure_shown(browser, plain, shows, shots):
    show = shows[PRINT]
    with browser(show.path) as page:
        page.add_init_script(show.script())
        phone = Phone(page, show)
        phone.enable()
        page.goto(plain[0])
        page.check("#challenge")
        page.click("#start")
        phone.play(ASKED)
        assert page.inner_text("#prompt").endswith(".")
        shot(page, shots, "challenge")
        phone.play(DONE)
        found = answer(page) if "capture" in answer(page) else filmed(page, lambda: film(page, phone))
        shot(page, shots, "challenge_failed")
    assert found["challenge"]["passed"] is False and found["decision"] != "bona_fide"
    assert len(found["challenge"]["steps"]) == 2


# -------------------------------------------------------------------------------------------- states
def wait_for(page, state: str, seconds: float = 300.0) -> None:
    page.wait_for_selector(f"body[data-state={state}]", timeout=1000 * seconds)


def test_first_sight_keyboard_and_names(browser, plain, bundle, shots):
    with browser() as page:
        page.goto(plain[0])
        shot(page, shots, "start")
        assert page.get_by_role("button", name="Start").is_visible()
        assert page.get_by_role("checkbox", name="Ask me to do something (challenge)").is_visible()
        assert page.get_by_role("heading", name="Liveness check").is_visible()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "start"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        wait_for(page, "capturing")
        page.wait_for_function(UNDER_WAY)
        shot(page, shots, "capturing_no_face")
        wait_for(page, "verdict")
        if "capture" not in answer(page):
            filmed(page, lambda: film_nothing(page))
        assert page.evaluate("document.activeElement.id") == "decision"
        assert page.get_by_role("heading", name="No decision").is_visible()
        assert page.locator("#reasons li").first.inner_text().startswith("no face")
        assert page.locator("[role=meter]").first.get_attribute("aria-label")
        assert "No motion sensors" in page.inner_text("#notice")
        shot(page, shots, "no_motion_no_face")
        page.emulate_media(color_scheme="dark")
        shot(page, shots, "dark")
        page.set_viewport_size(DESK)
        page.reload()
        shot(page, shots, "start_desktop")


def test_the_recorder_asks_for_code_and_consent(browser, bundle, shots, tmp_path):
    with serving(bundle, record=tmp_path / "kept") as (base, _), browser() as page:
        page.goto(base)
        shot(page, shots, "recorder")
        assert page.get_by_label("What is in front of the camera").locator("option").count() == 9
        page.check("#consent")
        page.click("#start")
        assert page.evaluate("document.body.dataset.state") == "idle", "no code, no recording"
        assert page.evaluate("!document.getElementById('subject').checkValidity()")
        page.fill("#subject", "s-02")
        filmed(page, lambda: film_nothing(page))
        assert answer(page)["recorded"] and "kept as bona fide of s-02" in page.inner_text("#list")
        page.set_viewport_size(DESK)
        shot(page, shots, "recorder_desktop")
    assert len(clips.read_manifest(tmp_path / "kept")) == 1


def test_capturing_with_a_face(browser, plain, shows, shots):
    show = shows[BONA_FIDE]
    with browser(show.path) as page:
        page.goto(plain[0])
        page.click("#start")
        page.wait_for_function(UNDER_WAY)  # the ring moves: it is neither empty nor full
        shot(page, shots, "capturing")


def test_no_camera(browser, plain, shots):
    with browser() as page:
        page.add_init_script(
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('none', 'NotFoundError'); }"
        )
        page.goto(plain[0])
        page.click("#start")
        wait_for(page, "no-camera")
        shot(page, shots, "no_camera")


def test_permission_denied(browser, plain, shots):
    with browser(allowed=False) as page:
        page.goto(plain[0])
        page.click("#start")
        wait_for(page, "denied")
        assert page.get_by_role("button", name="Try again").is_enabled()
        shot(page, shots, "denied")


def test_insecure_origin(browser, plain, bundle, shots):
    with serving(bundle, hosts=("page.test",)) as (base, _):
        rules = "--host-resolver-rules=MAP page.test 127.0.0.1"
        with browser(extra=[rules]) as page:
            page.goto(base.replace("localhost", "page.test"))
            wait_for(page, "insecure")
            assert "https" in page.inner_text("#cover-text")
            shot(page, shots, "insecure")
            page.click("#start")
            wait_for(page, "insecure")


def test_server_busy_and_then_free(browser, bundle, shots):
    with serving(bundle, limits=replace(FREE, queue=1, retry_seconds=3)) as (base, app):
        place = app.extensions["liveness"].judge.reserve()
        with browser() as page:
            page.goto(base)
            page.click("#start")
            page.wait_for_selector("body[data-waiting]", timeout=300_000)
            assert "busy" in page.inner_text("#prompt")
            shot(page, shots, "busy_waiting")
            place.__exit__()
            wait_for(page, "verdict")


def test_server_stays_busy(browser, plain, shots):
    with browser() as page:
        page.route("**/api/v1/clips", lambda r: r.fulfill(
            status=503, headers={"Retry-After": "0.1"}, content_type="application/problem+json", body='{"detail": "busy"}'))  # fmt: skip
        page.goto(plain[0])
        page.clock.install()
        page.clock.resume()
        page.click("#start")
        page.wait_for_selector("body[data-waiting]", timeout=300_000)
        page.clock.fast_forward(20_000)
        wait_for(page, "busy")
        shot(page, shots, "busy")


def test_server_gone(browser, bundle, shots):
    with serving(bundle) as (base, _), browser() as page:
        page.goto(base)
        page.route("**/api/v1/**", lambda r: r.abort("connectionrefused"))
        page.click("#start")
        wait_for(page, "gone")
        shot(page, shots, "gone")
        page.unroute("**/api/v1/**")
        page.click("#start")
        wait_for(page, "verdict")


def test_a_refused_clip_is_no_decision(browser, plain, shots):
    with browser() as page:
        page.add_init_script(
            "const f = window.fetch; window.fetch = (u, o) => { if (o.body instanceof FormData) { const m = JSON.parse(o.body.get('meta')); m.frames = m.frames.map((t) => 1.3 * t); o.body.set('meta', JSON.stringify(m)); } return f(u, o); };"
        )
        page.goto(plain[0])
        page.click("#start")
        wait_for(page, "verdict")
        assert page.inner_text("#decision") == "No decision" and "contradicts itself" in page.inner_text("#reasons")
        shot(page, shots, "rejected")


IOS = """DeviceMotionEvent.requestPermission = async () => {
  window.__asked = (window.__asked || 0) + 1; return navigator.userActivation.isActive ? '%s' : 'denied'; };"""


IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"


@pytest.mark.parametrize("given", ["granted", "denied"])
def test_ios_is_asked_first_and_its_sign_is_told(browser, plain, shows, shots, given, monkeypatch):
    sent, show = [], shows[BONA_FIDE]
    monkeypatch.setattr(web_app, "parse", lambda *a, real=web_app.parse: sent.append(json.loads(a[1])) or real(*a))
    with browser(show.path, user_agent=IPHONE) as page:
        page.add_init_script(IOS % given)
        page.add_init_script(
            "const g = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices); navigator.mediaDevices.getUserMedia = (c) => { window.__order = window.__asked; return g(c); };"
        )
        run(page, show, plain[0], sign=-1.0)
        assert page.evaluate("window.__order") >= 1, "motion is asked for before the camera"
    imu = sent[-1]["imu"]
    assert imu["platform"] == "ios_safari" if given == "granted" else imu is None


# ------------------------------------------------------------------------------------------ teaching
NARROW = {"width": 360, "height": 780}
# What each step shows: one person in three lights, a replay and a print; steps that are not here are skipped.
SHOWN = {"As you sit": (BONA_FIDE, 1.0), "Towards the light": (BONA_FIDE, 1.15), "Away from the light": (BONA_FIDE, 0.85),
         "A photo of you on a phone": ("video_replay", 1.0), "A photo of you on paper": (PRINT, 1.0)}  # fmt: skip
# Whoever sits down next: the browser opens the file anew with the camera.
STOP_CAMERA = "document.getElementById('video').srcObject?.getTracks().forEach((track) => track.stop())"


class Seat:
    """A camera's file before which one presentation after the other sits down, in a light."""

    def __init__(self, folder: Path) -> None:
        self.path, self._folder, self._made = folder / "camera.y4m", folder, {}

    def take(self, species: str, gain: float = 1.0) -> None:
        key = (species, gain)
        if key not in self._made:
            clip = sample(species)
            frames = np.clip(clip.frames * gain, 0, 255).astype(np.uint8)
            self._made[key] = Presentation(replace(clip, clip_id=f"{species}{gain}", frames=frames), self._folder)
        part = self.path.with_suffix(".part")
        part.symlink_to(self._made[key].path)
        part.replace(self.path)


def view(page, *names: str) -> str:
    """Wait until the teaching shows one of these views, and return which."""
    page.wait_for_function("(names) => names.includes(document.body.dataset.teach)", arg=list(names), timeout=300_000)
    return page.evaluate("document.body.dataset.teach")


def press(page, name: str) -> None:
    page.locator("#teach").get_by_role("button", name=name, exact=True).click()


FILMING = """() => { const left = Number(document.getElementById('ring').style.strokeDashoffset);
  return document.body.dataset.teach !== 'film' || (left > 5 && left < 95); }"""


def film_step(page, seat: Seat, see=lambda: None, tries: int = 6) -> None:
    """Film the step that is shown until the server has taken it; `see` is called meanwhile."""
    film_button = page.locator("#teach").get_by_role("button", name="Film this step")
    film_button.wait_for()
    seat.take(*SHOWN[page.inner_text("#teach-title")])
    page.evaluate(STOP_CAMERA)
    for _ in range(tries):
        film_button.click()
        page.wait_for_function(FILMING)
        if page.evaluate("document.body.dataset.teach") == "film":
            see()
        if view(page, "taken", "problem") == "taken":
            return
        press(page, "Try again")
    pytest.skip(f"this machine is too busy to film: {page.inner_text('main')}")


def check_again(page, seat: Seat, *who) -> dict:
    """The verdict on who sits down."""
    seat.take(*who)
    return filmed(page, lambda: film_nothing(page))


def test_a_camera_is_taught_step_by_step_and_then_judges(browser, bundle, shots, tmp_path):
    seat, file = Seat(tmp_path), tmp_path / "door.json"
    seat.take(BONA_FIDE)
    with serving(bundle, teach=file) as (base, _), browser(seat.path, viewport=NARROW) as page:
        page.goto(base)
        page.get_by_role("button", name="Teach this camera").click()
        titles = []
        while view(page, "ready", "done") == "ready":
            titles.append(page.inner_text("#teach-title"))
            assert page.evaluate("document.activeElement.id") == "teach-title"
            if titles[-1] not in SHOWN:
                press(page, "I have no sheet of paper" if "sheet" in titles[-1] else "Skip")
            else:
                see = partial(shot, page, shots, "teach_step")
                film_step(page, seat, *([see] if titles[-1] == "Away from the light" else []))
                assert "Taken: " in page.inner_text("#prompt") and untidy(page) == []
                press(page, "Next step")
        assert titles == [step.title for step in teaching.STEPS]
        assert page.evaluate("document.activeElement.id") == "teach-title" and file.exists()
        drawn, text = page.locator("svg.apart"), page.inner_text("#teach-result")
        assert drawn.locator("circle.living").count() == 3 and drawn.locator("circle.attack").count() == 2
        assert "3 living" in drawn.get_attribute("aria-label") and "not sure" in drawn.get_attribute("aria-label")
        assert "of 3 living clips turned away" in text and "masks were not taught" in text
        shot(page, shots, "teach_done")
        seat.take(BONA_FIDE)
        press(page, "Check now")
        wait_for(page, "verdict")
        found = answer(page) if "capture" in answer(page) else check_again(page, seat, BONA_FIDE)
        assert found["decision"] == "bona_fide" and page.locator("#rest dd").count() == 4
        assert "masks were not taught to this camera" in page.inner_text("#notes") and untidy(page) == []
        assert check_again(page, seat, "video_replay")["decision"] == "attack"
        found = check_again(page, seat, BONA_FIDE, 0.6)
        assert found["decision"] == "not_sure" and page.inner_text("#decision") == "Not sure"
        shot(page, shots, "not_sure")
        page.get_by_role("button", name="Answer a challenge").click()
        page.wait_for_function(f"() => {ASKED}", timeout=300_000)
        wait_for(page, "verdict")
        assert page.is_hidden("#answer") and not page.is_checked("#challenge")
        if "capture" in answer(page):
            passed = answer(page)["challenge"]["passed"]
            assert (answer(page)["decision"] == "bona_fide") is passed and page.locator("#steps li").count() == 2


def test_teaching_has_no_dead_end(browser, bundle, tmp_path):
    """The server gone, the page left, teaching stopped, the camera denied: words, and a way on."""
    with serving(bundle, teach=tmp_path / "door.json") as (base, _):
        with browser() as page:
            page.goto(base)
            page.route("**/api/v1/**", lambda r: r.abort("connectionrefused"))
            page.click("#teach-open")
            view(page, "problem")
            assert "does not answer" in page.inner_text("#teach-text") == page.inner_text("#prompt")
            page.unroute("**/api/v1/**")
            press(page, "Try again")
            press(page, "Film this step")
            page.wait_for_function("() => document.getElementById('count').textContent")
            page.evaluate("""Object.defineProperty(document, 'hidden', { value: true, configurable: true });
              document.dispatchEvent(new Event('visibilitychange')); delete document.hidden""")
            view(page, "problem")
            assert "page was left" in page.inner_text("#teach-text") and untidy(page) == []
            press(page, "Try again")
            press(page, "Film this step")  # the browser's own test picture: nobody is there
            view(page, "problem")
            assert "no face" in page.inner_text("#teach-text")
            press(page, "Stop teaching")
            assert page.evaluate("[document.body.dataset.state, document.activeElement.id]") == ["idle", "teach-open"]
            assert page.is_visible("#start") and page.is_hidden("#teach")
        with browser(allowed=False) as page:
            page.goto(base)
            page.click("#teach-open")
            view(page, "problem")
            assert "not allowed" in page.inner_text("#teach-text")
            press(page, "Stop teaching")
            assert page.get_by_role("button", name="Start").is_visible()
