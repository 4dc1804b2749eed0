// What the topic browser shows of a message of `history`: its text, its value as JSON, its attachment by size. Pure.

import * as format from "./format.js";

/** Longest part of a text or value that is shown, in characters. */
const MAX_SHOWN = 4000;

/** Parses JSON, and keeps numbers as they were sent where JavaScript would change them, if the browser can. */
export function parseExactly(text) {
  return JSON.parse(text, (_key, value, context) => {
    const source = typeof value === "number" ? context?.source : undefined;
    const isChanged = source !== undefined && String(value) !== source;
    return isChanged && typeof JSON.rawJSON === "function" ? JSON.rawJSON(source) : value;
  });
}

/**
 * The parts of a message, each a kind ("text", "json" or "bytes") and what is shown.
 * @returns {{ kind: "text" | "json" | "meta" | "bytes", text: string }[]}
 */
export function partsOf({ content, data, encoding, attachment, meta }) {
  const parts = [];
  if (typeof content === "string") parts.push({ kind: "text", text: cut(content) });
  // Without `encoding: "json"`, `data` is the attachment.
  const bytes = encoding === "json" ? attachment : data;
  if (encoding === "json") parts.push({ kind: "json", text: cut(JSON.stringify(data, null, 2)) });
  if (typeof bytes === "string") {
    parts.push({ kind: "bytes", text: `Attachment, ${format.bytes(sizeOf(bytes))}` });
  }
  if (meta !== undefined) parts.push({ kind: "meta", text: `meta ${cut(JSON.stringify(meta))}` });
  return parts;
}

/** The sender in words: the name, with the user that the server has verified; else the client's ID. */
export function senderOf({ from, user, name }) {
  if (from === undefined) return "The server";
  if (user === undefined) return from;
  return name === undefined || name === user ? user : `${name} (${user})`;
}

/** The number of bytes of a text in base64. */
export function sizeOf(base64) {
  const padding = base64.endsWith("==") ? 2 : Number(base64.endsWith("="));
  return (base64.length / 4) * 3 - padding;
}

/** Never cut within a character. */
function cut(text) {
  if (text.length <= MAX_SHOWN) return text;
  const shown = text.slice(0, MAX_SHOWN).replace(/[\ud800-\udbff]$/, "");
  return `${shown}… (${format.count(text.length)} characters)`;
}
