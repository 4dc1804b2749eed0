// The side panels on narrow screens: a button opens one over the log, and it holds the focus until it is closed. On
// wide screens the panels are next to the log.

import { byId } from "../ui/dom.js";

const PANELS = {
  conversations: { button: "show-conversations", narrow: "(max-width: 760px)" },
  people: { button: "show-people", narrow: "(max-width: 1080px)" },
};

export class Panels {
  #open = null;
  #scrim = byId("scrim");

  constructor(signal) {
    for (const [id, { button, narrow }] of Object.entries(PANELS)) {
      byId(button).addEventListener("click", () => this.open(id), { signal });
      const media = matchMedia(narrow);
      media.addEventListener("change", () => this.close(), { signal });
    }
    for (const button of document.querySelectorAll("[data-close-panel]")) {
      button.addEventListener("click", () => this.close(), { signal });
    }
    this.#scrim.addEventListener("click", () => this.close(), { signal });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.close(), { signal });
    signal.addEventListener("abort", () => this.close());
  }

  open(id) {
    if (!matchMedia(PANELS[id].narrow).matches) return;
    this.#open = id;
    byId(id).classList.add("open");
    this.#set(id, true);
    byId(id).querySelector("[data-close-panel]").focus();
  }

  /** Closes the open panel. Returns whether there was one. */
  close() {
    const id = this.#open;
    if (id === null) return false;
    this.#open = null;
    byId(id).classList.remove("open");
    this.#set(id, false);
    const button = byId(PANELS[id].button);
    // The button is hidden if the window has become wide.
    if (button.checkVisibility()) button.focus();
    else byId("conversation-title").focus();
    return true;
  }

  #set(id, isOpen) {
    this.#scrim.hidden = !isOpen;
    byId(PANELS[id].button).setAttribute("aria-expanded", String(isOpen));
    // Everything below the panel is out of reach while it is open.
    for (const part of document.querySelectorAll(".topbar, .skip-link, .conversation, .panel")) {
      part.inert = isOpen && part.id !== id;
    }
  }
}
