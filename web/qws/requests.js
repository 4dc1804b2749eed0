// Requests from the application's call to their result: they wait for a connection, for room on it, or for their turn
// after an `error` 429, and are repeated if their reply was lost and that is safe. Knows links, never what a request is
// for. Called by the client, subscriptions, heartbeat, driver and inbound.

import { Call, enqueue } from "./calls.js";
import { Deferred, failed } from "./deferred.js";
import { QwsError } from "./errors.js";
import { MAX_CALLS } from "./pace.js";
import { later } from "./timers.js";

/** @import { End } from "./carrier.js" */
/** @import { Connection } from "./connection.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Pace } from "./pace.js" */

/** The wait after an `error` 429 that names none. */
const DEFAULT_RETRY_MS = 1_000;
/** Requests that need content. */
const WITH_CONTENT = ["broadcast", "direct", "publish"];

/** The requests of a client. */
export class Requests {
  /** Requests that no connection has taken yet. @type {Call[]} */
  #waiting = [];
  #connection;
  #timeoutMs;

  /**
   * @param {Connection} connection
   * @param {number} timeoutMs
   */
  constructor(connection, timeoutMs) {
    this.#connection = connection;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Sends a request as soon as that is possible, and reads the reply.
   *
   * @template Result
   * @param {Json} message
   * @param {{ attachment?: Uint8Array, content?: unknown, again?: boolean }} how `again`: whether it may be repeated
   * @param {(reply: Reply, call: Call) => Result} read
   * @returns {Promise<Result>}
   */
  request(message, { attachment, content, again = false }, read) {
    if (content instanceof Uint8Array) attachment = content;
    else if (typeof content === "string") message.content = content;
    else if (content !== undefined || WITH_CONTENT.includes(message.type)) {
      return failed(new QwsError("usage", `${message.type}: content must be a string or a Uint8Array`));
    }
    const { state, link } = this.#connection;
    if (state === "closed") return failed(this.#connection.closedError());
    // It may wait, and the caller may reuse the buffer.
    attachment = attachment?.slice();
    /** @type {Deferred<Result>} */
    const result = new Deferred();
    const call = new Call(message, attachment, again, (error, reply) => {
      if (error) return result.reject(error);
      try {
        result.resolve(read(/** @type {Reply} */ (reply), call));
      } catch (cause) {
        result.reject(new QwsError("protocol", `${message.type}: the reply could not be read`, { cause }));
      }
    });
    const within = this.#timeoutMs;
    call.deadline = performance.now() + within;
    if (within !== Infinity) call.timer = later(within, () => this.#timeOut(call, within));
    enqueue(this.#waiting, call);
    if (link) this.pump(link);
    return result.promise;
  }

  /**
   * Sends at once, whatever waits.
   *
   * @param {Link} link
   * @param {Call} call
   * @param {Pace | null} [pace] the pace it counts for
   */
  send(link, call, pace = null) {
    const error = link.send(call, pace);
    if (error) this.#settle(call, error);
  }

  /** Sends what may be sent now. @param {Link} link */
  pump(link) {
    while (!link.isOver) {
      if (!link.transport.writable) {
        link.whenWritable(() => this.pump(link));
        return;
      }
      const next = this.#next(link);
      if (!next) return;
      this.send(link, next.call, next.pace);
    }
  }

  /**
   * A reply came.
   *
   * @param {Link} link
   * @param {Reply} reply
   */
  replied(link, reply) {
    const call = link.calls.get(reply.json.re);
    if (!call) return;
    link.forget(call);
    const { type, code, message, retry_after_ms: retryAfterMs } = reply.json;
    if (type !== "error" || code !== 429) call.pace?.served();
    if (type !== "error") {
      this.#settle(call, null, reply);
    } else {
      const error = new QwsError("request", String(message), { code, retryAfterMs });
      if (code === 429 && call.pace) this.#putOff(link, call, call.pace, error);
      else this.#settle(call, error);
    }
    this.#afterReply(link);
  }

  /**
   * The connection ended without replies to these requests: those that may be repeated wait again, in their order; the
   * others fail.
   *
   * @param {Link} link
   * @param {End} end
   */
  settleLost(link, end) {
    const { closed, closing, link: current } = this.#connection;
    const [again, lost] = [/** @type {Call[]} */ ([]), /** @type {Call[]} */ ([])];
    for (const call of link.takeCalls()) (call.again && !closed && !closing ? again : lost).push(call);
    this.#waiting.unshift(...again);
    const reason = end.reason || "the connection was lost";
    for (const call of lost) this.#settle(call, new QwsError("closed", reason, { code: end.code }));
    if (again.length > 0 && current) this.pump(current);
  }

  /** The client has ended: rejects all that wait. */
  rejectWaiting() {
    for (const call of this.#waiting.splice(0)) this.#settle(call, this.#connection.closedError());
  }

  /**
   * @param {Call} call
   * @param {number} within
   */
  #timeOut(call, within) {
    const at = this.#waiting.indexOf(call);
    if (at >= 0) this.#waiting.splice(at, 1);
    const link = call.link;
    link?.forget(call);
    const refused = call.refusal;
    this.#settle(call, refused ?? new QwsError("timeout", `${call.message.type}: no reply within ${within} ms`));
    if (link) this.#afterReply(link);
  }

  /**
   * @param {Call} call
   * @param {QwsError | null} error
   * @param {Reply} [reply]
   */
  #settle(call, error, reply) {
    clearTimeout(call.timer);
    call.done(error, reply);
  }

  /**
   * Takes the next request that may be sent now. If there is none, the link is pumped again when that changes.
   *
   * @param {Link} link
   * @returns {{ call: Call, pace: Pace } | null}
   */
  #next(link) {
    const now = performance.now();
    const waiting = link === this.#connection.link ? this.#waiting : [];
    /** @type {[Call[], Pace][]} */
    const queues = [[link.orders, link.orderPace], [waiting, link.requestPace]];
    for (const [queue, pace] of queues) if (queue.length === 0) pace.expire(now);
    const isFull = link.calls.size + link.orderPace.refusals + link.requestPace.refusals >= MAX_CALLS;
    let wait = Infinity;
    for (const [queue, pace] of queues) {
      const own = queue.length + pace.refusals === 0 ? Infinity : pace.wait(now, isFull);
      if (own > 0 && own < Infinity && queue === waiting) this.#giveUp(queue, now + own, pace);
      const call = own > 0 ? undefined : queue.shift();
      if (call) return { call, pace };
      wait = Math.min(wait, own);
    }
    if (wait < Infinity && link.orders.length + waiting.length > 0) link.pumpAfter(wait, () => this.pump(link));
    return null;
  }

  /**
   * Rejects requests whose time ends before the server lets them be sent.
   *
   * @param {Call[]} queue oldest first
   * @param {number} at when the next one may be sent
   * @param {Pace} pace
   */
  #giveUp(queue, at, pace) {
    while (queue.length > 0 && queue[0].deadline <= at) {
      const call = /** @type {Call} */ (queue.shift());
      const message = pace.refusal?.message ?? "too many requests";
      const retryAfterMs = Math.ceil(at - performance.now());
      this.#settle(call, call.refusal ?? new QwsError("request", message, { code: 429, retryAfterMs }));
    }
  }

  /** @param {Link} link */
  #afterReply(link) {
    this.pump(link);
    this.#connection.checkLeft(link);
  }

  /**
   * Too many requests (`error` 429): nothing was done. The request returns to its place in the queue, and the queue
   * continues at the time that the server named.
   *
   * @param {Link} link
   * @param {Call} call
   * @param {Pace} pace
   * @param {QwsError} error
   */
  #putOff(link, call, pace, error) {
    const { closed, link: current } = this.#connection;
    const afterMs = Number.isFinite(error.retryAfterMs) ? Number(error.retryAfterMs) : DEFAULT_RETRY_MS;
    const at = performance.now() + afterMs;
    pace.refused(at, error);
    // Another connection is asked for a subscription, but this one has to end its own.
    const isElsewhere = link !== current && call.message.type === "subscribe";
    const isTooLate = call.isOrder ? !call.isWanted() || isElsewhere : at >= call.deadline;
    if (closed || isTooLate) return this.#settle(call, error);
    call.refusal = error;
    call.whenPutOff();
    enqueue(call.isOrder ? link.orders : this.#waiting, call);
  }
}
