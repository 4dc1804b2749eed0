// What is said to a screen reader beside what is shown.

import { byId, el } from "./dom.js";

/** Says to a screen reader what others said just now: each message, or how many where they come too fast to be read. */
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
    if (this.#more > 0) lines.push(el("p", {}, `and ${this.#more} more messages`));
    this.#region.replaceChildren(...lines);
    this.#waiting = [];
    this.#more = 0;
  }
}
