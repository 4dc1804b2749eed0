// A chat over one connection: the rooms that one is in, and what people say to each other and to everyone. Knows nothing of
// the page, which listens for "change" and "heard".

import { Conversation, entryOf } from "./conversation.js";
import { Outbox } from "./outbox.js";
import { Room } from "./room.js";

// How many people may have written to one without an answer, and how much is kept of what was said with one person or another,
// in characters: anybody may write.
const MOST_UNANSWERED = 200;
const MOST_DIRECT_CHARACTERS = 8_000_000;

/** Dispatches "change" when anything to show has changed, and "heard" for each message that others said just now. */
export class Chat extends EventTarget {
  /** @type {Map<string, Conversation>} in the order in which they were begun */
  conversations = new Map();
  /** @type {Map<string, Room>} by the key of the conversation */
  rooms = new Map();
  /** Where one is. @type {Conversation} */
  active;
  /** Whether what comes in the active conversation is seen at once. */
  isLooking = true;
  #client;
  #people;
  #outbox;
  /** Rooms that are being entered. */
  #entering = new Map();
  /** Names that more than one wears who is here; `null` when that is to be found out anew. @type {Set<string> | null} */
  #worn = null;

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
    this.#outbox.addEventListener("sent", () => this.#bound());
    this.active = this.#begin("all", "");
    this.#recognise();
    client.addEventListener("open", () => this.#recognise());
    client.addEventListener("broadcast", ({ detail }) => this.#heard(this.#begin("all", ""), entryOf(detail)));
    client.addEventListener("direct", ({ detail }) => this.#heard(this.#begin("direct", detail.from), entryOf(detail)));
    for (const type of ["state", "permissions"]) client.addEventListener(type, () => this.#changed());
  }

  get client() {
    return this.#client;
  }

  /** Enters a room, or turns to it. Rejects where the server does not let one in. */
  async join(name) {
    const key = `room:${name}`;
    if (this.rooms.has(key)) return this.turnTo(this.conversations.get(key));
    // One subscription to a topic is all that there may be.
    if (!this.#entering.has(key)) {
      this.#entering.set(key, this.#enter(name, key).finally(() => this.#entering.delete(key)));
    }
    await this.#entering.get(key);
  }

  async #enter(name, key) {
    const room = new Room(this.#client, this.#people, name);
    room.addEventListener("change", () => this.#changed());
    room.addEventListener("message", ({ detail }) => this.#heard(room.conversation, detail));
    room.addEventListener("join", ({ detail }) => this.#goesOnWith(detail));
    room.addEventListener("members", () => {
      this.#worn = null;
      this.#changed();
    });
    room.addEventListener("end", ({ detail }) => this.#ended(room, detail));
    await room.enter();
    this.conversations.set(key, room.conversation);
    this.rooms.set(key, room);
    this.turnTo(room.conversation);
    await room.roster.refresh();
  }

  /** The server lets one stay in a room no longer. */
  #ended(room, error) {
    const { key } = room.conversation;
    if (this.rooms.get(key) !== room) return;
    this.rooms.delete(key);
    this.#worn = null;
    room.note(`You are no longer in this room: ${error.message}`);
  }

  /** Leaves a room, or puts away what was said with one person. */
  async leave(conversation) {
    const room = this.rooms.get(conversation.key);
    this.rooms.delete(conversation.key);
    this.#worn = null;
    this.conversations.delete(conversation.key);
    if (this.active === conversation) this.turnTo([...this.conversations.values()].at(-1));
    this.#changed();
    await room?.leave();
  }

  /** Turns to the conversation with one person. */
  openDirect(id) {
    this.turnTo(this.#begin("direct", id));
  }

  turnTo(conversation) {
    if (this.active !== conversation) this.active.firstUnread = null;
    this.active = conversation;
    if (this.isLooking) conversation.looked();
    this.#changed();
  }

  /** Whether the page shows the end of the active conversation. */
  look(isLooking) {
    this.isLooking = isLooking;
    if (!isLooking || this.active.unread === 0) return;
    this.active.looked();
    this.#changed();
  }

  /** Why nothing can be written in a conversation, or "". */
  closedBecause(conversation) {
    const { state, permissions } = this.#client;
    if (state === "closed") return "You are not connected.";
    if (conversation.kind === "all") {
      return permissions?.broadcast === false ? "Your access does not allow messages to everyone." : "";
    }
    if (conversation.kind === "direct") {
      return permissions?.direct === false ? "Your access does not allow direct messages." : "";
    }
    const room = this.rooms.get(conversation.key);
    if (!room) return "You are no longer in this room.";
    return room.mayWrite ? "" : "You can read this room, but your access does not allow you to write in it.";
  }

  /** Whether one may write to single people. */
  get mayWriteDirectly() {
    return this.#client.permissions?.direct !== false;
  }

  /** Why this text cannot be sent, or "". */
  problem(text) {
    return this.#outbox.problem(text);
  }

  /** Says something in a conversation. It stands there as pending until the server has taken it. */
  send(conversation, text) {
    return this.#outbox.send(conversation, text);
  }

  /** Tries again to send what failed. */
  retry(conversation, entry) {
    return this.#outbox.retry(conversation, entry);
  }

  discard(conversation, entry) {
    this.#outbox.discard(conversation, entry);
  }

  /** Fetches what was said before the first entry. */
  async loadEarlier(conversation) {
    await this.rooms.get(conversation.key)?.loadEarlier();
  }

  /** Fetches what the server dropped for us, a page at a time. */
  async fillGap(conversation, gap) {
    await this.rooms.get(conversation.key)?.fillGap(gap);
  }

  nameOf(conversation) {
    if (conversation.kind === "all") return "Everyone";
    return conversation.kind === "room" ? conversation.id : this.#people.name(conversation.id);
  }

  /** Who is in the room of a conversation; `null` where it is none. */
  rosterOf(conversation) {
    return this.rooms.get(conversation.key)?.roster ?? null;
  }

  /** Whether somebody is in one of the rooms; `null` where there is no way to know. */
  isHere(id) {
    for (const { roster } of this.rooms.values()) if (roster.members.has(id)) return true;
    return null;
  }

  /** What has to stand beside the name of somebody, or "". */
  markOf(id) {
    return this.#people.mark(id, this.#namesWornByTwo().has(this.#people.name(id)));
  }

  #namesWornByTwo() {
    if (this.#worn !== null) return this.#worn;
    this.#worn = new Set();
    const here = new Map();
    for (const { roster } of this.rooms.values()) {
      for (const { id } of roster.members.values()) {
        const name = this.#people.name(id);
        if (here.has(name) && here.get(name) !== id) this.#worn.add(name);
        here.set(name, id);
      }
    }
    return this.#worn;
  }

  #begin(kind, id) {
    const key = `${kind}:${id}`;
    const known = this.conversations.get(key);
    if (known) return known;
    const conversation = new Conversation(kind, id);
    this.conversations.set(key, conversation);
    // Strangers push out strangers alone.
    const unanswered = this.#directOnes().filter((one) => this.#isUnanswered(one));
    const oldest = unanswered.find((one) => one !== conversation);
    if (unanswered.length > MOST_UNANSWERED && oldest) this.conversations.delete(oldest.key);
    return conversation;
  }

  #directOnes() {
    return [...this.conversations.values()].filter(({ kind }) => kind === "direct");
  }

  #isUnanswered(conversation) {
    return conversation !== this.active && !conversation.isAnswered;
  }

  /** Keeps all direct conversations together within their bounds: what is longest gives way, and what was answered last. */
  #bound() {
    const direct = this.#directOnes();
    let over = direct.reduce((sum, { size }) => sum + size, 0) - MOST_DIRECT_CHARACTERS;
    if (over <= 0) return;
    // With some to spare, as that is not for each message.
    over += MOST_DIRECT_CHARACTERS / 10;
    const order = (one) => Number(!this.#isUnanswered(one));
    for (const conversation of direct.sort((a, b) => order(a) - order(b) || b.size - a.size)) {
      const before = conversation.size;
      conversation.shrink(before - over);
      over -= before - conversation.size;
      if (over <= 0) return;
    }
  }

  #recognise() {
    const { id, name } = this.#client;
    if (id !== null) this.#people.learnOwn(id, name);
  }

  /** Somebody whom the server knows by a proven user came back with another id: what was said goes on with them. */
  #goesOnWith({ id, user }) {
    if (!user) return;
    for (const conversation of [...this.conversations.values()]) {
      const isOld = conversation.kind === "direct" && conversation.id !== id && this.isHere(conversation.id) === null;
      if (!isOld || this.#people.user(conversation.id) !== user || this.conversations.has(`direct:${id}`)) continue;
      this.conversations.delete(conversation.key);
      conversation.id = id;
      conversation.key = `direct:${id}`;
      this.conversations.set(conversation.key, conversation);
    }
  }

  #heard(conversation, entry) {
    const isOwn = entry.from !== undefined && this.#people.isOwn(entry.from);
    if (isOwn) this.#outbox.cameBack(conversation, entry);
    conversation.append(entry);
    if (conversation.kind === "direct") this.#bound();
    // Who says something here and is in none of our rooms has a name as well.
    const mayAsk = this.#client.permissions?.list_clients !== false;
    if (entry.from && mayAsk) this.#people.lookUp(this.#client, entry.from).then((isNews) => isNews && this.#changed());
    const isSeen = conversation === this.active && this.isLooking;
    if (!isOwn && !isSeen) {
      if (conversation.unread === 0) conversation.firstUnread = entry;
      conversation.unread += 1;
    }
    if (!isOwn) this.dispatchEvent(new CustomEvent("heard", { detail: { conversation, entry } }));
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
