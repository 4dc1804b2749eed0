// The STUN and TURN servers that the server names. Their credentials hold for a limited time, so they are asked for anew
// before a new path is looked for.

import { MAY_NOT_CALL } from "./call.js";

// Asked for again only when the last answer is older than this.
const FRESH_MS = 30_000;

export class IceServers {
  /** @type {RTCIceServer[]} */
  current = [];
  /** Why there are none, and what follows from that; or "". */
  problem = "";
  #token;
  #asked = 0;

  /** @param {string} token to show, or "" */
  constructor(token) {
    this.#token = token;
  }

  /** Asks the server; gives what it named last where it cannot be asked. Never rejects. */
  async renew() {
    if (performance.now() - this.#asked < FRESH_MS && this.#asked > 0) return this.current;
    try {
      const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
      const response = await fetch("/ice-servers", { headers, cache: "no-store" });
      const answer = await response.json();
      if (response.status === 403) {
        // They are for who may send signals.
        this.problem = MAY_NOT_CALL;
        return this.current;
      }
      if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
      this.current = answer.iceServers;
      this.#asked = performance.now();
      this.problem = "";
    } catch (error) {
      this.problem = `No STUN or TURN servers (${error.message}): calls may only work within one network.`;
    }
    return this.current;
  }
}
