// The dialog that asks for the admin token, tries it, and closes when the server takes it.

import { isToken, tokenProblem } from "./api.js";
import { byId, setMessage } from "./dom.js";

export class TokenDialog {
  #dialog = byId("token-dialog");
  #input = byId("token-input");
  #problem = byId("token-problem");
  #submitButton = byId("token-submit");
  #tryToken;

  /** `tryToken(token)` promises to take it, or rejects as the API does. */
  constructor({ tryToken }) {
    this.#tryToken = tryToken;
    byId("token-cancel").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => (this.#input.value = ""));
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /** Asks; `problem` is what was wrong with the last one, or "". */
  open(problem = "") {
    this.#problemIs(problem);
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
  }

  close() {
    this.#dialog.close();
  }

  #problemIs(text) {
    setMessage(this.#problem, text);
    if (text === "") this.#input.removeAttribute("aria-invalid");
    else this.#input.setAttribute("aria-invalid", "true");
  }

  async #submit() {
    if (this.#submitButton.disabled) return;
    const token = this.#input.value.trim();
    if (!isToken(token)) {
      this.#problemIs(token === "" ? "Enter the token." : "That is not a valid access token.");
      this.#input.focus();
      return;
    }
    this.#submitButton.disabled = true;
    try {
      await this.#tryToken(token);
      this.#dialog.close();
    } catch (error) {
      this.#problemIs(tokenProblem(error));
      this.#input.focus();
    } finally {
      this.#submitButton.disabled = false;
    }
  }
}
