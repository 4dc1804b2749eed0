// Moves a client from WebSocket to QUIC in the background, without losing or repeating anything. Decides when to try
// and what the old connection still has to bring; knows no message of a topic. Called by the driver.

import { BroadcastFilter } from "./broadcasts.js";
import { Call } from "./calls.js";
import { MOVE_MS } from "./entry.js";
import { asError } from "./errors.js";
import { quicPause } from "./quic-failures.js";
import { Timers } from "./timers.js";

/** @import { CarrierName } from "./carrier.js" */
/** @import { Connection } from "./connection.js" */
/** @import { Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */
/** @import { Settings } from "./settings.js" */
/** @import { Subscriptions } from "./subscriptions.js" */

/** How long broadcasts of the old connection are recognised on the new one. */
const COMPARED_MS = 2 * MOVE_MS;

/**
 * What the driver does for it.
 *
 * @typedef {object} Actions
 * @property {(carriers: CarrierName[], signal: AbortSignal, adopt: (link: Link) => void) => Promise<void>} dial
 * @property {(link: Link) => void} use has requests and subscriptions use a connection
 * @property {(code: number | undefined) => boolean} mayReturn
 * @property {(type: string, detail: unknown) => void} tell
 */

/** The way of one client to QUIC. */
export class Upgrade {
  /** Aborts a try. @type {AbortController | null} */
  #moving = null;
  /** Failed tries since WebSocket is used. */
  #tries = 0;
  /** Whether the server, not the network, refused this client over QUIC. */
  #isRefused = false;
  #broadcasts = new BroadcastFilter();
  #timers = new Timers();
  #settings;
  #connection;
  #requests;
  #subscriptions;
  #driver;

  /**
   * @param {{ settings: Settings, connection: Connection, requests: Requests, subscriptions: Subscriptions }} parts
   * @param {Actions} driver
   */
  constructor({ settings, connection, requests, subscriptions }, driver) {
    this.#settings = settings;
    this.#connection = connection;
    this.#requests = requests;
    this.#subscriptions = subscriptions;
    this.#driver = driver;
    connection.checkLeft = (link) => this.#checkLeft(link);
  }

  /** The client uses this connection from now on. @param {Link} link */
  used(link) {
    if (link.transport.carrier === "websocket") return this.#tryLater();
    this.#timers.clear("quic");
    this.#tries = 0;
  }

  /** The network is back: nothing is known of it. */
  forget() {
    this.#tries = 0;
  }

  /** Tries to move now. */
  async try() {
    const { carriers } = this.#settings;
    const old = this.#connection.link;
    if (!carriers.includes("webtransport") || this.#moving || !old || this.#isRefused) return;
    const moving = new AbortController();
    this.#moving = moving;
    this.#timers.clear("compared");
    this.#broadcasts.clear();
    try {
      await this.#driver.dial(["webtransport"], moving.signal, (link) => {
        this.#moving = null;
        this.#move(old, link);
      });
    } catch (error) {
      this.#moving = null;
      this.#tries += 1;
      this.#broadcasts.clear();
      // If the server refused it, that is final: WebSocket is good enough.
      const { kind, code } = asError(error);
      if (kind === "closed" && !this.#driver.mayReturn(code) && !moving.signal.aborted) this.#isRefused = true;
      if (this.#connection.link === old) this.#tryLater();
    }
  }

  /** The connection in use has ended, and with it the reason to move. */
  abandon() {
    this.#timers.clear("quic");
    this.#moving?.abort();
    for (const old of this.#connection.left) old.end({ code: 1000, reason: "" });
  }

  /** The client has ended. */
  stop() {
    this.#timers.clearAll();
    this.abandon();
  }

  /**
   * Whether a broadcast has come on the other connection: while there are two, each comes twice.
   *
   * @param {Link} link
   * @param {Reply} heard
   */
  isRepeated(link, heard) {
    const isOld = this.#connection.left.has(link);
    if (isOld && link.isDrained) return true;
    return this.#broadcasts.isRepeated(heard, isOld || this.#moving !== null);
  }

  #tryLater() {
    const { carriers, retryQuicMs, quicKey } = this.#settings;
    if (!carriers.includes("webtransport") || retryQuicMs === 0 || this.#isRefused) return;
    this.#timers.set("quic", quicPause(quicKey, retryQuicMs, this.#tries), () => void this.try());
  }

  /**
   * Uses another connection; the old one is read until every subscription has moved and every reply is there.
   *
   * @param {Link} old
   * @param {Link} link
   */
  #move(old, link) {
    this.#connection.left.add(old);
    this.#subscriptions.withdrawOrders(old);
    this.#requests.pump(old);
    // What others sent before comes before the answer; after that, what they send comes by the new connection.
    const drained = new Call({ type: "ping" }, undefined, false, () => {
      old.isDrained = true;
      link.inUse.resolve();
    });
    this.#requests.send(old, drained);
    this.#driver.use(link);
    this.#timers.set("compared", COMPARED_MS, () => this.#broadcasts.clear());
    this.#endLater(old);
    this.#driver.tell("open", { carrier: link.transport.carrier, resumed: true });
  }

  /** Ends a connection that was left, once no request between clients is open on it. @param {Link} old */
  #endLater(old) {
    this.#timers.set("move", MOVE_MS, () => {
      if (old.asks.size + old.served.size > 0) return this.#endLater(old);
      old.end({ code: 1000, reason: "moved to another connection" });
    });
  }

  /** Ends a connection that was left once nothing more is to come from it. @param {Link} old */
  #checkLeft(old) {
    if (!this.#connection.left.has(old) || old.calls.size + old.orders.length + old.served.size > 0) return;
    if (this.#subscriptions.isMoving(old)) return;
    this.#timers.clear("move");
    old.end({ code: 1000, reason: "moved to another connection" });
  }
}
