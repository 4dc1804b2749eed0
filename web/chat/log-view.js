// The log of the active conversation. The page holds only a window of it: a bounded number of rows that moves with
// scrolling, and keeps the reader's place while entries change above or below.

import { byId, el, reconcile } from "../ui/dom.js";
import { rowsOf } from "./rows.js";

const MAX_ROWS = 160;
const STEP = 60;
// Distance from the window's edge at which it moves by a step, and from the end that counts as the end, in pixels.
const NEAR_EDGE = 400;
const NEAR_END = 48;
// Rows that move when earlier entries are added, so they cannot be an anchor.
const MOVING = new Set(["earlier", "full", "day"]);

export class LogView {
  #chat;
  #log = byId("log");
  #list = byId("log-entries");
  #jump = byId("jump-to-latest");
  #jumpText = byId("jump-text");
  #rows;
  #shown = null;
  /** Whether the log follows its end. */
  #isAtEnd = true;
  /** The first entry of the window while the end is not followed. */
  #first = null;
  #isComplete = true;
  #resized;

  /**
   * @param {import("./chat.js").Chat} chat
   * @param {import("../ui/people.js").People} people
   * @param {object} how
   * @param {(event: Event) => void} how.onInvite copies the room's link
   * @param {AbortSignal} how.signal ends it
   */
  constructor(chat, people, { onInvite, signal }) {
    this.#chat = chat;
    // Content that the reader expands must not scroll away.
    this.#rows = rowsOf(chat, people, { onExpand: () => this.#unpin(), onInvite });
    this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true, signal });
    this.#jump.addEventListener("click", () => this.toEnd(), { signal });
    document.addEventListener("visibilitychange", () => this.#reportVisibility(), { signal });
    this.#resized = new ResizeObserver(() => {
      if (this.#isAtEnd) this.#log.scrollTop = this.#log.scrollHeight;
    });
    this.#resized.observe(this.#log);
    this.#resized.observe(this.#list);
    signal.addEventListener("abort", () => this.#resized.disconnect());
  }

  /** Shows the current state. */
  render() {
    const conversation = this.#chat.active;
    if (conversation !== this.#shown) {
      this.#shown = conversation;
      this.#isAtEnd = true;
      this.#list.replaceChildren();
    }
    const anchors = this.#isAtEnd ? [] : this.#anchors();
    this.#fill(conversation);
    const anchor = anchors.find(({ row }) => row.isConnected);
    if (this.#isAtEnd) this.#log.scrollTop = this.#log.scrollHeight;
    else if (anchor) this.#log.scrollTop = anchor.row.offsetTop - anchor.above;
    this.#reportVisibility();
    this.#showJump();
    // A reader who waits at the top does not scroll again once earlier entries arrive, so the window moves here too.
    const hasBefore = conversation.entries[0] !== this.#first;
    if (!this.#isAtEnd && hasBefore && this.#log.scrollTop < NEAR_EDGE) this.#back();
  }

  /** Scrolls to the newest entry and follows the end. */
  toEnd() {
    this.#isAtEnd = true;
    this.render();
    this.#log.focus({ preventScroll: true });
  }

  /** Follows the end from the next rendering on, as after sending a message. */
  follow() {
    this.#isAtEnd = true;
  }

  #fill(conversation) {
    const { entries, pending } = conversation;
    let from = entries.length - MAX_ROWS;
    // The window's first entry may have been dropped; then the window starts at the oldest one left.
    if (!this.#isAtEnd) from = entries.indexOf(this.#first);
    from = Math.max(0, from);
    const to = Math.min(entries.length, from + MAX_ROWS);
    this.#first = entries[from] ?? null;
    this.#isComplete = to === entries.length;

    const rows = [];
    if (from === 0 && conversation.hasEarlier) rows.push(this.#rows.earlier(conversation));
    for (let at = from; at < to; at += 1) {
      rows.push(...this.#rows.entry(conversation, entries[at], entries[at - 1] ?? null));
    }
    if (this.#isComplete) {
      const shown = pending.slice(-MAX_ROWS);
      shown.forEach((entry, at) =>
        rows.push(...this.#rows.entry(conversation, entry, shown[at - 1] ?? entries.at(-1) ?? null)),
      );
    }
    if (rows.length === 0) rows.push(this.#rows.empty(conversation));
    const hadFocus = this.#list.contains(document.activeElement);
    reconcile(this.#list, rows);
    // The button that was pressed may have been removed with its row.
    if (hadFocus && !this.#list.contains(document.activeElement)) this.#log.focus({ preventScroll: true });
  }

  /** The visible rows and their positions. Rows may be replaced or removed; the first one that stays is the anchor. */
  #anchors() {
    const top = this.#log.scrollTop;
    const bottom = top + this.#log.clientHeight;
    const anchors = [];
    for (const row of this.#list.children) {
      const { offsetTop } = row;
      if (offsetTop > bottom) break;
      const isSeen = offsetTop + row.offsetHeight > top;
      if (isSeen && !MOVING.has(row.dataset.type)) anchors.push({ row, above: offsetTop - top });
    }
    return anchors;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    const below = scrollHeight - scrollTop - clientHeight;
    if (this.#isComplete && below < NEAR_END) {
      this.#isAtEnd = true;
    } else {
      this.#unpin();
      if (scrollTop < NEAR_EDGE) this.#back();
      else if (below < NEAR_EDGE) this.#forth();
    }
    this.#reportVisibility();
    this.#showJump();
  }

  #unpin() {
    this.#isAtEnd = false;
  }

  #back() {
    const { entries } = this.#shown;
    const from = entries.indexOf(this.#first);
    if (from > 0) {
      this.#first = entries[Math.max(0, from - STEP)];
      this.render();
    } else if (this.#shown.hasEarlier) {
      this.#chat.loadEarlier(this.#shown);
    }
  }

  #forth() {
    const { entries } = this.#shown;
    const from = entries.indexOf(this.#first);
    const next = Math.min(from + STEP, entries.length - MAX_ROWS);
    if (from < 0 || next <= from) return;
    this.#first = entries[next];
    this.render();
  }

  #reportVisibility() {
    this.#chat.setViewing(this.#isAtEnd && document.visibilityState === "visible");
  }

  #showJump() {
    this.#jump.hidden = this.#isAtEnd;
    const { unread } = this.#chat.active;
    const some = unread === 1 ? "1 new message" : `${unread.toLocaleString()} new messages`;
    const text = unread === 0 ? "Latest messages" : some;
    if (this.#jumpText.textContent !== text) this.#jumpText.textContent = text;
  }
}
