// The application's subscriptions: asks each connection's server for them, and passes on what comes to the one it
// belongs to. Knows links by their orders and routes, never a carrier. Called by the client, driver, `upgrade.js` and
// inbound.

import { Call, enqueue } from "./calls.js";
import { CatchUp } from "./catch-up.js";
import { entryOf } from "./consumer-entry.js";
import { Deferred, failed, quiet } from "./deferred.js";
import { Entry } from "./entry.js";
import { PASSING, QwsError } from "./errors.js";
import { INTERNAL } from "./events.js";
import { Feed } from "./feed.js";
import { problemOf, SUBSCRIBE_OPTIONS, unknownOption } from "./options.js";
import { Subscription } from "./subscription.js";
import { later } from "./timers.js";

/** @import { SubscribeOptions } from "../qws.js" */
/** @import { Source } from "./carrier.js" */
/** @import { Connection } from "./connection.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */
/** @import { Binding } from "./routes.js" */
/** @import { Ack } from "./subscription.js" */

/** The subscriptions of a client. */
export class Subscriptions {
  /** Subscriptions at the server by their text, in the order in which they were made. @type {Map<string, Entry>} */
  #entries = new Map();
  #connection;
  #requests;
  #highWaterMark;
  #catchUp;

  /**
   * @param {Connection} connection
   * @param {Requests} requests
   * @param {{ highWaterMark: number, maxBackoffMs: number }} settings
   */
  constructor(connection, requests, { highWaterMark, maxBackoffMs }) {
    this.#connection = connection;
    this.#requests = requests;
    this.#highWaterMark = highWaterMark;
    this.#catchUp = new CatchUp(requests, maxBackoffMs, {
      filled: (entry, feed) => this.#filled(entry, feed),
      leave: (entry, feed, error) => void this.#leave(entry, feed, error),
    });
  }

  get #current() {
    return this.#connection.link;
  }

  /**
   * @param {string} topic
   * @param {SubscribeOptions} options
   * @param {Ack} ack acknowledges messages of its durable consumer
   */
  subscribe(topic, options, ack) {
    const unknown = unknownOption("subscribe", options, SUBSCRIBE_OPTIONS);
    if (unknown) throw unknown;
    const problem = problemOf(topic, options);
    const isClosed = this.#connection.state === "closed";
    if (problem || isClosed) return this.#refusedAtOnce(topic, options, problem ?? this.#connection.closedError());
    const shared = this.#entries.get(topic);
    const clash = shared?.clash(options);
    if (clash) return this.#refusedAtOnce(topic, options, clash);
    const entry = shared ?? entryOf(topic, options);
    const feed = this.#feedOf(entry, options, ack);
    if (shared) {
      this.#join(entry, feed);
    } else {
      this.#entries.set(topic, entry);
      if (this.#current) this.#ask(this.#current, entry);
    }
    return /** @type {Subscription} */ (feed.subscription);
  }

  /** @param {Entry} entry @param {SubscribeOptions} options @param {Ack} ack */
  #feedOf(entry, options, ack) {
    const capacity = Math.max(options.highWaterMark ?? this.#highWaterMark, entry.leastCapacity);
    const feed = new Feed(entry, options, capacity, () => this.#room(entry, feed));
    const leave = (/** @type {boolean} */ forget) => this.#leave(entry, feed, null, forget);
    feed.subscription = new Subscription(INTERNAL, feed, leave, ack);
    entry.feeds.add(feed);
    return feed;
  }

  /**
   * A subscription that has failed already. Its "end" event comes once the caller has added its listeners.
   *
   * @param {string} topic
   * @param {SubscribeOptions} options
   * @param {QwsError} error
   */
  #refusedAtOnce(topic, options, error) {
    const entry = new Entry(String(topic), { delivery: options.delivery });
    const feed = this.#feedOf(entry, { highWaterMark: 1 }, () => failed(error));
    feed.ready.reject(error);
    queueMicrotask(() => entry.end(error));
    return /** @type {Subscription} */ (feed.subscription);
  }

  /**
   * Passes on what belongs to a topic.
   *
   * @param {Link} link
   * @param {Source} source
   * @param {Json} json
   * @param {Uint8Array} [data]
   * @returns {Promise<void> | void} if it is a promise, nothing more is to be read there before
   */
  hear(link, source, json, data) {
    const ofPresence = json.type === "join" || json.type === "leave";
    if (ofPresence && this.#connection.ownIds.includes(json.client?.id)) return;
    if (typeof json.topic !== "string") throw new QwsError("protocol", `${json.type}: no topic`, { code: 1002 });
    const binding = link.routes.find(source, json, ofPresence);
    if (binding === null) return;
    const { entry } = binding;
    if (binding.stage === "live") {
      // What the server sends by a pattern while the topic itself is paused comes again after the pause.
      const begin = entry.isPattern ? this.#entries.get(json.topic)?.begin : undefined;
      if (json.type === "message" && json.offset > (begin ?? Infinity)) return;
      if (entry.next === binding) return entry.drained.promise.then(() => this.hear(link, source, json, data));
      if (entry.binding !== binding) return;
      for (const feed of entry.deliver(binding, source, json, data)) this.#filled(entry, feed);
      return;
    }
    return binding.settled.promise.then(() => this.hear(link, source, json, data));
  }

  /**
   * The server has ended a subscription (`unsubscribed`).
   *
   * @param {Link} link
   * @param {Json} json
   */
  ended(link, json) {
    const entry = this.#entries.get(json.topic);
    if (!entry || (entry.binding?.link !== link && entry.next?.link !== link)) return;
    // By this client itself, on the connection to which it moves.
    if (entry.isDurable && json.code === 409 && entry.next && entry.next.link !== link) return;
    const others = [entry.binding, entry.next].filter((binding) => binding && binding.link !== link);
    this.#forget(entry);
    entry.end(new QwsError("request", String(json.reason ?? "unsubscribed"), { code: json.code }));
    // While the client moves, the other connection has it as well.
    for (const binding of others) if (binding) this.#release(binding, () => {});
  }

  // Connections come and go.

  /**
   * Asks for all of them: topics before patterns, so that nothing of a topic comes by a pattern on the way.
   *
   * @param {Link} link
   */
  askAll(link) {
    const entries = [...this.#entries.values()];
    const inOrder = [...entries.filter((entry) => !entry.isPattern), ...entries.filter((entry) => entry.isPattern)];
    for (const entry of inOrder) this.#ask(link, entry);
  }

  /** A connection has ended. @param {Link} link */
  unbindAll(link) {
    for (const entry of this.#entries.values()) entry.unbind(link);
  }

  /** Takes back what has not been asked yet on a connection that is being left. @param {Link} old */
  withdrawOrders(old) {
    for (const call of old.orders.splice(0)) {
      const entry = this.#entries.get(call.message.topic);
      if (call.message.type !== "subscribe") old.orders.push(call);
      else if (entry?.binding?.order === call) {
        old.routes.unbind(entry.binding);
        entry.unbind(old);
      }
    }
  }

  /** Whether a connection that was left still has subscriptions. @param {Link} old */
  isMoving(old) {
    return [...this.#entries.values()].some((entry) => entry.binding?.link === old || entry.next !== null);
  }

  /** The client has ended. @param {QwsError | null} error `null` if the application asked for it */
  endAll(error) {
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    for (const entry of entries) entry.end(error);
  }

  stop() {
    this.#catchUp.stop();
  }

  /**
   * Asks a connection's server for a subscription, unless it has been asked or the subscription has to wait.
   *
   * @param {Link} link
   * @param {Entry} entry
   */
  #ask(link, entry) {
    if (link.isOver || entry.isPaused || entry.isOver) return;
    if (entry.binding?.link === link || entry.next?.link === link) return;
    // One subscription to a text at a time: ask once the server has released it, or another connection has answered.
    if (link.routes.leaving.has(entry.topic) || entry.binding?.stage === "asked") return;
    if (entry.binding?.stage === "leaving") return;
    // Only then: reading them ends the session in some browsers.
    if (entry.isDatagram) link.transport.takeDatagrams();
    const binding = link.routes.bind(entry);
    const call = new Call(entry.toAsk(link.routes.isOnControl(entry.topic)), undefined, false, (error, reply) => {
      if (error) this.#refused(binding, error);
      else this.#answered(binding, /** @type {Reply} */ (reply).json);
    });
    call.isOrder = true;
    call.isWanted = () => binding.stage === "asked";
    call.whenPutOff = () => binding.letGo();
    binding.order = call;
    if (entry.binding) entry.moveTo(binding);
    else entry.binding = binding;
    enqueue(link.orders, call);
    this.#requests.pump(link);
  }

  /** @param {Binding} binding @param {Json} reply */
  #answered(binding, reply) {
    const { entry, link } = binding;
    const asked = binding.order?.message;
    binding.order = null;
    if (reply.type !== "subscribed") {
      return this.#refused(binding, new QwsError("protocol", `subscribe: unexpected reply ${reply.type}`));
    }
    const isDistinct = link.routes.answered(binding, reply);
    // Unsubscribed meanwhile, and the server has been asked to.
    if (entry.isOver || binding.stage !== "live") return;
    if (!isDistinct) return this.#release(binding, () => entry.unbind(link));
    const old = entry.next === binding ? entry.binding : null;
    entry.answered(binding, reply, asked);
    for (const feed of entry.feeds) if (feed.behind) void this.#catchUp.run(entry, feed);
    if (!old) {
      // Asked on a connection that was left since.
      if (link !== this.#current && this.#current) this.#ask(this.#current, entry);
    } else if ((entry.isPattern || entry.isConsumer) && !old.link.isOver) {
      // Without a position, what the old connection brings until it confirms the end comes first.
      const left = new Call({ type: "unsubscribe", topic: entry.topic }, undefined, false, () => {
        entry.switch(binding);
        old.link.routes.unbind(old);
        this.#connection.checkLeft(old.link);
      });
      left.isOrder = true;
      enqueue(old.link.orders, left);
      this.#requests.pump(old.link);
    } else {
      entry.switch(binding);
      old.link.routes.unbind(old);
      this.#connection.checkLeft(old.link);
    }
    binding.settled.resolve();
  }

  /** @param {Binding} binding @param {QwsError} error */
  #refused(binding, error) {
    const { entry, link } = binding;
    const asked = binding.order?.message;
    binding.order = null;
    // Unsubscribed meanwhile.
    if (binding.stage === "leaving") return;
    link.routes.unbind(binding);
    const isCurrent = entry.binding === binding || entry.next === binding;
    if (isCurrent) entry.unbind(link);
    binding.settled.resolve();
    // The next connection asks again.
    if (!isCurrent || entry.isOver || error.kind === "closed") return;
    if (error.code === 429 && link !== this.#current) {
      // The connection was left meanwhile for a better one.
      if (this.#current) this.#ask(this.#current, entry);
    } else if (entry.opened && PASSING.has(error.code ?? 0)) {
      const wait = error.retryAfterMs ?? entry.backoff.next();
      entry.timer = later(wait, () => this.#current && this.#ask(this.#current, entry));
    } else if (entry.canAskForLess(asked, error)) {
      if (this.#current) this.#ask(this.#current, entry);
    } else {
      this.#forget(entry);
      entry.end(error);
    }
  }

  /** @param {Entry} entry */
  #forget(entry) {
    if (this.#entries.get(entry.topic) === entry) this.#entries.delete(entry.topic);
    for (const binding of [entry.binding, entry.next]) if (binding) binding.link.routes.unbind(binding);
  }

  /**
   * Ends one of the feeds that share a subscription; the last one ends it at the server.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   * @param {QwsError | null} [error] `null` if the application asked for it
   * @param {boolean} [forget] whether its durable consumer ends as well
   * @returns {Promise<void>}
   */
  #leave(entry, feed, error = null, forget = false) {
    if (forget && (feed.isOver || !entry.binding)) {
      return failed(new QwsError("closed", "forget: not subscribed at the moment, so the server cannot be asked"));
    }
    if (feed.isOver) return Promise.resolve();
    if (entry.feeds.size > 1) {
      entry.part(feed, error);
      return Promise.resolve();
    }
    const bindings = [entry.binding, entry.next].filter((binding) => binding !== null);
    this.#forget(entry);
    entry.end(error);
    /** @type {Deferred<void>} */
    const left = new Deferred();
    let open = bindings.length;
    if (open === 0) left.resolve();
    const done = (/** @type {QwsError | null} */ refused) => {
      if (forget && refused) left.reject(refused);
      else if (--open === 0) left.resolve();
    };
    for (const binding of bindings) this.#release(binding, done, forget);
    return quiet(left.promise);
  }

  /**
   * Asks a connection's server to end a subscription; `done` is called once it has ended there.
   *
   * @param {Binding} binding
   * @param {(error: QwsError | null) => void} done
   * @param {boolean} [forget] whether its durable consumer ends as well
   */
  #release(binding, done, forget = false) {
    const { link, entry } = binding;
    const unsent = binding.order && link.orders.indexOf(binding.order);
    if (typeof unsent === "number" && unsent >= 0) {
      link.orders.splice(unsent, 1);
      link.routes.unbind(binding);
      return done(forget ? new QwsError("closed", "forget: the server had not been asked for it") : null);
    }
    if (link.isOver) return done(forget ? new QwsError("closed", "forget: the connection was lost") : null);
    if (binding.stage === "leaving") {
      binding.settled.promise.then(() => done(null));
      return;
    }
    link.routes.leave(binding);
    const message = { type: "unsubscribe", topic: entry.topic, forget: forget || undefined };
    const call = new Call(message, undefined, false, (error) => {
      link.routes.left(binding);
      binding.settled.resolve();
      done(error);
      const waiting = this.#entries.get(entry.topic);
      if (waiting && this.#current) this.#ask(this.#current, waiting);
    });
    call.isOrder = true;
    enqueue(link.orders, call);
    this.#requests.pump(link);
  }

  /**
   * A reader does not keep up. If it is the only one, the server is asked to pause; otherwise it falls behind the
   * others.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   */
  #filled(entry, feed) {
    if (entry.feeds.size > 1) feed.fallBehind();
    else this.#pause(entry);
  }

  /**
   * Asks the server to stop, and later to continue after the last message seen.
   *
   * @param {Entry} entry
   */
  #pause(entry) {
    if (entry.isPaused) return;
    entry.isPaused = true;
    for (const binding of [entry.next, entry.binding]) {
      if (!binding) continue;
      this.#release(binding, () => {
        entry.unbind(binding.link);
        this.#resume(entry);
      });
    }
    entry.next = null;
  }

  /** A reader may have room again. @param {Entry} entry @param {Feed} feed */
  #room(entry, feed) {
    if (feed.behind) void this.#catchUp.run(entry, feed);
    this.#resume(entry);
  }

  /** Ends a pause that is no longer needed. @param {Entry} entry */
  #resume(entry) {
    if (!entry.isPaused || entry.binding || !entry.hasRoom) return;
    entry.isPaused = false;
    if (this.#current) this.#ask(this.#current, entry);
  }

  // Several subscriptions to one topic.

  /**
   * Another feed shares what the server sends already.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   */
  #join(entry, feed) {
    if (entry.isPaused) for (const other of entry.feeds) if (other !== feed && !other.hasRoom) other.fallBehind();
    const order = entry.binding?.order;
    const isUnsent = order && entry.binding?.link.orders.includes(order);
    if (feed.options.presence && !entry.options.presence) {
      entry.options.presence = true;
      entry.asker ??= feed;
      if (isUnsent) order.message = { ...order.message, presence: true };
      // Ask again after the last message seen, so that nothing is lost.
      else if (entry.binding) this.#pause(entry);
    }
    this.#resume(entry);
    if (entry.binding?.stage === "live" && entry.opened) entry.admit(feed);
    if (feed.behind) void this.#catchUp.run(entry, feed);
  }
}
