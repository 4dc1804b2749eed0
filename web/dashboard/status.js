// The state of the page's connection to the server: a badge, a notice, and an announcement if the state changes.

import { byId, setAttribute, setText } from "./dom.js";

const STATES = {
  connecting: ["Connecting", ""],
  live: ["Live", "good"],
  paused: ["Paused", "warn"],
  away: ["Server unreachable", "bad"],
  failing: ["Server error", "bad"],
  denied: ["Token required", "warn"],
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

  /** Sets the state. `notice` explains it; `action` is [label, function] for a button next to the notice. */
  set(state, { notice = "", action = null } = {}) {
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

  /** Announces an event to screen readers. */
  say(text) {
    setText(byId("announcer"), text);
  }
}
