// The chat over one connection: the joined rooms, direct conversations and broadcasts. Independent of the page, which
// listens for "change" and "received".

import { Conversation, entryOf } from "./conversation.js";
import { Outbox } from "./outbox.js";
import { personOf } from "../ui/roster.js";
import { Room } from "./room.js";

// Bounds on unanswered direct conversations, and on the characters kept in all direct conversations: anyone can write
// to the user.
const MAX_UNANSWERED = 200;
const MAX_DIRECT_CHARACTERS = 8_000_000;

/** Dispatches "change" when anything visible has changed, and "received" for each new message of others. */
export class Chat extends EventTarget {
  /** @type {Map<string, Conversation>} in order of creation */
  conversations = new Map();
  /** @type {Map<string, Room>} by the conversation's key */
  rooms = new Map();
  /** The conversation that is shown. @type {Conversation} */
  active;
  /** Whether new messages of the active conversation are visible at once. */
  isViewing = true;
  #client;
  #people;
  #outbox;
  /** Promises of rooms that are being joined, by key. */
  #entering = new Map();
  /** Names shared by several people in the rooms; `null` until computed again. @type {Set<string> | null} */
  #shared = null;

  /**
   * @param {import("../qws.js").Client} client connected
   * @param {import("../ui/people.js").People} people
   */
  constructor(client, people) {
    super();
    this.#client = client;
    this.#people = people;
    this.#outbox = new Outbox(client, people);
    this.#outbox.addEventListener("change", () => this.#changed());
    this.#outbox.addEventListener("sent", () => this.#enforceLimits());
    this.active = this.#open("all", "");
    this.#learnOwnId();
    client.addEventListener("open", () => this.#learnOwnId());
    client.addEventListener("broadcast", ({ detail }) => {
      this.#people.learnSender(detail);
      this.#receive(this.#open("all", ""), entryOf(detail));
    });
    client.addEventListener("direct", ({ detail }) => {
      this.#people.learnSender(detail);
      this.#receive(this.#open("direct", personOf(detail.from, detail.user)), entryOf(detail));
    });
    for (const type of ["state", "permissions"]) client.addEventListener(type, () => this.#changed());
  }

  get client() {
    return this.#client;
  }

  /** Joins a room, or shows it if already joined. Rejects if the server refuses. */
  async join(name) {
    const key = `room:${name}`;
    if (this.rooms.has(key)) return this.activate(this.conversations.get(key));
    // A client can have only one subscription to a topic.
    if (!this.#entering.has(key)) {
      this.#entering.set(
        key,
        this.#enter(name, key).finally(() => this.#entering.delete(key)),
      );
    }
    await this.#entering.get(key);
  }

  async #enter(name, key) {
    const room = new Room(this.#client, this.#people, name);
    room.addEventListener("change", () => this.#changed());
    room.addEventListener("message", ({ detail }) => this.#receive(room.conversation, detail));
    room.addEventListener("return", ({ detail }) => this.#continueWith(detail.member, detail.was));
    room.addEventListener("members", () => {
      this.#shared = null;
      this.#changed();
    });
    room.addEventListener("end", ({ detail }) => this.#ended(room, detail));
    await room.enter();
    this.conversations.set(key, room.conversation);
    this.rooms.set(key, room);
    this.activate(room.conversation);
    await room.roster.refresh();
  }

  /** Handles the end of a room's subscription by the server. */
  #ended(room, error) {
    const { key } = room.conversation;
    if (this.rooms.get(key) !== room) return;
    this.rooms.delete(key);
    this.#shared = null;
    room.note(`You are no longer in this room: ${error.message}`);
  }

  /** Leaves a room, or closes a direct conversation. */
  async leave(conversation) {
    const room = this.rooms.get(conversation.key);
    this.rooms.delete(conversation.key);
    this.#shared = null;
    this.conversations.delete(conversation.key);
    if (this.active === conversation) this.activate([...this.conversations.values()].at(-1));
    this.#changed();
    await room?.leave();
  }

  /** Shows the direct conversation with a client's person, and returns it. */
  openDirect(id) {
    const conversation = this.#open("direct", this.#people.personOf(id));
    this.activate(conversation);
    return conversation;
  }

  activate(conversation) {
    if (this.active !== conversation) this.active.firstUnread = null;
    this.active = conversation;
    if (this.isViewing) conversation.markRead();
    this.#changed();
  }

  /** Records whether the page shows the end of the active conversation. */
  setViewing(isViewing) {
    this.isViewing = isViewing;
    if (!isViewing || this.active.unread === 0) return;
    this.active.markRead();
    this.#changed();
  }

  /** The reason why the user cannot write in a conversation, or "". */
  closedBecause(conversation) {
    const { state, permissions } = this.#client;
    if (state === "closed") return "You are not connected.";
    if (conversation.kind === "all") {
      return permissions?.broadcast === false ? "You are not allowed to send messages to everyone." : "";
    }
    if (conversation.kind === "direct") {
      return permissions?.direct === false ? "You are not allowed to send direct messages." : "";
    }
    const room = this.rooms.get(conversation.key);
    if (!room) return "You are no longer in this room.";
    return room.mayWrite ? "" : "You can read this room but not write in it.";
  }

  /** Whether direct messages are allowed. */
  get mayWriteDirectly() {
    return this.#client.permissions?.direct !== false;
  }

  /** The reason why this text cannot be sent, or "". */
  problem(text) {
    return this.#outbox.problem(text);
  }

  /** Sends a message. It stays pending in the conversation until the server has accepted it. */
  send(conversation, text) {
    return this.#outbox.send(conversation, text);
  }

  /** Sends a failed message again. */
  retry(conversation, entry) {
    return this.#outbox.retry(conversation, entry);
  }

  discard(conversation, entry) {
    this.#outbox.discard(conversation, entry);
  }

  /** Loads the messages before the first entry. */
  async loadEarlier(conversation) {
    await this.rooms.get(conversation.key)?.loadEarlier();
  }

  /** Loads messages that the server dropped for this client, one page at a time. */
  async fillGap(conversation, gap) {
    await this.rooms.get(conversation.key)?.fillGap(gap);
  }

  nameOf(conversation) {
    if (conversation.kind === "all") return "Everyone";
    return conversation.kind === "room" ? conversation.id : this.#people.name(conversation.id);
  }

  /** The roster of a conversation's room, or `null`. */
  rosterOf(conversation) {
    return this.rooms.get(conversation.key)?.roster ?? null;
  }

  /** A person in one of the joined rooms; `null` if that is not known. */
  find(key) {
    for (const { roster } of this.rooms.values()) {
      const found = roster.people.find((person) => person.key === key);
      if (found) return found;
    }
    return null;
  }

  /** The people who are typing in a conversation, as client IDs. */
  typingIn(conversation) {
    return this.rooms.get(conversation.key)?.typing ?? [];
  }

  /** Shows the user's state to the others in a room; it is shown again after a reconnect. */
  show(room, state) {
    this.rooms.get(`room:${room}`)?.show(state);
  }

  /** The mark to show next to a client's name, or "". */
  markOf(id) {
    return this.#people.mark(id, this.#sharedNames().has(this.#people.name(id)));
  }

  #sharedNames() {
    if (this.#shared !== null) return this.#shared;
    this.#shared = new Set();
    const here = new Map();
    for (const { roster } of this.rooms.values()) {
      for (const { key, id } of roster.people) {
        const name = this.#people.name(id);
        if (here.has(name) && here.get(name) !== key) this.#shared.add(name);
        here.set(name, key);
      }
    }
    return this.#shared;
  }

  #open(kind, id) {
    const key = `${kind}:${id}`;
    const known = this.conversations.get(key);
    if (known) return known;
    const conversation = new Conversation(kind, id);
    this.conversations.set(key, conversation);
    // Unanswered conversations displace only other unanswered ones.
    const unanswered = this.#directConversations().filter((one) => this.#isUnanswered(one));
    const oldest = unanswered.find((one) => one !== conversation);
    if (unanswered.length > MAX_UNANSWERED && oldest) this.conversations.delete(oldest.key);
    return conversation;
  }

  #directConversations() {
    return [...this.conversations.values()].filter(({ kind }) => kind === "direct");
  }

  #isUnanswered(conversation) {
    return conversation !== this.active && !conversation.isAnswered;
  }

  /** Keeps the direct conversations within their total bound: drops from unanswered ones first, the longest first. */
  #enforceLimits() {
    const direct = this.#directConversations();
    let over = direct.reduce((sum, { size }) => sum + size, 0) - MAX_DIRECT_CHARACTERS;
    if (over <= 0) return;
    // Frees 10 % of the bound, so that this does not run for every message.
    over += MAX_DIRECT_CHARACTERS / 10;
    const order = (one) => Number(!this.#isUnanswered(one));
    for (const conversation of direct.sort((a, b) => order(a) - order(b) || b.size - a.size)) {
      const before = conversation.size;
      conversation.shrink(before - over);
      over -= before - conversation.size;
      if (over <= 0) return;
    }
  }

  #learnOwnId() {
    const { id, name, user } = this.#client;
    if (id !== null) this.#people.learnOwn(id, name, user);
  }

  /** Moves a direct conversation to the new client ID of somebody who reconnected. */
  #continueWith({ id }, was) {
    const conversation = this.conversations.get(`direct:${was}`);
    if (!conversation || this.conversations.has(`direct:${id}`)) return;
    this.conversations.delete(conversation.key);
    conversation.id = id;
    conversation.key = `direct:${id}`;
    this.conversations.set(conversation.key, conversation);
  }

  #receive(conversation, entry) {
    const isOwn = entry.from !== undefined && this.#people.isUser(entry.from);
    if (isOwn && this.#people.isOwn(entry.from)) this.#outbox.confirm(conversation, entry);
    conversation.append(entry);
    if (conversation.kind === "direct") this.#enforceLimits();
    // A sender without a verified user may be in none of the joined rooms; then the name has to be looked up.
    const mayAsk = this.#client.permissions?.list_clients !== false;
    if (entry.from && mayAsk) this.#people.lookUp(this.#client, entry.from).then((isNews) => isNews && this.#changed());
    const isSeen = conversation === this.active && this.isViewing;
    if (!isOwn && !isSeen) {
      if (conversation.unread === 0) conversation.firstUnread = entry;
      conversation.unread += 1;
    }
    if (!isOwn) this.dispatchEvent(new CustomEvent("received", { detail: { conversation, entry } }));
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
