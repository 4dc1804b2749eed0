// The dialog that asks for the admin token, and closes once the server accepts it.

import { INVALID_TOKEN, isToken, tokenProblem } from "./api.js";
import { byId, setMessage } from "./dom.js";

export class TokenDialog {
  #dialog = byId("token-dialog");
  #input = byId("token-input");
  #problem = byId("token-problem");
  #submitButton = byId("token-submit");
  #tryToken;

  /** `tryToken(token)` resolves if the server accepts the token, and rejects like the API. */
  constructor({ tryToken }) {
    this.#tryToken = tryToken;
    byId("token-cancel").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => (this.#input.value = ""));
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /** Opens the dialog; `problem` explains why the last token was not accepted, or is "". */
  open(problem = "") {
    this.#showProblem(problem);
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
  }

  close() {
    this.#dialog.close();
  }

  #showProblem(text) {
    setMessage(this.#problem, text);
    if (text === "") this.#input.removeAttribute("aria-invalid");
    else this.#input.setAttribute("aria-invalid", "true");
  }

  async #submit() {
    if (this.#submitButton.disabled) return;
    const token = this.#input.value.trim();
    if (!isToken(token)) {
      this.#showProblem(token === "" ? "Enter the admin token." : INVALID_TOKEN);
      this.#input.focus();
      return;
    }
    this.#submitButton.disabled = true;
    try {
      await this.#tryToken(token);
      this.#dialog.close();
    } catch (error) {
      this.#showProblem(tokenProblem(error));
      this.#input.focus();
    } finally {
      this.#submitButton.disabled = false;
    }
  }
}
