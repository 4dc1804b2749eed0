// One subscription of the application: its queue, its events, and how it catches up from a topic's history.
// Knows its entry, never a connection. Called by its entry, `Subscription`, subscriptions and `catch-up.js`.

import { Deferred } from "./deferred.js";
import { QwsError } from "./errors.js";
import { emit } from "./events.js";
import { MAX_PAGE } from "./messages.js";
import { leavesOut } from "./terms.js";

/** @import { Message, Position, Subscribed } from "../qws.js" */
/** @import { Entry } from "./entry.js" */
/** @import { Json } from "./frames.js" */
/** @import { Subscription } from "./subscription.js" */
/** @import { Terms } from "./terms.js" */

/** @typedef {{ message: Message | null, position: Position | null }} Item in the queue */
/** @typedef {{ first: number, last: number, json: Json }} ReportedGap a `gap` of the server */
/** @typedef {{ message: Message | null, gap?: ReportedGap, position: Position | null }} Heard what an entry brings */

/**
 * The state of a feed that has to catch up.
 *
 * @typedef {object} Behind
 * @property {boolean} isFirst whether these are its first messages
 * @property {boolean} isFetching
 * @property {number | undefined} recent number of newest messages to begin with
 * @property {Position} [end] only messages up to this position count for `recent`
 * @property {Position | null} [lost] the position after which a loss was reported
 * @property {Heard[] | null} pending what came since it began to fetch; `null` if that was more than it keeps
 */

/** @typedef {{ reader: object | null, taken: Deferred<Message | null> }} Waiter a waiting reader */

/** The reason of a loss that the history cannot make up for. */
export const LOG_TOO_SHORT = "the topic's log no longer reaches back that far";

/**
 * A subscription of the application. Several feeds may share one entry; one that does not keep up with the others, or
 * begins further back, is behind and catches up from the history.
 */
export class Feed {
  /** @type {Subscription | null} */
  subscription = null;
  /** @type {Deferred<Subscribed>} */
  ready = new Deferred();
  /** Whether `ready` has resolved. */
  opened = false;
  isOver = false;
  /** The position up to which all messages were taken into the queue. @type {Position | null} */
  seen;
  /** The position up to which all messages were handed out. @type {Position | null} */
  position;
  /** Number of iterations. */
  readers = 0;
  /** Set while it has to catch up. @type {Behind | null} */
  behind = null;

  /** @type {Item[]} */
  #items = [];
  #first = 0;
  /** @type {Waiter[]} */
  #waiters = [];
  #isListened = false;
  /** @type {QwsError | null} */
  #error = null;
  #capacity;
  #roomAgain;

  /**
   * @param {Entry} entry
   * @param {Terms} options
   * @param {number} capacity
   * @param {() => void} roomAgain called when there is room for more
   */
  constructor(entry, options, capacity, roomAgain) {
    const { since, recent } = options;
    this.entry = entry;
    this.options = options;
    this.seen = this.position = since && !entry.isConsumer ? { epoch: since.epoch, offset: since.offset } : null;
    this.#capacity = capacity;
    this.#roomAgain = roomAgain;
    // The server replays only for the first feed of an entry.
    const wantsReplay = since != null || (recent ?? 0) > 0;
    if (entry.feeds.size > 0 && wantsReplay && !entry.isPattern) {
      this.behind = { isFirst: true, isFetching: false, recent: since ? undefined : recent, pending: null };
    }
  }

  get isPaused() {
    return this.entry.isPaused || (this.behind !== null && !this.behind.isFirst);
  }

  /** Whether more comes only once there is room. */
  get #isHeldUp() {
    return this.entry.isPaused || this.behind !== null;
  }

  /**
   * Begins, or continues with its entry.
   *
   * @param {Position | null} seen `null` if that is not known before the first message
   * @param {Subscribed} subscribed
   */
  open(seen, subscribed) {
    if (!this.opened && seen) this.passed(seen);
    else if (!this.opened) this.seen = this.position = null;
    this.opened = true;
    this.ready.resolve(subscribed);
  }

  /**
   * Takes a message or gap. True if there is no room for more.
   *
   * @param {Heard} heard
   */
  hear(heard) {
    if (this.isOver) return false;
    const { message, gap, position } = heard;
    if (this.behind) {
      const { pending } = this.behind;
      if (pending && pending.length < this.#capacity) pending.push(heard);
      else this.behind.pending = null;
      return false;
    }
    // A feed begins after the answer to its `subscribe`.
    if (!this.opened) return false;
    const { seen } = this;
    const isKnown = seen !== null && position !== null && seen.epoch === position.epoch;
    if (isKnown && position.offset <= seen.offset) return false;
    if (gap) {
      const first = isKnown ? Math.max(gap.first, seen.offset + 1) : gap.first;
      if (position) this.passed(position);
      const { topic, reason } = gap.json;
      emit(this.subscription, "gap", { topic, first, last: gap.last, ...(reason == null ? {} : { reason }) });
      return false;
    }
    return message !== null && this.#take(message, position);
  }

  /**
   * @param {Message} message
   * @param {Position | null} position
   */
  #take(message, position) {
    this.seen = position;
    // The first listener gets the messages that wait before this one.
    const isHandedOver = this.#isListened && this.readers === 0 && this.waiting > 0;
    const isFull = this.#put({ message, position });
    if (this.#isListened && !isHandedOver) emit(this.subscription, "message", message);
    // A listener may have ended the only loop, and with it the need for the queue.
    return isFull && this.waiting > 0;
  }

  /** Counts all messages up to a position as taken. @param {Position} position */
  passed(position) {
    this.seen = position;
    // After the messages that wait.
    const last = this.#items.at(-1);
    if (last && this.waiting > 0) last.position = position;
    else this.position = position;
  }

  // Catching up.

  /** Fetches the messages up to a position after which its entry continues. @param {Position} end */
  fetchUpTo(end) {
    if (!this.opened || this.behind || (this.seen && this.seen.offset >= end.offset)) return;
    this.fallBehind();
    if (this.behind && !this.seen) Object.assign(this.behind, { recent: this.options.recent, end });
  }

  /** Keeps its queue, and fetches what follows from the topic's history once it has room. */
  fallBehind() {
    this.behind ??= { isFirst: false, isFetching: false, recent: undefined, pending: null };
  }

  /**
   * Takes a page of the topic's history. True if nothing is missing between the page and what comes.
   *
   * @param {import("../qws.js").HistoryPage & { recovered?: boolean | null }} page
   * @param {Position | null} since the position after which it begins
   */
  replay({ epoch, offset, messages, more, recovered }, since) {
    const { behind, entry, options } = this;
    const live = entry.seen;
    if (!behind || !live) return false;
    // Older servers send no empty page.
    if (epoch === "") epoch = live.epoch;
    const isOther = since !== null && since.epoch !== epoch;
    const isLost = isOther || (since !== null && recovered === false && since !== behind.lost);
    const subscribed = { epoch, offset: Math.max(offset, live.epoch === epoch ? live.offset : 0), recovered: !isLost };
    if (behind.isFirst && !this.opened && isLost && (options.recent ?? 0) > 0) {
      this.#openAt({ epoch, offset: 0 }, subscribed, isLost);
      behind.recent = options.recent;
      return false;
    }
    if (isOther) this.seen = { epoch, offset: 0 };
    // The same page may have to be fetched again.
    if (isLost) behind.lost = this.seen;
    this.#openAt(this.seen, options.since ? subscribed : { ...subscribed, recovered: null }, isLost);
    // With a bound on the rate only the newest of them matters.
    const skipped = options.maxRate == null ? 0 : messages.length - 1;
    for (const [at, message] of messages.entries()) {
      if (this.behind !== behind) return false;
      const position = { epoch, offset: message.offset };
      if (at < skipped || leavesOut(entry.options, message, entry.isOwn)) this.passed(position);
      else this.#take(message, position);
    }
    return this.behind === behind && !more && behind.pending !== null && epoch === live.epoch;
  }

  /**
   * @param {Position | null} position
   * @param {Subscribed} subscribed
   * @param {boolean} isLost
   */
  #openAt(position, subscribed, isLost) {
    if (!this.opened && position && this.waiting === 0) this.position = position;
    this.opened = true;
    this.ready.resolve(subscribed);
    if (isLost) emit(this.subscription, "lost", { ...subscribed, reason: LOG_TOO_SHORT });
  }

  /**
   * Gives up what it has missed, and continues with what comes.
   *
   * @param {Position | null} position
   * @param {string} reason
   */
  loseTrack(position, reason) {
    this.behind = null;
    if (position) this.passed(position);
    const { epoch = null, offset = null } = position ?? {};
    emit(this.subscription, "lost", { epoch, offset, recovered: false, reason });
  }

  // The queue.

  get waiting() {
    return this.#items.length - this.#first;
  }

  get hasRoom() {
    return this.waiting <= this.#capacity / 2;
  }

  /** The size of the next page of history. */
  get room() {
    return Math.min(MAX_PAGE, Math.max(1, Math.floor(this.#capacity - this.waiting)));
  }

  /**
   * @param {Item} item
   * @returns {boolean} whether there is no room for more
   */
  #put(item) {
    const { isDatagram, isPattern, isDurable, isConsumer } = this.entry;
    const waiter = this.#waiters.shift();
    if (waiter) {
      if (item.position) this.position = item.position;
      waiter.taken.resolve(item.message);
      return false;
    }
    if (this.#isListened && this.readers === 0 && this.waiting === 0) {
      if (item.position) this.position = item.position;
      return false;
    }
    if (item.message?.tries !== undefined && this.#replace(item.message)) return false;
    this.#items.push(item);
    // There is room for all that a durable consumer has in flight.
    if (this.waiting < this.#capacity || isDurable) return false;
    if (!isDatagram && !isPattern && !isConsumer) return true;
    // There is no position to resume from.
    if (this.waiting > this.#capacity) this.#dropOldest();
    return false;
  }

  /** Puts a message in the place of an earlier delivery of it that was not read yet. @param {Message} message */
  #replace(message) {
    const item = this.#items.slice(this.#first).find(({ message: other }) => other?.offset === message.offset);
    if (item) item.message = message;
    return item !== undefined;
  }

  /** Drops what was not read yet: a durable consumer delivers it again, perhaps to another client. */
  dropWaiting() {
    this.#items = [];
    this.#first = 0;
  }

  #dropOldest() {
    const dropped = this.#shift();
    if (!dropped?.message || this.entry.isDatagram) return;
    const { topic, offset } = dropped.message;
    emit(this.subscription, "gap", { topic, first: offset, last: offset, reason: "not read fast enough" });
  }

  /** @returns {Item | undefined} */
  #shift() {
    if (this.waiting === 0) return undefined;
    const item = this.#items[this.#first];
    this.#first += 1;
    if (this.#first === this.#items.length || this.#first >= 1024) {
      this.#items.splice(0, this.#first);
      this.#first = 0;
    }
    return item;
  }

  /**
   * The next message; `null` after the last one, and if the reader leaves.
   *
   * @param {object | null} reader
   * @returns {Promise<Message | null>}
   */
  take(reader = null) {
    const item = this.#shift();
    if (item) {
      if (item.position) this.position = item.position;
      if (this.#isHeldUp && this.hasRoom) this.#roomAgain();
      return Promise.resolve(item.message);
    }
    if (this.isOver) {
      const error = this.#error;
      this.#error = null;
      return error ? Promise.reject(error) : Promise.resolve(null);
    }
    /** @type {Deferred<Message | null>} */
    const taken = new Deferred();
    this.#waiters.push({ reader, taken });
    return taken.promise;
  }

  /**
   * The number of listeners has changed. The first one gets the messages that wait, unless there is an iteration.
   *
   * @param {number} listeners
   */
  listened(listeners) {
    const isFirst = !this.#isListened && listeners > 0;
    this.#isListened = listeners > 0;
    if (isFirst && this.waiting > 0) queueMicrotask(() => this.#handOver());
  }

  #handOver() {
    while (this.#isListened && this.readers === 0) {
      const item = this.#shift();
      if (!item) break;
      if (item.position) this.position = item.position;
      if (item.message) emit(this.subscription, "message", item.message);
    }
    if (this.#isHeldUp && this.hasRoom) this.#roomAgain();
  }

  /**
   * An iteration has ended. If it was the last one and there are listeners, the messages that wait are dropped:
   * listeners have had them.
   *
   * @param {object} reader
   */
  readerLeft(reader) {
    for (const { taken } of this.#waiters.filter((waiter) => waiter.reader === reader)) taken.resolve(null);
    this.#waiters = this.#waiters.filter((waiter) => waiter.reader !== reader);
    this.readers -= 1;
    if (this.readers > 0) return;
    if (!this.#isListened || this.isOver) return;
    this.#items = [];
    this.#first = 0;
    this.position = this.seen;
    if (this.#isHeldUp) this.#roomAgain();
  }

  /** @param {QwsError | null} error `null` if the application asked for it */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.behind = null;
    this.ready.reject(error ?? new QwsError("closed", "unsubscribed before the server answered"));
    const [first, ...others] = this.#waiters.splice(0);
    if (error && first) first.taken.reject(error);
    else {
      first?.taken.resolve(null);
      this.#error = error;
    }
    for (const { taken } of others) taken.resolve(null);
    emit(this.subscription, "end", error);
  }
}
