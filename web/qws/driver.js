// Keeps a client connected: dials, reconnects with backoff, listens to the page's network, and ends.
// Knows links and the client's other parts, never what messages mean. Called by the client, and by links when they end.

import { Backoff } from "./backoff.js";
import { Bulk } from "./bulk.js";
import { Deferred } from "./deferred.js";
import { dial } from "./dial.js";
import { asError, mayReconnect } from "./errors.js";
import { DOUBT_MS, Heartbeat } from "./heartbeat.js";
import { QuicJudge, quicFailures } from "./quic-failures.js";
import { Timers } from "./timers.js";
import { Upgrade } from "./upgrade.js";

/** @import { ClientState } from "../qws.js" */
/** @import { CarrierName, End, Source } from "./carrier.js" */
/** @import { Connection } from "./connection.js" */
/** @import { QwsError } from "./errors.js" */
/** @import { Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */
/** @import { Serving } from "./serving.js" */
/** @import { Settings } from "./settings.js" */
/** @import { Subscriptions } from "./subscriptions.js" */
/** @import { Tokens } from "./tokens.js" */

/** The least time between two tries that an event of the page causes. */
const EAGER_MS = 1_000;

/**
 * What a driver works with.
 *
 * @typedef {object} Parts
 * @property {Settings} settings
 * @property {Connection} connection
 * @property {Requests} requests
 * @property {Subscriptions} subscriptions
 * @property {Tokens} tokens
 * @property {Serving} serving
 * @property {(link: Link, heard: Reply, source: Source) => Promise<void> | void} hear
 * @property {(type: string, detail: unknown) => void} tell dispatches an event of the client
 */

/** Keeps a client connected. */
export class Driver {
  /** Resolved by the first accepted handshake; rejected if the client ends before. @type {Deferred<void>} */
  ready = new Deferred();
  /** @type {Heartbeat} */
  heartbeat;
  /** @type {Upgrade} */
  upgrade;
  reconnects = 0;
  #parts;
  #bulk;
  #connection;
  #backoff;
  #quic;
  /** When the present connection began, or the last try. */
  #since = 0;
  /** The server asked not to come back earlier. */
  #returnNotBefore = 0;
  #timers = new Timers();
  /** Aborts a try to connect. @type {AbortController | null} */
  #dialing = null;
  #everOpen = false;
  /** The secret of the newest connection's session. @type {string | null} */
  #session = null;
  #stopListening = () => {};

  /** @param {Parts} parts */
  constructor(parts) {
    const { settings, connection, requests, tell } = parts;
    this.#parts = parts;
    this.#connection = connection;
    this.#backoff = new Backoff(settings.maxBackoffMs);
    this.#quic = new QuicJudge(settings);
    this.#bulk = new Bulk(settings, (link) => {
      if (link === connection.link) parts.subscriptions.askAll(link);
    });
    this.heartbeat = new Heartbeat(connection, requests, tell);
    this.upgrade = new Upgrade(parts, {
      dial: (carriers, signal, adopt) => this.#dial(carriers, signal, adopt),
      use: (link) => this.#use(link),
      mayReturn: (code) => this.#mayReturn(code),
      tell,
    });
    this.#listenToPage();
  }

  /** Tries to connect. */
  async attempt() {
    const { settings, tell } = this.#parts;
    if (this.#dialing || this.#connection.link || this.#connection.state === "closed") return;
    const dialing = new AbortController();
    this.#dialing = dialing;
    this.#since = performance.now();
    try {
      await this.#dial(settings.carriers, dialing.signal, (link) => {
        this.#dialing = null;
        this.#opened(link);
      });
    } catch (cause) {
      if (dialing.signal.aborted) return;
      this.#dialing = null;
      const error = asError(cause);
      if (error.kind === "transport") this.#quic.acquit();
      if (this.#isFinal(error)) {
        this.#finish({ code: error.kind === "closed" ? (error.code ?? 1006) : 1002, reason: error.message }, error);
      } else {
        tell("error", error);
        this.#comeBack(error.retryAfterMs ?? 0);
      }
    }
  }

  /**
   * Ends the client for good, because the application asked for it.
   *
   * @param {number} code
   * @param {string} reason
   * @returns {Promise<void>}
   */
  close(code, reason) {
    const connection = this.#connection;
    if (connection.closing) return connection.closing.promise;
    if (connection.closed) return Promise.resolve();
    connection.closing = new Deferred();
    const end = { code, reason };
    this.#stop(end);
    this.#setState("closed");
    this.#parts.subscriptions.endAll(null);
    const { link } = connection;
    // The server still answers what it was asked before.
    if (link) link.sayGoodbye(code, reason);
    else this.#over(end);
    return connection.closing.promise;
  }

  /** Whether another try cannot help. @param {QwsError} error why there is no connection */
  #isFinal({ kind, code }) {
    return kind === "closed" ? !this.#mayReturn(code) : kind !== "transport";
  }

  /** Whether the client may reconnect. After 4401 only a function can give a better token. @param {number} [code] */
  #mayReturn(code) {
    return mayReconnect(code) || (code === 4401 && this.#parts.tokens.isRenewable);
  }

  /**
   * @param {CarrierName[]} carriers
   * @param {AbortSignal} signal
   * @param {(link: Link) => void} adopt
   */
  #dial(carriers, signal, adopt) {
    const { settings, tokens, hear } = this.#parts;
    const ended = (/** @type {Link} */ link, /** @type {End} */ end) => this.#linkEnded(link, end);
    return dial(settings, { carriers, signal, adopt, hear, ended, token: tokens.fresh(), hello: () => this.#hello() });
  }

  /** What the server has to know of the client's connections before this one. */
  #hello() {
    const { settings, subscriptions } = this.#parts;
    // A connection that is left for a better one is not continued, but replaced.
    const resume = this.#connection.link ? undefined : (this.#session ?? undefined);
    const requests = settings.onRequest ? true : undefined;
    const compression = settings.compressions.length > 0 ? settings.compressions : undefined;
    return { requests, resume, since: subscriptions.positions, compression };
  }

  /** @param {Link} link */
  #opened(link) {
    const { tell } = this.#parts;
    const resumed = this.#everOpen;
    this.#everOpen = true;
    if (resumed) this.reconnects += 1;
    this.#since = performance.now();
    this.#returnNotBefore = 0;
    this.#quic.confirm();
    this.#use(link);
    this.#setState("open");
    // A listener may have closed the client.
    if (this.#connection.closed) return;
    this.ready.resolve();
    tell("open", { carrier: link.transport.carrier, resumed });
    link.inUse.resolve();
  }

  /**
   * Has requests and subscriptions use a connection.
   *
   * @param {Link} link
   */
  #use(link) {
    const { requests, subscriptions } = this.#parts;
    const connection = this.#connection;
    connection.link = link;
    this.#session = link.session;
    if (link.id) connection.ownIds = [...connection.ownIds.slice(-3), link.id];
    link.awaitsBulk = this.#bulk.isFor(link);
    subscriptions.askAll(link);
    requests.pump(link);
    this.#bulk.used(link);
    this.heartbeat.start(link);
    this.upgrade.used(link);
  }

  /**
   * @param {Link} link
   * @param {End} end
   */
  #linkEnded(link, end) {
    const { requests, subscriptions, serving, tell } = this.#parts;
    const connection = this.#connection;
    const isCurrent = link === connection.link;
    if (!isCurrent && !connection.left.delete(link)) return;
    if (isCurrent) {
      connection.link = null;
      this.#quic.judge(link, end, this.#since);
      this.heartbeat.stop();
      this.#bulk.stop();
      this.upgrade.abandon();
    }
    subscriptions.unbindAll(link);
    link.routes.close();
    serving.lost(link);
    requests.settleLost(link, end);
    if (!isCurrent) {
      // Subscriptions that had not moved yet, and could not be asked for twice.
      if (connection.link) subscriptions.askAll(connection.link);
      return;
    }
    if (connection.closing) return this.#over(end);
    if (!this.#mayReturn(end.code)) return this.#finish(end);
    this.#backoff.connectedFor(performance.now() - this.#since);
    this.#setState("reconnecting");
    // A listener may have closed the client.
    if (connection.closed) return;
    tell("close", { code: end.code, reason: end.reason, willReconnect: true });
    this.#comeBack(end.reconnectAfterMs ?? 0);
  }

  /** @param {number} afterMs the delay that the server asked for */
  #comeBack(afterMs) {
    if (this.#connection.state === "closed") return;
    this.#returnNotBefore = performance.now() + afterMs;
    this.#timers.set("return", afterMs + this.#backoff.next(), () => void this.attempt());
  }

  /** The network or the page is back: no reason to wait longer, or to trust the old connection. */
  #wake() {
    const { link, state } = this.#connection;
    if (link) {
      link.doubtedAt = performance.now();
      return this.heartbeat.probe(link, DOUBT_MS);
    }
    const now = performance.now();
    if (state === "closed" || this.#dialing || !this.#timers.has("return")) return;
    if (now < this.#returnNotBefore || now - this.#since < EAGER_MS) return;
    this.#timers.clear("return");
    void this.attempt();
  }

  #listenToPage() {
    const page = typeof document === "object" ? document : null;
    if (typeof globalThis.addEventListener !== "function") return;
    const online = () => {
      quicFailures.delete(this.#parts.settings.quicKey);
      this.upgrade.forget();
      this.#wake();
      if (this.#connection.link?.transport.carrier === "websocket") void this.upgrade.try();
    };
    // A device without a network may still reach a server on itself: probe the connection, do not drop it.
    const offline = () => {
      if (this.#connection.link) this.#wake();
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
    const { requests } = this.#parts;
    this.#connection.closed = end;
    this.#stopTimers();
    this.#stopListening();
    this.#dialing?.abort();
    this.#dialing = null;
    this.upgrade.stop();
    requests.rejectWaiting();
  }

  #stopTimers() {
    const { subscriptions, tokens } = this.#parts;
    this.#timers.clearAll();
    this.heartbeat.stop();
    this.#bulk.stop();
    tokens.stop();
    subscriptions.stop();
  }

  /**
   * The server, or an error that time does not heal, has ended the client.
   *
   * @param {End} end
   * @param {QwsError} [error]
   */
  #finish(end, error) {
    this.#stop(end);
    const why = error ?? this.#connection.closedError();
    this.#setState("closed");
    this.#parts.subscriptions.endAll(why);
    this.ready.reject(why);
    this.#over(end);
  }

  /** @param {End} end */
  #over(end) {
    const { requests, tell } = this.#parts;
    const connection = this.#connection;
    this.#stopTimers();
    this.upgrade.stop();
    requests.rejectWaiting();
    this.heartbeat.rttMs = null;
    this.ready.reject(connection.closedError());
    tell("close", { code: end.code, reason: end.reason, willReconnect: false });
    connection.closing?.resolve();
  }

  /** @param {ClientState} state */
  #setState(state) {
    if (this.#connection.state === state) return;
    this.#connection.state = state;
    this.#parts.tell("state", state);
  }
}
