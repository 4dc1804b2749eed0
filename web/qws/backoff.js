// When to try again after a failure.
// Pure but for its random number; knows nothing of what is tried. Called by the client and by an entry.

/** The first try to come back comes within this time, each further one within twice the time of the one before. */
const FIRST_BACKOFF_MS = 500;
/** A connection that lived as long begins the count of tries anew: a server that lets clients in only to lose them is not stormed. */
export const HELD_MS = 20_000;

/** When to try again: exponential backoff with full jitter, so that clients that lost the same server do not come back together. */
export class Backoff {
  #tries = 0;
  #longestMs;
  #random;

  /**
   * @param {number} longestMs
   * @param {() => number} [random]
   */
  constructor(longestMs, random = Math.random) {
    this.#longestMs = longestMs;
    this.#random = random;
  }

  /** How long to wait before the next try. */
  next() {
    const ceiling = Math.min(FIRST_BACKOFF_MS * 2 ** this.#tries, this.#longestMs);
    this.#tries = Math.min(this.#tries + 1, 32);
    return this.#random() * ceiling;
  }

  /** A connection was had, for so long. @param {number} ms */
  connectedFor(ms) {
    if (ms >= HELD_MS) this.reset();
  }

  reset() {
    this.#tries = 0;
  }
}
