// `Subscription`, which the application holds: listeners, iteration, position.
// Knows its feed, never a connection. Made by subscriptions.

import { failed } from "./deferred.js";
import { QwsError } from "./errors.js";
import { INTERNAL } from "./events.js";

/** @import { Acked, MessageIterator } from "../qws.js" */
/** @import { Feed } from "./feed.js" */

/** @typedef {{ outcome?: "done" | "retry" | "reject", delayMs?: number }} AckOptions */
/** @typedef {(which: Acked, options: AckOptions) => Promise<number>} Ack acknowledges messages */

/**
 * What subscriptions do for it.
 *
 * @typedef {object} Actions
 * @property {(forget: boolean) => Promise<void>} leave
 * @property {Ack} ack
 * @property {(value: unknown) => Promise<void>} setState
 */

/** The application's handle to a subscription. Several may share one subscription at the server. */
export class Subscription extends EventTarget {
  /** @type {Feed} */
  #feed;
  #actions;
  /**
   * Listeners of "message": while there are any, messages are not kept.
   *
   * @type {{ listener: EventListenerOrEventListenerObject, capture: boolean, call: (event: Event) => void }[]}
   */
  #listeners = [];

  /**
   * @param {symbol} internal
   * @param {Feed} feed
   * @param {Actions} actions
   */
  constructor(internal, feed, actions) {
    super();
    if (internal !== INTERNAL) throw new QwsError("usage", "call client.subscribe() to create a subscription");
    this.#feed = feed;
    this.#actions = actions;
  }

  get topic() {
    return this.#feed.entry.topic;
  }
  get ready() {
    return this.#feed.ready.promise;
  }
  get state() {
    const { isOver, isPaused, opened } = this.#feed;
    if (isOver) return "ended";
    if (isPaused) return "paused";
    return opened ? "active" : "pending";
  }
  get mayPublish() {
    return this.#feed.entry.mayPublish;
  }
  get position() {
    return this.#feed.position;
  }

  get durable() {
    return this.#feed.entry.options.durable ?? null;
  }

  /** The members of the topic, if they are kept and known; `null` otherwise. */
  get members() {
    const { entry, options } = this.#feed;
    return options.members && entry.hasMembers ? (entry.members?.list ?? null) : null;
  }

  /** @param {unknown} state */
  setState(state) {
    return this.#actions.setState(state);
  }

  unsubscribe() {
    return this.#actions.leave(false);
  }

  forget() {
    return this.#unlessDurable("forget") ?? this.#actions.leave(true);
  }

  /** @param {Acked} which */
  ack(which) {
    return this.#unlessDurable("ack") ?? this.#actions.ack(which, {});
  }

  /**
   * @param {Acked} which
   * @param {number} [delayMs]
   */
  retry(which, delayMs) {
    return this.#unlessDurable("retry") ?? this.#actions.ack(which, { outcome: "retry", delayMs });
  }

  /** @param {Acked} which */
  reject(which) {
    return this.#unlessDurable("reject") ?? this.#actions.ack(which, { outcome: "reject" });
  }

  /** @param {string} call @returns {Promise<never> | null} */
  #unlessDurable(call) {
    if (this.durable !== null) return null;
    return failed(new QwsError("usage", `${call}: this subscription has no durable consumer; subscribe with durable`));
  }

  /**
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    const { signal, once = false } = typeof options === "object" && options !== null ? options : {};
    if (type !== "message" || !listener || signal?.aborted) return super.addEventListener(type, listener, options);
    const capture = isCapture(options);
    if (this.#listeners.some((other) => other.listener === listener && other.capture === capture)) return;
    /** @type {(event: Event) => void} */
    const call = (event) => {
      if (once) this.removeEventListener(type, listener, capture);
      if (typeof listener === "function") listener.call(this, event);
      else listener.handleEvent(event);
    };
    this.#listeners.push({ listener, capture, call });
    super.addEventListener(type, call, { ...(typeof options === "object" ? options : {}), capture });
    signal?.addEventListener("abort", () => this.removeEventListener(type, listener, capture), { once: true });
    this.#feed.listened(this.#listeners.length);
  }

  /**
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | EventListenerOptions} [options]
   */
  removeEventListener(type, listener, options) {
    const capture = isCapture(options);
    const at = this.#listeners.findIndex((other) => other.listener === listener && other.capture === capture);
    if (type !== "message" || at < 0) return super.removeEventListener(type, listener, options);
    const [{ call }] = this.#listeners.splice(at, 1);
    super.removeEventListener(type, call, capture);
    this.#feed.listened(this.#listeners.length);
  }

  /** @returns {MessageIterator} */
  [Symbol.asyncIterator]() {
    const feed = this.#feed;
    /** @type {() => IteratorReturnResult<undefined>} */
    const done = () => ({ done: true, value: undefined });
    let isOver = false;
    feed.readers += 1;
    /** @type {MessageIterator} */
    const iterator = {
      next: async () => {
        if (isOver) return done();
        try {
          const message = await feed.take(iterator);
          if (message) return { done: false, value: message };
        } catch (error) {
          leave();
          throw error;
        }
        leave();
        return done();
      },
      return: async () => {
        leave();
        return done();
      },
      throw: async (error) => {
        leave();
        throw error;
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    const leave = () => {
      if (!isOver) feed.readerLeft(iterator);
      isOver = true;
    };
    return iterator;
  }
}

/** @param {boolean | EventListenerOptions | null | undefined} options of a listener */
function isCapture(options) {
  return typeof options === "object" ? options?.capture === true : options === true;
}
