// The lists beside the log: the conversations that one has, and who is in the room.

import { byId, el, icon, reconcile } from "../ui/dom.js";
import { avatar } from "../ui/people.js";

const MOST_PEOPLE = 200;
const ICONS = { room: "hash", all: "everyone" };
const HEADINGS = [
  ["room", "Rooms"],
  ["direct", "Direct messages"],
  ["all", "Whole server"],
];

/** How many messages wait, as people want to read it. */
export const short = (count) => (count > 99 ? "99+" : String(count));

/** A name on one line, whichever way it is written, at the side where all names begin. */
const isolated = (name, kind = "") => el("span", { class: `truncate ${kind}` }, el("bdi", {}, name));

/** The conversations by kind, each with what waits in it. */
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
      reconcile(list, ofKind.map((conversation) => this.#row(conversation)));
    }
  }

  /** The conversation that stands so many places behind the active one, around the end. */
  neighbour(places) {
    const ordered = HEADINGS.flatMap(([kind]) => [...this.#chat.conversations.values()].filter((one) => one.kind === kind));
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
    // The button stays, so that it keeps the focus.
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

/** Who is in the room, each a way to write to that person alone. */
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
    const shown = members.slice(0, MOST_PEOPLE);
    const listed = new Set(shown.map(({ id }) => id));
    for (const id of this.#rows.keys()) if (!listed.has(id)) this.#rows.delete(id);
    reconcile(this.#list, shown.map((member) => this.#row(member, member.id === own)));
    // The list of before says nothing about now.
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
      return state === "closed" ? "You are not connected. Sign in again to see who is here." : "Reconnecting. Who is here shows once you are back.";
    }
    if (conversation.kind === "all") return "Everyone on this server sees this, whatever room they are in.";
    if (conversation.kind === "direct") {
      return isHere ? `${name} is here. Only the two of you read this.` : `${name} is in none of your rooms now. Only the two of you read this.`;
    }
    if (roster === null) return "You are no longer in this room.";
    if (roster.error !== null) {
      if (roster.error.code === 404) return "This room does not list its members.";
      return roster.error.code === 403 ? "You may not see who is here." : `The list of people could not be loaded: ${roster.error.message}`;
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
      el(
        "span",
        { class: "person-names" },
        isolated(name),
        mark && isolated(mark, "muted person-user"),
      ),
      isOwn && el("span", { class: "badge accent" }, "You"),
    ];
    const row = isPlain
      ? el("li", {}, el("div", { class: "person", "data-client": id, "data-own": isOwn ? "true" : undefined }, ...content))
      : el(
          "li",
          {},
          el(
            "button",
            { class: "person", type: "button", "data-client": id, onclick: () => this.#onOpen(id) },
            ...content,
            el("span", { class: "visually-hidden" }, ", write a direct message"),
          ),
        );
    this.#rows.set(id, { signature, row });
    return row;
  }
}
