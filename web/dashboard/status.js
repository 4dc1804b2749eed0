// How the page stands to its server, in a badge, a notice, and words for screen readers; these only when it changes.

import { byId, setAttribute, setText } from "./dom.js";

const STATES = {
  connecting: ["Connecting", ""],
  live: ["Live", "good"],
  paused: ["Paused", "warn"],
  away: ["Server unreachable", "bad"],
  failing: ["Server error", "bad"],
  denied: ["Token needed", "warn"],
};

export class Status {
  #badge = byId("status");
  #notice = byId("notice");
  #action = byId("notice-action");
  #act = () => {};

  constructor() {
    this.#action.addEventListener("click", () => this.#act());
  }

  get state() {
    return document.body.dataset.state;
  }

  /** Another state; `notice` says more, `action` is [label, function] for a button beside it. */
  is(state, { notice = "", action = null } = {}) {
    const [label, kind] = STATES[state];
    const changed = this.state !== state;
    document.body.dataset.state = state;
    setText(byId("status-text"), label);
    setAttribute(this.#badge, "class", `badge ${kind}`);
    setAttribute(this.#notice, "class", `notice ${kind}`);
    setText(byId("notice-text"), notice);
    this.#notice.hidden = notice === "";
    this.#action.hidden = action === null;
    if (action !== null) {
      setText(this.#action, action[0]);
      this.#act = action[1];
    }
    if (changed) this.say(notice === "" ? `${label}.` : `${label}. ${notice}`);
  }

  /** Something that happened, for screen readers. */
  say(text) {
    setText(byId("announcer"), text);
  }
}
