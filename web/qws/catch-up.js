// Fetches from a topic's history what one subscription has missed, until it is where the others on its topic are.
// Knows entries and feeds, never a connection. Called by subscriptions.

import { Backoff } from "./backoff.js";
import { asError, PASSING } from "./errors.js";
import { fetchPage } from "./history.js";
import { MAX_PAGE } from "./messages.js";
import { Timers } from "./timers.js";

/** @import { Position } from "../qws.js" */
/** @import { Entry } from "./entry.js" */
/** @import { QwsError } from "./errors.js" */
/** @import { Feed } from "./feed.js" */
/** @import { Requests } from "./requests.js" */

/**
 * What subscriptions do for it.
 *
 * @typedef {object} Actions
 * @property {(entry: Entry, feed: Feed) => void} filled a reader does not keep up
 * @property {(entry: Entry, feed: Feed, error: QwsError) => void} leave
 */

/** The catching up of one client's subscriptions. */
export class CatchUp {
  #requests;
  #maxBackoffMs;
  #subscriptions;
  #timers = new Timers();
  #pauses = 0;

  /**
   * @param {Requests} requests
   * @param {number} maxBackoffMs
   * @param {Actions} subscriptions
   */
  constructor(requests, maxBackoffMs, subscriptions) {
    this.#requests = requests;
    this.#maxBackoffMs = maxBackoffMs;
    this.#subscriptions = subscriptions;
  }

  /**
   * Goes on for as long as the feed is behind and has room.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   */
  async run(entry, feed) {
    const { behind } = feed;
    if (!behind || behind.isFetching || !entry.opened) return;
    behind.isFetching = true;
    const backoff = new Backoff(this.#maxBackoffMs);
    while (feed.behind === behind && feed.hasRoom) {
      try {
        if (behind.recent !== undefined) {
          const begin = await this.#beginOf(entry.topic, behind.recent, behind.end);
          if (feed.behind !== behind) return;
          feed.seen = begin ?? entry.seen;
          behind.recent = undefined;
        }
        // What arrives from here on, and follows the page, is passed on behind it.
        behind.pending = [];
        const { seen: since, room: limit } = feed;
        const page = await fetchPage(this.#requests, { type: "history", topic: entry.topic, since, limit });
        if (feed.behind !== behind) return;
        if (feed.replay(page, since)) {
          if (entry.caughtUp(feed)) this.#subscriptions.filled(entry, feed);
        } else if (!page.more) {
          // The connection is about to report another epoch, or more has arrived than could be kept.
          await this.#pauseFor(backoff.next());
        }
      } catch (cause) {
        const error = asError(cause);
        if (feed.isOver || error.kind === "closed") break;
        if (error.kind === "request" && !PASSING.has(error.code ?? 0)) {
          if (behind.isFirst) this.#subscriptions.leave(entry, feed, error);
          else feed.loseTrack(entry.seen, error.message);
          break;
        }
        await this.#pauseFor(backoff.next());
      }
    }
    behind.isFetching = false;
  }

  /** The client has ended. */
  stop() {
    this.#timers.clearAll();
  }

  /** Never settled if the client ends before. @param {number} ms @returns {Promise<void>} */
  #pauseFor(ms) {
    return new Promise((resolve) => this.#timers.set(`pause ${(this.#pauses += 1)}`, ms, resolve));
  }

  /**
   * The position after which so many of the newest messages are; `null` if an older server knows of none.
   *
   * @param {string} topic
   * @param {number} count
   * @param {Position} [end] only messages up to this position count
   * @returns {Promise<Position | null>}
   */
  async #beginOf(topic, count, end) {
    let since = end && { epoch: end.epoch, offset: end.offset + 1 };
    /** @type {Position | null} */
    let begin = null;
    for (let left = count; left > 0; ) {
      const limit = Math.min(left, MAX_PAGE);
      const asked = { type: "history", topic, since, limit, reverse: true };
      const { epoch, offset, messages, more } = await fetchPage(this.#requests, asked);
      const oldest = messages.at(-1);
      if (oldest) {
        since = { epoch, offset: oldest.offset };
        // No message lies between this position and that one.
        begin = { epoch, offset: oldest.offset - 1 };
      } else if (epoch !== "") {
        // What has come before the empty page is newer than the page.
        begin ??= end ?? { epoch, offset };
      }
      left -= messages.length;
      if (!more || !oldest) break;
    }
    return begin;
  }
}
