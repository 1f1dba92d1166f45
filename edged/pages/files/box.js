import { ask, at, bars, bytes, drawUse, el, fill, lines, moment, number, panel, percent, span, table } from "/pages/shared.js";

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
    const columns = updates.map((one) => ({
      title: `${moment(one.time)}: version ${one.before} to ${one.version}, ${bytes(one.bytes_received)} in ${one.seconds} s (${Object.values(one.kinds).join(", ") || "nothing to fetch"})`,
      parts: [{ class: "one", value: one.bytes_received }],
    }));
    parts.push(el("h3", {}, name), bars(`Bytes of the last ${updates.length} updates of ${name}`, columns, bytes),
      el("p", { class: "soft" }, `${updates.length} updates took ${bytes(total)}; what is held takes ${bytes(item.disk_bytes)} on disk.`));
  }
  fill("updates", parts.length ? parts : el("p", { class: "soft" }, "No dataset."));
}

function drawRequests(status) {
  samples.push({ time: status.time, requests: status.requests_served });
  if (samples.length > SAMPLES) samples.shift();
  const rates = samples.slice(1).map((one, index) => Math.max(0, one.requests - samples[index].requests) / Math.max(0.2, one.time - samples[index].time));
  const slow = status.serving.seconds;
  fill("requests", el("div", { class: "facts" },
    el("div", {}, el("span", { class: "big" }, number(Math.round(rates.at(-1) || 0))), el("span", { class: "soft" }, "requests a second")),
    el("div", {}, el("span", { class: "big" }, number(status.requests_served)), el("span", { class: "soft" }, "since the start")),
    slow ? el("div", {}, el("span", { class: "big" }, slow.p50), el("span", { class: "soft" }, "median, not from memory")) : null,
    slow ? el("div", {}, el("span", { class: "big" }, slow.p99), el("span", { class: "soft" }, "99 of 100")) : null),
  lines("Requests a second in the last minutes", [{ name: "requests", class: "one", values: rates.length ? rates : [0] }], (most) => `${number(Math.round(most))}/s`));
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

function drawFlash(status) {
  const rows = Object.entries(status.datasets).map(([name, item]) => [name, item]);
  const perDay = (item) => (item.flash_bytes_since_start / Math.max(3600, status.uptime_s)) * 86400;
  fill("flash", table([
    { title: "Dataset", of: ([name]) => name },
    { title: "Written, ever", number: true, of: ([, item]) => bytes(item.flash_bytes_written) },
    { title: "A day, at this rate", number: true, of: ([, item]) => bytes(perDay(item)) },
    { title: "On disk", number: true, of: ([, item]) => bytes(item.disk_bytes) },
  ], rows), el("p", { class: "soft" }, status.flash_budget ? `Merging may write ${bytes(status.flash_budget)} a day.` : "Merging writes as it needs (flash_budget is not set)."));
}

function drawCertificates(status) {
  const found = status.certificates;
  fill("certificates", found.length === 0 ? el("p", { class: "soft" }, "None: every listener speaks clear text.") : table([
    { title: "File", of: (one) => one.file }, { title: "Names", of: (one) => one.names.join(", ") },
    { title: "Expires", of: (one) => el("span", { class: one.expires_at - status.time < 14 * 86400 ? "bad" : "good" }, `${moment(one.expires_at)} (${span(one.expires_at - status.time)})`) },
  ], found));
}

function drawErrors(status) {
  const rows = Object.entries(status.datasets).flatMap(([name, item]) => item.errors.map((one) => [name, one, one.text === item.last_error]));
  rows.sort((one, other) => other[1].time - one[1].time);
  fill("errors", rows.length === 0 ? el("p", { class: "good" }, "None since the start.") : table([
    { title: "When", of: ([, one]) => moment(one.time) }, { title: "Dataset", of: ([name]) => name },
    { title: "What, and what to do", of: ([, one, now]) => el("span", { class: now ? "bad" : null }, one.text + (now ? "" : " (over)")) },
  ], rows.slice(0, 30)));
}

function draw(status) {
  fill("release", document.createTextNode(`${status.version}, up for ${span(status.uptime_s)}, ${bytes(status.memory_bytes)} of memory`));
  panel("datasets", () => drawDatasets(status));
  panel("updates", () => drawUpdates(status));
  panel("requests", () => drawRequests(status));
  panel("shares", () => drawShares(status));
  panel("flash", () => drawFlash(status));
  panel("certificates", () => drawCertificates(status));
  panel("errors", () => drawErrors(status));
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
  try { drawUse(await ask("/usage")); } catch (fault) {
    for (const id of ["growth", "audience"]) fill(id, el("p", { class: "soft" }, fault.message));
  }
}

listen();
drawUsage();
setInterval(drawUsage, 15000);
