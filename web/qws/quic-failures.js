// Addresses where QUIC has failed, remembered for all clients of a page, and what counts as such a failure.
// Opens no connection. Called by `dial.js`, which asks whether to begin with QUIC, by the driver, and by `upgrade.js`.

import { SILENCE_MS } from "./carrier.js";

/** @import { End } from "./carrier.js" */
/** @import { Link } from "./link.js" */
/** @import { Settings } from "./settings.js" */

/** How often the time until QUIC is tried again doubles. Browsers write each failure to their console. */
const MAX_QUIC_DOUBLINGS = 4;
/** The life of a QUIC connection that makes up for those that went silent before. */
const PROVEN_MS = 600_000;

/**
 * By address: the time of the last failure of QUIC where WebSocket worked, and the number of QUIC connections that went
 * silent after they were open.
 *
 * @type {Map<string, { at: number, starved: number }>}
 */
export const quicFailures = new Map();

/** @param {string} key @param {number} [starved] */
export function noteQuicFailure(key, starved = 0) {
  quicFailures.set(key, { at: Date.now(), starved: (quicFailures.get(key)?.starved ?? 0) + starved });
}

/**
 * How long QUIC is left alone after a failure.
 *
 * @param {string} key
 * @param {number} retryQuicMs
 * @param {number} [tries] number of failures since
 */
export function quicPause(key, retryQuicMs, tries = 0) {
  const failures = tries + (quicFailures.get(key)?.starved ?? 0);
  return (retryQuicMs || Infinity) * 2 ** Math.min(failures, MAX_QUIC_DOUBLINGS);
}

/** Judges the QUIC connections of one client by how they end. */
export class QuicJudge {
  /**
   * What was known of QUIC before its last connection went silent: it may have been the network.
   *
   * @type {{ before: { at: number, starved: number } | undefined } | null}
   */
  #suspicion = null;
  #settings;

  /** @param {Settings} settings */
  constructor(settings) {
    this.#settings = settings;
  }

  /**
   * A connection has ended. A QUIC connection that was open and then went silent is a failure of QUIC, unless it turns
   * out that the network was away.
   *
   * @param {Link} link
   * @param {End} end
   * @param {number} since when the connection began
   */
  judge(link, { code }, since) {
    const { quicKey, carriers } = this.#settings;
    if (link.transport.carrier !== "webtransport" || !carriers.includes("websocket")) return;
    const now = performance.now();
    const isSilent = now - link.heardAt >= SILENCE_MS && link.doubtedAt <= link.heardAt;
    if (isSilent && (code === 1006 || code === 4408 || code === 4413)) {
      this.#suspicion = { before: quicFailures.get(quicKey) };
      noteQuicFailure(quicKey, 1);
    } else if (now - since >= PROVEN_MS) {
      quicFailures.delete(quicKey);
    }
  }

  /** No carrier connects: the network was away. */
  acquit() {
    if (!this.#suspicion) return;
    const { before } = this.#suspicion;
    this.#suspicion = null;
    if (before) quicFailures.set(this.#settings.quicKey, before);
    else quicFailures.delete(this.#settings.quicKey);
  }

  /** A carrier connects: the network is there. */
  confirm() {
    this.#suspicion = null;
  }
}
