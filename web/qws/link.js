// One connection, from `handshake` to its end: requests with their ids, replies, and what ends it. Knows the carrier
// only as a transport, and nothing of reconnects or subscriptions. Made by `dial.js` for each connection.

import { CLOSE_FOLLOWS_MS, CONNECT_MS, MAX_FIRST_BYTES } from "./carrier.js";
import { inflate, isCompressed } from "./compression.js";
import { Deferred, failed } from "./deferred.js";
import { asError, MAY_RECONNECT, mayReconnect, QwsError, textOf } from "./errors.js";
import { decodeBody, encodeBody, isLonger } from "./frames.js";
import { Pace } from "./pace.js";
import { Routes } from "./routes.js";
import { cut } from "./text.js";
import { Timers } from "./timers.js";

/** @import { Call } from "./calls.js" */
/** @import { End, Source, Transport } from "./carrier.js" */
/** @import { Body, Json, Reply } from "./frames.js" */

/**
 * The second connection of a link's session (`bulk.js`).
 *
 * @typedef {object} Second
 * @property {number | null} number of its lane, once it is known
 * @property {() => void} heard
 * @property {(heard: Reply) => void} greeted
 * @property {(timestamp: number | undefined) => void} pong
 * @property {() => void} end
 */

/** How long the other side may take to end a connection after a `close` or a refusal. */
const GOODBYE_MS = 2_000;

/** One connection, from `handshake` to its end. */
export class Link {
  /** @type {string | null} */
  id = null;
  /** @type {string | null} */
  user = null;
  /** @type {string | null} */
  name = null;
  /** @type {string | null} */
  serverName = null;
  /** @type {import("../qws.js").Limits | null} */
  limits = null;
  /** @type {import("../qws.js").Permissions | null} */
  permissions = null;
  /** The user's own topic. @type {string | null} */
  inbox = null;
  /** What others see about the user. @type {unknown} */
  info = null;
  /** The secret by which the next connection shows that it continues this one. @type {string | null} */
  session = null;
  /** Subscriptions that the server makes by itself, and has not announced yet. @type {Set<string>} */
  announced = new Set();
  /** Unanswered requests by id. @type {Map<unknown, Call>} */
  calls = new Map();
  /** Those of them that other clients answer, in the order in which they were sent. @type {Set<Call>} */
  asks = new Set();
  /** Number of those that the server has read. */
  takenAsks = 0;
  /** Whether a ping is under way that shows which of them it has read. */
  isProbing = false;
  /** Requests of others that this client has not answered yet. @type {Map<string, AbortController>} */
  served = new Map();
  /** Requests of subscriptions, in order: they go before other requests. @type {Call[]} */
  orders = [];
  /** The paces of `orders` and of all other requests: too many topics hold up no message, and vice versa. */
  orderPace = new Pace();
  requestPace = new Pace();
  routes = new Routes(this);
  heardAt = performance.now();
  /** When the page or the network came back: silence after that is no fault of the carrier. */
  doubtedAt = 0;
  isOver = false;
  /** Whether subscriptions for the second connection wait until it is open. */
  awaitsBulk = false;
  /** Resolved once messages of other clients are taken from this connection. @type {Deferred<void>} */
  inUse = new Deferred();
  /** Whether messages of other clients are no longer taken from this connection. */
  isDrained = false;

  #handlers;
  #nextId = 1;
  /** Set until the server has answered `handshake`. @type {Deferred<void> | null} */
  #greeting = new Deferred();
  /** Why the handshake failed, if that is known. @type {QwsError | null} */
  #refusal = null;
  /** The first end announced by either side. @type {End | null} */
  #lastWord = null;
  /** Whether the server may compress what it sends. */
  #isCompressing = false;
  /** What is handled where a body had to be inflated: the next ones wait. @type {Map<Source, Promise<void>>} */
  #handling = new Map();
  #timers = new Timers();
  #isAwaitingRoom = false;
  #waits = 0;

  /**
   * @param {Transport} transport
   * @param {object} handlers
   * @param {(heard: Reply, source: Source) => Promise<void> | void} handlers.hear
   * @param {() => void} handlers.greeted the server has accepted the client
   * @param {(end: End) => void} handlers.ended
   */
  constructor(transport, handlers) {
    this.transport = transport;
    this.#handlers = handlers;
    transport.start({
      body: (body, source) => this.#hear(body, source),
      end: (end) => this.end(end),
      fail: (error) => this.#fail(error),
      isBound: (lane) => this.routes.isBound(lane),
    });
  }

  /**
   * @param {string | undefined} name
   * @param {Promise<string | undefined>} token
   * @param {Json} [hello] further fields of `handshake`
   * @returns {Promise<void>} rejected if the server does not accept this client
   */
  shakeHands(name, token, hello = {}) {
    const greeting = this.#greeting;
    if (!greeting || this.isOver) return failed(this.#refusalFor(this.#lastWord));
    const show = (/** @type {string | undefined} */ shown) => {
      if (this.isOver) return;
      const named = { protocol_version: "1.0", client_name: name, token: shown };
      const handshake = { type: "handshake", id: 0, ...named, ...hello };
      this.transport.send(encodeBody(handshake));
      const silent = { code: 1006, reason: "the server does not answer" };
      this.#timers.set("handshake", CONNECT_MS, () => this.end(silent, true));
    };
    this.inTime(token).then(show, (cause) => {
      this.#refusal ??= new QwsError("transport", `token: ${textOf(cause)}`, { cause });
      this.end({ code: 1006, reason: "" });
    });
    return greeting.promise;
  }

  /**
   * The token that the function returns, if it does so in time; never settled if the connection ends before.
   *
   * @template Value
   * @param {Promise<Value>} promise
   * @returns {Promise<Value>}
   */
  inTime(promise) {
    const name = `wait ${(this.#waits += 1)}`;
    return new Promise((resolve, reject) => {
      const late = new Error(`the token function returned nothing within ${CONNECT_MS} ms`);
      this.#timers.set(name, CONNECT_MS, () => reject(late));
      promise.then(resolve, reject).finally(() => this.#timers.clear(name));
    });
  }

  /** @param {End | null} end */
  #refusalFor(end) {
    if (this.#refusal?.kind === "request") return this.#refusal;
    const code = end?.code ?? 1006;
    const { message, cause, retryAfterMs = end?.reconnectAfterMs } = this.#refusal ?? {};
    const reason = message || end?.reason || "the connection was lost before the server answered";
    // 4429 before the server has answered: too many connections from this address, which passes.
    const passes = mayReconnect(code) || code === 4429;
    return new QwsError(passes ? "transport" : "closed", reason, { code, retryAfterMs, cause });
  }

  /** @param {Reply} heard */
  #greeted({ json }) {
    if (json.type === "error") {
      // The server would accept another handshake, but this client would send the same one.
      const { code, message, retry_after_ms: retryAfterMs } = json;
      const isFull = code === 429;
      this.#refusal = new QwsError(isFull ? "transport" : "request", String(message), { code, retryAfterMs });
      this.#timers.set("handshake", CLOSE_FOLLOWS_MS, () => this.end({ code: isFull ? 4429 : 1000, reason: "" }));
    } else if (json.type === "handshake_response" && json.accepted === true) {
      this.#timers.clear("handshake");
      this.id = json.client_id ?? null;
      this.user = json.user ?? null;
      this.name = json.client_name ?? null;
      this.serverName = json.server_name ?? null;
      this.limits = json.limits ?? null;
      this.permissions = json.permissions ?? null;
      this.inbox = json.inbox ?? null;
      this.info = json.info ?? null;
      this.session = json.session ?? null;
      this.#isCompressing = json.compression === "deflate";
      this.announced = new Set(json.subscriptions ?? []);
      const most = Number(json.limits?.max_message_bytes ?? MAX_FIRST_BYTES);
      // A page of history may contain one message in base64; a page of clients is long whatever the limit.
      this.transport.maxBytes = Math.ceil((most * 4) / 3) + MAX_FIRST_BYTES;
      this.transport.hasRequestLanes = Number(json.limits?.max_request_lanes ?? 0) > 0;
      const greeting = this.#greeting;
      this.#greeting = null;
      // At once: the receiver of what comes right behind has to be in place.
      this.#handlers.greeted();
      greeting?.resolve();
    } else if (json.type === "handshake_response") {
      this.#refusal = new QwsError("closed", String(json.reason ?? "the server refused this client"));
      this.#timers.set("handshake", GOODBYE_MS, () => this.end({ code: 1006, reason: "" }));
    }
  }

  /**
   * A body came on the second connection of this one's session.
   *
   * @param {Body} body
   * @param {Second} second
   */
  hearOn(body, second) {
    second.heard();
    return this.#hear(body, second.number ?? "bulk", second);
  }

  /**
   * @param {Body} body
   * @param {Source} source
   * @param {Second} [second] the second connection, if it came there
   * @returns {Promise<void> | void}
   */
  #hear(body, source, second) {
    const before = this.#handling.get(source);
    if (!before && !isCompressed(body)) return this.#handle(body, source, second);
    const handled = (before ?? Promise.resolve()).then(async () => {
      if (this.isOver) return;
      try {
        if (!isCompressed(body)) return await this.#handle(body, source, second);
        if (!this.#isCompressing) throw new QwsError("protocol", "a body is compressed unasked", { code: 1002 });
        const inflated = await inflate(/** @type {Uint8Array} */ (body), this.transport.maxBytes);
        await this.#handle(inflated, source, second);
      } catch (error) {
        this.#fail(error);
      } finally {
        if (this.#handling.get(source) === handled) this.#handling.delete(source);
      }
    });
    this.#handling.set(source, handled);
    return handled;
  }

  /**
   * @param {Body} body
   * @param {Source} source
   * @param {Second} [second]
   * @returns {Promise<void> | void}
   */
  #handle(body, source, second) {
    if (this.isOver) return;
    if (!second) this.heardAt = performance.now();
    try {
      const heard = decodeBody(body);
      const { type, code, reason, reconnect_after_ms: reconnectAfterMs, timestamp } = heard.json;
      if (second && type === "close") return second.end();
      if (second && type === "ping") return second.pong(timestamp);
      if (second && second.number === null) return second.greeted(heard);
      if (type === "close") {
        // The server has begun to close: closing at once spares it the wait.
        return this.end({ code: Number(code), reason: String(reason ?? ""), reconnectAfterMs });
      }
      if (type === "ping") return this.transport.send(encodeBody({ type: "pong", timestamp }));
      if (this.#greeting) return this.#greeted(heard);
      return this.#handlers.hear(heard, source);
    } catch (error) {
      this.#fail(error);
    }
  }

  /**
   * Sends a request; returns the error if it cannot be sent.
   *
   * @param {Call} call
   * @param {Pace | null} pace the pace it counts for
   * @returns {QwsError | null}
   */
  send(call, pace) {
    const id = this.#nextId++;
    let body;
    try {
      body = encodeBody({ ...call.message, ...call.late(), id }, call.attachment);
    } catch (cause) {
      return new QwsError("usage", `${call.message.type}: not valid JSON: ${String(cause)}`, { cause });
    }
    const most = this.limits?.max_message_bytes ?? Infinity;
    if (isLonger(body, most)) {
      return new QwsError("usage", `${call.message.type}: too long; the server accepts ${most} bytes`, { code: 413 });
    }
    pace?.sent();
    call.pace = pace;
    call.id = id;
    call.link = this;
    call.sentAt = performance.now();
    call.isUnderWay = true;
    this.calls.set(id, call);
    if (call.isAsk) this.asks.add(call);
    this.transport.send(body);
    return null;
  }

  /** Sends a message whose answer does not matter. @param {Json} message */
  tell(message) {
    if (!this.isOver) this.transport.send(encodeBody({ ...message, id: this.#nextId++ }));
  }

  /** The server has read what was sent before a call: requests to other clients hold up nothing. @param {Call} call */
  readUpTo(call) {
    for (const ask of this.asks) {
      if (ask.id >= call.id) break;
      if (ask.isTaken) continue;
      ask.isTaken = true;
      this.takenAsks += 1;
      ask.pace?.forget();
      ask.pace?.served();
    }
  }

  /** The reply came, or is no longer waited for. @param {Call} call */
  forget(call) {
    if (!this.calls.delete(call.id)) return;
    call.isUnderWay = false;
    this.asks.delete(call);
    if (!call.isTaken) return call.pace?.forget();
    this.takenAsks -= 1;
    call.isTaken = false;
  }

  /**
   * @param {number} ms
   * @param {() => void} then
   */
  pumpAfter(ms, then) {
    this.#timers.set("pump", ms, then);
  }

  /** @param {() => void} then */
  whenWritable(then) {
    if (this.#isAwaitingRoom) return;
    this.#isAwaitingRoom = true;
    void this.transport.drained().then(() => {
      this.#isAwaitingRoom = false;
      if (!this.isOver) then();
    });
  }

  /** Takes all unanswered requests, in their order. */
  takeCalls() {
    const calls = [...this.calls.values(), ...this.orders];
    this.calls.clear();
    this.asks.clear();
    this.orders = [];
    return calls;
  }

  /**
   * Asks the server to close the connection, which it does after its replies to earlier requests.
   *
   * @param {number} code
   * @param {string} reason
   */
  sayGoodbye(code, reason) {
    this.#lastWord = { code, reason };
    this.transport.send(encodeBody({ type: "close", code, reason }));
    this.#timers.set("goodbye", GOODBYE_MS, () => this.end({ code, reason }, true));
  }

  /** The server has violated the protocol. @param {unknown} cause */
  #fail(cause) {
    const error = asError(cause, "protocol");
    const code = error.code ?? 1002;
    if (!this.isOver) this.transport.send(encodeBody({ type: "close", code, reason: cut(error.message) }));
    this.#refusal ??= error;
    this.end({ code, reason: error.message });
  }

  /**
   * @param {End} end
   * @param {boolean} [isSilent] whether the other side no longer responds
   */
  end(end, isSilent = false) {
    if (this.isOver) return;
    this.isOver = true;
    this.#lastWord ??= end;
    this.#timers.clearAll();
    this.transport.close(MAY_RECONNECT.has(end.code) ? 1000 : end.code, cut(end.reason), isSilent);
    this.inUse.resolve();
    const greeting = this.#greeting;
    this.#greeting = null;
    greeting?.reject(this.#refusalFor(end));
    this.#handlers.ended(end);
  }
}
