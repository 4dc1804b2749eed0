// Polls: one request a second, less often after failures, none while the page is hidden or polling is stopped. One
// request at a time. Independent of the content of the requests.

const EVERY_MS = 1000;
const SLOWEST_MS = 5000;
const TIMEOUT_MS = 5000;

/** There was no response in time. */
export class TimedOut extends Error {
  constructor() {
    super(`no response within ${TIMEOUT_MS / 1000} seconds`);
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
   * `ask(signal)` promises an answer. `answered(answer, {asked, received})` or `failed(error, nextInMs)` is called with
   * its outcome; either may call `stop`.
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

  /** Asks now, in place of a pending or scheduled request. */
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
    // This round was cancelled or replaced meanwhile.
    if (this.#round !== round) return;
    const next = outcome();
    if (this.#round !== round) return;
    this.#round = null;
    this.#timer = setTimeout(() => this.#go(), next);
  }
}
