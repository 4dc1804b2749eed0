// Names by client ID and by user, and the avatar with a person's initial. Messages name their sender if the server has
// verified the user; of the others it knows only the names of connected clients. So the page remembers those it has
// seen, across reloads too.

import { el } from "./dom.js";
import { personOf } from "./roster.js";
import { Remembered } from "./storage.js";

const MAX_KNOWN = 5000;
const MAX_STORED = 500;
const COLOURS = 8;
// Names are looked up one by one: a burst of this many, then one per interval. A client is not looked up again soon.
const MAX_LOOKUPS = 30;
const LOOKUP_MS = 1000;
const LOOK_AGAIN_MS = 60_000;
const MAX_LOOKED_UP = 500;
// Names that the page uses for senders that are not people.
const TAKEN = /^\s*(server|everyone|someone)\b/i;

/** The names of people, and the client IDs of the user. A person is named by a client ID, or by `personOf` a user. */
export class People {
  /** By client ID, and by user. @type {Map<string, {name: string | null, user: string | null}>} the latest come last */
  #known = new Map();
  #own = new Set();
  #ownName = null;
  #ownUser = null;
  #lookedUp = new Map();
  #lookups = MAX_LOOKUPS;
  #lookupsAt;
  #storage;
  #now;

  /**
   * @param {string} key the key in the session storage
   * @param {() => number} [now] milliseconds
   */
  constructor(key, now = () => performance.now()) {
    this.#now = now;
    this.#lookupsAt = now();
    this.#storage = new Remembered(() => sessionStorage, key);
    const kept = this.#storage.get();
    for (const { id, name, user } of kept?.people ?? []) this.#known.set(id, { name, user });
    for (const id of kept?.own ?? []) this.#own.add(String(id));
    addEventListener("pagehide", () => {
      const people = [...this.#known].slice(-MAX_STORED).map(([id, { name, user }]) => ({ id, name, user }));
      this.#storage.set({ people, own: [...this.#own].slice(-MAX_STORED) });
    });
  }

  /** Forgets everybody. */
  forget() {
    for (const kept of [this.#known, this.#own, this.#lookedUp]) kept.clear();
    this.#ownName = this.#ownUser = null;
    this.#storage.set(null);
  }

  /** The number of known IDs. */
  get size() {
    return this.#known.size;
  }

  /** Remembers a client's name and user. Returns whether that changed anything. */
  learn({ id, name, user }) {
    const known = this.#known.get(id);
    const now = { name: name || known?.name || null, user: user || known?.user || null };
    if ((now.name === null && now.user === null) || (known?.name === now.name && known?.user === now.user))
      return false;
    this.#keep(id, now);
    if (now.user !== null) this.#keep(personOf(id, now.user), now);
    return true;
  }

  /** The latest come last; the first are dropped. */
  #keep(key, known) {
    this.#known.delete(key);
    this.#known.set(key, known);
    keepNewest(this.#known, MAX_KNOWN);
  }

  /** Learns the sender of a message, if it names one. Returns whether that changed anything. */
  learnSender({ from, name, user }) {
    return from !== undefined && Boolean(user) && this.learn({ id: from, name, user });
  }

  /** Asks the server for the name of a client in none of the joined rooms. Returns whether it is new. Never rejects. */
  async lookUp(client, id) {
    if (this.#known.get(id)?.name || !this.#mayLookUp(id)) return false;
    try {
      // A page of one client, starting with this ID.
      const { clients } = await client.listClients({ limit: 1, after: idBefore(id) });
      return clients[0]?.id === id && this.learn(clients[0]);
    } catch {
      // Not allowed or not connected: the ID is shown instead of a name.
      return false;
    }
  }

  #mayLookUp(id) {
    const now = this.#now();
    if (now - (this.#lookedUp.get(id) ?? -Infinity) < LOOK_AGAIN_MS) return false;
    this.#lookups = Math.min(MAX_LOOKUPS, this.#lookups + (now - this.#lookupsAt) / LOOKUP_MS);
    this.#lookupsAt = now;
    if (this.#lookups < 1) return false;
    this.#lookups -= 1;
    this.#lookedUp.delete(id);
    this.#lookedUp.set(id, now);
    keepNewest(this.#lookedUp, MAX_LOOKED_UP);
    return true;
  }

  /** Adds a client ID of the user. */
  learnOwn(id, name, user = null) {
    this.#own.add(id);
    keepNewest(this.#own, MAX_STORED);
    this.#ownName = name;
    this.#ownUser = user;
    this.learn({ id, name, user });
  }

  /** Whether a client was this page's. */
  isOwn(id) {
    return this.#own.has(id);
  }

  /** Whether a person is the user, with this page or elsewhere. */
  isUser(id) {
    return this.isOwn(id) || (this.#ownUser !== null && this.user(id) === this.#ownUser);
  }

  user(id) {
    return userOf(id) ?? this.#known.get(id)?.user ?? null;
  }

  /** What identifies the person of a client: the verified user, else the client. */
  personOf(id) {
    return userOf(id) === null ? personOf(id, this.user(id)) : id;
  }

  /** The name, else the user, else the start of the ID: the server has no names of clients that have left. */
  name(id) {
    if (id === undefined || id === null) return "Server";
    const { name, user = userOf(id) } = this.#known.get(id) ?? {};
    return name ?? user ?? `Someone (${short(id)})`;
  }

  /**
   * The mark to show next to a name so that it does not deceive, or "": the verified user; or the start of the ID, if
   * the name is the user's own or could mean somebody else.
   * @param {string | undefined} id
   * @param {boolean} [isShared] whether others in the room have that name
   */
  mark(id, isShared = false) {
    const { name, user } = this.#known.get(id) ?? {};
    if (!name || this.isUser(id)) return "";
    if (user) return user === name ? "" : user;
    return isShared || name === this.#ownName || TAKEN.test(name) ? short(id) : "";
  }
}

const short = (id) => id.slice(0, 8);

/** The user of a `personOf` a user; `null` for a client ID. */
export const userOf = (id) => (id?.startsWith("user ") ? id.slice(5) : null);

/** @param {Map<string, unknown> | Set<string>} kept */
function keepNewest(kept, most) {
  for (const oldest of kept.keys()) {
    if (kept.size <= most) return;
    kept.delete(oldest);
  }
}

/** The ID just below this one; `undefined` for the lowest one. */
export function idBefore(id) {
  const value = BigInt(`0x${id.replaceAll("-", "")}`);
  if (value === 0n) return undefined;
  const digits = (value - 1n).toString(16).padStart(32, "0");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** The first letter of a name on a colour of its own. Hidden from screen readers, as the name is next to it. */
export function avatar(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 9973;
  const [initial = "?"] = name.trim();
  return el("span", { class: `avatar colour-${hash % COLOURS}`, "aria-hidden": "true" }, initial.toUpperCase());
}
