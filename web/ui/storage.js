// What the browser keeps for the page. Storage can be forbidden or full; the page then does without.

export class Remembered {
  #storage;
  #key;

  /**
   * @param {() => Storage} storage asked for only when needed: where it is forbidden, already its name throws
   * @param {string} key
   */
  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
  }

  /** What was kept, or `null`. */
  get() {
    try {
      return JSON.parse(this.#storage().getItem(this.#key) ?? "null");
    } catch {
      return null;
    }
  }

  /** Keeps a value; `null` forgets it. */
  set(value) {
    try {
      if (value === null) this.#storage().removeItem(this.#key);
      else this.#storage().setItem(this.#key, JSON.stringify(value));
    } catch {
      // As above.
    }
  }
}
