// The guided teaching of a view: step by step the camera films, the kernel measures, and at the end fits.
// Joined to live.js in one module (live.py); questions go up with a ticket, and answers bring it back.

const ANSWERS_IN = 20000, MEASURES_IN = 180000; // ms after which the kernel counts as silent
const SILENT = "The kernel does not answer: it may be busy with another cell, or gone.";
const INTRO = "About a minute: your face in several lights, then a photo of you on a phone and on paper. Pictures go to the kernel of this notebook, are measured step by step and forgotten; what stays is numbers. They are of your face: treat the camera's file like a picture of you.";
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// -------------------------------------------------------------------------------------- questions
function makePost(engine) {
  const open = new Map(), mark = Math.random().toString(36).slice(2);
  let count = 0;
  return {
    ask(kind, more = {}, ms = ANSWERS_IN) {
      const ticket = `${mark}-${++count}`;
      engine.wait(ms);
      return new Promise((done, fail) => {
        const late = setTimeout(() => { open.delete(ticket); fail(new Error(SILENT)); }, ms);
        open.set(ticket, (m) => {
          clearTimeout(late); open.delete(ticket); engine.wait(0);
          if (m.kind === "teach_error") fail(new Error(m.text)); else done(m);
        });
        engine.say({ kind, ticket, ...more });
      });
    },
    hear(m) { open.get(m.ticket)?.(m); },
  };
}

// ------------------------------------------------------------------------------------------ panel
function makePanel(ui, quiet) {
  ui.teach.innerHTML = `
    <small class="lv-where"></small>
    <h3 class="lv-title" tabindex="-1"></h3>
    <p class="lv-what"></p>
    <p class="lv-said" role="status" aria-live="polite"></p>
    <div class="lv-film" role="progressbar" aria-label="filming" aria-valuemin="0" aria-valuemax="100" hidden><i></i></div>
    <div class="lv-buttons lv-choices"></div>
    <ol class="lv-takes" aria-label="steps of the teaching"></ol>
    <div class="lv-result" hidden></div>`;
  const find = (name) => ui.teach.querySelector(`.lv-${name}`);
  const panel = Object.fromEntries(["where", "title", "what", "said", "film", "choices", "takes", "result"].map((n) => [n, find(n)]));
  return {
    ...panel,
    show(title, what, where = "") {
      panel.title.textContent = title; panel.what.textContent = what; panel.where.textContent = where;
      panel.result.hidden = true;
      panel.title.focus();
    },
    say(text, failed = false) {
      panel.said.textContent = text;
      panel.said.classList.toggle("lv-failed", failed);
    },
    // Buttons of [words, what they do]; the first is the usual way on, unless it is the quiet one.
    offer(...all) {
      const kept = ui.teach.contains(document.activeElement);
      panel.choices.replaceChildren(...all.map(([words, act], k) => make("button", k || act === quiet ? "" : "lv-go", { type: "button", textContent: words, onclick: act })));
      if (kept) panel.title.focus();
      return panel.choices.firstChild;
    },
    filmed(share) {
      panel.film.hidden = share === null;
      panel.film.firstChild.style.width = `${Math.round(100 * (share || 0))}%`;
      panel.film.setAttribute("aria-valuenow", Math.round(100 * (share || 0)));
    },
  };
}

function showTakes(panel, steps, takes, again) {
  panel.takes.replaceChildren(...steps.map((step) => {
    const take = takes.get(step.name), item = make("li", `lv-take${take?.state ? ` lv-${take.state}` : ""}`);
    item.append(take?.picture || make("span", "lv-blank", { ariaHidden: "true" }));
    item.append(make("span", "", { textContent: step.title }), make("em", "", { textContent: take?.words || "to come" }));
    if (take && again) item.append(make("button", "", { type: "button", textContent: "Again", ariaLabel: `Again: ${step.title}`, onclick: () => again(step) }));
    return item;
  }));
}

// A small picture of the step, for this page alone.
function thumbnail(ui, title) {
  const canvas = make("canvas", "lv-thumb", { width: 96, height: 72 }), { videoWidth: w, videoHeight: h } = ui.video;
  canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", `what was filmed: ${title}`);
  if (w) {
    const s = Math.min(96 / w, 72 / h), pen = canvas.getContext("2d");
    pen.drawImage(ui.video, (96 - w * s) / 2, (72 - h * s) / 2, w * s, h * s);
  }
  return canvas;
}

// ----------------------------------------------------------------------------------------- picture
const NAMESPACE = "http:" + "//www.w3.org/2000/svg"; // a name: nothing is loaded from there

function svg(tag, traits = {}, text = "") {
  const e = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(traits)) e.setAttribute(name, value);
  e.textContent = text;
  return e;
}

const list = (values) => [...values].sort((a, b) => a - b).map((v) => v.toFixed(1).replace("-", "−")).join(", ");

// How far living clips and attacks lie apart, each left out in turn, and where the decision falls.
function drawApart(m) {
  const { living = [], attacks = [] } = m.left_out || {}, all = [...living, ...attacks, m.threshold, m.floor];
  const low = Math.min(...all), high = Math.max(...all), pad = 0.08 * (high - low || 1);
  const px = (v) => 70 + (330 * (v - low + pad)) / (high - low + 2 * pad);
  const words = `Living clips lie at ${list(living)}, attacks at ${list(attacks)}. From ${list([m.threshold])} on a clip is accepted; below ${list([m.floor])} it is an attack; between both is not sure.`;
  const picture = svg("svg", { viewBox: "0 0 410 136", role: "img", "aria-label": words, class: "lv-apart" });
  picture.append(svg("rect", { x: px(m.floor), y: 14, width: Math.max(0, px(m.threshold) - px(m.floor)), height: 84, class: "lv-between" }));
  for (const [value, name, anchor, dx] of [[m.threshold, "accepted →", "start", 4], [m.floor, "← attack", "end", -4]]) {
    picture.append(svg("line", { x1: px(value), x2: px(value), y1: 14, y2: 98, class: "lv-limit" }));
    picture.append(svg("text", { x: px(value) + dx, y: 10, "text-anchor": anchor }, name));
  }
  for (const [name, values, y, kind] of [["living", living, 40, "good"], ["attacks", attacks, 76, "bad"]]) {
    picture.append(svg("text", { x: 2, y: y + 4 }, name));
    for (const v of values) picture.append(kind === "good" ? svg("circle", { cx: px(v), cy: y, r: 5, class: "lv-good" }) : svg("path", { d: `M${px(v) - 5} ${y - 5}l10 10m0 -10l-10 10`, class: "lv-bad" }));
  }
  picture.append(svg("text", { x: (px(m.floor) + px(m.threshold)) / 2, y: 110, "text-anchor": "middle" }, "not sure"));
  picture.append(svg("text", { x: 235, y: 130, "text-anchor": "middle" }, "log odds of living, each clip left out in turn"));
  return [picture, make("p", "lv-words", { textContent: words })];
}

function rates(m) {
  const told = { living: "living clips were taken for attacks", attacks: "attacks were taken for living" };
  const percent = (x) => (100 * x).toFixed(0);
  return Object.entries(m.errors || {}).map(([side, e]) => `${e.k} of ${e.n} ${told[side]} (exact 95 % interval: ${percent(e.low)} to ${percent(e.high)} %).`);
}

function showTaught(panel, m) {
  const pictured = m.left_out?.living?.length && m.left_out?.attacks?.length;
  const few = "No attack was taught, or too few clips to leave one out: there is no error to tell.";
  panel.result.replaceChildren(...(pictured ? drawApart(m) : [make("p", "", { textContent: few })]));
  const lines = [...rates(m), ...(m.notes || []).map((n) => `Note: ${n}.`), m.saved ? `Saved in ${m.saved}; delete that file to forget it.` : "Not saved: it goes with this kernel."];
  const items = make("ul", "lv-lines");
  items.append(...lines.map((line) => make("li", "", { textContent: line })));
  panel.result.append(items);
  panel.result.hidden = false;
}

// -------------------------------------------------------------------------------------------- flow
function makeTeaching(ui, model, engine) {
  const panel = makePanel(ui, stop), post = makePost(engine), takes = new Map();
  let steps = [], seconds = 6, run = 0, now = null, filming = false;
  const current = (mine) => mine === run;

  function open() {
    run++; now = null; takes.clear(); steps = [];
    enter(true);
    panel.show("Teach this camera", INTRO); panel.say(""); panel.filmed(null);
    showTakes(panel, steps, takes);
    const ways = [["Begin", () => begin(false)]];
    if (ui.taught) ways.push(["Add to what it was taught", () => begin(true)]);
    panel.offer(...ways, stopping());
  }

  function enter(on) {
    ui.teaching = on;
    ui.root.classList.toggle("lv-teaching", on);
    ui.teach.hidden = false; ui.open.disabled = on; ui.guide.hidden = !on; ui.guide.textContent = "";
    ui.again.disabled = ui.ask.disabled = on || !engine.stream;
  }

  const stopping = () => ["Stop teaching", stop];

  function stop() {
    const open = ui.teaching;
    halt();
    if (open) engine.say({ kind: "teach_stop" });
    enter(false); leave();
  }

  function halt() { run++; engine.film(""); engine.wait(0); filming = false; ui.guide.textContent = ""; panel.filmed(null); }

  async function begin(extend) {
    const mine = ++run;
    panel.say("Asking the kernel …"); panel.offer(stopping());
    try {
      const m = await post.ask("teach_start", { extend }, MEASURES_IN);
      if (!current(mine)) return;
      steps = m.steps; seconds = m.seconds;
      if (!engine.stream) engine.start();
      ready(steps[0]);
    } catch (e) { if (current(mine)) { panel.say(e.message, true); panel.offer(["Again", () => begin(extend)], stopping()).focus(); } }
  }

  function ready(step) {
    halt(); now = step;
    panel.say("");
    panel.offer(["Film", () => take(step)], ...(step.optional ? [[step.skip, () => skip(step)]] : []), stopping());
    panel.show(step.title, step.text, `Step ${steps.indexOf(step) + 1} of ${steps.length}${step.optional ? ", may be skipped" : ""}`);
    showTakes(panel, steps, takes, ready);
  }

  async function take(step) {
    const mine = ++run;
    panel.offer(stopping()); showTakes(panel, steps, takes);
    try {
      await camera();
      if (!current(mine)) return;
      filming = true;
      await post.ask("teach_take", { step: step.name });
      if (!(await countdown(mine))) return;
      const picture = await film(step, mine);
      if (!picture) return;
      panel.say("Measuring …");
      const m = await post.ask("teach_done", { step: step.name }, MEASURES_IN);
      if (current(mine)) taken(step, picture, m.windows);
    } catch (e) { if (current(mine)) failed(step, e.message); }
  }

  async function camera() {
    if (engine.stream) return;
    panel.say("Starting the camera …");
    await engine.start();
    if (!engine.stream) throw new Error(`${(STATES[model.get("state")] || STATES.error)[0]}: ${model.get("message")}`);
  }

  async function countdown(mine) {
    for (const n of [3, 2, 1]) {
      panel.say(`Filming begins in ${n}`); ui.guide.textContent = n;
      await pause(1000);
      if (!current(mine)) return false;
    }
    ui.guide.textContent = "";
    return true;
  }

  // Films one step; returns a small picture of it, or nothing when it was broken off.
  async function film(step, mine) {
    panel.say("Filming: keep moving slowly");
    engine.film(step.name);
    const begun = performance.now();
    let picture = null, share = 0;
    while (share < 1) {
      await pause(100);
      if (!current(mine)) return null;
      share = (performance.now() - begun) / (1000 * seconds);
      panel.filmed(Math.min(1, share));
      if (share > 0.4 && !picture) picture = thumbnail(ui, step.title);
    }
    engine.film(""); filming = false; panel.filmed(null);
    return picture || thumbnail(ui, step.title);
  }

  function taken(step, picture, windows) {
    takes.set(step.name, { state: "taken", picture, words: `taken, ${windows} × 2.5 s` });
    showTakes(panel, steps, takes, ready);
    panel.say(`Taken: ${step.title}`);
    panel.offer(next() ? ["Next step", () => ready(next())] : ["Fit the camera", fit], ["Again", () => ready(step)], stopping()).focus();
  }

  function failed(step, text) {
    halt();
    showTakes(panel, steps, takes, ready);
    panel.say(text, true);
    panel.offer(["Again", () => take(step)], [step.skip, () => skip(step)], stopping()).focus();
  }

  // Left out; what it taught before is forgotten, too.
  function skip(step) {
    if (takes.get(step.name)?.state === "taken") engine.say({ kind: "teach_drop", step: step.name });
    takes.set(step.name, { state: "skipped", words: "skipped" });
    next() ? ready(next()) : fit();
  }

  const next = () => steps.find((s) => !takes.has(s.name));

  async function fit() {
    halt(); now = null;
    const mine = run;
    panel.show("Fitting the camera", "A linear head is fitted to what was measured, each clip left out in turn.");
    panel.say("Fitting …"); panel.offer(stopping()); showTakes(panel, steps, takes);
    try {
      const m = await post.ask("teach_fit", {}, MEASURES_IN);
      if (current(mine)) fitted(m);
    } catch (e) {
      if (!current(mine)) return;
      showTakes(panel, steps, takes, ready);
      panel.say(e.message, true);
      panel.offer(["Fit again", fit], stopping()).focus();
    }
  }

  function fitted(m) {
    enter(false);
    ui.taught = true; ui.threshold = m.level;
    panel.offer(["Close", leave], ["Teach anew", open]);
    panel.show("This camera is taught", `${m.clips} parts of 2.5 s were taught. From now on they judge what you show.`);
    panel.say("The verdicts are now those of the taught camera.");
    showTakes(panel, [], takes);
    showTaught(panel, m);
    engine.again();
  }

  function leave() { ui.teach.hidden = true; ui.open.focus(); }

  function hear(kind, data) {
    if (kind === "teach") post.hear(data);
    if (kind === "welcome") ui.taught = Boolean(data.taught);
    if (kind === "stream" && !data && filming && now) failed(now, "The camera stopped while this step was filmed. Connect it, and film again.");
  }

  return { open, hear, close() { if (ui.teaching) { halt(); engine.say({ kind: "teach_stop" }); } } };
}
