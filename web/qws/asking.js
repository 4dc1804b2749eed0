// Asks each connection's server for subscriptions, to end them, and to pause; and handles the answers.
// Knows entries, and links by their orders and routes; never a carrier. Called by subscriptions.

import { Call, enqueue } from "./calls.js";
import { Entry } from "./entry.js";
import { PASSING, QwsError } from "./errors.js";
import { later } from "./timers.js";

/** @import { Connection } from "./connection.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */
/** @import { Binding } from "./routes.js" */

/** What the server is asked for, by the subscriptions of one client. */
export class Asking {
  #entries;
  #connection;
  #requests;
  #begun;

  /**
   * @param {Map<string, Entry>} entries by their text
   * @param {Connection} connection
   * @param {Requests} requests
   * @param {(entry: Entry) => void} begun called when the server has accepted one, again after a reconnect or a pause
   */
  constructor(entries, connection, requests, begun) {
    this.#entries = entries;
    this.#connection = connection;
    this.#requests = requests;
    this.#begun = begun;
  }

  get #current() {
    return this.#connection.link;
  }

  /**
   * Asks a connection's server for a subscription, unless it has been asked or the subscription has to wait.
   *
   * @param {Link} link
   * @param {Entry} entry
   */
  ask(link, entry) {
    if (link.isOver || entry.isPaused || entry.isOver) return;
    if (entry.binding?.link === link || entry.next?.link === link) return;
    // One subscription to a text at a time: ask once the server has released it, or another connection has answered.
    if (link.routes.leaving.has(entry.topic) || entry.binding?.stage === "asked") return;
    if (entry.binding?.stage === "leaving") return;
    if (entry.options.lane === "bulk" && link.awaitsBulk) return;
    if (link.announced.has(entry.topic)) return this.#expect(link, entry);
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

  /**
   * The server makes this subscription by itself. What the application has asked for takes its place.
   *
   * @param {Link} link
   * @param {Entry} entry
   */
  #expect(link, entry) {
    link.announced.delete(entry.topic);
    const binding = link.routes.bind(entry);
    binding.isAnnounced = true;
    if (!entry.isServerMade) return this.release(binding, () => {});
    if (entry.binding) entry.moveTo(binding);
    else entry.binding = binding;
  }

  /**
   * The server has made a subscription (`subscribed` with `"by":"server"`).
   *
   * @param {Link} link
   * @param {Json} json
   */
  announced(link, json) {
    link.announced.delete(json.topic);
    const entry = this.#entries.get(json.topic);
    if (entry && !entry.binding && entry.isServerMade) {
      entry.binding = link.routes.bind(entry);
      entry.binding.isAnnounced = true;
    }
    const bindings = [entry?.binding, entry?.next];
    const binding = bindings.find((one) => one?.link === link && one.isAnnounced && one.stage === "asked");
    if (binding) this.#answered(binding, json);
  }

  /** Ends a subscription of the server's that the application declines. @param {Link} link @param {string} topic */
  decline(link, topic) {
    link.announced.delete(topic);
    this.release(link.routes.bind(new Entry(topic, {})), () => {});
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
    if (!isDistinct) return this.release(binding, () => entry.unbind(link));
    const old = entry.next === binding ? entry.binding : null;
    entry.answered(binding, reply, asked);
    if (asked?.state) entry.knownState = asked.state.text;
    this.#begun(entry);
    if (!old) {
      // Asked on a connection that was left since.
      if (link !== this.#current && this.#current) this.ask(this.#current, entry);
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
      if (this.#current) this.ask(this.#current, entry);
    } else if (entry.opened && PASSING.has(error.code ?? 0)) {
      const wait = error.retryAfterMs ?? entry.backoff.next();
      entry.timer = later(wait, () => this.#current && this.ask(this.#current, entry));
    } else if (entry.canAskForLess(asked, error)) {
      if (this.#current) this.ask(this.#current, entry);
    } else {
      this.forget(entry);
      entry.end(error);
    }
  }

  /** @param {Entry} entry */
  forget(entry) {
    if (this.#entries.get(entry.topic) === entry) this.#entries.delete(entry.topic);
    for (const binding of [entry.binding, entry.next]) if (binding) binding.link.routes.unbind(binding);
  }

  /**
   * Asks a connection's server to end a subscription; `done` is called once it has ended there.
   *
   * @param {Binding} binding
   * @param {(error: QwsError | null) => void} done
   * @param {boolean} [forget] whether its durable consumer ends as well
   */
  release(binding, done, forget = false) {
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
      if (waiting && this.#current) this.ask(this.#current, waiting);
    });
    call.isOrder = true;
    enqueue(link.orders, call);
    this.#requests.pump(link);
  }

  /**
   * Asks the server to stop, and later to continue after the last message seen.
   *
   * @param {Entry} entry
   */
  pause(entry) {
    if (entry.isPaused) return;
    entry.isPaused = true;
    for (const binding of [entry.next, entry.binding]) {
      if (!binding) continue;
      this.release(binding, () => {
        entry.unbind(binding.link);
        this.resume(entry);
      });
    }
    entry.next = null;
  }

  /** Ends a pause that is no longer needed. @param {Entry} entry */
  resume(entry) {
    if (!entry.isPaused || entry.binding || !entry.hasRoom) return;
    entry.isPaused = false;
    if (this.#current) this.ask(this.#current, entry);
  }
}
