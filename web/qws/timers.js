// Timers that can be cleared together.
// Knows nothing of what they are for. Called by the modules that own a task with an end: driver, link, race and others.

/**
 * A timer. A delay beyond the platform's maximum is cut: it would fire at once.
 *
 * @param {number} ms
 * @param {() => void} then
 */
export function later(ms, then) {
  return setTimeout(then, Math.min(ms, 2 ** 31 - 1));
}

/** Timers by name, at most one of each name. */
export class Timers {
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  /**
   * @param {string} name
   * @param {number} ms
   * @param {() => void} then
   */
  set(name, ms, then) {
    this.clear(name);
    const run = () => {
      this.#timers.delete(name);
      then();
    };
    this.#timers.set(name, later(ms, run));
  }

  /** @param {string} name */
  has(name) {
    return this.#timers.has(name);
  }

  /** @param {string[]} names */
  clear(...names) {
    for (const name of names) {
      clearTimeout(this.#timers.get(name));
      this.#timers.delete(name);
    }
  }

  clearAll() {
    this.clear(...this.#timers.keys());
  }
}
