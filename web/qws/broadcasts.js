// Recognises broadcasts that arrive on two connections while a client moves from one to the other.
// Pure; knows no connection. Called by `upgrade.js`.

import { digest } from "./text.js";

/** @import { Reply } from "./frames.js" */

/** Most broadcasts in one round trip that are recognised. */
const MAX_COMPARED = 1024;

/** Both connections bring the same broadcasts in the same order: what one has brought is dropped from the other. */
export class BroadcastFilter {
  /** The newest broadcasts of the old connection, and how often each came. @type {Map<string, number>} */
  #heard = new Map();

  clear() {
    this.#heard.clear();
  }

  /**
   * Whether the old connection has brought a broadcast.
   *
   * @param {Reply} heard
   * @param {boolean} isOld whether this comes on the old connection
   */
  isRepeated({ json, bytes }, isOld) {
    if (!isOld && this.#heard.size === 0) return false;
    const said = [json.content ?? "", JSON.stringify(json.data) ?? "", bytes ?? ""].map(digest);
    const what = `${json.from} ${json.timestamp} ${said.join(" ")}`;
    const count = this.#heard.get(what) ?? 0;
    if (isOld) {
      if (this.#heard.size >= MAX_COMPARED) this.#heard.delete(this.#heard.keys().next().value ?? "");
      this.#heard.set(what, count + 1);
      return false;
    }
    // The first one that the old connection has not brought: it has brought none of those that follow.
    if (count === 0) this.#heard.clear();
    else if (count === 1) this.#heard.delete(what);
    else this.#heard.set(what, count - 1);
    return count > 0;
  }
}
