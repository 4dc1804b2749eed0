// Who is who: names by client id, and the coloured initial that stands for a person. The server tells names only of those
// who are connected, so what was learned once is kept, over a reload of the page as well.

import { el } from "./dom.js";
import { Remembered } from "./storage.js";

const MOST = 5000;
const MOST_STORED = 500;
const COLOURS = 8;
// Names are asked for one by one: so many at once, and one more each so often. Who was asked for is not asked for again soon.
const MOST_LOOKUPS = 30;
const LOOKUP_MS = 1000;
const LOOK_AGAIN_MS = 60_000;
const MOST_LOOKED_UP = 500;
// What the page calls others than people.
const TAKEN = /^\s*(server|everyone|someone)\b/i;

/** The names of people, and which ids were one's own. */
export class People {
  /** @type {Map<string, {name: string | null, user: string | null}>} the latest stand last */
  #known = new Map();
  #own = new Set();
  #ownName = null;
  #lookedUp = new Map();
  #lookups = MOST_LOOKUPS;
  #lookupsAt;
  #storage;
  #now;

  /**
   * @param {string} key under which the session's storage keeps what was learned
   * @param {() => number} [now] milliseconds
   */
  constructor(key, now = () => performance.now()) {
    this.#now = now;
    this.#lookupsAt = now();
    this.#storage = new Remembered(() => sessionStorage, key);
    const kept = this.#storage.get();
    for (const [id, name] of kept?.names ?? []) this.#known.set(String(id), { name: String(name), user: null });
    for (const id of kept?.own ?? []) this.#own.add(String(id));
    addEventListener("pagehide", () => {
      const names = [...this.#known].slice(-MOST_STORED).flatMap(([id, { name }]) => (name ? [[id, name]] : []));
      this.#storage.set({ names, own: [...this.#own].slice(-MOST_STORED) });
    });
  }

  /** Knows nobody any more. */
  forget() {
    for (const kept of [this.#known, this.#own, this.#lookedUp]) kept.clear();
    this.#ownName = null;
    this.#storage.set(null);
  }

  /** How many ids it knows somebody by. */
  get size() {
    return this.#known.size;
  }

  /** Takes note of who has this id; tells whether that is news. */
  learn({ id, name, user }) {
    const known = this.#known.get(id);
    const now = { name: name || known?.name || null, user: user || known?.user || null };
    if ((now.name === null && now.user === null) || (known?.name === now.name && known?.user === now.user)) return false;
    // The latest stand last; the first ones go.
    this.#known.delete(id);
    this.#known.set(id, now);
    keepNewest(this.#known, MOST);
    return true;
  }

  /** Asks the server for the name of somebody who is in none of our rooms; tells whether that gave any. Never rejects. */
  async lookUp(client, id) {
    if (this.#known.get(id)?.name || !this.#mayLookUp(id)) return false;
    try {
      // A page of one that begins with this id.
      const { clients } = await client.listClients({ limit: 1, after: idBefore(id) });
      return clients[0]?.id === id && this.learn(clients[0]);
    } catch {
      // Not allowed or not connected: the id stands for the name.
      return false;
    }
  }

  #mayLookUp(id) {
    const now = this.#now();
    if (now - (this.#lookedUp.get(id) ?? -Infinity) < LOOK_AGAIN_MS) return false;
    this.#lookups = Math.min(MOST_LOOKUPS, this.#lookups + (now - this.#lookupsAt) / LOOKUP_MS);
    this.#lookupsAt = now;
    if (this.#lookups < 1) return false;
    this.#lookups -= 1;
    this.#lookedUp.delete(id);
    this.#lookedUp.set(id, now);
    keepNewest(this.#lookedUp, MOST_LOOKED_UP);
    return true;
  }

  /** From now on this id is one's own, beside those that were. */
  learnOwn(id, name) {
    this.#own.add(id);
    keepNewest(this.#own, MOST_STORED);
    this.#ownName = name;
    this.learn({ id, name });
  }

  isOwn(id) {
    return this.#own.has(id);
  }

  user(id) {
    return this.#known.get(id)?.user ?? null;
  }

  /** The name, else the user, else the beginning of the id: the server does not name those who have left. */
  name(id) {
    if (id === undefined || id === null) return "Server";
    const { name, user } = this.#known.get(id) ?? {};
    return name ?? user ?? `Someone (${short(id)})`;
  }

  /**
   * What has to stand beside a name so that it does not deceive, or "": the user whom the server knows, or the beginning of
   * the id, where it is one's own name, or one that means somebody else.
   * @param {string | undefined} id
   * @param {boolean} [isWornByTwo] whether others who are here have that name
   */
  mark(id, isWornByTwo = false) {
    const { name, user } = this.#known.get(id) ?? {};
    if (!name || this.isOwn(id)) return "";
    if (user) return user === name ? "" : user;
    return isWornByTwo || name === this.#ownName || TAKEN.test(name) ? short(id) : "";
  }
}

const short = (id) => id.slice(0, 8);

/** @param {Map<string, unknown> | Set<string>} kept */
function keepNewest(kept, most) {
  for (const oldest of kept.keys()) {
    if (kept.size <= most) return;
    kept.delete(oldest);
  }
}

/** The greatest id below this one; `undefined` for the least one. */
export function idBefore(id) {
  const value = BigInt(`0x${id.replaceAll("-", "")}`);
  if (value === 0n) return undefined;
  const digits = (value - 1n).toString(16).padStart(32, "0");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** The first letter of a name on a colour of its own. Beside it stands the name: it says nothing to a screen reader. */
export function avatar(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 9973;
  const [initial = "?"] = name.trim();
  return el("span", { class: `avatar colour-${hash % COLOURS}`, "aria-hidden": "true" }, initial.toUpperCase());
}
