// The dialog that asks for the admin token, tries it, and closes when the server takes it.

import { byId, setMessage, setText } from "./dom.js";
import { sentence } from "./format.js";

// What a header can carry; fetch would throw at anything else.
const VISIBLE_ASCII = /^[\x21-\x7e]+$/;

export class TokenDialog {
  #dialog = byId("token-dialog");
  #input = byId("token-input");
  #problem = byId("token-problem");
  #submitButton = byId("token-submit");
  #tryToken;

  /** `tryToken(token)` promises to take it, or rejects with what the server says. */
  constructor({ tryToken }) {
    this.#tryToken = tryToken;
    byId("token-cancel").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => (this.#input.value = ""));
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /** Asks; `why` says what for. */
  open(why) {
    setText(byId("token-text"), why);
    this.#problemIs("");
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
  }

  #problemIs(text) {
    setMessage(this.#problem, text);
    if (text === "") this.#input.removeAttribute("aria-invalid");
    else this.#input.setAttribute("aria-invalid", "true");
  }

  async #submit() {
    if (this.#submitButton.disabled) return;
    const token = this.#input.value.trim();
    if (!VISIBLE_ASCII.test(token)) {
      this.#problemIs(token === "" ? "Enter the token that is set as http.admin_token." : "A token has no spaces and no letters beyond ASCII.");
      this.#input.focus();
      return;
    }
    this.#submitButton.disabled = true;
    try {
      await this.#tryToken(token);
      this.#dialog.close();
    } catch (error) {
      this.#problemIs(error.status === undefined ? "The server cannot be reached." : sentence(error.message));
      this.#input.focus();
    } finally {
      this.#submitButton.disabled = false;
    }
  }
}
