// Errors, and the codes by which the client decides whether another try can help (docs/PROTOCOL.md, sections 9 and 10).
// Knows no other module. Every module that can fail calls it.

/** @import { ErrorKind } from "../qws.js" */

/** The closing codes after which a client may come back by itself (PROTOCOL, section 10). */
export const MAY_RECONNECT = new Set([1001, 1006, 1011, 1012, 1013, 4408, 4413]);
/** Refusals that time can heal: a subscription that was there is tried again. */
export const PASSING = new Set([429, 500, 503]);

/** What a client or its server did wrong, or what became of a request. */
export class QwsError extends Error {
  /**
   * @param {ErrorKind} kind
   * @param {string} message
   * @param {{ code?: number, retryAfterMs?: number, cause?: unknown }} [details]
   */
  constructor(kind, message, { code, retryAfterMs, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    /** @type {"QwsError"} */
    this.name = "QwsError";
    this.kind = kind;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** @param {number | undefined} code whether a client may come back by itself after it */
export function mayReconnect(code) {
  return code !== undefined && MAY_RECONNECT.has(code);
}

/** @param {number} code which a client may send */
export function isCloseCode(code) {
  if (!Number.isInteger(code)) return false;
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

/** @param {unknown} error */
export function textOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * @param {unknown} cause
 * @param {ErrorKind} [kind]
 */
export function asError(cause, kind = "transport") {
  if (cause instanceof QwsError) return cause;
  return new QwsError(kind, cause instanceof Error ? cause.message : String(cause), { cause });
}
