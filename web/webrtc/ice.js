// The STUN and TURN servers that the server names. Their credentials expire, so they are requested again before another
// path is tried.

import { MAY_NOT_CALL } from "./call.js";

// A response is reused for this long.
const FRESH_MS = 30_000;

export class IceServers {
  /** @type {RTCIceServer[]} */
  current = [];
  /** Why there are none and what that means, or "". */
  problem = "";
  #token;
  #asked = 0;

  /** @param {string} token the access token, or "" */
  constructor(token) {
    this.#token = token;
  }

  /** Requests them from the server; returns the last ones if that fails. Never rejects. */
  async renew() {
    if (performance.now() - this.#asked < FRESH_MS && this.#asked > 0) return this.current;
    try {
      const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
      const response = await fetch("/ice-servers", { headers, cache: "no-store" });
      const answer = await response.json();
      if (response.status === 403) {
        // Only clients that may send signals get them.
        this.problem = MAY_NOT_CALL;
        return this.current;
      }
      if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
      this.current = answer.iceServers;
      this.#asked = performance.now();
      this.problem = "";
    } catch (error) {
      this.problem = `No STUN or TURN servers (${error.message}): calls may work only within your network.`;
    }
    return this.current;
  }
}
