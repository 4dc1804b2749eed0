/**
 * A client of a quic-websocket server, for browsers (WebTransport and WebSocket) and Node (WebSocket). One module, no
 * dependency, no build step; the types are in qws.d.ts, the protocol in docs/PROTOCOL.md, how to use it in README.md.
 *
 * From the top: the client's face (`connect`, `Client`, `Subscription`), then what it is made of: entries (what a subscription
 * has seen), routes (whose a message is, on one connection), links (one connection), carriers (what transports bodies), and
 * the plain functions below them.
 *
 * @module
 */

/** @typedef {import("./qws.js").ConnectOptions} ConnectOptions */
/** @typedef {import("./qws.js").SubscribeOptions} SubscribeOptions */
/** @typedef {import("./qws.js").Position} Position */
/** @typedef {import("./qws.js").Message} Message */
/** @typedef {import("./qws.js").MessageIterator} MessageIterator */
/** @typedef {import("./qws.js").Subscribed} Subscribed */
/** @typedef {import("./qws.js").ErrorKind} ErrorKind */
/** @typedef {import("./qws.js").ClientState} ClientState */
/** @typedef {import("./qws.js").Carrier} CarrierName */
/** @typedef {Record<string, any>} Json a JSON object */
/** @typedef {{ json: Json, data?: Uint8Array }} Reply */
/** @typedef {{ code: number, reason: string, reconnectAfterMs?: number }} End */
/** @typedef {string | Uint8Array} Body what travels: JSON alone as text, with an attachment as bytes */
/** @typedef {"control" | "request" | "datagram" | number} Source on what a body came; a number is a topic lane's */

/** The first try to come back comes within this time, each further one within twice the time of the one before. */
const FIRST_BACKOFF_MS = 500;
/** A connection that lived as long begins the count of tries anew: a server that lets clients in only to lose them is not stormed. */
const HELD_MS = 20_000;
/** The least time between two tries that an event of the page asks for. */
const EAGER_MS = 1_000;
/** How long a connection may take to come, and then the answer to `handshake`. */
const CONNECT_MS = 10_000;
/** Once told or asked to end, how long the other side may take for it. */
const GOODBYE_MS = 2_000;
/** How long the cause of a failed connection is looked for. */
const DIAGNOSIS_MS = 1_000;
/** Once a lane has ended, how long the connection's own end may take, which tells the code. */
const CLOSE_FOLLOWS_MS = 1_000;
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
/** How often the time until QUIC is tried again doubles: browsers write each failure into their console. */
const MAX_QUIC_DOUBLINGS = 4;
/** A QUIC connection that lived as long makes up for those that went silent before. */
const PROVEN_MS = 600_000;
/** How long the old connection is kept for what is still on its way, once there is a better one. */
const MOVE_MS = 5_000;
/** Bytes that the connection has not taken, beyond which requests wait. */
const MAX_UNSENT_BYTES = 1024 * 1024;
/** Longer bodies travel on a lane of their own. */
const BULK_BYTES = 64 * 1024;
/** Most requests without a reply, refused ones included: fewer than the refusals for which a server closes with 4429. */
const MAX_CALLS = 96;
/** How many requests of one kind go out on a new connection before the first reply; each reply allows one more. */
const FIRST_WINDOW = 16;
/** How long to wait after an `error` 429 that does not say it. */
const DEFAULT_RETRY_MS = 1_000;
/** Most datagrams that the browser keeps for the client. */
const MAX_DATAGRAMS = 256;
/** Longest body that is taken before the server has told its own limit. */
const MAX_FIRST_BYTES = 1024 * 1024;
/** Most messages on one page of a topic's history. */
const MAX_PAGE = 1000;
/** Of how many topics it is kept in mind on which lanes of a connection they came. */
const MAX_REMEMBERED = 4096;
/** Most broadcasts in one round trip that are known again while there are two connections, and for how long. */
const MAX_COMPARED = 1024;
const COMPARED_MS = 2 * MOVE_MS;

/** The closing codes after which a client may come back by itself (PROTOCOL, section 10). */
const MAY_RECONNECT = new Set([1001, 1006, 1011, 1012, 1013, 4408, 4413]);
/** Refusals that time can heal: a subscription that was there is tried again. */
const PASSING = new Set([429, 500, 503]);

/**
 * When QUIC failed where WebSocket did not, and how many QUIC connections went silent after they were open, by address: for
 * all clients of a page.
 *
 * @type {Map<string, { at: number, starved: number }>}
 */
const quicFailures = new Map();

/** @param {string} key @param {number} [starved] */
function noteQuicFailure(key, starved = 0) {
  quicFailures.set(key, { at: Date.now(), starved: (quicFailures.get(key)?.starved ?? 0) + starved });
}

/**
 * How long QUIC is left alone after a failure.
 *
 * @param {string} key
 * @param {number} retryQuicMs
 * @param {number} [tries] how often it was tried in vain since
 */
function quicPause(key, retryQuicMs, tries = 0) {
  const failures = tries + (quicFailures.get(key)?.starved ?? 0);
  return (retryQuicMs || Infinity) * 2 ** Math.min(failures, MAX_QUIC_DOUBLINGS);
}

/** Makes and reads what only this module may. */
const INTERNAL = Symbol("quic-websocket");

/** What a client or its server did wrong, or what became of a request. */
export class QwsError extends Error {
  /**
   * @param {ErrorKind} kind
   * @param {string} message
   * @param {{ code?: number, retryAfterMs?: number, cause?: unknown }} [details]
   */
  constructor(kind, message, { code, retryAfterMs, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    /** @type {"QwsError"} */
    this.name = "QwsError";
    this.kind = kind;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * Connects to a server; returns at once, and the client connects in the background.
 *
 * @param {string | import("./qws.js").UrlLike} [url]
 * @param {ConnectOptions} [options]
 * @returns {import("./qws.js").Client}
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
   * @param {string | import("./qws.js").UrlLike | undefined} url
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
      return /** @type {import("./qws.js").ClientPage} */ (next == null ? { clients, total } : { clients, total, next });
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
   * @returns {import("./qws.js").Subscription}
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
   * @param {import("./qws.js").HistoryOptions} [options]
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

  /** @param {Json} message @returns {Promise<import("./qws.js").HistoryPage>} */
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
      clients: /** @type {import("./qws.js").ClientInfo[]} */ (json.clients),
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
    binding.order = null;
    if (reply.type !== "subscribed") {
      return this.#refused(binding, new QwsError("protocol", `subscribe: unexpected reply ${reply.type}`));
    }
    const canBeTold = link.routes.answered(binding, reply);
    // It was left meanwhile, and the server has been told.
    if (entry.isOver || binding.stage !== "live") return;
    if (!canBeTold) return this.#tellLeft(binding, () => entry.unbind(link));
    const old = entry.next === binding ? entry.binding : null;
    entry.answered(binding, reply);
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
          const begin = await this.#beginOf(entry.topic, behind.recent);
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
   * @returns {Promise<Position | null>}
   */
  async #beginOf(topic, count) {
    /** @type {Position | undefined} */
    let since;
    for (let left = count; left > 0; ) {
      const limit = Math.min(left, MAX_PAGE);
      const { epoch, messages, more } = await this.#history({ type: "history", topic, since, limit, reverse: true });
      const oldest = messages.at(-1);
      if (oldest) since = { epoch, offset: oldest.offset };
      left -= messages.length;
      if (!more || !oldest) break;
    }
    return since ? { epoch: since.epoch, offset: since.offset - 1 } : null;
  }
}

/** @typedef {{ message: Message | null, position: Position | null }} Item what waits for a reader */
/** @typedef {{ first: number, last: number, json: Json }} GapTold a `gap` of the server */
/** @typedef {{ message: Message | null, gap?: GapTold, position: Position | null }} Heard what comes for a subscription */
/**
 * What a subscription that has to catch up knows of that: what came since it began to fetch (`null`: more than it keeps), and
 * whether these are the first messages that it gets.
 *
 * @typedef {{ isFirst: boolean, isFetching: boolean, recent: number | undefined, pending: Heard[] | null }} Behind
 */
/** @typedef {{ reader: object | null, taken: Deferred<Message | null> }} Waiter a reader that waits */

/** What the application holds of a subscription. Several may share one subscription at the server. */
export class Subscription extends EventTarget {
  /** @type {Feed} */
  #feed;
  #leave;
  /** Those of "message": while there are any, nothing is kept. @type {{ listener: EventListenerOrEventListenerObject, capture: boolean, call: (event: Event) => void }[]} */
  #listeners = [];

  /**
   * @param {symbol} internal
   * @param {Feed} feed
   * @param {() => Promise<void>} leave
   */
  constructor(internal, feed, leave) {
    super();
    if (internal !== INTERNAL) throw new QwsError("usage", "a subscription is made by client.subscribe()");
    this.#feed = feed;
    this.#leave = leave;
  }

  get topic() {
    return this.#feed.entry.topic;
  }
  get ready() {
    return this.#feed.ready.promise;
  }
  get state() {
    const { isOver, isPaused, opened } = this.#feed;
    if (isOver) return "ended";
    if (isPaused) return "paused";
    return opened ? "active" : "pending";
  }
  get mayPublish() {
    return this.#feed.entry.mayPublish;
  }
  get position() {
    return this.#feed.position;
  }

  unsubscribe() {
    return this.#leave();
  }

  /**
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    const { signal, once = false } = typeof options === "object" && options !== null ? options : {};
    if (type !== "message" || !listener || signal?.aborted) return super.addEventListener(type, listener, options);
    const capture = isCapture(options);
    if (this.#listeners.some((other) => other.listener === listener && other.capture === capture)) return;
    /** @type {(event: Event) => void} */
    const call = (event) => {
      if (once) this.removeEventListener(type, listener, capture);
      if (typeof listener === "function") listener.call(this, event);
      else listener.handleEvent(event);
    };
    this.#listeners.push({ listener, capture, call });
    super.addEventListener(type, call, { ...(typeof options === "object" ? options : {}), capture });
    signal?.addEventListener("abort", () => this.removeEventListener(type, listener, capture), { once: true });
    this.#feed.listened(this.#listeners.length);
  }

  /**
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | EventListenerOptions} [options]
   */
  removeEventListener(type, listener, options) {
    const capture = isCapture(options);
    const at = this.#listeners.findIndex((other) => other.listener === listener && other.capture === capture);
    if (type !== "message" || at < 0) return super.removeEventListener(type, listener, options);
    const [{ call }] = this.#listeners.splice(at, 1);
    super.removeEventListener(type, call, capture);
    this.#feed.listened(this.#listeners.length);
  }

  /** @returns {MessageIterator} */
  [Symbol.asyncIterator]() {
    const feed = this.#feed;
    /** @type {() => IteratorReturnResult<undefined>} */
    const done = () => ({ done: true, value: undefined });
    let isOver = false;
    feed.readers += 1;
    /** @type {MessageIterator} */
    const iterator = {
      next: async () => {
        if (isOver) return done();
        try {
          const message = await feed.take(iterator);
          if (message) return { done: false, value: message };
        } catch (error) {
          leave();
          throw error;
        }
        leave();
        return done();
      },
      return: async () => {
        leave();
        return done();
      },
      throw: async (error) => {
        leave();
        throw error;
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    const leave = () => {
      if (!isOver) feed.readerLeft(iterator);
      isOver = true;
    };
    return iterator;
  }
}

/**
 * A subscription at the server, and the subscriptions of the application that share it: what was asked for, and what was seen.
 * Knows nothing of connections but which of them it is bound to.
 */
class Entry {
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
    return this.isDatagram || this.isPattern || this.#isPositionRefused ? request : { ...request, since: this.seen };
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
    const { epoch = null, offset = null } = this.isPattern ? {} : (this.seen ?? {});
    feed.open(this.seen, { epoch, offset, recovered: null });
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
   */
  answered(binding, reply) {
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
      const isNews = this.#compare(reply.epoch, Number(reply.offset), moves) || reply.offset > this.#told;
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
        feed.open(this.seen, subscribed);
        if (lost) emit(feed.subscription, "lost", { ...subscribed, reason: reply.reason ?? lost });
        else if (renewed) emit(feed.subscription, "resumed", subscribed);
      } else {
        const { epoch, offset } = subscribed;
        feed.open(epoch === null ? null : { epoch, offset: Number(offset) }, { ...subscribed, recovered: null });
      }
    }
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
      // At most so many follow, with offsets that grow by one at least.
      this.#passed({ epoch, offset: Math.max(0, newest - (this.options.recent ?? 0)) });
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

/**
 * What the application gets of a subscription: the messages that wait for its readers, and its events. Several feeds may share
 * one entry; one that does not keep up with the others, or begins further back, is behind and catches up from the history.
 */
class Feed {
  /** @type {Subscription | null} */
  subscription = null;
  /** @type {Deferred<Subscribed>} */
  ready = new Deferred();
  /** Whether `ready` has resolved: it gets what comes. */
  opened = false;
  isOver = false;
  /** Up to here everything was taken. @type {Position | null} */
  seen;
  /** Up to here everything was handed out. @type {Position | null} */
  position;
  /** How many iterations there are. */
  readers = 0;
  /** Set while it has to catch up. @type {Behind | null} */
  behind = null;

  /** @type {Item[]} */
  #items = [];
  #first = 0;
  /** @type {Waiter[]} */
  #waiters = [];
  #isListened = false;
  /** @type {QwsError | null} */
  #error = null;
  #capacity;
  #roomAgain;

  /**
   * @param {Entry} entry
   * @param {SubscribeOptions} options
   * @param {number} capacity
   * @param {() => void} roomAgain called when there is room for more
   */
  constructor(entry, options, capacity, roomAgain) {
    const { since, recent } = options;
    this.entry = entry;
    this.options = options;
    this.seen = this.position = since ? { epoch: since.epoch, offset: since.offset } : null;
    this.#capacity = capacity;
    this.#roomAgain = roomAgain;
    // What the first one asks for, the server replays.
    const wantsReplay = since != null || (recent ?? 0) > 0;
    if (entry.feeds.size > 0 && wantsReplay && !entry.isPattern) {
      this.behind = { isFirst: true, isFetching: false, recent: since ? undefined : recent, pending: null };
    }
  }

  get isPaused() {
    return this.entry.isPaused || (this.behind !== null && !this.behind.isFirst);
  }

  /**
   * It begins, or goes on where the entry does.
   *
   * @param {Position | null} seen
   * @param {Subscribed} subscribed
   */
  open(seen, subscribed) {
    if (seen && !this.opened) this.passed(seen);
    this.opened = true;
    this.ready.resolve(subscribed);
  }

  /**
   * Takes what comes. True if there is no room for more.
   *
   * @param {Heard} heard
   */
  hear(heard) {
    if (this.isOver) return false;
    const { message, gap, position } = heard;
    if (this.behind) {
      const { pending } = this.behind;
      if (pending && pending.length < this.#capacity) pending.push(heard);
      else this.behind.pending = null;
      return false;
    }
    // Not before its answer: it begins behind that.
    if (!this.opened) return false;
    const { seen } = this;
    const isKnown = seen !== null && position !== null && seen.epoch === position.epoch;
    if (isKnown && position.offset <= seen.offset) return false;
    if (gap) {
      const first = isKnown ? Math.max(gap.first, seen.offset + 1) : gap.first;
      if (position) this.passed(position);
      const { topic, reason } = gap.json;
      emit(this.subscription, "gap", { topic, first, last: gap.last, ...(reason == null ? {} : { reason }) });
      return false;
    }
    return message !== null && this.#take(message, position);
  }

  /**
   * @param {Message} message
   * @param {Position | null} position
   */
  #take(message, position) {
    this.seen = position;
    const isFull = this.#put({ message, position });
    if (this.#isListened) emit(this.subscription, "message", message);
    return isFull;
  }

  /** @param {Position} position up to which there is nothing more to hand out */
  passed(position) {
    this.seen = position;
    // Behind what waits already.
    const last = this.#items.at(-1);
    if (last && this.waiting > 0) last.position = position;
    else this.position = position;
  }

  // Catching up.

  /** It keeps what waits, and fetches the rest from the topic's history once there is room. */
  fallBehind() {
    this.behind ??= { isFirst: false, isFetching: false, recent: undefined, pending: null };
  }

  /**
   * Takes a page of the topic's history. True if nothing is missing between that and what comes.
   *
   * @param {import("./qws.js").HistoryPage & { recovered?: boolean | null }} page
   * @param {Position | null} since where it begins
   */
  replay({ epoch, offset, messages, more, recovered }, since) {
    const { behind, entry, options } = this;
    const live = entry.seen;
    if (!behind || !live) return false;
    // An older server has no empty page.
    if (epoch === "") epoch = live.epoch;
    const isOther = since !== null && since.epoch !== epoch;
    const isLost = isOther || (since !== null && recovered === false);
    const subscribed = { epoch, offset: Math.max(offset, live.epoch === epoch ? live.offset : 0), recovered: !isLost };
    if (behind.isFirst && !this.opened && isLost && (options.recent ?? 0) > 0) {
      this.#openAt({ epoch, offset: 0 }, subscribed, isLost);
      behind.recent = options.recent;
      return false;
    }
    if (isOther) this.seen = { epoch, offset: 0 };
    this.#openAt(this.seen, options.since ? subscribed : { ...subscribed, recovered: null }, isLost);
    for (const message of messages) {
      if (this.behind !== behind) return false;
      this.#take(message, { epoch, offset: message.offset });
    }
    return this.behind === behind && !more && behind.pending !== null && epoch === live.epoch;
  }

  /**
   * @param {Position | null} position
   * @param {Subscribed} subscribed
   * @param {boolean} isLost
   */
  #openAt(position, subscribed, isLost) {
    if (!this.opened && position && this.waiting === 0) this.position = position;
    this.opened = true;
    this.ready.resolve(subscribed);
    if (isLost) emit(this.subscription, "lost", { ...subscribed, reason: "the topic's log does not reach back" });
  }

  /**
   * What it has missed cannot be had: it goes on with what comes.
   *
   * @param {Position | null} position
   * @param {string} reason
   */
  loseTrack(position, reason) {
    this.behind = null;
    if (position) this.passed(position);
    const { epoch = null, offset = null } = position ?? {};
    emit(this.subscription, "lost", { epoch, offset, recovered: false, reason });
  }

  // What waits for the reader.

  get waiting() {
    return this.#items.length - this.#first;
  }

  get hasRoom() {
    return this.waiting <= this.#capacity / 2;
  }

  /** How many messages there is room for on one page of history. */
  get room() {
    return Math.min(MAX_PAGE, Math.max(1, Math.floor(this.#capacity - this.waiting)));
  }

  /**
   * @param {Item} item
   * @returns {boolean} whether there is no room for more
   */
  #put(item) {
    const { isDatagram, isPattern } = this.entry;
    const waiter = this.#waiters.shift();
    if (waiter) {
      if (item.position) this.position = item.position;
      waiter.taken.resolve(item.message);
      return false;
    }
    if (this.#isListened && this.readers === 0) {
      if (item.position) this.position = item.position;
      return false;
    }
    this.#items.push(item);
    if (this.waiting < this.#capacity) return false;
    if (!isDatagram && !isPattern) return true;
    // There is no position to come back to.
    if (this.waiting > this.#capacity) this.#dropOldest();
    return false;
  }

  #dropOldest() {
    const dropped = this.#shift();
    if (!dropped?.message || this.entry.isDatagram) return;
    const { topic, offset } = dropped.message;
    emit(this.subscription, "gap", { topic, first: offset, last: offset, reason: "not read fast enough" });
  }

  /** @returns {Item | undefined} */
  #shift() {
    if (this.waiting === 0) return undefined;
    const item = this.#items[this.#first];
    this.#first += 1;
    if (this.#first === this.#items.length || this.#first >= 1024) {
      this.#items.splice(0, this.#first);
      this.#first = 0;
    }
    return item;
  }

  /**
   * The next message; `null` behind the last, and where the reader leaves.
   *
   * @param {object | null} reader
   * @returns {Promise<Message | null>}
   */
  take(reader = null) {
    const item = this.#shift();
    if (item) {
      if (item.position) this.position = item.position;
      if (this.isPaused && this.hasRoom) this.#roomAgain();
      return Promise.resolve(item.message);
    }
    if (this.isOver) {
      const error = this.#error;
      this.#error = null;
      return error ? Promise.reject(error) : Promise.resolve(null);
    }
    /** @type {Deferred<Message | null>} */
    const taken = new Deferred();
    this.#waiters.push({ reader, taken });
    return taken.promise;
  }

  /** So many listen from now on; the first, where nobody reads, gets what has come already. @param {number} listeners */
  listened(listeners) {
    const isFirst = !this.#isListened && listeners > 0;
    this.#isListened = listeners > 0;
    if (isFirst && this.waiting > 0) queueMicrotask(() => this.#handOver());
  }

  #handOver() {
    while (this.#isListened && this.readers === 0) {
      const item = this.#shift();
      if (!item) break;
      if (item.position) this.position = item.position;
      if (item.message) emit(this.subscription, "message", item.message);
    }
    if (this.isPaused && this.hasRoom) this.#roomAgain();
  }

  /**
   * An iteration was left, and takes nothing more. Where somebody listens, nobody waits then for what is here.
   *
   * @param {object} reader
   */
  readerLeft(reader) {
    for (const { taken } of this.#waiters.filter((waiter) => waiter.reader === reader)) taken.resolve(null);
    this.#waiters = this.#waiters.filter((waiter) => waiter.reader !== reader);
    this.readers -= 1;
    if (this.readers > 0) return;
    if (!this.#isListened || this.isOver) return;
    this.#items = [];
    this.#first = 0;
    this.position = this.seen;
    if (this.isPaused) this.#roomAgain();
  }

  /** @param {QwsError | null} error `null` where it was asked for */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.behind = null;
    this.ready.reject(error ?? new QwsError("closed", "unsubscribed before the server answered"));
    const [first, ...others] = this.#waiters.splice(0);
    if (error && first) first.taken.reject(error);
    else {
      first?.taken.resolve(null);
      this.#error = error;
    }
    for (const { taken } of others) taken.resolve(null);
    emit(this.subscription, "end", error);
  }
}

/** A subscription on one connection. */
class Binding {
  /** @type {"asked" | "live" | "leaving" | "left"} */
  stage = "asked";
  /** The topic lane on which its messages come; `null` for the control lane. @type {number | null} */
  lane = null;
  /** Resolved when the server has answered, or the connection has ended. @type {Deferred<void>} */
  settled = new Deferred();
  /** The request that waits for its reply. @type {Call | null} */
  order = null;
  /** What came on this lane for this topic. @type {Track | null} */
  track = null;

  /**
   * @param {Link} link
   * @param {Entry} entry
   */
  constructor(link, entry) {
    this.link = link;
    this.entry = entry;
  }

  /** Whether the server may have answered, and the answer not be here. */
  get isAsked() {
    return this.stage === "asked" && this.order !== null && this.order.isUnderWay;
  }

  /** Whoever waits for the answer waits for another. */
  letGo() {
    this.settled.resolve();
    this.settled = new Deferred();
  }

  /** @param {Source} source */
  isOn(source) {
    return source === (this.lane ?? "control") || (source === "datagram" && this.entry.isDatagram);
  }

  /**
   * Whether it was sent before a pause, and what came before it was dropped in that. The server sends all of it again: a lane's
   * messages of a topic grow in offset and leave nothing out, but where the server begins anew, and then it begins at once behind
   * what was seen.
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

/** @typedef {{ entry: Entry, last: number }} Track for whom a topic came on a lane, and the last offset that did, whether it was taken or not */

/** Whose a topic's message is, on one connection. */
class Routes {
  /** @type {Map<string, Binding>} */
  #exact = new Map();
  /** In the order in which they were subscribed to. @type {Binding[]} */
  #patterns = [];
  /** Topics that have come on topic lanes, by lane. @type {Map<string, Map<number, Track>>} */
  #tracks = new Map();
  /** Patterns that have come on topic lanes, by lane. @type {Map<number, Set<string>>} */
  #patternsOn = new Map();
  /** Topics that have to come on the control lane. @type {Set<string>} */
  #onControl = new Set();
  /** Texts that the server has not let go of yet. @type {Map<string, Binding>} */
  leaving = new Map();

  /**
   * @param {Link} link
   */
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
   * The server has answered. False where what it sends cannot be told from what it has sent before, on the same lane and for
   * another subscription to the same topic or a pattern: it has to be asked for on the control lane, which keeps the order
   * with the answer.
   *
   * @param {Binding} binding
   * @param {Json} reply
   */
  answered(binding, reply) {
    const { entry } = binding;
    const lane = typeof reply.lane === "number" ? reply.lane : null;
    let canBeTold = true;
    if (lane !== null && entry.isPattern) {
      const patterns = this.#patternsOn.get(lane) ?? new Set();
      this.#patternsOn.set(lane, patterns.add(patterns.size < MAX_REMEMBERED ? entry.topic : ">"));
    } else if (lane !== null) {
      const tracks = this.#tracks.get(entry.topic) ?? new Map();
      const track = tracks.get(lane) ?? { entry, last: 0 };
      // What came by a pattern while the topic was not subscribed to lies before it on the lane, and is sent again.
      const { since, recent } = entry.options;
      const isAgain = entry.opened || since != null || recent != null;
      const byPattern = isAgain && [...(this.#patternsOn.get(lane) ?? [])].some((pattern) => matches(pattern, entry.topic));
      canBeTold = (track.entry === entry && !byPattern) || this.#onControl.has(entry.topic);
      if (!canBeTold) this.#onControl.add(entry.topic);
      track.entry = entry;
      // Behind what is lost it begins anywhere.
      if (reply.recovered === false) track.last = 0;
      if (this.#tracks.size >= MAX_REMEMBERED) this.#tracks.delete(this.#tracks.keys().next().value ?? "");
      this.#tracks.set(entry.topic, tracks.set(lane, track));
      binding.track = track;
    }
    if (binding.stage !== "asked") return canBeTold;
    binding.stage = "live";
    binding.lane = lane;
    return canBeTold;
  }

  /** @param {Binding} binding which the server is told to end */
  leave(binding) {
    binding.letGo();
    this.unbind(binding);
    binding.stage = "leaving";
    this.leaving.set(binding.entry.topic, binding);
  }

  /** @param {Binding} binding which the server has ended */
  left(binding) {
    binding.stage = "left";
    if (this.leaving.get(binding.entry.topic) === binding) this.leaving.delete(binding.entry.topic);
  }

  /**
   * The subscription that a message belongs to, and only where it comes on the lane that the answer to that one named; one that
   * is not answered yet where the message has to wait for that; `null` where it is nobody's any more.
   *
   * @param {Source} source
   * @param {Json} json
   * @param {boolean} ofPresence
   */
  find(source, json, ofPresence) {
    const topic = /** @type {string} */ (json.topic);
    // A `gap` of many topics names the pattern itself.
    const exact = isPattern(topic) ? this.#patterns.find(({ entry }) => entry.topic === topic) : this.#exact.get(topic);
    const isFor = (/** @type {Binding} */ binding) =>
      binding.stage === "live" && binding.isOn(source) && (!ofPresence || binding.entry.options.presence === true);
    if (exact && isFor(exact)) return exact;
    // On the control lane the answer comes first; a datagram waits for nothing.
    const waits = typeof source === "number";
    if (waits) {
      if (exact?.isAsked) return exact;
      const track = this.#tracks.get(topic)?.get(source);
      if (track && (exact || !track.entry.isOver)) {
        if (!ofPresence) track.last = json.last ?? json.offset ?? 0;
        return null;
      }
    } else if (source === "control") {
      // What comes in a pause is sent again; what comes for one that was left for good came for a pattern as well.
      const left = this.leaving.get(topic);
      if (left?.lane === null && !left.entry.isOver) return null;
    }
    const matching = this.#patterns.filter(({ entry }) => matches(entry.topic, topic));
    const pattern = matching.find(isFor);
    if (pattern) return pattern;
    if (!waits) return null;
    return matching.find((binding) => binding.isAsked) ?? null;
  }

  /** Whether messages are expected on a topic lane. @param {number} lane */
  isBound(lane) {
    return [...this.#exact.values(), ...this.#patterns].some((binding) => binding.stage === "live" && binding.lane === lane);
  }

  /** The connection has ended: nobody waits. */
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

/** How many calls were made: they keep this order where they wait. */
let callsMade = 0;

/** A request, until it has its reply. */
class Call {
  id = 0;
  order = (callsMade += 1);
  /** Where it was sent. @type {Link | null} */
  link = null;
  /** What it counts for; `null` for what the connection needs itself. @type {Pace | null} */
  pace = null;
  sentAt = 0;
  deadline = 0;
  /** Belongs to one connection, and ends with it. */
  isOrder = false;
  /** Sent, and not answered. */
  isUnderWay = false;
  /** Whether it is worth sending again after an `error` 429. @type {() => boolean} */
  isWanted = () => true;
  /** Called when it waits for its turn after an `error` 429. @type {() => void} */
  whenPutOff = () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  /** The last `error` 429 that it got. @type {QwsError | null} */
  refusal = null;

  /**
   * @param {Json} message
   * @param {Uint8Array | undefined} attachment
   * @param {boolean} again whether it may be sent again where its reply was lost
   * @param {(error: QwsError | null, reply?: Reply) => void} done
   */
  constructor(message, attachment, again, done) {
    this.message = message;
    this.attachment = attachment;
    this.again = again;
    this.done = done;
  }

  /** `unsubscribe` frees what the server holds, and `refresh` keeps the connection: they go before the others. */
  get isUrgent() {
    return this.message.type === "unsubscribe" || this.message.type === "refresh";
  }
}

/**
 * Puts a request in its place in a queue: urgent ones first, then in the order in which they were made.
 *
 * @param {Call[]} queue
 * @param {Call} call
 */
function enqueue(queue, call) {
  const isBehind = (/** @type {Call} */ other) =>
    other.isUrgent === call.isUrgent ? other.order > call.order : call.isUrgent;
  const last = queue.at(-1);
  const at = last && isBehind(last) ? queue.findIndex(isBehind) : queue.length;
  queue.splice(at, 0, call);
}

/**
 * How many requests of one kind may go over a connection: a window that grows with each reply, and after an `error` 429 only
 * at the times that the server named, one request each. The server names each refused request a time of its own, one behind
 * the other; any request may use it, so they keep their order.
 */
class Pace {
  /** The last `error` 429. @type {QwsError | null} */
  refusal = null;
  #window = FIRST_WINDOW;
  /** Up to here the window grows by one with each reply, beyond it by one with each window of replies. */
  #ceiling = MAX_CALLS;
  #underWay = 0;
  /** When one request each may be sent, soonest first. @type {number[]} */
  #turns = [];

  /** How many refused requests the server has not seen again. */
  get refusals() {
    return this.#turns.length;
  }

  /**
   * How many milliseconds until the next request may be sent; `Infinity`: not before a reply.
   *
   * @param {number} now
   * @param {boolean} isFull whether the connection has as many requests without a reply as it may have
   */
  wait(now, isFull) {
    if (this.#turns.length > 0) return Math.max(0, this.#turns[0] - now);
    return !isFull && this.#underWay < this.#window ? 0 : Infinity;
  }

  sent() {
    this.#turns.shift();
    this.#underWay += 1;
  }

  /** One that was sent is not waited for any longer. */
  forget() {
    this.#underWay -= 1;
  }

  /** A reply came that is no `error` 429. */
  served() {
    this.#window = Math.min(MAX_CALLS, this.#window + (this.#window < this.#ceiling ? 1 : 1 / this.#window));
  }

  /**
   * @param {number} at when the server lets it be sent again
   * @param {QwsError} refusal
   */
  refused(at, refusal) {
    this.refusal = refusal;
    if (this.#turns.length === 0) this.#ceiling = Math.max(1, Math.floor(this.#window / 2));
    this.#window = 1;
    const behind = this.#turns.findIndex((other) => other > at);
    this.#turns.splice(behind < 0 ? this.#turns.length : behind, 0, at);
  }

  /** Nothing waits to be sent: turns that have come are not kept. @param {number} now */
  expire(now) {
    const next = this.#turns.findIndex((at) => at > now);
    this.#turns.splice(0, next < 0 ? this.#turns.length : next);
  }
}

/** One connection, from `handshake` to its end. */
class Link {
  /** @type {string | null} */
  id = null;
  /** @type {string | null} */
  user = null;
  /** @type {string | null} */
  name = null;
  /** @type {string | null} */
  serverName = null;
  /** @type {import("./qws.js").Limits | null} */
  limits = null;
  /** @type {import("./qws.js").Permissions | null} */
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

/**
 * What transports bodies.
 *
 * @typedef {object} Transport
 * @property {CarrierName} carrier
 * @property {number} streams how many were opened or taken
 * @property {number} maxBytes longest body that is taken
 * @property {boolean} hasRequestLanes whether the server allows any
 * @property {boolean} writable whether more should be sent
 * @property {() => Promise<void>} drained resolves when it is writable again, or over
 * @property {(handlers: Handlers) => void} start
 * @property {(body: Body) => void} send
 * @property {() => void} takeDatagrams reads datagrams from now on
 * @property {(code: number, reason: string, isSilent: boolean) => void} close
 */

/**
 * @typedef {object} Handlers
 * @property {(body: Body, source: Source) => Promise<void> | void} body
 * @property {(end: End) => void} end
 * @property {(error: unknown) => void} fail what came cannot be understood
 * @property {(lane: number) => boolean} isBound whether messages are expected on a topic lane
 */

/** A try to connect; `abandon` leaves nothing behind, whether it has come to something or will yet. @typedef {{ opened: Promise<Transport>, abandon: () => void }} Attempt */

/** One WebSocket: one lane, a body is a message. @implements {Transport} */
class SocketTransport {
  /** @type {CarrierName} */
  carrier = "websocket";
  streams = 1;
  maxBytes = MAX_FIRST_BYTES;
  hasRequestLanes = false;
  #socket;
  #isOver = false;

  /** @param {WebSocket} socket which is open */
  constructor(socket) {
    this.#socket = socket;
  }

  /** @param {Handlers} handlers */
  start({ body, end, fail }) {
    const socket = this.#socket;
    socket.onmessage = ({ data }) => {
      const received = typeof data === "string" ? data : new Uint8Array(data);
      if (received.length > this.maxBytes) return fail(tooLong(received.length, this.maxBytes));
      body(received, "control")?.catch(fail);
    };
    socket.onclose = ({ code, reason }) => {
      this.#isOver = true;
      end({ code: code === 1005 ? 1006 : code, reason });
    };
    if (socket.readyState !== 1) queueMicrotask(() => end({ code: 1006, reason: "" }));
  }

  get writable() {
    return this.#socket.bufferedAmount < MAX_UNSENT_BYTES;
  }

  async drained() {
    // There is no event for it.
    while (!this.writable && !this.#isOver) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** @param {Body} body */
  send(body) {
    if (this.#socket.readyState === 1) this.#socket.send(/** @type {string | Uint8Array<ArrayBuffer>} */ (body));
  }

  takeDatagrams() {
    // There are none.
  }

  /**
   * @param {number} code
   * @param {string} reason
   * @param {boolean} isSilent
   */
  close(code, reason, isSilent) {
    this.#isOver = true;
    closeSocket(this.#socket, code, reason, isSilent);
  }
}

/**
 * Closes a socket; where that can be hastened, as with `ws`, the other side has not for long a say in it.
 *
 * @param {WebSocket & { terminate?: () => void }} socket
 * @param {number} code
 * @param {string} reason
 * @param {boolean} [isSilent]
 */
function closeSocket(socket, code, reason, isSilent = false) {
  // Others may not be given here; where one matters, a `close` has told it.
  if (code === 1000 || (code >= 3000 && code <= 4999)) socket.close(code, reason);
  else socket.close();
  if (typeof socket.terminate !== "function" || socket.readyState === 3) return;
  if (isSilent) return socket.terminate();
  const timer = setTimeout(() => socket.terminate?.(), CLOSE_FOLLOWS_MS);
  socket.addEventListener("close", () => clearTimeout(timer));
}

/**
 * @param {{ socketUrl: string, Socket: new (url: string, protocols: string[]) => WebSocket }} settings
 * @returns {Attempt}
 */
function openSocket({ socketUrl, Socket }) {
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {Promise<Transport>} */
  const opened = new Promise((resolve, reject) => {
    const made = (socket = new Socket(socketUrl, ["qws.v1"]));
    made.binaryType = "arraybuffer";
    made.onopen = () => resolve(new SocketTransport(made));
    const fail = (/** @type {string} */ why, /** @type {number} */ code, /** @type {unknown} */ cause) =>
      reject(new QwsError("transport", `no WebSocket connection to ${socketUrl}${why && `: ${why}`}`, { code, cause }));
    let hasFailed = false;
    // Node says why, and some versions do not close a socket that never opened. Browsers do not say why.
    made.onerror = async (event) => {
      const { error, message } = /** @type {Event & { error?: unknown, message?: string }} */ (event);
      hasFailed = true;
      // Of several addresses each has failed for itself, and `fetch` wraps what TLS says.
      const cause = deepest(await whatFailed(socketUrl, error ?? (message ? new Error(message) : undefined)));
      fail(whyNoSocket(cause, socketUrl), 1006, cause);
    };
    made.onclose = ({ code, reason }) => {
      if (!hasFailed) fail(reason, code, undefined);
    };
  });
  opened.catch(() => {});
  const abandon = () => {
    // Pages get an error in their console for a socket that is closed before it is open.
    if (socket?.readyState === 0 && typeof document === "object") socket.onopen = () => socket?.close(1000);
    else if (socket) closeSocket(socket, 1000, "");
  };
  return { opened, abandon };
}

/** What Node calls a certificate that it does not trust, or that is another host's. */
const CERTIFICATE_CODES = /^(CERT_|ERR_TLS_CERT|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_(GET|VERIFY)_)/;

/**
 * The cause of a failed WebSocket. That of Node has one text for all of them, so the same address is asked by `fetch`.
 *
 * @param {string} socketUrl
 * @param {unknown} cause as the WebSocket told it
 */
async function whatFailed(socketUrl, cause) {
  if (!(cause instanceof Error) || !/non-101/.test(cause.message) || cause.cause !== undefined) return cause;
  try {
    const signal = AbortSignal.timeout(DIAGNOSIS_MS);
    const { status } = await fetch(socketUrl.replace(/^ws/, "http"), { signal, cache: "no-store", redirect: "manual" });
    return new Error(`unexpected server response: ${status}`);
  } catch (error) {
    return error;
  }
}

/**
 * Why there is no WebSocket, and what to do; empty if the platform does not say.
 *
 * @param {unknown} cause
 * @param {string} socketUrl
 */
function whyNoSocket(cause, socketUrl) {
  if (cause === undefined) return "";
  const { code, message } = /** @type {{ code?: unknown, message?: string }} */ (cause ?? {});
  const scheme = new URL(socketUrl).protocol;
  const text = (message || String(cause)).trim();
  if (code === "ECONNREFUSED") return "connection refused (ECONNREFUSED); is the server running, and is this its port?";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return `there is no such host (${text})`;
  if (typeof code === "string" && CERTIFICATE_CODES.test(code)) {
    const remedy = "For a certificate authority of your own, start Node with NODE_EXTRA_CA_CERTS=ca.pem";
    return `the certificate is not trusted: ${text} (${code}). ${remedy}`;
  }
  if (/wrong version number/.test(text)) return "no TLS on this port; is it the one for http:?";
  if (/server response|subprotocol|non-101|HPE_/i.test(`${text} ${code}`)) {
    return `this is not a quic-websocket server, or not its port for ${scheme} (${text})`;
  }
  return code && !text.includes(String(code)) ? `${text} (${code})` : text;
}

/**
 * The first error that says what went wrong, in those that wrap it.
 *
 * @param {any} error
 * @returns {unknown}
 */
function deepest(error) {
  if (Array.isArray(error?.errors) && error.errors.length > 0) return deepest(error.errors[0]);
  return error?.cause instanceof Error ? deepest(error.cause) : error;
}

/** A WebTransport session: a control lane, topic lanes that the server opens, datagrams, and a lane for what is large. @implements {Transport} */
class SessionTransport {
  /** @type {CarrierName} */
  carrier = "webtransport";
  streams = 1;
  maxBytes = MAX_FIRST_BYTES;
  hasRequestLanes = false;
  #session;
  #control;
  #writer;
  /** Made once something is large. @type {Promise<WritableStreamDefaultWriter<Uint8Array>> | null} */
  #bulk = null;
  #unsent = 0;
  #isOver = false;
  #takesDatagrams = false;
  /** @type {(() => void)[]} */
  #awaitingRoom = [];
  /** @type {Handlers} */
  #handlers = { body() {}, end() {}, fail() {}, isBound: () => false };

  /**
   * @param {WebTransport} session which is ready
   * @param {WebTransportBidirectionalStream} control
   */
  constructor(session, control) {
    this.#session = session;
    this.#control = control;
    this.#writer = control.writable.getWriter();
    this.#writer.closed.catch(() => {});
  }

  /** @param {Handlers} handlers */
  start(handlers) {
    this.#handlers = handlers;
    this.#session.closed.then(
      (info) => this.#end({ code: info?.closeCode || 1006, reason: info?.reason ?? "" }),
      (error) => this.#end({ code: 1006, reason: String(error?.message ?? error) }),
    );
    void this.#read(this.#control.readable, "control").then(() => this.#endSoon("the control lane ended"));
    void this.#takeLanes();
  }

  get writable() {
    return this.#unsent < MAX_UNSENT_BYTES;
  }

  drained() {
    if (this.writable || this.#isOver) return Promise.resolve();
    return /** @type {Promise<void>} */ (new Promise((resolve) => this.#awaitingRoom.push(resolve)));
  }

  /** @param {Body} body */
  send(body) {
    const frame = frameOf(body);
    if (frame.length <= BULK_BYTES || !this.hasRequestLanes) return this.#write(this.#writer, frame);
    this.#bulk ??= this.#openBulk();
    // Counted from here on, so that nothing piles up behind the opening.
    this.#unsent += frame.length;
    this.#bulk.then(
      (writer) => {
        this.#unsent -= frame.length;
        this.#write(writer, frame);
      },
      () => this.#endSoon("a request lane could not be opened"),
    );
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  close(code, reason) {
    this.#isOver = true;
    this.#wake();
    try {
      this.#session.close({ closeCode: code, reason });
    } catch {
      // It is closed already.
    }
  }

  /**
   * @param {WritableStreamDefaultWriter<Uint8Array>} writer
   * @param {Uint8Array} frame
   */
  #write(writer, frame) {
    this.#unsent += frame.length;
    writer.write(frame).then(
      () => {
        this.#unsent -= frame.length;
        if (this.writable) this.#wake();
      },
      () => this.#endSoon("a lane takes no more"),
    );
  }

  #wake() {
    for (const resolve of this.#awaitingRoom.splice(0)) resolve();
  }

  async #openBulk() {
    const stream = await this.#session.createBidirectionalStream();
    this.streams += 1;
    void this.#read(stream.readable, "request").then(() => this.#endSoon("a request lane ended"));
    const writer = stream.writable.getWriter();
    writer.closed.catch(() => {});
    return writer;
  }

  async #takeLanes() {
    try {
      const lanes = this.#session.incomingUnidirectionalStreams.getReader();
      for (let lane = await lanes.read(); !lane.done; lane = await lanes.read()) {
        this.streams += 1;
        void this.#readLane(/** @type {ReadableStream<Uint8Array>} */ (lane.value));
      }
    } catch {
      // The session's end is seen elsewhere.
    }
  }

  /** @param {ReadableStream<Uint8Array>} stream */
  async #readLane(stream) {
    const lane = await this.#read(stream, null);
    // A lane that nobody expects anything of may end. Else the end of the subscription, or of the session, is on its way.
    if (typeof lane === "number" && this.#handlers.isBound(lane)) {
      this.#endSoon(`topic lane ${lane} ended`, () => this.#handlers.isBound(lane));
    }
  }

  takeDatagrams() {
    if (!this.#takesDatagrams) void this.#readDatagrams();
    this.#takesDatagrams = true;
  }

  async #readDatagrams() {
    try {
      const datagrams = /** @type {WebTransportDatagramDuplexStream & { incomingMaxBufferedDatagrams?: number }} */ (
        this.#session.datagrams
      );
      // The newest win, but what comes at once is taken. The first name is that of older browsers.
      datagrams.incomingHighWaterMark = MAX_DATAGRAMS;
      datagrams.incomingMaxBufferedDatagrams = MAX_DATAGRAMS;
      const reader = datagrams.readable.getReader();
      for (let got = await reader.read(); !got.done; got = await reader.read()) {
        if (this.#isOver) return;
        if (got.value.length <= this.maxBytes) this.#handlers.body(got.value, "datagram")?.catch(this.#handlers.fail);
      }
    } catch {
      // The session's end is seen elsewhere.
    }
  }

  /**
   * Reads a lane to its end.
   *
   * @param {ReadableStream<Uint8Array>} stream
   * @param {Source | null} source `null` for a topic lane, which tells its number first
   * @returns {Promise<Source | null>} the source, as far as it is known
   */
  async #read(stream, source) {
    const frames = new FrameReader(this.maxBytes);
    try {
      const reader = stream.getReader();
      for (let got = await reader.read(); !got.done; got = await reader.read()) {
        frames.maxBytes = this.maxBytes;
        for (const body of frames.push(got.value)) {
          if (this.#isOver) return source;
          if (source === null) source = laneOf(body);
          // Readers of what came have their turn before the next.
          else await this.#handlers.body(body, source);
          frames.maxBytes = this.maxBytes;
        }
      }
    } catch (error) {
      // Else it is the stream that failed: its end is all there is to know.
      if (error instanceof QwsError && !this.#isOver) this.#handlers.fail(error);
    }
    return source;
  }

  /**
   * What has happened announces the session's end, which tells the code.
   *
   * @param {string} reason
   * @param {() => boolean} [still]
   */
  #endSoon(reason, still = () => true) {
    if (this.#isOver) return;
    setTimeout(() => !this.#isOver && still() && this.#end({ code: 1006, reason }), CLOSE_FOLLOWS_MS);
  }

  /** @param {End} end */
  #end(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#wake();
    this.#handlers.end(end);
  }
}

/**
 * @param {{ quicUrl: string | null, origin: URL, hash: { value: string } | null, asksHash: boolean, hasQuicUrl: boolean }} settings
 * @returns {Attempt}
 */
function openQuic({ quicUrl, origin, hash, asksHash, hasQuicUrl }) {
  const asking = new AbortController();
  /** @type {WebTransport | null} */
  let session = null;
  const open = async () => {
    let [url, value] = [quicUrl, hash?.value ?? null];
    if (asksHash) {
      const told = await askForHash(origin, asking.signal);
      if (told) value = told.value;
      // Browsers take "localhost" for [::1] alone here, and servers listen on 127.0.0.1; a hash asks for no name.
      const host = /(^|\.)localhost$/.test(origin.hostname) ? "127.0.0.1" : origin.hostname;
      if (told && !hasQuicUrl) url = `https://${host}:${told.port}/wt`;
    }
    asking.signal.throwIfAborted();
    if (url === null) throw new QwsError("transport", "the server has no WebTransport certificate that this page can trust");
    const serverCertificateHashes = value === null ? [] : [{ algorithm: "sha-256", value: bytesOfBase64(value) }];
    const made = (session = new WebTransport(url, value === null ? {} : { serverCertificateHashes }));
    made.closed.catch(() => {});
    try {
      await made.ready;
      const control = await made.createBidirectionalStream();
      asking.signal.throwIfAborted();
      return new SessionTransport(made, control);
    } catch (cause) {
      throw new QwsError("transport", `no WebTransport session with ${url}`, { cause });
    }
  };
  /** @type {Promise<Transport>} */
  const opened = open();
  opened.catch(() => {});
  const abandon = () => {
    asking.abort();
    try {
      session?.close();
    } catch {
      // It never came to be, or is closed already.
    }
  };
  return { opened, abandon };
}

/**
 * Asks a server on this machine which certificate it shows for WebTransport: one that is made for development is trusted
 * by its hash alone.
 *
 * @param {URL} origin
 * @param {AbortSignal} signal
 */
async function askForHash(origin, signal) {
  try {
    const response = await fetch(new URL("/certificate-hash", origin), { signal, cache: "no-store" });
    if (!response.ok) return null;
    const { value, webtransport_port: port } = await response.json();
    return typeof value === "string" && Number.isInteger(port) ? { value, port: /** @type {number} */ (port) } : null;
  } catch {
    return null;
  }
}

/**
 * Connects over QUIC and, where that is not there in a moment, over WebSocket beside it; the other one is abandoned.
 *
 * @param {object} how
 * @param {(() => Attempt) | null} how.quic
 * @param {(() => Attempt) | null} how.socket
 * @param {boolean} how.quicFirst else QUIC is tried where WebSocket fails
 * @param {number} how.raceDelayMs
 * @param {number} how.settleMs
 * @param {AbortSignal} how.signal
 * @param {() => void} how.onQuicFailed called where WebSocket was had and QUIC was not
 * @returns {Promise<Transport>}
 */
function race({ quic, socket, quicFirst, raceDelayMs, settleMs, signal, onQuicFailed }) {
  return new Promise((resolve, reject) => {
    const begun = performance.now();
    const timers = new Timers();
    /** @type {Map<"quic" | "socket", Attempt>} */
    const attempts = new Map();
    /** @type {Map<string, unknown>} */
    const errors = new Map();
    /** An open WebSocket while QUIC may still come. @type {Transport | null} */
    let spare = null;
    let isOver = false;

    /** @param {"quic" | "socket" | null} winner */
    const finish = (winner) => {
      isOver = true;
      timers.clearAll();
      signal.removeEventListener("abort", abort);
      if (winner === "socket" && attempts.has("quic")) onQuicFailed();
      for (const [name, attempt] of attempts) if (name !== winner) attempt.abandon();
    };
    const abort = () => {
      finish(null);
      reject(new QwsError("closed", "the client was closed", { code: 1000 }));
    };
    /** @param {string} message */
    const fail = (message) => {
      finish(null);
      reject(asError(errors.get("socket") ?? errors.get("quic") ?? new Error(message)));
    };
    /** @param {Transport} transport */
    const take = (transport) => {
      finish(transport.carrier === "websocket" ? "socket" : "quic");
      resolve(transport);
    };
    /**
     * @param {"quic" | "socket"} name
     * @param {(() => Attempt) | null} open
     */
    const start = (name, open) => {
      if (!open || attempts.has(name) || isOver) return;
      const attempt = open();
      attempts.set(name, attempt);
      attempt.opened.then(
        (transport) => {
          if (isOver) return;
          const left = settleMs - (performance.now() - begun);
          const quicMayCome = attempts.has("quic") && !errors.has("quic");
          if (name === "quic" || !quicMayCome || left <= 0) return take(transport);
          spare = transport;
          timers.set("settle", left, () => take(transport));
        },
        (error) => {
          if (isOver) return;
          errors.set(name, error);
          if (spare) return take(spare);
          start("quic", quic);
          start("socket", socket);
          if ([...attempts.keys()].every((tried) => errors.has(tried))) fail("no connection");
        },
      );
    };

    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort);
    timers.set("all", CONNECT_MS, () => fail(`no connection within ${CONNECT_MS} ms`));
    if (quic && (quicFirst || !socket)) {
      start("quic", quic);
      timers.set("socket", raceDelayMs, () => start("socket", socket));
    } else {
      start("socket", socket);
    }
  });
}

/** Puts bodies together from a stream that cuts them anywhere. */
class FrameReader {
  #length = new Uint8Array(4);
  #lengthBytes = 0;
  /** @type {Uint8Array | null} */
  #body = null;
  #filled = 0;

  /** @param {number} maxBytes longest body that is taken */
  constructor(maxBytes) {
    this.maxBytes = maxBytes;
  }

  /**
   * Gives the bodies that are whole with this piece. They may be parts of it: copy what is kept.
   *
   * @param {Uint8Array} piece
   * @returns {Generator<Uint8Array, void, undefined>}
   */
  *push(piece) {
    let at = 0;
    while (at < piece.length) {
      if (this.#body) {
        const taken = piece.subarray(at, at + this.#body.length - this.#filled);
        this.#body.set(taken, this.#filled);
        this.#filled += taken.length;
        at += taken.length;
        if (this.#filled < this.#body.length) return;
        const body = this.#body;
        this.#body = null;
        yield body;
        continue;
      }
      this.#length[this.#lengthBytes++] = piece[at++];
      if (this.#lengthBytes < 4) continue;
      this.#lengthBytes = 0;
      const length = new DataView(this.#length.buffer).getUint32(0);
      if (length === 0) throw new QwsError("protocol", "the server sent a frame of length 0", { code: 1002 });
      if (length > this.maxBytes) throw tooLong(length, this.maxBytes);
      if (piece.length - at >= length) {
        at += length;
        yield piece.subarray(at - length, at);
      } else {
        this.#body = new Uint8Array(length);
        this.#filled = 0;
      }
    }
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @param {number} length
 * @param {number} most
 */
function tooLong(length, most) {
  return new QwsError("protocol", `the server sent a body of ${length} bytes; at most ${most} are accepted`, { code: 1009 });
}

/**
 * @param {Json} json
 * @param {Uint8Array} [attachment]
 * @returns {Body}
 */
function encodeBody(json, attachment) {
  const text = JSON.stringify(json);
  if (!attachment) return text;
  const object = encoder.encode(text);
  const body = new Uint8Array(5 + object.length + attachment.length);
  body[0] = 1;
  new DataView(body.buffer).setUint32(1, object.length);
  body.set(object, 5);
  body.set(attachment, 5 + object.length);
  return body;
}

/**
 * @param {Body} body
 * @returns {Reply}
 */
function decodeBody(body) {
  try {
    if (typeof body === "string") return { json: objectOf(body) };
    if (body[0] !== 1) return { json: objectOf(decoder.decode(body)) };
    const length = new DataView(body.buffer, body.byteOffset, body.length).getUint32(1);
    if (5 + length > body.length) throw new Error("the body is shorter than its JSON");
    // Copied, so that it keeps nothing else alive.
    return { json: objectOf(decoder.decode(body.subarray(5, 5 + length))), data: body.slice(5 + length) };
  } catch (cause) {
    throw new QwsError("protocol", `the server sent a body that could not be read: ${String(cause)}`, { code: 1002, cause });
  }
}

/**
 * @param {string} text
 * @returns {Json}
 */
function objectOf(text) {
  const json = JSON.parse(text);
  if (typeof json?.type !== "string") throw new Error("no type");
  return json;
}

/** @param {Uint8Array} body the first one of a topic lane */
function laneOf(body) {
  const { json } = decodeBody(body);
  if (json.type !== "lane" || !isOffset(json.lane)) {
    throw new QwsError("protocol", "a lane did not begin with its number", { code: 1002 });
  }
  return /** @type {number} */ (json.lane);
}

/** @param {Body} body */
function frameOf(body) {
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  const frame = new Uint8Array(4 + bytes.length);
  new DataView(frame.buffer).setUint32(0, bytes.length);
  frame.set(bytes, 4);
  return frame;
}

/**
 * @param {Body} body
 * @param {number} most
 */
function isLonger(body, most) {
  if (typeof body !== "string") return body.length > most;
  // A unit of a string is at most three bytes of UTF-8.
  return body.length > most || (body.length * 3 > most && encoder.encode(body).length > most);
}

/**
 * @param {Json} json
 * @param {Uint8Array} [data]
 * @returns {Message}
 */
function messageOf(json, data) {
  /** @type {Message} */
  const message = { topic: json.topic, offset: json.offset, timestamp: json.timestamp };
  if (typeof json.from === "string") message.from = json.from;
  if (typeof json.content === "string") message.content = json.content;
  if (data) message.data = data;
  return message;
}

/**
 * @param {Json} json
 * @param {Uint8Array} [data]
 */
function saidOf(json, data) {
  /** @type {import("./qws.js").Said} */
  const said = { from: json.from, timestamp: json.timestamp };
  if (typeof json.content === "string") said.content = json.content;
  if (data) said.data = data;
  return said;
}

/** @param {string} text */
function bytesOfBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * A cheap fingerprint of the content: its length and two sums. Not cryptographic.
 *
 * @param {string | Uint8Array} content
 */
function digest(content) {
  let [one, two] = [17, 31];
  for (let at = 0; at < content.length; at += 1) {
    const unit = typeof content === "string" ? content.charCodeAt(at) : content[at];
    one = Math.imul(one ^ unit, 0x01000193);
    two = (Math.imul(two, 31) + unit) | 0;
  }
  return `${content.length}.${one}.${two}`;
}

/** Nobody else chooses this. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {boolean | EventListenerOptions | null | undefined} options of a listener */
function isCapture(options) {
  return typeof options === "object" ? options?.capture === true : options === true;
}

/** @param {unknown} value */
function isOffset(value) {
  return Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0;
}

/** @param {string} topic */
function isPattern(topic) {
  return topic.includes("*") || topic.endsWith(">");
}

/**
 * Whether a topic is one of a pattern's.
 *
 * @param {string} pattern
 * @param {string} topic
 */
function matches(pattern, topic) {
  const [wanted, levels] = [pattern.split("."), topic.split(".")];
  const rest = wanted.at(-1) === ">";
  if (rest ? levels.length < wanted.length : levels.length !== wanted.length) return false;
  return wanted.every((level, at) => level === levels[at] || level === "*" || (rest && at === wanted.length - 1));
}

const CONNECT_OPTIONS = [
  "name", "token", "carriers", "webTransportOnWebKit", "webTransportUrl", "webSocketUrl", "certificateHash", "WebSocket",
  "raceDelayMs", "settleMs", "retryQuicMs", "maxBackoffMs", "requestTimeoutMs", "highWaterMark",
];
const SUBSCRIBE_OPTIONS = ["since", "recent", "delivery", "lane", "presence", "highWaterMark"];
const HISTORY_OPTIONS = ["since", "recent", "limit", "reverse"];

/**
 * What is wrong with options of which one does not exist: else it would be ignored.
 *
 * @param {string} call
 * @param {unknown} options
 * @param {string[]} known
 * @returns {TypeError | null}
 */
function unknownOption(call, options, known) {
  if (typeof options !== "object" || options === null) return new TypeError(`${call}: options must be an object`);
  for (const [name, value] of Object.entries(options)) {
    if (known.includes(name) || value === undefined) continue;
    const close = known.find((other) => isMistyped(name, other));
    const hint = close ? `did you mean "${close}"?` : `there are ${known.join(", ")}`;
    return new TypeError(`${call}: unknown option "${name}"; ${hint}`);
  }
  return null;
}

/**
 * Whether one name is another with one or two slips of the finger, or in another case.
 *
 * @param {string} name
 * @param {string} meant
 */
function isMistyped(name, meant) {
  const [from, to] = [name.toLowerCase().replace(/[-_]/g, ""), meant.toLowerCase()];
  // Levenshtein's distance, by rows; two neighbours that changed places are one slip.
  let before = /** @type {number[]} */ ([]);
  let row = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (let at = 1; at <= from.length; at += 1) {
    const next = [at];
    for (let other = 1; other <= to.length; other += 1) {
      const swap = row[other - 1] + (from[at - 1] === to[other - 1] ? 0 : 1);
      const areTurned = at > 1 && other > 1 && from[at - 1] === to[other - 2] && from[at - 2] === to[other - 1];
      next.push(Math.min(swap, row[other] + 1, next[other - 1] + 1, areTurned ? before[other - 2] + 1 : Infinity));
    }
    [before, row] = [row, next];
  }
  return row[to.length] <= Math.min(2, Math.floor(to.length / 3));
}

/** @param {unknown} since */
function isPosition(since) {
  const { epoch, offset } = /** @type {Position} */ (since ?? {});
  return typeof epoch === "string" && isOffset(offset);
}

const NO_POSITION = "since must be a position: { epoch, offset }";

/**
 * Why a subscription cannot be asked for.
 *
 * @param {string} topic
 * @param {SubscribeOptions} options
 * @returns {QwsError | null}
 */
function problemOf(topic, { since, recent, delivery, lane, presence, highWaterMark }) {
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `subscribe: ${why}`);
  if (typeof topic !== "string" || topic.length > 255 || !/^([\w-]+|\*)(\.([\w-]+|\*))*(\.>)?$|^>$/.test(topic)) {
    const shown = JSON.stringify(String(topic).slice(0, 60));
    return wrong(`not a topic: ${shown}; use A-Z a-z 0-9 _ -, with dots between levels, at most 255 bytes (* is one level, > the rest)`);
  }
  if (since != null && !isPosition(since)) return wrong(NO_POSITION);
  if (since && isPattern(topic)) return wrong("since: a pattern has no position; subscribe to each topic");
  if (recent != null && !isOffset(recent)) return wrong("recent must be a whole number");
  if (delivery != null && delivery !== "stream" && delivery !== "datagram") {
    return wrong('delivery must be "stream" or "datagram"');
  }
  if (lane != null && lane !== "own" && lane !== "control") return wrong('lane must be "own" or "control"');
  if (presence != null && typeof presence !== "boolean") return wrong("presence must be true or false");
  if (highWaterMark != null && !(typeof highWaterMark === "number" && highWaterMark >= 1)) {
    return wrong("highWaterMark must be a number of at least 1");
  }
  return null;
}

/**
 * Why a page of history cannot be asked for.
 *
 * @param {import("./qws.js").HistoryOptions} options
 * @returns {TypeError | QwsError | null}
 */
function problemOfHistory(options) {
  const unknown = unknownOption("history", options, HISTORY_OPTIONS);
  if (unknown) return unknown;
  const { since, recent, limit, reverse } = options;
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `history: ${why}`);
  if (since != null && !isPosition(since)) return wrong(NO_POSITION);
  for (const [name, count] of Object.entries({ recent, limit })) {
    if (count == null || (isOffset(count) && count >= 1 && count <= MAX_PAGE)) continue;
    return wrong(`${name} must be a whole number from 1 to ${MAX_PAGE}`);
  }
  if (recent == null || (since ?? limit ?? reverse) == null) return null;
  return wrong("recent asks for the newest messages; it does not go with since, limit or reverse");
}

/** @param {number | undefined} code whether a client may come back by itself after it */
function mayReconnect(code) {
  return code !== undefined && MAY_RECONNECT.has(code);
}

/** @param {number} code which a client may send */
function isCloseCode(code) {
  if (!Number.isInteger(code)) return false;
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

/** A closing reason that may be sent: at most 123 bytes. @param {string} reason */
function cut(reason) {
  let short = reason.slice(0, 123);
  while (encoder.encode(short).length > 123) short = short.slice(0, -1);
  return short;
}

/**
 * Settings in full, or an error that tells what is wrong with them.
 *
 * @param {string | import("./qws.js").UrlLike | undefined} url
 * @param {ConnectOptions} options
 */
function settingsOf(url, options) {
  const unknown = unknownOption("connect", options, CONNECT_OPTIONS);
  if (unknown) throw unknown;
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `connect: ${why}`);
  const base = url ?? (typeof location === "object" ? location?.origin : undefined);
  if (base === undefined) throw wrong("a url is needed outside of a page");
  let origin;
  try {
    origin = new URL(addressOf(base));
  } catch {
    throw wrong(`not a valid URL: ${addressOf(base)}`);
  }
  const loopback = isLoopback(origin.hostname);
  if (origin.protocol !== "https:" && !(origin.protocol === "http:" && loopback)) {
    throw wrong(`${origin.href}: use https:, or http: on this machine (localhost, 127.0.0.1, [::1])`);
  }
  const { name, certificateHash, webTransportUrl, webSocketUrl } = options;
  const length = name === undefined ? 1 : [...name].length;
  if (length < 1 || length > 64) throw wrong("name must have 1 to 64 characters");
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const isKeptFromQuic = isWebKit() && options.webTransportOnWebKit !== true;
  const has = {
    webtransport: typeof WebTransport === "function" && !isKeptFromQuic,
    websocket: typeof Socket === "function",
  };
  const wanted = options.carriers ?? /** @type {CarrierName[]} */ (["webtransport", "websocket"]);
  const quicUrl = webTransportUrl
    ? addressOf(webTransportUrl)
    : origin.protocol === "https:"
      ? `https://${origin.hostname}:${origin.port || 443}/wt`
      : null;
  const asksHash = certificateHash === undefined && loopback;
  const carriers = wanted.filter((carrier) => has[carrier] && (carrier === "websocket" || quicUrl !== null || asksHash));
  if (carriers.length === 0) throw wrong(noCarrier(wanted, isKeptFromQuic));
  return {
    name,
    origin,
    carriers,
    Socket,
    quicUrl,
    hasQuicUrl: webTransportUrl !== undefined,
    socketUrl: addressOf(webSocketUrl ?? `${origin.protocol === "https:" ? "wss" : "ws"}://${origin.host}/ws`),
    quicKey: quicUrl ?? origin.origin,
    hash: certificateHash || null,
    asksHash,
    raceDelayMs: atLeast(0, options.raceDelayMs ?? 200, "raceDelayMs"),
    settleMs: atLeast(0, options.settleMs ?? 800, "settleMs"),
    retryQuicMs: atLeast(0, options.retryQuicMs ?? 60_000, "retryQuicMs"),
    maxBackoffMs: atLeast(0, options.maxBackoffMs ?? 20_000, "maxBackoffMs"),
    requestTimeoutMs: atLeast(1, options.requestTimeoutMs ?? 15_000, "requestTimeoutMs"),
    highWaterMark: atLeast(1, options.highWaterMark ?? 1024, "highWaterMark"),
  };
}

/** @param {string | import("./qws.js").UrlLike} url */
function addressOf(url) {
  return typeof url === "string" ? url : url.href;
}

/**
 * @param {CarrierName[]} wanted
 * @param {boolean} isKeptFromQuic
 */
function noCarrier(wanted, isKeptFromQuic) {
  if (wanted.includes("websocket")) {
    return "no WebSocket in this environment; pass { WebSocket } (Node before 22: npm install ws)";
  }
  if (!wanted.includes("webtransport")) return "carriers: \"webtransport\", \"websocket\", or both";
  if (typeof WebTransport !== "function") return "no WebTransport in this environment; allow \"websocket\" as a carrier";
  if (isKeptFromQuic) {
    return "WebTransport is off on WebKit, where it stalls; allow \"websocket\", or set webTransportOnWebKit: true";
  }
  return "WebTransport needs an https: url";
}

/**
 * Whether this is WebKit: Safari, and every browser on iOS. Its WebTransport sessions stop for good after about 16 MiB or
 * 7,600 streams (WebKit bug 319818). Blink names WebKit as well, but beside Chrome.
 */
function isWebKit() {
  const agent = typeof navigator === "object" ? (navigator?.userAgent ?? "") : "";
  return /AppleWebKit\//.test(agent) && !/Chrom(e|ium)\//.test(agent);
}

/** @param {string} host */
function isLoopback(host) {
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}

/**
 * @param {number} least
 * @param {number} value
 * @param {string} what
 */
function atLeast(least, value, what) {
  if (typeof value === "number" && value >= least) return value;
  throw new QwsError("usage", `connect: ${what} must be a number of at least ${least}`);
}

/**
 * What a token function gave, without the space around it.
 *
 * @param {unknown} token
 */
function readToken(token) {
  const trimmed = typeof token === "string" ? token.trim() : "";
  if (/^[\x21-\x7e]{1,8192}$/.test(trimmed)) return trimmed;
  const what = typeof token === "string" ? `${token.length} characters that are no token` : `no string but ${typeof token}`;
  throw new QwsError("transport", `the token function gave ${what}; does it check response.ok?`);
}

/** @param {unknown} error */
function textOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * @param {unknown} cause
 * @param {ErrorKind} [kind]
 */
function asError(cause, kind = "transport") {
  if (cause instanceof QwsError) return cause;
  return new QwsError(kind, cause instanceof Error ? cause.message : String(cause), { cause });
}

/**
 * @param {EventTarget | null} target
 * @param {string} type
 * @param {unknown} detail
 */
function emit(target, type, detail) {
  target?.dispatchEvent(new CustomEvent(type, { detail }));
}

/** A promise that was rejected, and may be ignored. @param {Error} error @returns {Promise<never>} */
function failed(error) {
  return quiet(Promise.reject(error));
}

/**
 * A promise whose rejection may be ignored.
 *
 * @template T
 * @param {Promise<T>} promise
 */
function quiet(promise) {
  promise.catch(() => {});
  return promise;
}

/**
 * A promise with its ends in hand. Where nobody looks at it, its rejection is no fault.
 *
 * @template T
 */
class Deferred {
  /** @type {(value: T) => void} */
  resolve = () => {};
  /** @type {(error: QwsError) => void} */
  reject = () => {};
  isSettled = false;

  constructor() {
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = (value) => {
        this.isSettled = true;
        resolve(value);
      };
      this.reject = (error) => {
        this.isSettled = true;
        reject(error);
      };
    });
    this.promise.catch(() => {});
  }
}

/**
 * A timer; one that is longer than the platform can would come at once.
 *
 * @param {number} ms
 * @param {() => void} then
 */
function later(ms, then) {
  return setTimeout(then, Math.min(ms, 2 ** 31 - 1));
}

/** Timers by name: one of a name at a time, and none left behind. */
class Timers {
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  /**
   * @param {string} name
   * @param {number} ms
   * @param {() => void} then
   */
  set(name, ms, then) {
    this.clear(name);
    const run = () => {
      this.#timers.delete(name);
      then();
    };
    this.#timers.set(name, later(ms, run));
  }

  /** @param {string} name */
  has(name) {
    return this.#timers.has(name);
  }

  /** @param {string[]} names */
  clear(...names) {
    for (const name of names) {
      clearTimeout(this.#timers.get(name));
      this.#timers.delete(name);
    }
  }

  clearAll() {
    this.clear(...this.#timers.keys());
  }
}

/** When to try again: exponential backoff with full jitter, so that clients that lost the same server do not come back together. */
class Backoff {
  #tries = 0;
  #longestMs;
  #random;

  /**
   * @param {number} longestMs
   * @param {() => number} [random]
   */
  constructor(longestMs, random = Math.random) {
    this.#longestMs = longestMs;
    this.#random = random;
  }

  /** How long to wait before the next try. */
  next() {
    const ceiling = Math.min(FIRST_BACKOFF_MS * 2 ** this.#tries, this.#longestMs);
    this.#tries = Math.min(this.#tries + 1, 32);
    return this.#random() * ceiling;
  }

  /** A connection was had, for so long. @param {number} ms */
  connectedFor(ms) {
    if (ms >= HELD_MS) this.reset();
  }

  reset() {
    this.#tries = 0;
  }
}

/** What this package's own tests look at. No promise is made about it. */
export const internals = { Backoff, Binding, Call, Entry, Feed, FrameReader, Pace, Routes, decodeBody, encodeBody, frameOf, matches, race };
