// Messages of topics and of other clients, from the protocol's JSON to what the application gets.
// Pure; knows no connection. Called by entries, history and inbound.

/** @import { Message } from "../qws.js" */
/** @import { Json } from "./frames.js" */

/** Largest page of a topic's history. */
export const MAX_PAGE = 1000;

/**
 * @param {Json} json
 * @param {Uint8Array} [data]
 * @returns {Message}
 */
export function messageOf(json, data) {
  /** @type {Message} */
  const message = { topic: json.topic, offset: json.offset, timestamp: json.timestamp };
  if (typeof json.from === "string") message.from = json.from;
  if (typeof json.content === "string") message.content = json.content;
  if (data) message.data = data;
  if (typeof json.durable === "string") message.durable = json.durable;
  if (typeof json.tries === "number") message.tries = json.tries;
  return message;
}

/**
 * @param {Json} json
 * @param {Uint8Array} [data]
 */
export function saidOf(json, data) {
  /** @type {import("../qws.js").Said} */
  const said = { from: json.from, timestamp: json.timestamp };
  if (typeof json.content === "string") said.content = json.content;
  if (data) said.data = data;
  return said;
}
