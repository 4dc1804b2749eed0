// The access token to show: a fixed one, or one from the application's function, which is asked again each time.
// Knows a connection only while it renews its token. Called by the driver before each handshake, and by inbound.

import { Backoff } from "./backoff.js";
import { QwsError, textOf } from "./errors.js";
import { Timers } from "./timers.js";

/** @import { ConnectOptions } from "../qws.js" */
/** @import { Connection } from "./connection.js" */
/** @import { Link } from "./link.js" */

/** The token of a client. */
export class Tokens {
  #token;
  #timers = new Timers();

  /** @param {ConnectOptions["token"]} token as the application gave it */
  constructor(token) {
    this.#token = typeof token === "string" ? token.trim() : token;
  }

  /** Whether another token can be had. */
  get isRenewable() {
    return typeof this.#token === "function";
  }

  /** The token to show; the function is called each time. @returns {Promise<string | undefined>} */
  async fresh() {
    if (typeof this.#token !== "function") return this.#token;
    const token = await this.#token();
    return token === undefined || token === null ? undefined : readToken(token);
  }

  /** The server has accepted another token. @param {string} token */
  replace(token) {
    if (!this.isRenewable) this.#token = token;
  }

  /**
   * Shows another token before this one expires, and tries again as long as the connection lives.
   *
   * @param {Link} link
   * @param {{ connection: Connection, maxBackoffMs: number, refresh: (token: string) => Promise<unknown>,
   *   tell: (type: string, detail: unknown) => void }} how
   * @param {Backoff} [backoff]
   */
  async renew(link, how, backoff = new Backoff(how.maxBackoffMs)) {
    const { connection, refresh, tell } = how;
    if (!this.isRenewable || link !== connection.link) return;
    try {
      const shown = await link.inTime(this.fresh());
      if (shown === undefined) throw new QwsError("transport", "the token function returned none");
      if (link === connection.link && !connection.closed) await refresh(shown);
    } catch (cause) {
      // The next connection asks for one anyway.
      if (link !== connection.link || connection.closed) return;
      tell("error", new QwsError("request", `token: could not be renewed: ${textOf(cause)}`, { cause }));
      if (!connection.closed) this.#timers.set("renew", backoff.next(), () => void this.renew(link, how, backoff));
    }
  }

  /** The client has ended. */
  stop() {
    this.#timers.clearAll();
  }
}

/**
 * The token that a function returned, without the whitespace around it.
 *
 * @param {unknown} token
 */
function readToken(token) {
  const trimmed = typeof token === "string" ? token.trim() : "";
  if (/^[\x21-\x7e]{1,8192}$/.test(trimmed)) return trimmed;
  const isText = typeof token === "string";
  const what = isText ? `${token.length} characters that are not a token` : `${typeof token}, not a string`;
  throw new QwsError("transport", `the token function returned ${what}; does it check response.ok?`);
}
