// A chat over one connection: the rooms (topics `chat.<room>`, as in the terminal client of examples/), who is in them, what
// people say to each other and to everyone. Knows nothing of the page, which listens for "change" and "heard".

import { QwsError } from "../qws.js";
import { Roster } from "../ui/roster.js";
import { Conversation } from "./conversation.js";

export const TOPIC_PREFIX = "chat.";
// How much of what was said before is shown to who comes in, and how much comes with each look further back.
const RECENT = 60;
const PAGE = 100;
// How many people may have written to one without an answer, and how much is kept of what was said with one person or another,
// in characters: anybody may write.
const MOST_UNANSWERED = 200;
const MOST_DIRECT_CHARACTERS = 8_000_000;
// The server knows the key of a message for two minutes, where it is not told otherwise; past that, a second try may be a
// second message.
const KEY_KNOWN_MS = 110_000;
// What the server adds to a message, at most, as the protocol has it.
const ADDED_BYTES = 1024;

/**
 * @typedef {object} Room what a conversation of the kind "room" has beside it
 * @property {import("../qws.js").Subscription} subscription
 * @property {Roster} roster who is there
 */

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
    this.active = this.#begin("all", "");
    this.#recognise();
    client.addEventListener("open", () => this.#recognise());
    client.addEventListener("broadcast", ({ detail }) => this.#heard(this.#begin("all", ""), detail));
    client.addEventListener("direct", ({ detail }) => this.#heard(this.#begin("direct", detail.from), detail));
    client.addEventListener("state", () => this.#changed());
  }

  get client() {
    return this.#client;
  }

  /** Enters a room, or turns to it. Rejects where the server does not let one in. */
  async join(room) {
    const key = `room:${room}`;
    if (this.rooms.has(key)) return this.turnTo(this.conversations.get(key));
    // One subscription to a topic is all that there may be.
    if (!this.#entering.has(key)) {
      this.#entering.set(key, this.#enter(room, key).finally(() => this.#entering.delete(key)));
    }
    await this.#entering.get(key);
  }

  async #enter(room, key) {
    const topic = TOPIC_PREFIX + room;
    const past = await this.#past(topic);
    const newest = past?.messages[0];
    // With nothing between what is shown now and what comes; where nothing was said yet, what is said first may be said
    // before this is there.
    const from = newest ? { since: { epoch: past.epoch, offset: newest.offset } } : past === null ? {} : { recent: RECENT };

    const conversation = new Conversation("room", room);
    conversation.epoch = past?.epoch || undefined;
    for (const message of past?.messages.toReversed() ?? []) conversation.append(entryOf(message, past.epoch));
    conversation.hasEarlier = past?.more ?? false;

    const subscription = this.#client.subscribe(topic, { ...from, presence: true });
    const roster = new Roster(this.#client, subscription);
    this.#listen(conversation, subscription, roster);
    const { epoch } = (await subscription.ready) ?? {};
    conversation.epoch ??= epoch ?? undefined;
    this.conversations.set(key, conversation);
    this.rooms.set(key, { subscription, roster });
    this.turnTo(conversation);
    await roster.refresh();
  }

  /** Leaves a room, or puts away what was said with one person. */
  async leave(conversation) {
    const room = this.rooms.get(conversation.key);
    this.rooms.delete(conversation.key);
    this.#worn = null;
    this.conversations.delete(conversation.key);
    if (this.active === conversation) this.turnTo([...this.conversations.values()].at(-1));
    this.#changed();
    await room?.subscription.unsubscribe();
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

  /** Why this text cannot be sent, or "". */
  problem(text) {
    const most = this.#client.limits?.max_message_bytes;
    if (most === undefined) return "";
    const over = new TextEncoder().encode(JSON.stringify(text)).length + ADDED_BYTES - most;
    return over > 0 ? `This is ${over.toLocaleString()} bytes too long to be sent.` : "";
  }

  /** Says something in a conversation. It stands there as pending until the server has taken it. */
  send(conversation, text) {
    const entry = { type: "pending", time: Date.now(), text, state: "sending", key: crypto.randomUUID() };
    conversation.pending.push(entry);
    this.#changed();
    return this.#deliver(conversation, entry);
  }

  /** Tries again to send what failed; the server takes it once, whatever became of the first try, as long as it knows the key. */
  retry(conversation, entry) {
    if (isKeyForgotten(entry)) {
      // One was told that it may have been sent, and wants it once more.
      entry.key = crypto.randomUUID();
      entry.unsureSince = undefined;
    }
    entry.state = "sending";
    this.#changed();
    return this.#deliver(conversation, entry);
  }

  discard(conversation, entry) {
    remove(conversation.pending, entry);
    this.#changed();
  }

  /** Fetches what was said before the first entry. */
  async loadEarlier(conversation) {
    const room = this.rooms.get(conversation.key);
    const since = conversation.oldest;
    if (conversation.isLoadingEarlier || conversation.isFull || !conversation.hasEarlier || !room || !since?.epoch) return;
    const { epoch } = since;
    conversation.isLoadingEarlier = true;
    this.#changed();
    try {
      const page = await this.#client.history(room.subscription.topic, {
        since,
        limit: PAGE,
        reverse: true,
      });
      // In another epoch the answer begins at its end: that is not what was asked for.
      const isOurs = page.epoch === epoch;
      if (isOurs) conversation.prepend(page.messages.toReversed().map((message) => entryOf(message, epoch)));
      const goesOn = isOurs && epoch === conversation.epoch;
      conversation.hasEarlier = goesOn && page.more && page.messages.length > 0;
    } catch (error) {
      conversation.hasEarlier = false;
      this.#note(conversation, `What was said before cannot be had: ${error.message}`);
    } finally {
      conversation.isLoadingEarlier = false;
      this.#changed();
    }
  }

  /** Fetches what the server dropped for us, a page at a time. */
  async fillGap(conversation, gap) {
    const room = this.rooms.get(conversation.key);
    const { epoch } = gap;
    if (gap.state !== undefined || !room || !epoch) return;
    gap.state = "fetching";
    this.#changed();
    try {
      const page = await this.#client.history(room.subscription.topic, {
        since: { epoch, offset: gap.first - 1 },
        limit: PAGE,
      });
      const missing = page.epoch === epoch ? page.messages.filter(({ offset }) => offset <= gap.last) : [];
      const isClosed = missing.length < page.messages.length || !page.more || missing.at(-1)?.offset === gap.last;
      if (missing.length === 0) {
        gap.state = "gone";
      } else {
        conversation.fill(gap, missing.map((message) => entryOf(message, epoch)), isClosed);
        gap.first = missing.at(-1).offset + 1;
        gap.state = undefined;
      }
    } catch (error) {
      gap.state = error instanceof QwsError && error.code === 404 ? "gone" : undefined;
      gap.problem = error.message;
    }
    this.#changed();
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

  /** The newest messages, newest first; an empty page where nothing was said yet, `null` where we may not look. */
  async #past(topic) {
    try {
      return await this.#client.history(topic, { limit: RECENT, reverse: true });
    } catch (error) {
      if (error.code === 404) return { epoch: "", messages: [], more: false };
      if (error.code === 403) return null;
      throw error;
    }
  }

  #listen(conversation, subscription, roster) {
    subscription.addEventListener("message", ({ detail }) => {
      const epoch = subscription.position?.epoch;
      conversation.epoch ??= epoch;
      this.#heard(conversation, detail, epoch);
    });
    subscription.addEventListener("gap", ({ detail: { first, last } }) => {
      conversation.append({ type: "gap", time: Date.now(), first, last, epoch: subscription.position?.epoch });
      // What was taken and falls into the gap does not come by itself.
      conversation.pending = conversation.pending.filter(({ offset }) => !(offset >= first && offset <= last));
      this.#changed();
    });
    subscription.addEventListener("lost", ({ detail }) => {
      const why = detail.reason ? ` (${detail.reason})` : "";
      if (detail.epoch) conversation.beginAnew(detail.epoch);
      // What was taken and is not going to come.
      const isToCome = ({ offset, epoch }) => offset === undefined || (epoch === detail.epoch && offset > detail.offset);
      conversation.pending = conversation.pending.filter(isToCome);
      this.#note(conversation, `Some of what was said while you were away is gone${why}.`);
    });
    subscription.addEventListener("end", ({ detail }) => {
      if (this.rooms.get(conversation.key)?.subscription !== subscription) return;
      if (detail === null || this.#client.state === "closed") return;
      this.rooms.delete(conversation.key);
      this.#worn = null;
      this.#note(conversation, `You are no longer in this room: ${detail.message}`);
    });
    roster.addEventListener("join", ({ detail }) => {
      this.#people.learn(detail);
      this.#goesOnWith(detail);
      conversation.comingOrGoing(this.#person(detail), "joined", Date.now());
    });
    roster.addEventListener("leave", ({ detail }) => {
      this.#people.learn(detail);
      conversation.comingOrGoing(this.#person(detail), "left", Date.now());
    });
    roster.addEventListener("change", () => {
      for (const member of roster.members.values()) this.#people.learn(member);
      this.#worn = null;
      this.#changed();
    });
  }

  /** The same over whatever connection, as far as the server can tell. */
  #person({ id, user }) {
    const name = this.#people.name(id);
    return { key: user ? `user ${user}` : `name ${name}`, name };
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

  #heard(conversation, message, epoch) {
    const entry = entryOf(message, epoch);
    const isOwn = entry.from !== undefined && this.#people.isOwn(entry.from);
    if (isOwn) {
      const sent = conversation.pending.find((one) => one.offset !== undefined && isSame(one, entry));
      // The message itself can be here before the server's word that it was taken.
      const same = sent ?? conversation.pending.find(({ text, offset }) => text === entry.text && offset === undefined);
      if (same) remove(conversation.pending, same);
    }
    conversation.append(entry);
    if (conversation.kind === "direct") this.#bound();
    // Who says something here and is in none of our rooms has a name as well.
    if (entry.from) this.#people.lookUp(this.#client, entry.from).then((isNews) => isNews && this.#changed());
    const isSeen = conversation === this.active && this.isLooking;
    if (!isOwn && !isSeen) {
      if (conversation.unread === 0) conversation.firstUnread = entry;
      conversation.unread += 1;
    }
    if (!isOwn) this.dispatchEvent(new CustomEvent("heard", { detail: { conversation, entry } }));
    this.#changed();
  }

  async #deliver(conversation, entry) {
    try {
      if (conversation.kind === "room") await this.#publish(conversation, entry);
      else if (conversation.kind === "direct") await this.#direct(conversation, entry);
      else await this.#client.broadcast(entry.text);
      if (conversation.kind === "all") remove(conversation.pending, entry);
    } catch (error) {
      entry.state = "failed";
      // Whoever refuses it has not sent it; without an answer nobody knows.
      if (["closed", "timeout", "transport"].includes(error.kind)) entry.unsureSince ??= entry.time;
      entry.problem = this.#why(conversation, error);
    }
    this.#changed();
  }

  async #publish(conversation, entry) {
    const { epoch, offset, duplicate } = await this.#published(conversation, entry);
    entry.epoch = epoch;
    entry.offset = offset;
    // It may have come already, taken for another one with the same text or long before this answer.
    if (duplicate || conversation.entries.some((said) => isSame(said, entry))) remove(conversation.pending, entry);
  }

  /** Publishes, if need be when the connection is back: the key makes it safe to ask again, for a while. */
  async #published(conversation, entry) {
    for (;;) {
      // What never left the page may wait for as long as it takes.
      let mayBeSent = this.#client.state === "open";
      const opened = () => (mayBeSent = true);
      this.#client.addEventListener("open", opened);
      const begun = Date.now();
      try {
        return await this.#client.publish(TOPIC_PREFIX + conversation.id, entry.text, { key: entry.key });
      } catch (error) {
        if (mayBeSent && error.kind === "timeout") entry.unsureSince ??= begun;
        if (error.kind !== "timeout" || this.#client.state !== "reconnecting") throw error;
      } finally {
        this.#client.removeEventListener("open", opened);
      }
      while (this.#client.state === "reconnecting") {
        await new Promise((changed) => this.#client.addEventListener("state", changed, { once: true }));
      }
      if (isKeyForgotten(entry)) throw new QwsError("timeout", "The connection was lost before the server’s answer.");
    }
  }

  async #direct(conversation, entry) {
    await this.#client.direct(conversation.id, entry.text);
    remove(conversation.pending, entry);
    // The server tells it to the other alone; to oneself it comes by itself.
    const { id } = this.#client;
    if (id !== conversation.id) conversation.append({ type: "message", time: Date.now(), from: id, text: entry.text });
    conversation.hasOwn = true;
    this.#bound();
  }

  #why(conversation, error) {
    if (conversation.kind === "direct" && error.code === 404) {
      return `${this.#people.name(conversation.id)} is not connected any more.`;
    }
    return error.message;
  }

  #note(conversation, text) {
    conversation.append({ type: "note", time: Date.now(), text });
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether the server may take it for another message by now. */
const isKeyForgotten = ({ unsureSince }) => unsureSince !== undefined && Date.now() - unsureSince > KEY_KNOWN_MS;

const isSame = (one, other) => one.offset === other.offset && one.epoch === other.epoch;

/** A message of the protocol as an entry. */
function entryOf({ offset, from, content, data, timestamp }, epoch) {
  const text = content ?? `(${(data?.length ?? 0).toLocaleString()} bytes that are not text)`;
  return { type: "message", time: timestamp, offset, epoch, from, text };
}

function remove(list, item) {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}
