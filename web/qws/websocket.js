// A WebSocket as a carrier, and why one could not be opened.
// Transports bodies without looking into them; knows no link. Opened by `dial.js`, through the race.

import { CLOSE_FOLLOWS_MS, MAX_FIRST_BYTES, MAX_UNSENT_BYTES } from "./carrier.js";
import { QwsError } from "./errors.js";
import { tooLong } from "./frames.js";

/** @import { Attempt, CarrierName, Handlers, Transport } from "./carrier.js" */
/** @import { Body } from "./frames.js" */

/** The time limit for finding the cause of a failed connection. */
const DIAGNOSIS_MS = 1_000;

/** A WebSocket as one lane: each body is one WebSocket message. @implements {Transport} */
class SocketTransport {
  /** @type {CarrierName} */
  carrier = "websocket";
  streams = 1;
  maxBytes = MAX_FIRST_BYTES;
  hasRequestLanes = false;
  #socket;
  #isOver = false;

  /** @param {WebSocket} socket an open one */
  constructor(socket) {
    this.#socket = socket;
  }

  /** @param {Handlers} handlers */
  start({ body, end, fail }) {
    const socket = this.#socket;
    socket.onmessage = ({ data }) => {
      const received = typeof data === "string" ? data : new Uint8Array(data);
      if (received.length > this.maxBytes) return fail(tooLong(received.length, this.maxBytes));
      body(received, "control")?.catch(fail);
    };
    socket.onclose = ({ code, reason }) => {
      this.#isOver = true;
      end({ code: code === 1005 ? 1006 : code, reason });
    };
    if (socket.readyState !== 1) queueMicrotask(() => end({ code: 1006, reason: "" }));
  }

  get writable() {
    return this.#socket.bufferedAmount < MAX_UNSENT_BYTES;
  }

  async drained() {
    // The platform has no event for it.
    while (!this.writable && !this.#isOver) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** @param {Body} body */
  send(body) {
    if (this.#socket.readyState === 1) this.#socket.send(/** @type {string | Uint8Array<ArrayBuffer>} */ (body));
  }

  takeDatagrams() {
    // WebSocket has none.
  }

  /**
   * @param {number} code
   * @param {string} reason
   * @param {boolean} isSilent
   */
  close(code, reason, isSilent) {
    this.#isOver = true;
    closeSocket(this.#socket, code, reason, isSilent);
  }
}

/**
 * Closes a socket. If it can be terminated, as with `ws`, the other side has only a moment to answer.
 *
 * @param {WebSocket & { terminate?: () => void }} socket
 * @param {number} code
 * @param {string} reason
 * @param {boolean} [isSilent]
 */
function closeSocket(socket, code, reason, isSilent = false) {
  // The platform allows no other codes here; if one matters, a `close` message has carried it.
  if (code === 1000 || (code >= 3000 && code <= 4999)) socket.close(code, reason);
  else socket.close();
  if (typeof socket.terminate !== "function" || socket.readyState === 3) return;
  if (isSilent) return socket.terminate();
  const timer = setTimeout(() => socket.terminate?.(), CLOSE_FOLLOWS_MS);
  socket.addEventListener("close", () => clearTimeout(timer));
}

/**
 * Opens a WebSocket.
 *
 * @param {{ socketUrl: string, Socket: new (url: string, protocols: string[]) => WebSocket }} settings
 * @returns {Attempt}
 */
export function openSocket({ socketUrl, Socket }) {
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {Promise<Transport>} */
  const opened = new Promise((resolve, reject) => {
    const made = (socket = new Socket(socketUrl, ["qws.v1"]));
    made.binaryType = "arraybuffer";
    made.onopen = () => resolve(new SocketTransport(made));
    const fail = (/** @type {string} */ why, /** @type {number} */ code, /** @type {unknown} */ cause) =>
      reject(new QwsError("transport", `no WebSocket connection to ${socketUrl}${why && `: ${why}`}`, { code, cause }));
    let hasFailed = false;
    // Node gives a reason, and some versions do not close a socket that never opened. Browsers give none.
    made.onerror = async (event) => {
      const { error, message } = /** @type {Event & { error?: unknown, message?: string }} */ (event);
      hasFailed = true;
      // Several addresses have failed one by one, and `fetch` wraps the error of TLS.
      const cause = deepest(await whatFailed(socketUrl, error ?? (message ? new Error(message) : undefined)));
      fail(whyNoSocket(cause, socketUrl), 1006, cause);
    };
    made.onclose = ({ code, reason }) => {
      if (!hasFailed) fail(reason, code, undefined);
    };
  });
  opened.catch(() => {});
  const abandon = () => {
    // Browsers write an error to the console if a socket is closed before it is open.
    if (socket?.readyState === 0 && typeof document === "object") socket.onopen = () => socket?.close(1000);
    else if (socket) closeSocket(socket, 1000, "");
  };
  return { opened, abandon };
}

/** Node's codes for a certificate that it does not trust, or that is for another host. */
const CERTIFICATE_CODES = /^(CERT_|ERR_TLS_CERT|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_(GET|VERIFY)_)/;

/**
 * The cause of a failed WebSocket. Node's own has one text for all causes, so `fetch` asks the same address.
 *
 * @param {string} socketUrl
 * @param {unknown} cause as the WebSocket reported it
 */
async function whatFailed(socketUrl, cause) {
  if (!(cause instanceof Error) || !/non-101/.test(cause.message) || cause.cause !== undefined) return cause;
  try {
    const signal = AbortSignal.timeout(DIAGNOSIS_MS);
    const { status } = await fetch(socketUrl.replace(/^ws/, "http"), { signal, cache: "no-store", redirect: "manual" });
    return new Error(`unexpected server response: ${status}`);
  } catch (error) {
    return error;
  }
}

/**
 * Why there is no WebSocket, and what to do; empty if the platform does not say.
 *
 * @param {unknown} cause
 * @param {string} socketUrl
 */
function whyNoSocket(cause, socketUrl) {
  if (cause === undefined) return "";
  const { code, message } = /** @type {{ code?: unknown, message?: string }} */ (cause ?? {});
  const scheme = new URL(socketUrl).protocol;
  const text = (message || String(cause)).trim();
  if (code === "ECONNREFUSED") return "connection refused (ECONNREFUSED); is the server running, and is this its port?";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return `no such host (${text})`;
  if (typeof code === "string" && CERTIFICATE_CODES.test(code)) {
    const remedy = "For a certificate authority of your own, start Node with NODE_EXTRA_CA_CERTS=ca.pem";
    return `the certificate is not trusted: ${text} (${code}). ${remedy}`;
  }
  if (/wrong version number/.test(text)) return "no TLS on this port; is it the one for http:?";
  if (/server response|subprotocol|non-101|HPE_/i.test(`${text} ${code}`)) {
    return `this is not a quic-websocket server, or not its port for ${scheme} (${text})`;
  }
  return code && !text.includes(String(code)) ? `${text} (${code})` : text;
}

/**
 * The innermost error, which names the cause, of those that wrap it.
 *
 * @param {any} error
 * @returns {unknown}
 */
function deepest(error) {
  if (Array.isArray(error?.errors) && error.errors.length > 0) return deepest(error.errors[0]);
  return error?.cause instanceof Error ? deepest(error.cause) : error;
}
