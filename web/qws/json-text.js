// JSON as text: what an application sends as it is, and where a value is in a text that came.
// Pure; knows no message. Called by `values.js`, `messages.js` and frames.

import { QwsError } from "./errors.js";

/** A JSON value as its text, which is sent as it is: for numbers that JavaScript cannot hold. */
export class JsonText {
  /** @param {string} text */
  constructor(text) {
    try {
      JSON.parse(text);
    } catch (cause) {
      throw new QwsError("usage", `JsonText: not valid JSON: ${String(cause)}`, { cause });
    }
    this.text = text.trim();
  }

  /**
   * The text of a value as it is now.
   *
   * @param {unknown} value
   * @param {string} what names it in the error
   * @returns {JsonText}
   */
  static of(value, what) {
    if (value instanceof JsonText) return value;
    let text;
    try {
      text = JSON.stringify(value);
    } catch (cause) {
      const remedy = /BigInt/.test(String(cause)) ? "; pass such a number in a new JsonText(text)" : "";
      throw new QwsError("usage", `${what} is not valid JSON: ${String(cause)}${remedy}`, { cause });
    }
    // Of a function JSON leaves nothing.
    if (text === undefined) throw new QwsError("usage", `${what} is missing, or a ${typeof value}, which JSON lacks`);
    // Of what was just written there is nothing to check.
    return Object.assign(Object.create(JsonText.prototype), { text });
  }

  /** `JSON.stringify` leaves it out: `withTexts` puts it in. */
  toJSON() {
    return undefined;
  }
}

/**
 * An object as JSON, with the fields that are texts already as they are.
 *
 * @param {Record<string, unknown>} object has at least one other field
 */
export function withTexts(object) {
  let text = JSON.stringify(object);
  for (const [field, value] of Object.entries(object)) {
    if (value instanceof JsonText) text = `${text.slice(0, -1)},${JSON.stringify(field)}:${value.text}}`;
  }
  return text;
}

/**
 * The part of a valid JSON text that is at a path; `undefined` if there is none. Of a name that comes twice the last
 * one counts, as for `JSON.parse`.
 *
 * @param {string} text
 * @param {(string | number)[]} path
 */
export function partOf(text, path) {
  let [from, to] = [blank(text, 0), text.length];
  for (const step of path) {
    const found = child(text, from, step);
    if (!found) return undefined;
    [from, to] = found;
  }
  return text.slice(from, path.length === 0 ? to : end(text, from));
}

/**
 * Where a field or an element begins and ends.
 *
 * @param {string} text
 * @param {number} at where its object or array begins
 * @param {string | number} step
 * @returns {[number, number] | null}
 */
function child(text, at, step) {
  const isObject = text[at] === "{";
  /** @type {[number, number] | null} */
  let found = null;
  at = blank(text, at + 1);
  for (let index = 0; at < text.length && text[at] !== "}" && text[at] !== "]"; index += 1) {
    /** @type {string | number} */
    let name = index;
    if (isObject) {
      const nameEnd = end(text, at);
      name = JSON.parse(text.slice(at, nameEnd));
      at = blank(text, blank(text, nameEnd) + 1);
    }
    const valueEnd = end(text, at);
    if (name === step) found = [at, valueEnd];
    at = blank(text, valueEnd);
    if (text[at] === ",") at = blank(text, at + 1);
  }
  return found;
}

/** Where the value that begins here ends. @param {string} text @param {number} at */
function end(text, at) {
  if (text[at] === '"') return stringEnd(text, at);
  if (text[at] !== "{" && text[at] !== "[") {
    // A number, `true`, `false` or `null`.
    while (at < text.length && !/[\s,\]}]/.test(text[at])) at += 1;
    return at;
  }
  for (let depth = 0; at < text.length; ) {
    const character = text[at];
    at = character === '"' ? stringEnd(text, at) : at + 1;
    if (character === "{" || character === "[") depth += 1;
    else if ((character === "}" || character === "]") && --depth === 0) break;
  }
  return at;
}

/** @param {string} text @param {number} at where the string begins */
function stringEnd(text, at) {
  for (;;) {
    at = text.indexOf('"', at + 1);
    if (at < 0) return text.length;
    let backslashes = 0;
    while (text[at - 1 - backslashes] === "\\") backslashes += 1;
    if (backslashes % 2 === 0) return at + 1;
  }
}

/** Where the white space that may begin here ends. @param {string} text @param {number} at */
function blank(text, at) {
  while (text[at] === " " || text[at] === "\n" || text[at] === "\r" || text[at] === "\t") at += 1;
  return at;
}
