// What a link needs of a carrier: the interface that `websocket.js` and `webtransport.js` implement, and their common
// bounds. Knows neither of them. Used by both, by the race between them, and by links.

/** @import { Body } from "./frames.js" */

/** @typedef {import("../qws.js").Carrier} CarrierName */
/** @typedef {{ code: number, reason: string, reconnectAfterMs?: number }} End */
/**
 * Where a body arrived; a number is a topic lane, "bulk" a second WebSocket without one yet.
 *
 * @typedef {"control" | "request" | "datagram" | "bulk" | number} Source
 */

/** The time limit for a connection to open, and then for the answer to `handshake`. */
export const CONNECT_MS = 10_000;
/** How long after a lane's end to wait for the end of the connection, which has the close code. */
export const CLOSE_FOLLOWS_MS = 1_000;
/** The silence after a ping after which the connection counts as lost. */
export const SILENCE_MS = 10_000;
/** Bytes not yet taken by the connection, beyond which requests wait. */
export const MAX_UNSENT_BYTES = 1024 * 1024;
/** Longest body accepted before the server has announced its limit. */
export const MAX_FIRST_BYTES = 1024 * 1024;

/**
 * An open connection that transports bodies.
 *
 * @typedef {object} Transport
 * @property {CarrierName} carrier
 * @property {number} streams number of streams opened or accepted
 * @property {number} maxBytes longest body accepted
 * @property {boolean} hasRequestLanes whether the server allows any
 * @property {boolean} writable whether more should be sent
 * @property {() => Promise<void>} drained resolves when it is writable again, or has ended
 * @property {(handlers: Handlers) => void} start
 * @property {(body: Body) => void} send
 * @property {() => void} takeDatagrams reads datagrams from now on
 * @property {(code: number, reason: string, isSilent: boolean) => void} close
 */

/**
 * The user of a transport.
 *
 * @typedef {object} Handlers
 * @property {(body: Body, source: Source) => Promise<void> | void} body
 * @property {(end: End) => void} end
 * @property {(error: unknown) => void} fail something arrived that violates the protocol
 * @property {(lane: number) => boolean} isBound whether messages are expected on a topic lane
 */

/**
 * A try to connect. `abandon` leaves nothing behind, whether or not the connection is open yet.
 *
 * @typedef {{ opened: Promise<Transport>, abandon: () => void }} Attempt
 */
