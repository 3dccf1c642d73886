// The phone's camera and motion sensors on one clock (performance.now), in browser units and axes.
// In: permissions and a stream. Out: a video file, the capture time of every frame, IMU samples.
// The server brings signs, units and screen rotation to the course's convention.

const PRINT = 8;
const CELL = 8;

export class CaptureError extends Error {
  constructor(state, message) { super(message); this.state = state; }
}

/** Ask for the motion sensors. On iOS this must be the first thing a click does. */
export async function askForMotion() {
  if (!window.isSecureContext) throw new CaptureError("insecure", "");
  if (typeof DeviceMotionEvent === "undefined") return "absent";
  if (typeof DeviceMotionEvent.requestPermission !== "function") return "granted";
  try { return await DeviceMotionEvent.requestPermission(); } catch { return "denied"; }
}

/** Every browser on iOS is WebKit, which reports acceleration with the opposite sign; others ask for permission, too. */
function platform() {
  const apple = /iPhone|iPad|iPod/.test(navigator.userAgent) || (/Mac/.test(navigator.platform || "") && navigator.maxTouchPoints > 1);
  return apple ? "ios_safari" : "w3c";
}

export function screenAngle() {
  const angle = screen.orientation?.angle ?? window.orientation ?? 0;
  return ((Math.round(angle / 90) * 90) % 360 + 360) % 360;
}

/** Motion samples since `start`; a device without sensors sends nulls, which are no samples. */
export class MotionLog {
  constructor() { this.samples = []; this.listener = (event) => this.take(event); }
  start() { addEventListener("devicemotion", this.listener); }
  stop() { removeEventListener("devicemotion", this.listener); }
  take(event) {
    const a = event.accelerationIncludingGravity, r = event.rotationRate;
    const row = [a?.x, a?.y, a?.z, r?.alpha, r?.beta, r?.gamma];
    if (row.some((v) => typeof v !== "number" || !Number.isFinite(v))) return;
    const now = performance.now();
    const t = Math.abs(event.timeStamp - now) < 1000 ? event.timeStamp : now;
    const last = this.samples.at(-1);
    if (!last || t > last[0]) this.samples.push([t, ...row]);
    if (this.samples.length > 5000) this.samples.splice(0, 1000);
  }
  /** What lies around [from, to] ms, broken or not: the server says what is wrong. Null is for a device without sensors. */
  around(from, to) {
    if (!this.samples.length) return null;
    const samples = this.samples.filter((s) => s[0] > from - 900 && s[0] < to + 400);
    return { platform: platform(), screen_angle: screenAngle(), samples };
  }
}

export async function openCamera() {
  if (!window.isSecureContext) throw new CaptureError("insecure", "");
  if (!navigator.mediaDevices?.getUserMedia || typeof MediaRecorder === "undefined"
      || !("requestVideoFrameCallback" in HTMLVideoElement.prototype)) throw new CaptureError("unsupported", "");
  const video = {
    facingMode: "user", width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, resizeMode: { ideal: "none" },
  };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    const states = { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "no-camera",
      OverconstrainedError: "no-camera", NotReadableError: "in-use", AbortError: "in-use" };
    throw new CaptureError(states[error.name] ?? "no-camera", error.message);
  }
}

/** Capture time and a small grey print of every frame that the video shows. */
class FrameLog {
  constructor(video) {
    this.video = video; this.times = []; this.prints = []; this.clock = "capture"; this.on = true;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = PRINT * CELL;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.next();
  }
  next() { this.video.requestVideoFrameCallback((now, frame) => this.take(now, frame)); }
  take(now, frame) {
    if (!this.on) return;
    this.next();
    if (this.times.length === 0 && typeof frame.captureTime !== "number") this.clock = "presentation";
    const t = this.clock === "capture" ? frame.captureTime : frame.presentationTime ?? now;
    if (typeof t !== "number" || (this.times.length && t <= this.times.at(-1))) return;
    this.times.push(t);
    this.prints.push(this.print());
  }
  print() {
    const side = PRINT * CELL, sums = new Float32Array(PRINT * PRINT);
    this.context.drawImage(this.video, 0, 0, side, side);
    const { data } = this.context.getImageData(0, 0, side, side);
    for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
      const k = 4 * (y * side + x);
      sums[(y >> 3) * PRINT + (x >> 3)] += 0.299 * data[k] + 0.587 * data[k + 1] + 0.114 * data[k + 2];
    }
    return Uint8Array.from(sums, (v) => v / (CELL * CELL));
  }
  get seconds() { return this.times.length < 2 ? 0 : (this.times.at(-1) - this.times[0]) / 1000; }
}

function recorderFor(stream) {
  const types = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
  const mimeType = types.find((type) => MediaRecorder.isTypeSupported(type));
  if (!mimeType) throw new CaptureError("unsupported", "");
  return new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 4_000_000 });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function base64(parts) {
  let text = "";
  for (const part of parts) text += String.fromCharCode(...part);
  return btoa(text);
}

/**
 * Record a stream for some seconds.
 *
 * `motion` must have run for half a second before. `onProgress(seconds)` is called about every frame;
 * `signal` aborts. Returns {file, meta, marks}: when (performance.now) the capture
 * ended, the recorder was closed and everything was packed.
 */
export async function record(stream, video, motion, seconds, { onProgress = () => {}, signal } = {}) {
  const recorder = recorderFor(stream), parts = [], angle = screenAngle();
  recorder.ondataavailable = (event) => { if (event.data.size) parts.push(event.data); };
  const stopped = new Promise((done) => { recorder.onstop = () => done(performance.now()); });
  const frames = new FrameLog(video);
  recorder.start();
  const deadline = performance.now() + 1000 * seconds + 3000;
  try {
    while (frames.seconds < seconds) {
      await pause(15);
      onProgress(frames.seconds);
      if (signal?.aborted) throw new CaptureError("aborted", "");
      if (screenAngle() !== angle) throw new CaptureError("turned", "");
      if (performance.now() > deadline || !stream.active) throw new CaptureError("no-frames", "");
    }
  } finally {
    frames.on = false;
    if (recorder.state !== "inactive") recorder.stop();
  }
  const ended = performance.now();
  const [closed] = await Promise.all([stopped, pause(120)]);
  const zero = frames.times[0];
  const imu = motion.around(zero, frames.times.at(-1));
  imu?.samples.forEach((s) => { s[0] -= zero; });
  const meta = {
    frames: frames.times.map((t) => t - zero), prints: base64(frames.prints), clock: frames.clock, camera_facing: "front", imu,
  };
  const file = new Blob(parts, { type: recorder.mimeType });
  return { file, meta, marks: { ended, closed, packed: performance.now() } };
}
