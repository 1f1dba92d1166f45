// What an app does with edged.js, driven by tests: args are the base URL, then whatever a scenario takes. One JSON
// document is printed by each `tell`.
"use strict";

const scenarios = {
  async reads(Edged, tell, base) {
    const states = [];
    const client = new Edged.Client(base, { onState: (state) => states.push(state) });
    const catalog = client.dataset("catalog");
    const keys = Array.from({ length: 400 }, (_, n) => 1980 + (n % 40) + "/Title_" + String(n).padStart(5, "0"));
    const batch = await catalog.batch("titles", keys.concat(["none", "a/b,c"]), { fields: ["title"] });
    const pages = [];
    await catalog.pages("titles", { prefix: "1981/", limit: 4 }, (items) => {
      pages.push(items.length);
    });
    const one = await catalog.get("titles", keys[0]);
    one.title = "changed by the app";
    const again = await catalog.get("titles", keys[0]);
    let refused = null;
    try {
      await catalog.query("titles", { order: "no such order", nonsense: 1 });
    } catch (fault) {
      refused = [fault instanceof Edged.EdgedError, fault.status, fault.message];
    }
    tell({
      described: (await catalog.describe()).collections,
      again: again.title,
      missing: await catalog.get("titles", "1999/None"),
      batch: [batch.items.length, batch.items[7], batch.items[400].value, batch.items[401].key],
      pages: pages,
      where: (await catalog.query("titles", { where: { year: 1983 }, limit: 3 })).items.length,
      refused: refused,
      states: states,
    });
  },

  async asks(Edged, tell, base) {
    const catalog = new Edged.Client(base).dataset("catalog");
    const keys = (page) => page.items.map((item) => item.key);
    const any = await catalog.query("titles", { where: { year: [1983, 1985] }, order: "-year", limit: 12, count: 1 });
    const within = await catalog.query("titles", { where: { year: { gte: 1981, lt: 1983 } }, order: "year", facets: ["year"] });
    const groups = await catalog.query("titles", { where: { year: [1983, 1985] }, group: "year", limit: 1 });
    const paged = [];
    await catalog.pages("titles", { where: { year: { gte: 2018 } }, order: "-year", limit: 7 }, (items) => {
      paged.push(items.length);
    });
    const row = await catalog.get("rows", "home", { expand: ["items"] });
    tell({
      any: [any.total, keys(any).slice(9, 11)],
      facets: within.facets,
      groups: groups.items.map((item) => [item.key, item.group]),
      paged: paged,
      row: row.items,
      warned: (await catalog.query("titles", { limit: 1, fields: ["titel"] })).warnings,
    });
  },

  async follows(Edged, tell, base) {
    const catalog = new Edged.Client(base).dataset("catalog");
    const seen = [];
    const following = catalog.follow({
      collection: "titles",
      onChange: (change) => seen.push([change.key, change.deleted === true]),
      onVersion: (version) => {
        tell({ version: version, seen: seen.splice(0) });
        if (version === 3) following.stop();
      },
      onError: (fault) => tell({ error: fault.status }),
    });
    while (following.version === null) await new Promise((go) => setTimeout(go, 5));
    tell({ begun: following.version });
  },

  async keeps(Edged, tell, base, kept) {
    const stored = { text: kept || null };
    const storage = { getItem: () => stored.text, setItem: (_, text) => (stored.text = text) };
    const client = new Edged.Client(base, { storage: storage, timeoutMs: 2000 });
    const read = await client.read("/v1/catalog/titles/1980%2FTitle_00000");
    client.save();
    tell({ title: read.value.title, stale: read.stale, state: client.state, stored: stored.text });
  },

  async resets(Edged, tell, base) {
    const catalog = new Edged.Client(base).dataset("catalog");
    const following = catalog.follow({
      since: 999999,
      onReset: (version) => tell({ reset: version }),
      onVersion: () => following.stop(),
    });
  },
};

const [library, name, ...rest] = process.argv.slice(2);
scenarios[name](require(library), (document) => console.log(JSON.stringify(document)), ...rest).catch((fault) => {
  console.error(fault);
  process.exit(1);
});
