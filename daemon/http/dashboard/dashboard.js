// The dashboard of a corpusd: reads its HTTP API and nothing else. No build step, no other host.
// Whatever comes from the daemon enters the page as text, never as markup.
import { Metrics, Rates } from "./metrics.js";

const POLL_MS = 2000;
const POINTS_MAX = 150; // five minutes
const $ = (id) => document.getElementById(id);

const state = {
  token: sessionStorage.getItem("corpusd-token") || "", answered: false,
  model: "", corpora: [], lastMetrics: null, points: [], asking: null, watched: new Map(),
};

// --- talking to the daemon

class ApiError extends Error {}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (options.body) headers["Content-Type"] = "application/json";
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401 && await askForToken()) return call(path, options);
  if (response.ok) return response;
  let text = `${response.status} ${response.statusText}`;
  try { text = (await response.json()).error.message || text; } catch { /* no JSON: the status */ }
  throw new ApiError(text);
}

const getJson = async (path) => (await call(path)).json();
const post = async (path, body) =>
  (await call(path, { method: "POST", body: JSON.stringify(body || {}) })).json();

let login = null; // several requests may be refused at once
function askForToken() {
  login ??= new Promise((resolve) => {
    const dialog = $("login");
    dialog.addEventListener("close", () => {
      login = null;
      state.token = $("token").value;
      sessionStorage.setItem("corpusd-token", state.token);
      resolve(dialog.returnValue === "yes" && state.token !== "");
    }, { once: true });
    dialog.showModal();
  });
  return login;
}

// Server-sent events of a response: calls `take(event, data)` until it ends.
async function readEvents(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const text of events) {
      let event = "message", data = "";
      for (const line of text.split("\n")) {
        if (line.startsWith("event: ")) event = line.slice(7);
        if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data) take(event, data);
    }
  }
}

// --- numbers as people read them

const counts = new Intl.NumberFormat("en");
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${n >= 100 || i === 0 ? n.toFixed(0) : n.toFixed(1)} ${units[i]}`;
}
function duration(s) {
  if (s === null || s === undefined || !Number.isFinite(s)) return "-";
  if (s < 1) return `${(s * 1000).toFixed(s < 0.01 ? 1 : 0)} ms`;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  return s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`
                   : `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}
function ago(time) {
  if (!time) return "never";
  const s = Math.max(Math.round((Date.now() - Date.parse(time)) / 1000), 1);
  return s < 60 ? `${s} s ago` : `${duration(s)} ago`;
}

// An element with text and attributes; children are elements or text.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

let saidTimer = 0;
function say(text) {
  $("said").textContent = text;
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => { $("said").textContent = ""; }, 8000);
}

// --- tiers and charts

function bar(parts, label) {
  const made = element("div", { class: "bar", role: "img", "aria-label": label });
  for (const [kind, share] of parts) {
    const part = element("span", { class: kind });
    part.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
    made.append(part);
  }
  return made;
}

function showTiers(metrics) {
  const tiers = ["device", "host", "disk"].filter(
    (tier) => metrics.sum("tier_capacity_bytes", { tier }) > 0);
  $("tiers").replaceChildren(...tiers.map((tier) => {
    const capacity = metrics.sum("tier_capacity_bytes", { tier });
    const used = metrics.sum("tier_used_bytes", { tier });
    const pinned = Math.min(metrics.sum("tier_pinned_bytes", { tier }), used);
    const text = `${bytes(used)} of ${bytes(capacity)}, ${bytes(pinned)} pinned`;
    return element("div", {},
      element("div", { class: "tier-head" }, element("strong", {}, tier),
              element("span", {}, text)),
      bar([["pinned", pinned / capacity], [tier, (used - pinned) / capacity]], `${tier}: ${text}`));
  }));
}

const CHARTS = [
  { key: "firstToken", title: "First token, median (dashed: p95)", show: duration,
    second: "firstToken95" },
  { key: "hitRatio", title: "Tokens from the store", show: (x) => `${(100 * x).toFixed(1)} %`,
    top: 1 },
  { key: "answerTokens", title: "Answer tokens a second",
    show: (x) => counts.format(Math.round(x)) },
  { key: "prefillTokens", title: "Prefill tokens a second",
    show: (x) => counts.format(Math.round(x)) },
];

// Gaps where there was nothing to measure. The newest stands at the right.
function linePath(values, top) {
  let path = "", pen = "M";
  const first = POINTS_MAX - values.length;
  values.forEach((value, i) => {
    if (value === null) { pen = "M"; return; }
    path += `${pen}${((first + i) / (POINTS_MAX - 1) * 99.5).toFixed(2)} ` +
            `${(40 - 36 * Math.min(value / top, 1)).toFixed(2)}`;
    // A point alone is a short stroke.
    if (pen === "M" && (values[i + 1] ?? null) === null) path += "h0.4";
    pen = "L";
  });
  return path;
}

function showCharts() {
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  $("charts").replaceChildren(...CHARTS.map((chart) => {
    const values = state.points.map((point) => point[chart.key]);
    const seconds = chart.second ? state.points.map((point) => point[chart.second]) : [];
    const known = [...values, ...seconds].filter((value) => value !== null);
    const top = chart.top || Math.max(...known, 1e-9);
    const latest = values.filter((value) => value !== null).pop();
    const text = latest === undefined ? "-" : chart.show(latest);
    const highest = known.length ? chart.show(Math.max(...known)) : "-";
    const drawing = svg("svg", { viewBox: "0 0 100 42", preserveAspectRatio: "none", role: "img",
      "aria-label": `${chart.title}: ${text} at last, highest ${highest}` });
    drawing.append(svg("path", { class: "line", d: linePath(values, top) }));
    if (chart.second) {
      drawing.append(svg("path", { class: "line second", d: linePath(seconds, top) }));
    }
    return element("figure", {}, element("div", { class: "value" }, text), drawing,
                   element("figcaption", {}, chart.title));
  }));
}

// --- corpora

const STATE_CLASS = { ready: "good", failed: "bad", cancelled: "warn", evicted: "warn" };

let asked = Promise.resolve();  // a dialog's close event comes later than its end
async function confirm(title, text, yes, fields = []) {
  const dialog = $("confirm");
  await asked;
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm-fields").replaceChildren(...fields);
  dialog.returnValue = "no";
  dialog.showModal();
  asked = new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  await asked;
  return dialog.returnValue === "yes";
}

function choice(id, label, values) {
  const select = element("select", { id }, ...values.map((value) =>
    element("option", { value }, value)));
  return [element("label", { for: id }, label), select];
}

async function act(what, done) {
  try {
    say(done(await what()));
  } catch (error) {
    say(error.message);
  }
  await poll();
}

const path = (name, verb) => `/v1/corpora/${encodeURIComponent(name)}/${verb}`;

async function pin(corpus) {
  const fields = choice("pin-tier", "Keep it in this tier", ["disk", "host", "device"]);
  const text = "It is not evicted from there, and the room counts against your quota.";
  if (!await confirm(`Pin ${corpus.name}?`, text, "Pin", fields)) return;
  const tier = fields[1].value;
  await act(() => post(path(corpus.name, "pin"), { tier }),
            () => `${corpus.name} is pinned to ${tier}`);
}
async function unpin(corpus) {
  const text = "It may be evicted when room is needed.";
  if (!await confirm(`Unpin ${corpus.name}?`, text, "Unpin")) return;
  await act(() => post(path(corpus.name, "unpin")),
            () => `${corpus.name} is not pinned any more`);
}
async function warm(corpus) {
  const text =
    `Its ${bytes(corpus.bytes.stored)} are read into the host tier; others may leave it.`;
  if (!await confirm(`Warm ${corpus.name}?`, text, "Warm")) return;
  await act(() => post(path(corpus.name, "warm"), { to: "host" }),
            (moved) => `${corpus.name}: ${bytes(moved.bytes)} are in memory, ` +
                       duration(moved.seconds));
}
async function evict(corpus) {
  const fields = choice("evict-tier", "From this tier", ["host", "disk", "device"]);
  const text = "From memory, the next question reads the blocks again. From disk, they are gone " +
               "and must be computed again.";
  if (!await confirm(`Evict ${corpus.name}?`, text, "Evict", fields)) return;
  const from = fields[1].value;
  await act(() => post(path(corpus.name, "evict"), { from }),
            (gone) => `${corpus.name}: ${bytes(gone.bytes)} left the ${from} tier`);
}

function corpusRow(corpus) {
  const { bytes: size } = corpus;
  const share = (part) => (size.stored ? part / size.stored : 0);
  const held = ["device", "host", "disk"].filter((tier) => size[tier] > 0);
  const places = held.map((tier) => `${tier} ${bytes(size[tier])}`).join(", ") || "nowhere";
  const button = (text, does, what) => element("button", {
    class: "small", type: "button", "aria-label": `${text} ${corpus.name}`,
    "data-key": `${text} ${corpus.name}`, onclick: () => does(corpus), disabled: what === false,
  }, text);
  const ready = corpus.state === "ready";
  return element("tr", {},
    element("th", { scope: "row", "data-label": "Name" }, corpus.name),
    element("td", { "data-label": "State", class: STATE_CLASS[corpus.state] || "" }, corpus.state),
    element("td", { "data-label": "Tokens", class: "number" }, counts.format(corpus.tokens)),
    element("td", { "data-label": "Blocks" }, element("div", { class: "places" },
      ...held.map((tier) => bar([[tier, share(size[tier])]],
                                `${tier}: ${Math.round(100 * Math.min(share(size[tier]), 1))} %`)),
      places)),
    element("td", { "data-label": "Pin" }, corpus.pinned
      ? `${corpus.pinned.tier}${corpus.pinned.owner ? ` by ${corpus.pinned.owner}` : ""}` : "-"),
    element("td", { "data-label": "Last asked", class: "used" }),
    element("td", { "data-label": "Actions" }, element("div", { class: "actions" },
      button("Ask", () => { $("corpus").value = corpus.name; $("question").focus(); }, ready),
      corpus.pinned ? button("Unpin", unpin) : button("Pin", pin),
      button("Warm", warm, ready), button("Evict", evict))));
}

function showCorpora() {
  // A row that says the same stays: a click or a reader in the middle of it is not disturbed.
  const table = $("corpora"), rows = new Map();
  for (const row of table.children) rows.set(row.dataset.name, row);
  const wanted = state.corpora.map((corpus) => {
    const signature = JSON.stringify({ ...corpus, last_used_at: null });
    let row = rows.get(corpus.name);
    if (row?.dataset.signature !== signature) {
      row = corpusRow(corpus);
      row.dataset.name = corpus.name;
      row.dataset.signature = signature;
    }
    row.querySelector(".used").textContent = ago(corpus.last_used_at);
    return row;
  });
  if (wanted.length !== table.children.length ||
      wanted.some((row, i) => row !== table.children[i])) {
    const focused = document.activeElement?.dataset?.key; // what has the keyboard keeps it
    table.replaceChildren(...wanted);
    if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }
  $("no-corpora").hidden = state.corpora.length > 0;
  const ready = state.corpora.filter((corpus) => corpus.state === "ready").map((c) => c.name);
  const select = $("corpus"), chosen = select.value;
  if ([...select.options].map((option) => option.value).join("\n") !== ready.join("\n")) {
    select.replaceChildren(...ready.map((name) => element("option", { value: name }, name)));
    if (ready.includes(chosen)) select.value = chosen;
  }
  $("send").disabled = ready.length === 0 || state.asking !== null;
}

// --- jobs: each is watched by its own stream of events

function showJob(job) {
  const id = `job-${job.id}`;
  let item = $(id);
  if (!item) {
    item = element("li", { id },
      element("div", { class: "tier-head" }, element("strong", {}, job.corpus),
              element("span", { class: "numbers" })),
      element("progress", { max: 1, value: 0 }),
      element("button", { class: "small", type: "button", onclick: () => cancelJob(job.corpus),
                          "aria-label": `Cancel the job of ${job.corpus}` }, "Cancel"));
    $("jobs").append(item);
  }
  const share = job.total_tokens ? job.done_tokens / job.total_tokens : 0;
  const progress = item.querySelector("progress");
  progress.value = share;
  progress.setAttribute("aria-label", `${job.corpus}: ${Math.round(100 * share)} % prefilled`);
  item.querySelector(".numbers").textContent = `${job.state}, ` +
    `${counts.format(job.done_tokens)} of ${counts.format(job.total_tokens)} tokens` +
    (job.tokens_per_s ? `, ${counts.format(Math.round(job.tokens_per_s))} a second` : "") +
    (job.eta_s !== null && job.eta_s > 0 ? `, ${duration(job.eta_s)} to go` : "");
  const ended = !["queued", "running"].includes(job.state);
  if (ended) {
    item.remove();
    say(`${job.corpus}: ${job.state}${job.error ? `, ${job.error}` : ""}`);
  }
  $("no-jobs").hidden = $("jobs").children.length > 0;
}

async function cancelJob(name) {
  const text = "What is stored stays; the prefill can be gone on with.";
  if (!await confirm(`Cancel the prefill of ${name}?`, text, "Cancel it")) return;
  await act(() => post(path(name, "cancel")), () => `${name}: cancelled`);
}

async function watchJob(name) {
  if (state.watched.has(name)) return;
  state.watched.set(name, true);
  try {
    const response = await call(path(name, "events"));
    if (response.status !== 204) await readEvents(response, (_, data) => showJob(JSON.parse(data)));
  } catch { /* asked again with the next reading */ }
  state.watched.delete(name);
}

// --- asking

async function ask(event) {
  event.preventDefault();
  if (state.asking) return;
  const stop = new AbortController();
  [state.asking, state.answered] = [stop, false];
  $("send").disabled = true;
  $("stop").disabled = false;
  $("answer-box").hidden = false;
  $("answer").textContent = "";
  $("answer-end").textContent = "Thinking";
  $("citations").replaceChildren();
  $("usage").textContent = "";
  const body = {
    model: `${state.model}@${$("corpus").value}`, stream: true, cite: true,
    stream_options: { include_usage: true }, max_tokens: Number($("tokens").value),
    messages: [{ role: "user", content: $("question").value }],
  };
  try {
    const response = await call("/v1/chat/completions", {
      method: "POST", body: JSON.stringify(body), signal: stop.signal });
    let failure = null;
    await readEvents(response, (_, data) => {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) failure = chunk.error.message;
      else showChunk(chunk);
    });
    if (failure) throw new ApiError(failure);
  } catch (error) {
    if (error.name !== "AbortError") $("answer-end").textContent = error.message;
    else if (!state.answered) $("answer-end").textContent = "Stopped."; // else it came too late
  }
  state.asking = null;
  $("stop").disabled = true;
  $("send").disabled = false;
}

function showChunk(chunk) {
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) {
    $("answer").append(choice.delta.content);
    $("answer-end").textContent = "";
  }
  if (choice?.finish_reason) {
    state.answered = true;
    $("answer-end").textContent = { stop: "Done.", length: "Cut at the most tokens asked for." }[
      choice.finish_reason] || choice.finish_reason;
  }
  const own = chunk.corpusd;
  if (own) {
    $("citations").replaceChildren(...(own.citations || []).map((citation) => {
      const lines = citation.first_line ? `:${citation.first_line}-${citation.last_line}` : "";
      return element("li", {}, `${citation.source}${lines} `,
        element("span", { class: "weight" }, `${Math.round(100 * citation.weight)} %`));
    }));
    $("usage").textContent = `First token ${duration(own.timing.first_token_ms / 1000)}, ` +
      `${own.timing.decode_tokens_per_s.toFixed(0)} tokens a second, ` +
      `${counts.format(own.attended_tokens)} tokens attended.`;
  }
  const usage = chunk.usage;
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    $("usage").textContent += ` ${counts.format(cached)} tokens from the store, ` +
      `${counts.format(usage.completion_tokens)} answered.`;
  }
}

// --- the loop

function showHealth(ready) {
  const health = $("health");
  const word = ready.status === "ok" ? "healthy" : ready.degraded.join("; ") || ready.status;
  if (health.textContent !== word) health.textContent = word; // read out when it changes alone
  health.className = `health ${ready.status === "ok" ? "good" : "warn"}`;
}

async function readMetrics() {
  let text;
  try { text = await (await call("/metrics")).text(); } catch { return; }
  const now = new Metrics(text, Date.now());
  showTiers(now);
  if (state.lastMetrics) {
    state.points.push(Rates(state.lastMetrics, now));
    if (state.points.length > POINTS_MAX) state.points.shift();
  }
  state.lastMetrics = now;
  showCharts();
}

let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  try {
    if (!state.model) {
      const props = await getJson("/props");
      state.model = props.model;
      $("model").textContent = `${props.model}, ${props.build_info}`;
    }
    state.corpora = (await getJson("/v1/corpora")).data;
    showCorpora();
    for (const corpus of state.corpora) {
      if (["queued", "prefilling"].includes(corpus.state)) watchJob(corpus.name);
    }
    await readMetrics();
    showHealth(await getJson("/readyz"));
  } catch (error) {
    $("health").textContent = error instanceof ApiError ? error.message : "no answer from corpusd";
    $("health").className = "health bad";
  }
  polling = false;
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").setAttribute("aria-pressed", String(dark));
}

$("theme").addEventListener("click", () => {
  const theme = $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  localStorage.setItem("corpusd-theme", theme);
  setTheme(theme);
});
setTheme(localStorage.getItem("corpusd-theme"));
$("question-form").addEventListener("submit", ask);
$("stop").addEventListener("click", () => state.asking?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) state.asking?.abort();
  if (event.key === "Enter" && event.ctrlKey && event.target === $("question")) {
    $("question-form").requestSubmit();
  }
});
showCharts();
poll();
setInterval(() => { if (!document.hidden) poll(); }, POLL_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
