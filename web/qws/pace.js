// How many requests of one kind may be under way, and when the next may go after an `error` 429.
// Pure: is given the time, knows no request and no connection. A link has two; the client asks them before it sends.

/** @import { QwsError } from "./errors.js" */

/** Most requests without a reply, refused ones included: fewer than the refusals for which a server closes with 4429. */
export const MAX_CALLS = 96;
/** How many requests of one kind go out on a new connection before the first reply; each reply allows one more. */
const FIRST_WINDOW = 16;

/**
 * How many requests of one kind may go over a connection: a window that grows with each reply, and after an `error` 429 only
 * at the times that the server named, one request each. The server names each refused request a time of its own, one behind
 * the other; any request may use it, so they keep their order.
 */
export class Pace {
  /** The last `error` 429. @type {QwsError | null} */
  refusal = null;
  #window = FIRST_WINDOW;
  /** Up to here the window grows by one with each reply, beyond it by one with each window of replies. */
  #ceiling = MAX_CALLS;
  #underWay = 0;
  /** When one request each may be sent, soonest first. @type {number[]} */
  #turns = [];

  /** How many refused requests the server has not seen again. */
  get refusals() {
    return this.#turns.length;
  }

  /**
   * How many milliseconds until the next request may be sent; `Infinity`: not before a reply.
   *
   * @param {number} now
   * @param {boolean} isFull whether the connection has as many requests without a reply as it may have
   */
  wait(now, isFull) {
    if (this.#turns.length > 0) return Math.max(0, this.#turns[0] - now);
    return !isFull && this.#underWay < this.#window ? 0 : Infinity;
  }

  sent() {
    this.#turns.shift();
    this.#underWay += 1;
  }

  /** One that was sent is not waited for any longer. */
  forget() {
    this.#underWay -= 1;
  }

  /** A reply came that is no `error` 429. */
  served() {
    this.#window = Math.min(MAX_CALLS, this.#window + (this.#window < this.#ceiling ? 1 : 1 / this.#window));
  }

  /**
   * @param {number} at when the server lets it be sent again
   * @param {QwsError} refusal
   */
  refused(at, refusal) {
    this.refusal = refusal;
    if (this.#turns.length === 0) this.#ceiling = Math.max(1, Math.floor(this.#window / 2));
    this.#window = 1;
    const behind = this.#turns.findIndex((other) => other > at);
    this.#turns.splice(behind < 0 ? this.#turns.length : behind, 0, at);
  }

  /** Nothing waits to be sent: turns that have come are not kept. @param {number} now */
  expire(now) {
    const next = this.#turns.findIndex((at) => at > now);
    this.#turns.splice(0, next < 0 ? this.#turns.length : next);
  }
}
