// Pages of a topic's history, as the application gets them.
// Knows no subscription. Called by the client and by `catch-up.js`.

import { quiet } from "./deferred.js";
import { pastMessageOf } from "./messages.js";
import { isOffset } from "./topics.js";

/** @import { HistoryPage } from "../qws.js" */
/** @import { Json } from "./frames.js" */
/** @import { Requests } from "./requests.js" */

/**
 * Fetches one page.
 *
 * @param {Requests} requests
 * @param {Json} message
 * @returns {Promise<HistoryPage>}
 */
export function fetchPage(requests, message) {
  const page = requests.request(message, { again: true }, ({ json, text }) => {
    const { epoch, offset, more, recovered } = json;
    const messages = /** @type {Json[]} */ (json.messages).map((entry, at) => pastMessageOf(entry, text, at));
    // Older servers do not send the offset.
    const known = [offset, messages[0]?.offset, messages.at(-1)?.offset, message.since?.offset].filter(isOffset);
    const newest = isOffset(offset) ? offset : Math.max(0, ...known);
    return {
      epoch: String(epoch),
      offset: newest,
      messages,
      more: more === true,
      recovered: typeof recovered === "boolean" ? recovered : null,
    };
  });
  // Older servers answer 404 for a topic without messages.
  return quiet(page.catch((error) => {
    if (error.code !== 404) throw error;
    return { epoch: "", offset: 0, messages: [], more: false, recovered: null };
  }));
}
