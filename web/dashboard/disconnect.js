// The dialog that asks before a client is disconnected: with which code, and what it is told.

import { MAX_REASON_BYTES, OFFERED, isSendable, mayReturn, meaning, reasonFits } from "./codes.js";
import { byId, make, setMessage, setText } from "./dom.js";
import { sentence } from "./format.js";

const CUSTOM = "custom";

export class DisconnectDialog {
  #dialog = byId("disconnect-dialog");
  #code = byId("disconnect-code");
  #customField = byId("disconnect-custom-field");
  #custom = byId("disconnect-custom");
  #reason = byId("disconnect-reason");
  #problem = byId("disconnect-problem");
  #confirm = byId("disconnect-confirm");
  #client = null;
  #api;
  #done;

  /** `done(client, code)` is told after the server has done it. */
  constructor({ api, done }) {
    this.#api = api;
    this.#done = done;
    for (const code of OFFERED) this.#code.append(make("option", { value: code }, `${code} ${meaning(code)}`));
    this.#code.append(make("option", { value: CUSTOM }, "Another code …"));
    this.#code.addEventListener("change", () => this.#showEffect());
    this.#custom.addEventListener("input", () => this.#showEffect());
    byId("disconnect-cancel").addEventListener("click", () => this.#dialog.close());
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  open(client) {
    this.#client = client;
    setText(byId("disconnect-name"), client.name ?? "Unnamed");
    setText(byId("disconnect-id"), client.id);
    this.#code.value = OFFERED[0];
    this.#custom.value = "";
    this.#reason.value = "";
    this.#problemIs("");
    this.#showEffect();
    this.#dialog.showModal();
    // Enter at once must not disconnect anybody.
    byId("disconnect-cancel").focus();
  }

  #chosenCode() {
    const text = this.#code.value === CUSTOM ? this.#custom.value.trim() : this.#code.value;
    return /^\d{4}$/.test(text) && isSendable(Number(text)) ? Number(text) : null;
  }

  #showEffect() {
    this.#customField.hidden = this.#code.value !== CUSTOM;
    const code = this.#chosenCode();
    let effect = "The client stays away until its user or program connects again.";
    if (code !== null && mayReturn(code)) effect = "The client reconnects by itself after a moment.";
    else if (code === null || meaning(code) === "") effect = "What happens then is up to the client.";
    setText(byId("disconnect-effect"), effect);
  }

  #problemIs(text, field = null) {
    setMessage(this.#problem, text);
    for (const input of [this.#custom, this.#reason]) input.toggleAttribute("aria-invalid", false);
    if (field === null) return;
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }

  async #submit() {
    const code = this.#chosenCode();
    const reason = this.#reason.value;
    if (code === null) return this.#problemIs("This code cannot be sent. Choose one of those named above.", this.#custom);
    if (!reasonFits(reason)) return this.#problemIs(`The reason is too long: ${MAX_REASON_BYTES} bytes at most.`, this.#reason);
    const client = this.#client;
    this.#confirm.disabled = true;
    try {
      await this.#api.disconnect(client.id, code, reason);
    } catch (error) {
      // Closed and perhaps opened for somebody else meanwhile: not this one's error.
      if (this.#dialog.open && this.#client === client) this.#problemIs(explain(error));
      return;
    } finally {
      this.#confirm.disabled = false;
    }
    if (this.#client === client) this.#dialog.close();
    this.#done(client, code);
  }
}

function explain(error) {
  if (error.status === 404) return "This client is no longer connected.";
  return error.status === undefined ? "The server cannot be reached. The client may still be connected." : sentence(error.message);
}
