// Messages of topics and of other clients, from the protocol's JSON to what the application gets.
// Pure; knows no connection. Called by entries, history, inbound, `serving.js` and the client.

import { partOf } from "./json-text.js";
import { bytesOfBase64 } from "./text.js";

/** @import { Json, Reply } from "./frames.js" */

/** Largest page of a topic's history. */
export const MAX_PAGE = 1000;

/** @typedef {{ text: string, path: (string | number)[] }} Origin where a value is in the JSON that came */

/** What somebody has said: its sender, and a text, a value, bytes, or several of them. */
export class Content {
  /** @type {Origin | null} */
  #origin = null;

  /**
   * @param {Json} json
   * @param {Uint8Array | undefined} bytes
   * @param {Origin | null} origin of its value
   */
  constructor(json, bytes, origin) {
    for (const field of ["from", "user", "name", "content"]) {
      if (typeof json[field] === "string") Object.assign(this, { [field]: json[field] });
    }
    if ("data" in json) {
      /** The JSON value that was sent, if one was. @type {any} */
      this.data = json.data;
      this.#origin = origin;
    }
    if (bytes) this.bytes = bytes;
    if (typeof json.meta === "object" && json.meta !== null) this.meta = json.meta;
  }

  /** The text that was sent, if one was. @returns {string | undefined} */
  get text() {
    return /** @type {{ content?: string }} */ (this).content;
  }

  /**
   * The text of its value as it was sent: in `data`, a number beyond 2^53 is not exact.
   *
   * @returns {string | undefined}
   */
  get json() {
    return this.#origin === null ? undefined : partOf(this.#origin.text, this.#origin.path);
  }

  /** Another one, which the application may change. */
  copy() {
    const copy = Object.assign(new Content({}, undefined, null), this);
    copy.#origin = this.#origin;
    return copy;
  }
}

/** Another one of a message, which the application may change. @param {import("../qws.js").Message} message */
export function copyOf(message) {
  return /** @type {import("../qws.js").Message} */ (/** @type {any} */ (message).copy());
}

/**
 * A message of a topic.
 *
 * @param {Json} json
 * @param {Uint8Array | undefined} bytes
 * @param {string} [text] the JSON that `json` was parsed of
 * @param {(string | number)[]} [path] where `json` is in it
 * @returns {import("../qws.js").Message}
 */
export function messageOf(json, bytes, text, path = []) {
  const origin = text === undefined ? null : { text, path: [...path, "data"] };
  const { topic, offset, timestamp, durable, tries, expires_at: expiresAt } = json;
  const message = /** @type {Json} */ (new Content(json, bytes, origin));
  Object.assign(message, { topic, offset, timestamp });
  if (typeof durable === "string") message.durable = durable;
  if (typeof tries === "number") message.tries = tries;
  if (typeof expiresAt === "number") message.expiresAt = expiresAt;
  return /** @type {import("../qws.js").Message} */ (message);
}

/**
 * An entry of a page of history, with its attachment in base64.
 *
 * @param {Json} entry
 * @param {string} text the page
 * @param {number} at which entry it is
 */
export function pastMessageOf(entry, text, at) {
  const { data, encoding, attachment, ...rest } = entry;
  const hasValue = encoding === "json";
  const encoded = hasValue ? attachment : data;
  const bytes = typeof encoded === "string" ? bytesOfBase64(encoded) : undefined;
  return hasValue ? messageOf({ ...rest, data }, bytes, text, ["messages", at]) : messageOf(rest, bytes);
}

/**
 * What another client has said to this one, or to all.
 *
 * @param {Reply} heard
 * @returns {import("../qws.js").Said}
 */
export function saidOf({ json, text, bytes }) {
  const said = new Content(json, bytes, { text, path: ["data"] });
  return /** @type {any} */ (Object.assign(said, { timestamp: json.timestamp }));
}
