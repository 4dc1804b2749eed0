// Requests from the application's call to their result: they wait for a connection, for room on it, or for their turn
// after an `error` 429, and are repeated if their reply was lost and that is safe. Knows links, never what a request is
// for. Called by the client, subscriptions, heartbeat, driver and inbound.

import { Call, enqueue } from "./calls.js";
import { Deferred, failed, quiet } from "./deferred.js";
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
/** Most requests to other clients that are open at once, if the server does not say. */
const MAX_ASKS = 256;
/** How long the server's word that a request to another client got no reply in time may take. */
const LAST_WORD_MS = 1_000;
/** Shortest time that a request to another client may have. */
const LEAST_ASK_MS = 100;

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
   * @param {{ attachment?: Uint8Array, again?: boolean }} how `again`: whether it may be repeated
   * @param {(reply: Reply, call: Call) => Result} read
   * @returns {Promise<Result>}
   */
  request(message, { attachment, again = false }, read) {
    if (this.#connection.state === "closed") return failed(this.#connection.closedError());
    const { call, result } = this.#callOf(message, attachment, again, read);
    this.#begin(call, this.#timeoutMs);
    return result.promise;
  }

  /**
   * Asks another client. Its answer may take long, and holds up no other request.
   *
   * @template Result
   * @param {Json} message
   * @param {{ attachment?: Uint8Array, timeoutMs: number, signal?: AbortSignal }} how
   * @param {(reply: Reply, call: Call) => Result} read
   * @returns {Promise<Result>}
   */
  ask(message, { attachment, timeoutMs, signal }, read) {
    if (this.#connection.state === "closed") return failed(this.#connection.closedError());
    if (signal?.aborted) return failed(signal.reason);
    const { call, result } = this.#callOf(message, attachment, false, read);
    call.isAsk = true;
    const until = performance.now() + timeoutMs;
    call.late = () => ({ timeout_ms: Math.max(LEAST_ASK_MS, Math.floor(until - performance.now())) });
    const abort = () => {
      this.#giveUpOn(call);
      result.reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    quiet(result.promise).finally(() => signal?.removeEventListener("abort", abort)).catch(() => {});
    this.#begin(call, timeoutMs + LAST_WORD_MS);
    return result.promise;
  }

  /**
   * Answers a request of another client, on the connection that brought it.
   *
   * @param {Link} link
   * @param {Json} message
   * @param {Uint8Array | undefined} attachment
   * @returns {Promise<void>}
   */
  reply(link, message, attachment) {
    const { call, result } = this.#callOf(message, attachment, false, () => {});
    call.isOrder = true;
    call.isWanted = () => !link.isOver;
    enqueue(link.orders, call);
    this.pump(link);
    return result.promise;
  }

  /**
   * @template Result
   * @param {Json} message
   * @param {Uint8Array | undefined} attachment
   * @param {boolean} again
   * @param {(reply: Reply, call: Call) => Result} read
   */
  #callOf(message, attachment, again, read) {
    // It may wait, and the caller may reuse the buffer.
    attachment = attachment?.slice();
    /** @type {Deferred<Result>} */
    const result = new Deferred();
    const call = new Call(message, attachment, again, (error, reply) => {
      if (error) return result.reject(error);
      try {
        result.resolve(read(/** @type {Reply} */ (reply), call));
      } catch (cause) {
        if (cause instanceof QwsError) return result.reject(cause);
        result.reject(new QwsError("protocol", `${message.type}: the reply could not be read`, { cause }));
      }
    });
    return { call, result };
  }

  /**
   * @param {Call} call
   * @param {number} within
   */
  #begin(call, within) {
    call.deadline = performance.now() + within;
    if (within !== Infinity) call.timer = later(within, () => this.#timeOut(call, within));
    enqueue(this.#waiting, call);
    const { link } = this.#connection;
    if (link) this.pump(link);
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
    link.readUpTo(call);
    const { isTaken } = call;
    link.forget(call);
    const { type, code, message, retry_after_ms: retryAfterMs } = reply.json;
    if (!isTaken && (type !== "error" || code !== 429)) call.pace?.served();
    if (type !== "error") {
      this.#settle(call, null, reply);
    } else {
      const kind = call.isAsk && code === 504 ? "timeout" : "request";
      const error = new QwsError(kind, String(message), { code, retryAfterMs });
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
    this.#giveUpOn(call);
    const ms = call.isAsk ? within - LAST_WORD_MS : within;
    const code = call.isAsk ? 504 : undefined;
    const late = new QwsError("timeout", `${call.message.type}: no reply within ${ms} ms`, { code });
    this.#settle(call, call.refusal ?? late);
  }

  /** Neither sends a request any more, nor waits for its reply. @param {Call} call */
  #giveUpOn(call) {
    clearTimeout(call.timer);
    const at = this.#waiting.indexOf(call);
    if (at >= 0) this.#waiting.splice(at, 1);
    const { link } = call;
    if (!link?.calls.has(call.id)) return;
    link.forget(call);
    if (call.isAsk) link.tell({ type: "cancel", re: call.id });
    this.#afterReply(link);
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
    const unread = link.calls.size - link.takenAsks;
    const isFull = unread + link.orderPace.refusals + link.requestPace.refusals >= MAX_CALLS;
    const maySendAsk = link.asks.size < Number(link.limits?.max_open_requests ?? MAX_ASKS);
    let wait = Infinity;
    for (const [queue, pace] of queues) {
      const own = queue.length + pace.refusals === 0 ? Infinity : pace.wait(now, isFull);
      if (own > 0 && own < Infinity && queue === waiting) this.#giveUp(queue, now + own, pace);
      if (own === Infinity && queue.length > 0) this.#probe(link);
      // With as many open as there may be, a request to another client lets the others pass.
      const at = maySendAsk ? 0 : queue.findIndex((call) => !call.isAsk);
      const [call] = own > 0 || at < 0 ? [] : queue.splice(at, 1);
      if (call) return { call, pace };
      wait = Math.min(wait, own > 0 ? own : Infinity);
    }
    if (wait < Infinity && link.orders.length + waiting.length > 0) link.pumpAfter(wait, () => this.pump(link));
    return null;
  }

  /** Finds out which requests to other clients the server has read, if they hold up others. @param {Link} link */
  #probe(link) {
    if (link.isProbing || link.asks.size === link.takenAsks) return;
    link.isProbing = true;
    this.send(link, new Call({ type: "ping" }, undefined, false, () => (link.isProbing = false)));
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

  /** A request of another client is over. @param {Link} link */
  answered(link) {
    this.#connection.checkLeft(link);
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
