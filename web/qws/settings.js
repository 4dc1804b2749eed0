// From the arguments of `connect` to complete settings: addresses, carriers, times.
// Reads the environment (page, WebKit, WebTransport) and opens nothing. Called once for each client.

import { compressions } from "./compression.js";
import { QwsError } from "./errors.js";
import { CONNECT_OPTIONS, unknownOption } from "./options.js";

/** @import { ConnectOptions } from "../qws.js" */
/** @import { CarrierName } from "./carrier.js" */

/** @typedef {ReturnType<typeof settingsOf>} Settings */

/**
 * Complete settings. Throws if the arguments cannot be right.
 *
 * @param {string | import("../qws.js").UrlLike | undefined} url
 * @param {ConnectOptions} options
 */
export function settingsOf(url, options) {
  const unknown = unknownOption("connect", options, CONNECT_OPTIONS);
  if (unknown) throw unknown;
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `connect: ${why}`);
  const base = url ?? (typeof location === "object" ? location?.origin : undefined);
  if (base === undefined) throw wrong("a URL is required outside of a web page");
  let origin;
  try {
    origin = new URL(addressOf(base));
  } catch {
    throw wrong(`not a valid URL: ${addressOf(base)}`);
  }
  const loopback = isLoopback(origin.hostname);
  if (origin.protocol !== "https:" && !(origin.protocol === "http:" && loopback)) {
    throw wrong(`${origin.href}: use https:, or http: on this machine (localhost, 127.0.0.1, [::1])`);
  }
  const { name, certificateHash, webTransportUrl, webSocketUrl, onRequest } = options;
  if (onRequest !== undefined && typeof onRequest !== "function") throw wrong("onRequest must be a function");
  const length = name === undefined ? 1 : [...name].length;
  if (length < 1 || length > 64) throw wrong("name must have 1 to 64 characters");
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const isKeptFromQuic = isWebKit() && options.webTransportOnWebKit !== true;
  const has = {
    webtransport: typeof WebTransport === "function" && !isKeptFromQuic,
    websocket: typeof Socket === "function",
  };
  const wanted = options.carriers ?? /** @type {CarrierName[]} */ (["webtransport", "websocket"]);
  const quicUrl = webTransportUrl
    ? addressOf(webTransportUrl)
    : origin.protocol === "https:"
      ? `https://${origin.hostname}:${origin.port || 443}/wt`
      : null;
  const asksHash = certificateHash === undefined && loopback;
  const hasAddress = { webtransport: quicUrl !== null || asksHash, websocket: true };
  const carriers = wanted.filter((carrier) => has[carrier] && hasAddress[carrier]);
  if (carriers.length === 0) throw wrong(noCarrier(wanted, isKeptFromQuic));
  return {
    name,
    onRequest,
    bulkSocket: options.bulkSocket === true,
    compressions: options.compression === false ? [] : compressions(),
    origin,
    carriers,
    Socket,
    quicUrl,
    hasQuicUrl: webTransportUrl !== undefined,
    socketUrl: addressOf(webSocketUrl ?? `${origin.protocol === "https:" ? "wss" : "ws"}://${origin.host}/ws`),
    quicKey: quicUrl ?? origin.origin,
    hash: certificateHash || null,
    asksHash,
    raceDelayMs: atLeast(0, options.raceDelayMs ?? 200, "raceDelayMs"),
    settleMs: atLeast(0, options.settleMs ?? 800, "settleMs"),
    retryQuicMs: atLeast(0, options.retryQuicMs ?? 60_000, "retryQuicMs"),
    maxBackoffMs: atLeast(0, options.maxBackoffMs ?? 20_000, "maxBackoffMs"),
    requestTimeoutMs: atLeast(1, options.requestTimeoutMs ?? 15_000, "requestTimeoutMs"),
    highWaterMark: atLeast(1, options.highWaterMark ?? 1024, "highWaterMark"),
  };
}

/** @param {string | import("../qws.js").UrlLike} url */
function addressOf(url) {
  return typeof url === "string" ? url : url.href;
}

/**
 * Why none of the wanted carriers can be used.
 *
 * @param {CarrierName[]} wanted
 * @param {boolean} isKeptFromQuic
 */
function noCarrier(wanted, isKeptFromQuic) {
  if (wanted.includes("websocket")) {
    return "no WebSocket in this environment; pass { WebSocket } (Node before 22: npm install ws)";
  }
  if (!wanted.includes("webtransport")) return 'carriers must be "webtransport", "websocket", or both';
  if (typeof WebTransport !== "function") return 'no WebTransport in this environment; allow "websocket" as a carrier';
  if (isKeptFromQuic) {
    return 'WebTransport is off on WebKit, where it stalls; allow "websocket", or set webTransportOnWebKit: true';
  }
  return "WebTransport needs an https: url";
}

/**
 * Whether this is WebKit: Safari, and every browser on iOS. Its WebTransport sessions stop for good after about 16 MiB
 * or 7,600 streams (WebKit bug 319818). Blink names WebKit too, but together with Chrome.
 */
function isWebKit() {
  const agent = typeof navigator === "object" ? (navigator?.userAgent ?? "") : "";
  return /AppleWebKit\//.test(agent) && !/Chrom(e|ium)\//.test(agent);
}

/** @param {string} host */
function isLoopback(host) {
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}

/**
 * @param {number} least
 * @param {number} value
 * @param {string} what
 */
function atLeast(least, value, what) {
  if (typeof value === "number" && value >= least) return value;
  throw new QwsError("usage", `connect: ${what} must be a number of at least ${least}`);
}
