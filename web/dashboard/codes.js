// The close codes of docs/PROTOCOL.md, section 10, in words. Pure.

const MEANINGS = {
  1000: "Normal close",
  1001: "Server shutting down",
  1002: "Protocol error",
  1003: "Unsupported data",
  1006: "Connection lost",
  1007: "Invalid message data",
  1008: "Policy violation",
  1009: "Message too large",
  1011: "Server error",
  1012: "Server restarting",
  1013: "Server full",
  4401: "Token missing, invalid or expired",
  4403: "Not allowed",
  4408: "Timed out",
  4413: "Reads too slowly",
  4429: "Rate limit exceeded",
};

const MAY_RETURN = [1001, 1006, 1011, 1012, 1013, 4408, 4413];

/** The meaning of `code`, or "" for an application's own code. */
export const meaning = (code) => (Object.hasOwn(MEANINGS, code) ? MEANINGS[code] : "");

/** Whether a client reconnects by itself after `code`. */
export const mayReturn = (code) => MAY_RETURN.includes(code);

/** Whether a code can be sent: RFC 6455 section 7.4, and the codes of applications. */
export const isSendable = (code) =>
  Number.isInteger(code) &&
  ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999));

/** The codes offered to the operator, the usual one first. */
export const OFFERED = [4403, 1000, 1008, 4401, 4429, 1012, 1013];

/** The maximum length of a reason, in bytes of UTF-8. */
export const MAX_REASON_BYTES = 123;

export const reasonFits = (reason) => new TextEncoder().encode(reason).length <= MAX_REASON_BYTES;
