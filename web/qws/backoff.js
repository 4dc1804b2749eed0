// Exponential backoff: when to try again after a failure. Pure except for its random number; knows nothing of what is
// tried. Called by the driver, entries, `catch-up.js` and tokens.

/** The longest delay of the first retry; each further delay is at most twice as long. */
const FIRST_BACKOFF_MS = 500;
/** The life of a connection that resets the count of tries: a server that loses clients at once is not stormed. */
export const HELD_MS = 20_000;

/** Exponential backoff with full jitter, so that clients that lost the same server do not return together. */
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

  /** The delay before the next try, in milliseconds. */
  next() {
    const ceiling = Math.min(FIRST_BACKOFF_MS * 2 ** this.#tries, this.#longestMs);
    this.#tries = Math.min(this.#tries + 1, 32);
    return this.#random() * ceiling;
  }

  /** Records how long a connection lasted. @param {number} ms */
  connectedFor(ms) {
    if (ms >= HELD_MS) this.reset();
  }

  reset() {
    this.#tries = 0;
  }
}
