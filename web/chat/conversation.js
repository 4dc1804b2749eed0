// What was said in one place: a room, between two people, or to everyone. Bounded in entries and in characters: the oldest
// go, and a room's history gives them back. Knows nothing of the page or of the connection.

export const MOST_ENTRIES = 10_000;
export const MOST_CHARACTERS = 8_000_000;
// Dropped this many at once, as taking the first off an array moves all others.
const SLACK = 500;
// People who come and go within this time stand on one line.
const COMINGS_TOGETHER_MS = 120_000;

/**
 * @typedef {object} Entry
 * @property {"message" | "comings" | "gap" | "note" | "pending"} type
 * @property {number} time Unix milliseconds
 * @property {number} [offset] in the room's log
 * @property {string} [from] client id
 * @property {string} [text] of a message or note
 * @property {string[]} [joined] names, of "comings"
 * @property {string[]} [left] names, of "comings"
 * @property {number} [first] offset of the first that is missing, of "gap"
 * @property {number} [last] offset of the last that is missing, of "gap"
 * @property {"sending" | "failed" | "fetching" | "gone"} [state] of "pending" and "gap"
 * @property {string} [key] of "pending": under which it is published, however often that is tried
 * @property {string} [problem] why it failed
 */

export class Conversation {
  /** @type {Entry[]} oldest first */
  entries = [];
  /** @type {Entry[]} own messages that the server has not taken yet; they stand below all others */
  pending = [];
  /** Messages that came since it was last looked at. */
  unread = 0;
  /** The first of them. @type {Entry | null} */
  firstUnread = null;
  /** Whether there may be more before the first entry. */
  hasEarlier = false;
  /** Whether what is before the first entry found no room here any more. */
  isFull = false;
  isLoadingEarlier = false;
  /** What is typed and not sent. */
  draft = "";
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
  }

  /** Notes that somebody came or left, on the line of those just before. */
  comingOrGoing(name, list, time) {
    const newest = this.entries.at(-1);
    if (newest?.type === "comings" && time - newest.time < COMINGS_TOGETHER_MS) {
      const other = list === "joined" ? "left" : "joined";
      const at = newest[other].indexOf(name);
      // Who came back is no news.
      if (list === "joined" && at >= 0) newest[other].splice(at, 1);
      else newest[list].push(name);
      if (newest.joined.length + newest.left.length === 0) this.entries.pop();
      return;
    }
    this.append({ type: "comings", time, joined: [], left: [], [list]: [name] });
  }

  /** The offset of the oldest message here, or `null`. */
  get oldestOffset() {
    return this.entries.find((entry) => entry.offset !== undefined)?.offset ?? null;
  }

  looked() {
    this.unread = 0;
  }

  #trim() {
    let dropped = 0;
    while (
      dropped < this.entries.length - 1 &&
      (this.entries.length - dropped > MOST_ENTRIES || this.#characters > MOST_CHARACTERS * 0.9)
    ) {
      this.#characters -= weight(this.entries[dropped]);
      dropped += 1;
    }
    const gone = this.entries.splice(0, dropped);
    if (this.kind === "room" && gone.some((entry) => entry.type === "message")) this.hasEarlier = true;
    this.isFull = false;
  }
}

const weight = (entry) => entry.text?.length ?? 0;
