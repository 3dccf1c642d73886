// The guided teaching of this camera: step by step a film of some seconds, then a picture of what they tell apart.
// In: the page's camera, server and stage (an object that page.js gives). Out: films of steps, and a camera that judges.
// The picture of a take stays in this page's memory, and only until the teaching ends.

import { CaptureError, MotionLog, record } from "./capture.js";

const $ = (id) => document.getElementById(id);
const COUNT = 3;
const SVG = "http://www.w3.org/2000/svg";
const PROBLEMS = {
  insecure: "Browsers give the camera to https pages only.",
  unsupported: "This browser cannot record video with the time of every frame.",
  "no-camera": "No camera was found. Connect it, then try again.",
  denied: "The camera was not allowed. Allow it in the browser's settings for this address, then try again.",
  "in-use": "Another app or tab uses the camera. Close it, then try again.",
  "no-frames": "The camera stopped sending pictures. Uncover or reconnect it, then try again.",
  turned: "The screen was turned while filming. Hold it as it is, and film again.",
  aborted: "The page was left while filming. Film this step again.",
};
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const parts = (n) => `${n} part${n === 1 ? "" : "s"} of 2.5\u00a0s`;

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export class Teaching {
  /** `page`: {preview(), closeCamera(), stream(), request(path, options), newSession(), setState(state, prompt), check()}. */
  constructor(page) {
    this.page = page; this.steps = []; this.done = {}; this.taken = new Map(); this.skipped = new Set();
    this.at = 0; this.turn = 0; this.abort = null; this.active = false;
    $("teach-open").addEventListener("click", () => this.open());
    $("teach-stop").addEventListener("click", () => this.stop());
  }

  // ------------------------------------------------------------------------------------- in and out
  async open() {
    this.active = true;
    const turn = this.begin();
    this.view("wait", "Teach this camera", "", "Asking the server …");
    try {
      const held = await this.ask("/api/v1/camera", { method: "GET" });
      if (turn !== this.turn) return;
      [this.steps, this.done] = [held.steps, held.done];
      if (held.taught) this.show(held.taught, "This camera is taught");
      else this.step(this.first());
    } catch (error) { this.failed(error, turn, () => this.open()); }
  }

  /** Out at any time; what the server took of earlier steps stays there as numbers, pictures go. */
  stop(said = "") {
    this.begin();
    this.active = false;
    this.page.closeCamera();
    this.taken.clear();
    this.skipped.clear();
    delete document.body.dataset.teach;
    $("teach").hidden = true;
    this.page.setState("idle", said);
    $("teach-open").focus();
  }

  /** A new piece of work: what an earlier one still waits for no longer counts. */
  begin() {
    this.abort?.abort();
    this.abort = new AbortController();
    return ++this.turn;
  }

  /** The page was hidden: nothing is filmed any more. */
  left() {
    const filming = ["ready", "film"].includes(document.body.dataset.teach);
    this.page.closeCamera();
    if (filming) this.failed(new CaptureError("aborted", ""), this.begin(), () => this.step(this.at));
  }

  async ask(path, options = {}) { return (await this.page.request(path, options))[0]; }

  // --------------------------------------------------------------------------------------- one view
  view(name, title, text, said, buttons = []) {
    document.body.dataset.teach = name;
    $("teach").hidden = false;
    $("teach-title").textContent = title;
    $("teach-text").textContent = text;
    $("teach-count").textContent = this.steps.length && name !== "done" ? `Step ${this.at + 1} of ${this.steps.length}` : "";
    $("teach-result").hidden = name !== "done";
    $("teach-stop").textContent = name === "done" ? "Close" : "Stop teaching";
    $("teach-buttons").replaceChildren(...buttons.map(([label, act], k) => {
      const button = make("button", k ? "second" : "main", label);
      button.type = "button";
      button.addEventListener("click", act);
      return button;
    }));
    this.page.setState({ wait: "judging", ready: "ready", film: "capturing" }[name] ?? "idle", said);
    this.thumbnails();
    $("teach-title").focus({ preventScroll: true });
    $("teach").scrollIntoView({ block: "start" });
  }

  /** What was filmed, small; a canvas in memory each, which is never sent. */
  thumbnails() {
    const made = this.steps.filter((s) => s.name in this.done).map((step) => {
      const item = make("li"), picture = this.taken.get(step.name);
      if (picture) item.append(picture);
      item.append(make("span", "", `✓ ${step.title}`));
      return item;
    });
    $("teach-takes").replaceChildren(...made);
  }

  first() { return Math.max(0, this.steps.findIndex((s) => !(s.name in this.done))); }
  get now() { return this.steps[this.at]; }

  /** Buttons that go on without filming: for a step that may be left out, and for one that is done. */
  others() {
    const buttons = [];
    if (this.now.name in this.done) buttons.push(["Keep it and go on", () => this.next()]);
    else if (this.now.optional) buttons.push([this.now.kind === "print" ? "I have no sheet of paper" : "Skip", () => this.skip()]);
    if (this.at > 0) buttons.push(["Back", () => this.step(this.at - 1)]);
    return buttons;
  }

  // --------------------------------------------------------------------------------------- the steps
  async step(k) {
    this.at = k;
    const turn = this.begin(), { title, text, seconds } = this.now;
    this.view("ready", title, text, "Starting the camera …", this.others());
    try {
      await this.page.preview();
      if (turn !== this.turn) return;
      const again = this.now.name in this.done;
      this.view("ready", title, text, `${this.living ? "Put your face into the oval." : "Hold its face into the oval."} It films for ${seconds}\u00a0seconds.`,
        [[again ? "Film it again" : "Film this step", () => this.film()], ...this.others()]);
    } catch (error) { this.failed(error, turn, () => this.step(k)); }
  }

  get living() { return this.now.kind === "bona_fide"; }

  /** Whoever has no sheet of paper has none for the second of its steps either. */
  skip() {
    const { kind, name } = this.now;
    for (const s of this.steps.slice(this.at)) if (s.name === name || (kind === "print" && s.kind === kind)) this.skipped.add(s.name);
    this.next();
  }

  next() {
    const k = this.steps.findIndex((s, j) => j > this.at && !this.skipped.has(s.name));
    if (k >= 0) this.step(k); else this.fit();
  }

  async countdown(turn) {
    for (let left = COUNT; left > 0; left--) {
      $("count").textContent = String(left);
      $("prompt").textContent = `Filming in ${left} …`;
      await pause(1000);
      if (turn !== this.turn) return false;
    }
    $("count").textContent = "";
    return true;
  }

  async film() {
    const turn = this.begin(), { name, title, text, seconds } = this.now, signal = this.abort.signal;
    this.view("film", title, text, "");
    $("ring").style.strokeDashoffset = "100";
    try {
      await this.page.preview();
      if (turn !== this.turn || !(await this.countdown(turn))) return;
      const session = await this.page.newSession(false);
      if (turn !== this.turn) return;
      $("prompt").textContent = this.living ? "Filming. Turn your head slowly." : "Filming. Move it a little.";
      const taken = await record(this.page.stream(), $("video"), new MotionLog(), seconds, { onProgress: (s) => this.progress(s, seconds), signal });
      const picture = this.thumbnail(title);
      this.view("wait", title, text, "Looking at what was filmed …");
      const held = await this.send(taken, { nonce: session.nonce, step: name });
      this.done = held.done;
      this.taken.set(name, picture);
      this.skipped.delete(name);
      if (turn === this.turn) this.took(held.windows);
    } catch (error) { this.failed(error, turn, () => this.step(this.at)); } finally { $("count").textContent = ""; }
  }

  progress(seconds, total) { $("ring").style.strokeDashoffset = String(100 - 100 * Math.min(1, seconds / total)); }

  send({ file, meta }, more) {
    const form = new FormData();
    form.append("video", file, "step");
    form.append("meta", JSON.stringify({ ...meta, imu: null, ...more })); // a camera is taught pixels alone
    return this.ask("/api/v1/steps", { body: form });
  }

  thumbnail(title) {
    const canvas = make("canvas"), video = $("video"), side = Math.min(video.videoWidth, video.videoHeight);
    canvas.width = canvas.height = 96;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `What was filmed: ${title}`);
    const pen = canvas.getContext("2d");
    pen.translate(96, 0);
    pen.scale(-1, 1); // as the mirrored picture above it
    pen.drawImage(video, (video.videoWidth - side) / 2, (video.videoHeight - side) / 2, side, side, 0, 0, 96, 96);
    return canvas;
  }

  took(windows) {
    const last = !this.steps.some((s, j) => j > this.at && !this.skipped.has(s.name));
    this.view("taken", this.now.title, "", `Taken: ${parts(windows)}.`, [
      [last ? "Finish" : "Next step", () => this.next()], ["Again", () => this.step(this.at)],
    ]);
  }

  /** In words, with a way on: nothing that fails is a dead end. */
  failed(error, turn, again) {
    if (turn !== this.turn) return;
    if (!(error.state in PROBLEMS) && !error.message) console.error(error);
    const text = PROBLEMS[error.state] ?? (error.message || "Something failed; try again.");
    const ways = this.steps.length ? this.others() : [];
    this.view("problem", this.now?.title ?? "Teach this camera", text, text, [["Try again", again], ...ways]);
  }

  // ---------------------------------------------------------------------------------------- the end
  async fit() {
    const turn = this.begin();
    this.page.closeCamera();
    this.view("wait", "Teach this camera", "", "Learning what tells them apart …");
    try {
      const told = await this.ask("/api/v1/camera");
      if (turn === this.turn) this.show(told, "The camera is taught");
    } catch (error) { this.failed(error, turn, () => this.fit()); }
  }

  show(told, title) {
    this.page.closeCamera();
    const more = () => { this.skipped.clear(); this.step(this.first()); };
    const filmed = Object.keys(this.done).length > 0; // after a restart the server knows the camera, and no clip to add to
    this.view("done", title, "It judges with what it was taught, from now on.", title, [
      ["Check now", () => this.finish()], ...(filmed ? [["Teach more", more]] : []),
      [filmed ? "Start over" : "Teach it anew", () => this.over()], ["Forget this camera", (e) => this.forget(e.target)],
    ]);
    const sides = told.left_out.living && told.left_out.attacks;
    $("teach-result").replaceChildren(
      ...(sides ? [picture(told)] : []), ...numbers(told.errors),
      ...(told.notes.length ? [make("h3", "", "What was not taught"), list(told.notes)] : []),
    );
  }

  finish() { this.stop(); this.page.check(); }

  async over() {
    const turn = this.begin();
    try {
      this.done = (await this.ask("/api/v1/steps", { method: "DELETE" })).done;
      this.taken.clear();
      this.skipped.clear();
      if (turn === this.turn) this.step(0);
    } catch (error) { this.failed(error, turn, () => this.over()); }
  }

  /** The second click forgets. */
  async forget(button) {
    if (!button.dataset.sure) {
      button.dataset.sure = "1";
      button.textContent = "Really forget it?";
      return;
    }
    const turn = this.begin();
    try {
      await this.ask("/api/v1/camera", { method: "DELETE" });
      if (turn === this.turn) this.stop("The taught camera is forgotten.");
    } catch (error) { this.failed(error, turn, () => this.open()); }
  }
}

// ------------------------------------------------------------------------------------------- picture
function list(texts) {
  const made = make("ul", "notes");
  made.append(...texts.map((text) => make("li", "", text)));
  return made;
}

/** The errors of clips left out in turn, in words, with their exact interval. */
function numbers(errors) {
  const percent = (v) => `${Math.round(100 * v)}\u00a0%`;
  const words = { living: "living clips turned away", attacks: "attacks let in" };
  const rows = Object.keys(words).filter((side) => errors[side]).map((side) => {
    const { k, n, low, high } = errors[side];
    return `${k} of ${n} ${words[side]} (exact 95\u00a0% interval: ${percent(low)} to ${percent(high)})`;
  });
  if (!rows.length) return [make("p", "", "Too few clips to say how well they are told apart.")];
  const more = [];
  if (errors.attacks?.k) more.push("An attack that was left out was taken for living: teach more of its kind, in other light.");
  if (errors.living?.k) more.push("A living clip that was left out was turned away: teach more lights.");
  return [make("p", "small", "Each clip was left out in turn and judged by the others:"), list(rows), ...more.map((text) => make("p", "", text))];
}

function draw(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text) made.textContent = text;
  return made;
}

/** Dots of both sides on one axis, with threshold and floor; dots that would hide each other are stacked. */
function picture({ left_out: { living, attacks }, threshold, floor }) {
  const values = [...living, ...attacks, threshold, floor], low = Math.min(...values), high = Math.max(...values);
  const margin = 0.08 * (high - low || 1), x = (v) => 10 + (300 * (v - low + margin)) / (high - low + 2 * margin);
  const few = (v) => v.toFixed(1), range = (vs) => `from ${few(Math.min(...vs))} to ${few(Math.max(...vs))}`;
  const label = `Log odds of clips left out in turn. ${living.length} living, ${range(living)}; ${attacks.length} attacks, ${range(attacks)}. `
    + `Accepted from ${few(threshold)} on, an attack below ${few(floor)}, not sure between.`;
  const svg = draw("svg", { viewBox: "0 0 320 168", class: "apart", role: "img", "aria-label": label });
  svg.append(
    draw("rect", { class: "zone attack", x: 10, y: 20, width: x(floor) - 10, height: 106 }),
    draw("rect", { class: "zone unsure", x: x(floor), y: 20, width: x(threshold) - x(floor), height: 106 }),
    draw("rect", { class: "zone living", x: x(threshold), y: 20, width: 310 - x(threshold), height: 106 }),
    draw("text", { x: 14, y: 36 }, "Living"), draw("text", { x: 14, y: 90 }, "Attacks"),
    ...stacked(living, x, 64, "living"), ...stacked(attacks, x, 116, "attack"),
    draw("line", { class: "threshold", x1: x(threshold), x2: x(threshold), y1: 14, y2: 132 }),
    draw("line", { class: "floor", x1: x(floor), x2: x(floor), y1: 14, y2: 132 }),
    draw("text", { x: 10, y: 150 }, "attack"), draw("text", { x: 310, y: 150, "text-anchor": "end" }, "accepted"),
    draw("text", { x: Math.min(250, Math.max(80, (x(floor) + x(threshold)) / 2)), y: 150, "text-anchor": "middle" }, "not sure"),
  );
  return svg;
}

function stacked(values, x, y, className) {
  const seen = [];
  return [...values].sort((a, b) => a - b).map((v) => {
    const level = seen.filter((u) => x(v) - x(u) < 9).length;
    seen.push(v);
    return draw("circle", { class: className, cx: x(v), cy: y - 8 * (level % 4), r: 4.5 });
  });
}
