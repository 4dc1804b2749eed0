// Who is who: names by client id, and the coloured initial that stands for a person. The server tells names only of those
// who are connected, so what was learned once is kept, over a reload of the page as well.

import { el } from "./dom.js";
import { Remembered } from "./storage.js";

const MOST = 5000;
const MOST_STORED = 500;
const COLOURS = 8;
// The most ids whose names are asked for one by one; more than that is no conversation.
const MOST_LOOKUPS = 200;

/** The names of people, and which ids were one's own. */
export class People {
  #names = new Map();
  #users = new Map();
  #own = new Set();
  #lookedUp = new Set();
  #storage;

  /** @param {string} key under which the session's storage keeps what was learned */
  constructor(key) {
    this.#storage = new Remembered(() => sessionStorage, key);
    const kept = this.#storage.get();
    for (const [id, name] of kept?.names ?? []) this.#names.set(String(id), String(name));
    for (const id of kept?.own ?? []) this.#own.add(String(id));
    addEventListener("pagehide", () => {
      const names = [...this.#names].slice(-MOST_STORED);
      this.#storage.set({ names, own: [...this.#own].slice(-MOST_STORED) });
    });
  }

  /** Knows nobody any more. */
  forget() {
    for (const kept of [this.#names, this.#users, this.#own, this.#lookedUp]) kept.clear();
    this.#storage.set(null);
  }

  /** Takes note of who has this id; tells whether that is news. */
  learn({ id, name, user }) {
    if (user) this.#users.set(id, user);
    if (!name || this.#names.get(id) === name) return false;
    // The latest stand last; the first ones go.
    this.#names.delete(id);
    this.#names.set(id, name);
    for (const oldest of this.#names.keys()) {
      if (this.#names.size <= MOST) break;
      this.#names.delete(oldest);
      this.#users.delete(oldest);
    }
    return true;
  }

  /** Asks the server for the name of somebody who is in none of our rooms; tells whether that gave any. Never rejects. */
  async lookUp(client, id) {
    if (this.#names.has(id) || this.#lookedUp.has(id) || this.#lookedUp.size >= MOST_LOOKUPS) return false;
    this.#lookedUp.add(id);
    try {
      // A page of one that begins with this id.
      const { clients } = await client.listClients({ limit: 1, after: idBefore(id) });
      return clients[0]?.id === id && this.learn(clients[0]);
    } catch {
      // Not allowed or not connected: the id stands for the name.
      return false;
    }
  }

  /** From now on this id is one's own, beside those that were. */
  learnOwn(id, name) {
    this.#own.add(id);
    this.learn({ id, name });
  }

  isOwn(id) {
    return this.#own.has(id);
  }

  user(id) {
    return this.#users.get(id) ?? null;
  }

  /** The name, or the beginning of the id of who has left before anybody told it. */
  name(id) {
    if (id === undefined || id === null) return "Server";
    return this.#names.get(id) ?? `Guest ${id.slice(0, 8)}`;
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
