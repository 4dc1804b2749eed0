// Text and bytes: UTF-8, base64, the length of a close reason, and a fingerprint of content.
// Plain functions that know no message and no connection. Called by the modules that write or read bodies.

export const encoder = new TextEncoder();
export const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Cuts a close reason to the 123 bytes that may be sent. @param {string} reason */
export function cut(reason) {
  return cutTo(reason, 123);
}

/** Cuts a text to so many bytes of UTF-8. @param {string} text @param {number} bytes */
export function cutTo(text, bytes) {
  let short = text.slice(0, bytes);
  while (encoder.encode(short).length > bytes) short = short.slice(0, -1);
  return short;
}

/** @param {string} text */
export function bytesOfBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * A cheap fingerprint of content: its length and two sums. Not cryptographic.
 *
 * @param {string | Uint8Array} content
 */
export function digest(content) {
  let [one, two] = [17, 31];
  for (let at = 0; at < content.length; at += 1) {
    const unit = typeof content === "string" ? content.charCodeAt(at) : content[at];
    one = Math.imul(one ^ unit, 0x01000193);
    two = (Math.imul(two, 31) + unit) | 0;
  }
  return `${content.length}.${one}.${two}`;
}
