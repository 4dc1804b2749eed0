// What the others see of the user while no message comes: typing in a room, and being away. The page tells what the
// user does, and this decides which state each room shows; what changes fast, the client joins. Independent of the
// page.

/** Typing is over after this time without a change of the text. */
export const SILENCE_MS = 4000;
/** Who goes on typing shows it again after this time, so that the others need not believe it for long. */
export const RENEW_MS = 5000;
/** The user is away if the page was hidden, or nothing was done in it, for this time. */
export const HIDDEN_MS = 15_000;
export const IDLE_MS = 5 * 60_000;

export class Activity {
  #show;
  #now;
  /** What each room shows, as JSON. @type {Map<string, string>} */
  #shown = new Map();
  #typingIn = null;
  /** Grows while the user goes on typing, so that the state changes. */
  #strokes = 0;
  #strokeAt = -Infinity;
  #isAway = false;
  #silence;
  #absence;

  /**
   * @param {(room: string, state: { typing?: number, away?: true } | null) => void} show
   * @param {() => number} [now] milliseconds
   */
  constructor(show, now = () => performance.now()) {
    this.#show = show;
    this.#now = now;
  }

  /** The rooms that the user is in now: those that are new are shown the state. @param {Iterable<string>} rooms */
  setRooms(rooms) {
    const present = new Set(rooms);
    for (const room of this.#shown.keys()) if (!present.has(room)) this.#shown.delete(room);
    for (const room of present) if (!this.#shown.has(room)) this.#shown.set(room, "null");
    this.#update();
  }

  /** The text in the field of a room has changed; "" if it is empty. @param {string} room @param {string} text */
  typed(room, text) {
    if (text.trim() === "") return this.stopTyping();
    const now = this.#now();
    if (this.#typingIn !== room || now - this.#strokeAt >= RENEW_MS) {
      this.#typingIn = room;
      this.#strokeAt = now;
      this.#strokes += 1;
    }
    clearTimeout(this.#silence);
    this.#silence = later(SILENCE_MS, () => this.stopTyping());
    this.#update();
  }

  /** The text was sent, or its room is not shown any longer. */
  stopTyping() {
    clearTimeout(this.#silence);
    this.#typingIn = null;
    this.#update();
  }

  /** The page was hidden. */
  hidden() {
    this.stopTyping();
    this.#leaveAfter(HIDDEN_MS);
  }

  /** The user does something in the page, or it is shown again. */
  active() {
    this.#leaveAfter(IDLE_MS);
    if (!this.#isAway) return;
    this.#isAway = false;
    this.#update();
  }

  /** Ends it, without showing anything more. */
  stop() {
    clearTimeout(this.#silence);
    clearTimeout(this.#absence);
    this.#shown.clear();
  }

  #leaveAfter(time) {
    clearTimeout(this.#absence);
    this.#absence = later(time, () => {
      this.#isAway = true;
      this.#update();
    });
  }

  #update() {
    for (const [room, before] of this.#shown) {
      const state = {};
      if (this.#typingIn === room) state.typing = this.#strokes;
      if (this.#isAway) state.away = true;
      const next = Object.keys(state).length === 0 ? null : state;
      const text = JSON.stringify(next);
      if (text === before) continue;
      this.#shown.set(room, text);
      this.#show(room, next);
    }
  }
}

/** A timer that keeps no process of a test alive. */
function later(ms, work) {
  const timer = setTimeout(work, ms);
  timer?.unref?.();
  return timer;
}
