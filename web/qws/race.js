// The race between QUIC and WebSocket for a connection.
// Is given both ways to open one, and knows neither carrier. Called by `dial.js` for each try to connect.

import { CONNECT_MS } from "./carrier.js";
import { asError, QwsError } from "./errors.js";
import { Timers } from "./timers.js";

/** @import { Attempt, Transport } from "./carrier.js" */

/**
 * Connects over QUIC and, if that takes longer than a moment, over WebSocket at the same time; the loser is abandoned.
 *
 * @param {object} how
 * @param {(() => Attempt) | null} how.quic
 * @param {(() => Attempt) | null} how.socket
 * @param {boolean} how.quicFirst otherwise QUIC is tried only if WebSocket fails
 * @param {number} how.raceDelayMs
 * @param {number} how.settleMs
 * @param {AbortSignal} how.signal
 * @param {() => void} how.onQuicFailed called if WebSocket connected and QUIC did not
 * @returns {Promise<Transport>}
 */
export function race({ quic, socket, quicFirst, raceDelayMs, settleMs, signal, onQuicFailed }) {
  return new Promise((resolve, reject) => {
    const begun = performance.now();
    const timers = new Timers();
    /** @type {Map<"quic" | "socket", Attempt>} */
    const attempts = new Map();
    /** @type {Map<string, unknown>} */
    const errors = new Map();
    /** An open WebSocket while QUIC may still come. @type {Transport | null} */
    let spare = null;
    let isOver = false;

    /** @param {"quic" | "socket" | null} winner */
    const finish = (winner) => {
      isOver = true;
      timers.clearAll();
      signal.removeEventListener("abort", abort);
      if (winner === "socket" && attempts.has("quic")) onQuicFailed();
      for (const [name, attempt] of attempts) if (name !== winner) attempt.abandon();
    };
    const abort = () => {
      finish(null);
      reject(new QwsError("closed", "the client was closed", { code: 1000 }));
    };
    /** @param {string} message */
    const fail = (message) => {
      finish(null);
      reject(asError(errors.get("socket") ?? errors.get("quic") ?? new Error(message)));
    };
    /** @param {Transport} transport */
    const take = (transport) => {
      finish(transport.carrier === "websocket" ? "socket" : "quic");
      resolve(transport);
    };
    /**
     * @param {"quic" | "socket"} name
     * @param {(() => Attempt) | null} open
     */
    const start = (name, open) => {
      if (!open || attempts.has(name) || isOver) return;
      const attempt = open();
      attempts.set(name, attempt);
      attempt.opened.then(
        (transport) => {
          if (isOver) return;
          const left = settleMs - (performance.now() - begun);
          const quicMayCome = attempts.has("quic") && !errors.has("quic");
          if (name === "quic" || !quicMayCome || left <= 0) return take(transport);
          spare = transport;
          timers.set("settle", left, () => take(transport));
        },
        (error) => {
          if (isOver) return;
          errors.set(name, error);
          if (spare) return take(spare);
          start("quic", quic);
          start("socket", socket);
          if ([...attempts.keys()].every((tried) => errors.has(tried))) fail("no connection");
        },
      );
    };

    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort);
    timers.set("all", CONNECT_MS, () => fail(`no connection within ${CONNECT_MS} ms`));
    if (quic && (quicFirst || !socket)) {
      start("quic", quic);
      timers.set("socket", raceDelayMs, () => start("socket", socket));
    } else {
      start("socket", socket);
    }
  });
}
