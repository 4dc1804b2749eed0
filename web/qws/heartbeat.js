// Signs of life: measures the round trip, and ends a connection that has gone silent.
// Knows nothing of what else is sent. Called by the driver, and by the client's `ping`.

import { Call } from "./calls.js";
import { SILENCE_MS } from "./carrier.js";
import { Timers } from "./timers.js";

/** @import { Connection } from "./connection.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */

/** The interval of pings, and the delay of the second one: at first a page has much else to do. */
const PING_MS = 15_000;
const SECOND_PING_MS = 2_000;
/** Pings that follow the first one of a connection at once: that one includes what both sides do for the first time. */
const WARM_PINGS = 3;
/** Round trips of which the shortest is shown: a page that is busy also measures itself. */
const KEPT_ROUND_TRIPS = 3;
/** The silence after which a connection counts as lost when the network or the page has just come back. */
export const DOUBT_MS = 3_000;

/** The pings of a client. */
export class Heartbeat {
  /** @type {number | null} */
  rttMs = null;
  /** The newest round trips on this connection, in milliseconds. @type {number[]} */
  #roundTrips = [];
  /** Whether the only one of them is the connection's first. */
  #isCold = true;
  /** Number of its first pings that are still to be sent. */
  #warmPings = 0;
  #timers = new Timers();
  #connection;
  #requests;
  #tell;

  /**
   * @param {Connection} connection
   * @param {Requests} requests
   * @param {(type: string, detail: unknown) => void} tell
   */
  constructor(connection, requests, tell) {
    this.#connection = connection;
    this.#requests = requests;
    this.#tell = tell;
  }

  /** Begins on a new connection. @param {Link} link */
  start(link) {
    this.#roundTrips = [];
    this.#isCold = true;
    this.#warmPings = WARM_PINGS;
    this.probe(link, SILENCE_MS);
    this.#timers.set("ping", SECOND_PING_MS, () => this.#keepAlive());
  }

  stop() {
    this.#timers.clearAll();
  }

  /**
   * Measures the round trip; a connection on which nothing arrives after that has ended.
   *
   * @param {Link} link
   * @param {number} withinMs
   */
  probe(link, withinMs) {
    const asked = performance.now();
    const call = new Call({ type: "ping", timestamp: Date.now() }, undefined, false, (error) => {
      if (error) return;
      this.measured(call);
      if (this.#warmPings === 0 || link !== this.#connection.link) return;
      this.#warmPings -= 1;
      this.probe(link, SILENCE_MS);
    });
    this.#requests.send(link, call);
    this.#timers.set("silence", withinMs, () => {
      if (link.heardAt < asked) link.end({ code: 1006, reason: "the server does not respond" }, true);
    });
  }

  /** The reply to a ping came. @param {Call} call */
  measured(call) {
    const took = performance.now() - call.sentAt;
    // The first one of a connection counts only until there is another.
    const isSecond = this.#isCold && this.#roundTrips.length > 0;
    if (isSecond) this.#isCold = false;
    this.#roundTrips = isSecond ? [took] : [...this.#roundTrips, took].slice(-KEPT_ROUND_TRIPS);
    this.rttMs = Math.min(...this.#roundTrips);
    this.#tell("rtt", this.rttMs);
    return took;
  }

  #keepAlive() {
    const { link } = this.#connection;
    if (link) this.probe(link, SILENCE_MS);
    this.#timers.set("ping", PING_MS, () => this.#keepAlive());
  }
}
