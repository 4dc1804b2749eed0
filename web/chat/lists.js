// The lists next to the log: the conversations, and the people in the room.

import { byId, el, icon, reconcile } from "../ui/dom.js";
import { avatar } from "../ui/people.js";

const MAX_PEOPLE = 200;
const ICONS = { room: "hash", all: "everyone" };
const HEADINGS = [
  ["room", "Rooms"],
  ["direct", "Direct messages"],
  ["all", "Whole server"],
];

/** A short unread count. */
export const short = (count) => (count > 99 ? "99+" : String(count));

/** A name on one line, aligned with the others whatever its writing direction. */
const isolated = (name, kind = "") => el("span", { class: `truncate ${kind}` }, el("bdi", {}, name));

/** The conversations by kind, each with its unread count. */
export class ConversationList {
  #chat;
  #root = byId("conversation-list");
  #rows = new Map();
  #groups = new Map();
  #onTurn;

  constructor(chat, onTurn) {
    this.#chat = chat;
    this.#onTurn = onTurn;
    this.#root.replaceChildren();
    for (const [kind, heading] of HEADINGS) {
      const list = el("ul", { "aria-labelledby": `heading-${kind}` });
      const group = el("div", { class: "group" }, el("h3", { id: `heading-${kind}`, class: "muted" }, heading), list);
      this.#groups.set(kind, { group, list });
      this.#root.append(group);
    }
  }

  render() {
    const conversations = [...this.#chat.conversations.values()];
    const known = new Set(conversations);
    for (const conversation of this.#rows.keys()) if (!known.has(conversation)) this.#rows.delete(conversation);
    for (const [kind, { group, list }] of this.#groups) {
      const ofKind = conversations.filter((conversation) => conversation.kind === kind);
      group.hidden = ofKind.length === 0;
      reconcile(
        list,
        ofKind.map((conversation) => this.#row(conversation)),
      );
    }
  }

  /** The conversation `places` after the active one, wrapping around. */
  neighbour(places) {
    const ordered = HEADINGS.flatMap(([kind]) =>
      [...this.#chat.conversations.values()].filter((one) => one.kind === kind),
    );
    const at = ordered.indexOf(this.#chat.active) + places;
    return ordered[(at + ordered.length) % ordered.length];
  }

  #row(conversation) {
    const isActive = conversation === this.#chat.active;
    const name = this.#chat.nameOf(conversation);
    const mark = conversation.kind === "direct" ? this.#chat.markOf(conversation.id) : "";
    const signature = `${isActive}\n${conversation.unread}\n${conversation.key}\n${name}\n${mark}`;
    const known = this.#rows.get(conversation);
    if (known?.signature === signature) return known.row;
    const { unread } = conversation;
    const content = [
      conversation.kind === "direct" ? avatar(name) : icon(ICONS[conversation.kind]),
      isolated(name),
      mark && isolated(mark, "muted conversation-mark"),
      unread > 0 && el("span", { class: "count", "aria-hidden": "true" }, short(unread)),
      unread > 0 && el("span", { class: "visually-hidden" }, `, ${unread} unread`),
    ].filter(Boolean);
    // The button is reused, so that it keeps the focus.
    const row = known?.row ?? el("li", {}, el("button", { type: "button", onclick: () => this.#onTurn(conversation) }));
    const button = row.firstElementChild;
    button.className = `conversation-item${unread > 0 ? " unread" : ""}`;
    button.dataset.conversation = conversation.key;
    button.dataset.unread = String(unread);
    if (isActive) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    button.replaceChildren(...content);
    this.#rows.set(conversation, { signature, row });
    return row;
  }
}

/** The people in the room; a click opens a direct conversation. */
export class PeopleList {
  #chat;
  #people;
  #list = byId("people-list");
  #count = byId("people-count");
  #note = byId("people-note");
  #rows = new Map();
  #signature = "";
  #onOpen;
  #collator = new Intl.Collator();

  constructor(chat, people, onOpen) {
    this.#chat = chat;
    this.#people = people;
    this.#onOpen = onOpen;
    this.#list.replaceChildren();
  }

  render() {
    const conversation = this.#chat.active;
    const roster = this.#chat.rosterOf(conversation);
    const own = this.#chat.client.id;
    const isHere = conversation.kind === "direct" ? this.#chat.isHere(conversation.id) : null;
    const { state } = this.#chat.client;
    const parts = [conversation.key, roster?.version, own, this.#chat.nameOf(conversation), isHere, state];
    const signature = [...parts, this.#chat.mayWriteDirectly].join("\n");
    if (signature === this.#signature) return;
    this.#signature = signature;

    const members = this.#membersOf(roster, own);
    const shown = members.slice(0, MAX_PEOPLE);
    const listed = new Set(shown.map(({ id }) => id));
    for (const id of this.#rows.keys()) if (!listed.has(id)) this.#rows.delete(id);
    reconcile(
      this.#list,
      shown.map((member) => this.#row(member, member.id === own)),
    );
    // Without a connection the list is out of date.
    const isKnown = state === "open" && (roster?.isKnown ?? false);
    this.#list.hidden = !isKnown;
    this.#count.textContent = !isKnown ? "" : roster.total.toLocaleString();
    this.#note.textContent = this.#noteOf(conversation, roster, isHere, shown.length);
  }

  #membersOf(roster, own) {
    const members = [...(roster?.members.values() ?? [])].map(({ id }) => ({ id, name: this.#people.name(id) }));
    const first = (id) => Number(id === own);
    return members.sort((a, b) => first(b.id) - first(a.id) || this.#collator.compare(a.name, b.name));
  }

  #noteOf(conversation, roster, isHere, shown) {
    const name = this.#chat.nameOf(conversation);
    const { state } = this.#chat.client;
    if (state !== "open") {
      if (state === "closed") return "You are not connected. Sign in again to see who is here.";
      return "Reconnecting. You will see who is here once you are back.";
    }
    if (conversation.kind === "all") return "Everyone on this server sees this, whatever room they are in.";
    if (conversation.kind === "direct") {
      const where = isHere ? `${name} is online.` : `${name} is not in any of your rooms right now.`;
      return `${where} Only the two of you see this conversation.`;
    }
    if (roster === null) return "You are no longer in this room.";
    if (roster.error !== null) {
      if (roster.error.code === 404) return "This room does not list its members.";
      if (roster.error.code === 403) return "You may not see who is here.";
      return `Could not load the list of people: ${roster.error.message}`;
    }
    const more = roster.total - shown;
    if (more > 0) return `and ${more.toLocaleString()} more`;
    return roster.total === 1 ? "Nobody else is here. Copy the link and send it to someone." : "";
  }

  #row({ id, name }, isOwn) {
    const mark = isOwn ? "" : this.#chat.markOf(id);
    const isPlain = isOwn || !this.#chat.mayWriteDirectly;
    const signature = `${name}\n${mark}\n${isOwn}\n${isPlain}`;
    const known = this.#rows.get(id);
    if (known?.signature === signature) return known.row;
    const content = [
      avatar(name),
      el("span", { class: "person-names" }, isolated(name), mark && isolated(mark, "muted person-user")),
      isOwn && el("span", { class: "badge accent" }, "You"),
    ];
    const row = isPlain
      ? el(
          "li",
          {},
          el("div", { class: "person", "data-client": id, "data-own": isOwn ? "true" : undefined }, ...content),
        )
      : el(
          "li",
          {},
          el(
            "button",
            { class: "person", type: "button", "data-client": id, onclick: () => this.#onOpen(id) },
            ...content,
            el("span", { class: "visually-hidden" }, ", send a direct message"),
          ),
        );
    this.#rows.set(id, { signature, row });
    return row;
  }
}
