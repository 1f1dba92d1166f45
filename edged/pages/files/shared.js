// What all pages share. Whatever comes from data becomes text nodes, never markup.
const SVG = "http://www.w3.org/2000/svg";

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

export const at = (id) => document.getElementById(id);

const signOf = (one) => `${one.tagName} ${one.getAttribute("href") || ""} ${one.textContent}`;

// What stays is not moved, and what takes the place of a focused control takes its focus: pages are live, and who goes
// through one by keyboard is not to be thrown back to its top each second.
export function fill(id, ...children) {
  const place = at(id), wanted = children.flat(2).filter((child) => child !== null && child !== undefined);
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const staying = new Set(wanted);
  for (const node of [...place.childNodes]) if (!staying.has(node)) node.remove();
  let next = place.firstChild;
  for (const node of wanted) {
    if (node === next) next = next.nextSibling;
    else place.insertBefore(node instanceof Node ? node : document.createTextNode(String(node)), next);
  }
  if (focused && !focused.isConnected) {
    const sign = signOf(focused);
    [...place.querySelectorAll("a, button, summary, [tabindex]")].find((one) => signOf(one) === sign)?.focus({ preventScroll: true });
  }
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (Math.abs(count) < 1000) return `${unit === "B" ? count : count.toFixed(1)} ${unit}`;
    count /= 1000;
  }
  return `${count.toFixed(1)} TB`;
}

export const number = (value) => new Intl.NumberFormat("en").format(value);
export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}%` : "–");

export function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function moment(seconds) {
  return seconds ? new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19) + "Z" : "never";
}

export function table(columns, rows, caption) {
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.number ? "number" : null }, column.title)));
  const body = rows.map((row) => el("tr", {}, columns.map((column) => el("td", { class: column.number ? "number" : null }, column.of(row)))));
  return el("table", {}, caption ? el("caption", { class: "soft" }, caption) : null, el("thead", {}, head), el("tbody", {}, body));
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function frame(label, most, width, height) {
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  drawn.append(svg("line", { class: "axis", x1: 0, y1: height - 16, x2: width, y2: height - 16 }));
  drawn.append(svg("text", { x: 0, y: 10 }, most));
  return drawn;
}

// series: [{ name, class, values }], all of one length, null where there is none; show: a value in words.
export function lines(label, series, show = number) {
  const width = 600, height = 160, most = Math.max(1e-9, ...series.flatMap((one) => one.values));
  const drawn = frame(label, show(most), width, height);
  for (const one of series) {
    const step = width / Math.max(1, one.values.length - 1);
    let points = [];
    const draw = () => {
      if (points.length === 1) drawn.append(svg("circle", { class: one.class, cx: points[0].split(",")[0], cy: points[0].split(",")[1], r: 3 }));
      else if (points.length) drawn.append(svg("polyline", { class: one.class, points: points.join(" ") }));
      points = [];
    };
    one.values.forEach((value, index) => {
      if (value === null) draw();
      else points.push(`${(index * step).toFixed(1)},${(height - 17 - ((height - 32) * value) / most).toFixed(1)}`);
    });
    draw();
  }
  return drawn;
}

// columns: [{ title, parts: [{ class, value }] }], stacked; the title is shown at a pointer; bound: a value drawn as a line across.
export function bars(label, columns, show = number, bound = 0) {
  const width = 600, height = 160;
  const most = Math.max(1e-9, bound, ...columns.map((column) => column.parts.reduce((sum, part) => sum + part.value, 0)));
  const drawn = frame(label, show(most), width, height), step = width / Math.max(columns.length, 8);
  columns.forEach((column, index) => {
    let top = height - 17;
    const group = svg("g", {}, svg("title", {}, document.createTextNode(column.title)));
    for (const part of column.parts) {
      const size = ((height - 32) * part.value) / most;
      top -= size;
      group.append(svg("rect", { class: part.class, x: index * step + 1, y: top, width: Math.max(step - 2, 1), height: Math.max(size, part.value ? 1 : 0) }));
    }
    drawn.append(group);
  });
  if (bound) {
    const y = height - 17 - ((height - 32) * bound) / most;
    drawn.append(svg("line", { class: "bound", x1: 0, y1: y, x2: width, y2: y }));
  }
  return drawn;
}

const folded = new Map();

// The values of a chart as a table, folded away: a chart is nothing to a screen reader, and has no keys. One for each name,
// which stays open while what is in it changes.
export function values(name, summary, columns, rows) {
  if (!folded.has(name)) folded.set(name, el("details", {}, el("summary", {}, summary), el("div", { class: "values" })));
  const one = folded.get(name);
  if (one.firstChild.textContent !== summary) one.firstChild.textContent = summary;
  one.lastChild.replaceChildren(table(columns, rows));
  return one;
}

export function key(entries) {
  return el("div", { class: "key" }, entries.map(([kind, text]) => el("span", {}, el("i", { class: kind }), text)));
}

export async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  const text = await answer.text();
  let data = null;
  try { data = JSON.parse(text); } catch { data = { detail: text.slice(0, 300) }; }
  if (!answer.ok) throw new Error(data.detail || answer.statusText);
  return data;
}

// Many rows a page at a time: load(after) gives { rows, next }.
export function pager(id, columns, load) {
  const before = [];
  let here = null;
  async function show(after) {
    try {
      const { rows, next } = await load(after);
      here = after;
      const back = el("button", { type: "button", disabled: before.length === 0, onclick: () => show(before.pop()) }, "Back");
      const on = el("button", { type: "button", disabled: next === null, onclick: () => { before.push(here); show(next); } }, "Next");
      fill(id, rows.length ? table(columns, rows) : el("p", { class: "soft" }, "Nothing here."), el("div", { class: "row" }, back, on));
    } catch (fault) {
      fill(id, el("p", { class: "bad", role: "alert" }, fault.message));
    }
  }
  return show(null);
}

const drawnOf = new Map();

// of: what is drawn; the same again is not.
export function panel(id, draw, of = undefined) {
  const sign = of === undefined ? undefined : JSON.stringify(of);
  if (sign !== undefined && drawnOf.get(id) === sign) return;
  drawnOf.set(id, sign);
  try { draw(); } catch (fault) { fill(id, el("p", { class: "bad" }, fault.message)); }
}

const AUDIENCES = [["internal", "one"], ["partner", "two"], ["public", "three"], ["", "four"]];

// The two charts of what was used: a document of /usage.
export function drawUse(use) {
  const days = use.days;
  if (!days.length) {
    for (const id of ["growth", "audience"]) fill(id, el("p", { class: "soft" }, "Nothing is counted yet."));
    return;
  }
  const columns = days.map((day) => ({ title: `${day.day}: ${number(day.requests)} requests`, parts: [{ class: "one", value: day.requests }] }));
  const newest = days.slice().reverse();
  fill("growth", bars("Requests a day", columns), el("p", { class: "soft" }, `${days[0].day} to ${days.at(-1).day}`),
    values("growth", "Requests by day", [
      { title: "Day", of: (day) => day.day }, { title: "Requests", number: true, of: (day) => number(day.requests) },
      { title: "From memory", number: true, of: (day) => percent(day.remembered, day.requests) }, { title: "Sent", number: true, of: (day) => bytes(day.bytes) },
    ], newest));
  const shares = days.map((day) => {
    const all = Math.max(1, day.requests);
    const parts = AUDIENCES.map(([name, kind]) => ({ class: kind, value: (100 * (day.audiences[name] || 0)) / all }));
    return { title: `${day.day}: ${AUDIENCES.map(([name]) => `${name || "other"} ${percent(day.audiences[name] || 0, all)}`).join(", ")}`, parts };
  });
  fill("audience", bars("Share of requests by audience, by day", shares, (most) => `${Math.round(most)}%`), key(AUDIENCES.map(([name, kind]) => [kind, name || "other"])),
    values("audience", "Shares by day", [{ title: "Day", of: (day) => day.day }, ...AUDIENCES.map(([name]) => (
      { title: name || "other", number: true, of: (day) => percent(day.audiences[name] || 0, day.requests) }))], newest));
}
