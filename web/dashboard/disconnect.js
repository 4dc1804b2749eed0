// The dialog that confirms a disconnect, of one client or of all of a user, with its code and reason.

import { MAX_REASON_BYTES, OFFERED, isSendable, mayReturn, meaning, reasonFits } from "./codes.js";
import { byId, make, setMessage, setText } from "./dom.js";
import { plural, sentence } from "./format.js";

const CUSTOM = "custom";

export class DisconnectDialog {
  #dialog = byId("disconnect-dialog");
  #code = byId("disconnect-code");
  #customField = byId("disconnect-custom-field");
  #custom = byId("disconnect-custom");
  #reason = byId("disconnect-reason");
  #problem = byId("disconnect-problem");
  #confirm = byId("disconnect-confirm");
  /** What is disconnected, as the API names it, and its name. */
  #target = null;
  #name = "";
  #api;
  #done;

  /** `done(target, what)` is called once the server has disconnected the target; `what` says so in words. */
  constructor({ api, done }) {
    this.#api = api;
    this.#done = done;
    for (const code of OFFERED) this.#code.append(make("option", { value: code }, `${code} ${meaning(code)}`));
    this.#code.append(make("option", { value: CUSTOM }, "Other code…"));
    this.#code.addEventListener("change", () => this.#showEffect());
    this.#custom.addEventListener("input", () => this.#showEffect());
    byId("disconnect-cancel").addEventListener("click", () => this.#dialog.close());
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /** Opens the dialog for a target, `{client}` or `{user}`. */
  open(target, name) {
    [this.#target, this.#name] = [target, name];
    const isUser = target.user !== undefined;
    setText(byId("disconnect-title"), isUser ? "Disconnect this user?" : "Disconnect this client?");
    setText(byId("disconnect-name"), name);
    setText(byId("disconnect-id"), isUser ? "All connections of this user" : target.client);
    this.#code.value = OFFERED[0];
    this.#custom.value = "";
    this.#reason.value = "";
    this.#showProblem("");
    this.#showEffect();
    this.#dialog.showModal();
    // So that pressing Enter right away does not disconnect the client.
    byId("disconnect-cancel").focus();
  }

  #chosenCode() {
    const text = this.#code.value === CUSTOM ? this.#custom.value.trim() : this.#code.value;
    return /^\d{4}$/.test(text) && isSendable(Number(text)) ? Number(text) : null;
  }

  #showEffect() {
    this.#customField.hidden = this.#code.value !== CUSTOM;
    const code = this.#chosenCode();
    let effect = "The client does not reconnect by itself.";
    if (code !== null && mayReturn(code)) effect = "The client reconnects by itself after a moment.";
    else if (code === null || meaning(code) === "") effect = "What happens then is up to the client.";
    setText(byId("disconnect-effect"), effect);
  }

  #showProblem(text, field = null) {
    setMessage(this.#problem, text);
    for (const input of [this.#custom, this.#reason]) input.toggleAttribute("aria-invalid", false);
    if (field === null) return;
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }

  async #submit() {
    const code = this.#chosenCode();
    const reason = this.#reason.value;
    if (code === null) return this.#showProblem("This code cannot be sent. Use one of the codes above.", this.#custom);
    if (!reasonFits(reason)) {
      return this.#showProblem(`The reason is too long: use at most ${MAX_REASON_BYTES} bytes.`, this.#reason);
    }
    const [target, name] = [this.#target, this.#name];
    this.#confirm.disabled = true;
    let clients;
    try {
      ({ clients } = await this.#api.disconnect(target, code, reason));
    } catch (error) {
      // Ignored if the dialog was closed, or opened for another client, meanwhile.
      if (this.#dialog.open && this.#target === target) this.#showProblem(explain(error, target));
      return;
    } finally {
      this.#confirm.disabled = false;
    }
    if (this.#target === target) this.#dialog.close();
    const many = target.user === undefined ? "was" : `(${plural(clients, "client")}) was`;
    this.#done(target, `${name} ${many} disconnected (code ${code}).`);
  }
}

function explain(error, { user }) {
  if (error.status === 404) return `This ${user === undefined ? "client" : "user"} is no longer connected.`;
  return error.status === undefined
    ? "The server cannot be reached. The client may still be connected."
    : sentence(error.message);
}
