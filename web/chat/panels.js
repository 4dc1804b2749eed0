// The lists at the sides on narrow screens: each comes over the log by a button, has the focus while it is open, and gives it
// back. On wide screens they stand beside the log.

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

  /** Closes what is open; tells whether anything was. */
  close() {
    const id = this.#open;
    if (id === null) return false;
    this.#open = null;
    byId(id).classList.remove("open");
    this.#set(id, false);
    const button = byId(PANELS[id].button);
    // On a window that has become wide there is no such button.
    if (button.checkVisibility()) button.focus();
    else byId("conversation-title").focus();
    return true;
  }

  #set(id, isOpen) {
    this.#scrim.hidden = !isOpen;
    byId(PANELS[id].button).setAttribute("aria-expanded", String(isOpen));
    // What lies below cannot be reached meanwhile.
    for (const part of document.querySelectorAll(".topbar, .skip-link, .conversation, .panel")) {
      part.inert = isOpen && part.id !== id;
    }
  }
}
