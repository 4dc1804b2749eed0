// Sends the states that the application sets on topics: one at a time for each topic, and of several the newest.
// Knows entries, never a connection. Called by subscriptions.

import { Deferred, failed } from "./deferred.js";
import { asError, QwsError } from "./errors.js";
import { JsonText } from "./json-text.js";

/** @import { Entry } from "./entry.js" */
/** @import { Requests } from "./requests.js" */

/** The states of one client. */
export class States {
  #requests;
  #changedOwn;
  /** Those who wait until the newest state of an entry was accepted. @type {WeakMap<Entry, Deferred<void>[]>} */
  #waiting = new WeakMap();

  /**
   * @param {Requests} requests
   * @param {(entry: Entry) => void} changedOwn called when the server has accepted a state
   */
  constructor(requests, changedOwn) {
    this.#requests = requests;
    this.#changedOwn = changedOwn;
  }

  /**
   * Sets this client's state on a topic; resolves once the server has it, or a newer one.
   *
   * @param {Entry} entry
   * @param {unknown} value `null` for none
   * @returns {Promise<void>}
   */
  set(entry, value) {
    if (entry.isOver) return failed(new QwsError("closed", "setState: the subscription has ended"));
    if (entry.isPattern) return failed(new QwsError("usage", "setState: a pattern's subscribers are no members"));
    try {
      entry.options.state = JsonText.of(value, "setState: the state");
    } catch (error) {
      return failed(asError(error));
    }
    /** @type {Deferred<void>} */
    const done = new Deferred();
    this.#waiting.set(entry, [...(this.#waiting.get(entry) ?? []), done]);
    void this.sync(entry);
    return done.promise;
  }

  /** Sends the state that the server does not have yet, if it can take one now. @param {Entry} entry */
  async sync(entry) {
    while (entry.binding?.stage === "live" && !entry.isSendingState) {
      const { state } = entry.options;
      if ((state?.text ?? "null") === entry.knownState) return this.#settle(entry, null);
      entry.isSendingState = true;
      const { topic } = entry;
      try {
        await this.#requests.request({ type: "state", topic, state }, {}, () => {});
        entry.knownState = state?.text ?? "null";
        this.#changedOwn(entry);
      } catch (cause) {
        const error = asError(cause);
        // The next `subscribe` has it.
        if (error.kind === "closed") return;
        // The next `subscribe` must not have what was refused: it would be refused as well.
        const { knownState: known } = entry;
        if (entry.options.state === state) entry.options.state = known === "null" ? undefined : new JsonText(known);
        return this.#settle(entry, error);
      } finally {
        entry.isSendingState = false;
      }
    }
  }

  /** The entry has ended. @param {Entry} entry */
  ended(entry) {
    this.#settle(entry, new QwsError("closed", "setState: the subscription has ended"));
  }

  /** @param {Entry} entry @param {QwsError | null} error */
  #settle(entry, error) {
    const waiting = this.#waiting.get(entry) ?? [];
    this.#waiting.delete(entry);
    for (const done of waiting) error ? done.reject(error) : done.resolve();
  }
}
