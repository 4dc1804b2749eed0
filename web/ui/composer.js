// The field in which one writes: Enter sends, Shift and Enter begins a new line, and it grows with what is in it.

import { byId } from "./dom.js";

const MOST_HEIGHT = 180;

export class Composer {
  #form = byId("composer");
  #text = byId("composer-text");
  #problem = byId("composer-problem");

  /**
   * @param {(text: string) => string} onSend gives what is wrong with the text, or "" once it was taken
   * @param {AbortSignal} signal ends it
   */
  constructor(onSend, signal) {
    this.#form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        const text = this.#text.value.trim();
        if (text === "") return;
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
    this.#text.style.height = `${Math.min(MOST_HEIGHT, this.#text.scrollHeight + borders)}px`;
  }
}
