// One try to connect: the race of the carriers, then the handshake.
// Knows nothing of subscriptions and requests, and does not try again. Called by the driver and by `upgrade.js`.

import { asError } from "./errors.js";
import { Link } from "./link.js";
import { noteQuicFailure, quicFailures, quicPause } from "./quic-failures.js";
import { race } from "./race.js";
import { openSocket } from "./websocket.js";
import { openQuic } from "./webtransport.js";

/** @import { CarrierName, End, Source } from "./carrier.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Settings } from "./settings.js" */

/**
 * Makes a connection on which the server has accepted this client.
 *
 * @param {Settings} settings
 * @param {object} how
 * @param {CarrierName[]} how.carriers
 * @param {Promise<string | undefined>} how.token
 * @param {AbortSignal} how.signal
 * @param {() => Json} how.hello further fields of `handshake`
 * @param {(link: Link) => void} how.adopt takes it, before anything is read that came behind the server's answer
 * @param {(link: Link, heard: Reply, source: Source) => Promise<void> | void} how.hear
 * @param {(link: Link, end: End) => void} how.ended
 */
export async function dial(settings, { carriers, token, signal, hello, adopt, hear, ended }) {
  const { name, retryQuicMs, raceDelayMs, settleMs, quicKey } = settings;
  token.catch(() => {});
  const [quic, socket] = [carriers.includes("webtransport"), carriers.includes("websocket")];
  const failure = quicFailures.get(quicKey);
  const transport = await race({
    quic: quic ? () => openQuic(settings) : null,
    socket: socket ? () => openSocket(settings) : null,
    quicFirst: failure === undefined || Date.now() - failure.at >= quicPause(quicKey, retryQuicMs),
    raceDelayMs,
    settleMs,
    signal,
    onQuicFailed: () => noteQuicFailure(quicKey),
  });
  /** @type {Link} */
  const link = new Link(transport, {
    hear: (heard, source) => hear(link, heard, source),
    greeted: () => {
      // A handshake does not make up for a connection that went silent: the next one may go silent as well.
      if (transport.carrier === "webtransport" && !quicFailures.get(quicKey)?.starved) quicFailures.delete(quicKey);
      adopt(link);
    },
    ended: (end) => ended(link, end),
  });
  let isShown = false;
  token.then(() => (isShown = true)).catch(() => {});
  const abandon = () => link.end({ code: 1000, reason: "" });
  signal.addEventListener("abort", abandon);
  // It may have been aborted since the race was won.
  if (signal.aborted) abandon();
  try {
    await link.shakeHands(name, token, hello());
  } catch (error) {
    link.end({ code: 1000, reason: "" });
    // If packets get through and a connection does not, the other carrier may do better.
    const { kind, code } = asError(error);
    const isLost = kind === "transport" && (code === 1006 || code === 4408);
    if (isShown && quic && socket && transport.carrier === "webtransport" && isLost) noteQuicFailure(quicKey);
    throw error;
  } finally {
    signal.removeEventListener("abort", abandon);
  }
}
