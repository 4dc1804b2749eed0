// Bodies to bytes and back: JSON, attachments, and the frames that separate bodies on a stream.
// Pure; knows no type of message except `lane`. Called by links and carriers.

import { QwsError } from "./errors.js";
import { withTexts } from "./json-text.js";
import { decoder, encoder } from "./text.js";
import { isOffset } from "./topics.js";

/** @typedef {Record<string, any>} Json a JSON object */
/** @typedef {{ json: Json, text: string, bytes?: Uint8Array }} Reply JSON, also as text, and an attachment */
/** @typedef {string | Uint8Array} Body one message: JSON alone as text, with an attachment as bytes */

/** Reassembles bodies from a stream that splits them anywhere. */
export class FrameReader {
  #length = new Uint8Array(4);
  #lengthBytes = 0;
  /** @type {Uint8Array | null} */
  #body = null;
  #filled = 0;

  /** @param {number} maxBytes longest body accepted */
  constructor(maxBytes) {
    this.maxBytes = maxBytes;
  }

  /**
   * Yields the bodies that this piece completes. They may share its memory: copy what you keep.
   *
   * @param {Uint8Array} piece
   * @returns {Generator<Uint8Array, void, undefined>}
   */
  *push(piece) {
    let at = 0;
    while (at < piece.length) {
      if (this.#body) {
        const taken = piece.subarray(at, at + this.#body.length - this.#filled);
        this.#body.set(taken, this.#filled);
        this.#filled += taken.length;
        at += taken.length;
        if (this.#filled < this.#body.length) return;
        const body = this.#body;
        this.#body = null;
        yield body;
        continue;
      }
      this.#length[this.#lengthBytes++] = piece[at++];
      if (this.#lengthBytes < 4) continue;
      this.#lengthBytes = 0;
      const length = new DataView(this.#length.buffer).getUint32(0);
      if (length === 0) throw new QwsError("protocol", "the server sent a frame of length 0", { code: 1002 });
      if (length > this.maxBytes) throw tooLong(length, this.maxBytes);
      if (piece.length - at >= length) {
        at += length;
        yield piece.subarray(at - length, at);
      } else {
        this.#body = new Uint8Array(length);
        this.#filled = 0;
      }
    }
  }
}

/**
 * @param {number} length
 * @param {number} most
 */
export function tooLong(length, most) {
  const message = `the server sent a body of ${length} bytes; at most ${most} are accepted`;
  return new QwsError("protocol", message, { code: 1009 });
}

/**
 * @param {Json} json
 * @param {Uint8Array} [attachment]
 * @returns {Body}
 */
export function encodeBody(json, attachment) {
  const text = withTexts(json);
  if (!attachment) return text;
  const object = encoder.encode(text);
  const body = new Uint8Array(5 + object.length + attachment.length);
  body[0] = 1;
  new DataView(body.buffer).setUint32(1, object.length);
  body.set(object, 5);
  body.set(attachment, 5 + object.length);
  return body;
}

/**
 * @param {Body} body
 * @returns {Reply}
 */
export function decodeBody(body) {
  try {
    if (typeof body === "string") return { json: objectOf(body), text: body };
    let text;
    if (body[0] !== 1) return { json: objectOf((text = decoder.decode(body))), text };
    const length = new DataView(body.buffer, body.byteOffset, body.length).getUint32(1);
    if (5 + length > body.length) throw new Error("the body is shorter than its JSON");
    text = decoder.decode(body.subarray(5, 5 + length));
    // Copied, so that it does not keep the whole piece alive.
    return { json: objectOf(text), text, bytes: body.slice(5 + length) };
  } catch (cause) {
    const message = `the server sent a body that could not be read: ${String(cause)}`;
    throw new QwsError("protocol", message, { code: 1002, cause });
  }
}

/**
 * @param {string} text
 * @returns {Json}
 */
function objectOf(text) {
  const json = JSON.parse(text);
  if (typeof json?.type !== "string") throw new Error("no type");
  return json;
}

/** The number of a topic lane. @param {Uint8Array} body its first one */
export function laneOf(body) {
  const { json } = decodeBody(body);
  if (json.type !== "lane" || !isOffset(json.lane)) {
    throw new QwsError("protocol", "a lane did not begin with its number", { code: 1002 });
  }
  return /** @type {number} */ (json.lane);
}

/** A body behind its length. @param {Body} body */
export function frameOf(body) {
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  const frame = new Uint8Array(4 + bytes.length);
  new DataView(frame.buffer).setUint32(0, bytes.length);
  frame.set(bytes, 4);
  return frame;
}

/**
 * Whether a body is longer than so many bytes.
 *
 * @param {Body} body
 * @param {number} most
 */
export function isLonger(body, most) {
  if (typeof body !== "string") return body.length > most;
  // A code unit takes at most three bytes in UTF-8.
  return body.length > most || (body.length * 3 > most && encoder.encode(body).length > most);
}
