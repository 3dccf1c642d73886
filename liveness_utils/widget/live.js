// The page's half of the webcam widget: camera and motion sensors up, score and verdict down.
// One engine a model (camera, messages), any number of views; see live.py for the kernel's half. teach.js follows in the
// same module: the guided teaching of a view.

const LOST_AFTER = 3000; // ms without a reply after which a frame counts as lost
const HISTORY = 10; // s of the score curve
const STATES = {
  idle: ["Camera off", "Press Start. Pictures go to the kernel of this notebook and are not stored."],
  starting: ["Starting", "Allow the camera if the browser asks."],
  running: ["Live", ""],
  playing: ["Clip", "A recorded clip plays from the kernel; no camera is used."],
  stopped: ["Camera off", "Press Start to go on."],
  no_camera: ["No camera", "This computer has no camera, or another program holds it. Connect one and press Start."],
  denied: ["Permission denied", "The browser did not allow the camera. Allow it beside the address, then press Start."],
  insecure: ["Not secure", "A browser gives the camera to https or localhost only. Open this page by one of them."],
  kernel_silent: ["Kernel does not answer", "It may be busy with another cell, or gone. Frames wait until it answers."],
  error: ["Camera error", ""],
};
const WORDS = { bona_fide: ["✓", "bona fide"], not_sure: ["?", "not sure"], attack: ["✕", "attack"], no_decision: ["–", "no decision"] };

const make = (tag, name, props = {}) => Object.assign(document.createElement(tag), { className: name }, props);

// ------------------------------------------------------------------------------------------ motion
function motionSensors(rows) {
  let seen = false;
  const take = (e) => {
    const a = e.accelerationIncludingGravity, r = e.rotationRate;
    // A device without sensors sends one event of nulls: no IMU, not zeros.
    if (!a || !r || a.x === null || r.alpha === null) return;
    seen = true;
    if (rows.length < 500) rows.push([e.timeStamp / 1000, a.x, a.y, a.z, r.alpha, r.beta, r.gamma]);
  };
  return {
    async allow() {
      if (typeof DeviceMotionEvent === "undefined") return;
      if (typeof DeviceMotionEvent.requestPermission === "function") {
        try { if ((await DeviceMotionEvent.requestPermission()) !== "granted") return; } catch { return; }
      }
      addEventListener("devicemotion", take);
    },
    stop() { removeEventListener("devicemotion", take); },
    get seen() { return seen; },
  };
}

const onIos = () => /iPhone|iPad|iPod/.test(navigator.userAgent) || (/Mac/.test(navigator.platform || "") && navigator.maxTouchPoints > 1);

// ------------------------------------------------------------------------------------------ engine
function makeEngine(model) {
  const listeners = new Set(), sentAt = new Map(), trips = [], answered = [], rows = [];
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", { alpha: false });
  const sensors = motionSensors(rows);
  let stream = null, video = null, inflight = 0, number = 0, passed = 0, lastT = -1, dead = false, exam = null, welcomed = false, watch = 0, most = 0, line = Promise.resolve();
  let filmed = "", patience = 0; // step of a teaching that is filmed; until when the kernel may be silent, as it measures
  const tell = (kind, data) => listeners.forEach((f) => f(kind, data));

  function enter(state, message = "") {
    model.set("state", state);
    model.set("message", message || STATES[state][1]);
    model.save_changes();
    tell("state", state);
  }

  async function start() {
    if (model.get("state") === "starting") return;
    if (!window.isSecureContext || !navigator.mediaDevices) return enter("insecure");
    release();
    enter("starting");
    await sensors.allow(); // iOS wants this first in the click
    const id = model.get("device_id");
    const which = id ? { deviceId: { exact: id } } : { facingMode: "user" };
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false, video: { ...which, width: { ideal: 640 }, height: { ideal: 480 }, resizeMode: "none" },
      });
    } catch (e) {
      const denied = e.name === "NotAllowedError" || e.name === "SecurityError";
      const none = ["NotFoundError", "OverconstrainedError", "NotReadableError", "DevicesNotFoundError"].includes(e.name);
      return enter(denied ? "denied" : none ? "no_camera" : "error", denied || none ? "" : `${e.name}: ${e.message}`);
    }
    if (dead) return release();
    const track = stream.getVideoTracks()[0], settings = track.getSettings();
    track.addEventListener("ended", () => { if (stream) { release(); enter("no_camera"); } });
    await listDevices(settings.deviceId);
    model.send({ kind: "start", facing: settings.facingMode || "user" });
    enter("running");
    tell("stream", stream);
    watch = setInterval(look, 500);
  }

  async function listDevices(current) {
    const all = (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === "videoinput");
    model.set("devices", all.map((d, k) => ({ id: d.deviceId, label: d.label || `camera ${k + 1}` })));
    model.set("device_id", current || model.get("device_id"));
    model.save_changes();
  }

  function release() {
    if (stream) stream.getTracks().forEach((t) => t.stop());
    stream = null; inflight = 0; lastT = -1; exam = null; filmed = ""; rows.length = 0;
    sentAt.clear(); passed = number; sensors.stop(); clearInterval(watch);
    tell("stream", null);
  }

  function stop() { release(); enter("stopped"); tell("cleared"); }
  // What comes back of frames from before this moment is of the last face: it frees their places, and is not shown.
  function again() { exam = null; passed = number; model.send({ kind: "again" }); tell("cleared"); }
  function ask() { if (stream) model.send({ kind: "ask" }); }

  // Lost replies free their place; the page says when the kernel has gone quiet.
  function look() {
    const now = performance.now();
    for (const [id, t] of sentAt) if (now - t > LOST_AFTER) { sentAt.delete(id); inflight--; }
    const oldest = Math.min(...sentAt.values(), Infinity);
    const quiet = now - oldest > 1500 || (sentAt.size === 0 && answered.length === 0 && number > 2);
    const checking = exam?.until > now || patience > now; // checking an answer takes the kernel some seconds
    if (quiet && !checking && model.get("state") === "running") enter("kernel_silent");
    while (answered.length && now - answered[0] > 2000) answered.shift();
    if (answered.length > 1) {
      model.set("frame_rate", ((answered.length - 1) / (answered.at(-1) - answered[0])) * 1000);
      model.set("round_trip_ms", [...trips].sort((a, b) => a - b)[trips.length >> 1] || 0);
      model.set("has_imu", sensors.seen);
      model.save_changes();
    }
    tell("pace");
  }

  // The view whose video is on the page lends it for capture.
  function lend(element) {
    video = element;
    const next = () => {
      if (video !== element || dead) return;
      if (element.requestVideoFrameCallback) element.requestVideoFrameCallback(tick);
      else requestAnimationFrame((now) => tick(now, {}));
    };
    const tick = (now, meta) => {
      next(); // first, so that a slow frame does not cost the one after it
      if (stream && element.videoWidth) capture(element, (meta.captureTime ?? now) / 1000);
    };
    next();
  }

  function capture(element, t) {
    if (inflight >= model.get("max_inflight") || t <= lastT) return;
    inflight++; lastT = t; most = Math.max(most, inflight);
    const id = ++number, begun = performance.now();
    sentAt.set(id, begun);
    const scale = Math.min(1, model.get("send_side") / Math.min(element.videoWidth, element.videoHeight));
    canvas.width = Math.round(element.videoWidth * scale);
    canvas.height = Math.round(element.videoHeight * scale);
    pen.drawImage(element, 0, 0, canvas.width, canvas.height);
    const encoded = new Promise((done) => canvas.toBlob(done, "image/jpeg", model.get("quality")));
    const step = exam && exam.step >= 0 ? exam.step : undefined, teach = filmed || undefined, mine = stream;
    // Two pictures may be encoded at once; the later one must not overtake.
    line = line.then(async () => {
      const blob = await encoded, data = blob && (await blob.arrayBuffer());
      if (!sentAt.has(id)) return;
      if (!data || stream !== mine) { sentAt.delete(id); inflight--; return; }
      const motion = { imu: rows.splice(0), platform: onIos() ? "ios_safari" : "w3c", angle: screen.orientation?.angle || 0 };
      model.send({ kind: "frame", id, t, step, teach, ...motion }, undefined, [data]);
    }, () => {});
  }

  function receive(m, buffers) {
    if (m.kind === "welcome") { welcomed = true; tell("welcome", m); }
    if (["result", "error", "teach_kept"].includes(m.kind)) answer(m);
    else if (String(m.kind).startsWith("teach_")) tell("teach", m);
    if (m.kind === "picture") tell("picture", { ...m, buffer: buffers[0] });
    if (m.kind === "challenge") conduct(m);
    if (m.kind === "challenge_result") { exam = null; tell("exam", { done: true, ...m }); }
  }

  function answer(m) {
    const begun = sentAt.get(m.id);
    if (begun !== undefined) {
      sentAt.delete(m.id); inflight--;
      trips.push(performance.now() - begun); answered.push(performance.now());
      if (trips.length > 100) trips.shift();
    }
    if (model.get("state") === "kernel_silent" && stream) enter("running");
    if (m.kind === "result" && m.id <= passed) return;
    if (m.kind === "error") { if (typeof m.id !== "number") exam = null; tell("failed", m); } else tell(m.kind === "result" ? "result" : "kept", m);
  }

  // Walk the person through the prompts; frames carry the number of their step.
  async function conduct(m) {
    exam = { nonce: m.nonce, step: -1 };
    const mine = exam, wait = (ms) => new Promise((done) => setTimeout(done, ms));
    for (let k = 0; k < m.prompts.length && exam === mine; k++) {
      tell("exam", { text: m.instructions[k], step: k, of: m.prompts.length, ready: true });
      mine.step = -1;
      await wait(1500);
      mine.step = k;
      tell("exam", { text: m.instructions[k], step: k, of: m.prompts.length, seconds: m.seconds });
      await wait(m.seconds * 1000);
    }
    if (exam !== mine) return;
    Object.assign(mine, { step: -1, until: performance.now() + 20000 });
    tell("exam", { text: "Checking …" });
    model.send({ kind: "answer", nonce: m.nonce });
  }

  model.on("msg:custom", receive);
  const hello = () => model.send({ kind: "hello" });
  hello();
  const knock = setTimeout(() => { if (!welcomed && !dead) enter("kernel_silent"); }, LOST_AFTER);

  return {
    start, stop, again, ask, lend, hello, listeners,
    say(content) { model.send(content); },
    film(step) { filmed = step; },
    wait(ms) { patience = performance.now() + ms; },
    get stream() { return stream; },
    get most() { return most; },
    get capturing() { return video; },
    close() { dead = true; clearTimeout(knock); release(); model.off("msg:custom", receive); },
  };
}

// -------------------------------------------------------------------------------------------- view
function makeView(model, el) {
  const root = make("div", "lv"), id = `lv${Math.random().toString(36).slice(2, 8)}`;
  root.innerHTML = `
    <div class="lv-stage">
      <div class="lv-picture">
        <video class="lv-video" muted playsinline autoplay aria-label="camera preview"></video>
        <canvas class="lv-still" hidden role="img" aria-label="frame of the clip"></canvas>
        <canvas class="lv-over" aria-hidden="true"></canvas>
        <div class="lv-empty"><span class="lv-empty-icon" aria-hidden="true">◎</span><b></b><span class="lv-empty-text"></span></div>
        <div class="lv-pill"><i aria-hidden="true"></i><span></span></div>
        <div class="lv-advice" role="status" aria-live="polite"></div>
        <div class="lv-prompt" role="alert" hidden><small></small><b></b><div class="lv-count"><i></i></div></div>
        <div class="lv-progress" aria-hidden="true"><i></i></div>
        <div class="lv-guide" aria-hidden="true" hidden></div>
      </div>
      <div class="lv-buttons">
        <button class="lv-start" type="button">Start</button>
        <button class="lv-again" type="button" disabled title="Forget this face and judge anew">Again</button>
        <button class="lv-ask" type="button" disabled title="A random sequence of small tasks">Challenge</button>
        <button class="lv-open" type="button" title="A minute of your face and of a picture of it; no picture is kept">Teach this camera</button>
        <label class="lv-label" for="${id}">Camera</label>
        <select class="lv-device" id="${id}"></select>
      </div>
    </div>
    <div class="lv-side">
      <div class="lv-verdict" role="status" aria-live="polite" data-decision="">
        <span class="lv-mark" aria-hidden="true">…</span><div><b>no verdict yet</b><p></p><p class="lv-rests" hidden></p></div>
      </div>
      <button class="lv-offer" type="button" hidden>Answer a challenge: it decides</button>
      <figure class="lv-figure">
        <figcaption>Score, P(bona fide)<span class="lv-now"></span></figcaption>
        <canvas class="lv-curve" role="img" aria-label="score over time against the threshold"></canvas>
      </figure>
      <div class="lv-bars" role="group" aria-label="cues"></div>
      <div class="lv-exam" role="status" aria-live="polite" hidden></div>
      <div class="lv-pace" aria-live="off"></div>
    </div>
    <section class="lv-teach" aria-label="teach this camera" hidden></section>`;
  el.append(root);
  const find = (name) => root.querySelector(`.lv-${name}`);
  const ui = Object.fromEntries(
    ["video", "still", "over", "empty", "pill", "advice", "prompt", "progress", "start", "again", "ask", "device", "verdict", "now", "curve", "bars", "exam", "pace", "picture", "open", "offer", "rests", "guide", "side", "teach"].map((n) => [n, find(n)]),
  );
  return { root, ...ui, points: [], threshold: null, bars_by_name: new Map() };
}

function showState(ui, model, engine) {
  const state = model.get("state"), [title] = STATES[state] || STATES.error;
  const live = Boolean(engine.stream), failed = ["no_camera", "denied", "insecure", "kernel_silent", "error"].includes(state);
  ui.root.dataset.state = state;
  ui.pill.querySelector("span").textContent = title;
  ui.start.textContent = live ? "Stop" : "Start";
  ui.start.disabled = state === "starting";
  ui.again.disabled = ui.ask.disabled = !live || ui.teaching;
  if (!live) setOffer(ui, false);
  ui.empty.hidden = live || state === "playing";
  ui.empty.querySelector("b").textContent = title;
  ui.empty.querySelector(".lv-empty-text").textContent = model.get("message") || STATES[state]?.[1] || "";
  ui.empty.querySelector(".lv-empty-icon").textContent = failed ? "!" : state === "starting" ? "…" : "◎";
  if (live && state === "kernel_silent") setAdvice(ui, ["the kernel does not answer"]);
}

function setAdvice(ui, words) {
  const text = words.join(" · ");
  if (ui.advice.textContent !== text) ui.advice.textContent = text;
  ui.advice.hidden = !text;
}

function showDevices(ui, model) {
  const all = model.get("devices") || [], current = model.get("device_id");
  ui.device.replaceChildren(...(all.length ? all : [{ id: "", label: "default camera" }]).map((d) => new Option(d.label, d.id, false, d.id === current)));
  ui.device.disabled = all.length < 2;
}

function showVerdict(ui, v) {
  const [mark, word] = v ? WORDS[v.decision] || WORDS.no_decision : ["…", "no verdict yet"];
  ui.verdict.dataset.decision = v ? v.decision : "";
  ui.verdict.querySelector(".lv-mark").textContent = mark;
  ui.verdict.querySelector("b").textContent = word;
  const scored = v && typeof v.score === "number";
  const why = v ? (v.reasons || []).join("; ") : "2.5 s with one face are needed.";
  ui.verdict.querySelector("p").textContent = scored ? `${v.sentence.replace(/^(bona fide|not sure|attack) /, "")}${why ? ` · ${why}` : ""}` : why;
  if (scored) ui.threshold = v.threshold;
  setOffer(ui, v?.decision === "not_sure" && ui.prompt.hidden);
  showRests(ui, v);
}

// The challenge is offered; who had come to its button by keyboard stays near when it goes.
function setOffer(ui, on) {
  if (!on && document.activeElement === ui.offer) ui.ask.focus();
  ui.offer.hidden = !on;
}

// What a taught camera's verdict rests on, and what it was not taught.
function showRests(ui, v) {
  const known = (x, digits) => (typeof x === "number" ? x.toFixed(digits).replace("-", "−") : "none"), on = v?.camera || {};
  const numbers = "pixels" in on
    ? [`pixels ${known(on.pixels, 1)}, motion ${known(on.motion, 1)}${typeof on.mask === "number" ? `, no mask ${known(on.mask, 1)}` : ""} (0 is the limit of each)`, `distance from what was taught ${known(on.distance, 2)} (1 is usual)`] : [];
  const text = [...numbers, ...(v?.notes || [])].join(" · ");
  if (ui.rests.textContent !== text) ui.rests.textContent = text;
  ui.rests.hidden = !text;
}

function showBars(ui, cues) {
  for (const cue of cues || []) {
    let bar = ui.bars_by_name.get(cue.name);
    if (!bar) {
      bar = make("div", "lv-bar", { innerHTML: '<span></span><div role="meter" aria-valuemin="0" aria-valuemax="1"><i></i></div><em></em>' });
      bar.firstChild.textContent = cue.words;
      bar.querySelector("div").setAttribute("aria-label", cue.words);
      ui.bars_by_name.set(cue.name, bar);
      ui.bars.append(bar);
    }
    const known = cue.fill !== null, meter = bar.querySelector("div");
    bar.classList.toggle("lv-silent", !known);
    meter.querySelector("i").style.width = known ? `${Math.round(100 * cue.fill)}%` : "0";
    known ? meter.setAttribute("aria-valuenow", cue.fill.toFixed(2)) : meter.removeAttribute("aria-valuenow");
    bar.querySelector("em").textContent = known ? cue.value.toFixed(2) : "silent";
  }
}

function sharp(canvas) {
  const ratio = window.devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
  if (canvas.width !== Math.round(w * ratio)) canvas.width = Math.round(w * ratio);
  if (canvas.height !== Math.round(h * ratio)) canvas.height = Math.round(h * ratio);
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, w, h);
  return [g, w, h];
}

function drawBox(ui, box, colour) {
  const [g, w, h] = sharp(ui.over);
  if (!box) return;
  const source = ui.still.hidden ? ui.video : ui.still;
  const vw = source.videoWidth || source.width || 4, vh = source.videoHeight || source.height || 3;
  const s = Math.min(w / vw, h / vh), x0 = (w - vw * s) / 2, y0 = (h - vh * s) / 2;
  const [x, y, bw, bh] = [x0 + box[0] * vw * s, y0 + box[1] * vh * s, box[2] * vw * s, box[3] * vh * s];
  const arm = 0.18 * Math.min(bw, bh);
  g.lineWidth = 3; g.lineCap = "round"; g.strokeStyle = colour; g.shadowColor = "rgba(0,0,0,.6)"; g.shadowBlur = 4;
  g.beginPath();
  for (const [cx, cy, dx, dy] of [[x, y, 1, 1], [x + bw, y, -1, 1], [x, y + bh, 1, -1], [x + bw, y + bh, -1, -1]]) {
    g.moveTo(cx + dx * arm, cy); g.lineTo(cx, cy); g.lineTo(cx, cy + dy * arm);
  }
  g.stroke();
}

function drawCurve(ui, whatIf) {
  const [g, w, h] = sharp(ui.curve);
  if (!w) return;
  const style = getComputedStyle(ui.root), colour = (n) => style.getPropertyValue(n).trim();
  const left = 26, right = w - 8, top = 8, bottom = h - 18;
  const end = ui.points.at(-1)?.t ?? HISTORY, from = Math.max(end - HISTORY, ui.points[0]?.t ?? 0);
  const px = (t) => left + ((t - from) / HISTORY) * (right - left), py = (s) => bottom - s * (bottom - top);
  g.font = `10px ${style.fontFamily}`; g.fillStyle = colour("--lv-faint"); g.strokeStyle = colour("--lv-line"); g.lineWidth = 1;
  for (const s of [0, 0.5, 1]) {
    g.beginPath(); g.moveTo(left, py(s)); g.lineTo(right, py(s)); g.stroke();
    g.textAlign = "right"; g.fillText(String(s), left - 5, py(s) + 3);
  }
  g.textAlign = "right"; g.fillText(`last ${HISTORY} s`, right, h - 4);
  const level = (value, dash, name, ink) => {
    if (typeof value !== "number") return;
    g.strokeStyle = g.fillStyle = ink; g.setLineDash(dash); g.lineWidth = 1.2;
    g.beginPath(); g.moveTo(left, py(value)); g.lineTo(right, py(value)); g.stroke(); g.setLineDash([]);
    g.textAlign = "left"; g.fillText(`${name} ${value.toFixed(2)}`, left + 3, py(value) + (value > 0.85 ? 11 : -4));
  };
  level(ui.threshold, [5, 4], "threshold", colour("--lv-text"));
  level(whatIf, [2, 3], "what if", colour("--lv-accent"));
  g.strokeStyle = colour("--lv-accent"); g.lineWidth = 2; g.lineJoin = "round"; g.beginPath();
  let open = false;
  for (const p of ui.points) {
    if (p.t < from || p.score === null) { open = false; continue; }
    open ? g.lineTo(px(p.t), py(p.score)) : g.moveTo(px(p.t), py(p.score));
    open = true;
  }
  g.stroke();
}

function showResult(ui, model, m) {
  if (ui.points.length && m.t < ui.points.at(-1).t) ui.points.length = 0;
  ui.points.push({ t: m.t, score: m.score });
  while (ui.points.length > 600) ui.points.shift();
  if (m.presentation !== ui.presentation) { ui.presentation = m.presentation; showVerdict(ui, null); }
  if (m.verdict) showVerdict(ui, m.verdict);
  const style = getComputedStyle(ui.root), decision = ui.verdict.dataset.decision;
  const ink = { bona_fide: "--lv-good", not_sure: "--lv-unsure", attack: "--lv-bad" }[decision] || "--lv-box";
  drawBox(ui, m.box, style.getPropertyValue(ink).trim());
  setAdvice(ui, m.advice || []);
  ui.progress.firstChild.style.width = `${Math.round(100 * m.progress)}%`;
  ui.progress.hidden = m.progress >= 1 || !m.faces;
  const whatIf = model.get("threshold"), above = (limit) => (m.score >= limit ? "at or above" : "below");
  ui.now.textContent = m.score === null ? "" : `${m.score.toFixed(2)}${typeof whatIf === "number" ? `, ${above(whatIf)} ${whatIf.toFixed(2)}` : ""}`;
  showBars(ui, m.cues);
  drawCurve(ui, whatIf);
}

async function showPicture(ui, model, m) {
  ui.still.hidden = false; ui.video.hidden = true; ui.empty.hidden = true;
  ui.root.dataset.state = "playing";
  ui.pill.querySelector("span").textContent = STATES.playing[0];
  if (m.buffer) {
    const bitmap = await createImageBitmap(new Blob([m.buffer], { type: "image/jpeg" }));
    ui.still.width = bitmap.width; ui.still.height = bitmap.height;
    ui.still.getContext("2d").drawImage(bitmap, 0, 0);
  }
  showResult(ui, model, m);
}

function showExam(ui, m) {
  ui.prompt.hidden = Boolean(m.done);
  if (m.done) {
    ui.exam.hidden = false;
    if (m.verdict) showVerdict(ui, m.verdict);
    ui.exam.dataset.passed = m.passed;
    const steps = (m.steps || []).map((s) => `${s.passed ? "✓" : "✕"} ${s.prompt.replaceAll("_", " ")}`).join("   ");
    ui.exam.replaceChildren(make("b", "", { textContent: m.sentence || "" }), make("span", "", { textContent: steps }));
    return;
  }
  ui.exam.hidden = true;
  ui.prompt.querySelector("small").textContent = m.of ? `${m.ready ? "get ready" : "now"} · ${m.step + 1} of ${m.of}` : "";
  ui.prompt.querySelector("b").textContent = m.text;
  const bar = ui.prompt.querySelector("i");
  bar.style.transition = "none"; bar.style.width = "100%"; bar.offsetWidth; // restart the transition
  if (m.seconds) { bar.style.transition = `width ${m.seconds}s linear`; bar.style.width = "0%"; }
  ui.prompt.querySelector(".lv-count").style.visibility = m.seconds ? "visible" : "hidden";
}

export default () => {
  let engine = null;
  return {
    initialize({ model }) {
      engine = makeEngine(model);
      return () => engine.close();
    },
    render({ model, el }) {
      const ui = makeView(model, el);
      const stream = (s) => {
        ui.video.hidden = false; ui.still.hidden = true;
        ui.video.srcObject = s;
        if (s) { ui.video.play().catch(() => {}); if (!engine.capturing?.isConnected) engine.lend(ui.video); }
      };
      const clear = () => {
        ui.points.length = 0; ui.presentation = undefined;
        showVerdict(ui, null); drawBox(ui, null); drawCurve(ui, model.get("threshold")); setAdvice(ui, []);
        ui.exam.hidden = ui.prompt.hidden = ui.progress.hidden = true; ui.now.textContent = "";
      };
      const teaching = makeTeaching(ui, model, engine);
      const hear = (kind, data) => {
        teaching.hear(kind, data);
        if (kind === "state") showState(ui, model, engine);
        if (kind === "stream") stream(data);
        if (kind === "cleared") clear();
        if (kind === "welcome") { ui.threshold = data.threshold; showBars(ui, engine.stream ? [] : data.cues); drawCurve(ui, model.get("threshold")); }
        if (kind === "result" && engine.stream) showResult(ui, model, data);
        if (kind === "picture" && !engine.stream) showPicture(ui, model, data);
        if (kind === "exam") showExam(ui, data);
        if (kind === "failed") { setAdvice(ui, [data.text]); if (typeof data.id !== "number") ui.prompt.hidden = true; }
        if (kind === "pace") {
          ui.pace.title = `at most ${engine.most} frames under way`;
          ui.pace.textContent = engine.stream ? `${model.get("frame_rate").toFixed(0)} frames/s · round trip ${model.get("round_trip_ms").toFixed(0)} ms · motion sensors ${model.get("has_imu") ? "on" : "none"}` : "";
        }
      };
      const onState = () => showState(ui, model, engine), onDevices = () => showDevices(ui, model);
      const onThreshold = () => drawCurve(ui, model.get("threshold"));
      engine.listeners.add(hear);
      model.on("change:state", onState); model.on("change:devices", onDevices); model.on("change:threshold", onThreshold);
      ui.root.classList.toggle("lv-mirror", model.get("mirror"));
      ui.start.onclick = () => (engine.stream ? engine.stop() : (clear(), engine.start()));
      ui.again.onclick = () => engine.again();
      ui.ask.onclick = ui.offer.onclick = () => { ui.exam.hidden = true; engine.ask(); };
      ui.open.onclick = () => teaching.open();
      ui.device.onchange = () => { model.set("device_id", ui.device.value); model.save_changes(); if (engine.stream) engine.start(); };
      const resized = new ResizeObserver(onThreshold);
      resized.observe(ui.curve);
      engine.hello(); // a kernel that was restarted, or a second view, hears of it
      clear(); onState(); onDevices();
      if (engine.stream) stream(engine.stream);
      return () => {
        teaching.close(); engine.listeners.delete(hear); resized.disconnect();
        model.off("change:state", onState); model.off("change:devices", onDevices); model.off("change:threshold", onThreshold);
        ui.video.srcObject = null; ui.root.remove();
        const other = [...document.querySelectorAll(".lv-video")].find((v) => engine.stream && v.srcObject === engine.stream);
        if (!engine.stream) return;
        if (other) engine.lend(other); else engine.stop(); // the last view is gone: the camera goes off
      };
    },
  };
};
