// Checks the options of a call: unknown names, with the one that was probably meant, and values out of bounds.
// Pure; knows no connection. Called by the client, subscriptions and settings.

import { QwsError } from "./errors.js";
import { MAX_PAGE } from "./messages.js";
import { isOffset, isPattern } from "./topics.js";

/** @import { Position, SubscribeOptions } from "../qws.js" */

export const CONNECT_OPTIONS = [
  "name", "token", "carriers", "webTransportOnWebKit", "webTransportUrl", "webSocketUrl", "certificateHash",
  "WebSocket", "raceDelayMs", "settleMs", "retryQuicMs", "maxBackoffMs", "requestTimeoutMs", "highWaterMark",
];

export const SUBSCRIBE_OPTIONS = ["since", "recent", "delivery", "lane", "presence", "highWaterMark"];
const HISTORY_OPTIONS = ["since", "recent", "limit", "reverse"];

/**
 * The error for an option that does not exist, and would otherwise be ignored.
 *
 * @param {string} call
 * @param {unknown} options
 * @param {string[]} known
 * @returns {TypeError | null}
 */
export function unknownOption(call, options, known) {
  if (typeof options !== "object" || options === null) return new TypeError(`${call}: options must be an object`);
  for (const [name, value] of Object.entries(options)) {
    if (known.includes(name) || value === undefined) continue;
    const close = known.find((other) => isMistyped(name, other));
    const hint = close ? `did you mean "${close}"?` : `expected one of ${known.join(", ")}`;
    return new TypeError(`${call}: unknown option "${name}"; ${hint}`);
  }
  return null;
}

/**
 * Whether one name is another with one or two typing errors, or in another case.
 *
 * @param {string} name
 * @param {string} meant
 */
function isMistyped(name, meant) {
  const [from, to] = [name.toLowerCase().replace(/[-_]/g, ""), meant.toLowerCase()];
  // Levenshtein distance, row by row; two swapped neighbours are one error.
  let before = /** @type {number[]} */ ([]);
  let row = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (let at = 1; at <= from.length; at += 1) {
    const next = [at];
    for (let other = 1; other <= to.length; other += 1) {
      const replaced = row[other - 1] + (from[at - 1] === to[other - 1] ? 0 : 1);
      const areSwapped = at > 1 && other > 1 && from[at - 1] === to[other - 2] && from[at - 2] === to[other - 1];
      next.push(Math.min(replaced, row[other] + 1, next[other - 1] + 1, areSwapped ? before[other - 2] + 1 : Infinity));
    }
    [before, row] = [row, next];
  }
  return row[to.length] <= Math.min(2, Math.floor(to.length / 3));
}

/** @param {unknown} since */
function isPosition(since) {
  const { epoch, offset } = /** @type {Position} */ (since ?? {});
  return typeof epoch === "string" && isOffset(offset);
}

const NO_POSITION = "since must be a position: { epoch, offset }";

/**
 * The error in the arguments of `subscribe`.
 *
 * @param {string} topic
 * @param {SubscribeOptions} options
 * @returns {QwsError | null}
 */
export function problemOf(topic, { since, recent, delivery, lane, presence, highWaterMark }) {
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `subscribe: ${why}`);
  if (typeof topic !== "string" || topic.length > 255 || !/^([\w-]+|\*)(\.([\w-]+|\*))*(\.>)?$|^>$/.test(topic)) {
    const shown = JSON.stringify(String(topic).slice(0, 60));
    const rule = "use A-Z a-z 0-9 _ -, with dots between levels, at most 255 bytes (* is one level, > the rest)";
    return wrong(`not a topic: ${shown}; ${rule}`);
  }
  if (since != null && !isPosition(since)) return wrong(NO_POSITION);
  if (since && isPattern(topic)) return wrong("since: a pattern has no position; subscribe to each topic");
  if (recent != null && !isOffset(recent)) return wrong("recent must be a whole number");
  if (delivery != null && delivery !== "stream" && delivery !== "datagram") {
    return wrong('delivery must be "stream" or "datagram"');
  }
  if (lane != null && lane !== "own" && lane !== "control") return wrong('lane must be "own" or "control"');
  if (presence != null && typeof presence !== "boolean") return wrong("presence must be true or false");
  if (highWaterMark != null && !(typeof highWaterMark === "number" && highWaterMark >= 1)) {
    return wrong("highWaterMark must be a number of at least 1");
  }
  return null;
}

/**
 * The error in the options of `history`.
 *
 * @param {import("../qws.js").HistoryOptions} options
 * @returns {TypeError | QwsError | null}
 */
export function problemOfHistory(options) {
  const unknown = unknownOption("history", options, HISTORY_OPTIONS);
  if (unknown) return unknown;
  const { since, recent, limit, reverse } = options;
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `history: ${why}`);
  if (since != null && !isPosition(since)) return wrong(NO_POSITION);
  for (const [name, count] of Object.entries({ recent, limit })) {
    if (count == null || (isOffset(count) && count >= 1 && count <= MAX_PAGE)) continue;
    return wrong(`${name} must be a whole number from 1 to ${MAX_PAGE}`);
  }
  if (recent == null || (since ?? limit ?? reverse) == null) return null;
  return wrong("recent cannot be combined with since, limit or reverse");
}
