// What the parts of a client have in common: its state, the connection in use, and those it was moved from.
// Only the driver and `upgrade.js` write it; knows no part. Read by requests, subscriptions, heartbeat and inbound.

import { QwsError } from "./errors.js";

/** @import { ClientState } from "../qws.js" */
/** @import { End } from "./carrier.js" */
/** @import { Deferred } from "./deferred.js" */
/** @import { Link } from "./link.js" */

/** The state of a client. */
export class Connection {
  /** @type {ClientState} */
  state = "connecting";
  /** The connection that requests use. @type {Link | null} */
  link = null;
  /** Connections that were left for a better one, and may still have something in flight. @type {Set<Link>} */
  left = new Set();
  /** The newest ids of this client: join and leave events about them are not passed on. @type {string[]} */
  ownIds = [];
  /** Set once the application has asked for the end. @type {Deferred<void> | null} */
  closing = null;
  /** How it ended. @type {End | null} */
  closed = null;
  /** Called when a connection that was left may have nothing in flight any more. @type {(link: Link) => void} */
  checkLeft = () => {};

  closedError() {
    const { code, reason } = this.closed ?? { code: 1000, reason: "" };
    return new QwsError("closed", reason || `the client is closed (${code})`, { code });
  }
}
