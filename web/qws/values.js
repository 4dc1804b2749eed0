// What the application sends: text, bytes or a JSON value, with data about it, and its receivers.
// Pure; throws what the caller got wrong. Called by the client and by `serving.js`.

import { QwsError } from "./errors.js";
import { JsonText } from "./json-text.js";
import { unknownOption } from "./options.js";

/** @import { Json } from "./frames.js" */

/** @typedef {{ fields: Json, attachment?: Uint8Array }} Payload */

/**
 * What a value is on the wire: a string is text, a `Uint8Array` an attachment, and everything else JSON.
 *
 * @param {string} call names the call in errors
 * @param {unknown} value
 * @param {{ meta?: unknown, bytes?: unknown }} [options]
 * @returns {Payload}
 */
export function payloadOf(call, value, { meta, bytes } = {}) {
  /** @type {Json} */
  const fields = {};
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `${call}: ${why}`);
  if (bytes !== undefined && !(bytes instanceof Uint8Array)) throw wrong("bytes must be a Uint8Array");
  /** @type {Uint8Array | undefined} */
  let attachment = bytes;
  if (value instanceof Uint8Array) {
    if (attachment) throw wrong("bytes: the value is a Uint8Array already; pass a text or a JSON value beside bytes");
    attachment = value;
  } else if (typeof value === "string") {
    fields.content = value;
  } else if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    throw wrong("pass bytes as a Uint8Array");
  } else if (value !== undefined || !attachment) {
    fields.data = JsonText.of(value, `${call}: the value`);
  }
  if (meta !== undefined) {
    const isObject = typeof meta === "object" && meta !== null && !Array.isArray(meta);
    const text = JsonText.of(meta, `${call}: meta`);
    if (!isObject || !text.text.startsWith("{")) throw wrong("meta must be an object");
    fields.meta = text;
  }
  return { fields, attachment };
}

/**
 * The fields that name a receiver: a client by its id, or a user.
 *
 * @param {string} call
 * @param {unknown} to an id, `{ to: id }` or `{ user }`
 * @returns {Json}
 */
export function recipientOf(call, to) {
  if (typeof to === "string") return { to };
  return named(call, to, ["to", "user"], "a client's id, or { user }");
}

/**
 * The fields that say who is asked: those that answer requests to a topic, a client, or a user.
 *
 * @param {unknown} target a topic, `{ topic }`, `{ to: id }` or `{ user }`
 * @returns {Json}
 */
export function targetOf(target) {
  if (typeof target === "string") return { topic: target };
  return named("request", target, ["topic", "to", "user"], "a topic, { to: id } or { user }");
}

/**
 * @param {string} call
 * @param {unknown} target
 * @param {string[]} names of which one is expected
 * @param {string} expected
 */
function named(call, target, names, expected) {
  const problem = unknownOption(call, target, names);
  if (problem) throw new QwsError("usage", `${call}: expected ${expected}`, { cause: problem });
  const given = Object.entries(/** @type {Json} */ (target)).filter(([, value]) => value !== undefined);
  if (given.length !== 1 || typeof given[0][1] !== "string") {
    throw new QwsError("usage", `${call}: expected ${expected}`);
  }
  return Object.fromEntries(given);
}
