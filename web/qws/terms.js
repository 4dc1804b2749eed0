// The terms of a subscription: what it asks the server for, what may share it, and what it leaves out of a history.
// Pure; knows no connection. Called by entries, feeds and subscriptions.

import { QwsError } from "./errors.js";
import { JsonText } from "./json-text.js";

/** @import { Message, SubscribeOptions } from "../qws.js" */
/** @import { Json } from "./frames.js" */

/**
 * Options of a subscription at the server: those of the application, with values as texts.
 *
 * @typedef {Omit<SubscribeOptions, "state" | "filter"> & { state?: JsonText, filter?: JsonText }} Terms
 */

/** The terms of an application's options, as they are now. @param {SubscribeOptions} options @returns {Terms} */
export function termsOf({ state, filter, ...options }) {
  /** @type {Terms} */
  const terms = options;
  if (options.members) terms.presence = true;
  if (state !== undefined) terms.state = JsonText.of(state, "subscribe: state");
  if (filter != null) terms.filter = JsonText.of(filter, "subscribe: filter");
  return terms;
}

/** The fields of `subscribe` that are no position. @param {Terms} terms @returns {Json} */
export function fieldsOf({ presence, state, onRequest, maxRate, echo, filter }) {
  return {
    presence: presence || undefined,
    state: state?.text === "null" ? undefined : state,
    requests: onRequest ? true : undefined,
    max_rate: maxRate ?? undefined,
    echo: echo === false ? false : undefined,
    filter,
  };
}

/**
 * The error if other terms cannot share a subscription.
 *
 * @param {string} topic
 * @param {Terms} have
 * @param {Terms} wanted
 * @param {boolean} isFixed whether it cannot be asked for again without a loss
 */
export function clashOf(topic, have, wanted, isFixed) {
  const here = (/** @type {string} */ what, /** @type {unknown} */ value) => {
    const message = `subscribe: ${topic} is already subscribed to with ${what} ${JSON.stringify(value)}`;
    return new QwsError("usage", message, { code: 409 });
  };
  const { delivery = "stream", lane = "own", presence = false, maxRate = null, echo = true, filter } = have;
  if (wanted.durable != null || wanted.share === true) return here("durable", null);
  if (delivery !== (wanted.delivery ?? "stream")) return here("delivery", delivery);
  if (wanted.lane != null && lane !== wanted.lane) return here("lane", lane);
  if (maxRate !== (wanted.maxRate ?? null)) return here("maxRate", maxRate);
  if (echo !== (wanted.echo ?? true)) return here("echo", echo);
  if (filter?.text !== wanted.filter?.text) return here("filter", filter ? JSON.parse(filter.text) : null);
  if (have.onRequest && wanted.onRequest) return here("another", "onRequest");
  const isOther = (wanted.presence || false) !== presence;
  if (wanted.presence && isOther && (isFixed || presence)) return here("presence", presence);
  if (wanted.onRequest && isFixed) return here("no", "onRequest");
  return null;
}

/** What some of those that share a subscription want. @param {Terms[]} all */
export function wantedOf(all) {
  return {
    presence: all.map(({ presence }) => presence).find(Boolean),
    members: all.some(({ members }) => members) || undefined,
    onRequest: all.map(({ onRequest }) => onRequest).find(Boolean),
  };
}

/** Whether the server has to be asked again for what they want now. @param {Terms} before @param {Terms} now */
export function isAnotherWish(before, now) {
  return !before.presence !== !now.presence || !before.onRequest !== !now.onRequest;
}

/**
 * Whether a subscription does not bring a message of the topic's history.
 *
 * @param {Terms} terms
 * @param {Message} message
 * @param {(id: string) => boolean} isOwn whether this client has, or had, an id
 */
export function leavesOut({ echo, filter }, message, isOwn) {
  if (echo === false && message.from !== undefined && isOwn(message.from)) return true;
  if (!filter) return false;
  /** @type {Json} */
  const conditions = JSON.parse(filter.text);
  const meta = /** @type {Json} */ (message.meta);
  if (meta === undefined) return true;
  return !Object.entries(conditions).every(([field, wanted]) => {
    const value = Object.hasOwn(meta, field) ? meta[field] : undefined;
    if (typeof wanted !== "object") return value === wanted;
    return typeof value === "string" && value.startsWith(wanted.prefix);
  });
}
