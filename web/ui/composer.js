// The message field: Enter sends, Shift+Enter starts a new line, and it grows with its content.

import { byId, setText } from "./dom.js";

const MAX_HEIGHT = 180;

export class Composer {
  #form = byId("composer");
  #text = byId("composer-text");
  #problem = byId("composer-problem");
  #send = byId("composer-send");
  #state = byId("composer-state");
  #closed = "";
  #waits = "";

  /**
   * @param {(text: string) => string} onSend returns a problem with the text, or "" if it was accepted
   * @param {AbortSignal} signal ends it
   */
  constructor(onSend, signal) {
    this.#form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        const text = this.#text.value.trim();
        if (text === "" || this.#closed !== "" || this.#waits !== "") return;
        this.#say(onSend(text));
        if (this.#problem.textContent === "") this.text = "";
        this.focus();
      },
      { signal },
    );
    this.#text.addEventListener(
      "keydown",
      (event) => {
        // While a character is being composed, Enter chooses it.
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.#form.requestSubmit();
      },
      { signal },
    );
    this.#text.addEventListener(
      "input",
      () => {
        this.#say("");
        this.#grow();
      },
      { signal },
    );
    this.#say("");
    this.update({ label: byId("composer-text").placeholder });
  }

  /**
   * Sets the label and what is possible. The typed text stays.
   * @param {object} how
   * @param {string} how.label
   * @param {string} [how.closed] the reason why nothing can be written, or ""
   * @param {string} [how.waits] the reason why nothing can be sent for now, or ""
   * @param {string} [how.note] a hint on what happens to sent messages, or ""
   */
  update({ label, closed = "", waits = "", note = "" }) {
    [this.#closed, this.#waits] = [closed, waits];
    // Not disabled: the text can still be read, selected and copied, and the focus stays.
    this.#text.readOnly = closed !== "";
    this.#form.dataset.state = closed !== "" ? "closed" : waits !== "" ? "waiting" : "open";
    this.#send.disabled = closed !== "" || waits !== "";
    const placeholder = closed === "" ? label : "You cannot write here";
    if (this.#text.placeholder !== placeholder) this.#text.placeholder = placeholder;
    // Below the field, not in it: on a phone it would be cut off there.
    setText(this.#state, closed || waits || note);
  }

  get text() {
    return this.#text.value;
  }

  set text(text) {
    this.#text.value = text;
    this.#grow();
  }

  focus() {
    this.#text.focus({ preventScroll: true });
  }

  #say(problem) {
    this.#problem.textContent = problem;
    if (problem === "") this.#text.removeAttribute("aria-invalid");
    else this.#text.setAttribute("aria-invalid", "true");
  }

  #grow() {
    this.#text.style.height = "auto";
    const borders = this.#text.offsetHeight - this.#text.clientHeight;
    this.#text.style.height = `${Math.min(MAX_HEIGHT, this.#text.scrollHeight + borders)}px`;
  }
}
