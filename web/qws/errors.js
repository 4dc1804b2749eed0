// Errors, and the codes by which the client decides whether another try can help (docs/PROTOCOL.md, sections 9 and 10).
// Knows no other module. Called by every module that can fail.

/** @import { ErrorKind } from "../qws.js" */

/** Close codes after which a client may reconnect by itself (docs/PROTOCOL.md, section 10). */
export const MAY_RECONNECT = new Set([1001, 1006, 1011, 1012, 1013, 4408, 4413]);
/** Error codes that may pass with time: an established subscription is tried again. */
export const PASSING = new Set([429, 500, 503]);

/** An error of the client, the server or the application, or the failure of a request. */
export class QwsError extends Error {
  /**
   * @param {ErrorKind} kind
   * @param {string} message
   * @param {{ code?: number, retryAfterMs?: number, cause?: unknown, answer?: import("../qws.js").Answer }} [details]
   */
  constructor(kind, message, { code, retryAfterMs, cause, answer } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    /** @type {"QwsError"} */
    this.name = "QwsError";
    this.kind = kind;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
    if (answer) this.answer = answer;
  }
}

/** Whether a client may reconnect by itself after this close code. @param {number | undefined} code */
export function mayReconnect(code) {
  return code !== undefined && MAY_RECONNECT.has(code);
}

/** Whether a client may send this close code. @param {number} code */
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
