// How many requests of one kind may be under way, and when the next may go after an `error` 429.
// Pure: is given the time, knows no request and no connection. Each link has two; requests ask them before they send.

/** @import { QwsError } from "./errors.js" */

/** Most unanswered requests, refused ones included: fewer than the refusals after which a server closes with 4429. */
export const MAX_CALLS = 96;
/** Requests of one kind sent on a new connection before the first reply; each reply allows one more. */
const FIRST_WINDOW = 16;

/**
 * The pace of one kind of requests on a connection: a window that grows with each reply, and after an `error` 429 one
 * request at each time that the server named. The server names a time of its own for each refused request, one after
 * the other; any request may use it, so requests keep their order.
 */
export class Pace {
  /** The last `error` 429. @type {QwsError | null} */
  refusal = null;
  #window = FIRST_WINDOW;
  /** Below this the window grows by one with each reply, above it by one with each window of replies. */
  #ceiling = MAX_CALLS;
  #underWay = 0;
  /** Times at which one request each may be sent, soonest first. @type {number[]} */
  #turns = [];

  /** Number of refused requests that have not been repeated. */
  get refusals() {
    return this.#turns.length;
  }

  /**
   * Milliseconds until the next request may be sent; `Infinity`: not before a reply.
   *
   * @param {number} now
   * @param {boolean} isFull whether the connection has as many unanswered requests as it may have
   */
  wait(now, isFull) {
    if (this.#turns.length > 0) return Math.max(0, this.#turns[0] - now);
    return !isFull && this.#underWay < this.#window ? 0 : Infinity;
  }

  sent() {
    this.#turns.shift();
    this.#underWay += 1;
  }

  /** A request that was sent is no longer waited for. */
  forget() {
    this.#underWay -= 1;
  }

  /** A reply other than `error` 429 arrived. */
  served() {
    this.#window = Math.min(MAX_CALLS, this.#window + (this.#window < this.#ceiling ? 1 : 1 / this.#window));
  }

  /**
   * @param {number} at when the request may be sent again
   * @param {QwsError} refusal
   */
  refused(at, refusal) {
    this.refusal = refusal;
    if (this.#turns.length === 0) this.#ceiling = Math.max(1, Math.floor(this.#window / 2));
    this.#window = 1;
    const behind = this.#turns.findIndex((other) => other > at);
    this.#turns.splice(behind < 0 ? this.#turns.length : behind, 0, at);
  }

  /** Nothing waits to be sent: drops the times that have passed. @param {number} now */
  expire(now) {
    const next = this.#turns.findIndex((at) => at > now);
    this.#turns.splice(0, next < 0 ? this.#turns.length : next);
  }
}
