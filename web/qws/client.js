// `connect` and `Client`, the face of this package: checks arguments, makes requests of calls, and reads their replies.
// Wires the parts of a client together and leaves all work to them. Called by the application.

import { Connection } from "./connection.js";
import { failed, quiet } from "./deferred.js";
import { Driver } from "./driver.js";
import { isCloseCode, QwsError } from "./errors.js";
import { emit, INTERNAL } from "./events.js";
import { fetchPage } from "./history.js";
import { Inbound } from "./inbound.js";
import { problemOfAck, problemOfHistory, unknownOption } from "./options.js";
import { Requests } from "./requests.js";
import { settingsOf } from "./settings.js";
import { Subscriptions } from "./subscriptions.js";
import { encoder } from "./text.js";
import { Tokens } from "./tokens.js";

/** @import { ConnectOptions, SubscribeOptions } from "../qws.js" */

/**
 * Connects to a server; returns at once, and the client connects in the background.
 *
 * @param {string | import("../qws.js").UrlLike} [url]
 * @param {ConnectOptions} [options]
 * @returns {import("../qws.js").Client}
 */
export function connect(url, options) {
  return new Client(INTERNAL, url, options ?? {});
}

/** A client that reconnects by itself. */
export class Client extends EventTarget {
  #settings;
  #connection = new Connection();
  #tokens;
  #requests;
  #subscriptions;
  #driver;

  /**
   * @param {symbol} internal
   * @param {string | import("../qws.js").UrlLike | undefined} url
   * @param {ConnectOptions} options
   */
  constructor(internal, url, options) {
    super();
    if (internal !== INTERNAL) throw new QwsError("usage", "call connect() to create a client");
    const settings = settingsOf(url, options);
    const connection = this.#connection;
    const tokens = new Tokens(options.token);
    const requests = new Requests(connection, settings.requestTimeoutMs);
    const subscriptions = new Subscriptions(connection, requests, settings);
    const tell = (/** @type {string} */ type, /** @type {unknown} */ detail) => emit(this, type, detail);
    const driver = new Driver({
      settings,
      connection,
      requests,
      subscriptions,
      tokens,
      tell,
      hear: (link, heard, source) => inbound.hear(link, heard, source),
    });
    const renewal = {
      connection,
      maxBackoffMs: settings.maxBackoffMs,
      refresh: (/** @type {string} */ token) => this.refresh(token),
      tell,
    };
    const inbound = new Inbound({
      connection,
      requests,
      subscriptions,
      upgrade: driver.upgrade,
      renewToken: (link) => void tokens.renew(link, renewal),
      tell,
    });
    this.#settings = settings;
    this.#tokens = tokens;
    this.#requests = requests;
    this.#subscriptions = subscriptions;
    this.#driver = driver;
    // By then the caller has added its listeners.
    queueMicrotask(() => void driver.attempt());
  }

  get ready() {
    return this.#driver.ready.promise;
  }
  get state() {
    return this.#connection.state;
  }
  get id() {
    return this.#connection.link?.id ?? null;
  }
  get user() {
    return this.#connection.link?.user ?? null;
  }
  get name() {
    return this.#connection.link?.name ?? this.#settings.name ?? null;
  }
  get serverName() {
    return this.#connection.link?.serverName ?? null;
  }
  get limits() {
    return this.#connection.link?.limits ?? null;
  }
  get permissions() {
    return this.#connection.link?.permissions ?? null;
  }
  get inbox() {
    return this.#connection.link?.inbox ?? null;
  }
  get carrier() {
    return this.#connection.link?.transport.carrier ?? null;
  }
  get rttMs() {
    return this.#driver.heartbeat.rttMs;
  }
  get reconnects() {
    return this.#driver.reconnects;
  }
  get streams() {
    return this.#connection.link?.transport.streams ?? 0;
  }

  ping() {
    const { heartbeat } = this.#driver;
    const message = { type: "ping", timestamp: Date.now() };
    return this.#requests.request(message, { again: true }, (_, call) => heartbeat.measured(call));
  }

  /**
   * @template {string | Uint8Array} Content
   * @param {Content} content
   * @returns {Promise<any>}
   */
  echo(content) {
    const bytes = content instanceof Uint8Array ? content : undefined;
    const message = bytes ? { type: "binary" } : { type: "text", content };
    return this.#requests.request(message, { attachment: bytes, again: true, content }, ({ json, data }) =>
      bytes ? (data ?? new Uint8Array(0)) : json.content,
    );
  }

  /** @param {string | Uint8Array} content */
  broadcast(content) {
    return this.#requests.request({ type: "broadcast" }, { content }, ({ json }) => Number(json.delivered ?? 0));
  }

  /**
   * @param {string} to
   * @param {string | Uint8Array} content
   */
  direct(to, content) {
    return this.#requests.request({ type: "direct", to }, { content }, () => {});
  }

  /**
   * @param {string} to
   * @param {unknown} data
   */
  signal(to, data) {
    let copy;
    try {
      // The value at the time of the call. Of a function JSON leaves nothing.
      copy = JSON.parse(JSON.stringify(data));
    } catch (cause) {
      const why = data === undefined ? "data is missing" : `data is not valid JSON: ${String(cause)}`;
      return failed(new QwsError("usage", `signal: ${why}`, { cause }));
    }
    return this.#requests.request({ type: "signal", to, data: copy }, {}, () => {});
  }

  /** @param {{ limit?: number, after?: string }} [options] */
  listClients(options = {}) {
    const problem = unknownOption("listClients", options, ["limit", "after"]);
    if (problem) return failed(problem);
    const { limit, after } = options;
    return this.#requests.request({ type: "list_clients", limit, after }, { again: true }, ({ json }) => {
      const { clients, total, next } = json;
      const page = next == null ? { clients, total } : { clients, total, next };
      return /** @type {import("../qws.js").ClientPage} */ (page);
    });
  }

  async *clients() {
    /** @type {string | undefined} */
    let after;
    do {
      const page = await this.listClients({ limit: 1000, after });
      yield* page.clients;
      if (page.next !== undefined && after !== undefined && page.next <= after) {
        throw new QwsError("protocol", "list_clients: the server sent the same page again");
      }
      after = page.next;
    } while (after !== undefined);
  }

  /**
   * @param {string} topic
   * @param {SubscribeOptions} [options]
   * @returns {import("../qws.js").Subscription}
   */
  subscribe(topic, options = {}) {
    return this.#subscriptions.subscribe(topic, options, (which, how) =>
      this.ack(topic, options.durable ?? "", which, how),
    );
  }

  /**
   * @param {string} topic
   * @param {string | Uint8Array} content
   * @param {{ key?: string }} [options]
   */
  publish(topic, content, options = {}) {
    const problem = unknownOption("publish", options, ["key"]);
    if (problem) return failed(problem);
    const { key } = options;
    const message = { type: "publish", topic, key: key ?? randomKey() };
    return this.#requests.request(message, { content, again: true }, ({ json }) => ({
      topic: String(json.topic),
      epoch: String(json.epoch),
      offset: Number(json.offset),
      // With a random key, only this client's own repetition can be a duplicate.
      duplicate: key !== undefined && json.duplicate === true,
      ...(typeof json.stored === "string" ? { stored: /** @type {"os" | "fsync"} */ (json.stored) } : {}),
    }));
  }

  /**
   * @param {string} topic
   * @param {string} durable
   * @param {import("../qws.js").Acked} which
   * @param {{ outcome?: "done" | "retry" | "reject", delayMs?: number }} [options]
   * @returns {Promise<number>}
   */
  ack(topic, durable, which, options = {}) {
    const list = Array.isArray(which) ? which : [which];
    const offsets = list.map((one) => (typeof one === "object" && one !== null ? one.offset : one));
    const problem = problemOfAck(durable, offsets, options);
    if (problem) return failed(problem);
    const { outcome, delayMs } = options;
    const those = offsets.length === 1 ? { offset: offsets[0] } : { offsets };
    const message = { type: "ack", topic, durable, ...those, outcome, delay_ms: delayMs };
    return this.#requests.request(message, {}, ({ json }) => Number(json.acked ?? 0));
  }

  /**
   * @param {string} topic
   * @param {import("../qws.js").HistoryOptions} [options]
   */
  history(topic, options = {}) {
    const problem = problemOfHistory(options);
    if (problem) return failed(problem);
    // `null` counts as absent, as in the protocol.
    const { since, sinceTime, recent } = options;
    const { limit = recent, reverse = recent == null ? undefined : true } = options;
    const page = fetchPage(this.#requests, { type: "history", topic, since, since_time: sinceTime, limit, reverse });
    if (recent == null) return page;
    return quiet(page.then((newestFirst) => ({ ...newestFirst, messages: newestFirst.messages.reverse() })));
  }

  /** @param {string} topic */
  presence(topic) {
    return this.#requests.request({ type: "presence", topic }, { again: true }, ({ json }) => ({
      clients: /** @type {import("../qws.js").ClientInfo[]} */ (json.clients),
      total: Number(json.total ?? json.clients.length),
    }));
  }

  /** @param {string} token */
  refresh(token) {
    if (typeof token === "string") token = token.trim();
    return this.#requests.request({ type: "refresh", token }, {}, ({ json }) => {
      const { link } = this.#connection;
      if (link) link.permissions = json.permissions ?? null;
      emit(this, "permissions", this.permissions);
      this.#tokens.replace(token);
      return /** @type {{ expires_at?: number }} */ (json.expires_at == null ? {} : { expires_at: json.expires_at });
    });
  }

  /**
   * @param {number} [code]
   * @param {string} [reason]
   * @returns {Promise<void>}
   */
  close(code = 1000, reason = "") {
    if (!isCloseCode(code)) return failed(new QwsError("usage", `close: a client may not send code ${code}`));
    if (encoder.encode(reason).length > 123) {
      return failed(new QwsError("usage", "close: reason must have at most 123 bytes"));
    }
    return this.#driver.close(code, reason);
  }
}

/** A key that no other publish has. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
