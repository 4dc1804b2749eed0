// A room that one is in (topic `chat.<room>`, as in the terminal client of examples/): what is said there, what was said
// before, and who comes and goes. Knows nothing of other conversations.

import { QwsError } from "../qws.js";
import { Roster } from "../ui/roster.js";
import { Conversation, entryOf } from "./conversation.js";

export const TOPIC_PREFIX = "chat.";
// How much of what was said before is shown to who comes in, and how much comes with each look further back.
const RECENT = 60;
const PAGE = 100;

/**
 * Dispatches "change" when anything to show has changed, "message" (detail: the entry, which is not in the conversation yet),
 * "join" (detail: the member), "members" when others are there than before, and "end" (detail: the error) when the server lets
 * one stay no longer.
 */
export class Room extends EventTarget {
  /** @type {Conversation} */
  conversation;
  /** Who is there; `null` before one has entered. @type {Roster | null} */
  roster = null;
  #client;
  #people;
  #topic;
  /** @type {import("../qws.js").Subscription | null} */
  #subscription = null;

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

  /** Enters it, with what was said last. Rejects where the server does not let one in. */
  async enter() {
    const { conversation } = this;
    const past = await this.#past();
    const newest = past?.messages[0];
    // With nothing between what is shown now and what comes; where nothing was said yet, what is said first may be said
    // before this is there.
    const from = newest ? { since: { epoch: past.epoch, offset: newest.offset } } : past === null ? {} : { recent: RECENT };

    conversation.epoch = past?.epoch || undefined;
    for (const message of past?.messages.toReversed() ?? []) conversation.append(entryOf(message, past.epoch));
    conversation.hasEarlier = past?.more ?? false;

    this.#subscription = this.#client.subscribe(this.#topic, { ...from, presence: true });
    this.roster = new Roster(this.#client, this.#subscription);
    this.#listen();
    const { epoch } = (await this.#subscription.ready) ?? {};
    conversation.epoch ??= epoch ?? undefined;
  }

  /** Whether one may say something here. */
  get mayWrite() {
    return this.#subscription?.mayPublish !== false;
  }

  async leave() {
    await this.#subscription.unsubscribe();
  }

  /** Fetches what was said before the first entry. */
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
      // In another epoch the answer begins at its end: that is not what was asked for.
      const isOurs = page.epoch === epoch;
      if (isOurs) conversation.prepend(page.messages.toReversed().map((message) => entryOf(message, epoch)));
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

  /** Fetches what the server dropped for us, a page at a time. */
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
        this.conversation.fill(gap, missing.map((message) => entryOf(message, epoch)), isClosed);
        gap.first = missing.at(-1).offset + 1;
        gap.state = undefined;
      }
    } catch (error) {
      gap.state = error instanceof QwsError && error.code === 404 ? "gone" : undefined;
      gap.problem = error.message;
    }
    this.#changed();
  }

  /** Tells something about the room on a line of its own. */
  note(text) {
    this.conversation.append({ type: "note", time: Date.now(), text });
    this.#changed();
  }

  /** The newest messages, newest first; an empty page where nothing was said yet, `null` where we may not look. */
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
      this.#tell("message", entryOf(detail, epoch));
    });
    subscription.addEventListener("gap", ({ detail: { first, last } }) => {
      conversation.append({ type: "gap", time: Date.now(), first, last, epoch: subscription.position?.epoch });
      // What was taken and falls into the gap does not come by itself.
      conversation.pending = conversation.pending.filter(({ offset }) => !(offset >= first && offset <= last));
      this.#changed();
    });
    subscription.addEventListener("lost", ({ detail }) => {
      const isAnotherLife = Boolean(detail.epoch) && conversation.epoch !== undefined && detail.epoch !== conversation.epoch;
      if (detail.epoch) conversation.beginAnew(detail.epoch);
      // What was taken and is not going to come.
      const isToCome = ({ offset, epoch }) => offset === undefined || (epoch === detail.epoch && offset > detail.offset);
      conversation.pending = conversation.pending.filter(isToCome);
      const why = isAnotherLife ? "The server restarted." : "The server does not keep messages for that long.";
      this.note(`${why} Messages sent while you were away may be missing.`);
    });
    subscription.addEventListener("end", ({ detail }) => {
      if (detail !== null && this.#client.state !== "closed") this.#tell("end", detail);
    });
    roster.addEventListener("join", ({ detail }) => {
      this.#people.learn(detail);
      this.#tell("join", detail);
      conversation.comingOrGoing(this.#person(detail), "joined", Date.now());
    });
    roster.addEventListener("leave", ({ detail }) => {
      this.#people.learn(detail);
      conversation.comingOrGoing(this.#person(detail), "left", Date.now());
    });
    roster.addEventListener("change", () => {
      for (const member of roster.members.values()) this.#people.learn(member);
      this.#tell("members");
    });
  }

  /** The same over whatever connection, as far as the server can tell. */
  #person({ id, user }) {
    const name = this.#people.name(id);
    return { key: user ? `user ${user}` : `name ${name}`, name };
  }

  #changed() {
    this.#tell("change");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
