// A tap of a topic: waits at the server for what comes behind a position, page by page. Of more than it can show it
// skips to the newest. Independent of the page.

const PAGE = 100;
const WAIT_MS = 20_000;
/** Least time between two requests: a busy topic fills every page. */
const PACE_MS = 250;
const RETRY_MS = 3000;

/**
 * @typedef {object} Heard
 * @property {object[]} messages oldest first
 * @property {number} skipped messages that passed and are not among them
 * @property {boolean} restarted the log has begun again
 * @property {{ epoch: string, offset: number }} position of the newest message
 */

export class Tap {
  #api;
  #heard;
  #failed;
  #running = null;

  /**
   * @param {object} how
   * @param {import("./api.js").Api} how.api
   * @param {(heard: Heard) => void} how.heard
   * @param {(error: Error) => boolean} how.failed whether to try again
   */
  constructor({ api, heard, failed }) {
    this.#api = api;
    this.#heard = heard;
    this.#failed = failed;
  }

  get isRunning() {
    return this.#running !== null;
  }

  /** Follows a topic from a position on. @param {string} topic @param {{ epoch: string, offset: number }} position */
  start(topic, position) {
    this.stop();
    const running = new AbortController();
    this.#running = running;
    this.#follow(topic, position, running.signal);
  }

  stop() {
    this.#running?.abort();
    this.#running = null;
  }

  async #follow(topic, position, signal) {
    let { epoch, offset } = position;
    while (!signal.aborted) {
      try {
        const page = await this.#api.history({ topic, epoch, offset, limit: PAGE, waitMs: WAIT_MS, signal });
        if (signal.aborted) return;
        const restarted = page.epoch !== epoch;
        // In a new log, positions of the old one mean nothing: it begins at its start.
        const passed = page.offset - (restarted ? 0 : offset);
        if (passed > 0 || restarted) {
          const skipped = Math.max(0, passed - page.messages.length);
          const newest = { epoch: page.epoch, offset: page.offset };
          this.#heard({ messages: page.messages, skipped, restarted, position: newest });
        }
        [epoch, offset] = [page.epoch, page.offset];
        await pause(PACE_MS, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!this.#failed(error)) return this.stop();
        await pause(RETRY_MS, signal);
      }
    }
  }
}

/** Resolves after a time, or at once if it is over. */
function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}
