// Compressed bodies of the server, by the platform's Compression Streams.
// Pure but for the platform; knows no message. Called by links and by `dial.js`.

import { QwsError } from "./errors.js";
import { tooLong } from "./frames.js";

/** @import { Body } from "./frames.js" */

/** The first byte of a body that is one raw deflate stream (RFC 1951). */
const DEFLATE = 3;

/** The compressions that this platform can undo, by their names in the protocol. */
export function compressions() {
  try {
    // Some platforms have the class without this format.
    new DecompressionStream("deflate-raw");
    return ["deflate"];
  } catch {
    return [];
  }
}

/** @param {Body} body */
export function isCompressed(body) {
  return typeof body !== "string" && body[0] === DEFLATE;
}

/**
 * The body that was compressed.
 *
 * @param {Uint8Array} body
 * @param {number} most longest body accepted
 * @returns {Promise<Uint8Array>}
 */
export async function inflate(body, most) {
  const stream = new DecompressionStream("deflate-raw");
  const writer = stream.writable.getWriter();
  // Errors show where it is read.
  writer.write(body.slice(1)).catch(() => {});
  writer.close().catch(() => {});
  const reader = stream.readable.getReader();
  /** @type {Uint8Array[]} */
  const pieces = [];
  let length = 0;
  try {
    for (let got = await reader.read(); !got.done; got = await reader.read()) {
      length += got.value.length;
      if (length > most) throw tooLong(length, most);
      pieces.push(got.value);
    }
  } catch (cause) {
    reader.cancel().catch(() => {});
    if (cause instanceof QwsError) throw cause;
    throw new QwsError("protocol", `the server sent a body that does not inflate: ${cause}`, { code: 1002, cause });
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
