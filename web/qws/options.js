// Checks the options of a call: unknown names, with the one that was probably meant, and values out of bounds.
// Pure; knows no connection. Called by the client, subscriptions and settings.

import { QwsError } from "./errors.js";
import { MAX_PAGE } from "./messages.js";
import { isOffset, isPattern } from "./topics.js";

/** @import { Position, SubscribeOptions } from "../qws.js" */

export const CONNECT_OPTIONS = [
  "name", "token", "carriers", "webTransportOnWebKit", "webTransportUrl", "webSocketUrl", "certificateHash",
  "WebSocket", "raceDelayMs", "settleMs", "retryQuicMs", "maxBackoffMs", "requestTimeoutMs", "highWaterMark",
  "onRequest", "compression", "bulkSocket",
];

export const SUBSCRIBE_OPTIONS = [
  "since", "sinceTime", "recent", "delivery", "lane", "presence", "highWaterMark", "durable", "share", "ack",
  "ackWaitMs", "maxInFlight", "maxDeliver", "maxRate", "echo", "filter", "state", "members", "onRequest",
];
/** Options of everything that sends a value. */
export const VALUE_OPTIONS = ["meta", "bytes"];
const HISTORY_OPTIONS = ["since", "sinceTime", "recent", "limit", "reverse"];
/** The bounds of a durable consumer's settings. @type {[keyof SubscribeOptions, number, number][]} */
const CONSUMER_BOUNDS = [["ackWaitMs", 1000, 3_600_000], ["maxInFlight", 1, 1000], ["maxDeliver", 0, 1000]];
/** Longest delay of a retry: a day. */
const MAX_DELAY_MS = 86_400_000;

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
const NO_TIME = "sinceTime must be a time in Unix milliseconds, a whole number";
const TWO_BEGINNINGS = "sinceTime: not together with since; set one of them";

/**
 * The error in the arguments of `subscribe`.
 *
 * @param {string} topic
 * @param {SubscribeOptions} options
 * @returns {QwsError | null}
 */
export function problemOf(topic, options) {
  const { since, sinceTime, recent, delivery, lane, presence, highWaterMark } = options;
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `subscribe: ${why}`);
  if (typeof topic !== "string" || topic.length > 255 || !/^([\w-]+|\*)(\.([\w-]+|\*))*(\.>)?$|^>$/.test(topic)) {
    const shown = JSON.stringify(String(topic).slice(0, 60));
    const rule = "use A-Z a-z 0-9 _ -, with dots between levels, at most 255 bytes (* is one level, > the rest)";
    return wrong(`not a topic: ${shown}; ${rule}`);
  }
  if (since != null && !isPosition(since)) return wrong(NO_POSITION);
  if (since && isPattern(topic)) return wrong("since: a pattern has no position; subscribe to each topic");
  if (sinceTime != null && !isOffset(sinceTime)) return wrong(NO_TIME);
  if (sinceTime != null && isPattern(topic)) return wrong("sinceTime: a pattern has no log; subscribe to each topic");
  if (sinceTime != null && since != null) return wrong(TWO_BEGINNINGS);
  if (recent != null && !isOffset(recent)) return wrong("recent must be a whole number");
  if (delivery != null && delivery !== "stream" && delivery !== "datagram") {
    return wrong('delivery must be "stream" or "datagram"');
  }
  if (lane != null && !["own", "control", "bulk"].includes(lane)) {
    return wrong('lane must be "own", "control" or "bulk"');
  }
  if (presence != null && typeof presence !== "boolean" && presence !== "counts") {
    return wrong('presence must be true, false or "counts"');
  }
  if (highWaterMark != null && !(typeof highWaterMark === "number" && highWaterMark >= 1)) {
    return wrong("highWaterMark must be a number of at least 1");
  }
  const why = problemOfMembers(topic, options) ?? problemOfLess(options) ?? problemOfConsumer(topic, options);
  return why === null ? null : wrong(why);
}

/**
 * What is wrong with the options for members and for requests of other clients.
 *
 * @param {string} topic
 * @param {SubscribeOptions} options
 * @returns {string | null}
 */
function problemOfMembers(topic, { presence, members, state, onRequest, durable }) {
  if (members != null && typeof members !== "boolean") return "members must be true or false";
  if (members && presence === "counts") return 'members: not with presence "counts", which names none';
  if (members && presence === false) return "members: not with presence false";
  if (onRequest != null && typeof onRequest !== "function") return "onRequest must be a function";
  if (onRequest != null && durable != null) return "onRequest: not with durable; use another topic";
  if (!isPattern(topic)) return null;
  if (members) return "members: a pattern has none; subscribe to each topic";
  if (state !== undefined) return "state: not with a pattern, whose subscribers are no members";
  return onRequest == null ? null : "onRequest: not with a pattern; subscribe to each topic";
}

/**
 * What is wrong with the options that bring less than all messages.
 *
 * @param {SubscribeOptions} options
 * @returns {string | null}
 */
function problemOfLess({ maxRate, echo, filter, durable, share }) {
  if (maxRate != null && !(isOffset(maxRate) && maxRate >= 1 && maxRate <= 1000)) {
    return "maxRate must be a whole number from 1 to 1000";
  }
  if (echo != null && typeof echo !== "boolean") return "echo must be true or false";
  const wrong = filter != null && !isFilter(filter);
  if (wrong) return "filter must have at most 8 fields, each a text, a number, true, false or { prefix: text }";
  const less = { maxRate, echo: echo === false ? echo : undefined, filter };
  const [name] = Object.entries(less).find(([, value]) => value != null) ?? [];
  if (name === undefined || (durable == null && share !== true)) return null;
  return `${name}: not with durable or share, whose messages are for one client of several`;
}

/** @param {unknown} filter */
function isFilter(filter) {
  if (typeof filter !== "object" || filter === null || Array.isArray(filter)) return false;
  const conditions = Object.values(filter);
  return conditions.length <= 8 && conditions.every(isCondition);
}

/** @param {unknown} condition */
function isCondition(condition) {
  if (typeof condition === "number") return Number.isFinite(condition);
  if (typeof condition !== "object") return typeof condition === "string" || typeof condition === "boolean";
  const entries = Object.entries(condition ?? {});
  return entries.length === 1 && entries[0][0] === "prefix" && typeof entries[0][1] === "string";
}

/**
 * What is wrong with the options for a durable consumer or queue group.
 *
 * @param {string} topic
 * @param {SubscribeOptions} options
 * @returns {string | null}
 */
function problemOfConsumer(topic, options) {
  const { durable, share, ack, delivery } = options;
  if (durable != null && !isConsumerName(durable)) return "durable must be 1 to 64 of A-Z a-z 0-9 _ -";
  if (share != null && typeof share !== "boolean") return "share must be true or false";
  if (ack != null && ack !== "each" && ack !== "upto") return 'ack must be "each" or "upto"';
  for (const [name, least, most] of CONSUMER_BOUNDS) {
    const value = /** @type {number | undefined} */ (options[name]);
    if (value == null) continue;
    if (!isOffset(value) || value < least || value > most) {
      return `${name} must be a whole number from ${least} to ${most}`;
    }
    if (durable == null) return `${name}: only with durable, the consumer's name`;
  }
  if (ack != null && durable == null) return "ack: only with durable, the consumer's name";
  if (durable == null && share !== true) return null;
  const option = durable == null ? "share" : "durable";
  if (isPattern(topic)) return `${option}: not with a pattern; subscribe to each topic`;
  if (delivery === "datagram") return `${option}: not with delivery "datagram", which may lose messages`;
  if (durable != null) return share && ack === "upto" ? 'ack: "upto" is not possible with share' : null;
  const begin = (["since", "sinceTime", "recent"]).find((name) => options[/** @type {"since"} */ (name)] != null);
  return begin === undefined ? null : `${begin}: not with share alone; add durable to begin earlier`;
}

/** @param {unknown} name of a durable consumer */
function isConsumerName(name) {
  return typeof name === "string" && /^[\w-]{1,64}$/.test(name);
}

/**
 * The error in the arguments of `ack`, `retry` or `reject`.
 *
 * @param {unknown} durable
 * @param {unknown[]} offsets
 * @param {{ outcome?: unknown, delayMs?: unknown }} options
 * @returns {QwsError | TypeError | null}
 */
export function problemOfAck(durable, offsets, options) {
  const unknown = unknownOption("ack", options, ["outcome", "delayMs"]);
  if (unknown) return unknown;
  const { outcome, delayMs } = options;
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `ack: ${why}`);
  if (!isConsumerName(durable)) return wrong("durable must be 1 to 64 of A-Z a-z 0-9 _ -");
  if (offsets.length < 1 || offsets.length > MAX_PAGE || !offsets.every(isOffset)) {
    return wrong(`expected a message or an offset, or a list of 1 to ${MAX_PAGE} of them`);
  }
  if (outcome != null && outcome !== "done" && outcome !== "retry" && outcome !== "reject") {
    return wrong('outcome must be "done", "retry" or "reject"');
  }
  if (delayMs == null) return null;
  if (outcome !== "retry") return wrong('delayMs: only with outcome "retry"');
  const isWithin = isOffset(delayMs) && /** @type {number} */ (delayMs) <= MAX_DELAY_MS;
  return isWithin ? null : wrong(`delayMs must be a whole number from 0 to ${MAX_DELAY_MS}`);
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
  const { since, sinceTime, recent, limit, reverse } = options;
  const wrong = (/** @type {string} */ why) => new QwsError("usage", `history: ${why}`);
  if (since != null && !isPosition(since)) return wrong(NO_POSITION);
  if (sinceTime != null && !isOffset(sinceTime)) return wrong(NO_TIME);
  if (sinceTime != null && since != null) return wrong(TWO_BEGINNINGS);
  for (const [name, count] of Object.entries({ recent, limit })) {
    if (count == null || (isOffset(count) && count >= 1 && count <= MAX_PAGE)) continue;
    return wrong(`${name} must be a whole number from 1 to ${MAX_PAGE}`);
  }
  if (recent == null || (since ?? sinceTime ?? limit ?? reverse) == null) return null;
  return wrong("recent cannot be combined with since, sinceTime, limit or reverse");
}

/**
 * The error in the options of `publish`.
 *
 * @param {import("../qws.js").PublishOptions} options
 * @returns {TypeError | QwsError | null}
 */
export function problemOfPublish(options) {
  const unknown = unknownOption("publish", options, ["key", "ttlMs", ...VALUE_OPTIONS]);
  if (unknown) return unknown;
  const { ttlMs } = options;
  if (ttlMs == null || (isOffset(ttlMs) && ttlMs >= 1)) return null;
  return new QwsError("usage", "publish: ttlMs must be a whole number of at least 1");
}

/**
 * The error in the options of `request`.
 *
 * @param {import("../qws.js").RequestOptions} options
 * @returns {TypeError | QwsError | null}
 */
export function problemOfRequest(options) {
  const unknown = unknownOption("request", options, ["timeoutMs", "signal", ...VALUE_OPTIONS]);
  if (unknown) return unknown;
  const { timeoutMs } = options;
  if (timeoutMs == null || (isOffset(timeoutMs) && timeoutMs >= 100 && timeoutMs <= 300_000)) return null;
  return new QwsError("usage", "request: timeoutMs must be a whole number from 100 to 300000");
}
