// The application's subscriptions, and those that the server makes: has the server asked for them, and passes on what
// comes to the one it belongs to. Knows links by their routes, never a carrier. Called by the client, driver,
// `upgrade.js`, inbound and `serving.js`.

import { Asking } from "./asking.js";
import { CatchUp } from "./catch-up.js";
import { entryOf } from "./consumer-entry.js";
import { Deferred, failed, quiet } from "./deferred.js";
import { Entry } from "./entry.js";
import { asError, PASSING, QwsError } from "./errors.js";
import { INTERNAL } from "./events.js";
import { Feed } from "./feed.js";
import { OF_MEMBERS } from "./members.js";
import { problemOf, SUBSCRIBE_OPTIONS, unknownOption } from "./options.js";
import { Roster } from "./roster.js";
import { States } from "./states.js";
import { Subscription } from "./subscription.js";
import { fieldsOf, termsOf } from "./terms.js";

/** @import { SubscribeOptions } from "../qws.js" */
/** @import { Source } from "./carrier.js" */
/** @import { Connection } from "./connection.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */
/** @import { Ack } from "./subscription.js" */
/** @import { Terms } from "./terms.js" */

/**
 * What a client does for its subscriptions.
 *
 * @typedef {object} Actions
 * @property {(topic: string, durable: string) => Ack} ackOf acknowledges messages of a durable consumer
 * @property {(type: string, detail: unknown) => void} tell dispatches an event of the client
 */

/** Most positions in a `handshake`. */
const MAX_POSITIONS = 32;

/** The subscriptions of a client. */
export class Subscriptions {
  /** Subscriptions at the server by their text, in the order in which they were made. @type {Map<string, Entry>} */
  #entries = new Map();
  /** Subscriptions of the server that the application has ended. @type {Set<string>} */
  #declined = new Set();
  #connection;
  #highWaterMark;
  #asking;
  #catchUp;
  #roster;
  #states;
  #actions;

  /**
   * @param {Connection} connection
   * @param {Requests} requests
   * @param {{ highWaterMark: number, maxBackoffMs: number }} settings
   * @param {Actions} actions
   */
  constructor(connection, requests, { highWaterMark, maxBackoffMs }, actions) {
    this.#connection = connection;
    this.#highWaterMark = highWaterMark;
    this.#actions = actions;
    this.#asking = new Asking(this.#entries, connection, requests, (entry) => this.#begun(entry));
    this.#roster = new Roster(requests, maxBackoffMs);
    this.#states = new States(requests, (entry) => this.#ownStateChanged(entry));
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
   */
  subscribe(topic, options) {
    const unknown = unknownOption("subscribe", options, SUBSCRIBE_OPTIONS);
    if (unknown) throw unknown;
    const problem = problemOf(topic, options);
    const isClosed = this.#connection.state === "closed";
    if (problem || isClosed) return this.#refusedAtOnce(topic, options, problem ?? this.#connection.closedError());
    /** @type {Terms} */
    let terms;
    try {
      terms = termsOf(options);
    } catch (error) {
      return this.#refusedAtOnce(topic, options, asError(error));
    }
    const shared = this.#entries.get(topic);
    const clash = shared?.clash(terms);
    if (clash) return this.#refusedAtOnce(topic, options, clash);
    this.#declined.delete(topic);
    const entry = shared ?? this.#make(topic, terms);
    const feed = this.#feedOf(entry, terms);
    if (shared) this.#join(entry, feed);
    else if (this.#current) this.#asking.ask(this.#current, entry);
    return /** @type {Subscription} */ (feed.subscription);
  }

  /** @param {string} topic @param {Terms} terms */
  #make(topic, terms) {
    const entry = entryOf(topic, terms);
    entry.isOwn = (id) => this.#connection.ownIds.includes(id);
    entry.whenOver = () => this.#states.ended(entry);
    this.#entries.set(topic, entry);
    return entry;
  }

  /** @param {Entry} entry @param {Terms} terms */
  #feedOf(entry, terms) {
    const capacity = Math.max(terms.highWaterMark ?? this.#highWaterMark, entry.leastCapacity);
    const feed = new Feed(entry, terms, capacity, () => this.#room(entry, feed));
    feed.subscription = new Subscription(INTERNAL, feed, {
      leave: (forget) => this.#leave(entry, feed, null, forget),
      ack: this.#actions.ackOf(entry.topic, entry.options.durable ?? ""),
      setState: (value) => this.#states.set(entry, value),
    });
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
    const feed = this.#feedOf(entry, { highWaterMark: 1 });
    feed.ready.reject(error);
    queueMicrotask(() => entry.end(error));
    return /** @type {Subscription} */ (feed.subscription);
  }

  /** The handler that answers requests to a topic. @param {string} topic */
  handlerOf(topic) {
    return this.#entries.get(topic)?.options.onRequest ?? null;
  }

  /** The server has accepted a subscription, again after a reconnect or a pause. @param {Entry} entry */
  #begun(entry) {
    for (const feed of entry.feeds) if (feed.behind) void this.#catchUp.run(entry, feed);
    void this.#states.sync(entry);
    void this.#roster.load(entry);
  }

  /** @param {Entry} entry */
  #ownStateChanged(entry) {
    const { id, user = null } = this.#current ?? {};
    const { state } = entry.options;
    const value = state === undefined || state.text === "null" ? undefined : JSON.parse(state.text);
    if (id && entry.members?.setOwn({ id, user }, value)) this.#roster.changed(entry);
  }

  /**
   * Passes on what belongs to a topic.
   *
   * @param {Link} link
   * @param {Source} source
   * @param {Reply} heard
   * @returns {Promise<void> | void} if it is a promise, nothing more is to be read there before
   */
  hear(link, source, heard) {
    const { json } = heard;
    const { ownIds } = this.#connection;
    const ofPresence = OF_MEMBERS.includes(json.type);
    // Of these the list of members takes note, and the application needs none.
    const isOwn = ofPresence && (ownIds.includes(json.client?.id) || ownIds.includes(json.was));
    if (typeof json.topic !== "string") throw new QwsError("protocol", `${json.type}: no topic`, { code: 1002 });
    const binding = link.routes.find(source, json, ofPresence);
    if (binding === null) return;
    const { entry } = binding;
    if (binding.stage === "live") {
      // What the server sends by a pattern while the topic itself is paused comes again after the pause.
      const begin = entry.isPattern ? this.#entries.get(json.topic)?.begin : undefined;
      if (json.type === "message" && json.offset > (begin ?? Infinity)) return;
      if (entry.next === binding) return entry.drained.promise.then(() => this.hear(link, source, heard));
      if (entry.binding !== binding) return;
      // What this client published on its connection before is its own as well.
      if (json.type === "message" && entry.options.echo === false && ownIds.includes(json.from)) return;
      for (const feed of entry.deliver(binding, source, heard, isOwn)) this.#filled(entry, feed);
      if (ofPresence) this.#roster.changed(entry);
      return;
    }
    return binding.settled.promise.then(() => this.hear(link, source, heard));
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
    // The connection for bulk has ended: the other one brings the messages.
    if (entry.options.lane === "bulk" && entry.opened && PASSING.has(json.code)) {
      for (const binding of [entry.binding, entry.next]) if (binding?.link === link) link.routes.unbind(binding);
      entry.unbind(link);
      return this.#asking.ask(link, entry);
    }
    const others = [entry.binding, entry.next].filter((binding) => binding && binding.link !== link);
    this.#asking.forget(entry);
    entry.end(new QwsError("request", String(json.reason ?? "unsubscribed"), { code: json.code }));
    // While the client moves, the other connection has it as well.
    for (const binding of others) if (binding) this.#asking.release(binding, () => {});
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
    for (const entry of inOrder) {
      if (!entry.isServerMade || link.announced.has(entry.topic)) this.#asking.ask(link, entry);
      else if (entry.binding?.link !== link && !this.#connection.left.has(link)) this.#notRenewed(entry);
    }
    for (const topic of this.#declined) if (link.announced.has(topic)) this.#asking.decline(link, topic);
  }

  /** Positions of what the server makes by itself, for the next `handshake`. */
  get positions() {
    /** @type {Record<string, import("../qws.js").Position>} */
    const positions = {};
    for (const { isServerMade, isPattern, topic, seen } of this.#entries.values()) {
      if (isServerMade && !isPattern && seen) positions[topic] = { epoch: seen.epoch, offset: seen.offset };
    }
    const all = Object.entries(positions).slice(0, MAX_POSITIONS);
    return all.length === 0 ? undefined : Object.fromEntries(all);
  }

  /**
   * The server has made a subscription by itself.
   *
   * @param {Link} link
   * @param {Json} json
   */
  announced(link, json) {
    const { topic } = json;
    if (json.by !== "server" || typeof topic !== "string") return;
    if (this.#declined.has(topic)) {
      if (!link.routes.leaving.has(topic)) this.#asking.decline(link, topic);
      return;
    }
    if (this.#entries.has(topic)) return this.#asking.announced(link, json);
    const entry = this.#make(topic, {});
    entry.isServerMade = true;
    const { subscription } = this.#feedOf(entry, {});
    // Its first listeners come before its first message.
    this.#actions.tell("subscription", subscription);
    this.#asking.announced(link, json);
  }

  /** @param {Entry} entry */
  #notRenewed(entry) {
    this.#asking.forget(entry);
    entry.end(new QwsError("request", "the server does not make this subscription any more", { code: 403 }));
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
    this.#roster.stop();
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
      // Requests would find no handler. That members are still told of does no harm.
      const isAnswering = entry.options.onRequest !== undefined;
      entry.settleTerms();
      if (isAnswering && !entry.options.onRequest && entry.binding && !entry.isPattern) this.#asking.pause(entry);
      return Promise.resolve();
    }
    if (entry.isServerMade) this.#declined.add(entry.topic);
    const bindings = [entry.binding, entry.next].filter((binding) => binding !== null);
    this.#asking.forget(entry);
    entry.end(error);
    /** @type {Deferred<void>} */
    const left = new Deferred();
    let open = bindings.length;
    if (open === 0) left.resolve();
    const done = (/** @type {QwsError | null} */ refused) => {
      if (forget && refused) left.reject(refused);
      else if (--open === 0) left.resolve();
    };
    for (const binding of bindings) this.#asking.release(binding, done, forget);
    return quiet(left.promise);
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
    else this.#asking.pause(entry);
  }

  /** A reader may have room again. @param {Entry} entry @param {Feed} feed */
  #room(entry, feed) {
    if (feed.behind) void this.#catchUp.run(entry, feed);
    this.#asking.resume(entry);
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
    // The application wants it, whatever the server makes by itself on the next connection.
    entry.isServerMade = false;
    const order = entry.binding?.order;
    const isUnsent = order && entry.binding?.link.orders.includes(order);
    const hadMembers = entry.members !== null;
    if (entry.settleTerms()) {
      entry.asker ??= feed;
      if (isUnsent) order.message = { ...order.message, ...fieldsOf(entry.options) };
      // Ask again after the last message seen, so that nothing is lost.
      else if (entry.binding) this.#asking.pause(entry);
    }
    if (!hadMembers && entry.binding?.stage === "live") void this.#roster.load(entry);
    if (feed.options.state) entry.options.state = feed.options.state;
    void this.#states.sync(entry);
    this.#asking.resume(entry);
    if (entry.binding?.stage === "live" && entry.opened) entry.admit(feed);
    if (feed.behind) void this.#catchUp.run(entry, feed);
  }
}
