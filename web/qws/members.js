// The members of a topic, as an application sees them: from pages of `presence` and from what comes meanwhile, in any
// order. Pure; knows no connection. Each entry that keeps members has one; called by entries and `roster.js`.

/** @import { Member } from "../qws.js" */
/** @import { Json } from "./frames.js" */

/** The types of messages about members. */
export const OF_MEMBERS = ["join", "leave", "state", "return", "occupancy"];

/** The members of one topic. */
export class Members {
  /** By what does not change of a member while it is there. @type {Map<string, Member>} */
  #members = new Map();
  /** Those that pages have named since the loading began; `null` while nothing loads. @type {Set<string> | null} */
  #named = null;
  /** Those of which something came since the loading began: that is newer than the pages. @type {Set<string>} */
  #touched = new Set();

  /** The members, by id. */
  get list() {
    return [...this.#members.values()];
  }

  /** Begins to load: pages follow, from the first. */
  begin() {
    this.#named = new Set();
    this.#touched.clear();
  }

  /** @param {Member[]} page */
  page(page) {
    for (const member of page) {
      const key = keyOf(member);
      this.#named?.add(key);
      if (!this.#touched.has(key)) this.#members.set(key, member);
    }
  }

  /** The last page is there: a member that was on none, and of which nothing came, has left. */
  complete() {
    const named = this.#named;
    if (!named) return;
    this.#named = null;
    for (const key of [...this.#members.keys()]) {
      if (!named.has(key) && !this.#touched.has(key)) this.#members.delete(key);
    }
    this.#touched.clear();
  }

  /**
   * Takes a message about a member. True if that may have changed something.
   *
   * @param {Json} json
   */
  apply({ type, client, was }) {
    if (typeof client?.id !== "string") return false;
    const key = this.#keyOf(client);
    if (type === "return" && typeof was === "string" && was !== key) {
      this.#members.delete(was);
      this.#touch(was);
    }
    if (type === "leave") this.#members.delete(key);
    else {
      const { clients } = this.#members.get(key) ?? {};
      this.#members.set(key, clients === undefined ? client : { clients, ...client });
    }
    this.#touch(key);
    return true;
  }

  /**
   * Sets the state of this client's own entry, or of its user's.
   *
   * @param {{ id: string, user: string | null }} client
   * @param {unknown} state `undefined` for none
   */
  setOwn({ id, user }, state) {
    const asUser = `user ${user}`;
    const key = user !== null && this.#members.has(asUser) ? asUser : id;
    const own = this.#members.get(key);
    if (!own) return false;
    const { state: _before, ...member } = own;
    this.#members.set(key, state === undefined ? member : { ...member, state });
    return true;
  }

  /** A message about a user need not say how many clients the user has. @param {Member} member */
  #keyOf(member) {
    const asUser = `user ${member.user}`;
    return this.#members.has(asUser) ? asUser : keyOf(member);
  }

  /** @param {string} key */
  #touch(key) {
    if (this.#named) this.#touched.add(key);
  }
}

/** A user with several clients stays one member when the first of them leaves. @param {Member} member */
function keyOf({ id, user, clients }) {
  return clients !== undefined && user !== undefined ? `user ${user}` : id;
}
