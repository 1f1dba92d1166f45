import { ask, at, bars, bytes, drawUse, el, fill, key, lines, moment, number, panel, percent, span, table, values } from "/pages/shared.js";

const SAMPLES = 120;
const samples = [];
let names = "";

function drawDatasets(status) {
  const now = status.time;
  const rows = Object.entries(status.datasets);
  const state = (item) => el("span", { class: item.state === "fresh" ? "good" : item.state === "stale" ? "warn" : "bad" }, item.state);
  fill("datasets", rows.length === 0 ? el("p", { class: "soft" }, "No dataset is configured.") : table([
    { title: "Dataset", of: ([name]) => name },
    { title: "Version", number: true, of: ([, item]) => number(item.version) + (item.pinned ? ` (pinned at ${item.pinned})` : "") },
    { title: "State", of: ([, item]) => state(item) },
    { title: "Signed", of: ([, item]) => (item.as_of ? `${span(Math.max(0, now - item.as_of))} ago` : "never") },
    { title: "Slices", of: ([, item]) => Object.entries(item.slices).map(([name, version]) => `${name} ${version}`).join(", ") || "–" },
    { title: "Origin", of: ([, item]) => (item.origin ? `${item.origin}${item.connected ? "" : " (not reached)"}` : "–") },
    { title: "Received", number: true, of: ([, item]) => bytes(item.bytes_received) },
    { title: "Update", of: ([, item]) => (item.steps ? `step ${item.steps_done + 1} of ${item.steps}` : "–") },
  ], rows));
  const known = rows.map(([name]) => name).join("\n");
  if (known !== names) {
    names = known;
    at("pin-dataset").replaceChildren(...rows.map(([name]) => el("option", { value: name }, name)));
  }
}

function drawUpdates(status) {
  const parts = [];
  for (const [name, item] of Object.entries(status.datasets)) {
    const updates = item.updates;
    if (!updates.length) { parts.push(el("h3", {}, name), el("p", { class: "soft" }, "None since the start.")); continue; }
    const total = updates.reduce((sum, one) => sum + one.bytes_received, 0);
    const whole = (one) => one.full_bytes || item.full_bytes;
    const wholes = updates.reduce((sum, one) => sum + whole(one), 0);
    const how = (one) => Object.values(one.kinds).join(", ") || "nothing to fetch";
    const columns = updates.map((one) => ({
      title: `${moment(one.time)}: version ${one.before} to ${one.version}, ${bytes(one.bytes_received)} in ${one.seconds} s (${how(one)})`,
      parts: [{ class: one.before ? "one" : "two", value: one.bytes_received }],
    }));
    const last = updates.at(-1);
    parts.push(el("h3", {}, name), bars(`Bytes of the last ${updates.length} updates of ${name}`, columns, bytes),
      key([["one", "updates"], ...(updates.some((one) => !one.before) ? [["two", "the first, fetched whole"]] : [])]),
      el("p", {}, `The last of the ${updates.length} updates took ${bytes(last.bytes_received)}; ${wholes
        ? `to fetch all of it takes ${bytes(whole(last))}. Together they took ${bytes(total)}, ${percent(total, wholes)} of what as many full downloads take.`
        : `what is held takes ${bytes(item.disk_bytes)} on disk. Together they took ${bytes(total)}.`}`),
      values(`updates ${name}`, `The ${updates.length} updates of ${name}`, [
        { title: "When", of: (one) => moment(one.time) }, { title: "Version", number: true, of: (one) => `${one.before} to ${one.version}` },
        { title: "How", of: how }, { title: "Bytes", number: true, of: (one) => bytes(one.bytes_received) },
        { title: "Of a full download", number: true, of: (one) => percent(one.bytes_received, whole(one)) },
        { title: "Seconds", number: true, of: (one) => one.seconds },
      ], updates.slice().reverse()));
  }
  fill("updates", parts.length ? parts : el("p", { class: "soft" }, "No dataset."));
}

function drawRequests(status) {
  samples.push({ time: status.time, requests: status.requests_served });
  if (samples.length > SAMPLES) samples.shift();
  const rates = samples.slice(1).map((one, index) => Math.max(0, one.requests - samples[index].requests) / Math.max(0.2, one.time - samples[index].time));
  fill("requests", el("div", { class: "facts" },
    el("div", {}, el("span", { class: "big" }, number(Math.round(rates.at(-1) || 0))), el("span", { class: "soft" }, "requests a second")),
    el("div", {}, el("span", { class: "big" }, number(status.requests_served)), el("span", { class: "soft" }, "since the start"))),
  lines("Requests a second in the last minutes", [{ name: "requests", class: "one", values: rates.length ? rates : [0] }], (most) => `${number(Math.round(most))}/s`),
  values("requests", "Requests a second, the newest first", [
    { title: "Until", of: (one) => moment(one.time) }, { title: "A second", number: true, of: (one) => one.rate.toFixed(1) },
  ], rates.map((rate, index) => ({ rate, time: samples[index + 1].time })).reverse()));
}

const seconds = (value) => (value === null ? "–" : value < 0.001 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${(value * 1000).toFixed(1)} ms` : `${value.toFixed(1)} s`);

function drawLatency(minutes, slow) {
  const since = el("p", { class: "soft" }, slow ? `Since the start: half ${slow.p50}, 99 of 100 ${slow.p99}. Of answers that had to be made; those from memory take microseconds.` : "");
  if (!minutes.some((one) => one.p99_s !== null)) { fill("latency", el("p", { class: "soft" }, "No answer had to be made in the last hours."), since); return; }
  fill("latency", lines(`How long answers took in the last ${minutes.length} minutes`, [
    { name: "99 of 100", class: "two", values: minutes.map((one) => one.p99_s) }, { name: "half", class: "one", values: minutes.map((one) => one.p50_s) },
  ], seconds), key([["one", "half took less"], ["two", "99 of 100 took less"]]), since,
  values("latency", "Latency by minute", [
    { title: "Until", of: (one) => moment(one.time) }, { title: "Requests", number: true, of: (one) => number(one.requests) },
    { title: "Half under", number: true, of: (one) => seconds(one.p50_s) }, { title: "99 of 100 under", number: true, of: (one) => seconds(one.p99_s) },
  ], minutes.slice().reverse()));
}

function drawShares(status) {
  const serving = status.serving, made = Math.max(0, status.requests_served - serving.remembered);
  const rows = [["from memory, byte for byte", serving.remembered, status.requests_served], ["made from the replica or by the proxy", made, status.requests_served]];
  if (status.proxy) {
    const proxy = status.proxy, all = proxy.hits + proxy.stale + proxy.misses;
    rows.push(["proxy: stored answers", proxy.hits, all], ["proxy: stale ones, its service being away", proxy.stale, all], ["proxy: fetched", proxy.misses, all]);
  }
  fill("shares", table([
    { title: "Answers", of: (row) => row[0] }, { title: "Count", number: true, of: (row) => number(row[1]) },
    { title: "Share", number: true, of: (row) => percent(row[1], row[2]) },
  ], rows));
}

function drawFlash(status, flash) {
  const rows = Object.entries(status.datasets), budget = status.flash_budget;
  const sizes = table([
    { title: "Dataset", of: ([name]) => name },
    { title: "Written, ever", number: true, of: ([, item]) => bytes(item.flash_bytes_written) },
    { title: "Since the start", number: true, of: ([, item]) => bytes(item.flash_bytes_since_start) },
    { title: "On disk", number: true, of: ([, item]) => bytes(item.disk_bytes) },
  ], rows);
  const told = el("p", { class: "soft" }, budget ? `The budget is ${bytes(budget)} a day: merging waits beyond it, updates never do.` : "Merging writes as it needs (flash_budget is not set).");
  if (!flash.length) { fill("flash", el("p", { class: "soft" }, "Nothing was written on a day that is known."), told, sizes); return; }
  const columns = flash.map((one) => ({ title: `${one.day}: ${bytes(one.bytes)}`, parts: [{ class: budget && one.bytes > budget ? "two" : "one", value: one.bytes }] }));
  fill("flash", bars("Bytes written to flash, by day", columns, bytes, budget),
    el("p", {}, `${bytes(flash.at(-1).bytes)} on ${flash.at(-1).day}${budget ? `, ${percent(flash.at(-1).bytes, budget)} of the budget` : ""}.`), told,
    values("flash", "Bytes by day", [
      { title: "Day", of: (one) => one.day }, { title: "Written", number: true, of: (one) => bytes(one.bytes) },
      { title: "Of the budget", number: true, of: (one) => (budget ? percent(one.bytes, budget) : "–") },
    ], flash.slice().reverse()), sizes);
}

function drawCertificates(status) {
  const found = status.certificates;
  fill("certificates", found.length === 0 ? el("p", { class: "soft" }, "None: every listener speaks clear text.") : table([
    { title: "File", of: (one) => one.file }, { title: "Names", of: (one) => one.names.join(", ") },
    { title: "Expires", of: (one) => el("span", { class: one.expires_at - status.time < 14 * 86400 ? "bad" : "good" }, `${moment(one.expires_at)} (${span(one.expires_at - status.time)})`) },
  ], found));
}

// Of the runbook, whose page is here too: the lines of the log that each of its rows is about, as [id, patterns].
const runbook = [];

async function readRunbook() {
  const text = await (await fetch("/pages/runbook.html")).text();
  const escaped = (part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  for (const row of new DOMParser().parseFromString(text, "text/html").querySelectorAll("tr[id^=lines-]")) {
    const patterns = [...row.querySelectorAll("th code")].map((one) => one.textContent.split(/…|DATASET|\bN\b/).map((part) => part.trim()).filter(Boolean));
    runbook.push([row.id, patterns.filter((parts) => parts.join("").length >= (/[:;]/.test(parts.join("")) ? 6 : 10)).map((parts) => new RegExp(parts.map(escaped).join(".*"), "s"))]);
  }
}

export const sectionOf = (text, otherwise) => runbook.find(([, patterns]) => patterns.some((one) => one.test(text)))?.[0] || otherwise;

function drawErrors(status, told) {
  const rows = Object.entries(status.datasets).flatMap(([name, item]) => item.errors.map((one) => ({ ...one, where: name, now: one.text === item.last_error, section: sectionOf(one.text, one.kind || "EdgedFailing") })));
  const known = rows.map((one) => one.text);
  for (const line of told) {
    if (known.some((text) => line.text.includes(text))) continue;
    rows.push({ ...line, where: line.level, now: line.level === "error", section: sectionOf(line.text, "lines") });
  }
  rows.sort((one, other) => other.time - one.time);
  fill("errors", rows.length === 0 ? el("p", { class: "good" }, "None since the start.") : table([
    { title: "When", of: (one) => moment(one.time) }, { title: "Where", of: (one) => one.where },
    { title: "What", of: (one) => el("span", { class: one.now ? "bad" : null }, one.text + (one.level ? (one.count > 1 ? ` (${number(one.count)} times)` : "") : one.now ? "" : " (over)")) },
    { title: "What to do", of: (one) => el("a", { href: `/pages/runbook.html#${one.section}`, "aria-label": `Runbook on: ${one.text.slice(0, 80)}` }, "Runbook") },
  ], rows.slice(0, 40)));
}

let recent = { minutes: [], lines: [] }, flash = [];

function draw(status) {
  fill("release", document.createTextNode(`${status.version}, up for ${span(status.uptime_s)}, ${bytes(status.memory_bytes)} of memory`));
  const sets = Object.entries(status.datasets);
  panel("datasets", () => drawDatasets(status));
  panel("updates", () => drawUpdates(status), sets.map(([name, item]) => [name, item.updates, item.full_bytes, item.disk_bytes]));
  panel("requests", () => drawRequests(status));
  panel("latency", () => drawLatency(recent.minutes, status.serving.seconds), [recent.minutes, status.serving.seconds]);
  panel("shares", () => drawShares(status));
  panel("flash", () => drawFlash(status, flash), [flash, status.flash_budget, sets.map(([name, item]) => [name, item.flash_bytes_written, item.disk_bytes])]);
  panel("certificates", () => drawCertificates(status));
  panel("errors", () => drawErrors(status, recent.lines), [recent.lines, runbook.length, sets.map(([name, item]) => [name, item.errors, item.last_error])]);
}

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("message", (event) => { fill("live", document.createTextNode("live")); draw(JSON.parse(event.data)); });
  source.addEventListener("error", () => fill("live", el("span", { class: "bad" }, "edged does not answer; trying again …")));
}

async function hold(path, body, words) {
  if (!window.confirm(words)) return;
  try {
    const done = await ask(path, { method: "POST", headers: { "Edged-Control": "1", "Content-Type": "application/json" }, body: JSON.stringify(body) });
    fill("pin-said", document.createTextNode(done.pinned ? `${done.dataset} is held at version ${done.pinned}` : `${done.dataset} follows its origin`));
  } catch (fault) {
    fill("pin-said", el("span", { class: "bad" }, fault.message));
  }
}

at("pin-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const dataset = at("pin-dataset").value, version = Number(at("pin-version").value);
  hold("/pin", { dataset, version }, `Hold ${dataset} at version ${version} until somebody lets it go?`);
});
at("unpin").addEventListener("click", () => {
  const dataset = at("pin-dataset").value;
  hold("/unpin", { dataset }, `Let ${dataset} follow its origin again?`);
});

async function drawUsage() {
  try {
    const use = await ask("/usage");
    flash = use.flash;
    drawUse(use);
  } catch (fault) {
    for (const id of ["growth", "audience"]) fill(id, el("p", { class: "soft" }, fault.message));
  }
}

// What the next event is drawn with; while none comes, the page says so.
async function look() {
  try { recent = await ask("/recent"); } catch { recent = { ...recent }; }
}

readRunbook().catch(() => undefined);
look().then(listen);
drawUsage();
setInterval(drawUsage, 15000);
setInterval(look, 5000);
