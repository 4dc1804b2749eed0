// Access tokens as the application's token function returns them.
// Knows no connection. Called by the client before each handshake.

import { QwsError } from "./errors.js";

/**
 * What a token function gave, without the space around it.
 *
 * @param {unknown} token
 */
export function readToken(token) {
  const trimmed = typeof token === "string" ? token.trim() : "";
  if (/^[\x21-\x7e]{1,8192}$/.test(trimmed)) return trimmed;
  const what = typeof token === "string" ? `${token.length} characters that are no token` : `no string but ${typeof token}`;
  throw new QwsError("transport", `the token function gave ${what}; does it check response.ok?`);
}
