// One subscription at the server: its options, and the position up to which all messages were passed on to its feeds.
// Knows connections only as bindings; sends nothing. Called by subscriptions, `catch-up.js` and routes.

import { Backoff, HELD_MS } from "./backoff.js";
import { Deferred } from "./deferred.js";
import { QwsError } from "./errors.js";
import { emit } from "./events.js";
import { LOG_TOO_SHORT } from "./feed.js";
import { Members, OF_MEMBERS } from "./members.js";
import { copyOf, messageOf } from "./messages.js";
import { Seam } from "./seam.js";
import { clashOf, fieldsOf, isAnotherWish, wantedOf } from "./terms.js";
import { isOffset, isPattern } from "./topics.js";

/** @import { Position, Subscribed } from "../qws.js" */
/** @import { Source } from "./carrier.js" */
/** @import { Feed, Heard } from "./feed.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Binding } from "./routes.js" */
/** @import { Terms } from "./terms.js" */

/** How long an old connection is kept for what is in flight, once there is a better one. */
export const MOVE_MS = 5_000;

/** The reason of a loss that a pattern reports. */
const PATTERN_LOST = "the connection was lost, and a pattern has no position";

/** A subscription at the server, and the subscriptions of the application (feeds) that share it. */
export class Entry {
  /** The feeds that share it. @type {Set<Feed>} */
  feeds = new Set();
  /** The feed whose options are asked for: if the server refuses them, it alone ends. @type {Feed | null} */
  asker = null;
  /** Whether the server has accepted it at least once. */
  opened = false;
  /** Whether the client may publish to the topic, according to the last answer. */
  mayPublish = true;
  /** The server was asked to pause: the reader did not keep up, or the options have changed. */
  isPaused = false;
  isOver = false;
  /** Whether a durable consumer or queue group decides which messages come, and which come again. */
  isConsumer = false;
  isDurable = false;
  /** Room that its feeds need. */
  leastCapacity = 1;
  /** The subscription on the connection in use. @type {Binding | null} */
  binding = null;
  /** The same on the connection to which the client moves. @type {Binding | null} */
  next = null;
  /** Resolved once the old connection brings nothing more. @type {Deferred<void>} */
  drained = new Deferred();
  /** The delay before it is asked for again after a temporary refusal. */
  backoff = new Backoff(HELD_MS);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  /** The position up to which all messages were passed on. @type {Position | null} */
  seen;
  /** The newest offset when the server first accepted it. What is newer comes here, not by a pattern. */
  begin = Infinity;
  /** The topic's members, if a feed wants them. @type {Members | null} */
  members = null;
  /** Whether they have been loaded at least once. */
  hasMembers = false;
  /** This client's state at the server, as JSON, and whether another one is on its way. */
  knownState = "null";
  isSendingState = false;
  /** Whether the server made it by itself, and asks for nothing else. */
  isServerMade = false;
  /** Whether this client has, or had, an id. @type {(id: string) => boolean} */
  isOwn = () => false;
  /** Called when it has ended. */
  whenOver = () => {};

  /**
   * The newest offset when `recent` messages were asked for, set until the first of them has come. Before that the
   * position at which they begin is unknown, because offsets do not always grow by one.
   *
   * @type {number | null}
   */
  #replayEnd = null;
  /** The offset up to which a loss of messages was reported. */
  #reportedLoss = 0;
  /** Whether the server refuses to replay missed messages to this client. */
  #isPositionRefused = false;
  /** For a pattern that moves. @type {Seam | null} */
  #seam = null;

  /**
   * @param {string} topic
   * @param {Terms} options those of its first feed
   */
  constructor(topic, options) {
    this.topic = topic;
    this.options = { ...options };
    if (options.members) this.members = new Members();
    this.isPattern = isPattern(topic);
    this.isDatagram = options.delivery === "datagram";
    this.seen = options.since ? { epoch: options.since.epoch, offset: options.since.offset } : null;
  }

  /** The `subscribe` request. @param {boolean} [onControl] whether it has to use the control lane */
  toAsk(onControl = false) {
    const { since, sinceTime, recent, delivery } = this.options;
    const lane = onControl ? "control" : this.options.lane;
    /** @type {Json} */
    const request = { type: "subscribe", topic: this.topic, delivery, lane, ...fieldsOf(this.options) };
    if (!this.opened) {
      this.asker ??= [...this.feeds][0] ?? null;
      return { ...request, since, since_time: sinceTime, recent };
    }
    // With datagrams the newest message wins: what was missed is of no interest.
    if (this.isDatagram || this.isPattern || this.#isPositionRefused || !this.seen) return request;
    // A replay of which nothing has come is fetched from the history (`answered`).
    return { ...request, since: { epoch: this.seen.epoch, offset: this.#replayEnd ?? this.seen.offset } };
  }

  /** Begins to move to another connection. @param {Binding} next */
  moveTo(next) {
    this.next = next;
    next.isMove = true;
    this.drained = new Deferred();
    if (this.isPattern) this.#seam = new Seam(next);
  }

  /** Completes a move: the old connection brings nothing more. @param {Binding} next */
  switch(next) {
    if (this.next !== next) return;
    this.binding = next;
    this.next = null;
    this.#seam?.close(MOVE_MS);
    this.drained.resolve();
  }

  /** Leaves a connection. @param {Link} link */
  unbind(link) {
    if (this.#seam?.next.link === link) this.#seam = null;
    if (this.next?.link === link) {
      this.next = null;
      this.drained.resolve();
    }
    if (this.binding?.link !== link) return;
    this.binding = null;
    const { next } = this;
    if (!next) return;
    // The old connection has not confirmed that nothing more comes. An answer that is still to come reports the loss.
    const mayMiss = this.isPattern && !this.isDatagram && next.stage === "live" && !next.link.isOver;
    this.switch(next);
    if (!mayMiss) return;
    const lost = { epoch: null, offset: null, recovered: null, reason: PATTERN_LOST };
    for (const feed of [...this.feeds]) emit(feed.subscription, "lost", lost);
  }

  // Its feeds.

  /** Whether a pause may end: several feeds do not wait for each other. */
  get hasRoom() {
    const [only, ...others] = this.feeds;
    return others.length > 0 || only === undefined || only.hasRoom;
  }

  /** The error if a feed with these options cannot share it. @param {Terms} options */
  clash(options) {
    // Without a position, asking again would lose or repeat messages.
    const isFixed = (this.isPattern || this.isDatagram) && this.binding !== null;
    return clashOf(this.topic, this.options, options, isFixed);
  }

  /** Takes what only some feeds want from those that are left. True if the server has to be asked again. */
  settleTerms() {
    const wanted = wantedOf([...this.feeds].map(({ options }) => options));
    const isOther = isAnotherWish(this.options, wanted);
    Object.assign(this.options, wanted);
    this.members = wanted.members ? (this.members ?? new Members()) : null;
    return isOther;
  }

  /** Lets a feed begin with what the server sends next. @param {Feed} feed */
  admit(feed) {
    if (feed.opened || feed.behind) return;
    const seen = this.seen && { epoch: this.seen.epoch, offset: this.#replayEnd ?? this.seen.offset };
    const { epoch = null, offset = null } = this.isPattern ? {} : (seen ?? {});
    feed.open(seen, { epoch, offset, recovered: null });
  }

  /** Ends a feed; the others continue. @param {Feed} feed @param {QwsError | null} error */
  part(feed, error) {
    this.feeds.delete(feed);
    if (this.asker === feed) {
      this.asker = null;
      // The others did not ask for its replay.
      if (!this.opened) this.options.since = this.options.recent = undefined;
      if (!this.opened) this.seen = null;
    }
    feed.end(error);
  }

  /**
   * Decides, after a refusal, whether to ask for less: without a position that may not be replayed, or without the
   * options of one feed, which ends.
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
    this.settleTerms();
    if (this.opened) return true;
    this.asker = first;
    this.options = { ...first.options };
    this.settleTerms();
    this.seen = first.seen;
    first.behind = null;
    return true;
  }

  /**
   * Takes back a feed that has caught up. True if it has no room for more.
   *
   * @param {Feed} feed
   */
  caughtUp(feed) {
    const pending = feed.behind?.pending ?? [];
    feed.behind = null;
    for (const [at, heard] of pending.entries()) {
      if (!feed.hear(heard)) continue;
      if (at === pending.length - 1) return true;
      // The rest counts as passed on and would not come again after a pause, so it comes from the history.
      feed.fallBehind();
      return false;
    }
    return false;
  }

  /**
   * Handles `subscribed`: begins, resumes, or reports a loss.
   *
   * @param {Binding} binding
   * @param {Json} reply
   * @param {Json} [asked] the request
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
      const isOther = this.#compare(reply.epoch, Number(reply.offset), binding.isMove);
      const isNews = isOther || isReplayMissed || reply.offset > this.#reportedLoss;
      // The `recent` messages follow; the first of them shows where they begin.
      const isReplayed = !renewed && (this.options.recent ?? 0) > 0 && (!hadSeen || isOther) && reply.offset > 0;
      if (isReplayed) {
        this.seen = { epoch: reply.epoch, offset: 0 };
        this.#replayEnd = Number(reply.offset);
      }
      if (reply.recovered !== true) {
        if (hadSeen && isNews && !(this.isDatagram && renewed)) lost = LOG_TOO_SHORT;
        this.#reportedLoss = reply.offset;
      }
      if (this.#isPositionRefused && lost) {
        lost = "this client may not read the topic's history";
        // An old connection may have brought more since.
        this.#passed({ epoch: reply.epoch, offset: Math.max(Number(reply.offset), this.seen?.offset ?? 0) });
      }
    } else if (renewed && !moves && !this.isDatagram) {
      lost = PATTERN_LOST;
    }
    const { asker } = this;
    this.asker = null;
    for (const feed of this.feeds) {
      if (feed.behind) {
        // This feed finds out from the topic's history.
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

  /** Continues after a position. What a replay up to there has not brought, feeds fetch. @param {Position} position */
  #continueAt(position) {
    if (!this.seen || this.seen.epoch !== position.epoch || this.seen.offset >= position.offset) return;
    this.seen = position;
    this.#replayEnd = null;
    for (const feed of this.feeds) feed.fetchUpTo(position);
  }

  /**
   * Compares the position with the log. True if the log was started again, or has lost messages that were seen: then
   * offsets are assigned again.
   *
   * @param {string} epoch
   * @param {number} newest
   * @param {boolean} isMove whether an old connection may have brought more since
   */
  #compare(epoch, newest, isMove) {
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
    if (newest >= seen.offset || isMove) return false;
    this.#passed({ epoch, offset: newest });
    return true;
  }

  /** Counts all messages up to a position as passed on. @param {Position} position */
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
   * Passes a message on, unless it has come before. Returns the feeds that have no room for more.
   *
   * @param {Binding} binding
   * @param {Source} source
   * @param {Reply} heard
   * @param {boolean} [isOwn] whether it is about this client itself as a member
   * @returns {readonly Feed[]}
   */
  deliver(binding, source, heard, isOwn = false) {
    const { json, text, bytes } = heard;
    if (this.isOver) return NONE;
    const { type, topic } = json;
    if (OF_MEMBERS.includes(type)) {
      const { type: _type, ...detail } = json;
      this.members?.apply(json);
      if (isOwn) return NONE;
      for (const feed of [...this.feeds]) if (feed.options.presence) emit(feed.subscription, type, detail);
      return NONE;
    }
    // It may include messages that came as datagrams, and what was missed is of no interest.
    if (type === "gap" && this.isDatagram) return NONE;
    const [first, last] = type === "gap" ? [json.first, json.last] : [json.offset, json.offset];
    if (!isOffset(first) || !isOffset(last)) throw new QwsError("protocol", `${type}: no offset`, { code: 1002 });
    if (typeof source === "number" && binding.isStraggler(first, last)) return NONE;
    if (this.#isPassed(binding, topic, last)) return NONE;
    this.#replayEnd = null;
    const position = this.seen && { epoch: this.seen.epoch, offset: last };
    if (type === "gap") {
      // If a part of the gap was reported before, only the rest.
      const from = this.seen ? Math.max(first, this.seen.offset + 1) : first;
      if (position) this.seen = position;
      return this.passOn({ message: null, gap: { first: from, last, json }, position });
    }
    // A loss after this message is another one.
    this.#reportedLoss = 0;
    if (position) this.seen = position;
    if (this.next) this.#seam?.brought(topic, last);
    return this.passOn({ message: messageOf(json, bytes, text), position });
  }

  /** @param {Heard} heard @returns {readonly Feed[]} */
  passOn(heard) {
    if (this.feeds.size === 1) {
      const [only] = this.feeds;
      return only.hear(heard) ? [only] : NONE;
    }
    // Each gets its own copy of the message: the application may change it.
    const copy = () => ({ ...heard, message: heard.message && copyOf(heard.message) });
    return [...this.feeds].filter((feed) => feed.hear(copy()));
  }

  /**
   * Whether a message was passed on before.
   *
   * @param {Binding} binding
   * @param {string} topic
   * @param {number} offset
   */
  #isPassed(binding, topic, offset) {
    if (this.seen) return offset <= this.seen.offset;
    if (this.#seam?.next !== binding) return false;
    if (this.#seam.isOver) this.#seam = null;
    return this.#seam?.isRepeated(topic, offset) ?? false;
  }

  /** @param {QwsError | null} error `null` if the application asked for it */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.isPaused = false;
    this.binding = this.next = this.#seam = null;
    this.drained.resolve();
    clearTimeout(this.timer);
    for (const feed of [...this.feeds]) feed.end(error);
    this.whenOver();
  }
}

/** No feed. @type {readonly Feed[]} */
const NONE = [];
