// Keeps the members of topics for subscriptions that want them: pages of `presence` first, then what comes.
// Knows entries, never a connection. Called by subscriptions.

import { Backoff } from "./backoff.js";
import { asError, PASSING } from "./errors.js";
import { emit } from "./events.js";
import { MAX_PAGE } from "./messages.js";
import { Timers } from "./timers.js";

/** @import { Member } from "../qws.js" */
/** @import { Entry } from "./entry.js" */
/** @import { QwsError } from "./errors.js" */
/** @import { Requests } from "./requests.js" */

/** The members of one client's topics. */
export class Roster {
  #requests;
  #maxBackoffMs;
  #timers = new Timers();
  /** Entries of which members have changed since listeners were called last. @type {Set<Entry>} */
  #changed = new Set();
  /** The newest loading of each entry: an older one stops. @type {WeakMap<Entry, object>} */
  #loading = new WeakMap();

  /**
   * @param {Requests} requests
   * @param {number} maxBackoffMs
   */
  constructor(requests, maxBackoffMs) {
    this.#requests = requests;
    this.#maxBackoffMs = maxBackoffMs;
  }

  /**
   * Loads the members of a topic that was subscribed to, again after each reconnect and pause.
   *
   * @param {Entry} entry
   */
  async load(entry) {
    const { members } = entry;
    if (!members) return;
    const own = {};
    this.#loading.set(entry, own);
    const isOver = () => entry.isOver || this.#loading.get(entry) !== own;
    const backoff = new Backoff(this.#maxBackoffMs);
    while (!isOver()) {
      try {
        members.begin();
        let after;
        do {
          const { clients, next } = await this.#page(entry.topic, after);
          if (isOver()) return;
          members.page(clients);
          after = next;
        } while (after !== undefined);
        members.complete();
        entry.hasMembers = true;
        return this.changed(entry);
      } catch (cause) {
        const error = asError(cause);
        // The next connection loads again.
        if (isOver() || error.kind === "closed") return;
        if (error.kind === "request" && !PASSING.has(error.code ?? 0)) return this.#tell(entry, error);
        await new Promise((resolve) => this.#timers.set(entry.topic, backoff.next(), () => resolve(undefined)));
      }
    }
  }

  /** Something came about members: listeners are called once for all that comes together. @param {Entry} entry */
  changed(entry) {
    if (!entry.hasMembers) return;
    if (this.#changed.size === 0) queueMicrotask(() => this.#tellAll());
    this.#changed.add(entry);
  }

  /** The client has ended. */
  stop() {
    this.#timers.clearAll();
  }

  /** @param {string} topic @param {string} [after] */
  #page(topic, after) {
    const asked = { type: "presence", topic, limit: MAX_PAGE, after };
    return this.#requests.request(asked, { again: true }, ({ json }) => ({
      clients: /** @type {Member[]} */ (json.clients),
      next: /** @type {string | undefined} */ (json.next ?? undefined),
    }));
  }

  #tellAll() {
    const changed = [...this.#changed];
    this.#changed.clear();
    for (const entry of changed) this.#tell(entry, null);
  }

  /** @param {Entry} entry @param {QwsError | null} error */
  #tell(entry, error) {
    const members = entry.members?.list ?? [];
    for (const feed of [...entry.feeds]) {
      if (feed.options.members) emit(feed.subscription, "members", error ? { members, error } : { members });
    }
  }
}
