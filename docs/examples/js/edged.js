/*
 * A client of edged for apps on the device. No dependencies; ES2017 with fetch, so that it runs on the engines of
 * televisions since about 2018. As a classic script it defines `Edged`; CommonJS gets it by require.
 *
 *     const catalog = new Edged.Client("http://127.0.0.1:8484").dataset("catalog");
 *     const title = await catalog.get("titles", "1994/Pulp_Fiction");
 *     const page = await catalog.query("titles", { where: { year: 1994 }, limit: 20 });
 *     const following = catalog.follow({ since: page.version, onChange: apply, onReset: readEverythingAgain });
 */
(function (root, make) {
  if (typeof module === "object" && module.exports) module.exports = make();
  else root.Edged = make();
})(typeof self !== "undefined" ? self : this, function () {
  "use strict";

  const MOST_KEYS = 500; // of one batch, as the daemon takes them
  const MOST_URL = 24 * 1024; // characters; the daemon takes heads of 32 KiB
  const WAIT_S = 30; // how long the daemon holds a poll for news
  const FIRST_PAUSE_MS = 250;
  const LONGEST_PAUSE_MS = 30 * 1000;
  const TIMEOUT_MS = 10 * 1000;
  const MOST_ENTRIES = 500; // answers that the cache remembers

  /** A refusal (RFC 9457), or an edged that cannot be reached: status 0. retryAfterS: seconds, null where not said. */
  class EdgedError extends Error {
    constructor(status, detail, retryAfterS) {
      super(detail);
      this.name = "EdgedError";
      this.status = status;
      this.retryAfterS = retryAfterS === undefined ? null : retryAfterS;
    }
  }

  /** Answers by URL, the most lately used last; at most `most`. storage: getItem and setItem, as localStorage has. */
  class Cache {
    constructor(most, storage, name) {
      this.most = most;
      this.storage = storage;
      this.name = name;
      this.entries = new Map();
      this.saving = null;
      if (storage) this.load();
    }

    load() {
      try {
        const text = this.storage.getItem(this.name);
        const found = text ? JSON.parse(text) : [];
        if (Array.isArray(found)) this.entries = new Map(found.slice(-this.most));
      } catch (fault) {
        this.entries = new Map(); // unreadable, or storage is forbidden: as if nothing had been kept
      }
    }

    get(url) {
      const entry = this.entries.get(url);
      if (entry !== undefined) {
        this.entries.delete(url);
        this.entries.set(url, entry);
      }
      return entry;
    }

    put(url, entry) {
      this.entries.delete(url);
      this.entries.set(url, entry);
      if (this.entries.size > this.most) this.entries.delete(this.entries.keys().next().value);
      // Flash wears out: what came within a second is written together.
      if (this.storage && this.saving === null) this.saving = setTimeout(() => this.save(), 1000);
    }

    save() {
      if (this.saving !== null) clearTimeout(this.saving);
      this.saving = null;
      if (!this.storage) return;
      try {
        this.storage.setItem(this.name, JSON.stringify(Array.from(this.entries)));
      } catch (fault) {
        // The quota is full: half as much is kept from now on, and written the next time.
        this.most = Math.max(1, this.most >> 1);
        while (this.entries.size > this.most) this.entries.delete(this.entries.keys().next().value);
      }
    }
  }

  /**
   * One edged. options: token (a bearer token), storage (such as localStorage: answers outlive the app, and are given
   * while edged cannot be reached), entries (how many), timeoutMs, fetch, onState(state, before).
   * `state` is "unknown", "fresh", "stale", "expired" or "unreachable".
   */
  class Client {
    constructor(base, options) {
      const given = options || {};
      this.base = base.replace(/\/+$/, "");
      this.token = given.token || "";
      this.timeoutMs = given.timeoutMs || TIMEOUT_MS;
      this.fetch = given.fetch || ((url, wanted) => fetch(url, wanted));
      this.cache = new Cache(given.entries || MOST_ENTRIES, given.storage || null, "edged " + this.base);
      this.onState = given.onState || (() => undefined);
      this.state = "unknown";
    }

    dataset(name) {
      return new Dataset(this, name);
    }

    /** Write what is remembered to the storage now; it is written within a second anyhow. */
    save() {
      this.cache.save();
    }

    told(state) {
      const before = this.state;
      if (!state || state === before) return;
      this.state = state;
      this.onState(state, before);
    }

    /** One request, with a deadline. Resolves to the answer, whatever its status; rejects with EdgedError, status 0. */
    async ask(url, headers, timeoutMs, stopped) {
      const wanted = Object.assign({ Accept: "application/json" }, headers);
      if (this.token) wanted.Authorization = "Bearer " + this.token;
      const abort = typeof AbortController === "function" ? new AbortController() : null;
      if (abort && stopped) stopped.push(() => abort.abort());
      let timer;
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => {
          if (abort) abort.abort();
          reject(new EdgedError(0, "no answer within " + timeoutMs + " ms"));
        }, timeoutMs);
      });
      const asked = this.fetch(url, { headers: wanted, signal: abort ? abort.signal : undefined }).then(
        async (answer) => ({ status: answer.status, headers: answer.headers, text: await answer.text() })
      );
      try {
        const answer = await Promise.race([asked, late]);
        this.told(answer.headers.get("Edged-State"));
        return answer;
      } catch (fault) {
        asked.catch(() => undefined); // its rejection has been told by now
        this.told("unreachable");
        throw fault instanceof EdgedError ? fault : new EdgedError(0, String((fault && fault.message) || fault));
      } finally {
        clearTimeout(timer);
      }
    }

    /**
     * A document by its path: {value, version, stale}. stale: edged cannot be reached, this is what it said last.
     * Rejects with EdgedError.
     */
    async read(path) {
      const url = this.base + path;
      const known = this.cache.get(url);
      let answer;
      try {
        answer = await this.ask(url, known ? { "If-None-Match": known.etag } : {}, this.timeoutMs);
      } catch (fault) {
        if (known) return { value: JSON.parse(known.text), version: known.version, stale: true };
        throw fault;
      }
      const version = Number(answer.headers.get("Edged-Version") || 0);
      if (answer.status === 304 && known) {
        known.version = version;
        return { value: JSON.parse(known.text), version: version, stale: false };
      }
      if (answer.status !== 200) throw refusal(answer);
      const etag = answer.headers.get("ETag");
      // The text and not the value, which is the app's to change.
      if (etag) this.cache.put(url, { etag: etag, version: version, text: answer.text });
      return { value: JSON.parse(answer.text), version: version, stale: false };
    }
  }

  class Dataset {
    constructor(client, name) {
      this.client = client;
      this.path = "/v1/" + encodeURIComponent(name);
    }

    /** What the dataset is: version, state, collections with counts, slices, views, indexes. */
    async describe() {
      return (await this.client.read(this.path)).value;
    }

    /** One record's value; null where there is none (any more). shape: view, fields, expand. */
    async get(collection, key, shape) {
      try {
        const path = this.path + "/" + encodeURIComponent(collection) + "/" + encodeURIComponent(key);
        return (await this.client.read(path + query(shape))).value;
      } catch (fault) {
        if (fault instanceof EdgedError && (fault.status === 404 || fault.status === 410)) return null;
        throw fault;
      }
    }

    /**
     * Many records at once: {items: [{key, value}], version, stale}, in the order of `keys`, value null where missing.
     * As many keys as one likes; `version` is that of the oldest answer where they took several requests.
     */
    async batch(collection, keys, shape) {
      const path = this.path + "/" + encodeURIComponent(collection);
      const parts = [];
      let part = [];
      let size = 0;
      for (const key of keys) {
        const word = encodeURIComponent(key);
        if (part.length === MOST_KEYS || (part.length && size + word.length + 1 > MOST_URL)) {
          parts.push(part);
          part = [];
          size = 0;
        }
        part.push(word);
        size += word.length + 1;
      }
      if (part.length) parts.push(part);
      const found = { items: [], version: 0, stale: false };
      for (const words of parts) {
        const rest = query(shape).replace("?", "&");
        const read = await this.client.read(path + "?keys=" + words.join(",") + rest);
        found.items = found.items.concat(read.value.items);
        found.version = found.version ? Math.min(found.version, read.version) : read.version;
        found.stale = found.stale || read.stale;
      }
      return found;
    }

    /**
     * One page: {items: [{key, value}], version, next, stale}. wanted: prefix, after, limit, q, where ({field: value},
     * a list for any of its values, {gte, gt, lte, lt} for a range), and every other parameter by its own name.
     */
    async query(collection, wanted) {
      const read = await this.client.read(this.path + "/" + encodeURIComponent(collection) + query(wanted));
      return Object.assign({}, read.value, { stale: read.stale });
    }

    /** Every page of a query, one after the other, handed to `onPage(items, page)`, which may return false to stop. */
    async pages(collection, wanted, onPage) {
      let after = wanted && wanted.after;
      for (;;) {
        const page = await this.query(collection, Object.assign({}, wanted, after ? { after: after } : {}));
        if ((await onPage(page.items, page)) === false || page.next === null || page.next === undefined) return;
        after = page.next;
      }
    }

    /**
     * Follow what changes from version `since` on (the present one if left out). Calls, in this order and each awaited:
     * onChange({collection, key, value | deleted, version}) for each record, then onVersion(version); onReset(version)
     * where `since` is too old to be followed: read everything again. onError(fault) tells of each failed attempt; the
     * next one is made after a pause. wanted: collection, view, fields, since. Returns {stop(), version}.
     */
    follow(wanted) {
      const since = wanted.since === undefined ? null : wanted.since;
      const following = { version: since, since: since, stopped: false, wake: [] };
      following.stop = () => {
        following.stopped = true;
        following.wake.splice(0).forEach((wake) => wake());
      };
      this.followOn(following, wanted);
      return following;
    }

    async followOn(following, wanted) {
      let pauseMs = 0;
      while (!following.stopped) {
        try {
          if (following.since === null) {
            const now = await this.describe();
            following.version = now.version;
            following.since = place(now.version, now.time);
          }
          await this.poll(following, wanted);
          pauseMs = 0;
        } catch (fault) {
          if (following.stopped) return;
          if (wanted.onError) wanted.onError(fault);
          const least = fault instanceof EdgedError && fault.retryAfterS ? 1000 * fault.retryAfterS : FIRST_PAUSE_MS;
          pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(least, 2 * pauseMs));
          // With jitter, so that the apps of a device do not all come back at once.
          await sleep(pauseMs * (0.5 + Math.random() / 2), following.wake);
        }
        following.wake.length = 0;
      }
    }

    /** One held request, and everything that came by it. */
    async poll(following, wanted) {
      const shape = { collection: wanted.collection, view: wanted.view, fields: wanted.fields, expand: wanted.expand };
      const asked = query(Object.assign({ since: following.since, wait: WAIT_S }, shape));
      const url = this.client.base + this.path + "/changes" + asked;
      const limit = 1000 * WAIT_S + this.client.timeoutMs;
      const answer = await this.client.ask(url, { Accept: "application/x-ndjson" }, limit, following.wake);
      if (answer.status !== 200) throw refusal(answer);
      const version = Number(answer.headers.get("Edged-Version"));
      const lines = answer.text.split("\n").filter((line) => line !== "");
      for (const line of lines) {
        if (following.stopped) return;
        const change = JSON.parse(line);
        if (change.reset) {
          if (wanted.onReset) await wanted.onReset(change.version);
        } else if (wanted.onChange) {
          await wanted.onChange(change);
        }
      }
      // Only now: who stops, or fails, in the middle of a version is given it again.
      const moved = version !== following.version;
      following.version = version;
      following.since = place(version, answer.headers.get("Edged-Time"));
      if (moved && wanted.onVersion) await wanted.onVersion(version);
    }
  }

  /** What was read: a version, and the time where records come and go by it. */
  function place(version, time) {
    return time ? version + "-" + time : version;
  }

  function refusal(answer) {
    let detail = "status " + answer.status;
    try {
      const problem = JSON.parse(answer.text);
      detail = problem.detail || problem.title || detail;
    } catch (fault) {
      // no problem document: the status says what there is to say
    }
    const after = parseInt(answer.headers.get("Retry-After") || "", 10);
    return new EdgedError(answer.status, detail, isNaN(after) ? null : after);
  }

  /** The query string of what is wanted, "" for nothing. Lists are joined by commas, but in `where`. */
  function query(wanted) {
    const words = [];
    const add = (name, value) => words.push(encodeURIComponent(name) + "=" + encodeURIComponent(String(value)));
    Object.keys(wanted || {}).forEach((name) => {
      const value = wanted[name];
      if (value === undefined || value === null) return;
      if (name === "where") {
        Object.keys(value).forEach((field) => conditions("where." + field, value[field], add));
      } else if (Array.isArray(value)) {
        words.push(encodeURIComponent(name) + "=" + value.map((item) => encodeURIComponent(String(item))).join(","));
      } else {
        add(name, value);
      }
    });
    return words.length ? "?" + words.join("&") : "";
  }

  function conditions(name, value, add) {
    if (Array.isArray(value)) value.forEach((item) => add(name, item));
    else if (value !== null && typeof value === "object") {
      Object.keys(value).forEach((bound) => add(name + "." + bound, value[bound]));
    } else add(name, value);
  }

  function sleep(ms, wake) {
    return new Promise((go) => {
      const timer = setTimeout(go, ms);
      wake.push(() => {
        clearTimeout(timer);
        go();
      });
    });
  }

  return { Client: Client, EdgedError: EdgedError };
});
