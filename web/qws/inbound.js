// What the server sends unasked, by its type: to a topic's subscription, to a request, or as an event of the client.
// Knows the types of messages, and no carrier. Called by links, through the driver.

import { QwsError } from "./errors.js";
import { saidOf } from "./messages.js";

/** @import { Source } from "./carrier.js" */
/** @import { Connection } from "./connection.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */
/** @import { Subscriptions } from "./subscriptions.js" */
/** @import { Upgrade } from "./upgrade.js" */

/**
 * Where messages go.
 *
 * @typedef {object} Receivers
 * @property {Connection} connection
 * @property {Requests} requests
 * @property {Subscriptions} subscriptions
 * @property {Pick<Upgrade, "isRepeated">} upgrade
 * @property {(link: Link) => void} renewToken
 * @property {(type: string, detail: unknown) => void} tell dispatches an event of the client
 */

/** Passes on what comes on all connections of a client. */
export class Inbound {
  #receivers;

  /** @param {Receivers} receivers */
  constructor(receivers) {
    this.#receivers = receivers;
  }

  /**
   * @param {Link} link
   * @param {Reply} heard
   * @param {Source} source
   * @returns {Promise<void> | void} if it is a promise, nothing more is to be read there before
   */
  hear(link, heard, source) {
    const { connection, requests, subscriptions, renewToken, tell } = this.#receivers;
    const { json, data } = heard;
    if (json.re !== undefined && json.re !== null) return requests.replied(link, heard);
    if (connection.state === "closed") return;
    switch (json.type) {
      case "message":
      case "gap":
      case "join":
      case "leave":
        return subscriptions.hear(link, source, json, data);
      case "broadcast":
      case "direct":
      case "signal":
        if (link.inUse.isSettled) return this.#said(link, json, data);
        return link.inUse.promise.then(() => this.#said(link, json, data));
      case "unsubscribed":
        return subscriptions.ended(link, json);
      case "expiring":
        if (link !== connection.link) return;
        tell("expiring", { expires_at: json.expires_at });
        return renewToken(link);
      case "error":
        return tell("error", new QwsError("request", String(json.message), { code: json.code }));
      default:
      // A newer server may send other types; they are ignored.
    }
  }

  /**
   * Another client sent this.
   *
   * @param {Link} link
   * @param {Json} json
   * @param {Uint8Array} [data]
   */
  #said(link, json, data) {
    const { connection, upgrade, tell } = this.#receivers;
    if (connection.state === "closed") return;
    if (json.type === "signal") return tell("signal", { from: json.from, data: json.data, timestamp: json.timestamp });
    if (json.type === "direct") return tell("direct", saidOf(json, data));
    if (!upgrade.isRepeated(link, json, data)) tell("broadcast", saidOf(json, data));
  }
}
