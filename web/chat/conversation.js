// One conversation: a room, a direct conversation, or the broadcasts. Bounded in entries and in characters: the oldest
// are dropped and can be loaded again from a room's history. Independent of the page and of the connection.

export const MAX_ENTRIES = 10_000;
export const MAX_CHARACTERS = 8_000_000;
// The cost of an entry in addition to its text, in characters.
const ENTRY_CHARACTERS = 100;
// Entries are dropped this many at a time, because removing the first element of an array moves all others.
const SLACK = 500;
// People who join and leave within this time share one line.
const PRESENCE_TOGETHER_MS = 120_000;

/**
 * @typedef {object} Entry
 * @property {"message" | "presence" | "gap" | "note" | "pending"} type
 * @property {number} time Unix milliseconds
 * @property {number} [offset] in the room's log
 * @property {string} [epoch] of a room's log; set if there is an offset, and on "gap"
 * @property {string} [from] client id
 * @property {string} [text] of a message or note
 * @property {Person[]} [joined] of "presence"
 * @property {Person[]} [left] of "presence"
 * @property {number} [first] offset of the first missing message, of "gap"
 * @property {number} [last] offset of the last missing message, of "gap"
 * @property {"sending" | "failed" | "fetching" | "gone"} [state] of "pending" and "gap"
 * @property {string} [key] idempotency key of "pending", the same for every attempt to publish it
 * @property {string} [problem] the reason for a failure
 * @property {number} [unsureSince] of "pending": time of the first attempt without an answer; it may have been sent
 */

/** @typedef {{ key: string, name: string }} Person `key` identifies a person across connections */

export class Conversation {
  /** @type {Entry[]} oldest first */
  entries = [];
  /** @type {Entry[]} own messages that the server has not accepted yet, shown below all others */
  pending = [];
  /** Number of messages received since it was last read. */
  unread = 0;
  /** The first unread message. @type {Entry | null} */
  firstUnread = null;
  /** The current epoch of the room's log. @type {string | undefined} */
  epoch;
  /** Whether the history may have messages before the first entry. */
  hasEarlier = false;
  /** Whether earlier messages did not fit. */
  isFull = false;
  isLoadingEarlier = false;
  /** The text that is typed but not sent. */
  draft = "";
  /** Whether the user has sent a message here. */
  hasOwn = false;
  #characters = 0;

  /**
   * @param {"room" | "direct" | "all"} kind
   * @param {string} id the room's name, what identifies the other person (`personOf`), or ""
   */
  constructor(kind, id) {
    this.kind = kind;
    this.id = id;
    this.key = `${kind}:${id}`;
  }

  /** Its size in characters. */
  get size() {
    return this.#characters;
  }

  /** Whether the user has written here or is about to. */
  get isAnswered() {
    return this.hasOwn || this.pending.length > 0 || this.draft !== "";
  }

  /** Starts a new epoch of the room's log: messages of the previous one that are not here are gone. */
  startEpoch(epoch) {
    if (epoch === this.epoch) return;
    this.epoch = epoch;
    this.hasEarlier = this.isFull = false;
    for (const entry of this.entries) if (entry.type === "gap") entry.state = "gone";
  }

  /** Drops the oldest entries until at most this many characters are left. The newest entry always stays. */
  shrink(characters) {
    let dropped = 0;
    let held = this.#characters;
    while (dropped < this.entries.length - 1 && held > characters) {
      held -= weight(this.entries[dropped]);
      dropped += 1;
    }
    this.#drop(dropped);
  }

  /** Adds a new entry. */
  append(entry) {
    this.entries.push(entry);
    this.#characters += weight(entry);
    if (this.entries.length > MAX_ENTRIES + SLACK || this.#characters > MAX_CHARACTERS) this.#trim();
  }

  /** Adds entries before the first one, as many as fit. `entries` are ordered oldest first. */
  prepend(entries) {
    const room = MAX_ENTRIES - this.entries.length;
    const fitting = room > 0 ? entries.slice(-room) : [];
    this.entries.unshift(...fitting);
    for (const entry of fitting) this.#characters += weight(entry);
    this.isFull = fitting.length < entries.length;
  }

  /** Inserts missing messages before the gap, and removes the gap if it is closed. */
  fill(gap, entries, isClosed) {
    const at = this.entries.indexOf(gap);
    if (at < 0) return;
    this.entries.splice(at, isClosed ? 1 : 0, ...entries);
    for (const entry of entries) this.#characters += weight(entry);
    if (isClosed) this.#characters -= weight(gap);
  }

  /**
   * Records that someone joined or left, on the same line as recent joins and leaves.
   * @param {Person} person
   * @param {"joined" | "left"} list
   * @param {number} time
   */
  notePresence(person, list, time) {
    const newest = this.entries.at(-1);
    if (newest?.type === "presence" && time - newest.time < PRESENCE_TOGETHER_MS) {
      const other = list === "joined" ? "left" : "joined";
      const at = newest[other].findIndex(({ key }) => key === person.key);
      // A person who comes back is no news. Neither is one who switches connections: there, the new one joins first.
      if (at >= 0) newest[other].splice(at, 1);
      else newest[list].push(person);
      if (newest.joined.length + newest.left.length === 0) this.#characters -= weight(this.entries.pop());
      return;
    }
    this.append({ type: "presence", time, joined: [], left: [], [list]: [person] });
  }

  /** Position of the oldest message in the room's log, or `null`. */
  get oldest() {
    const oldest = this.entries.find((entry) => entry.offset !== undefined);
    return oldest ? { epoch: oldest.epoch, offset: oldest.offset } : null;
  }

  markRead() {
    this.unread = 0;
  }

  #trim() {
    this.#drop(Math.max(0, this.entries.length - MAX_ENTRIES));
    if (this.#characters > MAX_CHARACTERS) this.shrink(MAX_CHARACTERS * 0.9);
  }

  #drop(count) {
    if (count === 0) return;
    const gone = this.entries.splice(0, count);
    for (const entry of gone) this.#characters -= weight(entry);
    const isInHistory = (entry) => entry.type === "message" && entry.epoch === this.epoch;
    if (this.kind === "room" && gone.some(isInHistory)) this.hasEarlier = true;
    this.isFull = false;
  }
}

const weight = (entry) => ENTRY_CHARACTERS + (entry.text?.length ?? 0);

/** Converts a message of the protocol to an entry. */
export function entryOf({ offset, from, content, json, bytes, timestamp }, epoch) {
  const length = bytes?.length ?? 0;
  const binary = `(binary message, ${length.toLocaleString()} ${length === 1 ? "byte" : "bytes"})`;
  const text = content ?? json ?? binary;
  return { type: "message", time: timestamp, offset, epoch, from, text };
}
