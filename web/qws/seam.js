// What a pattern's old connection has brought, while the subscription moves to a new one that may bring it again.
// Pure but for the clock; knows no connection. Called by entries.

/** @import { Binding } from "./routes.js" */

/**
 * The offsets of a moving pattern. They are compared only for a short time: the server may forget a topic without exact
 * subscribers, and its offsets begin again.
 */
export class Seam {
  /** By topic, the newest offset that the old connection has brought. @type {Map<string, number>} */
  #offsets = new Map();
  #until = Infinity;

  /** @param {Binding} next the subscription on the new connection */
  constructor(next) {
    this.next = next;
  }

  /** The old connection has brought a message. @param {string} topic @param {number} offset */
  brought(topic, offset) {
    this.#offsets.set(topic, offset);
  }

  /** The old connection brings nothing more. @param {number} ms how long to compare from now on */
  close(ms) {
    this.#until = performance.now() + ms;
  }

  get isOver() {
    return performance.now() > this.#until;
  }

  /** Whether the old connection has brought what the new one brings. @param {string} topic @param {number} offset */
  isRepeated(topic, offset) {
    const last = this.#offsets.get(topic) ?? -1;
    if (offset >= last) this.#offsets.delete(topic);
    return offset <= last;
  }
}
