// `connect` and `Client`: connecting, requests, subscriptions.
// The only module that knows all others. Called by the application.

import { Backoff } from "./backoff.js";
import { Call, enqueue } from "./calls.js";
import { Deferred, failed, quiet } from "./deferred.js";
import { Entry, MOVE_MS } from "./entry.js";
import { asError, isCloseCode, mayReconnect, PASSING, QwsError, textOf } from "./errors.js";
import { emit, INTERNAL } from "./events.js";
import { Feed } from "./feed.js";
import { Link } from "./link.js";
import { MAX_PAGE, messageOf, saidOf } from "./messages.js";
import { problemOf, problemOfHistory, SUBSCRIBE_OPTIONS, unknownOption } from "./options.js";
import { MAX_CALLS } from "./pace.js";
import { noteQuicFailure, quicFailures, quicPause } from "./quic-failures.js";
import { race } from "./race.js";
import { settingsOf } from "./settings.js";
import { Subscription } from "./subscription.js";
import { bytesOfBase64, digest, encoder } from "./text.js";
import { later, Timers } from "./timers.js";
import { readToken } from "./tokens.js";
import { isOffset } from "./topics.js";
import { openSocket } from "./websocket.js";
import { openQuic } from "./webtransport.js";

/** @import { ClientState, ConnectOptions, Position, SubscribeOptions } from "../qws.js" */
/** @import { CarrierName, End, Source } from "./carrier.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Pace } from "./pace.js" */
/** @import { Binding } from "./routes.js" */

/** The least time between two tries that an event of the page asks for. */
const EAGER_MS = 1_000;
/** How often the round trip is measured, and when for the second time: at first a page has much else to do. */
const PING_MS = 15_000;
const SECOND_PING_MS = 2_000;
/** How many pings follow the first one on a connection at once: that one also pays for what both sides do for the first time. */
const WARM_PINGS = 3;
/** The shown round trip is the shortest of so many: a page that is busy just then measures itself as well. */
const KEPT_ROUND_TRIPS = 3;
/** How long nothing may come after a ping before the connection counts as lost. */
const SILENCE_MS = 10_000;
/** The same where the network or the page has just come back. */
const DOUBT_MS = 3_000;
/** A QUIC connection that lived as long makes up for those that went silent before. */
const PROVEN_MS = 600_000;
/** How long to wait after an `error` 429 that does not say it. */
const DEFAULT_RETRY_MS = 1_000;
/** Most broadcasts in one round trip that are known again while there are two connections, and for how long. */
const MAX_COMPARED = 1024;
const COMPARED_MS = 2 * MOVE_MS;

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

/** A connection that comes back by itself. */
export class Client extends EventTarget {
  /** @type {ReturnType<typeof settingsOf>} */
  #settings;
  /** @type {ClientState} */
  #state = "connecting";
  /** The connection that requests go to. @type {Link | null} */
  #link = null;
  /** Connections that were left for a better one, and still have something on its way. @type {Set<Link>} */
  #leftLinks = new Set();
  /** Subscriptions by their text, in the order in which they were made. @type {Map<string, Entry>} */
  #entries = new Map();
  /** Requests that wait for a connection, for room on it, or for their turn after an `error` 429. @type {Call[]} */
  #waiting = [];
  /** @type {Backoff} */
  #backoff;
  /** When the present connection began, or the last try. */
  #since = 0;
  /** The server asked not to come back earlier. */
  #returnNotBefore = 0;
  #timers = new Timers();
  /** Aborts a try to connect. @type {AbortController | null} */
  #dialing = null;
  /** Aborts a try to move to QUIC. @type {AbortController | null} */
  #moving = null;
  /** How often QUIC was tried in vain since WebSocket is used. */
  #quicTries = 0;
  /** Whether the server refused this client over QUIC, and not the network. */
  #staysOnSocket = false;
  #pauses = 0;
  /** What was known of QUIC before its last connection went silent: it may have been the network. @type {{ before: { at: number, starved: number } | undefined } | null} */
  #suspicion = null;
  #token;
  #everOpen = false;
  #reconnects = 0;
  /** @type {number | null} */
  #rttMs = null;
  /** The newest round trips on this connection, in milliseconds. @type {number[]} */
  #roundTrips = [];
  /** Whether the only one of them is the connection's first. */
  #isCold = true;
  /** How many of its first pings are still to be sent. */
  #warmPings = 0;
  /** Ids that this client has or had just now: what others are told of them is no news. @type {string[]} */
  #ownIds = [];
  /** Broadcasts heard on a connection while another is made, the newest, each with how often: they may come there as well. @type {Map<string, number>} */
  #compared = new Map();
  /** @type {Deferred<void>} */
  #ready = new Deferred();
  /** There once the application has asked for the end. @type {Deferred<void> | null} */
  #closing = null;
  /** @type {End | null} */
  #closed = null;
  #stopListening = () => {};

  /**
   * @param {symbol} internal
   * @param {string | import("../qws.js").UrlLike | undefined} url
   * @param {ConnectOptions} options
   */
  constructor(internal, url, options) {
    super();
    if (internal !== INTERNAL) throw new QwsError("usage", "a client is made by connect()");
    this.#settings = settingsOf(url, options);
    this.#token = typeof options.token === "string" ? options.token.trim() : options.token;
    this.#backoff = new Backoff(this.#settings.maxBackoffMs);
    this.#listenToPage();
    // The caller has his listeners in place by then.
    queueMicrotask(() => void this.#attempt());
  }

  get ready() {
    return this.#ready.promise;
  }
  get state() {
    return this.#state;
  }
  get id() {
    return this.#link?.id ?? null;
  }
  get user() {
    return this.#link?.user ?? null;
  }
  get name() {
    return this.#link?.name ?? this.#settings.name ?? null;
  }
  get serverName() {
    return this.#link?.serverName ?? null;
  }
  get limits() {
    return this.#link?.limits ?? null;
  }
  get permissions() {
    return this.#link?.permissions ?? null;
  }
  get carrier() {
    return this.#link?.transport.carrier ?? null;
  }
  get rttMs() {
    return this.#rttMs;
  }
  get reconnects() {
    return this.#reconnects;
  }
  get streams() {
    return this.#link?.transport.streams ?? 0;
  }

  ping() {
    return this.#request({ type: "ping", timestamp: Date.now() }, { again: true }, (_, call) => this.#measured(call));
  }

  /**
   * @template {string | Uint8Array} Content
   * @param {Content} content
   * @returns {Promise<any>}
   */
  echo(content) {
    const bytes = content instanceof Uint8Array ? content : undefined;
    const message = bytes ? { type: "binary" } : { type: "text", content };
    return this.#request(message, { attachment: bytes, again: true, content }, ({ json, data }) =>
      bytes ? (data ?? new Uint8Array(0)) : json.content,
    );
  }

  /** @param {string | Uint8Array} content */
  broadcast(content) {
    return this.#request({ type: "broadcast" }, { content }, ({ json }) => Number(json.delivered ?? 0));
  }

  /**
   * @param {string} to
   * @param {string | Uint8Array} content
   */
  direct(to, content) {
    return this.#request({ type: "direct", to }, { content }, () => {});
  }

  /**
   * @param {string} to
   * @param {unknown} data
   */
  signal(to, data) {
    let copy;
    try {
      // What it is at the call; JSON leaves nothing of a function.
      copy = JSON.parse(JSON.stringify(data));
    } catch (cause) {
      const why = data === undefined ? "data is missing" : `data is not valid JSON: ${String(cause)}`;
      return failed(new QwsError("usage", `signal: ${why}`, { cause }));
    }
    return this.#request({ type: "signal", to, data: copy }, {}, () => {});
  }

  /** @param {{ limit?: number, after?: string }} [options] */
  listClients(options = {}) {
    const problem = unknownOption("listClients", options, ["limit", "after"]);
    if (problem) return failed(problem);
    const { limit, after } = options;
    return this.#request({ type: "list_clients", limit, after }, { again: true }, ({ json }) => {
      const { clients, total, next } = json;
      return /** @type {import("../qws.js").ClientPage} */ (next == null ? { clients, total } : { clients, total, next });
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
    const unknown = unknownOption("subscribe", options, SUBSCRIBE_OPTIONS);
    if (unknown) throw unknown;
    const problem = problemOf(topic, options);
    if (problem || this.#state === "closed") return this.#refusedAtOnce(topic, options, problem ?? this.#closedError());
    const shared = this.#entries.get(topic);
    const clash = shared?.clash(options);
    if (clash) return this.#refusedAtOnce(topic, options, clash);
    const entry = shared ?? new Entry(topic, options);
    const feed = this.#feedOf(entry, options);
    if (shared) {
      this.#join(entry, feed);
    } else {
      this.#entries.set(topic, entry);
      if (this.#link) this.#ask(this.#link, entry);
    }
    return /** @type {Subscription} */ (feed.subscription);
  }

  /**
   * @param {Entry} entry
   * @param {SubscribeOptions} options
   */
  #feedOf(entry, options) {
    const feed = new Feed(entry, options, options.highWaterMark ?? this.#settings.highWaterMark, () => this.#room(entry, feed));
    feed.subscription = new Subscription(INTERNAL, feed, () => this.#leave(entry, feed));
    entry.feeds.add(feed);
    return feed;
  }

  /**
   * A subscription that has failed already. Its "end" comes when the caller has its listeners in place.
   *
   * @param {string} topic
   * @param {SubscribeOptions} options
   * @param {QwsError} error
   */
  #refusedAtOnce(topic, options, error) {
    const entry = new Entry(String(topic), { delivery: options.delivery });
    const feed = this.#feedOf(entry, { highWaterMark: 1 });
    feed.ready.reject(error);
    queueMicrotask(() => entry.end(error));
    return /** @type {Subscription} */ (feed.subscription);
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
    return this.#request(message, { content, again: true }, ({ json }) => ({
      topic: String(json.topic),
      epoch: String(json.epoch),
      offset: Number(json.offset),
      // Of a key that nobody else has, only this client's own repetition can be a duplicate.
      duplicate: key !== undefined && json.duplicate === true,
    }));
  }

  /**
   * @param {string} topic
   * @param {import("../qws.js").HistoryOptions} [options]
   */
  history(topic, options = {}) {
    const problem = problemOfHistory(options);
    if (problem) return failed(problem);
    // `null` counts as absent, as in the protocol.
    const { since, recent } = options;
    const { limit = recent, reverse = recent == null ? undefined : true } = options;
    const page = this.#history({ type: "history", topic, since, limit, reverse });
    if (recent == null) return page;
    return quiet(page.then((newestFirst) => ({ ...newestFirst, messages: newestFirst.messages.reverse() })));
  }

  /** @param {Json} message @returns {Promise<import("../qws.js").HistoryPage>} */
  #history(message) {
    const page = this.#request(message, { again: true }, ({ json }) => {
      const { epoch, offset, more, recovered } = json;
      const messages = /** @type {Json[]} */ (json.messages).map((entry) =>
        messageOf(entry, typeof entry.data === "string" ? bytesOfBase64(entry.data) : undefined),
      );
      // Older servers do not tell the offset.
      const known = [offset, messages[0]?.offset, messages.at(-1)?.offset, message.since?.offset].filter(isOffset);
      const newest = isOffset(offset) ? offset : Math.max(0, ...known);
      return {
        epoch: String(epoch),
        offset: newest,
        messages,
        more: more === true,
        recovered: typeof recovered === "boolean" ? recovered : null,
      };
    });
    // Older servers know no topic without messages.
    return quiet(page.catch((error) => {
      if (error.code !== 404) throw error;
      return { epoch: "", offset: 0, messages: [], more: false, recovered: null };
    }));
  }

  /** @param {string} topic */
  presence(topic) {
    return this.#request({ type: "presence", topic }, { again: true }, ({ json }) => ({
      clients: /** @type {import("../qws.js").ClientInfo[]} */ (json.clients),
      total: Number(json.total ?? json.clients.length),
    }));
  }

  /** @param {string} token */
  refresh(token) {
    if (typeof token === "string") token = token.trim();
    return this.#request({ type: "refresh", token }, {}, ({ json }) => {
      if (this.#link) this.#link.permissions = json.permissions ?? null;
      emit(this, "permissions", this.permissions);
      if (typeof this.#token !== "function") this.#token = token;
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
    if (this.#closing) return this.#closing.promise;
    if (this.#closed) return Promise.resolve();
    this.#closing = new Deferred();
    const end = { code, reason };
    this.#stop(end);
    this.#setState("closed");
    for (const entry of this.#takeEntries()) entry.end(null);
    const link = this.#link;
    if (link) {
      // What was asked before is still answered.
      link.sayGoodbye(code, reason);
    } else {
      this.#over(end);
    }
    return this.#closing.promise;
  }

  // Connecting.

  async #attempt() {
    if (this.#dialing || this.#link || this.#state === "closed") return;
    const dialing = new AbortController();
    this.#dialing = dialing;
    this.#since = performance.now();
    try {
      await this.#dial(this.#settings.carriers, dialing.signal, (link) => {
        this.#dialing = null;
        this.#opened(link);
      });
    } catch (cause) {
      if (dialing.signal.aborted) return;
      this.#dialing = null;
      const error = asError(cause);
      if (error.kind === "transport") this.#acquitQuic();
      if (this.#isFinal(error)) {
        this.#finish({ code: error.kind === "closed" ? (error.code ?? 1006) : 1002, reason: error.message }, error);
      } else {
        emit(this, "error", error);
        this.#comeBack(error.retryAfterMs ?? 0);
      }
    }
  }

  /** Whether trying again cannot help. @param {QwsError} error why there is no connection */
  #isFinal({ kind, code }) {
    return kind === "closed" ? !this.#mayReturn(code) : kind !== "transport";
  }

  /** Whether the client may come back by itself: after 4401 only a function can give a better token. @param {number} [code] */
  #mayReturn(code) {
    return mayReconnect(code) || (code === 4401 && typeof this.#token === "function");
  }

  /** The token to show, asked for again each time. @returns {Promise<string | undefined>} */
  async #freshToken() {
    if (typeof this.#token !== "function") return this.#token;
    const token = await this.#token();
    return token === undefined || token === null ? undefined : readToken(token);
  }

  /**
   * Makes a connection on which the server has taken this client in.
   *
   * @param {CarrierName[]} carriers
   * @param {AbortSignal} signal
   * @param {(link: Link) => void} adopt takes it, before anything is read that came behind the server's answer
   */
  async #dial(carriers, signal, adopt) {
    const { name, retryQuicMs, raceDelayMs, settleMs, quicKey } = this.#settings;
    const token = this.#freshToken();
    token.catch(() => {});
    const [quic, socket] = [carriers.includes("webtransport"), carriers.includes("websocket")];
    const failed = quicFailures.get(quicKey);
    const transport = await race({
      quic: quic ? () => openQuic(this.#settings) : null,
      socket: socket ? () => openSocket(this.#settings) : null,
      quicFirst: failed === undefined || Date.now() - failed.at >= quicPause(quicKey, retryQuicMs),
      raceDelayMs,
      settleMs,
      signal,
      onQuicFailed: () => noteQuicFailure(quicKey),
    });
    /** @type {Link} */
    const link = new Link(transport, {
      hear: (body, source) => this.#hear(link, body, source),
      greeted: () => {
        // A handshake does not make up for a connection that went silent: the next one may as well.
        if (transport.carrier === "webtransport" && !quicFailures.get(quicKey)?.starved) quicFailures.delete(quicKey);
        adopt(link);
      },
      ended: (end) => this.#linkEnded(link, end),
    });
    let isShown = false;
    token.then(() => (isShown = true)).catch(() => {});
    const abandon = () => link.end({ code: 1000, reason: "" });
    signal.addEventListener("abort", abandon);
    // It may be since the race was won.
    if (signal.aborted) abandon();
    try {
      await link.shakeHands(name, token);
    } catch (error) {
      link.end({ code: 1000, reason: "" });
      // If packets come through and a connection does not, the other carrier may do better.
      const { kind, code } = asError(error);
      const isLost = kind === "transport" && (code === 1006 || code === 4408);
      if (isShown && quic && socket && transport.carrier === "webtransport" && isLost) noteQuicFailure(quicKey);
      throw error;
    } finally {
      signal.removeEventListener("abort", abandon);
    }
  }

  /** @param {Link} link */
  #opened(link) {
    const resumed = this.#everOpen;
    this.#everOpen = true;
    if (resumed) this.#reconnects += 1;
    this.#since = performance.now();
    this.#returnNotBefore = 0;
    this.#suspicion = null;
    this.#use(link);
    this.#setState("open");
    // Whoever listens may have closed it.
    if (this.#closed) return;
    this.#ready.resolve();
    emit(this, "open", { carrier: link.transport.carrier, resumed });
    link.inUse.resolve();
  }

  /**
   * Has requests and subscriptions go over a connection.
   *
   * @param {Link} link
   */
  #use(link) {
    this.#link = link;
    if (link.id) this.#ownIds = [...this.#ownIds.slice(-3), link.id];
    for (const entry of this.#inOrder()) this.#ask(link, entry);
    this.#pump(link);
    this.#roundTrips = [];
    this.#isCold = true;
    this.#warmPings = WARM_PINGS;
    this.#probe(link, SILENCE_MS);
    this.#timers.set("ping", SECOND_PING_MS, () => this.#keepAlive());
    if (link.transport.carrier === "websocket") return this.#tryQuicLater();
    this.#timers.clear("quic");
    this.#quicTries = 0;
  }

  /** Topics before patterns: what is for a topic by its name is not to come by a pattern on the way. */
  #inOrder() {
    const entries = [...this.#entries.values()];
    return [...entries.filter((entry) => !entry.isPattern), ...entries.filter((entry) => entry.isPattern)];
  }

  /**
   * @param {Link} link
   * @param {End} end
   */
  #linkEnded(link, end) {
    const isCurrent = link === this.#link;
    if (!isCurrent && !this.#leftLinks.delete(link)) return;
    if (isCurrent) {
      this.#link = null;
      this.#judgeQuic(link, end);
      this.#timers.clear("ping", "silence", "quic");
      this.#moving?.abort();
      for (const old of this.#leftLinks) old.end({ code: 1000, reason: "" });
    }
    for (const entry of this.#entries.values()) entry.unbind(link);
    link.routes.close();
    this.#settleLost(link, end);
    if (!isCurrent) {
      // Who was not moved yet, and could not be asked for twice.
      const current = this.#link;
      if (current) for (const entry of this.#inOrder()) this.#ask(current, entry);
      return;
    }
    if (this.#closing) return this.#over(end);
    if (!this.#mayReturn(end.code)) return this.#finish(end);
    this.#backoff.connectedFor(performance.now() - this.#since);
    this.#setState("reconnecting");
    // Whoever listens may have closed it.
    if (this.#closed) return;
    emit(this, "close", { code: end.code, reason: end.reason, willReconnect: true });
    this.#comeBack(end.reconnectAfterMs ?? 0);
  }

  /**
   * What became of requests on a connection that is gone: those that may be repeated are, in their order.
   *
   * @param {Link} link
   * @param {End} end
   */
  #settleLost(link, end) {
    const [again, lost] = [/** @type {Call[]} */ ([]), /** @type {Call[]} */ ([])];
    for (const call of link.takeCalls()) (call.again && !this.#closed && !this.#closing ? again : lost).push(call);
    this.#waiting.unshift(...again);
    const reason = end.reason || "the connection was lost";
    for (const call of lost) this.#settle(call, new QwsError("closed", reason, { code: end.code }));
    if (again.length > 0 && this.#link) this.#pump(this.#link);
  }

  /** @param {number} afterMs what the server asked for */
  #comeBack(afterMs) {
    if (this.#state === "closed") return;
    this.#returnNotBefore = performance.now() + afterMs;
    this.#timers.set("return", afterMs + this.#backoff.next(), () => void this.#attempt());
  }

  /** The network or the page is back: no reason to wait longer, or to trust what was. */
  #wake() {
    if (this.#link) {
      this.#link.doubtedAt = performance.now();
      return this.#probe(this.#link, DOUBT_MS);
    }
    const now = performance.now();
    if (this.#state === "closed" || this.#dialing || !this.#timers.has("return")) return;
    if (now < this.#returnNotBefore || now - this.#since < EAGER_MS) return;
    this.#timers.clear("return");
    void this.#attempt();
  }

  #listenToPage() {
    const page = typeof document === "object" ? document : null;
    if (typeof globalThis.addEventListener !== "function") return;
    const online = () => {
      quicFailures.delete(this.#settings.quicKey);
      this.#quicTries = 0;
      this.#wake();
      if (this.#link?.transport.carrier === "websocket") void this.#tryQuic();
    };
    // A device without a network may still reach a server on itself: the connection is asked, not given up.
    const offline = () => {
      if (this.#link) this.#wake();
    };
    const visible = () => {
      if (page?.visibilityState === "visible") this.#wake();
    };
    globalThis.addEventListener("online", online);
    globalThis.addEventListener("offline", offline);
    page?.addEventListener("visibilitychange", visible);
    this.#stopListening = () => {
      globalThis.removeEventListener("online", online);
      globalThis.removeEventListener("offline", offline);
      page?.removeEventListener("visibilitychange", visible);
    };
  }

  // Ending.

  /**
   * Ends what runs and waits; not the connection.
   *
   * @param {End} end
   */
  #stop(end) {
    this.#closed = end;
    this.#timers.clearAll();
    this.#stopListening();
    this.#dialing?.abort();
    this.#dialing = null;
    this.#moving?.abort();
    for (const link of this.#leftLinks) link.end({ code: 1000, reason: "" });
    for (const call of this.#waiting.splice(0)) this.#settle(call, this.#closedError());
  }

  #takeEntries() {
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    return entries;
  }

  #closedError() {
    const { code, reason } = this.#closed ?? { code: 1000, reason: "" };
    return new QwsError("closed", reason || `the client is closed (${code})`, { code });
  }

  /**
   * The server, or an error that time does not heal, ended it.
   *
   * @param {End} end
   * @param {QwsError} [error]
   */
  #finish(end, error) {
    this.#stop(end);
    const why = error ?? this.#closedError();
    this.#setState("closed");
    for (const entry of this.#takeEntries()) entry.end(why);
    this.#ready.reject(why);
    this.#over(end);
  }

  /** @param {End} end */
  #over(end) {
    this.#timers.clearAll();
    for (const call of this.#waiting.splice(0)) this.#settle(call, this.#closedError());
    this.#rttMs = null;
    this.#ready.reject(this.#closedError());
    emit(this, "close", { code: end.code, reason: end.reason, willReconnect: false });
    this.#closing?.resolve();
  }

  /** @param {ClientState} state */
  #setState(state) {
    if (this.#state === state) return;
    this.#state = state;
    emit(this, "state", state);
  }

  // Moving to QUIC.

  #tryQuicLater() {
    const { carriers, retryQuicMs, quicKey } = this.#settings;
    if (!carriers.includes("webtransport") || retryQuicMs === 0 || this.#staysOnSocket) return;
    this.#timers.set("quic", quicPause(quicKey, retryQuicMs, this.#quicTries), () => void this.#tryQuic());
  }

  /**
   * A QUIC connection that was open and then went silent is a failure of QUIC, until it turns out that the network was away.
   *
   * @param {Link} link which has ended
   * @param {End} end
   */
  #judgeQuic(link, { code }) {
    const { quicKey, carriers } = this.#settings;
    if (link.transport.carrier !== "webtransport" || !carriers.includes("websocket")) return;
    const now = performance.now();
    const isSilent = now - link.heardAt >= SILENCE_MS && link.doubtedAt <= link.heardAt;
    if (isSilent && (code === 1006 || code === 4408 || code === 4413)) {
      this.#suspicion = { before: quicFailures.get(quicKey) };
      noteQuicFailure(quicKey, 1);
    } else if (now - this.#since >= PROVEN_MS) {
      quicFailures.delete(quicKey);
    }
  }

  /** No carrier connects: it was the network that was silent. */
  #acquitQuic() {
    if (!this.#suspicion) return;
    const { before } = this.#suspicion;
    this.#suspicion = null;
    if (before) quicFailures.set(this.#settings.quicKey, before);
    else quicFailures.delete(this.#settings.quicKey);
  }

  async #tryQuic() {
    const { carriers } = this.#settings;
    const old = this.#link;
    if (!carriers.includes("webtransport") || this.#moving || !old || this.#staysOnSocket) return;
    const moving = new AbortController();
    this.#moving = moving;
    this.#timers.clear("compared");
    this.#compared.clear();
    try {
      await this.#dial(["webtransport"], moving.signal, (link) => {
        this.#moving = null;
        this.#move(old, link);
      });
    } catch (error) {
      this.#moving = null;
      this.#quicTries += 1;
      this.#compared.clear();
      // For good where it was the server that said so: WebSocket is good enough.
      const { kind, code } = asError(error);
      if (kind === "closed" && !this.#mayReturn(code) && !moving.signal.aborted) this.#staysOnSocket = true;
      if (this.#link === old) this.#tryQuicLater();
    }
  }

  /**
   * Goes over to another connection; the one before is read on until every subscription has moved and every reply is there.
   *
   * @param {Link} old
   * @param {Link} link
   */
  #move(old, link) {
    this.#leftLinks.add(old);
    for (const call of old.orders.splice(0)) {
      const entry = this.#entries.get(call.message.topic);
      if (call.message.type !== "subscribe") old.orders.push(call);
      else if (entry?.binding?.order === call) {
        old.routes.unbind(entry.binding);
        entry.unbind(old);
      }
    }
    this.#pump(old);
    // What others said before comes before the answer; after that, what they say comes by the new connection.
    const drained = new Call({ type: "ping" }, undefined, false, () => {
      old.isDrained = true;
      link.inUse.resolve();
    });
    this.#send(old, drained);
    this.#use(link);
    this.#timers.set("compared", COMPARED_MS, () => this.#compared.clear());
    this.#timers.set("move", MOVE_MS, () => old.end({ code: 1000, reason: "moved to another connection" }));
    emit(this, "open", { carrier: link.transport.carrier, resumed: true });
  }

  /** @param {Link} old */
  #checkMoved(old) {
    if (!this.#leftLinks.has(old) || old.calls.size + old.orders.length > 0) return;
    for (const entry of this.#entries.values()) if (entry.binding?.link === old || entry.next) return;
    this.#timers.clear("move");
    old.end({ code: 1000, reason: "moved to another connection" });
  }

  // Requests.

  /**
   * @template Result
   * @param {Json} message
   * @param {{ attachment?: Uint8Array, content?: unknown, again?: boolean }} how
   * @param {(reply: Reply, call: Call) => Result} read
   * @returns {Promise<Result>}
   */
  #request(message, { attachment, content, again = false }, read) {
    if (content instanceof Uint8Array) attachment = content;
    else if (typeof content === "string") message.content = content;
    else if (content !== undefined || ["broadcast", "direct", "publish"].includes(message.type)) {
      return failed(new QwsError("usage", `${message.type}: content must be a string or a Uint8Array`));
    }
    if (this.#state === "closed") return failed(this.#closedError());
    // It may wait, and the caller may use the buffer again.
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
    const within = this.#settings.requestTimeoutMs;
    call.deadline = performance.now() + within;
    if (within !== Infinity) call.timer = later(within, () => this.#timeOut(call, within));
    enqueue(this.#waiting, call);
    if (this.#link) this.#pump(this.#link);
    return result.promise;
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

  /** @param {Link} link */
  #pump(link) {
    while (!link.isOver) {
      if (!link.transport.writable) {
        link.whenWritable(() => this.#pump(link));
        return;
      }
      const next = this.#next(link);
      if (!next) return;
      this.#send(link, next.call, next.pace);
    }
  }

  /**
   * Takes the next request that may be sent now; if there is none, the link is pumped again when that changes.
   *
   * @param {Link} link
   * @returns {{ call: Call, pace: Pace } | null}
   */
  #next(link) {
    const now = performance.now();
    const waiting = link === this.#link ? this.#waiting : [];
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
    if (wait < Infinity && link.orders.length + waiting.length > 0) link.pumpAfter(wait, () => this.#pump(link));
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

  /**
   * @param {Link} link
   * @param {Call} call
   * @param {Pace | null} [pace] what it counts for
   */
  #send(link, call, pace = null) {
    const error = link.send(call, pace);
    if (error) this.#settle(call, error);
  }

  /**
   * A reply came.
   *
   * @param {Link} link
   * @param {Reply} reply
   */
  #replied(link, reply) {
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

  /** @param {Link} link */
  #afterReply(link) {
    this.#pump(link);
    this.#checkMoved(link);
  }

  /**
   * Too much at once (`error` 429): nothing was done. The request goes back to its place in the queue, and the queue goes
   * on when the server said that it may.
   *
   * @param {Link} link
   * @param {Call} call
   * @param {Pace} pace
   * @param {QwsError} error
   */
  #putOff(link, call, pace, error) {
    const afterMs = Number.isFinite(error.retryAfterMs) ? Number(error.retryAfterMs) : DEFAULT_RETRY_MS;
    const at = performance.now() + afterMs;
    pace.refused(at, error);
    const isTooLate = call.isOrder ? !call.isWanted() || link !== this.#link : at >= call.deadline;
    if (this.#closed || isTooLate) return this.#settle(call, error);
    call.refusal = error;
    call.whenPutOff();
    enqueue(call.isOrder ? link.orders : this.#waiting, call);
  }

  // A sign of life.

  #keepAlive() {
    if (this.#link) this.#probe(this.#link, SILENCE_MS);
    this.#timers.set("ping", PING_MS, () => this.#keepAlive());
  }

  /**
   * Measures the round trip; a connection on which nothing comes after that is none.
   *
   * @param {Link} link
   * @param {number} withinMs
   */
  #probe(link, withinMs) {
    const asked = performance.now();
    const call = new Call({ type: "ping", timestamp: Date.now() }, undefined, false, (error) => {
      if (error) return;
      this.#measured(call);
      if (this.#warmPings === 0 || link !== this.#link) return;
      this.#warmPings -= 1;
      this.#probe(link, SILENCE_MS);
    });
    this.#send(link, call);
    this.#timers.set("silence", withinMs, () => {
      if (link.heardAt < asked) link.end({ code: 1006, reason: "the server is silent" }, true);
    });
  }

  /** @param {Call} call */
  #measured(call) {
    const took = performance.now() - call.sentAt;
    // The first one of a connection counts only until there is another.
    const isSecond = this.#isCold && this.#roundTrips.length > 0;
    if (isSecond) this.#isCold = false;
    this.#roundTrips = isSecond ? [took] : [...this.#roundTrips, took].slice(-KEPT_ROUND_TRIPS);
    this.#rttMs = Math.min(...this.#roundTrips);
    emit(this, "rtt", this.#rttMs);
    return took;
  }

  // What comes in.

  /**
   * @param {Link} link
   * @param {Reply} heard
   * @param {Source} source
   * @returns {Promise<void> | void} where it is a promise, nothing more is to be read there before
   */
  #hear(link, heard, source) {
    const { json, data } = heard;
    if (json.re !== undefined && json.re !== null) return this.#replied(link, heard);
    if (this.#state === "closed") return;
    switch (json.type) {
      case "message":
      case "gap":
      case "join":
      case "leave":
        return this.#ofTopic(link, source, json, data);
      case "broadcast":
      case "direct":
      case "signal":
        return link.inUse.isSettled ? this.#said(link, json, data) : link.inUse.promise.then(() => this.#said(link, json, data));
      case "unsubscribed": {
        const entry = this.#entries.get(json.topic);
        if (!entry || entry.binding?.link !== link) return;
        this.#forget(entry);
        return entry.end(new QwsError("request", String(json.reason ?? "unsubscribed"), { code: json.code }));
      }
      case "expiring":
        if (link !== this.#link) return;
        emit(this, "expiring", { expires_at: json.expires_at });
        return void this.#showAnother(link, new Backoff(this.#settings.maxBackoffMs));
      case "error":
        return emit(this, "error", new QwsError("request", String(json.message), { code: json.code }));
      default:
      // From a newer server, and none of this client's business.
    }
  }

  /**
   * Renews the token, and tries again for as long as the connection lives.
   *
   * @param {Link} link
   * @param {Backoff} backoff
   */
  async #showAnother(link, backoff) {
    if (typeof this.#token !== "function" || link !== this.#link) return;
    try {
      const shown = await link.inTime(this.#freshToken());
      if (shown === undefined) throw new QwsError("transport", "the token function gave none");
      if (link === this.#link && !this.#closed) await this.refresh(shown);
    } catch (cause) {
      // The next connection asks for one anyway.
      if (link !== this.#link || this.#closed) return;
      emit(this, "error", new QwsError("request", `token: could not be renewed: ${textOf(cause)}`, { cause }));
      if (!this.#closed) this.#timers.set("refresh", backoff.next(), () => void this.#showAnother(link, backoff));
    }
  }

  /**
   * Tells what another client said.
   *
   * @param {Link} link
   * @param {Json} json
   * @param {Uint8Array} [data]
   */
  #said(link, json, data) {
    if (this.#state === "closed") return;
    if (json.type === "signal") return emit(this, "signal", { from: json.from, data: json.data, timestamp: json.timestamp });
    if (json.type === "direct") return emit(this, "direct", saidOf(json, data));
    if (!this.#isHeardTwice(link, json, data)) emit(this, "broadcast", saidOf(json, data));
  }

  /**
   * While there are two connections each broadcast comes twice, in the same order.
   *
   * @param {Link} link
   * @param {Json} json
   * @param {Uint8Array} [data]
   */
  #isHeardTwice(link, json, data) {
    const isOld = this.#leftLinks.has(link);
    if (isOld && link.isDrained) return true;
    const watches = isOld || this.#moving !== null;
    if (!watches && this.#compared.size === 0) return false;
    const what = `${json.from} ${json.timestamp} ${digest(json.content ?? "")} ${data && digest(data)}`;
    const count = this.#compared.get(what) ?? 0;
    if (watches) {
      if (this.#compared.size >= MAX_COMPARED) this.#compared.delete(this.#compared.keys().next().value ?? "");
      this.#compared.set(what, count + 1);
      return false;
    }
    // The first one that the other connection has not brought: none of those that follow it has come before.
    if (count === 0) this.#compared.clear();
    else if (count === 1) this.#compared.delete(what);
    else this.#compared.set(what, count - 1);
    return count > 0;
  }

  /**
   * @param {Link} link
   * @param {Source} source
   * @param {Json} json
   * @param {Uint8Array} [data]
   * @returns {Promise<void> | void}
   */
  #ofTopic(link, source, json, data) {
    const ofPresence = json.type === "join" || json.type === "leave";
    if (ofPresence && this.#ownIds.includes(json.client?.id)) return;
    if (typeof json.topic !== "string") throw new QwsError("protocol", `${json.type}: no topic`, { code: 1002 });
    const binding = link.routes.find(source, json, ofPresence);
    if (binding === null) return;
    const { entry } = binding;
    if (binding.stage === "live") {
      // What the server sends by a pattern while the topic itself is paused comes again behind the pause.
      if (entry.isPattern && json.type === "message" && json.offset > (this.#entries.get(json.topic)?.begin ?? Infinity)) return;
      if (entry.next === binding) return entry.drained.promise.then(() => this.#ofTopic(link, source, json, data));
      if (entry.binding === binding) for (const feed of entry.deliver(binding, source, json, data)) this.#filled(entry, feed);
      return;
    }
    return binding.settled.promise.then(() => this.#ofTopic(link, source, json, data));
  }

  // Subscriptions.

  /**
   * Asks a connection's server for a subscription, where it has to be asked.
   *
   * @param {Link} link
   * @param {Entry} entry
   */
  #ask(link, entry) {
    if (link.isOver || entry.isPaused || entry.isOver) return;
    if (entry.binding?.link === link || entry.next?.link === link) return;
    // One text at a time: it is asked for once the server has let go of it, or another connection has answered.
    if (link.routes.leaving.has(entry.topic) || entry.binding?.stage === "asked") return;
    if (entry.binding?.stage === "leaving") return;
    // Only then: reading them ends the session in some browsers.
    if (entry.isDatagram) link.transport.takeDatagrams();
    const binding = link.routes.bind(entry);
    const call = new Call(entry.toAsk(link.routes.isOnControl(entry.topic)), undefined, false, (error, reply) => {
      if (error) this.#refused(binding, error);
      else this.#answered(binding, /** @type {Reply} */ (reply).json);
    });
    call.isOrder = true;
    call.isWanted = () => binding.stage === "asked";
    call.whenPutOff = () => binding.letGo();
    binding.order = call;
    if (entry.binding) entry.moveTo(binding);
    else entry.binding = binding;
    enqueue(link.orders, call);
    this.#pump(link);
  }

  /**
   * @param {Binding} binding
   * @param {Json} reply
   */
  #answered(binding, reply) {
    const { entry, link } = binding;
    const asked = binding.order?.message;
    binding.order = null;
    if (reply.type !== "subscribed") {
      return this.#refused(binding, new QwsError("protocol", `subscribe: unexpected reply ${reply.type}`));
    }
    const canBeTold = link.routes.answered(binding, reply);
    // It was left meanwhile, and the server has been told.
    if (entry.isOver || binding.stage !== "live") return;
    if (!canBeTold) return this.#tellLeft(binding, () => entry.unbind(link));
    const old = entry.next === binding ? entry.binding : null;
    entry.answered(binding, reply, asked);
    for (const feed of entry.feeds) if (feed.behind) void this.#catchUp(entry, feed);
    if (!old) {
      // Asked on a connection that was left since.
      if (link !== this.#link && this.#link) this.#ask(this.#link, entry);
    } else if (entry.isPattern && !old.link.isOver) {
      // It has no position: what the old connection brings until it says that it is over comes first.
      const left = new Call({ type: "unsubscribe", topic: entry.topic }, undefined, false, () => {
        entry.switch(binding);
        old.link.routes.unbind(old);
        this.#checkMoved(old.link);
      });
      left.isOrder = true;
      enqueue(old.link.orders, left);
      this.#pump(old.link);
    } else {
      entry.switch(binding);
      old.link.routes.unbind(old);
      this.#checkMoved(old.link);
    }
    binding.settled.resolve();
  }

  /**
   * @param {Binding} binding
   * @param {QwsError} error
   */
  #refused(binding, error) {
    const { entry, link } = binding;
    const asked = binding.order?.message;
    binding.order = null;
    // It was left meanwhile.
    if (binding.stage === "leaving") return;
    link.routes.unbind(binding);
    const isCurrent = entry.binding === binding || entry.next === binding;
    if (isCurrent) entry.unbind(link);
    binding.settled.resolve();
    // With the connection it is asked for anew.
    if (!isCurrent || entry.isOver || error.kind === "closed") return;
    if (error.code === 429 && link !== this.#link) {
      // The connection was left meanwhile for a better one.
      if (this.#link) this.#ask(this.#link, entry);
    } else if (entry.opened && PASSING.has(error.code ?? 0)) {
      const wait = error.retryAfterMs ?? entry.backoff.next();
      entry.timer = later(wait, () => this.#link && this.#ask(this.#link, entry));
    } else if (entry.canAskForLess(asked, error)) {
      if (this.#link) this.#ask(this.#link, entry);
    } else {
      this.#forget(entry);
      entry.end(error);
    }
  }

  /** @param {Entry} entry */
  #forget(entry) {
    if (this.#entries.get(entry.topic) === entry) this.#entries.delete(entry.topic);
    for (const binding of [entry.binding, entry.next]) if (binding) binding.link.routes.unbind(binding);
  }

  /**
   * One of those that share a subscription ends; the last one ends it at the server.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   * @param {QwsError | null} [error] `null` if the application asked for it
   * @returns {Promise<void>}
   */
  #leave(entry, feed, error = null) {
    if (feed.isOver) return Promise.resolve();
    if (entry.feeds.size > 1) {
      entry.part(feed, error);
      return Promise.resolve();
    }
    const bindings = [entry.binding, entry.next].filter((binding) => binding !== null);
    this.#forget(entry);
    entry.end(error);
    /** @type {Deferred<void>} */
    const left = new Deferred();
    let open = bindings.length;
    if (open === 0) left.resolve();
    for (const binding of bindings) this.#tellLeft(binding, () => --open === 0 && left.resolve());
    return left.promise;
  }

  /**
   * Tells a connection's server that a subscription is wanted there no more; `done` is called once that is so.
   *
   * @param {Binding} binding
   * @param {() => void} done
   */
  #tellLeft(binding, done) {
    const { link, entry } = binding;
    const unsent = binding.order && link.orders.indexOf(binding.order);
    if (typeof unsent === "number" && unsent >= 0) {
      link.orders.splice(unsent, 1);
      link.routes.unbind(binding);
      return done();
    }
    if (link.isOver) return done();
    if (binding.stage === "leaving") {
      binding.settled.promise.then(done);
      return;
    }
    link.routes.leave(binding);
    const call = new Call({ type: "unsubscribe", topic: entry.topic }, undefined, false, () => {
      link.routes.left(binding);
      binding.settled.resolve();
      done();
      const waiting = this.#entries.get(entry.topic);
      if (waiting && this.#link) this.#ask(this.#link, waiting);
    });
    call.isOrder = true;
    enqueue(link.orders, call);
    this.#pump(link);
  }

  /**
   * A reader does not keep up. If it is the only one, the server is asked to stop; else it falls behind the others.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   */
  #filled(entry, feed) {
    if (entry.feeds.size > 1) feed.fallBehind();
    else this.#pause(entry);
  }

  /**
   * Asks the server to stop, and later to go on behind what was seen.
   *
   * @param {Entry} entry
   */
  #pause(entry) {
    if (entry.isPaused) return;
    entry.isPaused = true;
    for (const binding of [entry.next, entry.binding]) {
      if (!binding) continue;
      this.#tellLeft(binding, () => {
        entry.unbind(binding.link);
        this.#goOn(entry);
      });
    }
    entry.next = null;
  }

  /**
   * There may be room again.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   */
  #room(entry, feed) {
    if (feed.behind) void this.#catchUp(entry, feed);
    else this.#goOn(entry);
  }

  /** @param {Entry} entry which may be paused without need */
  #goOn(entry) {
    if (!entry.isPaused || entry.binding || !entry.hasRoom) return;
    entry.isPaused = false;
    if (this.#link) this.#ask(this.#link, entry);
  }

  // Several subscriptions to one topic.

  /**
   * Another one shares what the server sends already.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   */
  #join(entry, feed) {
    if (entry.isPaused) for (const other of entry.feeds) if (other !== feed && !other.hasRoom) other.fallBehind();
    const order = entry.binding?.order;
    const isUnsent = order && entry.binding?.link.orders.includes(order);
    if (feed.options.presence && !entry.options.presence) {
      entry.options.presence = true;
      entry.asker ??= feed;
      if (isUnsent) order.message = { ...order.message, presence: true };
      // Asked for again behind what was seen, so that nothing is lost.
      else if (entry.binding) this.#pause(entry);
    }
    this.#goOn(entry);
    if (entry.binding?.stage === "live" && entry.opened) entry.admit(feed);
    if (feed.behind) void this.#catchUp(entry, feed);
  }

  /**
   * Fetches what a subscription has missed from the topic's history, until it is where the others are.
   *
   * @param {Entry} entry
   * @param {Feed} feed
   */
  async #catchUp(entry, feed) {
    const { behind } = feed;
    if (!behind || behind.isFetching || !entry.opened) return;
    behind.isFetching = true;
    const backoff = new Backoff(this.#settings.maxBackoffMs);
    while (feed.behind === behind && feed.hasRoom) {
      try {
        if (behind.recent !== undefined) {
          const begin = await this.#beginOf(entry.topic, behind.recent, behind.end);
          if (feed.behind !== behind) return;
          feed.seen = begin ?? entry.seen;
          behind.recent = undefined;
        }
        // Of what comes while it is fetched, what follows it is taken then.
        behind.pending = [];
        const { seen: since, room: limit } = feed;
        const page = await this.#history({ type: "history", topic: entry.topic, since, limit });
        if (feed.behind !== behind) return;
        if (feed.replay(page, since)) {
          for (const full of entry.caughtUp(feed)) this.#filled(entry, full);
        } else if (!page.more) {
          // The connection is about to tell of another epoch, or more has come than could be kept.
          await this.#pauseFor(backoff.next());
        }
      } catch (cause) {
        const error = asError(cause);
        if (feed.isOver || error.kind === "closed") break;
        if (error.kind === "request" && !PASSING.has(error.code ?? 0)) {
          if (behind.isFirst) void this.#leave(entry, feed, error);
          else feed.loseTrack(entry.seen, error.message);
          break;
        }
        await this.#pauseFor(backoff.next());
      }
    }
    behind.isFetching = false;
  }

  /** Never settled if the client is closed before. @param {number} ms @returns {Promise<void>} */
  #pauseFor(ms) {
    return new Promise((resolve) => this.#timers.set(`pause ${(this.#pauses += 1)}`, ms, resolve));
  }

  /**
   * The position behind which so many of the newest messages are; `null` if there are none.
   *
   * @param {string} topic
   * @param {number} count
   * @param {Position} [end] if only those up to there count
   * @returns {Promise<Position | null>}
   */
  async #beginOf(topic, count, end) {
    let since = end && { epoch: end.epoch, offset: end.offset + 1 };
    /** @type {Position | null} */
    let begin = null;
    for (let left = count; left > 0; ) {
      const limit = Math.min(left, MAX_PAGE);
      const { epoch, messages, more } = await this.#history({ type: "history", topic, since, limit, reverse: true });
      const oldest = messages.at(-1);
      if (oldest) {
        since = { epoch, offset: oldest.offset };
        // No message lies between this position and that one.
        begin = { epoch, offset: oldest.offset - 1 };
      }
      left -= messages.length;
      if (!more || !oldest) break;
    }
    return begin;
  }
}

/** Nobody else chooses this. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
