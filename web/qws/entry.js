// One subscription at the server: what was asked for, and up to where everything was passed on to its feeds.
// Knows connections only as bindings; sends nothing. Called by the client and by routes.

import { Backoff, HELD_MS } from "./backoff.js";
import { Deferred } from "./deferred.js";
import { QwsError } from "./errors.js";
import { emit } from "./events.js";
import { messageOf } from "./messages.js";
import { isOffset, isPattern } from "./topics.js";

/** @import { Position, SubscribeOptions, Subscribed } from "../qws.js" */
/** @import { Source } from "./carrier.js" */
/** @import { Feed, Heard } from "./feed.js" */
/** @import { Json } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Binding } from "./routes.js" */

/** How long the old connection is kept for what is still on its way, once there is a better one. */
export const MOVE_MS = 5_000;

/**
 * A subscription at the server, and the subscriptions of the application that share it: what was asked for, and what was seen.
 * Knows nothing of connections but which of them it is bound to.
 */
export class Entry {
  /** Those that share it. @type {Set<Feed>} */
  feeds = new Set();
  /** The one whose options are being asked for: if the server refuses them, it alone ends. @type {Feed | null} */
  asker = null;
  /** Whether the server has taken it once. */
  opened = false;
  /** Whether the client may publish there, as the server said last. */
  mayPublish = true;
  /** The server was asked to stop: the reader did not keep up, or something else is to be asked for. */
  isPaused = false;
  isOver = false;
  /** Where it is asked for or comes from. @type {Binding | null} */
  binding = null;
  /** On the connection to which the client moves. @type {Binding | null} */
  next = null;
  /** Resolved once the connection before brings nothing more. @type {Deferred<void>} */
  drained = new Deferred();
  /** The tries since the server refused to take it back. */
  backoff = new Backoff(HELD_MS);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  /** Up to here everything was passed on. @type {Position | null} */
  seen;
  /** The newest offset when the server took it first; what is newer comes here, and by no pattern. */
  begin = Infinity;

  /**
   * The newest offset when the newest messages were asked for, until the first of them has come: only then is it known where
   * they begin, because offsets do not always grow by one.
   *
   * @type {number | null}
   */
  #replayEnd = null;
  /** Up to this offset it was told already that not everything is there. */
  #told = 0;
  /** The server does not allow this client to have replayed what it missed. */
  #isPositionRefused = false;
  /**
   * Of a pattern that moves: what the connection before has brought, which the next one may bring again. Offsets are not
   * compared beyond that: where only patterns follow a topic the server may forget it, and they begin anew.
   *
   * @type {{ next: Binding, offsets: Map<string, number>, until: number } | null}
   */
  #seam = null;

  /**
   * @param {string} topic
   * @param {SubscribeOptions} options of the first one that shares it
   */
  constructor(topic, options) {
    this.topic = topic;
    this.options = { ...options };
    this.isPattern = isPattern(topic);
    this.isDatagram = options.delivery === "datagram";
    this.seen = options.since ? { epoch: options.since.epoch, offset: options.since.offset } : null;
  }

  /** What to ask the server for. @param {boolean} [onControl] whether it has to come on the control lane */
  toAsk(onControl = false) {
    const { since, recent, delivery, presence } = this.options;
    const lane = onControl ? "control" : this.options.lane;
    /** @type {Json} */
    const request = { type: "subscribe", topic: this.topic, delivery, lane, presence };
    if (!this.opened) {
      this.asker ??= [...this.feeds][0] ?? null;
      return { ...request, since, recent };
    }
    // Newest wins: of datagrams, what was missed is of no interest.
    if (this.isDatagram || this.isPattern || this.#isPositionRefused || !this.seen) return request;
    // A replay of which nothing has come is fetched from the history, see `answered`.
    return { ...request, since: { epoch: this.seen.epoch, offset: this.#replayEnd ?? this.seen.offset } };
  }

  /** @param {Binding} next */
  moveTo(next) {
    this.next = next;
    this.drained = new Deferred();
    if (this.isPattern) this.#seam = { next, offsets: new Map(), until: Infinity };
  }

  /** @param {Binding} next which is the one that counts from now on */
  switch(next) {
    if (this.next !== next) return;
    this.binding = next;
    this.next = null;
    if (this.#seam) this.#seam.until = performance.now() + MOVE_MS;
    this.drained.resolve();
  }

  /** @param {Link} link that is no more, or that this is on no more */
  unbind(link) {
    if (this.#seam?.next.link === link) this.#seam = null;
    if (this.next?.link === link) {
      this.next = null;
      this.drained.resolve();
    }
    if (this.binding?.link !== link) return;
    this.binding = null;
    if (this.next) this.switch(this.next);
  }

  // Those that share it.

  /** Whether it may be asked to go on after a pause: several do not wait for each other. */
  get hasRoom() {
    const [only, ...others] = this.feeds;
    return others.length > 0 || only === undefined || only.hasRoom;
  }

  /**
   * Why a subscription with these options cannot share this one.
   *
   * @param {SubscribeOptions} options
   */
  clash({ delivery, lane, presence }) {
    const { options } = this;
    const here = (/** @type {string} */ what, /** @type {unknown} */ value) =>
      new QwsError("usage", `subscribe: ${this.topic} is subscribed to with ${what} ${JSON.stringify(value)} already`, { code: 409 });
    const isSame = (options.delivery ?? "stream") === (delivery ?? "stream");
    if (!isSame) return here("delivery", options.delivery ?? "stream");
    if (lane != null && (options.lane ?? "own") !== lane) return here("lane", options.lane ?? "own");
    // Asking again has no seam without a position.
    const isFixed = (this.isPattern || this.isDatagram) && this.binding !== null;
    if (presence === true && options.presence !== true && isFixed) return here("presence", false);
    return null;
  }

  /** One that shares it begins, at what the server sends next. @param {Feed} feed */
  admit(feed) {
    if (feed.opened || feed.behind) return;
    const seen = this.seen && { epoch: this.seen.epoch, offset: this.#replayEnd ?? this.seen.offset };
    const { epoch = null, offset = null } = this.isPattern ? {} : (seen ?? {});
    feed.open(seen, { epoch, offset, recovered: null });
  }

  /** One that shares it ends, and the others go on. @param {Feed} feed @param {QwsError | null} error */
  part(feed, error) {
    this.feeds.delete(feed);
    if (this.asker === feed) {
      this.asker = null;
      // The others have not asked for its replay.
      if (!this.opened) this.options.since = this.options.recent = undefined;
      if (!this.opened) this.seen = null;
    }
    feed.end(error);
  }

  /**
   * The server has refused it. Whether something else may still be asked for: without a position that it may not have
   * replayed, or for the others without what one of them asked for.
   *
   * @param {Json | undefined} asked
   * @param {QwsError} error
   */
  canAskForLess(asked, error) {
    if (error.code === 403 && this.opened && asked?.since) {
      this.#isPositionRefused = true;
      return true;
    }
    const { asker } = this;
    const { since, recent } = this.options;
    if (!asker && !this.opened && (asked?.since ?? since) !== since) return true;
    if (!asker && !this.opened && (asked?.recent ?? recent) !== recent) return true;
    if (!asker || this.feeds.size < 2) return false;
    this.part(asker, error);
    const [first] = this.feeds;
    const isWanted = [...this.feeds].some(({ options }) => options.presence === true);
    this.options.presence = isWanted ? true : undefined;
    if (this.opened) return true;
    this.asker = first;
    this.options = { ...first.options, presence: this.options.presence };
    this.seen = first.seen;
    first.behind = null;
    return true;
  }

  /**
   * One that was behind has what the others have. Gives those that have no room for more.
   *
   * @param {Feed} feed
   */
  caughtUp(feed) {
    const pending = feed.behind?.pending ?? [];
    feed.behind = null;
    const full = pending.some((heard) => feed.behind === null && feed.hear(heard));
    return full ? [feed] : [];
  }

  /**
   * The server sends from now on.
   *
   * @param {Binding} binding
   * @param {Json} reply
   * @param {Json} [asked] what it answers
   */
  answered(binding, reply, asked) {
    const moves = this.next === binding;
    if (this.#seam?.next !== binding) this.#seam = null;
    const renewed = this.opened;
    this.opened = true;
    if (!renewed && !this.isPattern && !this.isDatagram) this.begin = Number(reply.offset);
    this.backoff.reset();
    this.mayPublish = reply.may_publish !== false;
    /** @type {Subscribed} */
    const subscribed = { epoch: reply.epoch ?? null, offset: reply.offset ?? null, recovered: reply.recovered ?? null };
    let lost = null;
    if (!this.isPattern && typeof reply.epoch === "string") {
      const hadSeen = this.seen !== null;
      const isReplayMissed = this.#replayEnd !== null;
      const isOther = this.#compare(reply.epoch, Number(reply.offset), moves);
      const isNews = isOther || isReplayMissed || reply.offset > this.#told;
      // The newest messages are to come, and how far back they reach shows by the first.
      const isReplayed = !renewed && (this.options.recent ?? 0) > 0 && (!hadSeen || isOther) && reply.offset > 0;
      if (isReplayed) {
        this.seen = { epoch: reply.epoch, offset: 0 };
        this.#replayEnd = Number(reply.offset);
      }
      if (reply.recovered !== true) {
        if (hadSeen && isNews && !(this.isDatagram && renewed)) lost = "the topic's log does not reach back";
        this.#told = reply.offset;
      }
      if (this.#isPositionRefused && lost) {
        lost = "this client may not read the topic's history";
        this.#passed({ epoch: reply.epoch, offset: Number(reply.offset) });
      }
    } else if (renewed && !moves && !this.isDatagram) {
      lost = "the connection was lost meanwhile, and a pattern has no position";
    }
    const { asker } = this;
    this.asker = null;
    for (const feed of this.feeds) {
      if (feed.behind) {
        // The topic's history tells what it has missed.
        if (lost) feed.behind.pending = null;
      } else if (feed.opened || (feed === asker && !renewed)) {
        feed.open(this.#replayEnd === null ? this.seen : null, subscribed);
        if (lost) emit(feed.subscription, "lost", { ...subscribed, reason: reply.reason ?? lost });
        else if (renewed) emit(feed.subscription, "resumed", subscribed);
      } else {
        const { epoch, offset } = subscribed;
        feed.open(epoch === null ? null : { epoch, offset: Number(offset) }, { ...subscribed, recovered: null });
      }
    }
    if (renewed && reply.recovered === true && asked?.since) this.#continueAt(asked.since);
  }

  /**
   * The server goes on behind this position. Where that is the end of a replay that has not come whole, the history has
   * the rest.
   *
   * @param {Position} position
   */
  #continueAt(position) {
    if (!this.seen || this.seen.epoch !== position.epoch || this.seen.offset >= position.offset) return;
    this.seen = position;
    this.#replayEnd = null;
    for (const feed of this.feeds) feed.fetchUpTo(position);
  }

  /**
   * Sets what was seen against what the log is now. True where that is in another life than before, or has lost what was
   * seen: offsets are given anew then.
   *
   * @param {string} epoch
   * @param {number} newest
   * @param {boolean} moves where the connection before has brought more since
   */
  #compare(epoch, newest, moves) {
    const seen = this.seen;
    if (!seen) {
      this.#passed({ epoch, offset: newest });
      return false;
    }
    if (seen.epoch !== epoch) {
      this.#passed({ epoch, offset: 0 });
      this.begin = 0;
      return true;
    }
    if (newest >= seen.offset || moves) return false;
    this.#passed({ epoch, offset: newest });
    return true;
  }

  /** @param {Position} position up to which there is nothing more to pass on */
  #passed(position) {
    this.seen = position;
    this.#replayEnd = null;
    for (const feed of this.feeds) {
      if (!feed.behind) {
        if (feed.opened) feed.passed(position);
      } else if (feed.seen?.epoch === position.epoch && feed.seen.offset > position.offset) {
        feed.seen = position;
      }
    }
  }

  /**
   * Passes on what belongs to it, unless that has been there. Gives those that have no room for more.
   *
   * @param {Binding} binding
   * @param {Source} source
   * @param {Json} json
   * @param {Uint8Array} [data]
   * @returns {readonly Feed[]}
   */
  deliver(binding, source, json, data) {
    if (this.isOver) return NONE;
    const { type, topic } = json;
    if (type === "join" || type === "leave") {
      const detail = { topic, client: json.client };
      for (const feed of [...this.feeds]) if (feed.options.presence) emit(feed.subscription, type, detail);
      return NONE;
    }
    // It may span what came as datagrams, and what was missed is of no interest.
    if (type === "gap" && this.isDatagram) return NONE;
    const [first, last] = type === "gap" ? [json.first, json.last] : [json.offset, json.offset];
    if (!isOffset(first) || !isOffset(last)) throw new QwsError("protocol", `${type}: no offset`, { code: 1002 });
    if (typeof source === "number" && binding.isStraggler(first, last)) return NONE;
    if (this.#isPassed(binding, topic, last)) return NONE;
    this.#replayEnd = null;
    const position = this.seen && { epoch: this.seen.epoch, offset: last };
    if (type === "gap") {
      // Of a gap that was told in part, the rest.
      const from = this.seen ? Math.max(first, this.seen.offset + 1) : first;
      if (position) this.seen = position;
      return this.#passOn({ message: null, gap: { first: from, last, json }, position });
    }
    // What is lost behind it is another loss.
    this.#told = 0;
    if (position) this.seen = position;
    if (this.next) this.#seam?.offsets.set(topic, last);
    return this.#passOn({ message: messageOf(json, data), position });
  }

  /** @param {Heard} heard @returns {readonly Feed[]} */
  #passOn(heard) {
    if (this.feeds.size === 1) {
      const [only] = this.feeds;
      return only.hear(heard) ? [only] : NONE;
    }
    // Each has a message of its own: it may change it.
    const copy = () => ({ ...heard, message: heard.message && { ...heard.message } });
    return [...this.feeds].filter((feed) => feed.hear(copy()));
  }

  /**
   * @param {Binding} binding
   * @param {string} topic
   * @param {number} offset
   */
  #isPassed(binding, topic, offset) {
    if (this.seen) return offset <= this.seen.offset;
    if (this.#seam?.next !== binding) return false;
    if (performance.now() > this.#seam.until) {
      this.#seam = null;
      return false;
    }
    const { offsets } = this.#seam;
    const last = offsets.get(topic) ?? -1;
    if (offset >= last) offsets.delete(topic);
    return offset <= last;
  }

  /** @param {QwsError | null} error `null` where it was asked for */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.isPaused = false;
    this.binding = this.next = this.#seam = null;
    this.drained.resolve();
    clearTimeout(this.timer);
    for (const feed of [...this.feeds]) feed.end(error);
  }
}

/** No subscription. @type {readonly Feed[]} */
const NONE = [];
