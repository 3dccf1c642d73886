"""A JupyterLab with a page in a real Chromium, for tests: fake cameras from clips, and their motion sensors."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import nbformat
import numpy as np

from liveness_utils.clips import Clip
from liveness_utils.widget.wire import encode_jpeg

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
RATE = 30  # a fake camera always runs at 30 Hz
GAP = 3.0  # s of a code in front of each clip: a busy machine's verdict comes late
HOLD = 0.5  # s for which its last frame stands


# ------------------------------------------------------------------------------------------- camera
def code_frame(number: int, side: int = 256) -> np.ndarray:
    """A grey frame with the number of the clip to come along its top: a bright square, and one a bit."""
    frame = np.full((side, side, 3), 90, np.uint8)
    bits = [1, *((number >> k) & 1 for k in range(8))]
    width = side // 9
    for k, bit in enumerate(bits):
        frame[: side // 4, k * width : (k + 1) * width] = 220 if bit else 20
    return frame


def camera_frames(clips: Sequence[Clip], first: int = 0) -> Iterator[np.ndarray]:
    """Frames of one loop at 30 Hz: code, clip by its own times, last frame held; and so on."""
    for number, clip in enumerate(clips, first):
        yield from [code_frame(number)] * round(GAP * RATE)
        for t in np.arange(0.0, clip.t[-1] + 1e-6, 1 / RATE):
            yield clip.frames[int(np.abs(clip.t - t).argmin())]
        yield from [clip.frames[-1]] * round(HOLD * RATE)


def write_camera(path: Path, frames: Iterator[np.ndarray]) -> Path:
    """Write frames as the y4m that Chromium plays as a camera, for ever."""
    first = next(frames)
    with av.open(str(path), "w", format="yuv4mpegpipe") as out:
        stream = out.add_stream("wrapped_avframe", rate=Fraction(RATE))
        stream.height, stream.width, stream.pix_fmt = first.shape[0], first.shape[1], "yuv420p"
        for image in (first, *frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode())
    return path


def motion_of(clip: Clip) -> list[list[float]]:
    """Motion events of a front camera's clip as a browser reports them: s, m/s², °/s."""
    if clip.imu is None:
        return []
    rows = np.column_stack([clip.imu.t, clip.imu.accel, np.degrees(clip.imu.gyro)])
    return [[float(v) for v in row] for row in rows]


# Runs in the page: reads the codes in the camera's picture, sends each clip's motion events at the
# very times of its frames, and writes down what the widget shows. Before a clip the device is moved
# as before its first frame, so that the record begins 0.3 s earlier, as a phone's does.
PLAYER = """
(() => {
  const clips = %(motion)s, gap = %(gap)s, seen = (window.__seen = []);
  let number = -1, codeFrom = 0, playFrom = 0, next = 0;
  const canvas = document.createElement('canvas'); canvas.width = 90; canvas.height = 4;
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  function code(video) {
    pen.drawImage(video, 0, 0, 90, 4);
    const px = pen.getImageData(0, 0, 90, 1).data;
    let value = 0;
    for (let k = 0; k < 9; k++) {
      let low = 255, high = 0;
      for (let x = 3; x < 7; x++) { const v = px[4 * (10 * k + x) + 1]; low = Math.min(low, v); high = Math.max(high, v); }
      if (high > 60 && low < 180) return -1;
      if (k === 0 && low < 180) return -1;
      if (k > 0 && low >= 180) value |= 1 << (k - 1);
    }
    return value < clips.length ? value : -1;
  }
  function watch(video) {
    const step = (now, meta) => {
      video.requestVideoFrameCallback(step);
      const t = meta.captureTime ?? now, c = code(video);
      if (c >= 0 && (number !== c || playFrom)) { number = c; codeFrom = t; playFrom = 0; next = 0; }
      else if (c < 0 && number >= 0 && !playFrom && t - codeFrom > 300) { playFrom = t; seen.push({ clip: number, from: t, texts: [] }); }
    };
    video.requestVideoFrameCallback(step);
  }
  setInterval(() => {
    if (number < 0 || !clips[number].length) return;
    const rows = clips[number], start = playFrom || codeFrom + gap * 1000, now = performance.now();
    while (next < rows.length && start + rows[next][0] * 1000 <= now) {
      const [t, ax, ay, az, gx, gy, gz] = rows[next++];
      const e = new DeviceMotionEvent('devicemotion', { accelerationIncludingGravity: { x: ax, y: ay, z: az },
        acceleration: { x: 0, y: 0, z: 0 }, rotationRate: { alpha: gx, beta: gy, gamma: gz }, interval: 10 });
      Object.defineProperty(e, 'timeStamp', { value: start + t * 1000 });
      dispatchEvent(e);
    }
  }, 8);
  const find = setInterval(() => {
    const video = document.querySelector('.lv-video'), verdict = document.querySelector('.lv-verdict');
    if (!video || !verdict) return;
    clearInterval(find);
    watch(video);
    new MutationObserver(() => {
      const now = seen.at(-1), decision = verdict.dataset.decision;
      if (now && decision) now.texts.push({ t: performance.now() - now.from, decision, text: verdict.innerText });
    }).observe(verdict, { attributes: true, subtree: true, childList: true, characterData: true });
  }, 50);
})();
"""


# A camera that plays whatever take the test names, there and back by the take's own times, and can be unplugged.
STAGE = """
(() => {
  const takes = {}, canvas = Object.assign(document.createElement('canvas'), { width: 256, height: 256 });
  const pen = canvas.getContext('2d'), streams = [];
  let now = null, begun = 0;
  const picture = (text) => createImageBitmap(new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: 'image/jpeg' }));
  const draw = () => {
    if (!now) return pen.fillRect(0, 0, canvas.width, canvas.height);
    const n = now.frames.length - 1, k = Math.floor((performance.now() - begun) / 1000 * now.rate) % (2 * n);
    pen.drawImage(now.frames[n - Math.abs(n - k)], 0, 0, canvas.width, canvas.height);
  };
  setInterval(draw, 1000 / 60);
  window.stage = {
    async add(name, texts, rate) { takes[name] = { frames: await Promise.all(texts.map(picture)), rate }; },
    show(name) { now = takes[name]; begun = performance.now(); },
    unplug() { for (const s of streams.splice(0)) for (const t of s.getTracks()) { t.stop(); t.dispatchEvent(new Event('ended')); } },
  };
  navigator.mediaDevices.getUserMedia = async () => { const s = canvas.captureStream(30); streams.push(s); return s; };
  navigator.mediaDevices.enumerateDevices = async () => [{ kind: 'videoinput', deviceId: 'stage', label: 'Integrated camera' }];
})();
"""


def to_stage(page, name: str, clip: Clip) -> None:
    """Give a page with `STAGE` a take to play."""
    texts = [base64.b64encode(encode_jpeg(frame, 95)).decode() for frame in clip.frames]
    page.evaluate("([n, t, r]) => stage.add(n, t, r)", [name, texts, (len(clip.t) - 1) / float(clip.t[-1] - clip.t[0])])


# ---------------------------------------------------------------------------------------- processes
def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def lab(root: Path) -> Iterator[str]:
    """A JupyterLab over the notebooks in `root`; yields its address. Its own settings lie in `root` too."""
    port, home = free_port(), root / ".home"
    kernel = home / "data" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernel / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "Python 3", "language": "python"}}')
    news = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "run"}
    env = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    env |= {f"JUPYTER_{k}": str(home / v) for k, v in places.items()}
    env |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}  # fmt: skip
    options = ["--allow-root", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=t",
               f"--ServerApp.root_dir={root}", "--ServerApp.allow_remote_access=True", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    with (root / "lab.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log)
    try:
        _until_up(f"http://127.0.0.1:{port}/api/status?token=t", server)
        yield f"http://localhost:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def _until_up(address: str, server: subprocess.Popen, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=10).close()
            return
        time.sleep(0.1)
    raise RuntimeError("JupyterLab did not come up.")


class Chromium:
    """Chromium, started once for each camera and set of flags; every page is one of a fresh context."""

    def __enter__(self) -> Chromium:
        from playwright.sync_api import sync_playwright

        self._started = {}
        self._stack = contextlib.ExitStack()
        self._play = self._stack.enter_context(sync_playwright())
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def _browser(self, flags: tuple[str, ...]):
        if flags not in self._started:
            found = self._play.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(flags))
            self._stack.callback(found.close)
            self._started[flags] = found
        return self._started[flags]

    @contextlib.contextmanager
    def page(
        self,
        camera: Path | None = None,
        *,
        allowed: bool = True,
        there: bool = True,
        extra: Sequence[str] = (),
        **context,
    ) -> Iterator:
        """A page whose fake camera plays a file, for ever, or without one the browser's own test picture.

        `allowed` grants the camera without asking; `there` is False where there shall be none; `extra` are further flags.
        """
        flags = [*FLAGS, *extra]
        flags += ["--use-fake-ui-for-media-stream"] if allowed else []
        flags += ["--use-fake-device-for-media-stream"] if there else []
        flags += [f"--use-file-for-fake-video-capture={camera}"] if camera else []
        made = self._browser(tuple(flags)).new_context(**{"viewport": {"width": 1180, "height": 900}} | context)
        made.set_default_timeout(300_000)
        try:
            yield made.new_page()
        finally:
            made.close()


def write_notebook(path: Path, *cells: str) -> Path:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


# A kernel whose first "idle" came before anybody listened seems to be starting for ever: it is asked, too.
_READY = """() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel, now = performance.now();
  if (!kernel || kernel.status === 'idle') return !!kernel;
  if (!(now - window.__asked < 5000)) { window.__asked = now; kernel.requestKernelInfo().then(() => { window.__alive = true; }); }
  return window.__alive === true;
}"""
_KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"


def open_and_run(page, base: str, notebook: str, seconds: float = 300) -> None:
    """Open a notebook in Lab with a kernel of its own, wait until that is idle, run all cells and wait for the widget.

    In a kernel that has shown widgets to another page, Lab would first put those together again, and on a busy machine
    it waits for ever for one that does not answer in time.
    """
    _end_kernels(base)
    page.goto(f"{base}/lab/tree/{notebook}?reset&token=t")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=1e3 * seconds)
    page.wait_for_function(_READY, timeout=1e3 * seconds)
    page.evaluate("()=>{window.jupyterapp.commands.execute('notebook:run-all-cells')}")
    page.wait_for_selector(".lv-start", timeout=1e3 * seconds)


def _end_kernels(base: str) -> None:
    server = f"http://127.0.0.1:{base.rsplit(':', 1)[1]}/api/sessions"
    with urllib.request.urlopen(f"{server}?token=t", timeout=300) as answer:
        sessions = json.load(answer)
    for session in sessions:
        ended = urllib.request.Request(f"{server}/{session['id']}?token=t", method="DELETE")
        urllib.request.urlopen(ended, timeout=300).close()


def ask_kernel(page, code: str) -> str:
    """Run code in the notebook's kernel; returns what it printed, or its error."""
    run = (
        "async (code) => { let out=''; const f="
        + _KERNEL
        + ".requestExecute({code, store_history:false}); f.onIOPub=m=>{"
        "if(m.header.msg_type==='stream') out+=m.content.text;"
        "if(m.header.msg_type==='error') out+='ERROR '+m.content.ename+': '+m.content.evalue;};"
        "await f.done; return out; }"
    )
    return page.evaluate(run, code)
