// The notice that access expires soon, with a field for a new token.

import { byId } from "../ui/dom.js";
import { refusedToken } from "../ui/ending.js";

const sameDay = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const otherDay = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export class Renewal {
  #form = byId("renewal");
  #text = byId("renewal-text");
  #token = byId("renewal-token");
  #submit = byId("renewal-submit");
  #problem = byId("renewal-problem");
  #client;
  #announcer;
  #onDone;
  #signal;

  /**
   * @param {import("../qws.js").Client} client
   * @param {object} parts
   * @param {import("../ui/announcer.js").Announcer} parts.announcer
   * @param {() => void} parts.onDone called if the notice had the focus when it was hidden
   * @param {AbortSignal} parts.signal ends it
   */
  constructor(client, { announcer, onDone, signal }) {
    this.#client = client;
    this.#announcer = announcer;
    this.#onDone = onDone;
    this.#signal = signal;
    client.addEventListener("expiring", ({ detail }) => this.show(detail.expires_at), { signal });
    client.addEventListener("close", ({ detail }) => !detail.willReconnect && this.#hide(), { signal });
    signal.addEventListener("abort", () => this.#hide());
    this.#form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        this.#renew();
      },
      { signal },
    );
    this.#token.addEventListener("input", () => this.#say(""), { signal });
  }

  /** @param {number} expiresAt Unix milliseconds */
  show(expiresAt) {
    const ends = new Date(expiresAt);
    const isToday = ends.toDateString() === new Date().toDateString();
    const when = isToday ? `at ${sameDay.format(ends)}` : `on ${otherDay.format(ends)}`;
    const words = `Your access ends ${when}. To stay connected, enter a new access token.`;
    if (this.#form.hidden) this.#announcer.say(words);
    this.#text.textContent = words;
    this.#form.hidden = false;
  }

  async #renew() {
    const token = this.#token.value.trim();
    if (token === "") return this.#token.focus();
    this.#busy(true);
    this.#say("");
    try {
      await this.#client.refresh(token);
    } catch (error) {
      if (this.#form.hidden || this.#signal.aborted) return;
      this.#busy(false);
      const isRefused = error.code === 401 || error.code === 403;
      this.#say(isRefused ? refusedToken(error.message) : `Could not renew your access: ${error.message}`);
      return this.#token.focus();
    }
    if (this.#signal.aborted) return;
    this.#announcer.say("Access renewed.");
    this.#hide();
  }

  #hide() {
    const hadFocus = this.#form.contains(document.activeElement);
    this.#form.hidden = true;
    this.#token.value = "";
    this.#say("");
    this.#busy(false);
    if (hadFocus && !this.#signal.aborted) this.#onDone();
  }

  #busy(busy) {
    this.#submit.disabled = busy;
    this.#token.readOnly = busy;
  }

  #say(problem) {
    this.#problem.textContent = problem;
    this.#token.toggleAttribute("aria-invalid", false);
    if (problem !== "") this.#token.setAttribute("aria-invalid", "true");
  }
}
