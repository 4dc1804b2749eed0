// Values in the browser's storage. Storage may be blocked or full; the page then works without it.

export class Remembered {
  #storage;
  #key;

  /**
   * @param {() => Storage} storage evaluated only when needed: if storage is blocked, even reading the property throws
   * @param {string} key
   */
  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
  }

  /** The stored value, or `null`. */
  get() {
    try {
      return JSON.parse(this.#storage().getItem(this.#key) ?? "null");
    } catch {
      return null;
    }
  }

  /** Stores a value; `null` removes it. */
  set(value) {
    try {
      if (value === null) this.#storage().removeItem(this.#key);
      else this.#storage().setItem(this.#key, JSON.stringify(value));
    } catch {
      // As above.
    }
  }
}
