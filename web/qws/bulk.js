// A second WebSocket of a connection, for the messages of subscriptions with `lane: "bulk"`: long ones there hold up
// none on the first (docs/PROTOCOL.md, "A second WebSocket"). Knows links, and no subscription. Called by the driver.

import { Backoff } from "./backoff.js";
import { CONNECT_MS, SILENCE_MS } from "./carrier.js";
import { encodeBody } from "./frames.js";
import { Timers } from "./timers.js";
import { openSocket } from "./websocket.js";

/** @import { Transport } from "./carrier.js" */
/** @import { Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Settings } from "./settings.js" */

/** How long subscriptions of a new connection wait for the second one: each keeps its lane. */
const WITHIN_MS = 2_000;
/** The interval of pings. */
const PING_MS = 15_000;

/** The second WebSocket of a client. */
export class Bulk {
  #settings;
  #ready;
  #backoff;
  #timers = new Timers();
  /** @type {Lane | null} */
  #lane = null;

  /**
   * @param {Settings} settings
   * @param {(link: Link) => void} ready called once subscriptions need not wait for it any longer
   */
  constructor(settings, ready) {
    this.#settings = settings;
    this.#ready = ready;
    this.#backoff = new Backoff(settings.maxBackoffMs);
  }

  /** Whether this connection is to have a second one. @param {Link} link */
  isFor(link) {
    return this.#settings.bulkSocket && link.transport.carrier === "websocket" && link.session !== null;
  }

  /** The client uses this connection from now on. @param {Link} link */
  used(link) {
    this.stop();
    if (!this.isFor(link)) return;
    this.#backoff.reset();
    this.#timers.set("within", WITHIN_MS, () => this.#go(link));
    void this.#open(link);
  }

  /** The connection has ended, or the client. */
  stop() {
    this.#timers.clearAll();
    this.#lane?.end();
    this.#lane = null;
  }

  /** @param {Link} link */
  #go(link) {
    this.#timers.clear("within");
    if (!link.awaitsBulk) return;
    link.awaitsBulk = false;
    this.#ready(link);
  }

  /** @param {Link} link */
  async #open(link) {
    const lane = (this.#lane = new Lane(link, {
      greeted: () => {
        this.#backoff.reset();
        this.#go(link);
      },
      ended: () => {
        if (this.#lane !== lane || link.isOver) return;
        this.#go(link);
        this.#timers.set("again", this.#backoff.next(), () => void this.#open(link));
      },
    }));
    await lane.open(this.#settings);
  }
}

/** One second WebSocket, from its handshake to its end. */
class Lane {
  /** Its number, once the server has said it. @type {number | null} */
  number = null;
  #link;
  #actions;
  #heardAt = 0;
  #isOver = false;
  #timers = new Timers();
  /** @type {Transport | null} */
  #transport = null;
  #abandon = () => {};

  /**
   * @param {Link} link
   * @param {{ greeted: () => void, ended: () => void }} actions
   */
  constructor(link, actions) {
    this.#link = link;
    this.#actions = actions;
  }

  /** @param {Settings} settings */
  async open(settings) {
    const attempt = openSocket(settings);
    this.#abandon = attempt.abandon;
    this.#timers.set("open", CONNECT_MS, () => this.end());
    try {
      const transport = await attempt.opened;
      if (this.#isOver) return transport.close(1000, "", false);
      this.#transport = transport;
      transport.maxBytes = this.#link.transport.maxBytes;
      transport.start({
        body: (body) => this.#link.hearOn(body, this),
        end: () => this.end(),
        fail: () => this.end(),
        isBound: () => false,
      });
      const attach = this.#link.session;
      transport.send(encodeBody({ type: "handshake", id: 0, protocol_version: "1.0", attach }));
    } catch {
      // As if there were none: the first connection brings everything.
      this.end();
    }
  }

  /** Something came, which is a sign of life of this connection alone. */
  heard() {
    this.#heardAt = performance.now();
  }

  /** An answer to its handshake, or the number of the lane. @param {Reply} heard */
  greeted({ json }) {
    if (json.type === "lane" && typeof json.lane === "number") {
      this.number = json.lane;
      this.#timers.clear("open");
      this.#keepAlive();
      this.#actions.greeted();
    } else if (json.type !== "handshake_response" || json.accepted !== true) {
      this.end();
    }
  }

  /** @param {number | undefined} timestamp of a ping */
  pong(timestamp) {
    this.#transport?.send(encodeBody({ type: "pong", timestamp }));
  }

  end() {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#timers.clearAll();
    if (this.#transport) this.#transport.close(1000, "", false);
    else this.#abandon();
    this.#actions.ended();
  }

  #keepAlive() {
    this.#timers.set("ping", PING_MS, () => {
      const asked = performance.now();
      this.#transport?.send(encodeBody({ type: "ping", timestamp: Date.now() }));
      this.#timers.set("silence", SILENCE_MS, () => {
        if (this.#heardAt < asked) this.end();
      });
      this.#keepAlive();
    });
  }
}
