// Which subscription a topic's message belongs to, on one connection. Knows entries by their topic and state; reads and
// sends nothing. Each link has one; subscriptions ask it for each message.

import { Deferred } from "./deferred.js";
import { isPattern, matches } from "./topics.js";

/** @import { Call } from "./calls.js" */
/** @import { Source } from "./carrier.js" */
/** @import { Entry } from "./entry.js" */
/** @import { Json } from "./frames.js" */
/** @import { Link } from "./link.js" */

/** Most topics whose lanes on a connection are remembered. */
const MAX_REMEMBERED = 4096;

/** A subscription on one connection. */
export class Binding {
  /** @type {"asked" | "live" | "leaving" | "left"} */
  stage = "asked";
  /** Whether it was asked for while another connection brought the messages. */
  isMove = false;
  /** Whether the server makes it by itself, and announces it. */
  isAnnounced = false;
  /** The topic lane on which its messages come; `null` for the control lane. @type {number | null} */
  lane = null;
  /** Resolved once the server has answered, or the connection has ended. @type {Deferred<void>} */
  settled = new Deferred();
  /** The request that waits for its reply. @type {Call | null} */
  order = null;
  /** The messages of the topic on this lane. @type {Track | null} */
  track = null;

  /**
   * @param {Link} link
   * @param {Entry} entry
   */
  constructor(link, entry) {
    this.link = link;
    this.entry = entry;
  }

  /** Whether the answer may be in flight. */
  get isAsked() {
    return this.stage === "asked" && (this.isAnnounced || (this.order !== null && this.order.isUnderWay));
  }

  /** Makes messages that wait for the answer look for their subscription again. */
  letGo() {
    this.settled.resolve();
    this.settled = new Deferred();
  }

  /** @param {Source} source */
  isOn(source) {
    return source === (this.lane ?? "control") || (source === "datagram" && this.entry.isDatagram);
  }

  /**
   * Whether a message was sent before a pause during which the messages before it were dropped. The server sends all of
   * them again: on a lane the offsets of a topic grow and leave no message out, except where the server starts again,
   * and then it starts right after the last message seen.
   *
   * @param {number} first
   * @param {number} last
   */
  isStraggler(first, last) {
    const { track } = this;
    if (!track) return false;
    const before = track.last;
    track.last = last;
    return first > before && before > (this.entry.seen?.offset ?? Infinity);
  }
}

/**
 * The entry for which a topic came on a lane, and the last offset that did, whether it was passed on or not.
 *
 * @typedef {{ entry: Entry, last: number }} Track
 */

/** The subscriptions on one connection. */
export class Routes {
  /** @type {Map<string, Binding>} */
  #exact = new Map();
  /** In the order in which they were subscribed to. @type {Binding[]} */
  #patterns = [];
  /** Topics that have come on topic lanes, by lane. @type {Map<string, Map<number, Track>>} */
  #tracks = new Map();
  /** Patterns that have come on topic lanes, by lane. @type {Map<number, Set<string>>} */
  #patternsOn = new Map();
  /** Topics that have to use the control lane. @type {Set<string>} */
  #onControl = new Set();
  /** Subscriptions that the server has not ended yet, by their text. @type {Map<string, Binding>} */
  leaving = new Map();

  /** @param {Link} link */
  constructor(link) {
    this.link = link;
  }

  /** @param {Entry} entry */
  bind(entry) {
    const binding = new Binding(this.link, entry);
    if (entry.isPattern) this.#patterns.push(binding);
    else this.#exact.set(entry.topic, binding);
    return binding;
  }

  /** @param {Binding} binding */
  unbind(binding) {
    const { entry } = binding;
    if (this.#exact.get(entry.topic) === binding) this.#exact.delete(entry.topic);
    this.#patterns = this.#patterns.filter((other) => other !== binding);
    if (binding.stage !== "leaving") binding.stage = "left";
  }

  /** Whether a topic has to be asked for on the control lane. @param {string} topic */
  isOnControl(topic) {
    return this.#onControl.has(topic);
  }

  /**
   * Handles `subscribed`. False if the messages cannot be told from earlier ones on the same lane, which were for
   * another subscription to the same topic or a pattern: then the topic has to use the control lane, where messages are
   * in order with the answer.
   *
   * @param {Binding} binding
   * @param {Json} reply
   */
  answered(binding, reply) {
    const { entry } = binding;
    const lane = typeof reply.lane === "number" ? reply.lane : null;
    let isDistinct = true;
    if (lane !== null && entry.isPattern) {
      const patterns = this.#patternsOn.get(lane) ?? new Set();
      this.#patternsOn.set(lane, patterns.add(patterns.size < MAX_REMEMBERED ? entry.topic : ">"));
    } else if (lane !== null && !entry.isDurable) {
      const tracks = this.#tracks.get(entry.topic) ?? new Map();
      const track = tracks.get(lane) ?? { entry, last: 0 };
      // Messages that came by a pattern before the topic was subscribed to are ahead on the lane, and are sent again.
      const { since, recent } = entry.options;
      const isAgain = entry.opened || since != null || recent != null;
      const patterns = [...(this.#patternsOn.get(lane) ?? [])];
      const byPattern = isAgain && patterns.some((pattern) => matches(pattern, entry.topic));
      isDistinct = (track.entry === entry && !byPattern) || this.#onControl.has(entry.topic);
      if (!isDistinct) this.#onControl.add(entry.topic);
      track.entry = entry;
      // After a loss it begins anywhere.
      if (reply.recovered === false) track.last = 0;
      if (this.#tracks.size >= MAX_REMEMBERED) this.#tracks.delete(this.#tracks.keys().next().value ?? "");
      this.#tracks.set(entry.topic, tracks.set(lane, track));
      binding.track = track;
    }
    if (binding.stage !== "asked") return isDistinct;
    binding.stage = "live";
    binding.lane = lane;
    return isDistinct;
  }

  /** Records that the server is asked to end a subscription. @param {Binding} binding */
  leave(binding) {
    binding.letGo();
    this.unbind(binding);
    binding.stage = "leaving";
    this.leaving.set(binding.entry.topic, binding);
  }

  /** Records that the server has ended a subscription. @param {Binding} binding */
  left(binding) {
    binding.stage = "left";
    if (this.leaving.get(binding.entry.topic) === binding) this.leaving.delete(binding.entry.topic);
  }

  /**
   * The subscription that a message belongs to, if it comes on the lane that the answer named; an unanswered one if the
   * message has to wait for the answer; `null` if it belongs to none any more.
   *
   * @param {Source} source
   * @param {Json} json
   * @param {boolean} ofPresence
   */
  find(source, json, ofPresence) {
    const topic = /** @type {string} */ (json.topic);
    // A `gap` of many topics names the pattern itself.
    const named = isPattern(topic) ? this.#patterns.find(({ entry }) => entry.topic === topic) : this.#exact.get(topic);
    // A durable consumer marks its messages, and what patterns bring comes beside them.
    const isMarked = json.type === "message" && typeof json.durable === "string";
    if (isMarked && named?.entry.options.durable !== json.durable) return null;
    const exact = json.type === "message" && named?.entry.isDurable && !isMarked ? undefined : named;
    const isFor = (/** @type {Binding} */ binding) =>
      binding.stage === "live" && binding.isOn(source) && (!ofPresence || Boolean(binding.entry.options.presence));
    if (exact && isFor(exact)) return exact;
    // On the control lane the answer comes first; a datagram waits for nothing.
    const waits = typeof source === "number";
    if (waits) {
      if (exact?.isAsked) return exact;
      if (isMarked) return null;
      const track = this.#tracks.get(topic)?.get(source);
      if (track && (exact || !track.entry.isOver)) {
        if (!ofPresence) track.last = json.last ?? json.offset ?? 0;
        return null;
      }
    } else if (source === "control") {
      // During a pause it is sent again; after an unsubscribe it came for a pattern as well.
      const left = this.leaving.get(topic);
      if (left?.lane === null && !left.entry.isOver) return null;
    }
    if (isMarked) return null;
    const matching = this.#patterns.filter(({ entry }) => matches(entry.topic, topic));
    const pattern = matching.find(isFor);
    if (pattern) return pattern;
    if (!waits) return null;
    return matching.find((binding) => binding.isAsked) ?? null;
  }

  /** Whether messages are expected on a topic lane. @param {number} lane */
  isBound(lane) {
    const all = [...this.#exact.values(), ...this.#patterns];
    return all.some((binding) => binding.stage === "live" && binding.lane === lane);
  }

  /** Ends all subscriptions with the connection, and releases the messages that wait. */
  close() {
    const all = [...this.#exact.values(), ...this.#patterns, ...this.leaving.values()];
    this.#exact.clear();
    this.#patterns = [];
    this.#tracks.clear();
    this.#patternsOn.clear();
    this.leaving.clear();
    for (const binding of all) {
      binding.stage = "left";
      binding.settled.resolve();
    }
  }
}
