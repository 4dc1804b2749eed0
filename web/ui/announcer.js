// Announcements for screen readers.

import { byId, el } from "./dom.js";

/** Announces events and messages: each one, or their number if they arrive too fast to be read. */
export class Announcer {
  #region = byId("announcer");
  #waiting = [];
  #more = 0;
  #timer = 0;

  say(text) {
    if (this.#waiting.length < 3) this.#waiting.push(text);
    else this.#more += 1;
    this.#timer ||= setTimeout(() => this.#speak(), 700);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#region.replaceChildren();
  }

  #speak() {
    this.#timer = 0;
    const lines = this.#waiting.map((text) => el("p", {}, text));
    if (this.#more > 0) lines.push(el("p", {}, `and ${this.#more} more`));
    this.#region.replaceChildren(...lines);
    this.#waiting = [];
    this.#more = 0;
  }
}
