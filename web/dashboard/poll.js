// Asks again and again: a second after the last time, later and later while it fails, not at all while the page is hidden or it was
// stopped. One request at a time. Knows nothing of what is asked for.

const EVERY_MS = 1000;
const SLOWEST_MS = 5000;
const TIMEOUT_MS = 5000;

/** Nothing came in time. */
export class TimedOut extends Error {
  constructor() {
    super(`nothing came for ${TIMEOUT_MS / 1000} seconds`);
    this.name = "TimedOut";
  }
}

export class Poll {
  #ask;
  #answered;
  #failed;
  #wanted = false;
  #timer = 0;
  #round = null;
  #failures = 0;

  /**
   * `ask(signal)` promises an answer. `answered(answer, {asked, received})` and `failed(error, nextInMs)` are told what became of it;
   * either may call `stop`.
   */
  constructor({ ask, answered, failed }) {
    this.#ask = ask;
    this.#answered = answered;
    this.#failed = failed;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.now()));
    addEventListener("online", () => this.now());
  }

  start() {
    this.#wanted = true;
    this.#failures = 0;
    this.now();
  }

  stop() {
    this.#wanted = false;
    this.#rest();
  }

  /** Asks at once, in place of whatever is under way or waited for. */
  now() {
    this.#rest();
    if (this.#wanted && !document.hidden) this.#go();
  }

  #rest() {
    clearTimeout(this.#timer);
    this.#round?.abort();
    this.#round = null;
  }

  async #go() {
    const round = new AbortController();
    this.#round = round;
    const limit = setTimeout(() => round.abort(new TimedOut()), TIMEOUT_MS);
    const asked = performance.now();
    let outcome;
    try {
      const answer = await this.#ask(round.signal);
      const received = performance.now();
      outcome = () => {
        this.#failures = 0;
        this.#answered(answer, { asked, received });
        return Math.max(0, EVERY_MS - (received - asked));
      };
    } catch (error) {
      outcome = () => {
        this.#failures += 1;
        const next = Math.min(EVERY_MS * 2 ** (this.#failures - 1), SLOWEST_MS);
        this.#failed(round.signal.reason instanceof TimedOut ? round.signal.reason : error, next);
        return next;
      };
    }
    clearTimeout(limit);
    // Another round, or none, took this one's place while it was under way.
    if (this.#round !== round) return;
    const next = outcome();
    if (this.#round !== round) return;
    this.#round = null;
    this.#timer = setTimeout(() => this.#go(), next);
  }
}
