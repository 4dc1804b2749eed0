// What the server sends unasked, by its type: to a topic's subscription, to a request, or as an event of the client.
// Knows the types of messages, and no carrier. Called by links, through the driver.

import { QwsError } from "./errors.js";
import { saidOf } from "./messages.js";

/** @import { Source } from "./carrier.js" */
/** @import { Connection } from "./connection.js" */
/** @import { Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */
/** @import { Serving } from "./serving.js" */
/** @import { Subscriptions } from "./subscriptions.js" */
/** @import { Upgrade } from "./upgrade.js" */

/**
 * Where messages go.
 *
 * @typedef {object} Receivers
 * @property {Connection} connection
 * @property {Requests} requests
 * @property {Subscriptions} subscriptions
 * @property {Serving} serving
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
    const { connection, requests, subscriptions, serving, renewToken, tell } = this.#receivers;
    const { json } = heard;
    if (json.re !== undefined && json.re !== null) return requests.replied(link, heard);
    if (connection.state === "closed") return;
    switch (json.type) {
      case "message":
      case "gap":
      case "join":
      case "leave":
      case "state":
      case "return":
      case "occupancy":
        return subscriptions.hear(link, source, heard);
      case "broadcast":
      case "direct":
      case "signal":
        if (link.inUse.isSettled) return this.#said(link, heard);
        return link.inUse.promise.then(() => this.#said(link, heard));
      case "request":
        return serving.hear(link, heard);
      case "cancel":
        return serving.cancelled(link, json);
      case "subscribed":
        return subscriptions.announced(link, json);
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
   * @param {Reply} heard
   */
  #said(link, heard) {
    const { connection, upgrade, tell } = this.#receivers;
    if (connection.state === "closed") return;
    const { type } = heard.json;
    if (type !== "broadcast" || !upgrade.isRepeated(link, heard)) tell(type, saidOf(heard));
  }
}
