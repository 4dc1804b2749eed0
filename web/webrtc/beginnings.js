// How often others may make us begin a connection to them. Each costs an RTCPeerConnection, of which a browser gives a page a
// few hundred; those that were closed count until it has cleaned up behind them.

// A page that is loaded again and again, or a network that comes and goes, needs fewer.
const MOST = 5;
const WITHIN_MS = 60_000;

export class Beginnings {
  /** @type {Map<string, {times: number[], isTold: boolean}>} by client id */
  #begun = new Map();

  /**
   * Asks for one more with a client.
   * @param {string} clientId
   * @returns {"yes" | "no" | "first no"} "first no" where it was refused nothing since its last "yes"
   */
  ask(clientId) {
    const now = performance.now();
    this.#forgetBefore(now - WITHIN_MS);
    const begun = this.#begun.get(clientId) ?? { times: [], isTold: false };
    this.#begun.set(clientId, begun);
    if (begun.times.length < MOST) {
      begun.times.push(now);
      begun.isTold = false;
      return "yes";
    }
    const isFirst = !begun.isTold;
    begun.isTold = true;
    return isFirst ? "first no" : "no";
  }

  #forgetBefore(time) {
    for (const [clientId, begun] of this.#begun) {
      begun.times = begun.times.filter((at) => at > time);
      if (begun.times.length === 0) this.#begun.delete(clientId);
    }
  }
}
