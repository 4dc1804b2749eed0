// The menu of a person: who that is, and what the user can do: write, or call. A popover next to the button that opened
// it.

import { byId, el } from "../ui/dom.js";
import { avatar } from "../ui/people.js";

export class PersonMenu {
  #chat;
  #people;
  #menu = byId("person-menu");
  #key = null;
  #signature = "";

  /**
   * @param {import("./chat.js").Chat} chat
   * @param {import("../ui/people.js").People} people
   * @param {object} how
   * @param {(id: string) => void} how.onMessage
   * @param {(id: string) => void} how.onCall
   * @param {AbortSignal} how.signal ends it
   */
  constructor(chat, people, { onMessage, onCall, signal }) {
    this.#chat = chat;
    this.#people = people;
    const act = (id, action) => {
      byId(id).addEventListener(
        "click",
        () => {
          const key = this.#key;
          this.close();
          if (key !== null) action(this.#chat.find(key)?.id ?? key);
        },
        { signal },
      );
    };
    act("person-message", onMessage);
    act("person-call", onCall);
    this.#menu.addEventListener("toggle", ({ newState }) => newState === "closed" && (this.#key = null), { signal });
    addEventListener("resize", () => this.close(), { signal });
    signal.addEventListener("abort", () => this.close());
  }

  /** Opens the menu of a person next to a button. */
  open(key, button) {
    this.#key = key;
    this.#signature = "";
    this.render();
    this.#menu.showPopover();
    const { top, bottom, right } = button.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.#menu;
    const below = bottom + offsetHeight + 8 < innerHeight;
    this.#menu.style.top = `${Math.max(8, below ? bottom + 4 : top - offsetHeight - 4)}px`;
    this.#menu.style.left = `${Math.max(8, Math.min(right, innerWidth - 8) - offsetWidth)}px`;
    byId("person-message").focus();
  }

  close() {
    if (this.#menu.matches(":popover-open")) this.#menu.hidePopover();
  }

  /** Shows what has changed, while it is open. */
  render() {
    if (this.#key === null) return;
    const person = this.#chat.find(this.#key);
    const id = person?.id ?? this.#key;
    const name = this.#people.name(id);
    const facts = [this.#chat.markOf(id), stateOf(person)].filter(Boolean);
    const signature = [name, ...facts].join("\n");
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#menu.setAttribute("aria-label", name);
    byId("person-head").replaceChildren(
      avatar(name),
      el(
        "span",
        { class: "person-names" },
        el("bdi", { class: "truncate person-menu-name" }, name),
        ...facts.map((fact) => el("bdi", { class: "truncate muted person-user" }, fact)),
      ),
    );
  }
}

/** @param {import("../ui/roster.js").Person | null} person */
function stateOf(person) {
  if (person === null) return "Not in any of your rooms";
  const state = person.isAway ? "Away" : "Online";
  return person.clients > 1 ? `${state} · ${person.clients.toLocaleString()} devices` : state;
}
