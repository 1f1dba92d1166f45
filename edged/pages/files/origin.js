import { ask, at, bars, bytes, drawUse, el, fill, key, moment, number, pager, panel, span, table } from "/pages/shared.js";

let names = "", shown = null, live = 0;
const parameters = (values) => new URLSearchParams(values).toString();

function drawDatasets(status) {
  const rows = Object.entries(status.datasets);
  fill("datasets", rows.length === 0 ? el("p", { class: "soft" }, "Nothing is published yet.") : table([
    { title: "Dataset", of: ([name]) => name }, { title: "Version", number: true, of: ([, one]) => number(one.version) },
    { title: "Head", of: ([, one]) => el("span", { class: one.state === "fresh" ? "good" : "bad" }, one.last_error || `${one.state}, signed ${span(one.age_s)} ago, ${bytes(one.head_bytes)}`) },
    { title: "Rollout", of: ([, one]) => (one.offered ? `version ${one.offered} for ${one.permille / 10}%` : "–") },
    { title: "Wait for news", number: true, of: ([, one]) => number(one.waiting || 0) },
    { title: "Polls", number: true, of: ([, one]) => number(one.polls || 0) },
    { title: "Records", of: ([, one]) => Object.entries(one.slices || {}).map(([name, count]) => `${name} ${number(count)}`).join(", ") },
  ], rows));
  const known = rows.map(([name]) => name).join("\n");
  if (known !== names) {
    names = known;
    at("dataset").replaceChildren(...rows.map(([name]) => el("option", { value: name }, name)));
    show();
  }
  const version = status.datasets[shown]?.version;
  if (version && version !== live) { live = version; drawHistory(); }
}

async function drawFleet() {
  if (!shown) return;
  try {
    const found = (await ask(`/fleet?${parameters({ dataset: shown })}`)).datasets[shown];
    const strange = found.strange.length ? el("p", { class: "bad" }, `States that nobody published: ${found.strange.map((one) => `version ${one.version} (${one.digest}) on ${one.clients}`).join(", ")}; look at these devices first.`) : null;
    fill("fleet", found.versions.length === 0 ? el("p", { class: "soft" }, "No device has polled since this origin was started.") : [
      table([
        { title: "Version", number: true, of: (one) => number(one.version) }, { title: "Behind", number: true, of: (one) => el("span", { class: one.lag > 20 ? "warn" : null }, number(one.lag)) },
        { title: "Clients", number: true, of: (one) => number(one.clients) }, { title: "Share", number: true, of: (one) => `${(100 * one.share).toFixed(1)}%` },
      ], found.versions.slice(0, 20)), strange,
      el("p", { class: "soft" }, `${number(found.clients)} clients, told apart by address, within the last hour${found.sample < 1 ? `, from a sample of ${(100 * found.sample).toFixed(1)}%` : ""}.`)]);
    drawStuck(found);
    const time = (seconds) => (seconds === null ? "not yet" : span(seconds));
    fill("spread", found.spreads.length === 0 ? el("p", { class: "soft" }, "Nothing yet.") : table([
      { title: "Version", number: true, of: (one) => number(one.version) }, { title: "Published", of: (one) => moment(one.since) },
      ...["50", "90", "99"].map((share) => ({ title: `${share}% after`, of: (one) => time(one.seconds[share]) })),
    ], found.spreads));
  } catch (fault) { fill("fleet", el("p", { class: "bad" }, fault.message)); }
}

// The words of polls (docs/sync.md), for people.
const REASONS = {
  content: "lacks collections that it requires, or has too few records", trust: "not signed as it has to be", expired: "no head that has not run out",
  chain: "did not come to what was signed, or no path leads there", form: "not of the form that it should have", disk: "its disk cannot be read or written", pinned: "held there by somebody",
};

function drawStuck(found) {
  const refusals = found.refusals.length ? table([
    { title: "Stay at", number: true, of: (one) => number(one.version) }, { title: "Why", of: (one) => REASONS[one.reason] || one.reason },
    { title: "Clients", number: true, of: (one) => number(one.clients) },
  ], found.refusals, "What devices say of themselves") : el("p", { class: "good" }, "No device says that it refuses a version, or is held at one.");
  const stuck = found.stuck.length ? table([
    { title: "Hold", number: true, of: (one) => number(one.version) }, { title: "Digest", of: (one) => one.digest }, { title: "Why", of: (one) => REASONS[one.reason] || "not told" },
    { title: "Clients", number: true, of: (one) => number(one.clients) }, { title: "A later one is out since", of: (one) => moment(one.since) },
    { title: "Last poll", of: (one) => moment(one.seen) }, { title: "Some of them", of: (one) => one.names.join(" ") },
  ], found.stuck, "Lack a version that is out for an hour") : el("p", { class: "good" }, "Every client that polls has what is out for an hour.");
  fill("stuck", refusals, stuck, el("p", { class: "soft" }, "Clients are named by a hash of their address, with a key that this origin forgets when it ends."));
}

async function drawFleetUse() {
  if (!shown) return;
  try {
    const use = (await ask("/usage")).datasets[shown];
    drawUse(use);
    if (!use.days.length) fill("growth", el("p", { class: "soft" }, "No device has told of use; it does where [usage] report is on."));
  } catch (fault) { fill("growth", el("p", { class: "bad" }, fault.message)); }
}

async function drawHistory() {
  try {
    const { versions, left_out: left } = await ask(`/log?${parameters({ dataset: shown })}`);
    const newest = versions.slice(-60);
    const size = (one) => Object.values(one.slices).reduce((sum, item) => sum + (item.hop_bytes || 0), 0);
    fill("chart", bars("Bytes of each version's hops", newest.map((one) => ({ title: `version ${one.version}: ${bytes(size(one))}`, parts: [{ class: "one", value: size(one) }] })), bytes), key([["one", `bytes of hops, versions ${newest[0]?.version} to ${newest.at(-1)?.version}`]]));
    const rows = versions.slice().reverse();
    pager("history", [
      { title: "Version", number: true, of: (one) => number(one.version) }, { title: "When", of: (one) => one.time }, { title: "How", of: (one) => one.kind },
      { title: "Added", number: true, of: (one) => number(one.added) }, { title: "Changed", number: true, of: (one) => number(one.changed) }, { title: "Removed", number: true, of: (one) => number(one.removed) },
      { title: "Hops", number: true, of: (one) => bytes(size(one)) }, { title: "Why", of: (one) => one.message || "–" },
      { title: "Compare", of: (one) => (one.version > versions[0].version ? el("button", { type: "button", onclick: () => compare(one.version - 1, one.version) }, "With the one before") : "–") },
    ], async (after) => { const begin = after || 0; return { rows: rows.slice(begin, begin + 12), next: begin + 12 < rows.length ? begin + 12 : null }; });
    if (left) at("history").append(el("p", { class: "soft" }, `${left} older versions are left out.`));
    const last = versions.at(-1);
    if (last) {
      at("low").value = Math.max(versions[0].version, last.version - 1);
      at("high").value = at("version").value = last.version;
      at("collection").replaceChildren(...Object.keys(last.collections).map((name) => el("option", { value: name }, name)));
    }
  } catch (fault) { fill("history", el("p", { class: "bad" }, fault.message)); }
}

async function compare(low, high) {
  at("low").value = low; at("high").value = high;
  at("diff-form").scrollIntoView({ block: "nearest" });
  try {
    const { costs, from } = await ask(`/costs?${parameters({ dataset: shown, from: low, to: high })}`);
    fill("costs", costs.length === 0 ? el("p", { class: "soft" }, "No bytes.") : table([
      { title: "Collection", of: (one) => one.collection }, { title: "Field", of: (one) => one.field },
      { title: "Changes", number: true, of: (one) => number(one.changes) }, { title: "Bytes", number: true, of: (one) => bytes(one.bytes) },
    ], costs.slice(0, 30), from > low ? `Of versions ${from} to ${high}.` : null));
  } catch (fault) { fill("costs", el("p", { class: "bad" }, fault.message)); }
  pager("diff", [
    { title: "Record", of: (one) => `${one.collection}/${one.key}` }, { title: "Change", of: (one) => one.change }, { title: "Fields", of: (one) => one.fields.join(", ") || "–" },
    { title: "Before", of: (one) => (one.before === null ? "–" : el("del", {}, el("pre", { tabindex: "0" }, chosen(one.before, one.fields)))) },
    { title: "After", of: (one) => (one.after === null ? "–" : el("ins", {}, el("pre", { tabindex: "0" }, chosen(one.after, one.fields)))) },
  ], async (after) => {
    const found = await ask(`/diff?${parameters({ dataset: shown, from: low, to: high, after: after || "" })}`);
    return { rows: found.items, next: found.next };
  });
}

// Only the fields that differ, where the value is whole and has some.
function chosen(text, fields) {
  try {
    const value = JSON.parse(text);
    if (fields.length === 0 || value === null || typeof value !== "object") return text;
    return JSON.stringify(Object.fromEntries(fields.filter((name) => name in value).map((name) => [name, value[name]])), null, 1);
  } catch { return text; }
}

function show() {
  shown = at("dataset").value || null;
  live = 0;
  drawFleet();
  drawFleetUse();
}

at("dataset").addEventListener("change", show);
at("dataset-form").addEventListener("submit", (event) => event.preventDefault());
at("diff-form").addEventListener("submit", (event) => { event.preventDefault(); compare(Number(at("low").value), Number(at("high").value)); });
at("records-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const version = at("version").value, collection = at("collection").value;
  pager("records", [{ title: "Key", of: (one) => one.key }, { title: "Value", of: (one) => el("pre", { tabindex: "0" }, one.value) }], async (after) => {
    const found = await ask(`/records?${parameters({ dataset: shown, version, collection, after: after || "" })}`);
    return { rows: found.items, next: found.next };
  });
});

const source = new EventSource("/events");
source.addEventListener("message", (event) => {
  const status = JSON.parse(event.data);
  fill("live", document.createTextNode("live"));
  fill("release", document.createTextNode(`${status.version}, up for ${span(status.uptime_s)}, ${number(status.requests_served)} requests, ${bytes(status.sent_bytes)} sent`));
  panel("datasets", () => drawDatasets(status));
});
source.addEventListener("error", () => fill("live", el("span", { class: "bad" }, "the origin does not answer; trying again …")));
setInterval(drawFleet, 5000);
setInterval(drawFleetUse, 60000);
