// Requests of other clients, which the application's handlers answer: by topic, or for the client itself and its user.
// Knows links by their open requests, never a carrier. Called by inbound and by the driver.

import { QwsError, textOf } from "./errors.js";
import { Content } from "./messages.js";
import { cutTo } from "./text.js";
import { payloadOf } from "./values.js";

/** @import { Asked, RequestHandler, ValueOptions } from "../qws.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Requests } from "./requests.js" */

/** Longest reason of a failed reply, in bytes. */
const MAX_ERROR_BYTES = 1024;

/** The answering side of a client. */
export class Serving {
  #requests;
  #handlerOf;

  /**
   * @param {Requests} requests
   * @param {(topic: string | null) => RequestHandler | null} handlerOf `null`: of the client itself
   */
  constructor(requests, handlerOf) {
    this.#requests = requests;
    this.#handlerOf = handlerOf;
  }

  /**
   * Has a handler answer a request.
   *
   * @param {Link} link
   * @param {Reply} heard
   */
  hear(link, heard) {
    const { json } = heard;
    const { request } = json;
    if (typeof request !== "string") throw new QwsError("protocol", "request: no request", { code: 1002 });
    const handler = this.#handlerOf(typeof json.topic === "string" ? json.topic : null);
    const stop = new AbortController();
    link.served.set(request, stop);
    let isAnswered = false;
    const answer = (/** @type {Json} */ fields, /** @type {Uint8Array | undefined} */ attachment) => {
      if (isAnswered) return;
      isAnswered = true;
      void this.#reply(link, request, fields, attachment);
    };
    const fail = (/** @type {unknown} */ error) => answer(failureOf(error), undefined);
    if (!handler) return fail(new QwsError("request", "no handler answers here any more", { code: 404 }));
    const respond = (/** @type {unknown} */ value, /** @type {ValueOptions} */ options = {}) => {
      const given = value === undefined && !options.bytes ? null : value;
      const { fields, attachment } = payloadOf("respond", given, options);
      answer(fields, attachment);
    };
    const asked = askedOf(heard, stop.signal, respond);
    const run = async () => respond(await handler(asked));
    run().catch(fail);
  }

  /** Another client has given a request up. @param {Link} link @param {Json} json */
  cancelled(link, json) {
    this.#end(link, json.request, String(json.reason ?? "the request was given up"));
    link.served.delete(json.request);
  }

  /** A connection has ended, and with it what came on it. @param {Link} link */
  lost(link) {
    for (const request of [...link.served.keys()]) this.cancelled(link, { request, reason: "the connection was lost" });
  }

  /** @param {Link} link @param {string} request @param {string} reason */
  #end(link, request, reason) {
    link.served.get(request)?.abort(new QwsError("closed", reason, { code: 499 }));
  }

  /**
   * @param {Link} link
   * @param {string} request
   * @param {Json} fields
   * @param {Uint8Array | undefined} attachment
   * @returns {Promise<void>}
   */
  async #reply(link, request, fields, attachment) {
    // Given up meanwhile, or the connection was lost: there is no one to tell.
    if (!link.served.has(request)) return;
    try {
      await this.#requests.reply(link, { type: "reply", request, ...fields }, attachment);
    } catch (error) {
      const { kind } = /** @type {QwsError} */ (error);
      const tooLong = kind === "usage" || /** @type {QwsError} */ (error).code === 400;
      if (tooLong && !("error" in fields)) return await this.#reply(link, request, failureOf(error), undefined);
    } finally {
      if (link.served.delete(request)) this.#requests.answered(link);
    }
  }
}

/**
 * What a handler gets.
 *
 * @param {Reply} heard
 * @param {AbortSignal} signal
 * @param {(value: unknown, options?: ValueOptions) => void} respond
 * @returns {Asked}
 */
function askedOf({ json, text, bytes }, signal, respond) {
  const { timestamp, timeout_ms: timeoutMs, topic } = json;
  const content = new Content(json, bytes, { text, path: ["data"] });
  const asked = Object.assign(content, { timestamp, timeoutMs, signal, respond });
  return /** @type {any} */ (typeof topic === "string" ? Object.assign(asked, { topic }) : asked);
}

/** The fields of a failed reply. @param {unknown} error @returns {Json} */
function failureOf(error) {
  const given = /** @type {{ code?: unknown }} */ (error ?? {}).code;
  const isCode = Number.isInteger(given) && Number(given) >= 400 && Number(given) <= 599;
  const text = textOf(error) || "the handler failed";
  return { error: cutTo(text, MAX_ERROR_BYTES), code: isCode ? given : 500 };
}
