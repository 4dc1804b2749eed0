// The dialog for what the operator does to a client, or to a user with all connections: disconnect, subscribe,
// unsubscribe, and revoke tokens.

import { byId, make, setMessage, setText } from "./dom.js";
import * as format from "./format.js";

const PATTERN = /^([A-Za-z0-9_-]+|\*)(\.([A-Za-z0-9_-]+|\*))*(\.>)?$|^>$/;

export class ManageDialog {
  #dialog = byId("manage-dialog");
  #topic = byId("manage-topic");
  #problem = byId("manage-problem");
  #result = byId("manage-result");
  #list = byId("manage-clients");
  #buttons = [...this.#dialog.querySelectorAll("[data-action]")];
  #target = null;
  #api;
  #disconnect;
  #done;

  /**
   * `disconnect(target, client)` opens the dialog for that; `done()` is called after each other action.
   */
  constructor({ api, disconnect, done }) {
    this.#api = api;
    this.#disconnect = disconnect;
    this.#done = done;
    byId("manage-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#act("subscribe");
    });
    this.#topic.addEventListener("input", () => this.#showProblem(""));
    for (const button of this.#buttons) {
      button.addEventListener("click", () => this.#act(button.dataset.action));
    }
  }

  /** Opens the dialog for a client of the list. */
  openClient(client) {
    this.#open({ client: client.id }, format.nameOf(client), [client]);
  }

  /** Opens the dialog for a user, and lists the user's connections. */
  async openUser(user) {
    this.#open({ user }, user, []);
    await this.#loadClients();
  }

  #open(target, name, clients) {
    this.#target = target;
    const isUser = target.user !== undefined;
    setText(byId("manage-title"), isUser ? "User" : "Client");
    setText(byId("manage-name"), name);
    setText(byId("manage-id"), isUser ? "" : target.client);
    byId("manage-tokens").hidden = !isUser;
    this.#topic.value = "";
    this.#showProblem("");
    this.#showResult("");
    this.#showClients(isUser ? null : clients, clients.length);
    if (!this.#dialog.open) this.#dialog.showModal();
    byId("manage-close").focus();
  }

  async #loadClients() {
    const target = this.#target;
    try {
      const { clients, total } = await this.#api.clientsOf(target.user);
      if (this.#target === target) this.#showClients(clients, total);
    } catch (error) {
      if (this.#target === target) this.#showProblem(explain(error));
    }
  }

  #showClients(clients, total) {
    const isUser = this.#target.user !== undefined;
    byId("manage-count").hidden = !isUser;
    this.#list.hidden = !isUser;
    if (!isUser) return;
    setText(byId("manage-count"), clients === null ? "Loading…" : `${format.plural(total, "connection")} now.`);
    this.#list.replaceChildren(
      ...(clients ?? []).map((client) =>
        make(
          "li",
          { "data-testid": "manage-client", "data-client": client.id },
          make("span", { class: "truncate" }, client.name ?? "Unnamed"),
          make("span", { class: "muted" }, `${format.carrier(client.transport)} · ${client.address}`),
          make("span", { class: "muted mono truncate", title: client.id }, client.id),
        ),
      ),
    );
  }

  async #act(action) {
    const target = this.#target;
    if (action === "disconnect") {
      this.#dialog.close();
      return this.#disconnect(target, byId("manage-name").textContent);
    }
    const topic = this.#topic.value.trim();
    if (["subscribe", "unsubscribe"].includes(action) && !PATTERN.test(topic)) {
      this.#showProblem("Enter a topic or pattern, such as news, team.* or team.>", this.#topic);
      return;
    }
    this.#showProblem("");
    this.#showResult("");
    for (const button of this.#buttons) button.disabled = true;
    try {
      const said = await this.#carryOut(action, target, topic);
      if (this.#target === target) this.#showResult(said);
      this.#done();
    } catch (error) {
      if (this.#target === target) this.#showProblem(explain(error));
    } finally {
      for (const button of this.#buttons) button.disabled = false;
    }
    if (this.#target === target && target.user !== undefined) await this.#loadClients();
  }

  /** Resolves to what has happened, in words. */
  async #carryOut(action, target, topic) {
    switch (action) {
      case "subscribe": {
        const { clients } = await this.#api.subscribe(target, topic);
        return `${format.plural(clients, "client")} will be subscribed to ${topic}.`;
      }
      case "unsubscribe": {
        const { clients } = await this.#api.unsubscribe(target, topic);
        return `The subscription to ${topic} ends for ${format.plural(clients, "client")}.`;
      }
      case "revoke": {
        const { kept } = await this.#api.revoke(target.user);
        const restart = kept ? "" : " A restart of the server forgets that: set auth.revocations_file to keep it.";
        return `All tokens that this user has had until now are revoked.${restart}`;
      }
      default:
        await this.#api.unrevoke(target.user);
        return "The user’s tokens are accepted again.";
    }
  }

  #showProblem(text, field = null) {
    setMessage(this.#problem, text);
    this.#topic.toggleAttribute("aria-invalid", false);
    if (field === null) return;
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }

  #showResult(text) {
    setText(this.#result, text);
  }
}

function explain(error) {
  return error.status === undefined ? "The server cannot be reached." : format.sentence(error.message);
}
