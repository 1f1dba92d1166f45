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

export function fill(id, ...children) {
  at(id).replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
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

// series: [{ name, class, values }], all of one length; show: a value in words.
export function lines(label, series, show = number) {
  const width = 600, height = 160, most = Math.max(1e-9, ...series.flatMap((one) => one.values));
  const drawn = frame(label, show(most), width, height);
  for (const one of series) {
    const step = width / Math.max(1, one.values.length - 1);
    const points = one.values.map((value, index) => `${(index * step).toFixed(1)},${(height - 17 - ((height - 32) * value) / most).toFixed(1)}`);
    drawn.append(svg("polyline", { class: one.class, points: points.join(" ") }));
  }
  return drawn;
}

// columns: [{ title, parts: [{ class, value }] }], stacked; the title is read out and shown at a pointer.
export function bars(label, columns, show = number) {
  const width = 600, height = 160;
  const most = Math.max(1e-9, ...columns.map((column) => column.parts.reduce((sum, part) => sum + part.value, 0)));
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
  return drawn;
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

export function panel(id, draw) {
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
  fill("growth", bars("Requests a day", columns), el("p", { class: "soft" }, `${days[0].day} to ${days.at(-1).day}`));
  const shares = days.map((day) => {
    const all = Math.max(1, day.requests);
    const parts = AUDIENCES.map(([name, kind]) => ({ class: kind, value: (100 * (day.audiences[name] || 0)) / all }));
    return { title: `${day.day}: ${AUDIENCES.map(([name]) => `${name || "other"} ${percent(day.audiences[name] || 0, all)}`).join(", ")}`, parts };
  });
  fill("audience", bars("Share of requests by audience, by day", shares, (most) => `${Math.round(most)}%`), key(AUDIENCES.map(([name, kind]) => [kind, name || "other"])));
}
