// A subscription at the server that takes its messages from a durable consumer or a queue group: the server decides
// what comes, and what comes again. Like its base it knows connections only as bindings. Made by subscriptions.

import { Entry } from "./entry.js";
import { QwsError } from "./errors.js";
import { emit } from "./events.js";
import { LOG_TOO_SHORT } from "./feed.js";
import { messageOf } from "./messages.js";
import { fieldsOf } from "./terms.js";

/** @import { Position, Subscribed } from "../qws.js" */
/** @import { Source } from "./carrier.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Binding } from "./routes.js" */
/** @import { Terms } from "./terms.js" */

/** Most messages that a durable consumer has in flight, if its subscription does not say. */
const MAX_IN_FLIGHT = 1000;

/** The entry that these options need. @param {string} topic @param {Terms} options */
export function entryOf(topic, options) {
  const isPlain = options.durable == null && options.share !== true;
  return isPlain ? new Entry(topic, options) : new ConsumerEntry(topic, options);
}

/** A subscription to a durable consumer or queue group. It has one feed, and no position. */
export class ConsumerEntry extends Entry {
  opened = false;
  /** There is no position. @type {Position | null} */
  seen = null;
  /** The epoch of the log that the server reads. @type {string | null} */
  #epoch = null;

  /**
   * @param {string} topic
   * @param {Terms} options
   */
  constructor(topic, options) {
    super(topic, options);
    this.isConsumer = true;
    this.isDurable = options.durable != null;
    this.leastCapacity = this.isDurable ? (options.maxInFlight ?? MAX_IN_FLIGHT) : 1;
  }

  /** @override @param {boolean} [onControl] */
  toAsk(onControl = false) {
    const { since, sinceTime, recent, ...others } = this.options;
    const { delivery, lane, durable, share, ack, ackWaitMs, maxInFlight, maxDeliver } = others;
    const settings = { ack_wait_ms: ackWaitMs, max_in_flight: maxInFlight, max_deliver: maxDeliver };
    // Once it is there, the server knows where it continues.
    const begin = this.opened ? {} : { since, since_time: sinceTime, recent };
    const where = { type: "subscribe", topic: this.topic, delivery, lane: onControl ? "control" : lane };
    return { ...where, ...fieldsOf(this.options), ...begin, durable, share, ack, ...settings };
  }

  /** @override @param {Link} link */
  unbind(link) {
    const isLost = this.binding?.link === link;
    super.unbind(link);
    // What was not read comes again, perhaps to another client.
    if (isLost && this.isDurable) for (const feed of this.feeds) feed.dropWaiting();
  }

  /** @override */
  clash() {
    const message = `subscribe: this client has a subscription to ${this.topic} already, which cannot be shared`;
    return new QwsError("usage", message, { code: 409 });
  }

  /** @override @param {Binding} _binding @param {Json} reply */
  answered(_binding, reply) {
    const renewed = this.opened;
    this.opened = true;
    this.backoff.reset();
    this.mayPublish = reply.may_publish !== false;
    const { epoch = null, offset = null, recovered = null, acked, pending } = reply;
    const isOther = this.isDurable && this.#epoch !== null && this.#epoch !== epoch;
    this.#epoch = epoch;
    const isLost = renewed ? isOther : recovered === false;
    /** @type {Subscribed} */
    const subscribed = { epoch, offset, recovered, ...(this.isDurable ? { acked, pending } : {}) };
    for (const feed of this.feeds) {
      feed.open(null, subscribed);
      if (isLost) emit(feed.subscription, "lost", { ...subscribed, reason: reply.reason ?? LOG_TOO_SHORT });
      else if (renewed) emit(feed.subscription, "resumed", subscribed);
    }
  }

  /** @override @param {Binding} binding @param {Source} source @param {Reply} heard */
  deliver(binding, source, heard) {
    const { json, text, bytes } = heard;
    const { type, first, last } = json;
    if (type === "gap") return this.passOn({ message: null, gap: { first, last, json }, position: null });
    if (type !== "message" || this.isOver) return super.deliver(binding, source, heard);
    return this.passOn({ message: messageOf(json, bytes, text), position: null });
  }
}
