// What a link needs of a carrier: the interface that `websocket.js` and `webtransport.js` implement, and their common bounds.
// Knows no carrier. Used by both, by the race between them, and by links.

/** @import { Body } from "./frames.js" */

/** @typedef {import("../qws.js").Carrier} CarrierName */
/** @typedef {{ code: number, reason: string, reconnectAfterMs?: number }} End */
/** @typedef {"control" | "request" | "datagram" | number} Source on what a body came; a number is a topic lane's */

/** How long a connection may take to come, and then the answer to `handshake`. */
export const CONNECT_MS = 10_000;
/** Once a lane has ended, how long the connection's own end may take, which tells the code. */
export const CLOSE_FOLLOWS_MS = 1_000;
/** The silence after a ping after which the connection counts as lost. */
export const SILENCE_MS = 10_000;
/** Bytes that the connection has not taken, beyond which requests wait. */
export const MAX_UNSENT_BYTES = 1024 * 1024;
/** Longest body that is taken before the server has told its own limit. */
export const MAX_FIRST_BYTES = 1024 * 1024;

/**
 * What transports bodies.
 *
 * @typedef {object} Transport
 * @property {CarrierName} carrier
 * @property {number} streams how many were opened or taken
 * @property {number} maxBytes longest body that is taken
 * @property {boolean} hasRequestLanes whether the server allows any
 * @property {boolean} writable whether more should be sent
 * @property {() => Promise<void>} drained resolves when it is writable again, or over
 * @property {(handlers: Handlers) => void} start
 * @property {(body: Body) => void} send
 * @property {() => void} takeDatagrams reads datagrams from now on
 * @property {(code: number, reason: string, isSilent: boolean) => void} close
 */

/**
 * @typedef {object} Handlers
 * @property {(body: Body, source: Source) => Promise<void> | void} body
 * @property {(end: End) => void} end
 * @property {(error: unknown) => void} fail what came cannot be understood
 * @property {(lane: number) => boolean} isBound whether messages are expected on a topic lane
 */

/** A try to connect; `abandon` leaves nothing behind, whether it has come to something or will yet. @typedef {{ opened: Promise<Transport>, abandon: () => void }} Attempt */
