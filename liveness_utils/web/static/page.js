// The page: states, one click to a verdict, and what has been judged in this session.
// In: clicks, and what capture.js records. Out: requests to the API, and its answers as text (never as HTML).

import { CaptureError, MotionLog, askForMotion, openCamera, record } from "./capture.js";
import { Teaching } from "./teach.js";

const $ = (id) => document.getElementById(id);
const config = JSON.parse(document.body.dataset.config);
const PREROLL_MS = 550;
const TRIES = 6;

const COVERS = {
  insecure: ["lock", "This address is not secure", "Browsers give camera and motion sensors to https pages only. Start the server with --https and open its https address."],
  unsupported: ["camera", "This browser is too old", "It cannot record video with the time of every frame. Use a current Chrome, Edge, Safari or Firefox."],
  "no-camera": ["camera", "No camera found", "Connect a camera, or open this page on a phone, and try again."],
  denied: ["stop", "The camera was not allowed", "Allow the camera for this address in the browser's site settings, then try again."],
  "in-use": ["camera", "The camera is in use", "Close the other app or tab that uses the camera, then try again."],
  "no-frames": ["camera", "The camera sends no pictures", "Uncover or reconnect it, keep this page in front, and try again."],
  "no-motion": ["stop", "No motion sensors", "This server judges only clips with motion data. Use a phone, and allow its motion sensors."],
  busy: ["clock", "The server is busy", "Others are being judged right now. Try again in a moment."],
  gone: ["stop", "The server does not answer", "It was stopped or the network is gone. Try again when it is back; nothing was decided."],
};
const NOTICES = {
  absent: "No motion sensors here: the verdict rests on the video alone.",
  denied: "Motion sensors were not allowed: the verdict rests on the video alone. On iOS: reload the page and allow them.",
};
const WORDS = { bona_fide: "Bona fide", not_sure: "Not sure", attack: "Attack", no_decision: "No decision" };

let stream = null, abort = null, teaching = null;
const history = [];

function setState(state, prompt = "") {
  document.body.dataset.state = state;
  $("prompt").textContent = prompt;
  const busy = ["starting", "ready", "capturing", "judging", "busy-waiting"].includes(state);
  for (const id of ["start", "teach-open", "answer"]) if ($(id)) $(id).disabled = busy;
  $("picture").setAttribute("aria-busy", String(state === "judging"));
  const cover = COVERS[state];
  $("prompt").classList.toggle("unseen", Boolean(cover));
  if (!cover) return;
  const [symbol, title, text] = cover;
  $("symbol").setAttribute("href", `#symbol-${symbol}`);
  $("cover-title").textContent = title;
  $("cover-text").textContent = text;
  $("prompt").textContent = title; // said by screen readers; the eye reads it above
  $("start").textContent = "Try again";
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text ?? "";
}

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").srcObject = null;
}

async function preview() {
  if (!stream?.active) {
    stream = await openCamera();
    $("video").srcObject = stream;
    await $("video").play();
  }
}

// ------------------------------------------------------------------------------------------- server
class ServerError extends Error {
  constructor(state, detail) { super(detail); this.state = state; }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** What the server says of its own time, in ms by stage. */
function serverTiming(response) {
  const parts = (response.headers.get("Server-Timing") ?? "").split(", ").map((part) => part.split(";dur="));
  return Object.fromEntries(parts.filter((part) => part.length === 2).map(([name, ms]) => [name, Number(ms)]));
}

/**
 * Ask with patience (POST, unless the options say otherwise): a full line (503) or a rate limit (429) is waited for as long as it says.
 * Returns the answer, and when (performance.now) its request left, its head came and its body was read.
 */
async function request(path, options) {
  for (let k = 1; ; k++) {
    let response, held, answered;
    const sent = performance.now();
    try {
      response = await fetch(path, { method: "POST", signal: AbortSignal.timeout(90_000), ...options });
      answered = performance.now();
      held = await response.json();
    } catch { throw new ServerError("gone", "The server does not answer."); }
    if (response.ok) return [held, { sent, answered, read: performance.now(), server: serverTiming(response) }];
    if (![429, 503].includes(response.status)) throw new ServerError("rejected", held.detail ?? "The server refused the request.");
    if (k >= TRIES) throw new ServerError("busy", held.detail);
    const seconds = Math.min(20, Number(response.headers.get("Retry-After")) || 2);
    document.body.dataset.waiting = String(k);
    $("prompt").textContent = `The server is busy. Trying again in ${seconds}\u00a0s\u00a0…`;
    await pause(1000 * seconds);
  }
}

async function newSession(challenge, motion = true) {
  const [session] = await request("/api/v1/sessions", {
    headers: { "Content-Type": "application/json" }, body: JSON.stringify({ challenge, motion }),
  });
  return session;
}

function send(file, meta) {
  const form = new FormData();
  form.append("video", file, "clip");
  form.append("meta", JSON.stringify(meta));
  return request("/api/v1/clips", { body: form });
}

// ------------------------------------------------------------------------------------------ capture
function wish() {
  if (!config.labels.length || !$("consent").checked) return null;
  const value = { label: $("label").value, subject: $("subject").value, consent: true };
  return $("device").value ? { ...value, device: $("device").value } : value;
}

function wishIsComplete() {
  if (!config.labels.length) return true;
  $("subject").required = $("consent").checked;
  return $("recorder").reportValidity();
}

function progress(session, seconds, total) {
  $("ring").style.strokeDashoffset = String(100 - 100 * Math.min(1, seconds / total));
  const late = seconds - session.quiet_s;
  const step = session.prompts.length ? Math.floor(late / session.prompts[0].seconds) : -1;
  const text = late < 0 || step < 0 ? "Recording. Move the phone slowly from side to side."
    : session.prompts[Math.min(step, session.prompts.length - 1)].instruction;
  if ($("prompt").textContent !== text) $("prompt").textContent = text;
}

async function capture(session, motion) {
  const total = session.quiet_s + session.prompts.reduce((sum, p) => sum + p.seconds, 0);
  setState("capturing", "Recording. Move the phone slowly from side to side.");
  return record(stream, $("video"), motion, total, {
    onProgress: (seconds) => progress(session, seconds, total), signal: abort.signal,
  });
}

/** One click to a verdict; `asked` is for a challenge, in which nothing is recorded. */
async function check(asked = false) {
  const motionAsked = askForMotion(); // iOS: nothing may be awaited before this
  if (!asked && !wishIsComplete()) return;
  abort = new AbortController();
  const motion = new MotionLog();
  let marks = {};
  try {
    setState("starting", "Starting the camera …");
    const allowed = await motionAsked;
    await preview();
    if (allowed === "granted") motion.start();
    setState("ready", "Put your face into the oval.");
    const keep = asked ? null : wish();
    await pause(PREROLL_MS); // by then a device with sensors has sent samples
    const session = await newSession(asked || (!keep && $("challenge").checked), motion.samples.length > 0);
    const taken = await capture(session, motion);
    marks = taken.marks;
    motion.stop();
    notice(taken.meta.imu ? "" : NOTICES[allowed === "denied" ? "denied" : "absent"]);
    if (!taken.meta.imu && config.requireImu) throw new CaptureError("no-motion", "");
    setState("judging", "Judging …");
    const [held, times] = await send(taken.file, { ...taken.meta, nonce: session.nonce, record: keep });
    show(held, { ...marks, ...times }, keep);
  } catch (error) {
    failed(error, marks);
  } finally {
    motion.stop();
  }
}

function failed(error, marks) {
  if (error instanceof ServerError && error.state === "rejected") {
    show({ decision: "no_decision", score: null, threshold: null, reasons: [error.message], bars: [] }, marks, null);
  } else if (error.state in COVERS) {
    closeCamera();
    setState(error.state);
  } else if (error.state === "turned" || error.state === "aborted") {
    const why = error.state === "turned" ? "The screen was turned" : "The page was left";
    setState(stream ? "ready" : "idle", `${why} while recording; start again.`);
    for (const id of ["start", "teach-open"]) if ($(id)) $(id).disabled = false;
  } else {
    closeCamera();
    setState("no-frames");
    console.error(error);
  }
}

// ------------------------------------------------------------------------------------------ verdict
function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text ?? "";
  if (className) made.className = className;
  return made;
}

/** Both numbers with as many digits as it takes to see which is larger. */
function apart(a, b) {
  for (let digits = 2; digits < 9; digits++) if (a.toFixed(digits) !== b.toFixed(digits)) return [a.toFixed(digits), b.toFixed(digits)];
  return [a.toFixed(2), b.toFixed(2)];
}

function showScale(held) {
  const known = typeof held.score === "number" && typeof held.threshold === "number";
  $("scale").hidden = !known;
  if (!known) return;
  const [score, threshold] = apart(held.score, held.threshold);
  $("score").textContent = score;
  $("threshold").textContent = threshold;
  $("score-fill").style.width = `${100 * held.score}%`;
  $("threshold-mark").style.left = `${100 * held.threshold}%`;
  $("scale").setAttribute("aria-label", `Score ${score} of 1, threshold ${threshold}`);
  const dev = held.dev?.apcer?.value, bpcer = held.dev?.bpcer?.value;
  const rate = (v) => `${Number((100 * v).toPrecision(3))}\u00a0%`;
  $("dev").textContent = Object.keys(held.camera ?? {}).length ? "Threshold of the camera as it was taught" : typeof dev === "number" ? `Threshold chosen for APCER ${rate(dev)}${typeof bpcer === "number" ? `, BPCER ${rate(bpcer)}` : ""} on the dev set` : "";
}

/** What a verdict with a taught camera rests on. */
function showRest(held) {
  const known = Object.keys(held.camera ?? {}).length > 0, { pixels, motion, mask, distance } = held.camera ?? {};
  const signed = (v) => `${v < 0 ? "\u2212" : "+"}${Math.abs(v).toFixed(1)}`;
  const rows = !known ? [] : [
    ["Pixels, against the taught threshold", signed(pixels)],
    ["Motion, against what is needed", typeof motion === "number" ? signed(motion) : "none"],
    ...(typeof mask === "number" ? [["No mask, against the taught faces", signed(mask)]] : []),
    ["Distance from what was taught (1 is usual)", typeof distance === "number" ? distance.toFixed(1) : "unknown"],
  ];
  $("rest-box").hidden = !known;
  $("rest").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  $("notes").replaceChildren(...(held.notes ?? []).map((text) => element("li", text)));
  $("notes").hidden = !held.notes?.length;
}

function bar(cue) {
  const box = element("div"), head = element("div", "", "bar-head"), track = element("div", "", "track"), fill = element("span", "", "fill");
  head.append(element("span", cue.label), element("b", cue.text));
  fill.style.width = `${100 * cue.level}%`;
  track.append(fill);
  track.setAttribute("role", "meter");
  for (const [name, value] of [["label", cue.label], ["valuemin", 0], ["valuemax", 1], ["valuenow", cue.level], ["valuetext", cue.text]]) track.setAttribute(`aria-${name}`, value);
  box.append(head, track);
  return box;
}

function show(held, marks, keep) {
  const card = $("verdict");
  card.className = `verdict ${held.decision}`;
  $("decision").textContent = WORDS[held.decision] ?? WORDS.no_decision;
  showRest(held);
  showScale(held);
  $("reasons").replaceChildren(...held.reasons.map((text) => element("li", text)));
  const steps = held.challenge?.steps ?? [];
  $("steps-box").hidden = !held.challenge;
  $("unsure").hidden = held.decision !== "not_sure" || Boolean(held.challenge);
  $("steps").replaceChildren(...steps.map((s) => element("li", `${s.prompt.replaceAll("_", " ")}: ${s.passed ? "done" : s.reason.split(":")[0]}`)));
  $("bars-box").hidden = !held.bars.length;
  $("bars").replaceChildren(...held.bars.map(bar));
  card.hidden = false;
  remember(held, keep);
  setState("verdict");
  $("start").textContent = "Check again";
  facts(held, marks);
  closeCamera();
  $("decision").focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

/** Milliseconds from the end of the capture to the verdict on the screen, by stage; `network` is both ways. */
function stages({ ended, closed, packed, sent, answered, read, server }, shown) {
  const { total, ...judging } = server;
  return {
    close: closed - ended, sensors: packed - closed, pack: sent - packed, network: answered - sent - total,
    ...judging, answer: read - answered, draw: shown - read,
  };
}

function facts(held, marks) {
  const now = performance.now(), delay = marks.ended ? now - marks.ended : NaN;
  const parts = [];
  const own = marks.server?.total ? `, ${(marks.server.total / 1000).toFixed(1)} s of it on the server` : "";
  if (Number.isFinite(delay)) parts.push(`Verdict ${(delay / 1000).toFixed(1)} s after the capture${own}`);
  if (held.capture) parts.push(`${held.capture.frames} frames in ${held.capture.seconds.toFixed(1)} s, ${held.capture.has_imu ? "with" : "without"} motion data`);
  if (held.recorded) parts.push(`kept as ${held.recorded}`);
  $("facts").textContent = parts.length ? `${parts.join(" · ")}.` : "";
  const spent = marks.server?.total ? JSON.stringify(stages(marks, now)) : "";
  Object.assign($("verdict").dataset, { spent, decision: held.decision, score: held.score ?? "", delayMs: delay, recorded: held.recorded ?? "", answer: JSON.stringify(held) });
}

function remember(held, keep) {
  const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const score = typeof held.score === "number" ? ` · score ${apart(held.score, held.threshold)[0]}` : "";
  const label = keep && held.recorded ? ` · kept as ${keep.label.replaceAll("_", " ")} of ${keep.subject}` : "";
  history.push(`${time} · ${WORDS[held.decision]}${score}${label}`);
  $("history").hidden = false;
  $("list").replaceChildren(...[...history].reverse().map((text) => element("li", text)));
}

$("start").addEventListener("click", () => check());
$("answer").addEventListener("click", () => {
  $("challenge").checked = true; // seen to be asked for, and only for this check
  check(true).finally(() => { $("challenge").checked = false; });
});
if (config.teach) teaching = new Teaching({ preview, closeCamera, stream: () => stream, request, newSession, setState, check });
$("recorder")?.addEventListener("submit", (event) => event.preventDefault());
$("consent")?.addEventListener("change", () => { $("challenge").disabled = $("consent").checked; });
document.addEventListener("visibilitychange", () => {
  if (document.hidden && teaching?.active) teaching.left();
  else if (document.hidden && stream) { abort?.abort(); closeCamera(); }
});
if (!window.isSecureContext) setState("insecure");
