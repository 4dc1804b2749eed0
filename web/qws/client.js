// `connect` and `Client`, the face of this package: checks arguments, makes requests of calls, and reads their replies.
// Wires the parts of a client together and leaves all work to them. Called by the application.

import { Connection } from "./connection.js";
import { failed, quiet } from "./deferred.js";
import { Driver } from "./driver.js";
import { isCloseCode, QwsError } from "./errors.js";
import { emit, INTERNAL } from "./events.js";
import { fetchPage } from "./history.js";
import { Inbound } from "./inbound.js";
import { JsonText } from "./json-text.js";
import { saidOf } from "./messages.js";
import { problemOfAck, problemOfHistory, problemOfPublish, problemOfRequest } from "./options.js";
import { unknownOption, VALUE_OPTIONS } from "./options.js";
import { Requests } from "./requests.js";
import { Serving } from "./serving.js";
import { settingsOf } from "./settings.js";
import { Subscriptions } from "./subscriptions.js";
import { encoder } from "./text.js";
import { Tokens } from "./tokens.js";
import { payloadOf, recipientOf, targetOf } from "./values.js";

/** @import { ConnectOptions, SubscribeOptions } from "../qws.js" */
/** @import { Json, Reply } from "./frames.js" */

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
    const tell = (/** @type {string} */ type, /** @type {unknown} */ detail) => emit(this, type, detail);
    const subscriptions = new Subscriptions(connection, requests, settings, {
      ackOf: (topic, durable) => (which, how) => this.ack(topic, durable, which, how),
      tell,
    });
    const handlerOf = (/** @type {string | null} */ topic) =>
      topic === null ? (settings.onRequest ?? null) : subscriptions.handlerOf(topic);
    const serving = new Serving(requests, handlerOf);
    const driver = new Driver({
      settings,
      connection,
      requests,
      subscriptions,
      serving,
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
      serving,
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
  get info() {
    return this.#connection.link?.info ?? null;
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
    if (!bytes && typeof content !== "string") {
      return failed(new QwsError("usage", "echo: content must be a string or a Uint8Array"));
    }
    const message = bytes ? { type: "binary" } : { type: "text", content };
    return this.#requests.request(message, { attachment: bytes, again: true }, (reply) =>
      bytes ? (reply.bytes ?? new Uint8Array(0)) : reply.json.content,
    );
  }

  /**
   * @param {unknown} value
   * @param {import("../qws.js").ValueOptions} [options]
   */
  broadcast(value, options = {}) {
    return this.#say({ type: "broadcast" }, value, options);
  }

  /**
   * @param {string | import("../qws.js").Recipient} to
   * @param {unknown} value
   * @param {import("../qws.js").ValueOptions} [options]
   */
  direct(to, value, options = {}) {
    return this.#say({ type: "direct", to }, value, options);
  }

  /**
   * @param {string | import("../qws.js").Recipient} to
   * @param {unknown} data
   */
  signal(to, data) {
    return attempt(() => {
      const fields = { ...recipientOf("signal", to), data: JsonText.of(data, "signal: data") };
      return this.#requests.request({ type: "signal", ...fields }, {}, deliveredOf);
    });
  }

  /**
   * Sends a value to others at once; resolves with the number of receivers.
   *
   * @param {Json} message
   * @param {unknown} value
   * @param {import("../qws.js").ValueOptions} options
   * @returns {Promise<number>}
   */
  #say({ type, to }, value, options) {
    return attempt(() => {
      const problem = unknownOption(type, options, VALUE_OPTIONS);
      if (problem) throw problem;
      const { fields, attachment } = payloadOf(type, value, options);
      const addressed = type === "direct" ? recipientOf(type, to) : {};
      return this.#requests.request({ type, ...addressed, ...fields }, { attachment }, deliveredOf);
    });
  }

  /**
   * @param {string | import("../qws.js").Target} target
   * @param {unknown} value
   * @param {import("../qws.js").RequestOptions} [options]
   * @returns {Promise<import("../qws.js").Answer>}
   */
  request(target, value, options = {}) {
    return attempt(() => {
      const problem = problemOfRequest(options);
      if (problem) throw problem;
      const { fields, attachment } = payloadOf("request", value, options);
      const message = { type: "request", ...targetOf(target), ...fields };
      const { timeoutMs = DEFAULT_ASK_MS } = options;
      const signal = /** @type {AbortSignal | undefined} */ (options.signal);
      return this.#requests.ask(message, { attachment, timeoutMs, signal }, answerOf);
    });
  }

  /**
   * @param {string} topic
   * @param {import("../qws.js").RequestHandler} handler
   * @param {SubscribeOptions} [options]
   */
  serve(topic, handler, options = {}) {
    const subscription = this.subscribe(topic, { ...options, onRequest: handler });
    // What is published to the topic as well does not wait for a reader.
    subscription.addEventListener("message", () => {});
    return subscription;
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
    yield* pages("list_clients", (after) => this.listClients({ limit: 1000, after }));
  }

  /**
   * @param {string} topic
   * @param {SubscribeOptions} [options]
   * @returns {import("../qws.js").Subscription}
   */
  subscribe(topic, options = {}) {
    return this.#subscriptions.subscribe(topic, options);
  }

  /**
   * @param {string} topic
   * @param {unknown} value
   * @param {import("../qws.js").PublishOptions} [options]
   * @returns {Promise<import("../qws.js").Published>}
   */
  publish(topic, value, options = {}) {
    return attempt(() => {
      const problem = problemOfPublish(options);
      if (problem) throw problem;
      const { key, ttlMs } = options;
      const { fields, attachment } = payloadOf("publish", value, options);
      const message = { type: "publish", topic, key: key ?? randomKey(), ttl_ms: ttlMs ?? undefined, ...fields };
      return this.#requests.request(message, { attachment, again: true }, ({ json }) => ({
        topic: String(json.topic),
        epoch: String(json.epoch),
        offset: Number(json.offset),
        // With a random key, only this client's own repetition can be a duplicate.
        duplicate: key !== undefined && json.duplicate === true,
        ...(typeof json.stored === "string" ? { stored: /** @type {"os" | "fsync"} */ (json.stored) } : {}),
      }));
    });
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

  /**
   * @param {string} topic
   * @param {import("../qws.js").PresenceOptions} [options]
   * @returns {Promise<import("../qws.js").Presence>}
   */
  presence(topic, options = {}) {
    const problem = unknownOption("presence", options, ["limit", "after", "counts"]);
    if (problem) return failed(problem);
    const { limit, after, counts } = options;
    return this.#requests.request({ type: "presence", topic, limit, after, counts }, { again: true }, ({ json }) => {
      const clients = /** @type {import("../qws.js").Member[]} */ (json.clients);
      const page = { clients, total: Number(json.total ?? clients.length) };
      const users = json.users == null ? {} : { users: Number(json.users) };
      return { ...page, ...users, ...(json.next == null ? {} : { next: String(json.next) }) };
    });
  }

  /** @param {string} topic */
  async *members(topic) {
    yield* pages("presence", (after) => this.presence(topic, { after }));
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

/** The time that a request to another client has, if it does not say. */
const DEFAULT_ASK_MS = 10_000;

/** Calls reject instead of throwing. @template T @param {() => Promise<T>} call @returns {Promise<T>} */
function attempt(call) {
  try {
    return call();
  } catch (error) {
    return failed(/** @type {Error} */ (error));
  }
}

/** The number of receivers; of one by its id the server does not tell it. @param {Reply} reply */
function deliveredOf({ json }) {
  return Number(json.delivered ?? 1);
}

/** The answer of another client, or the error that it gave. @param {Reply} reply */
function answerOf(reply) {
  const { type, error, code } = reply.json;
  if (type !== "reply") throw new QwsError("protocol", `request: unexpected reply ${type}`);
  const answer = /** @type {import("../qws.js").Answer} */ (saidOf(reply));
  if (error != null) throw new QwsError("request", String(error), { code: Number(code ?? 500), answer });
  return answer;
}

/**
 * What is on all pages of a list.
 *
 * @template Item
 * @param {string} what
 * @param {(after: string | undefined) => Promise<{ clients: Item[], next?: string }>} fetch
 * @returns {AsyncGenerator<Item, void, undefined>}
 */
async function* pages(what, fetch) {
  /** @type {string | undefined} */
  let after;
  do {
    const page = await fetch(after);
    yield* page.clients;
    if (page.next !== undefined && after !== undefined && page.next <= after) {
      throw new QwsError("protocol", `${what}: the server sent the same page again`);
    }
    after = page.next;
  } while (after !== undefined);
}

/** A key that no other publish has. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
