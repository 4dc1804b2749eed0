// What is remembered of addresses where QUIC failed, for all clients of a page.
// Knows no connection. Called by the client, which asks it whether to begin with QUIC.

/** How often the time until QUIC is tried again doubles: browsers write each failure into their console. */
const MAX_QUIC_DOUBLINGS = 4;

/**
 * When QUIC failed where WebSocket did not, and how many QUIC connections went silent after they were open, by address: for
 * all clients of a page.
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
 * @param {number} [tries] how often it was tried in vain since
 */
export function quicPause(key, retryQuicMs, tries = 0) {
  const failures = tries + (quicFailures.get(key)?.starved ?? 0);
  return (retryQuicMs || Infinity) * 2 ** Math.min(failures, MAX_QUIC_DOUBLINGS);
}
