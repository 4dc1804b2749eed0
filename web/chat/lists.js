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

/** The people in the room: a click opens a direct conversation, and a button next to it the menu of what else to do. */
export class PeopleList {
  #chat;
  #people;
  #list = byId("people-list");
  #count = byId("people-count");
  #note = byId("people-note");
  #rows = new Map();
  #signature = "";
  #onOpen;
  #onMenu;
  #collator = new Intl.Collator();

  /**
   * @param {import("./chat.js").Chat} chat
   * @param {import("../ui/people.js").People} people
   * @param {object} how
   * @param {(id: string) => void} how.onOpen opens the conversation with a client's person
   * @param {(key: string, button: HTMLElement) => void} how.onMenu opens the menu of a person
   */
  constructor(chat, people, { onOpen, onMenu }) {
    this.#chat = chat;
    this.#people = people;
    this.#onOpen = onOpen;
    this.#onMenu = onMenu;
    this.#list.replaceChildren();
  }

  render() {
    const conversation = this.#chat.active;
    const roster = this.#chat.rosterOf(conversation);
    const other = conversation.kind === "direct" ? this.#chat.find(conversation.id) : null;
    const { state, id: own } = this.#chat.client;
    const typing = this.#chat.typingIn(conversation).map((id) => this.#people.personOf(id));
    const parts = [conversation.key, roster?.version, own, this.#chat.nameOf(conversation), state];
    const signature = [...parts, other?.isAway, typing, this.#chat.mayWriteDirectly].join("\n");
    if (signature === this.#signature) return;
    this.#signature = signature;

    const people = this.#sorted(roster);
    const shown = people.slice(0, MAX_PEOPLE);
    const listed = new Set(shown.map(({ key }) => key));
    for (const key of this.#rows.keys()) if (!listed.has(key)) this.#rows.delete(key);
    reconcile(
      this.#list,
      shown.map((person) => this.#row(person, typing.includes(person.key))),
    );
    // Without a connection the list is out of date.
    const isKnown = state === "open" && (roster?.isKnown ?? false);
    this.#list.hidden = !isKnown;
    this.#count.textContent = !isKnown ? "" : roster.count.toLocaleString();
    this.#note.textContent = this.#noteOf(conversation, roster, other, shown.length);
  }

  #sorted(roster) {
    const people = (roster?.people ?? []).map((person) => ({
      ...person,
      name: this.#people.name(person.id),
      isOwn: person.members.some(({ id }) => this.#people.isOwn(id)) || this.#people.isUser(person.key),
    }));
    // Those who are away come last.
    const rank = ({ isOwn, isAway }) => (isOwn ? 0 : isAway ? 2 : 1);
    return people.sort((a, b) => rank(a) - rank(b) || this.#collator.compare(a.name, b.name));
  }

  #noteOf(conversation, roster, other, shown) {
    const name = this.#chat.nameOf(conversation);
    const { state } = this.#chat.client;
    if (state !== "open") {
      if (state === "closed") return "You are not connected. Sign in again to see who is here.";
      return "Reconnecting. You will see who is here once you are back.";
    }
    if (conversation.kind === "all") return "Everyone on this server sees this, whatever room they are in.";
    if (conversation.kind === "direct") {
      const online = other?.isAway ? `${name} is away.` : `${name} is online.`;
      const where = other ? online : `${name} is not in any of your rooms right now.`;
      return `${where} Only the two of you see this conversation.`;
    }
    if (roster === null) return "You are no longer in this room.";
    if (roster.error !== null) {
      if (roster.error.code === 404) return "This room does not list its members.";
      if (roster.error.code === 403) return "You may not see who is here.";
      return `Could not load the list of people: ${roster.error.message}`;
    }
    const more = roster.count - shown;
    if (more > 0 && shown === 0) return "This room is too large to list who is here.";
    if (more > 0) return `and ${more.toLocaleString()} more`;
    return roster.count === 1 ? "Nobody else is here. Copy the link and send it to someone." : "";
  }

  #row({ key, id, name, isOwn, isAway, clients }, isTyping) {
    const mark = isOwn ? "" : this.#chat.markOf(id);
    const isPlain = isOwn || !this.#chat.mayWriteDirectly;
    const doing = isTyping ? "typing…" : isAway ? "away" : "";
    const signature = [id, name, mark, isOwn, isPlain, doing, clients].join("\n");
    const known = this.#rows.get(key);
    if (known?.signature === signature) return known.row;
    const devices = clients > 1 && `${clients.toLocaleString()} devices`;
    const below = [mark && isolated(mark, "muted person-user"), [doing, devices].filter(Boolean).join(" · ")];
    const content = [
      avatar(name),
      el(
        "span",
        { class: "person-names" },
        isolated(name),
        below[0],
        below[1] !== "" && el("span", { class: "truncate muted person-doing" }, below[1]),
      ),
      isOwn && el("span", { class: "badge accent" }, "You"),
    ];
    const attributes = {
      class: "person",
      "data-client": id,
      "data-own": isOwn ? "true" : undefined,
      "data-away": isAway ? "true" : undefined,
      "data-typing": isTyping ? "true" : undefined,
      "data-devices": clients,
    };
    // The elements are reused, so that they keep the focus, and the menu its button.
    const row = known?.isPlain === isPlain ? known.row : el("li", { class: "person-row" });
    if (known?.row !== row) {
      const open = () => this.#onOpen(row.firstElementChild.dataset.client);
      row.append(el(isPlain ? "div" : "button", isPlain ? {} : { type: "button", onclick: open }));
      if (!isPlain) row.append(this.#menuButton(key));
    }
    const [person, menu] = row.children;
    for (const [attribute, value] of Object.entries(attributes)) {
      if (value === undefined) person.removeAttribute(attribute);
      else person.setAttribute(attribute, String(value));
    }
    person.replaceChildren(...content.filter(Boolean));
    if (!isPlain) person.append(el("span", { class: "visually-hidden" }, ", send a direct message"));
    menu?.setAttribute("aria-label", `More about ${name}`);
    this.#rows.set(key, { signature, row, isPlain });
    return row;
  }

  #menuButton(key) {
    const open = ({ currentTarget }) => this.#onMenu(key, currentTarget);
    return el(
      "button",
      {
        class: "button quiet icon-only person-more",
        type: "button",
        "data-testid": "person-more",
        "aria-haspopup": "dialog",
        onclick: open,
      },
      icon("more"),
    );
  }
}
