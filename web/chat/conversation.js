// What was said in one place: a room, between two people, or to everyone. Bounded in entries and in characters: the oldest
// go, and a room's history gives them back. Knows nothing of the page or of the connection.

export const MOST_ENTRIES = 10_000;
export const MOST_CHARACTERS = 8_000_000;
// What an entry costs beside its text, in characters.
const ENTRY_CHARACTERS = 100;
// Dropped this many at once, as taking the first off an array moves all others.
const SLACK = 500;
// People who come and go within this time stand on one line.
const COMINGS_TOGETHER_MS = 120_000;

/**
 * @typedef {object} Entry
 * @property {"message" | "comings" | "gap" | "note" | "pending"} type
 * @property {number} time Unix milliseconds
 * @property {number} [offset] in the room's log
 * @property {string} [epoch] of a room's log, which begins anew with another: of what has an offset, and of "gap"
 * @property {string} [from] client id
 * @property {string} [text] of a message or note
 * @property {Person[]} [joined] of "comings"
 * @property {Person[]} [left] of "comings"
 * @property {number} [first] offset of the first that is missing, of "gap"
 * @property {number} [last] offset of the last that is missing, of "gap"
 * @property {"sending" | "failed" | "fetching" | "gone"} [state] of "pending" and "gap"
 * @property {string} [key] of "pending": under which it is published, however often that is tried
 * @property {string} [problem] why it failed
 * @property {number} [unsureSince] of "pending": when it was tried first without an answer; it may have been sent
 */

/** @typedef {{ key: string, name: string }} Person by `key` one knows that it is the same */

export class Conversation {
  /** @type {Entry[]} oldest first */
  entries = [];
  /** @type {Entry[]} own messages that the server has not taken yet; they stand below all others */
  pending = [];
  /** Messages that came since it was last looked at. */
  unread = 0;
  /** The first of them. @type {Entry | null} */
  firstUnread = null;
  /** The life of the room's log that goes on now. @type {string | undefined} */
  epoch;
  /** Whether there may be more before the first entry. */
  hasEarlier = false;
  /** Whether what is before the first entry found no room here any more. */
  isFull = false;
  isLoadingEarlier = false;
  /** What is typed and not sent. */
  draft = "";
  /** Whether one has said something here oneself. */
  hasOwn = false;
  #characters = 0;

  /**
   * @param {"room" | "direct" | "all"} kind
   * @param {string} id the room's name, the other's client id, or ""
   */
  constructor(kind, id) {
    this.kind = kind;
    this.id = id;
    this.key = `${kind}:${id}`;
  }

  /** How much it holds, in characters. */
  get size() {
    return this.#characters;
  }

  /** Whether one has written here oneself, or is about to. */
  get isAnswered() {
    return this.hasOwn || this.pending.length > 0 || this.draft !== "";
  }

  /** The room's log is in another life: what the one before had besides what is here is gone. */
  beginAnew(epoch) {
    if (epoch === this.epoch) return;
    this.epoch = epoch;
    this.hasEarlier = this.isFull = false;
    for (const entry of this.entries) if (entry.type === "gap") entry.state = "gone";
  }

  /** Lets the oldest entries go until no more than so many characters are held; the newest stays. */
  shrink(characters) {
    let dropped = 0;
    let held = this.#characters;
    while (dropped < this.entries.length - 1 && held > characters) {
      held -= weight(this.entries[dropped]);
      dropped += 1;
    }
    this.#drop(dropped);
  }

  /** Adds what has just come. */
  append(entry) {
    this.entries.push(entry);
    this.#characters += weight(entry);
    if (this.entries.length > MOST_ENTRIES + SLACK || this.#characters > MOST_CHARACTERS) this.#trim();
  }

  /** Adds what was before the first one, oldest first, as far as there is room. */
  prepend(entries) {
    const room = MOST_ENTRIES - this.entries.length;
    const fitting = room > 0 ? entries.slice(-room) : [];
    this.entries.unshift(...fitting);
    for (const entry of fitting) this.#characters += weight(entry);
    this.isFull = fitting.length < entries.length;
  }

  /** Puts what was missing before the gap's place, and takes the gap out where it is closed. */
  fill(gap, entries, isClosed) {
    const at = this.entries.indexOf(gap);
    if (at < 0) return;
    this.entries.splice(at, isClosed ? 1 : 0, ...entries);
    for (const entry of entries) this.#characters += weight(entry);
    if (isClosed) this.#characters -= weight(gap);
  }

  /**
   * Notes that somebody came or left, on the line of those just before.
   * @param {Person} person
   * @param {"joined" | "left"} list
   * @param {number} time
   */
  comingOrGoing(person, list, time) {
    const newest = this.entries.at(-1);
    if (newest?.type === "comings" && time - newest.time < COMINGS_TOGETHER_MS) {
      const other = list === "joined" ? "left" : "joined";
      const at = newest[other].findIndex(({ key }) => key === person.key);
      // Who came back is no news; neither is who goes on over another connection, where the new one comes first.
      if (at >= 0) newest[other].splice(at, 1);
      else newest[list].push(person);
      if (newest.joined.length + newest.left.length === 0) this.#characters -= weight(this.entries.pop());
      return;
    }
    this.append({ type: "comings", time, joined: [], left: [], [list]: [person] });
  }

  /** Where the oldest message here stands in the room's log, or `null`. */
  get oldest() {
    const oldest = this.entries.find((entry) => entry.offset !== undefined);
    return oldest ? { epoch: oldest.epoch, offset: oldest.offset } : null;
  }

  looked() {
    this.unread = 0;
  }

  #trim() {
    this.#drop(Math.max(0, this.entries.length - MOST_ENTRIES));
    if (this.#characters > MOST_CHARACTERS) this.shrink(MOST_CHARACTERS * 0.9);
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

/** A message of the protocol as an entry. */
export function entryOf({ offset, from, content, data, timestamp }, epoch) {
  const text = content ?? `(${(data?.length ?? 0).toLocaleString()} bytes that are not text)`;
  return { type: "message", time: timestamp, offset, epoch, from, text };
}
