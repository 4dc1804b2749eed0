// Limits how often another client can make this page create a connection to it. Each one costs an RTCPeerConnection, of
// which a browser allows a few hundred per page; closed ones count until they are garbage-collected.

// Enough for a page that is reloaded repeatedly, or a network that comes and goes.
const MAX_ATTEMPTS = 5;
const WITHIN_MS = 60_000;

export class AttemptLimit {
  /** @type {Map<string, {times: number[], isReported: boolean}>} by client ID */
  #begun = new Map();

  /**
   * Requests one more attempt with a client.
   * @param {string} clientId
   * @returns {"yes" | "no" | "first no"} "first no" for the first refusal since the last "yes"
   */
  ask(clientId) {
    const now = performance.now();
    this.#forgetBefore(now - WITHIN_MS);
    const begun = this.#begun.get(clientId) ?? { times: [], isReported: false };
    this.#begun.set(clientId, begun);
    if (begun.times.length < MAX_ATTEMPTS) {
      begun.times.push(now);
      begun.isReported = false;
      return "yes";
    }
    const isFirst = !begun.isReported;
    begun.isReported = true;
    return isFirst ? "first no" : "no";
  }

  #forgetBefore(time) {
    for (const [clientId, begun] of this.#begun) {
      begun.times = begun.times.filter((at) => at > time);
      if (begun.times.length === 0) this.#begun.delete(clientId);
    }
  }
}
