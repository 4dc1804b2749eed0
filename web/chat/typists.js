// Who is typing in a room, from the states of its members. A state that is not renewed counts for a while only: its
// client may be gone. Independent of the page.

/** How long a member counts as typing after its state has changed. */
export const LASTS_MS = 10_000;
/** Most that are kept: more are not shown. */
const MAX_KEPT = 20;

export class Typists {
  /** When each client's typing is over, by its ID. @type {Map<string, number>} */
  #until = new Map();
  #timer;
  #changed;
  #now;

  /**
   * @param {() => void} changed called when somebody's typing is over because of the time
   * @param {() => number} [now] milliseconds
   */
  constructor(changed, now = () => performance.now()) {
    this.#changed = changed;
    this.#now = now;
  }

  /** The clients that are typing, those that began first first. */
  get ids() {
    const now = this.#now();
    return [...this.#until].filter(([, until]) => until > now).map(([id]) => id);
  }

  /** A member shows a state. @param {{ id: string, state?: any, away?: boolean }} member */
  showed({ id, state, away }) {
    const isTyping = Boolean(state?.typing) && !away;
    if (!isTyping) this.heard(id);
    else if (this.#until.size < MAX_KEPT || this.#until.has(id)) {
      this.#until.set(id, this.#now() + LASTS_MS);
      this.#arm();
    }
  }

  /** A client has said what it was typing, or is gone. @param {string | undefined} id */
  heard(id) {
    if (id !== undefined) this.#until.delete(id);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#until.clear();
  }

  #arm() {
    if (this.#timer !== undefined || this.#until.size === 0) return;
    const next = Math.min(...this.#until.values());
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        const now = this.#now();
        for (const [id, until] of this.#until) if (until <= now) this.#until.delete(id);
        this.#changed();
        this.#arm();
      },
      Math.max(0, next - this.#now()) + 1,
    );
    this.#timer?.unref?.();
  }
}

/**
 * Who is typing, as a sentence; "" if no one is. Names are isolated, as they may be right-to-left.
 * @param {string[]} names
 */
export function typingText(names) {
  const [first, second] = names.map((name) => `\u2068${name}\u2069`);
  if (names.length === 0) return "";
  if (names.length === 1) return `${first} is typing…`;
  if (names.length === 2) return `${first} and ${second} are typing…`;
  return `${first} and ${names.length - 1} others are typing…`;
}
