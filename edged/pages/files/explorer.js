import { at, el, fill, number, pager, table } from "/pages/shared.js";

const SAMPLE = 100, PAGE = 50, SHOWN = 20000;
// host: where apps ask, for the code that is copied: here, but at an origin, whose records are asked of a device.
let token = "", described = null, chosen = null, host = location.origin;

// Slashes too: a browser would take `.` and `..` between them out of the path.
const encode = encodeURIComponent;
const headers = (accept) => ({ ...(accept ? { Accept: accept } : {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) });

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", headers: headers("application/json") });
  const data = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status}: ${data.detail}`);
  return data;
}

function say(id, fault) {
  fill(id, el("p", { class: "bad", role: "alert" }, fault.message));
}

async function showDatasets() {
  try {
    const { datasets, origin, device } = await get("/v1");
    if (origin) atOrigin(device);
    const parts = await Promise.all(datasets.map(async (one) => {
      try { return collections(await get(`/v1/${encode(one.dataset)}`)); } catch (fault) {
        return el("div", {}, el("h3", {}, one.dataset), el("p", { class: "soft" }, fault.message));
      }
    }));
    fill("datasets", parts.length ? parts : el("p", { class: "soft" }, "No dataset is here for this app."));
  } catch (fault) { say("datasets", fault); }
}

// An origin shows what it has published, by key; a device answers more.
function atOrigin(device) {
  host = device;
  at("token-form").hidden = at("more").hidden = true;
  at("back").hidden = false;
  fill("live", document.createTextNode("as published: records by key are shown from here, and the code is for a device, which answers conditions, orders, search and views too"));
  code();
}

function collections(dataset) {
  const rows = Object.entries(dataset.collections);
  return el("div", {}, el("h3", {}, `${dataset.dataset}, version ${number(dataset.version)}, ${dataset.state}`), table([
    { title: "Collection", of: ([name]) => el("button", { type: "button", onclick: () => choose(dataset, name) }, name) },
    { title: "Records", number: true, of: ([, count]) => number(count) },
    { title: "Indexes", of: ([name]) => (dataset.indexes[name] || []).join(", ") || "–" },
    { title: "Orders", of: ([name]) => (dataset.orders[name] || []).join(", ") || "–" },
    { title: "Search", of: ([name]) => (dataset.text[name] || []).join(", ") || "–" },
    { title: "References", of: ([name]) => Object.entries(dataset.refs[name] || {}).map(([path, target]) => `${path} → ${target}`).join(", ") || "–" },
  ], rows), el("p", { class: "soft" }, `Views: ${dataset.views.join(", ") || "none"}. Slices: ${Object.keys(dataset.slices).join(", ")}.`));
}

const kindOf = (value) => (value === null ? "null" : Array.isArray(value) ? "list" : typeof value === "number" ? (Number.isInteger(value) ? "integer" : "number") : typeof value === "object" ? "object" : typeof value === "boolean" ? "true or false" : "text");

// path -> { kinds, count, example }, of a sample of records.
function fieldsOf(values) {
  const found = new Map();
  const look = (value, path) => {
    if (path) {
      const known = found.get(path) || { kinds: new Set(), count: 0, example: value };
      known.kinds.add(kindOf(value));
      known.count += 1;
      found.set(path, known);
    }
    if (Array.isArray(value)) { if (value.length && typeof value[0] === "object" && value[0] !== null) look(value[0], `${path}[]`); }
    else if (value !== null && typeof value === "object") for (const [name, item] of Object.entries(value)) look(item, path ? `${path}.${name}` : name);
  };
  for (const value of values) look(value, "");
  return found;
}

async function choose(dataset, collection) {
  described = dataset; chosen = collection;
  const base = `/v1/${encode(dataset.dataset)}/${encode(collection)}`;
  fill("of", document.createTextNode(`of ${dataset.dataset}/${collection}`));
  try {
    const { items } = await get(`${base}?limit=${SAMPLE}`);
    const rows = [...fieldsOf(items.map((item) => item.value))];
    fill("fields", table([
      { title: "Field", of: ([path]) => path }, { title: "Type", of: ([, one]) => [...one.kinds].sort().join(" or ") },
      { title: "In", number: true, of: ([, one]) => `${one.count} of ${items.length}` },
      { title: "Example", of: ([, one]) => JSON.stringify(one.example).slice(0, 80) },
    ], rows));
    suggest(base, items, rows);
  } catch (fault) { say("fields", fault); }
  declared(base);
  pager("records", [
    { title: "Key", of: (item) => el("button", { type: "button", onclick: () => send(`${base}/${encode(item.key)}`) }, item.key) },
    { title: "Value", of: (item) => JSON.stringify(item.value).slice(0, 160) },
  ], async (after) => {
    const page = await get(`${base}?limit=${PAGE}${after === null ? "" : `&after=${encodeURIComponent(after)}`}`);
    return { rows: page.items, next: page.next };
  });
}

function declared(base) {
  const of = (table) => described[table][chosen] || [];
  const rows = [
    ...of("indexes").map((field) => [field, `where.${field}=VALUE`, "index"]),
    ...of("orders").flatMap((field) => [[field, `order=${field}`, "order"], [field, `where.${field}.gte=VALUE`, "range"]]),
    ...(of("intervals").length ? [[of("intervals").join(", "), "at=now", "interval"]] : []),
    ...(of("text").length ? [[of("text").join(", "), "q=WORDS", "search"]] : []),
    ...Object.keys(described.refs[chosen] || {}).map((path) => [path, `expand=${path}`, "reference"]),
    ...described.views.map((name) => ["–", `view=${name}`, "view"]),
  ];
  fill("declared", rows.length ? table([
    { title: "By", of: (row) => row[2] }, { title: "Field", of: (row) => row[0] },
    { title: "Parameter", of: (row) => el("button", { type: "button", onclick: () => { at("target").value = `${base}?${row[1]}`; at("target").focus(); code(); } }, row[1]) },
  ], rows) : el("p", { class: "soft" }, "By key alone: no index, order, interval, text or reference is declared."));
}

function suggest(base, items, rows) {
  const first = items[0], known = new Map(rows);
  const targets = first ? [`${base}/${encode(first.key)}`, `${base}?keys=${items.slice(0, 3).map((item) => encode(item.key)).join(",")}`] : [];
  targets.push(`${base}?limit=10`, `/v1/${encode(described.dataset)}/changes?since=${Math.max(0, described.version - 1)}`);
  for (const field of described.indexes[chosen] || []) {
    const example = known.get(field)?.example, value = Array.isArray(example) ? example[0] : example;
    if (value !== undefined && value !== null && typeof value !== "object") targets.push(`${base}?where.${field}=${encodeURIComponent(value)}&count=1`);
  }
  fill("suggested", targets.map((target) => el("button", { type: "button", onclick: () => send(target) }, target)));
  at("target").value = targets[0];
  code();
}

async function send(target) {
  at("target").value = target;
  code();
  const began = performance.now();
  try {
    const answer = await fetch(target, { cache: "no-store", headers: headers(at("accept").value) });
    const text = await answer.text(), took = performance.now() - began;
    let body = text.slice(0, SHOWN);
    try { body = JSON.stringify(JSON.parse(text), null, 2).slice(0, SHOWN); } catch { /* not one JSON document: shown as it came */ }
    const told = ["ETag", "Edged-Version", "Edged-State", "Age", "Cache-Status", "Retry-After", "Edged-Warning"].map((name) => [name, answer.headers.get(name)]).filter(([, value]) => value !== null);
    fill("answer", el("p", {}, el("strong", { class: answer.ok ? "good" : "bad" }, `${answer.status} ${answer.statusText}`), ` in ${took.toFixed(1)} ms, ${number(text.length)} characters`),
      told.length ? table([{ title: "Field", of: (row) => row[0] }, { title: "Value", of: (row) => row[1] }], told) : null, el("pre", { tabindex: "0", "aria-label": "The answer" }, body));
  } catch (fault) { say("answer", fault); }
}

function texts() {
  const url = host + at("target").value, accept = at("accept").value;
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  return {
    curl: `curl ${quoted(url)} -H ${quoted(`Accept: ${accept}`)}${token ? ' -H "Authorization: Bearer $TOKEN"' : ""}`,
    javascript: `const answer = await fetch(${JSON.stringify(url)}, {\n  headers: { Accept: ${JSON.stringify(accept)}${token ? ", Authorization: `Bearer ${token}`" : ""} },\n});\nconst found = await answer.${accept.includes("ndjson") ? "text" : "json"}();`,
    python: `import urllib.request, json\n\nrequest = urllib.request.Request(${JSON.stringify(url)}, headers={"Accept": ${JSON.stringify(accept)}${token ? ', "Authorization": f"Bearer {token}"' : ""}})\nwith urllib.request.urlopen(request) as answer:\n    found = ${accept.includes("ndjson") ? "[json.loads(line) for line in answer]" : "json.load(answer)"}`,
  };
}

function code() {
  fill("code", document.createTextNode(Object.values(texts()).join("\n\n")));
}

for (const name of ["curl", "javascript", "python"]) {
  at(`copy-${name}`).addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(texts()[name]);
      fill("copied", document.createTextNode(`copied for ${name}`));
    } catch {
      fill("copied", document.createTextNode("the browser does not let this page copy; select the text below"));
    }
  });
}
at("try-form").addEventListener("submit", (event) => { event.preventDefault(); send(at("target").value); });
at("target").addEventListener("input", code);
at("accept").addEventListener("change", code);
at("token-form").addEventListener("submit", (event) => { event.preventDefault(); token = at("token").value; code(); showDatasets(); });
showDatasets();
code();
