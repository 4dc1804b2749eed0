// A joined room (topic `chat.<room>`, as in the terminal client of examples/): its messages, its history, and who joins
// and leaves. Independent of other conversations.

import { QwsError } from "../qws.js";
import { Roster } from "../ui/roster.js";
import { Conversation, entryOf } from "./conversation.js";
import { Typists } from "./typists.js";

export const TOPIC_PREFIX = "chat.";
// Number of messages loaded when joining, and with each earlier page.
const RECENT = 60;
const PAGE = 100;

/**
 * Dispatches "change" when anything visible has changed, "message" (detail: the entry, not yet in the conversation),
 * "return" (detail: the member, and the id that it had), "members" when the roster has changed, and "end" (detail: the
 * error) when the server ends the subscription.
 */
export class Room extends EventTarget {
  /** @type {Conversation} */
  conversation;
  /** Its members; `null` before joining. @type {Roster | null} */
  roster = null;
  #client;
  #people;
  #topic;
  /** @type {import("../qws.js").Subscription | null} */
  #subscription = null;
  #typists = new Typists(() => this.#changed());

  /**
   * @param {import("../qws.js").Client} client connected
   * @param {import("../ui/people.js").People} people
   * @param {string} name
   */
  constructor(client, people, name) {
    super();
    this.#client = client;
    this.#people = people;
    this.#topic = TOPIC_PREFIX + name;
    this.conversation = new Conversation("room", name);
  }

  /** Joins the room and loads its latest messages. Rejects if the server refuses. */
  async enter() {
    const { conversation } = this;
    const past = await this.#past();
    const newest = past?.messages[0];
    // The subscription starts where the loaded history ends, so nothing is missed in between. In an empty room,
    // `recent` covers messages that are published before the subscription starts.
    const from = newest
      ? { since: { epoch: past.epoch, offset: newest.offset } }
      : past === null
        ? {}
        : { recent: RECENT };

    conversation.epoch = past?.epoch || undefined;
    for (const message of past?.messages.toReversed() ?? []) conversation.append(this.#entry(message, past.epoch));
    conversation.hasEarlier = past?.more ?? false;

    this.#subscription = this.#client.subscribe(this.#topic, { ...from, presence: true });
    this.roster = new Roster(this.#client, this.#subscription);
    this.#listen();
    const { epoch } = (await this.#subscription.ready) ?? {};
    conversation.epoch ??= epoch ?? undefined;
  }

  /** Whether the user may write here. */
  get mayWrite() {
    return this.#subscription?.mayPublish !== false;
  }

  /** The IDs of the clients of those who are typing. */
  get typing() {
    return this.#typists.ids;
  }

  /** Shows the user's state to the other members. */
  show(state) {
    // Without presence there are no members to show it to; and what the server does not take is not missed.
    this.#subscription?.setState(state).catch(() => {});
  }

  async leave() {
    this.#typists.stop();
    await this.#subscription.unsubscribe();
  }

  /** The entry of a message, whose sender's name is remembered. */
  #entry(message, epoch) {
    this.#people.learnSender(message);
    return entryOf(message, epoch);
  }

  /** Loads the messages before the first entry. */
  async loadEarlier() {
    const { conversation } = this;
    const since = conversation.oldest;
    if (conversation.isLoadingEarlier || conversation.isFull || !conversation.hasEarlier || !since?.epoch) return;
    const { epoch } = since;
    conversation.isLoadingEarlier = true;
    this.#changed();
    try {
      const page = await this.#client.history(this.#topic, {
        since,
        limit: PAGE,
        reverse: true,
      });
      // After an epoch change the page starts at the end of the new log, which is not what was asked for.
      const isOurs = page.epoch === epoch;
      if (isOurs) conversation.prepend(page.messages.toReversed().map((message) => this.#entry(message, epoch)));
      const goesOn = isOurs && epoch === conversation.epoch;
      conversation.hasEarlier = goesOn && page.more && page.messages.length > 0;
    } catch (error) {
      conversation.hasEarlier = false;
      this.note(`Earlier messages could not be loaded: ${error.message}`);
    } finally {
      conversation.isLoadingEarlier = false;
      this.#changed();
    }
  }

  /** Loads messages that the server dropped for this client, one page at a time. */
  async fillGap(gap) {
    const { epoch } = gap;
    if (gap.state !== undefined || !epoch) return;
    gap.state = "fetching";
    this.#changed();
    try {
      const page = await this.#client.history(this.#topic, {
        since: { epoch, offset: gap.first - 1 },
        limit: PAGE,
      });
      const missing = page.epoch === epoch ? page.messages.filter(({ offset }) => offset <= gap.last) : [];
      const isClosed = missing.length < page.messages.length || !page.more || missing.at(-1)?.offset === gap.last;
      if (missing.length === 0) {
        gap.state = "gone";
      } else {
        this.conversation.fill(
          gap,
          missing.map((message) => this.#entry(message, epoch)),
          isClosed,
        );
        gap.first = missing.at(-1).offset + 1;
        gap.state = undefined;
      }
    } catch (error) {
      gap.state = error instanceof QwsError && error.code === 404 ? "gone" : undefined;
      gap.problem = error.message;
    }
    this.#changed();
  }

  /** Adds a line with a note about the room. */
  note(text) {
    this.conversation.append({ type: "note", time: Date.now(), text });
    this.#changed();
  }

  /** The newest messages, newest first; an empty page if there are none, `null` if history is not allowed. */
  async #past() {
    try {
      return await this.#client.history(this.#topic, { limit: RECENT, reverse: true });
    } catch (error) {
      if (error.code === 404) return { epoch: "", messages: [], more: false };
      if (error.code === 403) return null;
      throw error;
    }
  }

  #listen() {
    const { conversation, roster } = this;
    const subscription = this.#subscription;
    subscription.addEventListener("message", ({ detail }) => {
      const epoch = subscription.position?.epoch;
      conversation.epoch ??= epoch;
      this.#typists.heard(detail.from);
      this.#dispatch("message", this.#entry(detail, epoch));
    });
    subscription.addEventListener("gap", ({ detail: { first, last } }) => {
      conversation.append({ type: "gap", time: Date.now(), first, last, epoch: subscription.position?.epoch });
      // Accepted messages within the gap will not be delivered.
      conversation.pending = conversation.pending.filter(({ offset }) => !(offset >= first && offset <= last));
      this.#changed();
    });
    subscription.addEventListener("lost", ({ detail }) => {
      const isNewEpoch =
        Boolean(detail.epoch) && conversation.epoch !== undefined && detail.epoch !== conversation.epoch;
      if (detail.epoch) conversation.startEpoch(detail.epoch);
      // Accepted messages that will not be delivered are dropped.
      const isToCome = ({ offset, epoch }) =>
        offset === undefined || (epoch === detail.epoch && offset > detail.offset);
      conversation.pending = conversation.pending.filter(isToCome);
      const why = isNewEpoch ? "The server restarted." : "The server does not keep messages that long.";
      this.note(`${why} Messages sent while you were away may be missing.`);
    });
    subscription.addEventListener("end", ({ detail }) => {
      this.#typists.stop();
      if (detail !== null && this.#client.state !== "closed") this.#dispatch("end", detail);
    });
    roster.addEventListener("join", ({ detail }) => {
      this.#people.learn(detail);
      this.#typists.showed(detail);
      // Another device of somebody who is here is no news.
      if (!roster.hasOther(detail)) conversation.notePresence(this.#person(detail), "joined", Date.now());
    });
    roster.addEventListener("leave", ({ detail }) => {
      this.#people.learn(detail);
      this.#typists.heard(detail.id);
      if (!roster.hasOther(detail)) conversation.notePresence(this.#person(detail), "left", Date.now());
    });
    roster.addEventListener("return", ({ detail }) => {
      this.#people.learn(detail.member);
      this.#typists.heard(detail.was);
      this.#typists.showed(detail.member);
      this.#dispatch("return", detail);
    });
    roster.addEventListener("state", ({ detail }) => {
      if (detail.id !== this.#client.id) this.#typists.showed(detail);
    });
    roster.addEventListener("change", () => {
      for (const member of roster.members.values()) this.#people.learn(member);
      this.#dispatch("members");
    });
  }

  /** A person, identified across connections as well as the server can. */
  #person({ id, user }) {
    const name = this.#people.name(id);
    return { key: user ? `user ${user}` : `name ${name}`, name };
  }

  #changed() {
    this.#dispatch("change");
  }

  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
