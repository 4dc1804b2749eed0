// One connection, from `handshake` to its end: requests with their ids, replies, and what ends it.
// Knows the carrier only as a transport, and nothing of reconnects or subscriptions. Made by the client, one for each connection.

import { CLOSE_FOLLOWS_MS, CONNECT_MS, MAX_FIRST_BYTES } from "./carrier.js";
import { Deferred, failed } from "./deferred.js";
import { asError, MAY_RECONNECT, mayReconnect, QwsError, textOf } from "./errors.js";
import { decodeBody, encodeBody, isLonger } from "./frames.js";
import { Pace } from "./pace.js";
import { Routes } from "./routes.js";
import { cut } from "./text.js";
import { Timers } from "./timers.js";

/** @import { Call } from "./calls.js" */
/** @import { End, Source, Transport } from "./carrier.js" */
/** @import { Body, Reply } from "./frames.js" */

/** Once told or asked to end, how long the other side may take for it. */
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
  /** Requests without a reply. @type {Map<unknown, Call>} */
  calls = new Map();
  /** What subscriptions ask of the server, in order: goes before other requests. @type {Call[]} */
  orders = [];
  /** The paces of `orders`, and of all other requests. A topic too many holds up no message, and the other way round. */
  orderPace = new Pace();
  requestPace = new Pace();
  routes = new Routes(this);
  heardAt = performance.now();
  /** When the page or the network came back: silence from then on says nothing of the carrier. */
  doubtedAt = 0;
  isOver = false;
  /** Resolved once what others say is to come from here. @type {Deferred<void>} */
  inUse = new Deferred();
  /** Nothing more of what others say is to come from here. */
  isDrained = false;

  #handlers;
  #nextId = 1;
  /** Until the server has answered `handshake`. @type {Deferred<void> | null} */
  #greeting = new Deferred();
  /** Why the handshake failed, where the server said so. @type {QwsError | null} */
  #refusal = null;
  /** What was said last, by either side. @type {End | null} */
  #lastWord = null;
  #timers = new Timers();
  #isAwaitingRoom = false;
  #waits = 0;

  /**
   * @param {Transport} transport
   * @param {{ hear: (heard: Reply, source: Source) => Promise<void> | void, greeted: () => void, ended: (end: End) => void }} handlers
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
   * @returns {Promise<void>} rejected where the server does not take this client in
   */
  shakeHands(name, token) {
    const greeting = this.#greeting;
    if (!greeting || this.isOver) return failed(this.#refusalFor(this.#lastWord));
    const show = (/** @type {string | undefined} */ shown) => {
      if (this.isOver) return;
      const handshake = { type: "handshake", id: 0, protocol_version: "1.0", client_name: name, token: shown };
      this.transport.send(encodeBody(handshake));
      this.#timers.set("handshake", CONNECT_MS, () => this.end({ code: 1006, reason: "the server does not answer" }, true));
    };
    this.inTime(token).then(show, (cause) => {
      this.#refusal ??= new QwsError("transport", `token: ${textOf(cause)}`, { cause });
      this.end({ code: 1006, reason: "" });
    });
    return greeting.promise;
  }

  /**
   * What the token function gives, if it does in time; never settled if the connection ends before.
   *
   * @template Value
   * @param {Promise<Value>} promise
   * @returns {Promise<Value>}
   */
  inTime(promise) {
    const name = `wait ${(this.#waits += 1)}`;
    return new Promise((resolve, reject) => {
      this.#timers.set(name, CONNECT_MS, () => reject(new Error(`the token function gave nothing within ${CONNECT_MS} ms`)));
      promise.then(resolve, reject).finally(() => this.#timers.clear(name));
    });
  }

  /** @param {End | null} end */
  #refusalFor(end) {
    if (this.#refusal?.kind === "request") return this.#refusal;
    const code = end?.code ?? 1006;
    const { message, cause, retryAfterMs = end?.reconnectAfterMs } = this.#refusal ?? {};
    const reason = message || end?.reason || "the connection was lost before the server answered";
    // 4429 before the server has answered: there are too many connections from this address, which passes.
    const passes = mayReconnect(code) || code === 4429;
    return new QwsError(passes ? "transport" : "closed", reason, { code, retryAfterMs, cause });
  }

  /** @param {Reply} heard */
  #greeted({ json }) {
    if (json.type === "error") {
      // The server would take another handshake; what the client says does not change.
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
      const most = Number(json.limits?.max_message_bytes ?? MAX_FIRST_BYTES);
      // A page of history may hold one message in base64, and a page of clients is long whatever the limit.
      this.transport.maxBytes = Math.ceil((most * 4) / 3) + MAX_FIRST_BYTES;
      this.transport.hasRequestLanes = Number(json.limits?.max_request_lanes ?? 0) > 0;
      const greeting = this.#greeting;
      this.#greeting = null;
      // At once: what comes right behind is for whoever takes it.
      this.#handlers.greeted();
      greeting?.resolve();
    } else if (json.type === "handshake_response") {
      this.#refusal = new QwsError("closed", String(json.reason ?? "the server refused this client"));
      this.#timers.set("handshake", GOODBYE_MS, () => this.end({ code: 1006, reason: "" }));
    }
  }

  /**
   * @param {Body} body
   * @param {Source} source
   */
  #hear(body, source) {
    if (this.isOver) return;
    this.heardAt = performance.now();
    try {
      const heard = decodeBody(body);
      const { type, code, reason, reconnect_after_ms: reconnectAfterMs, timestamp } = heard.json;
      if (type === "close") {
        // It is on the way already: going at once spares the server the wait.
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
   * Sends a request; gives the error where it cannot be sent.
   *
   * @param {Call} call
   * @param {Pace | null} pace what it counts for
   * @returns {QwsError | null}
   */
  send(call, pace) {
    const id = this.#nextId++;
    let body;
    try {
      body = encodeBody({ ...call.message, id }, call.attachment);
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
    this.transport.send(body);
    return null;
  }

  /** Its reply came, or is not waited for any longer. @param {Call} call */
  forget(call) {
    if (!this.calls.delete(call.id)) return;
    call.isUnderWay = false;
    call.pace?.forget();
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

  /** What has no reply, in the order in which it was asked. */
  takeCalls() {
    const calls = [...this.calls.values(), ...this.orders];
    this.calls.clear();
    this.orders = [];
    return calls;
  }

  /**
   * Has the server end it, once it has answered what it was asked before.
   *
   * @param {number} code
   * @param {string} reason
   */
  sayGoodbye(code, reason) {
    this.#lastWord = { code, reason };
    this.transport.send(encodeBody({ type: "close", code, reason }));
    this.#timers.set("goodbye", GOODBYE_MS, () => this.end({ code, reason }, true));
  }

  /** @param {unknown} cause what cannot be understood */
  #fail(cause) {
    const error = asError(cause, "protocol");
    const code = error.code ?? 1002;
    if (!this.isOver) this.transport.send(encodeBody({ type: "close", code, reason: cut(error.message) }));
    this.#refusal ??= error;
    this.end({ code, reason: error.message });
  }

  /**
   * @param {End} end
   * @param {boolean} [isSilent] whether nothing is to be expected of the other side
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
